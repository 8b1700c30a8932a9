//! Events in: recorded once under `(source, id)` before anybody is told that they were accepted. What they start is
//! decided afterwards (`dispatch`), so that one event or trigger that cannot be routed never holds up intake.

use std::collections::HashMap;

use refit_workflows::event::CloudEvent;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::Receipt;

use super::database::{Transaction, sql};
use super::{Hints, Store, StoreError, to_json};
use crate::engine::DeadLetter;

/// What recording a delivery came to.
#[derive(Debug)]
pub struct Recorded {
    /// One per event, in the order given.
    pub receipts: Vec<Receipt>,
    /// Whom to wake.
    pub hints: Hints,
}

/// Where a new event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// To be routed.
    Open,
    /// Routed by the caller.
    Done,
}

/// A second delivery is counted and changes nothing else.
const RECORD: &str = "INSERT INTO events (id, source, type, subject, received_at, routed, duplicates, body)
    VALUES ($1, $2, $3, $4, $5, $6, 0, $7)
    ON CONFLICT (source, id) DO UPDATE SET duplicates = events.duplicates + 1
    RETURNING seq, duplicates";
const BURY: &str =
    "INSERT INTO dead_letters (source, reason, received_at, context, body) VALUES ($1, $2, $3, $4, $5)";

impl Store {
    /// Records events and dead letters in one transaction.
    pub async fn record(
        &self,
        events: Vec<CloudEvent>,
        dead: Vec<DeadLetter>,
    ) -> Result<Recorded, StoreError> {
        let (events, dead) = (std::sync::Arc::new(events), std::sync::Arc::new(dead));
        self.durably(move |store| {
            let (events, dead) = (events.clone(), dead.clone());
            async move {
                let now = store.clock().now();
                let mut tx = store.database().begin().await?;
                // Two replicas with the same events must lock them in the same order.
                let mut order: Vec<usize> = (0..events.len()).collect();
                order.sort_by_key(|&place| (events[place].source(), events[place].id()));
                let mut duplicates: HashMap<usize, bool> = HashMap::new();
                for place in order {
                    let (_, duplicate) = store.record_in(&mut tx, &events[place], Routing::Open, now).await?;
                    duplicates.insert(place, duplicate);
                }
                for letter in dead.iter() {
                    store.bury_in(&mut tx, letter, now).await?;
                }
                tx.commit().await?;
                let receipts: Vec<Receipt> = events
                    .iter()
                    .enumerate()
                    .map(|(place, event)| Receipt {
                        id: event.id().to_owned(),
                        source: event.source().to_owned(),
                        duplicate: duplicates.get(&place).copied().unwrap_or_default(),
                    })
                    .collect();
                let hints =
                    Hints { events: receipts.iter().any(|receipt| !receipt.duplicate), ..Hints::default() };
                Ok(Recorded { receipts, hints })
            }
        })
        .await
    }

    /// Records one event; returns its place and whether it was there already.
    pub(super) async fn record_in(
        &self,
        tx: &mut Transaction,
        event: &CloudEvent,
        routing: Routing,
        now: Timestamp,
    ) -> Result<(i64, bool), StoreError> {
        let row = tx
            .one(
                sql(RECORD)
                    .bind(event.id())
                    .bind(event.source())
                    .bind(event.kind())
                    .bind(event.subject())
                    .bind(now.as_millis())
                    .bind(i64::from(routing == Routing::Done))
                    .bind(event.to_json()),
            )
            .await?;
        Ok((row.int("seq")?, row.int("duplicates")? > 0))
    }

    async fn bury_in(
        &self,
        tx: &mut Transaction,
        letter: &DeadLetter,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        tx.execute(
            sql(BURY)
                .bind(&letter.source)
                .bind(&letter.reason)
                .bind(now.as_millis())
                .bind(to_json(&letter.context)?)
                .bind(letter.body.clone()),
        )
        .await?;
        Ok(())
    }
}

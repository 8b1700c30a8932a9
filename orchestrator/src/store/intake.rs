//! Events in: recorded once under `(source, id)` before anybody is told that they were accepted. What they start is
//! decided afterwards (`dispatch`), so that one event or trigger that cannot be routed never holds up intake.

use std::collections::{BTreeMap, HashSet};

use refit_workflows::event::CloudEvent;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::Receipt;
use serde_json::{Value, json};

use super::database::{Sql, Statement, Transaction, sql};
use super::{DeadLetter, Hints, Store, StoreError};

/// What recording a delivery came to.
#[derive(Debug)]
pub struct Recorded {
    /// One per event, in the order given.
    pub receipts: Vec<Receipt>,
    /// Whom to wake.
    pub hints: Hints,
}

/// Many events in one statement; `copies` is how often the batch holds the event. A row is new when it counts fewer
/// duplicates than copies. Sorted, so that two replicas with the same events lock them in the same order.
const RECORD_ALL: Sql = Sql {
    sqlite: "INSERT INTO events (id, source, type, subject, received_at, routed, duplicates, duplicate_at, body)
        SELECT e.value ->> 'id', e.value ->> 'source', e.value ->> 'type', e.value ->> 'subject', $2, 0,
            (e.value ->> 'copies') - 1, CASE WHEN e.value ->> 'copies' > 1 THEN $2 END, e.value ->> 'body'
        FROM json_each($1) AS e WHERE true ORDER BY 2, 1
        ON CONFLICT (source, id) DO UPDATE SET duplicates = events.duplicates + excluded.duplicates + 1,
            duplicate_at = excluded.received_at
        RETURNING source, id, duplicates",
    postgres: "INSERT INTO events (id, source, type, subject, received_at, routed, duplicates, duplicate_at, body)
        SELECT e.id, e.source, e.type, e.subject, $2, 0, e.copies - 1, CASE WHEN e.copies > 1 THEN $2 END, e.body
        FROM jsonb_to_recordset($1::jsonb)
            AS e (id TEXT, source TEXT, type TEXT, subject TEXT, copies BIGINT, body TEXT)
        ORDER BY e.source, e.id
        ON CONFLICT (source, id) DO UPDATE SET duplicates = events.duplicates + excluded.duplicates + 1,
            duplicate_at = excluded.received_at
        RETURNING source, id, duplicates",
};
/// The most bytes of events in one statement.
const STATEMENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A second delivery is counted and changes nothing else. Tells which list of targets is in force as well: in the same
/// statement, because most of Refit's own events cost no more.
const RECORD: &str = "INSERT INTO events (id, source, type, subject, received_at, routed, duplicates, body)
    VALUES ($1, $2, $3, $4, $5, 0, 0, $6)
    ON CONFLICT (source, id) DO UPDATE SET duplicates = events.duplicates + 1,
        duplicate_at = excluded.received_at
    RETURNING seq, duplicates, (SELECT COALESCE(MAX(revision), 0) FROM targets) AS revision";

/// Records one event, to be routed; answers with `seq`, `duplicates` and the targets' `revision`.
pub(super) fn record(event: &CloudEvent, now: Timestamp) -> Statement {
    sql(RECORD)
        .bind(event.id())
        .bind(event.source())
        .bind(event.kind())
        .bind(event.subject())
        .bind(now.as_millis())
        .bind(event.to_json())
}

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
                let mut tx = store.database().begin().await?;
                // Not before it has begun: see `Store::dispatch`.
                let now = store.clock().now();
                let receipts = store.record_with_receipts_in(&mut tx, &events, now).await?;
                store.bury_in(&mut tx, &dead, now).await?;
                tx.commit().await?;
                let hints =
                    Hints { events: receipts.iter().any(|receipt| !receipt.duplicate), ..Hints::default() };
                Ok(Recorded { receipts, hints })
            }
        })
        .await
    }

    /// Records events; returns one receipt for each, in their order.
    pub(super) async fn record_with_receipts_in(
        &self,
        tx: &mut Transaction,
        events: &[CloudEvent],
        now: Timestamp,
    ) -> Result<Vec<Receipt>, StoreError> {
        let mut new = self.record_all_in(tx, events, now).await?;
        let receipt = |event: &CloudEvent| Receipt {
            id: event.id().to_owned(),
            source: event.source().to_owned(),
            // Of several copies in one batch, the first is the event.
            duplicate: !new.remove(&(event.source().to_owned(), event.id().to_owned())),
        };
        Ok(events.iter().map(receipt).collect())
    }

    /// Records events; returns the `(source, id)` of those that were not there yet.
    async fn record_all_in(
        &self,
        tx: &mut Transaction,
        events: &[CloudEvent],
        now: Timestamp,
    ) -> Result<HashSet<(String, String)>, StoreError> {
        let mut distinct: BTreeMap<(&str, &str), (&CloudEvent, i64)> = BTreeMap::new();
        for event in events {
            distinct.entry((event.source(), event.id())).or_insert((event, 0)).1 += 1;
        }
        let mut new = HashSet::new();
        let mut open = distinct.values().peekable();
        while open.peek().is_some() {
            let (mut rows, mut bytes) = (Vec::new(), 0);
            while let Some((event, copies)) = open.next_if(|_| bytes < STATEMENT_BYTES_MAX) {
                let body = event.to_json();
                bytes += body.len();
                rows.push(json!({
                    "id": event.id(), "source": event.source(), "type": event.kind(), "subject": event.subject(),
                    "copies": copies, "body": body,
                }));
            }
            let record = sql(RECORD_ALL).bind(Value::Array(rows).to_string()).bind(now.as_millis());
            for row in tx.all(record).await? {
                let key = (row.text("source")?, row.text("id")?);
                let copies = distinct.get(&(key.0.as_str(), key.1.as_str())).map_or(0, |(_, copies)| *copies);
                if row.int("duplicates")? < copies {
                    new.insert(key);
                }
            }
        }
        Ok(new)
    }

    /// Records one event, to be routed; returns its place and whether it was there already.
    pub(super) async fn record_in(
        &self,
        tx: &mut Transaction,
        event: &CloudEvent,
        now: Timestamp,
    ) -> Result<(i64, bool), StoreError> {
        let row = tx.one(record(event, now)).await?;
        Ok((row.int("seq")?, row.int("duplicates")? > 0))
    }
}

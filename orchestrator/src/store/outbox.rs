//! Events out: written in the transaction that caused them, handed to the relays afterwards. A row leaves the outbox
//! when its target has it, or becomes a dead letter when the target would not have it for too long; at most one per stream
//! is handed out at a time, so that order per run is kept. Must never happen here: a decision about when to try.

use std::sync::Arc;
use std::time::Duration;

use refit_workflows::event::CloudEvent;
use refit_workflows::time::Timestamp;
use serde_json::json;

use super::database::{Row, Sql, Transaction, sql};
use super::{Hints, Outbound, Sent, Store, StoreError, duties, intake, targets};

const POST: &str = "INSERT INTO outbox (target, stream, event, attempts, created_at, due_at)
    VALUES ($1, $2, $3, 0, $4, $4)";
const DUE: &str = "SELECT o.seq, o.attempts, e.body FROM outbox o JOIN events e ON e.seq = o.event
    WHERE o.target = $1 AND o.due_at <= $2
        AND NOT EXISTS (SELECT 1 FROM outbox b WHERE b.target = o.target AND b.stream = o.stream AND b.seq < o.seq)
    ORDER BY o.seq LIMIT $3";
/// One to try a target with, whether it is due or not: the one that was tried least, so that an event that is never taken
/// does not stand for the target for ever.
const PROBE: &str = "SELECT o.seq, o.attempts, e.body FROM outbox o JOIN events e ON e.seq = o.event
    WHERE o.target = $1
        AND NOT EXISTS (SELECT 1 FROM outbox b WHERE b.target = o.target AND b.stream = o.stream AND b.seq < o.seq)
    ORDER BY o.attempts, o.seq LIMIT 1";
const DONE: &str = "DELETE FROM outbox WHERE seq = $1";
const LATER: &str = "UPDATE outbox SET attempts = attempts + 1, due_at = $2, error = $3,
    failed_at = COALESCE(failed_at, $4) WHERE seq = $1";
const AGAIN: &str = "UPDATE outbox SET due_at = $2 WHERE target = $1 AND due_at > $2";
const GIVEN_UP: Sql = Sql {
    sqlite: "SELECT o.seq, o.stream, o.event, o.attempts, o.created_at, o.failed_at, o.error, e.body
        FROM outbox o JOIN events e ON e.seq = o.event
        WHERE o.target = $1 AND (o.created_at <= $5 OR (o.attempts >= $2 AND o.failed_at <= $3 AND o.due_at > $4))
        ORDER BY o.seq LIMIT $6",
    postgres: "SELECT o.seq, o.stream, o.event, o.attempts, o.created_at, o.failed_at, o.error, e.body
        FROM outbox o JOIN events e ON e.seq = o.event
        WHERE o.target = $1 AND (o.created_at <= $5 OR (o.attempts >= $2 AND o.failed_at <= $3 AND o.due_at > $4))
        ORDER BY o.seq LIMIT $6 FOR UPDATE OF o",
};
const BURY: &str = "INSERT INTO dead_letters
    (direction, source, reason, received_at, tries, context, body, bytes, duplicates, target, event)
    VALUES ('out', $1, $2, $3, 0, $4, $5, $6, 0, $7, $8)";
const EVENT: &str = "SELECT id, source FROM events WHERE seq = $1";
const DROP: &str = "DELETE FROM outbox WHERE target = $1";

/// How long a relay has a target to itself; renewed with every look, and it looks while it waits for answers too. Short,
/// because a relay that was killed holds up its target this long.
const DUTY: Duration = Duration::from_secs(20);
/// The most events given up in one transaction.
const GIVE_UP_AT_ONCE: i64 = 100;
/// The most characters kept of why an event was not taken.
const REASON_MAX: usize = 500;

fn duty(target: &str) -> String {
    format!("outbox {target}")
}

/// What a relay asks of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Only to keep, or get, the target.
    Nothing,
    /// At most so many events that are due.
    Due(i64),
    /// One event, due or not.
    Probe,
}

/// What a relay sees of its target.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Whether the target is this orchestrator's to send to; another's otherwise.
    pub ours: bool,
    /// How the target is, as whoever sends to it has written down.
    pub standing: targets::Standing,
    /// What was asked for, at most one event per stream. Nothing while the target is another's or disabled.
    pub due: Vec<Outbound>,
}

/// Which events a target is given up on.
#[derive(Clone, Copy, Debug)]
pub struct GiveUp {
    /// Those that failed at least so often …
    pub tries: i64,
    /// … for the first time at or before this …
    pub failed_before: Timestamp,
    /// … and that are due only after this, where it is given: none of them can be on its way.
    pub due_after: Option<Timestamp>,
    /// And, tried or not, those that were written at or before this; none where there is no such time.
    pub written_before: Option<Timestamp>,
}

impl Store {
    /// Records an event of Refit's own and puts it into the outbox of every target that wants it.
    pub(super) async fn emit_in(
        &self,
        tx: &mut Transaction,
        event: &CloudEvent,
        stream: &str,
        now: Timestamp,
    ) -> Result<Hints, StoreError> {
        let row = tx.one(intake::record(event, now)).await?;
        if row.int("duplicates")? > 0 {
            return Ok(Hints::default());
        }
        let (seq, targets) = (row.int("seq")?, self.targets_in(tx, row.int("revision")?).await?);
        let wanted = targets.that_want(event);
        for target in &wanted {
            tx.execute(sql(POST).bind(*target).bind(stream).bind(seq).bind(now.as_millis())).await?;
        }
        Ok(Hints { events: true, outbox: !wanted.is_empty(), ..Hints::default() })
    }

    /// Keeps the target for `holder`, unless another has it, and looks what is there to be sent.
    pub async fn outbox_look(&self, target: &str, holder: &str, ask: Ask) -> Result<Look, StoreError> {
        let (target, holder) = (target.to_owned(), holder.to_owned());
        self.durably(move |store| {
            let (target, holder) = (target.clone(), holder.clone());
            async move {
                let duty = duty(&target);
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                let ours = duties::take_in(&mut tx, &duty, &holder, now, DUTY).await?;
                let standing = store.standing_in(&mut tx, &target).await?;
                let ask = if ours && standing.state.sends() { ask } else { Ask::Nothing };
                let rows = match ask {
                    Ask::Nothing => Vec::new(),
                    Ask::Due(limit) => {
                        tx.all(sql(DUE).bind(&target).bind(now.as_millis()).bind(limit)).await?
                    }
                    Ask::Probe => tx.all(sql(PROBE).bind(&target)).await?,
                };
                let due = rows.iter().map(outbound).collect::<Result<_, _>>()?;
                tx.commit().await?;
                Ok(Look { ours, standing, due })
            }
        })
        .await
    }

    /// Lets another orchestrator have the target at once.
    pub async fn leave_outbox(&self, target: &str, holder: &str) -> Result<(), StoreError> {
        self.leave_duty(duty(target), holder).await
    }

    /// Takes out what was sent, keeps what failed for its next try, and writes down how the target is.
    pub async fn outbox_sent(
        &self,
        target: &str,
        results: Arc<Vec<(Outbound, Sent)>>,
        standing: targets::Standing,
    ) -> Result<(), StoreError> {
        let target = target.to_owned();
        self.durably(move |store| {
            let (target, results, standing) = (target.clone(), Arc::clone(&results), standing.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                let mut sent = 0;
                for (outbound, result) in results.iter() {
                    match result {
                        Sent::Done => sent += tx.execute(sql(DONE).bind(outbound.seq)).await?,
                        Sent::Failed { reason, pause } => {
                            let reason: String = reason.chars().take(REASON_MAX).collect();
                            let later = sql(LATER)
                                .bind(outbound.seq)
                                .bind(now.plus(*pause).as_millis())
                                .bind(reason)
                                .bind(now.as_millis());
                            tx.execute(later).await?;
                        }
                    }
                }
                store.stand_in(&mut tx, &target, sent, &standing).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// Makes everything of a target due that waits for its next try.
    pub async fn outbox_again(&self, target: &str) -> Result<(), StoreError> {
        let target = target.to_owned();
        self.durably(move |store| {
            let target = target.clone();
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                tx.execute(sql(AGAIN).bind(&target).bind(now.as_millis())).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// Makes dead letters of what a target would not have for too long, so that their streams go on; returns how many. Ask
    /// again while it is some.
    pub async fn outbox_give_up(&self, target: &str, which: GiveUp) -> Result<usize, StoreError> {
        let target = target.to_owned();
        self.durably(move |store| {
            let target = target.clone();
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                let given_up = sql(GIVEN_UP)
                    .bind(&target)
                    .bind(which.tries)
                    .bind(which.failed_before.as_millis())
                    .bind(which.due_after.map_or(i64::MIN, Timestamp::as_millis))
                    .bind(which.written_before.map_or(i64::MIN, Timestamp::as_millis))
                    .bind(GIVE_UP_AT_ONCE);
                let rows = tx.all(given_up).await?;
                for row in &rows {
                    store.give_up_in(&mut tx, &target, row, now).await?;
                }
                tx.commit().await?;
                Ok(rows.len())
            }
        })
        .await
    }

    async fn give_up_in(
        &self,
        tx: &mut Transaction,
        target: &str,
        row: &Row,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let at = |ms: Option<i64>| ms.map(|ms| Timestamp::from_millis(ms).to_string());
        let context = json!({
            "stream": row.text("stream")?,
            "attempts": row.int("attempts")?,
            "written_at": at(Some(row.int("created_at")?)),
            "first_failed_at": at(row.opt_int("failed_at")?),
        });
        let reason = row.opt_text("error")?;
        let reason =
            reason.unwrap_or_else(|| "its target took nothing for too long; it was not tried".to_owned());
        let body = row.text("body")?.into_bytes();
        let bytes = i64::try_from(body.len()).unwrap_or(i64::MAX);
        let bury = sql(BURY)
            .bind(format!("target:{target}"))
            .bind(reason)
            .bind(now.as_millis())
            .bind(context.to_string())
            .bind(body)
            .bind(bytes)
            .bind(target)
            .bind(row.int("event")?);
        tx.execute(bury).await?;
        tx.execute(sql(DONE).bind(row.int("seq")?)).await?;
        Ok(())
    }

    /// Puts an event back into the outbox, behind everything of its stream; its id and source, or none when the event is
    /// not there any more.
    pub(super) async fn repost_in(
        &self,
        tx: &mut Transaction,
        target: &str,
        stream: &str,
        event: i64,
        now: Timestamp,
    ) -> Result<Option<(String, String)>, StoreError> {
        let Some(row) = tx.first(sql(EVENT).bind(event)).await? else { return Ok(None) };
        tx.execute(sql(POST).bind(target).bind(stream).bind(event).bind(now.as_millis())).await?;
        Ok(Some((row.text("id")?, row.text("source")?)))
    }

    /// Takes out everything that waits for a target; returns how much that was.
    pub(super) async fn drop_outbox_in(&self, tx: &mut Transaction, target: &str) -> Result<u64, StoreError> {
        tx.execute(sql(DROP).bind(target)).await
    }
}

fn outbound(row: &Row) -> Result<Outbound, StoreError> {
    Ok(Outbound { seq: row.int("seq")?, attempts: row.int("attempts")?, event: row.json("body")? })
}

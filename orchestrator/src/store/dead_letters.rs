//! What was set aside because it could not be taken, by Refit or by a target: kept with the reason, read or sent again,
//! dropped. Must never happen here: a letter that goes without its events being recorded or being in the outbox again,
//! unless somebody dropped it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use refit_workflows::event::{CloudEvent, EVENT_BYTES_MAX};
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{DeadLetterView, Receipt};
use serde_json::Value;

use super::database::{Row, Sql, Transaction, sql};
use super::{ChangeError, DeadLetter, DeadLetterFilter, Hints, Store, StoreError, to_json};

/// The most bytes kept of a body.
pub(crate) const BODY_BYTES_MAX: usize = EVENT_BYTES_MAX;
/// The most a listing gives.
const LIMIT_MAX: i64 = 1000;

/// A delivery that comes again is counted; the letter keeps what came with the first.
const BURY: &str = "INSERT INTO dead_letters
        (direction, source, reason, received_at, tries, context, body, bytes, digest, duplicates)
    VALUES ('in', $1, $2, $3, 0, $4, $5, $6, $7, 0)
    ON CONFLICT (digest) DO UPDATE SET duplicates = dead_letters.duplicates + 1,
        duplicate_at = excluded.received_at, reason = excluded.reason";
const NEWEST: &str = "SELECT seq, direction, source, target, reason, received_at, tries, bytes,
        CAST(length(body) AS BIGINT) AS kept, duplicates, duplicate_at
    FROM dead_letters WHERE seq < $1 AND ($2 = '' OR source = $2) AND received_at >= $3 ORDER BY seq DESC LIMIT $4";
const OLDEST: &str = "SELECT seq, direction, source, target, reason, received_at, tries, bytes,
        CAST(length(body) AS BIGINT) AS kept, duplicates, duplicate_at
    FROM dead_letters WHERE seq > $1 AND ($2 = '' OR source = $2) AND received_at >= $3 ORDER BY seq LIMIT $4";
const SHOW: &str = "SELECT seq, direction, source, target, reason, received_at, tries, bytes,
        CAST(length(body) AS BIGINT) AS kept, duplicates, duplicate_at, context, body
    FROM dead_letters WHERE seq = $1";
const LOCK: Sql = Sql {
    sqlite: "SELECT source, reason, context, body, bytes, digest, target, event FROM dead_letters WHERE seq = $1",
    postgres: "SELECT source, reason, context, body, bytes, digest, target, event FROM dead_letters WHERE seq = $1 FOR UPDATE",
};
const STILL_DEAD: &str = "UPDATE dead_letters SET tries = tries + 1, reason = $2 WHERE seq = $1";
const DROP: &str = "DELETE FROM dead_letters WHERE seq = $1";

/// What trying a dead letter again came to.
#[derive(Debug)]
pub enum Retried {
    /// Its events are recorded, and the letter is gone.
    Recorded(Vec<Receipt>, Hints),
    /// Its event is in the outbox again, for the target that refused it, and the letter is gone.
    Posted {
        /// The event.
        receipt: Receipt,
        /// The target.
        target: String,
    },
    /// It is still no event, and why; it stays.
    StillDead(String),
}

impl Store {
    /// Keeps dead letters, each once however often it is delivered.
    pub(super) async fn bury_in(
        &self,
        tx: &mut Transaction,
        letters: &[DeadLetter],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for letter in letters {
            let bury = sql(BURY)
                .bind(&letter.source)
                .bind(without_nul(&letter.reason))
                .bind(now.as_millis())
                .bind(to_json(&json_without_nul(&letter.context))?)
                .bind(letter.body.clone())
                .bind(i64::try_from(letter.bytes).unwrap_or(i64::MAX))
                .bind(letter.digest.as_str());
            tx.execute(bury).await?;
        }
        Ok(())
    }

    /// Dead letters without their bodies.
    pub async fn dead_letters(&self, filter: DeadLetterFilter) -> Result<Vec<DeadLetterView>, StoreError> {
        self.durably(move |store| {
            let filter = filter.clone();
            async move {
                let mut tx = store.database().read().await?;
                let (list, first) = if filter.oldest_first { (OLDEST, i64::MIN) } else { (NEWEST, i64::MAX) };
                let list = sql(list)
                    .bind(filter.after.unwrap_or(first))
                    .bind(filter.source.as_deref().unwrap_or_default())
                    .bind(filter.since.map_or(i64::MIN, Timestamp::as_millis))
                    .bind(filter.limit.clamp(1, LIMIT_MAX));
                tx.all(list).await?.iter().map(view).collect()
            }
        })
        .await
    }

    /// One dead letter, whole.
    pub async fn dead_letter(&self, seq: i64) -> Result<Option<DeadLetterView>, StoreError> {
        self.durably(move |store| async move {
            let mut tx = store.database().read().await?;
            let Some(row) = tx.first(sql(SHOW).bind(seq)).await? else { return Ok(None) };
            let (body, body_base64) = match String::from_utf8(row.bytes("body")?) {
                Ok(text) => (Some(text), None),
                Err(bytes) => (None, Some(STANDARD.encode(bytes.as_bytes()))),
            };
            Ok(Some(DeadLetterView { context: Some(row.json("context")?), body, body_base64, ..view(&row)? }))
        })
        .await
    }

    /// Tries a dead letter again, in one transaction: the events that `read` finds in it are recorded like any others
    /// and the letter is gone; or the try counts and the letter stays, with what `read` says now. An event that a target
    /// refused waits for that target again, behind the others of its stream, and `read` is not asked.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`]: there is no such letter. [`ChangeError::Invalid`]: its event, which a target refused, is
    /// not kept any more.
    pub async fn retry_dead_letter<F>(&self, seq: i64, read: F) -> Result<Retried, ChangeError>
    where
        F: Fn(&DeadLetter) -> Result<Vec<CloudEvent>, String> + Send + Sync + 'static,
    {
        let read = std::sync::Arc::new(read);
        self.durably(move |store| {
            let read = std::sync::Arc::clone(&read);
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                // Locked: of two who try it at once, one finds it gone.
                let row = tx.first(sql(LOCK).bind(seq)).await?;
                let row = row.ok_or_else(|| ChangeError::NotFound(format!("dead letter {seq}")))?;
                if let Some(target) = row.opt_text("target")? {
                    let sent = store.send_again_in(&mut tx, seq, &target, &row, now).await?;
                    tx.commit().await?;
                    return Ok(sent);
                }
                let letter = DeadLetter {
                    source: row.text("source")?,
                    reason: row.text("reason")?,
                    body: row.bytes("body")?,
                    bytes: row.int("bytes")?.unsigned_abs(),
                    context: row.json("context")?,
                    digest: row.parsed("digest")?,
                };
                let retried = match read(&letter) {
                    Ok(events) => {
                        let receipts = store.record_with_receipts_in(&mut tx, &events, now).await?;
                        tx.execute(sql(DROP).bind(seq)).await?;
                        let events = receipts.iter().any(|receipt| !receipt.duplicate);
                        Retried::Recorded(receipts, Hints { events, ..Hints::default() })
                    }
                    Err(reason) => {
                        let reason = without_nul(&reason);
                        tx.execute(sql(STILL_DEAD).bind(seq).bind(&reason)).await?;
                        Retried::StillDead(reason)
                    }
                };
                tx.commit().await?;
                Ok(retried)
            }
        })
        .await
    }

    async fn send_again_in(
        &self,
        tx: &mut Transaction,
        seq: i64,
        target: &str,
        row: &Row,
        now: Timestamp,
    ) -> Result<Retried, ChangeError> {
        let context: Value = row.json("context")?;
        let stream = context["stream"].as_str().unwrap_or_default();
        let Some((id, source)) = self.repost_in(tx, target, stream, row.int("event")?, now).await? else {
            let wrong = format!("dead letter {seq} cannot be sent again: its event is not kept any more");
            return Err(ChangeError::Invalid(wrong));
        };
        tx.execute(sql(DROP).bind(seq)).await?;
        let receipt = Receipt { id, source, duplicate: false };
        Ok(Retried::Posted { receipt, target: target.to_owned() })
    }

    /// Drops a dead letter; answers whether it was there.
    pub async fn drop_dead_letter(&self, seq: i64) -> Result<bool, StoreError> {
        self.durably(move |store| async move {
            let mut tx = store.database().begin().await?;
            let dropped = tx.execute(sql(DROP).bind(seq)).await?;
            tx.commit().await?;
            Ok(dropped > 0)
        })
        .await
    }
}

/// PostgreSQL cannot store the NUL character.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn json_without_nul(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(without_nul(text)),
        Value::Array(items) => items.iter().map(json_without_nul).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (without_nul(name), json_without_nul(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// A letter in short.
fn view(row: &Row) -> Result<DeadLetterView, StoreError> {
    Ok(DeadLetterView {
        seq: row.int("seq")?,
        direction: row.text("direction")?,
        source: row.text("source")?,
        target: row.opt_text("target")?,
        reason: row.text("reason")?,
        received_at: Timestamp::from_millis(row.int("received_at")?),
        tries: row.int("tries")?,
        bytes: row.int("bytes")?.unsigned_abs(),
        cut: row.int("kept")? < row.int("bytes")?,
        duplicates: row.int("duplicates")?,
        duplicate_at: row.opt_int("duplicate_at")?.map(Timestamp::from_millis),
        context: None,
        body: None,
        body_base64: None,
    })
}

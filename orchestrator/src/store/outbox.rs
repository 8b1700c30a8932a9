//! Events out: written in the transaction that caused them, handed to the relays afterwards. A row leaves the outbox
//! when its target has it; at most one per stream is handed out at a time, so that order per run is kept.

use refit_workflows::event::CloudEvent;
use refit_workflows::time::Timestamp;
use std::time::Duration;

use super::database::{Transaction, sql};
use super::{Hints, Outbound, Sent, Store, StoreError};

const POST: &str = "INSERT INTO outbox (target, stream, event, attempts, due_at) VALUES ($1, $2, $3, 0, $4)";
const DUE: &str = "SELECT o.seq, o.target, o.attempts, e.body FROM outbox o JOIN events e ON e.seq = o.event
    WHERE o.target = $1 AND o.due_at <= $2
        AND NOT EXISTS (SELECT 1 FROM outbox b WHERE b.target = o.target AND b.stream = o.stream AND b.seq < o.seq)
    ORDER BY o.seq LIMIT $3";
const DONE: &str = "DELETE FROM outbox WHERE seq = $1";
const LATER: &str = "UPDATE outbox SET attempts = attempts + 1, due_at = $2, error = $3 WHERE seq = $1";
pub(super) const KEEP_DUTY: &str =
    "INSERT INTO duties (name, expires_at) VALUES ($1, 0) ON CONFLICT (name) DO NOTHING";
pub(super) const TAKE_DUTY: &str = "UPDATE duties SET holder = $2, expires_at = $3
    WHERE name = $1 AND (holder = $2 OR expires_at <= $4)";

const LEAVE_DUTY: &str = "UPDATE duties SET expires_at = 0 WHERE name = $1 AND holder = $2";
const VOID_DUTIES: &str = "UPDATE duties SET expires_at = 0 WHERE holder IS NOT NULL";

/// How long a relay has a target to itself; renewed with every look. Longer than any round of sending takes, so that no
/// two send at once; short, because a relay that was killed holds up its target this long.
const DUTY: Duration = Duration::from_secs(20);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(300);

fn duty(target: &str) -> String {
    format!("outbox {target}")
}

impl Store {
    /// Records an event of Refit's own and posts it to every outbound target.
    pub(super) async fn emit_in(
        &self,
        tx: &mut Transaction,
        event: &CloudEvent,
        stream: &str,
        now: Timestamp,
    ) -> Result<Hints, StoreError> {
        let (seq, duplicate) = self.record_in(tx, event, now).await?;
        if duplicate {
            return Ok(Hints::default());
        }
        for target in &self.inner.targets {
            let post = sql(POST).bind(target.as_str()).bind(stream).bind(seq).bind(now.as_millis());
            tx.execute(post).await?;
        }
        Ok(Hints { events: true, outbox: !self.inner.targets.is_empty(), ..Hints::default() })
    }

    /// What is due at a target, at most one event per stream. Nothing while another orchestrator has the target.
    pub async fn outbox_due(
        &self,
        target: &str,
        holder: &str,
        limit: i64,
    ) -> Result<Vec<Outbound>, StoreError> {
        let (target, holder) = (target.to_owned(), holder.to_owned());
        self.durably(move |store| {
            let (target, holder) = (target.clone(), holder.clone());
            async move {
                let now = store.clock().now();
                let duty = duty(&target);
                let mut tx = store.database().begin().await?;
                tx.execute(sql(KEEP_DUTY).bind(&duty)).await?;
                let take = sql(TAKE_DUTY)
                    .bind(&duty)
                    .bind(&holder)
                    .bind(now.plus(DUTY).as_millis())
                    .bind(now.as_millis());
                if tx.execute(take).await? == 0 {
                    return Ok(Vec::new());
                }
                let rows = tx.all(sql(DUE).bind(&target).bind(now.as_millis()).bind(limit)).await?;
                let due = rows
                    .iter()
                    .map(|row| {
                        Ok(Outbound {
                            seq: row.int("seq")?,
                            target: row.text("target")?,
                            attempts: row.int("attempts")?,
                            event: row.json("body")?,
                        })
                    })
                    .collect::<Result<_, StoreError>>()?;
                tx.commit().await?;
                Ok(due)
            }
        })
        .await
    }

    /// Lets another orchestrator have the target at once.
    pub async fn leave_outbox(&self, target: &str, holder: &str) -> Result<(), StoreError> {
        let (duty, holder) = (duty(target), holder.to_owned());
        self.durably(move |store| {
            let leave = sql(LEAVE_DUTY).bind(&duty).bind(&holder);
            async move {
                let mut tx = store.database().begin().await?;
                tx.execute(leave).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// Writes something of no consequence: fails where nothing can be written.
    pub async fn touch(&self) -> Result<(), StoreError> {
        self.durably(|store| async move {
            let mut tx = store.database().begin().await?;
            let touched = store.clock().now().as_millis();
            tx.execute(sql(KEEP_DUTY).bind("touch")).await?;
            tx.execute(sql(TAKE_DUTY).bind("touch").bind("").bind(touched).bind(touched)).await?;
            tx.commit().await
        })
        .await
    }

    /// Ends what was held by name. Only for a caller who knows that every holder is gone.
    pub async fn void_duties(&self) -> Result<(), StoreError> {
        self.durably(|store| async move {
            let mut tx = store.database().begin().await?;
            tx.execute(sql(VOID_DUTIES)).await?;
            tx.commit().await
        })
        .await
    }

    /// Takes out what was sent; what failed is due again after a pause that doubles up to five minutes.
    pub async fn outbox_sent(&self, results: Vec<(Outbound, Sent)>) -> Result<(), StoreError> {
        let results = std::sync::Arc::new(results);
        self.durably(move |store| {
            let results = std::sync::Arc::clone(&results);
            async move {
                let now = store.clock().now();
                let mut tx = store.database().begin().await?;
                for (outbound, sent) in results.iter() {
                    match sent {
                        Sent::Done => tx.execute(sql(DONE).bind(outbound.seq)).await?,
                        Sent::Failed(reason) => {
                            let doubled = 1u64 << outbound.attempts.clamp(0, 16);
                            let due = now.plus(Duration::from_secs(doubled).min(PAUSE_MAX)).as_millis();
                            tx.execute(sql(LATER).bind(outbound.seq).bind(due).bind(reason.as_str())).await?
                        }
                    };
                }
                tx.commit().await
            }
        })
        .await
    }
}

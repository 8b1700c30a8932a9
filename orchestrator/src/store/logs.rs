//! Logs and live metrics of attempts. Chunks are numbered by the worker and kept once each; a stale attempt writes
//! nothing.

use std::sync::Arc;

use refit_workflows::names::RunName;
use refit_workflows::run::Live;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{LogChunk, LogMark, LogPiece, Report};

use super::database::sql;
use super::{ChangeError, Store, StoreError, checkpoints, to_json};

/// A stored piece with its place.
#[derive(Debug)]
pub struct LogRow {
    /// Pass as `after` to read on.
    pub seq: i64,
    /// The piece.
    pub piece: LogPiece,
}

const STEP: &str = "SELECT session, body FROM steps WHERE run = $1 AND name = $2";
const APPEND: &str = "INSERT INTO logs (run, step, epoch, attempt, chunk, at, text, marks)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (run, step, epoch, chunk) DO NOTHING";
const KEEP_METRICS: &str =
    "INSERT INTO live_metrics (run, step, epoch, metrics, set_up_ms) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (run, step) DO UPDATE SET epoch = excluded.epoch,
        metrics = CASE WHEN excluded.metrics = '{}' AND live_metrics.epoch = excluded.epoch
            THEN live_metrics.metrics ELSE excluded.metrics END,
        set_up_ms = CASE WHEN excluded.set_up_ms IS NULL AND live_metrics.epoch = excluded.epoch
            THEN live_metrics.set_up_ms ELSE excluded.set_up_ms END
    WHERE live_metrics.epoch <= excluded.epoch";
const LIVE: &str = "SELECT step, epoch, metrics, set_up_ms FROM live_metrics WHERE run = $1";
const LOGS: &str = "SELECT seq, step, attempt, at, text, marks FROM logs
    WHERE run = $1 AND seq > $2
        AND ($3 = '' OR step = $3 OR substr(step, 1, length($3) + 1) = $3 || '[')
    ORDER BY seq LIMIT 200";

impl Store {
    /// Keeps what a running attempt reports. Refused once a newer lease was given.
    pub async fn report(&self, report: Report) -> Result<(), ChangeError> {
        let report = Arc::new(report);
        self.durably(move |store| {
            let report = Arc::clone(&report);
            async move {
                let key = &report.key;
                let mut tx = store.database().begin().await?;
                let run = store.run_id(&mut tx, &key.run).await?;
                let row = tx.first(sql(STEP).bind(run).bind(&key.step)).await?;
                let row = row.ok_or(refit_workflows::run::Refused::UnknownStep)?;
                let step: refit_workflows::run::Step = row.json("body")?;
                if step.epoch != key.epoch {
                    let stale =
                        refit_workflows::run::Refused::StaleLease { given: key.epoch, current: step.epoch };
                    return Err(stale.into());
                }
                for chunk in &report.logs {
                    tx.execute(
                        sql(APPEND)
                            .bind(run)
                            .bind(&key.step)
                            .bind(key.epoch)
                            .bind(i64::from(report.attempt))
                            .bind(chunk.seq)
                            .bind(chunk.at.as_millis())
                            .bind(chunk.text.replace('\0', "\u{fffd}"))
                            .bind(to_json(&chunk.marks)?),
                    )
                    .await?;
                }
                if let Some(artifact) = &report.checkpoint {
                    let now = store.clock().now();
                    checkpoints::keep_in(&mut tx, run, (key, report.attempt), artifact, now).await?;
                }
                store.keep_points(&mut tx, run, &report).await?;
                // The last lines may arrive after the outcome; live metrics must not.
                let told = !report.metrics.is_empty() || report.set_up_ms.is_some();
                if told && row.opt_text("session")?.is_some() {
                    let set_up_ms = report.set_up_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
                    let keep = sql(KEEP_METRICS)
                        .bind(run)
                        .bind(&key.step)
                        .bind(key.epoch)
                        .bind(to_json(&report.metrics)?)
                        .bind(set_up_ms);
                    tx.execute(keep).await?;
                }
                tx.commit().await?;
                Ok(())
            }
        })
        .await
    }

    /// Log pieces of a run behind `after`, of one step (with its instances, when it has
    /// a matrix) or of all, in the order they arrived; a page of them.
    pub async fn logs(
        &self,
        run: &RunName,
        step: Option<&str>,
        after: i64,
    ) -> Result<Vec<LogRow>, ChangeError> {
        let (run, step) = (run.clone(), step.unwrap_or_default().to_owned());
        self.durably(move |store| {
            let (run, step) = (run.clone(), step.clone());
            async move {
                let mut tx = store.database().read().await?;
                let id = store.run_id(&mut tx, &run).await?;
                let rows = tx.all(sql(LOGS).bind(id).bind(after).bind(&step)).await?;
                let mut pieces = Vec::new();
                for row in &rows {
                    let marks: Vec<LogMark> = row.json("marks")?;
                    for (stream, text) in LogChunk::pieces(&row.text("text")?, &marks) {
                        let piece = LogPiece {
                            step: row.text("step")?,
                            attempt: u32::try_from(row.int("attempt")?).unwrap_or_default(),
                            at: Timestamp::from_millis(row.int("at")?),
                            stream,
                            text,
                        };
                        pieces.push(LogRow { seq: row.int("seq")?, piece });
                    }
                }
                Ok(pieces)
            }
        })
        .await
    }

    /// What running attempts of a run have reported so far.
    pub(super) async fn live_in(
        &self,
        tx: &mut super::database::Transaction,
        run: i64,
    ) -> Result<Live, StoreError> {
        let mut live = Live::default();
        for row in tx.all(sql(LIVE).bind(run)).await? {
            let (step, epoch) = (row.text("step")?, row.int("epoch")?);
            if let Some(set_up_ms) = row.opt_int("set_up_ms")? {
                live.set_up_ms.insert(step.clone(), (epoch, set_up_ms.unsigned_abs()));
            }
            live.metrics.insert(step, row.json("metrics")?);
        }
        Ok(live)
    }
}

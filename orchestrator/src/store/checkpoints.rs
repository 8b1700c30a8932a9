//! Checkpoints of steps: what an attempt saved last, for the next one to go on from. A stale attempt saves nothing, and what was
//! saved before a step was set back to the start is not taken up again.

use std::collections::BTreeMap;

use refit_workflows::time::Timestamp;
use refit_workflows::wire::{ArtifactRef, AttemptKey, Checkpoint};

use super::database::{Row, Transaction, sql};
use super::{StoreError, to_json};

const KEEP: &str = "INSERT INTO checkpoints (run, step, epoch, attempt, at, artifact) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (run, step) DO UPDATE SET epoch = excluded.epoch, attempt = excluded.attempt, at = excluded.at,
        artifact = excluded.artifact
    WHERE checkpoints.epoch <= excluded.epoch";
const LATEST: &str =
    "SELECT step, attempt, at, artifact FROM checkpoints WHERE run = $1 AND step = $2 AND epoch > $3";
const OF_RUN: &str = "SELECT step, attempt, at, artifact FROM checkpoints WHERE run = $1";

/// Keeps what an attempt saved, in place of what was saved before. The caller has made sure that the attempt is the step's
/// latest.
pub(super) async fn keep_in(
    tx: &mut Transaction,
    run: i64,
    (key, attempt): (&AttemptKey, u32),
    artifact: &ArtifactRef,
    now: Timestamp,
) -> Result<(), StoreError> {
    let keep = sql(KEEP)
        .bind(run)
        .bind(&key.step)
        .bind(key.epoch)
        .bind(i64::from(attempt))
        .bind(now.as_millis())
        .bind(to_json(artifact)?);
    tx.execute(keep).await?;
    Ok(())
}

/// What a step's attempts after the epoch `after` saved last.
pub(super) async fn latest_in(
    tx: &mut Transaction,
    run: i64,
    step: &str,
    after: i64,
) -> Result<Option<Checkpoint>, StoreError> {
    let row = tx.first(sql(LATEST).bind(run).bind(step).bind(after)).await?;
    row.as_ref().map(checkpoint).transpose()
}

/// What a run's steps saved last, by the step's name.
pub(super) async fn of_run_in(
    tx: &mut Transaction,
    run: i64,
) -> Result<BTreeMap<String, Checkpoint>, StoreError> {
    let rows = tx.all(sql(OF_RUN).bind(run)).await?;
    rows.iter().map(|row| Ok((row.text("step")?, checkpoint(row)?))).collect()
}

fn checkpoint(row: &Row) -> Result<Checkpoint, StoreError> {
    Ok(Checkpoint {
        artifact: row.json("artifact")?,
        attempt: u32::try_from(row.int("attempt")?).unwrap_or_default(),
        at: Timestamp::from_millis(row.int("at")?),
    })
}

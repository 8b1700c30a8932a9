//! What steps with `cache` came to, kept under what it depends on. It is taken only while all its artifacts are there, and goes
//! with the run it came of.

use std::collections::BTreeSet;

use refit_workflows::digest::Digest;
use refit_workflows::names::RunName;
use refit_workflows::run::{Input, Results};
use refit_workflows::time::Timestamp;

use super::database::{Transaction, sql};
use super::{StoreError, blobs, to_json};

const KEEP: &str = "INSERT INTO cache (key, run, at, results) VALUES ($1, $2, $3, $4)
    ON CONFLICT (key) DO UPDATE SET run = excluded.run, at = excluded.at, results = excluded.results";
const FIND: &str = "SELECT c.results, r.workflow, r.number FROM cache c JOIN runs r ON r.id = c.run
    WHERE c.key = $1 AND c.at >= $2";

/// Keeps what a step of a run came to, in place of what it came to before.
pub(super) async fn remember_in(
    tx: &mut Transaction,
    run: i64,
    key: &Digest,
    results: &Results,
    now: Timestamp,
) -> Result<(), StoreError> {
    let keep = sql(KEEP).bind(key.as_str()).bind(run).bind(now.as_millis()).bind(to_json(results)?);
    tx.execute(keep).await?;
    Ok(())
}

/// What `step` is answered: what is kept under `key`, if it is not older than `since` and whole.
pub(super) async fn recall_in(
    tx: &mut Transaction,
    step: usize,
    key: &Digest,
    since: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<Input>, StoreError> {
    let since = since.map_or(i64::MIN, Timestamp::as_millis);
    let Some(row) = tx.first(sql(FIND).bind(key.as_str()).bind(since)).await? else { return Ok(None) };
    let results: Box<Results> = row.json("results")?;
    // In one order, so that two runs which take the same lock it in the same order.
    let digests: BTreeSet<&Digest> = results.artifacts.values().map(|artifact| &artifact.digest).collect();
    for digest in digests {
        // So that it is not taken out as garbage while it is being named again.
        if !blobs::touch(tx, digest, now).await? {
            return Ok(None);
        }
    }
    let from = RunName::new(row.text("workflow")?, row.int("number")?);
    Ok(Some(Input::Recalled { step, from, results }))
}

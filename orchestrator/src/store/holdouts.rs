//! How often the same examples have decided about a model. Told with the gates; must never happen here: a verdict.

use std::collections::BTreeMap;

use refit_workflows::digest::Digest;
use refit_workflows::run::Run;
use refit_workflows::wire::HoldoutUse;

use super::StoreError;
use super::database::{Transaction, sql};

const COUNT: &str = "INSERT INTO holdouts (model, digest, run, step, uses)
    SELECT $1, $2, $3, $4, COUNT(*) + 1 FROM holdouts WHERE model = $1 AND digest = $2";
/// Of each gate, what its latest decision used.
const OF_RUN: &str = "SELECT h.step, h.digest, h.uses FROM holdouts h WHERE h.run = $1
    AND NOT EXISTS (SELECT 1 FROM holdouts l
        WHERE l.run = h.run AND l.step = h.step AND l.digest = h.digest AND l.seq > h.seq)
    ORDER BY h.seq LIMIT 1000";

/// Counts that a gate of a run has decided on these examples; without a model there is nothing that they are learned by.
pub(super) async fn count_in(
    tx: &mut Transaction,
    (run_id, run): (i64, &Run),
    step: usize,
    holdouts: &[Digest],
) -> Result<(), StoreError> {
    let Some(model) = &run.workflow().model else { return Ok(()) };
    for digest in holdouts {
        let count = sql(COUNT).bind(model).bind(digest.as_str()).bind(run_id).bind(run.step_name(step));
        tx.execute(count).await?;
    }
    Ok(())
}

/// The examples that the gates of a run decided on, by the gate's step.
pub(super) async fn of_run_in(
    tx: &mut Transaction,
    run_id: i64,
) -> Result<BTreeMap<String, Vec<HoldoutUse>>, StoreError> {
    let mut found: BTreeMap<String, Vec<HoldoutUse>> = BTreeMap::new();
    for row in tx.all(sql(OF_RUN).bind(run_id)).await? {
        let used = HoldoutUse { digest: row.parsed("digest")?, uses: row.int("uses")?.unsigned_abs() };
        found.entry(row.text("step")?).or_default().push(used);
    }
    Ok(found)
}

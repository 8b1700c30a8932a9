//! What the data checks of a step compare with: the profile that the same step handed over in earlier runs. Must never happen
//! here: a search through all runs there are.

use refit_workflows::definition::{Against, DataCheck};
use refit_workflows::names::RunName;
use refit_workflows::run::{Run, Step};
use refit_workflows::wire::{
    DataRef, DataReference, DataReferences, OrderTask, PROFILE_ARTIFACT, ROWS_METRIC, StepOrder,
};

use super::StoreError;
use super::database::{Row, Transaction, sql};

/// The latest of the runs before this one in which the step succeeded; further back than this many runs nobody looks.
const PREVIOUS: &str = "SELECT r.workflow, r.number, s.body FROM
        (SELECT id, workflow, number FROM runs WHERE workflow = $1 AND number < $2 ORDER BY number DESC LIMIT 200) AS r
    JOIN steps s ON s.run = r.id
    WHERE s.name = $3 AND s.state = 'succeeded' ORDER BY r.number DESC LIMIT 1";
const PREVIOUS_ROWS: &str = "SELECT s.body FROM
        (SELECT id, number FROM runs WHERE workflow = $1 AND number < $2 ORDER BY number DESC LIMIT 200) AS r
    JOIN steps s ON s.run = r.id
    WHERE s.name = $3 AND s.state = 'succeeded' ORDER BY r.number DESC LIMIT $4";
const OF_VERSION: &str = "SELECT r.workflow, r.number, s.body FROM versions v
    JOIN runs r ON r.id = v.run JOIN steps s ON s.run = r.id
    WHERE v.model = $1 AND v.version = $2 AND s.name = $3 AND s.state = 'succeeded'";

/// Whether the checks of an order compare with earlier runs.
pub(super) fn are_needed(order: &StepOrder) -> bool {
    let OrderTask::Validate(validate) = &order.task else { return false };
    let are_needed = |check: &DataCheck<DataRef>| {
        check.usual().is_some() || matches!(check.against(), Some(Against::Previous | Against::Champion))
    };
    validate.checks.iter().any(are_needed)
}

/// Fills in what the checks of an order compare with.
pub(super) async fn fill_in(
    tx: &mut Transaction,
    run: &Run,
    order: &mut StepOrder,
) -> Result<(), StoreError> {
    let OrderTask::Validate(validate) = &mut order.task else { return Ok(()) };
    let mut references = DataReferences::default();
    let against = || validate.checks.iter().filter_map(|check| check.against());
    if against().any(|against| matches!(against, Against::Previous)) {
        let name = run.name();
        let previous = sql(PREVIOUS).bind(&name.workflow).bind(name.number).bind(&order.key.step);
        references.previous = tx.first(previous).await?.as_ref().map(reference).transpose()?.flatten();
    }
    if against().any(|against| matches!(against, Against::Champion))
        && let (Some(champion), Some(model)) = (&run.head().champion, &run.workflow().model)
    {
        let of_version = sql(OF_VERSION).bind(model).bind(champion.version).bind(&order.key.step);
        references.champion = tx.first(of_version).await?.as_ref().map(reference).transpose()?.flatten();
    }
    if let Some(runs) = validate.checks.iter().filter_map(DataCheck::usual).map(|usual| usual.runs).max() {
        let name = run.name();
        let previous = sql(PREVIOUS_ROWS)
            .bind(&name.workflow)
            .bind(name.number)
            .bind(&order.key.step)
            .bind(i64::from(runs));
        for row in tx.all(previous).await? {
            references.row_counts.extend(row_count(&row)?);
        }
    }
    validate.references = references;
    Ok(())
}

fn row_count(row: &Row) -> Result<Option<f64>, StoreError> {
    let step: Step = row.json("body")?;
    Ok(step.state.results().and_then(|results| results.metrics.get(ROWS_METRIC)).copied())
}

fn reference(row: &Row) -> Result<Option<DataReference>, StoreError> {
    let step: Step = row.json("body")?;
    let profile = step.state.results().and_then(|results| results.artifacts.get(PROFILE_ARTIFACT)).cloned();
    let run = RunName::new(row.text("workflow")?, row.int("number")?);
    Ok(profile.map(|profile| DataReference { run, profile }))
}

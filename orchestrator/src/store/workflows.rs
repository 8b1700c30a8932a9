//! Registered workflows: every definition ever applied, by digest, and which one is current.

use std::sync::Arc;

use refit_workflows::definition::{Trigger, Workflow};
use refit_workflows::digest::Digest;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::Apply;

use super::database::{Transaction, sql};
use super::{Hints, Store, StoreError, unpoisoned};

/// How many parsed definitions are kept in memory.
const DEFINITIONS_MAX: usize = 2_000;

/// A workflow as it is applied now.
#[derive(Clone, Debug)]
pub(super) struct CurrentWorkflow {
    pub(super) digest: Digest,
    pub(super) bundle: Option<Digest>,
    pub(super) workflow: Arc<Workflow>,
}

const DEFINITION: &str = "SELECT text FROM definitions WHERE digest = $1";
const CURRENT: &str =
    "SELECT d.digest, d.bundle FROM workflows w JOIN definitions d ON d.digest = w.definition
    ORDER BY w.name";
const CURRENT_OF: &str =
    "SELECT d.digest, d.bundle FROM workflows w JOIN definitions d ON d.digest = w.definition
    WHERE w.name = $1";
const KEEP_DEFINITION: &str =
    "INSERT INTO definitions (digest, workflow, text, bundle) VALUES ($1, $2, $3, $4)
    ON CONFLICT (digest) DO NOTHING";
const KEEP_WORKFLOW: &str =
    "INSERT INTO workflows (name, definition, version, applied_at, applied_by, next_number)
    VALUES ($1, $2, 1, $3, $4, 1)
    ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, version = workflows.version + 1,
        applied_at = excluded.applied_at, applied_by = excluded.applied_by
    WHERE workflows.definition <> excluded.definition";
const FORGET_SCHEDULES: &str = "DELETE FROM schedules WHERE workflow = $1 AND trigger_index >= $2";
const SCHEDULE: &str = "SELECT spec FROM schedules WHERE workflow = $1 AND trigger_index = $2";
const KEEP_SCHEDULE: &str = "INSERT INTO schedules (workflow, trigger_index, spec, next_at)
    VALUES ($1, $2, $3, $4)
    ON CONFLICT (workflow, trigger_index) DO UPDATE SET spec = excluded.spec, next_at = excluded.next_at";
const FORGET_SCHEDULE: &str = "DELETE FROM schedules WHERE workflow = $1 AND trigger_index = $2";

/// Names a definition by its text and its code.
pub(super) fn definition_digest(apply: &Apply) -> Digest {
    let bundle = apply.bundle.as_ref().map(Digest::as_str).unwrap_or_default();
    Digest::of(format!("{bundle}\n{}", apply.text).as_bytes())
}

impl Store {
    /// The parsed definition; parsed once per process.
    pub(super) async fn definition(
        &self,
        tx: &mut Transaction,
        digest: &Digest,
    ) -> Result<Arc<Workflow>, StoreError> {
        if let Some(known) = unpoisoned(&self.inner.definitions).get(digest) {
            return Ok(Arc::clone(known));
        }
        let text = tx.one(sql(DEFINITION).bind(digest.as_str())).await?.text("text")?;
        let workflow = Workflow::parse(&text)
            .map_err(|problems| StoreError::Corrupt(format!("definition {digest}: {problems}")))?;
        let workflow = Arc::new(workflow);
        self.remember(digest.clone(), Arc::clone(&workflow));
        Ok(workflow)
    }

    /// Keeps a parsed definition in memory.
    fn remember(&self, digest: Digest, workflow: Arc<Workflow>) {
        let mut definitions = unpoisoned(&self.inner.definitions);
        if definitions.len() >= DEFINITIONS_MAX {
            definitions.clear();
        }
        definitions.insert(digest, workflow);
    }

    /// Every workflow as it is applied now. One that cannot be read any more is left out, loudly.
    pub(super) async fn current_workflows(
        &self,
        tx: &mut Transaction,
    ) -> Result<Vec<CurrentWorkflow>, StoreError> {
        let mut current = Vec::new();
        for row in tx.all(sql(CURRENT)).await? {
            let digest: Digest = row.parsed("digest")?;
            match self.definition(tx, &digest).await {
                Ok(workflow) => current.push(CurrentWorkflow { digest, bundle: bundle(&row)?, workflow }),
                Err(StoreError::Corrupt(reason)) => tracing::error!(reason, "a workflow cannot be read"),
                Err(error) => return Err(error),
            }
        }
        Ok(current)
    }

    pub(super) async fn current_workflow(
        &self,
        tx: &mut Transaction,
        name: &str,
    ) -> Result<Option<CurrentWorkflow>, StoreError> {
        let Some(row) = tx.first(sql(CURRENT_OF).bind(name)).await? else { return Ok(None) };
        let digest: Digest = row.parsed("digest")?;
        let workflow = self.definition(tx, &digest).await?;
        Ok(Some(CurrentWorkflow { digest, bundle: bundle(&row)?, workflow }))
    }

    /// Makes a definition the current one of its workflow. Returns whether that changed anything.
    pub async fn apply_workflow(
        &self,
        apply: Apply,
        workflow: Workflow,
        by: &str,
    ) -> Result<(bool, Hints), StoreError> {
        let (apply, workflow, by) = (Arc::new(apply), Arc::new(workflow), by.to_owned());
        self.durably(move |store| {
            let (apply, workflow, by) = (Arc::clone(&apply), Arc::clone(&workflow), by.clone());
            async move {
                let now = store.clock().now();
                let digest = definition_digest(&apply);
                let mut tx = store.database().begin().await?;
                store.lock_dispatch(&mut tx).await?;
                let bundle = apply.bundle.as_ref().map(Digest::as_str);
                let keep = sql(KEEP_DEFINITION)
                    .bind(digest.as_str())
                    .bind(&workflow.name)
                    .bind(&apply.text)
                    .bind(bundle);
                tx.execute(keep).await?;
                let keep = sql(KEEP_WORKFLOW)
                    .bind(&workflow.name)
                    .bind(digest.as_str())
                    .bind(now.as_millis())
                    .bind(by.as_str());
                let changed = tx.execute(keep).await? > 0;
                store.keep_schedules(&mut tx, &workflow, now).await?;
                tx.commit().await?;
                store.remember(digest, workflow);
                Ok((changed, Hints { lanes: true, ..Hints::default() }))
            }
        })
        .await
    }

    /// Keeps a next slot for each schedule: a schedule that did not change keeps its own, so that applying a file
    /// again skips no slot.
    async fn keep_schedules(
        &self,
        tx: &mut Transaction,
        workflow: &Workflow,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let count = workflow.triggers.len() as i64;
        tx.execute(sql(FORGET_SCHEDULES).bind(&workflow.name).bind(count)).await?;
        for (index, trigger) in workflow.triggers.iter().enumerate() {
            let index = index as i64;
            let Trigger::Cron(cron) = trigger else {
                tx.execute(sql(FORGET_SCHEDULE).bind(&workflow.name).bind(index)).await?;
                continue;
            };
            let (expression, zone) = cron.schedule.source();
            let spec = format!("{expression} {zone}");
            let known = tx.first(sql(SCHEDULE).bind(&workflow.name).bind(index)).await?;
            let same = match &known {
                Some(row) => row.text("spec")? == spec,
                None => false,
            };
            if !same {
                let next = cron.schedule.next_after(now).map(Timestamp::as_millis);
                tx.execute(sql(KEEP_SCHEDULE).bind(&workflow.name).bind(index).bind(spec).bind(next)).await?;
            }
        }
        Ok(())
    }
}

fn bundle(row: &super::database::Row) -> Result<Option<Digest>, StoreError> {
    row.opt_text("bundle")?.map(|text| text.parse().map_err(StoreError::Corrupt)).transpose()
}

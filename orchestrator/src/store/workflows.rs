//! Registered workflows: every definition ever applied, by digest, and which one is current.

use std::collections::BTreeMap;
use std::sync::Arc;

use refit_workflows::definition::Workflow;
use refit_workflows::digest::Digest;

use super::database::{Transaction, sql};
use super::dispatch::Round;
use super::{Hints, Store, StoreError, to_json, unpoisoned};

/// How many parsed definitions are kept in memory.
const DEFINITIONS_MAX: usize = 2_000;

/// A workflow as it is applied now.
#[derive(Clone, Debug)]
pub(super) struct CurrentWorkflow {
    pub(super) digest: Digest,
    pub(super) bundle: Option<Digest>,
    pub(super) workflow: Arc<Workflow>,
}

const DEFINITION: &str = "SELECT text, used FROM definitions WHERE digest = $1";
const CURRENT: &str =
    "SELECT d.digest, d.bundle FROM workflows w JOIN definitions d ON d.digest = w.definition
    ORDER BY w.name";
const CURRENT_OF: &str =
    "SELECT d.digest, d.bundle FROM workflows w JOIN definitions d ON d.digest = w.definition
    WHERE w.name = $1";
const KEEP_DEFINITION: &str =
    "INSERT INTO definitions (digest, workflow, text, used, bundle) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (digest) DO NOTHING";
const KEEP_WORKFLOW: &str =
    "INSERT INTO workflows (name, definition, version, applied_at, applied_by, next_number)
    VALUES ($1, $2, 1, $3, $4, 1)
    ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, version = workflows.version + 1,
        applied_at = excluded.applied_at, applied_by = excluded.applied_by
    WHERE workflows.definition <> excluded.definition";

/// Names a definition by all its text and its code.
fn definition_digest(workflow: &Workflow, bundle: Option<&Digest>) -> Digest {
    let bundle = bundle.map(Digest::as_str).unwrap_or_default();
    Digest::of(format!("{bundle}\n{}", workflow.sources.digest()).as_bytes())
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
        let row = tx.one(sql(DEFINITION).bind(digest.as_str())).await?;
        let used: BTreeMap<String, String> = row.json("used")?;
        let workflow = Workflow::parse_with(&row.text("text")?, &used)
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
        bundle: Option<Digest>,
        workflow: Workflow,
        by: &str,
    ) -> Result<(bool, Hints), StoreError> {
        let (workflow, by) = (Arc::new(workflow), by.to_owned());
        self.durably(move |store| {
            let (bundle, workflow, by) = (bundle.clone(), Arc::clone(&workflow), by.clone());
            async move {
                let digest = definition_digest(&workflow, bundle.as_ref());
                let mut round = Round::begin(store.clone()).await?;
                let sources = &workflow.sources;
                let keep = sql(KEEP_DEFINITION)
                    .bind(digest.as_str())
                    .bind(&workflow.name)
                    .bind(&sources.main)
                    .bind(to_json(&sources.used)?)
                    .bind(bundle.as_ref().map(Digest::as_str));
                round.tx.execute(keep).await?;
                let keep = sql(KEEP_WORKFLOW)
                    .bind(&workflow.name)
                    .bind(digest.as_str())
                    .bind(round.now.as_millis())
                    .bind(by.as_str());
                let changed = round.tx.execute(keep).await? > 0;
                if changed {
                    round.keep_schedules(&workflow).await?;
                    round.keep_gatherings(&workflow).await?;
                }
                round.hints.lanes = true;
                let hints = round.commit().await?;
                store.remember(digest, workflow);
                Ok((changed, hints))
            }
        })
        .await
    }
}

fn bundle(row: &super::database::Row) -> Result<Option<Digest>, StoreError> {
    row.opt_text("bundle")?.map(|text| text.parse().map_err(StoreError::Corrupt)).transpose()
}

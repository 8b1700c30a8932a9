//! The model registry: versions, where they come from, the history of aliases, and the evidence each move rested on. A
//! run's promotion is a compare-and-swap: the alias moves only from the champion the gate compared with. How it moves is
//! `aliases`' business.

use std::collections::BTreeMap;

use refit_workflows::digest::Digest;
use refit_workflows::gate::Champion;
use refit_workflows::names::RunName;
use refit_workflows::run::{Input, Promotion, Run};
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{
    ArtifactRef, EventRef, EvidenceRecord, EvidenceView, HistoryView, ModelView, Moved, PROFILE_ARTIFACT,
    VersionDetail, VersionRef, VersionView,
};
use serde_json::json;

use super::aliases::{Because, HeldAlias};
use super::database::{Row, Transaction, sql};
use super::mirror::Mirrored;
use super::{ChangeError, Store, StoreError, holdouts, to_json, watches};

const KEEP_MODEL: &str = "INSERT INTO models (name, versions) VALUES ($1, 0) ON CONFLICT (name) DO NOTHING";
const COUNT_VERSION: &str = "UPDATE models SET versions = $2 WHERE name = $1";
const CHAMPION: &str = "SELECT v.version, v.artifact, v.artifact_ref, v.metrics FROM aliases a
    JOIN versions v ON v.model = a.model AND v.version = a.version WHERE a.model = $1 AND a.alias = $2";
const KEEP_VERSION: &str = "INSERT INTO versions
    (model, version, run, artifact, artifact_ref, metrics, evidence, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const KEEP_EVIDENCE: &str =
    "INSERT INTO evidence (digest, body) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING";
const EVIDENCE: &str = "SELECT e.digest, e.body FROM versions v
    JOIN runs r ON r.id = v.run JOIN evidence e ON e.digest = v.evidence
    WHERE r.workflow = $1 AND r.number = $2 ORDER BY v.version DESC LIMIT 1";
const RUN_EVENTS: &str = "SELECT e.source, e.id FROM run_events r JOIN events e ON e.seq = r.event
    WHERE r.run = $1 ORDER BY e.seq LIMIT 10000";
const MODELS: &str = "SELECT name FROM models ORDER BY name LIMIT 1000";
const VERSIONS: &str =
    "SELECT v.version, v.artifact, v.artifact_ref, v.metrics, v.created_at, r.workflow, r.number
    FROM versions v JOIN runs r ON r.id = v.run WHERE v.model = $1 ORDER BY v.version DESC LIMIT 1000";
const ALIASES: &str = "SELECT alias, version FROM aliases WHERE model = $1 ORDER BY alias";
const VERSION: &str =
    "SELECT v.version, v.artifact, v.artifact_ref, v.metrics, v.created_at, r.workflow, r.number,
        v.evidence, e.body
    FROM versions v JOIN runs r ON r.id = v.run JOIN evidence e ON e.digest = v.evidence
    WHERE v.model = $1 AND v.version = $2";
const ALIAS: &str = "SELECT version FROM aliases WHERE model = $1 AND alias = $2";
const HISTORY: &str =
    "SELECT h.seq, h.alias, h.from_version, h.to_version, h.at, h.how, h.moved_by, h.reason, h.evidence,
        r.workflow, r.number
    FROM alias_history h LEFT JOIN runs r ON r.id = h.run WHERE h.model = $1 ORDER BY h.seq DESC LIMIT 1000";

impl Store {
    /// The version an alias points to.
    pub(super) async fn champion_in(
        &self,
        tx: &mut Transaction,
        model: &str,
        alias: &str,
    ) -> Result<Option<Champion>, StoreError> {
        let Some(row) = tx.first(sql(CHAMPION).bind(model).bind(alias)).await? else { return Ok(None) };
        let artifact: ArtifactRef = row.json("artifact_ref")?;
        Ok(Some(Champion {
            version: row.int("version")?,
            metrics: row.json("metrics")?,
            artifacts: BTreeMap::from([(row.text("artifact")?, artifact)]),
        }))
    }

    /// Makes the candidate a version and moves the alias, if it still points to what the gate compared with; answers
    /// the run either way.
    pub(super) async fn promote_in(
        &self,
        tx: &mut Transaction,
        run_id: i64,
        run: &Run,
        promotion: &Promotion,
        now: Timestamp,
    ) -> Result<Input, StoreError> {
        tx.execute(sql(KEEP_MODEL).bind(&promotion.model)).await?;
        let held = HeldAlias::lock(tx, &promotion.model, &promotion.alias).await?;
        let gone = || StoreError::Broken(format!("the model {} is gone", promotion.model));
        let held = held.ok_or_else(gone)?;
        if held.current != promotion.expected {
            tracing::info!(
                run = %run.name(), model = promotion.model, compared = promotion.expected, now = held.current,
                "the champion moved since the gate compared with it: judging again"
            );
            let champion = self.champion_in(tx, &promotion.model, &promotion.alias).await?;
            return Ok(Input::ChampionMoved { step: promotion.step, champion });
        }
        let version = held.versions + 1;
        let record = self.evidence_record(tx, run_id, run, promotion, version, now).await?;
        // By way of a value, whose keys are in order: the digest is that of a text that anybody can make again.
        let evidence = to_json(&json!(record))?;
        let digest = Digest::of(evidence.as_bytes());
        tx.execute(sql(KEEP_EVIDENCE).bind(digest.as_str()).bind(evidence)).await?;
        tx.execute(sql(COUNT_VERSION).bind(&promotion.model).bind(version)).await?;
        tx.execute(
            sql(KEEP_VERSION)
                .bind(&promotion.model)
                .bind(version)
                .bind(run_id)
                .bind(&promotion.artifact)
                .bind(to_json(&promotion.candidate)?)
                .bind(to_json(&promotion.metrics)?)
                .bind(digest.as_str())
                .bind(now.as_millis()),
        )
        .await?;
        let reason = promotion.gates.values().map(|decision| decision.reason.as_str()).collect::<Vec<_>>();
        let because = Because {
            by: &format!("run {}", run.name()),
            run: Some((run_id, run.name())),
            reason: Some(&reason.join("; ")),
            evidence: Some(&digest),
            event: None,
        };
        let (seq, _) = held.promote(tx, version, Moved::Promoted, because, now).await?;
        watches::begin_in(tx, (run_id, run), promotion, (version, seq), now).await?;
        Ok(Input::Promoted { step: promotion.step, version, evidence: digest })
    }

    /// Everything a promotion rested on, as one record.
    async fn evidence_record(
        &self,
        tx: &mut Transaction,
        run_id: i64,
        run: &Run,
        promotion: &Promotion,
        version: i64,
        now: Timestamp,
    ) -> Result<EvidenceRecord, StoreError> {
        let mut events = Vec::new();
        for row in tx.all(sql(RUN_EVENTS).bind(run_id)).await? {
            events.push(EventRef { source: row.text("source")?, id: row.text("id")? });
        }
        Ok(EvidenceRecord {
            model: promotion.model.clone(),
            version,
            alias: promotion.alias.clone(),
            champion: promotion.expected,
            candidate: promotion.candidate.clone(),
            metrics: promotion.metrics.clone(),
            gates: promotion.gates.clone(),
            approvals: promotion.approvals.clone(),
            covers: promotion.covers.clone(),
            holdouts: holdouts::of_run_in(tx, run_id).await?,
            run: run.name().clone(),
            definition: run.facts().definition.clone(),
            params: run.facts().params.clone(),
            events,
            at: now,
        })
    }

    /// The names of all models.
    pub async fn model_names(&self) -> Result<Vec<String>, StoreError> {
        self.durably(|store| async move {
            let mut tx = store.database().read().await?;
            tx.all(sql(MODELS)).await?.iter().map(|row| row.text("name")).collect()
        })
        .await
    }

    /// A model with its versions and aliases.
    pub async fn model(&self, name: &str) -> Result<Option<ModelView>, StoreError> {
        let name = name.to_owned();
        self.durably(move |store| {
            let name = name.clone();
            async move {
                let mut tx = store.database().read().await?;
                let mut versions: Vec<VersionView> = tx
                    .all(sql(VERSIONS).bind(&name))
                    .await?
                    .iter()
                    .map(version_view)
                    .collect::<Result<_, _>>()?;
                if versions.is_empty() {
                    return Ok(None);
                }
                let mut aliases = BTreeMap::new();
                for row in tx.all(sql(ALIASES).bind(&name)).await? {
                    aliases.insert(row.text("alias")?, row.int("version")?);
                }
                let watches = watches::of_model_in(&mut tx, &name).await?;
                let mirrored = Mirrored::of_model_in(&mut tx, &name, store.clock().now()).await?;
                let mut mirror = None;
                if let Some(mirrored) = mirrored {
                    mirror = Some(mirrored.whole_in(&mut tx, &name).await?);
                    for version in &mut versions {
                        version.mirror = Some(mirrored.of_version(version.version));
                    }
                }
                Ok(Some(ModelView { model: name, versions, aliases, watches, mirror }))
            }
        })
        .await
    }

    /// A version and where it comes from.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`]: there is no such version, or nothing under the alias.
    pub async fn version(&self, model: &str, version: &VersionRef) -> Result<VersionDetail, ChangeError> {
        let (model, version) = (model.to_owned(), version.clone());
        self.durably(move |store| {
            let (model, version) = (model.clone(), version.clone());
            async move {
                let mut tx = store.database().read().await?;
                let number = match &version {
                    VersionRef::Number(number) => Some(*number),
                    VersionRef::Alias(alias) => {
                        let row = tx.first(sql(ALIAS).bind(&model).bind(alias)).await?;
                        row.map(|row| row.int("version")).transpose()?
                    }
                };
                let row = match number {
                    Some(number) => tx.first(sql(VERSION).bind(&model).bind(number)).await?,
                    None => None,
                };
                let Some(row) = row else { return Err(ChangeError::NotFound(missing(&model, &version))) };
                store.version_in(&mut tx, model, &row).await
            }
        })
        .await
    }

    async fn version_in(
        &self,
        tx: &mut Transaction,
        model: String,
        row: &Row,
    ) -> Result<VersionDetail, ChangeError> {
        let mut version = version_view(row)?;
        let mirrored = Mirrored::of_version_in(tx, (&model, version.version), self.clock().now()).await?;
        version.mirror = mirrored.map(|mirrored| mirrored.of_version(version.version));
        let record: EvidenceRecord = row.json("body")?;
        let aliases = tx.all(sql(ALIASES).bind(&model)).await?;
        let mut pointing = Vec::new();
        for alias in aliases {
            if alias.int("version")? == version.version {
                pointing.push(alias.text("alias")?);
            }
        }
        let (_, run) = self.load_run_in(tx, &version.run).await?;
        let facts = run.facts();
        Ok(VersionDetail {
            model,
            aliases: pointing,
            compared_with: record.champion,
            evidence: row.parsed("evidence")?,
            definition: record.definition,
            code: facts.bundle.clone(),
            params: record.params,
            data: profiles(&run),
            trigger: facts.trigger.clone(),
            event_count: facts.batch.count,
            events: record.events,
            version,
        })
    }

    /// What the promotion of a run rested on; none when it promoted nothing.
    pub async fn evidence(&self, run: &RunName) -> Result<Option<EvidenceView>, StoreError> {
        let run = run.clone();
        self.durably(move |store| {
            let run = run.clone();
            async move {
                let found =
                    store.database().first(sql(EVIDENCE).bind(&run.workflow).bind(run.number)).await?;
                found
                    .map(|row| {
                        let digest = row.text("digest")?.parse().map_err(StoreError::Corrupt)?;
                        Ok(EvidenceView { digest, record: row.json("body")? })
                    })
                    .transpose()
            }
        })
        .await
    }

    /// The moves of a model's aliases, newest first.
    pub async fn history(&self, model: &str) -> Result<Vec<HistoryView>, StoreError> {
        let model = model.to_owned();
        self.durably(move |store| {
            let model = model.clone();
            async move {
                let mut tx = store.database().read().await?;
                let mirrored = Mirrored::of_model_in(&mut tx, &model, store.clock().now()).await?;
                let rows = tx.all(sql(HISTORY).bind(&model)).await?;
                rows.iter().map(|row| history_view(row, mirrored.as_ref())).collect()
            }
        })
        .await
    }
}

/// What is not there, in words.
fn missing(model: &str, version: &VersionRef) -> String {
    match version {
        VersionRef::Number(number) => format!("version {number} of {model}"),
        VersionRef::Alias(alias) => format!("version of {model} under the alias {alias}"),
    }
}

/// The digests of the profiles that a run's `validate` steps handed on, by step.
fn profiles(run: &Run) -> BTreeMap<String, Digest> {
    let places = 0..run.steps().len();
    let profile = |place: usize| {
        let results = run.steps()[place].state.results()?;
        let profile = results.artifacts.get(PROFILE_ARTIFACT).filter(|_| run.is_validation(place))?;
        Some((run.step_name(place).to_owned(), profile.digest.clone()))
    };
    places.filter_map(profile).collect()
}

fn version_view(row: &Row) -> Result<VersionView, StoreError> {
    let artifact: ArtifactRef = row.json("artifact_ref")?;
    Ok(VersionView {
        version: row.int("version")?,
        run: RunName::new(row.text("workflow")?, row.int("number")?),
        digest: artifact.digest,
        bytes: artifact.bytes,
        kind: artifact.kind,
        artifact: row.text("artifact")?,
        metrics: row.json("metrics")?,
        created_at: Timestamp::from_millis(row.int("created_at")?),
        mirror: None,
    })
}

fn history_view(row: &Row, mirrored: Option<&Mirrored>) -> Result<HistoryView, StoreError> {
    let run = match row.opt_text("workflow")? {
        Some(workflow) => Some(RunName::new(workflow, row.int("number")?)),
        None => None,
    };
    let evidence =
        row.opt_text("evidence")?.map(|text| text.parse().map_err(StoreError::Corrupt)).transpose()?;
    let (line, to) = (row.int("seq")?, row.int("to_version")?);
    Ok(HistoryView {
        alias: row.text("alias")?,
        from: row.opt_int("from_version")?,
        to,
        at: Timestamp::from_millis(row.int("at")?),
        how: row.parsed("how")?,
        by: row.text("moved_by")?,
        run,
        reason: row.opt_text("reason")?,
        evidence,
        mirror: mirrored.map(|mirrored| mirrored.of_move(line, to)),
    })
}

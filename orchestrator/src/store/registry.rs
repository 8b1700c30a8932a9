//! The model registry: versions, aliases, their history, and the evidence each move rested on. A promotion is a
//! compare-and-swap under the model's row lock: the alias moves only from the champion the gate compared with.

use std::collections::BTreeMap;

use refit_workflows::digest::Digest;
use refit_workflows::event::CloudEvent;
use refit_workflows::gate::Champion;
use refit_workflows::names::RunName;
use refit_workflows::run::{Input, Promotion, Run};
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{
    ArtifactRef, EventRef, EvidenceRecord, EvidenceView, HistoryView, ModelView, VersionView,
};
use serde_json::json;

use super::database::{Row, Sql, Transaction, sql};
use super::{ChangeError, Hints, Store, StoreError, to_json};

const KEEP_MODEL: &str = "INSERT INTO models (name, versions) VALUES ($1, 0) ON CONFLICT (name) DO NOTHING";
const LOCK_MODEL: Sql = Sql {
    sqlite: "SELECT versions FROM models WHERE name = $1",
    postgres: "SELECT versions FROM models WHERE name = $1 FOR UPDATE",
};
const COUNT_VERSION: &str = "UPDATE models SET versions = $2 WHERE name = $1";
const ALIAS: &str = "SELECT version FROM aliases WHERE model = $1 AND alias = $2";
const CHAMPION: &str = "SELECT v.version, v.artifact, v.artifact_ref, v.metrics FROM aliases a
    JOIN versions v ON v.model = a.model AND v.version = a.version WHERE a.model = $1 AND a.alias = $2";
const KEEP_VERSION: &str = "INSERT INTO versions
    (model, version, run, artifact, artifact_ref, metrics, evidence, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const MOVE_ALIAS: &str = "INSERT INTO aliases (model, alias, version) VALUES ($1, $2, $3)
    ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version";
const REMEMBER: &str = "INSERT INTO alias_history
    (model, alias, from_version, to_version, at, moved_by, run, reason, evidence)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const KEEP_EVIDENCE: &str =
    "INSERT INTO evidence (digest, body) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING";
const EVIDENCE: &str = "SELECT e.digest, e.body FROM versions v
    JOIN runs r ON r.id = v.run JOIN evidence e ON e.digest = v.evidence
    WHERE r.workflow = $1 AND r.number = $2 ORDER BY v.version DESC LIMIT 1";
const LATEST_MOVES: &str = "SELECT from_version, to_version FROM alias_history
    WHERE model = $1 AND alias = $2 ORDER BY seq DESC";
const RUN_EVENTS: &str = "SELECT e.source, e.id FROM run_events r JOIN events e ON e.seq = r.event
    WHERE r.run = $1 ORDER BY e.seq LIMIT 10000";
const MODELS: &str = "SELECT name FROM models ORDER BY name LIMIT 1000";
const VERSIONS: &str =
    "SELECT v.version, v.artifact, v.artifact_ref, v.metrics, v.created_at, r.workflow, r.number
    FROM versions v JOIN runs r ON r.id = v.run WHERE v.model = $1 ORDER BY v.version DESC LIMIT 1000";
const ALIASES: &str = "SELECT alias, version FROM aliases WHERE model = $1 ORDER BY alias";
const HISTORY: &str = "SELECT h.alias, h.from_version, h.to_version, h.at, h.moved_by, h.reason, h.evidence,
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
        let versions = tx.one(sql(LOCK_MODEL).bind(&promotion.model)).await?.int("versions")?;
        let champion = self.champion_in(tx, &promotion.model, &promotion.alias).await?;
        let current = champion.as_ref().map(|champion| champion.version);
        if current != promotion.expected {
            tracing::info!(
                run = %run.name(), model = promotion.model, compared = promotion.expected, now = current,
                "the champion moved since the gate compared with it: judging again"
            );
            return Ok(Input::ChampionMoved { step: promotion.step, champion });
        }
        let version = versions + 1;
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
        tx.execute(sql(MOVE_ALIAS).bind(&promotion.model).bind(&promotion.alias).bind(version)).await?;
        let reason = promotion.gates.values().map(|decision| decision.reason.as_str()).collect::<Vec<_>>();
        tx.execute(
            sql(REMEMBER)
                .bind(&promotion.model)
                .bind(&promotion.alias)
                .bind(current)
                .bind(version)
                .bind(now.as_millis())
                .bind(format!("run {}", run.name()))
                .bind(run_id)
                .bind(reason.join("; "))
                .bind(digest.as_str()),
        )
        .await?;
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
            run: run.name().clone(),
            definition: run.facts().definition.clone(),
            params: run.facts().params.clone(),
            events,
            at: now,
        })
    }

    /// Moves an alias back to the version before; tells the world.
    pub async fn rollback(
        &self,
        model: &str,
        alias: &str,
        by: &str,
        reason: Option<&str>,
    ) -> Result<(HistoryView, Hints), ChangeError> {
        let (model, alias, by) = (model.to_owned(), alias.to_owned(), by.to_owned());
        let reason = reason.map(str::to_owned);
        self.durably(move |store| {
            let (model, alias, by, reason) = (model.clone(), alias.clone(), by.clone(), reason.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                let locked = tx.first(sql(LOCK_MODEL).bind(&model)).await?;
                let current = match locked {
                    Some(_) => tx.first(sql(ALIAS).bind(&model).bind(&alias)).await?,
                    None => None,
                };
                let Some(row) = current else {
                    return Err(ChangeError::NotFound(format!("version of {model} under the alias {alias}")));
                };
                let from = row.int("version")?;
                let moves = tx.all(sql(LATEST_MOVES).bind(&model).bind(&alias)).await?;
                let Some(to) = previous_version(&moves, from)? else {
                    return Err(ChangeError::Invalid(format!(
                        "{model} {from} is the first version that was {alias}: there is nothing to go back to"
                    )));
                };
                tx.execute(sql(MOVE_ALIAS).bind(&model).bind(&alias).bind(to)).await?;
                tx.execute(
                    sql(REMEMBER)
                        .bind(&model)
                        .bind(&alias)
                        .bind(from)
                        .bind(to)
                        .bind(now.as_millis())
                        .bind(&by)
                        .bind(None::<i64>)
                        .bind(reason.clone())
                        .bind(None::<String>),
                )
                .await?;
                let data = json!({
                    "model": model, "alias": alias, "from": from, "to": to, "by": by, "reason": reason,
                });
                let id = format!("{model}/{alias}/{}", uuid::Uuid::now_v7());
                let event =
                    CloudEvent::new(&id, "/refit/models", "refit.model.rolled_back", Some(&model), now, data);
                let hints = store.emit_in(&mut tx, &event, &format!("model {model}"), now).await?;
                tx.commit().await?;
                let view = HistoryView {
                    alias,
                    from: Some(from),
                    to,
                    at: now,
                    by,
                    run: None,
                    reason,
                    evidence: None,
                };
                Ok((view, hints))
            }
        })
        .await
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
                let versions: Vec<VersionView> = tx
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
                Ok(Some(ModelView { model: name, versions, aliases }))
            }
        })
        .await
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
                tx.all(sql(HISTORY).bind(&model)).await?.iter().map(history_view).collect()
            }
        })
        .await
    }
}

/// The version that was in use before `from` came into use. Going back twice goes back two versions: a rollback
/// undoes the latest promotion that has not been undone yet.
fn previous_version(moves: &[Row], from: i64) -> Result<Option<i64>, StoreError> {
    for row in moves {
        let before = row.opt_int("from_version")?;
        // The move that brought `from` into use from an older version, not a rollback that came back to it.
        if row.int("to_version")? == from && before.is_none_or(|before| before < from) {
            return Ok(before);
        }
    }
    Ok(None)
}

fn version_view(row: &Row) -> Result<VersionView, StoreError> {
    let artifact: ArtifactRef = row.json("artifact_ref")?;
    Ok(VersionView {
        version: row.int("version")?,
        run: RunName::new(row.text("workflow")?, row.int("number")?),
        digest: artifact.digest,
        bytes: artifact.bytes,
        artifact: row.text("artifact")?,
        metrics: row.json("metrics")?,
        created_at: Timestamp::from_millis(row.int("created_at")?),
    })
}

fn history_view(row: &Row) -> Result<HistoryView, StoreError> {
    let run = match row.opt_text("workflow")? {
        Some(workflow) => Some(RunName::new(workflow, row.int("number")?)),
        None => None,
    };
    let evidence =
        row.opt_text("evidence")?.map(|text| text.parse().map_err(StoreError::Corrupt)).transpose()?;
    Ok(HistoryView {
        alias: row.text("alias")?,
        from: row.opt_int("from_version")?,
        to: row.int("to_version")?,
        at: Timestamp::from_millis(row.int("at")?),
        by: row.text("moved_by")?,
        run,
        reason: row.opt_text("reason")?,
        evidence,
    })
}

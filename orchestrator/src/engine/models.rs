//! What may be asked of models: their versions, where these come from, and moves of their aliases by hand.

use std::time::Duration;

use refit_workflows::names::{RunName, check_name};
use refit_workflows::wire::*;

use super::{Engine, EngineError, Identity, checked_reason};
use crate::store::{ChangeError, MoveError};

impl Engine {
    /// Every model.
    pub async fn models(&self) -> Result<Vec<ModelView>, EngineError> {
        let mut models = Vec::new();
        for name in self.store().model_names().await? {
            models.extend(self.store().model(&name).await?);
        }
        Ok(models)
    }

    /// One model.
    pub async fn model(&self, name: &str) -> Result<ModelView, EngineError> {
        self.store().model(name).await?.ok_or_else(|| EngineError::NotFound(no_model(name)))
    }

    /// One version and where it comes from.
    pub async fn version(&self, model: &str, version: &VersionRef) -> Result<VersionDetail, EngineError> {
        let found = self.store().version(model, version).await;
        found.map_err(|error| match error {
            ChangeError::NotFound(what) => EngineError::NotFound(format!(
                "there is no {what}: `refit model show {model}` shows those there are"
            )),
            other @ (ChangeError::Refused(_) | ChangeError::Invalid(_) | ChangeError::Store(_)) => {
                other.into()
            }
        })
    }

    /// What two versions of a model differ in.
    pub async fn diff(
        &self,
        model: &str,
        from: &VersionRef,
        to: &VersionRef,
    ) -> Result<VersionDiff, EngineError> {
        let (from, to) = (self.version(model, from).await?, self.version(model, to).await?);
        Ok(VersionDiff::between(from, to))
    }

    /// What the promotion of a run rested on.
    pub async fn evidence(&self, run: &RunName) -> Result<EvidenceView, EngineError> {
        if let Some(evidence) = self.store().evidence(run).await? {
            return Ok(evidence);
        }
        self.run(run, None, Duration::ZERO).await?;
        Err(EngineError::NotFound(format!(
            "{run} has promoted nothing, so there is no record; `refit run show {run}` has its gates"
        )))
    }

    /// The moves of a model's aliases, newest first.
    pub async fn history(&self, model: &str) -> Result<Vec<HistoryView>, EngineError> {
        self.model(model).await?;
        Ok(self.store().history(model).await?)
    }

    /// Moves an alias to a version, on a gate that passed against what it points to now or by a person's word.
    pub async fn promote_version(
        &self,
        model: &str,
        ask: PromoteVersion,
        by: &Identity,
    ) -> Result<HistoryView, EngineError> {
        let reason = checked_reason(ask.reason)?;
        check_name(&ask.alias).map_err(|why| wrong("alias", format!("`{}` {why}", ask.alias)))?;
        if ask.override_gate && reason.is_none() {
            return Err(wrong("reason", "whoever overrides a gate says why: give a reason".to_owned()));
        }
        let ask = PromoteVersion { reason, ..ask };
        let (view, hints) = self.store().promote_by_hand(model, ask, &by.name).await?;
        self.wake(hints);
        Ok(view)
    }

    /// Moves an alias back to a version that it pointed to before.
    pub async fn rollback(
        &self,
        model: &str,
        ask: Rollback,
        by: &Identity,
    ) -> Result<HistoryView, EngineError> {
        let reason = checked_reason(ask.reason)?;
        if let Some(to) = ask.to.filter(|to| *to < 1) {
            return Err(wrong("to", format!("{to} is no version: they are counted from 1")));
        }
        let (view, hints) = self.store().rollback(model, Rollback { reason, ..ask }, &by.name).await?;
        self.wake(hints);
        Ok(view)
    }
}

fn wrong(field: &str, detail: String) -> EngineError {
    EngineError::Invalid { field: Some(field.to_owned()), detail, hint: None }
}

fn no_model(name: &str) -> String {
    format!("there is no model {name}: `refit model list` shows those that have a version")
}

impl From<MoveError> for EngineError {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::NotFound(what) => Self::NotFound(format!("there is no {what}")),
            MoveError::Refused { kind, detail } => Self::Refused { kind, detail },
            MoveError::Store(error) => Self::Store(error),
        }
    }
}

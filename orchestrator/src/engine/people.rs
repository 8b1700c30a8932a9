//! What people and programs ask of runs, and who they are: start, cancel, retry, approve; tokens.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use refit_workflows::digest::Digest;
use refit_workflows::event::CloudEvent;
use refit_workflows::names::{RunName, check_name};
use refit_workflows::run::{Input, Run, StepState};
use refit_workflows::wire::*;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use super::{Access, Engine, EngineError, Identity, checked_reason, no_workflow};
use crate::store::ChangeError;

/// How long a token's state is taken as known: how long a revoked one may still work.
const TOKEN_FRESH: Duration = Duration::from_secs(3);
/// How many tokens are remembered.
const TOKENS_MAX: usize = 1000;
/// How long a token lives unless told otherwise.
const TOKEN_DAYS: u32 = 90;
/// The most groups of one token.
const GROUPS_MAX: usize = 100;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A token and the hash of its secret.
type HashedToken = (TokenView, String);

/// What was found out about tokens lately.
#[derive(Default)]
pub(super) struct TokenCache {
    known: Mutex<HashMap<String, (Instant, Option<HashedToken>)>>,
    required: Mutex<Option<(Instant, bool)>>,
}

impl Engine {
    /// Starts a run by hand.
    pub async fn start_run(&self, start: StartRun, by: &Identity) -> Result<RunView, EngineError> {
        let id = start.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let source = format!("/refit/people/{}", by.name);
        let mut data = json!({ "workflow": start.workflow, "params": start.params });
        if start.no_cache {
            data["no_cache"] = json!(true);
        }
        let event =
            CloudEvent::new(&id, &source, "refit.run.requested", Some(&start.workflow), self.now(), data);
        CloudEvent::parse(serde_json::Value::Object(event.attributes().clone())).map_err(|wrong| {
            EngineError::Invalid { field: Some("id".to_owned()), detail: wrong.to_string(), hint: None }
        })?;
        let words = format!("manual, by {}", by.name);
        let started =
            self.store().start_run(&start.workflow, start.params, event, &words, start.no_cache).await;
        let (run, hints) = started.map_err(|error| match error {
            ChangeError::NotFound(_) => EngineError::NotFound(no_workflow(&start.workflow)),
            ChangeError::Invalid(detail) => EngineError::Invalid {
                field: Some("params".to_owned()),
                detail,
                hint: Some("the workflow's file declares its params under `params`".to_owned()),
            },
            other @ (ChangeError::Refused(_) | ChangeError::Store(_)) => other.into(),
        })?;
        self.wake(hints);
        Ok(self.store().run_view(&run).await?)
    }

    /// Changes a run by one input and shows it.
    async fn change<F>(&self, run: &RunName, input: F) -> Result<RunView, EngineError>
    where
        F: Fn(&Run) -> Result<Input, ChangeError> + Send + Sync + 'static,
    {
        let hints = self.store().change_run(run, input).await?;
        self.wake(hints);
        Ok(self.store().run_view(run).await?)
    }

    /// Ends a run: steps that are running are told to end and may take their grace.
    pub async fn cancel_run(&self, run: &RunName, by: &Identity) -> Result<RunView, EngineError> {
        let by = by.name.clone();
        self.change(run, move |_| Ok(Input::Cancelled { by: by.clone() })).await
    }

    /// Lets a run that is over go on from what did not work out, or start over.
    pub async fn retry_run(
        &self,
        run: &RunName,
        retry: RetryRun,
        by: &Identity,
    ) -> Result<RunView, EngineError> {
        let by = by.name.clone();
        self.change(run, move |_| Ok(Input::Retried { all: retry.all, by: by.clone() })).await
    }

    /// Approves or rejects a waiting approval.
    pub async fn decide(
        &self,
        run: &RunName,
        decide: Decide,
        approve: bool,
        by: &Identity,
    ) -> Result<RunView, EngineError> {
        let Identity { name: by, role, groups } = by.clone();
        let Decide { step, covers: shown, reason } = decide;
        let reason = checked_reason(reason)?;
        self.change(run, move |run| {
            Ok(Input::Decided {
                step: awaiting_step(run, step.as_deref())?,
                approve,
                by: by.clone(),
                groups: groups.clone(),
                admin: role == Role::Admin,
                shown: shown.clone(),
                reason: reason.clone(),
            })
        })
        .await
    }

    /// Makes a token; the answer alone holds its secret.
    pub async fn create_token(&self, create: CreateToken) -> Result<TokenView, EngineError> {
        let wrong = |field: &str, detail: String| EngineError::Invalid {
            field: Some(field.to_owned()),
            detail,
            hint: None,
        };
        check_name(&create.name).map_err(|why| wrong("name", format!("`{}` {why}", create.name)))?;
        for group in &create.groups {
            check_name(group).map_err(|why| wrong("groups", format!("`{group}` {why}")))?;
        }
        if create.groups.len() > GROUPS_MAX {
            return Err(wrong("groups", format!("a token's holder belongs to at most {GROUPS_MAX} groups")));
        }
        let days = create.days.unwrap_or(TOKEN_DAYS);
        if !(1..=3650).contains(&days) {
            return Err(wrong("days", format!("{days} days: a token lives 1 to 3650 days")));
        }
        let id = hex(&rand::random::<[u8; 6]>());
        let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let now = self.now();
        let token = format!("refit_{}_{id}_{secret}", create.role.as_str());
        let view = TokenView {
            id,
            name: create.name,
            role: create.role,
            groups: create.groups,
            created_at: now,
            expires_at: now.plus(DAY * days),
            revoked_at: None,
            token: None,
        };
        self.store().keep_token(view.clone(), Digest::of(token.as_bytes()).to_string()).await?;
        *self.inner.tokens.required.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(TokenView { token: Some(token), ..view })
    }

    /// Every token ever made, without secrets.
    pub async fn tokens(&self) -> Result<Vec<TokenView>, EngineError> {
        Ok(self.store().tokens().await?)
    }

    /// Revokes a token: it stops working within seconds, on every orchestrator.
    pub async fn revoke_token(&self, id: &str) -> Result<TokenView, EngineError> {
        self.store().revoke_token(id).await?;
        self.inner.tokens.known.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        match self.store().token(id).await? {
            Some((view, _)) => Ok(view),
            None => {
                Err(EngineError::NotFound(format!("there is no token {id}: `refit token list` shows them")))
            }
        }
    }

    /// Whether any token was ever made: if so, every request needs one. Never goes back to no.
    pub async fn tokens_required(&self) -> Result<bool, EngineError> {
        let known = *self.inner.tokens.required.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some((_, true)) => return Ok(true),
            Some((at, false)) if at.elapsed() < TOKEN_FRESH => return Ok(false),
            Some((_, false)) | None => {}
        }
        let required = self.store().any_token().await?;
        *self.inner.tokens.required.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), required));
        Ok(required)
    }

    /// Who bears this token.
    pub async fn authenticate(&self, token: &str) -> Result<Access, EngineError> {
        let Some(id) = token.strip_prefix("refit_").and_then(|rest| rest.split('_').nth(1)) else {
            return Ok(Access::Unknown);
        };
        let Some((view, hash)) = self.token(id).await? else { return Ok(Access::Unknown) };
        let given = Digest::of(token.as_bytes());
        let same: bool = given.as_str().as_bytes().ct_eq(hash.as_bytes()).into();
        if !same || view.revoked_at.is_some() || view.expires_at <= self.now() {
            return Ok(Access::Unknown);
        }
        Ok(Access::Known(Identity { name: view.name, role: view.role, groups: view.groups }))
    }

    async fn token(&self, id: &str) -> Result<Option<HashedToken>, EngineError> {
        let known = self.inner.tokens.known.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some((at, token)) = known
            && at.elapsed() < TOKEN_FRESH
        {
            return Ok(token);
        }
        let token = self.store().token(id).await?;
        let mut known = self.inner.tokens.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TOKENS_MAX {
            known.clear();
        }
        known.insert(id.to_owned(), (Instant::now(), token.clone()));
        Ok(token)
    }
}

/// The approval a person means: the one they name, or the only one that waits.
fn awaiting_step(run: &Run, named: Option<&str>) -> Result<usize, ChangeError> {
    let names =
        |steps: &[usize]| steps.iter().map(|&step| run.step_name(step)).collect::<Vec<_>>().join(", ");
    if let Some(name) = named {
        return run
            .place_of(name)
            .ok_or_else(|| ChangeError::Invalid(format!("{} has no step {name}", run.name())));
    }
    let awaiting: Vec<usize> = (0..run.steps().len())
        .filter(|&step| matches!(run.steps()[step].state, StepState::Awaiting { .. }))
        .collect();
    match awaiting.as_slice() {
        [step] => Ok(*step),
        [] => {
            let refused =
                refit_workflows::run::Refused::NotNow(format!("{} waits for nobody's approval", run.name()));
            Err(refused.into())
        }
        several => Err(ChangeError::Invalid(format!(
            "several steps wait for approval, name one: {}",
            names(several)
        ))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

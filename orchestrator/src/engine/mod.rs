//! What may be asked of an orchestrator, as one type: the API, the RabbitMQ intake and the outbox talk to it alone. It
//! names moments, passes the time in, and wakes whoever waits. Decisions are made in `workflows`, durability in `store`;
//! must never happen here: SQL, HTTP, a decision about a run.

mod admission;
mod blobs;
mod hosts;
mod letters;
mod loops;
mod mirror;
mod models;
mod people;
mod replays;
mod signals;
mod targets;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use refit_workflows::definition::{Problems, Workflow};
use refit_workflows::event::CloudEvent;
use refit_workflows::format::Format;
use refit_workflows::names::RunName;
use refit_workflows::run::Refused;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::*;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Retention;
use crate::health::Health;
use crate::secrets::Vault;
pub use crate::store::{
    Ask, DeadLetter, DeadLetterFilter, EventFilter, GiveUp, Look, MirrorLook, MirrorNote, Outbound,
    RunFilter, Sent, Standing, TargetState, WantedModel, WantedVersion,
};
use crate::store::{ChangeError, DELETED_RUNS_MAX, Deletion, Hints, Store, StoreError};
pub use blobs::Piece;
use signals::Signals;

/// The engine's handle; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    signals: Signals,
    settings: Settings,
    health: Health,
    /// Names this process where only one orchestrator may do something.
    holder: String,
    tokens: people::TokenCache,
    admission: admission::Admission,
    pieces: blobs::Pieces,
}

/// What the engine is told when it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a lease lives without a renewal.
    pub grace: Duration,
    /// How often everything that hints can wake is looked at all the same.
    pub poll: Duration,
    /// How each source's deliveries are read, by its name.
    pub formats: BTreeMap<String, Format>,
    /// How long what has happened is kept.
    pub retention: Retention,
    /// What the secrets of steps are fetched from.
    pub secrets: Vault,
}

/// Who asks: the name goes into journals and histories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The token's name; `local` on loopback without tokens.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The groups they belong to.
    pub groups: Vec<String>,
}

/// Why the engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no such thing. 404.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done now. 409. `kind` is a stable word for programs.
    #[error("{detail}")]
    Refused {
        /// `stale-lease`, `run-is-over`, …
        kind: &'static str,
        /// What is in the way and what to do.
        detail: String,
    },
    /// The attempt is settled already; the worker may forget it. 410.
    #[error("{0}")]
    Over(String),
    /// The request is malformed. 400 (422 for a definition's problems).
    #[error("{detail}")]
    Invalid {
        /// The field at fault.
        field: Option<String>,
        /// What is wrong.
        detail: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// What was sent, or set aside before, cannot be understood, and why. 422.
    #[error("{0}")]
    Malformed(String),
    /// The workflow file has problems. 422.
    #[error("the workflow has {} problem(s)", .0.len())]
    Definition(Problems),
    /// The caller may not do this. 403.
    #[error("{0}")]
    Forbidden(String),
    /// The database did not do its part. 503 when it is out of reach, 500 otherwise.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// The outcome of looking up a token.
#[derive(Clone, Debug)]
pub enum Access {
    /// Known, with what it may do.
    Known(Identity),
    /// Unknown, revoked or expired.
    Unknown,
}

impl Engine {
    /// An engine over an open store. Nothing happens by itself until [`Engine::start`].
    pub fn new(store: Store, settings: Settings) -> Self {
        Self {
            inner: Arc::new(Inner {
                health: Health::new(Arc::clone(store.clock())),
                store,
                signals: Signals::default(),
                settings,
                holder: uuid::Uuid::new_v4().to_string(),
                tokens: people::TokenCache::default(),
                admission: admission::Admission::default(),
                pieces: blobs::Pieces::default(),
            }),
        }
    }

    /// The store under it.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The list of sources and targets, where each registers.
    pub fn health(&self) -> &Health {
        &self.inner.health
    }

    fn now(&self) -> Timestamp {
        self.store().clock().now()
    }

    /// Follows what there may be to do: events to route or lanes with room, steps to lease, runs that changed, runs that
    /// other runs asked for.
    pub(crate) fn news(&self) -> [watch::Receiver<u64>; 4] {
        let signals = &self.inner.signals;
        [signals.dispatch(), signals.ready(), signals.runs(), signals.children()]
    }

    pub(crate) fn wake(&self, hints: Hints) {
        self.inner.signals.wake(hints);
    }

    /// Stores events, and dead letters with them, in one transaction; returns after the commit. One receipt per
    /// event, in order.
    pub async fn record(
        &self,
        events: Vec<CloudEvent>,
        dead: Vec<DeadLetter>,
    ) -> Result<Vec<Receipt>, EngineError> {
        let recorded = self.store().record(events, dead).await?;
        self.wake(recorded.hints);
        Ok(recorded.receipts)
    }

    /// Registers a workflow file, whose bundle is uploaded already.
    pub async fn apply_workflow(&self, apply: Apply, by: &Identity) -> Result<WorkflowView, EngineError> {
        // Parsing is bounded, but not short enough for a thread that serves others.
        let Apply { text, used, bundle } = apply;
        let parsed = tokio::task::spawn_blocking(move || Workflow::parse_with(&text, &used)).await;
        let workflow = parsed
            .map_err(|gone| StoreError::Broken(format!("the parser ended early: {gone}")))?
            .map_err(EngineError::Definition)?;
        if let Some(bundle) = &bundle
            && !self.store().missing_blobs(vec![bundle.clone()]).await?.is_empty()
        {
            return Err(EngineError::Invalid {
                field: Some("bundle".to_owned()),
                detail: format!("the bundle {bundle} has not been uploaded"),
                hint: Some("PUT it to /api/v1/blobs/DIGEST first; `refit apply` does".to_owned()),
            });
        }
        let name = workflow.name.clone();
        let secrets = workflow.secrets();
        let (changed, hints) = self.store().apply_workflow(bundle, workflow, &by.name).await?;
        self.wake(hints);
        let view = self.workflow(&name).await?;
        let warnings = self.inner.settings.secrets.missing(secrets).await;
        Ok(WorkflowView { unchanged: !changed, warnings, ..view })
    }

    /// Every workflow, without its text.
    pub async fn workflows(&self) -> Result<Vec<WorkflowView>, EngineError> {
        let mut views = Vec::new();
        for name in self.store().workflow_names().await? {
            match self.store().workflow_view(&name).await {
                Ok(view) => {
                    views.extend(view.map(|view| WorkflowView { text: None, used: BTreeMap::new(), ..view }))
                }
                Err(error @ StoreError::Corrupt(_)) => {
                    tracing::error!(name, %error, "a workflow cannot be read")
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(views)
    }

    /// One workflow.
    pub async fn workflow(&self, name: &str) -> Result<WorkflowView, EngineError> {
        let view = self.store().workflow_view(name).await?;
        view.ok_or_else(|| EngineError::NotFound(no_workflow(name)))
    }

    /// From now on the workflow's triggers start nothing, until it is resumed. What people and other workflows ask for
    /// still runs, and so does what waits already.
    pub async fn pause_workflow(
        &self,
        name: &str,
        pause: PauseWorkflow,
        by: &Identity,
    ) -> Result<WorkflowView, EngineError> {
        let reason = checked_reason(pause.reason)?;
        let paused = self.store().pause_workflow(name, &by.name, reason.as_deref()).await;
        self.wake(paused.map_err(|error| of_workflow(name, error))?);
        self.workflow(name).await
    }

    /// The workflow's triggers go on.
    pub async fn resume_workflow(&self, name: &str) -> Result<WorkflowView, EngineError> {
        let resumed = self.store().resume_workflow(name).await;
        self.wake(resumed.map_err(|error| of_workflow(name, error))?);
        self.workflow(name).await
    }

    /// Takes a workflow out; its runs and its model stay. Refused while runs are active, unless `force` cancels them.
    pub async fn delete_workflow(
        &self,
        name: &str,
        force: bool,
        reason: Option<String>,
        by: &Identity,
    ) -> Result<DeletedWorkflow, EngineError> {
        let reason = checked_reason(reason)?;
        let deleted = self.store().delete_workflow(name, force, &by.name, reason.as_deref()).await;
        let (deletion, hints) = deleted.map_err(|error| of_workflow(name, error))?;
        self.wake(hints);
        match deletion {
            Deletion::Done { cancelled, gathered } => {
                Ok(DeletedWorkflow { workflow: name.to_owned(), cancelled, gathered })
            }
            Deletion::Busy(runs, first) => {
                let way_out = if force {
                    format!("at most {DELETED_RUNS_MAX} are cancelled at once: cancel some first")
                } else {
                    "wait for their end or cancel them; --force (`force=true`) cancels them".to_owned()
                };
                let runs = match runs {
                    1 => format!("{first} is waiting or running"),
                    more if more > DELETED_RUNS_MAX => {
                        format!(
                            "{first} and more than {} others are waiting or running",
                            DELETED_RUNS_MAX - 1
                        )
                    }
                    more => format!("{more} runs are waiting or running, {first} the first"),
                };
                Err(EngineError::Refused { kind: "workflow-is-active", detail: format!("{runs}: {way_out}") })
            }
        }
    }

    /// Events with what became of them, as the filter says; by itself newest first, without their data.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<EventView>, EngineError> {
        if let Some(run) = &filter.run {
            self.store().run_version(run).await?;
        }
        Ok(self.store().events(filter).await?)
    }

    /// All events with this id (of one source, when given).
    pub async fn event(&self, id: &str, source: Option<&str>) -> Result<Vec<EventView>, EngineError> {
        Ok(self.store().event(id, source).await?)
    }

    /// All events with this id (of one source, when given), with what was decided in sentences; and why not, of an event
    /// that matched nothing or of the workflow that is asked about.
    pub async fn explain_event(
        &self,
        id: &str,
        source: Option<&str>,
        workflow: Option<&str>,
    ) -> Result<Vec<EventExplanation>, EngineError> {
        if let Some(workflow) = workflow {
            self.workflow(workflow).await?;
        }
        Ok(self.store().explain_event(id, source, workflow).await?)
    }

    /// Runs, newest first, without steps and events.
    pub async fn runs(&self, filter: RunFilter) -> Result<Vec<RunView>, EngineError> {
        Ok(self.store().runs(filter).await?)
    }

    /// The run; with `after`, waits up to `wait` until its version is greater than `after`.
    pub async fn run(
        &self,
        run: &RunName,
        after: Option<i64>,
        wait: Duration,
    ) -> Result<RunView, EngineError> {
        let deadline = Instant::now() + wait;
        let mut changed = self.inner.signals.runs();
        while let Some(after) = after
            && self.store().run_version(run).await? <= after
        {
            if !self.wait_for(&mut changed, deadline).await {
                break;
            }
        }
        let mut view = self.store().run_view(run).await?;
        self.say_why_steps_wait(&mut view).await?;
        Ok(view)
    }

    /// Log pieces behind `after` (0 for the beginning); waits up to `wait` for some while the run goes on.
    pub async fn logs(
        &self,
        run: &RunName,
        step: Option<&str>,
        after: i64,
        wait: Duration,
    ) -> Result<LogPage, EngineError> {
        let deadline = Instant::now() + wait;
        let mut changed = self.inner.signals.runs();
        loop {
            // Asked first: lines that arrive in between are in the page that follows.
            let over = self.store().load_run(run).await?.head().state.is_over();
            let rows = self.store().logs(run, step, after).await?;
            let next = rows.last().map_or(after, |row| row.seq);
            if !rows.is_empty() || over || !self.wait_for(&mut changed, deadline).await {
                let done = over && rows.is_empty();
                return Ok(LogPage { lines: rows.into_iter().map(|row| row.piece).collect(), next, done });
            }
        }
    }

    /// The metrics of a run's attempts over time, of one step or of all: a page of them behind the first `after`.
    pub async fn series(
        &self,
        run: &RunName,
        step: Option<&str>,
        after: i64,
    ) -> Result<Vec<SeriesView>, EngineError> {
        Ok(self.store().series(run, step, after).await?)
    }

    /// Waits for a hint, a poll's length or the deadline. False: the deadline has passed.
    async fn wait_for(&self, changed: &mut watch::Receiver<u64>, deadline: Instant) -> bool {
        if Instant::now() >= deadline {
            return false;
        }
        let poll = Instant::now() + self.inner.settings.poll;
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(deadline.min(poll)) => {}
        }
        true
    }

    /// Whether the database answers, and which it is.
    pub async fn ready(&self) -> Result<ServerView, EngineError> {
        let tokens_required = self.store().any_token().await?;
        Ok(ServerView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            database: self.store().database().kind().to_owned(),
            now: self.now(),
            tokens_required,
            parts: self.health().parts(),
        })
    }

    /// Whether the database takes writes: one that is full or read-only still answers questions.
    pub async fn writable(&self) -> Result<(), EngineError> {
        Ok(self.store().touch().await?)
    }
}

fn no_workflow(name: &str) -> String {
    format!("there is no workflow {name}: `refit workflow list` shows them, `refit apply` adds one")
}

fn checked_reason(reason: Option<String>) -> Result<Option<String>, EngineError> {
    let reason = reason.map(|reason| reason.trim().to_owned()).filter(|reason| !reason.is_empty());
    match &reason {
        Some(long) if long.len() > refit_workflows::wire::REASON_BYTES_MAX => Err(EngineError::Invalid {
            field: Some("reason".to_owned()),
            detail: format!(
                "the reason is {} bytes long; at most {} are kept",
                long.len(),
                refit_workflows::wire::REASON_BYTES_MAX
            ),
            hint: None,
        }),
        Some(_) | None => Ok(reason),
    }
}

fn of_workflow(name: &str, error: ChangeError) -> EngineError {
    match error {
        ChangeError::NotFound(_) => EngineError::NotFound(no_workflow(name)),
        other @ (ChangeError::Refused(_) | ChangeError::Invalid(_) | ChangeError::Store(_)) => other.into(),
    }
}

impl From<ChangeError> for EngineError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotFound(what) => Self::NotFound(format!("there is no {what}")),
            ChangeError::Invalid(detail) => Self::Invalid { field: None, detail, hint: None },
            ChangeError::Store(error) => Self::Store(error),
            ChangeError::Refused(refused) => {
                let detail = refused.to_string();
                match refused {
                    Refused::RunIsOver(_) => Self::Refused { kind: "run-is-over", detail },
                    Refused::NotNow(_) => Self::Refused { kind: "not-now", detail },
                    Refused::UnknownStep => Self::NotFound(detail),
                    Refused::WrongState { .. } => Self::Refused { kind: "wrong-state", detail },
                    Refused::StaleLease { .. } | Refused::OtherSession => {
                        Self::Refused { kind: "stale-lease", detail }
                    }
                    Refused::AttemptOver => Self::Over(detail),
                    Refused::NotTheirs { .. } | Refused::OwnRun { .. } => Self::Forbidden(detail),
                    Refused::Changed { .. } => Self::Refused { kind: "approval-changed", detail },
                }
            }
        }
    }
}

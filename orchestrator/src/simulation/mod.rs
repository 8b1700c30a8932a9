//! Workflows on a virtual clock: what would these events have started, and how would it have gone on?
//!
//! The store (SQLite in memory), the dispatcher, the run machine, gates and the registry are the ones that `refit serve`
//! runs; made up are the time and what steps come to. Must never happen here: a second way to route an event, fire a
//! batch, start a run or decide a gate.

mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use refit_workflows::definition::Workflow;
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::run::StepState;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{
    AttemptKey, Decide, EventView, Finish, LeaseRequest, ModelView, Outcome, Register, Role, RunView,
    StartRun, WORKER_PROTOCOL,
};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Retention;
use crate::engine::{Engine, EngineError, EventFilter, Identity, Settings};
use crate::secrets::Vault;
use crate::store::DECISIONS_MAX;
use crate::store::database::Database;
use crate::store::{Next, Store, StoreError};

pub use script::{Answer, Attempt, Came, Script};

/// The most moments at which something happens after one event before a simulation counts as one that never ends: two
/// workflows that start each other go on for ever.
const MOMENTS_MAX: u64 = 1_000_000;
/// Attempts the one worker takes at a time: as many as there are.
const SLOTS: u32 = 10_000;
const WORKER: &str = "simulated";
/// The workflow whose runs made the champions that were there before.
pub const ORIGIN: &str = "champion-before";
/// A poll that never comes: the simulation looks whenever something happened.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a simulation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// What was asked of it cannot be done.
    #[error("{0}")]
    Refused(#[from] EngineError),
    /// The database in memory did not do its part.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// It goes on and on.
    #[error(
        "the simulation does not come to rest: after {MOMENTS_MAX} moments it is {0}; do workflows start each other?"
    )]
    Endless(Timestamp),
}

/// Where simulations take place, one after the other: a database in memory.
pub struct Stage(Database);

impl Stage {
    /// An empty one.
    ///
    /// # Errors
    /// [`SimulationError::Store`]: no database in memory could be made.
    pub async fn new() -> Result<Self, SimulationError> {
        Ok(Self(Database::in_memory().await?))
    }
}

/// A virtual orchestrator with one virtual worker that takes every step at once.
pub struct Simulation {
    engine: Engine,
    /// By workflow: what its steps come to.
    scripts: BTreeMap<String, Script>,
    /// What happens when, in the order it was begun where that is the same moment.
    ahead: BTreeMap<(Timestamp, u64), Happening>,
    /// Approvals that somebody is thinking about.
    asked: BTreeSet<Asked>,
    /// Numbers whatever is begun.
    begun: u64,
    moments: u64,
    news: News,
}

/// An approval that was asked for: its run, its step, and since when it waits.
type Asked = (RunName, String, Timestamp);

/// What happens at a later moment.
enum Happening {
    /// An attempt is over.
    Finish(AttemptKey, Outcome),
    /// Somebody answers an approval.
    Answer { asked: Asked, approve: bool, by: Option<String> },
}

/// What has changed since it was last looked at.
struct News {
    dispatch: watch::Receiver<u64>,
    ready: watch::Receiver<u64>,
    runs: watch::Receiver<u64>,
    children: watch::Receiver<u64>,
}

/// Whether something changed since this was last asked. The engine holds the sending end.
fn take(news: &mut watch::Receiver<u64>) -> bool {
    let changed = news.has_changed().unwrap_or(false);
    news.mark_unchanged();
    changed
}

impl Simulation {
    /// An empty orchestrator whose clock stands at `start`. It ends the one that was on this stage before.
    ///
    /// # Errors
    /// [`SimulationError::Store`]: the stage could not be cleared.
    pub async fn open(stage: &mut Stage, start: Timestamp) -> Result<Self, SimulationError> {
        stage.0.clear().await?;
        let store = Store::followed(stage.0.clone(), Clock::standing_at(start));
        let settings = Settings {
            grace: NEVER,
            poll: NEVER,
            formats: BTreeMap::new(),
            retention: Retention::ALL,
            secrets: Vault::default(),
        };
        let engine = Engine::new(store, settings);
        let [dispatch, ready, runs, children] = engine.news();
        engine
            .register(Register {
                protocol: WORKER_PROTOCOL,
                worker: WORKER.to_owned(),
                session: WORKER.to_owned(),
                labels: BTreeMap::new(),
                slots: SLOTS,
                cpus: 1,
                memory: 0,
                gpus: 0,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            })
            .await?;
        Ok(Self {
            engine,
            scripts: BTreeMap::new(),
            ahead: BTreeMap::new(),
            asked: BTreeSet::new(),
            begun: 0,
            moments: 0,
            news: News { dispatch, ready, runs, children },
        })
    }

    /// The virtual time.
    pub fn now(&self) -> Timestamp {
        self.engine.store().clock().now()
    }

    /// Registers a workflow, whose steps come to what the script says.
    ///
    /// # Errors
    /// [`SimulationError::Store`].
    pub async fn apply(&mut self, workflow: &Workflow, script: Script) -> Result<(), SimulationError> {
        let workflow = script.fix_gates(workflow);
        let name = workflow.name.clone();
        self.engine.store().apply_workflow(None, workflow, WORKER).await?;
        self.scripts.insert(name, script);
        Ok(())
    }

    /// Gives a model a champion: its version 1, promoted by a run of [`ORIGIN`]. Before any workflow is applied that
    /// listens to promotions.
    ///
    /// # Errors
    /// [`SimulationError::Refused`]: the model or the alias has no proper name.
    pub async fn adopt(
        &mut self,
        model: &str,
        alias: &str,
        metrics: BTreeMap<String, f64>,
    ) -> Result<(), SimulationError> {
        let text = format!(
            "workflow: {ORIGIN}\nmodel: {model}\nsteps:\n  train: {{ run: [train], artifacts: {{ model: model }} }}\n  \
             gate: {{ needs: [train], gate: {{ checks: [{{ expr: 'true' }}] }} }}\n  promote: {{ needs: [gate], \
             promote: {{ artifact: '${{{{ steps.train.artifacts.model }}}}', alias: {alias} }} }}\n"
        );
        let workflow = Workflow::parse(&text).map_err(EngineError::Definition)?;
        let came = Came::Success { outputs: BTreeMap::new(), metrics };
        let train = vec![Attempt { takes: Duration::ZERO, came }];
        let attempts = BTreeMap::from([("train".to_owned(), train)]);
        self.apply(&workflow, Script { attempts, ..Script::default() }).await?;
        self.start_run(ORIGIN, Map::new()).await?;
        self.advance(self.now()).await
    }

    /// Lets events arrive now.
    ///
    /// # Errors
    /// [`SimulationError::Store`].
    pub async fn record(&mut self, events: Vec<CloudEvent>) -> Result<(), SimulationError> {
        self.moments = 0;
        self.engine.record(events, Vec::new()).await?;
        self.settle().await
    }

    /// Starts a run by hand, now.
    ///
    /// # Errors
    /// [`SimulationError::Refused`]: there is no such workflow, or the params are not its own.
    pub async fn start_run(
        &mut self,
        workflow: &str,
        params: Map<String, Value>,
    ) -> Result<RunName, SimulationError> {
        self.begun += 1;
        let id = Some(format!("start-{}", self.begun));
        let start = StartRun { workflow: workflow.to_owned(), params, id, no_cache: false };
        let run = self.engine.start_run(start, &somebody()).await?.run;
        self.settle().await?;
        Ok(run)
    }

    /// Cancels a run, now.
    ///
    /// # Errors
    /// [`SimulationError::Refused`]: it is over, or there is no such run.
    pub async fn cancel_run(&mut self, run: &RunName) -> Result<(), SimulationError> {
        self.engine.cancel_run(run, &somebody()).await?;
        self.settle().await
    }

    /// Lets time pass until `until`: everything that is due on the way happens, in order and at its time.
    ///
    /// # Errors
    /// [`SimulationError::Endless`], [`SimulationError::Store`].
    pub async fn advance(&mut self, until: Timestamp) -> Result<(), SimulationError> {
        self.rest(until).await?;
        self.engine.store().clock().set(until.max(self.now()));
        Ok(())
    }

    /// Lets time pass until nothing more happens by itself, at the latest until `latest`.
    ///
    /// # Errors
    /// Those of [`Simulation::advance`].
    pub async fn rest(&mut self, latest: Timestamp) -> Result<(), SimulationError> {
        self.settle().await?;
        while let Some(next) = self.next_due().await?.filter(|&next| next <= latest) {
            self.engine.store().clock().set(next.max(self.now()));
            self.happen().await?;
        }
        Ok(())
    }

    /// When something happens next by itself; none: everything has come to rest. Schedules never rest.
    async fn next_due(&self) -> Result<Option<Timestamp>, SimulationError> {
        let worker = self.ahead.first_key_value().map(|((at, _), _)| *at);
        let store = self.engine.store();
        let due = [worker, store.next_due().await?, store.next_run_wake().await?];
        Ok(due.into_iter().flatten().min())
    }

    /// Every run so far, whole, in the order of their creation; those of [`ORIGIN`] left out.
    ///
    /// # Errors
    /// [`SimulationError::Store`].
    pub async fn runs(&self) -> Result<Vec<RunView>, SimulationError> {
        let listed = self.engine.store().every_run().await?;
        let mut runs = Vec::with_capacity(listed.len());
        for run in listed.into_iter().filter(|run| run.workflow != ORIGIN) {
            runs.push(self.engine.run(&run, None, Duration::ZERO).await?);
        }
        Ok(runs)
    }

    /// What became of an event.
    ///
    /// # Errors
    /// [`SimulationError::Store`].
    pub async fn event(&self, id: &str, source: &str) -> Result<Option<EventView>, SimulationError> {
        Ok(self.engine.event(id, Some(source)).await?.into_iter().next())
    }

    /// Every event so far with what became of it, Refit's own too, whole and oldest first: a page of at most `limit`
    /// behind the event with the `seq` `after`, 0 for the first. Behind the last it is empty.
    ///
    /// # Errors
    /// [`SimulationError::Store`].
    pub async fn log(&self, after: i64, mut limit: i64) -> Result<Vec<EventView>, SimulationError> {
        loop {
            let (oldest_first, after, data) = (true, Some(after), true);
            let filter = EventFilter { oldest_first, after, data, limit, ..EventFilter::default() };
            let page = self.engine.events(filter).await?;
            let decisions: usize = page.iter().map(|event| event.decisions.len()).sum();
            if page.len() < 2 || decisions < DECISIONS_MAX {
                return Ok(page);
            }
            // Some may be missing: fewer events at once.
            limit = page.len() as i64 / 2;
        }
    }

    /// The model with its versions and aliases, once it has a version.
    ///
    /// # Errors
    /// [`SimulationError::Store`].
    pub async fn model(&self, name: &str) -> Result<Option<ModelView>, SimulationError> {
        Ok(self.engine.store().model(name).await?)
    }

    /// What is due at this very moment happens, and all that follows from it at once.
    async fn happen(&mut self) -> Result<(), SimulationError> {
        self.moments += 1;
        if self.moments > MOMENTS_MAX {
            return Err(SimulationError::Endless(self.now()));
        }
        let now = self.now();
        while let Some(next) = self.ahead.first_entry()
            && next.key().0 <= now
        {
            match next.remove() {
                Happening::Finish(key, outcome) => self.finish(key, outcome).await?,
                Happening::Answer { asked, approve, by } => self.answer(asked, approve, by).await?,
            }
        }
        let hints = self.engine.store().tick_runs().await?;
        self.engine.wake(hints);
        self.news.dispatch.mark_changed();
        self.settle().await
    }

    /// Everything that follows at once from what changed, until nothing changes any more.
    async fn settle(&mut self) -> Result<(), SimulationError> {
        loop {
            let mut quiet = true;
            while take(&mut self.news.dispatch) {
                quiet = false;
                let dispatched = self.engine.store().dispatch().await?;
                if let Some(trouble) = dispatched.trouble {
                    return Err(trouble.into());
                }
                self.engine.wake(dispatched.hints);
                if dispatched.next == Next::More {
                    self.news.dispatch.mark_changed();
                }
            }
            while take(&mut self.news.children) {
                quiet = false;
                let followed = self.engine.store().follow_children().await?;
                self.engine.wake(followed.hints);
                if let Some(trouble) = followed.trouble {
                    return Err(trouble.into());
                }
            }
            if take(&mut self.news.ready) {
                quiet = false;
                self.lease().await?;
            }
            if take(&mut self.news.runs) {
                quiet = false;
                self.look_at_runs().await?;
            }
            if quiet {
                return Ok(());
            }
        }
    }

    async fn lease(&mut self) -> Result<(), SimulationError> {
        let request =
            LeaseRequest { worker: WORKER.to_owned(), session: WORKER.to_owned(), slots: SLOTS, wait_ms: 0 };
        for order in self.engine.lease_anything(&request).await? {
            let script = self.scripts.get(&order.key.run.workflow);
            let (takes, outcome) =
                script.map_or_else(|| Script::default().attempt(&order), |it| it.attempt(&order));
            self.later(takes, Happening::Finish(order.key, outcome));
        }
        Ok(())
    }

    fn later(&mut self, wait: Duration, happening: Happening) {
        self.begun += 1;
        self.ahead.insert((self.now().plus(wait), self.begun), happening);
    }

    async fn finish(&mut self, key: AttemptKey, outcome: Outcome) -> Result<(), SimulationError> {
        match self.engine.finish(Finish::of(key, outcome)).await {
            // Its run was cancelled, or its step begun anew, meanwhile.
            Ok(_) | Err(EngineError::Refused { .. } | EngineError::Over(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks at the runs that changed: the worker ends at once what it is told to end, and approvals that wait get the
    /// answer of the script when it is time for it.
    async fn look_at_runs(&mut self) -> Result<(), SimulationError> {
        for run in self.engine.store().changed_runs().await? {
            for (place, step) in run.steps().iter().enumerate() {
                if matches!(step.state, StepState::Cancelling { .. }) {
                    let step_name = run.step_name(place).to_owned();
                    let key = AttemptKey { run: run.name().clone(), step: step_name, epoch: step.epoch };
                    self.finish(key, Outcome::Cancelled).await?;
                }
            }
            if run.steps().iter().any(|step| matches!(step.state, StepState::Awaiting { .. })) {
                self.ask_approvals(run.name().clone()).await?;
            }
        }
        Ok(())
    }

    async fn ask_approvals(&mut self, run: RunName) -> Result<(), SimulationError> {
        let view = self.engine.run(&run, None, Duration::ZERO).await?;
        for step in view.steps.unwrap_or_default() {
            let waits = step.verb == "approval" && step.state == "waiting";
            let Some(since) = step.ready_at.filter(|_| waits) else { continue };
            let script = self.scripts.get(&run.workflow);
            let Some(answer) = script.and_then(|script| script.answer(&step.step)).cloned() else { continue };
            let asked = (run.clone(), step.step.clone(), since);
            if self.asked.insert(asked.clone()) {
                let Answer { approve, by, after } = answer;
                self.later(after, Happening::Answer { asked, approve, by });
            }
        }
        Ok(())
    }

    async fn answer(
        &mut self,
        asked: Asked,
        approve: bool,
        by: Option<String>,
    ) -> Result<(), SimulationError> {
        // With a name, it alone gives the right to decide, as `from` says.
        let by = by.map_or_else(somebody, |name| Identity { name, role: Role::Operator, groups: Vec::new() });
        let decide = Decide { step: Some(asked.1.clone()), covers: None, reason: None };
        match self.engine.decide(&asked.0, decide, approve, &by).await {
            Ok(_) => {
                // A promotion that came too late may have it asked again, at this very moment.
                self.asked.remove(&asked);
                Ok(())
            }
            // Its time was over, or its run cancelled, meanwhile; or they may not decide, and the approval waits on.
            Err(EngineError::Refused { .. } | EngineError::Over(_) | EngineError::Forbidden(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn somebody() -> Identity {
    Identity { name: WORKER.to_owned(), role: Role::Admin, groups: Vec::new() }
}

#[cfg(test)]
mod tests;

//! What people ask about workers: who is there, what waits and why, and that one takes no more steps. Must never happen
//! here: a reason of its own; words are the placement's.

use refit_workflows::placement::{Capacity, Host, HostState, why_not, why_waits};
use refit_workflows::wire::{RunView, WaitingView, WorkerView};

use super::{Engine, EngineError};
use crate::store::Hints;

impl Engine {
    /// Every worker.
    pub async fn workers(&self) -> Result<Vec<WorkerView>, EngineError> {
        Ok(self.store().workers(self.silent_after()).await?)
    }

    /// One worker.
    pub async fn worker(&self, name: &str) -> Result<WorkerView, EngineError> {
        let found = self.workers().await?.into_iter().find(|worker| worker.worker == name);
        found.ok_or_else(|| no_worker(name))
    }

    /// Lets a worker take no more steps; what it runs it finishes. Or lets it take steps again.
    pub async fn drain_worker(&self, name: &str, drained: bool) -> Result<WorkerView, EngineError> {
        if !self.store().drain_worker(name, drained).await? {
            return Err(no_worker(name));
        }
        self.wake(Hints { ready: !drained, ..Hints::default() });
        self.worker(name).await
    }

    /// What waits for a worker, and why.
    pub async fn waiting(&self) -> Result<Vec<WaitingView>, EngineError> {
        let waiting = self.store().waiting_steps().await?;
        let hosts: Vec<Host> = self.workers().await?.iter().map(host).collect();
        let view = |(needs, steps, since)| WaitingView {
            steps,
            since,
            reason: why_waits(&needs, &hosts),
            workers: hosts
                .iter()
                .filter_map(|host| Some((host.worker.clone(), why_not(&needs, host)?)))
                .collect(),
            needs_host: needs,
        };
        Ok(waiting.into_iter().map(view).collect())
    }

    /// Says of each step that waits for a worker why it does.
    pub(super) async fn say_why_steps_wait(&self, run: &mut RunView) -> Result<(), EngineError> {
        if !run.steps.iter().flatten().any(|step| step.state == "ready") {
            return Ok(());
        }
        let hosts: Vec<Host> = self.workers().await?.iter().map(host).collect();
        for step in run.steps.iter_mut().flatten().filter(|step| step.state == "ready") {
            let needs = step.needs_host.clone().unwrap_or_default();
            step.reason = Some(why_waits(&needs, &hosts));
        }
        Ok(())
    }
}

fn host(view: &WorkerView) -> Host {
    let state = match view.state.as_str() {
        "silent" => HostState::Silent,
        "draining" | "drained" => HostState::Draining,
        _ => HostState::Open,
    };
    let millicpus = (view.used.cpus * 1000.0).round() as u64;
    Host {
        worker: view.worker.clone(),
        state,
        labels: view.labels.clone(),
        offers: Capacity::new(view.gpus, view.cpus, view.memory),
        used: Capacity { gpus: view.used.gpus, millicpus, memory: view.used.memory },
        slots: view.slots,
        busy: view.busy,
    }
}

fn no_worker(name: &str) -> EngineError {
    EngineError::NotFound(format!("worker {name}: `refit worker list` lists those there are"))
}

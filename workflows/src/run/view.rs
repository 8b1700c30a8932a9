//! A run as the API shows it. Pure conversion; what the store alone knows (events, live metrics) comes in.

use super::*;
use crate::wire::{RunView, StepView};

/// What the store knows about a run beyond the run itself.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// The ids of its events, oldest first.
    pub events: Vec<String>,
    /// The latest metrics of running attempts, by step name.
    pub metrics: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Run {
    /// The run without steps and events, as listings show it.
    pub fn summary(&self) -> RunView {
        let (started_at, finished_at, reason) = match &self.head.state {
            RunState::Waiting { .. } => (None, None, Some("waiting for another run of its key".to_owned())),
            RunState::Running { since, cancelled_by: None } => (Some(*since), None, self.awaited()),
            RunState::Running { since, cancelled_by: Some(by) } => {
                (Some(*since), None, Some(format!("being cancelled by {by}: steps are still ending")))
            }
            RunState::Over { started_at, at, ending } => (*started_at, Some(*at), ending.reason()),
        };
        let lane = &self.facts.lane;
        RunView {
            run: self.facts.name.clone(),
            workflow: self.workflow.name.clone(),
            definition: self.facts.definition.clone(),
            state: self.head.state.name().to_owned(),
            reason,
            key: (!lane.is_empty()).then(|| lane.clone()),
            params: self.facts.params.clone(),
            trigger: self.facts.trigger.clone(),
            created_at: self.facts.created_at,
            started_at,
            finished_at,
            event_count: self.facts.batch.count,
            events: None,
            coalesced: self.facts.coalesced.clone(),
            steps: None,
            promoted: self.head.promoted.clone(),
            version: self.version,
        }
    }

    /// Whom the run waits for, when a person.
    fn awaited(&self) -> Option<String> {
        self.steps.iter().enumerate().find_map(|(index, step)| {
            matches!(step.state, StepState::Awaiting { .. })
                .then(|| format!("{} waits for a person to approve or reject", self.step_name(index)))
        })
    }

    /// The whole run.
    pub fn view(&self, live: &Live) -> RunView {
        let steps = (0..self.steps.len()).map(|index| self.step_view(index, live)).collect();
        RunView { events: Some(live.events.clone()), steps: Some(steps), ..self.summary() }
    }

    fn step_view(&self, index: usize, live: &Live) -> StepView {
        let definition = &self.workflow.steps[index];
        let step = &self.steps[index];
        let (finished_at, reason) = match &step.state {
            StepState::Blocked | StepState::Leased { .. } | StepState::Promoting => (None, None),
            StepState::Ready => (None, Some("waiting for a worker".to_owned())),
            StepState::Cancelling { .. } => (None, Some("being ended".to_owned())),
            StepState::Pausing { until, reason } => {
                (None, Some(format!("{reason}; next attempt at {until}")))
            }
            StepState::Awaiting { until, .. } => {
                let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
                (None, Some(format!("waits for a person to approve or reject{until}")))
            }
            StepState::Succeeded { at, results } => (Some(*at), results.reason.clone()),
            StepState::Rejected { at, reason }
            | StepState::Failed { at, reason }
            | StepState::Skipped { at, reason, .. }
            | StepState::Cancelled { at, reason } => (Some(*at), Some(reason.clone())),
        };
        let results = step.state.results().cloned().unwrap_or_default();
        let metrics = match step.state.lease() {
            Some(_) => live.metrics.get(&definition.name).cloned().unwrap_or_default(),
            None => results.metrics,
        };
        StepView {
            step: definition.name.clone(),
            verb: definition.verb.name().to_owned(),
            needs: definition.needs.iter().map(|&need| self.step_name(need).to_owned()).collect(),
            state: step.state.name().to_owned(),
            attempt: step.attempt,
            attempts_max: attempts_allowed(&definition.verb) + step.uncounted,
            worker: step.worker.clone(),
            ready_at: step.ready_at,
            started_at: step.started_at,
            finished_at,
            outputs: results.outputs,
            metrics,
            artifacts: results.artifacts,
            reason,
            verdict: step.decision.as_ref().map(|decision| decision.verdict),
            decision: step.decision.clone(),
            cached_from: None,
        }
    }
}

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

/// A run without steps and events, as listings show it: needs none of its steps.
pub fn summary(facts: &RunFacts, head: &RunHead, version: i64) -> RunView {
    let (started_at, finished_at, reason) = match &head.state {
        RunState::Waiting { .. } => (None, None, Some("waiting to start".to_owned())),
        RunState::Running { since, cancelled_by: None } => (Some(*since), None, None),
        RunState::Running { since, cancelled_by: Some(by) } => {
            (Some(*since), None, Some(format!("being cancelled by {by}: steps are still ending")))
        }
        RunState::Over { started_at, at, ending } => (*started_at, Some(*at), ending.reason()),
    };
    RunView {
        run: facts.name.clone(),
        workflow: facts.name.workflow.clone(),
        definition: facts.definition.clone(),
        state: head.state.name().to_owned(),
        reason,
        key: (!facts.lane.is_empty()).then(|| facts.lane.clone()),
        params: facts.params.clone(),
        trigger: facts.trigger.clone(),
        created_at: facts.created_at,
        started_at,
        finished_at,
        event_count: facts.batch.count,
        events: None,
        coalesced: facts.coalesced.clone(),
        steps: None,
        promoted: head.promoted.clone(),
        version,
    }
}

impl Run {
    /// Whom the run waits for, when a person.
    fn awaited(&self) -> Option<String> {
        self.steps.iter().enumerate().find_map(|(index, step)| {
            matches!(step.state, StepState::Awaiting { .. }).then(|| {
                format!("{} waits for {} to approve or reject", self.step_name(index), self.asked(index))
            })
        })
    }

    /// Whom an approval step asks, in words.
    fn asked(&self, index: usize) -> String {
        match &self.workflow.steps[index].verb {
            Verb::Approval(approval) if !approval.from.is_empty() => approval.from.join(" or "),
            Verb::Approval(_)
            | Verb::Work(_)
            | Verb::Select(_)
            | Verb::Workflow(_)
            | Verb::Gate(_)
            | Verb::Promote(_)
            | Verb::Emit(_) => "a person".to_owned(),
        }
    }

    /// The whole run.
    pub fn view(&self, live: &Live) -> RunView {
        let steps = (0..self.steps.len()).map(|index| self.step_view(index, live)).collect();
        let summary = summary(&self.facts, &self.head, self.version);
        let reason = summary.reason.clone().or_else(|| self.awaited());
        RunView { reason, events: Some(live.events.clone()), steps: Some(steps), ..summary }
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
                (None, Some(format!("waits for {} to approve or reject{until}", self.asked(index))))
            }
            StepState::Settled { at, how } => (Some(*at), how.reason().map(str::to_owned)),
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

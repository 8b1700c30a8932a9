//! A run as the API shows it. Pure conversion; what the store alone knows (events, live metrics) comes in.

use super::*;
use crate::wire::{Checkpoint, HoldoutUse, InstancesView, ParentView, RunView, StepView};

/// What the store knows about a run beyond the run itself.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// The ids of its events, oldest first.
    pub events: Vec<String>,
    /// The latest metrics of running attempts, by step name.
    pub metrics: BTreeMap<String, BTreeMap<String, f64>>,
    /// The examples that gates decided on, by step name.
    pub holdouts: BTreeMap<String, Vec<HoldoutUse>>,
    /// How long attempts took to be set up, in milliseconds, by step name; each with the attempt's epoch.
    pub set_up_ms: BTreeMap<String, (i64, u64)>,
    /// What steps saved last, by step name.
    pub checkpoints: BTreeMap<String, Checkpoint>,
}

/// A run without steps and events, as listings show it: needs none of its steps.
pub fn summary(facts: &RunFacts, head: &RunHead, version: i64) -> RunView {
    let (started_at, finished_at, reason) = match &head.state {
        RunState::Waiting { .. } => (None, None, Some("waiting to start".to_owned())),
        RunState::Running { since, cancel: None } => (Some(*since), None, None),
        RunState::Running { since, cancel: Some(Cancel { by, .. }) } => {
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
        events_gone: 0,
        events: None,
        arrivals: None,
        coalesced: facts.coalesced.clone(),
        steps: None,
        promoted: head.promoted.clone(),
        mirror: None,
        outputs: head.outputs.clone(),
        parent: facts
            .parent
            .as_ref()
            .map(|parent| ParentView { run: parent.run.clone(), step: parent.step.clone() }),
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

    /// That a cancelled run still has steps of `finally` to run, and how to end these too.
    fn cleans_up(&self) -> Option<String> {
        let RunState::Running { cancel: Some(Cancel { by, finally_too: false }), .. } = &self.head.state
        else {
            return None;
        };
        let open = self.unsettled > self.unsettled_before_finally;
        open.then(|| {
            format!("being cancelled by {by}: `finally` still runs; cancel once more to end that too")
        })
    }

    /// Whom an approval step asks, in words.
    fn asked(&self, index: usize) -> String {
        match &self.definition(index).verb {
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
        let steps = self.in_order().into_iter().map(|place| self.step_view(place, live)).collect();
        let summary = summary(&self.facts, &self.head, self.version);
        let reason = self.cleans_up().or_else(|| summary.reason.clone()).or_else(|| self.awaited());
        RunView { reason, events: Some(live.events.clone()), steps: Some(steps), ..summary }
    }

    /// Every place, in the workflow's order; the instances of a group behind it, those of an earlier matrix last.
    fn in_order(&self) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.steps.len()).collect();
        places.sort_by_key(|&place| {
            let instance = self.steps[place].instance.as_ref();
            let index = instance.map(|instance| instance.index.unwrap_or(usize::MAX));
            (self.of(place), index, place)
        });
        places
    }

    /// A group's instances, counted; nothing for other steps, and before the group starts.
    fn instances_view(&self, step: usize) -> Option<InstancesView> {
        self.groups.get(&step).map(|group| InstancesView {
            total: group.places.len(),
            waiting: group.waiting,
            at_work: group.at_work,
            succeeded: group.succeeded,
            lost: group.lost(),
        })
    }

    fn step_view(&self, index: usize, live: &Live) -> StepView {
        let definition = self.definition(index);
        let step = &self.steps[index];
        let (finished_at, reason) = match &step.state {
            StepState::Blocked | StepState::Leased { .. } | StepState::Promoting => (None, None),
            StepState::Instances => (None, self.instances_view(index).map(|counts| counts.to_string())),
            StepState::Child { cancelling } => {
                let child = step
                    .child
                    .as_ref()
                    .map_or("a run that is about to start".to_owned(), |run| run.to_string());
                let doing = if *cancelling { "being ended: waits for" } else { "waits for" };
                (None, Some(format!("{doing} {child}")))
            }
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
        let results = step.state.handed_over().cloned().unwrap_or_default();
        let name = self.step_name(index);
        let metrics = match step.state.lease() {
            Some(_) => live.metrics.get(name).cloned().unwrap_or_default(),
            None => results.metrics,
        };
        StepView {
            step: name.to_owned(),
            verb: definition.verb.name().to_owned(),
            needs: definition.needs.iter().map(|&need| self.step_name(need).to_owned()).collect(),
            finally: definition.finally,
            state: step.state.name().to_owned(),
            attempt: step.attempt,
            attempts_max: attempts_allowed(&definition.verb) + step.uncounted,
            worker: step.worker.clone(),
            ready_at: step.ready_at,
            started_at: step.started_at,
            finished_at,
            set_up_ms: step.set_up_ms.or_else(|| {
                let (epoch, set_up_ms) = live.set_up_ms.get(name)?;
                (*epoch == step.epoch && step.state.lease().is_some()).then_some(*set_up_ms)
            }),
            outputs: results.outputs,
            metrics,
            artifacts: results.artifacts,
            reason,
            verdict: step.decision.as_ref().map(|decision| decision.verdict),
            decision: step.decision.clone(),
            holdouts: live.holdouts.get(name).cloned().unwrap_or_default(),
            covers: self.covers(index),
            needs_host: self.host_needs(index).cloned(),
            cached_from: step.cached_from.as_ref().map(ToString::to_string),
            checkpoint: live.checkpoints.get(name).cloned(),
            child: step.child.clone(),
            group: step.instance.as_ref().map(|instance| self.step_name(instance.of).to_owned()),
            matrix: step.instance.as_ref().map(|instance| instance.values.clone()),
            instances: self.instances_view(index),
        }
    }
}

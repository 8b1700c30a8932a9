//! What a change makes possible: steps that start, are skipped or held back, gates that are decided, promotions that
//! are asked for, the end of the run. The one place for consequences; runs after every accepted input.
//!
//! Works through a list, never by recursion: a chain may be thousands of steps long.

use serde_json::json;

use super::*;
use crate::expression::Needs;
use crate::gate::{Found, Gate, Verdict};

impl Run {
    /// Looks at everything that the settled steps, and the steps settled by that in turn, make possible.
    /// A step that is itself blocked in the list is looked at directly.
    pub(super) fn settle(&mut self, settled: Vec<usize>, at: Timestamp, effects: &mut Vec<Effect>) {
        let mut open: std::collections::VecDeque<usize> = settled.into();
        while let Some(step) = open.pop_front() {
            if !self.steps[step].state.is_settled() {
                if self.can_start(step) && self.start(step, at, effects) {
                    open.push_back(step);
                }
                continue;
            }
            let dependents = Arc::clone(&self.dependents);
            for &dependent in &dependents[step] {
                if self.can_start(dependent) && self.start(dependent, at, effects) {
                    open.push_back(dependent);
                }
            }
        }
    }

    fn can_start(&self, step: usize) -> bool {
        let running = matches!(self.head.state, RunState::Running { cancelled_by: None, .. });
        running && self.unsettled_needs[step] == 0 && matches!(self.steps[step].state, StepState::Blocked)
    }

    /// The blocked steps whose needs are all settled.
    pub(super) fn startable(&self) -> Vec<usize> {
        (0..self.steps.len()).filter(|&step| self.can_start(step)).collect()
    }

    /// Starts a step whose needs are settled. Returns whether it is settled already.
    fn start(&mut self, step: usize, at: Timestamp, effects: &mut Vec<Effect>) -> bool {
        let workflow = Arc::clone(&self.workflow);
        let definition = &workflow.steps[step];
        let held_back = self.held_back_by(step);
        let reads_needs = definition.condition.as_ref().is_some_and(|condition| condition.reads_needs());
        if let Some(reason) = held_back
            && !reads_needs
        {
            return self.conclude(step, at, Settled::Skipped { reason, not_needed: false });
        }
        if let Some(condition) = &definition.condition {
            let scope = self.scope(&condition.references(), Some(step));
            match condition.holds(&scope) {
                Ok(true) => {}
                Ok(false) => {
                    let reason = format!("not needed: `{}` does not hold", condition.source());
                    return self.conclude(step, at, Settled::Skipped { reason, not_needed: true });
                }
                Err(wrong) => {
                    let reason = format!("`if: {}` cannot be decided: {wrong}", condition.source());
                    return self.conclude(step, at, Settled::Failed { reason });
                }
            }
        }
        self.step_mut(step).ready_at = Some(at);
        match &definition.verb {
            Verb::Work(_) => match self.order(step) {
                // Rendered once more when it is leased; here only to find out that it can be.
                Ok(_) => self.set_state(step, StepState::Ready),
                Err(reason) => self.conclude(step, at, Settled::Failed { reason }),
            },
            Verb::Select(_) | Verb::Workflow(_) => {
                let reason = format!("`{}` cannot be run yet", definition.verb.name());
                self.conclude(step, at, Settled::Failed { reason })
            }
            Verb::Gate(gate) => self.start_gate(step, gate, at),
            Verb::Approval(approval) => {
                let until = approval.timeout.map(|timeout| at.plus(timeout));
                self.set_state(step, StepState::Awaiting { since: at, until })
            }
            Verb::Promote(promote) => self.start_promotion(step, promote, at, effects),
            Verb::Emit(emit) => self.start_emit(step, emit, at, effects),
        }
    }

    /// Why a step must not run without an `if` of its own that says otherwise.
    fn held_back_by(&self, step: usize) -> Option<String> {
        self.workflow.steps[step].needs.iter().find_map(|&need| {
            let name = self.step_name(need);
            match self.steps[need].state.settled()? {
                Settled::Failed { .. } => Some(format!("{name} failed")),
                Settled::Rejected { .. } => Some(format!("{name} was rejected")),
                Settled::Cancelled { .. } => Some(format!("{name} was cancelled")),
                Settled::Skipped { not_needed: false, reason } => {
                    Some(format!("{name} was skipped: {reason}"))
                }
                Settled::Succeeded { .. } | Settled::Skipped { not_needed: true, .. } => None,
            }
        })
    }

    pub(super) fn needs_of(&self, step: usize) -> Needs {
        let needs = &self.workflow.steps[step].needs;
        let failed =
            needs.iter().filter_map(|&need| self.steps[need].state.settled()).any(|how| !how.lets_on());
        Needs { succeeded: !failed, failed }
    }

    fn start_gate(&mut self, step: usize, gate: &Gate, at: Timestamp) -> bool {
        let metrics = self.metrics_before(step);
        let find = |name: &str| metrics.get(name).cloned();
        let references: Vec<Vec<String>> = gate
            .checks
            .iter()
            .filter_map(|check| match check {
                crate::gate::Check::Condition { expr, .. } => Some(expr.references()),
                crate::gate::Check::Bounds { .. } | crate::gate::Check::Change { .. } => None,
            })
            .flatten()
            .collect();
        let scope = self.scope(&references, Some(step));
        let decision = gate.decide(&find, self.head.champion.as_ref(), &scope);
        let reason = decision.reason.clone();
        let how = match decision.verdict {
            Verdict::Pass => Settled::done(reason),
            Verdict::Fail | Verdict::Inconclusive => Settled::Rejected { reason },
            Verdict::Error => Settled::Failed { reason },
        };
        self.step_mut(step).decision = Some(decision);
        self.conclude(step, at, how)
    }

    /// The metrics reported before a step. What its direct needs report goes before what earlier steps do; a name
    /// that is still reported with different values is ambiguous.
    pub(super) fn metrics_before(&self, step: usize) -> BTreeMap<String, Found> {
        let direct = &self.workflow.steps[step].needs;
        let earlier: Vec<usize> =
            self.workflow.ancestors(step).into_iter().filter(|ancestor| !direct.contains(ancestor)).collect();
        let mut found = self.metrics_of(&earlier);
        found.extend(self.metrics_of(direct));
        found
    }

    fn metrics_of(&self, steps: &[usize]) -> BTreeMap<String, Found> {
        let mut reports: BTreeMap<&str, Vec<(usize, f64)>> = BTreeMap::new();
        for &step in steps {
            if let Some(results) = self.steps[step].state.results() {
                for (name, value) in &results.metrics {
                    reports.entry(name).or_default().push((step, *value));
                }
            }
        }
        reports
            .into_iter()
            .map(|(name, reports)| {
                let first = reports[0].1;
                let found = if reports.iter().all(|(_, value)| *value == first) {
                    Found::One(first)
                } else {
                    Found::Ambiguous(
                        reports.iter().map(|&(step, _)| self.step_name(step).to_owned()).collect(),
                    )
                };
                (name.to_owned(), found)
            })
            .collect()
    }

    fn start_promotion(
        &mut self,
        step: usize,
        promote: &crate::definition::Promote,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match self.promotion(step, promote) {
            Ok(promotion) => {
                effects.push(Effect::Promote(Box::new(promotion)));
                self.set_state(step, StepState::Promoting)
            }
            Err(reason) => self.conclude(step, at, Settled::Failed { reason }),
        }
    }

    /// What to ask the registry for: only ever on passed gates, only for the candidate they judged.
    fn promotion(&self, step: usize, promote: &crate::definition::Promote) -> Result<Promotion, String> {
        let model = self.workflow.model.clone().ok_or("the workflow names no model to promote to")?;
        let mut gates = BTreeMap::new();
        let mut metrics = BTreeMap::new();
        let expected = self.head.champion.as_ref().map(|champion| champion.version);
        for &gate in &promote.gates {
            let state = &self.steps[gate].state;
            match (state.settled(), &self.steps[gate].decision) {
                (Some(Settled::Succeeded { .. }), Some(decision))
                    if decision.verdict == Verdict::Pass && decision.champion == expected =>
                {
                    gates.insert(self.step_name(gate).to_owned(), decision.clone());
                    for (name, found) in self.metrics_before(gate) {
                        if let Found::One(value) = found {
                            metrics.insert(name, value);
                        }
                    }
                }
                (Some(Settled::Skipped { not_needed: true, .. }), _) => {}
                (_, _) => {
                    return Err(format!(
                        "the gate {} did not pass: it is {}",
                        self.step_name(gate),
                        state.name()
                    ));
                }
            }
        }
        if gates.is_empty() {
            return Err("no gate passed: every gate before it was skipped".to_owned());
        }
        let (source, artifact) = &promote.candidate;
        let candidate = self.steps[*source]
            .state
            .results()
            .and_then(|results| results.artifacts.get(artifact))
            .cloned()
            .ok_or_else(|| format!("{} handed on no artifact {artifact}", self.step_name(*source)))?;
        let approvals = self.approvals_before(step)?;
        Ok(Promotion {
            step,
            model,
            alias: promote.alias.clone(),
            expected,
            artifact: artifact.clone(),
            candidate,
            metrics,
            gates,
            approvals,
        })
    }

    /// What the people before a promotion said, by step; an error when one of them did not say yes, whatever the
    /// promotion's own `if` asks for.
    fn approvals_before(&self, step: usize) -> Result<BTreeMap<String, String>, String> {
        let mut approvals = BTreeMap::new();
        for ancestor in self.workflow.ancestors(step) {
            if !matches!(self.workflow.steps[ancestor].verb, Verb::Approval(_)) {
                continue;
            }
            let name = self.step_name(ancestor);
            let state = &self.steps[ancestor].state;
            match state.settled() {
                Some(Settled::Succeeded { results }) => {
                    approvals.insert(name.to_owned(), results.reason.clone().unwrap_or_default());
                }
                Some(Settled::Skipped { not_needed: true, .. }) => {}
                Some(
                    Settled::Rejected { .. }
                    | Settled::Failed { .. }
                    | Settled::Skipped { not_needed: false, .. }
                    | Settled::Cancelled { .. },
                )
                | None => return Err(format!("{name} was not approved: it is {}", state.name())),
            }
        }
        Ok(approvals)
    }

    fn start_emit(
        &mut self,
        step: usize,
        emit: &crate::definition::Emit,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match self.emitted_event(step, emit, at) {
            Ok(event) => {
                let reason = format!("emitted {} {}", event.kind(), event.id());
                effects.push(Effect::Emit(event));
                self.conclude(step, at, Settled::done(reason))
            }
            Err(reason) => self.conclude(step, at, Settled::Failed { reason }),
        }
    }

    fn emitted_event(
        &self,
        step: usize,
        emit: &crate::definition::Emit,
        at: Timestamp,
    ) -> Result<CloudEvent, String> {
        let scope = self.whole_scope(step);
        let kind = emit.kind.render_text(&scope).map_err(|wrong| format!("type: {wrong}"))?;
        let subject = match &emit.subject {
            Some(subject) => Some(subject.render_text(&scope).map_err(|wrong| format!("subject: {wrong}"))?),
            None => None,
        };
        let mut data = Map::new();
        for (name, template) in &emit.data {
            data.insert(
                name.clone(),
                template.render(&scope).map_err(|wrong| format!("data.{name}: {wrong}"))?,
            );
        }
        // The version makes a step that runs again after a retry a new event.
        let id = format!("{}/{}/{}", self.facts.name, self.step_name(step), self.version);
        let event =
            CloudEvent::new(&id, &self.event_source(), &kind, subject.as_deref(), at, Value::Object(data));
        CloudEvent::parse(Value::Object(event.attributes().clone())).map_err(|wrong| wrong.to_string())
    }

    fn event_source(&self) -> String {
        format!("/refit/workflows/{}", self.workflow.name)
    }

    /// One of Refit's own events; its id names the run and the input that caused it.
    pub(super) fn lifecycle_event(
        &self,
        kind: &str,
        subject: &str,
        at: Timestamp,
        data: Value,
    ) -> CloudEvent {
        let id = format!("{}/{}", self.facts.name, self.version);
        CloudEvent::new(&id, &self.event_source(), kind, Some(subject), at, data)
    }

    /// Sends what compared the candidate with the champion back to the start: every step after the one that made the
    /// candidate and before (or at) its promotion, gates and approvals among them. The candidate itself stays, and so
    /// does a promotion that was made: the champion that "moved" is this run's own then.
    pub(super) fn reopen_evaluation(&mut self) {
        let workflow = Arc::clone(&self.workflow);
        for (index, step) in workflow.steps.iter().enumerate() {
            let Verb::Promote(promote) = &step.verb else { continue };
            if self.steps[index].state.results().is_some() {
                continue;
            }
            let after_candidate = self.descendants(promote.candidate.0);
            let mut between = workflow.ancestors(index);
            between.push(index);
            let dependents = Arc::clone(&self.dependents);
            for step in between.into_iter().filter(|&step| after_candidate[step]) {
                self.reset(step);
                // What was about to read the old results waits for the new ones.
                for &dependent in &dependents[step] {
                    if matches!(self.steps[dependent].state, StepState::Ready | StepState::Pausing { .. }) {
                        self.reset(dependent);
                    }
                }
            }
        }
    }

    fn descendants(&self, step: usize) -> Vec<bool> {
        let mut marked = vec![false; self.steps.len()];
        let mut open = vec![step];
        while let Some(step) = open.pop() {
            for &dependent in &self.dependents[step] {
                if !std::mem::replace(&mut marked[dependent], true) {
                    open.push(dependent);
                }
            }
        }
        marked
    }

    /// Ends the run once every step is settled.
    pub(super) fn end_if_settled(&mut self, at: Timestamp, effects: &mut Vec<Effect>) {
        let RunState::Running { since, cancelled_by } = &self.head.state else { return };
        if self.unsettled > 0 {
            return;
        }
        let since = *since;
        let ending = match cancelled_by {
            Some(by) => Ending::Cancelled { by: by.clone() },
            None => self.ending_by_steps(),
        };
        self.end(ending, Some(since), at, effects);
    }

    fn ending_by_steps(&self) -> Ending {
        let mut rejected = None;
        for (index, step) in self.steps.iter().enumerate() {
            let named = |reason: &str| format!("{}: {reason}", self.step_name(index));
            match step.state.settled() {
                Some(Settled::Failed { reason } | Settled::Cancelled { reason }) => {
                    return Ending::Failed { reason: named(reason) };
                }
                Some(Settled::Rejected { reason }) => {
                    rejected.get_or_insert_with(|| named(reason));
                }
                Some(Settled::Succeeded { .. } | Settled::Skipped { .. }) | None => {}
            }
        }
        match rejected {
            Some(reason) => Ending::Rejected { reason },
            None => Ending::Succeeded,
        }
    }

    pub(super) fn end(
        &mut self,
        ending: Ending,
        started_at: Option<Timestamp>,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let data = json!({
            "run": self.facts.name,
            "workflow": self.workflow.name,
            "state": ending.name(),
            "reason": ending.reason(),
            "promoted": self.head.promoted,
        });
        let kind = format!("refit.run.{}", ending.name());
        let subject = self.facts.name.to_string();
        // The promotion of the same input has taken the plain id.
        let id = format!("{}/{}/end", self.facts.name, self.version);
        effects.push(Effect::Emit(CloudEvent::new(
            &id,
            &self.event_source(),
            &kind,
            Some(&subject),
            at,
            data,
        )));
        self.head.state = RunState::Over { started_at, at, ending };
    }
}

//! What a change makes possible: steps that start, are skipped or held back, groups that go on, and what follows from
//! those in turn. The one place for consequences; runs after every accepted input.
//!
//! Works through a list, never by recursion: a chain may be thousands of steps long.

use super::*;
use crate::expression::Needs;

impl Run {
    /// Looks at everything that the settled steps, and the steps settled by that in turn, make possible.
    /// A step in the list that is not settled is looked at itself.
    pub(super) fn settle(&mut self, touched: Touched, at: Timestamp, effects: &mut Vec<Effect>) {
        let mut open: std::collections::VecDeque<usize> = touched.into();
        while let Some(place) = open.pop_front() {
            let of = self.of(place);
            if of != place || !self.steps[place].state.is_settled() {
                if self.look_at(of, at, effects) {
                    open.push_back(of);
                }
                continue;
            }
            let dependents = Arc::clone(&self.dependents);
            for &dependent in &dependents[place] {
                if self.look_at(dependent, at, effects) {
                    open.push_back(dependent);
                }
            }
        }
    }

    /// Lets a step of the definition start or go on, if it can. Returns whether that settled it.
    fn look_at(&mut self, step: usize, at: Timestamp, effects: &mut Vec<Effect>) -> bool {
        if self.can_start(step) {
            self.start(step, at, effects)
        } else {
            self.look_at_group(step, at, effects)
        }
    }

    fn can_start(&self, step: usize) -> bool {
        matches!(self.steps[step].state, StepState::Blocked) && self.may_go_on(step)
    }

    /// Whether the run is where this step of the definition may begin something: needs settled, nothing cancelled.
    pub(super) fn may_go_on(&self, step: usize) -> bool {
        let turn = match &self.head.state {
            RunState::Running { .. } if self.is_cancelled(step) => false,
            RunState::Running { .. } => {
                !self.workflow.steps[step].finally || self.unsettled_before_finally == 0
            }
            RunState::Waiting { .. } | RunState::Over { .. } => false,
        };
        turn && self.unsettled_needs[step] == 0
    }

    /// Whether somebody asked for an end that takes in this step of the definition.
    pub(super) fn is_cancelled(&self, step: usize) -> bool {
        match &self.head.state {
            RunState::Running { cancel: Some(cancel), .. } => {
                cancel.finally_too || !self.workflow.steps[step].finally
            }
            RunState::Running { cancel: None, .. } | RunState::Waiting { .. } | RunState::Over { .. } => {
                false
            }
        }
    }

    /// The blocked steps of the definition from a place on that can start.
    pub(super) fn startable(&self, from: usize) -> Touched {
        (from..self.workflow.steps.len()).filter(|&step| self.can_start(step)).collect()
    }

    /// Whether a step's own `if` decides what a need that did not work out means.
    pub(super) fn decides_itself(&self, step: usize) -> bool {
        self.workflow.steps[step].condition.as_ref().is_some_and(|condition| condition.reads_needs())
    }

    /// Starts a step whose needs are settled. Returns whether it is settled already.
    fn start(&mut self, step: usize, at: Timestamp, effects: &mut Vec<Effect>) -> bool {
        let workflow = Arc::clone(&self.workflow);
        let definition = &workflow.steps[step];
        if let Some(reason) = self.held_back_by(step).filter(|_| !self.decides_itself(step)) {
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
        match &definition.matrix {
            Some(matrix) => self.start_group(step, matrix, at, effects),
            None => self.begin(step, at, effects),
        }
    }

    /// Begins what a step, or an instance of one, does. Returns whether it is settled already.
    pub(super) fn begin(&mut self, step: usize, at: Timestamp, effects: &mut Vec<Effect>) -> bool {
        let workflow = Arc::clone(&self.workflow);
        self.step_mut(step).ready_at = Some(at);
        match &workflow.steps[self.of(step)].verb {
            Verb::Work(_) => match self.order(step) {
                // Rendered once more when it is leased; here to find out that it can be, and what it came to before.
                Ok(order) => {
                    self.recall(step, &order, at, effects);
                    self.set_state(step, StepState::Ready)
                }
                Err(reason) => self.conclude(step, at, Settled::Failed { reason }),
            },
            Verb::Select(select) => self.start_select(step, select, at),
            Verb::Workflow(child) => self.start_child(step, child, at, effects),
            Verb::Gate(gate) => self.start_gate(step, gate, at, effects),
            Verb::Approval(approval) => {
                let until = approval.timeout.map(|timeout| at.plus(timeout));
                self.set_state(step, StepState::Awaiting { since: at, until })
            }
            Verb::Promote(promote) => self.start_promotion(step, promote, at, effects),
            Verb::Emit(emit) => self.start_emit(step, emit, at, effects),
        }
    }

    /// Why a step must not run without an `if` of its own that says otherwise.
    pub(super) fn held_back_by(&self, step: usize) -> Option<String> {
        self.workflow.steps[step].needs.iter().find_map(|&need| {
            let name = self.step_name(need);
            match self.steps[need].state.settled()? {
                Settled::Failed { .. } => Some(format!("{name} failed")),
                Settled::Rejected { .. } => Some(format!("{name} was rejected")),
                Settled::Cancelled { .. } => Some(format!("{name} was cancelled")),
                // What held that one back holds back this one: the first reason says all of it.
                Settled::Skipped { not_needed: false, reason } => Some(reason.clone()),
                Settled::Succeeded { .. } | Settled::Skipped { not_needed: true, .. } => None,
            }
        })
    }

    /// How the needs of a step came out. The steps of `finally` need all others: there `failed()` is about the run.
    pub(super) fn needs_of(&self, place: usize) -> Needs {
        let step = self.definition(place);
        let mut needs = step.needs.iter().filter_map(|&need| self.steps[need].state.settled());
        let failed = needs.any(|how| !how.lets_on())
            || step.finally && self.ending_before_finally() != Ending::Succeeded;
        Needs { succeeded: !failed, failed }
    }
}

//! Steps that run another workflow. The run asks for a child and reacts to what is said of it; every word about a child
//! names the step's epoch, so that what an earlier child does changes nothing.

use super::*;
use crate::definition::ChildRun;
use crate::expression::Expression;
use crate::template::Template;

/// How deep runs may be nested: a workflow that runs itself ends here.
pub const NESTING_MAX: u32 = 8;

impl Run {
    /// Asks for the child of a step. Returns whether the step is settled already.
    pub(super) fn start_child(
        &mut self,
        step: usize,
        child: &ChildRun,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let depth = self.facts.parent.as_ref().map_or(0, |parent| parent.depth) + 1;
        if depth > NESTING_MAX {
            let reason = format!("runs are nested at most {NESTING_MAX} deep; this would be one more");
            return self.conclude(step, at, Settled::Failed { reason });
        }
        let params = match self.child_params(step, child) {
            Ok(params) => params,
            Err(reason) => return self.conclude(step, at, Settled::Failed { reason }),
        };
        let parent = Parent { run: self.facts.name.clone(), step: self.step_name(step).to_owned(), depth };
        let entry = self.step_mut(step);
        entry.epoch += 1;
        entry.attempt += 1;
        entry.started_at = Some(at);
        entry.child = None;
        let (epoch, workflow) = (entry.epoch, child.name.clone());
        let no_cache = self.facts.no_cache;
        let order = ChildOrder { step, epoch, workflow, params, parent, no_cache };
        effects.push(Effect::StartRun(Box::new(order)));
        self.set_state(step, StepState::Child { cancelling: false })
    }

    fn child_params(&self, step: usize, child: &ChildRun) -> Result<Map<String, Value>, String> {
        let references: Vec<Vec<String>> =
            child.params.values().flat_map(Template::expressions).flat_map(Expression::references).collect();
        let scope = self.scope(&references, Some(step));
        let render = |(name, template): (&String, &Template)| {
            let value = template.render(&scope).map_err(|wrong| format!("params.{name}: {wrong}"))?;
            Ok((name.clone(), value))
        };
        child.params.iter().map(render).collect()
    }

    /// Whether the step waits for its child of this epoch, and is being cancelled; or why not.
    fn awaited_child(&self, step: usize, epoch: i64) -> Result<bool, Refused> {
        self.must_exist(step)?;
        let current = self.steps[step].epoch;
        if epoch != current || epoch == 0 {
            return Err(Refused::StaleLease { given: epoch, current });
        }
        self.must_be_running()?;
        let StepState::Child { cancelling } = self.steps[step].state else {
            return Err(self.wrong_state(step));
        };
        Ok(cancelling)
    }

    pub(super) fn on_child_started(
        &mut self,
        step: usize,
        epoch: i64,
        run: &RunName,
    ) -> Result<Touched, Refused> {
        self.awaited_child(step, epoch)?;
        self.step_mut(step).child = Some(run.clone());
        self.dirty.insert(step);
        Ok(Vec::new())
    }

    pub(super) fn on_child_ended(
        &mut self,
        step: usize,
        epoch: i64,
        run: &RunName,
        ending: &Ending,
        outputs: &BTreeMap<String, Value>,
        at: Timestamp,
    ) -> Result<Touched, Refused> {
        let cancelling = self.awaited_child(step, epoch)?;
        let how = match ending {
            Ending::Coalesced { into } => {
                return Err(Refused::NotNow(format!("{run} went into {into}: that run has to end")));
            }
            // It ended before the request to end reached it.
            Ending::Succeeded => Settled::Succeeded {
                results: Results {
                    outputs: outputs.clone(),
                    reason: Some(format!("{run} succeeded")),
                    ..Results::default()
                },
            },
            Ending::Rejected { .. } | Ending::Failed { .. } | Ending::Cancelled { .. } if cancelling => {
                Settled::Cancelled { reason: "the run was cancelled".to_owned() }
            }
            Ending::Rejected { reason } => Settled::refused(format!("{run} was rejected: {reason}")),
            Ending::Failed { reason } => Settled::Failed { reason: format!("{run} failed: {reason}") },
            Ending::Cancelled { by } => Settled::Failed { reason: format!("{run} was cancelled by {by}") },
        };
        self.step_mut(step).child = Some(run.clone());
        self.conclude(step, at, how);
        Ok(vec![step])
    }

    pub(super) fn on_child_refused(
        &mut self,
        step: usize,
        epoch: i64,
        reason: &str,
        at: Timestamp,
    ) -> Result<Touched, Refused> {
        let how = match self.awaited_child(step, epoch)? {
            true => Settled::Cancelled { reason: format!("the run was cancelled: {reason}") },
            false => Settled::Failed { reason: reason.to_owned() },
        };
        self.conclude(step, at, how);
        Ok(vec![step])
    }
}

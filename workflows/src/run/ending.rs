//! How a run ends: by its steps, by its outputs, by its `finally` steps.

use serde_json::json;

use super::*;
use crate::expression::Expression;
use crate::template::Template;

impl Run {
    /// Ends the run once every step is settled.
    pub(super) fn end_if_settled(&mut self, at: Timestamp, effects: &mut Vec<Effect>) {
        let RunState::Running { since, .. } = &self.head.state else { return };
        if self.unsettled > 0 {
            return;
        }
        let since = *since;
        let mut ending = self.ending_by_steps();
        if ending == Ending::Succeeded {
            match self.rendered_outputs() {
                Ok(outputs) => self.head.outputs = outputs,
                Err(reason) => ending = Ending::Failed { reason },
            }
        }
        self.end(ending, Some(since), at, effects);
    }

    /// How the run ends as its steps stand; a `finally` step that failed fails a run that would have succeeded.
    fn ending_by_steps(&self) -> Ending {
        let before = self.ending_before_finally();
        if before != Ending::Succeeded {
            return before;
        }
        let finally = self.ending_among(self.first_finally()..self.workflow.steps.len());
        if let Ending::Rejected { reason } = finally { Ending::Failed { reason } } else { finally }
    }

    /// How the run ends as far as the steps before `finally` go: what `finally` steps see as `run.state`.
    pub(super) fn ending_before_finally(&self) -> Ending {
        if let RunState::Running { cancel: Some(cancel), .. } = &self.head.state {
            return Ending::Cancelled { by: cancel.by.clone() };
        }
        self.ending_among(0..self.first_finally())
    }

    /// By steps of the definition; what instances came to is what their group came to.
    fn ending_among(&self, places: std::ops::Range<usize>) -> Ending {
        let mut rejected = None;
        for index in places {
            let named = |reason: &str| format!("{}: {reason}", self.step_name(index));
            match self.steps[index].state.settled() {
                Some(Settled::Failed { reason } | Settled::Cancelled { reason }) => {
                    return Ending::Failed { reason: named(reason) };
                }
                Some(Settled::Rejected { reason, .. }) => {
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

    /// The workflow's `outputs`, of a run that succeeds.
    fn rendered_outputs(&self) -> Result<BTreeMap<String, Value>, String> {
        let templates = &self.workflow.outputs;
        if templates.is_empty() {
            return Ok(BTreeMap::new());
        }
        let references: Vec<Vec<String>> =
            templates.values().flat_map(Template::expressions).flat_map(Expression::references).collect();
        let mut scope = self.scope(&references, None);
        scope.roots.insert("run".to_owned(), self.run_value(Ending::Succeeded.name()));
        let render = |(name, template): (&String, &Template)| {
            let value = template.render(&scope).map_err(|wrong| format!("outputs.{name}: {wrong}"))?;
            Ok((name.clone(), value))
        };
        templates.iter().map(render).collect()
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

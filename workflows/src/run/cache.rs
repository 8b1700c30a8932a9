//! Reusing what a step has come to before: what an outcome is found by, asking for it, taking it, having it kept. Only
//! successes are kept. Must never happen here: an outcome taken for a step that is not about to run.

use serde_json::json;

use super::*;
use crate::definition::Work;
use crate::expression::Expression;

impl Run {
    /// Asks for what a step that just became ready has come to before, where it may be taken.
    pub(super) fn recall(&self, step: usize, work: &Work, at: Timestamp, effects: &mut Vec<Effect>) {
        // What has run, or been taken, once in this run runs again because somebody wants it to.
        let may = !self.facts.no_cache && self.steps[step].epoch == 0;
        let Some(cache) = work.cache.as_ref().filter(|_| may) else { return };
        if let Some(key) = self.cache_key(step, work) {
            let since = cache.ttl.map(|ttl| at.minus(ttl));
            effects.push(Effect::Recall { step, key, since });
        }
    }

    /// Has it kept what a step came to.
    pub(super) fn remember(&self, step: usize, effects: &mut Vec<Effect>) {
        let Some(work) = self.definition(step).verb.work().filter(|work| work.cache.is_some()) else {
            return;
        };
        let results = self.steps[step].state.results().cloned();
        if let (Some(key), Some(results)) = (self.cache_key(step, work), results) {
            effects.push(Effect::Remember { step, key, results: Box::new(results) });
        }
    }

    /// Names what the outcome of a step depends on: its name, and by default all that it is told, its code included. None:
    /// it cannot be rendered.
    fn cache_key(&self, step: usize, work: &Work) -> Option<Digest> {
        let name = (&self.facts.name.workflow, self.step_name(step));
        let found_by = match work.cache.as_ref()?.key.as_ref() {
            Some(key) => {
                let references: Vec<_> =
                    key.expressions().into_iter().flat_map(Expression::references).collect();
                json!([name, key.render_text(&self.scope(&references, Some(step))).ok()?])
            }
            None => {
                let order = self.order(step).ok()?;
                let told = (order.task, order.params, order.bundle);
                json!([name, told, order.inputs, order.champion, order.artifacts])
            }
        };
        Some(Digest::of(found_by.to_string().as_bytes()))
    }

    /// A step that waits for a worker takes what it has come to before.
    pub(super) fn on_recalled(
        &mut self,
        step: usize,
        from: &RunName,
        results: &Results,
        at: Timestamp,
    ) -> Result<Touched, Refused> {
        self.must_be_running()?;
        self.must_exist(step)?;
        if !matches!(self.steps[step].state, StepState::Ready) {
            return Err(self.wrong_state(step));
        }
        let entry = self.step_mut(step);
        entry.epoch += 1;
        entry.cached_from = Some(from.clone());
        self.conclude(step, at, Settled::Succeeded { results: results.clone() });
        Ok(vec![step])
    }
}

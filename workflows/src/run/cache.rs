//! Reusing what a step has come to before: what an outcome is found by, asking for it, taking it, having it kept. Only
//! successes are kept. Must never happen here: an outcome taken for a step that is not about to run, or kept under what
//! another attempt would have been told.

use serde_json::json;

use super::*;
use crate::expression::Expression;
use crate::wire::StepOrder;

impl Run {
    /// Asks for what a step that is about to wait for a worker has come to before, where it may be taken.
    pub(super) fn recall(&self, step: usize, order: &StepOrder, at: Timestamp, effects: &mut Vec<Effect>) {
        // What has run, or been taken, once in this run runs again because somebody wants it to.
        let may = !self.facts.no_cache && self.steps[step].epoch == 0;
        let work = self.definition(step).verb.work();
        let Some(cache) = work.and_then(|work| work.cache.as_ref()).filter(|_| may) else { return };
        if let Some(key) = self.cache_key(step, order) {
            let since = cache.ttl.map(|ttl| at.minus(ttl));
            effects.push(Effect::Recall { step, key, since });
        }
    }

    /// What the outcome of the attempt that begins now will be found by. Later is too late: the champion may move while the
    /// attempt runs.
    pub(super) fn key_of_attempt(&self, step: usize) -> Option<Digest> {
        self.definition(step).verb.work()?.cache.as_ref()?;
        self.cache_key(step, &self.order(step).ok()?)
    }

    /// Has it kept what a step came to.
    pub(super) fn remember(&self, step: usize, effects: &mut Vec<Effect>) {
        let entry = &self.steps[step];
        if let (Some(key), Some(results)) = (entry.cache_key.clone(), entry.state.results()) {
            effects.push(Effect::Remember { step, key, results: Box::new(results.clone()) });
        }
    }

    /// Names what the outcome of a step depends on: its name, and by default all that it is told, its code included. None:
    /// it cannot be rendered.
    fn cache_key(&self, step: usize, order: &StepOrder) -> Option<Digest> {
        let name = (&self.facts.name.workflow, self.step_name(step));
        let work = self.definition(step).verb.work()?;
        let found_by = match work.cache.as_ref()?.key.as_ref() {
            Some(key) => {
                let references: Vec<_> =
                    key.expressions().into_iter().flat_map(Expression::references).collect();
                json!([name, key.render_text(&self.scope(&references, Some(step))).ok()?])
            }
            None => {
                let told = (&order.task, &order.params, &order.bundle, &work.secrets);
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
        self.must_be_ready(step)?;
        let entry = self.step_mut(step);
        entry.epoch += 1;
        entry.cached_from = Some(from.clone());
        self.conclude(step, at, Settled::Succeeded { results: results.clone() });
        Ok(vec![step])
    }
}

//! Taking events in while a run waits: instead of a newer run beside it, the run itself stands for them. Must never
//! happen here: a change to a run that has begun, now or before a retry; its steps have worked on what it stood for.

use super::transitions::Touched;
use super::*;

impl Run {
    pub(super) fn on_absorbed(
        &mut self,
        params: &Map<String, Value>,
        batch: &BatchFacts,
        coalesced: &[RunName],
        no_cache: bool,
    ) -> Result<Touched, Refused> {
        match &self.head.state {
            RunState::Waiting { .. } => {}
            RunState::Running { .. } => {
                return Err(Refused::NotNow("the run has started already".to_owned()));
            }
            RunState::Over { ending, .. } => return Err(Refused::RunIsOver(ending.name().to_owned())),
        }
        let fresh = |step: &Arc<Step>| step.epoch == 0 && matches!(step.state, StepState::Blocked);
        if !self.steps.iter().all(fresh) {
            return Err(Refused::NotNow("the run was retried: it stands for what it began with".to_owned()));
        }
        let facts = Arc::make_mut(&mut self.facts);
        facts.params = params.clone();
        facts.batch = batch.clone();
        facts.coalesced = coalesced.to_vec();
        facts.no_cache = no_cache;
        Ok(Vec::new())
    }
}

//! What happens when: one private method per input. Each checks everything first and changes after, and returns the
//! steps it settled; what follows for other steps is `settle`'s business.

use super::approvals::Person;
use super::*;

/// Steps whose needs' dependents are to be looked at.
pub(super) type Touched = Vec<usize>;

impl Run {
    pub(super) fn transition(
        &mut self,
        input: &Input,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Touched, Refused> {
        match input {
            Input::Admitted { champion } => self.on_admitted(champion, at),
            Input::Coalesced { into } => self.on_coalesced(into, at, effects),
            Input::Absorbed { params, batch, coalesced, no_cache } => {
                self.on_absorbed(params, batch, coalesced, *no_cache)
            }
            Input::Leased { step, worker, session } => self.on_leased(*step, worker, session, at),
            Input::Finished { step, epoch, outcome, set_up_ms } => {
                self.on_finished((*step, *epoch), outcome, *set_up_ms, at, effects)
            }
            Input::WorkerLost { step, epoch, reason } => self.on_worker_lost(*step, *epoch, reason, at),
            Input::Recalled { step, from, results } => self.on_recalled(*step, from, results, at),
            Input::Ticked => self.on_ticked(at),
            Input::Decided { step, approve, by, groups, admin, shown, reason } => {
                let person = Person { by, groups, admin: *admin, shown: shown.as_ref() };
                self.on_decided(*step, *approve, person, reason.as_deref(), at)
            }
            Input::Promoted { step, version, evidence } => {
                self.on_promoted(*step, *version, evidence, at, effects)
            }
            Input::ChampionMoved { step, champion } => self.on_champion_moved(*step, champion),
            Input::ChildStarted { step, epoch, run } => self.on_child_started(*step, *epoch, run),
            Input::ChildEnded { step, epoch, run, ending, outputs } => {
                self.on_child_ended(*step, *epoch, run, ending, outputs, at)
            }
            Input::ChildRefused { step, epoch, reason } => self.on_child_refused(*step, *epoch, reason, at),
            Input::Cancelled { by } => self.on_cancelled(by, at, effects),
            Input::Retried { all, by: _ } => self.on_retried(*all, at),
        }
    }

    pub(super) fn must_be_running(&self) -> Result<(), Refused> {
        match &self.head.state {
            RunState::Running { .. } => Ok(()),
            RunState::Waiting { .. } => Err(Refused::NotNow("the run has not started".to_owned())),
            RunState::Over { ending, .. } => Err(Refused::RunIsOver(ending.name().to_owned())),
        }
    }

    pub(super) fn must_exist(&self, step: usize) -> Result<(), Refused> {
        if step < self.steps.len() { Ok(()) } else { Err(Refused::UnknownStep) }
    }

    /// The step waits for a worker, or why not.
    pub(super) fn must_be_ready(&self, step: usize) -> Result<(), Refused> {
        self.must_exist(step)?;
        if matches!(self.steps[step].state, StepState::Ready) { Ok(()) } else { Err(self.wrong_state(step)) }
    }

    pub(super) fn wrong_state(&self, step: usize) -> Refused {
        Refused::WrongState { step: self.step_name(step).to_owned(), state: self.steps[step].state.name() }
    }

    /// The lease of a write that names `epoch`, or why the write is not accepted.
    fn held_lease(&self, step: usize, epoch: i64) -> Result<Lease, Refused> {
        self.must_exist(step)?;
        let current = self.steps[step].epoch;
        if epoch != current || epoch == 0 {
            return Err(Refused::StaleLease { given: epoch, current });
        }
        match self.steps[step].state.lease() {
            Some(lease) => Ok(lease.clone()),
            None => Err(Refused::AttemptOver),
        }
    }

    fn on_admitted(&mut self, champion: &Option<Champion>, at: Timestamp) -> Result<Touched, Refused> {
        match &self.head.state {
            RunState::Waiting { .. } => {}
            RunState::Running { .. } => {
                return Err(Refused::NotNow("the run has started already".to_owned()));
            }
            RunState::Over { ending, .. } => return Err(Refused::RunIsOver(ending.name().to_owned())),
        }
        let before = self.head.champion.as_ref().map(|champion| champion.version);
        let moved = before != champion.as_ref().map(|champion| champion.version);
        self.head.state = RunState::Running { since: at, cancel: None };
        self.head.champion = champion.clone();
        if moved {
            // A retried run may hold an evaluation against a champion of the past.
            self.reopen_evaluation();
        }
        // Steps without unsettled needs start: all roots of a new run, whatever was reset of a retried one.
        Ok(self.startable(0))
    }

    fn on_coalesced(
        &mut self,
        into: &RunName,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Touched, Refused> {
        match &self.head.state {
            RunState::Waiting { .. } => {}
            RunState::Running { .. } => {
                return Err(Refused::NotNow("the run has started already".to_owned()));
            }
            RunState::Over { ending, .. } => return Err(Refused::RunIsOver(ending.name().to_owned())),
        }
        for step in 0..self.steps.len() {
            if !self.steps[step].state.is_settled() {
                let reason = format!("the run's events went into {into}");
                self.conclude(step, at, Settled::Cancelled { reason });
            }
        }
        self.end(Ending::Coalesced { into: into.clone() }, None, at, effects);
        Ok(Vec::new())
    }

    fn on_leased(
        &mut self,
        step: usize,
        worker: &str,
        session: &str,
        at: Timestamp,
    ) -> Result<Touched, Refused> {
        self.must_be_running()?;
        self.must_be_ready(step)?;
        let cache_key = self.key_of_attempt(step);
        let entry = self.step_mut(step);
        entry.cache_key = cache_key;
        entry.epoch += 1;
        entry.attempt += 1;
        entry.worker = Some(worker.to_owned());
        entry.started_at = Some(at);
        entry.set_up_ms = None;
        let lease =
            Lease { worker: worker.to_owned(), session: session.to_owned(), epoch: entry.epoch, since: at };
        self.set_state(step, StepState::Leased { lease });
        Ok(Vec::new())
    }

    fn on_finished(
        &mut self,
        (step, epoch): (usize, i64),
        outcome: &Outcome,
        set_up_ms: Option<u64>,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Touched, Refused> {
        // An outcome that arrives after a newer lease is stale even when the run is over: say that first.
        self.held_lease(step, epoch)?;
        self.must_be_running()?;
        let cancelling = matches!(self.steps[step].state, StepState::Cancelling { .. });
        self.step_mut(step).set_up_ms = set_up_ms;
        match outcome {
            Outcome::Succeeded(handed) => {
                // Finished before the request to end reached it: the first commit wins.
                let results = Results::from(handed);
                self.conclude(step, at, Settled::Succeeded { results });
                self.remember(step, effects);
                Ok(vec![step])
            }
            Outcome::Rejected { reason, handed } => {
                let results = Some(Box::new(Results::from(handed)));
                self.conclude(step, at, Settled::Rejected { reason: reason.clone(), results });
                Ok(vec![step])
            }
            Outcome::Failed { .. } | Outcome::Cancelled if cancelling => {
                self.conclude(step, at, Settled::Cancelled { reason: "the run was cancelled".to_owned() });
                Ok(vec![step])
            }
            Outcome::Failed { failure, reason } => Ok(self.attempt_failed(step, failure, reason, at)),
            Outcome::Cancelled => {
                // Nobody asked for it: the worker was told to stop by hand.
                let reason = "its worker ended it".to_owned();
                Ok(self.attempt_failed(step, &Failure::WorkerLost, &reason, at))
            }
        }
    }

    fn on_worker_lost(
        &mut self,
        step: usize,
        epoch: i64,
        reason: &str,
        at: Timestamp,
    ) -> Result<Touched, Refused> {
        self.held_lease(step, epoch)?;
        self.must_be_running()?;
        if matches!(self.steps[step].state, StepState::Cancelling { .. }) {
            let reason = format!("the run was cancelled; {reason}, so its end is not confirmed");
            self.conclude(step, at, Settled::Cancelled { reason });
            return Ok(vec![step]);
        }
        Ok(self.attempt_failed(step, &Failure::WorkerLost, reason, at))
    }

    /// One attempt did not work out: the next one, now or after a pause, or the end of the step.
    fn attempt_failed(&mut self, step: usize, failure: &Failure, reason: &str, at: Timestamp) -> Touched {
        let workflow = Arc::clone(&self.workflow);
        let retry = workflow.steps[self.of(step)].verb.work().map(|work| &work.retry);
        let entry = self.step_mut(step);
        if !failure.counts() {
            entry.uncounted += 1;
        }
        let counted = entry.attempt.saturating_sub(entry.uncounted);
        let left = if failure.counts() {
            retry.is_some_and(|retry| counted < retry.attempts)
        } else {
            entry.uncounted <= UNCOUNTED_MAX
        };
        let (attempt, uncounted) = (entry.attempt, entry.uncounted);
        match (left, failure, retry) {
            (true, Failure::WorkerLost, _) if uncounted > LOSSES_WITHOUT_PAUSE => {
                let doubled = 1u64 << (uncounted - LOSSES_WITHOUT_PAUSE).min(6);
                let until = at.plus(std::time::Duration::from_secs(doubled));
                self.set_state(step, StepState::Pausing { until, reason: reason.to_owned() });
                Vec::new()
            }
            (true, Failure::WorkerLost, _) => {
                self.step_mut(step).ready_at = Some(at);
                self.set_state(step, StepState::Ready);
                Vec::new()
            }
            (true, _, Some(retry)) => {
                let until = at.plus(retry.pause(&self.facts.name, self.step_name(step), attempt));
                self.set_state(step, StepState::Pausing { until, reason: reason.to_owned() });
                Vec::new()
            }
            (true, _, None) | (false, _, _) => {
                let reason = match attempt {
                    0 | 1 => reason.to_owned(),
                    many => format!("{reason} (after {many} attempts)"),
                };
                self.conclude(step, at, Settled::Failed { reason });
                vec![step]
            }
        }
    }

    fn on_ticked(&mut self, at: Timestamp) -> Result<Touched, Refused> {
        self.must_be_running()?;
        let due: Vec<usize> =
            self.timers.iter().take_while(|&&(due, _)| due <= at).map(|&(_, step)| step).collect();
        if due.is_empty() {
            return Err(Refused::NotNow("nothing is due yet".to_owned()));
        }
        let mut settled = Vec::new();
        for step in due {
            if matches!(self.steps[step].state, StepState::Awaiting { .. }) {
                self.answer_by_silence(step, at);
                settled.push(step);
            } else {
                self.step_mut(step).ready_at = Some(at);
                self.set_state(step, StepState::Ready);
            }
        }
        Ok(settled)
    }

    fn must_be_promoting(&self, step: usize) -> Result<(), Refused> {
        self.must_be_running()?;
        self.must_exist(step)?;
        if matches!(self.steps[step].state, StepState::Promoting) {
            Ok(())
        } else {
            Err(self.wrong_state(step))
        }
    }

    fn on_promoted(
        &mut self,
        step: usize,
        version: i64,
        evidence: &Digest,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Touched, Refused> {
        self.must_be_promoting(step)?;
        let (Verb::Promote(promote), Some(model)) =
            (&self.definition(step).verb, self.workflow.model.clone())
        else {
            return Err(self.wrong_state(step));
        };
        let promoted = Promoted { model, version, alias: promote.alias.clone() };
        let outputs = BTreeMap::from([
            ("version".to_owned(), Value::from(version)),
            ("model".to_owned(), Value::from(promoted.model.clone())),
            ("alias".to_owned(), Value::from(promoted.alias.clone())),
            ("evidence".to_owned(), Value::from(evidence.as_str())),
        ]);
        let data = serde_json::json!({
            "model": promoted.model, "version": version, "alias": promoted.alias,
            "run": self.facts.name, "evidence": evidence,
        });
        effects.push(Effect::Emit(self.lifecycle_event("refit.model.promoted", &promoted.model, at, data)));
        let reason = Some(format!("{} {version} is {}", promoted.model, promoted.alias));
        self.head.promoted = Some(promoted);
        let results = Results { outputs, reason, ..Results::default() };
        self.conclude(step, at, Settled::Succeeded { results });
        Ok(vec![step])
    }

    fn on_champion_moved(&mut self, step: usize, champion: &Option<Champion>) -> Result<Touched, Refused> {
        self.must_be_promoting(step)?;
        self.head.champion = champion.clone();
        self.reopen_evaluation();
        self.set_state(step, StepState::Blocked);
        Ok(self.startable(0))
    }

    fn on_cancelled(
        &mut self,
        by: &str,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Touched, Refused> {
        let finally_open = self.unsettled > self.unsettled_before_finally;
        let (since, cancel) = match &self.head.state {
            RunState::Over { ending, .. } => return Err(Refused::RunIsOver(ending.name().to_owned())),
            RunState::Running { since, cancel: None } => {
                (*since, Cancel { by: by.to_owned(), finally_too: false })
            }
            // Asked once more: what cleans up ends too.
            RunState::Running { since, cancel: Some(Cancel { by, finally_too: false }) } if finally_open => {
                (*since, Cancel { by: by.clone(), finally_too: true })
            }
            RunState::Running { cancel: Some(_), .. } => {
                return Err(Refused::NotNow("the run is being cancelled already".to_owned()));
            }
            // Nothing has begun, so there is nothing to clean up.
            RunState::Waiting { .. } => (at, Cancel { by: by.to_owned(), finally_too: true }),
        };
        self.head.state = RunState::Running { since, cancel: Some(cancel) };
        let mut groups = Vec::new();
        for step in 0..self.steps.len() {
            if !self.is_cancelled(self.of(step)) {
                continue;
            }
            match &self.steps[step].state {
                StepState::Leased { lease } => {
                    let lease = lease.clone();
                    self.set_state(step, StepState::Cancelling { lease });
                }
                StepState::Child { cancelling: false } => {
                    effects.push(Effect::CancelRun { step, epoch: self.steps[step].epoch });
                    self.set_state(step, StepState::Child { cancelling: true });
                }
                StepState::Blocked
                | StepState::Ready
                | StepState::Pausing { .. }
                | StepState::Awaiting { .. }
                | StepState::Promoting => {
                    let reason = "the run was cancelled".to_owned();
                    self.conclude(step, at, Settled::Cancelled { reason });
                }
                // Ends with its instances.
                StepState::Instances => groups.push(step),
                StepState::Cancelling { .. }
                | StepState::Child { cancelling: true }
                | StepState::Settled { .. } => {}
            }
        }
        Ok(groups)
    }

    fn on_retried(&mut self, all: bool, at: Timestamp) -> Result<Touched, Refused> {
        let ending = match &self.head.state {
            RunState::Over { ending, .. } => ending,
            RunState::Waiting { .. } | RunState::Running { .. } => {
                return Err(Refused::NotNow("the run is not over: cancel it first".to_owned()));
            }
        };
        match ending {
            Ending::Coalesced { into } => {
                return Err(Refused::NotNow(format!("its events went into {into}: retry that run")));
            }
            Ending::Succeeded if !all => {
                return Err(Refused::NotNow(
                    "the run succeeded: there is nothing to carry on from; start every step again with --all"
                        .to_owned(),
                ));
            }
            Ending::Succeeded
            | Ending::Rejected { .. }
            | Ending::Failed { .. }
            | Ending::Cancelled { .. } => {}
        }
        let again = if all { vec![Again::Whole; self.workflow.steps.len()] } else { self.did_not_work_out() };
        for (step, again) in again.into_iter().enumerate() {
            if again != Again::No && matches!(self.workflow.steps[step].verb, Verb::Promote(_)) {
                self.head.promoted = None;
            }
            match again {
                Again::No => {}
                Again::Rest => {
                    self.resume_place(step);
                    self.reset_instances(step, false);
                }
                Again::Whole => self.reset(step),
            }
        }
        self.head.outputs.clear();
        self.head.state = RunState::Waiting { since: at };
        Ok(Vec::new())
    }

    /// The steps that failed, were rejected, cancelled or held back, and everything after them; with any of the others
    /// the steps of `finally`.
    fn did_not_work_out(&self) -> Vec<Again> {
        let all = self.workflow.steps.len();
        let mut again: Vec<Again> = self.steps[..all]
            .iter()
            .map(|step| match step.state.settled().is_some_and(Settled::lets_on) {
                true => Again::No,
                false => Again::Rest,
            })
            .collect();
        let mut open: Vec<usize> = (0..all).filter(|&step| again[step] != Again::No).collect();
        while let Some(step) = open.pop() {
            for &dependent in &self.dependents[step] {
                if std::mem::replace(&mut again[dependent], Again::Whole) == Again::No {
                    open.push(dependent);
                }
            }
        }
        let (before, finally) = again.split_at_mut(self.first_finally());
        if before.iter().any(|again| *again != Again::No) {
            finally.fill(Again::Whole);
        }
        again
    }

    /// Back to blocked, as if it had never run, instances too; epochs stay, so that no old lease fits.
    pub(super) fn reset(&mut self, step: usize) {
        self.reset_place(step);
        self.reset_instances(step, true);
    }

    /// Back to blocked, to go on from what its attempts have saved.
    pub(super) fn resume_place(&mut self, place: usize) {
        let anew_after = self.steps[place].anew_after;
        self.reset_place(place);
        self.step_mut(place).anew_after = anew_after;
    }

    pub(super) fn reset_place(&mut self, place: usize) {
        self.set_state(place, StepState::Blocked);
        let old = &self.steps[place];
        let fresh = Step { instance: old.instance.clone(), ..Step::blocked(old.epoch) };
        *self.step_mut(place) = fresh;
    }
}

/// What a retry does to a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// It worked out, and nothing it needs runs again.
    No,
    /// It runs again; of a matrix, the instances that did not succeed.
    Rest,
    /// It runs again, and so does all of a matrix: what it needs may come out differently.
    Whole,
}

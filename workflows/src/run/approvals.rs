//! Approvals: who may give one, what it is about, and whether it still is.
//!
//! Must never happen here: an approval that stands for something else than what was there when it was given.

use super::*;
use crate::definition::{Approval, OnTimeout};

/// Where a run that a person starts by hand comes from, before their name.
const PEOPLE: &str = "/refit/people/";

/// Somebody who answers.
#[derive(Clone, Copy)]
pub(super) struct Person<'a> {
    pub(super) by: &'a str,
    pub(super) groups: &'a [String],
    /// Whether they may decide whatever `from` says.
    pub(super) admin: bool,
    /// Names what they were shown, where they say so.
    pub(super) shown: Option<&'a Digest>,
}

/// What people said before a promotion, by step: in words, and what about.
type Approvals = (BTreeMap<String, String>, BTreeMap<String, Digest>);

impl Run {
    pub(super) fn on_decided(
        &mut self,
        step: usize,
        approve: bool,
        person: Person<'_>,
        reason: Option<&str>,
        at: Timestamp,
    ) -> Result<Touched, Refused> {
        self.must_be_running()?;
        self.must_exist(step)?;
        let (StepState::Awaiting { until, .. }, Verb::Approval(approval)) =
            (&self.steps[step].state, &self.definition(step).verb)
        else {
            return Err(self.wrong_state(step));
        };
        if until.is_some_and(|until| until <= at) {
            return Err(Refused::NotNow("the time to answer is over".to_owned()));
        }
        self.must_be_theirs(approval, approve, person)?;
        let covers = self.covered(step);
        if person.shown.is_some_and(|shown| *shown != covers) {
            return Err(Refused::Changed { step: self.step_name(step).to_owned(), covers });
        }
        let (by, because) = (person.by, reason.map(|reason| format!(": {reason}")).unwrap_or_default());
        if approve {
            self.approve(step, Some(by), format!("approved by {by}{because}"), at);
        } else {
            self.conclude(step, at, Settled::refused(format!("rejected by {by}{because}")));
        }
        Ok(vec![step])
    }

    /// Whether a person may give this answer.
    fn must_be_theirs(&self, approval: &Approval, approve: bool, person: Person<'_>) -> Result<(), Refused> {
        let Person { by, groups, admin, .. } = person;
        let from = &approval.from;
        if !admin && !from.is_empty() && !from.iter().any(|name| name == by || groups.contains(name)) {
            return Err(Refused::NotTheirs { by: by.to_owned(), from: from.join(", ") });
        }
        // Of an administrator too: a second person is a second person.
        if approve && approval.two_person && self.started_by().any(|starter| starter == by) {
            return Err(Refused::OwnRun { by: by.to_owned() });
        }
        Ok(())
    }

    /// Who started the run by hand, or added to it so while it waited last.
    fn started_by(&self) -> impl Iterator<Item = &str> {
        let by_hand = |event: &Value| event["type"] == "refit.run.requested";
        let events = [&self.facts.batch.first, &self.facts.batch.last].into_iter();
        events
            .filter(move |event| by_hand(event))
            .filter_map(|event| event["source"].as_str()?.strip_prefix(PEOPLE))
    }

    pub(super) fn answer_by_silence(&mut self, step: usize, at: Timestamp) {
        let approves = matches!(&self.definition(step).verb,
            Verb::Approval(approval) if approval.on_timeout == OnTimeout::Approve);
        if approves {
            self.approve(step, None, "approved by silence: nobody answered in time".to_owned(), at);
        } else {
            self.conclude(step, at, Settled::refused("nobody answered in time".to_owned()));
        }
    }

    fn approve(&mut self, step: usize, by: Option<&str>, words: String, at: Timestamp) {
        let approved = Approved { by: by.map(str::to_owned), covers: self.covered(step) };
        self.step_mut(step).approved = Some(approved);
        self.conclude(step, at, Settled::done(words));
    }

    /// Names what an approval is about: see [`Approved::covers`].
    pub(super) fn covered(&self, step: usize) -> Digest {
        let before: BTreeMap<&str, Value> = self
            .workflow
            .ancestors(self.of(step))
            .into_iter()
            .map(|place| {
                let Step { state, decision, .. } = &*self.steps[place];
                let came_to = serde_json::json!([state.name(), state.handed_over(), decision]);
                (self.step_name(place), came_to)
            })
            .collect();
        let whole = serde_json::json!({
            "run": self.facts.name, "definition": self.facts.definition, "params": self.facts.params,
            "champion": self.head.champion.as_ref().map(|champion| champion.version), "steps": before,
        });
        Digest::of(whole.to_string().as_bytes())
    }

    /// What is shown of an approval: what it is about, or was when it was given.
    pub(super) fn covers(&self, step: usize) -> Option<Digest> {
        match &self.steps[step].state {
            StepState::Awaiting { .. } => Some(self.covered(step)),
            StepState::Blocked
            | StepState::Ready
            | StepState::Leased { .. }
            | StepState::Cancelling { .. }
            | StepState::Pausing { .. }
            | StepState::Promoting
            | StepState::Instances
            | StepState::Child { .. }
            | StepState::Settled { .. } => {
                self.steps[step].approved.as_ref().map(|approved| approved.covers.clone())
            }
        }
    }

    /// What the people before a promotion said; an error when one of them did not say yes, or said it of something else,
    /// whatever the promotion's own `if` asks for.
    pub(super) fn approvals_before(&self, step: usize) -> Result<Approvals, String> {
        let (mut approvals, mut covers) = Approvals::default();
        for ancestor in self.workflow.ancestors(step) {
            if !matches!(self.workflow.steps[ancestor].verb, Verb::Approval(_)) {
                continue;
            }
            let name = self.step_name(ancestor);
            let state = &self.steps[ancestor].state;
            match state.settled() {
                Some(Settled::Succeeded { results }) => {
                    if let Some(approved) = &self.steps[ancestor].approved {
                        if approved.covers != self.covered(ancestor) {
                            return Err(format!("what {name} was given for has changed since: it is void"));
                        }
                        covers.insert(name.to_owned(), approved.covers.clone());
                    }
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
        Ok((approvals, covers))
    }
}

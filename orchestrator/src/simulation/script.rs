//! What the steps of a simulated workflow come to. Pure; must never happen here: a decision that the run machine or a gate
//! makes. A gate whose verdict is given has its checks replaced by one that comes to it.

use std::collections::BTreeMap;
use std::time::Duration;

use refit_workflows::definition::{Verb, Workflow};
use refit_workflows::digest::Digest;
use refit_workflows::gate::Verdict;
use refit_workflows::wire::{ArtifactKind, ArtifactRef, Failure, Handed, Outcome, StepOrder};
use serde_json::Value;

/// What the steps of one workflow come to. Without a word about it, a worker's step succeeds at once with its declared
/// artifacts, an approval waits, a gate decides by its checks.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// By step: what its attempts come to, the last one again and again. `train` speaks for every instance of a matrix
    /// that has no line of its own, such as `train[depth=4]`.
    pub attempts: BTreeMap<String, Vec<Attempt>>,
    /// By approval: the answer.
    pub answers: BTreeMap<String, Answer>,
    /// By gate: its verdict, whatever its checks say.
    pub verdicts: BTreeMap<String, Verdict>,
    /// The verdict of gates that are not named; none: they decide by their checks.
    pub other_verdicts: Option<Verdict>,
    /// The answer to approvals that are not named; none: they wait.
    pub other_answers: Option<Answer>,
    /// How long an attempt takes that is not named.
    pub takes: Duration,
}

/// One attempt of a worker's step.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// How long it takes. Beyond the step's timeout it is ended there, and failed.
    pub takes: Duration,
    /// What it comes to.
    pub came: Came,
}

/// What an attempt comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Came {
    /// It succeeds, with every artifact the step declares.
    Success {
        /// Values handed on.
        outputs: BTreeMap<String, Value>,
        /// Metrics reported.
        metrics: BTreeMap<String, f64>,
    },
    /// It fails.
    Failure {
        /// How; decides whether it counts towards `retry.attempts`.
        failure: Failure,
        /// In words.
        reason: String,
    },
}

/// An answer to an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Yes or no.
    pub approve: bool,
    /// Whose; none: an admin's, who may always decide.
    pub by: Option<String>,
    /// How long after it was asked.
    pub after: Duration,
}

impl Script {
    /// How long an attempt takes and what it comes to.
    pub(super) fn attempt(&self, order: &StepOrder) -> (Duration, Outcome) {
        let named = self.line(&self.attempts, &order.key.step).and_then(|attempts| {
            let place = usize::try_from(order.attempt.saturating_sub(1)).unwrap_or(usize::MAX);
            attempts.get(place.min(attempts.len().saturating_sub(1)))
        });
        let unnamed = Attempt { takes: self.takes, came: Came::default() };
        let attempt = named.unwrap_or(&unnamed);
        let timeout = Duration::from_millis(order.timeout_ms);
        if attempt.takes > timeout {
            let reason = format!(
                "it took longer than its timeout of {}",
                refit_workflows::time::show_duration(timeout)
            );
            return (timeout, Outcome::Failed { failure: Failure::TimedOut, reason });
        }
        let outcome = match &attempt.came {
            Came::Success { outputs, metrics } => Outcome::Succeeded(Handed {
                outputs: outputs.clone(),
                metrics: metrics.clone(),
                artifacts: order.artifacts.keys().map(|name| (name.clone(), artifact(order, name))).collect(),
                ..Handed::default()
            }),
            Came::Failure { failure, reason } => {
                Outcome::Failed { failure: failure.clone(), reason: reason.clone() }
            }
        };
        (attempt.takes, outcome)
    }

    /// The answer to an approval, if anybody answers it.
    pub(super) fn answer(&self, step: &str) -> Option<&Answer> {
        self.line(&self.answers, step).or(self.other_answers.as_ref())
    }

    /// What is said of a step, or of the step that it is an instance of.
    fn line<'s, T>(&self, lines: &'s BTreeMap<String, T>, step: &str) -> Option<&'s T> {
        let group = step.split('[').next().unwrap_or(step);
        lines.get(step).or_else(|| lines.get(group))
    }

    /// The workflow with the verdicts of this script.
    pub(super) fn fix_gates(&self, workflow: &Workflow) -> Workflow {
        let mut workflow = workflow.clone();
        for step in &mut workflow.steps {
            let verdict = self.verdicts.get(&step.name).copied().or(self.other_verdicts);
            if let (Verb::Gate(gate), Some(verdict)) = (&mut step.verb, verdict) {
                *gate = gate.that_comes_to(verdict);
            }
        }
        workflow
    }
}

impl Default for Came {
    fn default() -> Self {
        Self::Success { outputs: BTreeMap::new(), metrics: BTreeMap::new() }
    }
}

/// Stands for what the step would have made; each attempt's is another.
fn artifact(order: &StepOrder, name: &str) -> ArtifactRef {
    let content = format!("{} {} {} {name}", order.key.run, order.key.step, order.key.epoch);
    ArtifactRef { digest: Digest::of(content.as_bytes()), bytes: 0, kind: ArtifactKind::File }
}

//! Checks of data: one pass over a table answers all questions that its checks ask, in bounded memory. Reading order:
//! [`Task::run`] → `questions` (what a check asks) → `plan` (what is to be gathered) → `pass` (the reading) → `probe` (what is gathered of each batch) → `judge`
//! (questions answered) → `findings` (what is handed over).
//!
//! Must never happen here: a check that could not be made counted as one that holds.

mod compare;
mod drift;
mod filter;
mod findings;
mod hashes;
mod judge;
#[cfg(test)]
mod large;
mod pass;
mod plan;
mod probe;
mod questions;
mod slices;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use refit_workflows::definition::{DataCheck, Severity};
use refit_workflows::time::Timestamp;
use refit_workflows::wire::DataRef;

use crate::data::Source;
use crate::data::Table;
use crate::data::profile::Profile;
pub(crate) use findings::Findings;
use findings::{Answer, Outcome};
use judge::Holds;
use plan::Plan;

/// What other runs saw, each with the run's name.
#[derive(Clone, Debug, Default)]
pub(crate) struct References {
    /// The latest in which the step succeeded.
    pub(crate) previous: Option<(String, Profile)>,
    /// The one that made the champion.
    pub(crate) champion: Option<(String, Profile)>,
    /// How many rows there were in earlier runs, the latest first.
    pub(crate) row_counts: Vec<f64>,
}

/// What is to be checked, all of it on this host.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// The data.
    pub(crate) data: Source,
    /// What it must look like.
    pub(crate) checks: Vec<DataCheck<DataRef>>,
    /// The other data that a check looks at, by the check's place.
    pub(crate) others: BTreeMap<usize, Source>,
    /// What checks compare with.
    pub(crate) references: References,
    /// When the checks are made.
    pub(crate) now: Timestamp,
    /// Folders that are nobody's concern: paths below them are told without them.
    pub(crate) hidden: Vec<String>,
}

impl Task {
    /// Makes the checks; ends early, with an error, once `stop` is set.
    ///
    /// # Errors
    /// The data cannot be read at all, in words.
    pub(crate) fn run(&self, stop: &AtomicBool) -> Result<Findings, String> {
        self.check(stop).map_err(|wrong| self.told(wrong))
    }

    /// A sentence for people.
    fn told(&self, text: String) -> String {
        self.hidden.iter().fold(text, |text, folder| text.replace(folder, ""))
    }

    fn check(&self, stop: &AtomicBool) -> Result<Findings, String> {
        let table = Table::open(&self.data.path, self.data.format).map_err(|wrong| wrong.to_string())?;
        let mut plan = Plan::make(&table, self, stop)?;
        let rows =
            if plan.needs_rows() { plan.read(&table, stop)? } else { table.row_count().unwrap_or_default() };
        let mut sampled = plan.sampled();
        let profile = plan.profile(rows, &table);
        let mut answers = Vec::new();
        let mut alike = Vec::new();
        for (place, question) in plan.questions().iter().enumerate() {
            let check = &self.checks[question.check];
            let judged = judge::judge(self, question, &plan, stop);
            if stop.load(Ordering::Relaxed) {
                return Err(STOPPED.to_owned());
            }
            let outcome = match (judged.holds, check.severity) {
                (Holds::Yes, _) => Outcome::Pass,
                (Holds::NotYet, _) => Outcome::Skip,
                (Holds::No, Severity::Fail) => Outcome::Fail,
                (Holds::Untold, Severity::Fail) => Outcome::Error,
                (Holds::No | Holds::Untold, Severity::Warn) => Outcome::Warn,
            };
            if judged.holds == Holds::No && !judged.alike.is_empty() {
                alike.push((place, judged.alike));
            }
            answers.push(Answer {
                check: question.name.clone(),
                filter: question.filter.map(|filter| plan.filter_source(filter).to_owned()),
                severity: check.severity,
                outcome,
                observed: judged.observed,
                expected: judged.expected,
                n: judged.n,
                message: self.told(judged.message),
                because: check.because.clone(),
                new_values: judged.new_values,
                distance: judged.distance,
            });
        }
        if !alike.is_empty() {
            sampled.extend(plan.sample_alike(alike, &table, stop)?);
        }
        Ok(Findings { rows, answers, profile: profile.kept(), sampled })
    }
}

/// Why there are no findings when the step was ended.
const STOPPED: &str = "the step was ended";

//! Statistical checks: what `evaluate` measured on paired predictions, to a verdict a slice. Holm's correction over the success
//! checks of a gate comes last. Must never happen here: a pass on what was not measured, or a statistic being counted.

use std::ops::Range;

use super::figures::{bounds, compare};
use super::numbers::{confidence, count, number, probability};
use super::{Champion, CheckResult, Evidence, Role, StatisticalCheck, Tested, Verdict};
use crate::evaluation::{Answer, Evaluation, Measured, Measurement};
use crate::statistics::Difference;
use crate::statistics::multiple::Correction;

/// Judges one check: one result a slice, or one in all. Success checks come out undecided: that needs all of them.
pub(super) fn judge(check: &StatisticalCheck, alpha: f64, evidence: Evidence<'_>) -> Vec<CheckResult> {
    let asks_for_champion = !matches!(check.role, Role::Absolute { .. });
    if asks_for_champion && evidence.champion.is_none() {
        let reason = "not applied: there is no champion yet".to_owned();
        return vec![bare(title(check, None), None, reason)];
    }
    let answer = match find(check, alpha, evidence.evaluations) {
        Ok(answer) => answer,
        Err(reason) => return vec![bare(title(check, None), Some(Verdict::Error), reason)],
    };
    let judge = |measured: &Measured| Judged::new(check, alpha, evidence.champion, measured).result();
    answer.measured.iter().map(judge).collect()
}

/// The answer to the check's question among what the steps before the gate found.
fn find<'a>(
    check: &StatisticalCheck,
    alpha: f64,
    evaluations: &'a [(&'a str, &'a Evaluation)],
) -> Result<&'a Answer, String> {
    let question = check.question(alpha);
    let about = match &check.by {
        Some(by) => format!("{} by {by}", check.metric),
        None => check.metric.clone(),
    };
    let mut found: Option<(&str, &Answer)> = None;
    for &(step, evaluation) in evaluations {
        let Some(answer) = evaluation.answer(&question) else { continue };
        match found {
            Some((other, same)) if same != answer => {
                return Err(format!(
                    "{about} is measured by {other} and {step}, which do not agree: let the gate wait for one of them"
                ));
            }
            Some(_) => {}
            None => found = Some((step, answer)),
        }
    }
    match found {
        Some((step, answer)) if answer.measured.is_empty() => {
            Err(format!("{step} found no examples to measure {about} on"))
        }
        Some((_, answer)) => Ok(answer),
        None => Err(format!("no `evaluate` step before the gate has measured {about}")),
    }
}

/// A check, with or without the slice, as one line.
fn title(check: &StatisticalCheck, slice: Option<&str>) -> String {
    let metric = &check.metric;
    let what = match check.role {
        Role::Absolute { min, max } => bounds(metric, min, max),
        Role::Success => format!("{metric} better"),
        Role::Guardrail { margin } => format!("{metric} at most {margin} worse"),
        Role::Deterioration => format!("{metric} not worse"),
    };
    match (slice, &check.by) {
        (Some(slice), _) => format!("{what}, {slice}"),
        (None, Some(by)) => format!("{what} by {by}"),
        (None, None) => what,
    }
}

fn bare(check: String, verdict: Option<Verdict>, reason: String) -> CheckResult {
    CheckResult { check, verdict, candidate: None, champion: None, required: None, tested: None, reason }
}

/// A check on one slice.
struct Judged<'a> {
    check: &'a StatisticalCheck,
    alpha: f64,
    champion: Option<&'a Champion>,
    measured: &'a Measured,
    slice: Option<String>,
}

impl<'a> Judged<'a> {
    fn new(
        check: &'a StatisticalCheck,
        alpha: f64,
        champion: Option<&'a Champion>,
        measured: &'a Measured,
    ) -> Self {
        let by = check.by.as_deref().unwrap_or_default();
        let slice = measured.slice.as_ref().map(|value| format!("{by}={value}"));
        Self { check, alpha, champion, measured, slice }
    }

    fn result(&self) -> CheckResult {
        let (verdict, reason) = self.verdict();
        let (candidate, champion, difference) = match &self.measured.found {
            Measurement::Alone { candidate } => (Some(*candidate), None, None),
            Measurement::Compared { candidate, champion, difference } => {
                let judged_by = Some(difference.clone()).filter(|_| self.too_few().is_none());
                (Some(*candidate), Some(*champion), judged_by)
            }
            Measurement::TooFew { .. } | Measurement::Flawed { .. } => (None, None, None),
        };
        let required = match self.check.role {
            Role::Absolute { min, max } => min.or(max),
            Role::Guardrail { margin } => Some(-margin),
            Role::Success | Role::Deterioration => None,
        };
        let tested = Tested {
            role: self.check.role,
            alpha: self.alpha,
            slice: self.slice.clone(),
            examples: self.measured.examples,
            difference,
            p_adjusted: None,
        };
        CheckResult {
            check: title(self.check, self.slice.as_deref()),
            verdict: Some(verdict),
            candidate,
            champion,
            required,
            tested: Some(Box::new(tested)),
            reason,
        }
    }

    fn verdict(&self) -> (Verdict, String) {
        let place = self.place();
        let (candidate, compared) = match &self.measured.found {
            Measurement::Flawed { reason } => {
                return (Verdict::Error, format!("{}{place}: {reason}", self.check.metric));
            }
            Measurement::TooFew { reason } => {
                return (Verdict::Inconclusive, format!("{}{place}: {reason}", self.check.metric));
            }
            Measurement::Alone { candidate } => (*candidate, None),
            Measurement::Compared { candidate, champion, difference } => {
                (*candidate, Some((*champion, difference)))
            }
        };
        if let Some(least) = self.too_few() {
            let (examples, least) = (count(self.measured.examples), count(least));
            let metric = &self.check.metric;
            let reason = format!("{metric}{place}: {examples} examples are too few, {least} are asked for");
            return (Verdict::Inconclusive, reason);
        }
        if let Role::Absolute { min, max } = self.check.role {
            return compare(&format!("{}{place}", self.check.metric), candidate, min, max);
        }
        let Some((champion, difference)) = compared else {
            let reason = format!(
                "{}{place}: the examples hold no predictions of the champion, so there is nothing to compare",
                self.check.metric
            );
            return (Verdict::Error, reason);
        };
        let (verdict, words) = self.comparison(difference);
        (verdict, format!("{}: {words}", self.figures(candidate, champion)))
    }

    /// How many examples are asked for, when there are fewer.
    fn too_few(&self) -> Option<u64> {
        self.check.min_examples.filter(|&least| self.measured.examples < least)
    }

    /// ` in country=DE`.
    fn place(&self) -> String {
        self.slice.as_ref().map(|slice| format!(" in {slice}")).unwrap_or_default()
    }

    fn figures(&self, candidate: f64, champion: f64) -> String {
        let version = self.champion.map(|champion| format!(" of champion {}", champion.version));
        format!(
            "{}{} {} against {}{} on {} examples",
            self.check.metric,
            self.place(),
            number(candidate),
            number(champion),
            version.unwrap_or_default(),
            count(self.measured.examples)
        )
    }

    fn comparison(&self, difference: &Difference) -> (Verdict, String) {
        let sure = confidence(self.alpha);
        match self.check.role {
            // Without a champion; it was answered before.
            Role::Absolute { .. } => (Verdict::Error, "nothing to compare".to_owned()),
            Role::Success => {
                let p = probability(difference.p_better);
                (Verdict::Inconclusive, format!("{}, p {p}", by_how_much(difference.estimate)))
            }
            Role::Guardrail { margin } if difference.low > -margin => {
                (Verdict::Pass, format!("{} with {sure} confidence", at_worst(difference.low)))
            }
            Role::Guardrail { margin } if difference.high < -margin => {
                let least = number(-difference.high);
                (
                    Verdict::Fail,
                    format!(
                        "worse by at least {least} with {sure} confidence, {} is allowed",
                        number(margin)
                    ),
                )
            }
            Role::Guardrail { margin } => {
                let words = format!(
                    "{} with {sure} confidence, {} is allowed{}",
                    at_worst(difference.low),
                    number(margin),
                    needed(difference)
                );
                (Verdict::Inconclusive, words)
            }
            Role::Deterioration if difference.p_worse <= self.alpha => {
                let worse = number(-difference.estimate);
                (
                    Verdict::Fail,
                    format!("worse by {worse}, which is no chance (p {})", probability(difference.p_worse)),
                )
            }
            Role::Deterioration => {
                (Verdict::Pass, format!("not shown to be worse (p {})", probability(difference.p_worse)))
            }
        }
    }
}

/// What the lower bound says.
fn at_worst(low: f64) -> String {
    if low >= 0.0 {
        format!("better by at least {}", number(low))
    } else {
        format!("worse by at most {}", number(-low))
    }
}

/// A difference, turned so that positive is better.
fn by_how_much(difference: f64) -> String {
    if difference >= 0.0 {
        format!("better by {}", number(difference))
    } else {
        format!("worse by {}", number(-difference))
    }
}

fn needed(difference: &Difference) -> String {
    difference
        .needed
        .map(|needed| format!("; about {} examples would tell", count(needed)))
        .unwrap_or_default()
}

/// The success checks of a gate, as the places of their results: those of one check together.
#[derive(Debug, Default)]
pub(super) struct Success(Vec<Range<usize>>);

impl Success {
    /// Notes the results of one success check.
    pub(super) fn note(&mut self, results: Range<usize>) {
        self.0.push(results);
    }

    /// Decides them, once all results are there: a check shows what its worst slice shows, and is corrected for the others
    /// (Holm). One that passes is enough: those that do not are not held against the candidate then.
    pub(super) fn decide(&self, results: &mut [CheckResult], alpha: f64) {
        let tested = |check: &Range<usize>| Some((check.clone(), worst(&results[check.clone()])?));
        let tested: Vec<(Range<usize>, f64)> = self.0.iter().filter_map(tested).collect();
        let p: Vec<f64> = tested.iter().map(|(_, p)| *p).collect();
        // A p that is none leaves them undecided.
        let Ok(adjusted) = Correction::Holm.adjust(&p) else { return };
        for ((check, _), &p) in tested.iter().zip(&adjusted) {
            for result in &mut results[check.clone()] {
                correct(result, p, alpha, tested.len());
            }
        }
        if adjusted.iter().all(|&p| p > alpha) {
            return;
        }
        for result in self.0.iter().flat_map(Range::clone) {
            let result = &mut results[result];
            if result.verdict == Some(Verdict::Inconclusive) {
                result.verdict = None;
                result.reason.push_str("; another success check is enough");
            }
        }
    }
}

/// The p of a check: that of its worst slice. None: not every slice was tested.
fn worst(slices: &[CheckResult]) -> Option<f64> {
    let p = |slice: &CheckResult| Some(slice.tested.as_ref()?.difference.as_ref()?.p_better);
    slices.iter().map(p).try_fold(0.0, |worst: f64, p| Some(worst.max(p?))).filter(|_| !slices.is_empty())
}

fn correct(result: &mut CheckResult, p: f64, alpha: f64, checks: usize) {
    let Some(tested) = &mut result.tested else { return };
    tested.p_adjusted = Some(p);
    let Some(difference) = &tested.difference else { return };
    let by = if checks > 1 {
        format!(", {} after Holm's correction over {checks} checks", probability(p))
    } else {
        String::new()
    };
    let words = if p <= alpha {
        result.verdict = Some(Verdict::Pass);
        format!("{by}, shown with {} confidence", confidence(alpha))
    } else if difference.estimate > 0.0 {
        format!("{by}, which may be chance{}", needed(difference))
    } else {
        format!("{by}, so it is not shown to be better")
    };
    result.reason.push_str(&words);
}

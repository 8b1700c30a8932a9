//! What can only be said of all steps together: cycles, what a step asks of the others, which gate stands before a
//! promotion. Must never happen here: a promotion that no gate guards.

use std::collections::BTreeMap;

use super::super::diagnostics::{Findings, did_you_mean};
use super::super::graph::cycles;
use super::super::{EvaluatedMetric, Examples, Promote, Select, Step, Task, Verb};
use super::gate::AskedMeasurement;
use super::steps::{Axes, Body, StepDraft};

/// The steps of a file and who comes before whom.
pub(super) struct Whole<'w> {
    pub(super) drafts: &'w [StepDraft],
    pub(super) has_model: bool,
    /// Whether the second step waits for the first, directly or through others.
    pub(super) is_before: &'w dyn Fn(usize, usize) -> bool,
}

/// Where a promotion's candidate comes from, and the gates it stands behind.
pub(super) type Promotion = ((usize, String), Vec<usize>);

pub(super) fn report_cycles(drafts: &[StepDraft], needs: &[Vec<usize>], f: &mut Findings) -> bool {
    let cycles = cycles(needs);
    for cycle in &cycles {
        let Some(&first) = cycle.first() else { continue };
        let next = cycle.get(1).copied().unwrap_or(first);
        let draft = &drafts[first];
        if cycle.len() == 1 {
            let message = format!("step `{}` waits for itself", draft.name);
            f.add_with_hint("cycle", draft.position_of_need(next), message, "take it out of its own `needs`");
            continue;
        }
        // A way of thousands of steps would bury the message.
        let shown =
            cycle.iter().take(20).map(|&step| drafts[step].name.as_str()).collect::<Vec<_>>().join(" -> ");
        let more =
            if cycle.len() > 20 { format!(" -> … {} more", cycle.len() - 20) } else { String::new() };
        f.add_with_hint(
            "cycle",
            draft.position_of_need(next),
            format!("steps wait for each other: {shown}{more} -> {}", draft.name),
            "take one of these needs away",
        );
    }
    !cycles.is_empty()
}

impl Whole<'_> {
    /// Checks what steps ask of each other; the promotions by the step's place.
    pub(super) fn check(&self, f: &mut Findings) -> BTreeMap<usize, Promotion> {
        for (index, draft) in self.drafts.iter().enumerate() {
            self.check_asks(index, draft, f);
            self.check_select(index, draft, f);
        }
        self.promotions(f)
    }

    /// The steps of a verb that are before (or after) one.
    fn any(&self, verb: &str, fits: impl Fn(usize) -> bool) -> bool {
        (0..self.drafts.len()).any(|other| self.drafts[other].verb == Some(verb) && fits(other))
    }

    fn check_asks(&self, index: usize, draft: &StepDraft, f: &mut Findings) {
        let asks = &draft.asks;
        if let Some(spot) = asks.model
            && !self.has_model
        {
            f.add_with_hint(
                "missing-key",
                spot,
                format!("step `{}` needs a model to compare with or to promote", draft.name),
                "name the registered model at the top: `model: churn`",
            );
        }
        if let Some(spot) = asks.metrics
            && draft.needs.is_empty()
            && draft.needs_are_sound
            && !draft.finally
        {
            let hint = "name the step that reports them: `needs: [evaluate]`";
            let message = "the gate checks metrics but waits for no step that has any";
            f.add_with_hint("missing-key", spot, message, hint);
        } else if draft.needs_are_sound {
            self.check_measurements(index, &asks.measurements, f);
        }
        if let Some(spot) = asks.approval
            && !self.any("approval", |other| (self.is_before)(index, other))
        {
            let hint = format!(
                "add one, as in `approve: {{ needs: [{}], approval: {{ from: [ml-leads] }} }}`",
                draft.name
            );
            let message = format!("no approval comes after `{}` to decide what is inconclusive", draft.name);
            f.add_with_hint("missing-approval", spot, message, hint);
        }
    }

    /// What statistical checks ask about is counted by a step before the gate.
    fn check_measurements(&self, gate: usize, asked: &[AskedMeasurement], f: &mut Findings) {
        let Some(first) = asked.first() else { return };
        if !self.any("evaluate", |other| (self.is_before)(other, gate)) {
            let hint =
                "add a step with `evaluate` over the predictions of both models, and name it in `needs`";
            let message =
                "a statistical check needs paired predictions, but the gate waits for no `evaluate` step";
            f.add_with_hint("missing-evidence", first.spot, message, hint);
            return;
        }
        let before = (0..self.drafts.len()).filter(|&other| (self.is_before)(other, gate));
        let before: Vec<&StepDraft> =
            before.map(|other| &self.drafts[other]).filter(|draft| draft.verb == Some("evaluate")).collect();
        // One that could not be read may count anything.
        let Some(counted) = before.iter().map(|draft| examples_of(draft)).collect::<Option<Vec<_>>>() else {
            return;
        };
        let names = before.iter().map(|draft| format!("`{}`", draft.name)).collect::<Vec<_>>().join(" and ");
        for AskedMeasurement { spot, metric, by } in asked {
            let mut counting = counted.iter().filter(|examples| examples.can_count(metric)).peekable();
            if counting.peek().is_none() {
                let known: Vec<String> = counted
                    .iter()
                    .flat_map(|examples| &examples.metrics)
                    .map(EvaluatedMetric::name)
                    .collect();
                let hint = did_you_mean(metric, known.iter().map(String::as_str)).unwrap_or_else(|| {
                    format!("add it to `metrics` of {names}, which has {}", known.join(", "))
                });
                let message = format!("`{metric}` is checked on examples, but {names} cannot count it");
                f.add_with_hint("missing-evidence", *spot, message, hint);
            } else if let Some(by) = by
                && !counting.any(|examples| examples.by.contains(by))
            {
                let message = format!("`{metric}` is checked by `{by}`, but {names} makes no such slices");
                f.add_with_hint("missing-evidence", *spot, message, format!("add it there: `by: [{by}]`"));
            }
        }
    }

    fn check_select(&self, index: usize, draft: &StepDraft, f: &mut Findings) {
        let (Some(from), Some(spot)) = (draft.select_from, draft.select_spot) else { return };
        let source = &self.drafts[from];
        // A step that could not be read may have a matrix all the same.
        if matches!(source.axes, Axes::Without) && source.verb.is_some() {
            let message = format!("step `{}` has no matrix to select from", source.name);
            let hint = format!("read it as it is: steps.{}.artifacts.NAME", source.name);
            f.add_with_hint("value", spot, message, hint);
        } else if !(self.is_before)(from, index) {
            let message =
                format!("step `{}` selects from `{}` but does not wait for it", draft.name, source.name);
            let hint = format!("add it to the needs of `{}`: `needs: [{}]`", draft.name, source.name);
            f.add_with_hint("not-ancestor", spot, message, hint);
        }
    }

    fn promotions(&self, f: &mut Findings) -> BTreeMap<usize, Promotion> {
        let mut promotions = BTreeMap::new();
        let mut promoting: Option<&str> = None;
        for (index, draft) in self.drafts.iter().enumerate() {
            if draft.verb != Some("promote") {
                continue;
            }
            if draft.finally {
                let hint = "move it to `steps`, behind the gate";
                let message =
                    format!("step `{}` promotes in `finally`, which runs whatever the gate said", draft.name);
                f.add_with_hint("misplaced-verb", draft.position, message, hint);
                continue;
            }
            if let Some(other) = promoting.replace(&draft.name) {
                f.add_with_hint(
                    "second-promotion",
                    draft.position,
                    format!("step `{}` promotes as well, as `{other}` does: a workflow has one promotion", draft.name),
                    "promote to the other alias in a workflow of its own, started by the event refit.model.promoted",
                );
            }
            if let Some(promotion) = self.promotion(index, draft, f) {
                promotions.insert(index, promotion);
            }
        }
        promotions
    }

    fn promotion(&self, index: usize, draft: &StepDraft, f: &mut Findings) -> Option<Promotion> {
        let Some(Body::Promote { candidate: (candidate, artifact), .. }) = &draft.body else { return None };
        let candidate = self.drafts.iter().position(|other| other.name == *candidate)?;
        // A gate that does not come after the candidate has judged something else.
        let gates: Vec<usize> = (0..self.drafts.len())
            .filter(|&other| self.drafts[other].verb == Some("gate"))
            .filter(|&gate| (self.is_before)(candidate, gate) && (self.is_before)(gate, index))
            .collect();
        if gates.is_empty() && draft.needs_are_sound {
            f.add_with_hint(
                "ungated-promotion",
                draft.position,
                format!(
                    "step `{}` promotes what `{}` made without a gate between them",
                    draft.name, self.drafts[candidate].name
                ),
                "add a gate step that needs the candidate's step, or one after it, and name it in `needs`",
            );
        }
        Some(((candidate, artifact.clone()), gates))
    }
}

fn examples_of(draft: &StepDraft) -> Option<&Examples> {
    match draft.body.as_ref()? {
        Body::Whole(Verb::Work(work)) => match &work.task {
            Task::Evaluate(task) => Some(&task.examples),
            Task::Run(_) | Task::Call(_) | Task::Validate(_) => None,
        },
        Body::Whole(_) | Body::Promote { .. } | Body::Select { .. } => None,
    }
}

/// The steps; none when one of them has a problem.
pub(super) fn finish(
    drafts: Vec<StepDraft>,
    mut promotions: BTreeMap<usize, Promotion>,
) -> Option<Vec<Step>> {
    let finish = |(index, draft): (usize, StepDraft)| {
        let verb = match draft.body? {
            Body::Whole(verb) => verb,
            Body::Promote { artifact, alias, watch, .. } => {
                let (candidate, gates) = promotions.remove(&index)?;
                Verb::Promote(Promote { artifact, candidate, alias, gates, watch })
            }
            Body::Select { by, order } => Verb::Select(Select { from: draft.select_from?, by, order }),
        };
        Some(Step {
            name: draft.name,
            needs: draft.needs,
            finally: draft.finally,
            condition: draft.condition,
            matrix: draft.matrix,
            verb,
            with: draft.with,
        })
    };
    drafts.into_iter().enumerate().map(finish).collect()
}

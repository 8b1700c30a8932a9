//! Gates and promotions: a candidate is judged on the metrics before its gate, and promoted only on gates that saw the
//! champion it would replace.
//!
//! Must never happen here: a promotion on anything but a passed gate, or against a person's no.

use super::*;
use crate::definition::Promote;
use crate::evaluation::Evaluation;
use crate::gate::{Decision, Evidence, Found, Gate, OnInconclusive, Verdict};

impl Run {
    pub(super) fn start_gate(
        &mut self,
        step: usize,
        gate: &Gate,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let metrics = self.metrics_before(step);
        let evaluations = self.evaluations_before(step);
        let references: Vec<Vec<String>> = gate
            .checks
            .iter()
            .filter_map(|check| match check {
                crate::gate::Check::Condition { expr, .. } => Some(expr.references()),
                crate::gate::Check::Bounds { .. }
                | crate::gate::Check::Change { .. }
                | crate::gate::Check::Statistical(_) => None,
            })
            .flatten()
            .collect();
        let scope = self.scope(&references, Some(step));
        let decision = gate.decide(Evidence {
            metrics: &metrics,
            evaluations: &evaluations,
            champion: self.head.champion.as_ref(),
            scope: &scope,
        });
        let holdouts: BTreeSet<Digest> =
            evaluations.iter().filter_map(|(_, evaluation)| evaluation.holdout.clone()).collect();
        if !holdouts.is_empty() {
            effects.push(Effect::Judged { step, holdouts: holdouts.into_iter().collect() });
        }
        let reason = decision.reason.clone();
        let how = match (decision.verdict, gate.inconclusive) {
            (Verdict::Pass, _) => Settled::done(reason),
            // Not a pass: a promotion behind it asks for the approval.
            (Verdict::Inconclusive, OnInconclusive::Approval) => Settled::done(reason),
            (Verdict::Fail, _) | (Verdict::Inconclusive, OnInconclusive::Fail) => Settled::refused(reason),
            (Verdict::Error, _) => Settled::Failed { reason },
        };
        self.step_mut(step).decision = Some(decision);
        self.conclude(step, at, how)
    }

    /// What `evaluate` steps before a step found, by their names: its direct needs alone when one of them did, else all.
    fn evaluations_before(&self, step: usize) -> Vec<(&str, &Evaluation)> {
        let of = |steps: &[usize]| -> Vec<(&str, &Evaluation)> {
            let found = |&step: &usize| {
                Some((self.step_name(step), self.steps[step].state.results()?.evaluation.as_deref()?))
            };
            steps.iter().filter_map(found).collect()
        };
        let direct = of(&self.workflow.steps[step].needs);
        if direct.is_empty() { of(&self.workflow.ancestors(step)) } else { direct }
    }

    /// The metrics reported before a step. What its direct needs report goes before what earlier steps do; a name
    /// that is still reported with different values is ambiguous.
    pub(super) fn metrics_before(&self, step: usize) -> BTreeMap<String, Found> {
        let direct = &self.workflow.steps[step].needs;
        let earlier: Vec<usize> =
            self.workflow.ancestors(step).into_iter().filter(|ancestor| !direct.contains(ancestor)).collect();
        let mut found = self.metrics_of(&earlier);
        found.extend(self.metrics_of(direct));
        found
    }

    fn metrics_of(&self, steps: &[usize]) -> BTreeMap<String, Found> {
        let mut reports: BTreeMap<&str, Vec<(usize, f64)>> = BTreeMap::new();
        for &step in steps {
            if let Some(results) = self.steps[step].state.results() {
                for (name, value) in &results.metrics {
                    reports.entry(name).or_default().push((step, *value));
                }
            }
        }
        reports
            .into_iter()
            .map(|(name, reports)| {
                let first = reports[0].1;
                let found = if reports.iter().all(|(_, value)| *value == first) {
                    Found::One(first)
                } else {
                    Found::Ambiguous(
                        reports.iter().map(|&(step, _)| self.step_name(step).to_owned()).collect(),
                    )
                };
                (name.to_owned(), found)
            })
            .collect()
    }

    pub(super) fn start_promotion(
        &mut self,
        step: usize,
        promote: &Promote,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match self.promotion(step, promote) {
            Ok(promotion) => {
                effects.push(Effect::Promote(Box::new(promotion)));
                self.set_state(step, StepState::Promoting)
            }
            Err(reason) => self.conclude(step, at, Settled::Failed { reason }),
        }
    }

    /// What to ask the registry for: only ever on passed gates, only for the candidate they judged.
    fn promotion(&self, step: usize, promote: &Promote) -> Result<Promotion, String> {
        let model = self.workflow.model.clone().ok_or("the workflow names no model to promote to")?;
        let mut gates = BTreeMap::new();
        let mut metrics = BTreeMap::new();
        let expected = self.head.champion.as_ref().map(|champion| champion.version);
        for &gate in &promote.gates {
            let state = &self.steps[gate].state;
            match (state.settled(), &self.steps[gate].decision) {
                (Some(Settled::Succeeded { .. }), Some(decision)) if decision.champion == expected => {
                    self.must_allow(gate, decision, step)?;
                    gates.insert(self.step_name(gate).to_owned(), decision.clone());
                    for (name, found) in self.metrics_before(gate) {
                        if let Found::One(value) = found {
                            metrics.insert(name, value);
                        }
                    }
                }
                (Some(Settled::Skipped { not_needed: true, .. }), _) => {}
                (_, _) => {
                    return Err(format!(
                        "the gate {} did not pass: it is {}",
                        self.step_name(gate),
                        state.name()
                    ));
                }
            }
        }
        if gates.is_empty() {
            return Err("no gate passed: every gate before it was skipped".to_owned());
        }
        let (source, artifact) = &promote.candidate;
        let candidate = self.steps[*source]
            .state
            .results()
            .and_then(|results| results.artifacts.get(artifact))
            .cloned()
            .ok_or_else(|| format!("{} handed on no artifact {artifact}", self.step_name(*source)))?;
        let (approvals, covers) = self.approvals_before(step)?;
        Ok(Promotion {
            step,
            model,
            alias: promote.alias.clone(),
            expected,
            artifact: artifact.clone(),
            candidate,
            metrics,
            gates,
            approvals,
            covers,
        })
    }

    /// A gate passed, or what it left open was decided by people between it and the promotion.
    fn must_allow(&self, gate: usize, decision: &Decision, promotion: usize) -> Result<(), String> {
        let name = self.step_name(gate);
        match decision.verdict {
            Verdict::Pass => return Ok(()),
            Verdict::Inconclusive => {}
            Verdict::Fail | Verdict::Error => {
                return Err(format!(
                    "the gate {name} did not pass: its verdict is {}",
                    decision.verdict.as_str()
                ));
            }
        }
        let after_gate = self.descendants(gate);
        let approved = self.workflow.ancestors(promotion).into_iter().any(|step| {
            after_gate[step]
                && matches!(self.workflow.steps[step].verb, Verb::Approval(_))
                && matches!(self.steps[step].state.settled(), Some(Settled::Succeeded { .. }))
        });
        if approved {
            Ok(())
        } else {
            Err(format!("the gate {name} is inconclusive, and nobody has approved it"))
        }
    }

    /// Sends what compared the candidate with the champion back to the start: every step after the one that made the
    /// candidate and before (or at) its promotion, gates and approvals among them. The candidate itself stays, and so
    /// does a promotion that was made: the champion that "moved" is this run's own then.
    pub(super) fn reopen_evaluation(&mut self) {
        let workflow = Arc::clone(&self.workflow);
        for (index, step) in workflow.steps.iter().enumerate() {
            let Verb::Promote(promote) = &step.verb else { continue };
            if self.steps[index].state.results().is_some() {
                continue;
            }
            let after_candidate = self.descendants(promote.candidate.0);
            let mut between = workflow.ancestors(index);
            between.push(index);
            let between: Vec<usize> = between.into_iter().filter(|&step| after_candidate[step]).collect();
            self.reopen(&between);
        }
    }

    fn reopen(&mut self, steps: &[usize]) {
        let dependents = Arc::clone(&self.dependents);
        for &step in steps {
            self.reset(step);
            // What was about to read the old results waits for the new ones.
            for &dependent in &dependents[step] {
                if matches!(self.steps[dependent].state, StepState::Ready | StepState::Pausing { .. }) {
                    self.reset(dependent);
                }
                self.hold_instances(dependent);
            }
        }
        // A run that is not through yet is not at its `finally`, whatever an earlier round has seen.
        let first = self.first_finally();
        if steps.iter().any(|&step| step < first) {
            for step in first..self.workflow.steps.len() {
                self.reset(step);
            }
        }
    }

    fn descendants(&self, step: usize) -> Vec<bool> {
        let mut marked = vec![false; self.workflow.steps.len()];
        let mut open = vec![step];
        while let Some(step) = open.pop() {
            for &dependent in &self.dependents[step] {
                if !std::mem::replace(&mut marked[dependent], true) {
                    open.push(dependent);
                }
            }
        }
        marked
    }
}

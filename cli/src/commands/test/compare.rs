//! Compares what came of a case with what was expected: every difference, with where it was expected and why it came
//! otherwise. Pure.

use refit_workflows::time::show_duration;
use refit_workflows::wire::{RunView, StepView};
use serde::Serialize;
use serde_json::Value;

use super::file::{Expect, ExpectRun, Version};
use super::play::Played;

/// Something that came otherwise than expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Mismatch {
    /// Where it was expected: `runs[0].steps.gate`.
    pub(super) path: String,
    pub(super) expected: String,
    pub(super) got: String,
    /// Why it came so, where that is known.
    pub(super) because: Option<String>,
}

/// Every difference, in the order of the file.
pub(super) fn compare(expect: &Expect, played: &Played) -> Vec<Mismatch> {
    let mut found = Findings::default();
    if let Some(runs) = &expect.runs {
        if runs.len() != played.runs.len() {
            let got: Vec<String> =
                played.runs.iter().map(|run| format!("{} ({})", run.run, run.state)).collect();
            let got = if got.is_empty() { "none".to_owned() } else { got.join(", ") };
            let because = played.runs.is_empty().then(|| decisions_in_words(played)).flatten();
            found.add("runs", format!("{} of them", runs.len()), got, because);
        }
        for (place, (expected, run)) in runs.iter().zip(&played.runs).enumerate() {
            compare_run(&format!("runs[{place}]"), expected, run, &mut found);
        }
    }
    for (id, expected) in &expect.decisions {
        let path = format!("decisions.{id}");
        let Some(event) = played.events.get(id) else {
            found.add(&path, expected.join(", "), "no such event".to_owned(), None);
            continue;
        };
        let got: Vec<&str> = event.decisions.iter().map(|it| it.decision.as_str()).collect();
        if got != *expected {
            let because = event.decisions.iter().find_map(|it| it.reason.clone());
            found.add(&path, expected.join(", "), got.join(", "), because);
        }
    }
    if let Some(expected) = expect.champion
        && expected.0 != played.champion
    {
        found.add("champion", expected.to_string(), Version(played.champion).to_string(), None);
    }
    if let Some(expected) = &expect.emitted
        && *expected != played.emitted
    {
        found.add("emitted", list(expected), list(&played.emitted), None);
    }
    found.0
}

#[derive(Default)]
struct Findings(Vec<Mismatch>);

impl Findings {
    fn add(&mut self, path: &str, expected: String, got: String, because: Option<String>) {
        self.0.push(Mismatch { path: path.to_owned(), expected, got, because });
    }

    fn same(&mut self, path: &str, expected: &str, got: &str, because: Option<&str>) {
        if expected != got {
            self.add(path, expected.to_owned(), got.to_owned(), because.map(str::to_owned));
        }
    }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

/// What became of the events, when none of them started anything.
fn decisions_in_words(played: &Played) -> Option<String> {
    played.events.iter().find_map(|(id, event)| {
        let decision = event.decisions.last()?;
        let reason = decision.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        Some(format!("{id} was {}{reason}", decision.decision))
    })
}

fn compare_run(path: &str, expected: &ExpectRun, run: &RunView, found: &mut Findings) {
    let reason = run.reason.as_deref();
    if let Some(name) = &expected.run {
        found.same(&format!("{path}.run"), &name.to_string(), &run.run.to_string(), None);
    }
    if let Some(state) = &expected.state {
        found.same(&format!("{path}.state"), state, &run.state, reason);
    }
    if let Some(part) = &expected.reason
        && !reason.is_some_and(|reason| reason.contains(part.as_str()))
    {
        let got = reason.unwrap_or("none").to_owned();
        found.add(&format!("{path}.reason"), format!("text with \"{part}\""), got, None);
    }
    if let Some(events) = expected.events {
        found.same(&format!("{path}.events"), &events.to_string(), &run.event_count.to_string(), None);
    }
    for (name, value) in &expected.params {
        let got = run.params.get(name).unwrap_or(&Value::Null);
        found.same(&format!("{path}.params.{name}"), &value.to_string(), &got.to_string(), None);
    }
    let steps = run.steps.as_deref().unwrap_or_default();
    for (name, state) in &expected.steps {
        with_step(path, "steps", name, steps, found, |path, step, found| {
            found.same(path, state, &step.state, step.reason.as_deref());
        });
    }
    compare_order(path, &expected.order, steps, found);
    for (name, attempts) in &expected.attempts {
        with_step(path, "attempts", name, steps, found, |path, step, found| {
            found.same(path, &attempts.to_string(), &step.attempt.to_string(), step.reason.as_deref());
        });
    }
    for (name, verdict) in &expected.verdicts {
        with_step(path, "verdicts", name, steps, found, |path, step, found| {
            let got = step.verdict.map_or("none", |verdict| verdict.as_str());
            found.same(path, verdict.as_str(), got, step.reason.as_deref());
        });
    }
    if let Some(version) = expected.promoted {
        let got = Version(run.promoted.as_ref().map(|promoted| promoted.version));
        found.same(&format!("{path}.promoted"), &version.to_string(), &got.to_string(), reason);
    }
    if let Some(took) = expected.took {
        let got = run.started_at.zip(run.finished_at).map(|(from, to)| to.since(from));
        if got != Some(took.0) {
            let got = got.map_or("not over yet".to_owned(), show_duration);
            found.add(&format!("{path}.took"), show_duration(took.0), got, None);
        }
    }
}

fn with_step(
    path: &str,
    what: &str,
    name: &str,
    steps: &[StepView],
    found: &mut Findings,
    compare: impl FnOnce(&str, &StepView, &mut Findings),
) {
    let path = format!("{path}.{what}.{name}");
    match steps.iter().find(|step| step.step == name) {
        Some(step) => compare(&path, step, found),
        None => {
            let known: Vec<&str> = steps.iter().map(|step| step.step.as_str()).collect();
            let because = Some(format!("its steps are {}", known.join(", ")));
            found.add(&path, "a step".to_owned(), "none of that name".to_owned(), because);
        }
    }
}

/// The steps named must have begun, one not before the other.
fn compare_order(path: &str, expected: &[String], steps: &[StepView], found: &mut Findings) {
    let began = |name: &String| {
        let step = steps.iter().find(|step| step.step == *name)?;
        // Skipped steps never began; those the orchestrator decides have no start but an end.
        let at = step.started_at.or(step.ready_at)?;
        Some((at, step.finished_at))
    };
    let got: Vec<&String> = {
        let mut got: Vec<(&String, _)> =
            expected.iter().filter_map(|name| began(name).map(|began| (name, began))).collect();
        // Stable: what began at the same moment stays as expected.
        got.sort_by_key(|(_, began)| *began);
        got.into_iter().map(|(name, _)| name).collect()
    };
    if got.iter().copied().ne(expected) {
        let got: Vec<String> = got.into_iter().cloned().collect();
        found.add(&format!("{path}.order"), expected.join(", "), list(&got), None);
    }
}

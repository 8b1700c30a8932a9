//! How runs look: the listing, and one run with its steps, its gate's decision and its events. Pure text from the
//! API's view and `now`; states it does not know are shown as they are.

use std::fmt::Write as _;
use std::time::Duration;

use refit_workflows::gate::{CheckResult, Decision, Verdict};
use refit_workflows::statistics::Difference;
use refit_workflows::time::{Timestamp, show_duration};
use refit_workflows::wire::{ArrivalView, HoldoutUse, RunView, StepView};

use super::table::{self, Grid};
use super::time::{exact, relative, took};
use super::{
    BAD, BOLD, DIM, Facts, GOOD, WARN, bytes, clean, count, metrics, mirror, number, paint, short, state,
    value,
};

/// How many of a run's first events are named, and how many of the last.
const EVENTS_SHOWN: (usize, usize) = (3, 2);
/// How many lines say how a run's events came before the rest is only counted.
const ARRIVALS_SHOWN: usize = 10;

/// What took less to be set up is not told apart.
const SET_UP_SHOWN: Duration = Duration::from_secs(1);

/// Runs in a table.
pub(crate) fn list(runs: &[RunView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["RUN", "STATE", "KEY", "EVENTS", "STARTED BY", "CREATED", "TOOK", "RESULT"]);
    for run in runs {
        grid.row(vec![
            table::text(run.run.to_string()),
            table::state(&run.state),
            table::maybe(run.key.as_deref()),
            table::number(run.event_count),
            table::text(&run.trigger),
            table::text(relative(run.created_at, now)),
            table::maybe(took(run.started_at, run.finished_at, now)),
            table::maybe(result(run)),
        ]);
    }
    grid.to_string()
}

/// What a run led to, or why not, in one line.
pub(super) fn result(run: &RunView) -> Option<String> {
    match &run.promoted {
        Some(promoted) => Some(format!("{} v{} is {}", promoted.model, promoted.version, promoted.alias)),
        None => run.reason.clone(),
    }
}

/// One run, whole.
pub(crate) fn show(run: &RunView, now: Timestamp) -> String {
    let mut text = format!("{}  {}\n", paint(BOLD, &run.run), state(&run.state));
    if let Some(reason) = &run.reason {
        let _ = writeln!(text, "  {}", clean(reason));
    }
    text.push('\n');
    let _ = write!(text, "{}", facts(run, now));
    let arrivals = run.arrivals.as_deref().unwrap_or_default();
    // One event that started the run is told by the facts already.
    if arrivals.len() > 1 || arrivals.iter().any(|arrival| arrival.count > 1) {
        let _ = write!(text, "\n{}", super::indent(&arrival_table(arrivals, now), 2));
    }
    let steps = run.steps.as_deref().unwrap_or_default();
    if !steps.is_empty() {
        let _ = write!(text, "\n{}", super::indent(&step_table(steps, now), 2));
    }
    for step in steps {
        if let Some(decision) = &step.decision {
            let _ = write!(text, "\n{}", gate(&step.step, decision));
            step.holdouts.iter().filter(|used| used.uses > 1).for_each(|used| {
                let _ = writeln!(text, "  {}", paint(WARN, reuse(used)));
            });
        }
    }
    text
}

fn facts(run: &RunView, now: Timestamp) -> Facts {
    let mut facts = Facts::default();
    facts.line("started by", clean(&run.trigger));
    facts.some("key", run.key.as_deref().map(clean));
    if !run.params.is_empty() {
        let params: Vec<String> =
            run.params.iter().map(|(name, set)| format!("{}={}", clean(name), value(set))).collect();
        facts.line("params", params.join("  "));
    }
    facts.line("created", exact(run.created_at, now));
    facts.some("took", took(run.started_at, run.finished_at, now));
    facts.line("definition", short(&run.definition));
    facts.line("events", events(run));
    if !run.coalesced.is_empty() {
        let names: Vec<String> = run.coalesced.iter().map(ToString::to_string).collect();
        facts.line("stands for", format!("{} as well, which it replaced", names.join(", ")));
    }
    if let Some(promoted) = &run.promoted {
        let moved = format!(
            "{} version {} is now {}",
            clean(&promoted.model),
            promoted.version,
            clean(&promoted.alias)
        );
        facts.line("promoted", paint(GOOD, moved));
        facts.some("mirror", run.mirror.as_ref().map(|mirror| mirror::words(mirror, now)));
    }
    facts
}

fn events(run: &RunView) -> String {
    let ids = run.events.as_deref().unwrap_or_default();
    let gone = match run.events_gone {
        0 => String::new(),
        gone => format!(" ({gone} no longer kept)"),
    };
    if ids.is_empty() {
        return format!("{}{gone}", run.event_count);
    }
    let named = |ids: &[String]| ids.iter().map(|id| clean(id)).collect::<Vec<_>>().join(", ");
    let (first, last) = EVENTS_SHOWN;
    if ids.len() <= first + last {
        return format!("{}: {}{gone}", run.event_count, named(ids));
    }
    let (head, tail) = (named(&ids[..first]), named(&ids[ids.len() - last..]));
    format!("{}: {head} … {tail}{gone} (refit event list --run {} lists them)", run.event_count, run.run)
}

/// How a run's events came, in a table.
fn arrival_table(arrivals: &[ArrivalView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["EVENTS", "CAME", "FIRST", "LAST", "WHEN", "WHY"]);
    for arrival in arrivals.iter().take(ARRIVALS_SHOWN) {
        grid.row(vec![
            table::number(arrival.count),
            table::text(came(arrival)),
            table::text(&arrival.first),
            table::maybe((arrival.count > 1).then_some(&arrival.last)),
            table::text(relative(arrival.from, now)),
            table::maybe(arrival.reason.as_deref()),
        ]);
    }
    let mut text = grid.to_string();
    if arrivals.len() > ARRIVALS_SHOWN {
        let _ = writeln!(text, "and {} more lines; -o json has them", arrivals.len() - ARRIVALS_SHOWN);
    }
    text
}

/// `batch 7, coalesced`, `one by one`.
fn came(arrival: &ArrivalView) -> String {
    let is = |word: &str| arrival.decisions.iter().any(|decision| decision == word);
    let mut words = match arrival.batch {
        Some(number) if is("joined") => format!("join {number}"),
        Some(number) => format!("batch {number}"),
        None if arrival.inherited => return "with a run it replaced".to_owned(),
        None if arrival.count == 1 => "by itself".to_owned(),
        None => "one by one".to_owned(),
    };
    for word in ["coalesced", "queued"] {
        if is(word) {
            let _ = write!(words, ", {word}");
        }
    }
    words
}

/// A run's steps in a table.
fn step_table(steps: &[StepView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["STEP", "VERB", "STATE", "ATTEMPT", "TOOK", "WORKER", "WHAT CAME OF IT"]);
    for step in steps {
        grid.row(vec![
            table::text(&step.step),
            table::text(&step.verb),
            table::state(&step.state),
            table::maybe(attempt(step)),
            table::maybe(step_took(step, now)),
            table::maybe(step.worker.as_deref()),
            table::text(outcome(step)),
        ]);
    }
    grid.to_string()
}

/// How long a step takes; what it took to be set up is told apart where it matters: `set up 41.0s, ran 12m 3s`.
pub(crate) fn step_took(step: &StepView, now: Timestamp) -> Option<String> {
    let took_from = |from: Option<Timestamp>| took(from, step.finished_at, now);
    let set_up = step.set_up_ms.map(Duration::from_millis).filter(|set_up| *set_up >= SET_UP_SHOWN);
    match (step.started_at, set_up) {
        (Some(started), Some(set_up)) => {
            let ran = took_from(Some(started.plus(set_up)))?;
            Some(format!("set up {}, ran {ran}", show_duration(set_up)))
        }
        (started, _) => took_from(started.or(step.ready_at)),
    }
}

/// `2/3`, for steps that are tried.
pub(crate) fn attempt(step: &StepView) -> Option<String> {
    (step.attempt > 0 && step.attempts_max > 0).then(|| format!("{}/{}", step.attempt, step.attempts_max))
}

/// What a step came to in one line: its reason, else its metrics, else its outputs; and what it saved, while that may be
/// needed.
pub(crate) fn outcome(step: &StepView) -> String {
    let came = came_to(step);
    if let Some(covers) = step.covers.as_ref().filter(|_| step.state == "waiting") {
        return format!("{came}  (covers {covers})");
    }
    match &step.checkpoint {
        Some(checkpoint) if step.state != "succeeded" => {
            let saved = format!("checkpoint of {}", bytes(checkpoint.artifact.bytes));
            if came.is_empty() { saved } else { format!("{came}  ({saved})") }
        }
        Some(_) | None => came,
    }
}

fn came_to(step: &StepView) -> String {
    if let Some(decision) = &step.decision {
        return format!("{}: {}", decision.verdict.as_str(), decision.reason);
    }
    if let Some(reason) = &step.reason {
        return reason.clone();
    }
    let came = if step.metrics.is_empty() { outputs(step) } else { metrics(&step.metrics) };
    match &step.cached_from {
        Some(from) => format!("cached from {from}  {came}").trim_end().to_owned(),
        None => came,
    }
}

fn outputs(step: &StepView) -> String {
    let outputs: Vec<String> =
        step.outputs.iter().map(|(name, set)| format!("{name}={}", value(set))).collect();
    outputs.join("  ")
}

/// That examples have been used before.
pub(crate) fn reuse(used: &HoldoutUse) -> String {
    format!(
        "the examples {} have decided {} times about this model: the more often, the likelier luck passes",
        short(&used.digest),
        used.uses
    )
}

/// A gate's decision, check by check, with its numbers.
pub(crate) fn gate(step: &str, decision: &Decision) -> String {
    let against = match decision.champion {
        Some(version) => format!("against champion version {version}"),
        None => "there is no champion yet".to_owned(),
    };
    let mut text = format!(
        "  {} {}  {}  {}\n",
        paint(BOLD, "gate"),
        paint(BOLD, clean(step)),
        verdict(Some(decision.verdict)),
        paint(DIM, format_args!("({against})"))
    );
    let _ = writeln!(text, "  {}", clean(&decision.reason));
    let compares = decision.checks.iter().any(|check| check.tested.is_some());
    let mut heads = vec!["CHECK", "VERDICT", "CANDIDATE", "CHAMPION", "REQUIRED"];
    if compares {
        heads.extend(["DIFFERENCE", "BETWEEN", "EXAMPLES", "NEEDED"]);
    }
    heads.push("BECAUSE");
    let mut grid = Grid::new(&heads);
    for check in &decision.checks {
        grid.row(check_row(check, compares));
    }
    if !grid.is_empty() {
        text.push_str(&super::indent(&grid.to_string(), 4));
    }
    text
}

fn check_row(check: &CheckResult, compares: bool) -> Vec<comfy_table::Cell> {
    let figure = |value: Option<f64>| table::maybe(value.map(number));
    let (word, style) = verdict_look(check.verdict);
    let mut row = vec![
        table::text(&check.check),
        table::styled(word, style),
        figure(check.candidate),
        figure(check.champion),
        figure(check.required),
    ];
    if compares {
        let difference = check.tested.as_ref().and_then(|tested| tested.difference.as_ref());
        // Both one-sided bounds together.
        let between = |it: &Difference| format!("{} … {}", number(it.low), number(it.high));
        row.extend([
            figure(difference.map(|difference| difference.estimate)),
            table::maybe(difference.map(between)),
            table::maybe(check.tested.as_ref().map(|tested| tested.examples.to_string())),
            table::maybe(difference.and_then(|it| it.needed).map(|needed| needed.to_string())),
        ]);
    }
    row.push(table::text(&check.reason));
    row
}

fn verdict_look(verdict: Option<Verdict>) -> (&'static str, anstyle::Style) {
    match verdict {
        Some(Verdict::Pass) => ("✓ pass", GOOD),
        Some(Verdict::Fail) => ("✗ fail", BAD),
        Some(Verdict::Inconclusive) => ("? inconclusive", WARN),
        Some(Verdict::Error) => ("! error", BAD),
        None => ("– not applied", DIM),
    }
}

fn verdict(verdict: Option<Verdict>) -> String {
    let (word, style) = verdict_look(verdict);
    paint(style, word)
}

/// A run in one line, for what was just done to it.
pub(crate) fn line(run: &RunView) -> String {
    let reason = run.reason.as_deref().map(|reason| format!("  {}", clean(reason))).unwrap_or_default();
    format!("{}  {}  {}{reason}", paint(BOLD, &run.run), state(&run.state), count(run.event_count, "event"))
}

/// Whether a run can change no more by itself.
pub(crate) fn is_over(run: &RunView) -> bool {
    run.finished_at.is_some()
        || matches!(run.state.as_str(), "succeeded" | "rejected" | "failed" | "cancelled" | "coalesced")
}

/// A run for the tests of everything that shows one.
#[cfg(test)]
pub(crate) fn example() -> RunView {
    let json = r#"{
        "run": "churn/12", "workflow": "churn", "definition": "sha256:DIGEST",
        "state": "rejected", "reason": "gate `gate`: accuracy fell", "key": "eu", "params": {"region": "eu"},
        "trigger": "event dataset.updated", "created_at": "2027-01-15T08:00:00Z",
        "started_at": "2027-01-15T08:00:01Z", "finished_at": "2027-01-15T08:00:31Z", "event_count": 7,
        "events": ["e1", "e2", "e3", "e4", "e5", "e6", "e7"], "coalesced": ["churn/11"], "promoted": null, "version": 9,
        "arrivals": [
            {"decisions": ["batched", "started"], "trigger": 0, "batch": 7, "reason": null, "count": 5, "first": "e1",
             "last": "e5", "from": "2027-01-15T08:00:00Z", "to": "2027-01-15T08:00:00Z"},
            {"decisions": ["coalesced"], "trigger": null, "batch": null, "count": 2, "first": "e6", "last": "e7",
             "inherited": true,
             "reason": "churn/11 was waiting and its events went into churn/12",
             "from": "2027-01-15T08:01:00Z", "to": "2027-01-15T08:01:00Z"}],
        "steps": [
            {"step": "train", "verb": "run", "needs": [], "state": "succeeded", "attempt": 1, "attempts_max": 2,
             "worker": "host-a", "ready_at": "2027-01-15T08:00:01Z", "started_at": "2027-01-15T08:00:01Z",
             "finished_at": "2027-01-15T08:00:21Z", "outputs": {}, "metrics": {"accuracy": 0.8125}, "artifacts": {},
             "reason": null, "verdict": null, "cached_from": null},
            {"step": "gate", "verb": "gate", "needs": ["train"], "state": "rejected", "attempt": 0, "attempts_max": 0,
             "worker": null, "ready_at": null, "started_at": null, "finished_at": "2027-01-15T08:00:21Z", "outputs": {},
             "metrics": {}, "artifacts": {}, "reason": "accuracy fell", "verdict": "fail", "cached_from": null,
             "decision": {"verdict": "fail", "reason": "accuracy fell", "champion": 3, "checks": [
                {"check": "accuracy ≥ 0.75", "verdict": "pass", "candidate": 0.8125, "required": 0.75,
                 "reason": "0.8125 is at least 0.75"},
                {"check": "accuracy not worse", "verdict": "fail", "candidate": 0.8125, "champion": 0.9, "required": 0.0,
                 "reason": "0.0875 worse"}]}},
            {"step": "promote", "verb": "promote", "needs": ["gate"], "state": "skipped", "attempt": 0, "attempts_max": 0,
             "worker": null, "ready_at": null, "started_at": null, "finished_at": null, "outputs": {}, "metrics": {},
             "artifacts": {}, "reason": "`gate` was rejected", "verdict": null, "cached_from": null}
        ]
    }"#;
    serde_json::from_str(&json.replace("DIGEST", &"a".repeat(64))).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    fn now() -> Timestamp {
        Timestamp::parse("2027-01-15T08:03:00Z").unwrap()
    }

    #[test]
    fn what_was_saved_is_told_until_it_is_not_needed_any_more() {
        let mut step = example().steps.unwrap().remove(0);
        step.checkpoint = serde_json::from_value(serde_json::json!({
            "artifact": { "digest": format!("sha256:{}", "a".repeat(64)), "bytes": 2048, "kind": "folder" },
            "attempt": 1, "at": "2027-01-15T08:00:11Z",
        }))
        .unwrap();
        assert_eq!(outcome(&step), "accuracy 0.8125");
        "running".clone_into(&mut step.state);
        assert_eq!(outcome(&step), "accuracy 0.8125  (checkpoint of 2.0 KiB)");
    }

    #[test]
    fn what_took_long_to_be_set_up_is_told_apart() {
        let mut step = example().steps.unwrap().remove(0);
        step.set_up_ms = Some(999);
        assert_eq!(step_took(&step, now()).as_deref(), Some("20.0s"));
        step.set_up_ms = Some(12_000);
        assert_eq!(step_took(&step, now()).as_deref(), Some("set up 12.0s, ran 8.0s"));
        step.finished_at = None;
        assert_eq!(step_took(&step, now()).as_deref(), Some("set up 12.0s, ran 2m 47s"));
    }

    #[test]
    fn a_run_shows_its_gate_check_by_check() {
        let text = plain(&show(&example(), now()));
        let expected = "\
churn/12  ✗ rejected
  gate `gate`: accuracy fell

  started by  event dataset.updated
  key         eu
  params      region=eu
  created     3m ago (2027-01-15T08:00:00.000Z)
  took        30.0s
  definition  sha256:aaaaaaaaaaaa
  events      7: e1, e2, e3 … e6, e7 (refit event list --run churn/12 lists them)
  stands for  churn/11 as well, which it replaced

  EVENTS  CAME                    FIRST  LAST  WHEN    WHY
       5  batch 7                 e1     e5    3m ago  –
       2  with a run it replaced  e6     e7    2m ago  churn/11 was waiting and its events went into churn/12

  STEP     VERB     STATE        ATTEMPT  TOOK   WORKER  WHAT CAME OF IT
  train    run      ✓ succeeded  1/2      20.0s  host-a  accuracy 0.8125
  gate     gate     ✗ rejected   –        –      –       fail: accuracy fell
  promote  promote  – skipped    –        –      –       `gate` was rejected

  gate gate  ✗ fail  (against champion version 3)
  accuracy fell
    CHECK               VERDICT  CANDIDATE  CHAMPION  REQUIRED  BECAUSE
    accuracy ≥ 0.75     ✓ pass   0.8125     –         0.75      0.8125 is at least 0.75
    accuracy not worse  ✗ fail   0.8125     0.9       0         0.0875 worse
";
        assert_eq!(text, expected, "{text}");
    }

    #[test]
    fn a_listing_has_one_line_a_run() {
        let text = plain(&list(&[example()], now()));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        for part in
            ["churn/12", "✗ rejected", "eu", "7", "event dataset.updated", "3m ago", "30.0s", "accuracy fell"]
        {
            assert!(lines[1].contains(part), "{part} is missing in {}", lines[1]);
        }
    }

    #[test]
    fn what_was_compared_is_shown_with_its_bounds() {
        let mut run = example();
        let decision = run.steps.as_mut().unwrap()[1].decision.as_mut().unwrap();
        decision.checks[1].tested = serde_json::from_value(serde_json::json!({
            "role": "success", "alpha": 0.05, "examples": 1200, "difference": {
                "estimate": -0.0875, "low": -0.11, "high": -0.065, "p_better": 1.0, "p_worse": 0.0, "p_margin": 1.0,
                "n": 1200, "test": "tango", "needed": 5400 },
        }))
        .unwrap();
        let text = plain(&gate("gate", decision));
        let row = text.lines().find(|line| line.contains("not worse")).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        let expected =
            ["0.8125", "0.9", "0", "-0.0875", "-0.11", "…", "-0.065", "1200", "5400", "0.0875", "worse"];
        assert_eq!(words[words.len() - expected.len()..], expected, "{text}");
    }

    #[test]
    fn states_and_texts_of_others_do_not_break_it() {
        let mut run = example();
        run.state = "hibernating\u{1b}[2J".to_owned();
        run.finished_at = None;
        let text = show(&run, now());
        assert!(plain(&text).contains("? hibernating\\u{1b}[2J"), "{text}");
        assert!(!is_over(&run));
    }
}

//! The tour's three acts: sends each act's events, follows the run they start, explains what happened with the numbers
//! of the run itself, and compares with what was promised. No result is written here; when the story comes out
//! differently, it says so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use refit_workflows::event::CloudEvent;
use refit_workflows::gate::{CheckResult, Decision, Verdict};
use refit_workflows::names::RunName;
use refit_workflows::time::show_duration;
use refit_workflows::wire::{RunView, StepView};

use super::{Route, WORKFLOW, files};
use crate::args::Format;
use crate::client::Client;
use crate::render::table::{self, Grid};
use crate::render::time::{now, took};
use crate::render::{self, BAD, BOLD, DIM, GOOD, WARN, clean, count, number, paint};
use crate::watch::{self, Surface};

/// The metric the story is about.
const METRIC: &str = "accuracy";
/// How long events may take to become a run.
const START_WAIT: Duration = Duration::from_secs(60);
/// How many lines of a failed step's log are shown.
const LOG_LINES: usize = 20;

/// What the story is told on.
pub(super) struct Stage<'a> {
    pub(super) client: &'a Client,
    pub(super) route: &'a Route,
    pub(super) format: Format,
}

/// One act: what arrives, and what it should come to.
struct Act {
    title: &'static str,
    arrives: &'static str,
    promised: Promise,
}

/// What an act should come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// Promoted without a champion to compare with.
    First,
    /// Promoted over the champion.
    Better,
    /// Rejected by the gate; the champion stays.
    Refused,
}

const ACTS: [Act; 3] = [
    Act {
        title: "the first labels",
        arrives: "A labelling team delivers its first handwritten digits. There is no model yet.",
        promised: Promise::First,
    },
    Act {
        title: "a burst",
        arrives: "More labels arrive, in many small deliveries at almost the same moment.",
        promised: Promise::Better,
    },
    Act {
        title: "bad data",
        arrives: "Another delivery arrives, but a job upstream has shuffled its labels. Nobody has noticed.",
        promised: Promise::Refused,
    },
];

impl Stage<'_> {
    fn people(&self) -> bool {
        self.format == Format::Table
    }

    fn say(&self, text: &str) -> anyhow::Result<()> {
        if self.people() {
            render::print(text)
        } else {
            render::note(text.trim_end());
            Ok(())
        }
    }
}

/// Plays the acts and answers their runs; none when one of them did not come out as promised, which is told then.
pub(super) async fn tell(stage: &Stage<'_>) -> anyhow::Result<Option<Vec<RunView>>> {
    stage.say(&format!(
        "{}\n  Real data, real training, three runs. An orchestrator and a worker are running in this process; events\n  \
         reach them {}. The first run prepares a Python environment, which can take a minute.",
        paint(BOLD, "Refit retrains a model that reads handwritten digits"),
        stage.route.words()
    ))?;
    let mut runs: Vec<RunView> = Vec::new();
    for (index, (act, lines)) in ACTS.iter().zip(files::EVENTS).enumerate() {
        stage.say(&format!(
            "\n{}\n  {}",
            paint(BOLD, format_args!("Act {} of {}: {}", index + 1, ACTS.len(), act.title)),
            act.arrives
        ))?;
        let events = read_events(lines)?;
        let begun = Instant::now();
        stage.route.send(stage.client, &events).await?;
        let sending = begun.elapsed();
        let run = started_by(stage.client, &events[0]).await?;
        let surface = if stage.people() { Surface::Output } else { Surface::Error };
        let ended = watch::follow(stage.client, &run, surface).await.context("failed to follow the run")?;
        if let Err(differs) = keeps(&ended, act.promised, events.len(), champion_of(runs.last())) {
            apologise(stage, &ended, &differs).await?;
            return Ok(None);
        }
        stage.say(&format!("\n{}", explain(&ended, act.promised, sending)))?;
        runs.push(ended);
    }
    champion_stayed(stage, &runs).await?;
    if stage.people() {
        render::print(summary(&runs))?;
    }
    Ok(Some(runs))
}

fn read_events(lines: &str) -> anyhow::Result<Vec<CloudEvent>> {
    let event =
        |line: &str| -> anyhow::Result<CloudEvent> { Ok(CloudEvent::parse(serde_json::from_str(line)?)?) };
    let events: Vec<CloudEvent> = lines
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(event)
        .collect::<Result<_, _>>()
        .context("failed to read the example's events")?;
    if events.is_empty() {
        bail!("failed to read the example's events: there are none");
    }
    Ok(events)
}

/// The run an event started, from the event's own decisions.
async fn started_by(client: &Client, event: &CloudEvent) -> anyhow::Result<RunName> {
    let begun = Instant::now();
    while begun.elapsed() < START_WAIT {
        // An event on its way through a broker is not there at once.
        let known = match client.event(event.id(), Some(event.source())).await {
            Err(wrong) if wrong.exit() == crate::exit::Exit::Refused => Vec::new(),
            known => known.context("failed to ask what became of the event")?,
        };
        let mut decisions = known.iter().flat_map(|event| &event.decisions);
        if let Some(run) = decisions.find_map(|decision| decision.run.clone()) {
            return Ok(run);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the event {} started no run within {}", event.id(), show_duration(START_WAIT))
}

/// The champion after a run, as the run itself says.
fn champion_of(run: Option<&RunView>) -> Option<i64> {
    run.and_then(|run| run.promoted.as_ref()).map(|promoted| promoted.version)
}

/// Whether the run came out as promised; if not, in what it differs.
fn keeps(run: &RunView, promised: Promise, events: usize, champion: Option<i64>) -> Result<(), String> {
    if run.event_count != events as u64 {
        return Err(format!("it should stand for {events} events and stands for {}", run.event_count));
    }
    let Some(decision) = decision(run) else { return Err("its gate made no decision".to_owned()) };
    if decision.champion != champion {
        let name = |version: Option<i64>| {
            version.map_or_else(|| "none".to_owned(), |version| format!("version {version}"))
        };
        let (compared, expected) = (name(decision.champion), name(champion));
        return Err(format!("its gate compared with {compared} and the champion was {expected}"));
    }
    let (state, promotes) = match promised {
        Promise::First | Promise::Better => ("succeeded", true),
        Promise::Refused => ("rejected", false),
    };
    if run.state != state || run.promoted.is_some() != promotes {
        let promoted = if run.promoted.is_some() { "something was promoted" } else { "nothing was promoted" };
        return Err(format!("it should be {state} and is {}; {promoted}", run.state));
    }
    if promised == Promise::Better && !figures(run).improved() {
        return Err("it was promoted although its candidate is no better than the champion".to_owned());
    }
    Ok(())
}

/// Tells that the story went another way, with everything that helps to see why.
async fn apologise(stage: &Stage<'_>, run: &RunView, differs: &str) -> anyhow::Result<()> {
    let mut text =
        format!("\n{} {}: {}\n\n", paint(BAD, "This did not come out as promised."), run.run, clean(differs));
    text.push_str(&render::run::show(run, now()));
    let failed = run.steps.iter().flatten().find(|step| step.state == "failed");
    if let Some(step) = failed {
        let page = stage.client.logs(&run.run, Some(&step.step), 0, Duration::ZERO).await;
        let lines: Vec<String> = page.map_or_else(
            |_| Vec::new(),
            |page| page.lines.iter().flat_map(|piece| piece.text.lines()).map(render::log::bare).collect(),
        );
        text.push_str(&format!("\n  the end of the log of `{}`:\n", clean(&step.step)));
        for line in lines.iter().rev().take(LOG_LINES).rev() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    stage.say(&text)
}

/// After a refusal the alias must stand where the last promotion put it: asked of the registry, not of the runs.
async fn champion_stayed(stage: &Stage<'_>, runs: &[RunView]) -> anyhow::Result<()> {
    let Some(promoted) = runs.iter().rev().find_map(|run| run.promoted.as_ref()) else { return Ok(()) };
    let model = stage.client.model(&promoted.model).await.context("failed to look at the model")?;
    match model.aliases.get(&promoted.alias) {
        Some(version) if *version == promoted.version => Ok(()),
        at => bail!("{} should still be version {} and is {at:?}", promoted.alias, promoted.version),
    }
}

fn decision(run: &RunView) -> Option<&Decision> {
    run.steps.iter().flatten().find_map(|step| step.decision.as_ref())
}

/// The numbers an act is explained with, all of them the run's own.
#[derive(Debug, Default)]
struct Figures {
    /// The candidate's accuracy.
    candidate: Option<f64>,
    /// The champion's, on the same hold-out.
    champion: Option<f64>,
    /// How many rows it was trained on.
    rows: Option<u64>,
}

impl Figures {
    fn improved(&self) -> bool {
        matches!((self.candidate, self.champion), (Some(candidate), Some(champion)) if candidate > champion)
    }
}

fn figures(run: &RunView) -> Figures {
    let steps = || run.steps.iter().flatten();
    let compared = decision(run).and_then(|decision| {
        decision.checks.iter().find(|check| check.check.contains(METRIC) && check.champion.is_some())
    });
    Figures {
        candidate: steps().find_map(|step| step.metrics.get(METRIC).copied()),
        champion: compared.and_then(|check| check.champion),
        rows: steps().find_map(|step| step.outputs.get("rows")).and_then(serde_json::Value::as_u64),
    }
}

/// What happened in an act, and why.
fn explain(run: &RunView, promised: Promise, sending: Duration) -> String {
    let Some(decision) = decision(run) else { return String::new() };
    let figures = figures(run);
    let share = |value: Option<f64>| {
        value.map_or_else(|| "an unknown share".to_owned(), |v| format!("{} %", number(v * 100.0)))
    };
    let candidate = format!("reads {} of the held-out digits right", share(figures.candidate));
    let rows = figures.rows.map_or_else(String::new, |rows| format!(", trained on {rows} digits,"));
    let champion = decision.champion.map_or_else(String::new, |version| format!("version {version}"));
    let passed = absolute(decision).into_iter().filter(|check| check.verdict == Some(Verdict::Pass));
    let passed: Vec<String> = passed.map(|check| check.check.clone()).collect();
    let now_is = run
        .promoted
        .as_ref()
        .map(|promoted| format!("It is version {} and {} now.", promoted.version, clean(&promoted.alias)))
        .unwrap_or_default();
    let sentences = match promised {
        Promise::First => vec![
            format!(
                "{} started {}. The candidate{rows} {candidate}.",
                count(run.event_count, "event"),
                run.run
            ),
            format!(
                "There was no champion to compare with, so the gate judged it by the absolute checks alone ({}).",
                passed.join(", ")
            ),
            now_is,
        ],
        Promise::Better => vec![
            format!(
                "{}, sent within {}, became one run: {} lists them all.",
                count(run.event_count, "event"),
                show_duration(sending),
                run.run
            ),
            format!(
                "The candidate{rows} {candidate}; the champion, {champion}, reads {} of the same digits.",
                share(figures.champion)
            ),
            format!("The gate says {}. {now_is}", decision.verdict.as_str()),
        ],
        Promise::Refused => {
            let bar = if passed.is_empty() {
                String::new()
            } else {
                format!(
                    " It clears every fixed bar ({}), so a threshold alone would have let it through.",
                    passed.join(", ")
                )
            };
            let all_passed = absolute(decision).iter().all(|check| check.verdict == Some(Verdict::Pass));
            let bar = if all_passed { bar } else { String::new() };
            vec![
                format!("The candidate{rows} {candidate}.{bar}"),
                format!(
                    "But the champion, {champion}, reads {}. The gate refused: {}.",
                    share(figures.champion),
                    clean(decision.reason.trim_end_matches('.'))
                ),
                format!("Nothing was promoted; {champion} stays champion."),
            ]
        }
    };
    let told: Vec<String> = sentences.into_iter().filter(|sentence| !sentence.is_empty()).collect();
    render::wrap(&told.join(" "), 2)
}

/// The checks that needed no champion.
fn absolute(decision: &Decision) -> Vec<&CheckResult> {
    decision.checks.iter().filter(|check| check.champion.is_none() && check.verdict.is_some()).collect()
}

/// The three runs in a table, and how long each of their steps took.
fn summary(runs: &[RunView]) -> String {
    let mut grid = Grid::new(&["RUN", "EVENTS", "STATE", "CANDIDATE", "CHAMPION", "PROMOTED", "TOOK"]);
    for run in runs {
        let figures = figures(run);
        let promoted = run.promoted.as_ref().map(|promoted| format!("version {}", promoted.version));
        grid.row(vec![
            table::text(run.run.to_string()),
            table::number(run.event_count),
            table::state(&run.state),
            table::maybe(figures.candidate.map(number)),
            table::maybe(figures.champion.map(number)),
            match promoted {
                Some(promoted) => table::styled(&promoted, GOOD),
                None => table::styled("nothing", WARN),
            },
            table::maybe(took(run.started_at, run.finished_at, now())),
        ]);
    }
    let what = paint(DIM, format_args!("(candidate and champion: {METRIC} on the same hold-out)"));
    format!(
        "\n{}  {what}\n{}\n{}\n{}",
        paint(BOLD, "Three runs"),
        render::indent(&grid.to_string(), 2),
        paint(BOLD, "How long each step took"),
        render::indent(&durations(runs), 2)
    )
}

fn durations(runs: &[RunView]) -> String {
    let names: Vec<String> = runs.iter().map(|run| run.run.to_string()).collect();
    let mut heads = vec!["STEP"];
    heads.extend(names.iter().map(String::as_str));
    let mut grid = Grid::new(&heads);
    let by_name: Vec<BTreeMap<&str, &StepView>> = runs
        .iter()
        .map(|run| run.steps.iter().flatten().map(|step| (step.step.as_str(), step)).collect())
        .collect();
    for step in runs.first().and_then(|run| run.steps.as_deref()).unwrap_or_default() {
        let mut row = vec![table::text(&step.step)];
        for steps in &by_name {
            row.push(table::maybe(steps.get(step.step.as_str()).and_then(|step| duration(step))));
        }
        grid.row(row);
    }
    grid.to_string()
}

/// How long a settled step took; one that was skipped took no time at all, and says so.
fn duration(step: &StepView) -> Option<String> {
    if step.state == "skipped" {
        return Some("skipped".to_owned());
    }
    step.finished_at?;
    took(step.started_at.or(step.ready_at), step.finished_at, now())
}

/// Commands that lead on from the tour, with the names it used.
pub(super) fn next_commands(runs: &[RunView]) -> Vec<(String, &'static str)> {
    let mut commands = Vec::new();
    if let Some(last) = runs.last() {
        commands.push((format!("refit run show {}", last.run), "the gate's reasons, number by number"));
    }
    let burst = runs.iter().max_by_key(|run| run.event_count);
    if let Some(id) = burst.and_then(|run| run.events.as_deref()).and_then(<[String]>::first) {
        commands.push((format!("refit event show {id}"), "what became of one event of the burst"));
    }
    commands.push((format!("refit model history {WORKFLOW}"), "who was champion when, and why"));
    commands.push((format!("refit model rollback {WORKFLOW}"), "back to the version before"));
    if let Some(first) = runs.first() {
        commands.push((format!("refit run logs {}", first.run), "what its steps wrote"));
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{plain, run::example};

    fn run(state: &str, champion: Option<i64>, promoted: Option<i64>) -> RunView {
        let mut run = RunView { state: state.to_owned(), event_count: 1, ..example() };
        run.promoted = promoted.map(|version| refit_workflows::wire::Promoted {
            model: WORKFLOW.to_owned(),
            version,
            alias: "champion".to_owned(),
        });
        for step in run.steps.iter_mut().flatten() {
            if let Some(decision) = &mut step.decision {
                decision.champion = champion;
            }
        }
        run
    }

    #[test]
    fn the_examples_events_are_events() {
        let sizes: Vec<usize> = files::EVENTS.iter().map(|lines| read_events(lines).unwrap().len()).collect();
        assert_eq!(sizes, [1, 20, 1]);
    }

    #[test]
    fn a_story_that_goes_another_way_is_noticed() {
        assert_eq!(keeps(&run("succeeded", None, Some(1)), Promise::First, 1, None), Ok(()));
        assert_eq!(keeps(&run("rejected", Some(2), None), Promise::Refused, 1, Some(2)), Ok(()));
        for (run, promised, events, champion) in [
            (run("failed", None, None), Promise::First, 1, None),
            (run("succeeded", None, None), Promise::First, 1, None),
            (run("succeeded", None, Some(1)), Promise::First, 20, None),
            (run("succeeded", Some(7), Some(8)), Promise::Better, 1, Some(1)),
            // Promoted, but the example's candidate is worse than its champion.
            (run("succeeded", Some(1), Some(2)), Promise::Better, 1, Some(1)),
            (run("succeeded", Some(2), Some(3)), Promise::Refused, 1, Some(2)),
        ] {
            assert!(keeps(&run, promised, events, champion).is_err(), "{promised:?} {}", run.state);
        }
    }

    #[test]
    fn the_refusal_is_explained_with_its_own_numbers() {
        let text = plain(&explain(&run("rejected", Some(2), None), Promise::Refused, Duration::ZERO));
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in ["81.25 %", "90 %", "accuracy ≥ 0.75", "version 2 stays champion", "accuracy fell"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn the_summary_has_a_line_a_run_and_a_line_a_step() {
        let text = plain(&summary(&[run("succeeded", None, Some(1)), run("rejected", Some(1), None)]));
        assert!(text.contains("version 1") && text.contains("nothing"), "{text}");
        let train = text.lines().find(|line| line.trim_start().starts_with("train")).unwrap();
        assert_eq!(train.matches("20.0s").count(), 2, "{text}");
    }
}

//! Plays one case: sets the scene, lets time pass, and tells what came of it. Judging that is `compare`'s business.

use std::collections::BTreeMap;
use std::time::Duration;

use refit_orchestrator::simulation::{Answer, Attempt, Came, Script, Simulation, Stage};
use refit_workflows::definition::diagnostics::did_you_mean;
use refit_workflows::definition::{Trigger, Workflow};
use refit_workflows::event::CloudEvent;
use refit_workflows::wire::{EventView, Failure, RunView};

use super::file::{Case, EventGiven, Given, Line};

/// How long a case may go on by itself, in virtual time.
const REST_WITHIN: Duration = Duration::from_secs(30 * 24 * 3600);
/// Events read at a time.
const PAGE: i64 = 1000;
/// The most events one line may stand for.
const TIMES_MAX: u32 = 10_000;

/// What came of a case.
#[derive(Debug)]
pub(super) struct Played {
    /// Every run, in the order of creation.
    pub(super) runs: Vec<RunView>,
    /// The events that were given, by id.
    pub(super) events: BTreeMap<String, EventView>,
    /// The types of the events that workflows emitted, in order.
    pub(super) emitted: Vec<String>,
    /// Where the alias of the workflow under test points.
    pub(super) champion: Option<i64>,
}

/// Plays a case. The first workflow is the one under test.
///
/// # Errors
/// What is wrong with the case, or why it does not come to an end.
pub(super) async fn play(case: &Case, workflows: &[Workflow], stage: &mut Stage) -> anyhow::Result<Played> {
    let Some(main) = workflows.first() else {
        anyhow::bail!("there is no workflow to test");
    };
    let mut scripts = scripts(case, workflows)?;
    let mut simulation = Simulation::open(stage, case.start).await?;
    if let Some(champion) = &case.champion {
        let Some(model) = &main.model else {
            anyhow::bail!("`champion` is given, but the workflow {} names no model", main.name);
        };
        simulation.adopt(model, main.champion_alias(), champion.metrics.clone()).await?;
    }
    for workflow in workflows {
        let script = scripts.remove(&workflow.name).unwrap_or_default();
        simulation.apply(workflow, script).await?;
    }
    let ids = happen(&mut simulation, case, main).await?;
    rest(&mut simulation, case, workflows).await?;
    tell(&simulation, main, ids).await
}

/// What the steps come to, by workflow.
fn scripts(case: &Case, workflows: &[Workflow]) -> anyhow::Result<BTreeMap<String, Script>> {
    let mut scripts: BTreeMap<String, Script> = BTreeMap::new();
    for (name, lines) in &case.steps {
        let (workflow, step) = match name.split_once('/') {
            None => (workflows.first(), name.as_str()),
            Some((workflow, step)) => (workflows.iter().find(|one| one.name == workflow), step),
        };
        let Some(workflow) = workflow else {
            anyhow::bail!("steps.{name}: there is no such workflow here; name its file under `also`");
        };
        known_step(workflow, step).map_err(|unknown| anyhow::anyhow!("steps.{name}: {unknown}"))?;
        let script = scripts.entry(workflow.name.clone()).or_default();
        let mut attempts = Vec::new();
        for line in &lines.0 {
            if let Some(verdict) = line.verdict {
                script.verdicts.insert(step.to_owned(), verdict);
            } else if let Some(answer) = answer(line) {
                script.answers.insert(step.to_owned(), answer);
            } else {
                attempts.push(attempt(line));
            }
        }
        if !attempts.is_empty() {
            script.attempts.insert(step.to_owned(), attempts);
        }
    }
    Ok(scripts)
}

/// Whether the workflow has this step, or the step that it is an instance of.
pub(super) fn known_step(workflow: &Workflow, step: &str) -> Result<(), String> {
    let group = step.split('[').next().unwrap_or(step);
    if workflow.step_index(group).is_some() {
        return Ok(());
    }
    let known: Vec<&str> = workflow.steps.iter().map(|step| step.name.as_str()).collect();
    let hint = did_you_mean(group, known.iter().copied())
        .unwrap_or_else(|| format!("its steps are {}", known.join(", ")));
    Err(format!("the workflow {} has no step `{group}`: {hint}", workflow.name))
}

fn answer(line: &Line) -> Option<Answer> {
    let (approve, by) = match (&line.approves, &line.rejects) {
        (Some(by), _) => (true, by),
        (None, Some(by)) => (false, by),
        (None, None) => return None,
    };
    Some(Answer { approve, by: Some(by.clone()), after: line.takes.0 })
}

fn attempt(line: &Line) -> Attempt {
    let came = match line.exit {
        _ if line.lost => {
            Came::Failure { failure: Failure::WorkerLost, reason: "its worker was lost".to_owned() }
        }
        None | Some(0) => Came::Success { outputs: line.outputs.clone(), metrics: line.metrics.clone() },
        Some(75) => Came::Failure { failure: Failure::RetryAsked, reason: "exit code 75".to_owned() },
        Some(code) => {
            let failure = Failure::Exit { code: i32::from(code) };
            Came::Failure { failure, reason: format!("exit code {code}") }
        }
    };
    Attempt { takes: line.takes.0, came }
}

/// Lets happen what is given, each thing at its time. Returns the sources and ids of the events.
async fn happen(
    simulation: &mut Simulation,
    case: &Case,
    main: &Workflow,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut ids = Vec::new();
    for (place, given) in case.given.iter().enumerate() {
        let wrong = |what: &str| anyhow::anyhow!("given[{place}]: {what}");
        simulation.advance(simulation.now().plus(given.after.0)).await?;
        match (&given.event, &given.run, &given.cancel) {
            (Some(event), None, None) => arrive(simulation, event, given, &mut ids).await?,
            (None, Some(run), None) => {
                let workflow = run.workflow.as_deref().unwrap_or(&main.name);
                simulation
                    .start_run(workflow, run.params.clone())
                    .await
                    .map_err(|error| wrong(&error.to_string()))?;
            }
            (None, None, Some(run)) => {
                simulation.cancel_run(run).await.map_err(|error| wrong(&error.to_string()))?;
            }
            (None, None, None) => {}
            _ => return Err(wrong("one of `event`, `run` and `cancel` happens at a time")),
        }
    }
    Ok(ids)
}

async fn arrive(
    simulation: &mut Simulation,
    event: &EventGiven,
    given: &Given,
    ids: &mut Vec<(String, String)>,
) -> anyhow::Result<()> {
    let times = given.times.unwrap_or(1);
    if times > TIMES_MAX {
        anyhow::bail!("`times: {times}`: at most {TIMES_MAX} events a line");
    }
    let source = event.source.as_deref().unwrap_or("/test");
    for time in 0..times {
        if time > 0 {
            simulation.advance(simulation.now().plus(given.every.0)).await?;
        }
        let id = match &event.id {
            Some(id) if times == 1 => id.clone(),
            Some(id) => format!("{id}-{}", time + 1),
            None => format!("e{}", ids.len() + 1),
        };
        let now = simulation.now();
        let event =
            CloudEvent::new(&id, source, &event.kind, event.subject.as_deref(), now, event.data.clone());
        simulation.record(vec![event]).await?;
        ids.push((source.to_owned(), id));
    }
    Ok(())
}

/// Lets time pass to the case's end.
async fn rest(simulation: &mut Simulation, case: &Case, workflows: &[Workflow]) -> anyhow::Result<()> {
    if let Some(until) = case.until {
        return Ok(simulation.advance(case.start.plus(until.0)).await?);
    }
    let scheduled = |one: &&Workflow| one.triggers.iter().any(|it| matches!(it, Trigger::Cron(_)));
    if let Some(workflow) = workflows.iter().find(scheduled) {
        anyhow::bail!(
            "the workflow {} has a schedule, so it never comes to rest: say how long the case goes on, as in `until: 1d`",
            workflow.name
        );
    }
    Ok(simulation.rest(simulation.now().plus(REST_WITHIN)).await?)
}

async fn tell(
    simulation: &Simulation,
    main: &Workflow,
    ids: Vec<(String, String)>,
) -> anyhow::Result<Played> {
    let mut events = BTreeMap::new();
    for (source, id) in ids {
        if let Some(event) = simulation.event(&id, &source).await? {
            events.insert(id, event);
        }
    }
    let model = match &main.model {
        Some(model) => simulation.model(model).await?,
        None => None,
    };
    let own = |event: &EventView| {
        event.source.starts_with("/refit/workflows/") && !event.kind.starts_with("refit.")
    };
    let (mut emitted, mut after) = (Vec::new(), 0);
    loop {
        let page = simulation.log(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        emitted.extend(page.into_iter().filter(own).map(|event| event.kind));
    }
    Ok(Played {
        runs: simulation.runs().await?,
        events,
        emitted,
        champion: model.and_then(|model| model.aliases.get(main.champion_alias()).copied()),
    })
}

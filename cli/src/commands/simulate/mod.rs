//! `refit simulate`: what events would have started. Finds the workflows and the events, lets the events arrive on a
//! virtual clock, and hands what came of it to `render`.
//!
//! `arrivals` (which events, when) → here (the simulation) → `render::simulate`. Must never happen here: a decision about
//! an event; those are the orchestrator's.

mod arrivals;

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use refit_orchestrator::simulation::{Answer, Script, Simulation, Stage};
use refit_workflows::definition::{Trigger, Workflow};
use refit_workflows::gate::Verdict;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::EventView;

use super::{check, sources};
use crate::args::{Format, Remote, SimulateArgs};
use crate::client::Client;
use crate::exit::{Exit, Usage};
use crate::render::simulate::{Assumed, Simulated};
use crate::render::{self, time::now};
use arrivals::Arrival;

/// How long it goes on after the last event when a schedule keeps it from coming to rest.
const SCHEDULED_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long it may take after the last event until everything has come to rest.
const REST_WITHIN: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many events are read at once from what came of it.
const PAGE: i64 = 200;
/// What takes no longer than this shows no progress.
const PATIENCE: Duration = Duration::from_secs(2);

/// Simulates, and tells what came of it.
pub(crate) async fn run(args: SimulateArgs, remote: &Remote) -> anyhow::Result<Exit> {
    let client = Client::new(remote)?;
    let workflows = if args.paths.is_empty() {
        from_server(&client).await?
    } else {
        match from_files(&args.paths, args.output.format)? {
            Some(workflows) => workflows,
            None => return Ok(Exit::Definition),
        }
    };
    let begun = now();
    let arrivals = match &args.events {
        Some(file) => arrivals::from_file(file, begun).await?,
        None => arrivals::from_history(&client, args.since.moment(begun)).await?,
    };
    let first = arrivals.first().map_or(begun, |arrival| arrival.at);
    let until = until(&args, &workflows, first, arrivals.last().map_or(begun, |arrival| arrival.at));
    let assumed = Assumed {
        step_takes: args.step_takes,
        history_since: args.history.then(|| args.since.moment(begun)),
        workflows: workflows.len() as u64,
        arrived: arrivals.iter().filter(|arrival| arrival.at <= until).count() as u64,
        too_late: arrivals.iter().filter(|arrival| arrival.at > until).count() as u64,
        until,
    };
    let simulated = tokio::task::block_in_place(|| {
        // One thread: what waits for one another does not have to be woken on another.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(simulate(&args, workflows, arrivals, first, until))
    })?;
    let limit = args.limit.limit as usize;
    render::answer(args.output.format, &simulated, || render::simulate::show(&simulated, &assumed, limit))?;
    Ok(Exit::Ok)
}

/// The workflows of files and folders. None: one of them is not sound, which was told.
fn from_files(paths: &[PathBuf], format: Format) -> anyhow::Result<Option<Vec<Workflow>>> {
    let sources = sources::find(paths)?;
    if !check::passes(&sources, format)? {
        return Ok(None);
    }
    let workflows: Vec<Workflow> = sources.into_iter().flat_map(|source| source.workflows).collect();
    let mut names = BTreeSet::new();
    if let Some(twice) = workflows.iter().find(|workflow| !names.insert(&workflow.name)) {
        return Err(Usage(format!("two files define the workflow {}", twice.name)).into());
    }
    Ok(Some(workflows))
}

/// The server's workflows, as they are now.
async fn from_server(client: &Client) -> anyhow::Result<Vec<Workflow>> {
    let mut workflows = Vec::new();
    for listed in client.workflows().await.context("failed to list the workflows")? {
        let name = listed.workflow;
        let failed = || format!("failed to read the workflow {name}");
        let view = client.workflow(&name).await.with_context(failed)?;
        let text = view.text.unwrap_or_default();
        let workflow = Workflow::parse_with(&text, &view.used).map_err(|problems| {
            let first = problems.0.first().map(|problem| problem.message.as_str()).unwrap_or_default();
            anyhow::anyhow!("{}: {first}\nhint: name its file instead of taking it from the server", failed())
        })?;
        workflows.push(workflow);
    }
    if workflows.is_empty() {
        return Err(Usage("the server has no workflows: name a file or a folder".to_owned()).into());
    }
    Ok(workflows)
}

/// The moment at which the simulation ends, if it has not come to rest before.
fn until(args: &SimulateArgs, workflows: &[Workflow], first: Timestamp, last: Timestamp) -> Timestamp {
    let is_cron = |trigger: &Trigger| matches!(trigger, Trigger::Cron(_));
    let scheduled = workflows.iter().any(|workflow| workflow.triggers.iter().any(is_cron));
    match args.lasts {
        Some(lasts) => first.plus(lasts),
        None if scheduled => last.plus(SCHEDULED_FOR),
        None => last.plus(REST_WITHIN),
    }
}

async fn simulate(
    args: &SimulateArgs,
    workflows: Vec<Workflow>,
    arrivals: Vec<Arrival>,
    first: Timestamp,
    until: Timestamp,
) -> anyhow::Result<Simulated> {
    let mut stage = Stage::new().await?;
    let mut simulation = Simulation::open(&mut stage, first).await?;
    for workflow in &workflows {
        let script = Script {
            takes: args.step_takes,
            other_verdicts: Some(Verdict::Pass),
            other_answers: Some(Answer { approve: true, by: None, after: Duration::ZERO }),
            ..Script::default()
        };
        simulation.apply(workflow, script).await?;
    }
    let mut progress = Progress::begin(arrivals.len() as u64);
    for Arrival { at, event } in arrivals {
        if at > until {
            break;
        }
        simulation.advance(at).await?;
        simulation.record(vec![event]).await?;
        progress.arrived(at);
    }
    progress.say("what follows");
    simulation.rest(until).await?;
    progress.say("reading what came of it");
    let runs = simulation.runs().await?;
    let events = events(&simulation).await?;
    progress.end();
    Ok(Simulated { runs, events })
}

/// What became of the events; of Refit's own only those that a trigger looked at, for there are several a run.
async fn events(simulation: &Simulation) -> anyhow::Result<Vec<EventView>> {
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let page = simulation.log(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(events) };
        after = last.seq;
        let matters = |event: &EventView| {
            !render::simulate::is_own(event) || event.decisions.iter().any(|it| !it.workflow.is_empty())
        };
        events.extend(page.into_iter().filter(matters));
    }
}

/// A bar on a terminal, for those that take their time.
struct Progress {
    bar: ProgressBar,
    begun: Instant,
    shown: bool,
}

impl Progress {
    fn begin(events: u64) -> Self {
        let template = "{bar:24} {human_pos} of {human_len} events  {msg}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(events), ProgressDrawTarget::hidden()).with_style(style);
        Self { bar, begun: Instant::now(), shown: false }
    }

    fn arrived(&mut self, at: Timestamp) {
        self.bar.inc(1);
        if self.shown {
            self.bar.set_message(render::time::minute(at));
        }
        self.show();
    }

    fn say(&mut self, what: &'static str) {
        self.bar.set_message(what);
        self.show();
    }

    fn show(&mut self) {
        if !self.shown && self.begun.elapsed() > PATIENCE && std::io::stderr().is_terminal() {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

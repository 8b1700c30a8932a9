//! One attempt from order to outcome: lay out what the step sees, run its process tree, end it completely, check what it made;
//! `untold` keeps that and hands it over. Failure is an outcome, not an error. Decides nothing about leases and never retries a step.

mod call;
mod checkpoints;
pub(crate) mod container;
mod contract;
mod data;
mod evaluate;
mod lines;
pub(crate) mod logs;
pub(crate) mod process;
mod redact;
mod report;
mod s3;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod torture;
mod untold;
mod validate;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use refit_workflows::digest::Digest;
use refit_workflows::names::check_name;
use refit_workflows::time::show_duration;
use refit_workflows::wire::{
    ArtifactRef, CallOrder, Failure, Handed, OrderTask, Outcome, Report, RunOrder, StepOrder,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::blobs::{self, Access, Blobs};
use crate::cgroup::Cgroups;
use crate::client::{self, CallError, Orchestrator};
use crate::gpus::{Gpus, TakenGpus};
use crate::held::{Ending, EndingSignal, Held};
use crate::leftovers::{self, Signs};
use crate::orphans::UnderWay;
use crate::outputs::{self, Content};
use crate::python::{Environment, Environments, Site};
pub(crate) use call::Caller;
use checkpoints::Checkpoints;
use container::Container;
use contract::Place;
pub(crate) use contract::Places;
use logs::Log;
use process::{Program, TERM_GRACE, Tree};
use redact::Redactor;
use report::{Reporter, SetUp};
pub(crate) use untold::{Holder, Untold};

/// `EX_TEMPFAIL` of sysexits(3): please try again.
const EXIT_TRY_AGAIN: i32 = 75;
/// A step that loses its lease has little time to leave.
const FENCED_GRACE: Duration = Duration::from_secs(1);
/// How long the streams may stay open after every process of the step has ended.
const STREAMS_GRACE: Duration = Duration::from_secs(1);
/// The least time for handing artifacts over, whatever the step's timeout left.
const HAND_OVER_TIME_MIN: Duration = Duration::from_secs(600);
/// How long saving a checkpoint may take when the worker is about to leave.
const SAVE_ON_LEAVING_TIME: Duration = Duration::from_secs(30);

/// What every attempt on this host shares.
#[derive(Debug)]
pub(crate) struct Tools {
    /// Where attempts run.
    pub(crate) places: Places,
    /// What confines them.
    pub(crate) cgroups: Cgroups,
    /// Bundles and artifacts.
    pub(crate) blobs: Blobs,
    /// Python environments.
    pub(crate) environments: Environments,
    /// Requests that steps make.
    pub(crate) caller: Caller,
    /// Where logs go and blobs come from.
    pub(crate) orchestrator: Arc<Orchestrator>,
    /// The host's GPUs.
    pub(crate) gpus: Gpus,
    /// Changes when the worker begins to leave: what steps have done so far is best saved then.
    pub(crate) leaving: tokio::sync::watch::Sender<()>,
}

/// What became of the step.
#[derive(Debug)]
enum Came {
    /// Its call, or its check of data, is over.
    Called(Outcome),
    Exited(ExitStatus),
    RanOutOfMemory(String),
    CouldNotStart(String),
    Ended(Ending),
    TimedOut,
}

/// An attempt that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What it came to.
    outcome: Outcome,
    /// How long it took until its own work began, in milliseconds; none: it never did, or there is nothing to set up.
    set_up_ms: Option<u64>,
    /// The end of its log and of its metrics, not sent yet.
    rest: Vec<Report>,
    /// The files of its artifacts, not handed over yet.
    blobs: BTreeMap<Digest, Content>,
    /// Its folder.
    place: Option<Place>,
    /// Until when files are handed over.
    until: Instant,
}

impl Ended {
    /// One that ended before it began.
    fn at_once(reason: String) -> Self {
        let outcome = Outcome::Failed { failure: Failure::CouldNotStart, reason };
        let (set_up_ms, rest, blobs, place) = Default::default();
        Self { outcome, set_up_ms, rest, blobs, place, until: Instant::now() }
    }
}

/// Runs one attempt. When it returns, nothing of the step runs on this host any more. None: nobody wants the outcome.
pub(crate) async fn execute(
    tools: &Tools,
    order: &StepOrder,
    held: &Held,
    mut ending: EndingSignal,
) -> Option<Ended> {
    let set_up = SetUp::begin();
    let deadline = Instant::now() + Duration::from_millis(order.timeout_ms);
    let place = match tools.places.take(&order.params).await {
        Ok(place) => place,
        Err(reason) => return Some(Ended::at_once(reason)),
    };
    let log = match Redactor::new(&order.secrets) {
        Ok(redactor) => Log::without(redactor),
        Err(reason) => return Some(Ended::at_once(reason)),
    };
    let checkpoints = Checkpoints::new(tools, order, &place, &log);
    let mut reporter = Reporter::new(&tools.orchestrator, held, order, (&log, &set_up), place.metrics());
    let came = {
        let checkpoints = &checkpoints;
        let (place, log, set_up) = (&place, &log, &set_up);
        let attempt = Attempt { tools, order, held, place, log, set_up, checkpoints, deadline };
        let work = async {
            match &order.task {
                OrderTask::Run(run) => attempt.run(run, ending.clone()).await,
                OrderTask::Call(call) => attempt.call(call, ending.clone()).await,
                OrderTask::Evaluate(order) => attempt.evaluate(order, ending.clone()).await,
                OrderTask::Validate(order) => attempt.validate(order, ending.clone()).await,
            }
        };
        tokio::select! {
            biased;
            came = Box::pin(work) => came,
            never = reporter.live() => match never {},
            never = checkpoints.live() => match never {},
        }
    };
    save_the_end(&checkpoints, &came, &mut ending).await;
    let until = deadline.max(Instant::now() + HAND_OVER_TIME_MIN);
    let (outcome, blobs) = match came {
        Came::Exited(status) if status.success() => tokio::select! {
            collected = collect(order, &place, &mut reporter) => collected,
            came = uncollected(&ending, until) => (outcome_of(came, order, &log)?, BTreeMap::new()),
        },
        came => (outcome_of(came, order, &log)?, BTreeMap::new()),
    };
    // A success carries its metrics itself.
    let rest = reporter.rest(!matches!(outcome, Outcome::Succeeded(_)));
    let outcome = without_secrets(outcome, log.redactor());
    Some(Ended { outcome, set_up_ms: set_up.took_ms(), rest, blobs, place: Some(place), until })
}

/// What is stored of an outcome holds no secret: neither a reason that quotes something nor a value that is handed on.
fn without_secrets(outcome: Outcome, redactor: &Redactor) -> Outcome {
    let hand_over = |handed: Handed| {
        let outputs = handed.outputs.into_iter().map(|(name, value)| (name, redactor.value(value))).collect();
        Handed { outputs, ..handed }
    };
    match outcome {
        Outcome::Succeeded(handed) => Outcome::Succeeded(hand_over(handed)),
        Outcome::Rejected { reason, handed } => {
            Outcome::Rejected { reason: redactor.text(&reason), handed: hand_over(handed) }
        }
        Outcome::Failed { failure, reason } => Outcome::Failed { failure, reason: redactor.text(&reason) },
        Outcome::Cancelled => Outcome::Cancelled,
    }
}

/// Saves what an attempt has come to that did not work out, for the next one to go on from it.
async fn save_the_end(checkpoints: &Checkpoints<'_>, came: &Came, ending: &mut EndingSignal) {
    let within = match came {
        Came::Exited(status) if status.success() => return,
        Came::Exited(_) | Came::RanOutOfMemory(_) | Came::TimedOut => HAND_OVER_TIME_MIN,
        Came::Ended(Ending::ShutDown) => SAVE_ON_LEAVING_TIME,
        // Nobody goes on from it, or it could not be handed over.
        Came::Ended(Ending::Cancel | Ending::Fenced | Ending::Stop) => return,
        Came::Called(_) | Came::CouldNotStart(_) => return,
    };
    let given_up = async {
        if matches!(came, Came::Ended(_)) || ending.ended().await == Ending::ShutDown {
            tokio::time::sleep(SAVE_ON_LEAVING_TIME).await;
        }
    };
    tokio::select! {
        () = checkpoints.save() => {}
        () = given_up => {}
        () = tokio::time::sleep(within) => {}
    }
}

async fn interrupted(ending: &mut EndingSignal, deadline: Instant) -> Came {
    tokio::select! {
        ending = ending.ended() => Came::Ended(ending),
        () = tokio::time::sleep_until(deadline) => Came::TimedOut,
    }
}

/// What keeps a step that has succeeded from being collected. A lease that ran out does not: nothing of the step runs, and
/// what it came to can be told once the orchestrator is back.
async fn uncollected(ending: &EndingSignal, until: Instant) -> Came {
    let (mut unwanted, mut leaving) = (ending.clone(), ending.clone());
    let left = async {
        if leaving.ended().await != Ending::ShutDown {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(SAVE_ON_LEAVING_TIME).await;
    };
    tokio::select! {
        ending = unwanted.unwanted() => Came::Ended(ending),
        () = left => Came::Ended(Ending::ShutDown),
        () = tokio::time::sleep_until(until) => Came::TimedOut,
    }
}

/// What is laid out, ready to be started.
struct Prepared {
    program: Program,
    container: Option<Container>,
    /// Kept until nothing of the step is left: its environment stays, its GPUs are not given to others.
    _held: (Option<Environment>, TakenGpus),
}

struct Attempt<'a> {
    tools: &'a Tools,
    order: &'a StepOrder,
    held: &'a Held,
    place: &'a Place,
    log: &'a Log,
    set_up: &'a SetUp,
    checkpoints: &'a Checkpoints<'a>,
    deadline: Instant,
}

impl Attempt<'_> {
    async fn call(&self, call: &CallOrder, mut ending: EndingSignal) -> Came {
        tokio::select! {
            outcome = self.tools.caller.call(&self.order.key, call, self.log) => Came::Called(outcome),
            came = interrupted(&mut ending, self.deadline) => came,
        }
    }

    async fn run(&self, run: &RunOrder, ending: EndingSignal) -> Came {
        let mut signs = self.place.signs().clone();
        signs.cgroup = self.tools.cgroups.make(&signs.id, &self.order.limits);
        let _under_way = UnderWay::begin(&signs);
        self.run_with(run, &signs, ending).await
    }

    async fn run_with(&self, run: &RunOrder, signs: &Signs, mut ending: EndingSignal) -> Came {
        let prepared = tokio::select! {
            prepared = Box::pin(self.prepare(run, signs)) => prepared,
            came = interrupted(&mut ending, self.deadline) => {
                // The build of an environment may have been at work.
                leftovers::end(std::slice::from_ref(signs), None, grace_of(&came)).await;
                return came;
            }
        };
        let Prepared { program, container, _held } = match prepared {
            Ok(prepared) => prepared,
            Err(reason) => {
                if !leftovers::nothing_is_left(signs) {
                    leftovers::end(std::slice::from_ref(signs), None, TERM_GRACE).await;
                }
                return Came::CouldNotStart(reason);
            }
        };
        let (mut tree, streams) = match Tree::start(&program, signs) {
            Ok(started) => started,
            Err(cause) => return Came::CouldNotStart(not_started(&program, &cause)),
        };
        self.set_up.is_over();
        self.checkpoints.started(tree.leader());
        let over = CancellationToken::new();
        let running = async {
            let came = self.until_over(&mut tree, container.as_ref(), signs, &mut ending).await;
            over.cancel();
            came
        };
        let reading = async {
            tokio::select! {
                read = self.log.read(streams) => read,
                () = async { over.cancelled().await; tokio::time::sleep(STREAMS_GRACE).await } => Ok(()),
            }
        };
        let (came, read) = tokio::join!(running, reading);
        self.log.finish();
        if let Err(cause) = read {
            self.log.say(&format!("the rest of the log is missing: {cause}"));
        }
        match (came, &signs.cgroup) {
            (Came::Exited(status), _)
                if container.is_some() && status.code() == Some(container::EXIT_NOT_STARTED) =>
            {
                Came::CouldNotStart(format!("the container could not be started: {}", self.log.last_line()))
            }
            (Came::Exited(status), Some(cgroup)) if !status.success() => {
                cgroup.ran_out_of_memory().map_or(Came::Exited(status), Came::RanOutOfMemory)
            }
            (came, _) => came,
        }
    }

    /// Waits for the end of the step's process, or brings it about; returns when nothing of it is left.
    async fn until_over(
        &self,
        tree: &mut Tree,
        container: Option<&Container>,
        signs: &Signs,
        ending: &mut EndingSignal,
    ) -> Came {
        let came = tokio::select! {
            biased;
            waited = tree.wait() => match waited {
                Ok(status) => Came::Exited(status),
                Err(cause) => Came::CouldNotStart(format!("failed to wait for the step's process: {cause}")),
            },
            came = interrupted(ending, self.deadline) => came,
        };
        if let Came::Ended(Ending::ShutDown) = came {
            self.checkpoints.ask().await;
        }
        if let (Came::Exited(_), Some(container)) = (&came, container) {
            // What tends it ends by itself.
            container.gone().await;
        }
        match &came {
            Came::Exited(_) if leftovers::nothing_is_left(signs) => {}
            came => tree.end(grace_of(came)).await,
        }
        if let Some(container) = container {
            container.gone().await;
        }
        came
    }

    /// Lays out everything the step sees.
    async fn prepare(&self, run: &RunOrder, signs: &Signs) -> Result<Prepared, String> {
        let Self { tools, order, place, .. } = self;
        self.lay_out_all().await?;
        let python = match &run.python {
            Some(python) => {
                let site = Site { work: &place.work(), signs, log: self.log, bundle: order.bundle.as_ref() };
                Some(tools.environments.ensure(python, &site).await?)
            }
            None => None,
        };
        let mut env = place.environment(order, run, python.as_ref())?;
        let gpus = tools.gpus.take(order.gpus).await?;
        let Some(image) = &run.container else {
            gpus.show_in(&mut env);
            let program = place.program(&run.command, env)?;
            return Ok(Prepared { program, container: None, _held: (python, gpus) });
        };
        let (container, program) = self.contained(image, run, env, &gpus, signs).await?;
        Ok(Prepared { program, container: Some(container), _held: (python, gpus) })
    }

    /// Code, checkpoint, events, inputs and the champion.
    async fn lay_out_all(&self) -> Result<(), String> {
        let Self { tools, order, place, .. } = self;
        if let Some(bundle) = &order.bundle {
            let laid = tools.blobs.lay_out_tree(bundle, &place.work(), Access::ReadWrite).await;
            laid.map_err(|cause| format!("failed to lay out the workflow's code: {cause}"))?;
        }
        self.checkpoints.restore().await?;
        if order.events > 0 {
            self.fetch_events().await?;
        }
        for (name, artifact) in &order.inputs {
            self.lay_out("input", name, artifact, &place.inputs()).await?;
        }
        blobs::close_folders(&place.inputs())
            .map_err(|cause| format!("failed to close the inputs' folder: {cause}"))?;
        if let Some(champion) = &order.champion {
            let folder = place.champion();
            std::fs::create_dir(&folder)
                .map_err(|cause| format!("failed to make {}: {cause}", folder.display()))?;
            for (name, artifact) in champion {
                self.lay_out("the champion's artifact", name, artifact, &folder).await?;
            }
        }
        Ok(())
    }

    async fn lay_out(
        &self,
        what: &str,
        name: &str,
        artifact: &ArtifactRef,
        folder: &Path,
    ) -> Result<(), String> {
        check_name(name).map_err(|why| format!("{what} `{name}` {why}"))?;
        let laid = self.tools.blobs.lay_out(artifact, &folder.join(name), Access::ReadOnly).await;
        laid.map_err(|cause| format!("failed to lay out {what} `{name}`: {cause}"))
    }

    /// Writes the run's events to `REFIT_EVENTS`.
    async fn fetch_events(&self) -> Result<(), String> {
        let path = self.place.events();
        let fetch = || async {
            let mut response = self.tools.orchestrator.events(&self.order.key).await?;
            let mut file = match std::fs::File::create(&path) {
                Ok(file) => file,
                Err(cause) => return Ok(Err(cause)),
            };
            while let Some(chunk) = client::next_chunk(&mut response).await? {
                if let Err(cause) = std::io::Write::write_all(&mut file, chunk.as_ref()) {
                    return Ok(Err(cause));
                }
            }
            Ok::<_, CallError>(Ok(()))
        };
        match client::persist(fetch).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(cause)) => Err(format!("failed to write the run's events: {cause}")),
            Err(refusal) => {
                if refusal.is_lost() {
                    self.held.end(&self.order.key, Ending::Stop);
                }
                Err(format!("failed to fetch the run's events: {refusal}"))
            }
        }
    }
}

fn grace_of(came: &Came) -> Duration {
    match came {
        Came::Ended(Ending::Fenced) => FENCED_GRACE,
        Came::Ended(Ending::Cancel | Ending::ShutDown | Ending::Stop) => TERM_GRACE,
        Came::TimedOut
        | Came::Exited(_)
        | Came::RanOutOfMemory(_)
        | Came::CouldNotStart(_)
        | Came::Called(_) => TERM_GRACE,
    }
}

fn not_started(program: &Program, cause: &std::io::Error) -> String {
    let path = program.path.display();
    match cause.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::ENOEXEC) => {
            format!("failed to start {path}: it is neither a program nor a script that begins with `#!`")
        }
        Some(nix::errno::Errno::ENOENT) => {
            format!(
                "failed to start {path}: the interpreter that its first line names does not exist on this host"
            )
        }
        Some(nix::errno::Errno::E2BIG) => format!(
            "failed to start {path}: its arguments, params and env are larger than a program can be given; hand \
             large values on as artifacts"
        ),
        _ => format!("failed to start {path}: {cause}"),
    }
}

/// The outcome of everything but a success.
fn outcome_of(came: Came, order: &StepOrder, log: &Log) -> Option<Outcome> {
    let failed = |failure, reason| Some(Outcome::Failed { failure, reason });
    let with_last_line = |what: String| match log.last_line() {
        line if line.is_empty() => what,
        line => format!("{what}: {line}"),
    };
    match came {
        Came::Called(outcome) => Some(outcome),
        Came::CouldNotStart(reason) => failed(Failure::CouldNotStart, reason),
        Came::RanOutOfMemory(reason) => failed(Failure::OutOfMemory, reason),
        Came::TimedOut => {
            let timeout = show_duration(Duration::from_millis(order.timeout_ms));
            failed(Failure::TimedOut, format!("took longer than its timeout of {timeout} and was ended"))
        }
        Came::Ended(Ending::Stop) => None,
        Came::Ended(Ending::Cancel) => Some(Outcome::Cancelled),
        Came::Ended(Ending::ShutDown) => failed(Failure::WorkerLost, "the worker was shut down".to_owned()),
        Came::Ended(Ending::Fenced) => failed(
            Failure::WorkerLost,
            "the worker could not reach the orchestrator for as long as its lease lasts and ended the step"
                .to_owned(),
        ),
        Came::Exited(status) => match (status.code(), status.signal()) {
            (Some(EXIT_TRY_AGAIN), _) => {
                failed(Failure::RetryAsked, with_last_line("exit code 75 (please try again)".to_owned()))
            }
            (Some(code), _) => failed(Failure::Exit { code }, with_last_line(format!("exit code {code}"))),
            (None, Some(signal)) => {
                let name = Signal::try_from(signal).map_or("unknown", Signal::as_str);
                failed(
                    Failure::Signal { signal },
                    with_last_line(format!("ended by signal {signal} ({name})")),
                )
            }
            (None, None) => failed(Failure::Exit { code: -1 }, with_last_line(format!("{status}"))),
        },
    }
}

/// Checks what a step that exited 0 hands back, and reports on meanwhile; with the files of its artifacts.
async fn collect(
    order: &StepOrder,
    place: &Place,
    reporter: &mut Reporter<'_>,
) -> (Outcome, BTreeMap<Digest, Content>) {
    let collected = async {
        let outputs = outputs::read_outputs(&place.outputs())?;
        let metrics = reporter.metrics.finish()?;
        if order.artifacts.is_empty() {
            return Ok((Handed { outputs, metrics, ..Handed::default() }, BTreeMap::new()));
        }
        let (work, declared) = (place.work(), order.artifacts.clone());
        let gathering = tokio::task::spawn_blocking(move || outputs::gather(&work, &declared));
        let gathered = tokio::select! {
            gathered = gathering => gathered.map_err(|cause| format!("failed to read the artifacts: {cause}"))??,
            never = reporter.live() => match never {},
        };
        let artifacts = gathered.artifacts;
        Ok((Handed { outputs, metrics, artifacts, ..Handed::default() }, gathered.blobs))
    };
    let collected: Result<_, String> = collected.await;
    match collected {
        Ok((handed, blobs)) => (Outcome::Succeeded(handed), blobs),
        Err(reason) => (Outcome::Failed { failure: Failure::InvalidOutput, reason }, BTreeMap::new()),
    }
}

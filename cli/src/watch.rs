//! Follows a run to its end: live on a terminal (the graph's steps with glyph, time, attempt, worker, metrics and the
//! latest line of log), one line per change elsewhere. Only looks; never changes a run.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use refit_workflows::names::RunName;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{LogPage, RunView, StepView};

use crate::client::{Client, ClientError};
use crate::exit::Exit;
use crate::render::time::{now, took};
use crate::render::{self, BOLD, DIM, clean, metrics, paint, state, state_look};

/// How long one look at the run waits for a change. Short enough for live metrics to stay fresh.
const LOOK: Duration = Duration::from_secs(1);
/// How long a server may be out of reach before following is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often elapsed times are drawn again.
const TICK: Duration = Duration::from_millis(200);
/// How often a sign of life is printed where nothing is drawn.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Where changes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    /// On standard output, which belongs to them.
    Output,
    /// On standard error, because the answer on standard output is for a program.
    Error,
}

/// Follows a run to its end and returns how it ended. A run that was coalesced is followed in the one that took it in.
///
/// # Errors
/// The run is not there, the server stays out of reach, or the output is closed.
pub(crate) async fn follow(client: &Client, run: &RunName, surface: Surface) -> anyhow::Result<RunView> {
    let mut view = client.run(run).await?;
    loop {
        let ended = follow_one(client, view, surface).await?;
        match successor(client, &ended).await? {
            Some(next) => {
                say(surface, &format!("{} goes on as {}", ended.run, next.run))?;
                view = next;
            }
            None => return Ok(ended),
        }
    }
}

/// How a command that followed a run to this end exits.
pub(crate) fn exit(run: &RunView) -> Exit {
    match run.state.as_str() {
        "failed" | "rejected" | "cancelled" => Exit::Failed,
        _ => Exit::Ok,
    }
}

async fn successor(client: &Client, ended: &RunView) -> Result<Option<RunView>, ClientError> {
    if ended.state != "coalesced" {
        return Ok(None);
    }
    let runs = client.runs(&[("workflow", ended.workflow.clone()), ("limit", "200".to_owned())]).await?;
    match runs.into_iter().find(|run| run.coalesced.contains(&ended.run)) {
        Some(next) => client.run(&next.run).await.map(Some),
        None => Ok(None),
    }
}

async fn follow_one(client: &Client, first: RunView, surface: Surface) -> anyhow::Result<RunView> {
    // The orchestrator's clock, not this host's, says how long something takes.
    let asked = now();
    let skew = client.about().await.map_or(0, |server| server.now.as_millis() - asked.as_millis());
    let clock = || Timestamp::from_millis(now().as_millis() + skew);

    let mut display = Display::new(surface);
    let mut view = first;
    let mut tail = Tail::default();
    let mut tick = tokio::time::interval(TICK);
    let mut look = Box::pin(look(client.clone(), view.run.clone(), view.version));
    let mut read = Box::pin(read(client.clone(), view.run.clone(), 0));
    let mut reading = true;
    display.show(&view, &tail, clock())?;
    while !render::run::is_over(&view) {
        tokio::select! {
            seen = &mut look => {
                view = seen?;
                display.show(&view, &tail, clock())?;
                look.set(self::look(client.clone(), view.run.clone(), view.version));
            }
            page = &mut read, if reading => match page {
                Some(page) => {
                    tail.take(&page);
                    reading = !page.done;
                    read.set(self::read(client.clone(), view.run.clone(), page.next));
                }
                None => reading = false,
            },
            _ = tick.tick() => display.tick(&view, &tail, clock())?,
        }
    }
    display.end(&view, clock())?;
    Ok(view)
}

/// The next look at the run; sits out a server that is away for a while.
async fn look(client: Client, run: RunName, after: i64) -> Result<RunView, ClientError> {
    let started = tokio::time::Instant::now();
    loop {
        match client.run_after(&run, after, LOOK).await {
            Err(wrong) if wrong.is_away() && started.elapsed() < PATIENCE => {
                tracing::warn!("{wrong}; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            answer => return answer,
        }
    }
}

/// The next page of the log; none when it cannot be had, which is no reason to stop following.
async fn read(client: Client, run: RunName, after: i64) -> Option<LogPage> {
    let page = client.logs(&run, None, after, LOOK).await.ok()?;
    if page.lines.is_empty() {
        tokio::time::sleep(TICK).await;
    }
    Some(page)
}

/// The latest line each step wrote.
#[derive(Debug, Default)]
struct Tail(BTreeMap<String, String>);

impl Tail {
    fn take(&mut self, page: &LogPage) {
        for piece in &page.lines {
            if let Some(line) = piece.text.lines().rev().find(|line| !line.trim().is_empty()) {
                self.0.insert(piece.step.clone(), render::log::bare(line.trim()).replace('\t', " "));
            }
        }
    }
}

fn say(surface: Surface, text: &str) -> anyhow::Result<()> {
    match surface {
        Surface::Output => render::print(text),
        Surface::Error => {
            render::note(text);
            Ok(())
        }
    }
}

/// What is on the screen.
struct Display {
    surface: Surface,
    live: Option<Live>,
    /// State and attempt of each step as last printed, where nothing is drawn.
    printed: BTreeMap<String, (String, u32)>,
    printed_run: String,
    last_line: tokio::time::Instant,
}

impl Display {
    fn new(surface: Surface) -> Self {
        let people = match surface {
            Surface::Output => std::io::stdout().is_terminal(),
            Surface::Error => true,
        };
        let live = (people && std::io::stderr().is_terminal()).then(Live::new);
        let last_line = tokio::time::Instant::now();
        Self { surface, live, printed: BTreeMap::new(), printed_run: String::new(), last_line }
    }

    fn show(&mut self, view: &RunView, tail: &Tail, at: Timestamp) -> anyhow::Result<()> {
        if let Some(live) = &mut self.live {
            live.draw(view, tail, at);
            return Ok(());
        }
        let mut lines = Vec::new();
        if self.printed_run != view.state && !render::run::is_over(view) {
            self.printed_run.clone_from(&view.state);
            lines.push(render::run::line(view));
        }
        for step in view.steps.as_deref().unwrap_or_default() {
            let now = (step.state.clone(), step.attempt);
            if step.state != "blocked" && self.printed.get(&step.step) != Some(&now) {
                self.printed.insert(step.step.clone(), now);
                lines.push(format!("{}  {}", paint(BOLD, &view.run), step_line(step, 0, at)));
            }
        }
        for line in lines {
            say(self.surface, &line)?;
            self.last_line = tokio::time::Instant::now();
        }
        Ok(())
    }

    fn tick(&mut self, view: &RunView, tail: &Tail, at: Timestamp) -> anyhow::Result<()> {
        if let Some(live) = &mut self.live {
            live.draw(view, tail, at);
        } else if self.last_line.elapsed() >= HEARTBEAT {
            self.last_line = tokio::time::Instant::now();
            for step in
                view.steps.as_deref().unwrap_or_default().iter().filter(|step| step.state == "running")
            {
                let last =
                    tail.0.get(&step.step).map(|line| format!("  {}", paint(DIM, line))).unwrap_or_default();
                say(self.surface, &format!("{}  {}{last}", paint(BOLD, &view.run), step_line(step, 0, at)))?;
            }
        }
        Ok(())
    }

    fn end(&mut self, view: &RunView, at: Timestamp) -> anyhow::Result<()> {
        if let Some(live) = self.live.take() {
            live.clear();
            for line in body(view, &Tail::default(), at, usize::MAX) {
                say(self.surface, &line)?;
            }
        } else {
            self.show(view, &Tail::default(), at)?;
        }
        let total = took(view.started_at, view.finished_at, at)
            .map(|took| format!(" after {took}"))
            .unwrap_or_default();
        let reason = view.reason.as_deref().map(|reason| format!(": {}", clean(reason))).unwrap_or_default();
        say(self.surface, &format!("{}  {}{total}{reason}", paint(BOLD, &view.run), state(&view.state)))
    }
}

/// Lines that are drawn over again, on standard error.
struct Live {
    screen: MultiProgress,
    bars: Vec<ProgressBar>,
}

impl Live {
    fn new() -> Self {
        Self {
            screen: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12)),
            bars: Vec::new(),
        }
    }

    fn draw(&mut self, view: &RunView, tail: &Tail, at: Timestamp) {
        let (height, _) = console::Term::stderr().size();
        let room = usize::from(height).saturating_sub(4).max(3);
        let mut lines = vec![head(view, at)];
        lines.extend(body(view, tail, at, room));
        while self.bars.len() > lines.len() {
            if let Some(bar) = self.bars.pop() {
                self.screen.remove(&bar);
            }
        }
        while self.bars.len() < lines.len() {
            // {wide_msg} cuts a line to the terminal's width, colour kept.
            let style = ProgressStyle::with_template("{wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            self.bars.push(self.screen.add(ProgressBar::new_spinner().with_style(style)));
        }
        let plain = anstream::AutoStream::choice(&std::io::stderr()) == anstream::ColorChoice::Never;
        for (bar, line) in self.bars.iter().zip(lines) {
            bar.set_message(if plain { anstream::adapter::strip_str(&line).to_string() } else { line });
        }
    }

    fn clear(self) {
        // A terminal that cannot be cleared keeps its last picture. The bars draw nothing more when they are dropped.
        let _ = self.screen.clear();
        self.screen.set_draw_target(ProgressDrawTarget::hidden());
    }
}

fn head(view: &RunView, at: Timestamp) -> String {
    let steps = view.steps.as_deref().unwrap_or_default();
    let settled = steps.iter().filter(|step| is_settled(&step.state)).count();
    let elapsed =
        took(view.started_at, view.finished_at, at).map(|took| format!("  {took}")).unwrap_or_default();
    let reason = view.reason.as_deref().map(|reason| format!("  {}", clean(reason))).unwrap_or_default();
    let run = paint(BOLD, &view.run);
    format!("{run}  {}  {}{elapsed}{reason}", state(&view.state), gauge(settled, steps.len()))
}

/// `━━━━──── 4 of 8 steps`.
fn gauge(done: usize, all: usize) -> String {
    const WIDTH: usize = 16;
    let filled = (done * WIDTH).checked_div(all).unwrap_or(0);
    let (full, empty) = ("━".repeat(filled), "─".repeat(WIDTH - filled));
    format!("{}{} {done} of {all} steps", paint(render::LIVE, full), paint(DIM, empty))
}

/// The steps, at most `room` lines: when there are more, those that are going on or went wrong come first.
fn body(view: &RunView, tail: &Tail, at: Timestamp, room: usize) -> Vec<String> {
    let steps = view.steps.as_deref().unwrap_or_default();
    let mut chosen: Vec<usize> = (0..steps.len()).collect();
    let hidden = if steps.len() > room {
        chosen.sort_by_key(|&index| (urgency(&steps[index].state), index));
        let hidden = chosen.split_off(room.saturating_sub(1));
        chosen.sort_unstable();
        hidden
    } else {
        Vec::new()
    };
    let width = chosen.iter().map(|&index| steps[index].step.chars().count()).max().unwrap_or(0).min(40);
    let mut lines: Vec<String> = Vec::new();
    for &index in &chosen {
        let step = &steps[index];
        lines.push(format!("  {}", step_line(step, width, at)));
        if let Some(last) = tail.0.get(&step.step).filter(|_| step.state == "running" && lines.len() < room) {
            lines.push(format!("    {}", paint(DIM, format_args!("│ {last}"))));
        }
    }
    if !hidden.is_empty() {
        let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
        for &index in &hidden {
            *tally.entry(steps[index].state.as_str()).or_default() += 1;
        }
        let counted: Vec<String> =
            tally.iter().map(|(state, count)| format!("{count} {}", clean(state))).collect();
        lines.push(format!("  {}", paint(DIM, format_args!("… and {}", counted.join(", ")))));
    }
    lines
}

/// One step on one line.
fn step_line(step: &StepView, width: usize, at: Timestamp) -> String {
    let (glyph, style) = state_look(&step.state);
    let mut parts = vec![
        format!("{} {:<width$}", paint(style, glyph), clean(&step.step)),
        paint(style, clean(&step.state)),
    ];
    let idle = matches!(step.state.as_str(), "blocked" | "skipped");
    if let Some(took) = render::run::step_took(step, at).filter(|_| !idle) {
        parts.push(took);
    }
    if step.attempts_max > 1 && step.attempt > 0 {
        parts.push(paint(DIM, format_args!("attempt {}/{}", step.attempt, step.attempts_max)));
    }
    if let Some(worker) = step.worker.as_deref().filter(|_| step.state == "running") {
        parts.push(paint(DIM, format_args!("on {}", clean(worker))));
    }
    let speaks =
        matches!(step.state.as_str(), "rejected" | "failed" | "waiting" | "skipped" | "cancelled" | "ready");
    match &step.reason {
        Some(reason) if speaks || step.metrics.is_empty() => parts.push(clean(reason).into_owned()),
        Some(_) | None if !step.metrics.is_empty() => {
            let bar = render::metrics::progress(step, at);
            let mut others = step.metrics.clone();
            if bar.is_some() {
                others.remove("progress");
            }
            parts.extend(bar);
            parts.extend((!others.is_empty()).then(|| metrics(&others)));
        }
        Some(_) | None => {}
    }
    parts.join("  ")
}

fn is_settled(state: &str) -> bool {
    matches!(state, "succeeded" | "rejected" | "failed" | "skipped" | "cancelled")
}

/// What a person watching wants to see first.
fn urgency(state: &str) -> u8 {
    match state {
        "running" => 0,
        "failed" | "rejected" => 1,
        "waiting" => 2,
        "ready" => 3,
        "cancelled" => 4,
        "succeeded" => 5,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{plain, run::example};

    fn at() -> Timestamp {
        Timestamp::parse("2027-01-15T08:00:41Z").unwrap()
    }

    #[test]
    fn the_picture_has_a_head_and_a_line_a_step() {
        let mut view = example();
        let steps = view.steps.as_mut().unwrap();
        steps[0].state = "running".to_owned();
        steps[0].finished_at = None;
        let mut tail = Tail::default();
        tail.0.insert("train".to_owned(), "epoch 3".to_owned());
        assert_eq!(plain(&head(&view, at())).split("  ").nth(2), Some("━━━━━━━━━━────── 2 of 3 steps"));
        let lines: Vec<String> = body(&view, &tail, at(), 9).iter().map(|line| plain(line)).collect();
        assert_eq!(
            lines,
            [
                "  ● train    running  40.0s  attempt 1/2  on host-a  accuracy 0.8125",
                "    │ epoch 3",
                "  ✗ gate     rejected  accuracy fell",
                "  – promote  skipped  `gate` was rejected",
            ]
        );
    }

    #[test]
    fn a_big_graph_shows_what_matters_and_counts_the_rest() {
        let mut view = example();
        let step = view.steps.as_ref().unwrap()[0].clone();
        let states = ["succeeded", "blocked", "failed", "blocked", "running", "blocked"];
        let steps = states.iter().enumerate().map(|(index, state)| {
            let (step_name, state) = (format!("s{index}"), (*state).to_owned());
            StepView { step: step_name, state, ..step.clone() }
        });
        view.steps = Some(steps.collect());
        let lines: Vec<String> =
            body(&view, &Tail::default(), at(), 4).iter().map(|line| plain(line)).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].contains("s0") && lines[1].contains("s2") && lines[2].contains("s4"), "{lines:?}");
        assert_eq!(lines[3], "  … and 3 blocked");
    }

    #[test]
    fn only_a_good_end_is_ok() {
        for (state, expected) in [
            ("succeeded", Exit::Ok),
            ("failed", Exit::Failed),
            ("rejected", Exit::Failed),
            ("cancelled", Exit::Failed),
        ] {
            let view = RunView { state: state.to_owned(), ..example() };
            assert_eq!(exit(&view), expected, "{state}");
        }
    }
}

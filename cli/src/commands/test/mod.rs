//! `refit test`: unit tests of workflows. Finds `*.test.yaml` files, plays every case on a virtual clock, compares, and tells.
//!
//! `file` (the form) → `play` (a simulation) → `compare` (differences) → here (the answer), `junit`.

mod compare;
mod file;
mod junit;
mod play;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use refit_orchestrator::simulation::Stage;
use refit_workflows::definition::{Position, Problem, Workflow};
use serde::Serialize;

use super::{check, sources};
use crate::args::TestArgs;
use crate::exit::{Exit, Usage};
use crate::render::diagnostics::{Severity, problem};
use crate::render::{self, BAD, BOLD, DIM, GOOD, clean, count, paint};
use compare::Mismatch;
use file::{Case, TestFile};

/// The largest test file, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What one case came to.
#[derive(Debug, Serialize)]
struct CaseResult {
    file: String,
    /// The line of its name.
    line: u64,
    case: String,
    passed: bool,
    milliseconds: f64,
    mismatches: Vec<Mismatch>,
    /// Why it could not be played.
    error: Option<String>,
}

impl CaseResult {
    fn passed(&self) -> bool {
        self.passed
    }

    fn headline(&self) -> String {
        match (&self.error, self.mismatches.first()) {
            (Some(error), _) => error.clone(),
            (None, Some(first)) => format!("{}: expected {}, got {}", first.path, first.expected, first.got),
            (None, None) => String::new(),
        }
    }

    /// Every difference, one a line.
    fn differences(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.error.iter().cloned().collect();
        for it in &self.mismatches {
            let because = it.because.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
            lines.push(format!("{}: expected {}, got {}{because}", it.path, it.expected, it.got));
        }
        lines
    }
}

/// Plays the cases of all files and tells.
pub(crate) fn run(args: &TestArgs) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let mut cases = Vec::new();
    let mut sound = true;
    for path in find(&args.paths)? {
        match read(&path, args)? {
            Some(file) => cases.extend(file),
            None => sound = false,
        }
    }
    if !sound {
        return Ok(Exit::Definition);
    }
    let wanted = |one: &Planned| {
        args.cases.is_empty() || args.cases.iter().any(|part| one.case.case.value.contains(part.as_str()))
    };
    cases.retain(wanted);
    if cases.is_empty() {
        return Err(Usage("no case has such a name: `refit test` without --case plays all".to_owned()).into());
    }
    let results = play_all(cases)?;
    if let Some(path) = &args.junit {
        junit::write(path, &results)?;
    }
    let failed = results.iter().filter(|result| !result.passed()).count();
    render::answer(args.output.format, &results, || describe(&results, begun.elapsed().as_secs_f64()))?;
    Ok(if failed == 0 { Exit::Ok } else { Exit::Failed })
}

/// Plays every case, with one player a CPU that stays there. Each has a runtime of its own: what waits for one another is on
/// one thread then, and the thread of its database beside it; waking each other across CPUs would cost more than the cases do.
fn play_all(cases: Vec<Planned>) -> anyhow::Result<Vec<CaseResult>> {
    let cases: Mutex<Vec<(usize, Planned)>> = Mutex::new(cases.into_iter().enumerate().rev().collect());
    let next = || cases.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let play = &|cpu: Option<usize>| -> anyhow::Result<Vec<(usize, CaseResult)>> {
        if let Some(cpu) = cpu {
            stay_on(cpu);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut stage = runtime.block_on(Stage::new())?;
        let mut results = Vec::new();
        while let Some((place, case)) = next() {
            results.push((place, runtime.block_on(case.play(&mut stage))));
        }
        Ok(results)
    };
    let played = std::thread::scope(|scope| {
        let threads: Vec<_> = cpus().into_iter().map(|cpu| scope.spawn(move || play(cpu))).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let mut results = Vec::new();
    for part in played {
        results.extend(part.map_err(|_| anyhow::anyhow!("a case ended the thread that played it"))??);
    }
    results.sort_by_key(|(place, _)| *place);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// The CPUs that this process may use; one that is not known where the system does not tell.
fn cpus() -> Vec<Option<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let cpus: Vec<_> =
        (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).map(Some).collect();
    if cpus.is_empty() { vec![None] } else { cpus }
}

/// Keeps this thread, and those it will start, on one CPU. Where that cannot be, they are merely slower.
fn stay_on(cpu: usize) {
    let mut only = CpuSet::new();
    if only.set(cpu).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &only);
    }
}

/// The test files these paths mean: files as they are, of folders every `*.test.yaml` in them, however deep.
fn find(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let about = std::fs::metadata(path).with_context(|| format!("failed to read {}", path.display()))?;
        if about.is_file() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in ignore::WalkBuilder::new(path).build() {
            let entry = entry.with_context(|| format!("failed to read {}", path.display()))?;
            let name = entry.file_name().to_string_lossy();
            if name.ends_with(".test.yaml") || name.ends_with(".test.yml") {
                found.push(entry.into_path());
            }
        }
        if found.is_empty() {
            return Err(Usage(format!(
                "no tests in {}: a test file is named after its workflow's file, as churn.test.yaml beside churn.yaml",
                path.display()
            ))
            .into());
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

/// A case with everything it needs.
struct Planned {
    file: String,
    case: Case,
    workflows: Arc<Vec<Workflow>>,
}

/// Reads a test file and the workflows it names. None: one of them is not sound, which was told.
fn read(path: &Path, args: &TestArgs) -> anyhow::Result<Option<Vec<Planned>>> {
    let shown = path.display().to_string();
    let failed = || format!("failed to read {shown}");
    if std::fs::metadata(path).with_context(failed)?.len() > FILE_BYTES_MAX {
        return Err(Usage(format!("{}: a test file may have at most 1 MiB", failed())).into());
    }
    let text = std::fs::read_to_string(path).with_context(failed)?;
    let options = serde_yaml::options! { with_snippet: false };
    let file: TestFile = match serde_yaml::from_str_with_options(&text, options) {
        Ok(file) => file,
        Err(wrong) => {
            let place = wrong.location().map(|at| (at.line(), at.column()));
            let words = wrong.without_snippet().to_string();
            render::note(
                problem(&shown, &text, &malformed(&text, place, &words), Severity::Error).trim_end(),
            );
            return Ok(None);
        }
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let main = match &file.workflow {
        Some(workflow) => folder.join(workflow),
        None => folder.join(name.replacen(".test.", ".", 1)),
    };
    let mut files = vec![main];
    files.extend(file.also.iter().map(|also| folder.join(also)));
    let sources = sources::find(&files)
        .with_context(|| format!("{shown} names its workflow's file with `workflow:`"))?;
    if !check::passes(&sources, args.output.format)? {
        return Ok(None);
    }
    let workflows: Vec<Workflow> = sources.into_iter().flat_map(|source| source.workflows).collect();
    let workflows = Arc::new(workflows);
    let plan = |case| Planned { file: shown.clone(), case, workflows: Arc::clone(&workflows) };
    Ok(Some(file.cases.into_iter().map(plan).collect()))
}

/// What is wrong with the form of a test file; `words` end with the place, which is shown anyway.
fn malformed(text: &str, place: Option<(u64, u64)>, words: &str) -> Problem {
    let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let position = place.map_or(Position::START, |(line, column)| {
        let line_text = text.lines().nth(number(line) as usize - 1).unwrap_or_default();
        let rest: String = line_text.chars().skip(number(column) as usize - 1).collect();
        let length = rest.split([' ', ':', ',', '}', ']']).next().unwrap_or_default().chars().count();
        Position { line: number(line), column: number(column), length: number(length.max(1) as u64) }
    });
    let words = words.split(" at line ").next().unwrap_or(words).trim_end_matches([',', ':']);
    let (message, hint) = match words.split_once(", expected one of ") {
        Some((message, known)) => (message, Some(format!("what may stand here: {known}"))),
        None => (words, None),
    };
    Problem { code: "test-file".to_owned(), message: message.to_owned(), position, hint, file: None }
}

impl Planned {
    async fn play(self, stage: &mut Stage) -> CaseResult {
        let begun = Instant::now();
        let played = play::play(&self.case, &self.workflows, stage).await;
        let (mismatches, error) = match &played {
            Ok(played) => (compare::compare(&self.case.expect, played), None),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        CaseResult {
            file: self.file,
            line: self.case.case.defined.line(),
            case: self.case.case.value,
            passed: mismatches.is_empty() && error.is_none(),
            milliseconds: begun.elapsed().as_secs_f64() * 1000.0,
            mismatches,
            error,
        }
    }
}

fn describe(results: &[CaseResult], seconds: f64) -> String {
    let mut text = String::new();
    let mut file = "";
    for result in results {
        if file != result.file {
            file = &result.file;
            let _ = writeln!(text, "{}", paint(BOLD, clean(file)));
        }
        let mark = if result.passed() { paint(GOOD, "✓") } else { paint(BAD, "✗") };
        let place =
            if result.passed() { String::new() } else { paint(DIM, format!("  line {}", result.line)) };
        let _ = writeln!(text, "  {mark} {}{place}", clean(&result.case));
        if let Some(error) = &result.error {
            let _ = writeln!(text, "      {}", clean(error));
        }
        for it in &result.mismatches {
            let _ = writeln!(
                text,
                "      {}: expected {}, got {}",
                paint(BOLD, clean(&it.path)),
                paint(GOOD, clean(&it.expected)),
                paint(BAD, clean(&it.got))
            );
            if let Some(because) = &it.because {
                let _ = writeln!(text, "        {}", paint(DIM, clean(because)));
            }
        }
    }
    let failed = results.iter().filter(|result| !result.passed()).count();
    let summary = match failed {
        0 => paint(GOOD, "all passed"),
        failed => paint(BAD, format!("{failed} failed")),
    };
    let _ = writeln!(text, "{}, {summary}, in {seconds:.2} s", count(results.len() as u64, "case"));
    text
}

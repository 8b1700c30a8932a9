//! `refit check`: all problems of workflow files, offline, and the graph of those that have none.

use std::fmt::Write as _;

use refit_workflows::definition::Trigger;
use refit_workflows::definition::Workflow;
use serde::Serialize;

use super::sources::{self, Source};
use crate::args::{CheckArgs, Format, GraphForm};
use crate::exit::{Exit, Usage};
use crate::render::diagnostics::{Severity, problem};
use crate::render::graph::Graph;
use crate::render::{self, BAD, BOLD, GOOD, count, paint};

/// Checks the files and tells about each.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<Exit> {
    let sources = sources::find(&args.paths)?;
    if let Some(form) = args.graph.form {
        return draw(&sources, form);
    }
    let reports: Vec<Report> = sources.iter().map(Report::of).collect();
    render::answer(args.output.format, &reports, || sources.iter().map(describe).collect())?;
    Ok(if sources.iter().all(Source::is_sound) { Exit::Ok } else { Exit::Definition })
}

/// Draws the graph of each file; for documents only of one, so that standard output holds that and nothing else.
fn draw(sources: &[Source], form: GraphForm) -> anyhow::Result<Exit> {
    match (form, sources) {
        (GraphForm::Text, _) => {
            let drawn: Vec<String> = sources.iter().map(described_and_drawn).collect();
            render::print(drawn.join("\n"))?;
        }
        (GraphForm::Mermaid | GraphForm::Dot, [source]) => {
            if passes(sources, Format::Table)?
                && let Some(workflow) = &source.workflow
            {
                render::print(Graph::of_workflow(workflow).draw(form, None))?;
            }
        }
        (GraphForm::Mermaid | GraphForm::Dot, _) => {
            let found = count(sources.len() as u64, "workflow");
            return Err(
                Usage(format!("a document holds one graph, and there are {found}: name one file")).into()
            );
        }
    }
    Ok(if sources.iter().all(Source::is_sound) { Exit::Ok } else { Exit::Definition })
}

fn described_and_drawn(source: &Source) -> String {
    let sound = source.workflow.as_ref().filter(|_| source.is_sound());
    let drawing = sound.map(|workflow| {
        let columns = render::columns().map(|columns| columns.saturating_sub(2));
        format!("\n{}", render::indent(&Graph::of_workflow(workflow).draw(GraphForm::Text, columns), 2))
    });
    describe(source) + &drawing.unwrap_or_default()
}

/// Tells what is wrong with these files on standard error, as `check` would. True when all are sound.
pub(crate) fn passes(sources: &[Source], format: Format) -> anyhow::Result<bool> {
    let sound = sources.iter().all(Source::is_sound);
    if !sound && format != Format::Table {
        let reports: Vec<Report> = sources.iter().map(Report::of).collect();
        render::answer(format, &reports, String::new)?;
        return Ok(false);
    }
    for source in sources.iter().filter(|source| !source.findings.is_empty()) {
        render::note(describe(source).trim_end());
    }
    Ok(sound)
}

/// A file with its problems in the look of a compiler, and a line that sums up.
fn describe(source: &Source) -> String {
    let path = source.path.display().to_string();
    let mut text = String::new();
    for (severity, found) in &source.findings {
        text.push_str(&problem(&path, &source.text, found, *severity));
        text.push('\n');
    }
    let path = render::clean(&path);
    let _ = match &source.workflow {
        Some(workflow) if source.is_sound() => {
            writeln!(text, "{} {path}: {}", paint(GOOD, "✓"), summary(workflow))
        }
        Some(_) | None => {
            let errors = source.findings.iter().filter(|(severity, _)| *severity == Severity::Error).count();
            writeln!(text, "{} {path}: {}", paint(BAD, "✗"), count(errors as u64, "problem"))
        }
    };
    text
}

fn summary(workflow: &Workflow) -> String {
    let events = workflow.triggers.iter().filter(|trigger| matches!(trigger, Trigger::Event(_))).count();
    let crons = workflow.triggers.len() - events;
    let mut started = Vec::new();
    if events > 0 {
        started.push(count(events as u64, "event trigger"));
    }
    if crons > 0 {
        started.push(count(crons as u64, "schedule"));
    }
    let started = if started.is_empty() { "started by hand".to_owned() } else { started.join(", ") };
    format!(
        "workflow {}, {}, {started}",
        paint(BOLD, &workflow.name),
        count(workflow.steps.len() as u64, "step")
    )
}

/// What `-o json` prints of one file.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    sound: bool,
    workflow: Option<String>,
    steps: Option<usize>,
    triggers: Option<usize>,
    problems: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Finding {
    severity: &'static str,
    code: String,
    message: String,
    line: u32,
    column: u32,
    length: u32,
    hint: Option<String>,
}

impl Report {
    fn of(source: &Source) -> Self {
        let workflow = source.workflow.as_ref();
        Self {
            file: source.path.display().to_string(),
            sound: source.is_sound(),
            workflow: workflow.map(|workflow| workflow.name.clone()),
            steps: workflow.map(|workflow| workflow.steps.len()),
            triggers: workflow.map(|workflow| workflow.triggers.len()),
            problems: source
                .findings
                .iter()
                .map(|(severity, problem)| Finding {
                    severity: match severity {
                        Severity::Error => "error",
                        Severity::Warning => "warning",
                    },
                    code: problem.code.clone(),
                    message: problem.message.clone(),
                    line: problem.position.line,
                    column: problem.position.column,
                    length: problem.position.length,
                    hint: problem.hint.clone(),
                })
                .collect(),
        }
    }
}

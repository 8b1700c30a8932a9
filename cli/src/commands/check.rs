//! `refit check`: all problems of workflow files, offline, and the graph of those that have none.

use std::fmt::Write as _;

use refit_workflows::definition::Trigger;
use refit_workflows::definition::Workflow;
use serde::Serialize;

use super::sources::{self, Source};
use crate::args::{CheckArgs, CheckFormat, Format, GraphForm};
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
    match args.report {
        Some(CheckFormat::Github) => render::print(sources.iter().map(annotations).collect::<String>())?,
        Some(CheckFormat::Json) => render::answer(Format::Json, &reports, String::new)?,
        Some(CheckFormat::Human) | None => {
            render::answer(args.output.format, &reports, || sources.iter().map(describe).collect())?;
        }
    }
    Ok(if sources.iter().all(Source::is_sound) { Exit::Ok } else { Exit::Definition })
}

/// Draws the graph of each file; for documents only of one, so that standard output holds that and nothing else.
fn draw(sources: &[Source], form: GraphForm) -> anyhow::Result<Exit> {
    match (form, sources) {
        (GraphForm::Text, _) => {
            let drawn: Vec<String> = sources.iter().map(described_and_drawn).collect();
            render::print(drawn.join("\n"))?;
        }
        (GraphForm::Mermaid | GraphForm::Dot, _) => {
            if passes(sources, Format::Table)? {
                let workflows: Vec<&Workflow> = sources.iter().flat_map(|source| &source.workflows).collect();
                let [workflow] = workflows.as_slice() else {
                    let found = count(workflows.len() as u64, "workflow");
                    let wrong = format!("a document holds one graph, and there are {found}: name one file");
                    return Err(Usage(wrong).into());
                };
                render::print(Graph::of_workflow(workflow).draw(form, None))?;
            }
        }
    }
    Ok(if sources.iter().all(Source::is_sound) { Exit::Ok } else { Exit::Definition })
}

fn described_and_drawn(source: &Source) -> String {
    let sound = source.workflows.iter().filter(|_| source.is_sound());
    let drawings = sound.map(|workflow| {
        let columns = render::columns().map(|columns| columns.saturating_sub(2));
        format!("\n{}", render::indent(&Graph::of_workflow(workflow).draw(GraphForm::Text, columns), 2))
    });
    describe(source) + &drawings.collect::<String>()
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
        let (place, within) = source.place_of(found);
        text.push_str(&problem(&place, within, found, *severity));
        text.push('\n');
    }
    let path = render::clean(&path);
    if !source.is_sound() {
        let errors = source.findings.iter().filter(|(severity, _)| *severity == Severity::Error).count();
        let _ = writeln!(text, "{} {path}: {}", paint(BAD, "✗"), count(errors as u64, "problem"));
        return text;
    }
    for workflow in &source.workflows {
        let _ = writeln!(text, "{} {path}: {}", paint(GOOD, "✓"), summary(workflow));
    }
    text
}

/// The problems of a file as workflow commands, which show as annotations at the lines of a pull request.
///
/// <https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands>
fn annotations(source: &Source) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut lines = String::new();
    for (severity, found) in &source.findings {
        let command = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let (place, _) = source.place_of(found);
        let at = found.position;
        let hint = found.hint.as_deref().map(|hint| format!("\n{hint}")).unwrap_or_default();
        let _ = writeln!(
            lines,
            "::{command} file={},line={},col={},endColumn={},title={}::{}",
            property(&place),
            at.line,
            at.column,
            at.column + at.length,
            property(&found.code),
            data(&format!("{}{hint}", found.message))
        );
    }
    lines
}

fn summary(workflow: &Workflow) -> String {
    let (mut events, mut joins, mut crons) = (0, 0, 0);
    for trigger in &workflow.triggers {
        match trigger {
            Trigger::Event(_) => events += 1,
            Trigger::Join(_) => joins += 1,
            Trigger::Cron(_) => crons += 1,
        }
    }
    let kinds = [(events, "event trigger"), (joins, "join"), (crons, "schedule")];
    let started: Vec<String> = kinds
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, kind)| count(number, kind))
        .collect();
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
    /// Of its first document; `workflows` holds them all.
    workflow: Option<String>,
    steps: Option<usize>,
    triggers: Option<usize>,
    workflows: Vec<Sound>,
    problems: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Sound {
    workflow: String,
    steps: usize,
    triggers: usize,
}

#[derive(Debug, Serialize)]
struct Finding {
    severity: &'static str,
    /// The file it stands in, when that is another one: one that a step uses.
    file: Option<String>,
    code: String,
    message: String,
    line: u32,
    column: u32,
    length: u32,
    hint: Option<String>,
}

impl Report {
    fn of(source: &Source) -> Self {
        let workflow = source.workflows.first();
        let sound = |workflow: &Workflow| Sound {
            workflow: workflow.name.clone(),
            steps: workflow.steps.len(),
            triggers: workflow.triggers.len(),
        };
        Self {
            file: source.path.display().to_string(),
            sound: source.is_sound(),
            workflow: workflow.map(|workflow| workflow.name.clone()),
            steps: workflow.map(|workflow| workflow.steps.len()),
            triggers: workflow.map(|workflow| workflow.triggers.len()),
            workflows: source.workflows.iter().map(sound).collect(),
            problems: source
                .findings
                .iter()
                .map(|(severity, problem)| Finding {
                    severity: match severity {
                        Severity::Error => "error",
                        Severity::Warning => "warning",
                    },
                    file: problem.file.clone(),
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

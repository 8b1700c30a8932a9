//! `refit run`: starting, following, explaining and ending runs.

use anyhow::Context as _;
use refit_workflows::definition::{ParamType, Workflow};
use refit_workflows::names::RunName;
use refit_workflows::wire::{Decide, LogStream, RetryRun, RunView, StartRun};
use serde_json::{Map, Value};
use std::time::Duration;

use super::unknown;
use crate::args::{DecideArgs, EvidenceForm, Format, GraphForm, Output, RunCommand};
use crate::client::Client;
use crate::exit::{Exit, Usage};
use crate::render::graph::Graph;
use crate::render::log::Form;
use crate::render::{self, time::now};
use crate::watch::{self, Surface};

/// How long one page of a followed log waits for more.
const LOG_WAIT: Duration = Duration::from_secs(10);

/// Does one of them.
pub(crate) async fn run(command: RunCommand, client: &Client) -> anyhow::Result<Exit> {
    match command {
        RunCommand::Start { workflow, params, no_cache, wait, output } => {
            // The id makes the request safe to send twice.
            let id = Some(uuid::Uuid::now_v7().to_string());
            let request = StartRun { workflow, params: Map::new(), id, no_cache };
            start(request, params, wait, output, client).await
        }
        RunCommand::List { workflow, state, since, limit, output } => {
            let mut query = vec![("limit", limit.limit.to_string())];
            query.extend(workflow.clone().map(|workflow| ("workflow", workflow)));
            query.extend(state.map(|state| ("state", state)));
            query.extend(since.map(|since| ("since", since.moment(now()).to_string())));
            let runs = client.runs(&query).await.context("failed to list runs")?;
            render::listing(output.format, &runs, "no such runs", || render::run::list(&runs, now()))?;
            if runs.is_empty() {
                unknown::workflow(client, workflow.as_deref()).await;
            }
            Ok(Exit::Ok)
        }
        RunCommand::Show { run, graph, output } => {
            let view = client.run(&run).await.with_context(|| format!("failed to show {run}"))?;
            match graph.form {
                Some(form) => render::print(drawn(&view, form))?,
                None => render::answer(output.format, &view, || render::run::show(&view, now()))?,
            }
            Ok(Exit::Ok)
        }
        RunCommand::Watch { run } => {
            let ended = watch::follow(client, &run, Surface::Output).await;
            Ok(watch::exit(&ended.with_context(|| format!("failed to watch {run}"))?))
        }
        RunCommand::Logs { run, step, stdout, stderr, follow, json } => {
            let stream = [(stdout, LogStream::Stdout), (stderr, LogStream::Stderr)]
                .into_iter()
                .find_map(|(only, stream)| only.then_some(stream));
            logs(&run, step.as_deref(), stream, follow, json, client).await
        }
        RunCommand::Metrics { run, step, output } => {
            let series = client.series(&run, step.as_deref()).await;
            let series = series.with_context(|| format!("failed to read the metrics of {run}"))?;
            render::listing(output.format, &series, "no metrics", || render::metrics::table(&series))?;
            Ok(Exit::Ok)
        }
        RunCommand::Evidence { run, form } => {
            let evidence = client
                .evidence(&run)
                .await
                .with_context(|| format!("failed to show what {run} rested on"))?;
            match form {
                EvidenceForm::Markdown => render::print(render::evidence::markdown(&evidence))?,
                EvidenceForm::Json => render::answer(Format::Json, &evidence, String::new)?,
            }
            Ok(Exit::Ok)
        }
        RunCommand::Cancel { run, output } => {
            let view = client.cancel(&run).await.with_context(|| format!("failed to cancel {run}"))?;
            told(&view, output)
        }
        RunCommand::Retry { run, all, wait, output } => {
            let view = client
                .retry(&run, &RetryRun { all })
                .await
                .with_context(|| format!("failed to retry {run}"))?;
            if wait { to_its_end(&view.run, output, client).await } else { told(&view, output) }
        }
        RunCommand::Approve(args) => decide(args, true, client).await,
        RunCommand::Reject(args) => decide(args, false, client).await,
    }
}

/// A run as a graph; for people with the run itself above it.
fn drawn(view: &RunView, form: GraphForm) -> String {
    let drawing = Graph::of_run(view, now()).draw(form, render::columns());
    match form {
        GraphForm::Text => format!("{}\n\n{drawing}", render::run::line(view)),
        GraphForm::Mermaid | GraphForm::Dot => drawing,
    }
}

fn told(view: &RunView, output: Output) -> anyhow::Result<Exit> {
    render::answer(output.format, view, || render::run::line(view))?;
    Ok(Exit::Ok)
}

async fn decide(args: DecideArgs, approve: bool, client: &Client) -> anyhow::Result<Exit> {
    let decide = Decide { step: args.step, covers: args.covers, reason: args.reason };
    let verb = if approve { "approve" } else { "reject" };
    let view = client.decide(&args.run, approve, &decide).await;
    told(&view.with_context(|| format!("failed to {verb} {}", args.run))?, args.output)
}

async fn start(
    mut request: StartRun,
    params: Vec<(String, String)>,
    wait: bool,
    output: Output,
    client: &Client,
) -> anyhow::Result<Exit> {
    let workflow = request.workflow.clone();
    let failed = || format!("failed to start a run of {workflow}");
    if !params.is_empty() {
        let text = client.workflow(&workflow).await.with_context(failed)?.text;
        request.params = typed(params, text.as_deref().and_then(|text| Workflow::parse(text).ok()).as_ref())?;
    }
    let view = client.start_run(&request).await.with_context(failed)?;
    if wait { to_its_end(&view.run, output, client).await } else { told(&view, output) }
}

async fn to_its_end(run: &RunName, output: Output, client: &Client) -> anyhow::Result<Exit> {
    let surface = if output.format == Format::Table { Surface::Output } else { Surface::Error };
    let ended =
        watch::follow(client, run, surface).await.with_context(|| format!("failed to follow {run}"))?;
    if output.format != Format::Table {
        render::answer(output.format, &ended, String::new)?;
    }
    Ok(watch::exit(&ended))
}

/// Params as the workflow declares them. What the command line cannot know (the definition is not to be had, the
/// param is unknown) is left to the server, as text.
fn typed(params: Vec<(String, String)>, workflow: Option<&Workflow>) -> Result<Map<String, Value>, Usage> {
    let mut typed = Map::new();
    for (name, text) in params {
        let kind = workflow.and_then(|workflow| workflow.params.get(&name)).map(|param| param.kind);
        let wrong = |what: &str| Usage(format!("--param {name}: `{text}` is not {what}"));
        let value = match kind {
            Some(ParamType::Integer) => {
                Value::from(text.parse::<i64>().map_err(|_| wrong("a whole number"))?)
            }
            Some(ParamType::Number) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Value::from(number),
                Ok(_) | Err(_) => return Err(wrong("a number")),
            },
            Some(ParamType::Boolean) => {
                Value::from(text.parse::<bool>().map_err(|_| wrong("true or false"))?)
            }
            Some(ParamType::String) | None => Value::from(text),
        };
        if typed.insert(name.clone(), value).is_some() {
            return Err(Usage(format!("--param {name} is given twice")));
        }
    }
    Ok(typed)
}

async fn logs(
    run: &RunName,
    step: Option<&str>,
    only: Option<LogStream>,
    follow: bool,
    json: bool,
    client: &Client,
) -> anyhow::Result<Exit> {
    let failed = || format!("failed to read the log of {run}");
    let view = client.run(run).await.with_context(failed)?;
    let steps = view.steps.as_deref().unwrap_or_default();
    if let Some(step) = step.filter(|step| !steps.is_empty() && steps.iter().all(|known| known.step != *step))
    {
        let names: Vec<&str> = steps.iter().map(|step| step.step.as_str()).collect();
        render::error(&anyhow::anyhow!(
            "failed to read the log of {run}: no step `{step}`; it has {}",
            names.join(", ")
        ));
        return Ok(Exit::Refused);
    }
    let prefixed = step.is_none() && steps.iter().filter(|step| step.verb == "run").count() > 1;
    let width = steps
        .iter()
        .filter(|step| step.verb == "run")
        .map(|step| step.step.chars().count())
        .max()
        .unwrap_or(0);
    let form = if json { Form::Json } else { render::log_form() };
    let wait = if follow { LOG_WAIT } else { Duration::ZERO };
    let mut after = 0;
    loop {
        let page = match client.logs(run, step, after, wait).await {
            Err(wrong) if follow && after > 0 && wrong.is_away() => {
                tracing::warn!("{wrong}; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            page => page.with_context(failed)?,
        };
        let mut text = String::new();
        for piece in page.lines.iter().filter(|piece| only.is_none_or(|only| piece.stream == only)) {
            render::log::write(&mut text, piece, prefixed.then_some(width), form);
        }
        render::print_raw(text.as_bytes())?;
        if page.done || (!follow && page.lines.is_empty()) {
            return Ok(Exit::Ok);
        }
        if follow && page.lines.is_empty() && page.next == after {
            // A server that does not wait is not to be asked in a tight loop.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        after = page.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_follow_their_declared_type() {
        let file = "workflow: w\nparams:\n  n: { type: integer }\n  x: { type: number }\n  b: { type: boolean }\n  \
                    s: { type: string }\nsteps:\n  a: { run: 'true' }\n";
        let workflow = Workflow::parse(file).unwrap();
        let given = |name: &str, text: &str| typed(vec![(name.to_owned(), text.to_owned())], Some(&workflow));
        assert_eq!(given("n", "5").unwrap()["n"], 5);
        assert_eq!(given("x", "0.5").unwrap()["x"], 0.5);
        assert_eq!(given("b", "true").unwrap()["b"], true);
        assert_eq!(given("s", "5").unwrap()["s"], "5");
        assert_eq!(given("unknown", "5").unwrap()["unknown"], "5");
        for (name, text) in [("n", "5.5"), ("x", "NaN"), ("b", "yes")] {
            assert!(given(name, text).is_err(), "{name}={text} was accepted");
        }
        let twice = vec![("s".to_owned(), "1".to_owned()), ("s".to_owned(), "2".to_owned())];
        assert!(typed(twice, Some(&workflow)).is_err());
    }
}

//! What the language accepts, and for everything it refuses: code, line, column.

mod broken;
mod broken_steps;
mod broken_verbs;
mod hostile;
mod language;
mod several;

use std::time::Duration;

use serde_json::json;

use super::{all, one};
use crate::definition::{
    CatchUp, Command, NoFiles, OnConflict, OnTimeout, Problem, Problems, RunTask, Step, Trigger, Verb, Work,
    Workflow,
};
use crate::gate::{Check, NoChampion};

const CHURN: &str = r#"# yaml-language-server: $schema=./workflow.schema.json
workflow: churn
description: Retrain the churn model when the customer table changes.
model: churn

on:
  - event:
      type: [dataset.updated]
      data: { table: [customers], rows: [{ numeric: [">", 0] }] }
    where: data.rows <= 5000000
    by: data.region
    batch:
      quiet: 2m
      max_wait: 30m
      count: 10000
    params: { region: "${{ batch.key }}", shards: 4 }
  - cron: "0 3 * * MON"
    timezone: Europe/Berlin
    catch_up: last

params:
  region: { type: string, default: eu }
  shards: { type: integer, default: 2, description: How many parts. }

concurrency:
  key: params.region
  limit: 1
  on_conflict: coalesce

defaults:
  timeout: 2h
  retry: { attempts: 2, backoff: 10s, max_backoff: 5m }

steps:
  train:
    run: [python, train.py, --shards, "${{ params.shards }}", 1.10]
    env: { DEPTH: "${{ params.shards }}", MODE: 0755 }
    python: { requirements: requirements.txt }
    timeout: 6h
    artifacts: { model: out/model.pkl }

  evaluate:
    needs: [train]
    run: |
      python evaluate.py "$REFIT_INPUTS/candidate"
    inputs: { candidate: "${{ steps.train.artifacts.model }}" }
    artifacts: { predictions: predictions.parquet }

  gate:
    needs: [evaluate]
    gate:
      checks:
        - { metric: roc_auc, min: 0.80 }
        - { metric: roc_auc, min_change: 0 }
        - { expr: "steps.train.metrics.psi_max < 0.2", because: "inputs drifted" }
      no_champion: absolute

  approve:
    needs: [gate]
    if: steps.gate.verdict == "inconclusive" || params.region == "eu"
    approval: { from: [ml-leads], timeout: 24h, on_timeout: reject }

  promote:
    needs: [gate, approve]
    promote: { artifact: "${{ steps.train.artifacts.model }}", alias: champion }

  announce:
    needs: [promote]
    if: always()
    emit: { type: churn.retrained, data: { state: "${{ run.state }}", version: "${{ steps.promote.outputs.version }}", n: 3 } }
"#;

fn workflow(text: &str) -> Result<Workflow, Problems> {
    one(text, &NoFiles)
}

fn refused(text: &str) -> Vec<Problem> {
    workflow(text).err().unwrap_or_else(|| panic!("accepted:\n{text}")).0
}

#[test]
fn the_example_of_the_language_is_understood() {
    let churn = workflow(CHURN).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!((churn.name.as_str(), churn.model.as_deref(), churn.steps.len()), ("churn", Some("churn"), 6));
    let Trigger::Event(event) = &churn.triggers[0] else { panic!("no event trigger") };
    assert!(
        event.pattern.matches(&json!({"type": "dataset.updated", "data": {"table": "customers", "rows": 3}}))
    );
    assert!(
        !event
            .pattern
            .matches(&json!({"type": "dataset.updated", "data": {"table": "customers", "rows": 0}}))
    );
    assert_eq!(event.batch.as_ref().unwrap().max_wait, Some(Duration::from_secs(1800)));
    assert_eq!(event.params["shards"].render(&crate::expression::Scope::default()), Ok(json!(4)));
    let Trigger::Cron(cron) = &churn.triggers[1] else { panic!("no cron trigger") };
    assert_eq!((cron.schedule.source(), cron.catch_up), (("0 3 * * MON", "Europe/Berlin"), CatchUp::Last));

    let (train, process) = work(&churn.steps[0]);
    let Command::Arguments(arguments) = &process.command else { panic!("no argument list") };
    assert_eq!(
        arguments.iter().map(|a| a.source()).collect::<Vec<_>>()[4],
        "1.10",
        "text is kept as it is written"
    );
    assert_eq!(process.env["MODE"].source(), "0755");
    assert_eq!((train.timeout, train.retry.attempts), (Duration::from_secs(6 * 3600), 2));
    let (evaluate, process) = work(&churn.steps[1]);
    assert_eq!(evaluate.timeout, Duration::from_secs(2 * 3600), "the default of the file");
    assert!(matches!(&process.command, Command::Shell(script) if script.starts_with("python evaluate.py")));
    let Verb::Gate(gate) = &churn.steps[2].verb else { panic!("gate is no gate") };
    assert!(matches!(&gate.checks[0], Check::Bounds { min: Some(min), .. } if *min == 0.8));
    assert_eq!(gate.no_champion, NoChampion::Absolute);
    let Verb::Approval(approval) = &churn.steps[3].verb else { panic!("approve does not wait") };
    assert_eq!(
        (approval.from.as_slice(), approval.on_timeout),
        (["ml-leads".to_owned()].as_slice(), OnTimeout::Reject)
    );
    let Verb::Promote(promote) = &churn.steps[4].verb else { panic!("promote does not promote") };
    assert_eq!((&promote.candidate, promote.gates.as_slice()), (&(0, "model".to_owned()), [2].as_slice()));
    assert_eq!(churn.steps[4].needs, [2, 3]);
    assert_eq!((churn.concurrency.limit, churn.concurrency.on_conflict), (1, OnConflict::Coalesce));
}

fn work(step: &Step) -> (&Work, &RunTask) {
    match (step.verb.work(), step.verb.process()) {
        (Some(work), Some(process)) => (work, process),
        _ => panic!("{} runs no process", step.name),
    }
}

#[test]
fn what_is_left_out_has_a_default() {
    let small = workflow("workflow: w\nsteps: { a: { run: 'true' } }\n").unwrap();
    assert!(small.triggers.is_empty() && small.concurrency.key.is_none());
    assert_eq!(small.concurrency.on_conflict, OnConflict::Parallel);
    let (run, _) = work(&small.steps[0]);
    assert_eq!((run.timeout, run.retry.attempts), (Duration::from_secs(3600), 1));
    let queued = workflow("workflow: w\nconcurrency: { limit: 3 }\nsteps: { a: { run: [a] } }\n").unwrap();
    assert_eq!((queued.concurrency.limit, queued.concurrency.on_conflict), (3, OnConflict::Queue));
}

#[test]
fn hints_say_what_would_be_right() {
    let hint = |text: &str| refused(text)[0].hint.clone().unwrap_or_default();
    assert_eq!(hint("workflow: w\nsteps: { a: { run: [a], need: [] } }\n"), "did you mean `needs`?");
    assert_eq!(
        hint("workflow: w\nsteps: { train: { run: [a] }, b: { needs: [tran], run: [b] } }\n"),
        "did you mean `train`?"
    );
    assert!(hint("workflow: w\nsteps: { a: { run: 'echo ${{ run.name }}' } }\n").contains("env: {"));
    assert!(hint("workflow: w\nsteps: { a-b: { run: [a] }, b: { needs: [a-b], if: steps.a-b.state == 'x', run: [b] } }\n")
        .contains("steps[\"a-b\"]"));
    assert!(
        hint("workflow: w\nsteps: { a: { run: [a] }, b: { if: steps.a.state == 'failed', run: [b] } }\n")
            .contains("needs: [a]")
    );
    let many = "workflow: w\nsteps: { t: { run: [a], matrix: { x: [1] } }, b: { needs: [t], if: steps.t.metrics.auc > 0.5, run: [b] } }\n";
    assert!(hint(many).contains("select: { from: t,") && hint(many).contains("steps.t.instances"));
    let known =
        "workflow: w\nsteps: { e: { evaluate: { predictions: p.csv, label: y, metrics: [acuracy] } } }\n";
    assert_eq!(hint(known), "did you mean `accuracy`?");
    let cycle = refused("workflow: w\nsteps: { a: { needs: [b], run: [a] }, b: { needs: [a], run: [b] } }\n");
    assert!(cycle[0].message.ends_with("a -> b -> a"), "{}", cycle[0].message);
}

#[test]
fn spans_cover_the_offending_text() {
    let problems = refused("workflow: w\nsteps:\n  träin: { run: [a] }\n  b: { run: [b], tiemout: 1h }\n");
    let spans: Vec<_> = problems
        .iter()
        .map(|p| (p.code.as_str(), p.position.line, p.position.column, p.position.length))
        .collect();
    assert_eq!(spans, [("name", 3, 3, 5), ("unknown-key", 4, 18, 7)]);
}

/// Changes each key of a sound file in turn and expects to hear of it on its line. `free` are names of the author's own.
fn assert_no_misspelt_key_goes_unnoticed(text: &str, free: &[&str]) -> usize {
    let mut tried = 0;
    for (start, _) in text.match_indices(": ") {
        let key_start =
            text[..start].rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
        let key = &text[key_start..start];
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = text[..line_start].lines().count() + 1;
        if key.is_empty() || free.contains(&key) || text[line_start..start].contains('#') {
            continue;
        }
        let changed = format!("{}{key}x{}", &text[..key_start], &text[start..]);
        let problems = refused(&changed);
        let is_told = problems.iter().any(|problem| problem.position.line as usize == line);
        assert!(is_told, "{key} on line {line}: {problems:#?}");
        tried += 1;
    }
    tried
}

#[test]
fn no_misspelt_key_of_the_example_goes_unnoticed() {
    let free = [
        "table",
        "rows",
        "region",
        "shards",
        "DEPTH",
        "MODE",
        "model",
        "candidate",
        "predictions",
        "state",
        "version",
        "n",
        "data",
        "type",
    ];
    assert!(assert_no_misspelt_key_goes_unnoticed(CHURN, &free) > 40);
}

/// Snippets, each with every problem it has: `line:column code`. `W` stands for a sound head, `S` for sound steps.
type Broken = &'static [(&'static str, &'static [&'static str])];

fn assert_broken(broken: Broken) {
    let mut wrong = Vec::new();
    for (text, expected) in broken {
        let text = match text.strip_prefix("W\n") {
            Some(rest) => format!("workflow: w\n{}", rest.replace("\nS", "\nsteps: { a: { run: [a] } }\n")),
            None => (*text).to_owned(),
        };
        let problems = match workflow(&text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.0,
        };
        let found: Vec<String> = problems
            .iter()
            .map(|p| format!("{}:{} {}", p.position.line, p.position.column, p.code))
            .collect();
        if found != *expected {
            let messages: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
            wrong.push(format!("{text}\n  found    {found:?}\n  expected {expected:?}\n  {messages:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), broken.len(), wrong.join("\n"));
}

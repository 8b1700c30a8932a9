//! What the language accepts, and for everything it refuses: code, line, column.

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::definition::{CatchUp, Command, OnTimeout, Problem, RunTask, Trigger, Work};
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

/// Each snippet with every problem it has: `line:column code`. `W` stands for a sound head, `S` for sound steps.
const BROKEN: &[(&str, &[&str])] = &[
    // the file
    ("", &["1:1 empty"]),
    ("- a\n", &["1:1 wrong-type"]),
    ("hello\n", &["1:1 wrong-type"]),
    ("workflow: w\n", &["1:1 missing-key"]),
    ("steps: { a: { run: [a] } }\n", &["1:1 missing-key"]),
    ("workflow: w\nsteps: {}\n", &["2:1 missing-key"]),
    ("workflow: w\nsteps:\n  a: { run: [a] }\nworkflow: x\n", &["4:1 duplicate-key"]),
    ("workflow: w\nsteps:\n  a: { run: [a] }\n  a: { run: [b] }\n", &["4:3 duplicate-key"]),
    ("workflow: w\nsteps: &s\n  a: { run: [a] }\n", &["2:8 anchor"]),
    ("workflow: !x w\nsteps: { a: { run: [a] } }\n", &["1:11 tag"]),
    ("workflow: ~\nsteps: { a: { run: [a] } }\n", &["1:11 wrong-type"]),
    ("workflow: My Flow\nsteps: { a: { run: [a] } }\n", &["1:11 name"]),
    ("workflow: w\nstep: { a: { run: [a] } }\n", &["2:1 unknown-key"]),
    ("workflow: w\ncolour: red\nsteps: { a: { run: [a] } }\n", &["2:1 unknown-key"]),
    (
        "workflow: w\ncooldown: 1h\nfinally: {}\nsteps: { a: { run: [a] } }\n",
        &["2:1 not-supported", "3:1 not-supported"],
    ),
    ("workflow: w\nsteps: { a: { run: [a] } }\n---\nworkflow: x\n", &["3:1 not-supported"]),
    // params, concurrency, defaults
    ("W\nparams: { p: { type: text } }\nS", &["2:22 value"]),
    ("W\nparams: { p: { type: integer, default: 1.5 } }\nS", &["2:40 wrong-type"]),
    ("W\nparams: { p: { type: string, default: 5 } }\nS", &["2:39 wrong-type"]),
    ("W\nparams: { p: { type: boolean, default: yes } }\nS", &["2:40 wrong-type"]),
    ("W\nparams: { p: { type: number, default: .nan } }\nS", &["2:39 number"]),
    ("W\nparams: { p: { type: number, default: 1e400 } }\nS", &["2:39 number"]),
    ("W\nparams: { P Q: { type: number, defualt: 1 } }\nS", &["2:11 name", "2:32 unknown-key"]),
    (
        "W\nconcurrency: { key: steps.a, limit: 0, on_conflict: skip }\nS",
        &["2:21 unknown-name", "2:37 number", "2:53 not-supported"],
    ),
    (
        "W\ndefaults: { timeout: 0s, retry: { attempts: 101, backoff: 5 } }\nS",
        &["2:22 duration", "2:45 number", "2:59 duration"],
    ),
    ("W\ndefaults: { retry: { backoff: 1m, max_backoff: 10s } }\nS", &["2:48 duration"]),
    // triggers
    ("W\non: { cron: '0 3 * * *' }\nS", &["2:5 wrong-type"]),
    ("W\non: [{ timezone: UTC }]\nS", &["2:6 missing-key"]),
    ("W\non: [{ evnt: { type: [a] } }]\nS", &["2:8 unknown-key"]),
    ("W\non: [{ all: [], within: 6h }]\nS", &["2:8 not-supported"]),
    ("W\non: [{ cron: '* * * * * *' }]\nS", &["2:14 schedule"]),
    ("W\non: [{ cron: '0 0 31 2 *' }]\nS", &["2:14 schedule"]),
    (
        "W\non: [{ cron: '0 3 * * *', timezone: Mars/X, catch_up: some, batch: { count: 1 } }]\nS",
        &["2:37 schedule", "2:55 value", "2:61 misplaced-key"],
    ),
    ("W\non: [{ event: { type: dataset.updated } }]\nS", &["2:17 pattern"]),
    ("W\non: [{ event: { data: { n: [1, { contains: x }] } } }]\nS", &["2:32 pattern"]),
    (
        "W\non: [{ event: { type: [a] }, where: 'data.rows >', by: params.x }]\nS",
        &["2:49 expression", "2:56 unknown-name"],
    ),
    ("W\non: [{ event: { type: [a] }, where: '${{ data.x }}' }]\nS", &["2:37 expression"]),
    ("W\non: [{ event: { type: [a] }, batch: {} }]\nS", &["2:30 missing-key"]),
    (
        "W\non: [{ event: { type: [a] }, batch: { count: 0, quiet: 1h, max_wait: 1m, sum: {} } }]\nS",
        &["2:46 number", "2:49 duration", "2:74 not-supported"],
    ),
    (
        "W\non: [{ event: { type: [a] }, params: { x: '${{ batch.kye }}' } }]\nS",
        &["2:40 unknown-param", "2:48 unknown-name"],
    ),
    ("W\nparams: { p: { type: string } }\non: [{ cron: '0 3 * * *' }]\nS", &["3:8 missing-param"]),
    (
        "W\nparams: { p: { type: integer, default: 1 } }\non: [{ cron: '0 3 * * *', params: { p: two } }]\nS",
        &["3:40 wrong-type"],
    ),
    // steps
    (
        "W\nsteps:\n  a: { need: [b], run: [a] }\n  b: { run: [b], tiemout: 1h }\n",
        &["3:8 unknown-key", "4:18 unknown-key"],
    ),
    ("W\nsteps: { a: { needs: [] } }\n", &["2:10 no-verb"]),
    ("W\nsteps: { a: { rum: [a] } }\n", &["2:15 unknown-key"]),
    ("W\nsteps: { a: { run: [a], emit: { type: t } } }\n", &["2:25 many-verbs"]),
    ("W\nsteps: { a: { validate: {} } }\n", &["2:15 not-supported"]),
    (
        "W\nsteps: { a: { run: [a], matrix: { x: [1] }, cache: true } }\n",
        &["2:25 not-supported", "2:45 not-supported"],
    ),
    (
        "W\nsteps: { a: { emit: { type: t }, env: { A: b }, timeout: 1h } }\n",
        &["2:34 misplaced-key", "2:49 misplaced-key"],
    ),
    (
        "W\nsteps:\n  a: { needs: [c, b, b], run: [a] }\n  b: { run: [b] }\n",
        &["3:16 unknown-step", "3:22 duplicate-need"],
    ),
    ("W\nsteps: { a: { needs: b, run: [a] }, b: { run: [b] } }\n", &["2:22 wrong-type"]),
    ("W\nsteps: { a: { needs: [a], run: [a] } }\n", &["2:23 cycle"]),
    (
        "W\nsteps:\n  a: { needs: [c], run: [a] }\n  b: { needs: [a], run: [b] }\n  c: { needs: [b], run: [c] }\n  d: { needs: [e], run: [d] }\n  e: { needs: [d], run: [e] }\n",
        &["3:16 cycle", "6:16 cycle"],
    ),
    ("W\nsteps: { -rf: { run: [a] }, A: { run: [a] } }\n", &["2:10 name", "2:29 name"]),
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [aa], run: [b] }, c: { needs: [b], if: steps.a.state == 'x', run: [c] } }\n",
        &["2:40 unknown-step"],
    ),
    // run
    ("W\nsteps: { a: { run: [] } }\n", &["2:20 value"]),
    ("W\nsteps: { a: { run: '' } }\n", &["2:20 value"]),
    ("W\nsteps:\n  a:\n    run: |\n      set -e\n      echo ${{ params.x }}\n", &["6:12 unsafe-shell"]),
    (
        "W\nparams: { x: { type: string } }\nsteps: { a: { run: [bash, -ec, 'echo ${{ params.x }}'] } }\n",
        &["3:32 unsafe-shell"],
    ),
    (
        "W\nparams: { x: { type: string } }\nsteps: { a: { run: [env, python3.12, -u, -c, 'print(${{ params.x }})'] } }\n",
        &["3:46 unsafe-shell"],
    ),
    (
        "W\nparams: { x: { type: string } }\nsteps: { a: { run: ['${{ params.x }}'] } }\n",
        &["3:21 unsafe-shell"],
    ),
    (
        "W\nsteps: { a: { run: [a], env: { 1A: x, REFIT_X: x, PARAM_Y: x, LD_PRELOAD: x, 'A=B': x } } }\n",
        &["2:32 name", "2:39 reserved-name", "2:51 reserved-name", "2:63 reserved-name", "2:78 name"],
    ),
    ("W\nsteps: { a: { run: [a], env: { A: ~, B: [x] } } }\n", &["2:35 wrong-type", "2:41 wrong-type"]),
    (
        "W\nsteps: { a: { run: [a], artifacts: { m: /etc/passwd, n: ../x, o: 'C:\\x', p: a/../../x } } }\n",
        &["2:41 path", "2:57 path", "2:66 path", "2:77 path"],
    ),
    ("W\nsteps: { a: { run: [a], python: { requirement: r.txt } } }\n", &["2:35 unknown-key"]),
    (
        "W\nsteps: { a: { run: [a], timeout: 1h30, retry: { attempts: many } } }\n",
        &["2:34 duration", "2:59 number"],
    ),
    ("W\nsteps: { a: { run: [a, 'x ${{ params.y'] } }\n", &["2:27 template"]),
    // what expressions read
    ("W\nsteps: { a: { run: [a, '${{ params.y }}'] } }\n", &["2:29 unknown-param"]),
    ("W\nsteps: { a: { if: step.b.state == 'x', run: [a] } }\n", &["2:19 unknown-name"]),
    ("W\nsteps: { a: { if: steps.b.state == 'x', run: [a] } }\n", &["2:19 unknown-step"]),
    ("W\nsteps: { a: { run: [a] }, b: { if: steps.a.state == 'x', run: [b] } }\n", &["2:36 not-ancestor"]),
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [a], if: steps.a.stat == 'x', run: [b] } }\n",
        &["2:48 unknown-name"],
    ),
    (
        "W\nsteps: { a: { run: [a], artifacts: { m: m } }, b: { needs: [a], run: [b], inputs: { i: '${{ steps.a.artifacts.n }}' } } }\n",
        &["2:93 unknown-artifact"],
    ),
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [a], run: [b], inputs: { i: '${{ params }}' } } }\n",
        &["2:67 value"],
    ),
    (
        "W\nsteps: { a: { run: [a] }, b: { needs: [a], if: steps.a.verdict == 'pass', run: [b] } }\n",
        &["2:48 unknown-name"],
    ),
    ("W\nsteps: { a: { run: [a, '${{ failed() }}'] } }\n", &["2:24 expression"]),
    ("W\nsteps: { a: { run: [a, '${{ champion.version }}'] } }\n", &["2:29 missing-key"]),
    ("W\nsteps: { a: { run: [a, '${{ matrix.depth }}'] } }\n", &["2:29 not-supported"]),
    ("W\nsteps: { a: { if: lower(run.state), run: [a] } }\n", &["2:19 expression"]),
    // gate, approval, promote, emit
    ("W\nsteps: { a: { run: [a] }, g: { needs: [a], gate: { checks: [] } } }\n", &["2:52 value"]),
    ("W\nsteps: { g: { gate: { checks: [{ metric: m, min: 1 }] } } }\n", &["2:15 missing-key"]),
    (
        "W\nsteps: { a: { run: [a] }, g: { needs: [a], gate: { checks: [{ metric: m }, { min: 1 }, { metric: m, min: 2, max: 1 }, { metric: m, min: 80% }, { metric: m, min: .inf }] } } }\n",
        &["2:61 missing-key", "2:76 missing-key", "2:88 value", "2:137 number", "2:162 number"],
    ),
    (
        "W\nsteps: { a: { run: [a] }, g: { needs: [a], gate: { alpha: 0.05, checks: [{ metric: m, role: success }, { metric: m, min_change: 0 }] } } }\n",
        &["2:52 not-supported", "2:87 not-supported", "2:104 missing-key"],
    ),
    (
        "W\nsteps: { a: { run: [a] }, g: { needs: [a], gate: { checks: [{ expr: 'steps.a.metrics.x >' }] } } }\n",
        &["2:89 expression"],
    ),
    ("W\nsteps: { a: { approval: { on_timeout: approve } } }\n", &["2:27 misplaced-key"]),
    (
        "W\nsteps: { a: { approval: { from: leads, timeout: 40d, on_timeout: maybe } } }\n",
        &["2:33 wrong-type", "2:49 duration", "2:66 value"],
    ),
    (
        "W\nmodel: m\nsteps: { a: { run: [a], artifacts: { m: m } }, p: { needs: [a], promote: { artifact: '${{ steps.a.artifacts.m }}' } } }\n",
        &["3:48 ungated-promotion"],
    ),
    (
        "W\nsteps: { a: { run: [a], artifacts: { m: m } }, g: { needs: [a], gate: { checks: [{ metric: x, min: 0 }] } }, p: { needs: [g], promote: { artifact: '${{ steps.a.artifacts.m }}', alias: A B } } }\n",
        &["2:127 missing-key", "2:185 name"],
    ),
    (
        "W\nsteps: { a: { emit: { type: refit.run.succeeded, data: x } } }\n",
        &["2:29 reserved-name", "2:56 wrong-type"],
    ),
    ("W\nsteps: { a: { emit: { subject: s } } }\n", &["2:15 missing-key"]),
];

#[test]
fn every_problem_has_its_code_and_its_place() {
    let mut wrong = Vec::new();
    for (text, expected) in BROKEN {
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
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), BROKEN.len(), wrong.join("\n"));
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
        hint("workflow: w\nsteps: { a: { run: [a] }, b: { if: steps.a.state == 'x', run: [b] } }\n")
            .contains("needs: [a]")
    );
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

/// A change of one key of the sound example is found, whichever it is.
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
    let mut tried = 0;
    for (start, _) in CHURN.match_indices(": ") {
        let key_start =
            CHURN[..start].rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
        let key = &CHURN[key_start..start];
        let line = CHURN[..start].lines().count();
        if key.is_empty()
            || free.contains(&key)
            || CHURN.lines().nth(line - 1).is_some_and(|l| l.starts_with('#'))
        {
            continue;
        }
        let text = format!("{}{key}x{}", &CHURN[..key_start], &CHURN[start..]);
        let problems = refused(&text);
        assert!(
            problems.iter().any(|p| p.position.line as usize == line),
            "{key} on line {line}: {problems:#?}"
        );
        tried += 1;
    }
    assert!(tried > 40, "only {tried} keys");
}

fn within(limit: Duration, name: &str, text: &str) -> Vec<Problem> {
    let started = Instant::now();
    let problems = workflow(text).err().map(|problems| problems.0).unwrap_or_default();
    assert!(started.elapsed() < limit, "{name} took {:?}", started.elapsed());
    problems
}

#[test]
fn hostile_files_are_refused_in_bounded_time() {
    let bomb: String = (1..10)
        .map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", ")))
        .fold("a0: &a0 x\n".to_owned(), |text, line| text + &line);
    let deep = |n: usize| (0..n).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>();
    let keys: String = (0..20_000).map(|n| format!("k{n}: 1\n")).collect();
    let steps = format!(
        "workflow: w\nsteps:\n{}",
        (0..11_000).map(|n| format!("  s{n}: {{}}\n")).collect::<String>()
    );
    let same = format!("workflow: w\n{}", "a: 1\n".repeat(40_000));
    for (name, text, code) in [
        ("alias bomb", bomb, "anchor"),
        ("brackets", "[".repeat(200_000), "too-deep"),
        ("braces", "{a: ".repeat(50_000), "too-deep"),
        ("question marks", "? ".repeat(20_000), "too-deep"),
        ("deep blocks", deep(600), "too-deep"),
        ("many keys", keys, "unknown-key"),
        ("equal keys", same, "duplicate-key"),
        ("too many steps", steps, "too-many"),
        ("too large", "a".repeat(300_000), "too-large"),
        ("a long scalar", "a".repeat(200_000), "wrong-type"),
        ("commas", format!("workflow: [{}]", ",".repeat(200_000)), "yaml-syntax"),
        ("documents", "---\n".repeat(10_000), "not-supported"),
        ("dashes", "- ".repeat(100_000), "too-deep"),
        ("colons", ": ".repeat(100_000), "too-deep"),
        ("quotes", "\"".repeat(200_001), "yaml-syntax"),
        ("block header", "a: |9999\n".repeat(1000), "yaml-syntax"),
    ] {
        let problems = within(Duration::from_secs(10), name, &text);
        assert!(!problems.is_empty() && problems.len() <= 100, "{name}: {} problems", problems.len());
        assert!(problems.iter().any(|problem| problem.code == code), "{name}: {:?}", problems[0]);
    }
}

#[test]
fn two_thousand_steps_in_a_chain_are_a_workflow() {
    let steps = |n: usize| match n {
        0 => "  s0: { run: [\"true\"] }\n".to_owned(),
        n => format!(
            "  s{n}: {{ needs: [s{}], run: [\"true\"], if: \"steps.s0.state == 'succeeded'\" }}\n",
            n - 1
        ),
    };
    let text = format!("workflow: w\nsteps:\n{}", (0..2000).map(steps).collect::<String>());
    let started = Instant::now();
    let chain = workflow(&text).unwrap_or_else(|problems| panic!("{:?}", problems.0[0]));
    assert!(started.elapsed() < Duration::from_secs(30), "took {:?}", started.elapsed());
    assert_eq!((chain.steps.len(), chain.ancestors(1999).len()), (2000, 1999));
}

proptest::proptest! {
    /// Whatever the bytes: an answer, not a panic; and a refusal lists at least one problem, in order.
    #[test]
    fn any_text_gets_an_answer(text in "([a-z]{1,8}: |- |\\[|\\]|\\{|\\}|, |\n|  |\"|'|\\$\\{\\{ | \\}\\}|[a-z0-9&*!|>%@é\u{0}]|steps:\n|run: |if: ){0,60}") {
        if let Err(problems) = workflow(&text) {
            assert!(!problems.is_empty());
            assert!(problems.0.is_sorted_by_key(|problem| problem.position));
        }
    }

    /// A piece cut out of the sound example never panics and never yields a workflow without a step.
    #[test]
    fn a_damaged_example_gets_an_answer(from in 0..CHURN.len(), length in 0_usize..200) {
        let to = (from + length).min(CHURN.len());
        let text = format!("{}{}", &CHURN[..from], &CHURN[to..]);
        if let Ok(found) = workflow(&text) {
            assert!(!found.steps.is_empty());
        }
    }
}

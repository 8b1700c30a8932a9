//! The whole language in one file: it is understood, and what cannot be run yet is listed.

use serde_json::json;

use super::{assert_no_misspelt_key_goes_unnoticed, work, workflow};
use crate::definition::{
    Axis, DriftMethod, EvaluatedMetric, Inspect, MatrixValues, Metric, OnConflict, OnExpire, Packages,
    SelectOrder, Task, Trigger, Verb, Workflow,
};
use crate::gate::{Check, Direction, OnInconclusive, Role};

pub(super) const WHOLE: &str = r#"# yaml-language-server: $schema=./workflow.schema.json
workflow: churn
description: Retrain the churn model when the customer table changes.
model: churn                              # the registered model this workflow retrains

on:
  - event:                                # an EventBridge pattern over the whole CloudEvent
      type: [dataset.updated]
      data: { table: [customers], rows: [{ numeric: [">", 0] }] }
    where: data.rows <= 5000000           # optional CEL, for what a pattern cannot say
    by: data.region                       # optional CEL; one batch (and one run) per key
    batch:                                # optional; without it every event fires at once
      quiet: 2m                           # fire when nothing new came for 2 minutes,
      max_wait: 30m                       # at the latest 30 minutes after the first event,
      count: 10000                        # or at this many events,
      sum: { of: data.rows, at_least: 1000000 }   # or at this much data
    params: { region: "${{ batch.key }}" }
  - all:                                  # a join: every pattern seen within the window
      - { type: [features.ready] }
      - { type: [labels.ready] }
    by: data.day
    within: 6h
  - cron: "0 3 * * MON"
    timezone: Europe/Berlin
    catch_up: last                        # none | last | all

params:
  region: { type: string, default: eu }

concurrency:
  key: params.region                      # CEL; default: the workflow
  limit: 1
  on_conflict: coalesce                   # coalesce | queue | skip | cancel_running | parallel
cooldown: 1h                              # at least this long between two runs of a key

defaults:
  timeout: 2h
  retry: { attempts: 2, backoff: 10s, max_backoff: 5m }

steps:
  validate:
    validate:                             # built in: data checks on CSV, JSON Lines or Parquet
      data: "${{ params.region }}/customers.parquet"
      checks:
        - rows: { min: 1000, change: { max: 50% } }
        - column: age
          missing: { max: 1% }
          between: [0, 120]
        - drift: { columns: [age, balance], method: psi, max: 0.2 }

  train:
    needs: [validate]
    run: [python, train.py]               # an argument list, or a string for sh
    env: { DEPTH: "${{ matrix.depth }}" }
    matrix: { depth: [4, 8, 12] }         # one instance each, in parallel
    python: { requirements: requirements.txt }    # a cached environment, built once per host
    needs_host: { gpus: 1, memory: 16GiB, labels: { zone: eu } }
    timeout: 6h
    checkpoint: ckpt/                     # kept across attempts, also on another host
    artifacts: { model: out/model.pkl }
    cache: true                           # same code, inputs, params and environment: reuse the outcome

  best:
    needs: [train]
    select: { from: train, by: metrics.auc, order: max }

  evaluate:
    needs: [best]
    run: [python, evaluate.py]            # gets the candidate's and the champion's artifacts
    inputs: { candidate: "${{ steps.best.artifacts.model }}" }
    artifacts: { predictions: predictions.parquet }

  compare:
    needs: [evaluate]
    evaluate:                             # built in: metrics of both models from paired predictions
      predictions: "${{ steps.evaluate.artifacts.predictions }}"
      label: churned
      metrics: [roc_auc, accuracy, log_loss]
      by: [country]

  gate:
    needs: [compare]
    gate:
      checks:
        - { metric: roc_auc, min: 0.80 }                                   # absolute
        - { metric: roc_auc, role: success, direction: higher }            # significantly better
        - { metric: accuracy, role: guardrail, margin: 0.005 }             # proven not worse than this
        - { metric: recall, role: guardrail, margin: 0.02, by: country, min_examples: 200 }
        - { expr: "steps.validate.metrics.psi_max < 0.2", because: "inputs drifted" }
      alpha: 0.05
      no_champion: absolute               # judge the first model by the absolute checks alone
      inconclusive: approval              # fail | approval

  approve:
    needs: [gate]
    if: steps.gate.verdict == "inconclusive" || params.region == "eu"
    approval: { from: [ml-leads], timeout: 24h, on_timeout: reject }

  promote:
    needs: [gate, approve]
    promote: { artifact: "${{ steps.best.artifacts.model }}", alias: champion }

  announce:
    needs: [promote]
    call: { method: POST, url: "https://serving.internal/reload", json: { version: "${{ steps.promote.outputs.version }}" } }

finally:
  report:
    emit: { type: churn.retrained, data: { state: "${{ run.state }}" } }
"#;

fn whole() -> Workflow {
    workflow(WHOLE).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

#[test]
fn the_whole_language_is_understood() {
    let churn = whole();
    assert_eq!(churn.cooldown.map(|pause| pause.as_secs()), Some(3600));
    assert_eq!(churn.steps.len(), 10);
    let Trigger::Event(event) = &churn.triggers[0] else { panic!("no event trigger") };
    let sum = event.batch.as_ref().and_then(|batch| batch.sum.as_ref()).unwrap();
    assert_eq!((sum.of.source(), sum.at_least), ("data.rows", 1_000_000.0));
    let Trigger::Join(join) = &churn.triggers[1] else { panic!("no join") };
    assert_eq!((join.parts.len(), join.within.as_secs(), join.on_expire), (2, 21_600, OnExpire::Drop));

    let step = |name: &str| &churn.steps[churn.step_index(name).unwrap()];
    let matrix = step("train").matrix.as_ref().unwrap();
    let MatrixValues::Axes(axes) = &matrix.values else { panic!("no axes") };
    assert!(
        matches!(&axes[0], (name, Axis::Values(values)) if name == "depth" && *values == [json!(4), json!(8), json!(12)])
    );
    let (train, process) = work(step("train"));
    assert_eq!(process.requirements(), Some("requirements.txt"));
    assert_eq!((train.host.gpus, train.host.memory), (Some(1), Some(16 << 30)));
    assert_eq!(train.host.labels["zone"], "eu");
    assert_eq!(train.checkpoint.as_deref(), Some("ckpt/"));
    assert!(train.cache.as_ref().is_some_and(|cache| cache.key.is_none() && cache.ttl.is_none()));
    let Verb::Select(best) = &step("best").verb else { panic!("best selects nothing") };
    assert_eq!((best.from, best.by.source(), best.order), (1, "metrics.auc", SelectOrder::Max));
    let Verb::Promote(promote) = &step("promote").verb else { panic!("promote does not promote") };
    assert_eq!(promote.candidate, (2, "model".to_owned()));
    let Task::Call(call) = &step("announce").verb.work().unwrap().task else {
        panic!("announce calls nobody")
    };
    assert_eq!((call.method.as_str(), call.url.source()), ("POST", "https://serving.internal/reload"));
    assert!(step("report").finally && !step("announce").finally);
}

#[test]
fn data_checks_and_gates_are_typed() {
    let churn = whole();
    let Task::Validate(validate) = &churn.steps[0].verb.work().unwrap().task else {
        panic!("no data checks")
    };
    let Inspect::Rows { count, change: Some(change), usual: None } = &validate.checks[0].inspect else {
        panic!("no rows")
    };
    assert_eq!((count.min, change.max), (Some(1000.0), 0.5));
    let Inspect::Column { name, rules } = &validate.checks[1].inspect else { panic!("no column") };
    assert_eq!((name.as_str(), rules.len()), ("age", 2));
    let Inspect::Drift { method, columns, .. } = &validate.checks[2].inspect else { panic!("no drift") };
    assert_eq!((*method, columns.len()), (DriftMethod::Psi, 2));
    let Task::Evaluate(evaluate) = &churn.steps[4].verb.work().unwrap().task else { panic!("no evaluation") };
    assert_eq!(
        (evaluate.examples.label.as_str(), evaluate.examples.champion.as_str()),
        ("churned", "champion")
    );
    assert_eq!(evaluate.examples.metrics[2], EvaluatedMetric::Known(Metric::LogLoss));
    let Verb::Gate(gate) = &churn.steps[5].verb else { panic!("no gate") };
    assert_eq!((gate.alpha, gate.inconclusive), (0.05, OnInconclusive::Approval));
    let roles: Vec<Option<Role>> = gate
        .checks
        .iter()
        .map(|check| if let Check::Statistical(check) = check { Some(check.role) } else { None })
        .collect();
    let expected = [
        None,
        Some(Role::Success),
        Some(Role::Guardrail { margin: 0.005 }),
        Some(Role::Guardrail { margin: 0.02 }),
        None,
    ];
    assert_eq!(roles, expected);
}

#[test]
fn every_other_form_is_understood_too() {
    let text = r#"
workflow: forms
model: m
params: { host: { type: string, default: x } }
concurrency: { on_conflict: cancel_running, before: p }
outputs: { best: "${{ steps.b.outputs.score }}", count: "${{ batch.count }}" }
steps:
  list: { run: [python, list.py] }
  t:
    needs: [list]
    matrix: "${{ steps.list.outputs.shards }}"
    max_parallel: 4
    min_success: 80%
    run: [python, t.py, "${{ matrix.value }}"]
    artifacts: { m: m.bin }
    python: { version: "3.12", packages: [numpy==2.3], index_args: [--no-deps] }
    cache: { key: "${{ matrix.value }}", ttl: 2d }
  b: { needs: [t], select: { from: t, by: "metrics.loss + double(matrix.n) * 0.1", order: min } }
  c: { needs: [t], run: [python, c.py, "${{ steps.t.instances.filter(i, i.state == 'succeeded').size() }}"] }
  g:
    needs: [b]
    gate: { checks: [{ metric: log_loss, min_change: 0 }] }
  p: { needs: [g], promote: { artifact: "${{ steps.b.artifacts.m }}" } }
  child: { matrix: { region: [eu, us] }, workflow: { name: score, params: { region: "${{ matrix.region }}" } } }
  sub: { workflow: score }
  u: { call: { url: "${{ params.host }}", headers: { Authorization: "Bearer ${{ params.host }}" } } }
  v:
    needs: [list]
    validate:
      data: "${{ steps.list.outputs.path }}"
      checks:
        - { column: ts, fresh: { within: 2d }, type: timestamp, severity: warn }
        - { unique: [a, b], where: a > 0, because: keys }
        - { column: a, in: [x, y, 1], matches: "^.$", length: { min: 1 }, constant: false, unique: true }
        - { column: b, mean: { min: 0 }, median: { max: 1 }, sum: { min: 0, max: 9 }, quantile: { at: 99%, max: 5 } }
        - { label_share: { column: y, value: 1, min: 1%, max: 40%, change: { max: 10%, against: champion } } }
        - { overlap: { with: "s3://bucket/train.parquet", columns: [a], max: 0% } }
        - { drift: { columns: [a], method: js, max: 0.1, against: ref.parquet } }
  e:
    evaluate:
      predictions: /data/p.jsonl
      label: y
      weight: w
      cluster: user
      id: id
      group: query
      threshold: 0.7
      metrics: [ndcg@10, { name: revenue, candidate: rc, champion: rp, direction: higher }]
finally:
  z: { if: failed(), approval: {} }
  y: { needs: [z], run: [echo, "${{ steps.b.outputs.score }}"], inputs: { m: "${{ steps.b.artifacts.m }}" } }
"#;
    let forms = workflow(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let before = forms.step_index("p");
    assert_eq!(forms.concurrency.on_conflict, OnConflict::CancelRunning { before });
    let matrix = forms.steps[1].matrix.as_ref().unwrap();
    assert_eq!((matrix.max_parallel, matrix.min_success), (Some(4), 0.8));
    assert!(matches!(matrix.values, MatrixValues::List(_)));
    let (_, process) = work(&forms.steps[1]);
    let python = process.python.as_ref().unwrap();
    assert_eq!(
        (python.version.as_deref(), &python.packages),
        (Some("3.12"), &Packages::Listed(vec!["numpy==2.3".to_owned()]))
    );
    let Verb::Gate(gate) = &forms.steps[forms.step_index("g").unwrap()].verb else { panic!("no gate") };
    assert!(
        matches!(&gate.checks[0], Check::Change { direction: Direction::Lower, .. }),
        "a loss is better when it is lower, whether or not the file says so"
    );
    let last = &forms.steps[forms.steps.len() - 1];
    assert_eq!((last.finally, last.needs.as_slice()), (true, [forms.steps.len() - 2].as_slice()));
}

#[test]
fn no_misspelt_key_of_the_whole_language_goes_unnoticed() {
    // Fields of events and of the author's own mappings, and what is missed on another line.
    let free = [
        "table",
        "rows",
        "region",
        "DEPTH",
        "depth",
        "zone",
        "model",
        "candidate",
        "predictions",
        "state",
        "version",
        "data",
        "type",
    ];
    assert!(assert_no_misspelt_key_goes_unnoticed(WHOLE, &free) > 90);
}

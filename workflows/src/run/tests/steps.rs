//! Single steps, gates and promotions: each behaviour once.

use super::*;

const RETRAIN: &str = "
workflow: retrain
model: m
steps:
  train: { run: [a], artifacts: { model: m } }
  evaluate: { needs: [train], run: [b] }
  gate:
    needs: [evaluate]
    gate: { checks: [{ metric: accuracy, min: 0.5 }, { metric: accuracy, min_change: 0.0 }] }
  promote: { needs: [gate], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";

#[test]
fn a_champion_that_moved_is_judged_again_with_a_fresh_evaluation() {
    for (accuracy, ending) in [(0.9, "succeeded"), (0.8, "rejected")] {
        let mut run = new_run(&parse(RETRAIN));
        // Somebody else promotes a model of accuracy 0.85 just before this run does.
        let mut registry = Registry { champion: Some(champion(1, 0.7)), moved: true };
        let journal = drive(&mut run, &mut registry, accuracy);
        assert_eq!(run.head.state.name(), ending, "{}", image(&run));
        assert!(journal.iter().any(|input| matches!(input, Input::ChampionMoved { .. })));
        assert_eq!(run.head.champion.as_ref().map(|champion| champion.version), Some(2));
        let decision = run.steps[2].decision.clone().unwrap();
        assert_eq!(decision.champion, Some(2), "the verdict is about the champion of now");
        assert_eq!(run.steps[0].epoch, 1, "the candidate is not trained again");
        assert_eq!(run.steps[1].epoch, 2, "the evaluation is made again");
        let version = registry.champion.map(|champion| champion.version);
        assert_eq!(version, Some(if ending == "succeeded" { 3 } else { 2 }));
    }
}

#[test]
fn a_retry_carries_on_from_what_failed_and_keeps_what_worked() {
    let workflow = parse(
        "
workflow: w
steps:
  a: { run: [x] }
  b: { needs: [a], run: [x] }
  c: { needs: [b], run: [x] }
  when_failed: { needs: [b], if: failed(), run: [x] }
  d: { needs: [c], run: [x] }
",
    );
    let mut run = new_run(&workflow);
    let mut registry = Registry { champion: None, moved: false };
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    run.apply(&lease(0), NOW).unwrap();
    run.apply(&Input::Finished { step: 0, epoch: 1, outcome: success(0.9), set_up_ms: None }, NOW).unwrap();
    run.apply(&lease(1), NOW).unwrap();
    run.apply(&Input::Finished { step: 1, epoch: 1, outcome: failure(), set_up_ms: None }, NOW).unwrap();
    assert_eq!(run.steps[2].state.name(), "skipped");
    let held_back = Settled::Skipped { reason: "b failed".to_owned(), not_needed: false };
    assert_eq!(run.steps[4].state.settled(), Some(&held_back), "what held back its need is the reason");
    assert_eq!(run.steps[3].state.name(), "ready", "`if: failed()` runs because its need failed");
    run.apply(&lease(3), NOW).unwrap();
    run.apply(&Input::Finished { step: 3, epoch: 1, outcome: success(0.9), set_up_ms: None }, NOW).unwrap();
    assert_eq!(run.head.state.name(), "failed");

    run.apply(&Input::Retried { all: false, by: "ada".to_owned() }, NOW).unwrap();
    assert_eq!(run.head.state.name(), "waiting");
    let late = run.apply(&Input::Finished { step: 1, epoch: 1, outcome: success(0.9), set_up_ms: None }, NOW);
    assert_eq!(late, Err(Refused::AttemptOver), "what the old attempt says now changes nothing");
    drive(&mut run, &mut registry, 0.9);
    assert_eq!(run.head.state.name(), "succeeded");
    assert_eq!((run.steps[0].epoch, run.steps[1].epoch), (1, 2), "a is kept, b ran again");
    assert_eq!(run.steps[3].state.name(), "skipped", "nothing failed this time");
}

#[test]
fn a_retry_after_the_promotion_does_not_promote_again() {
    let text = RETRAIN.to_owned() + "  tell: { needs: [promote], run: [c] }\n";
    let mut run = new_run(&parse(&text));
    let mut registry = Registry { champion: Some(champion(4, 0.7)), moved: false };
    apply(&mut run, &Input::Admitted { champion: registry.champion.clone() }, NOW, &mut registry).unwrap();
    for (step, outcome) in [(0, success(0.9)), (1, success(0.9)), (4, failure())] {
        let leased = Input::Leased { step, worker: "w".to_owned(), session: "s".to_owned() };
        apply(&mut run, &leased, NOW, &mut registry).unwrap();
        apply(&mut run, &Input::Finished { step, epoch: 1, outcome, set_up_ms: None }, NOW, &mut registry)
            .unwrap();
    }
    assert_eq!((run.head.state.name(), run.head.promoted.as_ref().map(|it| it.version)), ("failed", Some(5)));
    run.apply(&Input::Retried { all: false, by: "ada".to_owned() }, NOW).unwrap();
    drive(&mut run, &mut registry, 0.9);
    assert_eq!(run.head.state.name(), "succeeded");
    assert_eq!(registry.champion.map(|champion| champion.version), Some(5), "one promotion");
    assert_eq!((run.steps[1].epoch, run.steps[4].epoch), (1, 2), "only what failed ran again");
}

#[test]
fn no_condition_promotes_against_a_persons_no() {
    let workflow = parse(
        "
workflow: w
model: m
steps:
  train: { run: [a], artifacts: { model: m } }
  gate: { needs: [train], gate: { checks: [{ metric: accuracy, min: 0.5 }] } }
  ok: { needs: [gate], approval: {} }
  promote: { needs: [gate, ok], if: always(), promote: { artifact: '${{ steps.train.artifacts.model }}' } }
",
    );
    let mut run = new_run(&workflow);
    let mut registry = Registry { champion: None, moved: false };
    drive(&mut run, &mut registry, 0.9);
    let no = decided(2, false, "ada", true);
    apply(&mut run, &no, NOW, &mut registry).unwrap();
    assert_eq!(run.steps[3].state.name(), "failed");
    assert!(registry.champion.is_none());
}

#[test]
fn exit_75_is_tried_again_without_being_counted() {
    let workflow = parse("workflow: w\nsteps:\n  a: { run: [x], retry: { attempts: 1, backoff: 1s } }\n");
    let mut run = new_run(&workflow);
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    let mut at = NOW;
    for attempt in 1..=UNCOUNTED_MAX + 1 {
        assert_eq!(run.steps[0].state.name(), "ready", "attempt {attempt}");
        run.apply(&Input::Leased { step: 0, worker: "w".to_owned(), session: "s".to_owned() }, at).unwrap();
        let outcome = Outcome::Failed { failure: Failure::RetryAsked, reason: "exit code 75".to_owned() };
        run.apply(&Input::Finished { step: 0, epoch: i64::from(attempt), outcome, set_up_ms: None }, at)
            .unwrap();
        if let Some(wake) = run.next_wake() {
            at = wake;
            assert!(run.apply(&Input::Ticked, wake.minus(Duration::from_millis(1))).is_err());
            run.apply(&Input::Ticked, at).unwrap();
        }
    }
    assert_eq!(run.head.state.name(), "failed", "it does not go on for ever");
}

#[test]
fn a_run_that_waits_takes_events_in_until_it_starts() {
    let workflow = parse("workflow: w\nsteps:\n  a: { run: [x] }\n");
    let mut run = new_run(&workflow);
    for count in [2, 5] {
        run.apply(&absorbed(count), NOW).unwrap();
    }
    assert_eq!((run.facts().batch.count, run.facts().params["n"].clone()), (5, json!(5)));
    assert_eq!(run.facts().coalesced, [RunName::new("older", 1)]);
    // The stored facts are the newest ones: a journal that is replayed over them ends with the same.
    let mut replayed = Run::create(Arc::clone(&workflow), run.facts().clone());
    for count in [2, 5] {
        replayed.apply(&absorbed(count), NOW).unwrap();
    }
    assert_eq!((replayed.facts(), image(&replayed)), (run.facts(), image(&run)));

    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    let refuse = |run: &mut Run| {
        let facts = run.facts().clone();
        assert!(run.apply(&absorbed(9), NOW).is_err());
        assert_eq!(run.facts(), &facts, "a refused input changes nothing");
    };
    refuse(&mut run);
    run.apply(&Input::Leased { step: 0, worker: "w".to_owned(), session: "s".to_owned() }, NOW).unwrap();
    run.apply(&Input::Finished { step: 0, epoch: 1, outcome: failure(), set_up_ms: None }, NOW).unwrap();
    refuse(&mut run);
    run.apply(&Input::Retried { all: true, by: "ada".to_owned() }, NOW).unwrap();
    refuse(&mut run);
}

#[test]
fn what_reads_a_value_that_could_not_be_handed_over_is_told_why() {
    let main = "workflow: w\nmodel: m\nsteps:\n  a: { uses: t.yaml, with: { auc: '${{ champion.metrics.auc }}' } }\n";
    let used = "with: { auc: { type: number } }\nrun: [a, '${{ with.auc }}']\n";
    let used = BTreeMap::from([("t.yaml".to_owned(), used.to_owned())]);
    let sources = definition::Sources { main: main.to_owned(), used };
    let run = new_run(&Arc::new(Workflow::parse_with(main, &sources).unwrap()));
    let scope = run.scope(&[], Some(0));
    let why = |text: &str| Expression::parse(text).unwrap().evaluate(&scope).unwrap_err().message;
    let told = why("with.auc > 0.5");
    assert!(told.starts_with("`with.auc` has no value: `champion.metrics.auc`"), "{told}");
    // What was never handed over is still a name that is missing.
    assert!(why("with.acu > 0.5").contains("there is no `acu`"));
}

#[test]
fn data_that_is_refused_is_an_answer_that_is_not_asked_for_again() {
    let workflow = parse(
        "
workflow: w
steps:
  make: { run: [x], artifacts: { table: out/table.parquet } }
  check:
    needs: [make]
    retry: { attempts: 3 }
    validate:
      data: '${{ steps.make.artifacts.table }}'
      checks:
        - rows: { change: { max: 10%, against: '${{ run.state }}/old.csv' } }
        - label_share: { column: y, value: 1, change: { max: 1%, against: champion } }
  train: { needs: [check], run: [x] }
finally:
  tell: { if: steps.check.metrics.rows < 10.0, run: [x, '${{ steps.check.outputs.outcome }}'] }
",
    );
    let mut run = new_run(&workflow);
    let apply = |run: &mut Run, input: Input| run.apply(&input, NOW).unwrap();
    apply(&mut run, Input::Admitted { champion: None });
    apply(&mut run, lease(0));
    let artifacts = BTreeMap::from([("table".to_owned(), artifact())]);
    let made = Outcome::Succeeded(Handed { artifacts, ..Handed::default() });
    apply(&mut run, Input::Finished { step: 0, epoch: 1, outcome: made, set_up_ms: None });
    apply(&mut run, lease(1));
    let order = run.order(1).unwrap();
    let crate::wire::OrderTask::Validate(order) = order.task else { panic!("no check of data") };
    let format = Some(crate::definition::DataFormat::Parquet);
    let table = crate::wire::DataRef::Artifact { artifact: artifact(), format };
    assert_eq!(order.data, table, "the path it was handed on under says the format");
    let old = crate::wire::DataRef::Path("running/old.csv".to_owned());
    assert_eq!(order.checks[0].other_data(), Some(&old));
    let text = serde_json::to_string(&order).unwrap();
    assert_eq!(serde_json::from_str::<crate::wire::ValidateOrder>(&text).unwrap(), *order);
    let refused = Outcome::Rejected {
        reason: "9 rows, at least 10 allowed".to_owned(),
        handed: Handed {
            outputs: BTreeMap::from([("outcome".to_owned(), json!("fail"))]),
            metrics: BTreeMap::from([("rows".to_owned(), 9.0)]),
            artifacts: BTreeMap::from([("report".to_owned(), artifact())]),
            ..Handed::default()
        },
    };
    apply(&mut run, Input::Finished { step: 1, epoch: 1, outcome: refused, set_up_ms: None });
    let view = run.view(&Live::default());
    let steps = view.steps.unwrap();
    assert_eq!((steps[1].state.as_str(), steps[1].attempt), ("rejected", 1));
    assert_eq!(steps[1].reason.as_deref(), Some("9 rows, at least 10 allowed"));
    assert!(steps[1].artifacts.contains_key("report"), "what shows why is there");
    assert_eq!(steps[2].state, "skipped");
    assert_eq!(steps[3].state, "ready", "an expression sees what it rests on");
    apply(&mut run, lease(3));
    apply(&mut run, Input::Finished { step: 3, epoch: 1, outcome: success(0.9), set_up_ms: None });
    assert_eq!(run.head.state.name(), "rejected");
}

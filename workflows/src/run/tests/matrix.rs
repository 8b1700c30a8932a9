//! Steps with a matrix, and what is chosen from them.

use super::*;

const SWEEP: &str = "
workflow: sweep
params: { shards: { type: string, default: '' } }
steps:
  list: { run: [a] }
  train: { needs: [list], run: [a], artifacts: { model: m } }
  best: { needs: [train], run: [a], artifacts: { model: m } }
  after: { needs: [best], run: [a], env: { AUC: '${{ steps.best.metrics.accuracy }}' } }
";

fn sweep(matrix: Matrix) -> Arc<Workflow> {
    changed(SWEEP, |workflow| {
        step(workflow, "train").matrix = Some(matrix);
        step(workflow, "best").verb = select(1, "metrics.accuracy");
        let Verb::Work(work) = &mut step(workflow, "train").verb else { panic!("no work") };
        let crate::definition::Task::Run(task) = &mut work.task else { panic!("no process") };
        task.env.insert("DEPTH".to_owned(), Template::parse("${{ matrix.depth }}").unwrap());
    })
}

fn started(workflow: &Arc<Workflow>) -> Run {
    let mut run = new_run(workflow);
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    work(&mut run, "list", success(0.9));
    run
}

#[test]
fn instances_run_side_by_side_and_the_best_one_is_chosen() {
    let mut run = started(&sweep(axis("depth", json!([4, 8, 12]))));
    assert_eq!(state(&run, "train"), "running");
    assert_eq!(run.ready_steps().count(), 3);
    let order = run.order(place(&run, "train[depth=8]")).unwrap();
    assert_eq!((env(order.clone())["DEPTH"].as_str(), order.key.step.as_str()), ("8", "train[depth=8]"));
    for (name, accuracy) in [("train[depth=4]", 0.8), ("train[depth=8]", 0.91), ("train[depth=12]", 0.91)] {
        assert_eq!(state(&run, "best"), "blocked");
        work(&mut run, name, success(accuracy));
    }
    assert_eq!(reason(&run, "train"), "3 of 3 instances succeeded");
    assert_eq!(reason(&run, "best"), "train[depth=8] has the highest metrics.accuracy: 0.91 (of 3)");
    let best = run.steps[place(&run, "best")].state.results().unwrap();
    assert_eq!((best.metrics["accuracy"], &best.artifacts["model"]), (0.91, &artifact()));
    assert_eq!(env(run.order(place(&run, "after")).unwrap())["AUC"], "0.91");

    let view = run.view(&Live::default());
    let steps = view.steps.unwrap();
    let names: Vec<&str> = steps.iter().map(|step| step.step.as_str()).collect();
    let expected = ["list", "train", "train[depth=4]", "train[depth=8]", "train[depth=12]", "best", "after"];
    assert_eq!(names, expected);
    assert_eq!(steps[2].group.as_deref(), Some("train"));
    assert_eq!(steps[1].instances.map(|counts| (counts.total, counts.succeeded)), Some((3, 3)));
}

#[test]
fn the_window_holds_and_a_share_that_is_out_of_reach_spares_the_rest() {
    let matrix = Matrix { max_parallel: Some(2), min_success: 0.8, ..axis("depth", json!([1, 2, 3, 4, 5])) };
    let mut run = started(&sweep(matrix));
    assert_eq!(run.ready_steps().count(), 2);
    work(&mut run, "train[depth=1]", success(0.9));
    let second = place(&run, "train[depth=2]");
    run.apply(&lease(second), NOW).unwrap();
    work(&mut run, "train[depth=3]", failure());
    assert_eq!((state(&run, "train[depth=4]"), state(&run, "train[depth=5]")), ("ready", "blocked"));
    work(&mut run, "train[depth=4]", failure());
    assert_eq!(state(&run, "train[depth=5]"), "skipped");
    assert_eq!(reason(&run, "train[depth=5]"), "2 of 5 instances did not succeed; 4 would have to");
    assert_eq!(state(&run, "train"), "running", "what has begun goes on");
    run.apply(&Input::Finished { step: second, epoch: 1, outcome: success(0.7), set_up_ms: None }, NOW)
        .unwrap();
    assert_eq!(
        reason(&run, "train"),
        "2 of 5 instances succeeded, 4 must: train[depth=3]: exit code 1; train[depth=4]: exit code 1"
    );
    assert_eq!(run.head.state.name(), "failed");
}

#[test]
fn a_sweep_may_lose_some() {
    let matrix = Matrix { min_success: 0.5, ..axis("depth", json!([1, 2])) };
    let mut run = started(&sweep(matrix));
    work(&mut run, "train[depth=1]", failure());
    work(&mut run, "train[depth=2]", success(0.9));
    assert_eq!(reason(&run, "train"), "1 of 2 instances succeeded: train[depth=1]: exit code 1");
    assert_eq!(reason(&run, "best"), "train[depth=2] has the highest metrics.accuracy: 0.9 (of 1)");
}

#[test]
fn what_is_no_number_is_not_chosen() {
    let bare = |value: Value| {
        Outcome::Succeeded(Handed {
            outputs: BTreeMap::from([("score".to_owned(), value)]),
            ..Handed::default()
        })
    };
    let workflow = sweep(axis("depth", json!([1, 2])));
    let by_score = changed(SWEEP, |by_score| {
        *by_score = Workflow::clone(&workflow);
        step(by_score, "best").verb = select(1, "outputs.score * double(matrix.depth)");
    });
    let mut run = started(&by_score);
    work(&mut run, "train[depth=1]", bare(json!(5.0)));
    work(&mut run, "train[depth=2]", bare(json!("much")));
    let said = reason(&run, "best");
    assert!(
        said.starts_with("train[depth=1] has the highest outputs.score * double(matrix.depth): 5 (of 1)"),
        "{said}"
    );
    assert!(said.contains("not eligible: train[depth=2]: "), "{said}");

    let mut run = started(&workflow);
    work(&mut run, "train[depth=1]", bare(json!(5.0)));
    work(&mut run, "train[depth=2]", bare(json!(6.0)));
    assert_eq!(state(&run, "best"), "failed");
    assert!(reason(&run, "best").contains("no instance of train has a number"), "{}", reason(&run, "best"));
}

#[test]
fn an_empty_matrix_has_nothing_to_do_and_a_wrong_one_fails() {
    let with = |template: &str| started(&sweep(dynamic(template)));
    let run = with("${{ [] }}");
    assert_eq!(
        (state(&run, "train"), reason(&run, "train")),
        ("succeeded", "the matrix is empty: there was nothing to do".to_owned())
    );
    assert_eq!(state(&run, "best"), "failed");
    let run = with("${{ steps.list.outputs.nothing }}");
    assert_eq!(state(&run, "train"), "failed");
    assert!(reason(&run, "train").contains("there is no `nothing`"), "{}", reason(&run, "train"));
    let run = with("${{ 'eu' }}");
    assert!(reason(&run, "train").contains("must be a list"), "{}", reason(&run, "train"));
}

#[test]
fn later_steps_read_all_instances() {
    let workflow = changed(SWEEP, |workflow| {
        step(workflow, "train").matrix = Some(axis("depth", json!([4, 8])));
        step(workflow, "best").condition =
            Some(Expression::parse("steps.train.instances.all(i, i.metrics.accuracy > 0.5)").unwrap());
    });
    let mut run = started(&workflow);
    work(&mut run, "train[depth=4]", success(0.9));
    work(&mut run, "train[depth=8]", success(0.4));
    assert_eq!(state(&run, "best"), "skipped");
    let scope = run.scope(&[vec!["steps".to_owned(), "train".to_owned(), "instances".to_owned()]], None);
    let instance = &scope.roots["steps"]["train"]["instances"][1];
    assert_eq!(instance["name"], "train[depth=8]");
    assert_eq!(instance["matrix"], json!({ "depth": 8 }));
    assert_eq!(instance["state"], "succeeded");
}

#[test]
fn a_retry_keeps_the_instances_that_worked() {
    let mut run = started(&sweep(axis("depth", json!([4, 8]))));
    work(&mut run, "train[depth=4]", success(0.9));
    work(&mut run, "train[depth=8]", failure());
    assert_eq!(run.head.state.name(), "failed");
    run.apply(&Input::Retried { all: false, by: "ada".to_owned() }, NOW).unwrap();
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    assert_eq!((state(&run, "train[depth=4]"), state(&run, "train[depth=8]")), ("succeeded", "ready"));
    let late = Input::Finished {
        step: place(&run, "train[depth=8]"),
        epoch: 1,
        outcome: success(0.1),
        set_up_ms: None,
    };
    assert_eq!(run.apply(&late, NOW), Err(Refused::AttemptOver));
    work(&mut run, "train[depth=8]", success(0.95));
    work(&mut run, "after", success(0.9));
    assert_eq!(run.head.state.name(), "succeeded");

    run.apply(&Input::Retried { all: true, by: "ada".to_owned() }, NOW).unwrap();
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    assert_eq!(state(&run, "train[depth=4]"), "blocked", "--all starts every instance again");
}

#[test]
fn a_matrix_that_changed_adds_places_and_skips_those_it_has_no_more() {
    let workflow = sweep(dynamic("${{ steps.list.outputs.list }}"));
    let mut run = new_run(&workflow);
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    work(&mut run, "list", success(0.9));
    // `matrix.depth` is not there: the list is of plain values.
    assert_eq!(state(&run, "train[1]"), "failed");
    assert_eq!(run.head.state.name(), "failed");
    run.apply(&Input::Retried { all: true, by: "ada".to_owned() }, NOW).unwrap();
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    let two = place(&run, "train[2]");
    work(&mut run, "list", success(0.8));
    assert_eq!(
        (state(&run, "train[1]"), reason(&run, "train[1]")),
        ("skipped", "not in the matrix any more".to_owned())
    );
    assert_eq!(place(&run, "train[2]"), two, "a name keeps its place");
    assert!(run.place_of("train[4]").is_some());
    check_invariants(&run);
}

#[test]
fn a_champion_that_moved_reopens_what_compares_with_it_and_not_the_sweep() {
    let text = "
workflow: sweep
model: m
steps:
  train: { run: [a], artifacts: { model: m } }
  best: { needs: [train], run: [a], artifacts: { model: m } }
  evaluate: { needs: [best], run: [b] }
  gate: { needs: [evaluate], gate: { checks: [{ metric: accuracy, min_change: 0.0 }] } }
  promote: { needs: [gate], promote: { artifact: '${{ steps.best.artifacts.model }}' } }
  plots: { needs: [evaluate], run: [b] }
";
    let workflow = changed(text, |workflow| {
        step(workflow, "train").matrix = Some(axis("depth", json!([4, 8])));
        step(workflow, "best").verb = select(0, "metrics.accuracy");
        step(workflow, "plots").matrix = Some(axis("kind", json!(["roc", "lift"])));
    });
    let mut run = new_run(&workflow);
    let mut registry = Registry { champion: Some(champion(1, 0.7)), moved: true };
    apply(&mut run, &Input::Admitted { champion: registry.champion.clone() }, NOW, &mut registry).unwrap();
    let mut report = |run: &mut Run, name: &str| {
        let step = place(run, name);
        if matches!(run.steps[step].state, StepState::Ready) {
            apply(run, &lease(step), NOW, &mut registry).unwrap();
        }
        let finished =
            Input::Finished { step, epoch: run.steps[step].epoch, outcome: success(0.9), set_up_ms: None };
        apply(run, &finished, NOW, &mut registry).unwrap();
        check_invariants(run);
    };
    report(&mut run, "train[depth=4]");
    report(&mut run, "train[depth=8]");
    report(&mut run, "evaluate");
    // The gate passed and the promotion found another champion; nothing of the sweep runs again.
    assert_eq!(
        (state(&run, "train"), state(&run, "best"), state(&run, "evaluate")),
        ("succeeded", "succeeded", "ready")
    );
    assert_eq!(state(&run, "plots"), "blocked");
    report(&mut run, "evaluate");
    report(&mut run, "plots[kind=roc]");
    report(&mut run, "plots[kind=lift]");
    assert_eq!(run.head.state.name(), "succeeded");
    assert_eq!(run.head.promoted.as_ref().map(|promoted| promoted.version), Some(3));
    assert_eq!(run.steps[place(&run, "train[depth=4]")].epoch, 1);
}

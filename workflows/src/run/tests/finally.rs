//! `finally`, the end of a run, and its outputs.

use super::*;

const CLEANED: &str = "
workflow: cleaned
steps:
  a: { run: [x] }
  b: { needs: [a], run: [x] }
  tell: { run: [x], env: { STATE: '${{ run.state }}' } }
  alarm: { run: [x], if: failed() }
  last: { needs: [tell], run: [x] }
";

fn cleaned() -> Arc<Workflow> {
    changed(CLEANED, |workflow| {
        for name in ["tell", "alarm", "last"] {
            step(workflow, name).finally = true;
        }
    })
}

fn admitted(workflow: &Arc<Workflow>) -> Run {
    let mut run = new_run(workflow);
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    run
}

fn cancel() -> Input {
    Input::Cancelled { by: "ada".to_owned() }
}

fn told(run: &Run) -> String {
    env(run.order(place(run, "tell")).unwrap())["STATE"].clone()
}

#[test]
fn finally_comes_last_and_knows_how_the_run_came_out() {
    let mut run = admitted(&cleaned());
    work(&mut run, "a", success(0.9));
    assert_eq!(state(&run, "tell"), "blocked");
    work(&mut run, "b", success(0.9));
    assert_eq!(
        (state(&run, "tell"), state(&run, "alarm"), state(&run, "last")),
        ("ready", "skipped", "blocked")
    );
    assert_eq!(told(&run), "succeeded");
    work(&mut run, "tell", success(0.9));
    work(&mut run, "last", success(0.9));
    assert_eq!(run.head.state.name(), "succeeded");

    let mut run = admitted(&cleaned());
    work(&mut run, "a", failure());
    assert_eq!((told(&run).as_str(), state(&run, "alarm")), ("failed", "ready"));
    for name in ["tell", "alarm", "last"] {
        work(&mut run, name, success(0.9));
    }
    assert_eq!(run.head.state.name(), "failed");

    // A retry runs what failed, and then `finally` once more.
    run.apply(&Input::Retried { all: false, by: "ada".to_owned() }, NOW).unwrap();
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    assert_eq!((state(&run, "a"), state(&run, "tell"), state(&run, "last")), ("ready", "blocked", "blocked"));
}

#[test]
fn a_finally_step_that_fails_fails_a_run_that_would_have_succeeded() {
    let mut run = admitted(&cleaned());
    for name in ["a", "b"] {
        work(&mut run, name, success(0.9));
    }
    work(&mut run, "tell", failure());
    let RunState::Over { ending, .. } = &run.head.state else { panic!("{}", image(&run)) };
    assert_eq!(ending, &Ending::Failed { reason: "tell: exit code 1".to_owned() });
    // Only what failed runs again: the others are through.
    run.apply(&Input::Retried { all: false, by: "ada".to_owned() }, NOW).unwrap();
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    assert_eq!((state(&run, "b"), state(&run, "tell")), ("succeeded", "ready"));
}

#[test]
fn a_cancelled_run_cleans_up_unless_it_is_cancelled_again() {
    let mut run = admitted(&cleaned());
    run.apply(&lease(0), NOW).unwrap();
    run.apply(&cancel(), NOW).unwrap();
    assert_eq!((state(&run, "b"), state(&run, "tell")), ("cancelled", "blocked"));
    assert!(run.view(&Live::default()).reason.unwrap().contains("cancel once more"));
    run.apply(&Input::Finished { step: 0, epoch: 1, outcome: Outcome::Cancelled, set_up_ms: None }, NOW)
        .unwrap();
    assert_eq!((told(&run).as_str(), state(&run, "alarm")), ("cancelled", "ready"));
    let mut through = run.clone();
    for name in ["tell", "alarm", "last"] {
        work(&mut through, name, success(0.9));
    }
    assert_eq!(through.head.state.name(), "cancelled");
    run.apply(&cancel(), NOW).unwrap();
    assert_eq!(run.head.state.name(), "cancelled");
    assert!(run.apply(&cancel(), NOW).is_err());

    let mut never = new_run(&cleaned());
    never.apply(&cancel(), NOW).unwrap();
    assert_eq!(never.head.state.name(), "cancelled", "nothing began: nothing to clean up");
    let mut plain = admitted(&parse("workflow: w\nsteps:\n  a: { run: [x] }\n"));
    plain.apply(&lease(0), NOW).unwrap();
    plain.apply(&cancel(), NOW).unwrap();
    assert!(plain.apply(&cancel(), NOW).is_err(), "there is nothing left to end");
}

#[test]
fn outputs_are_rendered_when_the_run_ends() {
    let with = |output: &str| {
        changed("workflow: w\nsteps:\n  a: { run: [x] }\n", |workflow| {
            workflow.outputs.insert("list".to_owned(), Template::parse(output).unwrap());
        })
    };
    let mut run = admitted(&with("${{ steps.a.outputs.list }}"));
    work(&mut run, "a", success(0.9));
    assert_eq!(run.head.outputs["list"], json!([1, 2]));
    assert_eq!(run.view(&Live::default()).outputs, run.head.outputs);

    let mut run = admitted(&with("${{ steps.a.outputs.nothing }}"));
    work(&mut run, "a", success(0.9));
    let RunState::Over { ending: Ending::Failed { reason }, .. } = &run.head.state else { panic!() };
    assert!(reason.starts_with("outputs.list: ") && reason.contains("nothing"), "{reason}");
    run.apply(&Input::Retried { all: true, by: "ada".to_owned() }, NOW).unwrap();
    assert!(run.head.outputs.is_empty());
}

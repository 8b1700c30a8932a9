//! Steps that run another workflow.

use super::*;

const PARENT: &str = "
workflow: parent
params: { depth: { type: integer, default: 3 } }
steps:
  sub: { run: [x] }
  after: { needs: [sub], run: [x], env: { GOT: '${{ steps.sub.outputs.list }}' } }
";

fn parent() -> Run {
    let workflow = changed(PARENT, |workflow| step(workflow, "sub").verb = child_of("child"));
    let mut run = new_run(&workflow);
    let facts = Arc::make_mut(&mut run.facts);
    facts.params.insert("depth".to_owned(), json!(3));
    run
}

fn orders(effects: Vec<Effect>) -> Vec<ChildOrder> {
    let order = |effect| if let Effect::StartRun(order) = effect { Some(*order) } else { None };
    effects.into_iter().filter_map(order).collect()
}

fn child(number: i64) -> RunName {
    RunName::new("child", number)
}

fn ended(epoch: i64, ending: Ending) -> Input {
    let outputs = BTreeMap::from([("list".to_owned(), json!([7]))]);
    Input::ChildEnded { step: 0, epoch, run: child(1), ending, outputs }
}

#[test]
fn a_step_asks_for_a_child_and_hands_on_its_outputs() {
    let mut run = parent();
    let asked = orders(run.apply(&Input::Admitted { champion: None }, NOW).unwrap());
    let parent = Parent { run: RunName::new("parent", 1), step: "sub".to_owned(), depth: 1 };
    let params = json!({ "depth": 3 }).as_object().unwrap().clone();
    let (workflow, no_cache) = ("child".to_owned(), false);
    assert_eq!(asked, [ChildOrder { step: 0, epoch: 1, workflow, params, parent, no_cache }]);
    assert_eq!(state(&run, "sub"), "running");

    run.apply(&Input::ChildStarted { step: 0, epoch: 1, run: child(1) }, NOW).unwrap();
    let view = run.view(&Live::default()).steps.unwrap();
    assert_eq!((&view[0].child, view[0].reason.as_deref()), (&Some(child(1)), Some("waits for child/1")));
    // It waited in its lane and another run took its place: that one is followed.
    run.apply(&Input::ChildStarted { step: 0, epoch: 1, run: child(2) }, NOW).unwrap();
    assert_eq!(run.steps[0].child, Some(child(2)));
    let stale = run.apply(&ended(2, Ending::Succeeded), NOW);
    assert_eq!(stale, Err(Refused::StaleLease { given: 2, current: 1 }));
    assert!(run.apply(&ended(1, Ending::Coalesced { into: child(3) }), NOW).is_err());

    run.apply(&ended(1, Ending::Succeeded), NOW).unwrap();
    assert_eq!(env(run.order(1).unwrap())["GOT"], "[7]");
    let again = run.apply(&ended(1, Ending::Succeeded), NOW);
    assert!(matches!(again, Err(Refused::WrongState { .. })), "{again:?}");
}

#[test]
fn what_a_child_came_to_is_what_its_step_came_to() {
    for (input, expected, said) in [
        (
            ended(1, Ending::Rejected { reason: "gate: worse".to_owned() }),
            "rejected",
            "child/1 was rejected: gate: worse",
        ),
        (
            ended(1, Ending::Failed { reason: "a: exit code 1".to_owned() }),
            "failed",
            "child/1 failed: a: exit code 1",
        ),
        (ended(1, Ending::Cancelled { by: "ada".to_owned() }), "failed", "child/1 was cancelled by ada"),
        (
            Input::ChildRefused { step: 0, epoch: 1, reason: "no such workflow".to_owned() },
            "failed",
            "no such workflow",
        ),
    ] {
        let mut run = parent();
        run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
        run.apply(&input, NOW).unwrap();
        assert_eq!((state(&run, "sub"), reason(&run, "sub").as_str()), (expected, said));
        assert_eq!(run.head.state.name(), expected);
        run.apply(&Input::Retried { all: false, by: "ada".to_owned() }, NOW).unwrap();
        let asked = orders(run.apply(&Input::Admitted { champion: None }, NOW).unwrap());
        assert_eq!(asked[0].epoch, 2, "a retry asks for a new child");
        assert!(run.apply(&input, NOW).is_err(), "and the old one is not listened to");
    }
}

#[test]
fn a_cancelled_parent_ends_its_child_and_waits_for_that() {
    let mut run = parent();
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    let effects = run.apply(&Input::Cancelled { by: "ada".to_owned() }, NOW).unwrap();
    assert_eq!(effects, [Effect::CancelRun { step: 0, epoch: 1 }]);
    assert_eq!((state(&run, "sub"), run.head.state.name()), ("running", "running"));
    run.apply(&ended(1, Ending::Cancelled { by: "parent/1".to_owned() }), NOW).unwrap();
    assert_eq!((state(&run, "sub"), run.head.state.name()), ("cancelled", "cancelled"));
}

#[test]
fn nesting_has_an_end() {
    let mut run = parent();
    let parent = |depth| Some(Parent { run: RunName::new("parent", 9), step: "sub".to_owned(), depth });
    Arc::make_mut(&mut run.facts).parent = parent(NESTING_MAX - 1);
    let asked = orders(run.clone().apply(&Input::Admitted { champion: None }, NOW).unwrap());
    assert_eq!(asked[0].parent.depth, NESTING_MAX);
    Arc::make_mut(&mut run.facts).parent = parent(NESTING_MAX);
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    assert_eq!(state(&run, "sub"), "failed");
    assert!(reason(&run, "sub").contains("at most 8 deep"), "{}", reason(&run, "sub"));
}

#[test]
fn each_instance_of_a_matrix_has_its_own_child() {
    let workflow = changed(PARENT, |workflow| {
        let sub = step(workflow, "sub");
        let region = Template::parse("${{ matrix.region }}").unwrap();
        let params = BTreeMap::from([("region".to_owned(), region)]);
        sub.verb = Verb::Workflow(ChildRun { name: "child".to_owned(), params });
        sub.matrix = Some(Matrix { max_parallel: Some(1), ..axis("region", json!(["eu", "us"])) });
    });
    let mut run = new_run(&workflow);
    let asked = orders(run.apply(&Input::Admitted { champion: None }, NOW).unwrap());
    assert_eq!(asked.len(), 1);
    let eu = place(&run, "sub[region=eu]");
    assert_eq!((asked[0].step, &asked[0].params["region"]), (eu, &json!("eu")));
    let end = Input::ChildEnded {
        step: eu,
        epoch: 1,
        run: child(1),
        ending: Ending::Succeeded,
        outputs: BTreeMap::new(),
    };
    let asked = orders(run.apply(&end, NOW).unwrap());
    assert_eq!(asked[0].parent.step, "sub[region=us]");
    check_invariants(&run);
}

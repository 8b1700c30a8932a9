//! Who may approve, and what an approval is good for.

use super::*;

const APPROVED: &str = "
workflow: w
model: m
steps:
  train: { run: [a], artifacts: { model: m } }
  gate: { needs: [train], gate: { checks: [{ metric: accuracy, min: 0.5 }, { metric: accuracy, min_change: -1 }] } }
  ok: { needs: [gate], approval: { from: [ml-leads], two_person: true } }
  promote: { needs: [gate, ok], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";
const OK: usize = 2;

/// A run that waits for its approval, started by hand by this person.
fn waiting(by: &str, registry: &mut Registry) -> Run {
    let mut run = new_run(&parse(APPROVED));
    let event = json!({ "type": "refit.run.requested", "source": format!("/refit/people/{by}") });
    Arc::make_mut(&mut run.facts).batch.first = event;
    drive(&mut run, registry, 0.9);
    assert_eq!(run.steps[OK].state.name(), "waiting");
    run
}

fn by(person: &str, groups: &[&str], admin: bool, shown: Option<Digest>) -> Input {
    let (by, groups) = (person.to_owned(), groups.iter().map(|&group| group.to_owned()).collect());
    Input::Decided { step: OK, approve: true, by, groups, admin, shown, reason: None }
}

#[test]
fn a_group_approves_and_whoever_started_the_run_does_not() {
    let mut registry = Registry { champion: None, moved: false };
    let mut run = waiting("ada", &mut registry);
    let not_theirs = run.apply(&by("bob", &["sales"], false, None), NOW);
    assert_eq!(not_theirs, Err(Refused::NotTheirs { by: "bob".to_owned(), from: "ml-leads".to_owned() }));
    for admin in [false, true] {
        let own = run.apply(&by("ada", &["ml-leads"], admin, None), NOW);
        assert_eq!(own, Err(Refused::OwnRun { by: "ada".to_owned() }));
    }
    apply(&mut run, &by("bob", &["sales", "ml-leads"], false, None), NOW, &mut registry).unwrap();
    assert_eq!(run.head.state.name(), "succeeded");
    // Whoever started it may still say no.
    let mut run = waiting("ada", &mut registry);
    apply(&mut run, &decided(OK, false, "ada", true), NOW, &mut registry).unwrap();
    assert_eq!(run.head.state.name(), "rejected");
}

#[test]
fn an_approval_is_of_what_was_shown_and_void_once_that_is_something_else() {
    let mut registry = Registry { champion: Some(champion(1, 0.8)), moved: false };
    let mut run = waiting("ada", &mut registry);
    let shown = run.covers(OK).unwrap();
    assert_eq!(run.view(&Live::default()).steps.unwrap()[OK].covers, Some(shown.clone()));
    // The champion moves just when the run is about to promote: what bob approved is not what would happen.
    registry.moved = true;
    apply(&mut run, &by("bob", &[], true, Some(shown.clone())), NOW, &mut registry).unwrap();
    assert_eq!(run.steps[OK].state.name(), "waiting", "it is asked for again");
    let now = run.covers(OK).unwrap();
    assert_ne!(now, shown);
    let stale = run.apply(&by("bob", &[], true, Some(shown)), NOW);
    assert_eq!(stale, Err(Refused::Changed { step: "ok".to_owned(), covers: now.clone() }));
    apply(&mut run, &by("bob", &[], true, Some(now)), NOW, &mut registry).unwrap();
    assert_eq!(run.head.state.name(), "succeeded");
    assert_eq!(registry.champion.map(|champion| champion.version), Some(3));
}

#[test]
fn a_promotion_does_not_take_an_approval_of_something_else() {
    let mut registry = Registry { champion: None, moved: false };
    let mut run = waiting("ada", &mut registry);
    let covers = run.covers(OK).unwrap();
    run.step_mut(OK).approved = Some(Approved { by: Some("bob".to_owned()), covers: Digest::of(b"another") });
    run.set_state(OK, StepState::Settled { at: NOW, how: Settled::done("approved by bob".to_owned()) });
    let refused = run.approvals_before(3).unwrap_err();
    assert!(refused.contains("ok") && refused.contains("void"), "{refused}");
    run.step_mut(OK).approved = Some(Approved { by: Some("bob".to_owned()), covers: covers.clone() });
    assert_eq!(run.approvals_before(3).unwrap().1, BTreeMap::from([("ok".to_owned(), covers)]));
}

//! The state machine searched, not sampled: every reachable state of a small graph with every input, valid or not;
//! then random graphs with random inputs. The invariants have names, and every state is held against all of them.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn parse(text: &str) -> Arc<Workflow> {
    Arc::new(Workflow::parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}")))
}

fn new_run(workflow: &Arc<Workflow>) -> Run {
    let facts = RunFacts {
        name: RunName::new(&workflow.name, 1),
        definition: Digest::of(b"definition"),
        bundle: None,
        trigger: "test".to_owned(),
        params: Map::new(),
        batch: BatchFacts::default(),
        lane: String::new(),
        coalesced: Vec::new(),
        created_at: NOW,
    };
    Run::create(Arc::clone(workflow), facts)
}

fn artifact() -> ArtifactRef {
    ArtifactRef { digest: Digest::of(b"model"), bytes: 5, kind: crate::wire::ArtifactKind::File }
}

fn success(accuracy: f64) -> Outcome {
    Outcome::Succeeded {
        outputs: BTreeMap::new(),
        metrics: BTreeMap::from([("accuracy".to_owned(), accuracy)]),
        artifacts: BTreeMap::from([("model".to_owned(), artifact())]),
    }
}

fn failure() -> Outcome {
    Outcome::Failed { failure: Failure::Exit { code: 1 }, reason: "exit code 1".to_owned() }
}

fn champion(version: i64, accuracy: f64) -> Champion {
    Champion {
        version,
        metrics: BTreeMap::from([("accuracy".to_owned(), accuracy)]),
        artifacts: BTreeMap::from([("model".to_owned(), artifact())]),
    }
}

/// Everything that is kept of a run, as one text: two runs with the same text are the same.
fn image(run: &Run) -> String {
    let steps: Vec<&Step> = run.steps.iter().map(|step| &**step).collect();
    json!([run.head, steps]).to_string()
}

/// What must hold in every reachable state.
fn check_invariants(run: &Run) {
    let steps = &run.steps;
    for (index, definition) in run.workflow.steps.iter().enumerate() {
        let step = &steps[index];
        let begun = match &step.state {
            StepState::Blocked => false,
            StepState::Settled { how, .. } => {
                !matches!(how, Settled::Skipped { .. } | Settled::Cancelled { .. })
            }
            _ => true,
        };
        for &need in &definition.needs {
            if begun && definition.condition.is_none() {
                assert!(
                    steps[need].state.settled().is_some_and(Settled::lets_on),
                    "R1: {} began before its need {} was through: {}",
                    definition.name,
                    run.step_name(need),
                    image(run)
                );
            }
        }
        if let Some(lease) = step.state.lease() {
            assert_eq!(lease.epoch, step.epoch, "R2: one live lease a step, at the step's epoch");
        }
        let counted = step.attempt - step.uncounted.min(step.attempt);
        assert!(
            counted <= attempts_allowed(&definition.verb),
            "R3: more attempts than allowed: {}",
            image(run)
        );
        assert!(!matches!(step.state, StepState::Promoting), "a promotion was left unanswered");
    }
    let open = steps.iter().filter(|step| !step.state.is_settled()).count();
    assert_eq!(open, run.unsettled, "the derived count is true");
    match &run.head.state {
        RunState::Over { .. } => {
            assert_eq!(open, 0, "R4: a run that is over has nothing open: {}", image(run))
        }
        RunState::Running { .. } => assert!(open > 0, "a run with nothing open is over: {}", image(run)),
        RunState::Waiting { .. } => {}
    }
    let stuck = matches!(run.head.state, RunState::Running { cancelled_by: None, .. })
        && steps.iter().all(|step| step.state.is_settled() || matches!(step.state, StepState::Blocked));
    assert!(!stuck, "R9: nothing can happen any more, and the run is not over: {}", image(run));
    if run.head.promoted.is_some() {
        let gated = run.workflow.steps.iter().zip(steps).any(|(definition, step)| {
            matches!(definition.verb, Verb::Gate(_))
                && step
                    .decision
                    .as_ref()
                    .is_some_and(|decision| decision.verdict == crate::gate::Verdict::Pass)
        });
        assert!(gated, "R8: promoted without a passed gate: {}", image(run));
    }
}

/// Applies an input the way the store does: promotions are answered at once, against `registry`.
fn apply(
    run: &mut Run,
    input: &Input,
    at: Timestamp,
    registry: &mut Registry,
) -> Result<Vec<Input>, Refused> {
    let mut journal = Vec::new();
    let mut open = VecDeque::from([input.clone()]);
    while let Some(input) = open.pop_front() {
        let effects = run.apply(&input, at)?;
        journal.push(input);
        for effect in effects {
            match effect {
                Effect::Promote(promotion) => open.push_back(registry.answer(&promotion)),
                Effect::Emit(_) => {}
            }
        }
    }
    Ok(journal)
}

/// A registry with one alias; `moved` makes somebody else promote first, once.
#[derive(Clone)]
struct Registry {
    champion: Option<Champion>,
    moved: bool,
}

impl Registry {
    fn answer(&mut self, promotion: &Promotion) -> Input {
        if std::mem::take(&mut self.moved) {
            let version = self.champion.as_ref().map_or(0, |champion| champion.version) + 1;
            self.champion = Some(champion(version, 0.85));
        }
        let current = self.champion.as_ref().map(|champion| champion.version);
        if current != promotion.expected {
            return Input::ChampionMoved { step: promotion.step, champion: self.champion.clone() };
        }
        let version = current.unwrap_or(0) + 1;
        self.champion =
            Some(Champion { version, metrics: promotion.metrics.clone(), artifacts: BTreeMap::new() });
        Input::Promoted { step: promotion.step, version, evidence: Digest::of(b"evidence") }
    }
}

/// Every input that could be sent to a run of this workflow, sensible or not.
fn all_inputs(run: &Run) -> Vec<Input> {
    let mut inputs = vec![
        Input::Admitted { champion: None },
        Input::Ticked,
        Input::Cancelled { by: "ada".to_owned() },
        Input::Coalesced { into: RunName::new("diamond", 2) },
        Input::Retried { all: false, by: "ada".to_owned() },
    ];
    for step in 0..=run.steps.len() {
        let epoch = run.steps.get(step).map_or(0, |step| step.epoch);
        inputs.push(Input::Leased { step, worker: "w".to_owned(), session: "s".to_owned() });
        inputs.push(Input::WorkerLost { step, epoch, reason: "lost".to_owned() });
        for epoch in [epoch, epoch - 1, epoch + 1] {
            inputs.push(Input::Finished { step, epoch, outcome: success(0.9) });
            inputs.push(Input::Finished { step, epoch, outcome: failure() });
        }
        inputs.push(Input::Finished { step, epoch, outcome: Outcome::Cancelled });
        for approve in [true, false] {
            let by = "ada".to_owned();
            inputs.push(Input::Decided { step, approve, by, admin: false, reason: None });
        }
        inputs.push(Input::Promoted { step, version: 9, evidence: Digest::of(b"") });
        inputs.push(Input::ChampionMoved { step, champion: None });
    }
    inputs
}

const DIAMOND: &str = "
workflow: diamond
model: m
steps:
  train: { run: [a], artifacts: { model: m }, retry: { attempts: 2, backoff: 1s } }
  left: { needs: [train], run: [b] }
  gate: { needs: [left], gate: { checks: [{ metric: accuracy, min: 0.5 }] } }
  ok: { needs: [gate], approval: { timeout: 1h } }
  promote: { needs: [ok], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";

/// Epochs and losses grow for ever; the search stops where they have shown all they can.
const EPOCH_SEARCHED: i64 = 3;
const UNCOUNTED_SEARCHED: u32 = 1;

#[test]
fn every_reachable_state_holds_the_invariants() {
    let workflow = parse(DIAMOND);
    let first = new_run(&workflow);
    let mut seen = HashSet::from([image(&first)]);
    let mut open = VecDeque::from([first]);
    let (mut accepted, mut refused) = (0u64, 0u64);
    while let Some(run) = open.pop_front() {
        for input in all_inputs(&run) {
            let mut next = run.clone();
            // Long enough for every pause to be over; always the same, so that times do not multiply states.
            let mut registry = Registry { champion: None, moved: false };
            match apply(&mut next, &input, NOW.plus(Duration::from_secs(7200)), &mut registry) {
                Err(_) => {
                    refused += 1;
                    let same = next.head == run.head && next.steps == run.steps;
                    assert!(same, "a refused input changed something: {input:?}");
                }
                Ok(_) => {
                    accepted += 1;
                    check_invariants(&next);
                    let bounded = next
                        .steps
                        .iter()
                        .all(|step| step.epoch <= EPOCH_SEARCHED && step.uncounted <= UNCOUNTED_SEARCHED);
                    if bounded && seen.insert(image(&next)) {
                        open.push_back(next);
                    }
                }
            }
        }
    }
    println!("{} states, {accepted} inputs accepted, {refused} refused", seen.len());
    assert!(seen.len() > 100, "the search found only {} states", seen.len());
    for ending in ["succeeded", "rejected", "failed", "cancelled", "coalesced"] {
        let text = format!("\"ending\":\"{ending}\"");
        assert!(seen.iter().any(|image| image.contains(&text)), "no state {ending} was reached");
    }
}

/// Drives a run to its end with one worker that always succeeds; returns the journal.
fn drive(run: &mut Run, registry: &mut Registry, accuracy: f64) -> Vec<Input> {
    let admitted = Input::Admitted { champion: registry.champion.clone() };
    let mut journal = apply(run, &admitted, NOW, registry).unwrap();
    loop {
        let Some(step) = run.ready_steps().next() else { break };
        let leased = Input::Leased { step, worker: "w".to_owned(), session: "s".to_owned() };
        journal.extend(apply(run, &leased, NOW, registry).unwrap());
        let finished = Input::Finished { step, epoch: run.steps[step].epoch, outcome: success(accuracy) };
        journal.extend(apply(run, &finished, NOW, registry).unwrap());
    }
    journal
}

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
",
    );
    let mut run = new_run(&workflow);
    let mut registry = Registry { champion: None, moved: false };
    run.apply(&Input::Admitted { champion: None }, NOW).unwrap();
    let lease = |step| Input::Leased { step, worker: "w".to_owned(), session: "s".to_owned() };
    run.apply(&lease(0), NOW).unwrap();
    run.apply(&Input::Finished { step: 0, epoch: 1, outcome: success(0.9) }, NOW).unwrap();
    run.apply(&lease(1), NOW).unwrap();
    run.apply(&Input::Finished { step: 1, epoch: 1, outcome: failure() }, NOW).unwrap();
    assert_eq!(run.steps[2].state.name(), "skipped");
    assert_eq!(run.steps[3].state.name(), "ready", "`if: failed()` runs because its need failed");
    run.apply(&lease(3), NOW).unwrap();
    run.apply(&Input::Finished { step: 3, epoch: 1, outcome: success(0.9) }, NOW).unwrap();
    assert_eq!(run.head.state.name(), "failed");

    run.apply(&Input::Retried { all: false, by: "ada".to_owned() }, NOW).unwrap();
    assert_eq!(run.head.state.name(), "waiting");
    let late = run.apply(&Input::Finished { step: 1, epoch: 1, outcome: success(0.9) }, NOW);
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
        apply(&mut run, &Input::Finished { step, epoch: 1, outcome }, NOW, &mut registry).unwrap();
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
    let no = Input::Decided { step: 2, approve: false, by: "ada".to_owned(), admin: true, reason: None };
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
        run.apply(&Input::Finished { step: 0, epoch: i64::from(attempt), outcome }, at).unwrap();
        if let Some(wake) = run.next_wake() {
            at = wake;
            assert!(run.apply(&Input::Ticked, wake.minus(Duration::from_millis(1))).is_err());
            run.apply(&Input::Ticked, at).unwrap();
        }
    }
    assert_eq!(run.head.state.name(), "failed", "it does not go on for ever");
}

/// A random graph: each step needs some of those before it; some have conditions.
fn graphs() -> impl Strategy<Value = String> {
    let step = (prop::collection::vec(any::<prop::sample::Index>(), 0..3), 0u8..6, 1u32..3);
    prop::collection::vec(step, 1..9).prop_map(|steps| {
        let mut text = "workflow: random\nmodel: m\nsteps:\n".to_owned();
        for (index, (needs, kind, attempts)) in steps.into_iter().enumerate() {
            let mut needs: Vec<String> = if index == 0 {
                Vec::new()
            } else {
                needs.iter().map(|need| format!("s{}", need.index(index))).collect()
            };
            needs.sort();
            needs.dedup();
            // A gate must come after something that can report a metric.
            let kind = if index == 0 { 4 } else { kind };
            if kind == 0 {
                needs = vec!["s0".to_owned()];
            }
            let needs =
                if needs.is_empty() { String::new() } else { format!("needs: [{}], ", needs.join(", ")) };
            let rest = match kind {
                0 => "gate: { checks: [{ metric: accuracy, min: 0.5 }] }".to_owned(),
                1 => "approval: { timeout: 1h }".to_owned(),
                2 => "if: always(), run: [x]".to_owned(),
                3 => "if: failed(), run: [x]".to_owned(),
                _ => format!("run: [x], retry: {{ attempts: {attempts}, backoff: 1s }}"),
            };
            text.push_str(&format!("  s{index}: {{ {needs}{rest} }}\n"));
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_hold_the_invariants_and_replay_to_the_same_run(
        text in graphs(),
        choices in prop::collection::vec((any::<prop::sample::Index>(), 0u64..4000), 0..120),
    ) {
        let workflow = parse(&text);
        let mut run = new_run(&workflow);
        let mut journal = Vec::new();
        let mut at = NOW;
        for (choice, pass) in choices {
            at = at.plus(Duration::from_millis(pass));
            let inputs = all_inputs(&run);
            let input = &inputs[choice.index(inputs.len())];
            let before = image(&run);
            match run.apply(input, at) {
                Ok(effects) => {
                    prop_assert!(!effects.iter().any(|effect| matches!(effect, Effect::Promote(_))));
                    journal.push((input.clone(), at));
                    check_invariants(&run);
                }
                Err(_) => prop_assert_eq!(image(&run), before),
            }
        }
        let mut replayed = new_run(&workflow);
        for (input, at) in &journal {
            replayed.apply(input, *at).unwrap();
        }
        prop_assert_eq!(image(&replayed), image(&run), "R5: the journal gives the run");
        let restored = Run::restore(
            Arc::clone(&workflow), Arc::clone(&run.facts), run.head.clone(),
            run.steps.iter().map(|step| (**step).clone()).collect(), run.version,
        );
        prop_assert_eq!(&restored.unsettled_needs, &run.unsettled_needs, "what is derived survives loading");
        prop_assert_eq!(&restored.timers, &run.timers);
        prop_assert_eq!(&restored.ready, &run.ready);
    }

    #[test]
    fn once_nothing_goes_wrong_any_more_every_run_ends(
        text in graphs(),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let workflow = parse(&text);
        let mut run = new_run(&workflow);
        let mut at = NOW;
        for choice in choices {
            at = at.plus(Duration::from_secs(1));
            let inputs = all_inputs(&run);
            let _ = run.apply(&inputs[choice.index(inputs.len())], at);
        }
        for _ in 0..1000 {
            at = at.plus(Duration::from_secs(7200));
            if matches!(run.head.state, RunState::Over { .. }) {
                break;
            }
            let _ = run.apply(&Input::Admitted { champion: None }, at);
            let _ = run.apply(&Input::Ticked, at);
            for step in 0..run.steps.len() {
                let _ = run.apply(&Input::Leased { step, worker: "w".to_owned(), session: "s".to_owned() }, at);
                let epoch = run.steps[step].epoch;
                let _ = run.apply(&Input::Finished { step, epoch, outcome: success(0.9) }, at);
            }
        }
        prop_assert!(matches!(run.head.state, RunState::Over { .. }), "stuck: {}", image(&run));
    }
}

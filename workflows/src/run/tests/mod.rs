//! What the tests of the state machine share: runs to test, a registry, every input there is, and the invariants. They
//! have names, and every state that a test reaches is held against all of them.

mod approvals;
mod cache;
mod children;
mod finally;
mod matrix;
mod random;
mod search;
mod steps;

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::definition::{Axis, ChildRun, Matrix, MatrixValues, Select, SelectOrder};
use crate::expression::Expression;
use crate::template::Template;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn parse(text: &str) -> Arc<Workflow> {
    Arc::new(Workflow::parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}")))
}

/// A workflow whose text is parsed and which is changed then: for what the tests need.
fn changed(text: &str, change: impl FnOnce(&mut Workflow)) -> Arc<Workflow> {
    let mut workflow = Workflow::clone(&parse(text));
    change(&mut workflow);
    Arc::new(workflow)
}

fn step<'a>(workflow: &'a mut Workflow, name: &str) -> &'a mut definition::Step {
    let index = workflow.step_index(name).unwrap();
    &mut workflow.steps[index]
}

/// One axis, written out.
fn axis(name: &str, values: Value) -> Matrix {
    let Value::Array(values) = values else { panic!("{values}") };
    let values = MatrixValues::Axes(vec![(name.to_owned(), Axis::Values(values))]);
    Matrix { values, max_parallel: None, min_success: 1.0 }
}

/// A matrix that is a list found when the step starts.
fn dynamic(template: &str) -> Matrix {
    let values = MatrixValues::List(Template::parse(template).unwrap());
    Matrix { values, max_parallel: None, min_success: 1.0 }
}

fn select(from: usize, by: &str) -> Verb {
    Verb::Select(Select { from, by: Expression::parse(by).unwrap(), order: SelectOrder::Max })
}

fn child_of(name: &str) -> Verb {
    let params = BTreeMap::from([("depth".to_owned(), Template::parse("${{ params.depth }}").unwrap())]);
    Verb::Workflow(ChildRun { name: name.to_owned(), params })
}

fn lease(step: usize) -> Input {
    Input::Leased { step, worker: "w".to_owned(), session: "s".to_owned() }
}

fn place(run: &Run, name: &str) -> usize {
    run.place_of(name).unwrap_or_else(|| panic!("no step {name}: {}", image(run)))
}

fn state(run: &Run, name: &str) -> &'static str {
    run.steps[place(run, name)].state.name()
}

fn reason(run: &Run, name: &str) -> String {
    let settled = run.steps[place(run, name)].state.settled();
    settled.and_then(Settled::reason).unwrap_or_default().to_owned()
}

/// A worker takes a step and reports.
fn work(run: &mut Run, name: &str, outcome: Outcome) {
    let step = place(run, name);
    run.apply(&lease(step), NOW).unwrap_or_else(|refused| panic!("{name}: {refused}"));
    run.apply(&Input::Finished { step, epoch: run.steps[step].epoch, outcome, set_up_ms: None }, NOW)
        .unwrap();
    check_invariants(run);
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
        parent: None,
        no_cache: false,
    };
    Run::create(Arc::clone(workflow), facts)
}

fn artifact() -> ArtifactRef {
    ArtifactRef { digest: Digest::of(b"model"), bytes: 5, kind: crate::wire::ArtifactKind::File }
}

fn success(accuracy: f64) -> Outcome {
    Outcome::Succeeded(Handed {
        outputs: BTreeMap::from([(
            "list".to_owned(),
            if accuracy > 0.85 { json!([1, 2]) } else { json!([2, 3, 4]) },
        )]),
        metrics: BTreeMap::from([("accuracy".to_owned(), accuracy)]),
        artifacts: BTreeMap::from([("model".to_owned(), artifact())]),
        ..Handed::default()
    })
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
    for place in 0..run.steps.len() {
        check_step(run, place);
    }
    check_groups(run);
    let steps = &run.steps;
    let open = steps.iter().filter(|step| !step.state.is_settled()).count();
    assert_eq!(open, run.unsettled, "the derived count is true");
    match &run.head.state {
        RunState::Over { .. } => {
            assert_eq!(open, 0, "R4: a run that is over has nothing open: {}", image(run))
        }
        RunState::Running { .. } => assert!(open > 0, "a run with nothing open is over: {}", image(run)),
        RunState::Waiting { .. } => {}
    }
    let idle = |step: &Arc<Step>| {
        step.state.is_settled() || matches!(step.state, StepState::Blocked | StepState::Instances)
    };
    let stuck = matches!(run.head.state, RunState::Running { .. }) && steps.iter().all(idle);
    assert!(!stuck, "R9: nothing can happen any more, and the run is not over: {}", image(run));
    if run.head.promoted.is_some() {
        let passed = |step: &Arc<Step>| {
            step.decision.as_ref().is_some_and(|decision| decision.verdict == crate::gate::Verdict::Pass)
        };
        assert!(steps.iter().any(passed), "R8: promoted without a passed gate: {}", image(run));
    }
}

fn has_begun(step: &Step) -> bool {
    match step.state.settled() {
        Some(how) => !matches!(how, Settled::Skipped { .. } | Settled::Cancelled { .. }),
        None => !matches!(step.state, StepState::Blocked),
    }
}

fn check_step(run: &Run, place: usize) {
    let (step, definition) = (&run.steps[place], run.definition(place));
    for &need in &definition.needs {
        if has_begun(step) && definition.condition.is_none() && step.instance.is_none() {
            assert!(
                run.steps[need].state.settled().is_some_and(Settled::lets_on),
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
    assert!(counted <= attempts_allowed(&definition.verb), "R3: more attempts than allowed: {}", image(run));
    assert!(!matches!(step.state, StepState::Promoting), "a promotion was left unanswered");
    if definition.finally && has_begun(step) {
        assert_eq!(run.unsettled_before_finally, 0, "F1: {} came too early: {}", definition.name, image(run));
    }
    if let StepState::Child { cancelling } = step.state {
        assert_eq!(cancelling, run.is_cancelled(run.of(place)), "C1: {}", image(run));
    }
}

fn check_groups(run: &Run) {
    let mut names: Vec<&str> = (0..run.steps.len()).map(|place| run.step_name(place)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), run.steps.len(), "G1: every place has a name of its own");
    for (group, definition) in run.workflow.steps.iter().enumerate() {
        let Some(matrix) = &definition.matrix else { continue };
        let places = run.instances(group);
        let open = places.iter().filter(|&&place| !run.steps[place].state.is_settled()).count();
        let state = &run.steps[group].state;
        let begun = |&place: &usize| !run.steps[place].state.is_settled() && has_begun(&run.steps[place]);
        if matches!(state, StepState::Instances) {
            assert!(open > 0, "G2: nothing of the group is open: {}", image(run));
        } else if state.is_settled() {
            assert_eq!(open, 0, "G3: {}", image(run));
        } else {
            assert!(!places.iter().any(begun), "G5: an instance began before its group: {}", image(run));
        }
        if state.results().is_some() {
            let succeeded =
                places.iter().filter(|&&place| run.steps[place].state.results().is_some()).count();
            assert!(
                succeeded >= matrix.needed(places.len()),
                "G4: the share was not reached: {}",
                image(run)
            );
        }
        let mut again = run.clone();
        again.derive_groups();
        if let (Some(derived), Some(group)) = (again.groups.get(&group), run.groups.get(&group)) {
            let counts =
                |group: &Group| (group.places.clone(), group.waiting, group.at_work, group.succeeded);
            assert_eq!(counts(derived), counts(group), "the derived counts are true");
            let most = matrix.max_parallel.map_or(usize::MAX, |most| most as usize);
            assert!(group.at_work <= most, "G6: more instances at work than allowed: {}", image(run));
        }
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
                Effect::Emit(_)
                | Effect::Judged { .. }
                | Effect::StartRun(_)
                | Effect::CancelRun { .. }
                | Effect::Recall { .. }
                | Effect::Remember { .. } => {}
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

/// The declared variables of an order.
fn env(order: crate::wire::StepOrder) -> BTreeMap<String, String> {
    let crate::wire::OrderTask::Run(run) = order.task else { panic!("{:?} runs no process", order.key) };
    run.env
}

/// What a person answers, not saying what they were shown.
fn decided(step: usize, approve: bool, by: &str, admin: bool) -> Input {
    let (groups, by) = (Vec::new(), by.to_owned());
    Input::Decided { step, approve, by, groups, admin, shown: None, reason: None }
}

fn absorbed(count: u64) -> Input {
    let event = json!({ "id": format!("e{count}") });
    let batch = BatchFacts { key: "eu".to_owned(), count, sum: None, first: Value::Null, last: event };
    let coalesced = vec![RunName::new("older", 1)];
    Input::Absorbed {
        params: Map::from_iter([("n".to_owned(), json!(count))]),
        batch,
        coalesced,
        no_cache: false,
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
        absorbed(3),
    ];
    for step in 0..=run.steps.len() {
        let epoch = run.steps.get(step).map_or(0, |step| step.epoch);
        inputs.push(Input::Leased { step, worker: "w".to_owned(), session: "s".to_owned() });
        inputs.push(Input::WorkerLost { step, epoch, reason: "lost".to_owned() });
        for epoch in [epoch, epoch - 1, epoch + 1] {
            inputs.push(Input::Finished { step, epoch, outcome: success(0.9), set_up_ms: None });
            inputs.push(Input::Finished { step, epoch, outcome: failure(), set_up_ms: None });
        }
        inputs.push(Input::Finished { step, epoch, outcome: Outcome::Cancelled, set_up_ms: None });
        for approve in [true, false] {
            inputs.push(decided(step, approve, "ada", false));
        }
        let (from, results) = (RunName::new("diamond", 7), Box::default());
        inputs.push(Input::Recalled { step, from, results });
        inputs.push(Input::Promoted { step, version: 9, evidence: Digest::of(b"") });
        inputs.push(Input::ChampionMoved { step, champion: None });
        let child = RunName::new("child", 1);
        inputs.push(Input::ChildStarted { step, epoch, run: child.clone() });
        inputs.push(Input::ChildRefused { step, epoch, reason: "there is no such workflow".to_owned() });
        for (epoch, ending) in [
            (epoch, Ending::Succeeded),
            (epoch - 1, Ending::Succeeded),
            (epoch, Ending::Rejected { reason: "no".to_owned() }),
            (epoch, Ending::Cancelled { by: "ada".to_owned() }),
            (epoch, Ending::Coalesced { into: child.clone() }),
        ] {
            let outputs = BTreeMap::from([("list".to_owned(), json!([7]))]);
            inputs.push(Input::ChildEnded { step, epoch, run: child.clone(), ending, outputs });
        }
    }
    inputs
}

/// Drives a run to its end with one worker that always succeeds; returns the journal.
fn drive(run: &mut Run, registry: &mut Registry, accuracy: f64) -> Vec<Input> {
    let admitted = Input::Admitted { champion: registry.champion.clone() };
    let mut journal = apply(run, &admitted, NOW, registry).unwrap();
    loop {
        let Some(step) = run.ready_steps().next() else { break };
        let leased = Input::Leased { step, worker: "w".to_owned(), session: "s".to_owned() };
        journal.extend(apply(run, &leased, NOW, registry).unwrap());
        let finished = Input::Finished {
            step,
            epoch: run.steps[step].epoch,
            outcome: success(accuracy),
            set_up_ms: None,
        };
        journal.extend(apply(run, &finished, NOW, registry).unwrap());
    }
    journal
}

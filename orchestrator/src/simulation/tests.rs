use serde_json::json;

use super::*;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

const RETRAIN: &str = "
workflow: churn
model: churn
on:
  - event: { type: [dataset.updated] }
    batch: { quiet: 2m, max_wait: 30m }
concurrency: { limit: 1, on_conflict: queue }
steps:
  train: { run: [python, train.py], artifacts: { model: m.pkl }, retry: { attempts: 2, backoff: 1m }, timeout: 6h }
  gate: { needs: [train], gate: { checks: [{ metric: auc, min: 0.8 }, { metric: auc, min_change: 0 }] } }
  approve: { needs: [gate], approval: { from: [ada], timeout: 24h } }
  promote: { needs: [gate, approve], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn updated(number: u32) -> CloudEvent {
    CloudEvent::new(
        &format!("e{number}"),
        "/tests",
        "dataset.updated",
        None,
        START,
        json!({ "number": number }),
    )
}

fn trained(takes: u64, auc: f64) -> Attempt {
    let came = Came::Success { outputs: BTreeMap::new(), metrics: BTreeMap::from([("auc".to_owned(), auc)]) };
    Attempt { takes: seconds(takes), came }
}

fn failed(takes: u64) -> Attempt {
    let failure = refit_workflows::wire::Failure::Exit { code: 1 };
    Attempt { takes: seconds(takes), came: Came::Failure { failure, reason: "exit code 1".to_owned() } }
}

fn approved(after: u64) -> Answer {
    Answer { approve: true, by: Some("ada".to_owned()), after: seconds(after) }
}

async fn simulation(script: Script) -> Simulation {
    let mut simulation = Simulation::open(&mut Stage::new().await.unwrap(), START).await.unwrap();
    simulation.apply(&Workflow::parse(RETRAIN).unwrap(), script).await.unwrap();
    simulation
}

fn step<'r>(run: &'r RunView, name: &str) -> &'r refit_workflows::wire::StepView {
    run.steps.iter().flatten().find(|step| step.step == name).unwrap()
}

#[tokio::test]
async fn time_passes_as_the_definition_and_the_script_say() {
    let mut script = Script::default();
    script.attempts.insert("train".to_owned(), vec![failed(600), trained(3600, 0.9)]);
    script.answers.insert("approve".to_owned(), approved(7200));
    let mut simulation = simulation(script).await;
    for number in 0..20 {
        simulation.record(vec![updated(number)]).await.unwrap();
        simulation.advance(START.plus(seconds(u64::from(number) + 1))).await.unwrap();
    }
    simulation.advance(START.plus(seconds(24 * 3600))).await.unwrap();
    let runs = simulation.runs().await.unwrap();
    assert_eq!(runs.len(), 1);
    let run = &runs[0];
    assert_eq!((run.state.as_str(), run.event_count), ("succeeded", 20));
    // The last event came at second 19; quiet is 2 minutes.
    assert_eq!(run.created_at, START.plus(seconds(19 + 120)));
    let train = step(run, "train");
    assert_eq!((train.state.as_str(), train.attempt), ("succeeded", 2));
    let pause = train.started_at.unwrap().since(run.created_at.plus(seconds(600)));
    assert!(pause > Duration::ZERO && pause <= seconds(60), "{pause:?}");
    let asked = step(run, "approve");
    assert_eq!(asked.finished_at.unwrap().since(asked.ready_at.unwrap()), seconds(7200));
    let model = simulation.model("churn").await.unwrap().unwrap();
    assert_eq!(model.aliases["champion"], 1);
    let event = simulation.event("e3", "/tests").await.unwrap().unwrap();
    let decisions: Vec<&str> = event.decisions.iter().map(|it| it.decision.as_str()).collect();
    assert_eq!(decisions, ["batched", "started"]);
}

#[tokio::test]
async fn a_candidate_is_compared_with_the_champion_that_was_there_before() {
    let mut script = Script::default();
    script.attempts.insert("train".to_owned(), vec![trained(60, 0.85)]);
    let mut simulation = Simulation::open(&mut Stage::new().await.unwrap(), START).await.unwrap();
    let metrics = BTreeMap::from([("auc".to_owned(), 0.9)]);
    simulation.adopt("churn", "champion", metrics).await.unwrap();
    simulation.apply(&Workflow::parse(RETRAIN).unwrap(), script).await.unwrap();
    simulation.start_run("churn", Map::new()).await.unwrap();
    simulation.advance(START.plus(seconds(3600))).await.unwrap();
    let run = &simulation.runs().await.unwrap()[0];
    assert_eq!(run.state, "rejected");
    assert_eq!(step(run, "gate").decision.as_ref().unwrap().champion, Some(1));
    assert_eq!(simulation.model("churn").await.unwrap().unwrap().aliases["champion"], 1);
}

#[tokio::test]
async fn what_takes_too_long_is_ended_at_its_timeout_and_silence_is_an_answer() {
    let mut script = Script::default();
    script.attempts.insert("train".to_owned(), vec![trained(7 * 3600, 0.9), trained(60, 0.9)]);
    let mut simulation = simulation(script).await;
    simulation.start_run("churn", Map::new()).await.unwrap();
    simulation.advance(START.plus(seconds(3 * 24 * 3600))).await.unwrap();
    let run = &simulation.runs().await.unwrap()[0];
    assert_eq!(step(run, "train").attempt, 2);
    let asked = step(run, "approve");
    assert_eq!(asked.state, "rejected");
    assert_eq!(asked.finished_at.unwrap().since(asked.ready_at.unwrap()), seconds(24 * 3600));
    assert!(run.started_at.unwrap().plus(seconds(6 * 3600)) < asked.ready_at.unwrap());
}

#[tokio::test]
async fn a_cancelled_run_ends_its_attempts_and_the_next_one_starts() {
    let script = Script {
        takes: seconds(3600),
        other_verdicts: Some(refit_workflows::gate::Verdict::Pass),
        ..Script::default()
    };
    let mut simulation = simulation(script).await;
    let first = simulation.start_run("churn", Map::new()).await.unwrap();
    simulation.start_run("churn", Map::new()).await.unwrap();
    simulation.advance(START.plus(seconds(60))).await.unwrap();
    simulation.cancel_run(&first).await.unwrap();
    let runs = simulation.runs().await.unwrap();
    assert_eq!((runs[0].state.as_str(), runs[1].state.as_str()), ("cancelled", "running"));
    assert_eq!(runs[0].finished_at, Some(START.plus(seconds(60))));
    assert_eq!(runs[1].started_at, Some(START.plus(seconds(60))));
}

#[tokio::test]
async fn nothing_of_one_simulation_is_left_in_the_next() {
    let mut stage = Stage::new().await.unwrap();
    let mut told = Vec::new();
    for _ in 0..2 {
        let mut simulation = Simulation::open(&mut stage, START).await.unwrap();
        simulation.apply(&Workflow::parse(RETRAIN).unwrap(), Script::default()).await.unwrap();
        simulation.record(vec![updated(1)]).await.unwrap();
        simulation.start_run("churn", Map::new()).await.unwrap();
        simulation.advance(START.plus(seconds(3600))).await.unwrap();
        told.push(serde_json::to_value(simulation.runs().await.unwrap()).unwrap());
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0][0]["run"], "churn/1");
}

#[tokio::test]
async fn an_approval_that_is_asked_for_again_at_the_same_moment_is_answered_again() {
    let text = RETRAIN.replace("on_conflict: queue", "on_conflict: parallel");
    let script = Script {
        takes: seconds(3600),
        other_verdicts: Some(refit_workflows::gate::Verdict::Pass),
        other_answers: Some(Answer { approve: true, by: None, after: Duration::ZERO }),
        ..Script::default()
    };
    let mut stage = Stage::new().await.unwrap();
    let mut simulation = Simulation::open(&mut stage, START).await.unwrap();
    simulation.apply(&Workflow::parse(&text).unwrap(), script).await.unwrap();
    simulation.start_run("churn", Map::new()).await.unwrap();
    simulation.advance(START.plus(seconds(60))).await.unwrap();
    // It was compared with no champion, and finds one when it comes to promote.
    simulation.start_run("churn", Map::new()).await.unwrap();
    simulation.advance(START.plus(seconds(2 * 3600))).await.unwrap();
    let runs = simulation.runs().await.unwrap();
    assert_eq!((runs[0].state.as_str(), runs[1].state.as_str()), ("succeeded", "succeeded"));
    assert_eq!(simulation.model("churn").await.unwrap().unwrap().aliases["champion"], 2);
}

#[tokio::test]
async fn no_decision_is_missing_from_the_log_however_many_there_are() {
    let mut stage = Stage::new().await.unwrap();
    let mut simulation = Simulation::open(&mut stage, START).await.unwrap();
    // Together more than one page's events may have: each workflow decides about each event.
    const WORKFLOWS: usize = 210;
    const EVENTS: usize = 100;
    for number in 0..WORKFLOWS {
        let text = format!(
            "workflow: w{number}\non: [{{ event: {{ type: [dataset.updated] }}, where: data.number < 0 }}]\n\
             steps: {{ a: {{ run: [a] }} }}\n"
        );
        simulation.apply(&Workflow::parse(&text).unwrap(), Script::default()).await.unwrap();
    }
    simulation.record((0..EVENTS as u32).map(updated).collect()).await.unwrap();
    let (mut decisions, mut after) = (Vec::new(), 0);
    loop {
        let page = simulation.log(after, 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.seq;
        decisions.extend(page.iter().filter(|one| one.source == "/tests").map(|one| one.decisions.len()));
    }
    assert_eq!(decisions, [WORKFLOWS; EVENTS]);
}

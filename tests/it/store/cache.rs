//! What steps came to before, taken again: by all they depend on, once, and never more than that.

use super::*;

on_both_databases! {
    an_outcome_is_taken_again_while_all_that_it_depends_on_is_the_same
    what_is_kept_is_the_latest_success_with_all_its_artifacts
    a_run_that_is_to_run_everything_does_and_so_do_its_children
}

const WORKFLOW: &str = "workflow: w
params: { region: { type: string, default: eu } }
steps:
  prepare:
    run: [python, prepare.py]
    env: { REGION: '${{ params.region }}' }
    cache: true
  train: { needs: [prepare], run: [python, train.py, '${{ steps.prepare.outputs.rows }}'], cache: { ttl: 1h } }
  tell: { needs: [train], emit: { type: trained } }
";

/// Starts a run with this region and does what it asks a worker for; the steps that ran, and the run.
async fn play(house: &House, region: &str, no_cache: bool) -> (Vec<String>, RunView) {
    let params = Map::from_iter([("region".to_owned(), json!(region))]);
    let start = StartRun { workflow: "w".to_owned(), params, id: None, no_cache };
    let run = house.engine.start_run(start, &somebody()).await.unwrap().run;
    (work_off(house).await, house.run(&run.to_string()).await)
}

async fn work_off(house: &House) -> Vec<String> {
    let mut ran = Vec::new();
    while let [order] = house.lease("w", "s", 1, 0).await.as_slice() {
        ran.push(order.key.step.clone());
        let outputs = BTreeMap::from([("rows".to_owned(), json!(ran.len()))]);
        let outcome = Outcome::Succeeded(Handed { outputs, ..Handed::default() });
        house.finish(&order.key, outcome).await.unwrap();
    }
    ran
}

fn from(run: &RunView, step: &str) -> Option<String> {
    let steps = run.steps.as_ref().unwrap();
    steps.iter().find(|one| one.step == step).unwrap().cached_from.clone()
}

async fn an_outcome_is_taken_again_while_all_that_it_depends_on_is_the_same(database: Database) {
    let house = House::open(&database).await;
    house.register("w", "s").await;
    house.apply(WORKFLOW).await;
    let (ran, first) = play(&house, "eu", false).await;
    assert_eq!((ran, first.state.as_str()), (vec!["prepare".to_owned(), "train".to_owned()], "succeeded"));

    let (ran, second) = play(&house, "eu", false).await;
    assert_eq!((ran, second.state.as_str()), (Vec::new(), "succeeded"), "no worker is needed");
    for step in ["prepare", "train"] {
        assert_eq!(from(&second, step).as_deref(), Some("w/1"));
    }
    assert_eq!(second.steps.unwrap()[0].outputs, first.steps.unwrap()[0].outputs);

    // Another param, another command, other code by another name: each is something else.
    assert_eq!(play(&house, "us", false).await.0, ["prepare", "train"]);
    house.apply(&WORKFLOW.replace("prepare.py", "other.py")).await;
    let (ran, other) = play(&house, "eu", false).await;
    assert_eq!(ran, ["prepare"], "what comes after it is as it was");
    assert_eq!(from(&other, "train").as_deref(), Some("w/1"));

    // By a key of its own it is found whatever else changes; the ttl counts.
    let keyed = WORKFLOW.replace("cache: true", "cache: { key: '${{ params.region }}', ttl: 1ms }");
    house.apply(&keyed).await;
    assert_eq!(play(&house, "eu", false).await.0, ["prepare"]);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(play(&house, "eu", false).await.0, ["prepare"], "it is too old");
    house.apply(&keyed.replace("ttl: 1ms", "ttl: 1h").replace("prepare.py", "third.py")).await;
    assert_eq!(play(&house, "eu", false).await.0, Vec::<String>::new());
}

async fn what_is_kept_is_the_latest_success_with_all_its_artifacts(database: Database) {
    let house = House::open(&database).await;
    house.register("w", "s").await;
    house.apply("workflow: w\nsteps: { a: { run: [a], artifacts: { model: m }, cache: true } }\n").await;
    let blob = async |content: &'static str| {
        let digest = Digest::of(content.as_bytes());
        let body = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from(content))]);
        house.engine.put_blob(digest.clone(), body).await.unwrap();
        ArtifactRef { digest, bytes: content.len() as u64, kind: ArtifactKind::File }
    };
    let start = async || house.start_run("w").await.run.to_string();
    let finish = async |outcome: Outcome| {
        let order = house.lease_one("w", "s").await;
        house.finish(&order.key, outcome).await.unwrap();
    };
    let succeeded = |artifact: ArtifactRef| {
        Outcome::Succeeded(Handed {
            artifacts: BTreeMap::from([("model".to_owned(), artifact)]),
            ..Handed::default()
        })
    };
    let failed = || Outcome::Failed { failure: Failure::Exit { code: 1 }, reason: "no".to_owned() };

    start().await;
    finish(failed()).await;
    let run = start().await;
    finish(succeeded(blob("one").await)).await;
    assert_eq!(from(&house.run(&run).await, "a"), None, "a failure is not taken");

    // A retry is somebody's wish to see it run.
    let taken = start().await;
    assert_eq!(from(&house.run(&taken).await, "a").as_deref(), Some("w/2"));
    house.engine.retry_run(&taken.parse().unwrap(), RetryRun { all: true }, &somebody()).await.unwrap();
    house.engine.store().dispatch().await.unwrap();
    finish(succeeded(blob("two").await)).await;
    assert_eq!(from(&house.run(&taken).await, "a"), None);
    execute(&database, "UPDATE blobs SET touched_at = 0".to_owned()).await;
    let next = start().await;
    let old = "SELECT COUNT(*) FROM blobs WHERE touched_at = 0";
    assert_eq!(database.number(old).await, 1, "what is taken again is no garbage");
    assert_eq!(from(&house.run(&next).await, "a").as_deref(), Some("w/3"), "the latest stands");

    execute(&database, "DELETE FROM blobs".to_owned()).await;
    let last = start().await;
    assert_eq!(from(&house.run(&last).await, "a"), None, "its artifact is gone");
}

async fn a_run_that_is_to_run_everything_does_and_so_do_its_children(database: Database) {
    let house = House::open(&database).await;
    house.register("w", "s").await;
    house.apply("workflow: child\nsteps: { a: { run: [a], cache: true } }\n").await;
    house.apply("workflow: w\nparams: { region: { type: string } }\nsteps: { sub: { workflow: { name: child } } }\n").await;
    let ran = async |no_cache: bool| {
        play(&house, "eu", no_cache).await;
        for _ in 0..3 {
            house.engine.store().follow_children().await.unwrap();
            house.engine.store().dispatch().await.unwrap();
        }
        let ran = work_off(&house).await;
        house.engine.store().follow_children().await.unwrap();
        ran
    };
    assert_eq!(ran(false).await, ["a"]);
    assert_eq!(ran(false).await, Vec::<String>::new());
    assert_eq!(ran(true).await, ["a"]);

    // A run that waits stands for such a start as well.
    house.apply("workflow: lane\nconcurrency: { on_conflict: coalesce }\nsteps: { a: { run: [a], cache: true } }\n").await;
    let start = async |no_cache: bool| {
        let start = StartRun { workflow: "lane".to_owned(), params: Map::new(), id: None, no_cache };
        house.engine.start_run(start, &somebody()).await.unwrap().run.to_string()
    };
    start(false).await;
    let order = house.lease_one("w", "s").await;
    assert_eq!([start(false).await, start(true).await], ["lane/2", "lane/2"]);
    let (outputs, metrics, artifacts) = Default::default();
    house
        .finish(&order.key, Outcome::Succeeded(Handed { outputs, metrics, artifacts, ..Handed::default() }))
        .await
        .unwrap();
    house.engine.store().dispatch().await.unwrap();
    assert_eq!(work_off(&house).await, ["a"]);
}

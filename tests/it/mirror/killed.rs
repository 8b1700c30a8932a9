//! Answers that are lost and orchestrators that are killed, at each request that changes something in MLflow: before it is
//! done, and after, before that is heard. Wherever it was, the end is the same. And two orchestrators at once.

use sqlx::{Connection as _, PgConnection};

use super::*;

/// The requests by which a promotion comes to MLflow, in order; the first two once for a model and an experiment.
const CHANGES: [&str; 7] = [
    "POST registered-models/create",
    "POST experiments/create",
    "POST runs/create",
    "POST runs/log-batch",
    "POST runs/update",
    "POST model-versions/create",
    "POST registered-models/alias",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_done_without_an_answer_is_not_done_again() {
    let (mlflow, model) = (services::mlflow(), model());
    let between = Between::start(&mlflow, |_| Act::Pass).await;
    let mut scene = Scene::start(&services::sqlite(), &model, &between.url, json!({})).await;
    let lost = std::sync::Mutex::new(Vec::new());
    between.decide(move |asked| {
        let (what, mut lost) = (asked.what(), lost.lock().unwrap());
        let is_first = CHANGES[..2].contains(&what.as_str()) && !lost.contains(&what);
        lost.push(what);
        if is_first { Act::LoseAnswer } else { Act::Pass }
    });
    scene.promote().await;
    scene.check(1).await;
    for what in &CHANGES[..2] {
        assert_eq!(between.count(what), 1, "{what}");
    }
    for what in &CHANGES[2..] {
        between.once(what, Act::LoseAnswer);
        scene.promote().await;
        scene.check(scene.trained).await;
    }
    assert_eq!(between.count("POST runs/create"), scene.trained);
    assert_eq!(between.count("POST model-versions/create"), scene.trained);
}

#[tokio::test(flavor = "multi_thread")]
async fn mlflow_comes_to_the_same_wherever_the_orchestrator_is_killed() {
    let (mlflow, model, database) = (services::mlflow(), model(), services::postgres().await);
    let between = Between::start(&mlflow, |_| Act::Pass).await;
    let mut scene = Scene::start(&database, &model, &between.url, json!({})).await;
    // Both are asked once, before the first version: one promotion, killed twice.
    for (at, what) in CHANGES[..2].iter().enumerate() {
        let before = between.count(what);
        between.once(what, Act::HoldRequest);
        match at {
            0 => drop(scene.promote().await),
            _ => scene.orchestrator.restart().await,
        }
        killed_at(&mut scene, &between, &database, what, before).await;
    }
    scene.orchestrator.restart().await;
    scene.check(1).await;
    for what in &CHANGES[2..] {
        for act in [Act::HoldRequest, Act::HoldAnswer] {
            let before = between.count(what);
            between.once(what, act);
            scene.promote().await;
            killed_at(&mut scene, &between, &database, what, before).await;
            scene.orchestrator.restart().await;
            scene.check(scene.trained).await;
        }
    }
}

/// Kills the orchestrator once it has asked for this. Its successor finds the mirror free, as one finds it 45 s later.
async fn killed_at(scene: &mut Scene, between: &Between, database: &Database, what: &str, before: usize) {
    eventually(&format!("{what} is asked"), PATIENCE, async || (between.count(what) > before).then_some(()))
        .await;
    scene.orchestrator.kill9();
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let free = "UPDATE duties SET expires_at = 0 WHERE holder IS NOT NULL";
    sqlx::raw_sql(free).execute(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_orchestrators_make_no_version_twice() {
    let (mlflow, model, database) = (services::mlflow(), model(), services::postgres().await);
    let between = Between::start(&mlflow, |_| Act::Pass).await;
    let mut one = Scene::start(&database, &model, &between.url, json!({})).await;
    let options = Options {
        database_url: Some(database.url().to_owned()),
        settings: Some(settings(&model, &between.url, json!({}))),
        ..Options::default()
    };
    let mut two = Orchestrator::start(options).await;
    for _ in 0..4 {
        one.promote().await;
    }
    one.check(4).await;
    // The one that has it leaves: the other goes on at once.
    one.orchestrator.terminate();
    std::mem::swap(&mut one.orchestrator, &mut two);
    one.promote().await;
    one.check(5).await;
    assert_eq!(between.count("POST model-versions/create"), 5);
}

//! The tour does what it says, with numbers from real training, on both databases and over both ways in.

use std::time::{Duration, Instant};

use refit_tests::api::Api;
use refit_tests::processes::{refit, run_to_end};
use refit_tests::services;
use serde_json::{Value, json};

/// With an environment to build first: installing scikit-learn takes what the network gives.
const FIRST: Duration = Duration::from_secs(300);
/// With the packages downloaded.
const AGAIN: Duration = Duration::from_secs(240);

/// One after the other, so that the second finds the packages that the first has downloaded.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_tells_its_story_on_sqlite_and_on_postgres_with_rabbitmq() {
    let (alone, _) = play(&[], FIRST);
    is_the_story(&alone);

    let (database, broker) = (services::postgres().await, services::amqp().await);
    let began = Instant::now();
    let (on_services, notes) = play(&["--database-url", database.url(), "--amqp-url", broker.url()], AGAIN);
    is_the_story(&on_services);
    assert!(began.elapsed() < AGAIN);
    let queue = notes.split_whitespace().find(|word| word.starts_with("refit.demo."));
    let queue = queue.unwrap_or_else(|| panic!("the demo names no queue: {notes}")).trim_end_matches('.');
    for name in [queue.to_owned(), format!("{queue}.dead")] {
        assert_eq!(broker.depth(&name).await, None, "the demo left the queue {name} behind");
    }
    // It was really there: the runs, and every event of the burst.
    assert_eq!(database.number("SELECT count(*) FROM runs WHERE workflow = 'digits'").await, 3);
    let events = database.number("SELECT count(*) FROM events WHERE type = 'digits.labelled'").await;
    assert_eq!(events, 22, "one, then twenty, then one");

    // The same data and the same seed: what was trained does not depend on where its state is kept.
    for (one, other) in alone.iter().zip(&on_services) {
        assert_eq!(accuracy(one, "evaluate"), accuracy(other, "evaluate"));
    }
}

/// Plays the tour and answers its runs, and what it told beside them.
fn play(arguments: &[&str], timeout: Duration) -> (Vec<Value>, String) {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = refit(folder.path(), &[&["demo", "-o", "json"], arguments].concat());
    command.env("TMPDIR", &temporary);
    let said = run_to_end(command, timeout);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let left: Vec<_> = std::fs::read_dir(&temporary).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "the demo left {left:?} behind");
    (serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.out)), said.err)
}

fn is_the_story(runs: &[Value]) {
    let told: Vec<(&Value, &Value, usize)> = runs
        .iter()
        .map(|run| (&run["run"], &run["state"], run["events"].as_array().map_or(0, Vec::len)))
        .collect();
    let wanted = [
        (&json!("digits/1"), &json!("succeeded"), 1),
        (&json!("digits/2"), &json!("succeeded"), 20),
        (&json!("digits/3"), &json!("rejected"), 1),
    ];
    assert_eq!(told, wanted);
    let burst = runs[1]["events"].as_array().unwrap();
    assert!(
        (1..burst.len()).all(|place| !burst[..place].contains(&burst[place])),
        "an event is listed twice: {burst:?}"
    );

    let promoted: Vec<&Value> = runs.iter().map(|run| &run["promoted"]).collect();
    let version = |number: i64| json!({"model": "digits", "version": number, "alias": "champion"});
    assert_eq!(promoted, [&version(1), &version(2), &Value::Null]);
    let gate = Api::step(&runs[2], "gate");
    assert_eq!((&gate["verdict"], &gate["decision"]["champion"]), (&json!("fail"), &json!(2)), "{gate:#}");

    // Each act's accuracy is a metric of its run, and the gate judged by that number and no other.
    let [first, second, third] = [0, 1, 2].map(|act| accuracy(&runs[act], "evaluate"));
    assert!(first > 0.5 && second > first && third < second, "{first} {second} {third}");
    for run in runs {
        let gate = Api::step(run, "gate").to_string();
        assert!(
            gate.contains(&accuracy(run, "evaluate").to_string()),
            "the gate judged another number: {gate}"
        );
        let train = Api::step(run, "train");
        assert!(train["artifacts"].as_object().is_some_and(|artifacts| !artifacts.is_empty()), "{train:#}");
        assert_eq!((&train["state"], &train["worker"]), (&json!("succeeded"), &json!("demo")));
    }
    let models: Vec<&Value> = runs.iter().map(|run| &Api::step(run, "train")["artifacts"]).collect();
    assert!(models[0] != models[1] && models[1] != models[2], "two acts trained the same model");
}

fn accuracy(run: &Value, step: &str) -> f64 {
    let found = Api::step(run, step)["metrics"]["accuracy"].as_f64();
    found.unwrap_or_else(|| panic!("{step} of {} measured no accuracy", run["run"]))
}

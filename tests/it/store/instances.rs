//! Steps with a matrix in the store: their instances appear, are leased by name, finished, written to logs, and read
//! again by an orchestrator that never saw them.

use super::*;

on_both_databases! {
    instances_are_leased_finished_and_reloaded
}

const SWEEP: &str = "
workflow: sweep
steps:
  train:
    matrix: { depth: [4, 8, 12] }
    max_parallel: 2
    min_success: 50%
    run: [x]
    artifacts: { model: m }
  best: { needs: [train], select: { from: train, by: metrics.accuracy, order: max } }
finally:
  clean: { run: [x] }
";

async fn instances_are_leased_finished_and_reloaded(database: Database) {
    let name: RunName = "sweep/1".parse().unwrap();
    let first = {
        let house = House::started(&database).await;
        house.apply(SWEEP).await;
        house.start_run("sweep").await;
        house.register("w", "s").await;
        let mut orders = house.lease("w", "s", 4, 10_000).await;
        let steps: Vec<&str> = orders.iter().map(|order| order.key.step.as_str()).collect();
        assert_eq!(steps, ["train[depth=4]", "train[depth=8]"], "two at once");
        let report = Report {
            key: orders[1].key.clone(),
            attempt: 1,
            logs: vec![LogChunk {
                seq: 0,
                at: house.engine.store().clock().now(),
                text: "eight\n".to_owned(),
                marks: Vec::new(),
            }],
            metrics: BTreeMap::from([("loss".to_owned(), 0.5)]),
            checkpoint: None,
            points: Vec::new(),
            set_up_ms: None,
        };
        house.engine.report(report).await.unwrap();
        let live = house.run("sweep/1").await.steps.unwrap();
        assert_eq!(live[2].metrics["loss"], 0.5, "live metrics find the instance");
        house.finish(&orders[1].key, succeeded_with(0.8)).await.unwrap();
        for asked in ["train", "train[depth=8]"] {
            let page = house.engine.logs(&name, Some(asked), 0, Duration::ZERO).await.unwrap();
            assert_eq!(page.lines.len(), 1, "logs of {asked}");
        }
        let page = house.engine.logs(&name, Some("trai"), 0, Duration::ZERO).await.unwrap();
        assert!(page.lines.is_empty());
        orders.remove(0)
    };

    // Another orchestrator takes over, with nothing in memory.
    let house = House::started(&database).await;
    let held = house.engine.store().leases_of("s").await.unwrap();
    assert_eq!(held.iter().map(|lease| lease.step.as_str()).collect::<Vec<_>>(), ["train[depth=4]"]);
    let third = house.lease_one("w", "s").await;
    assert_eq!(third.key.step, "train[depth=12]");
    house.finish(&first.key, failed()).await.unwrap();
    let unknown = AttemptKey { step: "train[depth=5]".to_owned(), ..third.key.clone() };
    assert!(matches!(house.finish(&unknown, success()).await, Err(EngineError::NotFound(_))));
    house.finish(&third.key, succeeded_with(0.9)).await.unwrap();
    let clean = house.lease_one("w", "s").await;
    assert_eq!(clean.key.step, "clean");
    house.finish(&clean.key, success()).await.unwrap();
    let run = house.wait("sweep/1", "succeeded").await;
    let steps = run.steps.unwrap();
    let shown: Vec<(&str, &str)> =
        steps.iter().map(|step| (step.step.as_str(), step.state.as_str())).collect();
    let expected = [
        ("train", "succeeded"),
        ("train[depth=4]", "failed"),
        ("train[depth=8]", "succeeded"),
        ("train[depth=12]", "succeeded"),
        ("best", "succeeded"),
        ("clean", "succeeded"),
    ];
    assert_eq!(shown, expected);
    assert_eq!(
        steps[4].reason.as_deref(),
        Some("train[depth=12] has the highest metrics.accuracy: 0.9 (of 2)")
    );
    let reader = House::open(&database).await;
    assert_replays(&reader, &name).await;
    assert_eq!(database.number("SELECT COUNT(*) FROM steps").await, 6);
}

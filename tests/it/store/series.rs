//! Metrics over time in the store: every attempt's own, each value once, and bounded.

use super::*;

on_both_databases! {
    values_are_kept_once_and_bounded
    set_up_time_is_of_the_attempt_that_took_it
    each_attempt_has_its_own
}

fn report(order: &StepOrder, name: &str, values: std::ops::Range<u64>) -> Report {
    let at = refit_workflows::time::Timestamp::from_millis(1_000);
    let point = |index| MetricPoint { name: name.to_owned(), index, step: None, value: index as f64, at };
    Report {
        key: order.key.clone(),
        attempt: order.attempt,
        logs: Vec::new(),
        metrics: BTreeMap::new(),
        checkpoint: None,
        points: values.map(point).collect(),
        set_up_ms: None,
    }
}

async fn leased(database: &Database, text: &str) -> (House, RunName, StepOrder) {
    let house = House::started(database).await;
    house.apply(text).await;
    let name = house.start_run("one").await.run;
    house.register("w", "s").await;
    let order = house.lease_one("w", "s").await;
    (house, name, order)
}

async fn values_are_kept_once_and_bounded(database: Database) {
    let (house, name, order) = leased(&database, ONE_STEP).await;
    for _ in 0..2 {
        house.engine.report(report(&order, "loss", 0..900)).await.unwrap();
    }
    house.engine.report(report(&order, "loss", 800..2_500)).await.unwrap();
    let series = house.engine.series(&name, Some("a"), 0).await.unwrap();
    let points = &series[0].points;
    assert!((500..=1_001).contains(&points.len()), "{}", points.len());
    assert_eq!((points[0].value, points[points.len() - 1].value), (0.0, 2_499.0));

    for number in 0..150 {
        house.engine.report(report(&order, &format!("m{number}"), 0..1)).await.unwrap();
    }
    let series = house.engine.series(&name, None, 0).await.unwrap();
    assert_eq!(series.len(), 100, "of so many metrics of an attempt");
    let rest = house.engine.series(&name, None, 90).await.unwrap();
    assert_eq!((rest.len(), &rest[0].metric), (10, &series[90].metric));
    assert!(house.engine.series(&name, Some("b"), 0).await.unwrap().is_empty());
    assert!(house.engine.series(&"one/9".parse().unwrap(), None, 0).await.is_err());
}

async fn set_up_time_is_of_the_attempt_that_took_it(database: Database) {
    let text = "workflow: one\nsteps:\n  a: { run: [x], retry: { attempts: 2, backoff: 0s } }\n";
    let (house, name, first) = leased(&database, text).await;
    let seen = async || {
        let step = house.run(&name.to_string()).await.steps.unwrap().remove(0);
        (step.set_up_ms, step.metrics.get("loss").copied())
    };
    let metrics = BTreeMap::from([("loss".to_owned(), 0.5)]);
    house.engine.report(Report { metrics, ..report(&first, "loss", 0..1) }).await.unwrap();
    assert_eq!(seen().await, (None, Some(0.5)));
    house.engine.report(Report { set_up_ms: Some(41_000), ..report(&first, "loss", 1..2) }).await.unwrap();
    assert_eq!(seen().await, (Some(41_000), Some(0.5)), "neither takes the other's place");
    house.finish(&first.key, failed()).await.unwrap();
    let second = house.lease_one("w", "s").await;
    assert_eq!(seen().await.0, None, "it is the first attempt's");
    let finish = Finish { set_up_ms: Some(1_500), ..Finish::of(second.key, success()) };
    house.engine.finish(finish).await.unwrap();
    assert_eq!(seen().await.0, Some(1_500));
}

async fn each_attempt_has_its_own(database: Database) {
    let text = "workflow: one\nsteps:\n  a: { run: [x], retry: { attempts: 2, backoff: 0s } }\n";
    let (house, name, first) = leased(&database, text).await;
    house.engine.report(report(&first, "loss", 0..3)).await.unwrap();
    house.finish(&first.key, failed()).await.unwrap();
    let second = house.lease_one("w", "s").await;
    house.engine.report(report(&second, "loss", 0..2)).await.unwrap();
    let stale = house.engine.report(report(&first, "loss", 3..9)).await;
    assert!(stale.is_err(), "a stale attempt writes nothing");
    house.finish(&second.key, success()).await.unwrap();
    let series = house.engine.series(&name, None, 0).await.unwrap();
    let seen: Vec<(u32, usize)> = series.iter().map(|one| (one.attempt, one.points.len())).collect();
    assert_eq!(seen, [(1, 3), (2, 2)], "they stay when the run is over");
}

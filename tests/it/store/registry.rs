//! Models in the store: a champion is replaced by one candidate, compared with it, and put back one promotion at a time.

use super::*;

on_both_databases! {
    two_gated_runs_cannot_both_replace_one_champion
    a_rollback_goes_back_one_promotion_at_a_time
    a_retry_after_a_promotion_leaves_the_champion_alone
}

const GATED: &str = "
model: m
on: [{ event: { type: [data] } }]
steps:
  train: { run: [x], artifacts: { model: m } }
  gate:
    needs: [train]
    gate: { checks: [{ metric: accuracy, min: 0.5 }, { metric: accuracy, min_change: 0.01 }] }
  promote: { needs: [gate], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";

/// Runs a gated workflow with this accuracy to its end.
pub(super) async fn retrain(house: &House, workflow: &str, accuracy: f64) -> RunView {
    let name = house.start_run(workflow).await.run.to_string();
    house.register("w", "s").await;
    let order = house.lease_one("w", "s").await;
    house.finish(&order.key, succeeded_with(accuracy)).await.unwrap();
    house.run(&name).await
}

async fn two_gated_runs_cannot_both_replace_one_champion(database: Database) {
    // Two orchestrators where the database allows it, so that no memory is shared.
    let one = House::started(&database).await;
    let two = if database.kind() == "postgres" { Some(House::started(&database).await) } else { None };
    let two = two.as_ref().unwrap_or(&one);
    one.apply(&format!("workflow: gated{GATED}")).await;
    assert_eq!(retrain(&one, "gated", 0.7).await.state, "succeeded");
    for round in 0..10u32 {
        let base = 0.7 + f64::from(round) * 0.02;
        let mut orders = Vec::new();
        for _ in 0..2 {
            one.start_run("gated").await;
            orders.push(one.lease_one("w", "s").await);
        }
        // Both candidates are better than the champion, the second no better than the first.
        let reports = orders.iter().zip([&one, two]).map(|(order, house)| {
            let (engine, key) = (house.engine.clone(), order.key.clone());
            let outcome = succeeded_with(base + 0.02);
            tokio::spawn(async move { engine.finish(Finish::of(key, outcome)).await.unwrap() })
        });
        for report in reports {
            report.await.unwrap();
        }
        let mut states: Vec<(String, RunView)> = Vec::new();
        for order in &orders {
            let run = one.run(&order.key.run.to_string()).await;
            states.push((run.state.clone(), run));
        }
        states.sort_by(|a, b| b.0.cmp(&a.0));
        assert_eq!(states[0].0, "succeeded");
        assert_eq!(states[1].0, "rejected", "the second is judged against the first");
        let decision = states[1].1.steps.as_ref().unwrap()[1].decision.clone().unwrap();
        assert_eq!(decision.champion, states[0].1.promoted.as_ref().map(|promoted| promoted.version));
    }
    let model = one.engine.model("m").await.unwrap();
    assert_eq!((model.versions.len(), model.aliases["champion"]), (11, 11));
    let history = one.engine.history("m").await.unwrap();
    let moves: Vec<_> = history.iter().rev().map(|entry| (entry.from, entry.to)).collect();
    let expected: Vec<_> = (1..=11).map(|to| ((to > 1).then_some(to - 1), to)).collect();
    assert_eq!(moves, expected, "each promotion replaced the version before it");
    assert!(history.iter().all(|entry| entry.evidence.is_some() && entry.reason.is_some()));
}

async fn a_rollback_goes_back_one_promotion_at_a_time(database: Database) {
    let house = House::started(&database).await;
    house.apply(&format!("workflow: gated{GATED}")).await;
    for accuracy in [0.6, 0.7, 0.8] {
        assert_eq!(retrain(&house, "gated", accuracy).await.state, "succeeded");
    }
    let back = || Rollback {
        alias: "champion".to_owned(),
        to: None,
        expect: None,
        reason: Some("it forgets".to_owned()),
    };
    let first = house.engine.rollback("m", back(), &somebody()).await.unwrap();
    assert_eq!((first.from, first.to), (Some(3), 2));
    let second = house.engine.rollback("m", back(), &somebody()).await.unwrap();
    assert_eq!((second.from, second.to), (Some(2), 1));
    let third = house.engine.rollback("m", back(), &somebody()).await.unwrap_err();
    assert!(matches!(third, EngineError::Refused { kind: "nothing-to-roll-back", .. }), "{third}");
    // The next candidate is compared with the version that is in use now.
    let next = retrain(&house, "gated", 0.65).await;
    assert_eq!(next.promoted.map(|promoted| promoted.version), Some(4));
    let fourth = house.engine.rollback("m", back(), &somebody()).await.unwrap();
    assert_eq!((fourth.from, fourth.to), (Some(4), 1));
    let history = house.engine.history("m").await.unwrap();
    assert_eq!((history[0].by.as_str(), history[0].reason.as_deref()), ("ada", Some("it forgets")));
    let filter = refit_orchestrator::engine::EventFilter {
        kind: Some("refit.model.rolled_back".to_owned()),
        limit: 10,
        ..Default::default()
    };
    assert_eq!(house.engine.events(filter).await.unwrap().len(), 3, "each is an event as well");
}

async fn a_retry_after_a_promotion_leaves_the_champion_alone(database: Database) {
    let house = House::started(&database).await;
    house.apply(&format!("workflow: gated{GATED}  tell: {{ needs: [promote], run: [x] }}\n")).await;
    let name = house.start_run("gated").await.run;
    house.register("w", "s").await;
    let order = house.lease_one("w", "s").await;
    house.finish(&order.key, succeeded_with(0.7)).await.unwrap();
    let order = house.lease_one("w", "s").await;
    house.finish(&order.key, failed()).await.unwrap();
    house.wait("gated/1", "failed").await;
    house.engine.retry_run(&name, RetryRun { all: false }, &somebody()).await.unwrap();
    let order = house.lease_one("w", "s").await;
    assert_eq!(order.key.step, "tell");
    house.finish(&order.key, success()).await.unwrap();
    let run = house.wait("gated/1", "succeeded").await;
    assert_eq!(run.promoted.map(|promoted| promoted.version), Some(1));
    assert_eq!(house.engine.model("m").await.unwrap().versions.len(), 1);
}

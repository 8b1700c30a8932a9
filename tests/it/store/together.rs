//! Reports and calls for work that come while others are served share a transaction: what is refused fails alone, what is
//! accepted is accepted once, and no step goes to two.

use std::collections::HashSet;

use refit_workflows::wire::LeaseRequest;

use super::*;

on_both_databases! {
    what_comes_together_fails_alone
}

/// Half of what stands side by side.
const HALF: usize = 20;

async fn what_comes_together_fails_alone(database: Database) {
    let house = House::started(&database).await;
    let side_by_side: String = (0..HALF * 2).map(|step| format!("  s{step}: {{ run: [x] }}\n")).collect();
    house.apply(&format!("workflow: wide\nsteps:\n{side_by_side}")).await;
    house.apply(ONE_STEP).await;
    house.register("w", "s").await;
    let wide = house.start_run("wide").await.run;
    let orders = house.lease("w", "s", HALF as u32 * 2, 10_000).await;
    assert_eq!(orders.len(), HALF * 2, "one call brings whatever is ready");
    for _ in 0..HALF {
        house.start_run("one").await;
    }

    // At once: good reports that ask for more, stale ones, one about no run at all, and calls for work.
    let next = || Some(LeaseRequest { worker: "w".into(), session: "s".into(), slots: 1, wait_ms: 0 });
    let reports = orders.iter().enumerate().map(|(number, order)| {
        let (engine, mut key) = (house.engine.clone(), order.key.clone());
        key.epoch += i64::from(number % 2 == 1);
        tokio::spawn(
            async move { engine.finish(Finish { next: next(), ..Finish::of(key, success()) }).await },
        )
    });
    let nowhere = AttemptKey { run: "wide/99".parse().unwrap(), ..orders[0].key.clone() };
    let (engine, key) = (house.engine.clone(), nowhere);
    let nowhere = tokio::spawn(async move { engine.finish(Finish::of(key, success())).await });
    let reports: Vec<_> = reports.collect();
    let mut leased = HashSet::new();
    for (number, report) in reports.into_iter().enumerate() {
        match (number % 2, report.await.unwrap()) {
            (0, Ok(finished)) => {
                for order in finished.orders {
                    assert!(leased.insert(order.key.run.clone()), "{} was leased twice", order.key.run);
                }
            }
            (1, Err(EngineError::Refused { kind: "stale-lease", .. })) => {}
            (_, other) => panic!("report {number}: {other:?}"),
        }
    }
    let missing = nowhere.await.unwrap();
    assert!(matches!(missing, Err(EngineError::NotFound(_))), "{missing:?}");
    assert_eq!(leased.len(), HALF, "each of the good reports found one of the runs that waited");

    for order in orders.iter().skip(1).step_by(2) {
        house.finish(&order.key, success()).await.unwrap();
    }
    house.wait(&wide.to_string(), "succeeded").await;
    assert_replays(&House::open(&database).await, &wide).await;
}

//! Watches over promotions: an event takes back what was promoted, in time, once, and nothing else.

use super::registry::retrain;
use super::*;
use crate::house;

on_both_databases! {
    an_event_takes_a_promotion_back_although_everything_was_started_anew
    what_was_received_in_time_counts_however_late_it_is_looked_at
    a_watch_is_over_when_its_time_is_or_when_the_alias_has_moved
    a_check_that_objects_takes_a_promotion_back_and_says_why
}

const WATCHED: &str = "
workflow: watched
model: m
on: [{ event: { type: [data] } }]
steps:
  train: { run: [x], artifacts: { model: m } }
  gate: { needs: [train], gate: { checks: [{ metric: accuracy, min: 0.5 }] } }
  promote:
    needs: [gate]
    promote:
      artifact: '${{ steps.train.artifacts.model }}'
      watch: { for: 24h, rollback_on: { type: [alert], data: { model: [m] } } }
";

const DAY: i64 = 24 * 3600;

async fn alert(house: &House, id: &str) {
    house.send(id, "alert", json!({ "model": "m" })).await;
}

/// What became of an event: the decision about it, and why.
async fn became(house: &House, id: &str) -> (String, String) {
    let decisions = house.decisions(id).await;
    let [decision] = &decisions[..] else { panic!("{id}: {decisions:?}") };
    (decision.decision.clone(), decision.reason.clone().unwrap_or_default())
}

async fn an_event_takes_a_promotion_back_although_everything_was_started_anew(database: Database) {
    let house = House::started(&database).await;
    house.apply(WATCHED).await;
    retrain(&house, "watched", 0.7).await;
    retrain(&house, "watched", 0.8).await;
    let model = house.engine.model("m").await.unwrap();
    let [watch] = &model.watches[..] else { panic!("{:?}", model.watches) };
    assert_eq!((watch.version, watch.run.to_string().as_str()), (2, "watched/2"), "the first one's is over");
    house.send("other", "alert", json!({ "model": "n" })).await;
    assert_eq!(became(&house, "other").await.0, "unmatched");
    drop(house);

    let house = House::started(&database).await;
    alert(&house, "a1").await;
    let (decision, reason) = became(&house, "a1").await;
    assert_eq!(decision, "rolled_back");
    assert_eq!(reason, "champion of m went from 2, promoted by watched/2, back to 1");
    let history = house.engine.history("m").await.unwrap();
    let latest = &history[0];
    assert_eq!(
        (latest.from, latest.to, latest.how, latest.by.as_str()),
        (Some(2), 1, Moved::RolledBack, "watch of watched/2")
    );
    let reason = latest.reason.as_deref().unwrap();
    assert!(
        reason.starts_with("alert a1 of /test came ") && reason.ends_with("after the promotion by watched/2"),
        "{reason}"
    );
    let kind = Some("refit.model.rolled_back".to_owned());
    let told =
        house.engine.events(EventFilter { kind, data: true, limit: 10, ..Default::default() }).await.unwrap();
    assert_eq!(told[0].data.as_ref().unwrap()["event"], json!({ "source": "/test", "id": "a1" }));

    alert(&house, "a2").await;
    assert_eq!(became(&house, "a2").await.0, "unmatched", "what is in use now was not watched any more");
    assert_eq!(house.engine.history("m").await.unwrap().len(), 3);
}

/// Promotes one more version, with the clock in the test's hand.
async fn promote(house: &house::House, number: i64, accuracy: f64) {
    house.send(&format!("d{number}"), "data", json!({})).await;
    let run = format!("watched/{number}");
    house.change(&run, Input::Leased { step: 0, worker: "w".to_owned(), session: "s".to_owned() }).await;
    house
        .change(
            &run,
            Input::Finished { step: 0, epoch: 1, outcome: succeeded_with(accuracy), set_up_ms: None },
        )
        .await;
    let promoted = house.run(&run).await.promoted.map(|promoted| promoted.version);
    assert_eq!(promoted, Some(number));
}

/// What became of an event at last, and why.
async fn decided(house: &house::House, id: &str) -> (String, String) {
    let events = house.store.event(id, None).await.unwrap();
    let [decision] = &events[0].decisions[..] else { panic!("{id}: {events:?}") };
    (decision.decision.clone(), decision.reason.clone().unwrap_or_default())
}

async fn champion(house: &house::House) -> i64 {
    house.store.model("m").await.unwrap().unwrap().aliases["champion"]
}

async fn what_was_received_in_time_counts_however_late_it_is_looked_at(database: Database) {
    let house = house::House::open(&database).await;
    house.apply(WATCHED).await;
    promote(&house, 1, 0.7).await;
    promote(&house, 2, 0.8).await;
    // Two come while nobody routes, one of them in time.
    house.at(DAY - 1);
    house.record("a1", "alert", json!({ "model": "m" })).await;
    house.at(DAY + 60);
    house.record("a2", "alert", json!({ "model": "m" })).await;
    house.at(2 * DAY);
    house.look().await;
    assert_eq!(decided(&house, "a1").await.0, "rolled_back");
    assert_eq!(decided(&house, "a2").await.0, "unmatched");
    assert_eq!(champion(&house).await, 1);
}

async fn a_watch_is_over_when_its_time_is_or_when_the_alias_has_moved(database: Database) {
    let house = house::House::open(&database).await;
    house.apply(WATCHED).await;
    let alert = async |id: &str| {
        house.send(id, "alert", json!({ "model": "m" })).await;
        decided(&house, id).await
    };
    promote(&house, 1, 0.7).await;
    let (decision, reason) = alert("a1").await;
    assert!(
        decision == "rolled_back" && reason.contains("there was no version before"),
        "{decision}: {reason}"
    );
    // Nobody was called back within a day.
    promote(&house, 2, 0.8).await;
    house.at(DAY + 60);
    house.look().await;
    assert_eq!(house.store.model("m").await.unwrap().unwrap().watches, []);
    assert_eq!(alert("a2").await.0, "unmatched");
    // A person was faster, and came back to the same version.
    promote(&house, 3, 0.9).await;
    let back = Rollback { alias: "champion".to_owned(), to: None, expect: None, reason: None };
    house.store.rollback("m", back, "ada").await.unwrap();
    let again = PromoteVersion {
        version: 3,
        alias: "champion".to_owned(),
        expect: Some(2),
        override_gate: false,
        reason: None,
    };
    house.store.promote_by_hand("m", again, "ada").await.unwrap();
    assert_eq!(alert("a3").await.0, "unmatched");
    assert_eq!(champion(&house).await, 3);
    let ended = database.texts("SELECT ended FROM watches ORDER BY seq").await;
    assert_eq!(ended, ["stuck", "held", "moved"]);
}

async fn a_check_that_objects_takes_a_promotion_back_and_says_why(database: Database) {
    let house = house::House::open(&database).await;
    let checks = "watch: { for: 24h, rollback_on: { type: [alert], data: { model: [m] } },
        checks: [{ expr: 'data.accuracy >= previous.metrics.accuracy' },
          { expr: data.accuracy >= promoted.metrics.accuracy - 0.05, because: live figures fell }] }";
    let plain = "watch: { for: 24h, rollback_on: { type: [alert], data: { model: [m] } } }";
    house.apply(&WATCHED.replace(plain, checks)).await;
    let report = async |id: &str, data: Value| {
        house.send(id, "alert", data).await;
        decided(&house, id).await
    };
    promote(&house, 1, 0.7).await;
    promote(&house, 2, 0.8).await;
    let watches = house.store.model("m").await.unwrap().unwrap().watches;
    assert_eq!(watches[0].checks[1].because.as_deref(), Some("live figures fell"));

    let (decision, reason) = report("r1", json!({ "model": "m", "accuracy": 0.78 })).await;
    assert_eq!(decision, "watched");
    assert_eq!(reason, "every check holds: champion of m stays what watched/2 promoted");
    assert_eq!(report("r2", json!({ "model": "n", "accuracy": 0.1 })).await.0, "unmatched");
    assert_eq!(champion(&house).await, 2);
    let (decision, _) = report("r3", json!({ "model": "m", "accuracy": 0.72 })).await;
    assert_eq!((decision.as_str(), champion(&house).await), ("rolled_back", 1));
    let why = async || house.store.history("m").await.unwrap()[0].reason.clone().unwrap();
    let objection = "`data.accuracy >= promoted.metrics.accuracy - 0.05` does not hold (live figures fell)";
    assert!(why().await.ends_with(objection), "{}", why().await);

    // A report without the figure is no good report.
    promote(&house, 3, 0.9).await;
    assert_eq!(report("r4", json!({ "model": "m" })).await.0, "rolled_back");
    assert!(why().await.contains("cannot be judged"), "{}", why().await);
    assert_eq!(champion(&house).await, 1);
}

//! Events on their way out: one a run at a time, none lost to a target that is away.

use super::*;

on_both_databases! {
    outbound_events_go_out_one_per_run_at_a_time
}

async fn outbound_events_go_out_one_per_run_at_a_time(database: Database) {
    use refit_orchestrator::engine::Sent;
    let house = House::open_with(&database, |config| {
        let hook = refit_orchestrator::config::Target::webhook("hook", "http://127.0.0.1:9/", None);
        config.targets.push(hook);
    })
    .await;
    house.apply("workflow: e\nsteps:\n  a: { emit: { type: first } }\n  b: { needs: [a], emit: { type: second } }\n").await;
    house.start_run("e").await;
    house.start_run("e").await;
    let mut sent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut tries = 0;
    loop {
        let due = house.engine.outbox_due("hook", 100).await.unwrap();
        if due.is_empty() {
            break;
        }
        let mut runs: Vec<String> = due.iter().map(|outbound| stream_of(&outbound.event)).collect();
        runs.sort();
        runs.dedup();
        assert_eq!(runs.len(), due.len(), "two events of one run were handed out together");
        let results = due
            .into_iter()
            .map(|outbound| {
                sent.entry(stream_of(&outbound.event)).or_default().push(outbound.event.kind().to_owned());
                (outbound, Sent::Done)
            })
            .collect();
        house.engine.outbox_sent(results).await.unwrap();
        tries += 1;
        assert!(tries < 20, "the outbox does not get empty");
    }
    let order = vec!["first".to_owned(), "second".to_owned(), "refit.run.succeeded".to_owned()];
    assert_eq!(sent, BTreeMap::from([("e/1".to_owned(), order.clone()), ("e/2".to_owned(), order)]));

    // A failure holds up the rest of its run, and nothing is lost.
    house.start_run("e").await;
    let due = house.engine.outbox_due("hook", 100).await.unwrap();
    assert_eq!(due.len(), 1);
    let failed = due.into_iter().map(|outbound| (outbound, Sent::Failed("away".to_owned()))).collect();
    house.engine.outbox_sent(failed).await.unwrap();
    assert!(house.engine.outbox_due("hook", 100).await.unwrap().is_empty(), "not before its pause is over");
    assert_eq!(database.number("SELECT COUNT(*) FROM outbox").await, 3);
    // Another orchestrator does not send to the same target meanwhile.
    execute(&database, "UPDATE outbox SET due_at = 0".to_owned()).await;
    let other = House::open(&database).await;
    assert!(other.engine.outbox_due("hook", 100).await.unwrap().is_empty());
    assert_eq!(house.engine.outbox_due("hook", 100).await.unwrap().len(), 1);
}

fn stream_of(event: &CloudEvent) -> String {
    event.id().split('/').take(2).collect::<Vec<_>>().join("/")
}

//! Events on their way out: one a run at a time, none lost to a target that is away.

use super::*;

use refit_orchestrator::config::{Allow, Destination, Target, Webhook};
use refit_orchestrator::engine::{Ask, GiveUp, Outbound, Sent, Standing, TargetState};
use refit_workflows::pattern::Pattern;

on_both_databases! {
    outbound_events_go_out_one_per_run_at_a_time
    an_event_goes_to_every_target_that_any_orchestrator_has
    what_is_given_up_is_a_dead_letter_and_goes_back_behind_its_stream
    an_event_of_refits_own_that_is_there_already_is_counted_with_its_time
}

const EMITS: &str =
    "workflow: e\nsteps:\n  a: { emit: { type: first } }\n  b: { needs: [a], emit: { type: second } }\n";

fn hook(name: &str, events: &[Value]) -> Target {
    let events = events.iter().map(|event| Pattern::parse(event).unwrap()).collect();
    let allow = Allow::parse(["127.0.0.1"]).unwrap();
    let webhook = Webhook { allow, ..Webhook::at("http://127.0.0.1:9/") };
    Target { events, ..Target::new(name, Destination::Webhook(webhook)) }
}

async fn with_targets(database: &Database, targets: Vec<Target>) -> House {
    House::open_with(database, |config| config.targets = targets).await
}

async fn due(house: &House, target: &str) -> Vec<Outbound> {
    house.engine.outbox_look(target, Ask::Due(100)).await.unwrap().due
}

async fn written(house: &House, target: &str, results: Vec<(Outbound, Sent)>) {
    let results = std::sync::Arc::new(results);
    house.engine.outbox_sent(target, results, Standing::default()).await.unwrap();
}

fn refused(pause: Duration) -> Sent {
    Sent::Failed { reason: "away".to_owned(), pause }
}

async fn kinds(database: &Database, target: &str) -> Vec<String> {
    let sql = "SELECT e.type FROM outbox o JOIN events e ON e.seq = o.event WHERE o.target = ";
    database.texts(&format!("{sql}'{target}' ORDER BY o.seq")).await
}

async fn outbound_events_go_out_one_per_run_at_a_time(database: Database) {
    let house = with_targets(&database, vec![hook("hook", &[])]).await;
    house.apply(EMITS).await;
    house.start_run("e").await;
    house.start_run("e").await;
    let mut sent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut tries = 0;
    loop {
        let handed = due(&house, "hook").await;
        if handed.is_empty() {
            break;
        }
        let mut runs: Vec<String> = handed.iter().map(|outbound| stream_of(&outbound.event)).collect();
        runs.sort();
        runs.dedup();
        assert_eq!(runs.len(), handed.len(), "two events of one run were handed out together");
        let results = handed
            .into_iter()
            .map(|outbound| {
                sent.entry(stream_of(&outbound.event)).or_default().push(outbound.event.kind().to_owned());
                (outbound, Sent::Done)
            })
            .collect();
        written(&house, "hook", results).await;
        tries += 1;
        assert!(tries < 20, "the outbox does not get empty");
    }
    let order = vec!["first".to_owned(), "second".to_owned(), "refit.run.succeeded".to_owned()];
    assert_eq!(sent, BTreeMap::from([("e/1".to_owned(), order.clone()), ("e/2".to_owned(), order)]));

    // A failure holds up the rest of its run, and nothing is lost.
    house.start_run("e").await;
    let handed = due(&house, "hook").await;
    assert_eq!(handed.len(), 1);
    let failed = handed.into_iter().map(|one| (one, refused(Duration::from_secs(60)))).collect();
    written(&house, "hook", failed).await;
    assert!(due(&house, "hook").await.is_empty(), "not before its pause is over");
    assert_eq!(database.number("SELECT COUNT(*) FROM outbox").await, 3);
    // Another orchestrator does not send to the same target meanwhile.
    execute(&database, "UPDATE outbox SET due_at = 0".to_owned()).await;
    let other = House::open(&database).await;
    assert!(due(&other, "hook").await.is_empty());
    assert_eq!(due(&house, "hook").await.len(), 1);
}

async fn an_event_goes_to_every_target_that_any_orchestrator_has(database: Database) {
    let only = [json!({ "type": ["second"] }), json!({ "type": [{ "prefix": "sec" }] })];
    // One that has no targets at all, and has looked before another with two came.
    let bare = House::open(&database).await;
    bare.apply(EMITS).await;
    bare.start_run("e").await;
    let house = with_targets(&database, vec![hook("all", &[]), hook("some", &only)]).await;
    assert_eq!(database.number("SELECT COUNT(*) FROM outbox").await, 0);
    bare.start_run("e").await;
    assert_eq!(kinds(&database, "all").await, ["first", "second", "refit.run.succeeded"]);
    assert_eq!(kinds(&database, "some").await, ["second"], "each event once, however many patterns match");

    // Other settings elsewhere are in force at once, here as well.
    with_targets(&database, vec![hook("some", &[json!({ "type": ["first"] })])]).await;
    house.start_run("e").await;
    assert_eq!(kinds(&database, "some").await, ["second", "first"]);
    assert_eq!(kinds(&database, "all").await.len(), 6);

    // A target that is in nobody's settings gets no more once that is known; another's absence is not known yet.
    house.engine.store().keep_targets(vec!["some".to_owned()], false).await.unwrap();
    bare.start_run("e").await;
    assert_eq!(kinds(&database, "all").await.len(), 9);
    execute(&database, "UPDATE targets SET seen_at = 0 WHERE name = 'all'".to_owned()).await;
    house.engine.store().keep_targets(vec!["some".to_owned()], false).await.unwrap();
    bare.start_run("e").await;
    assert_eq!((kinds(&database, "all").await.len(), kinds(&database, "some").await.len()), (9, 4));
    assert_eq!(house.engine.target("all").await.unwrap().state, "absent");
    // And again once it is back.
    house.engine.keep_targets(&["all".to_owned()]).await.unwrap();
    bare.start_run("e").await;
    assert_eq!(kinds(&database, "all").await.len(), 12);
}

async fn what_is_given_up_is_a_dead_letter_and_goes_back_behind_its_stream(database: Database) {
    let house = with_targets(&database, vec![hook("hook", &[])]).await;
    house.apply(EMITS).await;
    house.start_run("e").await;
    let fail = async |pause| {
        execute(&database, "UPDATE outbox SET due_at = 0".to_owned()).await;
        let handed = due(&house, "hook").await;
        written(&house, "hook", handed.into_iter().map(|one| (one, refused(pause))).collect()).await;
    };
    fail(Duration::from_secs(60)).await;
    fail(Duration::from_secs(60)).await;
    let now = house.engine.store().clock().now();
    let give_up = async |which| house.engine.outbox_give_up("hook", which).await.unwrap();
    let which = GiveUp {
        tries: 2,
        failed_before: now.plus(Duration::from_secs(9)),
        due_after: Some(now),
        written_before: None,
    };
    assert_eq!(give_up(GiveUp { tries: 3, ..which }).await, 0, "not tried often enough");
    assert_eq!(
        give_up(GiveUp { failed_before: now.minus(Duration::from_secs(9)), ..which }).await,
        0,
        "not for long"
    );
    let later = now.plus(Duration::from_secs(3600));
    assert_eq!(give_up(GiveUp { due_after: Some(later), ..which }).await, 0, "it may be on its way");
    assert_eq!(give_up(which).await, 1);
    assert_eq!(kinds(&database, "hook").await, ["second", "refit.run.succeeded"]);
    assert_eq!(due(&house, "hook").await[0].event.kind(), "second", "its stream goes on");

    let events = database.number("SELECT COUNT(*) FROM events").await;
    let letters =
        house.engine.dead_letters(refit_orchestrator::engine::DeadLetterFilter::default()).await.unwrap();
    assert_eq!(
        (
            letters.len(),
            letters[0].direction.as_str(),
            letters[0].source.as_str(),
            letters[0].reason.as_str()
        ),
        (1, "out", "target:hook", "away")
    );
    let retried = house.engine.retry_dead_letter(letters[0].seq, None).await.unwrap();
    assert_eq!((retried.events.len(), retried.sent_again_to.as_deref()), (1, Some("hook")));
    assert_eq!(kinds(&database, "hook").await, ["second", "refit.run.succeeded", "first"]);
    assert_eq!(database.number("SELECT COUNT(*) FROM dead_letters").await, 0);
    assert_eq!(database.number("SELECT COUNT(*) FROM events").await, events, "no event of its own");

    // Of a target that takes nothing, what was never tried goes too.
    let all = GiveUp { written_before: Some(now.plus(Duration::from_secs(9))), ..which };
    assert_eq!(give_up(all).await, 3);
    // A target that said it wants no more is handed nothing, until it is enabled.
    house.start_run("e").await;
    let gone = Standing { state: TargetState::Disabled, since: Some(now), error: Some("410".to_owned()) };
    house.engine.outbox_sent("hook", Default::default(), gone).await.unwrap();
    assert!(due(&house, "hook").await.is_empty());
    written(&house, "hook", Vec::new()).await;
    assert!(due(&house, "hook").await.is_empty(), "what was under way enables nothing");
    assert_eq!(house.engine.drop_outbox("hook").await.unwrap().dropped, 3);
    house.engine.enable_target("hook").await.unwrap();
    house.start_run("e").await;
    assert_eq!(due(&house, "hook").await.len(), 1);
    house.engine.drop_outbox("hook").await.unwrap_err();
}

fn stream_of(event: &CloudEvent) -> String {
    event.id().split('/').take(2).collect::<Vec<_>>().join("/")
}

async fn an_event_of_refits_own_that_is_there_already_is_counted_with_its_time(database: Database) {
    let house = with_targets(&database, vec![hook("hook", &[])]).await;
    house.apply(EMITS).await;
    house.start_run("e").await;
    let id = database.texts("SELECT id FROM events WHERE type = 'first'").await.remove(0);
    let next = json!({ "id": id.replace("e/1", "e/2"), "source": "/refit/workflows/e", "type": "first" });
    house.engine.record(vec![CloudEvent::parse(next).unwrap()], Vec::new()).await.unwrap();
    house.start_run("e").await;
    let counted = "SELECT id FROM events WHERE duplicates = 1 AND duplicate_at >= received_at";
    assert_eq!(database.texts(counted).await, [id.replace("e/1", "e/2")]);
    assert_eq!(kinds(&database, "hook").await.iter().filter(|kind| *kind == "first").count(), 1);
}

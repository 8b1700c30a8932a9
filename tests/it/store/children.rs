//! Runs that steps of other runs ask for: started once, followed wherever they go, ended with their parent; whenever
//! the orchestrator that does it is gone.

use super::*;

on_both_databases! {
    a_child_is_started_once_although_orchestrators_come_and_go
    a_cancelled_parent_ends_its_child
    a_child_that_waited_is_followed_into_the_run_that_took_its_place
    what_cannot_be_started_fails_its_step
    runs_that_ask_for_each_other_do_not_wait_for_ever
    a_child_waits_where_one_of_those_before_it_will_end
}

const PARENT: &str = "
workflow: parent
params: { depth: { type: integer, default: 3 } }
steps:
  sub: { workflow: { name: child, params: { depth: '${{ params.depth }}' } } }
  after: { needs: [sub], run: [x] }
";
const CHILD: &str = "
workflow: child
params: { depth: { type: integer } }
outputs: { depth: '${{ params.depth }}' }
steps:
  a: { run: [x] }
";

async fn a_child_is_started_once_although_orchestrators_come_and_go(database: Database) {
    let house = House::open(&database).await;
    house.apply(PARENT).await;
    house.apply(CHILD).await;
    house.start_run("parent").await;
    assert_eq!(database.number("SELECT COUNT(*) FROM children").await, 1);
    drop(house);
    // Every look is another orchestrator's; two of them look at the same time.
    for _ in 0..3 {
        let (one, two) = (House::open(&database).await, House::open(&database).await);
        let looks = tokio::join!(one.engine.store().follow_children(), two.engine.store().follow_children());
        assert!(looks.0.unwrap().trouble.is_none() && looks.1.unwrap().trouble.is_none());
    }
    assert_eq!(database.number("SELECT COUNT(*) FROM runs WHERE workflow = 'child'").await, 1);
    let house = House::open(&database).await;
    let parent = house.run("parent/1").await.steps.unwrap();
    assert_eq!((parent[0].state.as_str(), &parent[0].child), ("running", &Some("child/1".parse().unwrap())));
    let child = house.run("child/1").await;
    let asked_by = ParentView { run: "parent/1".parse().unwrap(), step: "sub".to_owned() };
    assert_eq!((child.parent, child.params["depth"].clone()), (Some(asked_by), json!(3)));
    let event = &house.engine.event("parent/1/sub/1", None).await.unwrap()[0];
    assert_eq!(
        (event.source.as_str(), event.kind.as_str()),
        ("/refit/workflows/parent", "refit.run.requested")
    );

    house.register("w", "s").await;
    let order = house.lease_one("w", "s").await;
    assert_eq!(order.key.run.to_string(), "child/1");
    house.finish(&order.key, success()).await.unwrap();
    assert_eq!(house.run("child/1").await.outputs["depth"], json!(3));
    assert_eq!(house.run("parent/1").await.steps.unwrap()[0].state, "running", "the parent is told later");
    drop(house);
    for _ in 0..2 {
        let (one, two) = (House::open(&database).await, House::open(&database).await);
        let looks = tokio::join!(one.engine.store().follow_children(), two.engine.store().follow_children());
        assert!(looks.0.unwrap().trouble.is_none() && looks.1.unwrap().trouble.is_none());
    }
    let house = House::open(&database).await;
    let parent = house.run("parent/1").await.steps.unwrap();
    assert_eq!((parent[0].state.as_str(), parent[0].outputs["depth"].clone()), ("succeeded", json!(3)));
    assert_eq!(parent[1].state, "ready");
    assert_eq!(database.number("SELECT COUNT(*) FROM children").await, 0, "nothing is left to do");
    assert_replays(&house, &"parent/1".parse().unwrap()).await;
    assert_replays(&house, &"child/1".parse().unwrap()).await;
}

async fn a_cancelled_parent_ends_its_child(database: Database) {
    let house = House::open(&database).await;
    house.apply(PARENT).await;
    house.apply(CHILD).await;
    house.start();
    let parent: RunName = house.start_run("parent").await.run;
    house.wait("child/1", "running").await;
    house.register("w", "s").await;
    let order = house.lease_one("w", "s").await;
    house.engine.cancel_run(&parent, &somebody()).await.unwrap();
    refit_tests::eventually("the child's step is being ended", Duration::from_secs(20), async || {
        house.engine.store().leases_of("s").await.unwrap().iter().any(|lease| lease.cancelling).then_some(())
    })
    .await;
    assert_eq!(house.run("parent/1").await.state, "running", "it waits for its child's end");
    house.finish(&order.key, Outcome::Cancelled).await.unwrap();
    let child = house.wait("child/1", "cancelled").await;
    assert_eq!(child.reason.as_deref(), Some("cancelled by run parent/1"));
    house.wait("parent/1", "cancelled").await;

    // Before the child was started: nothing is.
    let quiet = House::open(&database).await;
    house.stop.cancel();
    let parent: RunName = quiet.start_run("parent").await.run;
    quiet.engine.cancel_run(&parent, &somebody()).await.unwrap();
    refit_tests::eventually("the parent's end", Duration::from_secs(20), async || {
        quiet.engine.store().follow_children().await.unwrap();
        (quiet.run(&parent.to_string()).await.state == "cancelled").then_some(())
    })
    .await;
    assert_eq!(database.number("SELECT COUNT(*) FROM runs WHERE workflow = 'child'").await, 1);
}

async fn a_child_that_waited_is_followed_into_the_run_that_took_its_place(database: Database) {
    let house = House::started(&database).await;
    house.apply(PARENT).await;
    let child = CHILD.to_owned() + "concurrency: { limit: 1, on_conflict: coalesce }\n";
    house.apply(&child).await;
    let start = |depth: i64| {
        let params = json!({ "depth": depth }).as_object().unwrap().clone();
        StartRun { workflow: "child".to_owned(), params, id: None, no_cache: false }
    };
    let busy = house.engine.start_run(start(1), &somebody()).await.unwrap();
    assert_eq!(busy.state, "running");
    let parent = house.start_run("parent").await.run;
    let child_of = async |name: &RunName| house.run(&name.to_string()).await.steps.unwrap()[0].child.clone();
    let waiting =
        refit_tests::eventually("the child", Duration::from_secs(20), async || child_of(&parent).await).await;
    // A run that waits takes in what comes, as long as the definition is the same.
    let absorbed = house.engine.start_run(start(2), &somebody()).await.unwrap().run;
    assert_eq!(absorbed, waiting);
    house.apply(&format!("{child}# another version\n")).await;
    let newer = house.engine.start_run(start(2), &somebody()).await.unwrap().run;
    // Whichever run stands for it now, it is that run's end the parent waits for.
    refit_tests::eventually("the run that took its place", Duration::from_secs(20), async || {
        (child_of(&parent).await? == newer).then_some(())
    })
    .await;
    assert_ne!(waiting, newer);

    // It is not the parent's own: cancelling the parent leaves it alone.
    house.engine.cancel_run(&parent, &somebody()).await.unwrap();
    let cancelled = house.wait(&parent.to_string(), "cancelled").await;
    let reason = cancelled.steps.unwrap()[0].reason.clone().unwrap_or_default();
    assert!(reason.contains(&format!("{newer} goes on")), "{reason}");
    assert_eq!(house.run(&newer.to_string()).await.state, "waiting");
}

async fn what_cannot_be_started_fails_its_step(database: Database) {
    let house = House::started(&database).await;
    let failed = async |name: &str, text: &str, child: &str| {
        house.apply(&text.replace("name: child", &format!("name: {child}"))).await;
        let run = house.start_run(name).await.run.to_string();
        let run = house.wait(&run, "failed").await;
        run.steps.unwrap()[0].reason.clone().unwrap_or_default()
    };
    assert_eq!(failed("parent", PARENT, "nobody").await, "there is no workflow nobody");
    house.apply("workflow: child\nparams: { name: { type: string } }\nsteps:\n  a: { run: [x] }\n").await;
    let reason = failed("parent", &(PARENT.to_owned() + "# second\n"), "child").await;
    assert!(reason.contains("depth"), "{reason}");
    // It would wait in its own lane for itself.
    let itself = PARENT.replace("workflow: parent", "workflow: itself")
        + "concurrency: { limit: 1, on_conflict: queue }\n";
    let reason = failed("itself", &itself, "itself").await;
    assert!(reason.contains("would wait for itself/1, which waits for it"), "{reason}");
    // Nested as deep as runs may be, and no deeper: the innermost fails, and so do those that wait for it.
    let deeper = PARENT.replace("workflow: parent", "workflow: deeper");
    let reason = failed("deeper", &deeper, "deeper").await;
    assert!(reason.contains("deeper/2 failed: sub: deeper/3 failed"), "{reason}");
    assert_eq!(database.number("SELECT COUNT(*) FROM runs WHERE workflow = 'deeper'").await, 9);
}

/// A workflow with one run at a time that asks for a run of another, if it is told to.
fn asking(name: &str, other: &str) -> String {
    format!(
        "workflow: {name}
params: {{ asks: {{ type: boolean, default: false }} }}
concurrency: {{ limit: 1, on_conflict: queue }}
steps:
  sub: {{ workflow: {{ name: {other} }}, if: params.asks }}
  after: {{ needs: [sub], emit: {{ type: done }} }}
"
    )
}

async fn start_asking(house: &House, workflow: &str) -> String {
    let params = json!({ "asks": true }).as_object().unwrap().clone();
    let start = StartRun { workflow: workflow.to_owned(), params, id: None, no_cache: false };
    house.engine.start_run(start, &somebody()).await.unwrap().run.to_string()
}

async fn runs_that_ask_for_each_other_do_not_wait_for_ever(database: Database) {
    let house = House::open(&database).await;
    let names = ["a", "b", "c"];
    for (name, other) in names.into_iter().zip(["b", "c", "a"]) {
        house.apply(&asking(name, other)).await;
    }
    // All of them go on before the first is asked for another: each child would wait for the run that asks next.
    for name in names {
        assert_eq!(start_asking(&house, name).await, format!("{name}/1"));
    }
    house.start();
    let refused = house.wait("c/1", "failed").await.steps.unwrap()[0].reason.clone().unwrap_or_default();
    let ring = "a run of a would wait for a/1, which waits for b/2, which waits for b/1, which waits for c/2, which waits for \
                c/1, which waits for it: give them different values of `concurrency.key`";
    assert!(refused.starts_with(ring), "{refused}");
    // The others have what they asked for.
    for run in ["a/1", "b/1", "b/2", "c/2"] {
        house.wait(run, "succeeded").await;
    }
    assert_eq!(database.number("SELECT COUNT(*) FROM runs").await, 5);
    assert_eq!(database.number("SELECT COUNT(*) FROM children").await, 0);
}

async fn a_child_waits_where_one_of_those_before_it_will_end(database: Database) {
    let house = House::open(&database).await;
    house.apply(&asking("a", "b")).await;
    house.apply(&asking("b", "a").replace("limit: 1", "limit: 2")).await;
    house.apply("workflow: busy\nsteps:\n  x: { run: [x] }\n").await;
    let (a, b) = (start_asking(&house, "a").await, start_asking(&house, "b").await);
    // The other run of its lane waits for one that waits for nobody.
    house.apply(&asking("b", "busy").replace("limit: 1", "limit: 2")).await;
    let other = start_asking(&house, "b").await;
    house.start();
    house.wait("busy/1", "running").await;
    house.wait("b/3", "waiting").await;
    house.wait("a/2", "waiting").await;
    house.register("w", "s").await;
    let order = house.lease_one("w", "s").await;
    house.finish(&order.key, success()).await.unwrap();
    for run in [&other, "b/3", &a, "a/2", &b] {
        house.wait(run, "succeeded").await;
    }
}

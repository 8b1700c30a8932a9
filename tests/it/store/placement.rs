//! Which steps a worker is given: those its host has room for, by turns of the workflows.

use super::*;

on_both_databases! {
    a_step_goes_only_where_its_needs_are_offered
    what_is_leased_never_asks_for_more_than_there_is
    ten_thousand_steps_for_others_cost_a_worker_no_look_at_them
    one_workflows_thousand_steps_do_not_keep_anothers_waiting
    a_low_priority_is_served_in_the_end
    a_large_step_that_has_waited_long_is_given_a_host
    a_step_says_why_it_waits
    a_drained_worker_is_given_nothing_until_it_is_resumed
}

fn host(worker: &str, gpus: u32, labels: &[(&str, &str)]) -> Register {
    Register {
        protocol: WORKER_PROTOCOL,
        worker: worker.to_owned(),
        session: worker.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        slots: 64,
        cpus: 4,
        memory: 8 << 30,
        gpus,
        version: "test".to_owned(),
    }
}

async fn given(house: &House, worker: &str, slots: u32) -> Vec<String> {
    let orders = house.lease(worker, worker, slots, 0).await;
    orders.iter().map(|order| format!("{} {}", order.key.run, order.key.step)).collect()
}

fn needing(workflow: &str, needs: &str, top: &str) -> String {
    format!("workflow: {workflow}\n{top}steps:\n  a: {{ run: [x], needs_host: {needs} }}\n")
}

async fn a_step_goes_only_where_its_needs_are_offered(database: Database) {
    let house = House::open(&database).await;
    for (workflow, needs) in [
        ("gpu", "{ gpus: 1 }"),
        ("zone", "{ labels: { zone: eu } }"),
        ("both", "{ gpus: 1, labels: { zone: eu } }"),
        ("large", "{ cpus: 5 }"),
        ("wide", "{ memory: 9GiB }"),
    ] {
        house.apply(&needing(workflow, needs, "")).await;
        house.start_run(workflow).await;
    }
    for register in [
        host("plain", 0, &[]),
        host("zoned", 0, &[("zone", "eu")]),
        host("gpu-us", 2, &[("zone", "us")]),
        host("gpu-eu", 2, &[("zone", "eu"), ("disk", "fast")]),
    ] {
        house.engine.register(register).await.unwrap();
    }
    assert_eq!(given(&house, "plain", 9).await, [""; 0]);
    assert_eq!(given(&house, "zoned", 9).await, ["zone/1 a"]);
    assert_eq!(given(&house, "gpu-us", 9).await, ["gpu/1 a"]);
    assert_eq!(given(&house, "gpu-eu", 9).await, ["both/1 a"]);
}

async fn what_is_leased_never_asks_for_more_than_there_is(database: Database) {
    let house = House::open(&database).await;
    house.engine.register(host("w", 4, &[])).await.unwrap();
    let text = "workflow: two\nsteps:\n  a: { matrix: { n: [1, 2, 3, 4, 5, 6, 7, 8] }, run: [x], \
                needs_host: { gpus: 1, cpus: 0.5 } }\n";
    house.apply(text).await;
    house.start_run("two").await;
    // Many at once, as the slots of one worker ask.
    let leases = (0..8).map(|_| house.lease("w", "w", 1, 0));
    let mut orders: Vec<StepOrder> =
        futures_util::future::join_all(leases).await.into_iter().flatten().collect();
    assert_eq!(orders.len(), 4, "four GPUs, four steps");
    assert!(orders.iter().all(|order| order.gpus == 1 && order.limits.cpus == Some(0.5)));
    let seen = house.engine.worker("w").await.unwrap();
    assert_eq!((seen.used.gpus, seen.used.cpus), (4, 2.0));
    assert!(house.lease("w", "w", 8, 0).await.is_empty());
    // What is over makes room in the same transaction.
    let next = LeaseRequest { worker: "w".to_owned(), session: "w".to_owned(), slots: 8, wait_ms: 0 };
    let finish = Finish { next: Some(next), ..Finish::of(orders.remove(0).key, success()) };
    assert_eq!(house.engine.finish(finish).await.unwrap().orders.len(), 1);
}

async fn ten_thousand_steps_for_others_cost_a_worker_no_look_at_them(database: Database) {
    let house = House::open(&database).await;
    house.apply(&needing("heavy", "{ gpus: 8 }", "")).await;
    house.start_run("heavy").await;
    // The same step ten thousand times over. A look at their run would find it unreadable, and set them aside.
    let copies =
        "INSERT INTO steps (run, position, name, state, ready_at, workflow, priority, line, class, needs, body)
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
        SELECT s.run, n.i, s.name, s.state, s.ready_at, s.workflow, s.priority, s.line, s.class, s.needs, 'unreadable'
            FROM n, steps s WHERE s.state = 'ready'";
    execute(&database, copies.to_owned()).await;
    house.apply(ONE_STEP).await;
    house.start_run("one").await;
    house.engine.register(host("w", 0, &[])).await.unwrap();
    assert_eq!(given(&house, "w", 64).await, ["one/1 a"]);
    assert_eq!(database.number("SELECT COUNT(*) FROM steps WHERE state = 'ready'").await, 10_001);
}

async fn one_workflows_thousand_steps_do_not_keep_anothers_waiting(database: Database) {
    let house = House::open(&database).await;
    house.engine.register(host("w", 0, &[])).await.unwrap();
    let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    let flood =
        format!("workflow: flood\nsteps:\n  a: {{ matrix: {{ n: [{}] }}, run: [x] }}\n", many.join(", "));
    house.apply(&flood).await;
    house.start_run("flood").await;
    let mut orders = house.lease("w", "w", 1, 0).await;
    house.apply(ONE_STEP).await;
    house.start_run("one").await;
    house.start_run("one").await;
    let mut turns = Vec::new();
    for _ in 0..4 {
        let key = orders.pop().unwrap().key;
        let next = LeaseRequest { worker: "w".to_owned(), session: "w".to_owned(), slots: 1, wait_ms: 0 };
        let finish = Finish { next: Some(next), ..Finish::of(key, success()) };
        orders = house.engine.finish(finish).await.unwrap().orders;
        turns.push(orders[0].key.run.workflow.clone());
    }
    assert_eq!(turns, ["one", "flood", "one", "flood"]);
}

async fn a_low_priority_is_served_in_the_end(database: Database) {
    let house = House::open(&database).await;
    house.engine.register(host("w", 0, &[])).await.unwrap();
    let text = |workflow: &str, priority: u32| {
        format!("workflow: {workflow}\npriority: {priority}\nsteps:\n  a: {{ run: [x] }}\n")
    };
    house.apply(&text("low", 0)).await;
    house.apply(&text("high", 100)).await;
    house.start_run("low").await;
    for _ in 0..3 {
        house.start_run("high").await;
    }
    assert_eq!(given(&house, "w", 1).await, ["high/1 a"]);
    assert_eq!(given(&house, "w", 1).await, ["high/2 a"]);
    // As if it had waited for an hour and two thirds.
    execute(&database, "UPDATE steps SET ready_at = ready_at - 6100000 WHERE workflow = 'low'".to_owned())
        .await;
    assert_eq!(given(&house, "w", 1).await, ["low/1 a"]);
    assert_eq!(given(&house, "w", 1).await, ["high/3 a"]);
}

async fn a_large_step_that_has_waited_long_is_given_a_host(database: Database) {
    let house = House::open(&database).await;
    for worker in ["a", "b"] {
        house.engine.register(host(worker, 4, &[])).await.unwrap();
    }
    let numbers: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let small = format!(
        "workflow: small\nsteps:\n  a: {{ matrix: {{ n: [{}] }}, run: [x], needs_host: {{ gpus: 1 }} }}\n",
        numbers.join(", ")
    );
    house.apply(&small).await;
    house.start_run("small").await;
    let workflows = async |worker: &str, slots: u32| -> Vec<String> {
        given(&house, worker, slots)
            .await
            .iter()
            .map(|step| step.split('/').next().unwrap().to_owned())
            .collect()
    };
    let on_a = house.lease("a", "a", 4, 0).await;
    let on_b = house.lease("b", "b", 2, 0).await;
    assert_eq!((on_a.len(), on_b.len()), (4, 2));
    house.apply(&needing("large", "{ gpus: 4 }", "")).await;
    house.start_run("large").await;
    house.finish(&on_a[0].key, success()).await.unwrap();
    assert_eq!(workflows("a", 4).await, ["small"], "the large step has not waited long");

    execute(&database, "UPDATE steps SET ready_at = ready_at - 660000 WHERE workflow = 'large'".to_owned())
        .await;
    house.finish(&on_a[1].key, success()).await.unwrap();
    assert_eq!(workflows("a", 4).await, ["small"], "of two hosts, the one that lacks less is kept");
    assert_eq!(workflows("b", 4).await, [""; 0]);
    house.finish(&on_b[0].key, success()).await.unwrap();
    assert_eq!(workflows("b", 4).await, [""; 0]);
    house.finish(&on_b[1].key, success()).await.unwrap();
    assert_eq!(workflows("b", 4).await, ["large"]);
}

async fn a_step_says_why_it_waits(database: Database) {
    let house = House::open(&database).await;
    house.apply(&needing("heavy", "{ gpus: 2 }", "")).await;
    house.start_run("heavy").await;
    house.start_run("heavy").await;
    let reason = async |run: &str| house.run(run).await.steps.unwrap()[0].reason.clone().unwrap();
    assert_eq!(reason("heavy/1").await, "waiting: no worker is connected");
    house.engine.register(host("small", 1, &[])).await.unwrap();
    assert_eq!(reason("heavy/1").await, "waiting: no worker offers gpus=2 (the most is 1, on small)");
    house.engine.register(host("big", 2, &[])).await.unwrap();
    assert_eq!(given(&house, "big", 2).await, ["heavy/1 a"]);
    assert_eq!(reason("heavy/2").await, "waiting: big offers it and is busy (2 of 2 gpus)");
    let waiting = house.engine.waiting().await.unwrap();
    assert_eq!((waiting.len(), waiting[0].steps), (1, 1));
    assert_eq!(waiting[0].workers["small"], "it has 1 of gpus=2");
    assert_eq!(waiting[0].workers["big"], "it is busy (2 of 2 gpus)");
}

async fn a_drained_worker_is_given_nothing_until_it_is_resumed(database: Database) {
    let house = House::open(&database).await;
    house.engine.register(host("w", 0, &[])).await.unwrap();
    house.apply(ONE_STEP).await;
    house.start_run("one").await;
    let order = house.lease_one("w", "w").await;
    house.start_run("one").await;
    assert_eq!(house.engine.drain_worker("w", true).await.unwrap().state, "draining");
    assert_eq!(given(&house, "w", 1).await, [""; 0]);
    house.finish(&order.key, success()).await.unwrap();
    // Not even as a new process.
    house.engine.register(host("w", 0, &[])).await.unwrap();
    assert_eq!(house.engine.worker("w").await.unwrap().state, "drained");
    assert_eq!(given(&house, "w", 1).await, [""; 0]);
    house.engine.drain_worker("w", false).await.unwrap();
    assert_eq!(given(&house, "w", 1).await, ["one/2 a"]);
    let unknown = house.engine.drain_worker("nobody", true).await.unwrap_err();
    assert!(matches!(unknown, EngineError::NotFound(_)), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_that_lease_to_the_same_workers_do_not_wait_for_each_other() {
    let database = services::postgres().await;
    let houses = [House::open(&database).await, House::open(&database).await];
    let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    for workflow in ["many", "more"] {
        let steps =
            format!("matrix: {{ n: [{}] }}, run: [x], needs_host: {{ cpus: 0.001 }}", many.join(", "));
        houses[0].apply(&format!("workflow: {workflow}\nsteps:\n  a: {{ {steps} }}\n")).await;
        houses[0].start_run(workflow).await;
    }
    let workers: Vec<String> = (0..12).map(|number| format!("w{number:02}")).collect();
    for worker in &workers {
        houses[0].engine.register(host(worker, 0, &[])).await.unwrap();
    }
    let held = houses[0].lease("w00", "w00", 520, 0).await;
    let held: (Vec<StepOrder>, Vec<StepOrder>) =
        held.into_iter().partition(|order| order.key.run.workflow == "many");
    assert_eq!(
        (held.0.len(), held.1.len()),
        (260, 260),
        "others wait, so that each lease has something to lock for"
    );
    let report = async |house: &House, order: &StepOrder, worker: &str| {
        let next =
            LeaseRequest { worker: worker.to_owned(), session: worker.to_owned(), slots: 1, wait_ms: 0 };
        let finish = Finish { next: Some(next), ..Finish::of(order.key.clone(), success()) };
        house.engine.finish(finish).await.unwrap()
    };
    // Each orchestrator hears of steps of a run of its own. Of thirteen reports the first goes alone, the others share a turn
    // that leases to every worker; the two orchestrators name them in opposite order.
    let back: Vec<String> = workers.iter().rev().cloned().collect();
    let all = houses.iter().zip([&held.0, &held.1]).zip([&workers, &back]);
    let all = all.map(async |((house, orders), workers)| {
        for some in orders.chunks(13) {
            let (first, others) = some.split_first().unwrap();
            let others = others.iter().zip(workers).map(|(order, worker)| report(house, order, worker));
            let others = futures_util::future::join_all(others);
            tokio::join!(report(house, first, &workers[0]), others);
        }
    });
    futures_util::future::join_all(all).await;
    drop(houses);
    // Servers count for each connection, and add up when it ends.
    let end = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    refit_tests::eventually("no connection is left", Duration::from_secs(20), async || {
        (database.number(end).await == 0).then_some(())
    })
    .await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(database.number(deadlocks).await, 0);
}

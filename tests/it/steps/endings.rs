//! How a step ends that does not simply end: retried, cancelled, too long, failed again and again.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_carries_on_from_the_failed_step_and_all_starts_over() {
    let house = House::start().await;
    let _worker = house.worker("w", 2);
    house
        .apply(
            "
workflow: churn
steps:
  a: { run: echo value=$REFIT_ATTEMPT >> $REFIT_OUTPUTS; echo ran a }
  b: { needs: [a], run: 'echo ran b; test -e SHARED/go' }
  c: { needs: [b], run: echo ran c }
  aside: { run: echo ran aside }
",
        )
        .await;
    let api = house.api();
    let out = house.refit(&["run", "start", "churn", "--wait", "-o", "json"]).await;
    let failed: Value = serde_json::from_str(&exit(&out, 1)).unwrap();
    assert_eq!(failed["state"], "failed");
    assert!(failed["reason"].as_str().unwrap().contains("exit code 1"), "{failed}");
    assert_eq!(Api::step(&failed, "c")["state"], "skipped");

    house.go();
    let out = house.refit(&["run", "retry", "churn/1", "--wait", "-o", "json"]).await;
    let retried: Value = serde_json::from_str(&exit(&out, 0)).unwrap();
    assert_eq!(retried["state"], "succeeded");
    for step in ["a", "aside"] {
        assert_eq!(Api::step(&retried, step), Api::step(&failed, step), "an earlier step was touched");
    }
    assert_eq!(house.epochs("churn/1").await, [1, 2, 1, 1]);
    assert_eq!(api.log("churn/1", Some("b")).await, "ran b\nran b\n");

    // There is nothing to carry on from now.
    exit(&house.refit(&["run", "retry", "churn/1"]).await, 5);
    let out = house.refit(&["run", "retry", "churn/1", "--all", "--wait", "-o", "json"]).await;
    let over: Value = serde_json::from_str(&exit(&out, 0)).unwrap();
    assert_eq!(over["state"], "succeeded");
    assert_eq!(house.epochs("churn/1").await, [2, 3, 2, 2], "every step ran again, no epoch was set back");
    assert_eq!(api.log("churn/1", Some("a")).await, "ran a\nran a\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_what_ignores_term_and_its_grandchildren() {
    let house = House::with_grace(Duration::from_secs(12)).await;
    let worker = house.worker("w", 2);
    let marker = marker();
    let workflow = "
workflow: stubborn
steps:
  a:
    run: |
      trap '' TERM HUP
      setsid sh -c 'trap \"\" TERM HUP; echo far; sleep MARK; sleep MARK' &
      sh -c 'trap \"\" TERM; (sleep MARK &) ; cd /; echo near; sleep MARK; sleep MARK' &
      env -i sh -c 'cd /; sleep MARK' &
      wait; wait; wait; sleep MARK
  b: { needs: [a], run: echo never }
";
    house.apply(&workflow.replace("MARK", &marker)).await;
    let api = house.api();
    let run = api.start_run("stubborn", json!({})).await;
    eventually("all of the tree is there", PATIENCE, async || {
        (processes_with(&format!("sleep {marker}")).len() >= 6).then_some(())
    })
    .await;

    let begun = Instant::now();
    exit(&house.refit(&["run", "cancel", &run]).await, 0);
    let states: Vec<String> = loop {
        let seen = api.run(&run).await;
        // Looked at after the run was read: whatever was left then would still show.
        let left = processes_with(&marker);
        if seen["state"] == "cancelled" {
            assert!(left.is_empty(), "the run is cancelled and yet there is {left:?}");
            break seen["steps"].as_array().unwrap().iter().map(|step| step["state"].to_string()).collect();
        }
        assert_eq!(seen["state"], "running", "{seen}");
        assert!(begun.elapsed() < Duration::from_secs(40), "still there: {left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(states, ["\"cancelled\"", "\"cancelled\""]);
    assert!(worker.step_processes().is_empty());
    exit(&house.refit(&["run", "cancel", &run]).await, 5);
    assert_eq!(api.log(&run, Some("b")).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_takes_too_long_is_ended_and_says_so() {
    let house = House::start().await;
    let worker = house.worker("w", 2);
    let marker = marker();
    let workflow = "
workflow: slow
steps:
  a: { run: 'setsid sleep MARK & echo begun; sleep MARK', timeout: 2s, retry: { attempts: 1 } }
  b: { needs: [a], run: 'true' }
";
    house.apply(&workflow.replace("MARK", &marker)).await;
    let api = house.api();
    let run = api.start_run("slow", json!({})).await;
    let over = api.wait_run(&run, "failed", PATIENCE).await;
    let reason = Api::step(&over, "a")["reason"].as_str().unwrap();
    assert!(reason.contains("took longer than its timeout of 2"), "{reason}");
    assert_eq!(Api::step(&over, "b")["state"], "skipped");
    assert_eq!(processes_with(&marker), Vec::<String>::new());
    assert!(worker.step_processes().is_empty());
    assert_eq!(api.log(&run, Some("a")).await, "begun\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_repeated_with_growing_pauses_and_75_does_not_count() {
    let house = House::start().await;
    let _worker = house.worker("w", 3);
    house
        .apply(
            "
workflow: again
defaults: { retry: { attempts: 3, backoff: 500ms, max_backoff: 10s } }
steps:
  flaky: { run: 'echo attempt $REFIT_ATTEMPT; test $REFIT_ATTEMPT -ge 3' }
  busy:
    run: 'if [ $REFIT_ATTEMPT -lt 3 ]; then echo the GPU is taken; exit 75; fi'
    retry: { attempts: 1, backoff: 100ms }
  hopeless: { run: 'echo no luck; exit 3', retry: { attempts: 2, backoff: 10ms } }
",
        )
        .await;
    let api = house.api();
    let run = api.start_run("again", json!({})).await;
    let over = api.wait_run(&run, "failed", PATIENCE).await;
    let flaky = Api::step(&over, "flaky");
    assert_eq!((&flaky["state"], &flaky["attempt"]), (&json!("succeeded"), &json!(3)));
    let busy = Api::step(&over, "busy");
    assert_eq!(
        (&busy["state"], &busy["attempt"]),
        (&json!("succeeded"), &json!(3)),
        "75 asks for a retry: {busy}"
    );
    let hopeless = Api::step(&over, "hopeless");
    assert_eq!((&hopeless["state"], &hopeless["attempt"]), (&json!("failed"), &json!(2)));
    assert_eq!(hopeless["reason"], "exit code 3: no luck (after 2 attempts)");

    // The pauses are at least four fifths of 500 ms and of a second; how much longer depends on the machine.
    let page = api.get(&format!("/api/v1/runs/{run}/logs?step=flaky")).await.ok();
    let times: Vec<refit_workflows::time::Timestamp> = page["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|piece| serde_json::from_value(piece["at"].clone()).unwrap())
        .collect();
    assert_eq!(times.len(), 3, "{page}");
    assert!(times[1].since(times[0]) >= Duration::from_millis(400), "{page}");
    assert!(times[2].since(times[1]) >= Duration::from_millis(800), "{page}");
}

//! Workers come and go: drained, killed, silent; one hands to another what it has made.

use super::*;

const WAITS: &str = "
workflow: waits
steps:
  a:
    run: |
      echo begun
      until [ -e SHARED/go ]; do sleep 0.05; done
      echo value=yes >> $REFIT_OUTPUTS
  b: { needs: [a], run: echo done }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_finishes_its_step_and_takes_no_other() {
    let house = House::start().await;
    let worker = house.worker("first", 2);
    house.apply(WAITS).await;
    let api = house.api();
    let run = api.start_run("waits", json!({})).await;
    house.wait_log(&run, "a", "begun").await;

    let leaving = tokio::task::spawn_blocking(move || {
        let mut worker = worker;
        let status = worker.terminate();
        (worker, status)
    });
    eventually("the worker says that it leaves", PATIENCE, async || {
        let workers = api.get("/api/v1/workers").await.ok();
        (workers[0]["state"] == "draining").then_some(())
    })
    .await;
    // It has a slot free, and yet this run is not for it.
    let later = api.start_run("waits", json!({})).await;
    house.go();
    let (worker, status) = leaving.await.unwrap();
    assert!(status.success(), "{status}");
    let seen = api.run(&run).await;
    assert_eq!(Api::step(&seen, "a")["state"], "succeeded");
    assert_eq!(Api::step(&seen, "b")["state"], "ready", "it took no more");
    assert_eq!(Api::step(&api.run(&later).await, "a")["state"], "ready", "it took no more");
    drop(worker);

    let _second = house.worker("second", 2);
    for run in [&run, &later] {
        let over = api.wait_run(run, "succeeded", PATIENCE).await;
        assert_eq!(Api::step(&over, "b")["worker"], "second");
    }
    assert_eq!(house.epochs(&run).await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_leaves_nothing_behind_once_it_is_back_and_its_step_runs_again() {
    let house = House::start().await;
    let mut worker = house.worker("w", 2);
    let marker = marker();
    let workflow = "
workflow: crash
steps:
  a:
    run: |
      echo attempt $REFIT_ATTEMPT
      if [ $REFIT_ATTEMPT = 1 ]; then
        setsid sh -c 'trap \"\" TERM; cd /; sleep MARK; sleep MARK' &
        sleep MARK
      fi
";
    house.apply(&workflow.replace("MARK", &marker)).await;
    let api = house.api();
    let run = api.start_run("crash", json!({})).await;
    eventually("the step runs", PATIENCE, async || {
        (processes_with(&format!("sleep {marker}")).len() >= 3).then_some(())
    })
    .await;
    house.wait_log(&run, "a", "attempt 1\n").await;
    worker.kill9();
    assert!(!processes_with(&marker).is_empty(), "the step died with its worker: nothing is shown here");

    // The grace is ten minutes: only the new process's registration can give the step up this soon.
    worker.restart();
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(processes_with(&marker), Vec::<String>::new());
    assert_eq!(Api::step(&over, "a")["attempt"], 2);
    assert_eq!(house.epochs(&run).await, [2]);
    assert_eq!(api.log(&run, None).await, "attempt 1\nattempt 2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_had_ended_when_its_worker_was_killed_does_not_run_again() {
    let mut house = House::start().await;
    let mut worker = house.worker("w", 1);
    let workflow =
        WAITS.replace("echo value", "head -c 2000000 /dev/urandom > model; echo ended; echo value");
    house.apply(&workflow.replace("  b:", "    artifacts: { model: model }\n  b:")).await;
    let run = house.api().start_run("waits", json!({})).await;
    house.wait_log(&run, "a", "begun").await;
    house.orchestrator.kill9();
    house.go();
    eventually("the outcome is on disk", PATIENCE, async || (untold(&worker) == 1).then_some(())).await;
    worker.kill9();
    house.orchestrator.restart().await;
    worker.restart();
    let api = house.api();
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    let step = Api::step(&over, "a");
    assert_eq!((&step["attempt"], &step["outputs"]), (&json!(1), &json!({"value": "yes"})));
    assert_eq!(step["artifacts"]["model"]["bytes"], 2_000_000);
    assert_eq!(house.epochs(&run).await, [1, 1]);
    assert_eq!(api.log(&run, Some("a")).await, "begun\nended\n");
    eventually("nothing is left", PATIENCE, async || (untold(&worker) == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_came_to_is_told_however_long_the_orchestrator_was_away() {
    let mut house = House::start().await;
    let worker = house.worker("w", 1);
    house.apply(WAITS).await;
    let run = house.api().start_run("waits", json!({})).await;
    house.wait_log(&run, "a", "begun").await;
    house.orchestrator.kill9();
    house.go();
    eventually("the outcome is on disk", PATIENCE, async || (untold(&worker) == 1).then_some(())).await;
    // Some tries to tell it are over by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    house.orchestrator.restart().await;
    house.api().wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(house.epochs(&run).await, [1, 1]);
    eventually("nothing is left", PATIENCE, async || (untold(&worker) == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_workers_step_goes_to_another_and_its_own_try_is_ended() {
    let house = House::with_grace(Duration::from_secs(3)).await;
    let frozen = house.worker("frozen", 1);
    let workflow = WAITS.replace("yes", "$REFIT_ATTEMPT").replace("SHARED/go", "SHARED/go-$REFIT_ATTEMPT");
    house.apply(&workflow).await;
    let api = house.api();
    let run = api.start_run("waits", json!({})).await;
    house.wait_log(&run, "a", "begun").await;
    let pid = Pid::from_raw(i32::try_from(frozen.pid().unwrap()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let _second = house.worker("second", 1);
    let taken = api.wait_run_until(&run, PATIENCE, |run| Api::step(run, "a")["attempt"] == 2).await;
    assert_eq!(Api::step(&taken, "a")["worker"], "second");
    // The second attempt ends now; the first would wait for ever.
    std::fs::write(house.file("go-2"), "").unwrap();
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    kill(pid, Signal::SIGCONT).unwrap();
    eventually("the frozen worker is told", PATIENCE, async || {
        let log = frozen.logs();
        let words = ["the outcome came too late", "is not ours any more", "gave up telling the outcome"];
        words.iter().any(|words| log.contains(words)).then_some(())
    })
    .await;
    let later = api.run(&run).await;
    assert_eq!(later, over, "a late worker changed the run");
    assert!(frozen.step_processes().is_empty());
    assert_eq!(Api::step(&later, "a")["outputs"], json!({"value": "2"}));
    assert_eq!(house.epochs(&run).await[0], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_cross_from_one_worker_to_another_after_an_approval() {
    let house = House::start().await;
    let mut first = house.worker("first", 1);
    house
        .apply(
            "
workflow: relay
steps:
  make:
    run: |
      mkdir -p out/deep/empty
      head -c 3000000 /dev/urandom > out/deep/weights.bin
      printf '#!/bin/sh\\necho I run\\n' > out/tool; chmod +x out/tool
      cp out/deep/weights.bin single.bin
      echo \"sum=$(sha256sum < single.bin)\" >> $REFIT_OUTPUTS
    artifacts: { folder: out, file: single.bin }
  ok: { needs: [make], approval: { timeout: 1h } }
  use:
    needs: [make, ok]
    run: |
      [ \"$(sha256sum < $REFIT_INPUTS/file)\" = \"$SUM\" ]
      [ \"$(sha256sum < $REFIT_INPUTS/folder/deep/weights.bin)\" = \"$SUM\" ]
      $REFIT_INPUTS/folder/tool
    env: { SUM: '${{ steps.make.outputs.sum }}' }
    inputs: { folder: '${{ steps.make.artifacts.folder }}', file: '${{ steps.make.artifacts.file }}' }
",
        )
        .await;
    let api = house.api();
    let run = api.start_run("relay", json!({})).await;
    let waiting = api.wait_run_until(&run, PATIENCE, |run| Api::step(run, "ok")["state"] == "waiting").await;
    assert_eq!(waiting["state"], "running");
    let artifacts = &Api::step(&waiting, "make")["artifacts"];
    assert_eq!(artifacts["file"]["bytes"], 3_000_000);
    assert_eq!(artifacts["folder"]["bytes"], 3_000_000 + 21);
    assert!(first.terminate().success());
    drop(first);

    let _second = house.worker("second", 1);
    exit(&house.refit(&["run", "approve", &run, "--reason", "looks right"]).await, 0);
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(
        (&Api::step(&over, "make")["worker"], &Api::step(&over, "use")["worker"]),
        (&json!("first"), &json!("second"))
    );
    assert_eq!(api.log(&run, Some("use")).await, "I run\n");
    let reason = Api::step(&over, "ok")["reason"].as_str().unwrap();
    assert!(reason.starts_with("approved by ") && reason.ends_with(": looks right"), "{reason}");
    exit(&house.refit(&["run", "approve", &run]).await, 5);
}

//! Checkpoints: what a step has saved outlives its worker, is taken up by its next attempt wherever that runs, and by
//! nothing that starts over.

use super::*;

/// Units of work in a training.
const UNITS: usize = 80;
const TRAINS: &str = r#"
workflow: trains
steps:
  train:
    checkpoint: state/
    run: |
      done=$(cat "$REFIT_CHECKPOINT/done" 2>/dev/null || echo 0)
      echo begun at $done
      while [ $done -lt 80 ]; do
        sleep 0.1
        done=$((done + 1))
        echo $done >> SHARED/worked
        echo $done > state/done.new && mv state/done.new state/done
      done
"#;

fn worked(house: &House) -> usize {
    std::fs::read_to_string(house.file("worked")).map_or(0, |text| text.lines().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_whose_host_dies_goes_on_from_its_checkpoint_on_another() {
    let house = House::with_grace(Duration::from_secs(3)).await;
    let mut first = house.worker("first", 1);
    house.apply(TRAINS).await;
    let api = house.api();
    let run = api.start_run("trains", json!({})).await;
    eventually("half of the work is done", PATIENCE, async || (worked(&house) > UNITS / 2).then_some(()))
        .await;
    let shown = api.run(&run).await;
    let saved = &Api::step(&shown, "train")["checkpoint"];
    assert_eq!((&saved["attempt"], &saved["artifact"]["kind"]), (&json!(1), &json!("folder")), "{shown}");

    // The whole host, not only the worker.
    let steps = first.step_processes();
    first.kill9();
    for pid in steps {
        let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
    }
    let _second = house.worker("second", 1);
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(Api::step(&over, "train")["worker"], "second");
    let log = api.log(&run, Some("train")).await;
    assert!(log.contains("[refit] going on from the checkpoint of attempt 1: "), "{log}");
    let begun: Vec<usize> = log
        .lines()
        .filter_map(|line| line.strip_prefix("begun at "))
        .map(|done| done.parse().unwrap())
        .collect();
    assert!(begun.len() == 2 && begun[0] == 0 && begun[1] > 0, "{log}");
    let repeated = worked(&house) - UNITS;
    println!(
        "killed after {} of {UNITS} units of 0.1 s, went on after {}: {repeated} units of work were done twice",
        begun[1] + repeated,
        begun[1]
    );
    assert!(repeated < UNITS / 2, "{repeated} units were done twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_asked_for_a_checkpoint_before_its_worker_leaves() {
    let house = House::start().await;
    let first = house.worker("first", 2);
    // Saves nothing by itself; who does not handle the signal must not die of it.
    let asked = r#"
workflow: asked
steps:
  train:
    checkpoint: state
    run: |
      if [ -e state/saved ]; then echo "goes on after $(cat state/saved)"; exit 0; fi
      trap 'echo asked > state/saved; echo saving' USR1
      echo begun
      while :; do sleep 0.1; done
  deaf:
    checkpoint: state
    run: |
      echo begun
      until [ -e SHARED/go ]; do sleep 0.1; done
"#;
    house.apply(asked).await;
    let api = house.api();
    let run = api.start_run("asked", json!({})).await;
    house.wait_log(&run, "train", "begun").await;
    house.wait_log(&run, "deaf", "begun").await;
    let pid = Pid::from_raw(i32::try_from(first.pid().unwrap()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    // Draining asks as well; leaving at once ends the step.
    house.wait_log(&run, "train", "saving").await;
    assert_eq!(Api::step(&api.run(&run).await, "deaf")["state"], "running");
    kill(pid, Signal::SIGTERM).unwrap();
    let _second = house.worker("second", 2);
    house.go();
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(Api::step(&over, "train")["attempt"], 2);
    let log = api.log(&run, Some("train")).await;
    assert!(log.contains("goes on after asked"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_on_and_starting_over_does_not() {
    let house = House::start().await;
    let _worker = house.worker("w", 1);
    let workflow = r#"
workflow: counts
steps:
  count:
    checkpoint: state
    retry: { attempts: 2, backoff: 10ms }
    run: |
      echo x >> state/begun
      echo "begun $(wc -l < state/begun | tr -d ' ') times"
      [ $(wc -l < state/begun) -ge 3 ] || exit 1
  after: { needs: [count], run: exit 1 }
"#;
    house.apply(workflow).await;
    let api = house.api();
    let run = api.start_run("counts", json!({})).await;
    api.wait_run(&run, "failed", PATIENCE).await;
    let counted = async || {
        let log = api.log(&run, Some("count")).await;
        let times = log.lines().filter_map(|line| line.strip_prefix("begun ")?.strip_suffix(" times"));
        times.map(|times| times.parse().unwrap()).collect::<Vec<u32>>()
    };
    assert_eq!(counted().await, [1, 2], "an attempt goes on from the one before");
    exit(&house.refit(&["run", "retry", &run]).await, 0);
    let after = async |runs: usize| {
        eventually("it is over again", PATIENCE, async || {
            let seen = api.run(&run).await;
            (seen["state"] == "failed" && counted().await.len() == runs).then_some(())
        })
        .await;
    };
    after(3).await;
    assert_eq!(counted().await, [1, 2, 3], "so does a retry of what failed");
    exit(&house.refit(&["run", "retry", &run, "--all"]).await, 0);
    after(5).await;
    assert_eq!(counted().await, [1, 2, 3, 1, 2], "what starts over has nothing to go on from");
}

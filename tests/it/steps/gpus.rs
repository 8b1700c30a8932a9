//! GPUs on a worker: each to one step at a time, and none to a step that asks for none.

use super::*;

const GPUS: &str = r#"
workflow: gpus
steps:
  a:
    needs_host: { gpus: 1 }
    run: |
      echo begun
      until [ -e SHARED/go ]; do sleep 0.05; done
      echo "seen=$CUDA_VISIBLE_DEVICES" >> $REFIT_OUTPUTS
  b:
    needs_host: { gpus: 1 }
    env: { CUDA_VISIBLE_DEVICES: '0,1,2,3,4,5,6,7,8,9' }
    run: |
      echo begun
      until [ -e SHARED/go ]; do sleep 0.05; done
      echo "seen=$CUDA_VISIBLE_DEVICES" >> $REFIT_OUTPUTS
  none: { run: 'echo "seen=none:${CUDA_VISIBLE_DEVICES-unset}:$CUDA_DEVICE_ORDER" >> $REFIT_OUTPUTS' }
  both:
    needs: [a, b]
    needs_host: { gpus: 2 }
    run: 'echo "seen=$CUDA_VISIBLE_DEVICES" >> $REFIT_OUTPUTS'
"#;

#[tokio::test(flavor = "multi_thread")]
async fn each_gpu_is_one_steps_and_who_asks_for_none_sees_none() {
    let house = House::start().await;
    house.apply(GPUS).await;
    let api = house.api();
    let run = api.start_run("gpus", json!({})).await;
    let _plain = house.worker("plain", 4);
    eventually("the step that asks for nothing is over", PATIENCE, async || {
        let seen = api.run(&run).await;
        (Api::step(&seen, "none")["state"] == "succeeded").then_some(())
    })
    .await;
    let seen = api.run(&run).await;
    assert_eq!(Api::step(&seen, "none")["outputs"]["seen"], "none:unset:");
    let waits = "waiting: no worker offers gpus=1 (the most is 0, on plain)";
    assert_eq!(Api::step(&seen, "a")["reason"], waits);

    let _gpu = Worker::start_with(house.orchestrator.base_url(), "gpu", 4, &[("REFIT_GPUS", "5,7")]);
    house.wait_log(&run, "a", "begun").await;
    house.wait_log(&run, "b", "begun").await;
    house.go();
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    let output = |step: &str| Api::step(&over, step)["outputs"]["seen"].to_string().replace('"', "");
    let mut alone = [output("a"), output("b")];
    alone.sort();
    assert_eq!(alone, ["5", "7"]);
    assert_eq!(Api::step(&over, "both")["outputs"]["seen"], "5,7");
}

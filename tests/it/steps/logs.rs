//! What a step writes: on which stream, how soon it is seen, and that a loud step slows no other.

use super::*;

const SPEAKS: &str = "
workflow: speaks
steps:
  a:
    run: |
      echo one; echo two >&2; printf '\\r10%%\\r90%%\\r100%%\\n'; printf 'caf\\351\\n'
      printf '\\033[31mred\\033[0m\\n'
";

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_told_apart() {
    let house = House::start().await;
    let _worker = house.worker("w", 1);
    house.apply(SPEAKS).await;
    let run = house.api().start_run("speaks", json!({})).await;
    house.api().wait_run(&run, "succeeded", PATIENCE).await;
    let stdout = exit(&house.refit(&["run", "logs", &run, "--stdout"]).await, 0);
    assert_eq!(stdout, "one\n100%\ncaf\\xe9\n\u{1b}[31mred\u{1b}[0m\n");
    assert_eq!(exit(&house.refit(&["run", "logs", &run, "--stderr"]).await, 0), "two\n");
    let lines = exit(&house.refit(&["run", "logs", &run, "--stderr", "--json"]).await, 0);
    let line: Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(
        (&line["stream"], &line["text"], &line["step"]),
        (&json!("stderr"), &json!("two"), &json!("a"))
    );
    let page = house.api().get(&format!("/api/v1/runs/{run}/logs")).await.ok();
    let streams: Vec<&str> =
        page["lines"].as_array().unwrap().iter().map(|piece| piece["stream"].as_str().unwrap()).collect();
    assert!(streams.contains(&"stdout") && streams.contains(&"stderr"), "{page}");
}

const CURVES: &str = "
workflow: curves
steps:
  train:
    run: |
      for n in 1 2 3; do echo '{\"name\": \"loss\", \"value\": '$n', \"step\": '$n'0}' >> $REFIT_METRICS; done
      echo '{\"name\": \"progress\", \"value\": 3, \"total\": 4}' >> $REFIT_METRICS
      date +%s%N > SHARED/written
      until [ -e SHARED/go ]; do sleep 0.05; done
      echo '{\"name\": \"loss\", \"value\": 0.5}' >> $REFIT_METRICS
";

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_seen_within_two_seconds_and_stay_as_a_curve() {
    let house = House::start().await;
    let _worker = house.worker("w", 1);
    house.apply(CURVES).await;
    let run = house.api().start_run("curves", json!({})).await;
    let path = format!("/api/v1/runs/{run}/metrics?step=train");
    eventually("the step writes", PATIENCE, async || house.file("written").exists().then_some(())).await;
    let written = Instant::now();
    let series = eventually("the curve is there", PATIENCE, async || {
        let series = house.api().get(&path).await.ok();
        (series.as_array().unwrap().len() == 2).then_some(series)
    })
    .await;
    assert!(written.elapsed() < Duration::from_secs(2), "seen after {:?}", written.elapsed());
    let values = |series: &Value| -> Vec<(Value, Value)> {
        let points = series["points"].as_array().unwrap();
        points.iter().map(|point| (point["step"].clone(), point["value"].clone())).collect()
    };
    let first = [(10.0, 1.0), (20.0, 2.0), (30.0, 3.0)].map(|(step, value)| (json!(step), json!(value)));
    assert_eq!(values(&series[0]), first);
    assert_eq!((&series[1]["metric"], &series[1]["points"][0]["value"]), (&json!("progress"), &json!(0.75)));
    assert_eq!(Api::step(&house.api().run(&run).await, "train")["metrics"]["progress"], json!(0.75));

    house.go();
    house.api().wait_run(&run, "succeeded", PATIENCE).await;
    let series = house.api().get(&path).await.ok();
    assert_eq!(values(&series[0]).last().unwrap(), &(Value::Null, json!(0.5)), "the last words as well");
    let table = exit(&house.refit(&["run", "metrics", &run]).await, 0);
    assert!(table.contains("loss") && table.contains('▁'), "{table}");
    let json = exit(&house.refit(&["run", "metrics", &run, "-o", "json"]).await, 0);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), series);
}

/// A step writes the time as soon as it is told to; another writes `megabytes` at once, beside it.
async fn seen_after(house: &House, megabytes: usize) -> (Duration, Worker) {
    let worker = house.worker("w", 2);
    house
        .apply(&format!(
            "workflow: loud
steps:
  noise:
    run: |
      until [ -e SHARED/noise ]; do sleep 0.02; done
      head -c {megabytes}000000 /dev/zero | tr '\\0' 'x' | fold -w 120
      echo over > SHARED/over
  calm:
    run: |
      echo begun
      until [ -e SHARED/go ]; do sleep 0.02; done
      echo seen
      until [ -e SHARED/over ]; do sleep 0.02; done
"
        ))
        .await;
    let run = house.api().start_run("loud", json!({})).await;
    house.wait_log(&run, "calm", "begun").await;
    std::fs::write(house.file("noise"), "").unwrap();
    house.wait_log(&run, "noise", "xxx").await;
    let mut following = refit(
        house.folder.path(),
        &["run", "logs", &run, "--step", "calm", "-f", "--server", house.orchestrator.base_url()],
    );
    let following = following.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let after = tokio::task::spawn_blocking({
        let go = house.file("go");
        move || {
            use std::io::BufRead as _;
            let mut following = following;
            let mut lines = std::io::BufReader::new(following.stdout.take().unwrap()).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "begun");
            let told = Instant::now();
            std::fs::write(go, "").unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), "seen");
            let after = told.elapsed();
            following.wait().unwrap();
            after
        }
    });
    let after = after.await.unwrap();
    house.api().wait_run(&run, "succeeded", PATIENCE * 5).await;
    if megabytes > 64 {
        let log = house.api().log(&run, Some("noise")).await;
        let told = log.contains("reached its limit of 64 MiB") || log.contains("are missing here");
        assert!(told, "the log ends with {:?}", &log[log.len() - 300..]);
    }
    (after, worker)
}

/// The most memory a process has had, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_is_live_and_a_loud_step_slows_no_other() {
    let house = House::start().await;
    let (after, worker) = seen_after(&house, if refit_tests::soak() { 1000 } else { 100 }).await;
    assert!(after < Duration::from_secs(2), "seen after {after:?} beside a loud step");
    let peak = peak_memory(worker.pid().unwrap());
    assert!(peak < 200_000_000, "the worker had {peak} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_is_seen_within_a_second() {
    let house = House::start().await;
    let (after, _worker) = seen_after(&house, 1).await;
    assert!(after < Duration::from_secs(1), "seen after {after:?}");
}

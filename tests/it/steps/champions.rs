//! Two runs that finish at once: one champion at a time, compared with the one it replaces.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_that_finish_at_once_on_two_workers_cannot_both_replace_one_champion() {
    let database = services::postgres().await;
    let options = || Options { database_url: Some(database.url().to_owned()), ..Options::default() };
    let (one, two) = (Orchestrator::start(options()).await, Orchestrator::start(options()).await);
    let _workers = [Worker::start(one.base_url(), "one", 1), Worker::start(two.base_url(), "two", 1)];
    let folder = tempfile::tempdir().unwrap();
    let api = one.api();
    let workflow = "
workflow: race
model: m
params: { accuracy: { type: number }, round: { type: integer } }
steps:
  train:
    run: |
      echo waiting
      until [ -e SHARED/go-$PARAM_ROUND ]; do sleep 0.01; done
      echo '{\"name\": \"accuracy\", \"value\": '$PARAM_ACCURACY'}' >> $REFIT_METRICS
      echo $REFIT_RUN > model.txt
    artifacts: { model: model.txt }
  gate:
    needs: [train]
    gate: { checks: [{ metric: accuracy, min: 0.5 }, { metric: accuracy, min_change: 0.01 }] }
  promote: { needs: [gate], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";
    api.apply(&workflow.replace("SHARED", &folder.path().display().to_string())).await;
    std::fs::write(folder.path().join("go-0"), "").unwrap();
    let first = api.start_run("race", json!({"accuracy": 0.6, "round": 0})).await;
    api.wait_run(&first, "succeeded", PATIENCE).await;
    for round in 1..=3 {
        let params = json!({"accuracy": 0.6 + 0.05 * f64::from(round), "round": round});
        let runs = [api.start_run("race", params.clone()).await, two.api().start_run("race", params).await];
        let mut workers = Vec::new();
        for run in &runs {
            eventually("both train", PATIENCE, async || {
                api.log(run, Some("train")).await.contains("waiting").then_some(())
            })
            .await;
            workers.push(Api::step(&api.run(run).await, "train")["worker"].clone());
        }
        assert_ne!(workers[0], workers[1], "each has a worker of its own");
        std::fs::write(folder.path().join(format!("go-{round}")), "").unwrap();
        let mut over = Vec::new();
        for run in &runs {
            over.push(api.wait_over(run, PATIENCE).await);
        }
        over.sort_by_key(|run| run["state"] != "succeeded");
        assert_eq!(over[0]["promoted"], json!({"model": "m", "version": round + 1, "alias": "champion"}));
        assert_eq!(over[1]["state"], "rejected", "the second is judged against the first: {:#}", over[1]);
        let decision = &Api::step(&over[1], "gate")["decision"];
        assert_eq!(decision["champion"], json!(round + 1), "{decision}");
    }
    let model = api.get("/api/v1/models/m").await.ok();
    assert_eq!(model["aliases"], json!({"champion": 4}));
    let history = api.get("/api/v1/models/m/history").await.ok();
    let moves: Vec<(Value, Value)> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["from"].clone(), entry["to"].clone()))
        .collect();
    let expected: Vec<(Value, Value)> =
        [(json!(3), json!(4)), (json!(2), json!(3)), (json!(1), json!(2)), (Value::Null, json!(1))].into();
    assert_eq!(moves, expected);
}

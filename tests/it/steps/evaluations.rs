//! A candidate is judged by examples on which the champion was tried as well: from the predictions to the alias.

use super::*;

/// Writes predictions of which `$1` of 1000 are wrong for the candidate and `$2` for the champion, in two countries.
const PREDICT: &str = r#"
      awk -v ours="$PARAM_WRONG" -v theirs="$PARAM_CHAMPION_WRONG" 'BEGIN {
        print "id,y,candidate,champion,country"
        for (row = 0; row < 1000; row++) {
          y = row % 2; right = 0.8 - 0.01 * (row % 7)
          c = row < ours ? 1 - right : right; h = row >= 1000 - theirs ? 1 - right : right
          print row "," y "," (y ? c : 1 - c) "," (y ? h : 1 - h) "," (row % 8 > 1 ? "de" : "fr")
        }
      }' > both.csv"#;

fn workflow() -> String {
    format!(
        "
workflow: judged
model: m
params: {{ wrong: {{ type: integer }}, champion_wrong: {{ type: integer, default: 0 }} }}
steps:
  train: {{ run: 'echo $PARAM_WRONG > model.txt', artifacts: {{ model: model.txt }} }}
  predict:
    needs: [train]
    run: |{PREDICT}
    artifacts: {{ both: both.csv }}
  compare:
    needs: [predict]
    evaluate:
      predictions: '${{{{ steps.predict.artifacts.both }}}}'
      label: y
      id: id
      metrics: [accuracy, roc_auc, f1]
      by: [country]
  gate:
    needs: [compare]
    gate:
      checks:
        - {{ metric: accuracy, min: 0.5 }}
        - {{ metric: accuracy, min: 0.4, by: country }}
        - {{ metric: accuracy, role: success }}
        - {{ metric: f1, role: guardrail, margin: 0.05, by: country }}
      inconclusive: approval
  approve:
    needs: [gate]
    if: steps.gate.verdict == \"inconclusive\"
    approval: {{ from: [lead] }}
  promote: {{ needs: [gate, approve], promote: {{ artifact: '${{{{ steps.train.artifacts.model }}}}' }} }}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_must_be_shown_to_be_better_than_the_champion_it_replaces() {
    let house = House::start().await;
    let _worker = house.worker("w", 2);
    house.apply(&workflow()).await;
    let api = house.api();

    let first = api.start_run("judged", json!({ "wrong": 300 })).await;
    let run = api.wait_run(&first, "succeeded", PATIENCE).await;
    assert_eq!(Api::step(&run, "compare")["metrics"]["accuracy"], json!(0.7));
    let decision = &Api::step(&run, "gate")["decision"];
    let verdicts = |decision: &Value| -> Vec<String> {
        let checks = decision["checks"].as_array().unwrap();
        checks.iter().map(|check| check["verdict"].as_str().unwrap_or("none").to_owned()).collect()
    };
    assert_eq!(verdicts(decision), ["pass", "pass", "pass", "none", "none"], "{decision:#}");

    let better = api.start_run("judged", json!({ "wrong": 200, "champion_wrong": 300 })).await;
    let run = api.wait_run(&better, "succeeded", PATIENCE).await;
    assert_eq!(run["promoted"]["version"], json!(2));
    let used = &Api::step(&run, "gate")["holdouts"];
    assert_eq!(used[0]["uses"], 2, "the same examples have decided about the first: {used}");
    let evidence = api.get(&format!("/api/v1/runs/{better}/evidence")).await.ok();
    assert_eq!(evidence["record"]["holdouts"]["gate"], *used);
    let shown = exit(&house.refit(&["run", "show", &better]).await, 0);
    assert!(shown.contains("have decided 2 times about this model"), "{shown}");
    let decision = &Api::step(&run, "gate")["decision"];
    assert_eq!(verdicts(decision), ["pass"; 6], "{decision:#}");
    let success = &decision["checks"][3];
    assert!(
        (success["tested"]["difference"]["estimate"].as_f64().unwrap() - 0.1).abs() < 1e-12,
        "{success:#}"
    );
    assert_eq!(success["tested"]["difference"]["test"], json!("tango"));
    assert_eq!(Api::step(&run, "approve")["state"], "skipped");

    let evidence: Value =
        serde_json::from_str(&exit(&house.refit(&["run", "evidence", &better, "-o", "json"]).await, 0))
            .unwrap();
    assert_eq!(evidence["record"]["gates"]["gate"], *decision);
    let digest = refit_workflows::digest::Digest::of(evidence["record"].to_string().as_bytes());
    assert_eq!(evidence["digest"], json!(digest), "the digest is that of the record's text");
    let history = api.get("/api/v1/models/m/history").await.ok();
    assert_eq!(history[0]["evidence"], evidence["digest"]);
    let document = exit(&house.refit(&["run", "evidence", &better]).await, 0);
    assert!(document.starts_with("# m 2 became champion\n"), "{document}");

    let worse = api.start_run("judged", json!({ "wrong": 400, "champion_wrong": 200 })).await;
    let run = api.wait_run(&worse, "rejected", PATIENCE).await;
    let none = house.refit(&["run", "evidence", &worse]).await;
    assert_eq!(none.status.code(), Some(5), "{none:?}");
    let reason = Api::step(&run, "gate")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("f1 in country="), "{reason}");
    assert!(reason.contains("confidence, 0.05 is allowed"), "{reason}");

    let shown = exit(&house.refit(&["run", "show", &worse]).await, 0);
    for words in ["DIFFERENCE", "EXAMPLES", "accuracy better", "f1 at most 0.05 worse, country=fr"] {
        assert!(shown.contains(words), "{words} in {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_evidence_leaves_open_is_for_a_person() {
    let house = House::start().await;
    let _worker = house.worker("w", 2);
    house.apply(&workflow()).await;
    let api = house.api();
    api.wait_run(&api.start_run("judged", json!({ "wrong": 300 })).await, "succeeded", PATIENCE).await;

    let asks = |wrong: u32| {
        let api = house.api();
        async move {
            let run = api.start_run("judged", json!({ "wrong": wrong, "champion_wrong": 200 })).await;
            eventually("the approval waits", PATIENCE, async || {
                (Api::step(&api.run(&run).await, "approve")["state"] == "waiting").then_some(())
            })
            .await;
            run
        }
    };
    let open = asks(195).await;
    let run = api.run(&open).await;
    let gate = Api::step(&run, "gate");
    assert_eq!((&gate["state"], &gate["verdict"]), (&json!("succeeded"), &json!("inconclusive")), "{gate:#}");
    assert!(gate["reason"].as_str().unwrap().contains("which may be chance"), "{gate:#}");
    exit(&house.refit(&["run", "approve", &open]).await, 0);
    let run = api.wait_run(&open, "succeeded", PATIENCE).await;
    assert_eq!(run["promoted"]["version"], json!(2));

    let refused = asks(196).await;
    exit(&house.refit(&["run", "reject", &refused]).await, 0);
    let run = api.wait_run(&refused, "rejected", PATIENCE).await;
    assert_eq!(run["promoted"], Value::Null);
    let model = api.get("/api/v1/models/m").await.ok();
    assert_eq!(model["aliases"], json!({ "champion": 2 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn examples_that_cannot_be_judged_by_fail_the_step_with_their_place() {
    let house = House::start().await;
    let _worker = house.worker("w", 1);
    let broken = workflow().replace(r#"print row "," y"#, r#"print (row == 7 ? 3 : row) "," y"#);
    house.apply(&broken).await;
    let run = house.api().start_run("judged", json!({ "wrong": 100 })).await;
    let run = house.api().wait_run(&run, "failed", PATIENCE).await;
    let compare = Api::step(&run, "compare");
    assert!(
        compare["reason"].as_str().unwrap().contains("row 8: `id` is `3`, as in a row before"),
        "{compare:#}"
    );
    assert_eq!(Api::step(&run, "promote")["state"], "skipped");
}

//! Data checks from the file to the gate: what a step hands over, what it compares with, and that bad data is an answer.

use super::*;

const CHECKED: &str = "
workflow: checked
model: m
params: { rows: { type: integer } }
steps:
  make:
    run: |
      echo age,label > people.csv
      i=0; while [ $i -lt $PARAM_ROWS ]; do echo $((20 + i % 50)),$((i % 4 / 3)); i=$((i+1)); done >> people.csv
    artifacts: { people: people.csv }
  check:
    needs: [make]
    retry: { attempts: 3, backoff: 100ms }
    validate:
      data: '${{ steps.make.artifacts.people }}'
      checks:
        - rows: { min: 10, change: { max: 50% } }
        - { column: age, type: integer, missing: { max: 1% }, between: [0, 120] }
        - { label_share: { column: label, value: 1, max: 30%, change: { max: 5%, against: champion } } }
        - { column: age, mean: { max: 5 }, severity: warn }
  gate:
    needs: [check]
    gate: { checks: [{ expr: steps.check.metrics.rows >= 10 }] }
  promote: { needs: [gate], promote: { artifact: '${{ steps.make.artifacts.people }}' } }
finally:
  tell: { run: [echo, '${{ steps.check.outputs.outcome }}'] }
";

#[tokio::test(flavor = "multi_thread")]
async fn data_is_checked_against_earlier_runs_and_the_champion() {
    let house = House::start().await;
    let _worker = house.worker("w", 1);
    house.apply(CHECKED).await;
    let api = house.api();
    let first = api.start_run("checked", json!({ "rows": 100 })).await;
    let view = api.wait_run(&first, "succeeded", PATIENCE).await;
    let step = Api::step(&view, "check").clone();
    assert_eq!(step["metrics"], json!({ "rows": 100.0, "failed": 0.0, "warned": 1.0 }));
    assert_eq!(step["outputs"], json!({ "outcome": "warn", "failed": [], "warned": ["age mean"] }));
    let digest = step["artifacts"]["report"]["digest"].as_str().unwrap();
    let report = api.get(&format!("/api/v1/blobs/{digest}")).await.ok();
    assert_eq!(report["checks"][1]["outcome"], "skip", "{report}");
    let names: Vec<&String> = step["artifacts"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["profile", "report"]);
    let log = api.log(&first, Some("check")).await;
    assert!(log.contains("age: the mean is 44.5, at most 5 allowed (n = 100)"), "{log}");
    assert!(log.contains("not compared: no earlier run checked data in this step"), "{log}");

    let second = api.start_run("checked", json!({ "rows": 140 })).await;
    let view = api.wait_run(&second, "succeeded", PATIENCE).await;
    let log = api.log(&second, Some("check")).await;
    assert!(log.contains("140 rows, 40 % more than the 100 of checked/1"), "{log}");
    assert!(log.contains("25 % against 25 % of checked/1"), "the run that made the champion: {log}");
    assert_eq!(Api::step(&view, "check")["attempt"], 1);

    let third = api.start_run("checked", json!({ "rows": 9 })).await;
    let view = api.wait_run(&third, "rejected", PATIENCE).await;
    let step = Api::step(&view, "check").clone();
    assert_eq!(
        (&step["state"], &step["attempt"]),
        (&json!("rejected"), &json!(1)),
        "an answer is not asked for again"
    );
    let reason = step["reason"].as_str().unwrap();
    let expected =
        "9 rows, at least 10 allowed; 9 rows, 93.57 % fewer than the 140 of checked/2, at most 50 % allowed";
    assert!(reason.starts_with(expected), "{reason}");
    assert_eq!(Api::step(&view, "gate")["state"], "skipped");
    assert_eq!(step["outputs"]["failed"][0], "rows", "what shows why is handed over all the same");
    assert!(api.log(&third, Some("tell")).await.contains("fail"), "and `finally` sees it");
    let log = api.log(&third, Some("check")).await;
    assert!(log.contains("FAIL   rows"), "{log}");
    let shown = exit(&house.refit(&["run", "show", &third]).await, 0);
    assert!(shown.contains("9 rows, at least 10 allowed"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_cannot_be_read_is_a_failure_that_is_tried_again() {
    let house = House::start().await;
    let _worker = house.worker("w", 1);
    std::fs::write(house.file("broken.csv"), "a,b\n1,2\n3\n").unwrap();
    house
        .apply(
            "
workflow: broken
steps:
  check:
    retry: { attempts: 2, backoff: 100ms }
    validate: { data: SHARED/broken.csv, checks: [{ column: a, mean: { max: 5 } }] }
",
        )
        .await;
    let run = house.api().start_run("broken", json!({})).await;
    let view = house.api().wait_run(&run, "failed", PATIENCE).await;
    let reason = Api::step(&view, "check")["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.ends_with(
            "broken.csv cannot be read at row 2: it has 1 fields (line 3), the header 2 (after 2 attempts)"
        ),
        "{reason}"
    );
}

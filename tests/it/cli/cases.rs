//! `refit test`: cases on a virtual clock, what is told when one fails, and the exit code scripts go by.

use serde_json::json;

use super::{CHURN, Desk, holds};

const CASES: &str = r#"
cases:
  - case: a person decides about us
    given:
      - run: { params: { region: us } }
    steps:
      train: { metrics: { auc: 0.9 }, takes: 30m }
      approve: { approves: ml-leads, takes: 2h }
    expect:
      runs:
        - { state: succeeded, order: [load, train, gate, approve, promote], promoted: 1, took: 150m }
  - case: silence is no
    given:
      - run: { params: { region: us } }
    steps:
      train: { metrics: { auc: 0.9 } }
    expect:
      runs: [{ state: rejected, steps: { approve: rejected, promote: skipped } }]
      champion: none
  - case: somebody who is not asked decides nothing
    given:
      - run: { params: { region: us } }
    steps:
      train: { metrics: { auc: 0.9 } }
      approve: { approves: ada, takes: 1h }
    expect:
      runs: [{ state: rejected }]
  - case: a worker that is lost costs no try
    given:
      - run: {}
    steps:
      train: [{ lost: true, takes: 1h }, { metrics: { auc: 0.7 } }]
    expect:
      runs: [{ state: rejected, attempts: { train: 2 }, verdicts: { gate: fail } }]
"#;

#[test]
fn cases_pass_and_say_so() {
    let desk = Desk::new();
    desk.write("churn.yaml", CHURN);
    desk.write("churn.test.yaml", CASES);
    holds(&desk.ok(&["test"]), &["churn.test.yaml", "✓ silence is no", "4 cases, all passed"]);
    holds(&desk.ok(&["test", ".", "--case", "silence"]), &["1 case, all passed"]);
    desk.ok(&["test", "--junit", "results.xml"]);
    let xml = std::fs::read_to_string(desk.folder.path().join("results.xml")).unwrap();
    holds(&xml, &["tests=\"4\"", "failures=\"0\"", "name=\"a worker that is lost costs no try\""]);
}

#[test]
fn a_case_that_fails_tells_every_difference_and_why() {
    let desk = Desk::new();
    desk.write("churn.yaml", CHURN);
    let wrong = CASES.replace("promoted: 1, took: 150m", "promoted: 2, took: 1h").replace(
        "state: rejected, steps: { approve: rejected",
        "state: succeeded, steps: { approve: succeeded",
    );
    desk.write("churn.test.yaml", &wrong);
    let said = desk.ends(1, &["test", "--junit", "results.xml"]);
    holds(
        &said.out,
        &[
            "✗ a person decides about us  line 3",
            "runs[0].promoted: expected 2, got 1",
            "runs[0].took: expected 1h 0m, got 2h 30m",
            "runs[0].state: expected succeeded, got rejected",
            "runs[0].steps.approve: expected succeeded, got rejected",
            "nobody answered in time",
            "4 cases, 2 failed",
        ],
    );
    let xml = std::fs::read_to_string(desk.folder.path().join("results.xml")).unwrap();
    holds(&xml, &["failures=\"2\"", "runs[0].promoted: expected 2, got 1"]);
    let results: serde_json::Value =
        serde_json::from_str(&desk.ends(1, &["test", "-o", "json"]).out).unwrap();
    assert_eq!((&results[0]["passed"], &results[0]["line"]), (&json!(false), &json!(3)));
    assert_eq!(results[0]["mismatches"][0]["path"], "runs[0].promoted");
    assert_eq!(results[2]["passed"], true);
}

#[test]
fn what_is_wrong_with_a_test_file_is_shown_where_it_stands() {
    let desk = Desk::new();
    desk.write("churn.yaml", CHURN);
    for (from, to, told) in [
        (
            "expect:\n      runs:",
            "expekt:\n      runs:",
            &["churn.test.yaml:9:5", "unknown field `expekt`"][..],
        ),
        ("takes: 30m", "takes: 30", &["churn.test.yaml:7:46", "not a duration"]),
        ("train: [{", "train: [] # [{", &["the list of attempts is empty"]),
    ] {
        desk.write("churn.test.yaml", &CASES.replacen(from, to, 1));
        holds(&desk.ends(3, &["test"]).err, told);
    }
    for (from, to, told) in [
        ("approve: { approves: ml", "aprove: { approves: ml", "did you mean `approve`?"),
        ("region: us } }\n    steps:", "regoin: us } }\n    steps:", "`regoin` is not a param of churn"),
        ("champion: none", "champion: none\n      decisions: { e1: [started] }", "no such event"),
    ] {
        desk.write("churn.test.yaml", &CASES.replacen(from, to, 1));
        holds(&desk.ends(1, &["test"]).out, &[told]);
    }
    desk.write("churn.test.yaml", CASES);
    holds(&desk.ends(2, &["test", "--case", "nothing like it"]).err, &["no case has such a name"]);
    desk.write("churn.yaml", &CHURN.replace("needs: [gate, approve]", "needs: [gate, aprove]"));
    holds(&desk.ends(3, &["test"]).err, &["churn.yaml", "did you mean `approve`?"]);
    std::fs::remove_file(desk.folder.path().join("churn.test.yaml")).unwrap();
    holds(&desk.ends(2, &["test"]).err, &["no tests in", "churn.test.yaml beside churn.yaml"]);
}

#[test]
fn a_schedule_never_rests_and_a_case_has_to_say_how_long_it_goes_on() {
    let desk = Desk::new();
    desk.write("nightly.yaml", "workflow: nightly\non: [{ cron: '0 3 * * *' }]\nsteps:\n  a: { run: [x] }\n");
    let case = "cases:\n  - case: three nights\n    expect: { runs: [{ state: succeeded }, {}, {}] }\n";
    desk.write("nightly.test.yaml", case);
    holds(&desk.ends(1, &["test"]).out, &["never comes to rest", "until: 1d"]);
    desk.write("nightly.test.yaml", &case.replace("    expect", "    until: 3d\n    expect"));
    desk.ok(&["test"]);
}

//! Checks over small tables, each with a number that can be seen by eye.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use refit_workflows::definition::Task as Verb;
use refit_workflows::definition::Workflow;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::DataRef;
use serde_json::{Value, json};

use super::*;

/// 2026-03-01T00:00:00Z.
const NOW: Timestamp = Timestamp::from_millis(1_772_323_200_000);

/// The checks of YAML, a list of mappings, as a worker is told them.
fn checks(yaml: &str) -> Vec<DataCheck<DataRef>> {
    let lines: String = yaml.lines().map(|line| format!("        {line}\n")).collect();
    let text =
        format!("workflow: w\nsteps:\n  v:\n    validate:\n      data: data.csv\n      checks:\n{lines}");
    let workflow = Workflow::parse(&text).unwrap_or_else(|wrong| panic!("{text}\n{wrong}"));
    let Verb::Validate(task) = &workflow.steps[0].verb.work().unwrap().task else { panic!("{text}") };
    let named = |template: &refit_workflows::template::Template| {
        Ok::<_, ()>(DataRef::Path(template.source().to_owned()))
    };
    task.checks.iter().map(|check| check.try_map(named).unwrap()).collect()
}

pub(super) fn task(folder: &Path, data: &str, yaml: &str) -> Task {
    let checks = checks(yaml);
    let source = |name: &str| Source { path: folder.join(name), format: None };
    let others = checks.iter().enumerate().filter_map(|(index, check)| match check.other_data()? {
        DataRef::Path(path) => Some((index, source(path))),
        DataRef::S3(_) | DataRef::Artifact { .. } => None,
    });
    let others: BTreeMap<usize, Source> = others.collect();
    let hidden = vec![format!("{}/", folder.display())];
    Task { data: source(data), checks, others, references: References::default(), now: NOW, hidden }
}

fn run(task: &Task) -> Findings {
    task.run(&AtomicBool::new(false)).unwrap()
}

/// Outcome and message of each answer.
fn answers(findings: &Findings) -> Vec<(String, String)> {
    let outcome = |answer: &Answer| json!(answer.outcome).as_str().unwrap().to_owned();
    findings.answers.iter().map(|answer| (outcome(answer), answer.message.clone())).collect()
}

/// Checks one table, and compares outcome and message with what is expected.
fn expect(data: &str, cases: &[(&str, &str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.csv"), data).unwrap();
    for (yaml, outcome, message) in cases {
        let found = answers(&run(&task(folder.path(), "data.csv", yaml)));
        assert_eq!(found, [((*outcome).to_owned(), (*message).to_owned())], "{yaml}");
    }
}

const PEOPLE: &str = "id,age,country,joined,ok
1,30,de,2026-02-28T00:00:00Z,true
2,41,de,2026-02-01T12:00:00Z,true
3,,fr,2026-01-01,false
4,130,xx,2026-01-01,true
";

#[test]
fn what_holds_passes_and_says_how_much_it_rests_on() {
    expect(
        PEOPLE,
        &[
            ("- rows: { min: 4, max: 4 }", "pass", "4 rows, exactly 4 allowed"),
            (
                "- { column: age, missing: { max: 25% } }",
                "pass",
                "age: 25 % missing, at most 25 % allowed (n = 4)",
            ),
            ("- { column: age, missing: { max: 1 } }", "pass", "age: 1 missing, at most 1 allowed (n = 4)"),
            ("- { column: age, type: integer }", "pass", "age: every value is a whole number (n = 3)"),
            ("- { column: id, unique: true }", "pass", "id: no value occurs twice (n = 4)"),
            (
                "- { column: age, between: [30, 130] }",
                "pass",
                "age: every value is between 30 and 130 (n = 3)",
            ),
            (
                "- { column: id, matches: '^\\d$' }",
                "pass",
                "id: every value is text that matches `^\\d$` (n = 4)",
            ),
            (
                "- { column: country, length: { min: 2 } }",
                "pass",
                "country: every value is text of at least 2 characters (n = 4)",
            ),
            (
                "- { column: age, mean: { max: 67 } }",
                "pass",
                "age: the mean is 67, at most 67 allowed (n = 3)",
            ),
            (
                "- { column: age, median: { min: 41, max: 41 } }",
                "pass",
                "age: the median is 41, exactly 41 allowed (n = 3)",
            ),
            (
                "- { column: age, quantile: { at: 25%, max: 36 } }",
                "pass",
                "age: the quantile at 25 % is 35.5, at most 36 allowed (n = 3)",
            ),
            (
                "- { column: age, sum: { min: 201 } }",
                "pass",
                "age: the sum is 201, at least 201 allowed (n = 3)",
            ),
            (
                "- { column: ok, constant: false }",
                "pass",
                "ok: the values differ, at least two different values allowed (n = 4)",
            ),
            (
                "- { column: joined, fresh: { within: 1d } }",
                "pass",
                "joined: the latest is 2026-02-28T00:00:00.000Z, 1d 0h old, at most 1d 0h old allowed",
            ),
            (
                "- label_share: { column: ok, value: true, min: 75% }",
                "pass",
                "ok: 75 % is true, at least 75 % allowed (n = 4)",
            ),
        ],
    );
}

#[test]
fn what_does_not_hold_fails_and_says_where() {
    expect(
        PEOPLE,
        &[
            ("- rows: { min: 1000 }", "fail", "4 rows, at least 1,000 allowed"),
            (
                "- { column: age, missing: { max: 1% } }",
                "fail",
                "age: 25 % missing, at most 1 % allowed (n = 4)",
            ),
            (
                "- { column: country, type: integer }",
                "fail",
                "country: 4 of 4 values are not a whole number, the first `de` in row 1",
            ),
            ("- { column: country, unique: true }", "fail", "country: 1 row of 4 repeats an earlier one"),
            ("- unique: [country, ok]", "fail", "country, ok unique: 1 row of 4 repeats an earlier one"),
            (
                "- { column: age, between: [0, 120] }",
                "fail",
                "age: 1 of 3 values is not between 0 and 120, the first `130` in row 4",
            ),
            (
                "- { column: country, in: [de, fr] }",
                "fail",
                "country: 1 of 4 values is not one of de, fr, the first `xx` in row 4",
            ),
            (
                "- { column: ok, in: [true] }",
                "fail",
                "ok: 1 of 4 values is not one of true, the first `false` in row 3",
            ),
            (
                "- { column: id, in: [1, 2, 3] }",
                "fail",
                "id: 1 of 4 values is not one of 1, 2, 3, the first `4` in row 4",
            ),
            (
                "- { column: joined, fresh: { within: 12h } }",
                "fail",
                "joined: the latest is 2026-02-28T00:00:00.000Z, 1d 0h old, at most 12h 0m old allowed",
            ),
            (
                "- { column: ok, constant: true }",
                "fail",
                "ok: the values differ, one value alone allowed (n = 4)",
            ),
            (
                "- label_share: { column: ok, value: true, max: 50% }",
                "fail",
                "ok: 75 % is true, at most 50 % allowed (n = 4)",
            ),
            (
                "- { column: age, between: [0, 120], severity: warn }",
                "warn",
                "age: 1 of 3 values is not between 0 and 120, the first `130` in row 4",
            ),
        ],
    );
}

#[test]
fn what_cannot_be_told_is_never_a_pass() {
    let data = "age,empty,word\n1,,x\noops,,y\n";
    expect(
        data,
        &[
            (
                "- { column: agee, missing: { max: 1 } }",
                "error",
                "agee: data.csv has no column `agee`; did you mean `age`?",
            ),
            ("- { column: age, mean: { max: 5 } }", "error", "age: 1 value is not a number"),
            (
                "- { column: age, between: [0, 5] }",
                "fail",
                "age: 1 of 2 values is not between 0 and 5, the first `oops` in row 2",
            ),
            ("- { column: empty, between: [0, 5] }", "error", "empty: there is no value to look at"),
            ("- { column: empty, mean: { max: 5 } }", "error", "empty: there is no value to look at"),
            ("- { column: empty, unique: true }", "error", "empty: there is no value to look at"),
            ("- { column: age, mean: { max: 5 }, severity: warn }", "warn", "age: 1 value is not a number"),
            (
                "- { rows: { min: 0 }, where: nothing == 'x' }",
                "error",
                "rows: `where` reads a column `nothing`, which is not there",
            ),
        ],
    );
    expect(
        "a\n",
        &[
            ("- { column: a, missing: { max: 100% } }", "error", "a: there is no row to look at"),
            ("- rows: { max: 0 }", "pass", "0 rows, at most 0 allowed"),
        ],
    );
}

#[test]
fn a_filter_says_which_rows_count() {
    expect(
        PEOPLE,
        &[
            (
                "- { rows: { min: 3 }, where: country == 'de' }",
                "fail",
                "2 rows, at least 3 allowed, where country == 'de'",
            ),
            (
                "- { column: age, between: [0, 120], where: \"country != 'xx'\" }",
                "pass",
                "age: every value is between 0 and 120 (n = 2), where country != 'xx'",
            ),
            (
                "- { column: age, mean: { max: 36 }, where: 'row[\"country\"] == \"de\"' }",
                "pass",
                "age: the mean is 35.5, at most 36 allowed (n = 2), where row[\"country\"] == \"de\"",
            ),
            (
                "- { column: id, between: [0, 3], where: 'age != null && age > 100' }",
                "fail",
                "id: 1 of 1 values is not between 0 and 3, the first `4` in row 4, where age != null && age > 100",
            ),
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.csv"), PEOPLE).unwrap();
    let found = answers(&run(&task(folder.path(), "data.csv", "- { rows: { min: 0 }, where: age > 100 }")));
    assert_eq!(found[0].0, "error");
    assert!(found[0].1.starts_with("rows: `where` cannot be evaluated at row 3: "), "{found:?}");
}

#[test]
fn a_check_by_slices_holds_in_each_of_them() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.csv"), PEOPLE).unwrap();
    let found = |yaml: &str| answers(&run(&task(folder.path(), "data.csv", yaml)));
    let expected = [
        ("fail", "2 rows, at most 1 allowed, where country == \"de\""),
        ("pass", "1 rows, at most 1 allowed, where country == \"fr\""),
        ("pass", "1 rows, at most 1 allowed, where country == \"xx\""),
    ];
    let expected = expected.map(|(outcome, message)| (outcome.to_owned(), message.to_owned()));
    assert_eq!(found("- { rows: { max: 1 }, by: country }"), expected);
    let of_some = found("- { column: age, missing: { max: 0 }, by: ok, where: id > 3 }");
    let expected = ("pass", "age: 0 missing, at most 0 allowed (n = 1), where (id > 3) && ok == true");
    assert_eq!(of_some, [(expected.0.to_owned(), expected.1.to_owned())], "slices of the rows that count");
    let unclear = [
        ("- { rows: { max: 1 }, by: land }", "data.csv has no column `land`"),
        (
            "- { rows: { max: 1 }, by: country, where: id > 9 }",
            "slices of country: there is no row to look at",
        ),
        ("- { rows: { max: 1 }, by: country, where: age > 9 }", "`where` cannot be evaluated at row 3"),
    ];
    for (yaml, why) in unclear {
        let found = found(yaml);
        assert!(found.len() == 1 && found[0].0 == "error" && found[0].1.contains(why), "{yaml}: {found:?}");
    }
    let names = run(&task(folder.path(), "data.csv", "- { column: id, between: [9, 9], by: age }")).outputs();
    let expected =
        ["id between [age=130]", "id between [age=30]", "id between [age=41]", "id between [age=null]"];
    assert_eq!(names["failed"], json!(expected), "a missing value is a slice as well");
    let many: String = (0..101).map(|id| format!("{id}\n")).collect();
    fs::write(folder.path().join("many.csv"), format!("first id\n{many}")).unwrap();
    let found = answers(&run(&task(folder.path(), "many.csv", "- { rows: { max: 1 }, by: first id }")));
    assert!(found[0].1.contains("`first id` has more than 100 different values"), "{found:?}");
    fs::write(folder.path().join("few.csv"), "first id\n1\n").unwrap();
    let found = answers(&run(&task(folder.path(), "few.csv", "- { rows: { max: 1 }, by: first id }")));
    let expected = ("pass", "1 rows, at most 1 allowed, where row[\"first id\"] == 1");
    assert_eq!(found, [(expected.0.to_owned(), expected.1.to_owned())]);
}

#[test]
fn what_is_unusual_is_told_from_the_median_of_earlier_runs() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.csv"), PEOPLE).unwrap();
    let found = |yaml: &str, before: &[f64]| {
        let mut task = task(folder.path(), "data.csv", yaml);
        task.references.row_counts = before.to_vec();
        answers(&run(&task)).remove(0)
    };
    let told = |outcome: &str, message: &str| (outcome.to_owned(), message.to_owned());
    // Median 7, median absolute deviation 2: one run of a thousand rows moves neither.
    let before = [7.0, 5.0, 9.0, 7.0, 1000.0, 5.0, 9.0, 6.0, 9.0];
    assert_eq!(
        found("- rows: { usual: { within: 1 } }", &before),
        told("fail", "4 rows, 3 from the median 7 of 9 earlier runs, at most 2.9652 allowed")
    );
    assert_eq!(found("- rows: { usual: {} }", &before).0, "pass");
    let latest = found("- rows: { usual: { within: 1, runs: 8 } }", &before);
    assert_eq!(latest, told("fail", "4 rows, 3 from the median 7 of 8 earlier runs, at most 2.9652 allowed"));
    let few = found("- rows: { usual: {} }", &before[..7]);
    assert_eq!(few, told("skip", "not compared: 7 of the 8 earlier runs it takes"));
}

#[test]
fn drift_is_told_from_an_earlier_run() {
    let folder = tempfile::tempdir().unwrap();
    let write = |shift: u32| {
        let rows: String = (0..500).map(|row| format!("{}\n", row % 100 + shift)).collect();
        fs::write(folder.path().join("data.csv"), format!("age\n{rows}")).unwrap();
    };
    write(0);
    let mut task = task(folder.path(), "data.csv", "- drift: { columns: [age], method: ks, max: 0.2 }");
    let first = run(&task);
    assert_eq!(answers(&first)[0].0, "skip");
    task.references.previous = Some(("w/1".to_owned(), first.profile));
    assert_eq!(answers(&run(&task))[0].0, "pass", "the same data");
    write(50);
    let found = run(&task);
    let expected = "age: ks 0.5 from w/1, at most 0.2 allowed (n = 500, 500 there)";
    assert_eq!(answers(&found), [("fail".to_owned(), expected.to_owned())]);
    assert_eq!(found.metrics()["ks_max"], 0.5);
}

#[test]
fn rows_that_should_not_be_there_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.csv"), PEOPLE).unwrap();
    fs::write(folder.path().join("test.csv"), "id,country\n4,xx\n9,de\n").unwrap();
    let yaml =
        "- { unique: [country, ok], where: id < 4 }\n- overlap: { with: test.csv, columns: [id, country] }";
    let failing = run(&task(folder.path(), "data.csv", yaml)).failing_lines().unwrap();
    let lines: Vec<Value> = failing.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let repeated = |row: u64| {
        json!({ "check": "country, ok unique", "file": "data.csv", "row": row, "column": "country, ok",
            "value": { "country": "de", "ok": true } })
    };
    let overlapping = json!({ "check": "overlap", "file": "data.csv", "row": 4, "column": "id, country",
        "value": { "id": 4, "country": "xx" } });
    assert_eq!(lines, [repeated(1), repeated(2), overlapping]);
}

#[test]
fn findings_are_data() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.csv"), PEOPLE).unwrap();
    let yaml = "- { column: country, in: [de, fr], because: we sell there }\n- rows: { min: 4 }\n- { column: age, \
                missing: { max: 0 }, severity: warn }\n- { column: age, between: [0, 120] }\n- { column: id, between: [9, \
                9] }\n- { column: ok, constant: true }";
    let findings = run(&task(folder.path(), "data.csv", yaml));
    let reason = findings.refusal().unwrap();
    assert!(
        reason.ends_with("id: 4 of 4 values are not between 9 and 9, the first `1` in row 1; and 1 more"),
        "{reason}"
    );
    assert!(
        reason
            .starts_with("country: 1 of 4 values is not one of de, fr, the first `xx` in row 4; age: 1 of 3"),
        "{reason}"
    );
    let outputs = findings.outputs();
    assert_eq!(outputs["outcome"], "fail");
    assert_eq!(outputs["failed"], json!(["country in", "age between", "id between", "ok constant"]));
    assert_eq!(outputs["warned"], json!(["age missing"]));
    let expected = [("failed", 4.0), ("rows", 4.0), ("warned", 1.0)];
    assert_eq!(findings.metrics(), expected.map(|(name, value)| (name.to_owned(), value)).into());
    let report: Value = serde_json::from_str(&findings.report_json()).unwrap();
    let first = json!({
        "check": "country in", "severity": "fail", "outcome": "fail", "because": "we sell there", "n": 4,
        "observed": { "broken": 1, "unreadable": 0 }, "expected": "every value is one of de, fr",
        "message": "country: 1 of 4 values is not one of de, fr, the first `xx` in row 4", "new_values": { "xx": 1 },
    });
    assert_eq!(report["checks"][0], first);
    let failing = findings.failing_lines().unwrap();
    let lines: Vec<Value> = failing.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected =
        json!({ "check": "country in", "file": "data.csv", "row": 4, "column": "country", "value": "xx" });
    assert_eq!(lines[0], expected);
    assert_eq!(lines.len(), 6);
    let profile = Profile::parse(findings.profile_json().as_bytes()).unwrap();
    assert_eq!(profile, findings.profile, "a profile is read as it was written");
    let lines = findings.lines();
    assert_eq!(lines[0], "4 rows, 6 checks");
    assert!(lines[1].starts_with("FAIL   country in   country: 1 of 4 values is not"), "{}", lines[1]);
    assert!(lines[1].ends_with(" — we sell there"), "{}", lines[1]);
}

#[test]
fn other_data_is_compared_with() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.csv"), PEOPLE).unwrap();
    fs::write(folder.path().join("old.csv"), "id,age,country,ok\n4,130,xx,false\n9,1,de,true\n").unwrap();
    fs::write(
        folder.path().join("test.jsonl"),
        "{\"id\": 4, \"country\": \"xx\"}\n{\"id\": 1, \"country\": \"fr\"}\n",
    )
    .unwrap();
    let found = |yaml: &str| answers(&run(&task(folder.path(), "data.csv", yaml))).remove(0);
    let cases = [
        (
            "- rows: { change: { max: 100%, against: old.csv } }",
            "pass",
            "4 rows, 100 % more than the 2 of the other data, at most 100 % allowed",
        ),
        (
            "- rows: { change: { max: 99%, against: old.csv } }",
            "fail",
            "4 rows, 100 % more than the 2 of the other data, at most 99 % allowed",
        ),
        (
            "- label_share: { column: ok, value: true, change: { max: 20%, against: old.csv } }",
            "fail",
            "ok: 75 % against 50 % of the other data, 25 points apart, at most 20 allowed (n = 4)",
        ),
        (
            "- overlap: { with: test.jsonl, columns: [id, country] }",
            "fail",
            "overlap: 1 of 4 rows (25 %) are in the other data as well, at most 0 % allowed",
        ),
        (
            "- overlap: { with: test.jsonl, columns: [id], max: 50% }",
            "pass",
            "overlap: 2 of 4 rows (50 %) are in the other data as well, at most 50 % allowed",
        ),
        ("- overlap: { with: test.jsonl }", "error", "overlap: test.jsonl has no column `age`"),
        (
            "- overlap: { with: gone.csv }",
            "error",
            "overlap: failed to open gone.csv: No such file or directory (os error 2)",
        ),
    ];
    for (yaml, outcome, message) in cases {
        let (got, said) = found(yaml);
        assert_eq!((got.as_str(), said.as_str()), (outcome, message), "{yaml}");
    }
}

#[test]
fn earlier_runs_are_compared_with_and_a_first_one_is_not_held_up() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.csv"), PEOPLE).unwrap();
    let yaml = "- rows: { change: { max: 10% } }\n- label_share: { column: ok, value: true, change: { max: 1%, against: \
                champion } }\n- { rows: { change: { max: 0% } }, where: age != null }";
    let mut task = task(folder.path(), "data.csv", yaml);
    let first = run(&task);
    let outcomes: Vec<String> = answers(&first).into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["skip", "skip", "skip"]);
    assert_eq!(first.refusal(), None, "nothing to compare with is no reason to refuse");
    assert_eq!(first.outputs()["outcome"], "pass");
    task.references.previous = Some(("w/1".to_owned(), first.profile.clone()));
    task.references.champion = Some(("w/1".to_owned(), first.profile));
    fs::write(folder.path().join("data.csv"), "id,age,country,joined,ok\n1,30,de,,true\n").unwrap();
    let expected = [
        ("fail", "1 rows, 75 % fewer than the 4 of w/1, at most 10 % allowed"),
        ("fail", "ok: 100 % against 75 % of w/1, 25 points apart, at most 1 allowed (n = 1)"),
        ("fail", "1 rows, 66.67 % fewer than the 3 of w/1, at most 0 % allowed, where age != null"),
    ];
    let found = answers(&run(&task));
    assert_eq!(found, expected.map(|(outcome, message)| (outcome.to_owned(), message.to_owned())));
}

#[test]
fn footers_answer_what_they_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.parquet");
    let ids = arrow_array::Int64Array::from(vec![Some(1), None, Some(3)]);
    crate::data::write_parquet(&path, vec![("id", std::sync::Arc::new(ids))], 2);
    // Nothing between the magic number and the footer can be read any more.
    let mut bytes = fs::read(&path).unwrap();
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize;
    let end = bytes.len() - 8 - footer;
    bytes[4..end].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let yaml = "- rows: { min: 3 }\n- { column: id, missing: { max: 50% } }";
    let findings = run(&task(folder.path(), "data.parquet", yaml));
    let expected = [
        ("pass", "3 rows, at least 3 allowed"),
        ("pass", "id: 33.33 % missing, at most 50 % allowed (n = 3)"),
    ];
    assert_eq!(
        answers(&findings),
        expected.map(|(outcome, message)| (outcome.to_owned(), message.to_owned()))
    );
    let read = task(folder.path(), "data.parquet", "- { column: id, mean: { max: 50 } }");
    assert!(read.run(&AtomicBool::new(false)).unwrap_err().contains("data.parquet cannot be read"));
}

#[test]
fn a_step_that_is_ended_stops_reading() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.csv"), PEOPLE).unwrap();
    let task = task(folder.path(), "data.csv", "- { column: age, mean: { max: 5 } }");
    assert_eq!(task.run(&AtomicBool::new(true)).unwrap_err(), STOPPED);
}

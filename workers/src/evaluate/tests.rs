//! What evaluations come to, on tables on disk.

use std::fmt::Write as _;

use refit_workflows::definition::{ColumnTest, DataFormat, Examples, Metric};
use refit_workflows::gate::Direction;
use refit_workflows::statistics::Test;
use refit_workflows::wire::DataRef;

use super::*;

fn examples(metrics: &[Metric]) -> Examples {
    Examples {
        format: Some(DataFormat::Csv),
        label: "y".to_owned(),
        candidate: "candidate".to_owned(),
        champion: "champion".to_owned(),
        weight: None,
        cluster: None,
        id: None,
        group: None,
        threshold: 0.5,
        metrics: metrics.iter().map(|metric| EvaluatedMetric::Known(*metric)).collect(),
        by: vec![],
    }
}

fn ask(metric: &str, role: Role, by: Option<&str>) -> Question {
    let direction = Metric::of_name(metric).map_or(Direction::Lower, Metric::direction);
    Question { metric: metric.to_owned(), direction, role, alpha: 0.05, by: by.map(str::to_owned) }
}

fn order(examples: Examples, questions: Vec<Question>) -> EvaluateOrder {
    EvaluateOrder { predictions: DataRef::Path("p.csv".to_owned()), examples, champion: true, questions }
}

fn run(table: &str, order: &EvaluateOrder) -> Result<Evaluated, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.csv");
    std::fs::write(&path, table).unwrap();
    evaluate(&path, order, &Stop::default())
        .map_err(|reason| reason.replace(&folder.path().display().to_string(), ""))
}

/// Two classes in two countries: of 1000 examples the candidate alone is right on 70, the champion alone on 50.
fn two_classes() -> String {
    let mut table = "id,y,candidate,champion,country,w,user\n".to_owned();
    for row in 0..1000 {
        let y = row % 2;
        let right = |is: bool| if (y == 1) == is { 0.9 - f64::from(row % 7) / 100.0 } else { 0.1 };
        let (ours, theirs) = (right(!(70..120).contains(&row)), right(row >= 70));
        let country = if row % 4 < 3 { "de" } else { "fr" };
        writeln!(table, "{row},{y},{ours},{theirs},{country},1,{}", row / 4).unwrap();
    }
    table
}

fn difference(measured: &Measured) -> &refit_workflows::statistics::Difference {
    match &measured.found {
        Measurement::Compared { difference, .. } => difference,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_models_are_counted_and_compared() {
    let guardrail = Role::Guardrail { margin: 0.01 };
    let questions = vec![
        ask("accuracy", guardrail, None),
        ask("roc_auc", Role::Success, None),
        ask("log_loss", Role::Deterioration, None),
        ask("f1", Role::Success, None),
        ask("accuracy", Role::Absolute { min: Some(0.9), max: None }, Some("country")),
    ];
    let metrics = [Metric::Accuracy, Metric::RocAuc, Metric::LogLoss, Metric::F1];
    let order = order(Examples { by: vec!["country".into()], ..examples(&metrics) }, questions.clone());
    let found = run(&two_classes(), &order).unwrap();
    assert_eq!(found.metrics["accuracy"], 0.95);
    let evaluation = &found.evaluation;
    assert_eq!((evaluation.examples, evaluation.champion.as_ref().unwrap()["accuracy"]), (1000, 0.93));
    assert_eq!(
        evaluation.answers.iter().map(|answer| answer.question.clone()).collect::<Vec<_>>(),
        questions
    );
    // The worked example of Tango's method: d = 0.02, and at a margin of 0.01 the bound lies above it.
    let accuracy = difference(&evaluation.answers[0].measured[0]);
    assert!((accuracy.estimate - 0.02).abs() < 1e-12, "{accuracy:?}");
    assert!(accuracy.low > -0.01 && accuracy.low < 0.02 && accuracy.test == Test::Tango, "{accuracy:?}");
    assert_eq!(difference(&evaluation.answers[1].measured[0]).test, Test::DeLong);
    let log_loss = difference(&evaluation.answers[2].measured[0]);
    assert!(log_loss.estimate > 0.0, "a smaller loss is better: {log_loss:?}");
    assert!(matches!(
        difference(&evaluation.answers[3].measured[0]).test,
        Test::Bootstrap { clusters: false, .. }
    ));
    let slices: Vec<_> =
        evaluation.answers[4].measured.iter().map(|it| (it.slice.as_deref().unwrap(), it.examples)).collect();
    assert_eq!(slices, [("de", 750), ("fr", 250)]);
    assert_eq!(run(&two_classes(), &order), Ok(found), "the same examples give the same answers");
}

#[test]
fn examples_that_belong_together_are_drawn_together() {
    let questions = || vec![ask("accuracy", Role::Success, None)];
    let clustered = Examples { cluster: Some("user".into()), ..examples(&[Metric::Accuracy]) };
    let found = run(&two_classes(), &order(clustered, questions())).unwrap();
    let together = difference(&found.evaluation.answers[0].measured[0]).clone();
    assert!(matches!(together.test, Test::Bootstrap { clusters: true, .. }), "{together:?}");
    assert_eq!(found.evaluation.answers[0].measured[0].examples, 250, "users, and not their four rows each");
    let alone = run(&two_classes(), &order(examples(&[Metric::Accuracy]), questions())).unwrap();
    let alone = difference(&alone.evaluation.answers[0].measured[0]);
    assert!(
        together.high - together.low > 1.5 * (alone.high - alone.low),
        "four examples that go the same way say less than four that stand alone: {together:?} {alone:?}"
    );
    let weighted = Examples { weight: Some("w".into()), ..examples(&[Metric::Accuracy]) };
    let found = run(&two_classes(), &order(weighted, questions())).unwrap();
    assert!(matches!(difference(&found.evaluation.answers[0].measured[0]).test, Test::Bootstrap { .. }));
}

#[test]
fn classes_numbers_and_rankings_are_counted_as_what_they_are() {
    let mut classes = "y,candidate,champion\n".to_owned();
    let mut numbers = classes.clone();
    let mut ranking = "q,y,candidate,champion\n".to_owned();
    for row in 0..60 {
        let of = |shift: i32| ["cat", "dog", "owl"][((row + shift) % 3) as usize];
        let (ours, theirs) = (of(i32::from(row % 10 == 0)), of(i32::from(row % 5 == 0)));
        writeln!(classes, "{},{ours},{theirs}", of(0)).unwrap();
        writeln!(numbers, "{row},{},{}", f64::from(row) + 0.5, f64::from(row) - 1.0).unwrap();
        writeln!(ranking, "{},{},{},{}", row / 3, u8::from(row % 3 == 0), 9 - row % 3, row % 3).unwrap();
    }
    let success = |metric: &str| vec![ask(metric, Role::Success, None)];
    let metrics = [Metric::Accuracy, Metric::Recall, Metric::BalancedAccuracy];
    let found = run(&classes, &order(examples(&metrics), success("recall"))).unwrap();
    assert!((found.metrics["accuracy"] - 0.9).abs() < 1e-12 && (found.metrics["recall"] - 0.9).abs() < 1e-12);
    let found =
        run(&numbers, &order(examples(&[Metric::Mae, Metric::Rmse, Metric::R2]), success("mae"))).unwrap();
    assert_eq!((found.metrics["mae"], found.evaluation.champion.as_ref().unwrap()["rmse"]), (0.5, 1.0));
    let grouped = Examples { group: Some("q".into()), ..examples(&[Metric::NdcgAt(2), Metric::RecallAt(1)]) };
    let found = run(&ranking, &order(grouped, success("ndcg@2"))).unwrap();
    assert_eq!(
        found.evaluation.answers[0].measured[0].examples, 20,
        "queries, and not the rows of 60 documents"
    );
    assert_eq!(
        (found.metrics["ndcg@2"], found.evaluation.champion.as_ref().unwrap()["recall@1"]),
        (1.0, 0.0)
    );
    let wrong = run(&classes, &order(examples(&[Metric::RocAuc]), vec![])).unwrap_err();
    assert!(
        wrong.starts_with("roc_auc of the candidate: roc_auc is not defined: it needs labels of 0 and 1"),
        "{wrong}"
    );
}

#[test]
fn a_number_of_ones_own_is_a_mean() {
    let mut table = "y,candidate,champion,lost_new,lost_old\n".to_owned();
    for row in 0..40 {
        writeln!(table, "1,1,1,{},{}", row % 3, row % 3 + 1 + row % 2).unwrap();
    }
    let own = EvaluatedMetric::Column {
        name: "lost".into(),
        candidate: "lost_new".into(),
        champion: "lost_old".into(),
        direction: Direction::Lower,
        test: ColumnTest::PairedT,
    };
    let order =
        order(Examples { metrics: vec![own], ..examples(&[]) }, vec![ask("lost", Role::Success, None)]);
    let found = run(&table, &order).unwrap();
    let lost = difference(&found.evaluation.answers[0].measured[0]);
    assert!(
        (lost.estimate - 1.5).abs() < 1e-12 && lost.test == Test::PairedT && lost.p_better < 1e-9,
        "{lost:?}"
    );
}

#[test]
fn two_samples_are_compared_as_such() {
    let mut table = "y,candidate,champion,ms_new,ms_old\n".to_owned();
    for row in 0..30 {
        // Half of the requests went to each, and one of the old model's took an hour.
        let (new, old) =
            (format!("{}", 100 + row), format!("{}", if row == 29 { 3_600_000 } else { 110 + row }));
        let (new, old) = if row % 2 == 0 { (new, String::new()) } else { (String::new(), old) };
        writeln!(table, "1,1,1,{new},{old}").unwrap();
    }
    let compared = |test: ColumnTest| {
        let own = EvaluatedMetric::Column {
            name: "ms".into(),
            candidate: "ms_new".into(),
            champion: "ms_old".into(),
            direction: Direction::Lower,
            test,
        };
        let order =
            order(Examples { metrics: vec![own], ..examples(&[]) }, vec![ask("ms", Role::Success, None)]);
        run(&table, &order)
    };
    let found = compared(ColumnTest::MannWhitney).unwrap();
    let ms = difference(&found.evaluation.answers[0].measured[0]);
    assert!(ms.estimate > 8.0 && ms.estimate < 14.0 && ms.p_better < 0.01 && ms.n == 30, "{ms:?}");
    let (candidate, champion) = (found.metrics["ms"], found.evaluation.champion.unwrap()["ms"]);
    assert_eq!((candidate, champion), (114.0, 125.0), "medians");
    let found = compared(ColumnTest::Welch).unwrap();
    let ms = difference(&found.evaluation.answers[0].measured[0]);
    assert!(
        ms.estimate > 200_000.0 && ms.p_better > 0.1 && ms.test == Test::Welch,
        "one value hides it: {ms:?}"
    );
    let wrong = compared(ColumnTest::PairedT).unwrap_err();
    assert!(wrong.contains("row 2: `ms_new` is missing"), "{wrong}");
}

#[test]
fn broken_evidence_is_told_with_its_place() {
    let metrics = [Metric::Accuracy, Metric::RocAuc];
    let with_id = Examples { id: Some("id".into()), ..examples(&metrics) };
    for (table, examples, words) in [
        ("y,candidate\n1,0.5\n", examples(&metrics), "/p.csv has no column `champion`"),
        (
            "y,champion,candidates\n1,0.5,0.5\n",
            examples(&metrics),
            "no column `candidate`; did you mean `candidates`?",
        ),
        (
            "id,y,candidate,champion\na,1,0.5,0.5\nb,0,0.1,0.2\na,1,0.5,0.5\n",
            with_id.clone(),
            "/p.csv, row 3: `id` is `a`, as in a row before",
        ),
        ("y,candidate,champion\n1,0.5,0.5\n0,nan,0.2\n", examples(&metrics), "row 2: `candidate` is"),
        (
            "y,candidate,champion\n1,0.5,0.5\n0,,0.2\n",
            examples(&metrics),
            "/p.csv, row 2: `candidate` is missing",
        ),
        (
            "y,candidate,champion\n1,0.5,0.5\n1,0.2,0.2\n",
            examples(&metrics),
            "roc_auc of the candidate: roc_auc is not defined: there are not both positive and negative examples",
        ),
        ("y,candidate,champion\n", examples(&metrics), "holds no examples"),
        ("y,candidate,champion\n1,high,0.5\n", examples(&metrics), "`candidate` is `high`, not a number"),
    ] {
        let wrong = run(table, &order(examples, vec![])).unwrap_err();
        assert!(wrong.contains(words), "{wrong}");
    }
}

#[test]
fn a_slice_that_shows_nothing_is_no_answer() {
    let table =
        "y,candidate,champion,country\n1,0.9,0.5,de\n0,0.1,0.2,de\n1,0.7,0.6,fr\n1,0.8,0.3,fr\n1,0.8,0.3,\n";
    let examples = Examples { by: vec!["country".into()], ..examples(&[Metric::RocAuc]) };
    let guardrail = Role::Guardrail { margin: 0.1 };
    let found =
        run(table, &order(examples.clone(), vec![ask("roc_auc", guardrail, Some("country"))])).unwrap();
    let measured = &found.evaluation.answers[0].measured;
    assert_eq!(
        measured.iter().map(|it| it.slice.as_deref().unwrap()).collect::<Vec<_>>(),
        ["(missing)", "de", "fr"]
    );
    for slice in measured {
        assert!(matches!(&slice.found, Measurement::TooFew { .. }), "{slice:?}");
    }
    let mut many = "y,candidate,champion,country\n".to_owned();
    for row in 0..300 {
        writeln!(many, "{},0.5,0.5,{row}", row % 2).unwrap();
    }
    let wrong = run(&many, &order(examples, vec![ask("roc_auc", guardrail, Some("country"))])).unwrap_err();
    assert!(wrong.contains("`country` has more than 100 values"), "{wrong}");
}

#[test]
fn without_a_champion_the_candidate_is_counted_alone() {
    let table = "y,candidate\n1,0.9\n0,0.1\n";
    let questions = vec![ask("accuracy", Role::Success, None)];
    let order = EvaluateOrder { champion: false, ..order(examples(&[Metric::Accuracy]), questions) };
    let found = run(table, &order).unwrap();
    assert_eq!(found.evaluation.champion, None);
    assert_eq!(found.evaluation.answers[0].measured[0].found, Measurement::Alone { candidate: 1.0 });
}

#[test]
fn examples_are_the_same_whatever_the_models_say_of_them() {
    let holdout = |table: &str, id: Option<&str>| {
        let examples = Examples { id: id.map(str::to_owned), ..examples(&[Metric::Accuracy]) };
        run(table, &order(examples, vec![])).unwrap().evaluation.holdout.unwrap()
    };
    let table = two_classes();
    let same = holdout(&table, Some("id"));
    assert_eq!(same, holdout(&table.replace(",0.1,", ",0.2,"), Some("id")), "other predictions");
    for (what, other) in [
        ("another label", holdout(&table.replacen("\n0,0,", "\n0,1,", 1), Some("id"))),
        ("another id", holdout(&table.replacen("\n0,0,", "\nx,0,", 1), Some("id"))),
        ("one less", holdout(table.trim_end().rsplit_once('\n').unwrap().0, Some("id"))),
        ("no ids", holdout(&table, None)),
    ] {
        assert_ne!(same, other, "{what}");
    }
}

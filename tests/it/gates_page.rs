//! `docs/gates.md` is true: its checks are accepted, and every number on it is counted again.

use refit_tests::processes::workspace;
use refit_workflows::definition::Workflow;
use refit_workflows::statistics::sizes::{paired_non_inferiority, paired_superiority};

fn page() -> String {
    std::fs::read_to_string(workspace().join("docs/gates.md")).unwrap()
}

/// The rows of the table behind a mark, cell by cell.
fn table(mark: &str) -> Vec<Vec<String>> {
    let page = page();
    let after = page.split_once(&format!("<!-- table: {mark} -->\n")).unwrap().1;
    let rows = after.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// A share written as `5 %`, or the number at the end of a heading.
fn number(cell: &str) -> f64 {
    match cell.strip_suffix(" %") {
        Some(percent) => percent.parse::<f64>().unwrap() / 100.0,
        None => cell.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap(),
    }
}

#[test]
fn the_tables_of_sizes_are_counted_again() {
    type Size = fn(f64, f64) -> f64;
    let tables: [(&str, Size); 2] = [
        ("guardrail", |share, margin| paired_non_inferiority(share, 0.0, margin, 0.05, 0.8).unwrap()),
        ("success", |share, better| paired_superiority(share, better, 0.05, 0.8).unwrap()),
    ];
    for (mark, size) in tables {
        let rows = table(mark);
        let (heads, body) = (&rows[0], &rows[2..]);
        assert_eq!((heads.len(), body.len()), (5, 3), "{rows:?}");
        for row in body {
            for (head, cell) in heads.iter().zip(row).skip(1) {
                let counted = size(number(&row[0]), number(head)).round();
                assert_eq!(number(cell), counted, "{mark}: {} and {head}", row[0]);
            }
        }
    }
}

#[test]
fn the_other_numbers_are_counted_again() {
    let page = page().split_whitespace().collect::<Vec<_>>().join(" ");
    for (text, number) in [
        ("passes all of them with {} %", (0.8_f64.powi(3) * 100.0).round().to_string()),
        ("`alpha`/3 = {}.", format!("{:.4}", 0.05 / 3.0)),
        ("({} % of the time at least one does)", ((1.0 - 0.95_f64.powi(20)) * 100.0).round().to_string()),
    ] {
        let text = text.replace("{}", &number);
        assert!(page.contains(&text), "{text}");
    }
}

#[test]
fn every_check_on_it_is_accepted() {
    let page = page();
    let example = page.split_once("```yaml\n").unwrap().1.split_once("```").unwrap().0;
    Workflow::parse(example).unwrap_or_else(|problems| panic!("{problems:?}"));
    let checks: Vec<&str> =
        page.lines().filter_map(|line| line.split_once("| `{")?.1.strip_suffix("` |")).collect();
    assert_eq!(checks.len(), 8);
    for check in checks {
        let before = "workflow: w\nmodel: m\nsteps:\n  validate: { run: [validate] }\n  compare: { needs: [validate], \
                      evaluate: { predictions: p.csv, label: y, metrics: [roc_auc], by: [country] } }\n";
        let text =
            format!("{before}  gate:\n    needs: [compare]\n    gate:\n      checks:\n        - {{{check}\n");
        Workflow::parse(&text).unwrap_or_else(|problems| panic!("{check}: {problems:?}"));
    }
}

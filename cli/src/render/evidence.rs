//! What a promotion rested on, as a document for people. Must never happen here: a text of others that becomes markup.

use std::fmt::Write as _;

use refit_workflows::gate::{CheckResult, Decision};
use refit_workflows::wire::{EvidenceRecord, EvidenceView};

use super::{clean, number};

/// The most events that are named.
const EVENTS_MAX: usize = 20;

/// The record in Markdown (CommonMark with GitHub's tables).
pub(crate) fn markdown(evidence: &EvidenceView) -> String {
    let EvidenceRecord { model, version, alias, champion, run, at, .. } = &evidence.record;
    let before =
        champion.map_or("the first version".to_owned(), |version| format!("in place of version {version}"));
    let mut text = format!("# {} {version} became {}\n\n", plain(model), plain(alias));
    let _ = writeln!(text, "By {run} at {at}, {before}.\n");
    let record = &evidence.record;
    let _ = writeln!(text, "- candidate: `{}` ({} bytes)", record.candidate.digest, record.candidate.bytes);
    let _ = writeln!(text, "- definition: `{}`", record.definition);
    let params: Vec<String> = record.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !params.is_empty() {
        let _ = writeln!(text, "- params: {}", code(&params.join(" ")));
    }
    for (step, decision) in &record.gates {
        gate(&mut text, step, decision);
        for used in record.holdouts.get(step).into_iter().flatten().filter(|used| used.uses > 1) {
            let _ = writeln!(text, "\n{}.", plain(&super::run::reuse(used)));
        }
    }
    if !record.approvals.is_empty() {
        text.push_str("\n## Approvals\n\n");
        for (step, said) in &record.approvals {
            let _ = writeln!(text, "- {}: {}", plain(step), plain(said));
        }
    }
    if !record.metrics.is_empty() {
        text.push_str("\n## Metrics\n\n| metric | candidate |\n|---|---:|\n");
        for (name, value) in &record.metrics {
            let _ = writeln!(text, "| {} | {} |", plain(name), number(*value));
        }
    }
    let _ = writeln!(text, "\n## Events\n");
    for event in record.events.iter().take(EVENTS_MAX) {
        let _ = writeln!(text, "- {} from {}", code(&event.id), code(&event.source));
    }
    match record.events.len() {
        0 => text.push_str("None: it was started by hand.\n"),
        count if count > EVENTS_MAX => drop(writeln!(text, "- and {} more", count - EVENTS_MAX)),
        _ => {}
    }
    let _ = writeln!(text, "\nThe record is kept under `{}`.", evidence.digest);
    text
}

fn gate(text: &mut String, step: &str, decision: &Decision) {
    let _ = writeln!(
        text,
        "\n## Gate {}: {}\n\n{}\n",
        plain(step),
        decision.verdict.as_str(),
        plain(&decision.reason)
    );
    text.push_str("| check | verdict | candidate | champion | difference | between | examples | because |\n");
    text.push_str("|---|---|---:|---:|---:|---|---:|---|\n");
    for check in &decision.checks {
        row(text, check);
    }
}

fn row(text: &mut String, check: &CheckResult) {
    let figure = |value: Option<f64>| value.map(number).unwrap_or_default();
    let tested = check.tested.as_deref();
    let difference = tested.and_then(|tested| tested.difference.as_ref());
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        plain(&check.check),
        check.verdict.map_or("not applied", |verdict| verdict.as_str()),
        figure(check.candidate),
        figure(check.champion),
        figure(difference.map(|it| it.estimate)),
        difference.map(|it| format!("{} … {}", number(it.low), number(it.high))).unwrap_or_default(),
        tested.map(|tested| tested.examples.to_string()).unwrap_or_default(),
        plain(&check.reason),
    );
}

/// A text that says nothing to a reader of Markdown but itself, on one line.
fn plain(text: &str) -> String {
    let mut escaped = String::new();
    for c in clean(text).chars() {
        match c {
            '\n' | '\r' => escaped.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '&' => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A text as code, on one line.
fn code(text: &str) -> String {
    format!("`{}`", clean(text).replace(['\n', '\r'], " ").replace('`', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_document_and_texts_in_it_are_no_markup() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let evidence: EvidenceView = serde_json::from_value(serde_json::json!({
            "digest": digest,
            "record": {
                "model": "churn", "version": 4, "alias": "champion", "champion": 3,
                "candidate": { "digest": digest, "bytes": 12, "kind": "file" }, "metrics": { "roc_auc": 0.85 },
                "gates": { "gate": { "verdict": "pass", "reason": "1 check passed", "champion": 3, "checks": [
                    { "check": "roc_auc ≥ 0.8", "verdict": "pass", "candidate": 0.85, "required": 0.8, "reason": "roc_auc is 0.85" },
                ] } },
                "approvals": { "approve": "approved by lead: <b>looks|good</b>" }, "run": "churn/12", "definition": digest,
                "params": { "region": "eu" }, "events": [{ "source": "/db", "id": "e1" }], "at": "2027-01-15T08:00:00Z",
            },
        }))
        .unwrap();
        let text = markdown(&evidence);
        for line in [
            "# churn 4 became champion",
            "By churn/12 at 2027-01-15T08:00:00.000Z, in place of version 3.",
            "- params: `region=\"eu\"`",
            "## Gate gate: pass",
            "| roc\\_auc ≥ 0.8 | pass | 0.85 |  |  |  |  | roc\\_auc is 0.85 |",
            "- approve: approved by lead: \\<b\\>looks\\|good\\</b\\>",
            "| roc\\_auc | 0.85 |",
            "- `e1` from `/db`",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}

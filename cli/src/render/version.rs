//! How one version of a model looks, and what two of them differ in.

use std::fmt::{Display, Write as _};

use refit_workflows::digest::Digest;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{Change, VersionDetail, VersionDiff};

use super::table::{self, Grid};
use super::time::relative;
use super::{
    BOLD, DIM, Facts, GOOD, bytes, clean, count, indent, metrics, mirror, number, paint, short, value,
};

/// The most events that are named.
const EVENTS_MAX: usize = 5;

/// Where a version comes from: its events, what their data looked like, its run, what it was compared with, its aliases.
pub(crate) fn lineage(detail: &VersionDetail, now: Timestamp) -> String {
    let VersionDetail { model, version, .. } = detail;
    let mut text = format!("{} {}\n\n", paint(BOLD, clean(model)), paint(BOLD, version.version));
    let mut facts = Facts::default();
    facts.line("started by", clean(&detail.trigger));
    facts.line("events", events(detail));
    for (step, profile) in &detail.data {
        facts.line("data", format!("{}  profile {}", clean(step), short(profile)));
    }
    facts.line("run", format!("{}  definition {}", version.run, short(&detail.definition)));
    facts.some("code", detail.code.as_ref().map(short));
    let params: Vec<String> =
        detail.params.iter().map(|(name, given)| format!("{}={}", clean(name), value(given))).collect();
    facts.some("params", (!params.is_empty()).then(|| params.join("  ")));
    let compared = detail.compared_with.map_or("no champion".to_owned(), |version| format!("v{version}"));
    facts.line("compared with", format!("{compared}  evidence {}", short(&detail.evidence)));
    facts.some("metrics", (!version.metrics.is_empty()).then(|| metrics(&version.metrics)));
    facts.line(
        "artifact",
        format!("{} {}  {}", clean(&version.artifact), short(&version.digest), bytes(version.bytes)),
    );
    facts.line("created", relative(version.created_at, now));
    let aliases: Vec<_> = detail.aliases.iter().map(|alias| clean(alias)).collect();
    facts.line(
        "aliases",
        if aliases.is_empty() { "none".to_owned() } else { paint(GOOD, aliases.join(", ")) },
    );
    facts.some("mirror", version.mirror.as_ref().map(|mirror| mirror::words(mirror, now)));
    let _ = write!(text, "{facts}");
    text
}

fn events(detail: &VersionDetail) -> String {
    let named: Vec<_> = detail.events.iter().take(EVENTS_MAX).map(|event| clean(&event.id)).collect();
    let more = if detail.event_count > named.len() as u64 { ", …" } else { "" };
    format!("{}: {}{more}", count(detail.event_count, "event"), named.join(", "))
}

/// What two versions differ in, what is the same left out but for metrics.
pub(crate) fn diff(diff: &VersionDiff) -> String {
    let (from, to) = (&diff.from.version, &diff.to.version);
    let model = paint(BOLD, clean(&diff.from.model));
    let mut text = format!("{model} v{} → v{}\n\n", from.version, to.version);
    let mut grid = Grid::new(&["", &format!("v{}", from.version), &format!("v{}", to.version), "CHANGE"]);
    let figure = |figure: Option<f64>| table::maybe(figure.map(number));
    for (name, metric) in &diff.metrics {
        let change = table::maybe(metric.change.map(signed));
        grid.row(vec![table::text(name), figure(metric.from), figure(metric.to), change]);
    }
    for (name, change) in &diff.params {
        let shown = |given: &Option<serde_json::Value>| table::maybe(given.as_ref().map(value));
        grid.row(vec![
            table::text(format!("param {name}")),
            shown(&change.from),
            shown(&change.to),
            table::text(""),
        ]);
    }
    for (step, change) in &diff.data {
        digests(&mut grid, format!("data of {step}"), change);
    }
    let whole = [("definition", &diff.definition), ("code", &diff.code), ("artifact", &diff.artifact)];
    for (what, change) in whole {
        if let Some(change) = change {
            digests(&mut grid, what, change);
        }
    }
    if grid.is_empty() {
        let _ = writeln!(text, "  {}", paint(DIM, "nothing differs"));
    }
    text.push_str(&indent(&grid.to_string(), 2));
    text
}

fn digests(grid: &mut Grid, what: impl Display, change: &Change<Digest>) {
    let shown = |digest: &Option<Digest>| table::maybe(digest.as_ref().map(short));
    grid.row(vec![table::text(what.to_string()), shown(&change.from), shown(&change.to), table::text("")]);
}

fn signed(change: f64) -> String {
    if change > 0.0 { format!("+{}", number(change)) } else { number(change) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::render::plain;

    fn version(number: i64, auc: f64, depth: i64, code: char) -> VersionDetail {
        let digest = |c: char| format!("sha256:{}", c.to_string().repeat(64));
        serde_json::from_value(json!({
            "model": "churn", "version": number, "run": format!("churn/{number}"), "digest": digest('a'), "bytes": 2048,
            "artifact": "model", "metrics": { "auc": auc }, "created_at": "2027-01-15T08:02:00Z", "aliases": ["champion"],
            "compared_with": null, "evidence": digest('e'), "definition": digest(code), "code": digest(code),
            "params": { "depth": depth, "region": "eu" }, "data": { "validate": digest('d') },
            "trigger": "event dataset.updated", "event_count": 7, "events": [{ "source": "/db", "id": "e1" }],
        }))
        .unwrap()
    }

    #[test]
    fn a_version_shows_its_way_from_events_to_aliases() {
        let text =
            plain(&lineage(&version(3, 0.9, 4, 'c'), Timestamp::parse("2027-01-15T08:03:00Z").unwrap()));
        let places = [
            "started by",
            "7 events: e1, …",
            "validate  profile sha256:dddddddddddd",
            "churn/3",
            "no champion",
            "champion\n",
        ];
        let found: Vec<_> = places.iter().map(|place| text.find(place)).collect();
        assert!(found.iter().all(Option::is_some) && found.is_sorted(), "{found:?} in\n{text}");
    }

    #[test]
    fn a_diff_shows_what_differs_and_by_how_much() {
        let text = plain(&diff(&VersionDiff::between(version(1, 0.75, 4, 'b'), version(2, 1.0, 8, 'c'))));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(lines.contains(&vec!["auc", "0.75", "1", "+0.25"]), "{text}");
        assert!(lines.contains(&vec!["param", "depth", "4", "8"]), "{text}");
        assert!(lines.contains(&vec!["code", "sha256:bbbbbbbbbbbb", "sha256:cccccccccccc"]), "{text}");
        assert!(
            !text.contains("region") && !text.contains("artifact"),
            "what is the same is left out\n{text}"
        );
    }
}

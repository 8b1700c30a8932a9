//! How models, their history, workers and tokens look.

use std::fmt::Write as _;

use refit_workflows::time::Timestamp;
use refit_workflows::wire::{HistoryView, ModelView, Moved, TokenView};

use super::table::{self, Grid};
use super::time::{exact, relative};
use super::{BOLD, Facts, GOOD, bytes, clean, count, metrics, mirror, paint, short};

/// Models in a table.
pub(crate) fn list(models: &[ModelView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["MODEL", "VERSIONS", "ALIASES", "LATEST", "METRICS OF THE LATEST"]);
    for model in models {
        let aliases: Vec<String> =
            model.aliases.iter().map(|(alias, version)| format!("{alias} v{version}")).collect();
        let latest = model.versions.first();
        grid.row(vec![
            table::text(&model.model),
            table::number(model.versions.len()),
            table::text(aliases.join(", ")),
            table::maybe(latest.map(|version| relative(version.created_at, now))),
            table::maybe(latest.map(|version| metrics(&version.metrics))),
        ]);
    }
    grid.to_string()
}

/// One model with its versions.
pub(crate) fn show(model: &ModelView, now: Timestamp) -> String {
    let mut text = format!(
        "{}  {}\n\n",
        paint(BOLD, clean(&model.model)),
        count(model.versions.len() as u64, "version")
    );
    let mut heads = vec!["VERSION", "ALIASES", "MADE BY", "CREATED", "SIZE", "ARTIFACT", "METRICS"];
    heads.extend(model.mirror.is_some().then_some("MLFLOW"));
    let mut grid = Grid::new(&heads);
    for version in &model.versions {
        let aliases: Vec<&str> = model
            .aliases
            .iter()
            .filter(|(_, at)| **at == version.version)
            .map(|(alias, _)| alias.as_str())
            .collect();
        let mut row = vec![
            table::number(version.version),
            table::styled(&aliases.join(", "), GOOD),
            table::text(version.run.to_string()),
            table::text(relative(version.created_at, now)),
            table::text(bytes(version.bytes)),
            table::text(format!("{} {}", version.artifact, short(&version.digest))),
            table::text(metrics(&version.metrics)),
        ];
        if model.mirror.is_some() {
            row.push(table::maybe(mirror::cell(version.mirror.as_ref())));
        }
        grid.row(row);
    }
    text.push_str(&super::indent(&grid.to_string(), 2));
    for line in mirror::of_model(model, now) {
        let _ = writeln!(text, "\n  {line}");
    }
    for watch in &model.watches {
        let _ = writeln!(
            text,
            "\n  {} v{} is watched until {}: an event takes back what {} promoted{}",
            clean(&watch.alias),
            watch.version,
            exact(watch.until, now),
            watch.run,
            if watch.checks.is_empty() { "" } else { ", unless every check holds for it:" }
        );
        for check in &watch.checks {
            let because = check.because.as_ref().map(|because| format!(" ({})", clean(because)));
            let _ = write!(text, "\n    {}{}", clean(&check.expr), because.unwrap_or_default());
        }
    }
    text
}

/// The moves of a model's aliases in a table.
pub(crate) fn history(moves: &[HistoryView], now: Timestamp) -> String {
    let is_mirrored = moves.iter().any(|step| step.mirror.is_some());
    let mut heads = vec!["WHEN", "ALIAS", "MOVED", "BY", "WHY"];
    heads.extend(is_mirrored.then_some("MLFLOW"));
    let mut grid = Grid::new(&heads);
    for step in moves {
        let mut row = vec![
            table::text(relative(step.at, now)),
            table::text(&step.alias),
            table::text(moved(step)),
            table::text(&step.by),
            table::maybe(step.reason.as_deref()),
        ];
        if is_mirrored {
            row.push(table::maybe(mirror::cell(step.mirror.as_ref())));
        }
        grid.row(row);
    }
    grid.to_string()
}

/// `v2 → v3`, and that it was whatever the gates say.
pub(crate) fn moved(step: &HistoryView) -> String {
    let how = match step.how {
        Moved::Promoted | Moved::RolledBack => "",
        Moved::Overridden => "  (override)",
    };
    match step.from {
        Some(from) => format!("v{from} → v{}{how}", step.to),
        None => format!("→ v{}{how}", step.to),
    }
}

/// Tokens in a table, without their secrets.
pub(crate) fn tokens(tokens: &[TokenView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["ID", "NAME", "ROLE", "GROUPS", "CREATED", "EXPIRES", "REVOKED"]);
    for token in tokens {
        grid.row(vec![
            table::text(&token.id),
            table::text(&token.name),
            table::text(token.role.as_str()),
            table::text(token.groups.join(", ")),
            table::text(relative(token.created_at, now)),
            table::text(relative(token.expires_at, now)),
            table::maybe(token.revoked_at.map(|at| relative(at, now))),
        ]);
    }
    grid.to_string()
}

/// A token just made: the only time its secret is shown.
pub(crate) fn new_token(token: &TokenView, now: Timestamp) -> String {
    let mut facts = Facts::default();
    facts.line("id", clean(&token.id));
    facts.line("name", clean(&token.name));
    facts.line("role", token.role.as_str());
    if !token.groups.is_empty() {
        facts.line("groups", clean(&token.groups.join(", ")));
    }
    facts.line("expires", exact(token.expires_at, now));
    let mut text = facts.to_string();
    if let Some(secret) = &token.token {
        let _ = write!(
            text,
            "\n  {}\n\n  It is shown this once. Use it as REFIT_TOKEN.\n",
            paint(BOLD, clean(secret))
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    #[test]
    fn a_model_shows_which_version_is_in_use() {
        let model: ModelView = serde_json::from_value(serde_json::json!({
            "model": "churn", "aliases": {"champion": 1}, "versions": [
                {"version": 2, "run": "churn/9", "digest": format!("sha256:{}", "b".repeat(64)), "bytes": 2048,
                 "artifact": "model", "metrics": {"auc": 0.9}, "created_at": "2027-01-15T08:02:00Z"},
                {"version": 1, "run": "churn/7", "digest": format!("sha256:{}", "a".repeat(64)), "bytes": 12,
                 "artifact": "model", "metrics": {"auc": 0.85}, "created_at": "2027-01-15T07:03:00Z"}]
        }))
        .unwrap();
        let text = plain(&show(&model, Timestamp::parse("2027-01-15T08:03:00Z").unwrap()));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[3].contains("2") && !lines[3].contains("champion"), "{text}");
        assert!(
            lines[4].contains("champion") && lines[4].contains("auc 0.85") && lines[4].contains("1h ago"),
            "{text}"
        );
    }
}

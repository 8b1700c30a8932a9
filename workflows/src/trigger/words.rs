//! Triggers in words, for people. Nothing is decided by them.

use crate::definition::{BatchRule, OnConflict, Trigger, Workflow};
use crate::pattern::Pattern;
use crate::time::show_duration;

impl Trigger {
    /// The trigger in one line: `event dataset.updated by data.region in batches (quiet 2m 0s)`.
    pub fn words(&self) -> String {
        let (mut words, filter, key) = match self {
            Self::Event(event) => (part_words(&event.pattern), &event.filter, &event.key),
            Self::Join(join) => {
                let parts: Vec<String> = join.parts.iter().map(part_words).collect();
                (format!("all of {}", parts.join(", ")), &join.filter, &join.key)
            }
            Self::Cron(cron) => {
                let (expression, zone) = cron.schedule.source();
                return format!("cron {expression} {zone}");
            }
        };
        if let Some(filter) = filter {
            words.push_str(&format!(" where {}", filter.source()));
        }
        if let Some(key) = key {
            words.push_str(&format!(" by {}", key.source()));
        }
        match self {
            Self::Event(event) => {
                if let Some(batch) = &event.batch {
                    words.push_str(&format!(" in batches ({})", bounds(batch).join(", ")));
                }
            }
            Self::Join(join) => words.push_str(&format!(" within {}", show_duration(join.within))),
            Self::Cron(_) => {}
        }
        words
    }
}

impl Workflow {
    /// `concurrency` and `cooldown` in one line: `1 at a time by params.region, coalesce, cooldown 1h 0m`.
    pub fn concurrency_words(&self) -> String {
        let rule = &self.concurrency;
        let policy = match rule.on_conflict {
            OnConflict::Coalesce => "coalesce".to_owned(),
            OnConflict::Queue => "queue".to_owned(),
            OnConflict::Skip => "skip".to_owned(),
            OnConflict::CancelRunning { before: None } => "cancel_running".to_owned(),
            OnConflict::CancelRunning { before: Some(step) } => {
                format!("cancel_running before {}", self.steps[step].name)
            }
            OnConflict::Parallel => "parallel".to_owned(),
        };
        let mut words = match rule.on_conflict {
            OnConflict::Parallel => policy,
            OnConflict::Coalesce
            | OnConflict::Queue
            | OnConflict::Skip
            | OnConflict::CancelRunning { .. } => {
                let by = rule.key.as_ref().map(|key| format!(" by {}", key.source())).unwrap_or_default();
                format!("{} at a time{by}, {policy}", rule.limit)
            }
        };
        if let Some(cooldown) = self.cooldown {
            words.push_str(&format!(", cooldown {}", show_duration(cooldown)));
        }
        words
    }
}

fn bounds(batch: &BatchRule) -> Vec<String> {
    let mut bounds = Vec::new();
    bounds.extend(batch.quiet.map(|quiet| format!("quiet {}", show_duration(quiet))));
    bounds.extend(batch.max_wait.map(|wait| format!("max_wait {}", show_duration(wait))));
    bounds.extend(batch.count.map(|count| format!("count {count}")));
    bounds.extend(batch.sum.as_ref().map(|sum| format!("sum of {} {}", sum.of.source(), sum.at_least)));
    bounds
}

/// A pattern by the types it asks for: `event dataset.updated or dataset.replaced`.
pub(super) fn part_words(pattern: &Pattern) -> String {
    let kinds = pattern.source()["type"].as_array();
    let kinds: Vec<String> = kinds
        .map(|kinds| kinds.iter().map(|kind| kind.as_str().map_or(kind.to_string(), str::to_owned)).collect())
        .unwrap_or_default();
    if kinds.is_empty() {
        format!("event {}", pattern.source())
    } else {
        format!("event {}", kinds.join(" or "))
    }
}

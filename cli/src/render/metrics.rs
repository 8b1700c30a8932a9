//! Metrics over time: a curve of one line each, and how far a step has come.

use std::time::Duration;

use refit_workflows::time::Timestamp;
use refit_workflows::wire::{PointView, SeriesView, StepView};

use super::table::{self, Grid};
use super::time::took;
use super::{DIM, LIVE, number, paint};

/// How wide a curve is, in characters.
const CURVE_WIDTH: usize = 24;
/// How wide a bar is.
const BAR_WIDTH: usize = 20;
/// The metric that says how far a step has come, from 0 to 1.
const PROGRESS: &str = "progress";

/// Series in a table.
pub(crate) fn table(series: &[SeriesView]) -> String {
    let mut grid = Grid::new(&["STEP", "ATTEMPT", "METRIC", "LAST", "LEAST", "MOST", "CURVE"]);
    for one in series {
        let values: Vec<f64> = one.points.iter().map(|point| point.value).collect();
        let least = values.iter().copied().reduce(f64::min);
        let most = values.iter().copied().reduce(f64::max);
        grid.row(vec![
            table::text(&one.step),
            table::number(one.attempt),
            table::text(&one.metric),
            table::maybe(values.last().copied().map(number)),
            table::maybe(least.map(number)),
            table::maybe(most.map(number)),
            table::text(curve(&one.points, CURVE_WIDTH)),
        ]);
    }
    grid.to_string()
}

/// Values as a curve of one line; what falls on one character is averaged.
fn curve(points: &[PointView], width: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let columns = width.min(points.len());
    let means: Vec<f64> = (0..columns)
        .map(|column| {
            let part = &points[column * points.len() / columns..(column + 1) * points.len() / columns];
            // Divided first: a sum of large values might be infinite.
            part.iter().map(|point| point.value / part.len() as f64).sum()
        })
        .collect();
    let least = means.iter().copied().fold(f64::INFINITY, f64::min);
    let most = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let level = |value: f64| {
        let share = (value / 2.0 - least / 2.0) / (most / 2.0 - least / 2.0);
        // All the same, or so far apart that nothing can be said: the middle.
        let share = if share.is_finite() { share } else { 0.5 };
        LEVELS[((share * 7.0).round() as usize).min(7)]
    };
    means.into_iter().map(level).collect()
}

/// `━━━━━──── 42%, 3m left`, for a running step that says how far it has come.
pub(crate) fn progress(step: &StepView, now: Timestamp) -> Option<String> {
    let share = *step.metrics.get(PROGRESS).filter(|_| step.state == "running")?;
    let share = share.clamp(0.0, 1.0);
    let filled = (share * BAR_WIDTH as f64) as usize;
    let (full, empty) = ("━".repeat(filled), "─".repeat(BAR_WIDTH - filled));
    let left = step
        .started_at
        .and_then(|started| left(now.since(started), share))
        .and_then(|left| took(Some(Timestamp::default()), Some(Timestamp::from_millis(left)), now))
        .map(|left| format!(", {left} left"))
        .unwrap_or_default();
    // Never 100% before it is over.
    let percent = ((share * 100.0) as u32).min(if share < 1.0 { 99 } else { 100 });
    Some(format!("{}{} {percent}%{left}", paint(LIVE, full), paint(DIM, empty)))
}

/// How long what is left takes at the pace so far, in milliseconds; none while little is known.
fn left(elapsed: Duration, share: f64) -> Option<i64> {
    const DAYS_MAX_MS: f64 = 100.0 * 24.0 * 3600.0 * 1000.0;
    if !(0.01..1.0).contains(&share) {
        return None;
    }
    let left = elapsed.as_millis() as f64 * (1.0 - share) / share;
    (left < DAYS_MAX_MS).then_some(left as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{plain, run::example};

    fn points(values: &[f64]) -> Vec<PointView> {
        values.iter().map(|&value| PointView { step: None, value, at: Timestamp::default() }).collect()
    }

    #[test]
    fn a_curve_goes_from_the_least_to_the_most() {
        assert_eq!(curve(&points(&[0.0, 1.0, 2.0, 7.0]), 24), "▁▂▃█");
        assert_eq!(curve(&points(&[3.0, 3.0]), 24), "▅▅");
        assert_eq!(curve(&points(&[0.0, 0.0, 1.0, 1.0]), 2), "▁█");
        assert_eq!(curve(&points(&[f64::MIN, f64::MAX]), 24), "▁█");
        assert_eq!(curve(&[], 24), "");
    }

    #[test]
    fn progress_is_a_bar_with_the_time_that_is_left() {
        let mut step = example().steps.unwrap()[0].clone();
        step.state = "running".to_owned();
        let now = Timestamp::from_millis(step.started_at.unwrap().as_millis() + 60_000);
        step.metrics.insert("progress".to_owned(), 0.25);
        let shown = plain(&progress(&step, now).unwrap());
        assert!(shown.starts_with("━━━━━───────────────") && shown.contains(" 25%, 3m"), "{shown}");
        for (share, text) in
            [(0.0, "─ 0%"), (0.999, " 99%, "), (1.0, "━ 100%"), (7.0, "━ 100%"), (-1.0, "─ 0%")]
        {
            step.metrics.insert("progress".to_owned(), share);
            let shown = plain(&progress(&step, now).unwrap());
            assert!(shown.contains(text), "{share}: {shown}");
        }
        step.state = "succeeded".to_owned();
        assert_eq!(progress(&step, now), None);
    }

    #[test]
    fn series_are_listed_with_their_ends_and_their_curve() {
        let series = SeriesView {
            step: "train".to_owned(),
            attempt: 2,
            metric: "loss".to_owned(),
            points: points(&[4.0, 2.0, 1.0, 1.5]),
        };
        let text = plain(&table(&[series]));
        assert!(text.contains("train        2  loss    1.5   1      4     █▃▁▂"), "{text}");
    }
}

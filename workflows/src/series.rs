//! The values of one metric of an attempt over time, bounded: when there are too many, every other one goes. Pure, like
//! everything here: whoever takes values in says when they were reported.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::wire::PointView;

/// The values of a metric, numbered as the attempt reported them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Of the values but the last, those are kept whose number it divides; a power of two.
    stride: u64,
    /// The number of the next value.
    next: u64,
    points: Vec<Point>,
    /// The last value, whatever its number.
    last: Option<Point>,
}

/// Number, the step's own count, value, and when it was reported.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Point(u64, Option<f64>, f64, Timestamp);

impl Default for Series {
    fn default() -> Self {
        Self { stride: 1, next: 0, points: Vec::new(), last: None }
    }
}

impl Series {
    /// The most values that are kept beside the last.
    pub const POINTS_MAX: usize = 1_000;

    /// Takes in value `index`, counted from 0. One that was taken in before, or is older than one that was, changes nothing.
    pub fn take(&mut self, index: u64, step: Option<f64>, value: f64, at: Timestamp) {
        if index < self.next {
            return;
        }
        self.next = index.saturating_add(1);
        let point = Point(index, step, value, at);
        self.last = Some(point);
        if index.is_multiple_of(self.stride) {
            self.points.push(point);
        }
        while self.points.len() > Self::POINTS_MAX {
            self.stride = self.stride.saturating_mul(2);
            let stride = self.stride;
            self.points.retain(|Point(index, ..)| index.is_multiple_of(stride));
        }
    }

    /// What is kept, oldest first; the last value is always there.
    pub fn points(&self) -> Vec<PointView> {
        let last = self.last.filter(|last| self.points.last() != Some(last));
        let view = |Point(_, step, value, at)| PointView { step, value, at };
        self.points.iter().copied().chain(last).map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(count: u64) -> Series {
        let mut series = Series::default();
        for index in 0..count {
            series.take(index, None, index as f64, Timestamp::from_millis(index as i64));
        }
        series
    }

    #[test]
    fn a_long_series_is_thinned_evenly_and_keeps_its_ends() {
        for count in [0, 1, 999, 1_000, 1_001, 1_002, 5_000, 123_457] {
            let points = taken(count).points();
            assert!(points.len() <= Series::POINTS_MAX + 1, "{count}: {}", points.len());
            assert!(
                points.len() as u64 >= count.min(Series::POINTS_MAX as u64 / 2),
                "{count}: {}",
                points.len()
            );
            assert_eq!(points.first().map(|point| point.value), (count > 0).then_some(0.0));
            assert_eq!(points.last().map(|point| point.value), count.checked_sub(1).map(|last| last as f64));
            let gaps: Vec<f64> = points.windows(2).map(|pair| pair[1].value - pair[0].value).collect();
            let even = gaps.split_last().map(|(_, even)| even).unwrap_or_default();
            assert!(even.iter().all(|gap| *gap == even[0]), "{count}: {even:?}");
        }
    }

    #[test]
    fn a_value_that_comes_again_is_taken_once() {
        let mut series = taken(10);
        series.take(9, None, 100.0, Timestamp::default());
        series.take(3, None, 100.0, Timestamp::default());
        assert_eq!(series, taken(10));
        series.take(12, Some(7.0), 12.0, Timestamp::default());
        assert_eq!(series.points().len(), 11, "a hole does no harm");
    }
}

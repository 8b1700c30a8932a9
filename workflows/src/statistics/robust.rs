//! What is usual among a few numbers of which some may be far off. Must never happen here: a number that one outlier moves.

/// Turns a median absolute deviation into the standard deviation of normally distributed numbers: 1/Φ⁻¹(3/4).
const NORMAL: f64 = 1.482_602_218_505_602;

/// The middle of some numbers, and how far they usually lie from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Middle {
    /// The median; of an even number of them the mean of the two in the middle.
    pub median: f64,
    /// The median absolute deviation from it, times 1.4826, so that it is the standard deviation of what is normally
    /// distributed (Leys et al. 2013, <https://doi.org/10.1016/j.jesp.2013.03.013>).
    pub deviation: f64,
}

impl Middle {
    /// None: there is no number, or one that is not finite.
    pub fn of(numbers: &[f64]) -> Option<Self> {
        let median = median(numbers.to_vec())?;
        let away = numbers.iter().map(|number| (number - median).abs()).collect();
        Some(Self { median, deviation: NORMAL * self::median(away)? })
    }
}

fn median(mut numbers: Vec<f64>) -> Option<f64> {
    if !numbers.iter().all(|number| number.is_finite()) {
        return None;
    }
    numbers.sort_by(f64::total_cmp);
    let upper = *numbers.get(numbers.len() / 2)?;
    let lower = if numbers.len().is_multiple_of(2) { numbers[numbers.len() / 2 - 1] } else { upper };
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_far_off_moves_nothing() {
        // R: median(x) and mad(x) of c(1, 3, 3, 6, 8, 10, 10, 1000), Leys et al.'s example without its first 1.
        let middle = Middle::of(&[1.0, 3.0, 3.0, 6.0, 8.0, 10.0, 10.0, 1000.0]).unwrap();
        assert!((middle.median - 7.0).abs() < 1e-12);
        assert!((middle.deviation - 1.482_602_218_505_602 * 3.5).abs() < 1e-12, "{middle:?}");
        assert_eq!(Middle::of(&[5.0; 9]), Some(Middle { median: 5.0, deviation: 0.0 }));
        assert_eq!(Middle::of(&[2.0]).unwrap().median, 2.0);
        for none in [&[][..], &[1.0, f64::NAN], &[f64::INFINITY]] {
            assert_eq!(Middle::of(none), None);
        }
    }
}

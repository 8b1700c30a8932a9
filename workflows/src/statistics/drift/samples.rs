//! Distances between two samples of numbers, without bins: Kolmogorov–Smirnov and Wasserstein.

use statrs::stats_tests::NaNPolicy;
use statrs::stats_tests::ks_test::{KSTwoSampleAlternativeMethod, ks_twosample};

use super::super::{Flaw, all_finite, as_long, enough, finite};

/// Values in ascending order, each with how often it occurs: a sample, or a histogram by the middles of its bins.
#[derive(Clone, Debug, PartialEq)]
pub struct Ordered {
    what: &'static str,
    /// Ascending, each once, with how often it or a smaller one occurs.
    values: Vec<(f64, u64)>,
}

/// The two-sample Kolmogorov–Smirnov test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kolmogorov {
    /// The greatest difference between the shares of values up to any number, from 0 to 1.
    pub statistic: f64,
    /// Two-sided p from the limiting distribution (Kolmogorov 1933): 2·Σ(−1)^(k−1)·exp(−2k²λ²), λ = sqrt(n·m/(n + m))·D. Conservative for
    /// small samples and where values occur more than once.
    pub asymptotic_p: f64,
    /// Two-sided p counted out, for samples with n·m up to [`Kolmogorov::EXACT_MAX`].
    pub exact_p: Option<f64>,
}

impl Kolmogorov {
    /// The greatest product of the sizes of two samples for which p is counted out.
    pub const EXACT_MAX: u64 = 10_000;
}

impl Ordered {
    /// A sample; `what` names it in errors.
    ///
    /// # Errors
    /// [`Flaw::TooFew`] when it is empty, [`Flaw::NotFinite`].
    pub fn of(what: &'static str, values: &[f64]) -> Result<Self, Flaw> {
        let ones = vec![1; values.len()];
        Self::of_counts(what, values, &ones)
    }

    /// Values with how often each occurs.
    ///
    /// # Errors
    /// Those of [`Ordered::of`]; [`Flaw::Lengths`]; [`Flaw::TooMany`] beyond 2⁵³ in all.
    pub fn of_counts(what: &'static str, values: &[f64], counts: &[u64]) -> Result<Self, Flaw> {
        as_long(what, counts.len(), values.len())?;
        all_finite(what, values)?;
        let mut sorted: Vec<(f64, u64)> =
            values.iter().copied().zip(counts.iter().copied()).filter(|(_, count)| *count > 0).collect();
        enough(what, sorted.len(), 1)?;
        sorted.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        let (mut ordered, mut so_far): (Vec<(f64, u64)>, u64) = (Vec::new(), 0);
        for (value, count) in sorted {
            so_far = so_far.saturating_add(count);
            match ordered.last_mut() {
                Some((last, up_to)) if *last == value => *up_to = so_far,
                _ => ordered.push((value, so_far)),
            }
        }
        let most = 1 << 53;
        if so_far > most {
            Err(Flaw::TooMany { what, found: so_far, most })
        } else {
            Ok(Self { what, values: ordered })
        }
    }

    /// How many values, each as often as it occurs.
    pub fn n(&self) -> u64 {
        self.values.last().map_or(0, |(_, up_to)| *up_to)
    }

    /// The standard deviation of the population (divided by n).
    ///
    /// # Errors
    /// [`Flaw::Overflow`].
    pub fn deviation(&self) -> Result<f64, Flaw> {
        let n = self.n() as f64;
        let weighed = || {
            let mut before = 0;
            self.values.iter().map(move |(value, up_to)| {
                let count = (up_to - before) as f64;
                before = *up_to;
                (*value, count / n)
            })
        };
        let first = self.values.first().map_or(0.0, |(value, _)| *value);
        let mean = first + weighed().map(|(value, share)| (value - first) * share).sum::<f64>();
        let variance: f64 = weighed().map(|(value, share)| (value - mean).powi(2) * share).sum();
        finite(self.what, variance.sqrt())
    }

    /// Calls `visit` with each value of both, ascending, and the shares of each sample up to it.
    fn walk(&self, other: &Self, mut visit: impl FnMut(f64, f64, f64)) {
        let (n, m) = (self.n() as f64, other.n() as f64);
        let (mut mine, mut theirs) = (self.values.iter().peekable(), other.values.iter().peekable());
        let (mut here, mut there) = (0, 0);
        while let Some(value) = match (mine.peek(), theirs.peek()) {
            (Some((one, _)), Some((other, _))) => Some(one.min(*other)),
            (Some((one, _)), None) | (None, Some((one, _))) => Some(*one),
            (None, None) => None,
        } {
            if let Some((_, up_to)) = mine.next_if(|(one, _)| *one == value) {
                here = *up_to;
            }
            if let Some((_, up_to)) = theirs.next_if(|(one, _)| *one == value) {
                there = *up_to;
            }
            visit(value, here as f64 / n, there as f64 / m);
        }
    }

    /// The Kolmogorov–Smirnov test of "both are samples of the same distribution".
    pub fn kolmogorov(&self, current: &Self) -> Kolmogorov {
        let mut statistic: f64 = 0.0;
        self.walk(current, |_, here, there| statistic = statistic.max((here - there).abs()));
        let (n, m) = (self.n() as f64, current.n() as f64);
        let asymptotic_p = kolmogorov_upper((n * m / (n + m)).sqrt() * statistic);
        Kolmogorov { statistic, asymptotic_p, exact_p: self.exact_p(current, statistic) }
    }

    fn exact_p(&self, current: &Self, statistic: f64) -> Option<f64> {
        if self.n().saturating_mul(current.n()) > Kolmogorov::EXACT_MAX {
            return None;
        }
        if statistic <= 0.0 {
            return Some(1.0);
        }
        let (mine, theirs) = (self.spread_out(), current.spread_out());
        let exact = KSTwoSampleAlternativeMethod::TwoSidedExact;
        let (_, p) = ks_twosample(mine, theirs, exact, NaNPolicy::Error).ok()?;
        p.is_finite().then(|| p.clamp(0.0, 1.0))
    }

    /// Each value as often as it occurs.
    fn spread_out(&self) -> Vec<f64> {
        let mut before = 0;
        let mut all = Vec::new();
        for (value, up_to) in &self.values {
            all.extend((before..*up_to).map(|_| *value));
            before = *up_to;
        }
        all
    }

    /// The Wasserstein distance (of order 1, the "earth mover's"): the area between the two distribution functions, in the values' unit.
    ///
    /// # Errors
    /// [`Flaw::Overflow`].
    pub fn wasserstein(&self, current: &Self) -> Result<f64, Flaw> {
        let (mut area, mut last) = (0.0, None);
        self.walk(current, |value, here, there| {
            if let Some((since, apart)) = last {
                area += (value - since) * apart;
            }
            last = Some((value, (here - there).abs()));
        });
        finite("the Wasserstein distance", area)
    }

    /// The same in standard deviations of this sample, the reference; a deviation below 0.001 counts as that (as Evidently has it), so
    /// that a constant reference gives a distance as well.
    ///
    /// # Errors
    /// [`Flaw::Overflow`].
    pub fn normalised_wasserstein(&self, current: &Self) -> Result<f64, Flaw> {
        finite("the Wasserstein distance", self.wasserstein(current)? / self.deviation()?.max(0.001))
    }
}

/// P of a Kolmogorov statistic of at least `lambda`.
fn kolmogorov_upper(lambda: f64) -> f64 {
    // Below this the terms do not fall off yet, and p is 1 to fourteen digits.
    if lambda < 0.2 {
        return 1.0;
    }
    // From 0.2 on, the hundredth term is far below what a number can tell.
    let terms = (1..=100).map(|k| {
        let term = (-2.0 * f64::from(k * k) * lambda * lambda).exp();
        if k % 2 == 1 { term } else { -term }
    });
    (2.0 * terms.sum::<f64>()).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::close;
    use super::super::reference::{current, reference};
    use super::*;

    fn both() -> (Ordered, Ordered) {
        (
            Ordered::of("the reference", &reference()).unwrap(),
            Ordered::of("the current data", &current()).unwrap(),
        )
    }

    #[test]
    fn kolmogorov_of_a_worked_example() {
        let (reference, current) = both();
        let found = reference.kolmogorov(&current);
        close(found.statistic, 0.2071428571, 5e-11);
        close(found.asymptotic_p, 0.3997278425, 5e-11);
        close(found.exact_p.unwrap(), 0.3462922582, 5e-11);
        // The statistic that is significant at 5 %.
        let critical = 0.3143394202 / (75.0_f64 / (40.0 * 35.0)).sqrt();
        close(kolmogorov_upper(critical), 0.05, 5e-6);
    }

    #[test]
    fn wasserstein_of_a_worked_example() {
        let (reference, current) = both();
        close(reference.wasserstein(&current).unwrap(), 0.68, 1e-12);
        close(current.wasserstein(&reference).unwrap(), 0.68, 1e-12);
        close(reference.deviation().unwrap(), 1.1543396381, 5e-11);
        close(reference.normalised_wasserstein(&current).unwrap(), 0.5890813913, 5e-11);
    }

    #[test]
    fn a_constant_reference_has_distances() {
        let one = Ordered::of("the reference", &[5.0; 20]).unwrap();
        let other = Ordered::of("the current data", &[5.5; 20]).unwrap();
        assert_eq!(one.deviation(), Ok(0.0));
        close(one.normalised_wasserstein(&other).unwrap(), 500.0, 1e-9);
        let found = one.kolmogorov(&other);
        assert!(found.statistic == 1.0 && found.exact_p.unwrap() < 1e-9, "{found:?}");
        let same = one.kolmogorov(&one);
        assert_eq!((same.statistic, same.asymptotic_p, same.exact_p), (0.0, 1.0, Some(1.0)));
    }

    #[test]
    fn counts_give_what_the_values_give() {
        let values = [3.0, 1.0, 2.0, 3.0, 3.0, -0.0, 0.0];
        let one = Ordered::of("the reference", &values).unwrap();
        let other =
            Ordered::of_counts("the reference", &[0.0, 1.0, 2.0, 3.0, 9.0], &[2, 1, 1, 3, 0]).unwrap();
        assert_eq!(one, other);
    }

    #[test]
    fn large_samples_get_the_limit_alone() {
        let one: Vec<f64> = (0..1000).map(f64::from).collect();
        let other: Vec<f64> = (0..1000).map(|i| f64::from(i) + 0.5).collect();
        let (one, other) = (Ordered::of("a", &one).unwrap(), Ordered::of("b", &other).unwrap());
        let found = one.kolmogorov(&other);
        close(found.statistic, 0.001, 1e-15);
        assert_eq!((found.asymptotic_p, found.exact_p), (1.0, None));
    }

    #[test]
    fn evidence_that_says_nothing_is_refused() {
        assert!(matches!(Ordered::of("values", &[]), Err(Flaw::TooFew { .. })));
        assert!(matches!(Ordered::of("values", &[f64::NAN]), Err(Flaw::NotFinite { row: 1, .. })));
        assert!(matches!(Ordered::of_counts("values", &[1.0], &[0]), Err(Flaw::TooFew { .. })));
        assert!(matches!(Ordered::of_counts("values", &[1.0], &[]), Err(Flaw::Lengths { .. })));
        assert!(matches!(Ordered::of_counts("values", &[1.0], &[u64::MAX]), Err(Flaw::TooMany { .. })));
        let far = Ordered::of("values", &[f64::MIN, f64::MAX]).unwrap();
        assert!(matches!(far.deviation(), Err(Flaw::Overflow { .. })));
    }
}

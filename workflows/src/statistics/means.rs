//! Differences of means: of losses, of errors, of any number that an example has for each model. Paired (the same examples),
//! independent (Welch), relative to the champion (lift), and over folds of a cross-validation. Weights are of importance:
//! doubling all of them changes nothing.

use super::distributions::T;
use super::{Difference, Flaw, Question, Standardised, Test, all_finite, as_long, enough, finite, within};

/// Size, mean and variance of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    n: u64,
    mean: f64,
    variance: f64,
}

impl Moments {
    /// Of these values; the variance is the sample's (divided by n − 1).
    ///
    /// # Errors
    /// [`Flaw::TooFew`] for fewer than two values, [`Flaw::NotFinite`], [`Flaw::Overflow`].
    pub fn of(values: &[f64]) -> Result<Self, Flaw> {
        enough("values", values.len(), 2)?;
        all_finite("the values", values)?;
        let n = values.len() as f64;
        let mean = mean(values);
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self::new(values.len() as u64, mean, squares / (n - 1.0))
    }

    /// From numbers counted elsewhere.
    ///
    /// # Errors
    /// [`Flaw::TooFew`] for fewer than two values, [`Flaw::Overflow`] for a number that is not finite, [`Flaw::Outside`] for a
    /// negative variance.
    pub fn new(n: u64, mean: f64, variance: f64) -> Result<Self, Flaw> {
        if n < 2 {
            return Err(Flaw::TooFew { what: "values", found: n, least: 2 });
        }
        let (mean, variance) = (finite("the mean", mean)?, finite("the variance", variance)?);
        Ok(Self { n, mean, variance: within("the variance", variance, 0.0, f64::MAX)? })
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The sample's variance.
    pub fn variance(&self) -> f64 {
        self.variance
    }

    /// The squared standard error of the mean.
    fn squared_error(&self) -> f64 {
        self.variance / self.n as f64
    }
}

/// A mean whose deviation from the truth, in standard errors, follows Student's t. Not turned: candidate − champion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error.
    pub se: f64,
    /// Degrees of freedom.
    pub freedom: f64,
    /// What it rests on.
    pub n: u64,
    /// How it was made.
    pub test: Test,
}

impl Estimate {
    /// The answer to a question; the margin is in the estimate's unit (of a lift: a share).
    ///
    /// # Errors
    /// What is wrong with the question; [`Flaw::Undefined`] when the difference is not 0 and the same throughout.
    pub fn difference(&self, question: &Question) -> Result<Difference, Flaw> {
        question.check()?;
        let t = T::new(self.freedom)?;
        let (estimate, quantile) = (question.turned(self.value), t.exceeded_with(question.alpha));
        Standardised { estimate, se: self.se, n: self.n, test: self.test, upper: |x| t.upper(x), quantile }
            .answer(question)
    }

    /// t and its two-sided p.
    ///
    /// # Errors
    /// [`Flaw::Undefined`] when the standard error is 0.
    pub fn two_sided(&self) -> Result<(f64, f64), Flaw> {
        if self.se > 0.0 {
            let statistic = finite("t", self.value / self.se)?;
            return Ok((statistic, T::new(self.freedom)?.two_sided(statistic)));
        }
        Err(Flaw::Undefined { what: "t", why: "the values do not vary" })
    }
}

/// The mean of differences (candidate − champion, example by example), with optional weights, by the paired t test. The error of a
/// weighted mean is the linearised one, n/(n − 1)·Σw²(d − mean)²/(Σw)², which is the usual one when all weights are the same.
///
/// # Errors
/// [`Flaw::TooFew`] for fewer than two examples, [`Flaw::NotFinite`], [`Flaw::Lengths`], [`Flaw::Outside`] for a negative weight,
/// [`Flaw::Undefined`] when no two examples have a weight.
pub fn paired(differences: &[f64], weights: Option<&[f64]>) -> Result<Estimate, Flaw> {
    enough("examples", differences.len(), 2)?;
    all_finite("the differences", differences)?;
    let Some(weights) = weights else {
        let moments = Moments::of(differences)?;
        let se = moments.squared_error().sqrt();
        let freedom = (moments.n - 1) as f64;
        return Ok(Estimate { value: moments.mean, se, freedom, n: moments.n, test: Test::PairedT });
    };
    as_long("the weights", weights.len(), differences.len())?;
    all_finite("the weights", weights)?;
    for &weight in weights {
        within("a weight", weight, 0.0, f64::MAX)?;
    }
    // Relative to the greatest, so that no sum overflows.
    let greatest = weights.iter().copied().fold(0.0, f64::max);
    let counted = weights.iter().filter(|weight| **weight > 0.0).count();
    if counted < 2 {
        let why = "fewer than two examples have a weight above 0";
        return Err(Flaw::Undefined { what: "the weighted mean", why });
    }
    let weighed =
        || weights.iter().zip(differences).map(|(weight, difference)| (weight / greatest, *difference));
    let sum: f64 = weighed().map(|(weight, _)| weight).sum();
    let value = finite("the mean", weighed().map(|(weight, d)| weight * d).sum::<f64>() / sum)?;
    let squares: f64 = weighed().map(|(weight, d)| (weight * (d - value)).powi(2)).sum();
    let n = counted as f64;
    let se = finite("the standard error", (squares * n / (n - 1.0)).sqrt() / sum)?;
    Ok(Estimate { value, se, freedom: n - 1.0, n: counted as u64, test: Test::PairedT })
}

/// The difference of two independent means, each with its own variance (Welch, Biometrika 34, 1947).
///
/// # Errors
/// [`Flaw::Undefined`] when neither sample varies.
pub fn welch(candidate: &Moments, champion: &Moments) -> Result<Estimate, Flaw> {
    let squared = candidate.squared_error() + champion.squared_error();
    let value = finite("the difference", candidate.mean - champion.mean)?;
    let freedom = satterthwaite(candidate, champion)?;
    Ok(Estimate { value, se: squared.sqrt(), freedom, n: candidate.n + champion.n, test: Test::Welch })
}

fn satterthwaite(one: &Moments, other: &Moments) -> Result<f64, Flaw> {
    let (a, b) = (one.squared_error(), other.squared_error());
    if a + b <= 0.0 {
        return Err(Flaw::Undefined { what: "Welch's t", why: "neither sample varies" });
    }
    // Shares of the whole, so that no square under- or overflows.
    let (a, b) = (a / (a + b), b / (a + b));
    Ok(1.0 / (a * a / (one.n - 1) as f64 + b * b / (other.n - 1) as f64))
}

/// The mean, counted so that equal values have exactly themselves as mean.
fn mean(values: &[f64]) -> f64 {
    let first = values.first().copied().unwrap_or(0.0);
    first + values.iter().map(|value| value - first).sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::{close, question};
    use super::*;
    use crate::gate::Direction;

    /// Published: GrowthBook's unit tests.
    fn growthbook() -> (Moments, Moments) {
        let champion = Moments::new(3407, 0.41, 3.9 * 3.9).unwrap();
        let candidate = Moments::new(3461, 0.70, 6.2 * 6.2).unwrap();
        (candidate, champion)
    }

    #[test]
    fn welch_gives_the_published_numbers() {
        let (candidate, champion) = growthbook();
        let found = welch(&candidate, &champion).unwrap();
        close(found.value, 0.29, 1e-12);
        close(found.se, 0.1247836316, 5e-11);
        close(found.freedom, 5841.742032, 5e-7);
        let (t, p) = found.two_sided().unwrap();
        close(t, 2.3240227609, 5e-11);
        close(p, 0.02016, 5e-6);
        let both = found.difference(&question(0.0, 0.025)).unwrap();
        close(both.low, 0.04538, 5e-6);
        close(both.high, 0.53462, 5e-6);
        close(both.p_better, p / 2.0, 1e-15);
    }

    #[test]
    fn weights_of_importance() {
        let d = [0.3, -0.1, 0.25, 0.0, 0.4, 0.1];
        let plain = paired(&d, None).unwrap();
        let same = paired(&d, Some(&[7.0; 6])).unwrap();
        close(same.value, plain.value, 1e-15);
        close(same.se, plain.se, 1e-15);
        // NumPy: (w*d).sum()/w.sum(); sqrt(6/5*((w*(d-m))**2).sum())/w.sum().
        let weighed = paired(&d, Some(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0])).unwrap();
        close(weighed.value, 0.10555555555555556, 1e-15);
        close(weighed.se, 0.07293569710511105, 1e-15);
        let without = paired(&d, Some(&[1.0, 1.0, 1.0, 0.0, 1.0, 1.0])).unwrap();
        assert_eq!(without.n, 5);
        let left = paired(&[0.3, -0.1, 0.25, 0.4, 0.1], None).unwrap();
        close(without.se, left.se, 1e-15);
    }

    #[test]
    fn lower_is_better_for_losses() {
        let losses = [-0.2, -0.1, -0.3, 0.05, -0.15];
        let lower = Question { direction: Direction::Lower, ..question(0.0, 0.05) };
        let found = paired(&losses, None).unwrap().difference(&lower).unwrap();
        assert!(found.estimate > 0.0 && found.low > 0.0 && found.p_better < 0.05, "{found:?}");
    }

    #[test]
    fn models_that_answer_alike_do_not_differ() {
        let found = paired(&[0.0; 30], None).unwrap().difference(&question(0.01, 0.05)).unwrap();
        assert_eq!((found.p_better, found.p_worse, found.p_margin), (1.0, 1.0, 0.0));
        let found = paired(&[0.0; 30], None).unwrap().difference(&question(0.0, 0.05)).unwrap();
        assert_eq!(found.p_margin, 1.0, "without a margin it is the question whether it is better");
        let constant = paired(&[0.1; 30], None).unwrap().difference(&question(0.01, 0.05));
        assert!(matches!(constant, Err(Flaw::Undefined { .. })), "{constant:?}");
    }

    #[test]
    fn evidence_that_says_nothing_is_refused() {
        assert!(matches!(paired(&[], None), Err(Flaw::TooFew { .. })));
        assert!(matches!(paired(&[0.1], None), Err(Flaw::TooFew { .. })));
        assert_eq!(paired(&[0.1, f64::NAN], None), Err(Flaw::NotFinite { what: "the differences", row: 2 }));
        assert!(matches!(paired(&[0.1, 0.2], Some(&[1.0])), Err(Flaw::Lengths { .. })));
        assert!(matches!(paired(&[0.1, 0.2], Some(&[1.0, -1.0])), Err(Flaw::Outside { .. })));
        assert!(matches!(paired(&[0.1, 0.2], Some(&[1.0, 0.0])), Err(Flaw::Undefined { .. })));
        assert!(matches!(paired(&[f64::MAX, -f64::MAX], None), Err(Flaw::Overflow { .. })));
        let still = Moments::new(5, 1.0, 0.0).unwrap();
        assert!(matches!(welch(&still, &still), Err(Flaw::Undefined { .. })));
    }
}

//! The distribution functions that tests are judged by, from `statrs`, total over every number. Must never happen here: a
//! distribution of our own making.

use statrs::distribution::{Binomial, ChiSquared, ContinuousCDF, Discrete, DiscreteCDF, Normal, StudentsT};

use super::Flaw;

/// P(Z ≤ z) of the standard normal distribution.
pub(super) fn normal_cdf(z: f64) -> f64 {
    Normal::standard().cdf(z)
}

/// P(Z > z) of the standard normal distribution, exact in the tail.
pub(super) fn normal_upper(z: f64) -> f64 {
    Normal::standard().sf(z)
}

/// The z with P(Z ≤ z) = p, for p between 0 and 1, where it is infinite.
pub(super) fn normal_quantile(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p.clamp(0.0, 1.0))
}

/// The same for both tails together.
pub(super) fn normal_two_sided(z: f64) -> f64 {
    (2.0 * normal_upper(z.abs())).min(1.0)
}

/// Student's t with so many degrees of freedom.
pub(super) struct T {
    /// None where the normal distribution stands for it.
    student: Option<StudentsT>,
}

impl T {
    /// From so many degrees of freedom on, the normal distribution is nearer to t than the logarithms of gamma can tell.
    const NORMAL_FROM: f64 = 1e7;

    pub(super) fn new(freedom: f64) -> Result<Self, Flaw> {
        let outside = Flaw::Outside { what: "degrees of freedom", value: freedom, low: 0.0, high: f64::MAX };
        if freedom >= Self::NORMAL_FROM {
            return Ok(Self { student: None });
        }
        let student = StudentsT::new(0.0, 1.0, freedom).map_err(|_| outside)?;
        Ok(Self { student: Some(student) })
    }

    /// P(T > t).
    pub(super) fn upper(&self, t: f64) -> f64 {
        self.student.as_ref().map_or_else(|| normal_upper(t), |student| student.sf(t))
    }

    /// The t with P(T > t) = alpha, alpha above 0 and below 0.5.
    pub(super) fn exceeded_with(&self, alpha: f64) -> f64 {
        // Not `inverse_cdf`, whose iteration has no bound and does not end for some degrees of freedom.
        let (mut low, mut high) = (0.0, 1.0);
        while self.upper(high) > alpha && high < f64::MAX / 4.0 {
            (low, high) = (high, high * 2.0);
        }
        // 60 halvings are as far as numbers go.
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if self.upper(middle) > alpha {
                low = middle;
            } else {
                high = middle;
            }
        }
        f64::midpoint(low, high)
    }

    pub(super) fn two_sided(&self, t: f64) -> f64 {
        (2.0 * self.upper(t.abs())).min(1.0)
    }
}

/// P(X > x) of the chi-square distribution.
pub(super) fn chi_square_upper(x: f64, freedom: u64) -> Result<f64, Flaw> {
    let outside =
        Flaw::Outside { what: "degrees of freedom", value: freedom as f64, low: 1.0, high: f64::MAX };
    Ok(ChiSquared::new(freedom as f64).map_err(|_| outside)?.sf(x.max(0.0)))
}

/// Heads among `n` throws of a fair coin.
pub(super) struct Coin {
    heads: Option<Binomial>,
}

impl Coin {
    pub(super) fn thrown(n: u64) -> Self {
        // With no throw, the distribution is a point; 1/2 is a probability.
        Self { heads: if n == 0 { None } else { Binomial::new(0.5, n).ok() } }
    }

    /// P(X ≤ k).
    pub(super) fn at_most(&self, k: u64) -> f64 {
        self.heads.as_ref().map_or(1.0, |heads| heads.cdf(k))
    }

    /// P(X = k).
    pub(super) fn exactly(&self, k: u64) -> f64 {
        self.heads.as_ref().map_or(if k == 0 { 1.0 } else { 0.0 }, |heads| heads.pmf(k))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::close;
    use super::*;

    /// Constants from SciPy 1.17.1: `norm.isf`, `norm.sf`, `t.isf`, `t.sf`, `chi2.sf`, `binom.cdf`.
    #[test]
    fn they_agree_with_scipy() {
        close(normal_quantile(0.95), 1.6448536269514722, 1e-12);
        close(normal_upper(6.0) / 9.865876450376946e-10, 1.0, 1e-9);
        close(T::new(9.0).unwrap().exceeded_with(0.05), 1.8331129326562374, 1e-9);
        close(T::new(5841.742032).unwrap().exceeded_with(0.025), 1.9603701569544876, 1e-9);
        for (freedom, alpha, expected) in T_QUANTILES {
            close(T::new(freedom).unwrap().exceeded_with(alpha) / expected, 1.0, 1e-7);
        }
        close(T::new(9.0).unwrap().upper(3.9000675), 0.0018095196848727446, 1e-12);
        close(chi_square_upper(0.4700240, 3).unwrap(), 0.9254259, 1e-7);
        close(Coin::thrown(34).at_most(15), 0.30379568063654006, 1e-12);
    }

    const T_QUANTILES: [(f64, f64, f64); 6] = [
        (1.0, 0.05, 6.313751514675044),
        (1.0, 1e-10, 3183098861.8379064),
        (2.5, 0.3, 0.597307738252318),
        (1e5, 0.001, 3.090313809427238),
        (9.9e6, 0.05, 1.6448537808675625),
        (5e7, 0.05, 1.6448536574268564),
    ];

    #[test]
    fn no_throw_is_no_heads() {
        assert_eq!((Coin::thrown(0).at_most(0), Coin::thrown(0).exactly(0)), (1.0, 1.0));
        assert!(T::new(0.0).is_err() && T::new(f64::NAN).is_err());
        assert!(chi_square_upper(1.0, 0).is_err());
    }
}

//! Shares of independent examples: how sure one share is, and how two shares of different examples differ. Shares on the
//! same examples are `paired`'s.

use super::Flaw;
use super::distributions::{normal_quantile, normal_two_sided};

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    hits: u64,
    n: u64,
}

impl Share {
    /// `hits` of `n`.
    ///
    /// # Errors
    /// [`Flaw::TooFew`] when there is no example, [`Flaw::Outside`] when there are more hits than examples.
    pub fn new(hits: u64, n: u64) -> Result<Self, Flaw> {
        if n == 0 {
            return Err(Flaw::TooFew { what: "examples", found: n, least: 1 });
        }
        super::within("hits", hits as f64, 0.0, n as f64)?;
        Ok(Self { hits, n })
    }

    /// The share, from 0 to 1.
    pub fn value(self) -> f64 {
        self.hits as f64 / self.n as f64
    }

    /// Wilson's score interval without continuity correction, two-sided: it keeps its level near 0 and 1, where Wald's
    /// does not (Newcombe, Statist. Med. 17:857–872, 1998, method 3).
    ///
    /// # Errors
    /// [`Flaw::Outside`] when the confidence is not between 0 and 1.
    pub fn wilson(self, confidence: f64) -> Result<(f64, f64), Flaw> {
        if !(confidence > 0.0 && confidence < 1.0) {
            return Err(Flaw::Outside { what: "the confidence", value: confidence, low: 0.0, high: 1.0 });
        }
        let z = normal_quantile(0.5 + confidence / 2.0);
        let (n, p) = (self.n as f64, self.value());
        let centre = p + z * z / (2.0 * n);
        let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        let shrink = 1.0 + z * z / n;
        // At 0 and at n the ends are 0 and 1 but for rounding.
        let low = if self.hits == 0 { 0.0 } else { ((centre - half) / shrink).max(0.0) };
        let high = if self.hits == self.n { 1.0 } else { ((centre + half) / shrink).min(1.0) };
        Ok((low, high))
    }
}

/// The interval of `one − other` from both Wilson intervals, two-sided (Newcombe, Statist. Med. 17:873–890, 1998, method 10).
///
/// # Errors
/// [`Flaw::Outside`] when the confidence is not between 0 and 1.
pub fn newcombe(one: Share, other: Share, confidence: f64) -> Result<(f64, f64), Flaw> {
    let (p1, p2) = (one.value(), other.value());
    let ((l1, u1), (l2, u2)) = (one.wilson(confidence)?, other.wilson(confidence)?);
    Ok((p1 - p2 - (p1 - l1).hypot(u2 - p2), p1 - p2 + (u1 - p1).hypot(p2 - l2)))
}

/// z and two-sided p of "both shares are the same", with the variance of the pooled share: the variant whose square is the
/// chi-square of the fourfold table, as in statsmodels' `proportions_ztest`.
///
/// # Errors
/// [`Flaw::Undefined`] when all examples or none are hits.
pub fn two_proportions(one: Share, other: Share) -> Result<(f64, f64), Flaw> {
    let (n1, n2) = (one.n as f64, other.n as f64);
    let pooled = (one.hits as f64 + other.hits as f64) / (n1 + n2);
    let variance = pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n2);
    if variance > 0.0 {
        let z = (one.value() - other.value()) / variance.sqrt();
        return Ok((z, normal_two_sided(z)));
    }
    Err(Flaw::Undefined { what: "the z of two shares", why: "both are 0 or both are 1" })
}

#[cfg(test)]
mod tests {
    use super::super::tests::close;
    use super::*;

    fn share(hits: u64, n: u64) -> Share {
        Share::new(hits, n).unwrap()
    }

    /// Published: Newcombe 1998, Table I.
    #[test]
    fn wilson_gives_the_published_intervals() {
        for (hits, n, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let found = share(hits, n).wilson(0.95).unwrap();
            close(found.0, low, 5e-5);
            close(found.1, high, 5e-5);
        }
        assert_eq!(share(20, 20).wilson(0.95).unwrap().1, 1.0);
    }

    /// Published: Newcombe 1998, Table II.
    #[test]
    fn newcombe_gives_the_published_intervals() {
        for (one, other, estimate, low, high) in [
            (share(56, 70), share(48, 80), 0.2000, 0.0524, 0.3339),
            (share(9, 10), share(3, 10), 0.6, 0.1705, 0.8090),
            (share(5, 56), share(0, 29), 0.0893, -0.0381, 0.1926),
        ] {
            let found = newcombe(one, other, 0.95).unwrap();
            close(one.value() - other.value(), estimate, 5e-5);
            close(found.0, low, 5e-5);
            close(found.1, high, 5e-5);
        }
    }

    #[test]
    fn two_shares_are_compared_with_the_pooled_variance() {
        let (z, p) = two_proportions(share(120, 1000), share(180, 1200)).unwrap();
        close(z, -2.0416711, 5e-8);
        close(p, 0.0411842, 5e-8);
        assert!(matches!(two_proportions(share(0, 5), share(0, 9)), Err(Flaw::Undefined { .. })));
    }

    #[test]
    fn shares_that_cannot_be_are_refused() {
        assert!(matches!(Share::new(0, 0), Err(Flaw::TooFew { .. })));
        assert!(matches!(Share::new(3, 2), Err(Flaw::Outside { .. })));
        for confidence in [0.0, 1.0, f64::NAN] {
            assert!(matches!(share(1, 2).wilson(confidence), Err(Flaw::Outside { .. })));
        }
    }
}

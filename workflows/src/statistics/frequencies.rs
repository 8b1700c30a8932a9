//! Pearson's chi-square tests of counts in categories: two samples against each other, and one sample against shares that
//! are known. The two must not be exchanged: a reference is a sample too, and taking its shares for known overstates the change.

use super::Flaw;
use super::distributions::chi_square_upper;

/// A chi-square test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChiSquare {
    /// The statistic.
    pub statistic: f64,
    /// Its degrees of freedom.
    pub freedom: u64,
    /// P of a statistic at least as great if nothing differs.
    pub p: f64,
}

/// Whether two samples are spread over the same categories alike: the 2×k contingency table, without correction. Categories
/// that occur in neither sample do not count.
///
/// # Errors
/// [`Flaw::Lengths`] when the categories are not the same ones, [`Flaw::TooFew`] when a sample is empty, [`Flaw::Undefined`]
/// when only one category occurs.
pub fn contingency(reference: &[u64], current: &[u64]) -> Result<ChiSquare, Flaw> {
    super::as_long("the current counts", current.len(), reference.len())?;
    let (n, m) = (total("the reference", reference)?, total("the current data", current)?);
    let (mut statistic, mut categories) = (0.0, 0);
    for (&here, &there) in reference.iter().zip(current) {
        let (here, there) = (here as f64, there as f64);
        if here + there > 0.0 {
            categories += 1;
            let (expected_here, expected_there) =
                ((here + there) * n / (n + m), (here + there) * m / (n + m));
            statistic += (here - expected_here).powi(2) / expected_here;
            statistic += (there - expected_there).powi(2) / expected_there;
        }
    }
    judged(statistic, categories)
}

/// Whether a sample is spread as these weights say, which need not sum to 1.
///
/// # Errors
/// [`Flaw::Lengths`], [`Flaw::TooFew`] without an example, [`Flaw::Outside`] for a weight that is not positive,
/// [`Flaw::Undefined`] when there is only one category.
pub fn goodness_of_fit(counts: &[u64], weights: &[f64]) -> Result<ChiSquare, Flaw> {
    super::as_long("the weights", weights.len(), counts.len())?;
    let n = total("the counts", counts)?;
    for &weight in weights {
        super::within("a weight", weight, f64::MIN_POSITIVE, f64::MAX)?;
    }
    let sum = super::finite("the sum of the weights", weights.iter().sum::<f64>())?;
    let statistic = counts.iter().zip(weights).map(|(&count, &weight)| {
        let expected = n * (weight / sum);
        (count as f64 - expected).powi(2) / expected
    });
    judged(statistic.sum(), counts.len() as u64)
}

fn judged(statistic: f64, categories: u64) -> Result<ChiSquare, Flaw> {
    if categories < 2 {
        return Err(Flaw::Undefined { what: "chi-square", why: "there is only one category" });
    }
    let (statistic, freedom) = (super::finite("chi-square", statistic)?, categories - 1);
    Ok(ChiSquare { statistic, freedom, p: chi_square_upper(statistic, freedom)? })
}

fn total(what: &'static str, counts: &[u64]) -> Result<f64, Flaw> {
    let total: f64 = counts.iter().map(|&count| count as f64).sum();
    if total > 0.0 { Ok(total) } else { Err(Flaw::TooFew { what, found: 0, least: 1 }) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::close;
    use super::*;

    #[test]
    fn two_samples_and_one_against_known_shares_differ() {
        let found = contingency(&[50, 30, 20], &[55, 25, 20]).unwrap();
        close(found.statistic, 0.6926406926, 5e-11);
        close(found.p, 0.7072858744, 5e-11);
        assert_eq!(found.freedom, 2);
        let found = goodness_of_fit(&[55, 25, 20], &[50.0, 30.0, 20.0]).unwrap();
        close(found.statistic, 1.3333333333, 5e-11);
        close(found.p, 0.5134171190, 5e-11);
    }

    #[test]
    fn mendels_peas_and_a_skewed_split() {
        let found = goodness_of_fit(&[315, 108, 101, 32], &[9.0, 3.0, 3.0, 1.0]).unwrap();
        close(found.statistic, 0.4700240, 5e-8);
        close(found.p, 0.9254259, 5e-8);
        let found = goodness_of_fit(&[821_588, 815_482], &[1.0, 1.0]).unwrap();
        close(found.statistic, 22.7743688, 5e-8);
        close(found.p, 1.8218e-06, 5e-11);
    }

    #[test]
    fn categories_that_never_occur_do_not_count() {
        let with = contingency(&[50, 0, 30, 20], &[55, 0, 25, 20]).unwrap();
        assert_eq!(with, contingency(&[50, 30, 20], &[55, 25, 20]).unwrap());
    }

    #[test]
    fn counts_that_say_nothing_are_refused() {
        assert!(matches!(contingency(&[], &[]), Err(Flaw::TooFew { .. })));
        assert!(matches!(contingency(&[1, 2], &[0, 0]), Err(Flaw::TooFew { .. })));
        assert!(matches!(contingency(&[1], &[1, 2]), Err(Flaw::Lengths { .. })));
        assert!(matches!(contingency(&[7, 0], &[9, 0]), Err(Flaw::Undefined { .. })));
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(goodness_of_fit(&[1, 2], &[1.0, weight]), Err(Flaw::Outside { .. })));
        }
        assert!(matches!(goodness_of_fit(&[1, 2], &[f64::MAX, f64::MAX]), Err(Flaw::Overflow { .. })));
    }
}

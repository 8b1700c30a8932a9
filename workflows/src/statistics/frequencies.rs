//! Pearson's chi-square test of counts in categories: two samples against each other. Must never happen here: the reference's
//! shares taken for known. It is a sample too, and the change would be overstated.

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
    fn two_samples_differ() {
        let found = contingency(&[50, 30, 20], &[55, 25, 20]).unwrap();
        close(found.statistic, 0.6926406926, 5e-11);
        close(found.p, 0.7072858744, 5e-11);
        assert_eq!(found.freedom, 2);
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
    }
}

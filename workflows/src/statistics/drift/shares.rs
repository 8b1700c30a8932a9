//! Distances between shares of categories or bins, and the bins that numbers are sorted into. The bins decide the number: they are
//! made once, from the reference, and kept with it.

use serde::{Deserialize, Serialize};

use super::super::{Flaw, all_finite, as_long, enough, within};

/// What stands for a share of 0 in [`psi`], where it would be infinite.
pub const ZERO_SHARE: f64 = 1e-4;

/// Shares that should sum to 1 may miss it by so much.
const SUM_TOLERANCE: f64 = 1e-6;

/// The shares of counts.
///
/// # Errors
/// [`Flaw::TooFew`] when nothing was counted.
pub fn shares(what: &'static str, counts: &[u64]) -> Result<Vec<f64>, Flaw> {
    let total: f64 = counts.iter().map(|count| *count as f64).sum();
    if total <= 0.0 {
        return Err(Flaw::TooFew { what, found: 0, least: 1 });
    }
    Ok(counts.iter().map(|count| *count as f64 / total).collect())
}

/// The population stability index, Σ(current − reference)·ln(current/reference). A share below [`ZERO_SHARE`] counts as that, without
/// changing the others. By custom below 0.1 is stable and above 0.25 has shifted.
///
/// # Errors
/// [`Flaw::Lengths`] when the categories are not the same ones, [`Flaw::Outside`] for what are no shares.
pub fn psi(reference: &[f64], current: &[f64]) -> Result<f64, Flaw> {
    check(reference, current)?;
    let terms = reference.iter().zip(current).map(|(reference, current)| {
        let (reference, current) = (reference.max(ZERO_SHARE), current.max(ZERO_SHARE));
        (current - reference) * (current / reference).ln()
    });
    Ok(terms.sum())
}

/// The Jensen–Shannon distance: the root of the divergence, natural logarithm, from 0 to sqrt(ln 2). As SciPy and Evidently have it;
/// the divergence itself, or base 2, gives other numbers.
///
/// # Errors
/// Those of [`psi`].
pub fn jensen_shannon(reference: &[f64], current: &[f64]) -> Result<f64, Flaw> {
    check(reference, current)?;
    let from = |share: f64, middle: f64| if share > 0.0 { share * (share / middle).ln() } else { 0.0 };
    let terms = reference.iter().zip(current).map(|(reference, current)| {
        let middle = f64::midpoint(*reference, *current);
        from(*reference, middle) + from(*current, middle)
    });
    Ok((terms.sum::<f64>() / 2.0).max(0.0).sqrt())
}

fn check(reference: &[f64], current: &[f64]) -> Result<(), Flaw> {
    as_long("the current shares", current.len(), reference.len())?;
    for shares in [reference, current] {
        for share in shares {
            within("a share", *share, 0.0, 1.0)?;
        }
        within("the sum of the shares", shares.iter().sum(), 1.0 - SUM_TOLERANCE, 1.0 + SUM_TOLERANCE)?;
    }
    Ok(())
}

/// Bins for numbers, open at both ends: up to the first edge, from each edge (exclusive) up to the next (inclusive), beyond the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bins {
    /// Ascending, each once.
    edges: Vec<f64>,
}

impl Bins {
    /// More bins than these are not made.
    pub const COUNT_MAX: usize = 1000;

    /// `count` bins with about as many values of the reference in each: its quantiles, with linear interpolation between values (type 7
    /// of Hyndman and Fan, NumPy's default). A value that fills a bin alone gets a bin of its own, so that what moves away from it is
    /// seen whichever way it goes.
    ///
    /// # Errors
    /// [`Flaw::TooFew`] without a value, [`Flaw::NotFinite`], [`Flaw::Outside`] for a count that is not from 2 to [`Bins::COUNT_MAX`].
    pub fn of_quantiles(reference: &[f64], count: usize) -> Result<Self, Flaw> {
        let count = Self::count_of(count)?;
        enough("values of the reference", reference.len(), 1)?;
        all_finite("the reference", reference)?;
        let mut sorted = reference.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let mut edges: Vec<f64> = (1..count).map(|at| quantile(&sorted, at as f64 / count as f64)).collect();
        let alone: Vec<f64> =
            edges.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].next_down()).collect();
        edges.extend(alone);
        // Two bins have one edge, which no other can equal.
        if sorted.first() == sorted.last() {
            edges.extend(edges.first().map(|edge| edge.next_down()));
        }
        // There is nothing below the least number.
        edges.retain(|edge| edge.is_finite());
        edges.sort_unstable_by(f64::total_cmp);
        edges.dedup();
        Ok(Self { edges })
    }

    fn count_of(count: usize) -> Result<usize, Flaw> {
        within("the number of bins", count as f64, 2.0, Self::COUNT_MAX as f64)?;
        Ok(count)
    }

    /// The edges between the bins, ascending.
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// How many values are in each bin.
    ///
    /// # Errors
    /// [`Flaw::NotFinite`].
    pub fn count(&self, values: &[f64]) -> Result<Vec<u64>, Flaw> {
        all_finite("the values", values)?;
        let mut counts = vec![0; self.edges.len() + 1];
        for value in values {
            counts[self.edges.partition_point(|edge| edge < value)] += 1;
        }
        Ok(counts)
    }
}

/// Type 7 of Hyndman and Fan; `sorted` is not empty and `p` is from 0 to 1.
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let place = p * (sorted.len() as f64 - 1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the length")]
    let at = place as usize;
    let (low, high) = (sorted[at], sorted[(at + 1).min(sorted.len() - 1)]);
    // Not low + part·(high − low), which overflows between the greatest numbers; equal ends give themselves.
    let part = place - at as f64;
    if low == high { low } else { low * (1.0 - part) + high * part }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::close;
    use super::super::reference::{current, reference};
    use super::*;

    #[test]
    fn psi_of_categories() {
        close(psi(&[0.10, 0.20, 0.30, 0.40], &[0.15, 0.20, 0.25, 0.40]).unwrap(), 0.0293893332, 5e-11);
        close(psi(&[0.5, 0.3, 0.2, 0.0], &[0.4, 0.3, 0.2, 0.1]).unwrap(), 0.7123991075, 5e-11);
        assert_eq!(psi(&[0.5, 0.5], &[0.5, 0.5]), Ok(0.0));
    }

    #[test]
    fn psi_over_the_deciles_of_the_reference() {
        let bins = Bins::of_quantiles(&reference(), 10).unwrap();
        let deciles = [0.49, 0.88, 1.27, 1.66, 2.05, 2.44, 2.83, 3.22, 3.61];
        assert_eq!(bins.edges().len(), deciles.len());
        bins.edges().iter().zip(deciles).for_each(|(found, expected)| close(*found, expected, 1e-12));
        let of = |values: &[f64]| shares("values", &bins.count(values).unwrap()).unwrap();
        close(psi(&of(&reference()), &of(&current())).unwrap(), 0.9890661718, 5e-11);
    }

    #[test]
    fn jensen_shannon_of_categories_and_bins() {
        let (p, q) = ([0.5, 0.3, 0.2], [0.55, 0.25, 0.20]);
        close(jensen_shannon(&p, &q).unwrap(), 0.0416340886, 5e-11);
        // The range of both samples together in 8 bins, as Sturges has it.
        let bins = Bins { edges: (1..8).map(|at| 0.1 + 4.5 * f64::from(at) / 8.0).collect() };
        let of = |values: &[f64]| shares("values", &bins.count(values).unwrap()).unwrap();
        close(jensen_shannon(&of(&reference()), &of(&current())).unwrap(), 0.3366530438, 5e-11);
        close(jensen_shannon(&[1.0, 0.0], &[0.0, 1.0]).unwrap(), 2_f64.ln().sqrt(), 1e-15);
    }

    #[test]
    fn a_value_that_fills_bins_is_left_in_both_directions() {
        let mut reference = vec![0.0; 80];
        reference.extend((1..=20).map(f64::from));
        for reference in [reference, vec![0.0; 10]] {
            for count in [2, 10] {
                let bins = Bins::of_quantiles(&reference, count).unwrap();
                let of = |values: &[f64]| shares("values", &bins.count(values).unwrap()).unwrap();
                for moved in [-1.0, 1.0] {
                    let current: Vec<f64> = reference.iter().map(|value| value + moved).collect();
                    let distance = psi(&of(&reference), &of(&current)).unwrap();
                    assert!(distance > 1.0 || count == 2, "{moved} {count}: {distance}");
                }
            }
        }
    }

    #[test]
    fn what_are_no_shares_is_refused() {
        assert!(matches!(psi(&[1.0], &[0.5, 0.5]), Err(Flaw::Lengths { .. })));
        assert!(matches!(psi(&[], &[]), Err(Flaw::Outside { .. })));
        for wrong in [[0.5, 0.6], [1.5, -0.5], [f64::NAN, 1.0]] {
            assert!(matches!(psi(&[0.5, 0.5], &wrong), Err(Flaw::Outside { .. })));
            assert!(matches!(jensen_shannon(&wrong, &[0.5, 0.5]), Err(Flaw::Outside { .. })));
        }
        assert!(matches!(shares("values", &[0, 0]), Err(Flaw::TooFew { .. })));
        assert!(matches!(Bins::of_quantiles(&[], 10), Err(Flaw::TooFew { .. })));
        assert!(matches!(Bins::of_quantiles(&[1.0], 1), Err(Flaw::Outside { .. })));
        let bins = Bins::of_quantiles(&[f64::MIN, f64::MAX], 4).unwrap();
        assert!(bins.edges().iter().all(|edge| edge.is_finite()));
        assert!(matches!(bins.count(&[f64::NAN]), Err(Flaw::NotFinite { row: 1, .. })));
    }
}

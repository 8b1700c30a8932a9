//! Corrections for asking several questions at once: p values, adjusted so that each may be compared with alpha. Results are in
//! the order of what was given. The numbers agree with R's `p.adjust`.

use super::Flaw;

/// A way to correct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// Every p times their number. Bounds the chance of any wrong yes, whatever the questions have to do with each other.
    Bonferroni,
    /// Holm, Scand. J. Statist. 6 (1979): bounds the same chance under the same conditions and finds more. The one gates use.
    Holm,
    /// Hochberg, Biometrika 75 (1988): finds more still, if the questions are independent or positively dependent.
    Hochberg,
    /// Benjamini and Hochberg, J. R. Statist. Soc. B 57 (1995): bounds the share of wrong yeses among the yeses, if the
    /// questions are independent or positively dependent.
    BenjaminiHochberg,
    /// Benjamini and Yekutieli, Ann. Statist. 29 (2001): the same whatever the questions have to do with each other.
    BenjaminiYekutieli,
}

impl Correction {
    /// The adjusted p values, each at most 1.
    ///
    /// # Errors
    /// [`Flaw::Outside`] for a p that is not between 0 and 1.
    pub fn adjust(self, p: &[f64]) -> Result<Vec<f64>, Flaw> {
        for &p in p {
            super::within("p", p, 0.0, 1.0)?;
        }
        let mut ascending: Vec<usize> = (0..p.len()).collect();
        ascending.sort_by(|&one, &other| p[one].total_cmp(&p[other]));
        let m = p.len() as f64;
        let harmonic: f64 = (1..=p.len()).map(|rank| 1.0 / rank as f64).sum();
        // `rank` counts the values from the smallest, from 1.
        let scaled = |(rank, &at): (usize, &usize)| {
            let rank = rank as f64 + 1.0;
            let factor = match self {
                Self::Bonferroni => m,
                Self::Holm | Self::Hochberg => m - rank + 1.0,
                Self::BenjaminiHochberg => m / rank,
                Self::BenjaminiYekutieli => harmonic * m / rank,
            };
            (at, (p[at] * factor).min(1.0))
        };
        let scaled: Vec<(usize, f64)> = ascending.iter().enumerate().map(scaled).collect();
        let mut adjusted = vec![0.0; p.len()];
        match self {
            Self::Bonferroni | Self::Holm => running(scaled.into_iter(), 0.0, f64::max, &mut adjusted),
            Self::Hochberg | Self::BenjaminiHochberg | Self::BenjaminiYekutieli => {
                running(scaled.into_iter().rev(), 1.0, f64::min, &mut adjusted);
            }
        }
        Ok(adjusted)
    }
}

/// Keeps the adjusted values in the order of the raw ones.
fn running(
    scaled: impl Iterator<Item = (usize, f64)>,
    start: f64,
    choose: fn(f64, f64) -> f64,
    adjusted: &mut [f64],
) {
    let mut so_far = start;
    for (at, p) in scaled {
        so_far = choose(so_far, p);
        adjusted[at] = so_far;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::close;
    use super::*;

    use Correction::{BenjaminiHochberg, BenjaminiYekutieli, Bonferroni, Hochberg, Holm};

    /// Published: statsmodels' test suite, from R's multtest.
    const RAW: [f64; 10] = [
        5.23656777e-05,
        2.8140506198e-04,
        0.0149877310796,
        0.0202732688798,
        0.177096952723,
        0.642193923795,
        0.680845947633,
        0.71626938238,
        0.838541367553,
        0.967833824309,
    ];

    const ADJUSTED: [(Correction, [f64; 10], usize); 5] = [
        (
            Bonferroni,
            [5.23656777e-04, 2.81405062e-03, 0.149877311, 0.202732689, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            2,
        ),
        (Holm, [5.23656777e-04, 2.53264556e-03, 0.119901849, 0.141912882, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 2),
        (
            Hochberg,
            [
                5.23656777e-04,
                2.53264556e-03,
                0.119901849,
                0.141912882,
                0.967833824,
                0.967833824,
                0.967833824,
                0.967833824,
                0.967833824,
                0.967833824,
            ],
            2,
        ),
        (
            BenjaminiHochberg,
            [
                5.23656777e-04,
                1.40702531e-03,
                0.0499591036,
                0.0506831722,
                0.354193905,
                0.895336728,
                0.895336728,
                0.895336728,
                0.931712631,
                0.967833824,
            ],
            3,
        ),
        (
            BenjaminiYekutieli,
            [1.53377408e-03, 4.12113245e-03, 0.146328628, 0.148449402, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            2,
        ),
    ];

    fn rejected(correction: Correction, p: &[f64]) -> usize {
        correction.adjust(p).unwrap().iter().filter(|p| **p <= 0.05).count()
    }

    #[test]
    fn published_values_are_adjusted_to_the_published_ones() {
        for (correction, expected, rejections) in ADJUSTED {
            let found = correction.adjust(&RAW).unwrap();
            for (found, expected) in found.iter().zip(expected) {
                close(*found / expected, 1.0, 5e-9);
            }
            assert_eq!(rejected(correction, &RAW), rejections, "{correction:?}");
        }
    }

    #[test]
    fn results_stay_where_they_were_given() {
        let mut turned = RAW;
        turned.reverse();
        turned.swap(2, 7);
        for (correction, _, _) in ADJUSTED {
            let mut found = correction.adjust(&turned).unwrap();
            found.swap(2, 7);
            found.reverse();
            assert_eq!(found, correction.adjust(&RAW).unwrap());
        }
    }

    /// Published: Benjamini and Hochberg 1995, section 4.
    #[test]
    fn the_example_of_benjamini_and_hochberg() {
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
            0.6528, 0.7590, 1.0,
        ];
        assert_eq!(rejected(Bonferroni, &p), 3);
        assert_eq!(rejected(BenjaminiHochberg, &p), 4);
    }

    #[test]
    fn nothing_one_and_nonsense() {
        for (correction, _, _) in ADJUSTED {
            assert_eq!(correction.adjust(&[]), Ok(Vec::new()));
            assert_eq!(correction.adjust(&[0.04]), Ok(vec![0.04]));
            for wrong in [f64::NAN, -0.1, 1.1] {
                assert!(matches!(correction.adjust(&[0.5, wrong]), Err(Flaw::Outside { .. })));
            }
        }
    }
}

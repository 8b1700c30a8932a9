//! How many examples a question needs, so that an open verdict can say what would close it. Alpha is one-sided throughout; for a
//! two-sided question give half of it. Results are not rounded. What a gate asks is [`from_error`]; the others plan ahead.

use super::distributions::normal_quantile;
use super::{Flaw, finite, within};

/// z of alpha and z of the power.
fn deviates(alpha: f64, power: f64) -> Result<(f64, f64), Flaw> {
    if !(alpha > 0.0 && alpha < 0.5) {
        return Err(Flaw::Outside { what: "alpha", value: alpha, low: 0.0, high: 0.5 });
    }
    if !(power > 0.0 && power < 1.0) {
        return Err(Flaw::Outside { what: "the power", value: power, low: 0.0, high: 1.0 });
    }
    Ok((normal_quantile(1.0 - alpha), normal_quantile(power)))
}

fn effect(value: f64) -> Result<f64, Flaw> {
    if value > 0.0 {
        return Ok(value);
    }
    Err(Flaw::Undefined { what: "the number of examples", why: "there is no effect to find" })
}

/// From a standard error that `n` examples gave: n·((z_α + z_β)·se/effect)², where the effect is the distance from what is to be
/// refuted (estimate + margin). For every estimate whose error falls with the root of n.
///
/// # Errors
/// [`Flaw::Undefined`] when the effect is not positive, [`Flaw::Outside`] for the others.
pub fn from_error(n: u64, se: f64, distance: f64, alpha: f64, power: f64) -> Result<f64, Flaw> {
    let (z_alpha, z_beta) = deviates(alpha, power)?;
    let se = within("the standard error", se, 0.0, f64::MAX)?;
    let root = (z_alpha + z_beta) * se / effect(distance)?;
    finite("the number of examples", (n as f64 * root * root).max(0.0))
}

/// The power with which a true `distance` from what is to be refuted is found, when the estimate has this standard error.
///
/// # Errors
/// [`Flaw::Outside`] for an alpha that is not between 0 and 0.5 and a standard error that is not positive.
pub fn power(distance: f64, se: f64, alpha: f64) -> Result<f64, Flaw> {
    let (z_alpha, _) = deviates(alpha, 0.5)?;
    let se = within("the standard error", se, f64::MIN_POSITIVE, f64::MAX)?;
    Ok(super::distributions::normal_cdf(distance / se - z_alpha))
}

/// Two models on the same examples, to show that one is right more often: (z_α·sqrt(ψ) + z_β·sqrt(ψ − d²))²/d², with the share ψ of
/// examples on which one is right and the other wrong, and the difference d (Connor, Biometrics 43, 1987).
///
/// # Errors
/// [`Flaw::Outside`] when ψ is not from |d| to 1, [`Flaw::Undefined`] when d is 0.
pub fn paired_superiority(discordant: f64, difference: f64, alpha: f64, power: f64) -> Result<f64, Flaw> {
    let (z_alpha, z_beta) = deviates(alpha, power)?;
    let d = effect(difference.abs())?;
    let psi = within("the share of discordant examples", discordant, d, 1.0)?;
    let root = z_alpha * psi.sqrt() + z_beta * (psi - d * d).max(0.0).sqrt();
    finite("the number of examples", (root / d).powi(2))
}

/// Two models on the same examples, to show that one is not worse by more than a margin: (z_α + z_β)²·(ψ − d²)/(d + margin)².
///
/// # Errors
/// [`Flaw::Outside`] when ψ is not from |d| to 1, [`Flaw::Undefined`] when d is at most −margin.
pub fn paired_non_inferiority(
    discordant: f64,
    difference: f64,
    margin: f64,
    alpha: f64,
    power: f64,
) -> Result<f64, Flaw> {
    let psi = within("the share of discordant examples", discordant, difference.abs(), 1.0)?;
    let se = (psi - difference * difference).max(0.0).sqrt();
    from_error(1, se, difference + margin, alpha, power)
}

#[cfg(test)]
mod tests {
    use super::super::tests::close;
    use super::*;

    #[test]
    fn plans_of_worked_examples() {
        close(paired_superiority(0.12, 0.02, 0.025, 0.8).unwrap(), 2352.30, 5e-3);
        // (1.959964 + 0.841621)²·(0.12 − 0.0004)/0.03²
        close(paired_non_inferiority(0.12, 0.02, 0.01, 0.025, 0.8).unwrap(), 1043.03, 5e-3);
    }

    #[test]
    fn an_observed_error_gives_the_same_plan() {
        let se = ((0.12 - 0.0004_f64) / 500.0).sqrt();
        let planned = paired_non_inferiority(0.12, 0.02, 0.01, 0.025, 0.8).unwrap();
        close(from_error(500, se, 0.03, 0.025, 0.8).unwrap(), planned, 1e-9);
        let se_then = (0.1196 / planned).sqrt();
        close(power(0.03, se_then, 0.025).unwrap(), 0.8, 1e-9);
    }

    #[test]
    fn what_cannot_be_found_has_no_size() {
        assert!(matches!(paired_superiority(0.1, 0.0, 0.05, 0.8), Err(Flaw::Undefined { .. })));
        assert!(matches!(paired_non_inferiority(0.1, -0.01, 0.01, 0.05, 0.8), Err(Flaw::Undefined { .. })));
        assert!(matches!(paired_superiority(0.1, 0.2, 0.05, 0.8), Err(Flaw::Outside { .. })));
        assert!(matches!(from_error(9, f64::INFINITY, 0.1, 0.05, 0.8), Err(Flaw::Outside { .. })));
        assert!(matches!(from_error(9, 1.0, f64::NAN, 0.05, 0.8), Err(Flaw::Undefined { .. })));
    }
}

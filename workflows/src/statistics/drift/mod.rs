//! How far data has moved from a reference. Distances are sizes of a change and do not depend on how much data there is; a p value
//! says whether a change is there at all, and with much data it always is. Prefer distances; correct p values over columns
//! (`multiple`).
//!
//! `shares` compares categories and bins, `samples` compares values. Counts of categories are tested by `frequencies`.

mod samples;
mod shares;

pub use samples::{Kolmogorov, Ordered};
pub use shares::{Bins, ZERO_SHARE, jensen_shannon, psi, shares};

/// Two samples for which the distances are known from SciPy and Evidently.
#[cfg(test)]
mod reference {
    pub(super) fn reference() -> Vec<f64> {
        (1..=40).map(|tenth| f64::from(tenth) / 10.0).collect()
    }

    pub(super) fn current() -> Vec<f64> {
        reference()[5..].iter().map(|value| 1.1 * value + 0.2).collect()
    }
}

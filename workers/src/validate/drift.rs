//! How far a column has moved from a reference, by their profiles alone. Numbers are compared by the deciles of the reference
//! or value by value, categories by their shares. Must never happen here: a distance of what cannot be compared.

use std::collections::BTreeSet;

use refit_workflows::definition::DriftMethod;
use refit_workflows::statistics::drift::{Bins, Ordered, jensen_shannon, psi, shares};
use refit_workflows::statistics::frequencies::contingency;

use super::questions::method_name;
use crate::data::profile::{Categories, ColumnProfile, Numbers, Values};
use crate::data::quantiles::quantile;

/// Bins that numbers are counted in.
const BINS: usize = 10;
/// Bins are made of as many numbers at most; of more, evenly chosen quantiles stand for them.
const BINNED_OF_MAX: u64 = 100_000;

/// The distance of a column from the same one of a reference.
///
/// # Errors
/// They cannot be compared so, in words.
pub(super) fn distance(
    method: DriftMethod,
    reference: &ColumnProfile,
    current: &ColumnProfile,
) -> Result<f64, String> {
    let found = match (&reference.values, &current.values) {
        (Values::Numbers(reference), Values::Numbers(current)) => of_numbers(method, reference, current)?,
        (Values::Categories(reference), Values::Categories(current)) => {
            of_counts(method, by_category(reference, current))?
        }
        (
            Values::Numbers(_) | Values::Categories(_) | Values::Unknown { .. },
            Values::Numbers(_) | Values::Categories(_) | Values::Unknown { .. },
        ) => return Err("its values are of another kind than those of the reference".to_owned()),
    };
    if found.is_finite() { Ok(found) } else { Err("the distance is not finite".to_owned()) }
}

fn of_numbers(method: DriftMethod, reference: &Numbers, current: &Numbers) -> Result<f64, String> {
    if reference.infinite + current.infinite > 0 {
        return Err("it holds infinite numbers".to_owned());
    }
    let ordered = |what: &'static str, numbers: &Numbers| {
        let (values, counts): (Vec<f64>, Vec<u64>) = numbers.points.iter().copied().unzip();
        Ordered::of_counts(what, &values, &counts).map_err(|flaw| flaw.to_string())
    };
    match method {
        DriftMethod::Ks => {
            let (reference, current) = (ordered("the reference", reference)?, ordered("the data", current)?);
            Ok(reference.kolmogorov(&current).statistic)
        }
        DriftMethod::Wasserstein => {
            let (reference, current) = (ordered("the reference", reference)?, ordered("the data", current)?);
            reference.normalised_wasserstein(&current).map_err(|flaw| flaw.to_string())
        }
        DriftMethod::Psi | DriftMethod::Js | DriftMethod::ChiSquare => {
            let bins = Bins::of_quantiles(&standing_for(reference), BINS).map_err(|flaw| flaw.to_string())?;
            of_counts(method, (binned(&bins, reference), binned(&bins, current)))
        }
    }
}

/// Numbers that have the quantiles of these; all of them where they are not many.
fn standing_for(numbers: &Numbers) -> Vec<f64> {
    let count: u64 = numbers.points.iter().map(|(_, many)| many).sum();
    if count <= BINNED_OF_MAX {
        return numbers
            .points
            .iter()
            .flat_map(|(number, many)| {
                std::iter::repeat_n(*number, usize::try_from(*many).unwrap_or_default())
            })
            .collect();
    }
    (0..=1000).filter_map(|at| quantile(&numbers.points, f64::from(at) / 1000.0)).collect()
}

fn binned(bins: &Bins, numbers: &Numbers) -> Vec<u64> {
    let mut counts = vec![0; bins.edges().len() + 1];
    for (number, many) in &numbers.points {
        counts[bins.edges().partition_point(|edge| edge < number)] += many;
    }
    counts
}

/// How often each category of either occurs in both. What was not counted by name in one of them goes with the others of both.
fn by_category(reference: &Categories, current: &Categories) -> (Vec<u64>, Vec<u64>) {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let mut others = (reference.others, current.others);
    let all = reference.counts.keys().chain(current.counts.keys());
    for name in all {
        let known = |here: &Categories| here.counts.contains_key(name) || here.others == 0;
        if known(reference) && known(current) {
            names.insert(name);
        }
    }
    let count = |here: &Categories, others: &mut u64| -> Vec<u64> {
        let unnamed = here.counts.iter().filter(|(name, _)| !names.contains(name.as_str()));
        *others += unnamed.map(|(_, many)| many).sum::<u64>();
        names.iter().map(|name| here.counts.get(*name).copied().unwrap_or_default()).collect()
    };
    let (mut before, mut now) = (count(reference, &mut others.0), count(current, &mut others.1));
    if others != (0, 0) {
        before.push(others.0);
        now.push(others.1);
    }
    (before, now)
}

fn of_counts(method: DriftMethod, (reference, current): (Vec<u64>, Vec<u64>)) -> Result<f64, String> {
    let both = || {
        Ok::<_, refit_workflows::statistics::Flaw>((
            shares("the reference", &reference)?,
            shares("the data", &current)?,
        ))
    };
    let found = match method {
        DriftMethod::Psi => both().and_then(|(reference, current)| psi(&reference, &current)),
        DriftMethod::Js => both().and_then(|(reference, current)| jensen_shannon(&reference, &current)),
        DriftMethod::ChiSquare => contingency(&reference, &current).map(|test| test.statistic),
        DriftMethod::Ks | DriftMethod::Wasserstein => {
            return Err(format!(
                "`{}` compares numbers; for categories use psi, js or chi_square",
                method_name(method)
            ));
        }
    };
    found.map_err(|flaw| flaw.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Float64Array, StringArray};

    use super::*;
    use crate::data::profile::Profiler;
    use crate::data::{Cells, Kind};

    fn column(kind: Kind, values: ArrayRef) -> ColumnProfile {
        let mut profiler = Profiler::new(Some(kind));
        profiler.add(&Cells { values, unreadable: Vec::new() });
        profiler.finish().kept()
    }

    fn numbers(values: impl IntoIterator<Item = f64>) -> ColumnProfile {
        let values: Vec<f64> = values.into_iter().collect();
        column(Kind::Number, Arc::new(Float64Array::from(values)))
    }

    /// So many of each.
    fn categories(counts: &[(&str, usize)]) -> ColumnProfile {
        let values = counts.iter().flat_map(|(name, many)| std::iter::repeat_n(*name, *many));
        column(Kind::Text, Arc::new(StringArray::from_iter_values(values)))
    }

    #[track_caller]
    fn close(found: Result<f64, String>, expected: f64) {
        let found = found.unwrap();
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    /// 0.1 to 4.0, and 1.1 times the sixth and later of them plus 0.2: the numbers are those of SciPy.
    #[test]
    fn distances_of_numbers_are_those_of_scipy() {
        let reference = || (1..=40).map(|tenth| f64::from(tenth) / 10.0);
        let (before, now) =
            (numbers(reference()), numbers(reference().skip(5).map(|value| 1.1 * value + 0.2)));
        close(distance(DriftMethod::Ks, &before, &now), 0.207_142_857_142_857);
        close(distance(DriftMethod::Psi, &before, &now), 0.989_066_171_8);
        close(distance(DriftMethod::Wasserstein, &before, &now), 0.589_081_391_3);
        for method in [DriftMethod::Psi, DriftMethod::Ks, DriftMethod::Js, DriftMethod::Wasserstein] {
            close(distance(method, &before, &before), 0.0);
        }
    }

    #[test]
    fn distances_of_categories_are_those_of_scipy() {
        let before = categories(&[("a", 10), ("b", 20), ("c", 30), ("d", 40)]);
        let now = categories(&[("a", 15), ("b", 20), ("c", 25), ("d", 40)]);
        close(distance(DriftMethod::Psi, &before, &now), 0.029_389_333_2);
        let before = categories(&[("a", 50), ("b", 30), ("c", 20)]);
        let now = categories(&[("a", 55), ("b", 25), ("c", 20)]);
        close(distance(DriftMethod::ChiSquare, &before, &now), 0.692_640_692_6);
        close(distance(DriftMethod::Js, &before, &now), 0.041_634_088_6);
        let new = categories(&[("a", 40), ("b", 30), ("c", 20), ("d", 10)]);
        close(
            distance(DriftMethod::Psi, &categories(&[("a", 50), ("b", 30), ("c", 20)]), &new),
            0.712_399_107_5,
        );
        assert!(distance(DriftMethod::Ks, &before, &now).unwrap_err().contains("compares numbers"));
        assert!(distance(DriftMethod::Psi, &before, &numbers([1.0])).unwrap_err().contains("another kind"));
    }

    #[test]
    fn a_profile_that_was_thinned_out_says_about_the_same() {
        let mixed = |row: u32| f64::from(row.wrapping_mul(2_654_435_761)) / f64::from(u32::MAX);
        let shift = |by: f64| numbers((0..200_000).map(move |row| mixed(row) + by));
        let (before, now) = (shift(0.0), shift(0.1));
        let found = distance(DriftMethod::Ks, &before, &now).unwrap();
        assert!((found - 0.1).abs() < 0.003, "{found}");
        let found = distance(DriftMethod::Wasserstein, &before, &now).unwrap();
        assert!((found - 0.1 * 12f64.sqrt()).abs() < 0.003, "{found}");
        let found = distance(DriftMethod::Psi, &before, &shift(0.0)).unwrap();
        assert!(found < 1e-4, "{found}");
    }
}

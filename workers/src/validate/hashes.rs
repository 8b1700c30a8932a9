//! Rows told apart by the hash of their values: 64 bits each, so that ten million rows are 80 MB, and two different rows
//! among them are taken for one in fewer than one of 300,000 tables. Must never happen here: more of them than the bound.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use arrow_array::Array as _;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, TimestampMillisecondType};

use super::probe::SAMPLED_MAX;
use crate::data::Cells;

/// Rows whose hashes are kept, at most.
pub(super) const ROWS_MAX: usize = 10_000_000;

/// The hashes of rows.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    hashes: Vec<u64>,
    /// True: there were more rows than are kept.
    pub(super) is_full: bool,
}

impl Hashes {
    /// Takes rows in; those of them in which a value is missing only if `with_missing`.
    pub(super) fn add(&mut self, columns: &[&Cells], rows: usize, with_missing: bool) {
        for row in 0..rows {
            if with_missing || columns.iter().all(|cells| cells.values.is_valid(row)) {
                if self.hashes.len() == ROWS_MAX {
                    self.is_full = true;
                    return;
                }
                self.hashes.push(hash(columns, row));
            }
        }
    }

    /// How many rows.
    pub(super) fn count(&self) -> u64 {
        self.hashes.len() as u64
    }

    /// Puts them in order, for what follows.
    pub(super) fn sort(&mut self) {
        self.hashes.sort_unstable();
    }

    /// How many rows there are whose values another one before them has.
    pub(super) fn repeated(&self) -> u64 {
        self.hashes.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64
    }

    /// The hashes of some rows whose values occur more than once.
    pub(super) fn some_repeated(&self) -> HashSet<u64> {
        let repeated = self.hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        repeated.take(SAMPLED_MAX).collect()
    }

    /// How many of these rows are among others, which are sorted.
    pub(super) fn found_in(&self, others: &Self) -> u64 {
        self.in_both(others).count() as u64
    }

    /// The hashes of some of them.
    pub(super) fn some_found_in(&self, others: &Self) -> HashSet<u64> {
        self.in_both(others).take(SAMPLED_MAX).collect()
    }

    fn in_both(&self, others: &Self) -> impl Iterator<Item = u64> {
        self.hashes.iter().copied().filter(|hash| others.hashes.binary_search(hash).is_ok())
    }
}

/// The hash of one row's values. Equal values of the same kinds have equal hashes, in whatever file they stand.
pub(super) fn hash(columns: &[&Cells], row: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    for cells in columns {
        let values = &cells.values;
        values.is_valid(row).hash(&mut hasher);
        if values.is_null(row) {
            // What cannot be read is told by what stands there.
            let unreadable = cells.unreadable.binary_search_by_key(&row, |(row, _)| *row);
            unreadable.ok().map(|place| &cells.unreadable[place].1).hash(&mut hasher);
        } else if let Some(texts) = values.as_string_opt::<i32>() {
            texts.value(row).hash(&mut hasher);
        } else if let Some(numbers) = values.as_primitive_opt::<Int64Type>() {
            numbers.value(row).hash(&mut hasher);
        } else if let Some(numbers) = values.as_primitive_opt::<Float64Type>() {
            // Adding zero makes -0 the 0 that it equals.
            (numbers.value(row) + 0.0).to_bits().hash(&mut hasher);
        } else if let Some(times) = values.as_primitive_opt::<TimestampMillisecondType>() {
            times.value(row).hash(&mut hasher);
        } else if let Some(flags) = values.as_boolean_opt() {
            flags.value(row).hash(&mut hasher);
        }
    }
    hasher.finish()
}

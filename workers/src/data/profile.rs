//! What a column looks like, gathered batch by batch in bounded memory: how many values, their moments, quantiles or
//! categories. Written down as a profile, it stands for its data where other data is compared with it later.
//!
//! Must never happen here: a number that is not finite in a profile, or a bound that is exceeded without being said.

use std::collections::{BTreeMap, HashMap};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{ArrowPrimitiveType, Float64Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, PrimitiveArray};
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use super::cells::{Cells, Kind};
use super::quantiles::{Quantiles, quantile, thinned};

/// The version of the profile's form.
const VERSION: u32 = 1;
/// Numbers of a column that are counted one by one; with more different ones, quantiles are kept.
const COUNTED_MAX: usize = 1000;
/// Points of a column's numbers in a profile.
const POINTS_MAX: usize = 1000;
/// Categories that are counted while data is read; values that turn up later are counted together.
const CATEGORIES_MAX: usize = 10_000;
/// Categories of a column in a profile, the most frequent ones; the others are counted together.
const CATEGORIES_KEPT_MAX: usize = 1000;
/// Categories longer than this, in bytes, are told apart by their beginnings alone.
const CATEGORY_BYTES_MAX: usize = 200;

/// The description of a table: all that is needed to compare other data with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// The form's version.
    pub(crate) version: u32,
    /// How many rows.
    pub(crate) rows: u64,
    /// How many of them a filter keeps, by its text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) selected: BTreeMap<String, u64>,
    /// The columns that checks looked at; one of filtered rows as `NAME where FILTER`.
    pub(crate) columns: BTreeMap<String, ColumnProfile>,
}

impl Profile {
    /// Of a table of so many rows.
    pub(crate) fn new(
        rows: u64,
        selected: BTreeMap<String, u64>,
        columns: BTreeMap<String, ColumnProfile>,
    ) -> Self {
        Self { version: VERSION, rows, selected, columns }
    }

    /// The same, small enough to be kept.
    pub(crate) fn kept(self) -> Self {
        let columns = self.columns.into_iter().map(|(name, column)| (name, column.kept())).collect();
        Self { columns, ..self }
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let profile: Self =
            serde_json::from_slice(bytes).map_err(|wrong| format!("it is no profile of data: {wrong}"))?;
        match profile.version {
            VERSION => Ok(profile),
            other => Err(format!("it is a profile in form {other}; this worker knows form {VERSION}")),
        }
    }
}

/// The description of a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ColumnProfile {
    /// How many values are missing.
    pub(crate) missing: u64,
    /// How many could not be read as what the column is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) unreadable: u64,
    /// The others.
    pub(crate) values: Values,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The values of a column, described.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Values {
    /// Numbers; of times their milliseconds since the Unix epoch.
    Numbers(Numbers),
    /// Texts, and true and false.
    Categories(Categories),
    /// What is nested or binary.
    Unknown {
        /// How many.
        count: u64,
    },
}

/// Numbers, described. Nothing here is there without a number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    /// How many.
    pub(crate) count: u64,
    /// The mean; none where it is not finite.
    pub(crate) mean: Option<f64>,
    /// The standard deviation of the population; none where it is not finite.
    pub(crate) deviation: Option<f64>,
    /// The sum; none where it is not finite.
    pub(crate) sum: Option<f64>,
    /// Numbers, ascending, and how many each stands for. Infinite ones are left out, and counted in `infinite`.
    pub(crate) points: Vec<(f64, u64)>,
    /// Whether the points are all the numbers there are.
    pub(crate) exact: bool,
    /// How many are infinite.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) infinite: u64,
}

/// Categories, described.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Categories {
    /// How often each of the most frequent ones occurs.
    pub(crate) counts: BTreeMap<String, u64>,
    /// How many values are none of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) others: u64,
}

impl Categories {
    /// How many values.
    pub(crate) fn count(&self) -> u64 {
        self.counts.values().sum::<u64>() + self.others
    }
}

impl Numbers {
    /// The quantile at a share, type 7.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        if self.infinite > 0 { None } else { quantile(&self.points, share) }
    }

    /// The greatest one.
    pub(crate) fn max(&self) -> Option<f64> {
        if self.infinite > 0 { None } else { self.points.last().map(|point| point.0) }
    }
}

impl ColumnProfile {
    /// How many values there are that could be read.
    pub(crate) fn count(&self) -> u64 {
        match &self.values {
            Values::Numbers(numbers) => numbers.count,
            Values::Categories(categories) => categories.count(),
            Values::Unknown { count } => *count,
        }
    }

    /// The same, small enough to be kept.
    pub(crate) fn kept(mut self) -> Self {
        match &mut self.values {
            Values::Numbers(numbers) => {
                let (points, all) = thinned(std::mem::take(&mut numbers.points), POINTS_MAX);
                numbers.points = points;
                numbers.exact &= all;
            }
            Values::Categories(categories) if categories.counts.len() > CATEGORIES_KEPT_MAX => {
                let mut counts: Vec<(String, u64)> =
                    std::mem::take(&mut categories.counts).into_iter().collect();
                // Sorted by name before: of equals the first ones stay.
                counts.sort_by_key(|(_, many)| std::cmp::Reverse(*many));
                categories.others += counts[CATEGORIES_KEPT_MAX..].iter().map(|(_, many)| many).sum::<u64>();
                counts.truncate(CATEGORIES_KEPT_MAX);
                categories.counts = counts.into_iter().collect();
            }
            Values::Categories(_) | Values::Unknown { .. } => {}
        }
        self
    }
}

/// Gathers a [`ColumnProfile`].
#[derive(Debug)]
pub(crate) struct Profiler {
    missing: u64,
    unreadable: u64,
    gathered: Gathered,
}

#[derive(Debug)]
enum Gathered {
    Numbers(Box<NumbersGathered>),
    Categories(CategoriesGathered),
    Unknown(u64),
}

impl Profiler {
    /// For values read as this kind; none: nested ones.
    pub(crate) fn new(kind: Option<Kind>) -> Self {
        let gathered = match kind {
            Some(Kind::Integer | Kind::Number | Kind::Timestamp) => Gathered::Numbers(Box::default()),
            Some(Kind::Text | Kind::Boolean) => Gathered::Categories(CategoriesGathered::default()),
            None => Gathered::Unknown(0),
        };
        Self { missing: 0, unreadable: 0, gathered }
    }

    /// Takes values in; they are of the kind that was named.
    pub(crate) fn add(&mut self, cells: &Cells) {
        self.missing += cells.missing() as u64;
        self.unreadable += cells.unreadable.len() as u64;
        match &mut self.gathered {
            Gathered::Numbers(numbers) => numbers.add(&cells.values),
            Gathered::Categories(categories) => categories.add(&cells.values),
            Gathered::Unknown(count) => *count += (cells.values.len() - cells.values.null_count()) as u64,
        }
    }

    /// How much work a row of it is, roughly, in the time it takes to count one value.
    pub(crate) fn effort(&self) -> usize {
        match &self.gathered {
            Gathered::Numbers(_) => 4,
            Gathered::Categories(_) => 2,
            Gathered::Unknown(_) => 0,
        }
    }

    /// What it has come to.
    pub(crate) fn finish(self) -> ColumnProfile {
        let values = match self.gathered {
            Gathered::Numbers(numbers) => Values::Numbers(numbers.finish()),
            Gathered::Categories(categories) => Values::Categories(Categories {
                counts: categories.counts.into_iter().map(|(name, many)| (name.into(), many)).collect(),
                others: categories.others,
            }),
            Gathered::Unknown(count) => Values::Unknown { count },
        };
        ColumnProfile { missing: self.missing, unreadable: self.unreadable, values }
    }
}

#[derive(Debug)]
struct NumbersGathered {
    count: u64,
    mean: f64,
    /// Sum of squared distances from the mean.
    squares: f64,
    sum: f64,
    infinite: u64,
    /// By their bits, so that zeros of both signs are one below.
    counted: Option<HashMap<u64, u64, RandomState>>,
    quantiles: Quantiles,
    /// Counted before there were too many different ones.
    base: Vec<(f64, u64)>,
    scratch: Vec<f64>,
}

impl Default for NumbersGathered {
    fn default() -> Self {
        Self {
            count: 0,
            mean: 0.0,
            squares: 0.0,
            sum: 0.0,
            infinite: 0,
            counted: Some(HashMap::default()),
            quantiles: Quantiles::new(),
            base: Vec::new(),
            scratch: Vec::new(),
        }
    }
}

impl NumbersGathered {
    fn add(&mut self, values: &ArrayRef) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        #[expect(
            clippy::cast_precision_loss,
            reason = "statistics of whole numbers are those of their nearest f64, which has milliseconds of 285,000 years"
        )]
        if let Some(numbers) = values.as_primitive_opt::<Float64Type>() {
            if numbers.null_count() == 0 {
                self.take(numbers.values());
            } else {
                known(numbers, &mut scratch, |number| number);
            }
        } else if let Some(numbers) = values.as_primitive_opt::<Int64Type>() {
            known(numbers, &mut scratch, |number| number as f64);
        } else if let Some(times) = values.as_primitive_opt::<TimestampMillisecondType>() {
            known(times, &mut scratch, |millis| millis as f64);
        }
        self.take(&scratch);
        self.scratch = scratch;
    }

    #[expect(clippy::cast_precision_loss, reason = "no table has 2 to the power of 53 rows")]
    fn take(&mut self, numbers: &[f64]) {
        if numbers.is_empty() {
            return;
        }
        let here = numbers.len() as f64;
        let sum = sum_of(numbers, |number| number);
        let mean = sum / here;
        let squares = sum_of(numbers, |number| (number - mean) * (number - mean));
        // Chan, Golub and LeVeque 1979: two parts put together.
        let before = self.count as f64;
        let all = before + here;
        let apart = mean - self.mean;
        self.squares += squares + apart * apart * before * here / all;
        self.mean += apart * here / all;
        self.sum += sum;
        self.count += numbers.len() as u64;
        if sum.is_finite() || numbers.iter().all(|number| number.is_finite()) {
            self.keep(numbers);
        } else {
            let finite: Vec<f64> = numbers.iter().copied().filter(|number| number.is_finite()).collect();
            self.infinite += (numbers.len() - finite.len()) as u64;
            self.keep(&finite);
        }
    }

    fn keep(&mut self, numbers: &[f64]) {
        let Some(counted) = &mut self.counted else { return self.quantiles.extend(numbers) };
        for number in numbers {
            // Adding zero makes -0 the 0 that it equals.
            *counted.entry((number + 0.0).to_bits()).or_default() += 1;
        }
        if counted.len() > COUNTED_MAX {
            self.base = counted.drain().map(|(bits, many)| (f64::from_bits(bits), many)).collect();
            // The same numbers give the same answer.
            self.base.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
            self.counted = None;
            // Few so far: they become part of what quantiles are kept of.
            if self.base.iter().map(|(_, many)| many).sum::<u64>() <= 1 << 19 {
                for (number, many) in std::mem::take(&mut self.base) {
                    (0..many).for_each(|_| self.quantiles.extend(&[number]));
                }
            }
        }
    }

    fn finish(self) -> Numbers {
        let mut points = match self.counted {
            Some(counted) => counted.into_iter().map(|(bits, many)| (f64::from_bits(bits), many)).collect(),
            None => self.quantiles.points(),
        };
        points.extend(self.base);
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        points.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        let finite = |number: f64| (self.count > 0 && number.is_finite()).then_some(number);
        #[expect(clippy::cast_precision_loss, reason = "no table has 2 to the power of 53 rows")]
        let deviation = (self.squares / self.count.max(1) as f64).sqrt();
        Numbers {
            count: self.count,
            mean: finite(self.mean),
            deviation: finite(deviation),
            sum: finite(self.sum),
            points,
            exact: self.quantiles.is_exact(),
            infinite: self.infinite,
        }
    }
}

/// The values that are there, as numbers.
fn known<T: ArrowPrimitiveType>(
    values: &PrimitiveArray<T>,
    into: &mut Vec<f64>,
    as_number: impl Fn(T::Native) -> f64 + Copy,
) {
    let all = values.values();
    match values.nulls() {
        None => into.extend(all.iter().map(|value| as_number(*value))),
        Some(nulls) => {
            for (from, to) in nulls.valid_slices() {
                into.extend(all[from..to].iter().map(|value| as_number(*value)));
            }
        }
    }
}

/// In eight sums side by side: none waits for the one before it.
fn sum_of(numbers: &[f64], of: impl Fn(f64) -> f64) -> f64 {
    let (eights, rest) = numbers.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for eight in eights {
        for (sum, number) in sums.iter_mut().zip(eight) {
            *sum += of(*number);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|number| of(*number)).sum::<f64>()
}

#[derive(Debug, Default)]
struct CategoriesGathered {
    counts: HashMap<Box<str>, u64, RandomState>,
    others: u64,
}

impl CategoriesGathered {
    fn add(&mut self, values: &ArrayRef) {
        if let Some(texts) = values.as_string_opt::<i32>() {
            for text in texts.iter().flatten() {
                self.count(text, 1);
            }
        } else if let Some(flags) = values.as_boolean_opt() {
            let yes = flags.true_count();
            for (name, many) in [("true", yes), ("false", flags.len() - flags.null_count() - yes)] {
                if many > 0 {
                    self.count(name, many as u64);
                }
            }
        }
    }

    fn count(&mut self, text: &str, many: u64) {
        let text = beginning(text);
        if let Some(count) = self.counts.get_mut(text) {
            *count += many;
        } else if self.counts.len() < CATEGORIES_MAX {
            self.counts.insert(text.into(), many);
        } else {
            self.others += many;
        }
    }
}

/// As much of a text as tells categories apart.
pub(crate) fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(CATEGORY_BYTES_MAX)]
}

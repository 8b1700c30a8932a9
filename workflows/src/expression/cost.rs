//! The bound on an evaluation's work: a meter that every loop and every operation on long values passes by.
//! Counts; must never happen here: looking at a clock, which would make one input give two results.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::ExecutionError;
use cel::common::types::{CelBytes, CelList, CelMap, CelString, Type};
use cel::common::value::{CowVal, StaticVal, Val};

/// The function that passes its second argument through and charges the meter, its first, for it. No expression can
/// spell the name.
pub(super) const TICK: &str = "@tick";

/// The variable that holds the meter.
pub(super) const METER: &str = "@meter";

/// The units of work one evaluation may do: about 200,000 turns of a loop.
pub(super) const BUDGET: u64 = 1_000_000;

/// What each tick costs, beside the weight of the value.
const TICK_UNITS: u64 = 4;

/// Counts the work of one evaluation.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    spent: Arc<AtomicU64>,
}

impl Meter {
    /// Whether the budget was used up.
    pub(super) fn is_exhausted(&self) -> bool {
        self.spent.load(Ordering::Relaxed) > BUDGET
    }

    fn charge(&self, value: &dyn Val) {
        let spent = self.spent.load(Ordering::Relaxed);
        let left = BUDGET.saturating_sub(spent);
        self.spent
            .store(spent.saturating_add(TICK_UNITS).saturating_add(weigh(value, left)), Ordering::Relaxed);
    }
}

impl Val for Meter {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        static METER_TYPE: Type = Type::new_unspecified_type(METER);
        &METER_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl StaticVal for Meter {}

/// `@tick(@meter, value)`: the value, once it is paid for.
pub(super) fn tick<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    let meter = arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    let meter = meter.downcast_ref::<Meter>().ok_or_else(ExecutionError::missing_argument_or_target)?;
    meter.charge(&*value);
    if meter.is_exhausted() { Err(ExecutionError::function_error(TICK, "too much work")) } else { Ok(value) }
}

/// How long a value takes to walk: one unit for each part, and for each 64 bytes of text. Stops above `most`.
fn weigh<'v>(value: &(dyn Val + 'v), most: u64) -> u64 {
    if let Some(text) = value.downcast_ref::<CelString<'v>>() {
        return 1 + text.inner().len() as u64 / 64;
    }
    if let Some(bytes) = value.downcast_ref::<CelBytes<'v>>() {
        return 1 + bytes.inner().len() as u64 / 64;
    }
    let mut weight = 1;
    if let Some(list) = value.downcast_ref::<CelList<'v>>() {
        for item in list.inner() {
            weight += weigh(&**item, most);
            if weight > most {
                break;
            }
        }
    } else if let Some(map) = value.downcast_ref::<CelMap<'v>>() {
        for (key, item) in map.inner() {
            weight += weigh(key.inner(), most) + weigh(&**item, most);
            if weight > most {
                break;
            }
        }
    }
    weight
}

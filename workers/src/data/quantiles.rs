//! Numbers in bounded memory: all of them up to a bound, beyond it an even choice, each of those kept standing for as many.
//! After Munro and Paterson 1980 and Manku, Rajagopalan and Lindsay 1998 ("Approximate Medians and other Quantiles in One Pass
//! and with Limited Memory"): sorted buffers of the same weight are merged, and every second number is kept, the odd and the even
//! ones in turn. No randomness: the same numbers in the same order give the same answer.
//!
//! Must never happen here: NaN.

/// How many numbers are gathered before they are sorted.
const BUFFER: usize = 1 << 16;
/// So many numbers are kept, or a buffer for every doubling beyond, whichever is more. All quantiles are exact up to this many
/// numbers; of 10 million, ranks are off by less than one in ten thousand.
const KEPT_MAX: usize = 1 << 19;

/// A number as one that is compared in a single instruction: in the order of [`f64::total_cmp`].
type Key = u64;

const SIGN: Key = 1 << 63;

fn key(number: f64) -> Key {
    let bits = number.to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn number(key: Key) -> f64 {
    f64::from_bits(if key & SIGN == 0 { !key } else { key & !SIGN })
}

/// Numbers, of which quantiles are asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quantiles {
    /// As [`Key`]s, here and below.
    fresh: Vec<Key>,
    /// Sorted; each number of the buffer stands for 2 to the power of its level.
    buffers: Vec<(u32, Vec<Key>)>,
    kept: usize,
    /// Whether the next merge keeps the odd ones.
    odd: bool,
    is_exact: bool,
    count: u64,
}

impl Quantiles {
    pub(crate) fn new() -> Self {
        Self { is_exact: true, ..Self::default() }
    }

    /// Takes numbers in.
    pub(crate) fn extend(&mut self, mut numbers: &[f64]) {
        self.count += numbers.len() as u64;
        while !numbers.is_empty() {
            let (now, later) = numbers.split_at(numbers.len().min(BUFFER - self.fresh.len()));
            self.fresh.extend(now.iter().map(|number| key(*number)));
            numbers = later;
            if self.fresh.len() == BUFFER {
                let mut full = std::mem::replace(&mut self.fresh, Vec::with_capacity(BUFFER));
                full.sort_unstable();
                self.kept += full.len();
                self.buffers.push((0, full));
                self.shrink();
            }
        }
    }

    fn shrink(&mut self) {
        while self.kept > KEPT_MAX {
            self.buffers.sort_by_key(|(level, _)| *level);
            let equal = self.buffers.windows(2).position(|pair| pair[0].0 == pair[1].0);
            let Some(first) = equal else { return };
            let (level, one) = self.buffers.remove(first);
            let (_, other) = self.buffers.remove(first);
            let before = one.len() + other.len();
            let merged = every_second(&one, &other, self.odd);
            self.odd = !self.odd;
            self.is_exact = false;
            self.kept -= before - merged.len();
            self.buffers.push((level + 1, merged));
        }
    }

    /// Whether nothing was left out.
    pub(crate) fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// The numbers that are kept, ascending, each once, with how many it stands for.
    pub(crate) fn points(&self) -> Vec<(f64, u64)> {
        let mut fresh = self.fresh.clone();
        fresh.sort_unstable();
        let fresh = fresh.into_iter().map(|key| (key, 1));
        let kept = self.buffers.iter().flat_map(|(level, keys)| keys.iter().map(|key| (*key, 1 << *level)));
        let mut points: Vec<(Key, u64)> = fresh.chain(kept).collect();
        // Merges what is in order already.
        points.sort_by_key(|(key, _)| *key);
        let mut points: Vec<(f64, u64)> = points.into_iter().map(|(key, many)| (number(key), many)).collect();
        points.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        points
    }
}

/// Merges two sorted lists and keeps every second number, the first one only if `odd`. Which list the next one comes from cannot be
/// foreseen, so nothing branches on it.
fn every_second(one: &[Key], other: &[Key], odd: bool) -> Vec<Key> {
    let mut merged = Vec::with_capacity((one.len() + other.len()) / 2 + 1);
    let (mut a, mut b, mut keep) = (0, 0, odd);
    while a < one.len() && b < other.len() {
        let (left, right) = (one[a], other[b]);
        let from_one = left <= right;
        if keep {
            merged.push(left.min(right));
        }
        a += usize::from(from_one);
        b += usize::from(!from_one);
        keep = !keep;
    }
    let rest = one[a..].iter().chain(&other[b..]);
    merged.extend(rest.skip(usize::from(!keep)).step_by(2));
    merged
}

/// The quantile at `share` of numbers that are ascending and stand for so many each: type 7 of Hyndman and Fan 1996, the
/// default of NumPy and R. None of nothing.
pub(crate) fn quantile(points: &[(f64, u64)], share: f64) -> Option<f64> {
    let count: u64 = points.iter().map(|(_, many)| many).sum();
    #[expect(clippy::cast_precision_loss, reason = "no table has 2 to the power of 53 rows")]
    let place = share * count.checked_sub(1)? as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and below the count"
    )]
    let (low, between) = (place.floor() as u64, place.fract());
    let mut up_to = 0;
    for (place, (number, many)) in points.iter().enumerate() {
        up_to += many;
        if up_to > low {
            let next =
                if up_to > low + 1 { *number } else { points.get(place + 1).map_or(*number, |next| next.0) };
            return Some(number + (next - number) * between);
        }
    }
    None
}

/// Fewer points that say about the same: at most `most`, each the middle one of as many numbers as any other; the least and
/// the greatest stay. True: nothing was lost.
pub(crate) fn thinned(points: Vec<(f64, u64)>, most: usize) -> (Vec<(f64, u64)>, bool) {
    if points.len() <= most {
        return (points, true);
    }
    let count: u64 = points.iter().map(|(_, many)| many).sum();
    let each = count.div_ceil(most.saturating_sub(2).max(1) as u64).max(1);
    let mut thin: Vec<(f64, u64)> = Vec::with_capacity(most);
    let last = points.len() - 1;
    // What lies between two points that are kept: how many, and the one in the middle of them.
    let (mut many, mut middle) = (0, 0.0);
    for (place, (number, here)) in points.into_iter().enumerate() {
        if place == 0 || place == last {
            if many > 0 {
                thin.push((middle, many));
            }
            thin.push((number, here));
            many = 0;
            continue;
        }
        if many < each.div_ceil(2) {
            middle = number;
        }
        many += here;
        if many >= each {
            thin.push((middle, many));
            many = 0;
        }
    }
    (thin, false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(numbers: &[f64]) -> Quantiles {
        let mut quantiles = Quantiles::new();
        numbers.chunks(8192).for_each(|chunk| quantiles.extend(chunk));
        quantiles
    }

    #[test]
    fn keys_are_in_the_order_of_numbers_and_come_back() {
        let numbers = [f64::NEG_INFINITY, -2.5, -1e-300, -0.0, 0.0, 1e-300, 2.5, f64::INFINITY];
        assert!(numbers.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
        assert!(numbers.iter().all(|it| number(key(*it)).to_bits() == it.to_bits()));
    }

    #[test]
    fn every_second_of_two_lists_is_every_second_of_all() {
        let lists: [(&[Key], &[Key]); 4] =
            [(&[1, 4, 5], &[2, 3]), (&[1, 2, 3], &[]), (&[], &[7, 8]), (&[5, 6, 7], &[1, 5, 9, 10])];
        for (one, other) in lists {
            let mut all = [one, other].concat();
            all.sort_unstable();
            for odd in [false, true] {
                let kept: Vec<Key> = all.iter().copied().skip(usize::from(!odd)).step_by(2).collect();
                assert_eq!(every_second(one, other, odd), kept);
            }
        }
    }

    #[test]
    fn few_numbers_are_kept_as_they_are() {
        let quantiles = of(&[3.0, 1.0, 2.0, 1.0]);
        assert!(quantiles.is_exact());
        assert_eq!(quantiles.points(), [(1.0, 2), (2.0, 1), (3.0, 1)]);
        // numpy.quantile([1, 1, 2, 3], [0, .25, .5, .75, 1]) = 1, 1, 1.5, 2.25, 3
        let at = |share| quantile(&quantiles.points(), share).unwrap();
        assert_eq!([at(0.0), at(0.25), at(0.5), at(0.75), at(1.0)], [1.0, 1.0, 1.5, 2.25, 3.0]);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_million_numbers_are_off_by_less_than_one_rank_in_ten_thousand() {
        const COUNT: u64 = 1_000_000;
        // A walk through all residues, far from sorted: 2654435761 is odd and no multiple of 5.
        let numbers: Vec<f64> = (0..COUNT).map(|k| ((k * 2_654_435_761) % COUNT) as f64).collect();
        for ordered in [false, true] {
            let mut numbers = numbers.clone();
            if ordered {
                numbers.sort_unstable_by(f64::total_cmp);
            }
            let quantiles = of(&numbers);
            assert!(!quantiles.is_exact());
            assert!(quantiles.kept + quantiles.fresh.len() <= KEPT_MAX + 8 * BUFFER, "{}", quantiles.kept);
            let points = quantiles.points();
            assert_eq!(points.iter().map(|(_, many)| many).sum::<u64>(), COUNT, "each stands for as many");
            for percent in 0..=100 {
                let share = f64::from(percent) / 100.0;
                let found = quantile(&points, share).unwrap();
                let off = (found - share * COUNT as f64).abs() / COUNT as f64;
                assert!(off < 1e-4, "{percent} %: {found}, off by {off}");
            }
        }
    }

    proptest! {
        #[test]
        fn thinning_keeps_the_ends_and_the_ranks(numbers in prop::collection::vec(-1000i32..1000, 1..4000)) {
            let numbers: Vec<f64> = numbers.into_iter().map(f64::from).collect();
            let points = of(&numbers).points();
            let (thin, all) = thinned(points.clone(), 100);
            prop_assert_eq!(all, points.len() <= 100);
            prop_assert!(thin.len() <= 100);
            prop_assert_eq!(thin.iter().map(|point| point.1).sum::<u64>(), numbers.len() as u64);
            prop_assert_eq!(thin.first().unwrap().0, points.first().unwrap().0);
            prop_assert_eq!(thin.last().unwrap().0, points.last().unwrap().0);
            prop_assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}

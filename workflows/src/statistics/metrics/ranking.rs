//! Metrics of the order in which the answers to a query are given.

use std::collections::BTreeMap;

use super::super::{Flaw, all_finite, as_long, enough, finite, within};

/// Rows that are answers to queries: how relevant each is, and its score.
#[derive(Clone, Debug)]
pub struct Queries {
    /// By the query's name, the rows from the greatest score.
    queries: BTreeMap<u64, Vec<Row>>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    relevance: f64,
    score: f64,
}

/// A metric of queries.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// The mean over the queries that have a value.
    pub mean: f64,
    /// Each query's value, in the order of their names; none where nothing is relevant, so that no order is better than another.
    pub queries: Vec<(u64, Option<f64>)>,
}

impl Queries {
    /// `of_rows` names the query of each row. Relevance is at least 0; 0 is "not relevant".
    ///
    /// # Errors
    /// [`Flaw::TooFew`] without a row, [`Flaw::Lengths`], [`Flaw::NotFinite`], [`Flaw::Outside`] for a negative relevance.
    pub fn of(of_rows: &[u64], relevance: &[f64], scores: &[f64]) -> Result<Self, Flaw> {
        enough("rows", of_rows.len(), 1)?;
        as_long("the relevances", relevance.len(), of_rows.len())?;
        as_long("the scores", scores.len(), of_rows.len())?;
        all_finite("the relevances", relevance)?;
        all_finite("the scores", scores)?;
        let mut queries: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
        for ((query, relevance), score) in of_rows.iter().zip(relevance).zip(scores) {
            within("a relevance", *relevance, 0.0, f64::MAX)?;
            queries.entry(*query).or_default().push(Row { relevance: *relevance, score: *score });
        }
        for rows in queries.values_mut() {
            rows.sort_by(|one, other| other.score.total_cmp(&one.score));
        }
        Ok(Self { queries })
    }

    /// Normalised discounted cumulative gain of the first `k` (Järvelin and Kekäläinen, ACM Trans. Inf. Syst. 20, 2002): gain is the
    /// relevance itself and not 2^relevance − 1, the discount 1/log₂(place + 1), and rows with the same score share their places, all as in
    /// scikit-learn's `ndcg_score`.
    ///
    /// # Errors
    /// [`Flaw::Undefined`] when no query has anything relevant, [`Flaw::Outside`] when `k` is 0.
    pub fn ndcg(&self, k: u32) -> Result<Ranked, Flaw> {
        self.each("ndcg", k, |rows, k| {
            let discount = |place: usize| 1.0 / (place as f64 + 2.0).log2();
            let mut ideal: Vec<f64> = rows.iter().map(|row| row.relevance).collect();
            ideal.sort_by(|one, other| other.total_cmp(one));
            let best: f64 =
                ideal.iter().take(k).enumerate().map(|(place, gain)| gain * discount(place)).sum();
            (best > 0.0).then(|| in_places(rows, k, |row| row.relevance, discount) / best)
        })
    }

    /// The share of the relevant rows that are among the first `k`; of rows with the same score, as many as there are places left are expected
    /// to be there.
    ///
    /// # Errors
    /// Those of [`Queries::ndcg`].
    pub fn recall(&self, k: u32) -> Result<Ranked, Flaw> {
        self.each("recall@k", k, |rows, k| {
            let relevant = |row: &Row| if row.relevance > 0.0 { 1.0 } else { 0.0 };
            let all: f64 = rows.iter().map(relevant).sum();
            (all > 0.0).then(|| in_places(rows, k, relevant, |_| 1.0) / all)
        })
    }

    fn each(
        &self,
        what: &'static str,
        k: u32,
        of: impl Fn(&[Row], usize) -> Option<f64>,
    ) -> Result<Ranked, Flaw> {
        within("k", f64::from(k), 1.0, f64::from(u32::MAX))?;
        let mut queries = Vec::with_capacity(self.queries.len());
        let (mut sum, mut count) = (0.0, 0_u64);
        for (query, rows) in &self.queries {
            let value = of(rows, k as usize).map(|value| finite(what, value)).transpose()?;
            if let Some(value) = value {
                sum += value;
                count += 1;
            }
            queries.push((*query, value));
        }
        if count == 0 {
            return Err(Flaw::Undefined { what, why: "no query has an answer that is relevant" });
        }
        Ok(Ranked { mean: sum / count as f64, queries })
    }
}

/// The sum over the first `k` places of what stands there, by the worth of the place; rows with the same score share theirs.
fn in_places(rows: &[Row], k: usize, of: impl Fn(&Row) -> f64, worth: impl Fn(usize) -> f64) -> f64 {
    let (mut sum, mut place) = (0.0, 0);
    for ties in rows.chunk_by(|one, other| one.score == other.score) {
        if place >= k {
            break;
        }
        let places: f64 = (place..(place + ties.len()).min(k)).map(&worth).sum();
        sum += ties.iter().map(&of).sum::<f64>() / ties.len() as f64 * places;
        place += ties.len();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::close;
    use super::*;

    const QUERY: [u64; 12] = [7, 7, 7, 7, 7, 3, 3, 3, 3, 9, 9, 9];
    const RELEVANCE: [f64; 12] = [3.0, 0.0, 2.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
    const SCORE: [f64; 12] = [0.4, 0.9, 0.4, 0.1, 0.3, 0.2, 0.7, 0.2, 0.9, 0.1, 0.2, 0.3];

    /// scikit-learn 1.9.1: `ndcg_score([relevances], [scores], k=k)` of one query at a time.
    #[test]
    fn gain_agrees_with_scikit_learn() {
        let queries = Queries::of(&QUERY, &RELEVANCE, &SCORE).unwrap();
        for (k, third, seventh) in NDCG {
            let found = queries.ndcg(k).unwrap();
            assert_eq!(found.queries.iter().map(|(query, _)| *query).collect::<Vec<_>>(), [3, 7, 9]);
            close(found.queries[0].1.unwrap(), third, 1e-14);
            close(found.queries[1].1.unwrap(), seventh, 1e-14);
            assert_eq!(found.queries[2].1, None, "nothing is relevant to query 9");
            close(found.mean, f64::midpoint(third, seventh), 1e-14);
        }
    }

    const NDCG: [(u32, f64, f64); 4] = [
        (1, 0.0, 0.0),
        (2, 0.3868528072345415, 0.37010238870733153),
        (3, 0.5401396054259061, 0.5937437632688622),
        (10, 0.6721736667122016, 0.6749836248511395),
    ];

    #[test]
    fn recall_counts_what_is_found() {
        let queries = Queries::of(&QUERY, &RELEVANCE, &SCORE).unwrap();
        // Query 3: not, relevant, then one relevant and one not with the same score. Query 7: not, two relevant, not, relevant.
        for (k, third, seventh) in
            [(1, 0.0, 0.0), (2, 0.5, 1.0 / 3.0), (3, 0.75, 2.0 / 3.0), (5, 1.0, 1.0), (10_000, 1.0, 1.0)]
        {
            let found = queries.recall(k).unwrap();
            close(found.queries[0].1.unwrap(), third, 1e-15);
            close(found.queries[1].1.unwrap(), seventh, 1e-15);
        }
    }

    #[test]
    fn evidence_that_says_nothing_is_refused() {
        assert!(matches!(Queries::of(&[], &[], &[]), Err(Flaw::TooFew { .. })));
        assert!(matches!(Queries::of(&[1], &[1.0], &[]), Err(Flaw::Lengths { .. })));
        assert!(matches!(Queries::of(&[1], &[-1.0], &[0.0]), Err(Flaw::Outside { .. })));
        assert!(matches!(Queries::of(&[1], &[1.0], &[f64::NAN]), Err(Flaw::NotFinite { .. })));
        let nothing = Queries::of(&[1, 1], &[0.0, 0.0], &[0.1, 0.2]).unwrap();
        assert!(matches!(nothing.ndcg(10), Err(Flaw::Undefined { .. })));
        assert!(matches!(nothing.recall(10), Err(Flaw::Undefined { .. })));
        assert!(matches!(nothing.recall(0), Err(Flaw::Outside { .. })));
    }
}

//! `select`: the best instance of a matrix. Decided in the transition that settles the matrix.
//!
//! Must never happen here: an instance without a finite number winning, or a tie decided by anything but order.

use serde_json::json;

use super::*;
use crate::definition::{Select, SelectOrder};
use crate::expression::shorten;

/// How many instances that cannot be chosen are named.
const NAMED: usize = 3;

impl Run {
    /// Chooses, and takes over what the chosen instance handed on. Returns whether the step is settled: always.
    pub(super) fn start_select(&mut self, step: usize, select: &Select, at: Timestamp) -> bool {
        let how = match self.best(step, select) {
            Ok(results) => Settled::Succeeded { results },
            Err(reason) => Settled::Failed { reason },
        };
        self.conclude(step, at, how)
    }

    fn best(&self, step: usize, select: &Select) -> Result<Results, String> {
        let mut best: Option<(usize, &Results, f64)> = None;
        let (mut eligible, mut out) = (0, Vec::new());
        let base = self.scope(&select.by.references(), Some(step));
        for &place in self.instances(select.from).iter() {
            let Some(results) = self.steps[place].state.results() else { continue };
            match self.number_of(place, results, select, &base) {
                Err(why) => out.push(format!("{}: {why}", self.step_name(place))),
                Ok(number) => {
                    eligible += 1;
                    let better = best.is_none_or(|(_, _, so_far)| match select.order {
                        SelectOrder::Max => number > so_far,
                        SelectOrder::Min => number < so_far,
                    });
                    if better {
                        best = Some((place, results, number));
                    }
                }
            }
        }
        let more =
            if out.len() > NAMED { format!("; and {} more", out.len() - NAMED) } else { String::new() };
        let not_eligible = format!("{}{more}", out[..out.len().min(NAMED)].join("; "));
        let by = shorten(select.by.source());
        let Some((place, results, number)) = best else {
            let from = self.step_name(select.from);
            return Err(match out.is_empty() {
                true => format!("no instance of {from} succeeded: there is nothing to choose from"),
                false => format!("no instance of {from} has a number for `{by}`: {not_eligible}"),
            });
        };
        let end = match select.order {
            SelectOrder::Max => "highest",
            SelectOrder::Min => "lowest",
        };
        let mut reason = format!("{} has the {end} {by}: {number} (of {eligible})", self.step_name(place));
        if !out.is_empty() {
            reason.push_str(&format!("; not eligible: {not_eligible}"));
        }
        Ok(Results { reason: Some(reason), ..results.clone() })
    }

    /// What one instance is compared by.
    fn number_of(
        &self,
        place: usize,
        results: &Results,
        select: &Select,
        base: &crate::expression::Scope,
    ) -> Result<f64, String> {
        let mut scope = base.clone();
        scope.roots.insert("metrics".to_owned(), json!(results.metrics));
        scope.roots.insert("outputs".to_owned(), json!(results.outputs));
        scope.roots.insert("artifacts".to_owned(), json!(results.artifacts));
        scope.roots.insert("matrix".to_owned(), self.matrix_value(place).unwrap_or_default());
        let value = select.by.evaluate(&scope).map_err(|wrong| wrong.to_string())?;
        match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(number),
            None => Err(format!("`{}` is {value}, not a number", shorten(select.by.source()))),
        }
    }
}

//! The verb `evaluate` as an attempt: its table is laid out, counted on a thread of its own, and told in the log. Starts no process; must
//! never happen here: a metric counted (that is `crate::evaluate`), or an attempt that is over while its thread still counts.

use refit_workflows::wire::{EvaluateOrder, Failure, Handed, Outcome};

use super::{Attempt, Came, interrupted};
use crate::data::Source;
use crate::evaluate::{Evaluated, Stop, evaluate};
use crate::held::EndingSignal;

impl Attempt<'_> {
    /// Counts metrics of the candidate and of the champion.
    pub(super) async fn evaluate(&self, order: &EvaluateOrder, mut ending: EndingSignal) -> Came {
        let source = tokio::select! {
            source = Box::pin(self.predictions(order)) => source,
            came = interrupted(&mut ending, self.deadline) => return came,
        };
        let source = match source {
            Ok(source) => source,
            Err(reason) => return Came::CouldNotStart(reason),
        };
        self.set_up.is_over();
        let stop = Stop::default();
        let (mut told, stopped) = (order.clone(), stop.clone());
        told.examples.format = source.format;
        let path = source.path;
        let mut counting = tokio::task::spawn_blocking(move || evaluate(&path, &told, &stopped));
        let counted = tokio::select! {
            counted = &mut counting => counted,
            came = interrupted(&mut ending, self.deadline) => {
                stop.stop();
                let _ = counting.await;
                return came;
            }
        };
        Came::Called(match counted {
            Ok(Ok(evaluated)) => {
                self.tell(&evaluated);
                let Evaluated { metrics, evaluation } = evaluated;
                let evaluation = Some(Box::new(evaluation));
                Outcome::Succeeded(Handed { metrics, evaluation, ..Handed::default() })
            }
            Ok(Err(reason)) => {
                let reason = self.without_paths(&reason);
                self.log.say(&reason);
                Outcome::Failed { failure: Failure::InvalidData, reason }
            }
            Err(panic) => {
                let reason = format!("failed to evaluate: {panic}");
                self.log.say(&reason);
                Outcome::Failed { failure: Failure::CouldNotStart, reason }
            }
        })
    }

    async fn predictions(&self, order: &EvaluateOrder) -> Result<Source, String> {
        self.lay_out_code().await?;
        self.source(&order.predictions, order.examples.format, "predictions").await
    }

    fn tell(&self, evaluated: &Evaluated) {
        let champion = evaluated.evaluation.champion.as_ref();
        self.log.say(&format!("{} examples", evaluated.evaluation.examples));
        for (name, value) in &evaluated.metrics {
            match champion.and_then(|champion| champion.get(name)) {
                Some(theirs) => self.log.say(&format!("{name}: candidate {value:.6}, champion {theirs:.6}")),
                None => self.log.say(&format!("{name}: candidate {value:.6}")),
            }
        }
    }
}

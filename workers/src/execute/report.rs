//! Sends an attempt's log and live metrics while it runs, and the rest when it is over. A silent step costs no call.
//! Losing the orchestrator never holds the step up; what it may lose is the log's business.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use refit_workflows::wire::{Report, StepOrder};

use super::logs::Log;
use crate::client::{self, Orchestrator};
use crate::held::{Ending, Held};
use crate::outputs::Metrics;

/// How long lines are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(250);
/// How often the metrics' file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Chunks in one call.
const CHUNKS_MAX: usize = 4;
/// Values of metrics in one call.
const POINTS_MAX: usize = 2_000;
/// The pause before a refused call that may be accepted later.
const PAUSE: Duration = Duration::from_secs(1);

/// Reports on one attempt.
#[derive(Debug)]
pub(crate) struct Reporter<'a> {
    orchestrator: &'a Orchestrator,
    held: &'a Held,
    order: &'a StepOrder,
    log: &'a Log,
    /// The step's metrics; complete once it is over.
    pub(crate) metrics: Metrics,
    metrics_sent: BTreeMap<String, f64>,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(
        orchestrator: &'a Orchestrator,
        held: &'a Held,
        order: &'a StepOrder,
        log: &'a Log,
        metrics: PathBuf,
    ) -> Self {
        let metrics = Metrics::follow(metrics);
        Self { orchestrator, held, order, log, metrics, metrics_sent: BTreeMap::new() }
    }

    /// Reports until dropped. Dropping it in the middle of a call is harmless: chunks carry numbers.
    pub(crate) async fn live(&mut self) -> Infallible {
        loop {
            tokio::select! {
                () = self.log.bell.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(LOOK) => {}
            }
            self.metrics.read_more();
            if !self.send(false, true).await {
                return std::future::pending().await;
            }
        }
    }

    /// Sends what is left; with `metrics` also those that changed since the last call.
    pub(crate) async fn last_words(&mut self, metrics: bool) {
        self.metrics.read_more();
        self.send(true, metrics).await;
    }

    /// False once the attempt is known to be lost.
    async fn send(&mut self, over: bool, metrics: bool) -> bool {
        loop {
            let logs = self.log.unsent(CHUNKS_MAX, over);
            let changed = *self.metrics.latest() != self.metrics_sent;
            let points = self.metrics.unsent(POINTS_MAX).to_vec();
            if logs.is_empty() && points.is_empty() && !(metrics && changed) {
                return true;
            }
            let last = logs.last().map(|chunk| chunk.seq);
            let report = Report {
                key: self.order.key.clone(),
                attempt: self.order.attempt,
                logs,
                metrics: if changed { self.metrics.latest().clone() } else { BTreeMap::new() },
                checkpoint: None,
                points,
            };
            match client::persist(|| self.orchestrator.report(&report)).await {
                Err(refusal) if refusal.is_lost() => {
                    self.held.end(&self.order.key, Ending::Stop);
                    return false;
                }
                Err(client::CallError::Rejected { status, detail }) => {
                    tracing::error!(run = %self.order.key.run, step = self.order.key.step, status, detail,
                        "the orchestrator does not take a piece of the log; it is dropped");
                }
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Ok(()) => {}
            }
            if let Some(last) = last {
                self.log.sent(last);
            }
            self.metrics.sent(report.points.len());
            if changed {
                self.metrics_sent = report.metrics;
            }
        }
    }
}

//! Sends an attempt's log and live metrics while it runs; what is left then is for `untold` to send. A silent step costs no call.
//! Losing the orchestrator never holds the step up; what it may lose is the log's business.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use refit_workflows::wire::{Report, StepOrder};
use tokio::time::Instant;

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
/// From here on it is worth a call of its own how long an attempt took to be set up.
const SET_UP_TOLD: Duration = Duration::from_secs(1);
/// The pause before a refused call that may be accepted later.
const PAUSE: Duration = Duration::from_secs(1);

/// How long an attempt takes until its own work begins.
#[derive(Debug)]
pub(crate) struct SetUp {
    begun: Instant,
    took: OnceLock<Duration>,
}

impl SetUp {
    /// From now on.
    pub(crate) fn begin() -> Self {
        Self { begun: Instant::now(), took: OnceLock::new() }
    }

    /// The attempt's own work begins.
    pub(crate) fn is_over(&self) {
        // The first time counts.
        let _ = self.took.set(self.begun.elapsed());
    }

    fn took(&self) -> Option<Duration> {
        self.took.get().copied()
    }

    /// How long it took, in milliseconds; none while it is not over.
    pub(crate) fn took_ms(&self) -> Option<u64> {
        self.took().map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Reports on one attempt.
#[derive(Debug)]
pub(crate) struct Reporter<'a> {
    orchestrator: &'a Orchestrator,
    held: &'a Held,
    order: &'a StepOrder,
    log: &'a Log,
    set_up: &'a SetUp,
    set_up_told: bool,
    /// The step's metrics; complete once it is over.
    pub(crate) metrics: Metrics,
    metrics_sent: BTreeMap<String, f64>,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(
        orchestrator: &'a Orchestrator,
        held: &'a Held,
        order: &'a StepOrder,
        (log, set_up): (&'a Log, &'a SetUp),
        metrics: PathBuf,
    ) -> Self {
        let metrics = Metrics::follow(metrics);
        let (set_up_told, metrics_sent) = Default::default();
        Self { orchestrator, held, order, log, set_up, set_up_told, metrics, metrics_sent }
    }

    /// Reports until dropped. Dropping it in the middle of a call is harmless: chunks carry numbers.
    pub(crate) async fn live(&mut self) -> Infallible {
        loop {
            tokio::select! {
                () = self.log.bell.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(LOOK) => {}
            }
            self.metrics.read_more();
            while let Some(report) = self.next(false, true) {
                if !send(self.orchestrator, &report).await {
                    self.held.end(&self.order.key, Ending::Stop);
                    return std::future::pending().await;
                }
                self.sent(&report);
            }
        }
    }

    /// What is left to be sent once the attempt is over; with `metrics` also those that changed since the last call.
    pub(crate) fn rest(mut self, metrics: bool) -> Vec<Report> {
        self.metrics.read_more();
        let mut rest = Vec::new();
        while let Some(report) = self.next(true, metrics) {
            self.sent(&report);
            rest.push(report);
        }
        rest
    }

    /// What is worth a call now.
    fn next(&mut self, over: bool, metrics: bool) -> Option<Report> {
        let logs = self.log.unsent(CHUNKS_MAX, over);
        let changed = *self.metrics.latest() != self.metrics_sent;
        let points = self.metrics.unsent(POINTS_MAX).to_vec();
        let set_up = if self.set_up_told { None } else { self.set_up.took() };
        // The outcome, which comes next, tells it as well.
        let tell_set_up = !over && set_up.is_some_and(|took| took >= SET_UP_TOLD);
        if logs.is_empty() && points.is_empty() && !(metrics && changed) && !tell_set_up {
            return None;
        }
        Some(Report {
            key: self.order.key.clone(),
            attempt: self.order.attempt,
            logs,
            metrics: if changed { self.metrics.latest().clone() } else { BTreeMap::new() },
            checkpoint: None,
            points,
            set_up_ms: set_up.and_then(|_| self.set_up.took_ms()),
        })
    }

    fn sent(&mut self, report: &Report) {
        if let Some(last) = report.logs.last() {
            self.log.sent(last.seq);
        }
        self.set_up_told |= report.set_up_ms.is_some();
        self.metrics.sent(report.points.len());
        self.metrics_sent.clone_from(self.metrics.latest());
    }
}

/// Sends until it is taken, or will never be. False: the attempt is lost.
pub(super) async fn send(orchestrator: &Orchestrator, report: &Report) -> bool {
    loop {
        match client::persist(|| orchestrator.report(report)).await {
            Ok(()) => return true,
            Err(refusal) if refusal.is_lost() => return false,
            Err(client::CallError::Rejected { status, detail }) => {
                tracing::error!(run = %report.key.run, step = report.key.step, status, detail,
                    "the orchestrator does not take a piece of the log; it is dropped");
                return true;
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

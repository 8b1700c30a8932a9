//! What triggers and lanes are in the store: one suite, both databases. Time is set by hand and nothing happens by
//! itself, so that "an hour later" is exact and nothing is waited for.

use std::time::{Duration, Instant};

use refit_orchestrator::store::{ChangeError, Store};
use refit_tests::services::{self, Database};
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::run::{Input, Run};
use refit_workflows::time::Timestamp;
use refit_workflows::wire::*;
use serde_json::{Map, json};

use crate::house::{House, START, event};

mod gathering;
mod lanes;

impl House {
    async fn state(&self, name: &str) -> String {
        self.run(name).await.state
    }

    /// The states of a workflow's runs, by number.
    async fn states(&self, workflow: &str, count: i64) -> Vec<String> {
        let mut states = Vec::new();
        for number in 1..=count {
            states.push(self.state(&format!("{workflow}/{number}")).await);
        }
        assert!(self.store.load_run(&RunName::new(workflow, count + 1)).await.is_err(), "one run too many");
        states
    }

    async fn events(&self, run: &str) -> Vec<String> {
        let view = self.run(run).await;
        let events = view.events.unwrap();
        assert_eq!(view.event_count, events.len() as u64, "{run} counts what it lists");
        events
    }

    async fn lease(&self, run: &str, step: usize) {
        self.change(run, Input::Leased { step, worker: "w".to_owned(), session: "s".to_owned() }).await;
    }

    async fn finish(&self, run: &str, step: usize, outcome: Outcome) {
        let epoch = self.store.load_run(&run.parse().unwrap()).await.unwrap().steps()[step].epoch;
        self.change(run, Input::Finished { step, epoch, outcome, set_up_ms: None }).await;
        self.look().await;
    }

    /// Runs a run of one step to its end.
    async fn complete(&self, run: &str) {
        self.lease(run, 0).await;
        self.finish(run, 0, success()).await;
    }

    /// What became of an event: each decision with its run.
    async fn decided(&self, id: &str) -> Vec<(String, String)> {
        let event = self.store.event(id, None).await.unwrap().remove(0);
        let run =
            |decision: &DecisionView| decision.run.as_ref().map(ToString::to_string).unwrap_or_default();
        event.decisions.iter().map(|decision| (decision.decision.clone(), run(decision))).collect()
    }

    async fn last_reason(&self, id: &str) -> String {
        let mut event = self.store.event(id, None).await.unwrap().remove(0);
        event.decisions.pop().and_then(|decision| decision.reason).unwrap_or_default()
    }

    async fn open_batches(&self, workflow: &str) -> Vec<OpenBatch> {
        self.store.workflow_view(workflow).await.unwrap().unwrap().open_batches
    }

    /// Replays a run's journal; gives the run as stored.
    async fn replayed(&self, database: &Database, run: &str) -> Run {
        let name: RunName = run.parse().unwrap();
        let stored = Store::open(database.url(), Vec::new()).await.unwrap().load_run(&name).await.unwrap();
        let mut again = Run::create(stored.workflow().clone(), stored.facts().clone());
        for (at, input) in self.store.journal(&name).await.unwrap() {
            again.apply(&input, at).unwrap();
        }
        assert_eq!((again.head(), again.facts()), (stored.head(), stored.facts()));
        assert_eq!((again.steps(), again.version()), (stored.steps(), stored.version()));
        stored
    }
}

fn success() -> Outcome {
    Outcome::Succeeded(Handed::default())
}

fn failed() -> Outcome {
    Outcome::Failed { failure: Failure::Exit { code: 1 }, reason: "exit code 1".to_owned() }
}

fn pairs(decisions: &[(&str, &str)]) -> Vec<(String, String)> {
    decisions.iter().map(|(decision, run)| ((*decision).to_owned(), (*run).to_owned())).collect()
}

const COUNTED: &str = "
workflow: counted
on:
  - event: { type: [t] }
    batch: { count: 3 }
concurrency: { limit: 1, on_conflict: parallel }
steps:
  a: { run: [x] }
";

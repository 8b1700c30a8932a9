//! A store whose time is set by hand and to which nothing happens by itself, so that "an hour later" is exact and nothing
//! is waited for. What only one suite asks of it stands with that suite.

use std::time::Duration;

use refit_orchestrator::store::{Next, Store};
use refit_tests::services::Database;
use refit_workflows::definition::Workflow;
use refit_workflows::event::CloudEvent;
use refit_workflows::run::{Input, Run};
use refit_workflows::wire::RunView;
use serde_json::{Value, json};

/// When the tests begin, in milliseconds: 2027-01-15T08:00:00Z, far from the ends of time.
pub(crate) const START: i64 = 1_800_000_000_000;

/// A store, its clock in the test's hand.
pub(crate) struct House {
    pub(crate) store: Store,
}

impl House {
    pub(crate) async fn open(database: &Database) -> Self {
        let house = Self { store: Store::open(database.url(), Vec::new()).await.unwrap() };
        house.at(0);
        house
    }

    /// Sets the clock to this many seconds after the start; it goes on from there.
    pub(crate) fn at(&self, seconds: i64) {
        self.store.clock().follow(START + seconds * 1000);
    }

    pub(crate) async fn apply(&self, text: &str) {
        let workflow = Workflow::parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
        self.store.apply_workflow(None, workflow, "ada").await.unwrap();
    }

    /// Records an event; nobody looks at it yet.
    pub(crate) async fn record(&self, id: &str, kind: &str, data: Value) {
        self.store.record(vec![event(id, kind, data)], Vec::new()).await.unwrap();
    }

    pub(crate) async fn send(&self, id: &str, kind: &str, data: Value) {
        self.record(id, kind, data).await;
        self.look().await;
    }

    /// Does everything that is due.
    pub(crate) async fn look(&self) {
        for _ in 0..100 {
            let done = self.store.dispatch().await.unwrap();
            assert!(done.trouble.is_none(), "{:?}", done.trouble);
            if done.next == Next::Held {
                // Somebody who was refused something may still be rolling back.
                tokio::time::sleep(Duration::from_millis(5)).await;
            } else if done.next != Next::More && !done.hints.lanes {
                return;
            }
        }
        panic!("there is always something due");
    }

    pub(crate) async fn run(&self, name: &str) -> RunView {
        self.store.run_view(&name.parse().unwrap()).await.unwrap()
    }

    pub(crate) async fn change(&self, run: &str, input: Input) {
        let once = move |_: &Run| Ok(input.clone());
        self.store.change_run(&run.parse().unwrap(), once).await.unwrap();
    }
}

pub(crate) fn event(id: &str, kind: &str, data: Value) -> CloudEvent {
    let event = json!({ "id": id, "source": "/test", "type": kind, "subject": "s", "data": data });
    CloudEvent::parse(event).unwrap()
}

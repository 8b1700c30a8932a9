//! The record: whatever becomes of an event is told, in words people understand and in JSON that stays, on both
//! databases. Time is set by hand and nothing happens by itself.

use std::time::Duration;

use refit_orchestrator::store::{Deletion, EventFilter, Next, Store};
use refit_tests::services::{self, Database};
use refit_workflows::definition::Workflow;
use refit_workflows::event::CloudEvent;
use refit_workflows::run::{Input, Run};
use refit_workflows::wire::*;
use serde_json::{Map, Value, json};

mod command;
mod explain;
mod lists;
mod pause;

/// When the tests begin, in milliseconds: 2027-01-15T08:00:00Z.
const START: i64 = 1_800_000_000_000;

/// A store, its clock in the test's hand.
struct House {
    store: Store,
}

impl House {
    async fn open(database: &Database) -> Self {
        let house = Self { store: Store::open(database.url(), Vec::new()).await.unwrap() };
        house.at(0);
        house
    }

    /// Sets the clock to this many seconds after the start; it goes on from there.
    fn at(&self, seconds: i64) {
        self.store.clock().follow(START + seconds * 1000);
    }

    async fn apply(&self, text: &str) {
        let workflow = Workflow::parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
        self.store.apply_workflow(None, workflow, "ada").await.unwrap();
    }

    /// Records an event; nobody looks at it yet.
    async fn record(&self, id: &str, kind: &str, data: Value) {
        let event = json!({ "id": id, "source": "/test", "type": kind, "subject": "s", "data": data });
        self.store.record(vec![CloudEvent::parse(event).unwrap()], Vec::new()).await.unwrap();
    }

    async fn send(&self, id: &str, kind: &str, data: Value) {
        self.record(id, kind, data).await;
        self.look().await;
    }

    /// Does everything that is due.
    async fn look(&self) {
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

    async fn run(&self, name: &str) -> RunView {
        self.store.run_view(&name.parse().unwrap()).await.unwrap()
    }

    async fn exists(&self, run: &str) -> bool {
        self.store.load_run(&run.parse().unwrap()).await.is_ok()
    }

    async fn change(&self, run: &str, input: Input) {
        let once = move |_: &Run| Ok(input.clone());
        self.store.change_run(&run.parse().unwrap(), once).await.unwrap();
    }

    async fn workflow(&self, name: &str) -> WorkflowView {
        self.store.workflow_view(name).await.unwrap().unwrap()
    }

    async fn pause(&self, workflow: &str, reason: Option<&str>) {
        self.store.pause_workflow(workflow, "ada", reason).await.unwrap();
    }

    async fn resume(&self, workflow: &str) {
        self.store.resume_workflow(workflow).await.unwrap();
        self.look().await;
    }

    async fn delete(&self, workflow: &str, force: bool) -> Deletion {
        self.store.delete_workflow(workflow, force, "ada", Some("not needed")).await.unwrap().0
    }

    async fn start(&self, workflow: &str, id: &str) -> String {
        let event = json!({ "id": id, "source": "/people", "type": "refit.run.requested" });
        let event = CloudEvent::parse(event).unwrap();
        self.store.start_run(workflow, Map::new(), event, "manual").await.unwrap().0.to_string()
    }

    async fn explained(&self, id: &str) -> EventExplanation {
        self.store.explain_event(id, None, None).await.unwrap().remove(0)
    }

    /// The sentences about an event, with `T` for every time.
    async fn sentences(&self, id: &str) -> Vec<String> {
        let explained = self.explained(id).await;
        assert_eq!(explained.explanation.len(), explained.event.decisions.len());
        explained.explanation.iter().map(|sentence| timeless(sentence)).collect()
    }

    async fn decisions(&self, id: &str) -> Vec<String> {
        let explained = self.explained(id).await;
        explained.event.decisions.into_iter().map(|decision| decision.decision).collect()
    }

    /// The ids of the events that are listed.
    async fn list(&self, filter: EventFilter) -> Vec<String> {
        let filter = EventFilter { limit: if filter.limit == 0 { 100 } else { filter.limit }, ..filter };
        self.store.events(filter).await.unwrap().into_iter().map(|event| event.id).collect()
    }
}

/// A text with `T` in the place of every time.
fn timeless(text: &str) -> String {
    let words = text.split(' ').map(|word| match (word.find("2027-"), word.find('Z')) {
        (Some(from), Some(to)) if from < to => format!("{}T{}", &word[..from], &word[to + 1..]),
        (_, _) => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

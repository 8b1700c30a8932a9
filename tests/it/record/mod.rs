//! The record: whatever becomes of an event is told, in words people understand and in JSON that stays, on both
//! databases. Time is set by hand and nothing happens by itself.

use refit_orchestrator::store::{Deletion, EventFilter};
use refit_tests::services::{self, Database};
use refit_workflows::event::CloudEvent;
use refit_workflows::run::Input;
use refit_workflows::wire::*;
use serde_json::{Map, Value, json};

use crate::house::{House, START};

mod command;
mod explain;
mod lists;
mod pause;

impl House {
    async fn exists(&self, run: &str) -> bool {
        self.store.load_run(&run.parse().unwrap()).await.is_ok()
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
        self.store.start_run(workflow, Map::new(), event, "manual", false).await.unwrap().0.to_string()
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

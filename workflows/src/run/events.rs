//! The events a run sends: those of its `emit` steps and those of its own life.

use super::*;
use crate::definition::Emit;

impl Run {
    pub(super) fn start_emit(
        &mut self,
        step: usize,
        emit: &Emit,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match self.emitted_event(step, emit, at) {
            Ok(event) => {
                let reason = format!("emitted {} {}", event.kind(), event.id());
                effects.push(Effect::Emit(event));
                self.conclude(step, at, Settled::done(reason))
            }
            Err(reason) => self.conclude(step, at, Settled::Failed { reason }),
        }
    }

    fn emitted_event(&self, step: usize, emit: &Emit, at: Timestamp) -> Result<CloudEvent, String> {
        let scope = self.whole_scope(step);
        let kind = emit.kind.render_text(&scope).map_err(|wrong| format!("type: {wrong}"))?;
        let subject = match &emit.subject {
            Some(subject) => Some(subject.render_text(&scope).map_err(|wrong| format!("subject: {wrong}"))?),
            None => None,
        };
        let mut data = Map::new();
        for (name, template) in &emit.data {
            data.insert(
                name.clone(),
                template.render(&scope).map_err(|wrong| format!("data.{name}: {wrong}"))?,
            );
        }
        // The version makes a step that runs again after a retry a new event.
        let id = format!("{}/{}/{}", self.facts.name, self.step_name(step), self.version);
        let event =
            CloudEvent::new(&id, &self.event_source(), &kind, subject.as_deref(), at, Value::Object(data));
        CloudEvent::parse(Value::Object(event.attributes().clone())).map_err(|wrong| wrong.to_string())
    }

    pub(super) fn event_source(&self) -> String {
        format!("/refit/workflows/{}", self.workflow.name)
    }

    /// One of Refit's own events; its id names the run and the input that caused it.
    pub(super) fn lifecycle_event(
        &self,
        kind: &str,
        subject: &str,
        at: Timestamp,
        data: Value,
    ) -> CloudEvent {
        let id = format!("{}/{}", self.facts.name, self.version);
        CloudEvent::new(&id, &self.event_source(), kind, Some(subject), at, data)
    }
}

//! Which events arrive in a simulation, and when: those of a file at their `time`, those of a server's log when it received
//! them. In the order of arrival. Must never happen here: an event left out or put in that the server would not have.

use std::path::Path;

use anyhow::Context as _;
use refit_workflows::event::CloudEvent;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::EventView;
use serde_json::Value;

use crate::client::Client;
use crate::commands::event_file::EventFile;
use crate::exit::Usage;
use crate::render::count;

/// The most events one simulation takes.
const EVENTS_MAX: usize = 1_000_000;
/// How many events one request asks for.
const PAGE: usize = 500;

/// An event that arrives.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) at: Timestamp,
    pub(super) event: CloudEvent,
}

/// The events of a file, `-` for standard input, in the order of their `time`. One without `time` arrives with the one
/// before it; those at the beginning with the first that has one, all at `now` where none has.
///
/// # Errors
/// The file cannot be read, or holds something else, with its line.
pub(super) async fn from_file(file: &Path, now: Timestamp) -> anyhow::Result<Vec<Arrival>> {
    let (mut reader, _) = EventFile::open(file)?;
    let name = file.display().to_string();
    // Reading may block (a pipe that is slow to fill), so it is done where blocking is allowed.
    let read = tokio::task::spawn_blocking(move || {
        let mut events = Vec::new();
        while let Some(found) = reader.next()? {
            events.push(found.event);
            bounded(events.len())?;
        }
        anyhow::Ok(events)
    });
    let events =
        read.await.context("failed to read events")?.with_context(|| format!("failed to read {name}"))?;
    Ok(in_order(events, now))
}

fn in_order(events: Vec<CloudEvent>, now: Timestamp) -> Vec<Arrival> {
    let mut at = events.iter().find_map(CloudEvent::time).unwrap_or(now);
    let arrival = |event: CloudEvent| {
        at = event.time().unwrap_or(at);
        Arrival { at, event }
    };
    let mut arrivals: Vec<Arrival> = events.into_iter().map(arrival).collect();
    // Stable: what arrives at one moment stays in the order of the file.
    arrivals.sort_by_key(|arrival| arrival.at);
    arrivals
}

/// The events that a server received since then, without its own: what runs and schedules say follows from the others.
///
/// # Errors
/// The server is not reachable, or refuses.
pub(super) async fn from_history(client: &Client, since: Timestamp) -> anyhow::Result<Vec<Arrival>> {
    let mut arrivals = Vec::new();
    let mut after = None;
    loop {
        let mut query = vec![
            ("order", "oldest".to_owned()),
            ("data", "true".to_owned()),
            ("outside", "true".to_owned()),
            ("since", since.to_string()),
            ("limit", PAGE.to_string()),
        ];
        query.extend(after.map(|after: i64| ("after", after.to_string())));
        let page = client.events(&query).await.context("failed to read the server's events")?;
        let Some(last) = page.last() else { break };
        after = Some(last.seq);
        for view in page {
            arrivals.push(Arrival { at: view.received_at, event: whole(view)? });
        }
        bounded(arrivals.len())?;
    }
    // Several orchestrators may differ by milliseconds in what they write first.
    arrivals.sort_by_key(|arrival| arrival.at);
    Ok(arrivals)
}

/// The event as it was sent.
fn whole(view: EventView) -> anyhow::Result<CloudEvent> {
    let mut object = view.attributes.unwrap_or_default();
    let named = [("id", Some(view.id)), ("source", Some(view.source)), ("type", Some(view.kind))];
    for (name, text) in named.into_iter().chain([("subject", view.subject)]) {
        object.extend(text.map(|text| (name.to_owned(), Value::from(text))));
    }
    object.extend(view.data.map(|data| ("data".to_owned(), data)));
    CloudEvent::parse(Value::Object(object)).context("the server's log holds something that is no event")
}

fn bounded(events: usize) -> anyhow::Result<()> {
    if events > EVENTS_MAX {
        let most = count(EVENTS_MAX as u64, "event");
        return Err(Usage(format!("a simulation takes at most {most}: take a part of them")).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(id: &str, time: Option<&str>) -> CloudEvent {
        let mut event = json!({ "id": id, "source": "s", "type": "t" });
        if let Some(time) = time {
            event["time"] = json!(format!("2026-01-05T{time}:00Z"));
        }
        CloudEvent::parse(event).unwrap()
    }

    #[test]
    fn events_arrive_by_their_time_and_those_without_one_with_the_one_before() {
        let now = Timestamp::parse("2026-02-01T00:00:00Z").unwrap();
        let order = |events: Vec<CloudEvent>| -> Vec<(String, String)> {
            let arrivals = in_order(events, now);
            let shown = |arrival: &Arrival| {
                (arrival.event.id().to_owned(), arrival.at.to_string()[11..16].to_owned())
            };
            arrivals.iter().map(shown).collect()
        };
        let mixed = vec![
            event("a", None),
            event("b", Some("09:00")),
            event("c", None),
            event("d", Some("08:00")),
            event("e", Some("08:00")),
            event("f", None),
            event("g", Some("09:00")),
        ];
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(id, at)| ((*id).to_owned(), (*at).to_owned())).collect()
        };
        assert_eq!(
            order(mixed),
            pairs(&[
                ("d", "08:00"),
                ("e", "08:00"),
                ("f", "08:00"),
                ("a", "09:00"),
                ("b", "09:00"),
                ("c", "09:00"),
                ("g", "09:00")
            ])
        );
        assert_eq!(order(vec![event("b", None), event("a", None)]), pairs(&[("b", "00:00"), ("a", "00:00")]));
    }

    #[test]
    fn an_event_of_the_log_is_what_was_sent() {
        let sent = json!({
            "specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "u", "region": "eu", "attempt": 3,
            "time": "2026-01-05T09:00:00.123456+01:00", "datacontenttype": "application/json", "data": { "rows": 1 },
        });
        let mut attributes = sent.as_object().unwrap().clone();
        for given in ["id", "source", "type", "subject", "data"] {
            attributes.remove(given);
        }
        let view = json!({
            "seq": 7, "id": "1", "source": "s", "type": "t", "subject": "u", "time": "2026-01-05T08:00:00.123Z",
            "received_at": "2026-01-05T08:00:01Z", "data": { "rows": 1 }, "attributes": attributes, "decisions": [],
        });
        let event = whole(serde_json::from_value(view).unwrap()).unwrap();
        assert_eq!(event, CloudEvent::parse(sent).unwrap());
    }
}

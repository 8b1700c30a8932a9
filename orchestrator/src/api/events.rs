//! Events over HTTP: sending (one CloudEvent or a batch) and looking. A batch is stored whole or not at all.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use refit_workflows::event::CloudEvent;
use refit_workflows::format::{Delivery, Format, HTTP_ATTRIBUTE_PREFIX, Malformed, Transport};
use refit_workflows::names::RunName;
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::DECISIONS;
use refit_workflows::wire::{Accepted, EventExplanation, EventView};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::extract::{Params, media_type, read_body, unsupported_media_type};
use super::problem::Problem;
use crate::engine::{Engine, EventFilter};

/// The most rows a listing answers, and how many when the request does not say.
const LIMIT_MAX: i64 = 1000;
const LIMIT_DEFAULT: i64 = 100;

/// Checks the `limit` of a listing; above the bound it means the bound.
pub(super) fn limit(asked: Option<i64>) -> Result<i64, Problem> {
    match asked {
        None => Ok(LIMIT_DEFAULT),
        Some(limit) if limit >= 1 => Ok(limit.min(LIMIT_MAX)),
        Some(_) => Err(Problem::invalid("`limit` must be at least 1").field("limit")),
    }
}

pub(super) async fn send(
    State(engine): State<Engine>,
    request: Request,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let headers = request.headers().clone();
    check_media_type(&headers)?;
    let body = read_body(request).await?;
    let events = engine.record_promptly(read(&headers, &body)?, Vec::new()).await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { events })))
}

/// Before a byte of the body is read: with attributes among the headers it may be anything, else it is JSON.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let is_binary = headers.keys().any(|name| name.as_str().starts_with(HTTP_ATTRIBUTE_PREFIX));
    match media_type(headers).as_deref() {
        Some("application/json" | "application/cloudevents+json" | "application/cloudevents-batch+json") => {
            Ok(())
        }
        _ if is_binary => Ok(()),
        _ => Err(unsupported_media_type(
            "application/json, application/cloudevents+json or application/cloudevents-batch+json, unless headers ce-id, \
             ce-source and ce-type hold the event's attributes",
        )),
    }
}

/// An event that was given as JSON.
pub(super) fn event(value: Value) -> Result<CloudEvent, Problem> {
    CloudEvent::parse_from_outside(value).map_err(|wrong| {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "event-invalid", wrong.message);
        match wrong.field {
            None => problem,
            Some(field) => problem.field(field),
        }
    })
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Vec<CloudEvent>, Problem> {
    let mut given = Map::new();
    let is_read = |name: &str| name.starts_with(HTTP_ATTRIBUTE_PREFIX) || name == header::CONTENT_ENCODING;
    for name in headers.keys().filter(|name| is_read(name.as_str())) {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        given.insert(name.as_str().to_owned(), Value::from(values.collect::<Vec<_>>().join(", ")));
    }
    let delivery = Delivery {
        transport: Transport::Http,
        source: "", // events say their own
        content_type: headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()),
        headers: &given,
        properties: &Map::new(),
        body,
    };
    Format::CloudEvents.read(&delivery).map_err(refused)
}

fn refused(malformed: Malformed) -> Problem {
    let Malformed { message, field, position } = malformed;
    let bad = |kind| Problem::new(StatusCode::BAD_REQUEST, kind, message);
    match (position, field) {
        (Some((line, column)), _) => bad("malformed-json").at(line, column),
        (None, Some(field)) => bad("event-invalid").field(field),
        (None, None) => bad("invalid"),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    #[serde(rename = "type")]
    kind: Option<String>,
    source: Option<String>,
    subject: Option<String>,
    unmatched: Option<String>,
    decision: Option<String>,
    workflow: Option<String>,
    run: Option<String>,
    since: Option<Timestamp>,
    limit: Option<i64>,
    outside: Option<String>,
    order: Option<String>,
    after: Option<i64>,
    data: Option<String>,
}

/// The order of a listing in a query.
pub(super) fn oldest_first(given: Option<&str>) -> Result<bool, Problem> {
    match given {
        None | Some("newest") => Ok(false),
        Some("oldest") => Ok(true),
        Some(_) => Err(Problem::invalid("`order` must be newest or oldest").field("order")),
    }
}

/// A yes or no in a query; bare, it is a yes.
pub(super) fn flag(name: &str, given: Option<&str>) -> Result<bool, Problem> {
    match given {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(_) => Err(Problem::invalid(format!("`{name}` must be true or false")).field(name)),
    }
}

/// A page of the log. `order=oldest&after=SEQ` goes through it from the beginning; it ends with an empty page, for with
/// `data` a page may be cut short of its `limit`.
pub(super) async fn list(
    State(engine): State<Engine>,
    Params(params): Params<ListParams>,
) -> Result<Json<Vec<EventView>>, Problem> {
    let unmatched = flag("unmatched", params.unmatched.as_deref())?;
    let decision = params.decision;
    if unmatched && decision.is_some() {
        return Err(
            Problem::invalid("`unmatched` asks for a decision itself: leave one out").field("decision")
        );
    }
    if let Some(decision) = &decision
        && !DECISIONS.contains(&decision.as_str())
    {
        return Err(Problem::invalid("`decision` is no decision about an event")
            .field("decision")
            .hint(format!("the decisions are: {}", DECISIONS.join(", "))));
    }
    let run = params.run.map(|run| run.parse::<RunName>()).transpose();
    let run = run.map_err(|wrong| Problem::invalid(wrong).field("run"))?;
    let filter = EventFilter {
        kind: params.kind,
        source: params.source,
        subject: params.subject,
        decision,
        unmatched,
        workflow: params.workflow,
        run,
        outside: flag("outside", params.outside.as_deref())?,
        oldest_first: oldest_first(params.order.as_deref())?,
        after: params.after,
        data: flag("data", params.data.as_deref())?,
        since: params.since,
        limit: limit(params.limit)?,
    };
    Ok(Json(engine.events(filter).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ByIdParams {
    id: String,
    source: Option<String>,
}

pub(super) async fn by_id(
    State(engine): State<Engine>,
    Params(params): Params<ByIdParams>,
) -> Result<Json<Vec<EventView>>, Problem> {
    some(engine.event(&params.id, params.source.as_deref()).await?, &params.id)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainParams {
    id: String,
    source: Option<String>,
    workflow: Option<String>,
}

pub(super) async fn explain(
    State(engine): State<Engine>,
    Params(params): Params<ExplainParams>,
) -> Result<Json<Vec<EventExplanation>>, Problem> {
    let (source, workflow) = (params.source.as_deref(), params.workflow.as_deref());
    some(engine.explain_event(&params.id, source, workflow).await?, &params.id)
}

/// The events with an id, of which there must be one.
fn some<T>(found: Vec<T>, id: &str) -> Result<Json<Vec<T>>, Problem> {
    if found.is_empty() {
        let shown: String = id.chars().take(100).collect();
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", format!("there is no event `{shown}`")));
    }
    Ok(Json(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"id": "1", "source": "/s", "type": "t"}"#;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_bad_event_is_named_by_place_and_field() {
        for (body, kind, field) in [
            (r#"{"id": "1", "source": "/s"}"#.to_owned(), "event-invalid", Some("type")),
            (r#"{"id": "1", "source": "/s", "type": ""}"#.to_owned(), "event-invalid", Some("type")),
            (
                format!(r#"[{GOOD}, {GOOD}, {{"id": "4", "source": "/s"}}]"#),
                "event-invalid",
                Some("[2].type"),
            ),
            (format!("[{GOOD}, 7]"), "event-invalid", Some("[1]")),
            (format!("[{}]", vec![GOOD; 1001].join(",")), "invalid", None),
            ("7".to_owned(), "invalid", None),
            ("{\"id\": 1,}".to_owned(), "malformed-json", None),
            ("{\"id\": 1e999}".to_owned(), "malformed-json", None),
            (String::new(), "malformed-json", None),
        ] {
            let problem =
                read(&headers(&[("content-type", "application/json")]), body.as_bytes()).unwrap_err();
            let details = problem.details();
            assert_eq!((details.status, details.kind.as_str()), (400, kind), "{}", details.detail);
            assert_eq!((details.field.as_deref(), details.line.is_some()), (field, kind == "malformed-json"));
        }
    }

    #[test]
    fn attributes_come_from_headers() {
        let attributes =
            [("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t"), ("ce-subject", "Z%C3%BCrich")];
        let event = read(&headers(&attributes), b"[1]").unwrap().remove(0);
        assert_eq!(
            (event.id(), event.subject(), event.data()),
            ("1", Some("Zürich"), &serde_json::json!([1]))
        );
        let mut twice = headers(&attributes);
        twice.append("ce-subject", "Bern".parse().unwrap());
        assert_eq!(read(&twice, b"").unwrap()[0].subject(), Some("Zürich, Bern"));
        let mut broken = headers(&attributes);
        broken.insert("ce-subject", axum::http::HeaderValue::from_bytes(b"Z\xfcrich").unwrap());
        let problem = read(&broken, b"").unwrap_err();
        assert_eq!(problem.details().field.as_deref(), Some("subject"));
        let zipped = headers(&[("content-type", "application/json"), ("content-encoding", "gzip")]);
        assert!(read(&zipped, b"x").unwrap_err().details().detail.contains("uncompressed"));
    }

    #[test]
    fn other_content_types_are_for_events_with_their_attributes_in_headers() {
        for (content_type, is_json) in [
            ("application/json; charset=utf-8", true),
            ("application/cloudevents+json", true),
            ("application/cloudevents-batch+json", true),
            ("application/json; charset=utf-16", false),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
        ] {
            let plain = check_media_type(&headers(&[("content-type", content_type)]));
            assert_eq!(plain.err().map(|problem| problem.details().status), (!is_json).then_some(415));
            assert!(check_media_type(&headers(&[("content-type", content_type), ("ce-id", "1")])).is_ok());
        }
    }

    #[test]
    fn limits_are_bounded() {
        assert_eq!(limit(None).ok(), Some(LIMIT_DEFAULT));
        assert_eq!(limit(Some(1_000_000_000)).ok(), Some(LIMIT_MAX));
        assert_eq!(limit(Some(-1)).unwrap_err().details().field.as_deref(), Some("limit"));
    }
}

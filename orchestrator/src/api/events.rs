//! Events over HTTP: sending (one CloudEvent or a batch) and looking. A batch is stored whole or not at all.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::DECISIONS;
use refit_workflows::wire::{Accepted, EventExplanation, EventView};
use serde::Deserialize;
use serde_json::Value;

use super::extract::{Params, media_type, parse_json, read_body, unsupported_media_type};
use super::problem::Problem;
use crate::engine::{Engine, EventFilter};

/// The most events one request may carry.
const EVENTS_MAX: usize = 1000;

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
    let form = Form::of(&headers)?;
    let body = read_body(request).await?;
    let events = engine.record(form.parse(&body)?, Vec::new()).await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { events })))
}

/// How a request carries its events (CloudEvents 1.0.2, HTTP protocol binding and JSON format).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `application/cloudevents+json`: one event.
    One,
    /// `application/cloudevents-batch+json`: an array.
    Batch,
    /// `application/json`: either.
    Either,
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        match media_type(headers).as_deref() {
            Some("application/cloudevents+json") => Ok(Self::One),
            Some("application/cloudevents-batch+json") => Ok(Self::Batch),
            Some("application/json") => Ok(Self::Either),
            _ => Err(unsupported_media_type(
                "application/json, application/cloudevents+json or application/cloudevents-batch+json",
            )),
        }
    }

    fn parse(self, body: &[u8]) -> Result<Vec<CloudEvent>, Problem> {
        match (self, parse_json(body)?) {
            (Self::One | Self::Either, value @ Value::Object(_)) => Ok(vec![event(value, None)?]),
            (Self::Batch | Self::Either, Value::Array(values)) => {
                if values.len() > EVENTS_MAX {
                    return Err(Problem::invalid(format!(
                        "the array holds {} events; {EVENTS_MAX} is the most one request may carry",
                        values.len()
                    ))
                    .hint("send them in several requests: a repeated (source, id) is stored once"));
                }
                values.into_iter().enumerate().map(|(place, value)| event(value, Some(place))).collect()
            }
            (Self::One, _) => Err(Problem::invalid("the body must be one CloudEvent: a JSON object")),
            (Self::Batch, _) => Err(Problem::invalid("the body must be a JSON array of CloudEvents")),
            (Self::Either, _) => Err(Problem::invalid(
                "the body must be a CloudEvent (a JSON object) or an array of CloudEvents",
            )),
        }
    }
}

fn event(value: Value, place: Option<usize>) -> Result<CloudEvent, Problem> {
    CloudEvent::parse_from_outside(value).map_err(|wrong| {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "event-invalid", wrong.message);
        match (place, wrong.field) {
            (None, None) => problem,
            (None, Some(field)) => problem.field(field),
            (Some(place), None) => problem.field(format!("[{place}]")),
            (Some(place), Some(field)) => problem.field(format!("[{place}].{field}")),
        }
    })
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
    let oldest_first = match params.order.as_deref() {
        None | Some("newest") => false,
        Some("oldest") => true,
        Some(_) => return Err(Problem::invalid("`order` must be newest or oldest").field("order")),
    };
    let decision = match (flag("unmatched", params.unmatched.as_deref())?, params.decision) {
        (true, None) => Some("unmatched".to_owned()),
        (true, Some(other)) if other != "unmatched" => {
            return Err(Problem::invalid("`unmatched` is a decision itself: leave one out").field("decision"));
        }
        (_, decision) => decision,
    };
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
        workflow: params.workflow,
        run,
        outside: flag("outside", params.outside.as_deref())?,
        oldest_first,
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

    fn refused(form: Form, body: &str) -> (u16, Option<String>) {
        let problem = form.parse(body.as_bytes()).expect_err(body);
        (problem.details().status, problem.details().field.clone())
    }

    #[test]
    fn the_content_type_says_how_many_events_there_are() {
        let array = format!("[{GOOD}, {GOOD}]");
        for (form, body, count) in [
            (Form::One, GOOD, 1),
            (Form::Either, GOOD, 1),
            (Form::Either, array.as_str(), 2),
            (Form::Batch, array.as_str(), 2),
            (Form::Batch, "[]", 0),
        ] {
            assert_eq!(form.parse(body.as_bytes()).unwrap().len(), count, "{form:?} {body}");
        }
        assert_eq!(refused(Form::One, &array), (400, None));
        assert_eq!(refused(Form::Batch, GOOD), (400, None));
        assert_eq!(refused(Form::Either, "3"), (400, None));
    }

    #[test]
    fn a_bad_event_is_named_by_place_and_field() {
        for (body, field) in [
            (r#"{"id": "1", "source": "/s"}"#.to_owned(), Some("type")),
            (r#"{"id": "1", "source": "/s", "type": ""}"#.to_owned(), Some("type")),
            (r#"{"id": 1, "source": "/s", "type": "t"}"#.to_owned(), Some("id")),
            (r#"{"id": "1", "source": "/s", "type": "t", "time": "noon"}"#.to_owned(), Some("time")),
            (format!(r#"[{GOOD}, {GOOD}, {GOOD}, {{"id": "4", "source": "/s"}}]"#), Some("[3].type")),
            (format!("[{GOOD}, 7]"), Some("[1]")),
            (format!("[{}]", vec![GOOD; 1001].join(",")), None),
            ("{\"id\": 1,}".to_owned(), None),
            ("{\"id\": 1e999}".to_owned(), None),
            (String::new(), None),
        ] {
            let shown: String = body.chars().take(60).collect();
            assert_eq!(refused(Form::Either, &body), (400, field.map(str::to_owned)), "{shown}");
        }
        assert_eq!(
            Form::Either.parse(format!("[{}]", vec![GOOD; 1000].join(",")).as_bytes()).unwrap().len(),
            1000
        );
    }

    #[test]
    fn other_content_types_are_refused() {
        for (content_type, form) in [
            ("application/json; charset=utf-8", Some(Form::Either)),
            ("application/cloudevents+json", Some(Form::One)),
            ("application/cloudevents-batch+json", Some(Form::Batch)),
            ("application/json; charset=utf-16", None),
            ("text/plain", None),
            ("application/x-www-form-urlencoded", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", content_type.parse().unwrap());
            match (Form::of(&headers), form) {
                (Ok(read), expected) => assert_eq!(Some(read), expected, "{content_type}"),
                (Err(problem), None) => assert_eq!(problem.details().status, 415),
                (Err(_), Some(_)) => panic!("{content_type} was refused"),
            }
        }
    }

    #[test]
    fn limits_are_bounded() {
        assert_eq!(limit(None).ok(), Some(LIMIT_DEFAULT));
        assert_eq!(limit(Some(1_000_000_000)).ok(), Some(LIMIT_MAX));
        assert_eq!(limit(Some(-1)).unwrap_err().details().field.as_deref(), Some("limit"));
    }
}

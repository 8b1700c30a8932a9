//! The one shape of an error: problem details (RFC 9457). The only place that knows which HTTP status an
//! [`EngineError`] has. Never lets the text of an unexpected error out: that goes to the log under an id.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use refit_workflows::wire::ProblemDetails;

use crate::engine::EngineError;
use crate::store::StoreError;

/// The media type of every error answer.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// How long a client should wait while the database is out of reach, in seconds.
const DATABASE_RETRY_AFTER: u64 = 2;

/// An error answer on its way to the client.
#[derive(Debug)]
pub(crate) struct Problem {
    // Boxed: it travels as the error half of every handler's result.
    details: Box<ProblemDetails>,
    retry_after: Option<u64>,
    challenge: Option<&'static str>,
}

impl Problem {
    /// A problem of this kind: a stable word for programs, whose title is the same word for people.
    pub(crate) fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        let mut title = kind.replace('-', " ");
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        Self {
            details: Box::new(ProblemDetails {
                kind: kind.to_owned(),
                title,
                status: status.as_u16(),
                detail: detail.into(),
                ..ProblemDetails::default()
            }),
            retry_after: None,
            challenge: None,
        }
    }

    /// 400 `invalid`: the request says something that cannot be meant.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    /// An unexpected error: the client gets an id, the log gets the error under this id.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        let id = uuid::Uuid::new_v4();
        tracing::error!(error_id = %id, "failed to answer a request: {error}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            format!("the orchestrator failed to answer; its log tells why under error_id {id}"),
        )
    }

    /// Names the field at fault.
    pub(crate) fn field(mut self, field: impl Into<String>) -> Self {
        self.details.field = Some(field.into());
        self
    }

    /// Says what would be right.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.details.hint = Some(hint.into());
        self
    }

    /// Points at a place in the body, both from 1.
    pub(crate) fn at(mut self, line: usize, column: usize) -> Self {
        self.details.line = u32::try_from(line).ok();
        self.details.column = u32::try_from(column).ok();
        self
    }

    /// Asks the client to come back after this many seconds.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Asks for a bearer token (RFC 6750, section 3).
    pub(crate) fn challenge(self) -> Self {
        self.challenge_with("Bearer realm=\"refit\"")
    }

    /// Asks for what this challenge says (RFC 9110, section 11.6.1).
    pub(crate) fn challenge_with(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// What the client will read.
    #[cfg(test)]
    pub(crate) fn details(&self) -> &ProblemDetails {
        &self.details
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::NotFound(detail) => Self::new(StatusCode::NOT_FOUND, "not-found", detail),
            EngineError::Refused { kind, detail } => Self::new(StatusCode::CONFLICT, kind, detail),
            EngineError::Over(detail) => Self::new(StatusCode::GONE, "over", detail),
            EngineError::Invalid { field, detail, hint } => {
                let mut problem = Self::invalid(detail);
                problem.details.field = field;
                problem.details.hint = hint;
                problem
            }
            EngineError::Malformed(detail) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "malformed", detail)
            }
            EngineError::Definition(problems) => {
                let mut problem = Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "definition-invalid",
                    format!("the workflow has {} problem(s)", problems.len()),
                );
                if let Some(first) = problems.0.first() {
                    problem.details.detail = match problems.len() {
                        1 => first.message.clone(),
                        several => format!("{} (the first of {several} problems)", first.message),
                    };
                    problem.details.line = Some(first.position.line);
                    problem.details.column = Some(first.position.column);
                    problem.details.hint.clone_from(&first.hint);
                }
                problem.details.problems = problems.0;
                problem
            }
            EngineError::Forbidden(detail) => Self::new(StatusCode::FORBIDDEN, "forbidden", detail),
            EngineError::Store(StoreError::Unavailable(cause) | StoreError::Conflict(cause)) => {
                tracing::debug!("answering 503: {cause}");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "database-unavailable",
                    format!(
                        "the database is out of reach or busy; Refit waits for it and goes on by itself: try again in \
                         {DATABASE_RETRY_AFTER} s"
                    ),
                )
                .retry_after(DATABASE_RETRY_AFTER)
            }
            EngineError::Store(StoreError::Blobs(cause)) => {
                tracing::warn!("answering 503: {cause}");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "blobs-unavailable", cause)
                    .retry_after(DATABASE_RETRY_AFTER)
            }
            EngineError::Store(error @ (StoreError::Corrupt(_) | StoreError::Broken(_))) => {
                Self::internal(&error)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.details.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.details)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use refit_workflows::definition::{Position, Problems};

    use super::*;

    fn definition_with(count: u32) -> EngineError {
        let one = |line| refit_workflows::definition::Problem {
            code: "unknown-key".to_owned(),
            message: format!("`nedes` in line {line} is not a key"),
            position: Position { line, column: 5, length: 5 },
            hint: Some("did you mean `needs`?".to_owned()),
            file: None,
        };
        EngineError::Definition(Problems((1..=count).map(|n| one(n * 10)).collect()))
    }

    #[test]
    fn every_engine_error_has_its_status_and_word() {
        let refused = EngineError::Refused { kind: "stale-lease", detail: "epoch 3 is over".to_owned() };
        let invalid =
            EngineError::Invalid { field: Some("alias".to_owned()), detail: "d".to_owned(), hint: None };
        for (error, status, kind) in [
            (EngineError::NotFound("no run churn/9".to_owned()), 404, "not-found"),
            (refused, 409, "stale-lease"),
            (EngineError::Over("done".to_owned()), 410, "over"),
            (invalid, 400, "invalid"),
            (EngineError::Malformed("not JSON".to_owned()), 422, "malformed"),
            (definition_with(1), 422, "definition-invalid"),
            (EngineError::Forbidden("not yours".to_owned()), 403, "forbidden"),
            (EngineError::Store(StoreError::Unavailable("refused".to_owned())), 503, "database-unavailable"),
            (EngineError::Store(StoreError::Conflict("deadlock".to_owned())), 503, "database-unavailable"),
            (EngineError::Store(StoreError::Blobs("the folder".to_owned())), 503, "blobs-unavailable"),
            (EngineError::Store(StoreError::Broken("no such column".to_owned())), 500, "internal"),
            (EngineError::Store(StoreError::Corrupt("row 3".to_owned())), 500, "internal"),
        ] {
            let problem = Problem::from(error);
            assert_eq!((problem.details().status, problem.details().kind.as_str()), (status, kind));
            let response = problem.into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 503, "{kind}");
        }
    }

    #[test]
    fn a_definition_shows_its_first_problem_and_carries_all() {
        let problem = Problem::from(definition_with(3));
        let details = problem.details();
        assert_eq!((details.line, details.column), (Some(10), Some(5)));
        assert_eq!(details.hint.as_deref(), Some("did you mean `needs`?"));
        assert_eq!(details.problems.len(), 3);
    }

    #[test]
    fn an_unexpected_error_keeps_its_text_to_itself() {
        let error = EngineError::Store(StoreError::Broken("password=hunter2".to_owned()));
        let details = Problem::from(error).details().clone();
        let text = serde_json::to_string(&details).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(details.detail.contains("error_id"), "{text}");
    }
}

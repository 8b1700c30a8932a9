//! `json`: any JSON, whose attributes a [`Mapping`] of CEL expressions gives. Every expression is bounded in size and
//! work like all others; must never happen here: an attribute left out because its expression failed.

use serde_json::{Map, Value};

use super::payload::{Shape, derived_id};
use super::{Delivery, Malformed, accept};
use crate::definition::diagnostics::closest;
use crate::event::CloudEvent;
use crate::expression::{Expression, ExpressionError, Scope, Type, Types, describe, shorten};

const SHAPE: Shape = Shape {
    what: "what this source's mapping reads",
    advice: "send JSON, or give the source another format",
};

/// Which expression gives which attribute of an event, over `headers`, `properties` and `body` (the parsed JSON) of a
/// [`Delivery`]. Each gives text; null, where the attribute may be missing: `has(body.day) ? body.day : null`.
#[derive(Clone, Debug)]
pub struct Mapping {
    kind: Expression,
    id: Option<Expression>,
    source: Option<Expression>,
    subject: Option<Expression>,
    time: Option<Expression>,
    data: Option<Expression>,
}

/// What is wrong with a mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{attribute}`: {error}")]
pub struct MappingProblem {
    /// The attribute whose expression it is.
    pub attribute: String,
    /// What is wrong, and where in the expression's text.
    pub error: ExpressionError,
}

impl Mapping {
    /// The attributes a mapping may give. `type` is required; without `id` it is the AMQP property `message_id`, the
    /// HTTP header `webhook-id` or `idempotency-key`, or else derived from source, type and body; without `source` it
    /// is the delivery's; without `data` it is the whole body.
    pub const ATTRIBUTES: [&str; 6] = ["type", "id", "source", "subject", "time", "data"];

    /// Reads a mapping, attribute by attribute with its expression.
    ///
    /// # Errors
    /// Everything that is wrong: an attribute that does not exist or is given twice, no `type`, an expression that is
    /// none or can never give what its attribute needs.
    pub fn parse<'t>(
        attributes: impl IntoIterator<Item = (&'t str, &'t str)>,
    ) -> Result<Self, Vec<MappingProblem>> {
        let mut problems = Vec::new();
        let mut slots: [Option<Expression>; 6] = Default::default();
        let mut is_given = [false; 6];
        for (name, text) in attributes {
            let mut report = |error| problems.push(MappingProblem { attribute: name.to_owned(), error });
            let Some(at) = Self::ATTRIBUTES.iter().position(|known| *known == name) else {
                report(unknown(name));
                continue;
            };
            if std::mem::replace(&mut is_given[at], true) {
                report(ExpressionError::new(format!("`{name}` is given twice")));
                continue;
            }
            match check(name, text) {
                Ok(expression) => slots[at] = Some(expression),
                Err(wrong) => wrong.into_iter().for_each(report),
            }
        }
        if !is_given[0] {
            problems.push(MappingProblem {
                attribute: "type".to_owned(),
                error: ExpressionError::new("an event needs a type").with_hint(
                    "give a text, as in \"'dataset.updated'\", or what the message says, as in \"body.kind\"",
                ),
            });
        }
        match slots {
            [Some(kind), id, source, subject, time, data] if problems.is_empty() => {
                Ok(Self { kind, id, source, subject, time, data })
            }
            _ => Err(problems),
        }
    }

    fn of(&self, attribute: &str) -> Option<&Expression> {
        match attribute {
            "type" => Some(&self.kind),
            "id" => self.id.as_ref(),
            "source" => self.source.as_ref(),
            "subject" => self.subject.as_ref(),
            "time" => self.time.as_ref(),
            "data" => self.data.as_ref(),
            _ => None,
        }
    }
}

fn unknown(name: &str) -> ExpressionError {
    let hint = match closest(name, Mapping::ATTRIBUTES) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("a mapping gives {}", Mapping::ATTRIBUTES.join(", ")),
    };
    ExpressionError::new("there is no such attribute").with_hint(hint)
}

/// Parses an attribute's expression and checks what it can give.
fn check(attribute: &str, text: &str) -> Result<Expression, Vec<ExpressionError>> {
    let expression = Expression::parse(text).map_err(|error| vec![error])?;
    if expression.reads_needs() {
        let error =
            ExpressionError::new("succeeded(), failed() and always() speak of steps: there are none here");
        return Err(vec![error]);
    }
    let types = Types::new()
        .with("headers", Type::map(Type::Dyn))
        .with("properties", Type::map(Type::Dyn))
        .with("body", Type::Dyn);
    let wanted = if attribute == "data" { Type::Dyn } else { Type::String };
    let typing = expression.check_as(&types, &wanted);
    if typing.problems.is_empty() {
        return Ok(expression);
    }
    let problems = typing.problems.into_iter().map(|problem| ExpressionError {
        message: problem.message,
        offset: Some(problem.offset),
        length: problem.length.max(1),
        hint: problem.hint,
    });
    Err(problems.collect())
}

pub(super) fn read(mapping: &Mapping, delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    let body = SHAPE.parse(delivery)?;
    let mut scope = Scope::default();
    scope.roots.insert("headers".to_owned(), Value::Object(delivery.headers.clone()));
    scope.roots.insert("properties".to_owned(), Value::Object(delivery.properties.clone()));
    scope.roots.insert("body".to_owned(), body.clone());

    let mut event = Map::new();
    for attribute in ["type", "id", "source", "subject", "time"] {
        if let Some(expression) = mapping.of(attribute)
            && let Some(text) = text(attribute, expression, &scope)?
        {
            event.insert(attribute.to_owned(), Value::from(text));
        }
    }
    event.entry("source").or_insert_with(|| Value::from(delivery.source));
    if !event.contains_key("id") {
        let id = given_id(delivery).map(str::to_owned);
        let id = id.unwrap_or_else(|| {
            let (source, kind) = (event.get("source").cloned(), event.get("type").cloned());
            derived_id(vec![source.into(), kind.into(), body.clone()].into())
        });
        event.insert("id".to_owned(), Value::from(id));
    }
    let data = match &mapping.data {
        Some(expression) => {
            expression.evaluate(&scope).map_err(|error| failed("data", expression, &error.message))?
        }
        None => body,
    };
    event.insert("data".to_owned(), data);

    let event = accept(Value::Object(event)).map_err(|wrong| {
        match wrong.field.as_deref().and_then(|field| Some((field, mapping.of(field)?))) {
            Some((field, expression)) => failed(field, expression, &wrong.message),
            None => Malformed { field: wrong.field, ..Malformed::new(wrong.message) },
        }
    })?;
    Ok(vec![event])
}

/// The id that the transport gives a message, the same when it is delivered again.
fn given_id<'a>(delivery: &Delivery<'a>) -> Option<&'a str> {
    let given = delivery.property("message_id");
    let given = given.or_else(|| delivery.header("webhook-id"));
    given.or_else(|| delivery.header("idempotency-key")).filter(|id| !id.is_empty())
}

/// The text an attribute's expression gives; none when it gives null.
fn text(attribute: &str, expression: &Expression, scope: &Scope) -> Result<Option<String>, Malformed> {
    match expression.evaluate(scope) {
        Ok(Value::String(text)) => Ok(Some(text)),
        Ok(Value::Null) if attribute != "type" => Ok(None),
        Ok(other) => {
            let hint = match other {
                Value::Bool(_) | Value::Number(_) => {
                    format!("; write string({})", shorten(expression.source()))
                }
                Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => String::new(),
            };
            let wrong = format!("must be text, but is {}{hint}", describe(&other));
            Err(failed(attribute, expression, &wrong))
        }
        Err(error) => Err(failed(attribute, expression, &error.message)),
    }
}

fn failed(attribute: &str, expression: &Expression, wrong: &str) -> Malformed {
    Malformed {
        field: Some(attribute.to_owned()),
        ..Malformed::new(format!(
            "the mapping of `{attribute}` (`{}`) gives none: {wrong}",
            shorten(expression.source())
        ))
    }
}

//! Text with `${{ expression }}` in it: how values reach names, arguments, variables and event data.
//!
//! A template that is one expression and nothing else keeps the value's type; otherwise values become text. Must never
//! happen here: a value that cannot be evaluated turning into empty text.

use serde_json::{Map, Value};

use crate::expression::{Expression, ExpressionError, Scope, describe, shorten};

const OPEN: &str = "${{";

/// The most expressions in one text.
const EXPRESSIONS_MAX: usize = 50;

/// The most one rendered text may weigh, in bytes.
pub const RENDERED_BYTES_MAX: usize = 1024 * 1024;

/// Text with `${{ expression }}` in it.
#[derive(Clone, Debug)]
pub struct Template {
    source: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Value(Expression),
}

impl Template {
    /// Parses the text and the expressions in it.
    ///
    /// # Errors
    /// A `${{` that is not closed, or an expression that is not sound: the first of it; the offset counts in the
    /// template's text.
    pub fn parse(source: &str) -> Result<Self, ExpressionError> {
        let first = |wrong: Vec<ExpressionError>| wrong.into_iter().next();
        Self::parse_fully(source)
            .map_err(|wrong| first(wrong).unwrap_or_else(|| ExpressionError::new("the text is not sound")))
    }

    /// Like [`Template::parse`], for people who will mend it.
    ///
    /// # Errors
    /// All that is wrong, in the order of the text; at least one thing.
    pub fn parse_fully(source: &str) -> Result<Self, Vec<ExpressionError>> {
        let (mut pieces, mut wrong) = (Vec::new(), Vec::new());
        let (mut rest, mut expressions) = (0, 0);
        while let Some(open) = source[rest..].find(OPEN).map(|found| rest + found) {
            if open > rest {
                pieces.push(Piece::Text(source[rest..open].to_owned()));
            }
            let inside = open + OPEN.len();
            let Some(length) = closing(&source[inside..]) else {
                let error = ExpressionError::at("`${{` is never closed", open);
                wrong.push(
                    ExpressionError { length: OPEN.len(), ..error }.with_hint("write `${{ expression }}`"),
                );
                return Err(wrong);
            };
            expressions += 1;
            if expressions > EXPRESSIONS_MAX {
                let message = format!("a text holds at most {EXPRESSIONS_MAX} `${{{{ }}}}`");
                wrong.push(
                    ExpressionError::at(message, open).with_hint("hand over fewer values, or one list"),
                );
                return Err(wrong);
            }
            let text = &source[inside..inside + length];
            let start = inside + (text.len() - text.trim_start().len());
            match Expression::parse_fully(text.trim()) {
                Ok(expression) => pieces.push(Piece::Value(expression)),
                Err(errors) => wrong.extend(errors.into_iter().map(|error| ExpressionError {
                    offset: Some(start + error.offset.unwrap_or(0)),
                    ..error
                })),
            }
            rest = inside + length + 2;
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        if rest < source.len() {
            pieces.push(Piece::Text(source[rest..].to_owned()));
        }
        Ok(Self { source: source.to_owned(), pieces })
    }

    /// Whether a text holds a `${{`.
    pub fn is_in(text: &str) -> bool {
        text.contains(OPEN)
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The one expression, when the whole text is `${{ expression }}` (spaces around it allowed).
    pub fn sole_expression(&self) -> Option<&Expression> {
        let blank = |piece: &&Piece| !matches!(piece, Piece::Text(text) if text.trim().is_empty());
        let mut pieces = self.pieces.iter().filter(blank);
        match (pieces.next(), pieces.next()) {
            (Some(Piece::Value(expression)), None) => Some(expression),
            (Some(Piece::Value(_) | Piece::Text(_)) | None, _) => None,
        }
    }

    /// All expressions in it, in the order of the text.
    pub fn expressions(&self) -> Vec<&Expression> {
        self.pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Value(expression) => Some(expression),
                Piece::Text(_) => None,
            })
            .collect()
    }

    /// The value: that of the sole expression with its type kept, else text.
    ///
    /// # Errors
    /// An expression that cannot be evaluated, null inside text, or text beyond [`RENDERED_BYTES_MAX`].
    pub fn render(&self, scope: &Scope) -> Result<Value, ExpressionError> {
        match self.sole_expression() {
            Some(expression) => expression.evaluate(scope),
            None => self.join(scope).map(Value::String),
        }
    }

    /// The value as text: strings as they are, numbers and booleans plain, lists and objects as JSON.
    ///
    /// # Errors
    /// Those of [`Template::render`]. Null is an error here too: it is the absence of a value, and empty text would
    /// hide that.
    pub fn render_text(&self, scope: &Scope) -> Result<String, ExpressionError> {
        match self.sole_expression() {
            Some(expression) => text_of(expression, scope),
            None => self.join(scope),
        }
    }

    fn join(&self, scope: &Scope) -> Result<String, ExpressionError> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Value(expression) => text.push_str(&text_of(expression, scope)?),
            }
            if text.len() > RENDERED_BYTES_MAX {
                return Err(ExpressionError::new(format!(
                    "`{}` gives more than {RENDERED_BYTES_MAX} bytes of text",
                    shorten(&self.source)
                )));
            }
        }
        Ok(text)
    }
}

fn text_of(expression: &Expression, scope: &Scope) -> Result<String, ExpressionError> {
    match expression.evaluate(scope)? {
        Value::String(text) => Ok(text),
        value @ Value::Null => Err(ExpressionError::new(format!(
            "`{}` is {}, which cannot become text; give it a value, as in `x == null ? \"none\" : x`",
            shorten(expression.source()),
            describe(&value)
        ))),
        value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Ok(value.to_string())
        }
    }
}

/// Where the expression at the beginning of `text` ends: before the first `}}` that is outside of strings and of the
/// expression's own braces.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut braces = 0_usize;
    let mut quote = None;
    let mut at = 0;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, b'{') => braces += 1,
            (None, b'}') if braces > 0 => braces -= 1,
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, _) => {}
        }
        at += 1;
    }
    None
}

/// A JSON value whose strings are templates.
#[derive(Clone, Debug)]
pub enum ValueTemplate {
    /// A string.
    Text(Template),
    /// A list.
    List(Vec<ValueTemplate>),
    /// An object.
    Object(Vec<(String, ValueTemplate)>),
    /// Anything else, as it is.
    Literal(Value),
}

impl ValueTemplate {
    /// The value with every template rendered.
    ///
    /// # Errors
    /// Those of [`Template::render`].
    pub fn render(&self, scope: &Scope) -> Result<Value, ExpressionError> {
        Ok(match self {
            Self::Text(template) => template.render(scope)?,
            Self::List(items) => {
                Value::Array(items.iter().map(|item| item.render(scope)).collect::<Result<_, _>>()?)
            }
            Self::Object(fields) => {
                let mut object = Map::new();
                for (name, value) in fields {
                    object.insert(name.clone(), value.render(scope)?);
                }
                Value::Object(object)
            }
            Self::Literal(value) => value.clone(),
        })
    }

    /// All templates in it, in order.
    pub fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Text(template) => vec![template],
            Self::List(items) => items.iter().flat_map(Self::templates).collect(),
            Self::Object(fields) => fields.iter().flat_map(|(_, value)| value.templates()).collect(),
            Self::Literal(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        let Value::Object(roots) = json!({"params": {"region": "eu", "n": 3, "x": 0.5, "list": [1, "a"], "none": null, "sh": "$(rm)"}})
        else {
            unreachable!()
        };
        Scope { roots, ..Scope::default() }
    }

    #[test]
    fn a_sole_expression_keeps_its_type_and_text_does_not() {
        for (source, expected) in [
            ("${{ params.n }}", json!(3)),
            ("  ${{params.list}} ", json!([1, "a"])),
            ("${{ params.none }}", json!(null)),
            ("plain", json!("plain")),
            ("", json!("")),
            ("a-${{ params.region }}-${{ params.n }}", json!("a-eu-3")),
            ("${{ params.list }}!", json!("[1,\"a\"]!")),
            ("${{ params.x }}${{ params.x > 0.0 }}", json!("0.5true")),
            ("${{ {'a': {'b': params.n}} }}", json!({"a": {"b": 3}})),
            ("${{ '}}' }}${{ \"}}\" }}", json!("}}}}")),
            ("${ params } }} $ {{", json!("${ params } }} $ {{")),
            ("${{ params.sh }}", json!("$(rm)")),
        ] {
            let template = Template::parse(source).unwrap_or_else(|e| panic!("{source}: {e}"));
            assert_eq!(template.render(&scope()), Ok(expected), "{source}");
        }
        assert_eq!(
            Template::parse("${{ params.list }}").unwrap().render_text(&scope()),
            Ok("[1,\"a\"]".to_owned())
        );
    }

    #[test]
    fn mistakes_are_placed_in_the_text() {
        let error = Template::parse("ab ${{ params.n").unwrap_err();
        assert_eq!(error.offset, Some(3));
        let error = Template::parse("ab ${{ params. }}").unwrap_err();
        assert!(error.offset.is_some_and(|offset| (7..=15).contains(&offset)), "{error:?}");
        let error = Template::parse("ab ${{ nope(1) }}").unwrap_err();
        assert_eq!(error.offset, Some(7));
        assert!(Template::parse("${{ }}").is_err());
        let wrong = Template::parse_fully("${{ nope(1) }} and ${{ 1 + }}, ${{ never(2) }}").unwrap_err();
        let places: Vec<_> = wrong.iter().map(|wrong| wrong.offset).collect();
        assert!(matches!(places[..], [Some(4), Some(22..=26), Some(35)]), "{wrong:?}");
    }

    #[test]
    fn what_has_no_text_is_an_error_that_names_it() {
        for source in ["x ${{ params.none }}", "x ${{ params.missing }}"] {
            let error = Template::parse(source).unwrap().render(&scope()).unwrap_err();
            assert!(error.message.contains("params."), "{error}");
        }
        assert!(Template::parse("${{ params.none }}").unwrap().render_text(&scope()).is_err());
    }

    #[test]
    fn templates_reach_into_values() {
        let value = ValueTemplate::Object(vec![
            ("n".to_owned(), ValueTemplate::Text(Template::parse("${{ params.n }}").unwrap())),
            ("l".to_owned(), ValueTemplate::List(vec![ValueTemplate::Literal(json!(true))])),
        ]);
        assert_eq!(value.render(&scope()), Ok(json!({"n": 3, "l": [true]})));
        assert_eq!(value.templates().len(), 1);
    }
}

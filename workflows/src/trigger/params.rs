//! The params of a run: a trigger's rendered over its batch, given ones checked against their types, defaults filled
//! in. Must never happen here: a param that is no value of its type.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::BatchFacts;
use crate::definition::{Param, ParamType, Workflow};
use crate::expression::Scope;
use crate::template::Template;

/// Renders a trigger's params over its batch.
///
/// # Errors
/// The param and what is wrong with its expression.
pub fn render_params(
    templates: &BTreeMap<String, Template>,
    batch: &BatchFacts,
) -> Result<Map<String, Value>, String> {
    let mut scope = Scope::default();
    scope.roots.insert("batch".to_owned(), batch.to_value());
    let mut params = Map::new();
    for (name, template) in templates {
        let value = template.render(&scope).map_err(|wrong| format!("param {name}: {wrong}"))?;
        params.insert(name.clone(), value);
    }
    Ok(params)
}

impl Workflow {
    /// The params of a run: given ones checked against their types, defaults filled in. Text is read as a number
    /// or boolean where one is declared, so that the command line need not know types.
    ///
    /// # Errors
    /// The param at fault, and what would be right.
    pub fn resolve_params(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, String> {
        if let Some(unknown) = given.keys().find(|name| !self.params.contains_key(*name)) {
            let known: Vec<&str> = self.params.keys().map(String::as_str).collect();
            return Err(match known.is_empty() {
                true => format!("`{unknown}` is not a param of {}: it takes none", self.name),
                false => {
                    format!("`{unknown}` is not a param of {}: it takes {}", self.name, known.join(", "))
                }
            });
        }
        let mut params = Map::new();
        for (name, param) in &self.params {
            let value = match given.get(name) {
                Some(value) => param.accept(value).map_err(|wrong| format!("param `{name}` {wrong}"))?,
                None => param
                    .default
                    .clone()
                    .ok_or_else(|| format!("param `{name}` is missing: it has no default"))?,
            };
            params.insert(name.clone(), value);
        }
        Ok(params)
    }

    /// The alias the workflow's champion is found under: that of its first `promote`, else `champion`.
    pub fn champion_alias(&self) -> &str {
        self.steps
            .iter()
            .find_map(|step| match &step.verb {
                crate::definition::Verb::Promote(promote) => Some(promote.alias.as_str()),
                crate::definition::Verb::Work(_)
                | crate::definition::Verb::Select(_)
                | crate::definition::Verb::Workflow(_)
                | crate::definition::Verb::Gate(_)
                | crate::definition::Verb::Approval(_)
                | crate::definition::Verb::Emit(_) => None,
            })
            .unwrap_or("champion")
    }
}

impl Param {
    fn accept(&self, value: &Value) -> Result<Value, String> {
        let read = |text: &str| -> Option<Value> {
            match self.kind {
                ParamType::String => Some(Value::from(text)),
                ParamType::Integer => text.parse::<i64>().ok().map(Value::from),
                ParamType::Number => text.parse::<i64>().ok().map(Value::from).or_else(|| {
                    text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from)
                }),
                ParamType::Boolean => text.parse::<bool>().ok().map(Value::from),
            }
        };
        let accepted = match (self.kind, value) {
            (_, Value::String(text)) => read(text),
            (ParamType::Integer, Value::Number(number)) if number.is_i64() => Some(value.clone()),
            (ParamType::Number, Value::Number(_)) | (ParamType::Boolean, Value::Bool(_)) => {
                Some(value.clone())
            }
            (_, Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => None,
        };
        accepted.ok_or_else(|| {
            let wanted = match self.kind {
                ParamType::String => "text",
                ParamType::Integer => "a whole number",
                ParamType::Number => "a number",
                ParamType::Boolean => "true or false",
            };
            format!("is {value}, it must be {wanted}")
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn params_are_typed_and_defaulted() {
        let integer = Param { kind: ParamType::Integer, default: None, description: None };
        assert_eq!(integer.accept(&json!("8")), Ok(json!(8)));
        assert_eq!(integer.accept(&json!(8)), Ok(json!(8)));
        for wrong in [json!("eight"), json!(1.5), json!(null), json!([1])] {
            assert!(integer.accept(&wrong).is_err(), "{wrong} was accepted");
        }
        let number = Param { kind: ParamType::Number, default: None, description: None };
        assert!(number.accept(&json!("NaN")).is_err());
    }
}

//! What stands at the top of a file beside triggers and steps: params, concurrency, defaults, outputs. Must never happen
//! here: anything that needs to know the steps' graph.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use super::super::diagnostics::{Findings, shown};
use super::super::language::{CONCURRENCY, DEFAULTS, PARAM};
use super::super::{Concurrency, OnConflict, Param, ParamType, Retry};
use super::fields::{Fields, json, key_is_name, text};
use super::reads::{Place, Reads};
use super::work;
use crate::template::Template;

/// `priority` of a workflow that says nothing.
pub(super) const PRIORITY_DEFAULT: u32 = 50;

/// What steps on workers take when they say nothing themselves.
#[derive(Debug)]
pub(super) struct Defaults {
    pub(super) timeout: Duration,
    pub(super) retry: Retry,
}

impl Default for Defaults {
    /// One attempt of at most an hour; pauses, once there are more, from 10 seconds to 5 minutes.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(3600),
            retry: Retry {
                attempts: 1,
                backoff: Duration::from_secs(10),
                max_backoff: Duration::from_secs(300),
            },
        }
    }
}

pub(super) fn params(top: &Fields<'_>, f: &mut Findings) -> BTreeMap<String, Param> {
    const TYPES: [(&str, ParamType); 4] = [
        ("string", ParamType::String),
        ("integer", ParamType::Integer),
        ("number", ParamType::Number),
        ("boolean", ParamType::Boolean),
    ];
    let mut params = BTreeMap::new();
    let Some(declared) =
        top.get("params").and_then(|(key, node)| Fields::any(node, key.position, "`params`", f))
    else {
        return params;
    };
    for (key, node) in declared.entries() {
        key_is_name(key, f);
        let fields = Fields::of(node, key.position, &PARAM, f);
        let param = fields.and_then(|fields| {
            fields.need("type", &format!("param `{}`", key.name), "type: string", f)?;
            let kind = fields.word("type", &TYPES, f)?;
            let default = fields.get("default").and_then(|(_, node)| {
                let value = json(node, f)?;
                match check_param(kind, &value) {
                    Ok(()) => Some(value),
                    Err(wrong) => {
                        f.add("wrong-type", node.position, format!("the default of `{}` {wrong}", key.name));
                        None
                    }
                }
            });
            Some(Param { kind, default, description: fields.text("description", f) })
        });
        // Declared all the same, so that what reads it is not reported as well.
        let stand_in = Param { kind: ParamType::String, default: Some(Value::Null), description: None };
        params.insert(key.name.clone(), param.unwrap_or(stand_in));
    }
    params
}

/// Whether a value is of a param's type. The error completes "NAME …".
pub(super) fn check_param(kind: ParamType, value: &Value) -> Result<(), String> {
    let (fits, what) = match kind {
        ParamType::String => (value.is_string(), "text (in quotes, if it looks like a number)"),
        ParamType::Integer => (value.is_i64() || value.is_u64(), "a whole number"),
        ParamType::Number => (value.is_number(), "a number"),
        ParamType::Boolean => (value.is_boolean(), "true or false"),
    };
    if fits { Ok(()) } else { Err(format!("must be {what}, not {value}")) }
}

/// Without the section, runs do not wait for each other; with it they queue, one at a time, unless it says otherwise.
pub(super) fn concurrency(
    top: &Fields<'_>,
    places: &HashMap<&str, usize>,
    finally_from: usize,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Concurrency> {
    const WORDS: [(&str, OnConflict); 5] = [
        ("coalesce", OnConflict::Coalesce),
        ("queue", OnConflict::Queue),
        ("skip", OnConflict::Skip),
        ("cancel_running", OnConflict::CancelRunning { before: None }),
        ("parallel", OnConflict::Parallel),
    ];
    let Some((key, node)) = top.get("concurrency") else {
        return Some(Concurrency { key: None, limit: 1, on_conflict: OnConflict::Parallel });
    };
    let fields = Fields::of(node, key.position, &CONCURRENCY, f)?;
    let key = fields.get("key").and_then(|(_, node)| reads.expression(node, "key", Place::Key, f));
    let limit = fields.small_count("limit", f).unwrap_or(1);
    let mut on_conflict = fields.word("on_conflict", &WORDS, f).unwrap_or(OnConflict::Queue);
    if let OnConflict::CancelRunning { before } = &mut on_conflict {
        *before = self::before(&fields, places, finally_from, f);
    } else if let Some((key, _)) = fields.get("before") {
        let hint = "it says until when a running run may be cancelled";
        f.add_with_hint(
            "misplaced-key",
            key.position,
            "`before` goes with `on_conflict: cancel_running`",
            hint,
        );
    }
    Some(Concurrency { key, limit, on_conflict })
}

/// The place of the step up to which a run may be cancelled by a newer one.
fn before(
    fields: &Fields<'_>,
    places: &HashMap<&str, usize>,
    finally_from: usize,
    f: &mut Findings,
) -> Option<usize> {
    let (_, node) = fields.get("before")?;
    let name = text(node, "before", f)?.text.as_str();
    let place = places.get(name).copied();
    match place {
        None => {
            let message = format!("there is no step `{}`", shown(name));
            f.add_unknown("unknown-step", node.position, message, name, places.keys().copied());
        }
        Some(place) if place >= finally_from => {
            let message = format!("`{name}` is a step of `finally`, which runs when everything else is over");
            f.add_with_hint("unknown-step", node.position, message, "name a step of `steps`");
        }
        Some(_) => {}
    }
    place
}

pub(super) fn defaults(top: &Fields<'_>, f: &mut Findings) -> Defaults {
    let mut defaults = Defaults::default();
    let fields = top.get("defaults").and_then(|(key, node)| Fields::of(node, key.position, &DEFAULTS, f));
    if let Some(fields) = fields {
        if let Some(timeout) = fields.duration("timeout", f) {
            defaults.timeout = timeout;
        }
        defaults.retry = work::retry(&fields, &defaults.retry, f);
    }
    defaults
}

/// `outputs`: what a workflow that runs this one gets.
pub(super) fn outputs(top: &Fields<'_>, reads: &mut Reads, f: &mut Findings) -> BTreeMap<String, Template> {
    let mut outputs = BTreeMap::new();
    let given = top.get("outputs").and_then(|(key, node)| Fields::any(node, key.position, "`outputs`", f));
    for (key, node) in given.iter().flat_map(|given| given.entries()) {
        key_is_name(key, f);
        if let Some(template) = reads.template(node, &key.name, Place::Outputs, f) {
            outputs.insert(key.name.clone(), template);
        }
    }
    outputs
}

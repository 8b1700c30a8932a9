//! `on`: what starts the workflow. Reads event triggers and schedules; deciding whether an event counts is the
//! pattern's business, gathering events the trigger's.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::diagnostics::{Findings, Position};
use super::super::raw::{Key, Node, Raw};
use super::super::{BatchRule, CatchUp, CronTrigger, EventTrigger, Param, Trigger};
use super::fields::{Fields, Keys, follow, json, list, text};
use super::reads::{Place, Reads};
use crate::pattern::Pattern;
use crate::schedule::Schedule;
use crate::template::Template;

/// The most events a batch may be bounded to.
const BATCH_COUNT_MAX: u64 = 1_000_000;

const EVENT_KEYS: Keys<'_> = Keys {
    owner: "an event trigger",
    known: &["event", "where", "by", "batch", "params"],
    later: &["within"],
};
const CRON_KEYS: Keys<'_> =
    Keys { owner: "a cron trigger", known: &["cron", "timezone", "catch_up", "params"], later: &[] };

type Params = BTreeMap<String, Param>;

/// All triggers; none when one of them has a problem. A file without `on` is started by people alone.
pub(super) fn triggers(
    top: &Fields<'_, '_>,
    params: &Params,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Vec<Trigger>> {
    let Some((_, node)) = top.get("on") else { return Some(Vec::new()) };
    if let Raw::Map(_) = &node.value {
        let hint = "begin each with a dash: `- cron: \"0 3 * * *\"`";
        f.add_with_hint("wrong-type", node.position, "`on` is a list of triggers, not a mapping", hint);
        return None;
    }
    let triggers: Vec<Option<Trigger>> =
        list(node, "on", f)?.iter().map(|item| trigger(item, params, reads, f)).collect();
    triggers.into_iter().collect()
}

fn trigger(node: &Node<'_>, params: &Params, reads: &mut Reads, f: &mut Findings) -> Option<Trigger> {
    let fields = Fields::any(node, node.position, "a trigger", f)?;
    if let Some((key, _)) = fields.get("all") {
        f.add("not-supported", key.position, "joins (`all`) are not supported yet");
        return None;
    }
    match (fields.get("event"), fields.get("cron")) {
        (Some((_, pattern)), None) => {
            let fields = of_kind(node, &fields, &EVENT_KEYS, &CRON_KEYS, f)?;
            event(&fields, pattern, params, reads, f).map(Trigger::Event)
        }
        (None, Some((key, cron))) => {
            let fields = of_kind(node, &fields, &CRON_KEYS, &EVENT_KEYS, f)?;
            schedule(&fields, key, cron, params, reads, f).map(Trigger::Cron)
        }
        (Some(_), Some((key, _))) => {
            let hint = "make two triggers of it, each with its own dash";
            f.add_with_hint("value", key.position, "a trigger has either `event` or `cron`", hint);
            None
        }
        (None, None) => {
            let all = Keys {
                owner: "a trigger",
                known: &["event", "where", "by", "batch", "params", "cron", "timezone", "catch_up"],
                later: &["within"],
            };
            let before = f.count();
            Fields::of(node, node.position, &all, f);
            if f.count() == before {
                let hint = "for example `- event: { type: [dataset.updated] }` or `- cron: \"0 3 * * *\"`";
                f.add_with_hint("missing-key", node.position, "a trigger needs `event` or `cron`", hint);
            }
            None
        }
    }
}

/// The fields of a trigger of one kind; keys of the other kind get a message of their own.
fn of_kind<'n, 'a>(
    node: &'n Node<'a>,
    fields: &Fields<'n, 'a>,
    own: &Keys<'_>,
    other: &Keys<'_>,
    f: &mut Findings,
) -> Option<Fields<'n, 'a>> {
    let misplaced = |key: &&(Key, Node<'_>)| {
        other.known.contains(&key.0.name.as_str()) && !own.known.contains(&key.0.name.as_str())
    };
    let mut later = own.later.to_vec();
    for (key, _) in fields.entries().iter().filter(misplaced) {
        f.add("misplaced-key", key.position, format!("`{}` does not go with {}", key.name, own.owner));
    }
    // Reported already: hidden from the check for unknown keys.
    later.retain(|name| !other.known.contains(name));
    let known: Vec<&str> = own.known.iter().chain(other.known).copied().collect();
    Fields::of(node, node.position, &Keys { owner: own.owner, known: &known, later: &later }, f)
}

fn event(
    fields: &Fields<'_, '_>,
    pattern: &Node<'_>,
    declared: &Params,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<EventTrigger> {
    let parsed = json(pattern, f).and_then(|value| {
        Pattern::parse(&value)
            .map_err(|error| {
                let place = if error.path.is_empty() {
                    String::new()
                } else {
                    format!("`{}`: ", error.path.join("."))
                };
                f.add("pattern", follow(pattern, &error.path), format!("{place}{}", error.message));
            })
            .ok()
    });
    let filter = fields.get("where").and_then(|(_, node)| reads.expression(node, "where", Place::Event, f));
    let key = fields.get("by").and_then(|(_, node)| reads.expression(node, "by", Place::Event, f));
    let batch = fields.get("batch").and_then(|(key, node)| batch(key, node, f));
    let params = params(fields, pattern.position, declared, reads, f);
    Some(EventTrigger { pattern: parsed?, filter, key, batch, params })
}

fn batch(key: &Key, node: &Node<'_>, f: &mut Findings) -> Option<BatchRule> {
    const KEYS: Keys<'_> = Keys { owner: "`batch`", known: &["quiet", "max_wait", "count"], later: &["sum"] };
    let fields = Fields::of(node, key.position, &KEYS, f)?;
    let rule = BatchRule {
        quiet: fields.duration("quiet", true, f),
        max_wait: fields.duration("max_wait", true, f),
        count: fields.count("count", 1, BATCH_COUNT_MAX, f),
        sum: None,
    };
    if fields.entries().is_empty() {
        let hint = "for example `batch: { quiet: 2m, max_wait: 30m }`";
        f.add_with_hint("missing-key", key.position, "a batch needs `quiet`, `max_wait` or `count`", hint);
    }
    if let (Some(quiet), Some(max_wait), Some((key, _))) = (rule.quiet, rule.max_wait, fields.get("quiet"))
        && quiet > max_wait
    {
        f.add("duration", key.position, "`quiet` is longer than `max_wait`, so it would never count");
    }
    Some(rule)
}

fn schedule(
    fields: &Fields<'_, '_>,
    key: &Key,
    cron: &Node<'_>,
    declared: &Params,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<CronTrigger> {
    const WORDS: [(&str, CatchUp); 3] =
        [("none", CatchUp::None), ("last", CatchUp::Last), ("all", CatchUp::All)];
    let catch_up = fields.word("catch_up", &WORDS, &[], f).unwrap_or(CatchUp::Last);
    let params = params(fields, key.position, declared, reads, f);
    let zone = match fields.get("timezone") {
        Some((_, node)) => Some((node.position, text(node, "timezone", f)?.text.as_str())),
        None => None,
    };
    let expression = text(cron, "cron", f)?.text.as_str();
    // On its own first: a mistake in the expression belongs to the expression.
    let schedule = Schedule::parse(expression, None)
        .map_err(|message| f.add("schedule", cron.position, message))
        .ok()
        .and_then(|schedule| match zone {
            None => Some(schedule),
            Some((position, zone)) => Schedule::parse(expression, Some(zone))
                .map_err(|message| f.add("schedule", position, message))
                .ok(),
        })?;
    Some(CronTrigger { schedule, catch_up, params })
}

/// The params a trigger sets. Those without a default must be among them, or its runs could never start.
fn params(
    fields: &Fields<'_, '_>,
    position: Position,
    declared: &Params,
    reads: &mut Reads,
    f: &mut Findings,
) -> BTreeMap<String, Template> {
    let mut params = BTreeMap::new();
    let given = fields.get("params").and_then(|(key, node)| Fields::any(node, key.position, "`params`", f));
    for (key, node) in given.iter().flat_map(Fields::entries) {
        if !declared.contains_key(&key.name) {
            let message = format!("there is no param `{}`", key.name.escape_debug());
            f.add_unknown(
                "unknown-param",
                key.position,
                message,
                &key.name,
                declared.keys().map(String::as_str),
            );
        }
        if let Some(template) = value(node, &key.name, declared.get(&key.name), reads, f) {
            params.insert(key.name.clone(), template);
        }
    }
    for (name, param) in declared {
        if param.default.is_none() && given.as_ref().is_none_or(|given| given.get(name).is_none()) {
            let hint =
                format!("set it in the trigger's `params`, or give it a default: `{name}: {{ default: … }}`");
            f.add_with_hint(
                "missing-param",
                position,
                format!("this trigger gives the param `{name}` no value"),
                hint,
            );
        }
    }
    params
}

/// A param's value: a template, or a constant of the param's type, kept as the expression that gives it.
fn value(
    node: &Node<'_>,
    name: &str,
    param: Option<&Param>,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Template> {
    let Raw::Scalar(scalar) = &node.value else {
        text(node, name, f);
        return None;
    };
    if Template::is_in(&scalar.text) {
        return reads.template(node, name, Place::Batch, f);
    }
    text(node, name, f)?;
    let constant = json(node, f)?;
    if let Some(param) = param
        && let Err(wrong) = super::check_param(param.kind, &constant)
    {
        f.add("wrong-type", node.position, format!("`{name}` {wrong}"));
        return None;
    }
    match constant {
        Value::Bool(_) | Value::Number(_) => Template::parse(&format!("${{{{ {constant} }}}}")).ok(),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            reads.template(node, name, Place::Batch, f)
        }
    }
}

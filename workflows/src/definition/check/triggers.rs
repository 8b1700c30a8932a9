//! `on`: what starts the workflow. Reads event triggers, joins and schedules; deciding whether an event counts is the
//! pattern's business, gathering events the trigger's.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::diagnostics::{Findings, Spot, shown};
use super::super::language::{BATCH, CRON_TRIGGER, EVENT_TRIGGER, JOIN_TRIGGER, Keys, SUM, TRIGGER_KINDS};
use super::super::raw::{Key, Node, Raw};
use super::super::{
    BatchRule, CatchUp, CronTrigger, EventTrigger, JoinTrigger, OnExpire, Param, SumRule, Trigger,
};
use super::fields::{Fields, check_key, follow, json, list, text};
use super::reads::{Place, Reads};
use crate::pattern::Pattern;
use crate::schedule::Schedule;
use crate::template::Template;

/// The most problems of one pattern that are told.
const PATTERN_PROBLEMS_MAX: usize = 20;

type Params = BTreeMap<String, Param>;

/// All triggers; none when one of them has a problem. A file without `on` is started by people alone.
pub(super) fn triggers(
    top: &Fields<'_>,
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
    let items = list(node, "on", f)?;
    let (_, most) = top.sizes("on");
    if items.len() > most {
        let message = format!("a workflow has at most {most} triggers");
        f.add_with_hint("too-many", node.position, message, "a field of a pattern takes a list of values");
        return None;
    }
    let triggers: Vec<Option<Trigger>> = items.iter().map(|item| trigger(item, params, reads, f)).collect();
    triggers.into_iter().collect()
}

fn trigger(node: &Node, params: &Params, reads: &mut Reads, f: &mut Findings) -> Option<Trigger> {
    let fields = Fields::any(node, node.position, "a trigger", f)?;
    let mut kinds = TRIGGER_KINDS.into_iter().filter_map(|kind| Some((kind, fields.get(kind)?)));
    let (kind, (key, value)) = match (kinds.next(), kinds.next()) {
        (Some(kind), None) => kind,
        (Some((first, _)), Some((second, (key, _)))) => {
            let hint = "make two triggers of it, each with its own dash";
            let message = format!(
                "a trigger has one of `event`, `all` and `cron`, but this has `{first}` and `{second}`"
            );
            f.add_with_hint("value", key.position, message, hint);
            return None;
        }
        (None, _) => {
            let before = f.count();
            for (key, _) in fields.entries() {
                check_key(key, "a trigger", all_keys(), f);
            }
            if f.count() == before {
                let hint = "for example `- event: { type: [dataset.updated] }` or `- cron: \"0 3 * * *\"`";
                let message = "a trigger needs `event`, `all` or `cron`";
                f.add_with_hint("missing-key", node.position, message, hint);
            }
            return None;
        }
    };
    match kind {
        "event" => {
            let fields = of_kind(node, &fields, &EVENT_TRIGGER, f)?;
            event(&fields, value, params, reads, f).map(Trigger::Event)
        }
        "all" => {
            let fields = of_kind(node, &fields, &JOIN_TRIGGER, f)?;
            join(&fields, key, value, params, reads, f).map(Trigger::Join)
        }
        _ => {
            let fields = of_kind(node, &fields, &CRON_TRIGGER, f)?;
            schedule(&fields, key, value, params, reads, f).map(Trigger::Cron)
        }
    }
}

fn all_keys() -> impl Iterator<Item = &'static str> + Clone {
    EVENT_TRIGGER.names().chain(JOIN_TRIGGER.names()).chain(CRON_TRIGGER.names())
}

/// The fields of a trigger of one kind; keys of the other kinds get a message of their own.
fn of_kind<'n>(
    node: &'n Node,
    fields: &Fields<'n>,
    own: &'static Keys,
    f: &mut Findings,
) -> Option<Fields<'n>> {
    let is_misplaced = |name: &str| own.get(name).is_none() && all_keys().any(|known| known == name);
    let mut misplaced = Vec::new();
    for (key, _) in fields.entries().iter().filter(|(key, _)| is_misplaced(&key.name)) {
        let kinds = [(&EVENT_TRIGGER, "event"), (&JOIN_TRIGGER, "all"), (&CRON_TRIGGER, "cron")];
        let kinds: Vec<&str> = kinds
            .into_iter()
            .filter(|(keys, _)| keys.get(&key.name).is_some())
            .map(|(_, kind)| kind)
            .collect();
        let message = format!("`{}` does not go with {}", key.name, own.owner);
        f.add_with_hint(
            "misplaced-key",
            key.position,
            message,
            format!("it is for `{}`", kinds.join("`, `")),
        );
        misplaced.push(key.name.as_str());
    }
    Fields::besides(node, node.position, own, &misplaced, f)
}

/// A pattern. The reader tells of one thing at a time: what is wrong is told and made good, until nothing is.
pub(super) fn pattern(node: &Node, f: &mut Findings) -> Option<Pattern> {
    let mut value = json(node, f)?;
    for told in 0..PATTERN_PROBLEMS_MAX {
        let error = match Pattern::parse(&value) {
            Ok(pattern) => return (told == 0).then_some(pattern),
            Err(error) => error,
        };
        let place = if error.path.is_empty() {
            String::new()
        } else {
            format!("`{}`: ", shown(&error.path.join(".")))
        };
        f.add("pattern", follow(node, &error.path), format!("{place}{}", error.message));
        let wrong = error.path.iter().try_fold(&mut value, step_into)?;
        // A value stands for a value, a list of one for a field.
        let is_item = error.path.last().is_some_and(|part| part.parse::<usize>().is_ok());
        let good = if is_item { Value::Null } else { Value::Array(vec![Value::Null]) };
        if error.path.is_empty() || std::mem::replace(wrong, good.clone()) == good {
            return None;
        }
    }
    None
}

fn step_into<'v>(value: &'v mut Value, part: &String) -> Option<&'v mut Value> {
    match value {
        Value::Object(fields) => fields.get_mut(part),
        Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn join(
    fields: &Fields<'_>,
    key: &Key,
    node: &Node,
    declared: &Params,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<JoinTrigger> {
    const WORDS: [(&str, OnExpire); 2] = [("drop", OnExpire::Drop), ("fire", OnExpire::Fire)];
    let items = list(node, "all", f);
    if let Some(items) = items {
        let (least, most) = fields.sizes("all");
        if items.len() < least {
            let hint = "for one pattern write `event: { type: [features.ready] }`";
            f.add_with_hint("value", key.position, "a join waits for at least two patterns", hint);
        } else if items.len() > most {
            f.add("too-many", key.position, format!("a join waits for at most {most} patterns"));
        }
    }
    let parts: Option<Vec<Option<Pattern>>> =
        items.map(|items| items.iter().map(|item| pattern(item, f)).collect());
    let filter = fields.get("where").and_then(|(_, node)| reads.expression(node, "where", Place::Event, f));
    let by = fields.get("by").and_then(|(_, node)| reads.expression(node, "by", Place::Event, f));
    fields.need("within", "a join", "within: 6h", f);
    let within = fields.duration("within", f);
    let on_expire = fields.word("on_expire", &WORDS, f).unwrap_or(OnExpire::Drop);
    let params = params(fields, key.position, declared, reads, f);
    let parts = parts?.into_iter().collect::<Option<Vec<Pattern>>>()?;
    Some(JoinTrigger { parts, filter, key: by, within: within?, on_expire, params })
}

fn event(
    fields: &Fields<'_>,
    pattern: &Node,
    declared: &Params,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<EventTrigger> {
    let parsed = self::pattern(pattern, f);
    let filter = fields.get("where").and_then(|(_, node)| reads.expression(node, "where", Place::Event, f));
    let key = fields.get("by").and_then(|(_, node)| reads.expression(node, "by", Place::Event, f));
    let batch = fields.get("batch").and_then(|(key, node)| batch(key, node, reads, f));
    let params = params(fields, pattern.position, declared, reads, f);
    Some(EventTrigger { pattern: parsed?, filter, key, batch, params })
}

fn batch(key: &Key, node: &Node, reads: &mut Reads, f: &mut Findings) -> Option<BatchRule> {
    let fields = Fields::of(node, key.position, &BATCH, f)?;
    let rule = BatchRule {
        quiet: fields.duration("quiet", f),
        max_wait: fields.duration("max_wait", f),
        count: fields.count("count", f),
        sum: fields.get("sum").and_then(|(key, node)| sum(key, node, reads, f)),
    };
    if fields.entries().is_empty() {
        let hint = "for example `batch: { quiet: 2m, max_wait: 30m }`";
        let message = "a batch needs `quiet`, `max_wait`, `count` or `sum`";
        f.add_with_hint("missing-key", key.position, message, hint);
    }
    if let (Some(quiet), Some(max_wait), Some((key, _))) = (rule.quiet, rule.max_wait, fields.get("quiet"))
        && quiet > max_wait
    {
        let hint = "make `quiet` the shorter one, or leave it out";
        let message = "`quiet` is longer than `max_wait`, so it would never count";
        f.add_with_hint("duration", key.position, message, hint);
    }
    Some(rule)
}

fn sum(key: &Key, node: &Node, reads: &mut Reads, f: &mut Findings) -> Option<SumRule> {
    let fields = Fields::of(node, key.position, &SUM, f)?;
    let of = fields.need("of", "`sum`", "of: data.rows", f);
    let of = of.and_then(|(_, node)| reads.expression(node, "of", Place::Event, f));
    let at_least = fields.need("at_least", "`sum`", "at_least: 1000000", f);
    let at_least = at_least.and_then(|(_, node)| {
        let least = fields.number("at_least", f)?;
        if least <= 0.0 {
            f.add_with_hint(
                "number",
                node.position,
                "`at_least` must be above 0, or the first event would reach it",
                "for example `at_least: 1000000`",
            );
        }
        Some(least)
    });
    Some(SumRule { of: of?, at_least: at_least? })
}

fn schedule(
    fields: &Fields<'_>,
    key: &Key,
    cron: &Node,
    declared: &Params,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<CronTrigger> {
    const WORDS: [(&str, CatchUp); 3] =
        [("none", CatchUp::None), ("last", CatchUp::Last), ("all", CatchUp::All)];
    let catch_up = fields.word("catch_up", &WORDS, f).unwrap_or(CatchUp::Last);
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
    fields: &Fields<'_>,
    position: Spot,
    declared: &Params,
    reads: &mut Reads,
    f: &mut Findings,
) -> BTreeMap<String, Template> {
    let mut params = BTreeMap::new();
    let given = fields.get("params").and_then(|(key, node)| Fields::any(node, key.position, "`params`", f));
    for (key, node) in given.iter().flat_map(|given| given.entries()) {
        if !declared.contains_key(&key.name) {
            let message = format!("there is no param `{}`", shown(&key.name));
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
    node: &Node,
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

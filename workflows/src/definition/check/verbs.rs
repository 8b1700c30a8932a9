//! The verbs that the orchestrator decides itself: `gate`, `approval`, `promote`, `emit`. Reads their mappings; which
//! gate stands before a promotion is decided when the graph is known.

use std::collections::BTreeMap;

use super::super::diagnostics::{Findings, Position};
use super::super::raw::{Key, Node, Raw};
use super::super::{Approval, Emit, OnTimeout};
use super::fields::{Fields, Keys, list, name, text};
use super::reads::{Place, Reads, artifact_of};
use super::steps::Body;
use crate::gate::{Check, Direction, Gate, NoChampion};

const DEFAULT_ALIAS: &str = "champion";

/// `gate`.
pub(super) fn gate(
    key: &Key,
    node: &Node<'_>,
    place: Place,
    has_needs: bool,
    needs_model: &mut Option<Position>,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Gate> {
    const KEYS: Keys<'_> =
        Keys { owner: "a gate", known: &["checks", "no_champion"], later: &["alpha", "inconclusive"] };
    const WORDS: [(&str, NoChampion); 2] = [("absolute", NoChampion::Absolute), ("fail", NoChampion::Fail)];
    let fields = Fields::of(node, key.position, &KEYS, f)?;
    let no_champion = fields.word("no_champion", &WORDS, &[], f).unwrap_or(NoChampion::Absolute);
    let (checks_key, node) =
        fields.need("checks", "a gate", "checks: [{ metric: accuracy, min: 0.8 }]", f)?;
    let items = list(node, "checks", f)?;
    if items.is_empty() {
        let hint = "for example `{ metric: accuracy, min: 0.8 }`";
        f.add_with_hint(
            "value",
            checks_key.position,
            "a gate without checks would let everything pass",
            hint,
        );
        return None;
    }
    let checks: Vec<Option<Check>> =
        items.iter().map(|item| check(item, place, needs_model, reads, f)).collect();
    let checks: Vec<Check> = checks.into_iter().collect::<Option<_>>()?;
    let reads_metrics = checks.iter().any(|check| match check {
        Check::Bounds { .. } | Check::Change { .. } => true,
        Check::Condition { .. } => false,
    });
    if reads_metrics && !has_needs {
        let hint = "name the step that reports them: `needs: [evaluate]`";
        f.add_with_hint(
            "missing-key",
            key.position,
            "the gate checks metrics but waits for no step that has any",
            hint,
        );
    }
    Some(Gate { checks, no_champion })
}

fn check(
    node: &Node<'_>,
    place: Place,
    needs_model: &mut Option<Position>,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Check> {
    const KEYS: Keys<'_> = Keys {
        owner: "a check",
        known: &["metric", "min", "max", "min_change", "direction", "expr", "because"],
        later: &["role", "margin", "by", "min_examples"],
    };
    const DIRECTIONS: [(&str, Direction); 2] = [("higher", Direction::Higher), ("lower", Direction::Lower)];
    let fields = Fields::of(node, node.position, &KEYS, f)?;
    let because = fields.text("because", f);
    let has = |name: &str| fields.get(name).is_some();
    if let Some((_, expr)) = fields.get("expr") {
        if let Some(other) =
            ["metric", "min", "max", "min_change", "direction"].into_iter().find(|name| has(name))
        {
            let message =
                format!("a check is either on a metric or an `expr`, but this has `{other}` beside `expr`");
            f.add_with_hint("value", node.position, message, "make two checks of it");
        }
        return Some(Check::Condition { expr: reads.expression(expr, "expr", place, f)?, because });
    }
    if KEYS.later.iter().any(|name| has(name)) {
        return None;
    }
    let (_, metric) = fields.need("metric", "a check", "metric: accuracy", f)?;
    let metric = text(metric, "metric", f)?.text.clone();
    if metric.is_empty() || metric.len() > 200 {
        f.add("value", node.position, "a metric has a name of at most 200 bytes");
    }
    if has("min_change") {
        if has("min") || has("max") {
            let message = "`min_change` compares with the champion, `min` and `max` with a number";
            f.add_with_hint("value", node.position, message, "make two checks of it");
        }
        needs_model.get_or_insert(node.position);
        let direction = fields.word("direction", &DIRECTIONS, &[], f).unwrap_or(Direction::Higher);
        return Some(Check::Change {
            metric,
            min_change: fields.number("min_change", f)?,
            direction,
            because,
        });
    }
    if let Some((key, _)) = fields.get("direction") {
        f.add("misplaced-key", key.position, "`direction` goes with `min_change`");
    }
    if !has("min") && !has("max") {
        let hint = "give it `min`, `max` or `min_change`, as in `{ metric: accuracy, min: 0.8 }`";
        f.add_with_hint(
            "missing-key",
            node.position,
            format!("the check of `{metric}` asks for nothing"),
            hint,
        );
        return None;
    }
    let (min, max) = (fields.number("min", f), fields.number("max", f));
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        f.add("value", node.position, format!("nothing lies between {min} and {max}"));
    }
    Some(Check::Bounds { metric, min, max, because })
}

/// `approval`.
pub(super) fn approval(key: &Key, node: &Node<'_>, f: &mut Findings) -> Option<Approval> {
    const KEYS: Keys<'_> =
        Keys { owner: "an approval", known: &["from", "timeout", "on_timeout"], later: &[] };
    const WORDS: [(&str, OnTimeout); 2] = [("reject", OnTimeout::Reject), ("approve", OnTimeout::Approve)];
    let fields = Fields::of(node, key.position, &KEYS, f)?;
    let mut from: Vec<String> = Vec::new();
    for item in fields.get("from").and_then(|(_, node)| list(node, "from", f)).unwrap_or_default() {
        if let Some(person) = text(item, "from", f) {
            if person.text.trim().is_empty() || from.contains(&person.text) {
                f.add("value", item.position, "`from` names each of those who may decide once");
            }
            from.push(person.text.clone());
        }
    }
    let timeout = fields.duration("timeout", true, f);
    let on_timeout = fields.word("on_timeout", &WORDS, &[], f).unwrap_or(OnTimeout::Reject);
    if let Some((key, _)) = fields.get("on_timeout")
        && fields.get("timeout").is_none()
    {
        let hint = "add a timeout, as in `timeout: 24h`";
        f.add_with_hint("misplaced-key", key.position, "`on_timeout` without `timeout` never happens", hint);
    }
    Some(Approval { from, timeout, on_timeout })
}

/// `promote`, without what other steps decide.
pub(super) fn promote(
    key: &Key,
    node: &Node<'_>,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Body> {
    const KEYS: Keys<'_> = Keys { owner: "`promote`", known: &["artifact", "alias"], later: &[] };
    let fields = Fields::of(node, key.position, &KEYS, f)?;
    let alias = match fields.get("alias") {
        Some((_, node)) => name(node, "alias", f),
        None => Some(DEFAULT_ALIAS.to_owned()),
    };
    let example = "artifact: \"${{ steps.train.artifacts.model }}\"";
    let (_, node) = fields.need("artifact", "`promote`", example, f)?;
    let artifact = reads.template(node, "artifact", place, f)?;
    let candidate = artifact_of(&artifact, node, "artifact", f)?;
    Some(Body::Promote { artifact, candidate, alias: alias? })
}

/// `emit`.
pub(super) fn emit(
    key: &Key,
    node: &Node<'_>,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Emit> {
    const KEYS: Keys<'_> = Keys { owner: "`emit`", known: &["type", "subject", "data"], later: &[] };
    let fields = Fields::of(node, key.position, &KEYS, f)?;
    let kind = fields.need("type", "`emit`", "type: churn.retrained", f).and_then(|(_, node)| {
        let kind = reads.template(node, "type", place, f)?;
        if kind.source().trim().is_empty() {
            f.add("value", node.position, "the type of an event must not be empty");
        } else if kind.source().trim_start().starts_with("refit.") {
            let hint = "use a name of your own, as in `churn.retrained`";
            f.add_with_hint(
                "reserved-name",
                node.position,
                "types beginning with `refit.` are sent by Refit alone",
                hint,
            );
        }
        Some(kind)
    });
    let subject = fields.get("subject").and_then(|(_, node)| reads.template(node, "subject", place, f));
    let mut data = BTreeMap::new();
    if let Some((_, node)) = fields.get("data") {
        match &node.value {
            Raw::Map(entries) => {
                for (key, value) in entries {
                    if let Some(value) = reads.value(value, &key.name, place, f) {
                        data.insert(key.name.clone(), value);
                    }
                }
            }
            Raw::Scalar(_) | Raw::List(_) => {
                f.add("wrong-type", node.position, "`data` is a mapping (`key: value`)")
            }
            Raw::Broken => {}
        }
    }
    Some(Emit { kind: kind?, subject, data })
}

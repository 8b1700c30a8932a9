//! The small verbs that the orchestrator decides itself: `approval`, `promote`, `emit`, `select`, `workflow`. Reads their
//! mappings; which steps they speak of is decided when the graph is known.

use std::collections::BTreeMap;

use super::super::diagnostics::{Findings, shown};
use super::super::language::{APPROVAL, CHILD_RUN, EMIT, PROMOTE, SELECT, WATCH, WATCH_CHECK};
use super::super::raw::{Key, Node, Raw};
use super::super::{Approval, ChildRun, Emit, OnTimeout, SelectOrder, Watch};
use super::fields::{Fields, list, name, text};
use super::reads::{Place, Reads};
use super::steps::{Around, Body, StepDraft};
use super::triggers::pattern;
use crate::template::Template;
use crate::watch::WatchCheck;
use crate::wire::DEFAULT_ALIAS;

/// `approval`.
pub(super) fn approval(key: &Key, node: &Node, f: &mut Findings) -> Option<Approval> {
    const WORDS: [(&str, OnTimeout); 2] = [("reject", OnTimeout::Reject), ("approve", OnTimeout::Approve)];
    let fields = Fields::of(node, key.position, &APPROVAL, f)?;
    let mut from: Vec<String> = Vec::new();
    for item in fields.get("from").and_then(|(_, node)| list(node, "from", f)).unwrap_or_default() {
        if let Some(person) = text(item, "from", f) {
            if person.text.trim().is_empty() || from.contains(&person.text) {
                f.add("value", item.position, "`from` names each of those who may decide once");
            }
            from.push(person.text.clone());
        }
    }
    let timeout = fields.duration("timeout", f);
    let on_timeout = fields.word("on_timeout", &WORDS, f).unwrap_or(OnTimeout::Reject);
    if let Some((key, _)) = fields.get("on_timeout")
        && fields.get("timeout").is_none()
    {
        let hint = "add a timeout, as in `timeout: 24h`";
        f.add_with_hint("misplaced-key", key.position, "`on_timeout` without `timeout` never happens", hint);
    }
    let two_person = fields.boolean("two_person", f).unwrap_or(false);
    if let (true, OnTimeout::Approve, Some((key, _))) = (two_person, on_timeout, fields.get("two_person")) {
        let hint = "leave one of them out";
        let message = "`on_timeout: approve` needs nobody, `two_person` a second person";
        f.add_with_hint("misplaced-key", key.position, message, hint);
    }
    Some(Approval { from, two_person, timeout, on_timeout })
}

/// `promote`, without what other steps decide.
pub(super) fn promote(
    key: &Key,
    node: &Node,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Body> {
    let fields = Fields::of(node, key.position, &PROMOTE, f)?;
    let alias = match fields.get("alias") {
        Some((_, node)) => name(node, "alias", f),
        None => Some(DEFAULT_ALIAS.to_owned()),
    };
    let example = "artifact: \"${{ steps.train.artifacts.model }}\"";
    let (_, node) = fields.need("artifact", "`promote`", example, f)?;
    let artifact = reads.template(node, "artifact", place, f)?;
    let candidate = reads.artifact_of(&artifact, node, "artifact", f)?;
    let watch = match fields.get("watch") {
        Some((key, node)) => Some(watch(key, node, reads, f)?),
        None => None,
    };
    Some(Body::Promote { artifact, candidate, alias: alias?, watch })
}

/// `watch` of a promotion.
fn watch(key: &Key, node: &Node, reads: &mut Reads, f: &mut Findings) -> Option<Watch> {
    let fields = Fields::of(node, key.position, &WATCH, f)?;
    fields.need("for", "a watch", "for: 24h", f);
    let lasts = fields.duration("for", f);
    let example = "rollback_on: { type: [serving.alert] }";
    let rollback_on =
        fields.need("rollback_on", "a watch", example, f).and_then(|(_, node)| pattern(node, f));
    let checks = match fields.get("checks") {
        Some((_, node)) => watch_checks(node, fields.sizes("checks"), reads, f),
        None => Some(Vec::new()),
    };
    Some(Watch { lasts: lasts?, rollback_on: rollback_on?, checks: checks? })
}

fn watch_checks(
    node: &Node,
    (least, most): (usize, usize),
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Vec<WatchCheck>> {
    let items = list(node, "checks", f)?;
    if items.len() < least {
        let hint = "leave `checks` out: then whatever matches takes the promotion back";
        f.add_with_hint(
            "value",
            node.position,
            "a watch with no check in `checks` would watch nothing",
            hint,
        );
    }
    if items.len() > most {
        f.add("too-many", node.position, format!("a watch has at most {most} checks"));
    }
    let check = |item: &Node| {
        let fields = Fields::of(item, item.position, &WATCH_CHECK, f)?;
        let because = fields.text("because", f);
        let (_, node) = fields.need("expr", "a check of a watch", "expr: data.accuracy >= 0.8", f)?;
        Some(WatchCheck { expr: reads.expression(node, "expr", Place::Watch, f)?, because })
    };
    let checks: Vec<Option<WatchCheck>> = items.iter().map(check).collect();
    checks.into_iter().collect()
}

/// `emit`.
pub(super) fn emit(
    key: &Key,
    node: &Node,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Emit> {
    let fields = Fields::of(node, key.position, &EMIT, f)?;
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

/// `select`. Whether it waits for a step with a matrix is decided when all steps are known.
pub(super) fn select(
    key: &Key,
    node: &Node,
    index: usize,
    around: &Around<'_>,
    draft: &mut StepDraft,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Body> {
    const WORDS: [(&str, SelectOrder); 2] = [("max", SelectOrder::Max), ("min", SelectOrder::Min)];
    let fields = Fields::of(node, key.position, &SELECT, f)?;
    if let Some((_, node)) = fields.need("from", "`select`", "from: train", f)
        && let Some(from) = text(node, "from", f)
    {
        draft.select_spot = Some(node.position);
        draft.select_from = around.places.get(from.text.as_str()).copied();
        if draft.select_from.is_none() {
            let message = format!("there is no step `{}`", shown(&from.text));
            let known = around.places.keys().copied();
            f.add_unknown("unknown-step", node.position, message, &from.text, known);
        }
    }
    let by = fields.need("by", "`select`", "by: metrics.auc", f);
    let by = by.and_then(|(_, node)| reads.expression(node, "by", Place::Instance(index), f));
    fields.need("order", "`select`", "order: max", f);
    let order = fields.word("order", &WORDS, f);
    Some(Body::Select { by: by?, order: order? })
}

/// `workflow`, as a name or as a mapping.
pub(super) fn child_run(
    key: &Key,
    node: &Node,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<ChildRun> {
    if let Raw::Scalar(_) = &node.value {
        return Some(ChildRun { name: name(node, "workflow", f)?, params: BTreeMap::new() });
    }
    let fields = Fields::of(node, key.position, &CHILD_RUN, f)?;
    let child =
        fields.need("name", "`workflow`", "name: churn", f).and_then(|(_, node)| name(node, "name", f));
    let params = texts(&fields, "params", place, reads, f);
    Some(ChildRun { name: child?, params })
}

/// A mapping of templates.
pub(super) fn texts(
    fields: &Fields<'_>,
    name: &str,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> BTreeMap<String, Template> {
    let owner = format!("`{name}`");
    let given = fields.get(name).and_then(|(key, node)| Fields::any(node, key.position, &owner, f));
    let entries = given.iter().flat_map(|given| given.entries());
    entries
        .filter_map(|(key, node)| Some((key.name.clone(), reads.template(node, &key.name, place, f)?)))
        .collect()
}

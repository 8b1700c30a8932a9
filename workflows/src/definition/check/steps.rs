//! One step of a file: its verb, its needs, and the keys that go with the verb. What a verb means is in `run` and
//! `verbs`; whether the graph is sound is decided when all steps are known.

use std::collections::HashMap;

use super::super::Verb;
use super::super::diagnostics::{Findings, Position, did_you_mean};
use super::super::raw::{Key, Node};
use super::fields::{Fields, Keys, key_is_name, list, text};
use super::reads::{Place, Reads};
use super::{Defaults, run, verbs};
use crate::expression::Expression;
use crate::template::Template;

/// A step as far as it can be read on its own.
pub(super) struct StepDraft {
    pub(super) name: String,
    pub(super) position: Position,
    /// Places of the steps it waits for, in the file's order.
    pub(super) needs: Vec<usize>,
    /// Whether all of `needs` could be read: if not, what it fails to wait for is not worth telling.
    pub(super) needs_are_sound: bool,
    need_positions: Vec<(usize, Position)>,
    pub(super) condition: Option<Expression>,
    /// The verb's key, when there is exactly one.
    pub(super) verb: Option<&'static str>,
    /// The names of the artifacts it declares.
    pub(super) artifacts: Vec<String>,
    /// Where it asks for the workflow's model.
    pub(super) needs_model: Option<Position>,
    /// What it does; none when that was reported.
    pub(super) body: Option<Body>,
}

/// What a step does.
pub(super) enum Body {
    /// Known from the step alone.
    Whole(Verb),
    /// A promotion, whose candidate and gates are other steps.
    Promote { artifact: Template, candidate: (String, String), alias: String },
}

impl StepDraft {
    /// Where a need was written.
    pub(super) fn position_of_need(&self, need: usize) -> Position {
        self.need_positions
            .iter()
            .find(|(index, _)| *index == need)
            .map_or(self.position, |(_, position)| *position)
    }
}

const VERBS: [&str; 5] = ["run", "gate", "approval", "promote", "emit"];
const LATER_VERBS: [&str; 5] = ["validate", "evaluate", "select", "call", "workflow"];
const RUN_KEYS: [&str; 6] = ["env", "inputs", "artifacts", "retry", "timeout", "python"];
const KEYS: Keys<'_> = Keys {
    owner: "a step",
    known: &[
        "needs",
        "if",
        "run",
        "gate",
        "approval",
        "promote",
        "emit",
        "env",
        "inputs",
        "artifacts",
        "retry",
        "timeout",
        "python",
    ],
    later: &["matrix", "max_parallel", "min_success", "needs_host", "checkpoint", "cache", "uses"],
};

/// Reads one step. `places` leads from names to places in the file.
pub(super) fn step(
    index: usize,
    key: &Key,
    node: &Node<'_>,
    places: &HashMap<&str, usize>,
    defaults: &Defaults,
    reads: &mut Reads,
    f: &mut Findings,
) -> StepDraft {
    key_is_name(key, f);
    let mut draft = StepDraft {
        name: key.name.clone(),
        position: key.position,
        needs: Vec::new(),
        needs_are_sound: true,
        need_positions: Vec::new(),
        condition: None,
        verb: None,
        artifacts: Vec::new(),
        needs_model: None,
        body: None,
    };
    let owner = format!("step `{}`", key.name);
    let Some(fields) = Fields::any(node, key.position, &owner, f) else { return draft };
    let has_later_verb = report_keys(&fields, f);
    needs(&fields, places, &mut draft, f);
    draft.condition =
        fields.get("if").and_then(|(_, node)| reads.expression(node, "if", Place::Condition(index), f));
    draft.verb = verb(&fields, has_later_verb, &draft, f);
    let Some((verb, (key, node))) = draft.verb.and_then(|verb| Some((verb, fields.get(verb)?))) else {
        return draft;
    };
    if verb != "run" {
        report_misplaced(verb, &fields, f);
    }
    let place = Place::Step(index);
    draft.body = match verb {
        "run" => {
            let verb = run::run(node, &fields, defaults, place, &mut draft.artifacts, reads, f);
            verb.map(|work| Body::Whole(Verb::Work(Box::new(work))))
        }
        "gate" => {
            let has_needs = !draft.needs.is_empty() || !draft.needs_are_sound;
            verbs::gate(key, node, place, has_needs, &mut draft.needs_model, reads, f)
                .map(|gate| Body::Whole(Verb::Gate(gate)))
        }
        "approval" => verbs::approval(key, node, f).map(|approval| Body::Whole(Verb::Approval(approval))),
        "promote" => {
            draft.needs_model = Some(key.position);
            verbs::promote(key, node, place, reads, f)
        }
        _ => verbs::emit(key, node, place, reads, f).map(|emit| Body::Whole(Verb::Emit(emit))),
    };
    draft
}

/// Reports keys that are no keys of a step; true when one is a verb of a later day.
fn report_keys(fields: &Fields<'_, '_>, f: &mut Findings) -> bool {
    let mut has_later_verb = false;
    for (key, _) in fields.entries() {
        let name = key.name.as_str();
        if LATER_VERBS.contains(&name) {
            has_later_verb = true;
            f.add("not-supported", key.position, format!("the verb `{name}` is not supported yet"));
        } else if KEYS.later.contains(&name) {
            f.add("not-supported", key.position, format!("`{name}` in a step is not supported yet"));
        } else if !KEYS.known.contains(&name) && name != "<<" && !name.is_empty() {
            let hint = did_you_mean(name, KEYS.known.iter().copied())
                .unwrap_or_else(|| format!("the keys of a step are {}", KEYS.known.join(", ")));
            f.add_with_hint("unknown-key", key.position, format!("`{name}` is not a key of a step"), hint);
        }
    }
    has_later_verb
}

fn report_misplaced(verb: &str, fields: &Fields<'_, '_>, f: &mut Findings) {
    for (key, _) in fields.entries().iter().filter(|(key, _)| RUN_KEYS.contains(&key.name.as_str())) {
        let message = format!("`{}` does not go with `{verb}`: it is for steps that run a process", key.name);
        if key.name == "timeout" && verb == "approval" {
            f.add_with_hint(
                "misplaced-key",
                key.position,
                message,
                "write it inside: `approval: { timeout: 24h }`",
            );
        } else {
            f.add("misplaced-key", key.position, message);
        }
    }
}

fn verb(
    fields: &Fields<'_, '_>,
    has_later_verb: bool,
    draft: &StepDraft,
    f: &mut Findings,
) -> Option<&'static str> {
    let mut present = VERBS.into_iter().filter_map(|verb| Some((verb, fields.get(verb)?.0)));
    match (present.next(), present.next()) {
        (Some((verb, _)), None) => (!has_later_verb).then_some(verb),
        (Some((first, _)), Some((second, key))) => {
            let message =
                format!("step `{}` has the verbs `{first}` and `{second}`; a step has one", draft.name);
            f.add_with_hint(
                "many-verbs",
                key.position,
                message,
                "make two steps of it, one needing the other",
            );
            None
        }
        (None, _) => {
            let mistyped = fields.entries().iter().any(|(key, _)| did_you_mean(&key.name, VERBS).is_some());
            if !has_later_verb && !mistyped {
                let message = format!("step `{}` does nothing: it has no verb", draft.name);
                f.add_with_hint(
                    "no-verb",
                    draft.position,
                    message,
                    format!("give it one of {}", VERBS.join(", ")),
                );
            }
            None
        }
    }
}

fn needs(fields: &Fields<'_, '_>, places: &HashMap<&str, usize>, draft: &mut StepDraft, f: &mut Findings) {
    let Some((_, node)) = fields.get("needs") else { return };
    let Some(items) = list(node, "needs", f) else {
        draft.needs_are_sound = false;
        return;
    };
    for item in items {
        let Some(scalar) = text(item, "needs", f) else {
            draft.needs_are_sound = false;
            continue;
        };
        let Some(&need) = places.get(scalar.text.as_str()) else {
            draft.needs_are_sound = false;
            let message = format!("there is no step `{}`", scalar.text.escape_debug());
            f.add_unknown("unknown-step", item.position, message, &scalar.text, places.keys().copied());
            continue;
        };
        if draft.needs.contains(&need) {
            f.add("duplicate-need", item.position, format!("`{}` is needed twice", scalar.text));
            continue;
        }
        draft.needs.push(need);
        draft.need_positions.push((need, item.position));
    }
    draft.needs.sort_unstable();
}

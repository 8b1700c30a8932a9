//! One step of a file: its verb, its needs, and the keys that go with the verb. What a verb means is in `run`, `call`,
//! `gate`, `data` and `verbs`; whether the graph is sound is decided when all steps are known.

use std::collections::HashMap;

use super::super::diagnostics::{Findings, Spot, did_you_mean, shown};
use super::super::language::{STEP, VERBS};
use super::super::raw::{Key, Node};
use super::super::{Matrix, SelectOrder, Task, Verb, Watch};
use super::fields::{Fields, check_key, key_is_name, list, text};
use super::reads::{Place, Reads};
use super::uses::{self, Library};
use super::{Defaults, call, evaluate, gate, matrix, run, validate, verbs, work};
use crate::expression::Expression;
use crate::template::{Template, ValueTemplate};

/// A step as far as it can be read on its own.
pub(super) struct StepDraft {
    pub(super) name: String,
    pub(super) position: Spot,
    pub(super) finally: bool,
    /// Places of the steps it waits for, in the file's order.
    pub(super) needs: Vec<usize>,
    /// Whether all of `needs` could be read: if not, what it fails to wait for is not worth telling.
    pub(super) needs_are_sound: bool,
    need_positions: Vec<(usize, Spot)>,
    pub(super) condition: Option<Expression>,
    /// The verb's key, when there is exactly one.
    pub(super) verb: Option<&'static str>,
    /// The names of the artifacts it declares.
    pub(super) artifacts: Vec<String>,
    /// What is known of its matrix.
    pub(super) axes: Axes,
    pub(super) matrix: Option<Matrix>,
    /// The step that a `select` chooses from, with the place where it is named.
    pub(super) select_from: Option<usize>,
    pub(super) select_spot: Option<Spot>,
    /// Where a gate asks for what other steps must give it.
    pub(super) asks: gate::Asks,
    pub(super) with: Vec<(String, ValueTemplate)>,
    /// What it does; none when that was reported.
    pub(super) body: Option<Body>,
}

/// What is known of a step's axes.
pub(super) enum Axes {
    /// It has no matrix.
    Without,
    /// These.
    Named(Vec<String>),
    /// It has a matrix whose axes are known only when it starts.
    Open,
}

/// What a step does.
pub(super) enum Body {
    /// Known from the step alone.
    Whole(Verb),
    /// A promotion, whose candidate and gates are other steps.
    Promote { artifact: Template, candidate: (String, String), alias: String, watch: Option<Watch> },
    /// A selection from another step.
    Select { by: Expression, order: SelectOrder },
}

impl StepDraft {
    fn new(key: &Key, finally: bool) -> Self {
        Self {
            name: key.name.clone(),
            position: key.position,
            finally,
            needs: Vec::new(),
            needs_are_sound: true,
            need_positions: Vec::new(),
            condition: None,
            verb: None,
            artifacts: Vec::new(),
            axes: Axes::Without,
            matrix: None,
            select_from: None,
            select_spot: None,
            asks: gate::Asks::default(),
            with: Vec::new(),
            body: None,
        }
    }

    /// Where a need was written.
    pub(super) fn position_of_need(&self, need: usize) -> Spot {
        self.need_positions
            .iter()
            .find(|(index, _)| *index == need)
            .map_or(self.position, |(_, position)| *position)
    }
}

/// What is known of the whole file when one of its steps is read.
pub(super) struct Around<'a> {
    /// From the names of all steps to their places.
    pub(super) places: &'a HashMap<&'a str, usize>,
    /// The place of the first step of `finally`.
    pub(super) finally_from: usize,
    pub(super) defaults: &'a Defaults,
}

/// Reads one step.
pub(super) fn step(
    index: usize,
    key: &Key,
    node: &Node,
    around: &Around<'_>,
    library: &mut Library<'_>,
    reads: &mut Reads,
    f: &mut Findings,
) -> StepDraft {
    key_is_name(key, f);
    let mut draft = StepDraft::new(key, index >= around.finally_from);
    let Some(whole) = uses::whole_step(key, node, index, library, reads, f) else { return draft };
    let owner = format!("step `{}`", key.name);
    if let Some(fields) = Fields::of_step(&whole, key.position, &owner, f) {
        read(index, fields, around, &mut draft, reads, f);
    }
    draft.with = std::mem::take(&mut reads.handed);
    draft
}

fn read(
    index: usize,
    fields: Fields<'_>,
    around: &Around<'_>,
    draft: &mut StepDraft,
    reads: &mut Reads,
    f: &mut Findings,
) {
    // Those of a used file were checked when it was read.
    for (key, _) in fields.entries().iter().filter(|(key, _)| key.position.file == 0) {
        check_key(key, STEP.owner, STEP.names(), f);
    }
    needs(&fields, around, draft, f);
    draft.condition =
        fields.get("if").and_then(|(_, node)| reads.expression(node, "if", Place::Condition(index), f));
    matrix::matrix(&fields, index, draft, reads, f);
    draft.verb = verb(&fields, draft, f);
    let Some((verb, (key, node))) = draft.verb.and_then(|verb| Some((verb, fields.get(verb)?))) else {
        return;
    };
    report_misplaced(verb, &fields, f);
    draft.body = body(index, verb, key, node, &fields, around, draft, reads, f);
}

#[expect(clippy::too_many_arguments, reason = "one step with everything around it; split only by its verb")]
fn body(
    index: usize,
    verb: &str,
    key: &Key,
    node: &Node,
    fields: &Fields<'_>,
    around: &Around<'_>,
    draft: &mut StepDraft,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Body> {
    let place = Place::Step(index);
    let task = match verb {
        "run" => run::run(node, fields, place, reads, f).map(Task::Run),
        "call" => call::call(key, node, place, reads, f).map(Task::Call),
        "validate" => {
            validate::validate(key, node, place, reads, f).map(|task| Task::Validate(Box::new(task)))
        }
        "evaluate" => {
            evaluate::evaluate(key, node, place, reads, f).map(|task| Task::Evaluate(Box::new(task)))
        }
        "gate" => {
            return gate::gate(key, node, place, &mut draft.asks, reads, f).map(Verb::Gate).map(Body::Whole);
        }
        "approval" => return verbs::approval(key, node, f).map(Verb::Approval).map(Body::Whole),
        "select" => return verbs::select(key, node, index, around, draft, reads, f),
        "workflow" => {
            return verbs::child_run(key, node, place, reads, f).map(Verb::Workflow).map(Body::Whole);
        }
        "promote" => {
            draft.asks.model.get_or_insert(key.position);
            return verbs::promote(key, node, place, reads, f);
        }
        _ => return verbs::emit(key, node, place, reads, f).map(Verb::Emit).map(Body::Whole),
    };
    let work = work::work(task, fields, around.defaults, place, &mut draft.artifacts, reads, f)?;
    Some(Body::Whole(Verb::Work(Box::new(work))))
}

fn report_misplaced(verb: &str, fields: &Fields<'_>, f: &mut Findings) {
    for (key, _) in fields.entries() {
        let Some(spec) = STEP.get(&key.name) else { continue };
        if spec.verbs.is_empty() || spec.verbs.contains(&verb) {
            continue;
        }
        let verbs: Vec<String> = spec.verbs.iter().map(|verb| format!("`{verb}`")).collect();
        let message = format!("`{}` does not go with `{verb}`: it is for {}", key.name, verbs.join(", "));
        if key.name == "timeout" && verb == "approval" {
            let hint = "write it inside: `approval: { timeout: 24h }`";
            f.add_with_hint("misplaced-key", key.position, message, hint);
        } else {
            f.add("misplaced-key", key.position, message);
        }
    }
}

fn verb(fields: &Fields<'_>, draft: &StepDraft, f: &mut Findings) -> Option<&'static str> {
    let mut present = VERBS.into_iter().filter_map(|verb| Some((verb, fields.get(verb)?.0)));
    match (present.next(), present.next()) {
        (Some((verb, _)), None) => Some(verb),
        (Some((first, earlier)), Some((second, later))) => {
            let spot = earlier.position.max(later.position);
            let message =
                format!("step `{}` has the verbs `{first}` and `{second}`; a step has one", draft.name);
            f.add_with_hint("many-verbs", spot, message, "make two steps of it, one needing the other");
            None
        }
        (None, _) => {
            let mistyped = fields.entries().iter().any(|(key, _)| did_you_mean(&key.name, VERBS).is_some());
            if !mistyped {
                let message = format!("step `{}` does nothing: it has no verb", draft.name);
                let hint = format!("give it one of {}", VERBS.join(", "));
                f.add_with_hint("no-verb", draft.position, message, hint);
            }
            None
        }
    }
}

fn needs(fields: &Fields<'_>, around: &Around<'_>, draft: &mut StepDraft, f: &mut Findings) {
    let Some((_, node)) = fields.get("needs") else {
        draft.needs_are_sound = !fields.is_meant("needs");
        return;
    };
    let Some(items) = list(node, "needs", f) else {
        draft.needs_are_sound = false;
        return;
    };
    for item in items {
        let Some(scalar) = text(item, "needs", f) else {
            draft.needs_are_sound = false;
            continue;
        };
        let name = shown(&scalar.text);
        let Some(&need) = around.places.get(scalar.text.as_str()) else {
            draft.needs_are_sound = false;
            let message = format!("there is no step `{name}`");
            f.add_unknown(
                "unknown-step",
                item.position,
                message,
                &scalar.text,
                around.places.keys().copied(),
            );
            continue;
        };
        match (draft.finally, need >= around.finally_from) {
            (true, false) => {
                draft.needs_are_sound = false;
                let message = format!("`{name}` is no step of `finally`, and has come to its end anyway");
                let hint =
                    "leave it out: steps of `finally` run after all others and may read every one of them";
                f.add_with_hint("unknown-step", item.position, message, hint);
                continue;
            }
            (false, true) => {
                draft.needs_are_sound = false;
                let message = format!("`{name}` is a step of `finally`, which runs after all others");
                let hint = format!("move `{}` to `finally` as well, or `{name}` to `steps`", draft.name);
                f.add_with_hint("unknown-step", item.position, message, hint);
                continue;
            }
            (true, true) | (false, false) => {}
        }
        if draft.needs.contains(&need) {
            f.add("duplicate-need", item.position, format!("`{name}` is needed twice"));
            continue;
        }
        draft.needs.push(need);
        draft.need_positions.push((need, item.position));
    }
    draft.needs.sort_unstable();
}

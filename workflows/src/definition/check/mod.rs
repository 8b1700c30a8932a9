//! From a tree of nodes to a sound workflow: what the language allows, and every way a file can miss it.
//!
//! Each part is read on its own and notes what is wrong, so that one problem does not hide another; only what needs
//! the whole (the graph, what expressions read, which gate stands before a promotion) is checked at the end. Must
//! never happen here: a workflow with a problem getting out.

mod fields;
mod reads;
mod run;
mod steps;
mod triggers;
mod verbs;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::diagnostics::{Findings, Position};
use super::graph::{Ancestors, cycles};
use super::raw::{self, Node};
use super::{
    Concurrency, OnConflict, Param, ParamType, Problems, Promote, Retry, STEPS_MAX, Step, Verb, Workflow,
};
use fields::{Fields, Keys, key_is_name};
use reads::{Known, Place, Reads};
use steps::{Body, StepDraft};

const TOP: Keys<'_> = Keys {
    owner: "a workflow",
    known: &["workflow", "description", "model", "on", "params", "concurrency", "defaults", "steps"],
    later: &["cooldown", "finally"],
};

/// What `run` steps take when they say nothing themselves.
#[derive(Debug)]
pub(super) struct Defaults {
    timeout: Duration,
    retry: Retry,
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

/// Reads and checks one file.
pub(super) fn workflow(text: &str) -> Result<Workflow, Problems> {
    let mut findings = Findings::default();
    let workflow = raw::read(text, &mut findings).and_then(|root| check(&root, &mut findings));
    match workflow {
        Some(workflow) if findings.is_empty() => Ok(workflow),
        Some(_) | None => {
            if findings.is_empty() {
                findings.add("incomplete", Position::START, "the workflow is not complete");
            }
            Err(findings.into_problems())
        }
    }
}

fn check(root: &Node<'_>, f: &mut Findings) -> Option<Workflow> {
    let top = Fields::of(root, Position::START, &TOP, f)?;
    top.need("workflow", "a workflow file", "workflow: churn", f);
    let name = top.name("workflow", f);
    let description = top.text("description", f);
    let model = top.name("model", f);
    let has_model = top.get("model").is_some();

    let params = params(&top, f);
    let mut reads = Reads::default();
    let triggers = triggers::triggers(&top, &params, &mut reads, f);
    let concurrency = concurrency(&top, &mut reads, f);
    let defaults = defaults(&top, f);
    let drafts = step_drafts(&top, &defaults, &mut reads, f);

    let needs: Vec<Vec<usize>> = drafts.iter().map(|draft| draft.needs.clone()).collect();
    let has_cycle = report_cycles(&drafts, &needs, f);
    let ancestors = Ancestors::of(&needs);
    // In a graph that is wrong itself, who comes before whom is not worth telling.
    let is_sound = !has_cycle && drafts.iter().all(|draft| draft.needs_are_sound);
    let is_before = |earlier: usize, step: usize| !is_sound || ancestors.is_before(earlier, step);
    let declared: Vec<String> = params.keys().cloned().collect();
    reads.check(&Known { params: &declared, steps: &drafts, has_model, is_before: &is_before }, f);
    let promotions = promotions(&drafts, has_model, &is_before, f);

    let steps = finish_steps(drafts, promotions)?;
    Some(Workflow {
        name: name?,
        description,
        model,
        triggers: triggers?,
        params,
        concurrency: concurrency?,
        cooldown: None,
        steps,
        outputs: BTreeMap::new(),
        not_yet: Vec::new(),
    })
}

fn params(top: &Fields<'_, '_>, f: &mut Findings) -> BTreeMap<String, Param> {
    const KEYS: Keys<'_> = Keys { owner: "a param", known: &["type", "default", "description"], later: &[] };
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
        let fields = Fields::of(node, key.position, &KEYS, f);
        let param = fields.and_then(|fields| {
            fields.need("type", &format!("param `{}`", key.name), "type: string", f)?;
            let kind = fields.word("type", &TYPES, &[], f)?;
            let default = fields.get("default").and_then(|(_, node)| {
                let value = fields::json(node, f)?;
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
fn check_param(kind: ParamType, value: &Value) -> Result<(), String> {
    let (fits, what) = match kind {
        ParamType::String => (value.is_string(), "text (in quotes, if it looks like a number)"),
        ParamType::Integer => (value.is_i64() || value.is_u64(), "a whole number"),
        ParamType::Number => (value.is_number(), "a number"),
        ParamType::Boolean => (value.is_boolean(), "true or false"),
    };
    if fits { Ok(()) } else { Err(format!("must be {what}, not {value}")) }
}

/// Without the section, runs do not wait for each other; with it they queue, one at a time, unless it says otherwise.
fn concurrency(top: &Fields<'_, '_>, reads: &mut Reads, f: &mut Findings) -> Option<Concurrency> {
    const KEYS: Keys<'_> =
        Keys { owner: "`concurrency`", known: &["key", "limit", "on_conflict"], later: &[] };
    const WORDS: [(&str, OnConflict); 3] = [
        ("coalesce", OnConflict::Coalesce),
        ("queue", OnConflict::Queue),
        ("parallel", OnConflict::Parallel),
    ];
    let Some((key, node)) = top.get("concurrency") else {
        return Some(Concurrency { key: None, limit: 1, on_conflict: OnConflict::Parallel });
    };
    let fields = Fields::of(node, key.position, &KEYS, f)?;
    let key = fields.get("key").and_then(|(_, node)| reads.expression(node, "key", Place::Key, f));
    let limit = fields.count("limit", 1, 10_000, f).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(1);
    let on_conflict = fields.word("on_conflict", &WORDS, &["skip", "cancel_running"], f);
    Some(Concurrency { key, limit, on_conflict: on_conflict.unwrap_or(OnConflict::Queue) })
}

fn defaults(top: &Fields<'_, '_>, f: &mut Findings) -> Defaults {
    const KEYS: Keys<'_> = Keys { owner: "`defaults`", known: &["timeout", "retry"], later: &[] };
    let mut defaults = Defaults::default();
    let fields = top.get("defaults").and_then(|(key, node)| Fields::of(node, key.position, &KEYS, f));
    if let Some(fields) = fields {
        if let Some(timeout) = fields.duration("timeout", true, f) {
            defaults.timeout = timeout;
        }
        defaults.retry = run::retry(&fields, &defaults.retry, f);
    }
    defaults
}

fn step_drafts(
    top: &Fields<'_, '_>,
    defaults: &Defaults,
    reads: &mut Reads,
    f: &mut Findings,
) -> Vec<StepDraft> {
    let Some((key, node)) =
        top.need("steps", "a workflow file", "steps: { train: { run: [python, train.py] } }", f)
    else {
        return Vec::new();
    };
    let Some(steps) = Fields::any(node, key.position, "`steps`", f) else { return Vec::new() };
    if steps.entries().is_empty() {
        f.add_with_hint(
            "missing-key",
            key.position,
            "a workflow needs at least one step",
            "for example `train: { run: [python, train.py] }`",
        );
    }
    if steps.entries().len() > STEPS_MAX {
        f.add("too-many", key.position, format!("a workflow has at most {STEPS_MAX} steps"));
        return Vec::new();
    }
    let mut places = std::collections::HashMap::new();
    for (index, (key, _)) in steps.entries().iter().enumerate() {
        places.entry(key.name.as_str()).or_insert(index);
    }
    let entries = steps.entries().iter().enumerate();
    entries.map(|(index, (key, node))| steps::step(index, key, node, &places, defaults, reads, f)).collect()
}

fn report_cycles(drafts: &[StepDraft], needs: &[Vec<usize>], f: &mut Findings) -> bool {
    let cycles = cycles(needs);
    for cycle in &cycles {
        let Some(&first) = cycle.first() else { continue };
        let next = cycle.get(1).copied().unwrap_or(first);
        let draft = &drafts[first];
        // A way of thousands of steps would bury the message.
        let shown =
            cycle.iter().take(20).map(|&step| drafts[step].name.as_str()).collect::<Vec<_>>().join(" -> ");
        let more =
            if cycle.len() > 20 { format!(" -> … {} more", cycle.len() - 20) } else { String::new() };
        f.add_with_hint(
            "cycle",
            draft.position_of_need(next),
            format!("steps wait for each other: {shown}{more} -> {}", draft.name),
            "take one of these needs away",
        );
    }
    !cycles.is_empty()
}

/// Where each promotion gets its candidate from and which gates it stands behind, by the step's place.
fn promotions(
    drafts: &[StepDraft],
    has_model: bool,
    is_before: &dyn Fn(usize, usize) -> bool,
    f: &mut Findings,
) -> BTreeMap<usize, ((usize, String), Vec<usize>)> {
    let mut promotions = BTreeMap::new();
    let mut promoting: Option<&str> = None;
    for (index, draft) in drafts.iter().enumerate() {
        if let Some(position) = draft.needs_model
            && !has_model
        {
            f.add_with_hint(
                "missing-key",
                position,
                format!("step `{}` needs a model to compare with or to promote", draft.name),
                "name the registered model at the top: `model: churn`",
            );
        }
        if draft.verb != Some("promote") {
            continue;
        }
        if let Some(other) = promoting.replace(&draft.name) {
            f.add_with_hint(
                "second-promotion",
                draft.position,
                format!("step `{}` promotes as well, as `{other}` does: a workflow has one promotion", draft.name),
                "promote to the other alias in a workflow of its own, started by the event refit.model.promoted",
            );
        }
        let Some(Body::Promote { candidate: (candidate, artifact), .. }) = &draft.body else { continue };
        let Some(candidate) = drafts.iter().position(|other| other.name == *candidate) else { continue };
        // A gate that does not come after the candidate has judged something else.
        let gates: Vec<usize> = (0..drafts.len())
            .filter(|&other| drafts[other].verb == Some("gate"))
            .filter(|&gate| is_before(candidate, gate) && is_before(gate, index))
            .collect();
        if gates.is_empty() && draft.needs_are_sound {
            f.add_with_hint(
                "ungated-promotion",
                draft.position,
                format!(
                    "step `{}` promotes what `{}` made without a gate between them",
                    draft.name, drafts[candidate].name
                ),
                "add a gate step that needs the candidate's step, or one after it, and name it in `needs`",
            );
        }
        promotions.insert(index, ((candidate, artifact.clone()), gates));
    }
    promotions
}

fn finish_steps(
    drafts: Vec<StepDraft>,
    mut promotions: BTreeMap<usize, ((usize, String), Vec<usize>)>,
) -> Option<Vec<Step>> {
    let finish = |(index, draft): (usize, StepDraft)| {
        let verb = match draft.body? {
            Body::Whole(verb) => verb,
            Body::Promote { artifact, alias, .. } => {
                let (candidate, gates) = promotions.remove(&index)?;
                Verb::Promote(Promote { artifact, candidate, alias, gates })
            }
        };
        Some(Step {
            name: draft.name,
            needs: draft.needs,
            finally: false,
            condition: draft.condition,
            matrix: None,
            verb,
        })
    };
    drafts.into_iter().enumerate().map(finish).collect()
}

#[cfg(test)]
mod tests;

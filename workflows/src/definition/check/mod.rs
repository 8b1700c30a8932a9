//! From a tree of nodes to a sound workflow: what the language allows, and every way a file can miss it.
//!
//! Each part is read on its own and notes what is wrong, so that one problem does not hide another; only what needs
//! the whole (`whole`: the graph, which gate stands before a promotion; `known`: what expressions may read) is checked at
//! the end. Must never happen here: a workflow with a problem getting out.

mod call;
mod data;
mod evaluate;
mod fields;
mod gate;
mod known;
mod matrix;
mod reads;
mod run;
mod steps;
mod top;
mod triggers;
mod types;
mod uses;
mod validate;
mod verbs;
mod whole;
mod work;

use std::collections::HashMap;

use super::diagnostics::{Findings, Spot, shown};
use super::graph::Ancestors;
use super::language::WORKFLOW;
use super::raw::{self, Document, Key, Node};
use super::{Files, Problems, STEPS_MAX, Sources, Workflow};
use fields::Fields;
use known::Known;
use reads::Reads;
use steps::{Around, StepDraft};
use top::{Defaults, PRIORITY_DEFAULT, check_param};
use uses::Library;
use whole::Whole;

/// Reads and checks a file of exactly one workflow.
pub(super) fn one(text: &str, files: &dyn Files) -> Result<Workflow, Problems> {
    let mut findings = Findings::default();
    let mut documents = raw::read(text, 0, &mut findings).unwrap_or_default();
    if let Some(second) = documents.get(1) {
        findings.add_with_hint(
            "second-workflow",
            second.root.position,
            "this file holds more than one workflow where one is expected",
            "write each workflow into a file of its own",
        );
        documents.truncate(1);
    }
    let mut workflows = check_all(&documents, files, findings)?;
    workflows.pop().ok_or_else(incomplete)
}

/// Reads and checks a file of any number of workflows.
pub(super) fn all(text: &str, files: &dyn Files) -> Result<Vec<Workflow>, Problems> {
    let mut findings = Findings::default();
    let documents = raw::read(text, 0, &mut findings).unwrap_or_default();
    check_all(&documents, files, findings)
}

fn check_all(
    documents: &[Document],
    files: &dyn Files,
    mut findings: Findings,
) -> Result<Vec<Workflow>, Problems> {
    let mut library = Library::new(files);
    let mut workflows: Vec<Workflow> = Vec::new();
    let mut names: HashMap<String, Spot> = HashMap::new();
    for document in documents {
        report_second_name(&document.root, &mut names, &mut findings);
        library.texts.clear();
        let workflow = check(&document.root, &mut library, &mut findings);
        let sources = Sources { main: document.text.clone(), used: std::mem::take(&mut library.texts) };
        workflows.extend(workflow.map(|workflow| Workflow { sources, ..workflow }));
    }
    if !findings.is_empty() {
        Err(findings.into_problems())
    } else if workflows.is_empty() || workflows.len() < documents.len() {
        Err(incomplete())
    } else {
        Ok(workflows)
    }
}

/// What is said of a workflow that could not be read although nothing is known to be wrong with it.
fn incomplete() -> Problems {
    let mut findings = Findings::default();
    findings.add("incomplete", Spot::START, "the workflow is not complete");
    findings.into_problems()
}

fn report_second_name(root: &Node, names: &mut HashMap<String, Spot>, f: &mut Findings) {
    // Whether it is a name at all is reported later.
    let Some(fields) = Fields::any(root, root.position, "a workflow", &mut Findings::default()) else {
        return;
    };
    let Some((_, node)) = fields.get("workflow") else { return };
    let Some(name) = fields.text("workflow", &mut Findings::default()) else { return };
    if let Some(first) = names.get(&name) {
        let line = first.position.line;
        let message = format!("there is a workflow `{}` in this file already", shown(&name));
        f.add_with_hint("duplicate-workflow", node.position, message, format!("it is on line {line}"));
    } else {
        names.insert(name, node.position);
    }
}

fn check(root: &Node, library: &mut Library<'_>, f: &mut Findings) -> Option<Workflow> {
    let top = Fields::of(root, root.position, &WORKFLOW, f)?;
    top.need("workflow", "a workflow file", "workflow: churn", f);
    let name = top.name("workflow", f);
    let description = top.text("description", f);
    let model = top.name("model", f);
    let has_model = top.is_meant("model");

    let params = top::params(&top, f);
    let mut reads = Reads::default();
    let triggers = triggers::triggers(&top, &params, &mut reads, f);
    let cooldown = top.duration("cooldown", f);
    let priority = top.small_count("priority", f).unwrap_or(PRIORITY_DEFAULT);
    let defaults = top::defaults(&top, f);
    let outputs = top::outputs(&top, &mut reads, f);
    let (entries, finally_from) = step_entries(&top, f);
    let mut places = HashMap::new();
    for (index, (key, _)) in entries.iter().enumerate() {
        places.entry(key.name.as_str()).or_insert(index);
    }
    let concurrency = top::concurrency(&top, &places, finally_from, &mut reads, f);
    let around = Around { places: &places, finally_from, defaults: &defaults };
    let drafts: Vec<StepDraft> = entries
        .iter()
        .enumerate()
        .map(|(index, (key, node))| steps::step(index, key, node, &around, library, &mut reads, f))
        .collect();

    let needs: Vec<Vec<usize>> = drafts.iter().map(|draft| draft.needs.clone()).collect();
    let has_cycle = whole::report_cycles(&drafts, &needs, f);
    let ancestors = Ancestors::of(&needs);
    // In a graph that is wrong itself, who comes before whom is not worth telling.
    let is_sound = !has_cycle && drafts.iter().all(|draft| draft.needs_are_sound);
    let is_before = |earlier: usize, step: usize| {
        !is_sound || ancestors.is_before(earlier, step) || (earlier < finally_from && finally_from <= step)
    };
    let declared: Vec<String> = params.keys().cloned().collect();
    let with = library.values();
    let known = Known { params: &declared, steps: &drafts, has_model, is_before: &is_before, with: &with };
    known.check(&reads, f);
    types::check(&known, &params, &reads, f);
    let promotions = Whole { drafts: &drafts, has_model, is_before: &is_before }.check(f);

    let steps = whole::finish(drafts, promotions)?;
    Some(Workflow {
        name: name?,
        description,
        model,
        triggers: triggers?,
        params,
        concurrency: concurrency?,
        cooldown,
        priority,
        steps,
        outputs,
        sources: Sources::default(),
    })
}

/// The steps as written, those of `finally` last, and where these begin.
fn step_entries<'n>(top: &Fields<'n>, f: &mut Findings) -> (Vec<&'n (Key, Node)>, usize) {
    let example = "steps: { train: { run: [python, train.py] } }";
    let mut entries: Vec<&(Key, Node)> = Vec::new();
    if let Some((key, node)) = top.need("steps", "a workflow file", example, f)
        && let Some(steps) = Fields::any(node, key.position, "`steps`", f)
    {
        if steps.entries().is_empty() {
            let hint = "for example `train: { run: [python, train.py] }`";
            f.add_with_hint("missing-key", key.position, "a workflow needs at least one step", hint);
        }
        entries.extend(steps.entries());
    }
    let finally_from = entries.len();
    if let Some((key, node)) = top.get("finally")
        && let Some(last) = Fields::any(node, key.position, "`finally`", f)
    {
        if last.entries().is_empty() {
            let hint = "for example `report: { emit: { type: churn.over } }`, or leave it out";
            f.add_with_hint("missing-key", key.position, "`finally` has no step", hint);
        }
        for entry in last.entries() {
            let (key, _) = entry;
            if let Some((first, _)) = entries[..finally_from].iter().find(|(first, _)| first.name == key.name)
            {
                let hint = format!(
                    "it is on line {} already; names are unique over both",
                    first.position.position.line
                );
                let message = format!("`{}` is a step of `steps` and of `finally`", shown(&key.name));
                f.add_with_hint("duplicate-key", key.position, message, hint);
            }
            entries.push(entry);
        }
    }
    if entries.len() > STEPS_MAX {
        f.add("too-many", top.position, format!("a workflow has at most {STEPS_MAX} steps"));
        return (Vec::new(), 0);
    }
    (entries, finally_from)
}

#[cfg(test)]
mod tests;

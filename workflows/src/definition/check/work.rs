//! What all verbs share that run on a worker: inputs, artifacts, retries, the host they ask for. Must never happen here:
//! a path that leaves its folder.

use std::collections::BTreeMap;

use super::super::diagnostics::{Findings, shown};
use super::super::language::{CACHE, NEEDS_HOST, RETRY};
use super::super::raw::{Node, Raw};
use super::super::{Cache, HostNeeds, Retry, Task, Work};
use super::Defaults;
use super::fields::{Fields, key_is_name, list, text};
use super::reads::{Place, Reads};
use super::run::check_variable;
use crate::template::Template;
use crate::wire::{VALIDATE_ARTIFACTS, check_relative_path};

/// The step around a task; none when the task was reported. Every key is read all the same.
pub(super) fn work(
    task: Option<Task>,
    fields: &Fields<'_>,
    defaults: &Defaults,
    place: Place,
    declared: &mut Vec<String>,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Work> {
    let inputs = inputs(fields, place, reads, f);
    let artifacts = artifacts(fields, f);
    declared.extend(artifacts.keys().cloned());
    if let Some(Task::Validate(_)) = task {
        declared.extend(VALIDATE_ARTIFACTS.map(str::to_owned));
    }
    let retry = retry(fields, &defaults.retry, f);
    let timeout = fields.duration("timeout", f).unwrap_or(defaults.timeout);
    let host = host(fields, f);
    let checkpoint = checkpoint(fields, f);
    let cache = cache(fields, place, reads, f);
    let secrets = secrets(fields, task.as_ref(), f);
    Some(Work { task: task?, inputs, artifacts, retry, timeout, host, checkpoint, cache, secrets })
}

/// `secrets`: names alone; what they hold is the orchestrator's.
fn secrets(fields: &Fields<'_>, task: Option<&Task>, f: &mut Findings) -> Vec<String> {
    let in_env = |name: &str| matches!(task, Some(Task::Run(run)) if run.env.contains_key(name));
    let Some((key, node)) = fields.get("secrets") else { return Vec::new() };
    let mut names: Vec<String> = Vec::new();
    for item in list(node, "secrets", f).unwrap_or_default() {
        let Some(name) = text(item, "secrets", f).map(|scalar| scalar.text.clone()) else { continue };
        check_variable(&name, item.position, f);
        if names.contains(&name) {
            f.add("value", item.position, "`secrets` names each secret once");
        } else if in_env(&name) {
            let message = format!("`{}` is in `env` already", shown(&name));
            f.add_with_hint("value", item.position, message, "take it out of one of them");
        }
        names.push(name);
    }
    let (_, most) = fields.sizes("secrets");
    if names.is_empty() {
        let hint = "for example `secrets: [API_TOKEN]`";
        f.add_with_hint("value", key.position, "`secrets` names at least one secret", hint);
    } else if names.len() > most {
        f.add("too-many", key.position, format!("a step has at most {most} secrets"));
    }
    names
}

fn inputs(
    fields: &Fields<'_>,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> BTreeMap<String, Template> {
    let mut inputs = BTreeMap::new();
    let declared =
        fields.get("inputs").and_then(|(key, node)| Fields::any(node, key.position, "`inputs`", f));
    for (key, node) in declared.iter().flat_map(|declared| declared.entries()) {
        key_is_name(key, f);
        if let Some(template) = reads.template(node, &key.name, place, f)
            && reads.artifact_of(&template, node, &key.name, f).is_some()
        {
            inputs.insert(key.name.clone(), template);
        }
    }
    inputs
}

/// `checkpoint`: a folder, whether or not it is written with a `/` at its end.
fn checkpoint(fields: &Fields<'_>, f: &mut Findings) -> Option<String> {
    let (_, node) = fields.get("checkpoint")?;
    path(node, "checkpoint", f)
}

fn host(fields: &Fields<'_>, f: &mut Findings) -> HostNeeds {
    let Some((key, node)) = fields.get("needs_host") else { return HostNeeds::default() };
    let Some(host) = Fields::of(node, key.position, &NEEDS_HOST, f) else { return HostNeeds::default() };
    let mut needs = HostNeeds {
        gpus: host.small_count("gpus", f),
        cpus: host.number("cpus", f),
        memory: host.size("memory", f),
        labels: BTreeMap::new(),
    };
    if let (Some(cpus), Some((_, node))) = (needs.cpus, host.get("cpus"))
        && !(cpus > 0.0 && cpus <= 4096.0)
    {
        f.add("number", node.position, "`cpus` is a number above 0, at most 4096");
    }
    let labels = host.get("labels").and_then(|(key, node)| Fields::any(node, key.position, "`labels`", f));
    for (key, node) in labels.iter().flat_map(|labels| labels.entries()) {
        let is_word = |text: &str| !text.trim().is_empty() && text.len() <= 200 && !text.contains(['=', ',']);
        let Some(value) = text(node, &key.name, f).map(|scalar| scalar.text.clone()) else { continue };
        if Template::is_in(&value) {
            f.add("value", node.position, "a label is written out: it takes no `${{ }}`");
        } else if !is_word(&key.name) || !is_word(&value) {
            f.add(
                "value",
                key.position,
                "a label is KEY: VALUE, without `=` and `,`, each of 1 to 200 bytes",
            );
        }
        needs.labels.insert(key.name.clone(), value);
    }
    needs
}

fn cache(fields: &Fields<'_>, place: Place, reads: &mut Reads, f: &mut Findings) -> Option<Cache> {
    let (key, node) = fields.get("cache")?;
    if let Raw::Scalar(_) = &node.value {
        return fields.boolean("cache", f)?.then_some(Cache { key: None, ttl: None });
    }
    let cache = Fields::of(node, key.position, &CACHE, f)?;
    if cache.entries().is_empty() {
        f.add_with_hint("missing-key", key.position, "`cache` says nothing", "write `cache: true`");
    }
    let key = cache.get("key").and_then(|(_, node)| reads.template(node, "key", place, f));
    Some(Cache { key, ttl: cache.duration("ttl", f) })
}

fn artifacts(fields: &Fields<'_>, f: &mut Findings) -> BTreeMap<String, String> {
    let mut artifacts = BTreeMap::new();
    let declared =
        fields.get("artifacts").and_then(|(key, node)| Fields::any(node, key.position, "`artifacts`", f));
    for (key, node) in declared.iter().flat_map(|declared| declared.entries()) {
        key_is_name(key, f);
        // Declared even when its path is wrong, so that what reads it is not reported as well.
        let path = path(node, &key.name, f).unwrap_or_default();
        artifacts.insert(key.name.clone(), path);
    }
    artifacts
}

/// A path that is written out and stays inside its folder.
pub(super) fn path(node: &Node, what: &str, f: &mut Findings) -> Option<String> {
    let path = text(node, what, f)?.text.clone();
    check_path(&path, node, f);
    Some(path)
}

fn check_path(path: &str, node: &Node, f: &mut Findings) {
    if Template::is_in(path) {
        f.add("path", node.position, "a path is written out: it takes no `${{ }}`");
    } else if let Err(wrong) = check_relative_path(path) {
        let hint = "a path inside the folder that the step works in, as in `out/model.pkl`";
        f.add_with_hint("path", node.position, format!("`{}` {wrong}", shown(path)), hint);
    }
}

/// `retry` of a step or of the defaults; what it leaves out is taken from `base`.
pub(super) fn retry(fields: &Fields<'_>, base: &Retry, f: &mut Findings) -> Retry {
    let mut retry = base.clone();
    let Some((key, node)) = fields.get("retry") else { return retry };
    let Some(fields) = Fields::of(node, key.position, &RETRY, f) else { return retry };
    if let Some(attempts) = fields.small_count("attempts", f) {
        retry.attempts = attempts;
    }
    if let Some(backoff) = fields.duration("backoff", f) {
        retry.backoff = backoff;
    }
    match (fields.duration("max_backoff", f), fields.get("max_backoff")) {
        (Some(most), Some((_, node))) if most < retry.backoff => {
            f.add("duration", node.position, "`max_backoff` is shorter than `backoff`");
        }
        (Some(most), _) => retry.max_backoff = most,
        // A first pause longer than the usual bound is meant as it is written.
        (None, _) => retry.max_backoff = retry.max_backoff.max(retry.backoff),
    }
    retry
}

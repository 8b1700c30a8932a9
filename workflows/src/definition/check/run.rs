//! The verb `run`: command, environment, inputs, artifacts, retries. Owns the rule that no value ever reaches a
//! shell's text; must never happen here: a command line put together from strings.

use std::collections::BTreeMap;

use super::super::diagnostics::{Findings, Position};
use super::super::raw::{Node, Raw};
use super::super::{Command, Retry, RunTask, Task, Work};
use super::Defaults;
use super::fields::{Fields, Keys, key_is_name, text};
use super::reads::{Place, Reads, artifact_of};
use crate::template::Template;
use crate::wire::check_relative_path;

/// Variables that make a process load code before its own.
const LOADERS: [&str; 4] = ["LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "BASH_ENV"];

const SAFE_WAY: &str = "hand the value over as a variable, `env: { REGION: \"${{ params.region }}\" }`, and write \
                        \"$REGION\" in the script; or use an argument list, `run: [python, train.py, \"${{ params.region }}\"]`";

/// Reads the verb and the keys that go with it.
pub(super) fn run(
    node: &Node<'_>,
    fields: &Fields<'_, '_>,
    defaults: &Defaults,
    place: Place,
    declared: &mut Vec<String>,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Work> {
    let command = command(node, place, reads, f);
    let env = env(fields, place, reads, f);
    let inputs = inputs(fields, place, reads, f);
    let artifacts = artifacts(fields, f);
    declared.extend(artifacts.keys().cloned());
    let requirements = requirements(fields, f);
    let retry = retry(fields, &defaults.retry, f);
    let timeout = fields.duration("timeout", true, f).unwrap_or(defaults.timeout);
    let task = Task::Run(RunTask { command: command?, env, requirements });
    Some(Work { task, inputs, artifacts, retry, timeout })
}

fn command(node: &Node<'_>, place: Place, reads: &mut Reads, f: &mut Findings) -> Option<Command> {
    let Raw::List(items) = &node.value else {
        let script = text(node, "run", f)?;
        if script.text.trim().is_empty() {
            f.add("value", node.position, "`run` is empty");
            return None;
        }
        if let Some(offset) = script.text.find("${{") {
            let exact = script.position_of(offset, 3).unwrap_or(node.position);
            unsafe_text(exact, "a shell string", f);
            return None;
        }
        return Some(Command::Shell(script.text.clone()));
    };
    let Some(program) = items.first() else {
        f.add_with_hint("value", node.position, "`run` is empty", "for example `run: [python, train.py]`");
        return None;
    };
    let arguments: Vec<Option<Template>> =
        items.iter().map(|item| reads.template(item, "run", place, f)).collect();
    let arguments: Vec<Template> = arguments.into_iter().collect::<Option<_>>()?;
    let name = arguments.first()?;
    if name.source().trim().is_empty() {
        f.add("value", program.position, "the program to run has no name");
        return None;
    }
    if !name.expressions().is_empty() {
        f.add(
            "unsafe-shell",
            program.position,
            "the program to run is written out: only its arguments may be values",
        );
        return None;
    }
    if let Some(script) = code_argument(&arguments) {
        unsafe_text(items[script].position, "the code given to an interpreter", f);
        return None;
    }
    Some(Command::Arguments(arguments))
}

fn unsafe_text(position: Position, what: &str, f: &mut Findings) {
    let message = format!("`${{{{ }}}}` inside {what} would let whoever sends an event run commands");
    f.add_with_hint("unsafe-shell", position, message, SAFE_WAY);
}

/// The argument that an interpreter takes for code (`sh -c …`, `python -c …`), if it holds a value.
fn code_argument(arguments: &[Template]) -> Option<usize> {
    let plain = |index: usize| {
        arguments.get(index).filter(|argument| argument.expressions().is_empty()).map(Template::source)
    };
    (0..arguments.len()).find_map(|index| {
        let program = plain(index)?.rsplit('/').next()?;
        let program = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        let is_shell = matches!(program, "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" | "fish");
        let is_other = matches!(program, "python" | "pypy" | "perl" | "ruby" | "node" | "Rscript");
        if !is_shell && !is_other {
            return None;
        }
        let takes_code = |flag: &str| {
            let short = flag.starts_with('-') && !flag.starts_with("--");
            let letter = if is_shell { flag.contains('c') } else { flag.ends_with(['c', 'e']) };
            (short && letter) || flag == "--eval"
        };
        let flags = (index + 1..arguments.len())
            .take_while(|&at| plain(at).is_some_and(|flag| flag.starts_with('-')));
        let code = flags
            .last()
            .filter(|_| (index + 1..arguments.len()).any(|at| plain(at).is_some_and(takes_code)))?
            + 1;
        arguments.get(code).filter(|argument| !argument.expressions().is_empty()).map(|_| code)
    })
}

fn env(
    fields: &Fields<'_, '_>,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> BTreeMap<String, Template> {
    let mut env = BTreeMap::new();
    let declared = fields.get("env").and_then(|(key, node)| Fields::any(node, key.position, "`env`", f));
    for (key, node) in declared.iter().flat_map(Fields::entries) {
        let name = key.name.as_str();
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let message =
                format!("`{}` is not a variable's name: letters, digits and `_`", name.escape_debug());
            f.add("name", key.position, message);
        } else if name.starts_with("REFIT_") || name.starts_with("PARAM_") {
            let message = format!("`{name}` is reserved: REFIT_* and PARAM_* are set by Refit");
            f.add_with_hint(
                "reserved-name",
                key.position,
                message,
                "params reach the step as PARAM_* by themselves",
            );
        } else if LOADERS.contains(&name) {
            let message = format!("`{name}` is refused: it makes every process of the step load other code");
            f.add("reserved-name", key.position, message);
        }
        if let Some(template) = reads.template(node, name, place, f) {
            env.insert(key.name.clone(), template);
        }
    }
    env
}

fn inputs(
    fields: &Fields<'_, '_>,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> BTreeMap<String, Template> {
    let mut inputs = BTreeMap::new();
    let declared =
        fields.get("inputs").and_then(|(key, node)| Fields::any(node, key.position, "`inputs`", f));
    for (key, node) in declared.iter().flat_map(Fields::entries) {
        key_is_name(key, f);
        if let Some(template) = reads.template(node, &key.name, place, f)
            && artifact_of(&template, node, &key.name, f).is_some()
        {
            inputs.insert(key.name.clone(), template);
        }
    }
    inputs
}

fn artifacts(fields: &Fields<'_, '_>, f: &mut Findings) -> BTreeMap<String, String> {
    let mut artifacts = BTreeMap::new();
    let declared =
        fields.get("artifacts").and_then(|(key, node)| Fields::any(node, key.position, "`artifacts`", f));
    for (key, node) in declared.iter().flat_map(Fields::entries) {
        key_is_name(key, f);
        // Declared even when its path is wrong, so that what reads it is not reported as well.
        let path = text(node, &key.name, f).map(|scalar| scalar.text.clone()).unwrap_or_default();
        if !path.is_empty() {
            check_path(&path, node, f);
        }
        artifacts.insert(key.name.clone(), path);
    }
    artifacts
}

fn requirements(fields: &Fields<'_, '_>, f: &mut Findings) -> Option<String> {
    const KEYS: Keys<'_> = Keys { owner: "`python`", known: &["requirements"], later: &[] };
    let (key, node) = fields.get("python")?;
    let python = Fields::of(node, key.position, &KEYS, f)?;
    let (_, node) = python.need("requirements", "`python`", "requirements: requirements.txt", f)?;
    let path = text(node, "requirements", f)?.text.clone();
    check_path(&path, node, f);
    Some(path)
}

fn check_path(path: &str, node: &Node<'_>, f: &mut Findings) {
    if Template::is_in(path) {
        f.add("path", node.position, "a path is written out: it takes no `${{ }}`");
    } else if let Err(wrong) = check_relative_path(path) {
        f.add(
            "path",
            node.position,
            format!("`{}` {wrong}", crate::expression::shorten(&path.escape_debug().to_string())),
        );
    }
}

/// `retry` of a step or of the defaults; what it leaves out is taken from `base`.
pub(super) fn retry(fields: &Fields<'_, '_>, base: &Retry, f: &mut Findings) -> Retry {
    const KEYS: Keys<'_> =
        Keys { owner: "`retry`", known: &["attempts", "backoff", "max_backoff"], later: &[] };
    let mut retry = base.clone();
    let Some((key, node)) = fields.get("retry") else { return retry };
    let Some(fields) = Fields::of(node, key.position, &KEYS, f) else { return retry };
    if let Some(attempts) = fields.count("attempts", 1, 100, f).and_then(|count| u32::try_from(count).ok()) {
        retry.attempts = attempts;
    }
    if let Some(backoff) = fields.duration("backoff", false, f) {
        retry.backoff = backoff;
    }
    match (fields.duration("max_backoff", false, f), fields.get("max_backoff")) {
        (Some(most), Some((_, node))) if most < retry.backoff => {
            f.add("duration", node.position, "`max_backoff` is shorter than `backoff`");
        }
        (Some(most), _) => retry.max_backoff = most,
        // A first pause longer than the usual bound is meant as it is written.
        (None, _) => retry.max_backoff = retry.max_backoff.max(retry.backoff),
    }
    retry
}

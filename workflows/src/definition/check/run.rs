//! The verb `run`: command, environment, Python packages. Owns the rule that no value ever reaches a shell's text; must
//! never happen here: a command line put together from strings.

use std::collections::BTreeMap;

use super::super::diagnostics::{Findings, Spot, shown};
use super::super::language::{LOADERS, PYTHON, RESERVED_PREFIXES};
use super::super::raw::{Node, Raw, Scalar};
use super::super::{Command, Packages, Python, RunTask};
use super::fields::{Fields, text};
use super::reads::{Place, Reads};
use super::work::path;
use crate::names::is_variable;
use crate::template::Template;

/// The most values inside one script that are told.
const VALUES_TOLD_MAX: usize = 10;

/// The longest name of an image, in bytes.
const IMAGE_BYTES_MAX: usize = 500;

/// Reads the verb, and the keys that only a process has.
pub(super) fn run(
    node: &Node,
    fields: &Fields<'_>,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<RunTask> {
    let command = command(node, place, reads, f);
    let env = env(fields, place, reads, f);
    let python = python(fields, f);
    let container = container(fields, f);
    Some(RunTask { command: command?, env, python, container })
}

fn command(node: &Node, place: Place, reads: &mut Reads, f: &mut Findings) -> Option<Command> {
    let Raw::List(items) = &node.value else {
        let script = text(node, "run", f)?;
        if script.text.trim().is_empty() {
            f.add("value", node.position, "`run` is empty");
            return None;
        }
        if unsafe_text(script, node.position, "a shell string", f) {
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
        let hint = "name the program, or a script that chooses one by its argument";
        let message = "the program to run is written out: only its arguments may be values";
        f.add_with_hint("unsafe-shell", program.position, message, hint);
        return None;
    }
    if let Some(code) = code_argument(&arguments) {
        let spot = items[code].position;
        if let Some(script) = text(&items[code], "run", f) {
            unsafe_text(script, spot, "the code given to an interpreter", f);
        }
        return None;
    }
    Some(Command::Arguments(arguments))
}

/// Reports every value inside text that is code. True when there is one.
fn unsafe_text(script: &Scalar, position: Spot, what: &str, f: &mut Findings) -> bool {
    let mut found = false;
    for (offset, _) in script.text.match_indices("${{").take(VALUES_TOLD_MAX) {
        found = true;
        let rest = &script.text[offset..];
        let written = rest.find("}}").map_or("${{ … }}", |end| &rest[..end + 2]);
        let spot = script.position_of(offset, written.len()).unwrap_or(position);
        let message = format!("`${{{{ }}}}` inside {what} would let whoever sends an event run commands");
        f.add_with_hint("unsafe-shell", spot, message, safe_way(written));
    }
    found
}

/// How a value reaches a script: as a variable that is named after the end of its path.
fn safe_way(written: &str) -> String {
    let last =
        written.trim_end_matches(['}', ' ']).rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
    let last = last.filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.len() < 40);
    let (name, value) = (last.unwrap_or("value").to_ascii_uppercase(), shown(written));
    format!(
        "hand it over as a variable, `env: {{ {name}: \"{value}\" }}`, and write \"${name}\" in the script; or use an \
         argument list, as in `run: [python, train.py, \"{value}\"]`"
    )
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

fn env(fields: &Fields<'_>, place: Place, reads: &mut Reads, f: &mut Findings) -> BTreeMap<String, Template> {
    let mut env = BTreeMap::new();
    let declared = fields.get("env").and_then(|(key, node)| Fields::any(node, key.position, "`env`", f));
    for (key, node) in declared.iter().flat_map(|declared| declared.entries()) {
        let name = key.name.as_str();
        // A key that is missing was reported when it was read.
        if name.is_empty() {
            continue;
        }
        check_variable(name, key.position, f);
        if let Some(template) = reads.template(node, name, place, f) {
            env.insert(key.name.clone(), template);
        }
    }
    env
}

/// A name that a variable may have which Refit does not set itself.
pub(super) fn check_variable(name: &str, position: Spot, f: &mut Findings) {
    if !is_variable(name) {
        let message = format!("`{}` is not a variable's name: letters, digits and `_`", shown(name));
        f.add("name", position, message);
    } else if RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        let message = format!("`{name}` is reserved: REFIT_* and PARAM_* are set by Refit");
        let hint = "params reach the step as PARAM_* by themselves";
        f.add_with_hint("reserved-name", position, message, hint);
    } else if LOADERS.contains(&name) {
        let message = format!("`{name}` is refused: it makes every process of the step load other code");
        f.add("reserved-name", position, message);
    }
}

/// `python`.
fn python(fields: &Fields<'_>, f: &mut Findings) -> Option<Python> {
    let (key, node) = fields.get("python")?;
    let python = Fields::of(node, key.position, &PYTHON, f)?;
    let version = version(&python, f);
    let index_args = python.texts("index_args", f).unwrap_or_default();
    let packages = match (python.get("requirements"), python.get("packages")) {
        (Some((_, node)), None) => Packages::Requirements(path(node, "requirements", f)?),
        (None, Some((key, _))) => {
            let packages = python.texts("packages", f)?;
            if packages.is_empty() {
                f.add("value", key.position, "`packages` names at least one, as in `[scikit-learn==1.7]`");
            }
            Packages::Listed(packages)
        }
        (Some(_), Some((key, _))) => {
            let hint = "write them into the file of requirements";
            f.add_with_hint(
                "value",
                key.position,
                "`python` has `requirements` or `packages`, not both",
                hint,
            );
            return None;
        }
        (None, None) => {
            python.need("requirements", "`python`", "requirements: requirements.txt", f);
            return None;
        }
    };
    Some(Python { version, packages, index_args })
}

/// `container`: an image's name as podman and docker take it, with a tag or a digest.
fn container(fields: &Fields<'_>, f: &mut Findings) -> Option<String> {
    let (key, node) = fields.get("container")?;
    let image = text(node, "container", f)?.text.clone();
    let is_name = image.starts_with(|c: char| c.is_ascii_alphanumeric())
        && image.len() <= IMAGE_BYTES_MAX
        && image.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b));
    if !is_name {
        let message = format!("`{}` does not name an image", shown(&image));
        let hint = "written out, as in docker.io/library/python:3.12-slim, or with @sha256: and a digest";
        f.add_with_hint("value", node.position, message, hint);
    }
    if fields.get("python").is_some() {
        let hint = "install the packages in the image, or leave the container out";
        f.add_with_hint(
            "value",
            key.position,
            "`container` does not go with `python`, which is the host's",
            hint,
        );
    }
    Some(image)
}

fn version(python: &Fields<'_>, f: &mut Findings) -> Option<String> {
    let (_, node) = python.get("version")?;
    let version = text(node, "version", f)?.text.clone();
    let parts: Vec<&str> = version.split('.').collect();
    let is_number =
        |part: &&str| !part.is_empty() && part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
    if !(2..=3).contains(&parts.len()) || !parts.iter().all(is_number) {
        let message = format!("`{}` is not a version of Python", shown(&version));
        f.add_with_hint("value", node.position, message, "write it as in 3.12 or 3.12.4");
    }
    Some(version)
}

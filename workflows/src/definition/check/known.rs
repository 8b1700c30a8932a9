//! What expressions may read, once all steps are known: an expression sees only what will exist when it is evaluated.
//! Must never happen here: parsing.

use std::collections::HashMap;

use super::super::diagnostics::{FileNumber, Findings, Spot, did_you_mean};
use super::reads::{Place, Reads};
use super::steps::{Axes, StepDraft};

const STEP_PARTS: [&str; 5] = ["state", "outputs", "metrics", "artifacts", "verdict"];
const MATRIX_PARTS: [&str; 2] = ["state", "instances"];
const BATCH_PARTS: [&str; 5] = ["key", "count", "sum", "first", "last"];
/// The versions that a check of a watch sees, by their names there, and what it sees of each.
pub(super) const VERSIONS: [&str; 2] = ["promoted", "previous"];
const VERSION_PARTS: [&str; 2] = ["version", "metrics"];
const INSTANCE_PARTS: [&str; 4] = ["metrics", "outputs", "matrix", "artifacts"];

/// What is known of a file when its expressions are checked.
pub(super) struct Known<'k> {
    pub(super) params: &'k [String],
    pub(super) steps: &'k [StepDraft],
    pub(super) has_model: bool,
    /// Whether the second step waits for the first, directly or through others.
    pub(super) is_before: &'k dyn Fn(usize, usize) -> bool,
    /// The values that each used file takes.
    pub(super) with: &'k HashMap<FileNumber, Vec<String>>,
}

impl Known<'_> {
    /// Checks everything that was read.
    pub(super) fn check(&self, reads: &Reads, f: &mut Findings) {
        for (place, file, path, spot) in reads.all() {
            let Some((root, rest)) = path.names.split_first() else { continue };
            if path.is_behind_dash && self.is_end_of_name(root) {
                continue;
            }
            if root == "with" && !matches!(place, Place::Event | Place::Watch) {
                self.check_with(rest, file, spot, f);
            } else {
                self.check_root(root, rest, spot, place, f);
            }
        }
    }

    /// Whether it is what the parser left of a name with `-`, of which the beginning has been reported.
    fn is_end_of_name(&self, root: &str) -> bool {
        let names = || self.steps.iter().map(|step| &step.name).chain(self.params);
        names().any(|name| {
            let begin = name.split_once(&format!("-{root}")).map(|(begin, _)| begin);
            begin.is_some_and(|begin| !names().any(|other| other == begin))
        })
    }

    fn check_root(&self, root: &str, rest: &[String], spot: Spot, place: Place, f: &mut Findings) {
        let (roots, seen): (&[&str], &str) = match place {
            Place::Event => return check_attribute(root, ATTRIBUTES, spot, f),
            Place::Watch if VERSIONS.contains(&root) => return check_version(root, rest, spot, f),
            Place::Watch => return check_attribute(root, WATCHED, spot, f),
            Place::Batch => (&["batch"], "the params of a trigger see"),
            Place::Key => (&["params", "batch"], "the key sees"),
            Place::Outputs => (&["params", "steps", "batch", "run"], "the outputs see"),
            Place::Instance(_) => (&INSTANCE_PARTS, "`by` sees, of one instance,"),
            Place::Step(_) | Place::Condition(_) | Place::Matrix(_) => {
                (&["params", "steps", "batch", "champion", "run", "matrix"], "a step sees")
            }
        };
        if !roots.contains(&root) {
            let hint = did_you_mean(root, roots.iter().copied())
                .unwrap_or_else(|| format!("{seen} {}; text goes into quotes: \"{root}\"", roots.join(", ")));
            f.add_with_hint("unknown-name", spot, format!("`{root}` is not known here"), hint);
            return;
        }
        match (root, place) {
            ("params", _) => self.check_param(rest, spot, f),
            ("batch", _) => check_batch(rest, spot, f),
            ("matrix", _) => self.check_matrix(rest, place, spot, f),
            ("champion", _) if !self.has_model => f.add_with_hint(
                "missing-key",
                spot,
                "`champion` needs a model to be the champion of",
                "name the registered model at the top: `model: churn`",
            ),
            ("artifacts", Place::Instance(select)) => {
                if let (Some(artifact), Some(from)) = (rest.first(), self.steps[select].select_from) {
                    self.check_artifact(from, artifact, spot, f);
                }
            }
            ("steps", Place::Step(step) | Place::Condition(step) | Place::Matrix(step)) => {
                self.check_step(rest, Some(step), spot, f);
            }
            ("steps", Place::Outputs) => self.check_step(rest, None, spot, f),
            _ => {}
        }
    }

    fn check_param(&self, rest: &[String], spot: Spot, f: &mut Findings) {
        let Some(name) = rest.first() else { return };
        if !self.params.contains(name) {
            let dashed = self.params.iter().find(|param| param.starts_with(&format!("{name}-")));
            let hint = match dashed {
                Some(param) => Some(format!("a name with `-` is written params[\"{param}\"]")),
                None => did_you_mean(name, self.params.iter().map(String::as_str)),
            };
            let hint =
                hint.unwrap_or_else(|| format!("declare it: `params: {{ {name}: {{ type: string }} }}`"));
            f.add_with_hint("unknown-param", spot, format!("there is no param `{name}`"), hint);
        }
    }

    fn check_with(&self, rest: &[String], file: FileNumber, spot: Spot, f: &mut Findings) {
        let Some(taken) = self.with.get(&file) else {
            let hint = "in a workflow, values come from params, steps, batch, matrix, champion and run";
            f.add_with_hint("unknown-name", spot, "`with` is known only in a file that a step uses", hint);
            return;
        };
        let Some(name) = rest.first() else { return };
        if !taken.contains(name) {
            let hint = did_you_mean(name, taken.iter().map(String::as_str)).unwrap_or_else(|| {
                format!("declare it in this file: `with: {{ {name}: {{ type: string }} }}`")
            });
            f.add_with_hint("unknown-with", spot, format!("this file takes no value `{name}`"), hint);
        }
    }

    fn check_matrix(&self, rest: &[String], place: Place, spot: Spot, f: &mut Findings) {
        let step = match place {
            Place::Step(step) => Some(step),
            Place::Instance(select) => self.steps[select].select_from,
            Place::Condition(_) => {
                let message = "`matrix` is not known in `if`, which is decided once for the whole step";
                let hint = "leave values out of the matrix itself, or decide inside the step";
                return f.add_with_hint("unknown-name", spot, message, hint);
            }
            Place::Matrix(_) => return f.add("unknown-name", spot, "a matrix cannot read itself"),
            Place::Event | Place::Watch | Place::Batch | Place::Key | Place::Outputs => None,
        };
        let Some(step) = step.map(|step| &self.steps[step]) else { return };
        match &step.axes {
            Axes::Without if matches!(place, Place::Step(_)) => f.add_with_hint(
                "unknown-name",
                spot,
                format!("step `{}` has no matrix", step.name),
                "give it one, as in `matrix: { depth: [4, 8] }`",
            ),
            Axes::Without | Axes::Open => {}
            Axes::Named(axes) => {
                let Some(axis) = rest.first() else { return };
                if !axes.contains(axis) {
                    let hint = did_you_mean(axis, axes.iter().map(String::as_str));
                    let hint = hint.unwrap_or_else(|| format!("its axes are {}", axes.join(", ")));
                    let message = format!("the matrix of `{}` has no axis `{axis}`", step.name);
                    f.add_with_hint("unknown-name", spot, message, hint);
                }
            }
        }
    }

    /// `reader` is the step that reads; none where every step has come to its end.
    fn check_step(&self, rest: &[String], reader: Option<usize>, spot: Spot, f: &mut Findings) {
        let Some((name, rest)) = rest.split_first() else {
            f.add_with_hint(
                "unknown-step",
                spot,
                "`steps` is read without a step's name",
                "write steps.NAME.metrics.NAME",
            );
            return;
        };
        let Some(step) = self.steps.iter().position(|step| step.name == *name) else {
            let message = format!("there is no step `{name}`");
            match self.steps.iter().find(|step| step.name.starts_with(&format!("{name}-"))) {
                Some(step) => {
                    let hint = format!("a name with `-` is written steps[\"{}\"]", step.name);
                    f.add_with_hint("unknown-step", spot, message, hint);
                }
                None => {
                    let known = self.steps.iter().map(|step| step.name.as_str());
                    f.add_unknown("unknown-step", spot, message, name, known);
                }
            }
            return;
        };
        if let Some(reader) = reader {
            self.check_order(step, reader, spot, f);
        }
        self.check_step_part(step, rest, spot, f);
    }

    fn check_order(&self, step: usize, reader: usize, spot: Spot, f: &mut Findings) {
        let name = &self.steps[step].name;
        let reader_name = &self.steps[reader].name;
        if step == reader {
            f.add("not-ancestor", spot, format!("step `{name}` cannot read what it has not done yet"));
        } else if self.steps[step].finally && !self.steps[reader].finally {
            let message =
                format!("step `{reader_name}` reads `{name}`, which runs after it: it is in `finally`");
            f.add("not-ancestor", spot, message);
        } else if !(self.is_before)(step, reader) {
            f.add_with_hint(
                "not-ancestor",
                spot,
                format!("step `{reader_name}` reads `{name}` but does not wait for it"),
                format!("add it to the needs of `{reader_name}`: `needs: [{name}]`"),
            );
        }
    }

    fn check_step_part(&self, index: usize, rest: &[String], spot: Spot, f: &mut Findings) {
        let step = &self.steps[index];
        let name = &step.name;
        let is_many = !matches!(step.axes, Axes::Without);
        let parts: &[&str] = if is_many { &MATRIX_PARTS } else { &STEP_PARTS };
        let Some(part) = rest.first() else {
            let example = if is_many { "instances" } else { "metrics.NAME" };
            let hint = format!("write steps.{name}.{example} or one of {}", parts.join(", "));
            f.add_with_hint("unknown-name", spot, format!("`steps.{name}` is no value of its own"), hint);
            return;
        };
        if is_many && matches!(part.as_str(), "outputs" | "metrics" | "artifacts") {
            let message = format!("step `{name}` has a matrix: each of its instances has {part} of its own");
            let hint = format!(
                "choose one with `select: {{ from: {name}, by: metrics.NAME, order: max }}` and read that step, or read \
                 steps.{name}.instances, a list of {{name, matrix, state, outputs, metrics, artifacts}}"
            );
            f.add_with_hint("matrix-step", spot, message, hint);
            return;
        }
        if !is_many && part == "instances" {
            let message = format!("step `{name}` has no matrix, and so no instances");
            f.add_with_hint("unknown-name", spot, message, format!("read steps.{name}.outputs or .metrics"));
            return;
        }
        if !parts.contains(&part.as_str()) {
            let message = format!("a step has {}, but no `{part}`", parts.join(", "));
            f.add_unknown("unknown-name", spot, message, part, parts.iter().copied());
            return;
        }
        if part == "verdict" && !matches!(step.verb, Some("gate") | None) {
            let verb = step.verb.unwrap_or_default();
            let message = format!("`{name}` is a {verb} step: only gates have a verdict");
            let hint = format!("read steps.{name}.state, or its metrics in a gate");
            f.add_with_hint("unknown-name", spot, message, hint);
        }
        if part == "artifacts"
            && let Some(artifact) = rest.get(1)
        {
            self.check_artifact(index, artifact, spot, f);
        }
    }

    fn check_artifact(&self, step: usize, artifact: &String, spot: Spot, f: &mut Findings) {
        // What a `select` offers is what the step declares that it selects from.
        let (declaring, what) = match (self.steps[step].verb, self.steps[step].select_from) {
            (Some("select"), None) | (None, _) => return,
            (Some("select"), Some(from)) => (&self.steps[from], "selects"),
            (Some(_), _) => (&self.steps[step], "declares"),
        };
        if declaring.verb.is_none() || declaring.artifacts.contains(artifact) {
            return;
        }
        let message = format!("step `{}` {what} no artifact `{artifact}`", self.steps[step].name);
        let hint =
            did_you_mean(artifact, declaring.artifacts.iter().map(String::as_str)).unwrap_or_else(|| {
                format!(
                    "declare it in `{}`: `artifacts: {{ {artifact}: path/in/its/folder }}`",
                    declaring.name
                )
            });
        f.add_with_hint("unknown-artifact", spot, message, hint);
    }
}

/// What is seen where an event is looked at.
const ATTRIBUTES: &str =
    "a trigger sees the event's attributes: type, source, subject, id, time, data and its extensions";
const WATCHED: &str = "a check of a watch sees promoted.metrics, previous.metrics, their versions, and the event's attributes: \
                       type, source, subject, id, time, data and its extensions";

fn check_attribute(root: &str, seen: &str, spot: Spot, f: &mut Findings) {
    if matches!(root, "params" | "steps" | "batch" | "matrix" | "champion" | "run") {
        f.add_with_hint("unknown-name", spot, format!("`{root}` is not known here"), seen);
    } else if !root.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        f.add_with_hint(
            "unknown-name",
            spot,
            format!("`{root}` is no attribute of an event"),
            "attributes are lower-case letters and digits, such as type, subject and data",
        );
    }
}

fn check_version(root: &str, rest: &[String], spot: Spot, f: &mut Findings) {
    let Some(part) = rest.first() else { return };
    if !VERSION_PARTS.contains(&part.as_str()) {
        let message = format!("`{root}` has {}, but no `{part}`", VERSION_PARTS.join(" and "));
        f.add_unknown("unknown-name", spot, message, part, VERSION_PARTS);
    }
}

fn check_batch(rest: &[String], spot: Spot, f: &mut Findings) {
    let Some(part) = rest.first() else { return };
    if !BATCH_PARTS.contains(&part.as_str()) {
        let message = format!("a batch has {}, but no `{part}`", BATCH_PARTS.join(", "));
        f.add_unknown("unknown-name", spot, message, part, BATCH_PARTS);
    }
}

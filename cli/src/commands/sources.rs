//! Finds the workflow files a path means and checks them, offline: the file itself, and that the files it names are
//! there. Prints nothing, uploads nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use refit_workflows::definition::{Command, FILE_BYTES_MAX, Files, Position, Problem, Workflow};

use crate::exit::Usage;
use crate::render::diagnostics::Severity;

/// A workflow file with everything found in it.
#[derive(Debug)]
pub(crate) struct Source {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) text: String,
    /// Its workflows, one per document, when all are sound.
    pub(crate) workflows: Vec<Workflow>,
    /// What is wrong with it, and what may be.
    pub(crate) findings: Vec<(Severity, Problem)>,
    /// The text of the files that its steps use, for problems in those.
    used: BTreeMap<String, String>,
}

/// The files beside a workflow that its steps may use.
struct Folder {
    path: PathBuf,
    read: RefCell<BTreeMap<String, String>>,
}

impl Files for Folder {
    fn read(&self, path: &str) -> Result<String, String> {
        let in_words = |cause: std::io::Error| match cause.kind() {
            ErrorKind::NotFound => "there is no such file".to_owned(),
            ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
            _ => cause.to_string(),
        };
        let folder = self.path.canonicalize().map_err(in_words)?;
        let file = folder.join(path).canonicalize().map_err(in_words)?;
        if !file.starts_with(&folder) {
            return Err("it is a link that leads out of the workflow's folder".to_owned());
        }
        let size = std::fs::metadata(&file).map_err(in_words)?.len();
        if size > FILE_BYTES_MAX as u64 {
            return Err(format!("it is larger than {} KiB", FILE_BYTES_MAX / 1024));
        }
        let text = std::fs::read_to_string(&file).map_err(in_words)?;
        self.read.borrow_mut().insert(path.to_owned(), text.clone());
        Ok(text)
    }
}

impl Source {
    /// Whether it can be registered.
    pub(crate) fn is_sound(&self) -> bool {
        !self.workflows.is_empty() && self.findings.iter().all(|(severity, _)| *severity == Severity::Warning)
    }

    /// The folder around it: what its bundle is made of.
    pub(crate) fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        }
    }

    fn read(path: PathBuf) -> anyhow::Result<Self> {
        let failed = || format!("failed to read {}", path.display());
        let size = std::fs::metadata(&path).with_context(failed)?.len();
        if size > FILE_BYTES_MAX as u64 {
            let most = FILE_BYTES_MAX / 1024;
            return Err(Usage(format!("{}: a workflow file may have at most {most} KiB", failed())).into());
        }
        let bytes = std::fs::read(&path).with_context(failed)?;
        let mut source = Self {
            path,
            text: String::new(),
            workflows: Vec::new(),
            findings: Vec::new(),
            used: BTreeMap::new(),
        };
        match String::from_utf8(bytes) {
            Ok(text) => source.text = text,
            Err(error) => {
                source
                    .findings
                    .push((Severity::Error, not_text(error.as_bytes(), error.utf8_error().valid_up_to())));
                source.text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                return Ok(source);
            }
        }
        let folder = Folder { path: source.folder().to_owned(), read: RefCell::default() };
        match Workflow::parse_all_with(&source.text, &folder) {
            Ok(workflows) => {
                for workflow in &workflows {
                    source.findings.extend(missing_files(workflow, &source.text, source.folder()));
                }
                source.workflows = workflows;
            }
            Err(problems) => {
                source.findings = problems.0.into_iter().map(|problem| (Severity::Error, problem)).collect();
            }
        }
        source.used = folder.read.into_inner();
        Ok(source)
    }

    /// The path and the text that a problem of this source is about: its own, or those of a file that it uses.
    pub(crate) fn place_of(&self, problem: &Problem) -> (String, &str) {
        match problem.file.as_ref().and_then(|file| Some((file, self.used.get(file)?))) {
            Some((file, text)) => (self.folder().join(file).display().to_string(), text),
            None => (self.path.display().to_string(), &self.text),
        }
    }
}

/// The workflow files these paths mean, each checked: files as they are, of folders every `*.yaml` or `*.yml`
/// directly in it that has a `workflow:` key.
///
/// # Errors
/// A path is not there, or a folder holds no workflow file.
pub(crate) fn find(paths: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let mut files = Vec::new();
    for path in paths {
        let about = std::fs::metadata(path).with_context(|| format!("failed to read {}", path.display()))?;
        if about.is_dir() {
            files.extend(files_in(path)?);
        } else {
            files.push(path.clone());
        }
    }
    files.dedup();
    files.into_iter().map(Source::read).collect()
}

fn files_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files = workflow_files(folder)?;
    if files.is_empty() {
        return Err(Usage(format!(
            "no workflow in {}: a workflow is a *.yaml file directly in the folder with a `workflow:` key",
            folder.display()
        ))
        .into());
    }
    Ok(files)
}

/// The workflow files directly in a folder, sorted; there may be none.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn workflow_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let failed = || format!("failed to read {}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        // Read leniently: a file that is not text cannot be a workflow, and a broken one still should be reported.
        let has_key = |bytes: Vec<u8>| {
            String::from_utf8_lossy(&bytes)
                .lines()
                .any(|line| line.trim_start_matches('\u{feff}').starts_with("workflow:"))
        };
        let is_test = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(".test"));
        if is_yaml && !is_test && path.is_file() && std::fs::read(&path).is_ok_and(has_key) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Files the workflow names that its folder does not hold: requirements must be there; a script may be made by the
/// step itself, so its absence is worth a warning alone.
fn missing_files(workflow: &Workflow, text: &str, folder: &Path) -> Vec<(Severity, Problem)> {
    let mut findings: Vec<(Severity, Problem)> = Vec::new();
    for step in &workflow.steps {
        let Some(run) = step.verb.process() else { continue };
        if let Some(requirements) = run.requirements().filter(|name| !folder.join(name).is_file()) {
            findings.push((Severity::Error, missing(&step.name, requirements, text)));
        }
        if let Some(script) = script(&run.command).filter(|name| !folder.join(name).is_file()) {
            findings.push((Severity::Warning, missing(&step.name, script, text)));
        }
    }
    findings.sort_by_key(|(_, problem)| problem.position);
    findings.dedup_by(|a, b| a.1.position == b.1.position);
    findings
}

/// What is wrong with a file that is no UTF-8, at the first byte that is none.
fn not_text(bytes: &[u8], valid_up_to: usize) -> Problem {
    let before = String::from_utf8_lossy(&bytes[..valid_up_to]);
    let line_start = before.rfind('\n').map_or(0, |found| found + 1);
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let position = Position {
        line: number(before.matches('\n').count() + 1),
        column: number(before[line_start..].chars().count() + 1),
        length: 1,
    };
    let is_utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let byte = bytes.get(valid_up_to).copied().unwrap_or_default();
    let message = match is_utf16 {
        true => "the file is UTF-16, and a workflow is UTF-8 text".to_owned(),
        false => format!("a workflow is UTF-8 text, and the byte 0x{byte:02X} is none"),
    };
    let hint = Some("save the file as UTF-8".to_owned());
    Problem { code: "encoding".to_owned(), message, position, hint, file: None }
}

/// `X.py` of `[python, X.py]`.
fn script(command: &Command) -> Option<&str> {
    let Command::Arguments(arguments) = command else { return None };
    let program = arguments.first()?.source();
    let script = arguments.get(1)?.source();
    let is_script = script.ends_with(".py") && !script.contains("${{") && !script.starts_with('/');
    (matches!(program, "python" | "python3") && is_script).then_some(script)
}

fn missing(step: &str, file: &str, text: &str) -> Problem {
    Problem {
        code: "missing-file".to_owned(),
        message: format!("step `{step}` names `{file}`, which is not in the workflow's folder"),
        position: mention(text, step, file),
        hint: Some("paths are relative to the folder of the workflow file".to_owned()),
        file: None,
    }
}

/// Where the step mentions the file: the first place behind the step's own key, else the first at all.
fn mention(text: &str, step: &str, file: &str) -> Position {
    let key = format!("{step}:");
    let begin = text.lines().position(|line| line.trim_start().starts_with(&key)).unwrap_or(0);
    let place = |from: usize| {
        let found = text
            .lines()
            .enumerate()
            .skip(from)
            .find_map(|(index, line)| Some((index, line, line.find(file)?)));
        found.map(|(index, line, offset)| Position {
            line: u32::try_from(index + 1).unwrap_or(u32::MAX),
            column: u32::try_from(line[..offset].chars().count() + 1).unwrap_or(u32::MAX),
            length: u32::try_from(file.chars().count()).unwrap_or(1),
        })
    };
    place(begin).or_else(|| place(0)).unwrap_or(Position { line: 1, column: 1, length: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "\
workflow: churn
steps:
  train:
    run: [python, train.py]
    python: { requirements: requirements.txt }
";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_means_its_workflow_files() {
        let folder = folder(&[
            ("b.yml", SOUND),
            ("a.yaml", SOUND),
            ("compose.yaml", "services: {}\n"),
            ("notes.md", ""),
        ]);
        let found = find(&[folder.path().to_owned()]).unwrap();
        let names: Vec<_> = found.iter().map(|source| source.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["a.yaml", "b.yml"]);
    }

    #[test]
    fn a_folder_without_one_is_a_usage_error() {
        let wrong = find(&[folder(&[]).path().to_owned()]).unwrap_err();
        assert_eq!(crate::exit::of(&wrong), crate::exit::Exit::Usage);
    }

    #[test]
    fn files_that_are_not_there_are_found_where_they_are_named() {
        let with = |files: &[(&str, &str)]| {
            let folder = folder(files);
            find(&[folder.path().join("w.yaml")]).unwrap().remove(0)
        };
        let whole = with(&[("w.yaml", SOUND), ("train.py", ""), ("requirements.txt", "")]);
        assert!(whole.is_sound() && whole.findings.is_empty(), "{:?}", whole.findings);

        let no_script = with(&[("w.yaml", SOUND), ("requirements.txt", "")]);
        assert!(no_script.is_sound());
        let (severity, problem) = &no_script.findings[0];
        assert_eq!(
            (*severity, problem.position),
            (Severity::Warning, Position { line: 4, column: 19, length: 8 })
        );

        let no_requirements = with(&[("w.yaml", SOUND), ("train.py", "")]);
        assert!(!no_requirements.is_sound());
        assert_eq!(no_requirements.findings[0].1.position, Position { line: 5, column: 29, length: 16 });
    }
}

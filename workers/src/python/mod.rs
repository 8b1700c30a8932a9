//! Python environments: built once per host for what is to be installed, a Python and a platform, and kept while they are used. An
//! environment without its mark of completeness is never used; it is built anew. Steps do not own environments.
//!
//! `host` finds the interpreter, `kept` says which environments stay.

mod host;
mod kept;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use refit_workflows::definition::{Packages, Python};
use refit_workflows::digest::Digest;

use crate::execute::logs::Log;
use crate::execute::process::{Program, Tree};
use crate::keyed::Keyed;
use crate::leftovers::Signs;
use host::Host;
use kept::{InUse, Kept};

/// Written last. Environments hold absolute paths, so they are built where they stay, not renamed into place.
const COMPLETE: &str = ".complete";
/// The longest requirements file, in bytes.
const REQUIREMENTS_BYTES_MAX: u64 = 1024 * 1024;
/// A complete environment. It stays as long as this is held.
#[derive(Debug)]
pub(crate) struct Environment {
    folder: PathBuf,
    _in_use: InUse,
}

impl Environment {
    /// `VIRTUAL_ENV`.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its folder of programs, the first in the step's `PATH`.
    pub(crate) fn programs(&self) -> PathBuf {
        self.folder.join("bin")
    }
}

/// The environments of this host.
#[derive(Debug)]
pub(crate) struct Environments {
    kept: Kept,
    building: Keyed<Digest>,
    host: Host,
}

/// What is installed, as a file of requirements in pip's format.
#[derive(Debug)]
struct Requirements {
    /// How messages call it.
    shown: String,
    text: String,
    /// The file the step's folder has, or none when it is written beside the environment.
    file: Option<PathBuf>,
    lines: Lines,
}

/// Where a build runs and says what it does.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    /// The step's working directory: requirements may name files of the bundle.
    pub(crate) work: &'a Path,
    /// The attempt the build belongs to; its processes end with it.
    pub(crate) signs: &'a Signs,
    /// The step's log.
    pub(crate) log: &'a Log,
    /// The bundle, part of what is built when the requirements name files in it.
    pub(crate) bundle: Option<&'a Digest>,
}

impl Environments {
    /// The environments kept in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { kept: Kept::new(folder), building: Keyed::default(), host: Host::default() }
    }

    /// The environment that a step asks for, built if it is not there. May be dropped at any time; the build's processes then
    /// end with the attempt.
    ///
    /// # Errors
    /// Why there is no environment, for people.
    pub(crate) async fn ensure(&self, asked: &Python, site: &Site<'_>) -> Result<Environment, String> {
        let requirements = Requirements::read(&asked.packages, site.work)?;
        let python = self.host.python(asked.version.as_deref(), site).await?;
        let files = site.bundle.filter(|_| requirements.lines.files).map(ToString::to_string);
        let told = serde_json::json!([requirements.text, python.description, files, asked.index_args]);
        let key = Digest::of(told.to_string().as_bytes());
        let folder = self.kept.folder(&key.hex()[..32]);
        // In use before it is looked for, so that nobody removes it in between.
        let environment = Environment { _in_use: self.kept.take(&folder), folder };
        let complete = environment.folder.join(COMPLETE);
        if kept::touch(&complete) {
            return Ok(environment);
        }
        let _only_once = self.building.lock(key).await;
        if kept::touch(&complete) {
            return Ok(environment);
        }
        self.build(&environment, &requirements, asked, &python, site).await?;
        let failed = |cause: std::io::Error| format!("failed to write {}: {cause}", complete.display());
        std::fs::write(&complete, requirements.text).map_err(failed)?;
        for removed in self.kept.remove_least_used(COMPLETE) {
            tracing::info!(environment = %removed.display(), "removed a Python environment that was not used for long");
        }
        Ok(environment)
    }

    async fn build(
        &self,
        environment: &Environment,
        requirements: &Requirements,
        asked: &Python,
        python: &host::Interpreter,
        site: &Site<'_>,
    ) -> Result<(), String> {
        let folder = &environment.folder;
        crate::leftovers::remove_folder(folder).map_err(|cause| {
            format!("failed to remove the unfinished environment {}: {cause}", folder.display())
        })?;
        site.log.say(&format!(
            "building the Python environment of {} (kept for later steps on this host)",
            requirements.shown
        ));
        let begun = std::time::Instant::now();
        run(python.make(folder), "make the Python environment", site).await?;
        if requirements.lines.any {
            let file = requirements.lay_out(folder)?;
            let install = python.install(&environment.programs().join("python"), &file, &asked.index_args);
            run(install, &format!("install {}", requirements.shown), site).await?;
        }
        let took = refit_workflows::time::show_duration(begun.elapsed());
        site.log.say(&format!("the Python environment is ready after {took}"));
        Ok(())
    }
}

impl Requirements {
    fn read(packages: &Packages, work: &Path) -> Result<Self, String> {
        match packages {
            Packages::Requirements(path) => {
                let text = read_requirements(&work.join(path), path)?;
                let lines = parse(&text, path)?;
                Ok(Self { shown: path.clone(), text, file: Some(PathBuf::from(path)), lines })
            }
            Packages::Listed(packages) => {
                let text = packages.iter().map(|package| format!("{package}\n")).collect::<String>();
                let shown = format!("`{}`", packages.join("`, `"));
                let lines = parse(&text, "packages")?;
                Ok(Self { shown, text, file: None, lines })
            }
        }
    }

    /// The file to install from.
    fn lay_out(&self, environment: &Path) -> Result<PathBuf, String> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let file = environment.join("requirements.txt");
        let failed = |cause| format!("failed to write {}: {cause}", file.display());
        std::fs::write(&file, &self.text).map_err(failed)?;
        Ok(file)
    }
}

fn read_requirements(path: &Path, shown: &str) -> Result<String, String> {
    let meta =
        std::fs::metadata(path).map_err(|_| format!("there is no `{shown}` in the workflow's folder"))?;
    if !meta.is_file() || meta.len() > REQUIREMENTS_BYTES_MAX {
        return Err(format!(
            "`{shown}` is not a requirements file of at most {REQUIREMENTS_BYTES_MAX} bytes"
        ));
    }
    std::fs::read_to_string(path).map_err(|cause| format!("failed to read `{shown}`: {cause}"))
}

/// What the lines of a requirements file (pip's format) say about building from it.
#[derive(Debug, PartialEq, Eq)]
struct Lines {
    /// Whether anything is to be installed.
    any: bool,
    /// Whether files of the bundle may be part of it.
    files: bool,
}

fn parse(text: &str, shown: &str) -> Result<Lines, String> {
    let mut lines = Lines { any: false, files: false };
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with("-e") || line.starts_with("--editable") {
            return Err(format!(
                "line {} of `{shown}`: an environment outlives the step's folder, so nothing in it can be installed \
                 as editable; leave out `-e`",
                index + 1
            ));
        }
        lines.any = true;
        let own_file = ["-r", "-c", "--requirement", "--constraint", ".", "/", "file:"]
            .iter()
            .any(|start| line.starts_with(start));
        lines.files |= own_file || line.contains("./") || line.contains("@ file:");
    }
    Ok(lines)
}

fn command(program: &Path, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> (PathBuf, Vec<OsString>) {
    (program.to_owned(), arguments.iter().map(|argument| argument.as_ref().to_owned()).collect())
}

/// Runs one command of a build with the worker's own environment (proxies, package indexes), but not its token.
async fn run((path, arguments): (PathBuf, Vec<OsString>), what: &str, site: &Site<'_>) -> Result<(), String> {
    let env: BTreeMap<OsString, OsString> = std::env::vars_os()
        .filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"REFIT_") && name != "VIRTUAL_ENV")
        .collect();
    let program = Program { path, arguments, env, folder: site.work.to_owned() };
    let status = run_program(&program, site)
        .await
        .map_err(|cause| format!("failed to {what}: {} could not be run: {cause}", program.path.display()))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("failed to {what} ({status}): {}", site.log.last_line()))
}

async fn run_program(program: &Program, site: &Site<'_>) -> std::io::Result<ExitStatus> {
    let (mut tree, streams) = Tree::start(program, site.signs)?;
    let (read, status) = tokio::join!(site.log.read(streams), tree.wait());
    read?;
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_say_what_to_build() {
        let nothing = Lines { any: false, files: false };
        assert_eq!(parse("", "r.txt"), Ok(nothing));
        assert_eq!(parse("# only\n\n  # comments\n", "r.txt"), Ok(Lines { any: false, files: false }));
        assert_eq!(parse("numpy==2.0\n", "r.txt"), Ok(Lines { any: true, files: false }));
        for line in ["-r base.txt", ".", "./lib", "lib @ file:///x", "-c limits.txt"] {
            assert_eq!(parse(line, "r.txt"), Ok(Lines { any: true, files: true }), "{line}");
        }
        assert!(parse("numpy\n-e .\n", "r.txt").unwrap_err().contains("line 2"));
    }
}

//! Python environments: built once per host for a requirements file, a Python and a platform, and kept. An
//! environment without its mark of completeness is never used; it is built anew. Steps do not own environments.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use refit_workflows::digest::Digest;
use tokio::sync::OnceCell;

use crate::execute::logs::Log;
use crate::execute::process::{Program, Tree};
use crate::keyed::Keyed;
use crate::leftovers::Signs;

/// Written last. Environments hold absolute paths, so they are built where they stay, not renamed into place.
const COMPLETE: &str = ".complete";
/// The longest requirements file, in bytes.
const REQUIREMENTS_BYTES_MAX: u64 = 1024 * 1024;
/// What an environment depends on beside its requirements.
const DESCRIBE: &str = "import platform, sys; print(sys.executable, platform.python_implementation(), \
                        platform.python_version(), sys.platform, platform.machine(), *platform.libc_ver())";

/// A complete environment.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    folder: PathBuf,
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
    folder: PathBuf,
    building: Keyed<Digest>,
    python: OnceCell<Python>,
}

/// The host's Python and what builds environments for it.
#[derive(Clone, Debug)]
struct Python {
    program: PathBuf,
    description: String,
    uv: Option<PathBuf>,
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
        Self { folder, building: Keyed::default(), python: OnceCell::new() }
    }

    /// The environment of the requirements file at `requirements` in the bundle, built if it is not there. May be
    /// dropped at any time; the build's processes then end with the attempt.
    ///
    /// # Errors
    /// Why there is no environment, for people.
    pub(crate) async fn ensure(&self, requirements: &str, site: &Site<'_>) -> Result<Environment, String> {
        let text = read_requirements(&site.work.join(requirements), requirements)?;
        let lines = parse(&text, requirements)?;
        let python = self.python.get_or_try_init(|| look(site)).await?;
        let files = if lines.files {
            site.bundle.map(ToString::to_string).unwrap_or_default()
        } else {
            String::new()
        };
        let key = Digest::of(format!("{text}\0{}\0{files}", python.description).as_bytes());
        let environment = Environment { folder: self.folder.join(&key.hex()[..32]) };
        let complete = environment.folder.join(COMPLETE);
        if complete.is_file() {
            return Ok(environment);
        }
        let _only_once = self.building.lock(key).await;
        if complete.is_file() {
            return Ok(environment);
        }
        self.build(&environment, requirements, &lines, python, site).await?;
        let failed = |cause: std::io::Error| format!("failed to write {}: {cause}", complete.display());
        std::fs::write(&complete, text).map_err(failed)?;
        Ok(environment)
    }

    async fn build(
        &self,
        environment: &Environment,
        requirements: &str,
        lines: &Lines,
        python: &Python,
        site: &Site<'_>,
    ) -> Result<(), String> {
        let folder = &environment.folder;
        crate::leftovers::remove_folder(folder).map_err(|cause| {
            format!("failed to remove the unfinished environment {}: {cause}", folder.display())
        })?;
        site.log.say(&format!(
            "building the Python environment of {requirements} (kept for later steps on this host)"
        ));
        let begun = std::time::Instant::now();
        let own_python = environment.programs().join("python");
        let (make, install) = match &python.uv {
            Some(uv) => (
                command(uv, &[&"venv", &"--no-project", &"--python", &python.program, folder]),
                command(uv, &[&"pip", &"install", &"--python", &own_python, &"-r", &requirements]),
            ),
            None => (
                command(&python.program, &[&"-m", &"venv", folder]),
                command(
                    &own_python,
                    &[
                        &"-m",
                        &"pip",
                        &"install",
                        &"--disable-pip-version-check",
                        &"--no-input",
                        &"-r",
                        &requirements,
                    ],
                ),
            ),
        };
        run(make, "make the Python environment", site).await?;
        if lines.any {
            run(install, &format!("install {requirements}"), site).await?;
        }
        let took = refit_workflows::time::show_duration(begun.elapsed());
        site.log.say(&format!("the Python environment is ready after {took}"));
        Ok(())
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

/// Finds Python and uv on the worker's own PATH.
async fn look(site: &Site<'_>) -> Result<Python, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let find =
        |name: &str| std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    let program = find("python3")
        .or_else(|| find("python"))
        .ok_or("there is no Python on this host: install Python 3, or offer the step to another worker")?;
    let log = Log::default();
    let describe = command(&program, &[&"-c", &DESCRIBE]);
    run(describe, "ask Python for its version", &Site { log: &log, ..*site }).await?;
    Ok(Python { program, description: log.last_line(), uv: find("uv") })
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

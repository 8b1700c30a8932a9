//! The interpreters of this host, and the commands that make environments of them: uv's where it is installed, else those of
//! Python itself. Must never happen here: an interpreter of another version than was asked for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tokio::sync::Mutex;

use super::{Site, command, run};
use crate::execute::logs::Log;

/// What an environment depends on beside what is installed; the version comes first.
const DESCRIBE: &str = "import platform, sys; print(platform.python_version(), sys.executable, \
                        platform.python_implementation(), sys.platform, platform.machine(), *platform.libc_ver())";

/// The interpreters that were found, by the version asked for.
#[derive(Debug, Default)]
pub(super) struct Host(Mutex<BTreeMap<Option<String>, Interpreter>>);

/// A Python, and what builds environments for it.
#[derive(Clone, Debug)]
pub(super) struct Interpreter {
    /// The program, or the version that uv is to bring.
    program: PathBuf,
    /// What environments of it depend on.
    pub(super) description: String,
    uv: Option<PathBuf>,
}

impl Host {
    /// The Python of a version such as `3.12` or `3.12.4`, or the host's own. Looked for once.
    ///
    /// # Errors
    /// There is none, in words.
    pub(super) async fn python(&self, version: Option<&str>, site: &Site<'_>) -> Result<Interpreter, String> {
        let mut known = self.0.lock().await;
        let asked = version.map(str::to_owned);
        if let Some(interpreter) = known.get(&asked) {
            return Ok(interpreter.clone());
        }
        let found = look(version, site).await?;
        known.insert(asked, found.clone());
        Ok(found)
    }
}

/// Looks on the worker's own PATH.
async fn look(version: Option<&str>, site: &Site<'_>) -> Result<Interpreter, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let find =
        |name: &str| std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    let uv = find("uv");
    let minor: Option<String> =
        version.map(|version| version.split('.').take(2).collect::<Vec<_>>().join("."));
    let names = minor.map(|minor| format!("python{minor}")).into_iter();
    for name in names.chain(["python3".to_owned(), "python".to_owned()]) {
        let Some(program) = find(&name) else { continue };
        // A shim may stand for a Python that is not there.
        let Ok(description) = describe(&program, site).await else { continue };
        if version.is_none_or(|version| is_of(&description, version)) {
            return Ok(Interpreter { program, description, uv });
        }
    }
    match (version, uv) {
        (Some(version), Some(uv)) => {
            let description = format!("{version} {} {}", std::env::consts::OS, std::env::consts::ARCH);
            Ok(Interpreter { program: PathBuf::from(version), description, uv: Some(uv) })
        }
        (Some(version), None) => Err(format!(
            "there is no Python {version} on this host: install it, or uv, which brings it, or offer the step to another worker"
        )),
        (None, _) => {
            Err("there is no Python on this host: install Python 3, or offer the step to another worker"
                .to_owned())
        }
    }
}

async fn describe(program: &Path, site: &Site<'_>) -> Result<String, String> {
    let log = Log::default();
    let describe = command(program, &[&"-c", &DESCRIBE]);
    run(describe, "ask Python for its version", &Site { log: &log, ..*site }).await?;
    Ok(log.last_line())
}

/// Whether a description is of this version: of all that is said of it.
fn is_of(description: &str, version: &str) -> bool {
    let found = description.split(' ').next().unwrap_or_default().split('.');
    let asked = version.split('.');
    let said = asked.clone().count();
    found.take(said).eq(asked)
}

impl Interpreter {
    /// Makes an empty environment.
    pub(super) fn make(&self, folder: &Path) -> (PathBuf, Vec<OsString>) {
        match &self.uv {
            Some(uv) => command(uv, &[&"venv", &"--no-project", &"--python", &self.program, &folder]),
            None => command(&self.program, &[&"-m", &"venv", &folder]),
        }
    }

    /// Installs a file of requirements with an environment's own Python.
    pub(super) fn install(
        &self,
        own_python: &Path,
        requirements: &Path,
        index_args: &[String],
    ) -> (PathBuf, Vec<OsString>) {
        let (program, mut arguments) = match &self.uv {
            Some(uv) => command(uv, &[&"pip", &"install", &"--python", &own_python]),
            None => command(
                own_python,
                &[&"-m", &"pip", &"install", &"--disable-pip-version-check", &"--no-input"],
            ),
        };
        arguments.extend(index_args.iter().map(OsString::from));
        arguments.extend([OsString::from("-r"), requirements.into()]);
        (program, arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_met_by_all_that_it_says() {
        let description = "3.12.4 /usr/bin/python3 CPython linux x86_64 glibc 2.39";
        for (version, met) in
            [("3.12", true), ("3.12.4", true), ("3.1", false), ("3.12.40", false), ("3.13", false)]
        {
            assert_eq!(is_of(description, version), met, "{version}");
        }
    }
}

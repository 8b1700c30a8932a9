//! The step contract: what a step finds around it. A fresh folder per attempt, the control files beside (never in)
//! its working directory, and exactly the variables of the contract; nothing of the worker's own environment but
//! `PATH`. Fetches nothing: what comes from elsewhere is laid out by the caller.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use refit_workflows::wire::{OrderCommand, RunOrder, StepOrder};
use serde_json::Value;

use crate::execute::process::Program;
use crate::leftovers::{self, Signs};
use crate::python::Environment;

/// Where programs are looked for when the worker itself has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the attempts' folders, one ahead: while a step runs, the next one's place is prepared.
#[derive(Debug)]
pub(crate) struct Places {
    attempts: PathBuf,
    spare: Arc<Mutex<Option<Place>>>,
}

impl Places {
    /// Below this folder.
    pub(crate) fn new(attempts: PathBuf) -> Self {
        Self { attempts, spare: Arc::default() }
    }

    /// A fresh place for an attempt with these params.
    ///
    /// # Errors
    /// A reason for people.
    pub(crate) async fn take(&self, params: &serde_json::Map<String, Value>) -> Result<Place, String> {
        let spare = lock(&self.spare).take();
        let attempts = self.attempts.clone();
        let params = Value::Object(params.clone()).to_string();
        let make = move || -> io::Result<Place> {
            let place = match spare {
                Some(place) => place,
                None => Place::create(&attempts)?,
            };
            std::fs::write(place.params(), params)?;
            Ok(place)
        };
        let made = tokio::task::spawn_blocking(make).await.unwrap_or_else(|panic| Err(panic.into()));
        let place = made.map_err(|cause| {
            format!("failed to make a folder for the step in {}: {cause}", self.attempts.display())
        })?;
        let (attempts, spare) = (self.attempts.clone(), self.spare.clone());
        tokio::task::spawn_blocking(move || {
            if lock(&spare).is_none() {
                // A disk that is full shows when the place is needed.
                let place = Place::create(&attempts).ok();
                *lock(&spare) = place;
            }
        });
        Ok(place)
    }
}

fn lock(spare: &Mutex<Option<Place>>) -> std::sync::MutexGuard<'_, Option<Place>> {
    spare.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folder of one attempt, removed when dropped unless it is to stay.
#[derive(Debug)]
pub(crate) struct Place {
    signs: Signs,
    stays: bool,
}

impl Place {
    /// Makes the folders. `REFIT_OUTPUTS` and `REFIT_METRICS` come into being when a step appends to them.
    fn create(attempts: &Path) -> io::Result<Self> {
        let id = uuid::Uuid::new_v4().to_string();
        let place = Self { signs: Signs { folder: attempts.join(&id), id, cgroup: None }, stays: false };
        std::fs::create_dir(place.folder())?;
        for folder in [place.work(), place.control(""), place.inputs(), place.home(), place.temporary()] {
            std::fs::create_dir(folder)?;
        }
        std::fs::File::create(place.events())?;
        Ok(place)
    }

    /// That of an attempt of an earlier worker; it is to stay.
    pub(super) fn inherit(folder: PathBuf) -> Self {
        let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { signs: Signs { folder, id, cgroup: None }, stays: true }
    }

    /// Whether the folder is left to the next worker on the data folder.
    pub(super) fn stays(&mut self, stays: bool) {
        self.stays = stays;
    }

    /// See [`Place::stays`].
    pub(super) fn is_to_stay(&self) -> bool {
        self.stays
    }

    /// The signs of the attempt's processes, but for its cgroup.
    pub(crate) fn signs(&self) -> &Signs {
        &self.signs
    }

    /// All of the attempt is in it.
    pub(super) fn folder(&self) -> &Path {
        &self.signs.folder
    }

    /// A file or folder beside the working directory.
    pub(crate) fn control(&self, name: &str) -> PathBuf {
        self.folder().join("refit").join(name)
    }

    /// The working directory, holding the bundle.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder().join("work")
    }

    fn home(&self) -> PathBuf {
        self.folder().join("home")
    }

    fn temporary(&self) -> PathBuf {
        self.folder().join("tmp")
    }

    fn params(&self) -> PathBuf {
        self.control("params.json")
    }

    /// `REFIT_EVENTS`.
    pub(crate) fn events(&self) -> PathBuf {
        self.control("events.jsonl")
    }

    /// `REFIT_OUTPUTS`.
    pub(crate) fn outputs(&self) -> PathBuf {
        self.control("outputs")
    }

    /// `REFIT_METRICS`.
    pub(crate) fn metrics(&self) -> PathBuf {
        self.control("metrics.jsonl")
    }

    /// `REFIT_INPUTS`.
    pub(crate) fn inputs(&self) -> PathBuf {
        self.control("inputs")
    }

    /// `REFIT_CHAMPION`.
    pub(crate) fn champion(&self) -> PathBuf {
        self.control("champion")
    }

    /// Everything the step finds in its environment, but for the marker. What the contract names cannot be declared
    /// otherwise; `PATH`, `HOME`, `TMPDIR` and `LANG` can.
    ///
    /// # Errors
    /// A reason for people: a variable that no process can be given.
    pub(crate) fn environment(
        &self,
        order: &StepOrder,
        run: &RunOrder,
        python: Option<&Environment>,
    ) -> Result<BTreeMap<OsString, OsString>, String> {
        let mut env: BTreeMap<OsString, OsString> = BTreeMap::new();
        let mut set = |name: &str, value: OsString| env.insert(OsString::from(name), value);
        set("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into()));
        set("HOME", self.home().into());
        set("TMPDIR", self.temporary().into());
        set("LANG", "C.UTF-8".into());
        for (name, value) in &order.params {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    value.to_string()
                }
            };
            let name = format!("PARAM_{}", name.to_ascii_uppercase().replace('-', "_"));
            set(checked(&name, &text)?, text.clone().into());
        }
        for (name, value) in &run.env {
            set(checked(name, value)?, value.clone().into());
        }
        for (name, value) in &order.secrets {
            set(checked(name, value.reveal())?, value.reveal().into());
        }
        set("REFIT_RUN", order.key.run.to_string().into());
        set("REFIT_STEP", order.key.step.clone().into());
        set("REFIT_ATTEMPT", order.attempt.to_string().into());
        set("REFIT_PARAMS", self.params().into());
        set("REFIT_EVENTS", self.events().into());
        set("REFIT_INPUTS", self.inputs().into());
        set("REFIT_OUTPUTS", self.outputs().into());
        set("REFIT_METRICS", self.metrics().into());
        if let Some(checkpoint) = &order.checkpoint {
            set("REFIT_CHECKPOINT", self.work().join(checkpoint.path.trim_end_matches('/')).into());
        }
        if order.champion.is_some() {
            set("REFIT_CHAMPION", self.champion().into());
        }
        if let Some(python) = python {
            set("VIRTUAL_ENV", python.folder().into());
            let mut path = python.programs().into_os_string();
            if let Some(rest) = env.get(&OsString::from("PATH")).filter(|rest| !rest.is_empty()) {
                path.push(":");
                path.push(rest);
            }
            env.insert("PATH".into(), path);
        }
        Ok(env)
    }

    /// The program to start: the command's first word looked up in the step's own `PATH` and working directory.
    ///
    /// # Errors
    /// A reason for people: no such program, or not one that may be executed.
    pub(crate) fn program(
        &self,
        command: &OrderCommand,
        env: BTreeMap<OsString, OsString>,
    ) -> Result<Program, String> {
        let folder = self.work();
        let path = env.get(&OsString::from("PATH")).cloned().unwrap_or_default();
        let (name, arguments) = match command {
            OrderCommand::Shell(text) => ("sh", vec!["-e".into(), "-c".into(), text.clone().into()]),
            OrderCommand::Arguments(words) => match words.split_first() {
                Some((name, rest)) => (name.as_str(), rest.iter().map(OsString::from).collect()),
                None => return Err("the command is empty".to_owned()),
            },
        };
        if arguments.iter().any(|argument: &OsString| argument.as_encoded_bytes().contains(&0)) {
            return Err("an argument holds a NUL character, which no program can be given".to_owned());
        }
        Ok(Program { path: find(name, &path, &folder)?, arguments, env, folder })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let folder = self.signs.folder.clone();
        let remove = move || {
            if let Err(cause) = leftovers::remove_folder(&folder) {
                tracing::warn!(%cause, folder = %folder.display(), "failed to remove an attempt's folder");
            }
        };
        // Off the way of the next step: a folder may hold many files.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// The name, when it and the value can be an environment variable.
fn checked<'a>(name: &'a str, value: &str) -> Result<&'a str, String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!("`{name}` cannot name an environment variable"));
    }
    if value.contains('\0') {
        return Err(format!(
            "the value of `{name}` holds a NUL character, which no environment variable can"
        ));
    }
    Ok(name)
}

/// As `execvp` searches: a name with a slash is a path in the working directory, any other is looked up in `PATH`.
fn find(name: &str, path: &std::ffi::OsStr, work: &Path) -> Result<PathBuf, String> {
    if name.contains('/') {
        let file = work.join(name);
        return match std::fs::metadata(&file) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => Ok(file),
            Ok(meta) if meta.is_file() => {
                Err(format!("`{name}` may not be executed: run `chmod +x {name}`, then `refit apply` again"))
            }
            Ok(_) => Err(format!("`{name}` is a folder, not a program")),
            Err(_) => Err(format!("there is no `{name}` in the workflow's folder")),
        };
    }
    let executable = |name: &str| {
        std::env::split_paths(path).map(|folder| work.join(folder).join(name)).find(|file| {
            std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
    };
    if let Some(file) = executable(name) {
        return Ok(file);
    }
    Err(match name {
        "python" if executable("python3").is_some() => {
            "there is no program `python` on this host, only `python3`: write `python3`, or declare \
             `python: {requirements: requirements.txt}` for an environment that has both"
                .to_owned()
        }
        _ if work.join(name).is_file() => {
            format!(
                "there is no program `{name}` on PATH; for the file in the workflow's folder write `./{name}`"
            )
        }
        _ => format!("there is no program `{name}` on this host's PATH"),
    })
}

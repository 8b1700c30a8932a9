//! A step's process in a container of podman or docker: its image is there before it starts, the attempt's folder is at the same place
//! inside, and the container goes with the attempt, however that ends. Must never happen here: a container that no attempt's folder
//! tells of, or a secret among a program's arguments.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use refit_workflows::wire::{Limits, OrderCommand, RunOrder};
use tokio::time::Instant;

use super::Attempt;
use super::contract::Place;
use super::logs::Log;
use super::process::{Program, Tree};
use crate::gpus::TakenGpus;
use crate::leftovers::{MARKER, Signs};

/// The exit code by which both say that they could not start a container.
pub(super) const EXIT_NOT_STARTED: i32 = 125;
/// Beside the step's working directory: the name of the runtime. The container has the attempt's.
const RECORD: &str = "container";
const RECORD_BYTES_MAX: u64 = 16;
/// How long a question to the runtime may take.
const ASK_TIME: Duration = Duration::from_secs(60);
/// The pause before a container that could not be removed is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a container may resist before it is said, or before a worker does not start because of it.
const COMPLAIN_AFTER: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Podman,
    Docker,
}

impl Kind {
    /// The first is taken where a host has both.
    const ALL: [Self; 2] = [Self::Podman, Self::Docker];

    /// Its program.
    fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }
}

/// What runs containers on this host.
#[derive(Clone, Debug)]
struct Runtime {
    kind: Kind,
    program: PathBuf,
}

/// What a container is to be made of.
struct Asked<'a> {
    command: &'a OrderCommand,
    /// The variables of the contract.
    env: BTreeMap<OsString, OsString>,
    /// Those of them that nobody else may see.
    secrets: Vec<&'a str>,
    /// The GPUs it gets.
    gpus: Vec<&'a str>,
    limits: Limits,
}

impl Runtime {
    /// The first of these that the worker's `PATH` has.
    fn find(kinds: &[Kind]) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let executable = |file: &PathBuf| {
            std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        kinds.iter().find_map(|&kind| {
            let program =
                std::env::split_paths(&path).map(|folder| folder.join(kind.name())).find(executable)?;
            Some(Self { kind, program })
        })
    }

    fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The image's id; pulls it when it is not there, and says so in the log.
    ///
    /// # Errors
    /// Why there is no image, for people.
    async fn ensure(&self, image: &str, work: &Path, signs: &Signs, log: &Log) -> Result<String, String> {
        if let Some(id) = self.look(image).await? {
            return Ok(id);
        }
        let runtime = self.name();
        log.say(&format!("pulling the image {image} with {runtime} (kept for later steps on this host)"));
        let arguments = ["pull", image].map(OsString::from).into();
        let pull = Program {
            path: self.program.clone(),
            arguments,
            env: own_environment(),
            folder: work.to_owned(),
        };
        let failed = |why: String| format!("failed to pull the image `{image}` with {runtime}: {why}");
        let (mut tree, streams) = Tree::start(&pull, signs).map_err(|cause| failed(cause.to_string()))?;
        let (read, status) = tokio::join!(log.read(streams), tree.wait());
        let status = read.and(status).map_err(|cause| failed(cause.to_string()))?;
        if !status.success() {
            return Err(failed(log.last_line()));
        }
        self.look(image).await?.ok_or_else(|| failed("it is not there all the same".to_owned()))
    }

    async fn look(&self, image: &str) -> Result<Option<String>, String> {
        let inspected = self.ask(&["image", "inspect", "--format", "{{.Id}}", image]).await?;
        if inspected.status.success() {
            return Ok(Some(String::from_utf8_lossy(&inspected.stdout).trim().to_owned()));
        }
        let said = said(&inspected);
        let lower = said.to_ascii_lowercase();
        if lower.contains("no such image") || lower.contains("image not known") {
            return Ok(None);
        }
        Err(format!(
            "{} cannot be used on this host: {said}; the worker's user must be able to run `{0} image ls`",
            self.name()
        ))
    }

    /// Runs a command of the runtime that is not part of a step.
    async fn ask(&self, arguments: &[&str]) -> Result<Output, String> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(arguments).env_clear().envs(own_environment()).stdin(Stdio::null()).kill_on_drop(true);
        let what = || format!("`{} {}`", self.name(), arguments.join(" "));
        match tokio::time::timeout(ASK_TIME, command.output()).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(cause)) => Err(format!("failed to run {}: {cause}", what())),
            Err(_) => Err(format!("{} did not answer within {} s", what(), ASK_TIME.as_secs())),
        }
    }
}

/// The first line of what went wrong.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it says nothing").to_owned()
}

/// The worker's own, which finds the runtime's storage, but not its token.
fn own_environment() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"REFIT_")).collect()
}

impl Attempt<'_> {
    /// The container that a step is to run in, and the program that runs it.
    ///
    /// # Errors
    /// A reason for people.
    pub(super) async fn contained(
        &self,
        image: &str,
        run: &RunOrder,
        mut env: BTreeMap<OsString, OsString>,
        gpus: &TakenGpus,
        signs: &Signs,
    ) -> Result<(Container, Program), String> {
        let runtime = Runtime::find(&Kind::ALL).ok_or(
            "the step runs in a container, and this host has neither podman nor docker: install one, or keep the step to \
             hosts that have it with a label in `needs_host`",
        )?;
        let image_id = runtime.ensure(image, &self.place.work(), signs, self.log).await?;
        self.log.say(&format!("runs in a container of {image} ({image_id})"));
        if !run.env.contains_key("PATH") {
            // The image's own.
            env.remove(OsStr::new("PATH"));
        }
        env.insert(MARKER.into(), signs.id.clone().into());
        let asked = Asked {
            command: &run.command,
            env,
            secrets: self.order.secrets.keys().map(String::as_str).collect(),
            gpus: gpus.names(),
            limits: self.order.limits,
        };
        Container::prepare(runtime, &image_id, self.place, signs, asked)
    }
}

/// The container of one attempt. Gone when [`Container::gone`] says so.
#[derive(Debug)]
pub(super) struct Container {
    runtime: Runtime,
    name: String,
    is_gone: std::sync::atomic::AtomicBool,
}

impl Container {
    /// Prepares it: from now on whoever finds the attempt's folder ends it.
    ///
    /// # Errors
    /// A reason for people.
    fn prepare(
        runtime: Runtime,
        image_id: &str,
        place: &Place,
        signs: &Signs,
        asked: Asked<'_>,
    ) -> Result<(Self, Program), String> {
        let name = name_of(&signs.id);
        let failed = |cause: io::Error| format!("failed to prepare the container: {cause}");
        let owner = std::fs::metadata(place.folder()).map_err(failed)?;
        let program = runtime.run(&name, image_id, place, (owner.uid(), owner.gid()), asked)?;
        std::fs::write(place.folder().join(RECORD), runtime.name()).map_err(failed)?;
        Ok((Self { runtime, name, is_gone: false.into() }, program))
    }

    /// Removes it, whatever state it is in; returns when it is gone.
    pub(super) async fn gone(&self) {
        let begun = Instant::now();
        let mut complained = false;
        while let Err(why) = self.remove().await {
            if !complained && begun.elapsed() > COMPLAIN_AFTER {
                complained = true;
                tracing::error!(
                    container = self.name,
                    why,
                    "a step's container cannot be removed; its slot stays taken until it is"
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.is_gone.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    async fn remove(&self) -> Result<(), String> {
        let removed = self.runtime.ask(&self.removal()).await?;
        let why = said(&removed);
        let gone = removed.status.success() || why.to_ascii_lowercase().contains("no such container");
        if gone { Ok(()) } else { Err(why) }
    }

    fn removal(&self) -> Vec<&str> {
        match self.runtime.kind {
            Kind::Podman => vec!["rm", "--force", "--ignore", "--time=0", &self.name],
            Kind::Docker => vec!["rm", "--force", &self.name],
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !*self.is_gone.get_mut() {
            // The attempt's task was dropped; the folder that tells of the container goes as well.
            let mut command = std::process::Command::new(&self.runtime.program);
            let removal = command.args(self.removal()).stdin(Stdio::null()).stdout(Stdio::null());
            if let Err(cause) = removal.stderr(Stdio::null()).spawn() {
                tracing::warn!(%cause, container = self.name, "failed to remove a step's container");
            }
        }
    }
}

/// The container of the attempt with this id.
fn name_of(id: &str) -> String {
    format!("refit-{id}")
}

/// Removes the container that an earlier worker's attempt left, if it had one.
///
/// # Errors
/// It could not be removed.
pub(crate) async fn remove_left(folder: &Path) -> io::Result<()> {
    let Some(record) = record_in(folder) else { return Ok(()) };
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == record) else { return Ok(()) };
    let name = name_of(&folder.file_name().unwrap_or_default().to_string_lossy());
    let runtime = Runtime::find(&[kind]).ok_or_else(|| {
        io::Error::other(format!(
            "{record} is gone, and with it the way to remove the container {name} of an earlier step"
        ))
    })?;
    let container = Container { runtime, name, is_gone: true.into() };
    let begun = Instant::now();
    while let Err(why) = container.remove().await {
        if begun.elapsed() > COMPLAIN_AFTER {
            let name = &container.name;
            return Err(io::Error::other(format!(
                "failed to remove the container {name} of an earlier step: {why}"
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// What stands in the record, if that is one: the step may have put anything in its place.
fn record_in(folder: &Path) -> Option<String> {
    let path = folder.join(RECORD);
    let meta = std::fs::symlink_metadata(&path).ok()?;
    if meta.is_file() && meta.len() <= RECORD_BYTES_MAX { std::fs::read_to_string(path).ok() } else { None }
}

impl Runtime {
    /// The command that runs the container in the foreground.
    fn run(
        &self,
        name: &str,
        image_id: &str,
        place: &Place,
        (user, group): (u32, u32),
        asked: Asked<'_>,
    ) -> Result<Program, String> {
        let (folder, work) = (place.folder(), place.work());
        let mut arguments: Vec<OsString> = [
            "run",
            "--rm",
            "--pull=never",
            "--network=host",
            "--ipc=host",
            "--security-opt=label=disable",
            "--log-driver=none",
        ]
        .map(OsString::from)
        .into();
        let mut add = |argument: String| arguments.push(argument.into());
        add(format!("--name={name}"));
        add(format!("--user={user}:{group}"));
        add(format!("--workdir={}", shown(&work)?));
        add(format!("--mount=type=bind,source={0},target={0}", shown(folder)?));
        for read_only in [place.inputs(), place.champion()].iter().filter(|folder| folder.is_dir()) {
            add(format!("--mount=type=bind,source={0},target={0},readonly=true", shown(read_only)?));
        }
        self.confine(user, &asked, &mut add);
        let mut env = own_environment();
        for (variable, value) in asked.env {
            let secret = asked.secrets.iter().any(|secret| variable == *secret);
            if secret && belongs_to_runtime(&variable) {
                return Err(format!(
                    "the secret `{}` has the name of a variable that {} itself reads: call it otherwise",
                    variable.display(),
                    self.name()
                ));
            }
            let mut argument = OsString::from("--env=");
            argument.push(&variable);
            if secret {
                env.insert(variable, value);
            } else {
                argument.push("=");
                argument.push(value);
            }
            arguments.push(argument);
        }
        let (entrypoint, rest) = match asked.command {
            OrderCommand::Shell(text) => ("sh", vec!["-e".into(), "-c".into(), OsString::from(text)]),
            OrderCommand::Arguments(words) => match words.split_first() {
                Some((name, rest)) => (name.as_str(), rest.iter().map(OsString::from).collect()),
                None => return Err("the command is empty".to_owned()),
            },
        };
        arguments.push(format!("--entrypoint={entrypoint}").into());
        arguments.push(image_id.into());
        arguments.extend(rest);
        if arguments.iter().any(|argument| argument.as_encoded_bytes().contains(&0)) {
            return Err("an argument holds a NUL character, which no program can be given".to_owned());
        }
        Ok(Program { path: self.program.clone(), arguments, env, folder: work })
    }

    /// Limits and devices.
    fn confine(&self, user: u32, asked: &Asked<'_>, add: &mut impl FnMut(String)) {
        match self.kind {
            Kind::Podman => {
                add("--http-proxy=false".to_owned());
                if user != 0 {
                    // Files in the attempt's folder belong to the worker's user, whatever the image says.
                    add("--userns=keep-id".to_owned());
                }
                asked.gpus.iter().for_each(|gpu| add(format!("--device=nvidia.com/gpu={gpu}")));
            }
            Kind::Docker if asked.gpus.is_empty() => {}
            // A field of CSV, so that the comma does not end it.
            Kind::Docker => add(format!("--gpus=\"device={}\"", asked.gpus.join(","))),
        }
        if let Some(bytes) = asked.limits.memory {
            add(format!("--memory={bytes}b"));
            add(format!("--memory-swap={bytes}b"));
        }
        if let Some(cpus) = asked.limits.cpus {
            add(format!("--cpu-shares={}", (cpus * 1024.0).round().clamp(2.0, 262_144.0)));
        }
    }
}

/// What podman and docker read of their own environment.
fn belongs_to_runtime(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    ["DOCKER", "CONTAINER", "PODMAN", "REGISTRY", "STORAGE", "XDG_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || matches!(&*name, "HOME" | "PATH" | "TMPDIR")
}

/// A path as it stands in an option with commas.
fn shown(path: &Path) -> Result<&str, String> {
    path.to_str().filter(|path| !path.contains([',', '"', '\n'])).ok_or_else(|| {
        format!(
            "containers cannot be given the folder {}: its path holds a comma, a quote or what is not UTF-8",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confined(kind: Kind, user: u32, gpus: &[&str], limits: Limits) -> String {
        let command = OrderCommand::Shell(String::new());
        let asked = Asked {
            command: &command,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            gpus: gpus.to_vec(),
            limits,
        };
        let mut arguments = Vec::new();
        Runtime { kind, program: PathBuf::new() }
            .confine(user, &asked, &mut |argument| arguments.push(argument));
        arguments.join(" ")
    }

    #[test]
    fn limits_and_gpus_are_asked_of_the_runtime() {
        let limits = Limits { cpus: Some(1.5), memory: Some(1_048_576) };
        let limited = "--memory=1048576b --memory-swap=1048576b --cpu-shares=1536";
        let none = Limits::default();
        let podman = "--http-proxy=false";
        assert_eq!(confined(Kind::Podman, 0, &[], none), podman);
        assert_eq!(confined(Kind::Podman, 1000, &[], none), format!("{podman} --userns=keep-id"));
        assert_eq!(
            confined(Kind::Podman, 0, &["0", "3"], limits),
            format!("{podman} --device=nvidia.com/gpu=0 --device=nvidia.com/gpu=3 {limited}")
        );
        assert_eq!(confined(Kind::Docker, 1000, &[], none), "");
        assert_eq!(
            confined(Kind::Docker, 0, &["0", "3"], limits),
            format!("--gpus=\"device=0,3\" {limited}")
        );
    }

    #[test]
    fn what_a_step_left_in_the_place_of_the_record_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join(RECORD);
        assert_eq!(record_in(folder.path()), None);
        std::fs::write(&record, "podman").unwrap();
        assert_eq!(record_in(folder.path()).as_deref(), Some("podman"));
        for content in [&[0xff_u8, 0xfe][..], &[b'x'; 17]] {
            std::fs::write(&record, content).unwrap();
            assert_eq!(record_in(folder.path()), None);
        }
        std::fs::remove_file(&record).unwrap();
        nix::unistd::mkfifo(&record, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(record_in(folder.path()), None, "a pipe would be waited for");
        std::fs::remove_file(&record).unwrap();
        std::fs::create_dir(&record).unwrap();
        assert_eq!(record_in(folder.path()), None);
    }

    #[test]
    fn a_secret_cannot_configure_the_runtime() {
        for name in ["DOCKER_HOST", "CONTAINERS_CONF", "HOME", "PATH", "XDG_RUNTIME_DIR"] {
            assert!(belongs_to_runtime(OsStr::new(name)), "{name}");
        }
        assert!(!belongs_to_runtime(OsStr::new("TOKEN")));
    }
}

//! What runs on a worker: processes, HTTP requests, and what they ask of their host. The built-in data verbs have files
//! of their own. Must never happen here: a command line put together from strings.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{EvaluateTask, ValidateTask};
use crate::template::{Template, ValueTemplate};
use crate::units::show_size;

/// A step that runs on a worker: what all such verbs share, and the task itself.
#[derive(Clone, Debug)]
pub struct Work {
    /// What to do there.
    pub task: Task,
    /// Artifacts of earlier steps it reads, by the name it finds them under. Each template is one `${{ }}` that
    /// refers to `steps.NAME.artifacts.NAME`.
    pub inputs: BTreeMap<String, Template>,
    /// Files or folders it hands on: name → path inside the working directory.
    pub artifacts: BTreeMap<String, String>,
    /// Attempts and the pauses between them.
    pub retry: Retry,
    /// The longest one attempt may take; the whole process tree is ended then.
    pub timeout: Duration,
    /// `needs_host`: what a worker must offer.
    pub host: HostNeeds,
    /// `checkpoint`: a folder inside the working directory that is kept across attempts.
    pub checkpoint: Option<String>,
    /// `cache`: whether an earlier outcome may be taken instead.
    pub cache: Option<Cache>,
    /// `secrets`: what the orchestrator's secrets of these names hand over; a process has them as variables of the same
    /// names, data behind an `s3://` URL is fetched with them.
    pub secrets: Vec<String>,
}

/// What a worker does.
#[derive(Clone, Debug)]
pub enum Task {
    /// Runs a process.
    Run(RunTask),
    /// Makes an HTTP request.
    Call(CallTask),
    /// Checks data.
    Validate(Box<ValidateTask>),
    /// Counts metrics of the candidate and the champion from paired predictions.
    Evaluate(Box<EvaluateTask>),
}

impl Task {
    /// The verb's key in the YAML.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Call(_) => "call",
            Self::Validate(_) => "validate",
            Self::Evaluate(_) => "evaluate",
        }
    }
}

/// `run`: a process on a worker.
#[derive(Clone, Debug)]
pub struct RunTask {
    /// What to start.
    pub command: Command,
    /// Declared environment variables.
    pub env: BTreeMap<String, Template>,
    /// `python`: the cached environment it runs in.
    pub python: Option<Python>,
    /// `container`: the image that it runs in; never together with `python`.
    pub container: Option<String>,
}

impl RunTask {
    /// `python.requirements`: path inside the bundle of the requirements its cached environment is built from.
    pub fn requirements(&self) -> Option<&str> {
        match &self.python.as_ref()?.packages {
            Packages::Requirements(path) => Some(path),
            Packages::Listed(_) => None,
        }
    }
}

/// `python`: an environment that a host builds once and keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Python {
    /// `version`: of the interpreter, as in `3.12`; without it the host's `python3`.
    pub version: Option<String>,
    /// What is installed.
    pub packages: Packages,
    /// `index_args`: arguments for the installer, such as `--index-url`.
    pub index_args: Vec<String>,
}

/// What a Python environment holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packages {
    /// `requirements`: what this file of the bundle lists.
    Requirements(String),
    /// `packages`: these requirement specifiers (PEP 508).
    Listed(Vec<String>),
}

/// `needs_host`: what a worker must offer to run a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostNeeds {
    /// GPUs, whole ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// CPUs; halves and the like are shares of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Labels with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl HostNeeds {
    /// Whether any worker will do.
    pub fn is_empty(&self) -> bool {
        let Self { gpus, cpus, memory, labels } = self;
        gpus.unwrap_or(0) == 0 && cpus.is_none() && memory.unwrap_or(0) == 0 && labels.is_empty()
    }
}

/// For people: `gpus=8, memory=16 GiB, label zone=eu`.
impl fmt::Display for HostNeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gpus, cpus, memory, labels } = self;
        let gpus = gpus.filter(|&gpus| gpus > 0).map(|gpus| format!("gpus={gpus}"));
        let cpus = cpus.map(|cpus| format!("cpus={cpus}"));
        let memory = memory.filter(|&bytes| bytes > 0).map(|bytes| format!("memory={}", show_size(bytes)));
        let labels = labels.iter().map(|(key, value)| format!("label {key}={value}"));
        let parts: Vec<String> = gpus.into_iter().chain(cpus).chain(memory).chain(labels).collect();
        f.write_str(&parts.join(", "))
    }
}

/// `cache`: with the same code, inputs, params and environment, the outcome of an earlier attempt is taken.
#[derive(Clone, Debug)]
pub struct Cache {
    /// `key`: takes the place of what the outcome is otherwise found by.
    pub key: Option<Template>,
    /// `ttl`: how old the outcome may be; without it any age.
    pub ttl: Option<Duration>,
}

/// `call`: an HTTP request from a worker. It succeeds on a status of 2xx; its outputs are `status` and `body`, the answer
/// as JSON where it is that, else as text.
#[derive(Clone, Debug)]
pub struct CallTask {
    /// `method`: GET, POST, PUT, PATCH, DELETE or HEAD.
    pub method: String,
    /// Where to: http or https.
    pub url: Template,
    /// `headers`, by name.
    pub headers: BTreeMap<String, Template>,
    /// `json`: the body.
    pub json: Option<ValueTemplate>,
}

/// What a `run` step starts.
#[derive(Clone, Debug)]
pub enum Command {
    /// A program and its arguments; templates stay one argument each.
    Arguments(Vec<Template>),
    /// Text for `sh -c`; never holds a template.
    Shell(String),
}

/// `retry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often the step is tried in all; 1 means once.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles for each further one.
    pub backoff: Duration,
    /// The longest pause.
    pub max_backoff: Duration,
}

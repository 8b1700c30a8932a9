//! The agent on a training host: leases steps over HTTP, runs each as a process tree of its own, reports what it
//! came to. Knows the orchestrator only through HTTP and the wire types; never sees its database.
//!
//! Reading order: [`work`] → `agent` (leases, renewals, finishing) → `execute` (one attempt) → `outputs` (what it
//! may hand back). `blobs` and `python` are the caches, `leftovers` makes sure that nothing of a step survives it; it stands
//! on `cgroup`, `orphans` (whose a process is) and `processes` (what the kernel tells).

mod agent;
mod blobs;
mod cgroup;
mod client;
mod data;
mod evaluate;
mod execute;
mod gpus;
mod held;
mod host;
mod keyed;
mod leftovers;
mod orphans;
mod outputs;
mod processes;
mod python;
#[cfg(test)]
mod testing;
mod validate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use gpus::GpuChoice;

/// What a worker is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The orchestrator: `http://127.0.0.1:7433`.
    pub server: String,
    /// Bearer token with the worker role.
    pub token: Option<String>,
    /// The worker's name; unique among hosts.
    pub name: String,
    /// How many attempts run at once.
    pub slots: u32,
    /// What it offers.
    pub labels: BTreeMap<String, String>,
    /// CPUs it offers; without it all of the host's.
    pub cpus: Option<u32>,
    /// Bytes of memory it offers; without it all of the host's.
    pub memory: Option<u64>,
    /// GPUs it offers; without it those that `nvidia-smi` lists.
    pub gpus: Option<GpuChoice>,
    /// Folder for caches, environments and working directories.
    pub data: PathBuf,
    /// What is kept of blobs for steps to come, in bytes. What a step needs just now may be more.
    pub cache_bytes_max: u64,
}

impl Config {
    /// [`Config::cache_bytes_max`], unless something else is said.
    pub const CACHE_BYTES_MAX: u64 = 10 * 1024 * 1024 * 1024;
}

/// Runs the agent until `drain` is cancelled: then takes no more work, finishes what runs, and returns.
/// Cancelling `abort` as well ends the running attempts.
///
/// # Errors
/// Only what makes working impossible for good: the data folder cannot be used, the server speaks another protocol
/// or refuses the token. A server that is out of reach is waited for.
pub async fn work(
    config: Config,
    drain: CancellationToken,
    abort: CancellationToken,
) -> Result<(), WorkError> {
    let data = prepare(&config.data)?;
    let _lock = lock(&data)?;
    let gpus = gpus::Gpus::new(gpus::offered(config.gpus.as_ref()).await?);
    orphans::adopt();
    let attempts = data.join("attempts");
    let cgroups = cgroup::Cgroups::open(&data);
    let unusable = |source| WorkError::Folder { path: attempts.clone(), source };
    let left = execute::Untold::left_in(&attempts).map_err(unusable)?;
    let keep = left.iter().filter_map(|untold| untold.folder().map(Path::to_owned)).collect();
    leftovers::clear(&attempts, &cgroups, &keep).await.map_err(unusable)?;

    let orchestrator = client::Orchestrator::new(&config.server, config.token.clone())?;
    let orchestrator = Arc::new(orchestrator);
    let cache = data.join("blobs");
    let blobs = blobs::Blobs::open(cache.clone(), orchestrator.clone(), config.cache_bytes_max)
        .map_err(|source| WorkError::Folder { path: cache, source })?;
    let tools = execute::Tools {
        places: execute::Places::new(attempts),
        cgroups,
        blobs,
        environments: python::Environments::new(data.join("environments")),
        caller: execute::Caller::new()
            .map_err(|cause| WorkError::Refused(format!("failed to set up calls over TLS: {cause}")))?,
        orchestrator,
        gpus,
        leaving: tokio::sync::watch::Sender::new(()),
    };
    agent::Agent::new(config, tools).run(left, drain, abort).await
}

/// Makes the folders; answers with the data folder's absolute path, because steps run elsewhere.
fn prepare(data: &Path) -> Result<PathBuf, WorkError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| WorkError::Folder { path, source }
    };
    std::fs::create_dir_all(data).map_err(failed(data))?;
    let data = data.canonicalize().map_err(failed(data))?;
    for name in ["attempts", "blobs", "environments"] {
        let path = data.join(name);
        std::fs::create_dir_all(&path).map_err(failed(&path))?;
    }
    Ok(data)
}

/// Two workers on one folder would end each other's steps as leftovers. The kernel gives the lock back when the
/// process ends, however it ends.
fn lock(data: &Path) -> Result<std::fs::File, WorkError> {
    let path = data.join("lock");
    let failed = |source| WorkError::Folder { path: data.to_owned(), source };
    let file = std::fs::File::options().create(true).append(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(failed(std::io::Error::other(
            "another worker is using this folder; stop it, or give this one a folder of its own with --data",
        ))),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Why a worker could not work at all.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The data folder cannot be used.
    #[error("failed to prepare {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The server said no.
    #[error("{0}")]
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_cannot_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let data = prepare(folder.path()).unwrap();
        let held = lock(&data).unwrap();
        let refused = lock(&data).unwrap_err().to_string();
        assert!(refused.contains("another worker is using this folder"), "{refused}");
        drop(held);
        lock(&data).unwrap();
    }
}

//! The host's GPUs, given to attempts one by one. A GPU is free again when nothing of the step that had it is left, which
//! only the worker knows: a lease that was lost is no sign of it. Must never happen here: one GPU with two attempts.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::process::Stdio;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::WorkError;

/// How long `nvidia-smi` may take: a driver that hangs must not keep the worker from starting.
const SMI_TIME: Duration = Duration::from_secs(20);
/// The most GPUs that a worker offers.
const GPUS_MAX: usize = 1024;

/// The GPUs that a worker is told to offer: `2` are the first two, `0,3` or `2,` those of these indices; UUIDs as
/// `nvidia-smi -L` prints them will do, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuChoice {
    /// So many, from index 0 on.
    Count(u32),
    /// These, named as `CUDA_VISIBLE_DEVICES` names them.
    Named(Vec<String>),
}

impl FromStr for GpuChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` names no GPUs: write how many, as in 2, or which, as in 0,3 (one alone with a comma: 3,), each \
                 once and at most {GPUS_MAX}"
            )
        };
        if let Ok(count) = text.parse::<u32>() {
            let fits = usize::try_from(count).is_ok_and(|count| count <= GPUS_MAX);
            return fits.then_some(Self::Count(count)).ok_or_else(wrong);
        }
        let names: Vec<String> =
            text.trim_end_matches(',').split(',').map(|name| name.trim().to_owned()).collect();
        let is_name = |name: &String| {
            name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '/' | ':'))
        };
        let once: BTreeSet<&String> = names.iter().collect();
        let sound = names.iter().all(is_name) && once.len() == names.len() && names.len() <= GPUS_MAX;
        if sound { Ok(Self::Named(names)) } else { Err(wrong()) }
    }
}

/// The names of the GPUs that the worker offers.
///
/// # Errors
/// The driver is there and does not say which GPUs it has.
pub(crate) async fn offered(choice: Option<&GpuChoice>) -> Result<Vec<String>, WorkError> {
    match choice {
        Some(GpuChoice::Count(count)) => Ok((0..*count).map(|index| index.to_string()).collect()),
        Some(GpuChoice::Named(names)) => Ok(names.clone()),
        None => listed().await.map_err(|why| {
            WorkError::Refused(format!(
                "failed to list this host's GPUs: {why}; say which it offers with --gpus, as in --gpus 0"
            ))
        }),
    }
}

/// The indices that `nvidia-smi` lists; none where there is no such program.
async fn listed() -> Result<Vec<String>, String> {
    let mut command = Command::new("nvidia-smi");
    command.args(["--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader"]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(SMI_TIME, command.output()).await {
        Err(_) => return Err(format!("nvidia-smi did not answer within {} seconds", SMI_TIME.as_secs())),
        Ok(Err(cause)) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(Err(cause)) => return Err(format!("failed to start nvidia-smi: {cause}")),
        Ok(Ok(output)) => output,
    };
    if !output.status.success() {
        // The program stays where a driver was taken out.
        tracing::warn!(status = %output.status, "nvidia-smi lists no GPUs; this worker offers none");
        return Ok(Vec::new());
    }
    indices(&String::from_utf8_lossy(&output.stdout))
}

/// The first column: `0, GPU-4f…, NVIDIA A100-SXM4-40GB, 40960 MiB`.
fn indices(listing: &str) -> Result<Vec<String>, String> {
    let lines = listing.lines().filter(|line| !line.trim().is_empty()).take(GPUS_MAX);
    lines
        .map(|line| {
            let index = line.split(',').next().unwrap_or_default().trim();
            match index.parse::<u32>() {
                Ok(_) => Ok(index.to_owned()),
                Err(_) => Err(format!("nvidia-smi printed `{line}`")),
            }
        })
        .collect()
}

/// What is there, and what is free of it; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Gpus {
    names: Arc<Vec<String>>,
    free: Arc<Mutex<BTreeSet<usize>>>,
    permits: Arc<Semaphore>,
}

/// The GPUs of one attempt, free again when dropped.
#[derive(Debug)]
pub(crate) struct TakenGpus {
    of: Gpus,
    places: Vec<usize>,
    /// Given back after the places are.
    _permits: Option<OwnedSemaphorePermit>,
}

impl Gpus {
    pub(crate) fn new(names: Vec<String>) -> Self {
        let free = Arc::new(Mutex::new((0..names.len()).collect()));
        let permits = Arc::new(Semaphore::new(names.len()));
        Self { names: Arc::new(names), free, permits }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.names.len()).unwrap_or(u32::MAX)
    }

    /// Takes so many; waits while attempts that are being ended still have them.
    ///
    /// # Errors
    /// There are not so many.
    pub(crate) async fn take(&self, count: u32) -> Result<TakenGpus, String> {
        if count > self.count() {
            return Err(format!("it needs gpus={count} and this worker offers {}", self.count()));
        }
        if count == 0 {
            return Ok(TakenGpus { of: self.clone(), places: Vec::new(), _permits: None });
        }
        let permits = Arc::clone(&self.permits).acquire_many_owned(count).await;
        let permits = permits.map_err(|_| "the worker is leaving".to_owned())?;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let places = (0..count).filter_map(|_| free.pop_first()).collect();
        drop(free);
        Ok(TakenGpus { of: self.clone(), places, _permits: Some(permits) })
    }
}

impl TakenGpus {
    /// Their names.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.places.iter().map(|&place| self.of.names[place].as_str()).collect()
    }

    /// Shows the attempt its GPUs and no others. A host that offers none hides none: nobody has said whose they are.
    pub(crate) fn show_in(&self, env: &mut BTreeMap<OsString, OsString>) {
        if self.of.names.is_empty() {
            return;
        }
        env.insert("CUDA_VISIBLE_DEVICES".into(), self.names().join(",").into());
        // The order in which nvidia-smi counts; CUDA's own puts the fastest first.
        env.insert("CUDA_DEVICE_ORDER".into(), "PCI_BUS_ID".into());
    }
}

impl Drop for TakenGpus {
    fn drop(&mut self) {
        self.of.free.lock().unwrap_or_else(PoisonError::into_inner).extend(self.places.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(taken: &TakenGpus) -> Option<String> {
        let mut env = BTreeMap::new();
        taken.show_in(&mut env);
        env.get(&OsString::from("CUDA_VISIBLE_DEVICES")).map(|text| text.to_string_lossy().into_owned())
    }

    #[test]
    fn gpus_are_said_by_number_or_by_name() {
        let named =
            |names: &[&str]| Ok(GpuChoice::Named(names.iter().map(|name| (*name).to_owned()).collect()));
        assert_eq!("2".parse(), Ok(GpuChoice::Count(2)));
        assert_eq!("0,3".parse(), named(&["0", "3"]));
        assert_eq!("3,".parse(), named(&["3"]));
        assert_eq!("GPU-4f2a,GPU-9b".parse(), named(&["GPU-4f2a", "GPU-9b"]));
        for wrong in ["", ",", "0,0", "1,,2", "2000", "-1", "a b"] {
            assert!(wrong.parse::<GpuChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_listing_is_read() {
        let listing =
            "0, GPU-4f, NVIDIA A100-SXM4-40GB, 40960 MiB\n1, GPU-9b, NVIDIA A100-SXM4-40GB, 40960 MiB\n";
        assert_eq!(indices(listing), Ok(vec!["0".to_owned(), "1".to_owned()]));
        assert!(indices("No devices were found\n").is_err());
    }

    #[tokio::test]
    async fn no_two_attempts_have_one_gpu() {
        let gpus = Gpus::new(vec!["4".to_owned(), "7".to_owned()]);
        let first = gpus.take(1).await.unwrap();
        let second = gpus.take(1).await.unwrap();
        assert_eq!((shown(&first).as_deref(), shown(&second).as_deref()), (Some("4"), Some("7")));
        assert_eq!(shown(&gpus.take(0).await.unwrap()).as_deref(), Some(""), "who asks for none sees none");
        let third = gpus.take(1);
        tokio::pin!(third);
        assert!(futures_now(third.as_mut()).is_none(), "none is free");
        drop(second);
        assert_eq!(shown(&third.await.unwrap()).as_deref(), Some("7"));
        let refused = gpus.take(3).await.unwrap_err();
        assert_eq!(refused, "it needs gpus=3 and this worker offers 2");
        assert_eq!(shown(&Gpus::new(Vec::new()).take(0).await.unwrap()), None);
    }

    fn futures_now<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}

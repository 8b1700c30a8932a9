//! What this host is: processors, memory, and its clocks. Asks the kernel alone; runs no program.

use std::time::{Duration, SystemTime};

use refit_workflows::time::Timestamp;

/// What the host has to offer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    /// Logical processors.
    pub(crate) cpus: u32,
    /// Bytes of memory; 0 when unknown.
    pub(crate) memory: u64,
}

/// Looks at the host.
pub(crate) fn look() -> Host {
    let cpus = std::thread::available_parallelism()
        .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX));
    let memory =
        std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_total(&text)).unwrap_or(0);
    Host { cpus, memory }
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Time since some fixed moment, never set back. On Linux it counts the time a suspended machine slept
/// (`CLOCK_BOOTTIME`): a lease runs out while a laptop's lid is closed.
pub(crate) fn steady_clock() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: nix::time::ClockId = nix::time::ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: nix::time::ClockId = nix::time::ClockId::CLOCK_MONOTONIC;
    nix::time::clock_gettime(CLOCK).map(Duration::from).unwrap_or_default()
}

/// The wall clock, for showing to people only.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// Differs after each boot; none where the kernel does not say.
pub(crate) fn boot_id() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory_total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16_777_216));
        assert_eq!(memory_total("nothing"), None);
    }

    #[test]
    fn the_steady_clock_moves_forward() {
        let before = steady_clock();
        std::thread::sleep(Duration::from_millis(5));
        assert!(steady_clock() > before);
    }
}

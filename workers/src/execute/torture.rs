//! Process trees that do what they can to outlive their step, beside a step that must not notice: with a cgroup each, and
//! without. `REFIT_TEST_SOAK=1` ends each of them a hundred times.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use refit_workflows::wire::{Failure, Instruction, Limits, Outcome, StepOrder};

use super::tests::Bench;
use crate::cgroup::Cgroups;
use crate::testing::{eventually, shell};
use crate::{leftovers, orphans};

/// Each is `sh` text. `$TOKEN` is a number that no other process has: whatever sleeps for so long belongs to the tree.
/// `count` processes sleep like that once the tree is grown.
struct Hostile {
    name: &'static str,
    count: usize,
    text: &'static str,
}

const HOSTILE: [Hostile; 8] = [
    Hostile {
        name: "a tree of forks",
        count: 14,
        text: "grow() { [ $1 -eq 0 ] || for branch in 1 2; do { sleep $TOKEN & grow $(($1 - 1)); wait; } & done; }
grow 3; wait",
    },
    Hostile {
        name: "sessions of their own",
        count: 3,
        text: "setsid sleep $TOKEN & setsid setsid sh -c \"sleep $TOKEN & sleep $TOKEN\" & wait",
    },
    Hostile {
        name: "daemons",
        count: 2,
        text: "(setsid sh -c \"sleep $TOKEN & sleep $TOKEN\" > /dev/null 2>&1 &); while :; do sleep 1; done",
    },
    Hostile {
        name: "deaf to TERM",
        count: 3,
        text: "trap '' TERM; sleep $TOKEN & setsid sleep $TOKEN & (setsid sleep $TOKEN &)
while :; do sleep 1; done",
    },
    Hostile {
        name: "stopped",
        count: 2,
        text: "(sleep $TOKEN & sleep $TOKEN & sleep 0.3; kill -STOP $!); kill -STOP $$",
    },
    Hostile {
        name: "two hundred children",
        count: 200,
        text: "n=0; while [ $n -lt 200 ]; do sleep $TOKEN & n=$((n + 1)); done; wait",
    },
    Hostile {
        name: "born again on TERM",
        count: 1,
        text: "trap 'setsid sh -c \"trap : TERM; while :; do sleep $TOKEN; done\" & setsid sleep $TOKEN &' TERM
sleep $TOKEN & while :; do wait; sleep 1; done",
    },
    Hostile {
        name: "never the same process twice",
        count: 1,
        // Not for ever: a test that is killed in the midst of it would leave it to the host.
        text: "hop='trap \"\" TERM; sleep 0.01; LEFT=$((LEFT - 1)); [ $LEFT -gt 0 ] || exit; sh -c \"$HOP\" & exit'
export HOP=\"$hop\" LEFT=10000; (setsid sh -c \"$HOP\" > /dev/null 2>&1 &); sleep $TOKEN",
    },
];

/// Throws away every sign but what it was born with: environment, folder, session, parent.
const FACELESS: Hostile = Hostile {
    name: "without a face",
    count: 1,
    text: "(cd / && exec env -i setsid sh -c \"sleep $TOKEN & exit\" > /dev/null 2>&1); while :; do sleep 1; done",
};

/// One of these tests at a time: where one makes no cgroups, another could not tell whose a process without a face is.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn rounds() -> usize {
    if std::env::var_os("REFIT_TEST_SOAK").is_some() { 100 } else { 1 }
}

/// The hostile tree's order and its token.
fn order_of(hostile: &Hostile) -> (StepOrder, String) {
    static TREES: AtomicU64 = AtomicU64::new(0);
    let tree = TREES.fetch_add(1, Ordering::Relaxed);
    let token = format!("{}{tree:05}", 10_000 + u64::from(std::process::id()) % 10_000);
    let mut order = shell(&format!("TOKEN={token}; export TOKEN\n{}", hostile.text));
    order.key.step = format!("{}-{tree}", hostile.name);
    (order, token)
}

/// The living that sleep for `token`, or whose environment or text has it.
fn living(token: &str) -> BTreeSet<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let has = |pid: &i32, file: &str| {
        let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        text.windows(token.len()).any(|part| part == token.as_bytes())
    };
    // A zombie has neither.
    pids.filter(|pid| has(pid, "cmdline") || has(pid, "environ")).collect()
}

fn sleeping(token: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    texts.filter(|text| *text == format!("sleep\0{token}\0")).count()
}

/// Runs a tree until it is grown, then ends it by a cancel or by its timeout.
async fn end(bench: &Bench, hostile: &Hostile, cancel: bool) -> String {
    let (mut order, token) = order_of(hostile);
    if !cancel {
        // The tree has time to grow; what it is waited for below shows that it had.
        order.timeout_ms = 8_000;
    }
    let grown = async {
        let begun = Instant::now();
        while sleeping(&token) < hostile.count {
            assert!(begun.elapsed() < Duration::from_secs(20), "never grown: {}", hostile.name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if cancel {
            let instruction = [Instruction::Cancel];
            bench.held.renewed(std::slice::from_ref(&order.key), &instruction, crate::host::steady_clock());
        }
    };
    let (outcome, ()) = tokio::join!(bench.run(&order), grown);
    match outcome {
        Some(Outcome::Cancelled) if cancel => {}
        Some(Outcome::Failed { failure: Failure::TimedOut, .. }) if !cancel => {}
        other => panic!("{}: {other:?}", hostile.name),
    }
    token
}

/// All of them at once, each ended both ways, beside a step with a daemon that lives on.
async fn torture(bench: Bench, face: bool) {
    let _alone = ALONE.lock().await;
    let bench = Arc::new(bench);
    let neighbour =
        Hostile { name: "neighbour", count: 2, text: "sleep $TOKEN & (setsid sleep $TOKEN &) ; wait" };
    let (mut order, spared) = order_of(&neighbour);
    order.timeout_ms = 3_600_000;
    let (running, key) = (bench.clone(), order.key.clone());
    let step = tokio::spawn(async move { running.run(&order).await });
    eventually("the neighbour is grown", || sleeping(&spared) == 2).await;
    for _ in 0..rounds() {
        let mut trees = tokio::task::JoinSet::new();
        for hostile in HOSTILE.iter().chain(face.then_some(&FACELESS)) {
            for cancel in [true, false] {
                let bench = bench.clone();
                trees.spawn(async move {
                    let token = end(&bench, hostile, cancel).await;
                    let left = living(&token);
                    assert!(left.is_empty(), "{}, cancelled: {cancel}: {left:?} are left", hostile.name);
                });
            }
        }
        while let Some(joined) = trees.join_next().await {
            joined.unwrap();
        }
        assert_eq!(sleeping(&spared), 2, "processes of another step were ended");
    }
    bench.held.renewed(&[key], &[Instruction::Cancel], crate::host::steady_clock());
    assert_eq!(step.await.unwrap(), Some(Outcome::Cancelled));
    assert_eq!(sleeping(&spared), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_trees_end_with_their_step_without_cgroups() {
    torture(Bench::without_cgroups().await, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_trees_end_with_their_step_in_cgroups() {
    let bench = Bench::new().await;
    if bench.tools.cgroups.are_made() {
        torture(bench, true).await;
    } else {
        not_possible("make cgroups", is_writable);
    }
}

/// Of a process that only its birth ties to a step the worker cannot say whose it is while several run; it ends with the last that
/// it can be of.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_any_sign_ends_when_no_other_step_can_own_it() {
    let _alone = ALONE.lock().await;
    let bench = Bench::without_cgroups().await;
    for _ in 0..rounds() {
        let token = end(&bench, &FACELESS, true).await;
        // Other tests run attempts in this process.
        eventually("it is ended", || {
            orphans::reap();
            living(&token).is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_orphans_is_reaped_while_it_runs() {
    let _alone = ALONE.lock().await;
    let bench = Bench::without_cgroups().await;
    let (mut order, _) = order_of(&Hostile { name: "sower", count: 0, text: "" });
    crate::testing::process(&mut order).command = refit_workflows::wire::OrderCommand::Shell(
        "for n in 1 2 3 4 5 6 7 8 9; do (setsid sh -c 'echo $$ >> pids' &); done; while [ ! -e stop ]; do sleep 0.05; done"
            .to_owned(),
    );
    let attempts = bench.attempts();
    let (outcome, ()) = tokio::join!(bench.run(&order), async {
        let pids = || -> Vec<String> {
            let folders = std::fs::read_dir(&attempts).unwrap().flatten();
            let lists =
                folders.filter_map(|folder| std::fs::read_to_string(folder.path().join("work/pids")).ok());
            lists.flat_map(|list| list.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
        };
        eventually("nine orphans were born", || pids().len() == 9).await;
        eventually("nine orphans are reaped", || {
            orphans::reap();
            pids().iter().all(|pid| !std::path::Path::new("/proc").join(pid).exists())
        })
        .await;
        for folder in std::fs::read_dir(&attempts).unwrap().flatten() {
            let work = folder.path().join("work");
            if work.join("pids").exists() {
                std::fs::write(work.join("stop"), "").unwrap();
            }
        }
    });
    assert!(matches!(outcome, Some(Outcome::Succeeded(_))), "{outcome:?}");
}

#[tokio::test]
async fn what_a_killed_worker_left_in_its_cgroups_ends_before_its_successor_works() {
    let data = tempfile::tempdir().unwrap();
    let (attempts, id) = (data.path().join("attempts"), uuid::Uuid::new_v4().to_string());
    std::fs::create_dir_all(attempts.join(&id)).unwrap();
    let killed = Cgroups::open(data.path());
    let Some(cgroup) = killed.make(&id, &Limits::default()) else {
        return not_possible("make cgroups", is_writable);
    };
    // Nothing but the cgroup tells whose it is.
    let mut process =
        std::process::Command::new("sleep").arg("300").env_clear().current_dir("/").spawn().unwrap();
    cgroup.enter(i32::try_from(process.id()).unwrap()).unwrap();
    // A killed worker removes nothing.
    std::mem::forget((killed, cgroup));
    let waited = tokio::task::spawn_blocking(move || process.wait().unwrap());
    let successor = Cgroups::open(data.path());
    leftovers::clear(&attempts, &successor, &BTreeSet::new()).await.unwrap();
    assert!(!waited.await.unwrap().success());
    assert!(successor.inherit(&id).is_none(), "its cgroup is left");
    assert_eq!(std::fs::read_dir(&attempts).unwrap().count(), 0);
}

#[tokio::test]
async fn a_step_that_uses_more_memory_than_it_asked_for_is_told_so() {
    let bench = Bench::new().await;
    if !bench.tools.cgroups.limit_memory() {
        return not_possible("limit memory", |mount| {
            let controllers = std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
            // In any other group the controllers cannot be handed down beside a process of somebody else.
            let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
            let is_topmost = own.ends_with("0::/\n") && !mount.join("cgroup.type").exists();
            is_writable(mount)
                && is_topmost
                && controllers.split_ascii_whitespace().any(|controller| controller == "memory")
        });
    }
    // `tail` keeps the whole line that it is fed.
    let mut order = shell("sleep 300 & head -c 100000000 /dev/zero | tail > /dev/null; sleep 300");
    order.limits = Limits { cpus: Some(0.5), memory: Some(64 << 20) };
    let (failure, reason) = bench.failure(&order).await;
    assert_eq!(failure, Failure::OutOfMemory, "{reason}");
    assert!(reason.contains("ran out of memory: `needs_host.memory` allows it 64 MiB"), "{reason}");
    order = shell("head -c 100000000 /dev/zero | tail > /dev/null");
    order.limits = Limits { cpus: None, memory: Some(1 << 30) };
    let outcome = bench.run(&order).await;
    assert!(matches!(outcome, Some(Outcome::Succeeded(_))), "{outcome:?}");
}

fn is_writable(folder: &std::path::Path) -> bool {
    nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).is_ok()
}

/// Says that this host does not let the test happen; fails where it should: for root with a cgroup2 that `could`.
fn not_possible(what: &str, could: impl Fn(&std::path::Path) -> bool) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let mut mounts = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let mount = mounts.find_map(|line| line.split(' ').nth(1)).map(std::path::Path::new);
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let should = is_root && mount.is_some_and(could);
    assert!(!should, "root on a host with a writable cgroup2 could not {what}");
    eprintln!("NOT TESTED: this user on this host may not {what} (cgroup2: {mount:?})");
}

//! Artifacts on their way from one host to another: with little memory however large they are, and over connections that
//! break, without sending again what has arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const MIB: u64 = 1024 * 1024;

/// `make` writes so many random bytes, `read` tells whether they are those.
fn handing_on(bytes: u64) -> String {
    let text = r#"
workflow: hand
steps:
  make:
    run: |
      head -c BYTES /dev/urandom > model
      sha256sum < model > SHARED/sum
      echo begun
      until [ -e SHARED/go ]; do sleep 0.1; done
    artifacts: { model: model }
  read:
    needs: [make]
    run: sha256sum < "$REFIT_INPUTS/model" | cmp - SHARED/sum
    inputs: { model: '${{ steps.make.artifacts.model }}' }
"#;
    text.replace("BYTES", &bytes.to_string())
}

/// The most memory that a process has had, in bytes; 0 when it has gone.
fn peak(pid: Option<u32>) -> u64 {
    let Some(pid) = pid else { return 0 };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Tells a worker to leave once it has finished what it has.
fn drain(worker: &Worker) {
    let pid = i32::try_from(worker.pid().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
}

async fn hand_on(database: Database, bytes: u64, patience: Duration) -> [(u64, u64); 3] {
    let options = Options { database_url: Some(database.url().to_owned()), ..Options::default() };
    let orchestrator = Orchestrator::start(options).await;
    let house = House { database, orchestrator, folder: tempfile::tempdir().unwrap() };
    let first = house.worker("first", 1);
    house.apply(&handing_on(bytes)).await;
    let api = house.api();
    let run = api.start_run("hand", json!({})).await;
    house.wait_log(&run, "make", "begun").await;
    let mut memory = [(0, 0); 3];
    let before = [peak(house.orchestrator.pid()), peak(first.pid())];
    drain(&first);
    house.go();
    let mut watch = async |step: &str, state: &str, second: Option<&Worker>| {
        eventually(&format!("{step} is {state}"), patience, async || {
            let pids = [house.orchestrator.pid(), first.pid(), second.and_then(Worker::pid)];
            for (most, pid) in memory.iter_mut().zip(pids) {
                most.1 = peak(pid).max(most.1);
            }
            let view = api.run(&run).await;
            assert!(!refit_tests::api::is_over(&view) || view["state"] == "succeeded", "{view}");
            (Api::step(&view, step)["state"] == state).then_some(())
        })
        .await;
    };
    watch("make", "succeeded", None).await;
    let second = house.worker("second", 1);
    let begun = eventually("the worker is there", PATIENCE, async || {
        let there = second.logs().contains("worker second");
        there.then(|| peak(second.pid()))
    })
    .await;
    watch("read", "succeeded", Some(&second)).await;
    let view = api.run(&run).await;
    let workers = ["make", "read"].map(|step| Api::step(&view, step)["worker"].clone());
    assert_eq!(workers, ["first", "second"]);
    for (most, before) in memory.iter_mut().zip([before[0], before[1], begun]) {
        most.0 = before;
    }
    println!("{} MiB: peaks of orchestrator and workers, before and after: {memory:?} bytes", bytes / MIB);
    memory
}

macro_rules! memory_does_not_grow_with_an_artifact {
    ($($database:ident: $open:expr;)*) => {$(
        mod $database {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn an_artifact_goes_through_without_being_held() {
                for (before, after) in hand_on($open, 64 * MIB, PATIENCE).await {
                    assert!(after - before < 48 * MIB, "from {before} to {after} bytes for an artifact of 64 MiB");
                }
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn two_gibibytes_go_through_with_150_megabytes() {
                if !refit_tests::soak() {
                    return;
                }
                for (_, after) in hand_on($open, 2048 * MIB, Duration::from_secs(1800)).await {
                    assert!(after < 150_000_000, "{after} bytes");
                }
            }
        }
    )*};
}
memory_does_not_grow_with_an_artifact! {
    sqlite: services::sqlite();
    postgres: services::postgres().await;
}

/// Stands between a worker and its orchestrator, counts, and breaks every connection once when so much has gone one way.
struct Proxy {
    address: String,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    up: AtomicU64,
    down: AtomicU64,
    cut_up: u64,
    cut_down: u64,
}

impl Proxy {
    async fn to(server: &str, cut_up: u64, cut_down: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let line = Arc::new(Line { cut_up, cut_down, ..Line::default() });
        let (shared, server) = (line.clone(), server.strip_prefix("http://").unwrap().to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // While the orchestrator is away, a connection ends at once.
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let line = shared.clone();
                tokio::spawn(async move {
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::select! {
                        () = pass(from_client, to_server, &line.up, line.cut_up) => {}
                        () = pass(from_server, to_client, &line.down, line.cut_down) => {}
                    }
                });
            }
        });
        Self { address, line }
    }

    fn gone(&self) -> (u64, u64) {
        (self.line.up.load(Ordering::Relaxed), self.line.down.load(Ordering::Relaxed))
    }
}

/// Until either side ends, or this way has carried `cut` bytes; that happens once.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    carried: &AtomicU64,
    cut: u64,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        let before = carried.fetch_add(count as u64, Ordering::Relaxed);
        if before < cut && before + count as u64 >= cut {
            return;
        }
    }
}

const SENT: u64 = 24 * MIB;
const CUT: u64 = 14 * MIB;
/// A piece may be under way, and there is talk besides.
const AGAIN: u64 = 6 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_before_a_connection_breaks_is_not_sent_again() {
    let house = House::start().await;
    let server = house.orchestrator.base_url();
    let (up, down) = (Proxy::to(server, CUT, 0).await, Proxy::to(server, 0, CUT).await);
    let first = Worker::start(&up.address, "first", 1);
    house.apply(&handing_on(SENT)).await;
    let api = house.api();
    let run = api.start_run("hand", json!({})).await;
    house.wait_log(&run, "make", "begun").await;
    drain(&first);
    house.go();
    eventually("it is handed over", PATIENCE, async || {
        (Api::step(&api.run(&run).await, "make")["state"] == "succeeded").then_some(())
    })
    .await;
    let (sent, _) = up.gone();
    assert!((SENT..SENT + AGAIN).contains(&sent), "{sent} bytes were sent for {SENT}");

    let _second = Worker::start(&down.address, "second", 1);
    api.wait_run(&run, "succeeded", PATIENCE).await;
    let (_, fetched) = down.gone();
    assert!((SENT..SENT + AGAIN).contains(&fetched), "{fetched} bytes were fetched for {SENT}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_its_orchestrator_was_killed() {
    let mut house = House::start().await;
    let up = Proxy::to(house.orchestrator.base_url(), CUT, 0).await;
    let _worker = Worker::start(&up.address, "w", 1);
    house.apply(&handing_on(SENT)).await;
    let run = house.api().start_run("hand", json!({})).await;
    house.wait_log(&run, "make", "begun").await;
    house.go();
    eventually("half of it is sent", PATIENCE, async || (up.gone().0 >= CUT).then_some(())).await;
    house.orchestrator.kill9();
    house.orchestrator.restart().await;
    house.api().wait_run(&run, "succeeded", PATIENCE).await;
    let (sent, _) = up.gone();
    assert!((SENT..SENT + AGAIN).contains(&sent), "{sent} bytes were sent for {SENT}");
}

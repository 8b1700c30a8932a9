//! A worker that is cut off: nothing goes through either way, and no connection is ended, as when a network parts. The long proof,
//! as root, takes the address away that the worker reaches; otherwise what goes between waits on the way. A step survives what is
//! shorter than the grace; beyond it no two attempts are at work at once, as the steps themselves saw it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;

/// Each attempt says in a file of its own when it was at work, and in its log how often.
const BEATS: &str = "
workflow: beats
steps:
  train:
    run: |
      TRAP
      echo begun
      until [ -e SHARED/go-$REFIT_ATTEMPT ]; do
        date +%s%N >> SHARED/beats-$REFIT_ATTEMPT
        echo beat
        sleep 0.05
      done
      echo by=$REFIT_ATTEMPT >> $REFIT_OUTPUTS
";

/// Between a worker and its orchestrator.
struct Network {
    address: String,
    parted: watch::Sender<bool>,
    own: Option<OwnAddress>,
}

/// An address of this host for one test. While it is taken away, packets for it go nowhere, and the system sends them again as it
/// does on a real network.
struct OwnAddress(String);

impl OwnAddress {
    /// For the long proof, where this user may change the host's addresses.
    fn when_soaking() -> Option<Self> {
        let may = own_user() == 0 && std::process::Command::new("ip").arg("address").output().is_ok();
        (refit_tests::soak() && may).then(Self::new)
    }

    fn new() -> Self {
        let number: [u8; 2] = rand::random();
        let address = Self(format!("10.213.{}.{}", number[0], number[1]));
        address.change("add");
        address
    }

    fn change(&self, action: &str) {
        let address = format!("{}/32", self.0);
        let done = std::process::Command::new("ip").args(["address", action, &address, "dev", "lo"]).status();
        assert!(done.unwrap().success(), "`ip address {action} {address} dev lo`");
    }
}

impl Drop for OwnAddress {
    fn drop(&mut self) {
        // A test that failed may have taken it away already.
        let address = format!("{}/32", self.0);
        let _ = std::process::Command::new("ip").args(["address", "del", &address, "dev", "lo"]).output();
    }
}

impl Network {
    async fn to(server: &str, own: Option<OwnAddress>) -> Self {
        let host = own.as_ref().map_or("127.0.0.1", |own| &own.0);
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (parted, _) = watch::channel(false);
        let (shared, server) = (parted.clone(), server.strip_prefix("http://").unwrap().to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut parted, server) = (shared.subscribe(), server.clone());
                tokio::spawn(async move {
                    if parted.wait_for(|parted| !parted).await.is_err() {
                        return;
                    }
                    let Ok(server) = TcpStream::connect(&server).await else { return };
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::select! {
                        () = pass(from_client, to_server, parted.clone()) => {}
                        () = pass(from_server, to_client, parted) => {}
                    }
                });
            }
        });
        Self { address, parted, own }
    }

    fn part(&self) {
        match &self.own {
            Some(own) => own.change("del"),
            None => drop(self.parted.send_replace(true)),
        }
    }

    fn heal(&self) {
        match &self.own {
            Some(own) => own.change("add"),
            None => drop(self.parted.send_replace(false)),
        }
    }
}

/// What comes while the network is parted arrives when it is whole again.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut parted: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if parted.wait_for(|parted| !parted).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// When an attempt was at work, in nanoseconds.
fn beats(house: &House, attempt: u32) -> Vec<u64> {
    let text = std::fs::read_to_string(house.file(&format!("beats-{attempt}"))).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn go(house: &House, attempt: u32) {
    std::fs::write(house.file(&format!("go-{attempt}")), "").unwrap();
}

async fn begin(grace: Duration, trap: &str) -> (House, Network, Worker, String) {
    let own = OwnAddress::when_soaking();
    let settings = own.as_ref().map(|own| format!("hosts: [\"{}\"]\n", own.0));
    let house = House::with(Options { grace: Some(grace), settings, ..Options::default() }).await;
    let network = Network::to(house.orchestrator.base_url(), own).await;
    let far = Worker::start_with(&network.address, "far", 1, &[("NO_PROXY", "*")]);
    house.apply(&BEATS.replace("TRAP", trap)).await;
    let run = house.api().start_run("beats", json!({})).await;
    house.wait_log(&run, "train", "begun").await;
    (house, network, far, run)
}

/// No step is lost, and no line of its log.
async fn within_the_grace(grace: Duration, parted_for: Duration) {
    let (house, network, _far, run) = begin(grace, ":").await;
    network.part();
    tokio::time::sleep(parted_for).await;
    network.heal();
    tokio::time::sleep(Duration::from_secs(1)).await;
    go(&house, 1);
    let api = house.api();
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(Api::step(&over, "train")["outputs"], json!({"by": "1"}));
    assert_eq!(house.epochs(&run).await, [1]);
    let beats = beats(&house, 1).len();
    let logged = api.log(&run, None).await.matches("beat\n").count();
    println!(
        "parted for {parted_for:?} of a grace of {grace:?}: {beats} beats, {logged} in the log, no attempt lost"
    );
    assert_eq!(logged, beats);
}

/// The step goes to another worker, and the first attempt has ended by then.
async fn beyond_the_grace(grace: Duration, trap: &str) {
    let (house, network, far, run) = begin(grace, trap).await;
    let _near = house.worker("near", 1);
    network.part();
    let api = house.api();
    let taken =
        api.wait_run_until(&run, PATIENCE + grace, |run| Api::step(run, "train")["attempt"] == 2).await;
    assert_eq!(Api::step(&taken, "train")["worker"], "near");
    eventually("the second attempt is at work", PATIENCE, async || {
        (beats(&house, 2).len() > 10).then_some(())
    })
    .await;
    network.heal();
    let (first, second) = (beats(&house, 1), beats(&house, 2));
    let between = second[0] as i64 - first[first.len() - 1] as i64;
    println!(
        "grace {grace:?}: the second attempt began {} ms after the first was last at work",
        between / 1_000_000
    );
    assert!(between > 0, "two attempts were at work at once for {} ns", -between);
    assert!(far.step_processes().is_empty());
    go(&house, 2);
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(Api::step(&over, "train")["outputs"], json!({"by": "2"}));
    eventually("the cut off worker has told what it had", PATIENCE, async || {
        let workers = api.get("/api/v1/workers").await.ok();
        workers.as_array().unwrap().iter().all(|worker| worker["state"] == "ready").then_some(())
    })
    .await;
    assert_eq!(api.run(&run).await, over, "a late worker changed the run");
    assert_eq!(beats(&house, 1), first, "the first attempt went on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_for_less_than_the_grace_loses_nothing() {
    within_the_grace(Duration::from_secs(10), Duration::from_secs(3)).await;
    if refit_tests::soak() {
        within_the_grace(Duration::from_secs(600), Duration::from_secs(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_for_longer_has_ended_its_step_before_another_begins_it() {
    if refit_tests::soak() {
        // Nothing but a KILL ends it.
        beyond_the_grace(Duration::from_secs(30), "trap '' TERM").await;
    } else {
        beyond_the_grace(Duration::from_secs(6), ":").await;
    }
}

/// The step ends while its worker is cut off, and the worker is killed before it could tell.
async fn killed_before_it_told(grace: Duration) -> (House, Network, Worker, String) {
    let (house, network, mut far, run) = begin(grace, ":").await;
    network.part();
    go(&house, 1);
    eventually("the outcome is on disk", PATIENCE, async || (untold(&far) == 1).then_some(())).await;
    far.kill9();
    (house, network, far, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_could_not_tell_its_successor_tells() {
    let (house, network, mut far, run) = killed_before_it_told(Duration::from_secs(600)).await;
    network.heal();
    far.restart();
    let over = house.api().wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(Api::step(&over, "train")["outputs"], json!({"by": "1"}));
    assert_eq!(house.epochs(&run).await, [1]);
    let logged = house.api().log(&run, None).await.matches("beat\n").count();
    assert_eq!(logged, beats(&house, 1).len(), "the end of the log");
    eventually("nothing is left", PATIENCE, async || attempts(&far).is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_could_not_tell_in_time_changes_nothing() {
    let (house, network, mut far, run) = killed_before_it_told(Duration::from_secs(3)).await;
    let mut near = house.worker("near", 1);
    go(&house, 2);
    let api = house.api();
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(Api::step(&over, "train")["outputs"], json!({"by": "2"}));
    network.heal();
    far.restart();
    eventually("nothing is left", PATIENCE, async || attempts(&far).is_empty().then_some(())).await;
    // By the rest of the log, or by the outcome where nothing of the log was left.
    let words = ["nothing more is told of it", "the outcome came too late"];
    assert!(words.iter().any(|words| far.logs().contains(words)), "{}", far.logs());
    assert_eq!(api.run(&run).await, over, "a late outcome changed the run");
    assert!(near.terminate().success());
}

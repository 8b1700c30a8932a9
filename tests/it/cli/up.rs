//! `refit up`: a folder is up with one command, ends when told to, and leaves nothing running.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use refit_tests::api::Api;
use refit_tests::processes::{Process, free_port, processes_in};
use serde_json::json;

use super::{BROKEN, Desk, WAIT, holds};

/// `refit up` of this folder, ready.
pub(super) async fn up(folder: &Path, data: &Path) -> (Process, String) {
    let listen = format!("127.0.0.1:{}", free_port());
    let arguments = [
        "up",
        folder.to_str().unwrap(),
        "--listen",
        &listen,
        "--data",
        data.to_str().unwrap(),
        "--slots",
        "2",
    ];
    let up = Process::start(arguments.map(str::to_owned).into(), Vec::new());
    let server = format!("http://{listen}");
    said(&up, "Ctrl-C ends it").await;
    (up, server)
}

async fn said(process: &Process, words: &str) {
    refit_tests::eventually(words, WAIT, async || process.logs().contains(words).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn up_brings_a_folder_up_and_finishes_what_runs_when_told_to_end() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let desk = Desk::new();
        // Inside the workflow's folder: what is written there must not become part of its code.
        let (data, mark) = (desk.folder.path().join("w/data"), desk.folder.path().join("mark"));
        let text = format!(
            "workflow: slow\nsteps:\n  work: {{ run: 'echo begun; sleep 2; touch {}' }}\n",
            mark.display()
        );
        desk.write("w/slow.yaml", &text);
        let (mut up, server) = up(&desk.folder.path().join("w"), &data).await;
        holds(&up.logs(), &[&server, "slow", "refit run start slow"]);
        let api = Api::new(&server);
        let run = api.start_run("slow", json!({})).await;
        refit_tests::eventually("the step runs", WAIT, async || {
            (api.log(&run, None).await == "begun\n").then_some(())
        })
        .await;
        let ended = up.end_with(signal);
        assert_eq!(ended.code(), Some(0), "{signal}: {}", up.logs());
        assert!(mark.exists(), "{signal}: the step was not allowed to finish:\n{}", up.logs());
        assert_eq!(processes_in(&data), Vec::<u32>::new(), "{signal}: something was left running");
        assert!(api.try_get("/healthz").await.is_err());

        up.restart();
        api_ready(&api).await;
        assert_eq!(api.run(&run).await["state"], "succeeded", "{signal}: what the step came to was lost");
        up.end_with(signal);
    }
}

async fn api_ready(api: &Api) {
    let ready = async || api.try_get("/readyz").await.is_ok_and(|reply| reply.status == 200).then_some(());
    refit_tests::eventually("it is ready", WAIT, ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_up_at_once_with_all_that_runs() {
    let desk = Desk::new();
    let data = desk.folder.path().join("data");
    desk.write(
        "w/long.yaml",
        "workflow: long\nsteps:\n  work: { run: 'echo begun; sleep 600 & sleep 600' }\n",
    );
    let (mut up, server) = up(&desk.folder.path().join("w"), &data).await;
    let api = Api::new(&server);
    let run = api.start_run("long", json!({})).await;
    refit_tests::eventually("the step runs", WAIT, async || {
        (api.log(&run, None).await == "begun\n").then_some(())
    })
    .await;
    let begun = Instant::now();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(up.pid().unwrap()).unwrap());
    nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
    said(&up, "Ctrl-C again").await;
    let ended = up.end_with(Signal::SIGINT);
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    assert_eq!(ended.code(), Some(0), "{}", up.logs());
    assert_eq!(processes_in(&data), Vec::<u32>::new(), "something was left running");
}

#[tokio::test(flavor = "multi_thread")]
async fn up_of_a_broken_folder_says_what_is_wrong_and_ends() {
    let desk = Desk::new();
    desk.write("w/broken.yaml", BROKEN[0].0);
    let said = desk.ends(3, &["up", "w", "--listen", "127.0.0.1:0"]);
    holds(&said.err, &["broken.yaml:5:5", "did you mean `needs`?"]);
    let nothing = desk.refit(&["up", "gone", "--listen", "127.0.0.1:0"]);
    assert!(nothing.code.is_some_and(|code| code != 0), "{nothing:?}");
    holds(&nothing.err, &["gone"]);
}

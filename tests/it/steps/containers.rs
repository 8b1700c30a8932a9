//! Steps in containers: they find what every step finds, and nothing of them is left, however they end. The image is made of this
//! host's own programs, for no registry is asked. `tests/run --soak` installs podman for it.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::*;

/// What the image holds.
const PROGRAMS: [&str; 8] = ["sh", "sleep", "cat", "id", "mkdir", "touch", "setsid", "env"];

/// What this host runs containers with, as the worker chooses it.
fn runtime() -> &'static str {
    static RUNTIME: OnceLock<&str> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap();
        let there = |name: &&str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
        ["podman", "docker"]
            .into_iter()
            .find(there)
            .expect("podman or docker (`tests/run --soak` installs podman)")
    })
}

/// The image in the runtime's storage, where it stays.
fn image() -> &'static str {
    const NAME: &str = "localhost/refit-test:1";
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"
            set -eu
            if "$RUNTIME" image inspect "$NAME" > /dev/null 2>&1; then exit; fi
            for folder in bin tmp; do mkdir -p "$ROOT/$folder"; done
            for program in "$@"; do
                file=$(readlink -f "$(command -v "$program")")
                cp "$file" "$ROOT/bin/$program"
                for library in $(ldd "$file" | grep -o '/[^ )]*'); do
                    mkdir -p "$ROOT$(dirname "$library")"
                    cp -L "$library" "$ROOT$library"
                done
            done
            tar -C "$ROOT" -c . | "$RUNTIME" import --change 'ENV SAYS="the image"' --change 'ENV PATH=/bin' - "$NAME"
        "#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args(PROGRAMS).env("ROOT", folder.path()).env("NAME", NAME).env("RUNTIME", runtime());
        let said = command.stdin(Stdio::null()).output().unwrap();
        let why = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "failed to make an image: {why}");
    });
    NAME
}

/// The containers of the image, also those that have ended.
fn containers() -> Vec<String> {
    let arguments = ["ps", "--all", "--filter", &format!("ancestor={}", image()), "--format", "{{.Names}}"];
    let said = Command::new(runtime()).args(arguments).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect()
}

/// The tests look at all containers of the image.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const CONTRACT: &str = r#"
workflow: boxed
params: { region: { type: string, default: eu } }
steps:
  make:
    container: IMAGE
    env: { LINES: "one\ntwo" }
    secrets: [KEY]
    run: |
      echo "$SAYS in $PWD as $(id -u)"
      [ "$PWD" = "${REFIT_OUTPUTS%/refit/outputs}/work" ]
      [ "$PARAM_REGION" = eu ] && [ "$LINES" = "one
      two" ] && [ "$KEY" = "first
      second" ] && [ "${CARGO-none}" = none ]
      cat code.txt "$REFIT_PARAMS"
      touch "$HOME/a" "$TMPDIR/b"
      echo wrong >&2
      echo '{"name": "auc", "value": 0.5}' >> "$REFIT_METRICS"
      echo uid=$(id -u) >> "$REFIT_OUTPUTS"
      mkdir out && echo model > out/model
    artifacts: { model: out/model }
  use:
    needs: [make]
    container: IMAGE
    inputs: { model: "${{ steps.make.artifacts.model }}" }
    run: |
      cat "$REFIT_INPUTS/model"
      if echo more >> "$REFIT_INPUTS/model"; then exit 4; fi
      exit 7
  missing: { container: IMAGE, run: [no-such-program] }
  absent: { container: "localhost:1/no-such-image:1", run: [sh] }
  hungry:
    container: IMAGE
    needs_host: { memory: 32MiB }
    run: x=0123456789abcdef; while :; do x=$x$x; done
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs podman or docker: tests/run --soak"]
async fn a_step_in_a_container_finds_what_every_step_finds() {
    let _alone = ALONE.lock().await;
    let house = House::with(Options {
        env: vec![("REFIT_SECRET_KEY".to_owned(), "first\nsecond".to_owned())],
        settings: Some("secrets: { env: REFIT_SECRET_ }\n".to_owned()),
        ..Options::default()
    })
    .await;
    let _worker = Worker::start_with(house.orchestrator.base_url(), "w", 2, &[("CARGO", "the worker's own")]);
    let api = house.api();
    api.apply_with_files(&CONTRACT.replace("IMAGE", image()), &[("code.txt", "the code\n")]).await;
    let run = api.start_run("boxed", json!({})).await;
    let over = api.wait_run(&run, "failed", PATIENCE).await;
    let make = Api::step(&over, "make");
    assert_eq!(make["state"], "succeeded", "{}\n{}", make["reason"], api.log(&run, Some("make")).await);
    let own = own_user().to_string();
    assert_eq!((&make["outputs"]["uid"], &make["metrics"]["auc"]), (&json!(own), &json!(0.5)));
    assert_eq!(make["artifacts"]["model"]["bytes"], 6);
    let log = api.log(&run, Some("make")).await;
    let told = [
        "the image in /",
        "the code\n",
        "{\"region\":\"eu\"}",
        "wrong\n",
        &format!("runs in a container of {}", image()),
    ];
    assert!(told.iter().all(|text| log.contains(text)), "{log}");
    let used = Api::step(&over, "use");
    assert!(used["reason"].as_str().unwrap().starts_with("exit code 7"), "{used}");
    assert!(api.log(&run, Some("use")).await.starts_with("[refit]"), "{used}");
    let missing = Api::step(&over, "missing")["reason"].as_str().unwrap().to_owned();
    assert!(missing.contains("no-such-program"), "{missing}");
    let absent = Api::step(&over, "absent")["reason"].as_str().unwrap().to_owned();
    let pull = format!("failed to pull the image `localhost:1/no-such-image:1` with {}: ", runtime());
    assert!(absent.starts_with(&pull), "{absent}");
    let hungry = Api::step(&over, "hungry")["reason"].as_str().unwrap().to_owned();
    assert!(hungry.starts_with("exit code 137"), "{hungry}");
    assert_eq!(containers(), Vec::<String>::new());
}

const STUBBORN: &str = r#"
workflow: stubborn
steps:
  a:
    container: IMAGE
    run: |
      echo attempt $REFIT_ATTEMPT
      [ $REFIT_ATTEMPT = 1 ] || exit 0
      trap '' TERM
      setsid sh -c 'trap "" TERM; sleep MARK; sleep MARK' &
      sleep MARK; sleep MARK
"#;

fn stubborn(marker: &str) -> String {
    STUBBORN.replace("IMAGE", image()).replace("MARK", marker)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs podman or docker: tests/run --soak"]
async fn nothing_of_a_container_outlives_a_cancel_a_timeout_or_the_successor_of_a_killed_worker() {
    let _alone = ALONE.lock().await;
    let house = House::with_grace(Duration::from_secs(30)).await;
    let mut worker = house.worker("w", 2);
    let marker = marker();
    house.apply(&stubborn(&marker)).await;
    let api = house.api();
    let grown = async || {
        eventually("the step runs", PATIENCE, async || {
            (processes_with(&format!("sleep {marker}")).len() >= 2).then_some(())
        })
        .await;
    };
    let run = api.start_run("stubborn", json!({})).await;
    grown().await;
    assert_eq!(containers().len(), 1);
    exit(&house.refit(&["run", "cancel", &run]).await, 0);
    api.wait_run(&run, "cancelled", PATIENCE).await;
    assert_eq!((processes_with(&marker), containers()), (Vec::new(), Vec::new()));

    house.apply(&stubborn(&marker).replace("    run:", "    timeout: 3s\n    run:")).await;
    let run = api.start_run("stubborn", json!({})).await;
    let over = api.wait_run(&run, "failed", PATIENCE).await;
    let reason = Api::step(&over, "a")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("timeout of 3.0s"), "{reason}");
    assert_eq!((processes_with(&marker), containers()), (Vec::new(), Vec::new()));

    house.apply(&stubborn(&marker)).await;
    let run = api.start_run("stubborn", json!({})).await;
    grown().await;
    worker.kill9();
    assert!(!processes_with(&marker).is_empty(), "the container died with its worker: nothing is shown here");
    worker.restart();
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(Api::step(&over, "a")["attempt"], 2);
    assert_eq!((processes_with(&marker), containers()), (Vec::new(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_runs_no_containers_says_so() {
    let house = House::start().await;
    let empty = house.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let path = empty.display().to_string();
    let _worker = Worker::start_with(
        house.orchestrator.base_url(),
        "w",
        1,
        &[("PATH", &path), ("DOCKER_HOST", "unix:///nonexistent")],
    );
    house.apply("workflow: boxed\nsteps: { a: { run: [x], container: 'python:3' } }\n").await;
    let api = house.api();
    let failed = async || {
        let run = api.start_run("boxed", json!({})).await;
        let over = api.wait_run(&run, "failed", PATIENCE).await;
        Api::step(&over, "a")["reason"].as_str().unwrap().to_owned()
    };
    let reason = failed().await;
    assert!(reason.contains("neither podman nor docker"), "{reason}");
    // A client without its daemon, where there is one.
    let docker = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    if let Some(docker) = docker.map(|folder| folder.join("docker")).find(|file| file.is_file()) {
        std::os::unix::fs::symlink(docker, empty.join("docker")).unwrap();
        let reason = failed().await;
        assert!(
            reason.contains("docker cannot be used on this host: ") && reason.contains("daemon"),
            "{reason}"
        );
    }
}

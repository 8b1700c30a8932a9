//! Attempts as they really run: shells, Pythons, process trees, against an orchestrator over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use refit_workflows::definition::{Packages, Python};
use refit_workflows::wire::{
    ArtifactKind, ArtifactRef, Failure, Handed, Instruction, LogChunk, LogStream, OrderCommand, Outcome,
    SecretValue, StepOrder,
};
use serde_json::{Value, json};

use super::{Came, Ended, Holder, Tools, Untold, execute, uncollected};
use crate::cgroup::Cgroups;
use crate::held::{Ending, EndingSignal, Held};
use crate::testing::{TestOrchestrator, eventually, process, shell};

pub(super) struct Bench {
    pub(super) server: TestOrchestrator,
    data: tempfile::TempDir,
    pub(super) tools: Tools,
    pub(super) held: Arc<Held>,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let server = TestOrchestrator::start().await;
        let data = tempfile::tempdir().unwrap();
        let tools = server.tools(&data.path().canonicalize().unwrap());
        Self { server, data, tools, held: Arc::default() }
    }

    /// Without cgroups, as a worker that may make none.
    pub(super) async fn without_cgroups() -> Self {
        let mut bench = Self::new().await;
        bench.tools.cgroups = Cgroups::none();
        bench
    }

    pub(super) fn attempts(&self) -> std::path::PathBuf {
        self.data.path().join("attempts")
    }

    pub(super) async fn run(&self, order: &StepOrder) -> Option<Outcome> {
        let (_holding, mut ending) = self.held.take(&order.key, crate::host::steady_clock()).unwrap();
        let ended = self.ended(order, ending.clone()).await?;
        let holder = Holder { worker: "gpu-1".to_owned(), session: "s".to_owned() };
        let untold = Untold::keep(order.key.clone(), ended, holder).await;
        let finish = untold.deliver(&self.tools, &mut ending).await;
        untold.settled();
        finish.map(|finish| finish.outcome)
    }

    async fn ended(&self, order: &StepOrder, ending: EndingSignal) -> Option<Ended> {
        execute(&self.tools, order, &self.held, ending).await
    }

    async fn outputs(&self, order: &StepOrder) -> BTreeMap<String, Value> {
        match self.run(order).await {
            Some(Outcome::Succeeded(Handed { outputs, .. })) => outputs,
            other => panic!("{other:?}\n{}", self.server.log()),
        }
    }

    pub(super) async fn failure(&self, order: &StepOrder) -> (Failure, String) {
        match self.run(order).await {
            Some(Outcome::Failed { failure, reason }) => (failure, reason),
            other => panic!("{other:?}\n{}", self.server.log()),
        }
    }
}

#[tokio::test]
async fn exit_codes_and_signals_become_outcomes() {
    let bench = Bench::new().await;
    for (text, failure, reason) in [
        ("echo; echo 'ValueError: no' >&2; exit 3", Failure::Exit { code: 3 }, "exit code 3: ValueError: no"),
        ("exit 75", Failure::RetryAsked, "exit code 75 (please try again)"),
        ("kill -9 $$", Failure::Signal { signal: 9 }, "ended by signal 9 (SIGKILL)"),
        ("false; echo not reached", Failure::Exit { code: 1 }, "exit code 1"),
    ] {
        assert_eq!(bench.failure(&shell(text)).await, (failure, reason.to_owned()), "{text}");
    }
    let nothing = Outcome::Succeeded(Handed::default());
    bench.server.seen().calls.clear();
    assert_eq!(bench.run(&shell("true")).await, Some(nothing));
    assert!(
        bench.server.seen().calls.is_empty(),
        "a silent step cost calls: {:?}",
        bench.server.seen().calls
    );
}

#[tokio::test]
async fn a_step_sees_the_contract_and_nothing_else() {
    let bench = Bench::new().await;
    let mut order = shell("env >> $REFIT_OUTPUTS");
    order.params =
        json!({"region": "eu west", "top-k": 3, "deep": {"a": [true, null]}}).as_object().unwrap().clone();
    process(&mut order).env = BTreeMap::from([
        ("DEPTH".to_owned(), "a $b 'c'".to_owned()),
        ("REFIT_RUN".to_owned(), "x".to_owned()),
    ]);
    let seen = bench.outputs(&order).await;
    let expected = [
        ("REFIT_RUN", "churn/12"),
        ("REFIT_STEP", "train"),
        ("REFIT_ATTEMPT", "1"),
        ("PARAM_REGION", "eu west"),
        ("PARAM_TOP_K", "3"),
        ("PARAM_DEEP", "{\"a\":[true,null]}"),
        ("DEPTH", "a $b 'c'"),
        ("LANG", "C.UTF-8"),
    ];
    for (name, value) in expected {
        assert_eq!(seen[name], Value::from(value), "{name}");
    }
    let allowed = [
        "PATH",
        "HOME",
        "TMPDIR",
        "REFIT_PARAMS",
        "REFIT_EVENTS",
        "REFIT_INPUTS",
        "REFIT_OUTPUTS",
        "REFIT_METRICS",
        "REFIT_ATTEMPT_ID", // set by the shell itself:
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
    ];
    for name in seen.keys() {
        let known = expected.iter().any(|(expected, _)| expected == name) || allowed.contains(&name.as_str());
        assert!(known, "the step saw {name}={}", seen[name]);
    }
}

#[tokio::test]
async fn files_of_the_contract_hold_what_they_should() {
    let bench = Bench::new().await;
    bench.server.seen().events = "{\"id\":\"1\"}\n{\"id\":\"2\"}\n".to_owned();
    let bundle =
        bench.server.store_tree(&[("run.sh", "#!/bin/sh\n. lib/part\n", true), ("lib/part", PART, false)]);
    let model = bench.server.store(b"weights");
    let folder = bench.server.store_tree(&[("deep/a", "A", false)]);
    let mut order = shell("");
    process(&mut order).command = OrderCommand::Arguments(vec!["./run.sh".to_owned()]);
    order.bundle = Some(bundle);
    order.events = 2;
    order.params = json!({"a": 1}).as_object().unwrap().clone();
    let file = ArtifactRef { digest: model, bytes: 7, kind: ArtifactKind::File };
    let tree = ArtifactRef { digest: folder, bytes: 1, kind: ArtifactKind::Folder };
    order.inputs = BTreeMap::from([("candidate".to_owned(), file.clone()), ("data".to_owned(), tree)]);
    order.champion = Some(BTreeMap::from([("model".to_owned(), file)]));
    let seen = bench.outputs(&order).await;
    assert_eq!(seen["params"], "{\"a\":1}");
    assert_eq!(seen["events"], "2");
    assert_eq!(seen["candidate"], "weights");
    assert_eq!(seen["deep"], "A");
    assert_eq!(seen["champion"], "weights");
    assert_eq!(seen["inputs_mode"], "444");
    assert_eq!(seen["beside"], "lib run.sh ");

    // A second attempt fetches nothing, and finds the code unspoiled by the first.
    let before = bench.server.seen().downloads;
    assert_eq!(bench.outputs(&order).await["beside"], "lib run.sh ");
    assert_eq!(bench.server.seen().downloads, before);
}

const PART: &str = r#"
{ echo "params=$(cat $REFIT_PARAMS)"
  echo "events=$(grep -c id $REFIT_EVENTS)"
  echo "candidate=$(cat $REFIT_INPUTS/candidate)"
  echo "deep=$(cat $REFIT_INPUTS/data/deep/a)"
  echo "champion=$(cat $REFIT_CHAMPION/model)"
  echo "inputs_mode=$(stat -c %a $REFIT_INPUTS/candidate)"
  echo "beside=$(ls | tr '\n' ' ')"
} >> $REFIT_OUTPUTS
echo spoiled > lib/part
"#;

#[tokio::test]
async fn artifacts_outputs_and_metrics_are_handed_over() {
    let bench = Bench::new().await;
    let mut order = shell(
        "mkdir -p out/sub; printf weights > out/model; printf x > out/sub/x; echo rows=3 >> $REFIT_OUTPUTS; \
         echo '{\"name\": \"auc\", \"value\": 0.75}' >> $REFIT_METRICS",
    );
    order.artifacts =
        BTreeMap::from([("model".to_owned(), "out/model".to_owned()), ("all".to_owned(), "out".to_owned())]);
    let Some(Outcome::Succeeded(Handed { outputs, metrics, artifacts, .. })) = bench.run(&order).await else {
        panic!("{}", bench.server.log())
    };
    assert_eq!(outputs["rows"], "3");
    assert_eq!(metrics["auc"], 0.75);
    assert_eq!(artifacts["all"].kind, ArtifactKind::Folder);
    for artifact in artifacts.values() {
        assert!(bench.server.seen().blobs.contains_key(&artifact.digest));
    }
    assert!(bench.server.seen().blobs.values().any(|blob| blob == b"weights"));

    // The next step on this host finds them in the cache.
    let mut next = shell("cmp $REFIT_INPUTS/all/model $REFIT_INPUTS/model");
    next.inputs = artifacts;
    assert!(bench.outputs(&next).await.is_empty());
    assert_eq!(bench.server.seen().downloads, 0);
}

#[tokio::test]
async fn bad_results_are_refused_with_a_reason() {
    let bench = Bench::new().await;
    for (text, reason) in [
        ("echo 'no value' >> $REFIT_OUTPUTS", "line 1 of REFIT_OUTPUTS"),
        ("echo '{\"name\": \"auc\", \"value\": NaN}' >> $REFIT_METRICS", "NaN"),
        ("ln -s /etc/passwd model", "leaves the working directory"),
        ("true", "did not write `model`"),
        ("mkfifo $REFIT_OUTPUTS", "no regular file"),
    ] {
        refused(&bench, text, reason).await;
    }
}

/// The step's outcome says `reason`, on one line and without anything that a terminal would obey.
async fn refused(bench: &Bench, text: &str, reason: &str) {
    let mut order = shell(text);
    order.artifacts = BTreeMap::from([("model".to_owned(), "model".to_owned())]);
    let (failure, why) = bench.failure(&order).await;
    assert_eq!(failure, Failure::InvalidOutput, "{text}: {why}");
    assert!(why.contains(reason), "{text}: {why}");
    assert!(!why.contains(char::is_control), "{text}: {why:?}");
}

#[tokio::test]
async fn hostile_results_are_refused_and_nothing_else_is_touched() {
    let bench = Bench::new().await;
    let outside = tempfile::tempdir().unwrap();
    let kept = outside.path().join("kept");
    std::fs::write(&kept, "kept").unwrap();
    std::fs::create_dir(outside.path().join("folder")).unwrap();
    let place = outside.path().display();
    for (text, reason) in [
        ("mkdir model; ln -s OUTSIDE/kept model/a", "`a` is a link that leaves the working directory"),
        ("ln -s OUTSIDE/folder model", "`model` is a link that leaves the working directory"),
        ("mkdir -p model/a; ln -s ../../../refit model/a/b", "`a/b` is a link that leaves"),
        ("mkdir model; ln -s . model/a", "is a link to a folder that holds it"),
        ("mkdir model; mkfifo model/a", "`a` is neither a file nor a folder"),
        ("mkfifo model", "`model` is neither a file nor a folder"),
        (SOCKET, "`model` is neither a file nor a folder"),
        ("ln -s /dev/zero model", "leaves the working directory"),
        ("mkdir model; touch \"$(printf 'model/a\\nb')\"", "`a\\nb`"),
        ("mkdir model; touch \"$(printf 'model/\\033[2Jb')\"", "`\\u{1b}[2Jb`"),
        ("mkdir model; touch \"$(printf 'model/\\377\\033b')\"", "is not UTF-8"),
        ("touch model; printf 'a\\033[2J=1\\n' > $REFIT_OUTPUTS", "`a\\u{1b}[2J` is not a name"),
        ("touch model; printf '\\377=1\\n' > $REFIT_OUTPUTS", "REFIT_OUTPUTS is not UTF-8"),
        ("touch model; ln -s OUTSIDE/kept $REFIT_OUTPUTS", "no regular file"),
        ("touch model; mkdir $REFIT_OUTPUTS", "no regular file"),
        ("touch model; ln -s /dev/zero $REFIT_OUTPUTS", "no regular file"),
        (
            "touch model; truncate -s 1G $REFIT_OUTPUTS",
            "holds 1073741824 bytes, more than the 1048576 allowed",
        ),
        (
            "touch model; truncate -s 1G $REFIT_METRICS",
            "holds 1073741824 bytes, more than the 16777216 allowed",
        ),
        ("touch model; ln -s OUTSIDE/kept $REFIT_METRICS", "no regular file"),
        ("touch model; mkfifo $REFIT_METRICS; sleep 1", "no regular file"),
        ("touch model; echo '{\"name\": \"auc\", \"value\": 1e999}' > $REFIT_METRICS", "finite"),
        ("touch model; echo '{\"name\": \"auc\", \"value\": -Infinity}' > $REFIT_METRICS", "finite"),
        ("touch model; echo '{\"name\": \"a/../b\", \"value\": 1}' > $REFIT_METRICS", "is not a name"),
        (DEEP, "REFIT_OUTPUTS: not a JSON object"),
    ] {
        refused(&bench, &text.replace("OUTSIDE", &place.to_string()), reason).await;
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "kept");
        assert!(bench.server.seen().blobs.is_empty(), "{text}: something was handed over");
    }
    // Paths that the orchestrator's check would have refused.
    for path in ["../model", "/etc/passwd", "a/../../model", "a\nb"] {
        let mut order = shell("true");
        order.artifacts = BTreeMap::from([("model".to_owned(), path.to_owned())]);
        let (failure, why) = bench.failure(&order).await;
        assert_eq!(failure, Failure::InvalidOutput, "{path}: {why}");
        assert!(why.contains("must ") && !why.contains(char::is_control), "{path}: {why:?}");
    }
}

const SOCKET: &str = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"model\")'";
const DEEP: &str = "touch model
python3 -c 'print(\"{\\\"a\\\": \" + \"[\" * 100000 + \"]\" * 100000 + \"}\")' > $REFIT_OUTPUTS";

#[tokio::test]
async fn what_cannot_start_says_why() {
    let bench = Bench::new().await;
    let bundle = bench.server.store_tree(&[
        ("plain.sh", "echo\n", false),
        ("lost.sh", "#!/no/such/interpreter\n", true),
        ("raw", "nothing\n", true),
    ]);
    for (word, reason) in [
        ("no-such-program", "no program `no-such-program`"),
        ("plain.sh", "write `./plain.sh`"),
        ("./plain.sh", "chmod +x ./plain.sh"),
        ("./missing", "there is no `./missing`"),
        ("./lost.sh", "interpreter"),
        ("./raw", "begins with `#!`"),
        ("nul\0", "NUL"),
    ] {
        let mut order = shell("");
        order.bundle = Some(bundle.clone());
        process(&mut order).command = OrderCommand::Arguments(vec![word.to_owned(), word.to_owned()]);
        let (failure, why) = bench.failure(&order).await;
        assert_eq!(failure, Failure::CouldNotStart, "{word}");
        assert!(why.contains(reason), "{word}: {why}");
    }
    let mut order = shell("true");
    order.bundle = Some(refit_workflows::digest::Digest::of(b"never stored"));
    let (failure, why) = bench.failure(&order).await;
    assert_eq!(failure, Failure::CouldNotStart);
    assert!(why.contains("failed to lay out the workflow's code"), "{why}");
}

#[tokio::test]
async fn both_streams_make_one_log_each_in_its_order() {
    let bench = Bench::new().await;
    let text =
        "i=0; while [ $i -lt 300 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; printf 'no end'";
    assert!(bench.outputs(&shell(text)).await.is_empty());
    let of = |stream: LogStream| -> String {
        let seen = bench.server.seen();
        let chunks = seen.reports.iter().flat_map(|report| &report.logs);
        let pieces = chunks.flat_map(|chunk| LogChunk::pieces(&chunk.text, &chunk.marks));
        pieces.filter(|(of, _)| *of == stream).map(|(_, text)| text).collect()
    };
    let expected = |word: &str| (0..300).map(|i| format!("{word} {i}\n")).collect::<String>();
    assert_eq!(of(LogStream::Stdout), expected("out") + "no end\n");
    assert_eq!(of(LogStream::Stderr), expected("err"));
}

#[tokio::test]
async fn logs_and_metrics_arrive_while_the_step_runs() {
    let bench = Arc::new(Bench::new().await);
    let running = bench.clone();
    let step = tokio::spawn(async move {
        let text = "echo begun; echo '{\"name\":\"loss\",\"value\":2}' >> $REFIT_METRICS; sleep 60";
        running.run(&shell(text)).await
    });
    eventually("a live report", || {
        let seen = bench.server.seen();
        let metrics = seen.reports.iter().any(|report| report.metrics.get("loss") == Some(&2.0));
        metrics && seen.reports.iter().flat_map(|report| &report.logs).any(|chunk| chunk.text == "begun\n")
    })
    .await;
    bench.held.end_all(Ending::Cancel);
    assert_eq!(step.await.unwrap(), Some(Outcome::Cancelled));
}

/// A tree that ignores TERM, with a grandchild in a session of its own and one that threw its environment away.
const STUBBORN: &str = "trap '' TERM
echo $$ > pids
setsid sh -c 'trap \"\" TERM; echo $$ >> pids; while :; do sleep 1; done' > /dev/null 2>&1 &
env -i setsid sh -c 'echo $$ >> pids; while :; do sleep 1; done' > /dev/null 2>&1 &
while :; do sleep 1; done";

fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn a_cancelled_step_leaves_nothing_behind() {
    let bench = Arc::new(Bench::new().await);
    let running = bench.clone();
    let step = tokio::spawn(async move { running.run(&shell(STUBBORN)).await });
    let mut pids = Vec::new();
    eventually("three processes", || {
        let attempts = std::fs::read_dir(bench.data.path().join("attempts")).unwrap();
        let text: String = attempts
            .flatten()
            .filter_map(|a| std::fs::read_to_string(a.path().join("work/pids")).ok())
            .collect();
        pids = text.split_whitespace().map(str::to_owned).collect();
        pids.len() == 3
    })
    .await;
    let key = shell("").key;
    bench.held.renewed(&[key], &[Instruction::Cancel], crate::host::steady_clock());
    assert_eq!(step.await.unwrap(), Some(Outcome::Cancelled));
    for pid in pids {
        assert!(!alive(&pid), "process {pid} is left");
    }
}

#[tokio::test]
async fn a_timeout_ends_the_tree() {
    let bench = Bench::new().await;
    let mut order = shell("sleep 300 & echo waiting; wait");
    order.timeout_ms = 300;
    let begun = Instant::now();
    let (failure, reason) = bench.failure(&order).await;
    assert_eq!(failure, Failure::TimedOut);
    assert_eq!(reason, "took longer than its timeout of 300ms and was ended");
    assert!(begun.elapsed() < Duration::from_secs(4), "an obedient tree had to be killed");
    assert_eq!(bench.server.log(), "waiting\n");
}

#[tokio::test]
async fn background_children_end_with_their_step() {
    let bench = Bench::new().await;
    let text = "sleep 300 & echo first=$! >> $REFIT_OUTPUTS
setsid sleep 300 > /dev/null 2>&1 & echo second=$! >> $REFIT_OUTPUTS";
    let outputs = bench.outputs(&shell(text)).await;
    for pid in ["first", "second"] {
        assert!(!alive(outputs[pid].as_str().unwrap()), "the {pid} child is left");
    }
}

#[tokio::test]
async fn a_lost_attempt_ends_without_an_outcome() {
    let bench = Bench::new().await;
    bench.server.seen().refuse = Some((409, "stale-lease"));
    assert_eq!(bench.run(&shell("echo hello; sleep 300")).await, None);
}

#[tokio::test]
async fn an_orphan_adopted_by_the_worker_is_noticed() {
    let bench = Bench::new().await;
    let text = "sh -c 'setsid sleep 300 > /dev/null 2>&1 & echo pid=$! >> $REFIT_OUTPUTS'";
    let outputs = bench.outputs(&shell(text)).await;
    assert!(!alive(outputs["pid"].as_str().unwrap()));
}

fn python(packages: Packages) -> Python {
    Python { version: None, packages, index_args: vec![] }
}

/// A wheel with one module, `tiny`, and nothing else.
const WHEEL: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/tiny-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("tiny.py", "ANSWER = 42\n")
    info = "tiny-1.0.dist-info/"
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "tiny.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n")
"#;

#[tokio::test]
async fn listed_packages_are_installed_as_the_index_arguments_say() {
    let bench = Bench::new().await;
    let folder = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("python3").args(["-c", WHEEL]).arg(folder.path()).status().unwrap();
    assert!(made.success());
    let links = format!("--find-links={}", folder.path().display());
    let asked = |package: &str| Python {
        index_args: vec!["--no-index".to_owned(), links.clone()],
        ..python(Packages::Listed(vec![package.to_owned()]))
    };
    let mut order = shell("echo answer=$(python -c 'import tiny; print(tiny.ANSWER)') >> $REFIT_OUTPUTS");
    process(&mut order).python = Some(asked("tiny==1.0"));
    assert_eq!(bench.outputs(&order).await["answer"], "42");
    process(&mut order).python = Some(asked("tiny==2.0"));
    let (failure, reason) = bench.failure(&order).await;
    assert_eq!(failure, Failure::CouldNotStart);
    assert!(reason.contains("failed to install `tiny==2.0`"), "{reason}");
}

#[tokio::test]
async fn a_python_of_another_version_is_not_taken() {
    let bench = Bench::new().await;
    let mut order =
        shell("python -c 'import sys; print(\"v=%d.%d\" % sys.version_info[:2])' >> $REFIT_OUTPUTS");
    let nothing = || Packages::Requirements("requirements.txt".to_owned());
    order.bundle = Some(bench.server.store_tree(&[("requirements.txt", "", false)]));
    process(&mut order).python = Some(Python { version: Some("2.6".to_owned()), ..python(nothing()) });
    let (failure, reason) = bench.failure(&order).await;
    assert_eq!(failure, Failure::CouldNotStart);
    assert!(reason.contains("2.6"), "{reason}");
    let ask = ["-c", "import sys; print('%d.%d' % sys.version_info[:2])"];
    let own = std::process::Command::new("python3").args(ask).output().unwrap();
    let own = String::from_utf8(own.stdout).unwrap().trim().to_owned();
    process(&mut order).python = Some(Python { version: Some(own.clone()), ..python(nothing()) });
    assert_eq!(bench.outputs(&order).await["v"], own.as_str());
}

#[tokio::test]
async fn an_environment_is_built_once_and_used() {
    let bench = Bench::new().await;
    let mut order = shell(
        "[ $(python -c 'import sys; print(sys.prefix)') = $VIRTUAL_ENV ]; echo env=$VIRTUAL_ENV >> $REFIT_OUTPUTS",
    );
    order.bundle = Some(bench.server.store_tree(&[("requirements.txt", "# nothing yet\n", false)]));
    process(&mut order).python = Some(python(Packages::Requirements("requirements.txt".to_owned())));
    let first = bench.outputs(&order).await;
    assert!(bench.server.log().contains("building the Python environment"), "{}", bench.server.log());
    bench.server.seen().reports.clear();
    assert_eq!(bench.outputs(&order).await, first);
    assert_eq!(bench.server.log(), "");

    // One that was not completed is built anew.
    std::fs::remove_file(std::path::Path::new(first["env"].as_str().unwrap()).join(".complete")).unwrap();
    bench.outputs(&order).await;
    assert!(bench.server.log().contains("building the Python environment"));
}

#[tokio::test]
async fn how_long_an_attempt_took_to_be_set_up_is_told_while_it_runs_and_with_its_outcome() {
    let bench = Bench::new().await;
    let mut order = shell("sleep 1.5");
    order.events = 1;
    bench.server.seen().refuse = Some((503, "unavailable"));
    let (_holding, ending) = bench.held.take(&order.key, crate::host::steady_clock()).unwrap();
    let (ended, ()) = tokio::join!(bench.ended(&order, ending), async {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        bench.server.seen().refuse = None;
    });
    let set_up_ms = ended.unwrap().set_up_ms.unwrap();
    assert!((1_200..20_000).contains(&set_up_ms), "{set_up_ms}");
    let told: Vec<u64> = bench.server.seen().reports.iter().filter_map(|report| report.set_up_ms).collect();
    assert_eq!(told, [set_up_ms]);
}

#[tokio::test]
async fn a_step_that_has_succeeded_is_not_lost_by_a_lease_that_runs_out_while_it_is_collected() {
    let held: Arc<Held> = Arc::default();
    let key = shell("").key;
    let (_holding, ending) = held.take(&key, Duration::ZERO).unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    let given_up = || tokio::time::timeout(Duration::from_millis(100), uncollected(&ending, until));
    held.fence(Duration::ZERO, Duration::ZERO);
    assert!(given_up().await.is_err());
    held.end(&key, Ending::Stop);
    assert!(matches!(given_up().await, Ok(Came::Ended(Ending::Stop))));
}

#[tokio::test]
async fn an_environment_that_cannot_be_built_fails_the_step_with_the_reason() {
    let bench = Bench::new().await;
    let mut order = shell("true");
    order.bundle = Some(bench.server.store_tree(&[("requirements.txt", "./no-such-folder\n", false)]));
    process(&mut order).python = Some(python(Packages::Requirements("requirements.txt".to_owned())));
    let (failure, reason) = bench.failure(&order).await;
    assert_eq!(failure, Failure::CouldNotStart);
    assert!(
        reason.contains("failed to install requirements.txt") && reason.contains("no-such-folder"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_secret_reaches_the_step_and_nothing_that_is_kept() {
    let bench = Bench::new().await;
    let mut order = shell(
        "echo \"it is $TOKEN\"; printf '%s' \"$TOKEN\" | base64
for c in h u n t e r 2 '!'; do printf '%s' $c; sleep 0.01; done; echo
echo \"{\\\"given\\\": [\\\"<$TOKEN>\\\"]}\" >> $REFIT_OUTPUTS
test \"$TOKEN\" = 'hunter2!' && echo \"failed with $TOKEN\" >&2 && exit $CODE",
    );
    process(&mut order).env.insert("CODE".to_owned(), "0".to_owned());
    order.secrets.insert("TOKEN".to_owned(), SecretValue::new("hunter2!"));
    let outputs = bench.outputs(&order).await;
    assert_eq!(outputs["given"], json!(["<***TOKEN***>"]));
    process(&mut order).env.insert("CODE".to_owned(), "3".to_owned());
    let (_, reason) = bench.failure(&order).await;
    assert_eq!(reason, "exit code 3: failed with ***TOKEN***");
    let seen = bench.server.seen();
    let chunks = seen.reports.iter().flat_map(|report| &report.logs);
    let all: String = chunks.map(|chunk| chunk.text.as_str()).collect();
    assert!(!all.contains("hunter2") && !all.contains("aHVudGVyMi"), "{all}");
    assert_eq!(all.matches("it is ***TOKEN***\n").count(), 2, "{all}");
}

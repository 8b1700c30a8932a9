//! The examples are what they claim to be: sound workflows, files that exist, events that start them, runs that come out
//! as told, with the command that plays them. What `examples/digits` comes to is shown by `refit demo`.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use refit_tests::api::Api;
use refit_tests::processes::{Process, binary, free_port, refit, run_to_end, workspace};
use refit_workflows::definition::{Command, Workflow};
use refit_workflows::event::CloudEvent;
use refit_workflows::expression::Scope;
use refit_workflows::trigger::{Considered, Triggers};
use serde_json::{Value, json};

fn examples() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(workspace().join("examples")).unwrap().map(|entry| entry.unwrap().path());
    // How Refit is put on hosts is no story.
    let folders: Vec<PathBuf> = folders.filter(|path| path.is_dir() && !path.ends_with("deploy")).collect();
    assert!(!folders.is_empty(), "there is no example");
    folders
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()))
}

/// The workflow files of an example: `workflow.yaml`, and those it runs.
fn workflow_files(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .filter(|path| read(path).lines().any(|line| line.starts_with("workflow:")))
        .collect();
    assert!(files.contains(&folder.join("workflow.yaml")), "{} has no workflow.yaml", folder.display());
    files
}

fn workflow(path: &Path) -> Workflow {
    Workflow::parse(&read(path)).unwrap_or_else(|problems| panic!("{}: {:#?}", path.display(), problems.0))
}

#[test]
fn every_workflow_is_sound_and_opens_with_the_editor_header() {
    for path in examples().iter().flat_map(|folder| workflow_files(folder)) {
        workflow(&path);
        assert!(read(&path).starts_with("# yaml-language-server: $schema="), "{}", path.display());
    }
}

#[test]
fn every_file_a_step_needs_is_there() {
    for folder in examples() {
        for step in workflow_files(&folder).iter().flat_map(|path| workflow(path).steps) {
            let Some(run) = step.verb.process() else { continue };
            let mut files: Vec<String> = run.requirements().map(str::to_owned).into_iter().collect();
            if let Command::Arguments(arguments) = &run.command {
                files.extend(
                    arguments.iter().map(|one| one.source().to_owned()).filter(|one| one.ends_with(".py")),
                );
            }
            for file in files {
                assert!(
                    folder.join(&file).is_file(),
                    "{}: step {} needs {file}",
                    folder.display(),
                    step.name
                );
            }
        }
    }
}

#[test]
fn every_case_of_an_example_passes() {
    for folder in examples() {
        let said = run_to_end(refit(&folder, &["test", "."]), Duration::from_secs(60));
        assert_eq!(said.code, Some(0), "{}:\n{}{}", folder.display(), said.out, said.err);
    }
}

#[test]
fn every_event_of_an_example_starts_its_workflow() {
    for folder in examples() {
        let Ok(entries) = std::fs::read_dir(folder.join("events")) else { continue };
        let workflow = Arc::new(workflow(&folder.join("workflow.yaml")));
        for file in entries.map(|entry| entry.unwrap().path()) {
            for line in read(&file).lines() {
                let event = CloudEvent::parse(serde_json::from_str(line).unwrap()).unwrap();
                assert!(starts(&workflow, &event), "{}: event {} starts nothing", file.display(), event.id());
            }
        }
    }
}

fn starts(workflow: &Arc<Workflow>, event: &CloudEvent) -> bool {
    let object = Value::Object(event.attributes().clone());
    let scope = Scope { roots: event.attributes().clone(), ..Scope::default() };
    let matches = Triggers::new([Arc::clone(workflow)]).matching(event, &object);
    matches.into_iter().any(|matched| {
        let considered = workflow.triggers[matched.trigger].consider(matched.parts, &scope);
        matches!(considered, Considered::Accepted(_))
    })
}

#[test]
fn every_path_a_readme_names_exists() {
    for folder in examples() {
        let text = read(&folder.join("README.md"));
        let words = text.split(|c: char| c.is_whitespace() || "`()\"'|".contains(c));
        let mut paths: Vec<PathBuf> =
            words.clone().filter(|word| word.starts_with("examples/")).map(Into::into).collect();
        assert!(!paths.is_empty(), "{} says nowhere how to run it", folder.display());
        let beside =
            words.filter(|word| [".py", ".yaml", ".txt", ".jsonl"].iter().any(|end| word.ends_with(end)));
        paths.extend(beside.filter(|word| !word.contains('/')).map(|name| folder.join(name)));
        for path in paths {
            assert!(
                workspace().join(&path).exists(),
                "{}/README.md names {}",
                folder.display(),
                path.display()
            );
        }
    }
}

/// The story that its README tells, with real training.
#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_promotes_its_best_twice_and_refuses_the_third() {
    let data = tempfile::tempdir().unwrap();
    let server = format!("http://127.0.0.1:{}", free_port());
    let folder = workspace().join("examples/sweep");
    let address = server.trim_start_matches("http://");
    let arguments =
        ["up", folder.to_str().unwrap(), "--listen", address, "--data", data.path().to_str().unwrap()];
    let up = Process::start(arguments.map(str::to_owned).into(), Vec::new());
    refit_tests::eventually("it is up", Duration::from_secs(30), async || {
        up.logs().contains("Ctrl-C ends it").then_some(())
    })
    .await;

    let runs: Vec<Value> = [("5", 0), ("40", 0), ("2", 1)]
        .map(|(topics, code)| {
            let topics = format!("topics={topics}");
            let mut command =
                refit(&folder, &["run", "start", "letters", "--param", &topics, "--wait", "-o", "json"]);
            command.env("REFIT_SERVER", &server);
            let said = run_to_end(command, Duration::from_secs(60));
            assert_eq!(said.code, Some(code), "{topics}: {}{}\n{}", said.out, said.err, up.logs());
            serde_json::from_str(&said.out).unwrap()
        })
        .into();

    let chosen: Vec<&Value> = runs.iter().map(|run| &Api::step(run, "best")["outputs"]["order"]).collect();
    assert_eq!(chosen, [2, 4, 2], "with more text, a longer memory wins");
    let promoted: Vec<&Value> = runs.iter().map(|run| &run["promoted"]["version"]).collect();
    assert_eq!(promoted, [&json!(1), &json!(2), &Value::Null]);
    for run in &runs {
        for lost in ["train[order=2,smoothing=0]", "train[order=4,smoothing=0]"] {
            assert_eq!(Api::step(run, lost)["state"], "failed", "{lost}");
        }
        let counts = &Api::step(run, "train")["instances"];
        assert_eq!((&counts["succeeded"], &counts["total"]), (&json!(4), &json!(6)), "{counts}");
    }
    let bits = |run: &Value| Api::step(run, "evaluate")["metrics"]["bits"].as_f64().unwrap();
    assert!(bits(&runs[1]) < bits(&runs[0]) && bits(&runs[0]) < bits(&runs[2]) && bits(&runs[2]) < 4.5);
    assert_eq!(Api::step(&runs[2], "gate")["decision"]["champion"], 2);

    let api = Api::new(&server);
    for (run, verdict) in runs.iter().zip(["pass", "pass", "fail"]) {
        let report = Api::step(run, "report");
        assert_eq!((&report["state"], &report["verb"]), (&json!("succeeded"), &json!("workflow")));
        let child = api.run(report["child"].as_str().unwrap()).await;
        assert_eq!(child["params"]["verdict"], verdict);
        assert_eq!(child["outputs"]["headline"], report["outputs"]["headline"]);
        assert_eq!(Api::step(run, "announce")["state"], "succeeded");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// `examples/run`

/// How long an example may take to be played.
const PLAYED: Duration = Duration::from_secs(180);

/// `examples/run NAME --keep` as a process in a group of its own, with everything it writes below `folder`.
#[derive(Debug)]
struct Play {
    child: Child,
    folder: tempfile::TempDir,
}

/// `examples/run` with a temporary folder below `folder`.
fn examples_run(folder: &Path, arguments: &[&str]) -> std::process::Command {
    let temporary = folder.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = std::process::Command::new(workspace().join("examples/run"));
    command.args(arguments).env("REFIT_BINARY", binary()).env("TMPDIR", temporary).env("NO_COLOR", "1");
    // What would lead it to another server, if it listened.
    command
        .env("REFIT_SERVER", "http://127.0.0.1:1")
        .env("REFIT_DATABASE_URL", "postgres://nobody@127.0.0.1:1/no");
    command
}

impl Play {
    /// Plays the example, and answers when the story is over and the server stays up.
    async fn start(name: &str) -> (Self, Api) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = examples_run(folder.path(), &[name, "--keep"]);
        let output = File::create(folder.path().join("output")).unwrap();
        command.stdout(output.try_clone().unwrap()).stderr(output).process_group(0);
        let mut play = Self { child: command.spawn().unwrap(), folder };
        let begun = Instant::now();
        let server = loop {
            let said = play.said();
            if let Some((_, server)) = said.split_once("export REFIT_SERVER=") {
                break server.trim().to_owned();
            }
            let over = play.child.try_wait().unwrap();
            assert!(over.is_none() && begun.elapsed() < PLAYED, "{name} {over:?}:\n{said}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        (play, Api::new(&server))
    }

    /// Everything it has written so far.
    fn said(&self) -> String {
        read(&self.folder.path().join("output"))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Asks it to end, as Ctrl-C does; nothing may be left of it then.
    fn end(mut self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        leaves_nothing(self.folder.path());
        assert!(killpg(self.pid(), None).is_err(), "a process of it is still there");
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        // No such group: it has ended by itself.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn leaves_nothing(folder: &Path) {
    let left: Vec<PathBuf> =
        std::fs::read_dir(folder.join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "it left {left:?} behind");
}

/// The runs of a workflow in the order of their creation, whole.
async fn runs(api: &Api, workflow: &str) -> Vec<Value> {
    let listed = api.get(&format!("/api/v1/runs?workflow={workflow}&limit=1000")).await.ok();
    let mut whole = Vec::new();
    for run in listed.as_array().unwrap().iter().rev() {
        whole.push(api.run(run["run"].as_str().unwrap()).await);
    }
    whole
}

fn events_of(runs: &[Value]) -> usize {
    runs.iter().map(|run| run["events"].as_array().unwrap().len()).sum()
}

fn states(runs: &[Value]) -> Vec<&str> {
    runs.iter().map(|run| run["state"].as_str().unwrap()).collect()
}

/// No event is counted twice, although a batch was worked on twice and all events were sent twice; the batch that was
/// worked on twice gives the same answer; and the chain leads to a model.
#[tokio::test(flavor = "multi_thread")]
async fn the_feature_pipeline_counts_each_event_once_and_retrains_when_enough_has_changed() {
    let (play, api) = Play::start("feature-pipeline").await;
    let said = play.said();
    let totals: Vec<&str> = said.lines().filter(|line| line.ends_with("events counted")).collect();
    let first = "1050 rows, 3053 events counted";
    assert_eq!(totals, [first, first, "2100 rows, 5969 events counted"], "{said}");

    let features = runs(&api, "features").await;
    assert_eq!((states(&features), events_of(&features)), (vec!["succeeded"; 15], 5969));
    let again = features.iter().find(|run| run["run"] == "features/1").unwrap();
    assert_eq!(Api::step(again, "update")["outputs"]["counted"], 500, "{again:#}");
    let shown: Value = api.get("/api/v1/events?type=features.updated&limit=1000").await.ok();
    assert_eq!(shown.as_array().unwrap().len(), 16, "one for each batch, and one for the attempt made again");

    let models = runs(&api, "propensity").await;
    assert_eq!(models.len(), 2, "{said}");
    assert_eq!(models[0]["promoted"]["version"], 1, "{:#}", models[0]);
    for (place, run) in models.iter().enumerate() {
        let metrics = &Api::step(run, "evaluate")["metrics"];
        assert!(metrics["auc"].as_f64().is_some_and(|auc| auc > 0.6), "{metrics}");
        assert_eq!(metrics["champion_auc"].is_number(), place == 1, "{metrics}");
    }
    play.end();
}

/// Silence counts as an answer, promotions are published together and none is forgotten, and a robot's feedback is
/// refused.
#[tokio::test(flavor = "multi_thread")]
async fn personalization_learns_from_feedback_and_silence_and_refuses_a_robot() {
    let (play, api) = Play::start("personalization").await;
    let said = play.said();
    let silent = api.get("/api/v1/events/by-id?id=r1-000-served").await.ok();
    let run = api.run(silent[0]["decisions"][1]["run"].as_str().unwrap()).await;
    assert!(run["trigger"].to_string().contains("did not come within 3.0s"), "{run:#}");

    let rankings = runs(&api, "ranking").await;
    assert_eq!(events_of(&rankings), 500, "one interaction for each request");
    let promoted: Vec<&Value> = rankings.iter().map(|run| &run["promoted"]["version"]).collect();
    assert_eq!(promoted, [&json!(1), &json!(2), &json!(3), &json!(4), &Value::Null]);
    let robot = &rankings[4];
    assert_eq!(robot["state"], "rejected");
    let metrics = &Api::step(robot, "evaluate")["metrics"];
    assert!(metrics["loss"].as_f64() < metrics["champion_loss"].as_f64(), "it would have passed: {metrics}");

    let published = runs(&api, "publish-ranking").await;
    assert_eq!(events_of(&published), 4, "every promotion is published");
    assert!(states(&published).iter().all(|state| *state == "succeeded"), "{published:#?}");
    let files: Vec<Value> = said
        .split("$ cat rankings.json\n")
        .skip(1)
        .map(|rest| serde_json::from_str(rest.split("\n\n").next().unwrap()).unwrap())
        .collect();
    let told: Vec<(&Value, &Value)> =
        files.iter().map(|file| (&file["version"], &file["rankings"]["students"][0])).collect();
    assert_eq!(told, [(&json!(3), &json!("concert")), (&json!(4), &json!("match"))]);
    play.end();
}

/// The lines of a gate, each with its verdict.
fn verdicts<'r>(run: &'r Value, gate: &str) -> Vec<(&'r str, &'r str)> {
    let checks = Api::step(run, gate)["decision"]["checks"].as_array().unwrap();
    checks.iter().map(|line| (line["check"].as_str().unwrap(), line["verdict"].as_str().unwrap())).collect()
}

/// What is better replaces the champion, bad data is not trained on, what the numbers leave open is a person's to say.
#[tokio::test(flavor = "multi_thread")]
async fn churn_is_retrained_where_that_is_worth_it_and_a_person_decides_the_rest() {
    let (play, api) = Play::start("churn").await;
    let runs = runs(&api, "churn").await;
    assert_eq!(states(&runs), ["succeeded", "succeeded", "rejected", "succeeded"], "{}", play.said());
    let promoted: Vec<&Value> = runs.iter().map(|run| &run["promoted"]["version"]).collect();
    assert_eq!(promoted, [&json!(1), &json!(2), &Value::Null, &json!(3)]);
    let gates: Vec<&Value> = [0, 1, 3].map(|run| &Api::step(&runs[run], "gate")["verdict"]).into();
    assert_eq!(gates, ["pass", "pass", "inconclusive"]);
    assert!(Api::step(&runs[2], "check")["reason"].as_str().unwrap().contains("age"), "{:#}", runs[2]);
    assert_eq!(Api::step(&runs[2], "train")["state"], "skipped");
    assert_eq!(Api::step(&runs[3], "approve")["state"], "succeeded");
    let model = api.get("/api/v1/models/churn").await.ok();
    assert_eq!(model["aliases"]["champion"], 2, "rolled back: {model:#}");
    play.end();
}

/// A model that has learned wrong clocks passes what looks at it alone, and not the comparison.
#[tokio::test(flavor = "multi_thread")]
async fn the_forecast_follows_the_season_and_not_a_wrong_clock() {
    let (play, api) = Play::start("forecast").await;
    let runs = runs(&api, "forecast").await;
    assert_eq!(states(&runs), ["succeeded", "succeeded", "rejected"], "{}", play.said());
    let late = verdicts(&runs[2], "gate");
    assert_eq!((late[0].1, late[1].1), ("pass", "fail"), "{late:?}");
    play.end();
}

/// An index that holds less is replaced, one that was built from error pages is not.
#[tokio::test(flavor = "multi_thread")]
async fn the_search_index_moves_on_to_what_finds_more() {
    let (play, api) = Play::start("search-index").await;
    let runs = runs(&api, "search-index").await;
    assert_eq!(states(&runs), ["succeeded", "succeeded", "rejected"], "{}", play.said());
    let recall = |run: usize| Api::step(&runs[run], "compare")["metrics"]["recall@10"].as_f64().unwrap();
    assert!(recall(1) > 0.6 && recall(2) < 0.5, "{} {}", recall(1), recall(2));
    play.end();
}

#[test]
fn the_sweep_is_played_as_well_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let said = run_to_end(examples_run(folder.path(), &["sweep"]), PLAYED);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("letters/3  ✗ rejected") && said.out.contains("v1 → v2"), "{}", said.out);
    leaves_nothing(folder.path());
}

#[test]
fn every_example_can_be_played_and_nothing_else() {
    for folder in examples() {
        assert!(folder.join("play.sh").is_file(), "{} has no play.sh", folder.display());
    }
    for (arguments, code, says) in [
        (&[][..], 2, "examples/run NAME"),
        (&["--what"], 2, "examples/run NAME"),
        (&["nothing"], 1, "no example nothing"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let said = run_to_end(examples_run(folder.path(), arguments), PLAYED);
        assert_eq!(said.code, Some(code), "{arguments:?}: {}", said.err);
        assert!(said.err.contains(says), "{arguments:?}: {}", said.err);
    }
}

//! The examples are what they claim to be: sound workflows, files that exist, events that start them, runs that come out
//! as told. What `examples/digits` comes to is shown by `refit demo`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use refit_tests::api::Api;
use refit_tests::processes::{Process, free_port, refit, run_to_end, workspace};
use refit_workflows::definition::{Command, Workflow};
use refit_workflows::event::CloudEvent;
use refit_workflows::expression::Scope;
use refit_workflows::trigger::{Considered, Triggers};
use serde_json::{Value, json};

fn examples() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(workspace().join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<PathBuf> = folders.filter(|path| path.is_dir()).collect();
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

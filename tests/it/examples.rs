//! The examples are what they claim to be: sound workflows, files that exist, events that start them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use refit_tests::processes::{refit, run_to_end, workspace};
use refit_workflows::definition::{Command, Workflow};
use refit_workflows::event::CloudEvent;
use refit_workflows::expression::Scope;
use refit_workflows::trigger::{Considered, Triggers};
use serde_json::Value;

fn examples() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(workspace().join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<PathBuf> = folders.filter(|path| path.is_dir()).collect();
    assert!(!folders.is_empty(), "there is no example");
    folders
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()))
}

fn workflow(folder: &Path) -> Workflow {
    let path = folder.join("workflow.yaml");
    Workflow::parse(&read(&path)).unwrap_or_else(|problems| panic!("{}: {:#?}", path.display(), problems.0))
}

#[test]
fn every_workflow_is_sound_and_opens_with_the_editor_header() {
    for folder in examples() {
        workflow(&folder);
        let text = read(&folder.join("workflow.yaml"));
        assert!(text.starts_with("# yaml-language-server: $schema="), "{}", folder.display());
    }
}

#[test]
fn every_file_a_step_needs_is_there() {
    for folder in examples() {
        for step in workflow(&folder).steps {
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
        let workflow = Arc::new(workflow(&folder));
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

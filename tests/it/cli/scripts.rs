//! What scripts rely on: the keys of JSON and YAML, the exit codes, plain text in pipes, completion scripts.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use refit_tests::api::{Api, event};
use refit_tests::processes::{free_port, run_to_end};
use serde_json::{Value, json};

use super::{BROKEN, Desk, House, WAIT, has_keys, holds};

#[tokio::test(flavor = "multi_thread")]
async fn json_and_yaml_hold_the_promised_keys() {
    let house = House::open(true).await;
    let desk = &house.desk;
    desk.ok(&["event", "send", "--type", "dataset.updated", "--id", "e1", "--data", "{}"]);
    house.orchestrator.api().wait_run("churn/1", "succeeded", WAIT).await;
    let run = [
        "run",
        "workflow",
        "definition",
        "state",
        "reason",
        "key",
        "params",
        "trigger",
        "created_at",
        "started_at",
        "finished_at",
        "coalesced",
    ];
    let step = [
        "step",
        "verb",
        "state",
        "attempt",
        "attempts_max",
        "worker",
        "ready_at",
        "started_at",
        "finished_at",
        "outputs",
        "metrics",
        "artifacts",
        "reason",
        "verdict",
        "cached_from",
    ];
    let event = ["id", "source", "type", "subject", "time", "received_at", "decisions"];
    let shown = desk.json(&["run", "show", "churn/1"]);
    has_keys(&shown, &run);
    has_keys(&shown, &["events", "steps", "promoted"]);
    has_keys(&shown["promoted"], &["model", "version", "alias"]);
    shown["steps"].as_array().unwrap().iter().for_each(|one| has_keys(one, &step));
    has_keys(&Api::step(&shown, "train")["artifacts"]["model"], &["digest", "bytes"]);
    has_keys(&desk.json(&["run", "list"])[0], &run);
    let sent = desk.json(&["event", "show", "e1"]);
    has_keys(&sent, &event);
    has_keys(&sent, &["data"]);
    has_keys(&sent["decisions"][0], &["workflow", "trigger", "decision", "reason", "run", "at"]);
    has_keys(&desk.json(&["event", "list"])[0], &event);
    let model = desk.json(&["model", "show", "churn"]);
    has_keys(&model, &["model", "versions", "aliases"]);
    has_keys(&model["versions"][0], &["version", "run", "digest", "bytes", "metrics", "created_at"]);
    has_keys(
        &desk.json(&["model", "history", "churn"])[0],
        &["alias", "from", "to", "at", "by", "run", "reason", "evidence"],
    );
    let worker = ["worker", "state", "labels", "gpus", "memory", "slots", "busy", "last_seen", "attempts"];
    let offers = ["cpus", "used", "version"];
    let listed = &desk.json(&["worker", "list"])[0];
    has_keys(listed, &worker);
    has_keys(listed, &offers);
    let name = listed["worker"].as_str().unwrap();
    has_keys(&desk.json(&["worker", "show", name]), &worker);
    assert_eq!(desk.json(&["worker", "drain", name])["state"], "drained");
    assert_eq!(desk.json(&["worker", "resume", name])["state"], "ready");

    for command in [
        vec!["run", "show", "churn/1"],
        vec!["run", "list"],
        vec!["event", "show", "e1"],
        vec!["event", "list"],
        vec!["model", "list"],
        vec!["model", "show", "churn"],
        vec!["model", "history", "churn"],
        vec!["workflow", "list"],
        vec!["workflow", "show", "churn"],
        vec!["token", "list"],
        vec!["check", "churn"],
    ] {
        let yaml = desk.ok(&[&command[..], &["-o", "yaml"]].concat());
        let read: Value =
            serde_yaml::from_str(&yaml).unwrap_or_else(|error| panic!("{command:?}: {error}:\n{yaml}"));
        assert_eq!(read, desk.json(&command), "{command:?} says something else in YAML");
    }
    let started = desk.json(&["run", "start", "churn", "--wait"]);
    assert_eq!((&started["run"], &started["state"]), (&json!("churn/2"), &json!("succeeded")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exit_code_means_what_the_help_says() {
    let house = House::open(true).await;
    let desk = &house.desk;
    desk.write("broken.yaml", BROKEN[0].0);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for (code, arguments, says) in [
        (0, vec!["run", "list"], ""),
        (0, vec!["--help"], ""),
        (0, vec!["--version"], ""),
        (1, vec!["run", "start", "churn", "--param", "score=0.1", "--wait"], ""),
        (2, vec!["run", "show", "churn"], "WORKFLOW/NUMBER"),
        (2, vec!["run", "lsit"], "list"),
        (2, vec!["event", "send"], "--type"),
        (2, vec!["event", "send", "--type", "t", "--data", "{oops"], "--data"),
        (2, vec!["run", "list", "--since", "lately"], "2h"),
        (2, vec!["run", "list", "--server", "nonsense"], "--server"),
        (3, vec!["check", "broken.yaml"], ""),
        (3, vec!["apply", "broken.yaml"], "did you mean `needs`?"),
        (4, vec!["run", "list", "--server", &nobody], "is it running? start one with `refit up`"),
        (5, vec!["run", "show", "churn/99"], "churn/99"),
        (5, vec!["run", "show", "nothing/1"], "nothing/1"),
        (5, vec!["model", "show", "nothing"], "nothing"),
        (5, vec!["model", "history", "nothing"], "nothing"),
        (5, vec!["event", "show", "nothing"], "nothing"),
        (5, vec!["workflow", "show", "nothing"], "nothing"),
        (5, vec!["run", "start", "nothing"], "nothing"),
        (5, vec!["run", "approve", "churn/1"], "churn/1"),
    ] {
        let said = desk.ends(code, &arguments);
        holds(&said.err, &[says]);
        // Errors belong on standard error, and begin with the word.
        assert!(
            [0, 1, 3].contains(&code) || (said.out.is_empty() && said.err.starts_with("error: ")),
            "{said:?}"
        );
    }
    holds(
        &desk.ok(&["--help"]),
        &["Exit codes:", "0  done", "1  what", "2  the", "3  a workflow", "4  the server", "5  not found"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn colour_is_for_terminals_and_for_those_who_ask() {
    let house = House::open(false).await;
    let list = |variables: &[(&str, &str)]| {
        let mut command = house.desk.command(&["workflow", "list"]);
        command.envs(variables.iter().copied());
        run_to_end(command, WAIT).out.contains('\u{1b}')
    };
    let help = |variables: &[(&str, &str)]| {
        let mut command = house.desk.command(&["check", "churn"]);
        command.envs(variables.iter().copied());
        run_to_end(command, WAIT).out.contains('\u{1b}')
    };
    for colourful in [&help as &dyn Fn(&[(&str, &str)]) -> bool, &list] {
        assert!(!colourful(&[]));
        assert!(colourful(&[("CLICOLOR_FORCE", "1")]), "there is no colour to take away");
        assert!(!colourful(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let house = House::open(false).await;
    let events: Vec<Value> =
        (0..1000).map(|n| event(&format!("event-number-{n}"), "many", json!({}))).collect();
    house.orchestrator.api().send_events(&events).await;
    for form in ["table", "json", "yaml"] {
        let mut command = house.desk.command(&["event", "list", "--limit", "1000", "-o", form]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        // The reader goes away with this line.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert!(!first.is_empty());
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{form}");
        assert_eq!(ended.status.code(), Some(0), "{form}");
    }
}

#[test]
fn completions_know_every_command() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = desk.ok(&["completion", shell]);
        holds(&script, &["refit", "rollback", "approve", "completion", "amqp-queue"]);
        // Where the shell is here, it must be able to read its script.
        let path = desk.write(shell, &script);
        if let Ok(read) = std::process::Command::new(shell).arg("-n").arg(path).output() {
            assert!(read.status.success(), "{shell}: {}", String::from_utf8_lossy(&read.stderr));
        }
    }
    desk.ends(2, &["completion", "tcsh"]);
}

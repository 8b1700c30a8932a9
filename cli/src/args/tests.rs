//! The command line as people type it: what is documented parses, nonsense does not.

use std::time::Duration;

use refit_workflows::time::Timestamp;
use refit_workflows::wire::REASON_BYTES_MAX;

use super::values::{Since, since};
use super::*;

fn read(line: &str) -> Result<Cli, clap::Error> {
    let words = std::iter::once("refit").chain(line.split_whitespace());
    Cli::from_arg_matches(&command().try_get_matches_from(words)?)
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn documented_lines_parse() {
    for line in [
        "demo --keep -o json --slots 4 --database-url sqlite:x --amqp-url amqp://localhost",
        "up",
        "up examples/digits --listen 127.0.0.1:0 --data /tmp/x --slots 3",
        "serve --listen 0.0.0.0:7433 --data d --database-url postgres://h/d --mlflow-url http://h:5000 --amqp-url amqp://h --amqp-queue q \
         --amqp-exchange e --grace 90s --host a --host b",
        "work --server http://h:1 --name gpu-7.example --slots 2 --labels zone=eu,disk=nvme --labels a=b --data d",
        "init",
        "init churn -o json",
        "schema",
        "schema step",
        "check",
        "check a.yaml b",
        "check --graph a.yaml b",
        "check a.yaml --graph=dot",
        "apply .",
        "simulate a.yaml b --events - --step-takes 2h --for 30d --limit 5 -o yaml",
        "simulate --history --since 3d --server http://h:1",
        "workflow list -o yaml --limit 3",
        "workflow show churn --text",
        "event send --type t --source s --id i --subject u --data {\"a\":1}",
        "event send --file -",
        "event list --type t --source s --unmatched --since 2h --limit 10 -o json",
        "event show a/b/c --source s",
        "event replay --since 2h --until 1h --type t --source s --id a --id b --workflow w --limit 5 --dry-run",
        "event replay --all --no-wait -o json",
        "event replays --stop 3",
        "deadletter list --source amqp:q --since 2h --limit 3 -o json",
        "deadletter show 7 -o yaml",
        "deadletter retry 7 8",
        "deadletter retry --source amqp:q --since 2h",
        "deadletter retry 7 --event mended.json",
        "deadletter drop --all --yes",
        "run start churn --param a=b --param c= --wait",
        "run list --workflow churn --state failed --since 2026-01-31T08:00:00Z",
        "run show churn/12 -o json",
        "run show churn/12 --graph=mermaid",
        "run watch churn/12",
        "run evidence churn/12 -o json",
        "run logs churn/12 -f --step train[depth=4]",
        "run cancel churn/12",
        "run retry churn/12 --all",
        "run approve churn/12 --step ok --reason fine",
        "run reject churn/12",
        "model list",
        "model show churn",
        "model history churn",
        "model rollback churn --alias champion --reason worse",
        "worker list --log-format json -vv",
        "token create --name ops --role admin --days 30 --data d",
        "token list --database-url sqlite:x",
        "token revoke 0198-abc",
        "doctor --config x -o json --server http://h:1",
        "doctor --database-url postgres://h/d --data d --listen 0.0.0.0:1 --amqp-url amqp://h --amqp-queue q",
        "completion bash",
        "--server http://h:1/ run list",
        "run list --server http://h:1",
    ] {
        assert!(read(line).is_ok(), "{line}: {}", read(line).unwrap_err());
    }
}

#[test]
fn nonsense_is_refused() {
    for line in [
        "run show churn",
        "run show churn/0",
        "run show churn/1 --graph -o json",
        "run show churn/1 --graph=svg",
        "check a.yaml -o json --graph=mermaid",
        "run show ../1",
        "run list --since yesterday",
        "run list --limit 0",
        "run list --limit 1001",
        "run start churn --param novalue",
        "event send",
        "event send --type t --data {",
        "event send --type t --file x",
        "workflow show Churn",
        "model show a/b",
        "token revoke ../x",
        "token create --name a --role boss",
        "work --labels x",
        "work --slots 0",
        "serve --grace 10",
        "serve --grace 0s",
        "serve --grace 50ms",
        "run list --server ftp://x",
        "run list --server http://user:secret@h",
        "schema run",
        "init Churn",
        "init a/b",
        "simulate a.yaml",
        "simulate --events e.jsonl",
        "simulate a.yaml --events e.jsonl --history",
        "simulate a.yaml --events e.jsonl --since 3d",
        "simulate a.yaml --events e.jsonl --for 1",
        "event replay",
        "event replay --workflow w",
        "event replay --all --since 2h",
        "event replay --all --limit 0",
        "deadletter retry",
        "deadletter retry 7 --all",
        "deadletter retry --all --source s",
        "deadletter retry --all --event mended.json",
        "deadletter show x",
        "nothing",
    ] {
        assert!(read(line).is_err(), "{line} was accepted");
    }
}

#[test]
fn values_come_out_typed() {
    let cli = read("work --server http://h:1/ --labels zone=eu,disk=nvme").unwrap();
    assert_eq!(cli.remote.server, "http://h:1");
    let Command::Work(work) = cli.command else { panic!("not work") };
    assert_eq!(work.labels, [("zone".into(), "eu".into()), ("disk".into(), "nvme".into())]);
    let Command::Check(check) = read("check").unwrap().command else { panic!("not check") };
    assert_eq!(check.paths, [std::path::Path::new(".")]);
    assert_eq!(since("2h"), Ok(Since::Ago(Duration::from_secs(7200))));
    let now = Timestamp::from_millis(10_000);
    assert_eq!(Since::Ago(Duration::from_secs(4)).moment(now), Timestamp::from_millis(6_000));
}

#[test]
fn a_reason_that_is_too_long_is_refused_where_it_is_typed() {
    let longest = "x".repeat(REASON_BYTES_MAX);
    for line in [
        "workflow pause w --reason",
        "workflow delete w --reason",
        "run approve w/1 --reason",
        "run reject w/1 --reason",
        "model rollback w --reason",
    ] {
        assert!(read(&format!("{line} {longest}")).is_ok(), "{line}");
        let wrong = read(&format!("{line} {longest}y")).unwrap_err().to_string();
        assert!(wrong.contains("the reason is 2001 bytes long; at most 2000 are kept"), "{line}: {wrong}");
    }
}

#[test]
fn the_grouped_help_names_every_command() {
    for sub in Cli::command().get_subcommands() {
        let line = format!("\n  {:<12}", sub.get_name());
        assert!(HELP_TEMPLATE.contains(&line), "{} is missing from the help", sub.get_name());
    }
}

#[test]
fn every_command_has_help() {
    for sub in Cli::command().get_subcommands() {
        let wrong = read(&format!("{} --help", sub.get_name())).unwrap_err();
        assert_eq!(wrong.kind(), clap::error::ErrorKind::DisplayHelp, "{}: {wrong}", sub.get_name());
    }
}

#[test]
fn offline_commands_do_not_offer_a_server() {
    let help = |name: &str| read(&format!("{name} --help")).unwrap_err().to_string();
    assert!(!help("check").contains("--server") && !help("serve").contains("--token"));
    let (apply, up) = (help("apply"), help("up"));
    assert!(apply.contains("--server") && up.contains("--token"), "{apply}\n{up}");
}

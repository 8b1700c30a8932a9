//! What can be told of the services an orchestrator needs without starting one: its database, its brokers, where it keeps
//! blobs and what its registry is mirrored to. Writes nothing there but what means nothing, to see that writes are taken: a row of `duties`, an object that goes
//! again. Waits for nothing for long.
//! Must never happen here: a schema brought up to date, a queue declared that was not there.

use std::path::{Path, PathBuf};

use refit_workflows::time::{Timestamp, show_duration};
use serde::Serialize;

use crate::broker::{self, BrokerError};
use crate::clock::Clock;
use crate::config::{BlobPlace, Config, Destination, Queue, Source, Target, Topology, Transport};
use crate::intake::hooks::Hooks;
use crate::store::database::{Database, Schema};
use crate::store::{Store, StoreError, places};

/// How far two clocks may be apart before somebody ought to look, in milliseconds.
const APART_MAX_MS: i64 = 2_000;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and somebody ought to look.
    Warn,
    /// It does not work.
    Fail,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `database`, `source orders`.
    pub check: String,
    /// How it came out.
    pub state: Verdict,
    /// What was found, in words.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), state: Verdict::Ok, found: found.into(), todo: None }
    }

    /// Something to look at.
    pub fn warn(check: impl Into<String>, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check: check.into(), state: Verdict::Warn, found: found.into(), todo: Some(todo.into()) }
    }

    /// Something that does not work.
    pub fn fail(check: impl Into<String>, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check: check.into(), state: Verdict::Fail, found: found.into(), todo: Some(todo.into()) }
    }

    /// How far a clock is from this host's, which is `now`.
    pub fn clock(check: impl Into<String>, theirs: Timestamp, now: Timestamp) -> Self {
        let apart = (theirs.as_millis() - now.as_millis()).abs();
        let shown = show_duration(std::time::Duration::from_millis(apart.unsigned_abs()));
        let found = format!("{shown} apart from this host's");
        match apart <= APART_MAX_MS {
            true => Self::ok(check, found),
            false => Self::warn(
                check,
                found,
                "set both clocks by NTP: what is shown as past or due is off by as much",
            ),
        }
    }
}

/// The file of a SQLite database that these settings name.
pub fn sqlite_file(config: &Config) -> Option<PathBuf> {
    match &config.database_url {
        None => Some(config.data.join("refit.db")),
        Some(url) => {
            url.strip_prefix("sqlite:").map(|path| Path::new(path.trim_start_matches("//")).to_owned())
        }
    }
}

/// Looks at the places where the secrets of steps are.
pub async fn secrets(config: &Config) -> Vec<Finding> {
    let check = "secrets";
    let sources = config.secrets.clone();
    let surveyed = tokio::task::spawn_blocking(move || crate::secrets::survey(&sources)).await;
    let finding = |(place, count): (String, Result<usize, String>)| match count {
        Ok(count) => Finding::ok(check, format!("{place}: {count} found")),
        Err(why) => {
            let todo = "mend `secrets` in refit.yaml, or let this user read it; steps that name secrets fail until then";
            Finding::fail(check, format!("{place}: {why}"), todo)
        }
    };
    surveyed.unwrap_or_default().into_iter().map(finding).collect()
}

/// Tries out the places where blobs' bytes are.
pub async fn blobs(config: &Config) -> Vec<Finding> {
    let check = "blobs";
    let mut findings = Vec::new();
    for place in config.blobs.new.iter().chain(&config.blobs.earlier) {
        if let BlobPlace::Folder(path) = place
            && !path.exists()
        {
            let found = format!("{place} is not there yet: the orchestrator makes it, if no blobs are there");
            findings.push(Finding::ok(check, found));
            continue;
        }
        findings.push(match places::try_out(place).await {
            Ok(()) => Finding::ok(check, format!("{place}: written, read and taken out again")),
            Err(why) => {
                let todo = "mend it, or `blobs` in refit.yaml; until then code and artifacts can be neither stored nor fetched";
                Finding::fail(check, why, todo)
            }
        });
    }
    findings
}

/// Looks at the server that the registry is mirrored to, where there is one.
pub async fn mirror(config: &Config) -> Vec<Finding> {
    match &config.mlflow {
        Some(settings) => crate::mirror::look_at(settings).await,
        None => Vec::new(),
    }
}

/// Looks at the database; `now` is what this host's clock says.
pub async fn database(config: &Config, now: impl Fn() -> Timestamp) -> Vec<Finding> {
    let file = sqlite_file(config);
    let url = match (&config.database_url, &file) {
        (Some(url), _) => url.clone(),
        (None, file) => format!("sqlite:{}", file.as_deref().unwrap_or(Path::new("")).display()),
    };
    if let Some(file) = file.filter(|file| !file.exists()) {
        let found = format!("{} is not there yet", file.display());
        return vec![Finding::ok("database", format!("{found}: the orchestrator makes it"))];
    }
    match look(&url, now).await {
        Ok(findings) => findings,
        Err(StoreError::Unavailable(reason)) => {
            let todo = "start it, or name another with --database-url; a running orchestrator waits for it";
            vec![Finding::fail("database", format!("out of reach: {reason}"), todo)]
        }
        Err(
            error @ (StoreError::Broken(_)
            | StoreError::Corrupt(_)
            | StoreError::Conflict(_)
            | StoreError::Blobs(_)),
        ) => {
            let todo = "check --database-url: user, password, the database's name, and that it is Refit's";
            vec![Finding::fail("database", error.to_string(), todo)]
        }
    }
}

async fn look(url: &str, now: impl Fn() -> Timestamp) -> Result<Vec<Finding>, StoreError> {
    let database = Database::connect(url).await?;
    let version = database.version().await?;
    let mut findings = vec![Finding::ok("database", format!("{} {version} answers", database.kind()))];
    if let Some(clock) = database.clock_ms().await? {
        findings.push(Finding::clock("database clock", Timestamp::from_millis(clock), now()));
    }
    let check = "database schema";
    let store = Store::over(database, Clock::default());
    match store.database().schema().await? {
        Schema::Empty => findings.push(Finding::ok(check, "empty: the orchestrator makes its tables")),
        Schema::Current => {
            findings.push(Finding::ok(check, "the one of this version"));
            findings.push(match store.touch().await {
                Ok(()) => Finding::ok("database writes", "taken"),
                Err(error) => Finding::fail(
                    "database writes",
                    error.to_string(),
                    "free disk space, or name the server that takes writes; until then nothing is recorded",
                ),
            });
        }
        Schema::Newer(version) => {
            let found = format!("version {version}, of a newer refit");
            findings.push(Finding::fail(check, found, "upgrade this program"));
        }
    }
    store.database().close().await;
    Ok(findings)
}

/// Whether anybody could start an orchestrator that listens there: beyond loopback a token is needed.
pub async fn tokens(config: &Config) -> Finding {
    let check = "tokens";
    if config.listen.ip().is_loopback() {
        return Finding::ok(check, format!("none needed on {}", config.listen));
    }
    let todo = "make one with `refit token create --name NAME --role admin`, on the orchestrator's database";
    let url =
        config.database_url.clone().or_else(|| Some(format!("sqlite:{}", sqlite_file(config)?.display())));
    if sqlite_file(config).is_some_and(|file| !file.exists()) {
        let found = format!("none yet: the orchestrator does not start on {} without one", config.listen);
        return Finding::fail(check, found, todo);
    }
    let found = async {
        let database = Database::connect(&url.unwrap_or_default()).await?;
        if database.schema().await? != Schema::Current {
            return Ok(false);
        }
        let store = Store::over(database, Clock::default());
        let any = store.any_token().await;
        store.database().close().await;
        any
    };
    match found.await {
        Ok(true) => Finding::ok(check, format!("there are some, as {} needs", config.listen)),
        Ok(false) => {
            let found = format!("none yet: the orchestrator does not start on {} without one", config.listen);
            Finding::fail(check, found, todo)
        }
        Err(error) => Finding::fail(check, error.to_string(), "see `database`"),
    }
}

/// Looks at a source.
pub async fn source(source: &Source, loopback: bool) -> Vec<Finding> {
    let check = format!("source {}", source.name);
    match &source.transport {
        Transport::Amqp(queue) => match look_at_queue(&check, queue).await {
            Ok(findings) => findings,
            Err(error) => vec![unreachable(check, &error)],
        },
        Transport::Webhook(_) => vec![match Hooks::new(std::slice::from_ref(source), loopback) {
            Ok(_) => Finding::ok(check, format!("requests to /hooks/{}; not tried", source.name)),
            Err(wrong) => {
                let todo = "change it in refit.yaml: the orchestrator does not start with it";
                Finding::fail(check, wrong.problem, todo)
            }
        }],
    }
}

/// Looks at a target. Nothing is sent to a webhook: it would take it for an event.
pub async fn target(target: &Target) -> Vec<Finding> {
    let check = format!("target {}", target.name);
    match &target.destination {
        Destination::Webhook(webhook) => match webhook.secrets.is_empty() {
            false => vec![Finding::ok(check, "a signed webhook; not tried")],
            true => {
                let todo = "give it a secret, so that its receiver can tell who sends";
                vec![Finding::warn(check, "a webhook without a signature; not tried", todo)]
            }
        },
        Destination::Exchange(exchange) => {
            let looked = async {
                let connection = broker::connect(&exchange.broker, "refit doctor").await?;
                let found = broker::find_exchange(&connection, &exchange.exchange).await;
                broker::close(connection).await;
                found
            };
            match looked.await {
                Ok(true) => vec![Finding::ok(check, format!("exchange {} is there", exchange.exchange))],
                Ok(false) => {
                    let found = format!("exchange {} is not there yet", exchange.exchange);
                    vec![Finding::ok(check, format!("{found}: the orchestrator declares it"))]
                }
                Err(error) => vec![unreachable(check, &error)],
            }
        }
    }
}

fn unreachable(check: String, error: &BrokerError) -> Finding {
    let todo = "start the broker, or check its URL, user and virtual host; a running orchestrator tries again by itself";
    Finding::fail(check, error.to_string(), todo)
}

async fn look_at_queue(check: &str, at: &Queue) -> Result<Vec<Finding>, BrokerError> {
    let connection = broker::connect(&at.broker, "refit doctor").await?;
    let queue = at.queue.as_str();
    let looked = async {
        let Some(found) = broker::find_queue(&connection, queue).await? else {
            let found = format!("queue {queue} is not there yet");
            return Ok(vec![match at.topology {
                Topology::Declared(_) => Finding::ok(check, format!("{found}: the orchestrator declares it")),
                Topology::Checked => {
                    Finding::fail(check, found, "make it: `declare: false` leaves that to others")
                }
            }]);
        };
        let (ready, consumers) = (found.messages, found.consumers);
        let words = format!("queue {queue}: {ready} messages ready, {consumers} consumers");
        let mut findings = vec![match consumers {
            0 if ready > 0 => Finding::warn(check, words, "nobody takes them: start the orchestrator"),
            _ => Finding::ok(check, words),
        }];
        // Of one that others make, nothing is expected.
        let Topology::Declared(declaration) = &at.topology else { return Ok(findings) };
        let kind = format!("{check} queue type");
        findings.push(match broker::unlike_declared(&connection, queue, declaration).await? {
            None => Finding::ok(kind, "a durable quorum queue with dead lettering, as Refit declares it"),
            Some(how) => Finding::warn(
                kind,
                format!("not as Refit declares it: {how}"),
                "it is used as it is; a quorum queue with a dead-letter exchange and a delivery limit loses less: delete \
                 it when it is empty, and Refit declares it",
            ),
        });
        let dead = format!("{check} dead letters");
        let name = broker::dead_letter_exchange(queue, declaration);
        if declaration.dead_letter.is_some() {
            findings.push(match broker::find_exchange(&connection, &name).await? {
                true => Finding::ok(dead, format!("exchange {name} is there")),
                false => Finding::fail(
                    dead,
                    format!("exchange {name} is missing"),
                    "make it: `dead_letter` names it",
                ),
            });
            return Ok(findings);
        }
        let (exchange, letters) =
            (broker::find_exchange(&connection, &name).await?, broker::find_queue(&connection, &name).await?);
        findings.push(match (exchange, letters) {
            (true, Some(letters)) => Finding::ok(
                dead,
                format!("exchange and queue {name} are there, {} messages", letters.messages),
            ),
            _ => Finding::warn(
                dead,
                format!("exchange or queue {name} is missing"),
                "what the broker gives up on is dropped; what Refit refuses is in its own table all the same",
            ),
        });
        Ok(findings)
    };
    let findings = looked.await;
    broker::close(connection).await;
    findings
}

#[cfg(test)]
mod tests {
    use refit_workflows::format::Format;

    use super::*;
    use crate::config::{Hook, Scheme, Secret};

    #[tokio::test]
    async fn what_is_not_there_yet_is_no_failure_and_what_is_no_database_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::local(folder.path());
        let now = || Timestamp::from_millis(0);
        let findings = database(&config, now).await;
        assert_eq!((findings.len(), findings[0].state), (1, Verdict::Ok));
        assert!(!folder.path().join("refit.db").exists(), "looking must make nothing");

        std::fs::write(
            folder.path().join("refit.db"),
            "this is no database, but long enough to be read as one",
        )
        .unwrap();
        let findings = database(&config, now).await;
        assert_eq!(findings.last().unwrap().state, Verdict::Fail, "{findings:?}");

        config.listen = "0.0.0.0:7433".parse().unwrap();
        config.data = folder.path().join("elsewhere");
        let finding = tokens(&config).await;
        assert!(finding.state == Verdict::Fail && finding.todo.unwrap().contains("token create"));
    }

    #[tokio::test]
    async fn a_webhook_that_the_orchestrator_does_not_start_with_is_a_failure() {
        let hook = |secrets: &[&str], body_max: usize| Source {
            name: "orders".to_owned(),
            transport: Transport::Webhook(Hook {
                scheme: Scheme::GitHub { secrets: secrets.iter().map(|text| Secret::new(*text)).collect() },
                body_max,
            }),
            format: Format::new("github", None).unwrap(),
        };
        for (hook, told) in [
            (hook(&["short"], 1000), "shorter than"),
            (hook(&[], 1000), "needs a secret"),
            (hook(&["long enough"], Hook::BODY_MAX + 1), "`body_max`"),
        ] {
            let findings = source(&hook, true).await;
            let [found] = findings.as_slice() else { panic!("{findings:?}") };
            assert!(found.state == Verdict::Fail && found.found.contains(told), "{found:?}");
        }
        assert_eq!(source(&hook(&["long enough"], 1000), true).await[0].state, Verdict::Ok);
        let open = Source {
            transport: Transport::Webhook(Hook { scheme: Scheme::None, body_max: 1000 }),
            ..hook(&[], 1000)
        };
        for (loopback, state) in [(true, Verdict::Ok), (false, Verdict::Fail)] {
            assert_eq!(source(&open, loopback).await[0].state, state, "beyond loopback anybody could send");
        }
    }

    #[test]
    fn clocks_that_are_apart_are_told() {
        let at = Timestamp::from_millis;
        assert_eq!(Finding::clock("c", at(1_000), at(0)).state, Verdict::Ok);
        let apart = Finding::clock("c", at(0), at(90_000));
        assert!(apart.state == Verdict::Warn && apart.found.contains("1m 30s"), "{apart:?}");
    }
}

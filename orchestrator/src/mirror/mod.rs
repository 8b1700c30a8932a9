//! Writes the registry to an MLflow server as well: versions with their runs, and aliases. It is brought to what the registry
//! says, whatever it has come to meanwhile: read, what lacks made, aliases moved, read back. No promotion waits for it, and
//! nothing is remembered of what happened here but how far the mirror has come.
//!
//! Must never happen here: something that changes the registry. MLflow is told, and not asked, what is in use.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::Backoff;
use crate::config::{Config, Mlflow};
use crate::doctor::Finding;
use crate::engine::{Engine, EngineError, MirrorNote};
use crate::health::{Part, PartKind};
use crate::outbox::breaker::{Breaker, May};

mod client;
mod pass;
mod plan;
mod record;

use client::{Client, Failure};
use pass::{Pass, Stop};

/// How many models are brought up to date before it is looked again.
const AT_ONCE: i64 = 20;
/// The longest pause of a model when the server could not be used: that may have been the server's fault alone, and yet it may
/// be what it answers about this very model.
const AWAY_PAUSE_LONGEST: Duration = Duration::from_secs(30);
/// The longest pause of a model that fails is a tenth of this, at most five minutes.
const TRIED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Whether a server can be used with these settings, as far as they tell.
///
/// # Errors
/// What is wrong, and what to write.
pub fn check(settings: &Mlflow) -> Result<(), String> {
    client::check(settings)
}

/// Looks at a server, for `refit doctor`. Makes nothing there.
pub(crate) async fn look_at(settings: &Mlflow) -> Vec<Finding> {
    let check = "registry mlflow";
    let todo =
        "start it, or mend `registry.mlflow` in refit.yaml; a running orchestrator tries again by itself";
    let looked = async {
        let client = Client::new(settings).map_err(Failure::away)?;
        let version = client.server_version().await?;
        Ok::<_, Failure>((version, client.experiment(&settings.experiment).await?))
    };
    match looked.await {
        Err(failure) => vec![Finding::fail(check, failure.reason, todo)],
        Ok((version, _)) if !has_aliases(&version) => {
            let found = format!("MLflow {version} answers, which knows no aliases");
            vec![Finding::fail(check, found, "use MLflow 2.3 or newer")]
        }
        Ok((version, experiment)) => {
            let name = &settings.experiment;
            let there = match experiment {
                Some(_) => format!("the experiment {name} is there"),
                None => format!("the experiment {name} is not there yet: the orchestrator makes it"),
            };
            vec![Finding::ok(check, format!("MLflow {version} answers; {there}"))]
        }
    }
}

/// Aliases came with MLflow 2.3.
fn has_aliases(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0u32));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (2, 3)
}

/// Starts the mirror's task, where there is one. It ends soon after `shutdown` is cancelled; what is half done then is found
/// again.
pub fn spawn(engine: &Engine, config: &Config, shutdown: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let Some(settings) = &config.mlflow else { return tasks };
    let part = engine.health().register(PartKind::Mirror, "mlflow");
    match Client::new(settings).and_then(|client| Ok((client, client::place(settings)?))) {
        Ok((client, place)) => {
            let mirror = Mirror {
                engine: engine.clone(),
                settings: settings.clone(),
                client,
                place,
                poll: config.poll,
                part,
                breaker: Breaker::new(TRIED_FOR),
                after: String::new(),
                trouble: BTreeMap::new(),
                said: None,
            };
            tasks.spawn(mirror.run(shutdown.clone()));
        }
        Err(wrong) => {
            // The settings were checked before; it stays on the list all the same, with what is wrong.
            part.degraded(format!("`registry.mlflow` in refit.yaml: {wrong}"));
            let shutdown = shutdown.clone();
            tasks.spawn(async move {
                shutdown.cancelled().await;
                drop(part);
            });
        }
    }
    tasks
}

/// One server, and what is known of it here.
struct Mirror {
    engine: Engine,
    settings: Mlflow,
    client: Client,
    place: String,
    poll: Duration,
    part: Part,
    breaker: Breaker,
    /// The model it was looked at last, so that each has its turn.
    after: String,
    /// Why the latest try of a model failed.
    trouble: BTreeMap<String, String>,
    /// Why the server cannot be used, as it is written down.
    said: Option<String>,
}

impl Mirror {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut outage = Backoff::default();
        loop {
            let pause = match shutdown.run_until_cancelled(self.turn()).await {
                // MLflow may still be doing what it was asked: nobody else begins before that is over.
                None => return,
                Some(Ok(pause)) => {
                    outage.reset();
                    pause
                }
                Some(Err(error)) => {
                    self.part.degraded(format!(
                        "how far it is cannot be read or written in the database: {error}"
                    ));
                    outage.next()
                }
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
        }
        if let Err(error) = self.engine.mirror_leave(&self.place).await {
            tracing::debug!(%error, "another orchestrator takes the mirror over only after a while");
        }
    }

    /// Looks what is due and does it. Gives how long to wait then.
    async fn turn(&mut self) -> Result<Duration, EngineError> {
        let limit = match self.breaker.may(Instant::now()) {
            May::Rest(_) => 0,
            May::Probe | May::All => AT_ONCE,
        };
        let look = self.engine.mirror_look(&self.place, &self.settings.models, &self.after, limit).await?;
        if !look.ours {
            self.trouble.clear();
            self.said = look.error;
            self.breaker.close();
            self.show();
            return Ok(self.poll);
        }
        if self.said.is_none() {
            // Found by whoever had it before.
            self.said = look.error;
        }
        let doubtful = self.breaker.is_open() || self.said.is_some();
        if limit == 0 || doubtful && !self.probe().await? {
            return Ok(self.rest());
        }
        let is_last = i64::try_from(look.due.len()).is_ok_and(|count| count < limit);
        self.after = look.due.last().filter(|_| !is_last).cloned().unwrap_or_default();
        for model in look.due {
            if self.settings.models.is_empty() || self.settings.models.contains(&model) {
                let goes_on = self.bring(&model).await?;
                if !goes_on {
                    return Ok(self.rest());
                }
            }
        }
        self.show();
        Ok(if is_last { self.poll } else { Duration::ZERO })
    }

    /// Whether a server that could not be used can be again.
    async fn probe(&mut self) -> Result<bool, EngineError> {
        match self.client.experiment(&self.settings.experiment).await {
            Ok(_) => self.answered().await.map(|()| true),
            // It answers, with a word of its own.
            Err(failure) if failure.code.is_some() => self.answered().await.map(|()| true),
            Err(failure) => self.away(failure).await.map(|()| false),
        }
    }

    /// Brings one model up to date. False: nothing else is to be tried now.
    async fn bring(&mut self, model: &str) -> Result<bool, EngineError> {
        let pass = Pass::new(&self.engine, &self.client, &self.settings, &self.place, model);
        let (failure, failures) = match pass.go().await {
            Ok(()) => {
                self.trouble.remove(model);
                self.answered().await?;
                return Ok(true);
            }
            Err(Stop::Taken) => return Ok(false),
            Err(Stop::Store(error)) => return Err(error),
            Err(Stop::Failed { failure, failures }) => (failure, failures),
        };
        tracing::debug!(model, failures, "not mirrored: {failure}");
        let is_away = failure.code.is_none();
        let longest = if is_away { AWAY_PAUSE_LONGEST } else { Duration::MAX };
        let pause = self.breaker.pause(failures.saturating_add(1)).min(longest);
        let failed = MirrorNote::Failed { model: model.to_owned(), error: failure.reason.clone(), pause };
        self.engine.mirror_note(&self.place, failed).await?;
        if !is_away {
            self.trouble.insert(model.to_owned(), failure.reason);
            self.show();
            return Ok(true);
        }
        self.away(failure).await?;
        Ok(false)
    }

    /// The server does what it is asked.
    async fn answered(&mut self) -> Result<(), EngineError> {
        self.breaker.close();
        if self.said.take().is_some() {
            self.engine.mirror_note(&self.place, MirrorNote::Stands(None)).await?;
        }
        self.show();
        Ok(())
    }

    /// The server cannot be used.
    async fn away(&mut self, failure: Failure) -> Result<(), EngineError> {
        let now = Instant::now();
        self.breaker.unreachable(now);
        if let Some(rest) = failure.rest {
            self.breaker.rest(rest, now);
        }
        let pause = match self.breaker.may(now) {
            May::Rest(until) => until.saturating_duration_since(now),
            May::Probe | May::All => Duration::ZERO,
        };
        self.said = Some(failure.reason.clone());
        self.show();
        let stands = MirrorNote::Stands(Some((failure.reason, pause)));
        self.engine.mirror_note(&self.place, stands).await?;
        Ok(())
    }

    fn rest(&self) -> Duration {
        let now = Instant::now();
        match self.breaker.may(now) {
            May::Rest(until) => until.saturating_duration_since(now).min(self.poll),
            May::Probe | May::All => self.poll,
        }
    }

    /// Shows in readiness how the mirror is.
    fn show(&self) {
        match (&self.said, self.trouble.first_key_value()) {
            (Some(reason), _) => self.part.degraded(reason.as_str()),
            (None, Some((model, reason))) => self.part.degraded(format!("model {model}: {reason}")),
            (None, None) => self.part.working(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_server_is_known_by_where_it_is_and_never_by_who_asks() {
        let place = |url: &str| client::place(&Mlflow::at(Secret::new(url)));
        assert_eq!(place("https://ada:hunter2@mlflow.internal/").unwrap(), "https://mlflow.internal");
        assert_eq!(place("http://127.0.0.1:5000/mlflow/").unwrap(), "http://127.0.0.1:5000/mlflow");
        for (url, told) in [
            ("mlflow.internal", "not a URL"),
            ("sqlite:///mlflow.db", "must begin with https://"),
            ("https://mlflow.internal/#/models", "address alone"),
        ] {
            let wrong = place(url).unwrap_err();
            assert!(wrong.contains(told), "{url}: {wrong}");
        }
        let both = Mlflow { token: Some(Secret::new("t")), ..Mlflow::at(Secret::new("https://ada:x@h")) };
        assert!(check(&both).unwrap_err().contains("either"));
        let token = Mlflow { token: Some(Secret::new("a\nb")), ..Mlflow::at(Secret::new("https://h")) };
        let wrong = check(&token).unwrap_err();
        assert!(wrong.contains("`token`") && !wrong.contains("a\nb"), "{wrong}");
    }

    #[test]
    fn aliases_came_with_a_version() {
        for (version, has) in
            [("3.17.2", true), ("2.3.0", true), ("2.10.1", true), ("2.2.2", false), ("1.30.0", false)]
        {
            assert_eq!(has_aliases(version), has, "{version}");
        }
    }
}

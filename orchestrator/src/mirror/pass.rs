//! One model is brought to what the registry says: read, what lacks made, aliases moved, read back. Whatever was half done
//! before, or done without an answer, is found and not done again. Must never happen here: a version that is made without
//! having been looked for.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::client::{Client, Failure, MISSING, Versions};
use super::plan::{self, Move};
use super::record::{EVIDENCE_TAG, MirroredRun};
use crate::config::Mlflow;
use crate::engine::{Engine, EngineError, MirrorNote, WantedModel, WantedVersion};
use crate::store::TAKE_AGAIN;

/// The most pages of a model's versions that are looked through.
const PAGES_MAX: usize = 25;
/// How many metrics, and params, are told at once (MLflow takes 1000 and 100).
const METRICS_AT_ONCE: usize = 500;
const PARAMS_AT_ONCE: usize = 100;

/// Why a pass did not come to its end.
pub(super) enum Stop {
    /// Another orchestrator has the mirror.
    Taken,
    /// The database did not do its part.
    Store(EngineError),
    /// MLflow did not.
    Failed {
        failure: Failure,
        /// How often in a row it had failed before.
        failures: i64,
    },
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        Self::Store(error)
    }
}

/// One look at one model.
pub(super) struct Pass<'a> {
    engine: &'a Engine,
    client: &'a Client,
    settings: &'a Mlflow,
    place: &'a str,
    model: &'a str,
    /// How often in a row it had failed before.
    failures: i64,
    /// When the mirror was taken last.
    taken_at: Option<Instant>,
    experiment: Option<String>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        client: &'a Client,
        settings: &'a Mlflow,
        place: &'a str,
        model: &'a str,
    ) -> Self {
        Self { engine, client, settings, place, model, failures: 0, taken_at: None, experiment: None }
    }

    pub(super) async fn go(mut self) -> Result<(), Stop> {
        let mut wanted = self.wanted().await?;
        let client = self.client;
        let seen = match self.call(client.model(self.model)).await? {
            Some(seen) => seen,
            None => {
                self.call(client.make_model(self.model)).await?;
                if !wanted.known.is_empty() {
                    tracing::warn!(
                        model = self.model,
                        "the model is not in MLflow any more: it is made again"
                    );
                    self.note(MirrorNote::Lacks { model: self.model.to_owned(), versions: None }).await?;
                    wanted = self.wanted().await?;
                }
                BTreeMap::new()
            }
        };
        let gone = self.gone(&wanted).await?;
        let mut noted = Vec::new();
        if !gone.is_empty() {
            let which: Vec<String> = gone.iter().map(i64::to_string).collect();
            noted.push(format!("versions were taken out, and are made again: {}", which.join(", ")));
            self.note(MirrorNote::Lacks { model: self.model.to_owned(), versions: Some(gone) }).await?;
            wanted = self.wanted().await?;
        }
        if !wanted.missing.is_empty() {
            for version in &wanted.missing {
                self.make(version).await?;
            }
            wanted = self.wanted().await?;
        }
        let plan = plan::plan(&wanted, &seen);
        noted.extend(plan.foreign.iter().map(|foreign| format!("{foreign}, and is set back")));
        for noted in &noted {
            tracing::warn!(model = self.model, "somebody else changes MLflow: {noted}");
        }
        if !plan.moves.is_empty() && !self.set(&wanted, &plan.moves).await? {
            return Ok(());
        }
        let is_complete = wanted.missing.is_empty() && !plan.waiting;
        let ours = wanted.aliases.iter().filter_map(|at| Some((at.alias.clone(), at.number?)));
        let reached = MirrorNote::Reached {
            model: self.model.to_owned(),
            history: if is_complete { wanted.history } else { wanted.reached },
            aliases: ours.collect(),
            noted: (!noted.is_empty()).then(|| noted.join("; ")),
            look_in: if is_complete { self.settings.check_every } else { std::time::Duration::ZERO },
        };
        self.note(reached).await
    }

    async fn wanted(&mut self) -> Result<WantedModel, Stop> {
        let wanted = self.engine.mirror_wants(self.place, self.model).await?;
        self.failures = wanted.failures;
        Ok(wanted)
    }

    /// Writes something down.
    async fn note(&mut self, note: MirrorNote) -> Result<(), Stop> {
        if !self.engine.mirror_note(self.place, note).await? {
            return Err(Stop::Taken);
        }
        self.taken_at = Some(Instant::now());
        Ok(())
    }

    /// Asks MLflow, as long as the mirror is this orchestrator's for longer than an answer may take.
    async fn call<T>(&mut self, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Stop> {
        match self.try_call(call).await? {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(self.failed(failure)),
        }
    }

    async fn try_call<T>(
        &mut self,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Result<T, Failure>, Stop> {
        if self.taken_at.is_none_or(|at| at.elapsed() > TAKE_AGAIN) {
            self.note(MirrorNote::GoesOn).await?;
        }
        Ok(call.await)
    }

    fn failed(&self, failure: Failure) -> Stop {
        Stop::Failed { failure, failures: self.failures }
    }

    /// The versions that are not there any more, or are others under the same numbers.
    async fn gone(&mut self, wanted: &WantedModel) -> Result<Vec<i64>, Stop> {
        if wanted.known.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.client;
        let (mut seen, mut page) = (BTreeMap::new(), None);
        for _ in 0..PAGES_MAX {
            let found: Versions = self.call(client.versions(self.model, page.as_deref())).await?;
            for version in found.versions {
                let evidence = version.tags.into_iter().find(|tag| tag.key == EVIDENCE_TAG);
                seen.insert(version.version, evidence.map(|tag| tag.value));
            }
            page = found.next_page_token.filter(|token| !token.is_empty());
            if page.is_none() {
                return Ok(plan::gone(&wanted.known, &seen, 0));
            }
        }
        // Newest first: what comes behind was not looked at.
        let down_to = seen.first_key_value().map_or(i64::MAX, |(number, _)| *number);
        Ok(plan::gone(&wanted.known, &seen, down_to))
    }

    /// Finds a version, or makes it; its run first, so that a version that is there has all of it.
    async fn make(&mut self, version: &WantedVersion) -> Result<(), Stop> {
        let (client, evidence) = (self.client, version.evidence.as_str());
        let number = match self.call(client.version_of(self.model, evidence)).await? {
            Some(number) => number,
            None => {
                let mirrored = MirroredRun::of(version, self.settings.refit_url.as_deref());
                let run = self.run_of(evidence, &mirrored).await?;
                let made = self.call(client.make_version(self.model, &run, &mirrored)).await?;
                tracing::info!(model = self.model, version = version.version, number = made, "in MLflow");
                made
            }
        };
        let model = self.model.to_owned();
        self.note(MirrorNote::Has { model, version: version.version, number }).await
    }

    async fn run_of(&mut self, evidence: &str, mirrored: &MirroredRun) -> Result<String, Stop> {
        let client = self.client;
        let experiment = self.experiment().await?;
        let run = match self.call(client.run_of(&experiment, evidence)).await? {
            Some(run) => run,
            None => self.call(client.make_run(&experiment, mirrored)).await?,
        };
        for metrics in mirrored.metrics.chunks(METRICS_AT_ONCE) {
            self.call(client.log(&run, mirrored.at, metrics, &[])).await?;
        }
        for params in mirrored.params.chunks(PARAMS_AT_ONCE) {
            self.call(client.log(&run, mirrored.at, &[], params)).await?;
        }
        self.call(client.end_run(&run, mirrored.at)).await?;
        Ok(run)
    }

    async fn experiment(&mut self) -> Result<String, Stop> {
        if let Some(known) = &self.experiment {
            return Ok(known.clone());
        }
        let (client, name) = (self.client, self.settings.experiment.as_str());
        let mut found = self.call(client.experiment(name)).await?;
        if found.is_none() {
            self.call(client.make_experiment(name)).await?;
            found = self.call(client.experiment(name)).await?;
        }
        let lost = || Failure::away(format!("the experiment {name} was made, and is not there"));
        let found = found.ok_or_else(|| self.failed(lost()))?;
        self.experiment = Some(found.clone());
        Ok(found)
    }

    /// Moves aliases and reads back that they have moved. False: a version is not there any more; it has to be looked for.
    async fn set(&mut self, wanted: &WantedModel, moves: &[Move]) -> Result<bool, Stop> {
        let client = self.client;
        let aliases = moves.iter().map(|step| (step.alias.clone(), step.number)).collect();
        self.note(MirrorNote::Intends { model: self.model.to_owned(), aliases }).await?;
        for Move { alias, version, number } in moves {
            match self.try_call(client.set_alias(self.model, alias, *number)).await? {
                Ok(()) => {}
                Err(failure) if failure.is(MISSING) => {
                    let (model, versions) = (self.model.to_owned(), Some(vec![*version]));
                    self.note(MirrorNote::Lacks { model, versions }).await?;
                    return Ok(false);
                }
                Err(failure) => return Err(self.failed(failure)),
            }
        }
        let seen = self.call(client.model(self.model)).await?.unwrap_or_default();
        match plan::plan(wanted, &seen).moves.first() {
            None => Ok(true),
            Some(step) => {
                let there = seen.get(&step.alias).map_or("nothing".to_owned(), i64::to_string);
                let reason = format!(
                    "{} was moved to {} and pointed to {there} when it was read back: somebody else moves it as well",
                    step.alias, step.number
                );
                Err(self.failed(Failure { reason, code: Some("MOVED".to_owned()), rest: None }))
            }
        }
    }
}

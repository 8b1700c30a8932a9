//! What an orchestrator or a worker is told, from three layers: `refit.yaml`, then `REFIT_*` variables, then flags;
//! the later wins. Reads the file and builds the configurations; starts nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use refit_orchestrator::config::{Source, Target};
use refit_workflows::time::parse_duration;
use serde::Deserialize;

use crate::args::{Broker, ConfigFile, Database, Place, WorkArgs};
use crate::exit::Usage;

mod retention;
mod secret;
mod sources;
mod targets;

use retention::RetentionSettings;
use sources::SourceSettings;
use targets::TargetSettings;

/// The name looked for in the current folder.
const FILE_NAME: &str = "refit.yaml";
/// The folder everything is kept in when nobody names another.
const DATA_DEFAULT: &str = ".refit";
/// The largest settings file, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// `refit.yaml`. Everything in it is optional; unknown keys are refused.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    listen: Option<SocketAddr>,
    data: Option<PathBuf>,
    database_url: Option<String>,
    amqp: AmqpSettings,
    sources: BTreeMap<String, SourceSettings>,
    targets: BTreeMap<String, TargetSettings>,
    hosts: Vec<String>,
    #[serde(deserialize_with = "duration")]
    grace: Option<Duration>,
    retention: RetentionSettings,
    worker: WorkerSettings,
}

/// The broker that flags and variables name: the one of every source and target that names no other.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AmqpSettings {
    url: Option<String>,
    /// Without sources, the queue that events come from.
    queue: Option<String>,
    /// The exchange of the target `amqp`.
    exchange: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WorkerSettings {
    name: Option<String>,
    slots: Option<u32>,
    labels: BTreeMap<String, String>,
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_duration(&text).map_err(serde::de::Error::custom)).transpose()
}

impl Settings {
    /// Reads the file that was named, else `refit.yaml` of the current folder when there is one.
    ///
    /// # Errors
    /// The named file is missing, or something in it is wrong: file, line and column are told.
    pub(crate) fn load(choice: &ConfigFile) -> anyhow::Result<Self> {
        let path = match &choice.config {
            Some(path) => path.clone(),
            None if Path::new(FILE_NAME).is_file() => PathBuf::from(FILE_NAME),
            None => return Ok(Self::default()),
        };
        let size =
            std::fs::metadata(&path).with_context(|| format!("failed to read {}", path.display()))?.len();
        if size > FILE_BYTES_MAX {
            return Err(Usage(format!("failed to read {}: it is larger than 256 KiB", path.display())).into());
        }
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        Self::parse(&text).map_err(|wrong| Usage(format!("failed to read {}:{wrong}", path.display())).into())
    }

    /// The error begins with `LINE:COLUMN: `, to stand behind the file's name.
    fn parse(text: &str) -> Result<Self, String> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        // No snippet: the file may hold secrets.
        let options = serde_yaml::options! { with_snippet: false };
        let settings: Self = serde_yaml::from_str_with_options(text, options).map_err(|wrong| {
            let place =
                wrong.location().map(|at| format!("{}:{}: ", at.line(), at.column())).unwrap_or_default();
            let words = wrong.without_snippet().to_string();
            // The place stands at the front already.
            let words =
                words.split(" at line ").next().unwrap_or(&words).trim_end_matches([',', ':']).to_owned();
            format!("{place}{words}")
        })?;
        Ok(settings)
    }

    /// What the orchestrator is told.
    ///
    /// # Errors
    /// A source or target that cannot work: it names no broker, or its secret is not there.
    pub(crate) fn orchestrator(
        &self,
        place: &Place,
        broker: &Broker,
        grace: Option<Duration>,
        hosts: &[String],
    ) -> anyhow::Result<refit_orchestrator::Config> {
        let mut config = refit_orchestrator::Config::local(self.data(place.database.data.as_ref()));
        config.listen = place.listen.or(self.listen).unwrap_or(config.listen);
        config.database_url = given(&place.database.database_url).or_else(|| self.database_url.clone());
        let url = given(&broker.amqp_url).or_else(|| self.amqp.url.clone());
        let default = url.map(refit_orchestrator::config::Broker::at);
        config.sources = sources::all(&self.sources, default.as_ref())?;
        let queue = given(&broker.amqp_queue).or_else(|| self.amqp.queue.clone());
        let configured = !config.sources.is_empty();
        match (&default, queue) {
            (Some(broker), Some(queue)) => config.sources.push(Source::queue(broker.clone(), queue)),
            (Some(broker), None) if !configured => {
                config.sources.push(Source::queue(broker.clone(), Source::QUEUE_DEFAULT));
            }
            (Some(_), None) | (None, _) => {}
        }
        config.targets = targets::all(&self.targets, default.as_ref())?;
        let exchange = given(&broker.amqp_exchange).or_else(|| self.amqp.exchange.clone());
        config
            .targets
            .extend(default.zip(exchange).map(|(broker, exchange)| Target::exchange(broker, exchange)));
        config.hosts = if hosts.is_empty() { self.hosts.clone() } else { hosts.to_vec() };
        config.retention = self.retention.retention();
        config.grace = grace.or(self.grace).unwrap_or(config.grace);
        Ok(config)
    }

    /// What an orchestrator on this database would be told, for acting on it without one.
    pub(crate) fn database(database: &Database) -> refit_orchestrator::Config {
        let settings = Self::default();
        let mut config = refit_orchestrator::Config::local(settings.data(database.data.as_ref()));
        config.database_url = given(&database.database_url);
        // Somebody sits in front of this: say that the database is away, rather than wait for ever.
        config.database_wait = Some(Duration::from_secs(10));
        config
    }

    /// What a worker of its own is told.
    pub(crate) fn worker(&self, args: &WorkArgs, server: &str, token: Option<&str>) -> refit_workers::Config {
        let mut labels = self.worker.labels.clone();
        labels.extend(args.labels.iter().cloned());
        refit_workers::Config {
            server: server.to_owned(),
            token: token.filter(|token| !token.is_empty()).map(str::to_owned),
            name: args.name.clone().or_else(|| self.worker.name.clone()).unwrap_or_else(host_name),
            slots: self.slots(args.slots),
            labels,
            data: worker_folder(&self.data(args.data.as_ref())),
        }
    }

    /// What the worker inside `refit up` is told.
    pub(crate) fn local_worker(
        &self,
        server: &str,
        data: &Path,
        slots: Option<u32>,
    ) -> refit_workers::Config {
        refit_workers::Config {
            server: server.to_owned(),
            token: None,
            name: self.worker.name.clone().unwrap_or_else(host_name),
            slots: self.slots(slots),
            labels: self.worker.labels.clone(),
            data: worker_folder(data),
        }
    }

    fn data(&self, named: Option<&PathBuf>) -> PathBuf {
        named.or(self.data.as_ref()).cloned().unwrap_or_else(|| PathBuf::from(DATA_DEFAULT))
    }

    fn slots(&self, named: Option<u32>) -> u32 {
        let cpus = || std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        named.or(self.worker.slots).unwrap_or_else(cpus).clamp(1, 256)
    }
}

/// A flag or variable that says something: one that is set to nothing counts as not given.
fn given(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

/// A worker's part of the data folder: apart from the orchestrator's, which may use the same one.
pub(crate) fn worker_folder(data: &Path) -> PathBuf {
    data.join("worker")
}

/// This host's name, as far as it can be told and fits a worker's name.
fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .collect();
    if name.is_empty() { "worker".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
listen: 10.0.0.1:80
data: /var/lib/refit
database_url: postgres://db/refit
amqp: { url: amqp://broker, queue: mine, exchange: out }
sources: { orders: { amqp: { queue: orders } } }
targets: { audit: { webhook: { url: https://audit.example/hook } } }
hosts: [refit.internal]
grace: 90s
worker: { name: gpu-7, slots: 3, labels: { zone: eu } }
";

    fn names(config: &refit_orchestrator::Config) -> (Vec<&str>, Vec<&str>) {
        let sources = config.sources.iter().map(|source| source.name.as_str()).collect();
        (sources, config.targets.iter().map(|target| target.name.as_str()).collect())
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let settings = Settings::parse(FILE).unwrap();
        let config = settings.orchestrator(&Place::default(), &Broker::default(), None, &[]).unwrap();
        assert_eq!(config.listen.to_string(), "10.0.0.1:80");
        assert_eq!(names(&config), (vec!["orders", "mine"], vec!["audit", "amqp"]));
        assert_eq!(
            (config.grace, config.hosts.as_slice()),
            (Duration::from_secs(90), &["refit.internal".to_owned()][..])
        );

        let place = Place {
            listen: Some("127.0.0.1:1".parse().unwrap()),
            database: Database { data: Some("d".into()), database_url: Some("sqlite:x".to_owned()) },
        };
        let broker = Broker { amqp_queue: Some("other".to_owned()), ..Broker::default() };
        let config =
            settings.orchestrator(&place, &broker, Some(Duration::from_secs(1)), &["h".to_owned()]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:1");
        assert_eq!(config.database_url.as_deref(), Some("sqlite:x"));
        assert_eq!(names(&config).0, ["orders", "other"]);
        assert_eq!((config.grace, config.hosts), (Duration::from_secs(1), vec!["h".to_owned()]));
    }

    #[test]
    fn without_a_file_everything_is_local() {
        let config =
            Settings::default().orchestrator(&Place::default(), &Broker::default(), None, &[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:7433");
        assert_eq!(config.data, PathBuf::from(".refit"));
        assert_eq!((config.sources.len(), config.targets.len(), config.database_url), (0, 0, None));
        assert!(Settings::parse("# nothing yet\n").is_ok());
    }

    #[test]
    fn mistakes_are_refused_with_their_place() {
        for (text, place) in [
            ("listen: 127.0.0.1:1\nlisten_on: x\n", "2:1: "),
            ("amqp:\n  uri: x\n", "2:3: "),
            ("listen: nonsense\n", "1:9: "),
            ("grace: 10\n", "1:8: "),
            ("hosts: [a]\nhosts: [b]\n", "2:1: "),
        ] {
            let wrong = Settings::parse(text).unwrap_err();
            assert!(wrong.starts_with(place), "{text}: {wrong}");
        }
    }
}

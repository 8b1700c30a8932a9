//! What an orchestrator or a worker is told, from three layers: `refit.yaml`, then `REFIT_*` variables, then flags;
//! the later wins. Reads the file and builds the configurations; starts nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use refit_orchestrator::config::{Secret, Source, Target};
use refit_workers::GpuChoice;
use refit_workflows::time::parse_duration;
use refit_workflows::units::parse_size;
use serde::Deserialize;

use crate::args::{self, Broker, ConfigFile, Database, Place, WorkArgs};
use crate::exit::Usage;

mod blobs;
mod broker;
mod format;
mod hooks;
mod registry;
mod retention;
mod secret;
mod secrets;
mod sources;
mod targets;
mod wrong;

use blobs::BlobsSettings;
use broker::TlsSettings;
use registry::RegistrySettings;
use retention::RetentionSettings;
use secret::SecretUrl;
use secrets::SecretsSettings;
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
    #[serde(deserialize_with = "grace")]
    grace: Option<Duration>,
    retention: RetentionSettings,
    secrets: SecretsSettings,
    blobs: BlobsSettings,
    registry: RegistrySettings,
    worker: WorkerSettings,
}

/// The broker that flags and variables name: the one of every source and target that names no other.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AmqpSettings {
    url: Option<SecretUrl>,
    tls: Option<TlsSettings>,
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
    cpus: Option<u32>,
    #[serde(deserialize_with = "size")]
    memory: Option<u64>,
    #[serde(deserialize_with = "gpus")]
    gpus: Option<GpuChoice>,
    #[serde(deserialize_with = "size")]
    cache_max: Option<u64>,
}

/// A text that is read further.
fn parsed<'de, D, T>(deserializer: D, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse(&text).map_err(serde::de::Error::custom)).transpose()
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    parsed(deserializer, parse_duration)
}

fn grace<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    parsed(deserializer, args::grace)
}

fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    parsed(deserializer, parse_size)
}

fn gpus<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<GpuChoice>, D::Error> {
    parsed(deserializer, |text| text.parse())
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
        let settings: Self = wrong::read(text)?;
        sources::check(&settings.sources, text).map_err(|wrong| {
            let place = wrong.at.map(|(line, column)| format!("{line}:{column}: ")).unwrap_or(" ".to_owned());
            format!("{place}{}", wrong.message)
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
        let default = self.broker(broker)?;
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
        config.secrets = self.secrets.sources()?;
        config.blobs = self.blobs.places()?;
        config.mlflow = self.registry.mlflow(given(&place.mlflow_url))?;
        config.grace = grace.or(self.grace).unwrap_or(config.grace);
        Ok(config)
    }

    /// The broker that flags and variables name, else `amqp` of the file; its TLS is the file's.
    fn broker(&self, named: &Broker) -> anyhow::Result<Option<refit_orchestrator::config::Broker>> {
        let flag = given(&named.amqp_url).map(|url| SecretUrl::Text(Secret::new(url)));
        let url = flag.as_ref().or(self.amqp.url.as_ref());
        url.map(|url| broker::configured("amqp", Some(url), self.amqp.tls.as_ref(), None)).transpose()
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
            cpus: args.cpus.or(self.worker.cpus),
            memory: args.memory.or(self.worker.memory),
            gpus: args.gpus.clone().or_else(|| self.worker.gpus.clone()),
            data: worker_folder(&self.data(args.data.as_ref())),
            cache_bytes_max: self.cache_bytes_max(args.cache_max),
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
            cpus: self.worker.cpus,
            memory: self.worker.memory,
            gpus: self.worker.gpus.clone(),
            data: worker_folder(data),
            cache_bytes_max: self.cache_bytes_max(None),
        }
    }

    fn data(&self, named: Option<&PathBuf>) -> PathBuf {
        named.or(self.data.as_ref()).cloned().unwrap_or_else(|| PathBuf::from(DATA_DEFAULT))
    }

    fn cache_bytes_max(&self, named: Option<u64>) -> u64 {
        named.or(self.worker.cache_max).unwrap_or(refit_workers::Config::CACHE_BYTES_MAX)
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
    use refit_orchestrator::config::{Argument, ExchangeType, Tls, Topology, Transport};

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
        assert_eq!(names(&config), (vec!["orders", "amqp:mine"], vec!["audit", "amqp"]));
        assert_eq!(
            (config.grace, config.hosts.as_slice()),
            (Duration::from_secs(90), &["refit.internal".to_owned()][..])
        );

        let place = Place {
            listen: Some("127.0.0.1:1".parse().unwrap()),
            database: Database { data: Some("d".into()), database_url: Some("sqlite:x".to_owned()) },
            mlflow_url: Some("http://mlflow:5000".to_owned()),
        };
        let broker = Broker { amqp_queue: Some("other".to_owned()), ..Broker::default() };
        let config =
            settings.orchestrator(&place, &broker, Some(Duration::from_secs(1)), &["h".to_owned()]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:1");
        assert_eq!(config.database_url.as_deref(), Some("sqlite:x"));
        assert_eq!(names(&config).0, ["orders", "amqp:other"]);
        assert_eq!(config.mlflow.unwrap().url.reveal(), "http://mlflow:5000");
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

    #[test]
    fn a_mistake_in_a_source_is_told_with_its_place() {
        let amqp = "sources:\n  rows:\n    amqp: { queue: q }\n    format: json\n    mapping:\n";
        for (text, place, words) in [
            (format!("{amqp}      type: body.op +\n"), "6:", "source `rows`: mapping of `type`: "),
            (format!("{amqp}      type: \"'row.' + bod.op\"\n"), "6:23: ", "`bod` is not known here"),
            (
                format!("{amqp}      type: \"'a'\"\n      subject: |\n        'x' +\n        bod.op\n"),
                "9:9: ",
                "`bod` is not known here",
            ),
            (format!("{amqp}      typ: \"'a'\"\n"), "6:12: ", "did you mean `type`?"),
            (
                "sources: { a: { amqp: { queue: q }, format: xml } }\n".to_owned(),
                "1:45: ",
                "there is no format",
            ),
            ("sources: { a: { amqp: { queue: q, prefetch: 0 } } }\n".to_owned(), " ", "1 to 2000"),
            ("sources: { A b: { amqp: { queue: q } } }\n".to_owned(), " ", "source `A b`: its name"),
            (
                "sources: { a: { amqp: { queue: q, declare: false, delivery_limit: 3 } } }\n".to_owned(),
                " ",
                "`delivery_limit` changes the broker",
            ),
        ] {
            let wrong = Settings::parse(&text).unwrap_err();
            assert!(wrong.starts_with(place) && wrong.contains(words), "{text}: {wrong}");
        }
    }

    #[test]
    fn a_source_is_configured_as_the_file_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["ca.pem", "refit.pem", "refit.key"] {
            std::fs::write(path(name), "").unwrap();
        }
        std::fs::write(path("url"), "amqps://broker.internal\n").unwrap();
        let at = folder.path().display();
        let text = format!(
            "
amqp: {{ url: {{ file: {at}/url }}, tls: {{ ca: {at}/ca.pem }} }}
sources:
  orders:
    amqp:
      tls: {{ certificate: {at}/refit.pem, key: {at}/refit.key, server_name: other }}
      queue: refit.orders
      bindings: [{{ exchange: shop, declare_exchange: headers, headers: {{ kind: orders, rows: 3, full: true }} }}]
      prefetch: 7
      delivery_limit: 3
      dead_letter: shop.dead
    format: debezium
  labels: {{ amqp: {{ queue: labels, declare: false }} }}
  other: {{ amqp: {{ url: amqp://elsewhere, queue: q }} }}
"
        );
        let settings = Settings::parse(&text).unwrap();
        let config = settings.orchestrator(&Place::default(), &Broker::default(), None, &[]).unwrap();
        let found = |name: &str| {
            let source = config.sources.iter().find(|source| source.name == name).unwrap();
            let Transport::Amqp(queue) = &source.transport else { panic!("{source:?}") };
            (source.format.name(), queue.clone())
        };
        let (format, orders) = found("orders");
        assert_eq!(
            (format, orders.prefetch, orders.broker.url.reveal()),
            ("debezium", 7, "amqps://broker.internal")
        );
        assert_eq!(orders.broker.tls.server_name.as_deref(), Some("other"));
        assert_eq!(orders.broker.tls.client.as_ref().unwrap().key, path("refit.key"));
        let Topology::Declared(declaration) = &orders.topology else { panic!("{:?}", orders.topology) };
        assert_eq!((declaration.delivery_limit, declaration.dead_letter.as_deref()), (3, Some("shop.dead")));
        let binding = &declaration.bindings[0];
        let headers: Vec<_> =
            binding.headers.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let asked = [
            ("full", Argument::Flag(true)),
            ("kind", Argument::Text("orders".to_owned())),
            ("rows", Argument::Number(3)),
        ];
        assert_eq!((binding.declare_exchange, headers.as_slice()), (Some(ExchangeType::Headers), &asked[..]));
        let (format, labels) = found("labels");
        assert_eq!(
            (format, labels.prefetch, labels.broker.tls.ca),
            ("cloudevents", 250, Some(path("ca.pem")))
        );
        assert!(matches!(labels.topology, Topology::Checked));
        // Another broker is not known by this one's authority.
        assert_eq!(found("other").1.broker.tls, Tls::default());
    }

    #[test]
    fn a_broker_that_cannot_be_used_is_told() {
        for (amqp, words) in [
            ("queue: q", "no broker is named"),
            ("queue: q, url: 'http://x'", "its broker's URL is none"),
            ("queue: q, url: amqp://x, tls: { server_name: y }", "`tls` is for amqps:// URLs"),
            ("queue: q, url: amqps://x, tls: { key: Cargo.toml }", "`certificate` and `key` together"),
            ("queue: q, url: amqps://x, tls: { ca: nowhere.pem }", "nowhere.pem, which is no file"),
            ("queue: q, url: { env: REFIT_TEST_UNSET }", "REFIT_TEST_UNSET"),
        ] {
            let settings = Settings::parse(&format!("sources: {{ a: {{ amqp: {{ {amqp} }} }} }}")).unwrap();
            let wrong = settings.orchestrator(&Place::default(), &Broker::default(), None, &[]).unwrap_err();
            let wrong = wrong.to_string();
            assert!(wrong.starts_with("source `a`: ") && wrong.contains(words), "{amqp}: {wrong}");
        }
    }

    const EVENTS_PAGE: &str = include_str!("../../../docs/events.md");

    const WORKERS_PAGE: &str = include_str!("../../../docs/workers.md");

    const MODELS_PAGE: &str = include_str!("../../../docs/models.md");

    /// The code of the pages' blocks in `yaml`, each with the words behind it.
    fn examples() -> impl Iterator<Item = (&'static str, &'static str)> {
        let pages = [EVENTS_PAGE, WORKERS_PAGE, MODELS_PAGE];
        let blocks = pages.into_iter().flat_map(|page| page.split("\n```yaml").skip(1));
        blocks.filter_map(|block| {
            let (mark, rest) = block.split_once('\n')?;
            Some((mark.trim(), rest.split("\n```").next()?))
        })
    }

    #[test]
    fn every_example_on_the_pages_of_events_workers_and_models_is_sound() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "hunter2").unwrap();
        let place = serde_json::json!({ "file": secret });
        let (mut settings, mut targets) = (0, 0);
        for (mark, code) in examples() {
            match mark {
                "" => {
                    let read = Settings::parse(&format!("{code}\n"));
                    read.unwrap_or_else(|wrong| panic!("{wrong}:\n{code}"));
                    settings += 1;
                    targets += targets_of(code, &place);
                }
                "workflow" => {
                    let sound = refit_workflows::definition::Workflow::parse_all(code);
                    assert!(sound.is_ok(), "{:#?}:\n{code}", sound.err());
                }
                other => panic!("`yaml {other}` is no kind of example:\n{code}"),
            }
        }
        assert!(settings >= 15 && targets >= 5, "only {settings} examples with {targets} targets were found");
    }

    /// How many targets an example configures. Its secrets are at `place`; everything else must be as it stands.
    fn targets_of(code: &str, place: &serde_json::Value) -> usize {
        let mut written: serde_json::Value = serde_yaml::from_str(code).unwrap();
        if written.get("targets").is_none() {
            return 0;
        }
        put_secrets(&mut written, place);
        let settings = Settings::parse(&written.to_string()).unwrap();
        let config = settings.orchestrator(&Place::default(), &Broker::default(), None, &[]);
        config.unwrap_or_else(|wrong| panic!("{wrong}:\n{code}")).targets.len()
    }

    fn put_secrets(value: &mut serde_json::Value, place: &serde_json::Value) {
        match value {
            serde_json::Value::Object(fields)
                if fields.contains_key("env") || fields.contains_key("file") =>
            {
                *value = place.clone();
            }
            serde_json::Value::Object(fields) => {
                fields.values_mut().for_each(|field| put_secrets(field, place))
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| put_secrets(item, place)),
            _ => {}
        }
    }

    /// The keys that stand beside one that there is not.
    fn keys_beside_nothing(settings: &str) -> Vec<String> {
        let wrong = Settings::parse(settings).unwrap_err();
        let keys = wrong.split("expected").nth(1).unwrap().split(['`', '\'', '"', ' ', ',']);
        let keys = keys.filter(|key| key.contains(|c: char| c.is_ascii_lowercase()));
        keys.filter(|key| !matches!(*key, "one" | "of")).map(str::to_owned).collect()
    }

    #[test]
    fn every_key_of_a_queue_and_of_mlflow_is_on_its_page() {
        for (settings, page, count) in [
            ("sources: { a: { amqp: { queue: q, nothing: 1 } } }\n", EVENTS_PAGE, 9),
            ("registry: { mlflow: { nothing: 1 } }\n", MODELS_PAGE, 6),
        ] {
            let keys = keys_beside_nothing(settings);
            assert!(keys.len() >= count, "the keys are told no more: {keys:?}");
            for key in keys {
                assert!(page.contains(&format!("| `{key}` |")), "`{key}` is not in the table");
            }
        }
    }
}

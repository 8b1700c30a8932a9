//! Data behind `s3://` URLs: fetched to where a step's data is, range by range, before anything reads it. Must never happen
//! here: an object held whole, more on this host's disk than is allowed, a key in a reason.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::{
    ClientOptions, Error, GetOptions, GetRange, ObjectMeta, ObjectStore as _, ObjectStoreExt as _,
    RetryConfig,
};
use refit_workflows::definition::DataFormat;
use refit_workflows::units::show_size;
use refit_workflows::wire::{S3Url, SecretValue};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::logs::Log;

/// The most that one URL may name, in bytes and in objects.
const BYTES_MAX: u64 = 64 << 30;
const OBJECTS_MAX: usize = 10_000;
/// The bytes of one request, and how many are under way at a time: as many are in memory.
const RANGE_BYTES: u64 = 8 << 20;
const RANGES_AT_A_TIME: usize = 4;
/// The longest one request may take, and how long tries are repeated that failed.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const RETRIES_MAX: usize = 5;
/// How often the log is told how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// The most of a cause that is told, in characters: stores answer with whole documents.
const CAUSE_MAX: usize = 300;
/// Who signs: these go together, whoever gives one of them.
const KEYS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// Fetches what a URL names: an object becomes the file `to`, those under a name that ends with `/` become files of the folder
/// `to`. The conventional `AWS_*` variables say where from and with which key: the step's secrets of these names, else those
/// of this worker.
pub(super) async fn fetch(
    url: &S3Url,
    secrets: &BTreeMap<String, SecretValue>,
    to: &Path,
    log: &Log,
) -> Result<(), String> {
    let store = client(url, secrets).map_err(|cause| failed(url, &cause))?;
    let folder = url.key.ends_with('/');
    let key = Key::parse(&url.key).map_err(|cause| format!("failed to fetch {url}: {cause}"))?;
    let objects = match folder {
        true => list(&store, &key).await.map_err(|cause| failed(url, &cause))?,
        false => vec![store.head(&key).await.map_err(|cause| failed(url, &cause))?],
    };
    if objects.len() > OBJECTS_MAX {
        return Err(format!("failed to fetch {url}: it names more than {OBJECTS_MAX} objects"));
    }
    let bytes = objects.iter().map(|object| object.size).sum::<u64>();
    if bytes > BYTES_MAX {
        let (bytes, most) = (show_size(bytes), show_size(BYTES_MAX));
        return Err(format!(
            "failed to fetch {url}: it has {bytes}, more than the {most} that are fetched; read a part of it, or put it \
             where workers have it as a path"
        ));
    }
    if folder {
        tokio::fs::create_dir(to)
            .await
            .map_err(|cause| format!("failed to make a folder for {url}: {cause}"))?;
    }
    let mut progress = Progress { url, log, of: bytes, done: 0, told: Instant::now() };
    for object in &objects {
        let name = object.location.filename().filter(|_| folder);
        let path = name.map_or_else(|| to.to_owned(), |name| to.join(name));
        download(&store, object, &path, &mut progress).await?;
    }
    log.say(&format!("fetched {url}: {}", show_size(bytes)));
    Ok(())
}

/// The objects directly in a folder that a table may consist of.
async fn list(store: &AmazonS3, folder: &Key) -> object_store::Result<Vec<ObjectMeta>> {
    let depth = folder.parts().count() + 1;
    let is_data = |object: &ObjectMeta| {
        let name = object.location.filename().unwrap_or_default();
        object.location.parts().count() == depth
            && !name.starts_with('.')
            && DataFormat::of_name(name).is_some()
    };
    let listed = store.list(Some(folder)).try_filter(|object| std::future::ready(is_data(object)));
    let objects: Vec<ObjectMeta> = listed.take(OBJECTS_MAX + 1).try_collect().await?;
    match objects.is_empty() {
        true => Err(Error::NotFound {
            path: folder.to_string(),
            source: "there is no file of CSV, JSON Lines or Parquet directly under it".into(),
        }),
        false => Ok(objects),
    }
}

async fn download(
    store: &AmazonS3,
    object: &ObjectMeta,
    to: &Path,
    progress: &mut Progress<'_>,
) -> Result<(), String> {
    let url = progress.url;
    let begins = (0..object.size.div_ceil(RANGE_BYTES)).map(|range| range * RANGE_BYTES);
    let mut ranges = stream::iter(begins)
        .map(|from| {
            let range = from..object.size.min(from + RANGE_BYTES);
            // One that was replaced meanwhile would be put together of both.
            let options = GetOptions {
                range: Some(GetRange::Bounded(range)),
                if_match: object.e_tag.clone(),
                ..GetOptions::default()
            };
            async move { store.get_opts(&object.location, options).await?.bytes().await }
        })
        .buffered(RANGES_AT_A_TIME);
    let disk = |cause: std::io::Error| format!("failed to write what was fetched of {url}: {cause}");
    let mut file = tokio::fs::File::create_new(to).await.map_err(disk)?;
    while let Some(data) = ranges.next().await {
        let data = data.map_err(|cause| failed(url, &cause))?;
        file.write_all(&data).await.map_err(disk)?;
        progress.add(data.len() as u64);
    }
    file.flush().await.map_err(disk)
}

struct Progress<'a> {
    url: &'a S3Url,
    log: &'a Log,
    of: u64,
    done: u64,
    told: Instant,
}

impl Progress<'_> {
    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.told.elapsed() >= TOLD_EVERY && self.done < self.of {
            self.told = Instant::now();
            let (done, of) = (show_size(self.done), show_size(self.of));
            self.log.say(&format!("fetching {}: {done} of {of}", self.url));
        }
    }
}

fn client(url: &S3Url, secrets: &BTreeMap<String, SecretValue>) -> object_store::Result<AmazonS3> {
    let mut builder = AmazonS3Builder::new();
    for (key, value) in settings(std::env::vars_os(), secrets) {
        builder = builder.with_config(key, value);
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let client = ClientOptions::new()
        .with_timeout(REQUEST_WITHIN)
        .with_connect_timeout(CONNECT_WITHIN)
        .with_allow_http(plain);
    let retry =
        RetryConfig { max_retries: RETRIES_MAX, retry_timeout: REQUEST_WITHIN, ..RetryConfig::default() };
    builder.with_bucket_name(&url.bucket).with_client_options(client).with_retry(retry).build()
}

fn settings(
    variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    secrets: &BTreeMap<String, SecretValue>,
) -> Vec<(AmazonS3ConfigKey, String)> {
    let own_key = KEYS.iter().any(|name| secrets.contains_key(*name));
    let variables = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !(own_key && KEYS.contains(&name.as_str())));
    let secrets = secrets.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned()));
    variables
        .chain(secrets)
        .filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty())
        .filter_map(|(name, value)| {
            Some((AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase()).ok()?, value))
        })
        .collect()
}

fn failed(url: &S3Url, cause: &Error) -> String {
    let hint = match cause {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            "; is the key right, and may it read there? It is that of the step's `secrets`, else of the worker's AWS_* variables"
        }
        Error::NotFound { .. } => "; check its name, and AWS_ENDPOINT_URL where it is not in AWS",
        Error::Precondition { .. } => "; it was replaced while it was fetched",
        _ => "",
    };
    let cause = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let cause: String = cause.chars().take(CAUSE_MAX).collect();
    format!("failed to fetch {url}: {cause}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_the_step_is_not_mixed_with_one_of_the_worker() {
        let variables = [
            ("AWS_ACCESS_KEY_ID", "of the worker"),
            ("AWS_SESSION_TOKEN", "of the worker"),
            ("AWS_ENDPOINT_URL", "http://store"),
            ("AWS_NOTHING", "x"),
            ("HOME", "/root"),
        ];
        let found = |secrets: &[&str]| {
            let secrets = secrets.iter().map(|name| ((*name).to_owned(), SecretValue::new("of the step")));
            let found = settings(
                variables.into_iter().map(|(name, value)| (name.into(), value.into())),
                &secrets.collect(),
            );
            found.into_iter().collect::<std::collections::HashMap<_, _>>()
        };
        let own = found(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OTHER"]);
        assert_eq!(own[&AmazonS3ConfigKey::AccessKeyId], "of the step");
        assert!(!own.contains_key(&AmazonS3ConfigKey::Token), "{own:?}");
        assert_eq!((own[&AmazonS3ConfigKey::Endpoint].as_str(), own.len()), ("http://store", 3));
        let workers = found(&["OTHER"]);
        assert_eq!((workers[&AmazonS3ConfigKey::Token].as_str(), workers.len()), ("of the worker", 3));
    }
}

//! `blobs` of `refit.yaml`: where the bytes of large blobs are. Reaches none of these places; must never happen here: a key in
//! an error.

use std::path::PathBuf;

use refit_orchestrator::config::{AccessKey, BlobPlace, BlobPlaces, Bucket};
use refit_workflows::wire::check_relative_path;
use serde::Deserialize;

use super::secret::SecretPlace;
use crate::exit::Usage;

/// Where new ones go, and where earlier ones may be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BlobsSettings {
    folder: Option<PathBuf>,
    s3: Option<BucketSettings>,
    earlier: Vec<PlaceSettings>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PlaceSettings {
    folder: Option<PathBuf>,
    s3: Option<BucketSettings>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BucketSettings {
    bucket: String,
    prefix: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_id: Option<SecretPlace>,
    secret_access_key: Option<SecretPlace>,
}

impl BlobsSettings {
    /// # Errors
    /// A place that cannot be one, or whose key is not where it is said to be.
    pub(super) fn places(&self) -> anyhow::Result<BlobPlaces> {
        let both = || {
            Usage(
                "blobs: new ones go either into a `folder` or into `s3`; name the other one under `earlier`"
                    .to_owned(),
            )
        };
        let new = match (&self.folder, &self.s3) {
            (None, None) => None,
            (Some(folder), None) => Some(in_folder(folder)?),
            (None, Some(bucket)) => Some(bucket.place()?),
            (Some(_), Some(_)) => return Err(both().into()),
        };
        let earlier = self.earlier.iter().map(|place| match (&place.folder, &place.s3) {
            (Some(folder), None) => in_folder(folder),
            (None, Some(bucket)) => bucket.place(),
            (Some(_), Some(_)) | (None, None) => {
                Err(Usage("blobs: each of `earlier` is either a `folder` or `s3`".to_owned()).into())
            }
        });
        Ok(BlobPlaces { new, earlier: earlier.collect::<anyhow::Result<_>>()? })
    }
}

fn in_folder(path: &std::path::Path) -> anyhow::Result<BlobPlace> {
    let absolute = std::path::absolute(path);
    let absolute =
        absolute.map_err(|wrong| Usage(format!("blobs: `folder: {}`: {wrong}", path.display())))?;
    Ok(BlobPlace::Folder(absolute))
}

impl BucketSettings {
    fn place(&self) -> anyhow::Result<BlobPlace> {
        let wrong = |why: &str| Usage(format!("blobs: s3: {why}"));
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !(3..=63).contains(&self.bucket.len()) || !self.bucket.chars().all(named) {
            return Err(wrong("`bucket` is no name of one: 3 to 63 letters, digits, `.`, `-` and `_`").into());
        }
        let prefix =
            self.prefix.as_deref().map(|prefix| prefix.trim_matches('/')).filter(|prefix| !prefix.is_empty());
        if let Some(prefix) = prefix {
            check_relative_path(prefix).map_err(|why| wrong(&format!("`prefix` {why}")))?;
        }
        if let Some(endpoint) = &self.endpoint {
            let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
            if !rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['@', '?', '#'])) {
                return Err(wrong(
                    "`endpoint` is the store's URL, http:// or https://, without user or query: the key is \
                     `access_key_id` and `secret_access_key`",
                )
                .into());
            }
        }
        let key = match (&self.access_key_id, &self.secret_access_key) {
            (None, None) => None,
            (Some(id), Some(secret)) => Some(AccessKey {
                id: id.fetch("blobs: `access_key_id`")?,
                secret: secret.fetch("blobs: `secret_access_key`")?,
            }),
            (Some(_), None) | (None, Some(_)) => {
                return Err(wrong("give `access_key_id` and `secret_access_key`, or neither: the AWS_* variables are used then").into());
            }
        };
        Ok(BlobPlace::Bucket(Bucket {
            name: self.bucket.clone(),
            prefix: prefix.map(str::to_owned),
            endpoint: self.endpoint.as_deref().map(|endpoint| endpoint.trim_end_matches('/').to_owned()),
            region: self.region.clone(),
            key,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<BlobPlaces> {
        serde_yaml::from_str::<BlobsSettings>(text).unwrap().places()
    }

    #[test]
    fn new_blobs_go_to_one_place_and_earlier_ones_may_be_in_others() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "hunter2\n").unwrap();
        let file = format!("{{ file: {} }}", secret.display());
        let key = format!("access_key_id: {file}, secret_access_key: {file}");
        let s3 = format!("s3: {{ bucket: refit, prefix: /prod/, endpoint: https://minio:9000/, {key} }}");
        let places =
            read(&format!("{s3}\nearlier: [{{ folder: blobs }}, {{ s3: {{ bucket: old }} }}]")).unwrap();
        assert_eq!(places.new.as_ref().unwrap().to_string(), "s3://refit/prod at https://minio:9000");
        let shown: Vec<String> = places.earlier.iter().map(ToString::to_string).collect();
        let here = std::env::current_dir().unwrap().join("blobs");
        assert_eq!(shown, [format!("the folder {}", here.display()), "s3://old".to_owned()]);
        assert!(!format!("{places:?}").contains("hunter2"));
        let Some(BlobPlace::Bucket(bucket)) = places.new else { panic!("no bucket") };
        assert_eq!(bucket.key.unwrap().secret.reveal(), "hunter2");
        let none = read("{}").unwrap();
        assert!(none.new.is_none() && none.earlier.is_empty());
    }

    #[test]
    fn a_place_that_cannot_be_one_is_told() {
        for (text, why) in [
            ("folder: a\ns3: { bucket: abc }", "either into a `folder` or into `s3`"),
            ("earlier: [{}]", "each of `earlier`"),
            ("s3: { bucket: a/b }", "`bucket` is no name"),
            ("s3: { bucket: abc, prefix: a/../b }", "`prefix` must not hold"),
            ("s3: { bucket: abc, endpoint: minio:9000 }", "`endpoint` is the store's URL"),
            ("s3: { bucket: abc, endpoint: 'http://u:p@minio' }", "without user"),
            ("s3: { bucket: abc, access_key_id: { env: REFIT_TEST_UNSET } }", "or neither"),
            (
                "s3: { bucket: abc, access_key_id: { env: REFIT_TEST_UNSET }, secret_access_key: { env: X } }",
                "REFIT_TEST_UNSET",
            ),
        ] {
            let wrong = read(text).unwrap_err().to_string();
            assert!(wrong.starts_with("blobs: ") && wrong.contains(why), "{text}: {wrong}");
        }
    }
}

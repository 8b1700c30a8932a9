//! How data is named that the built-in verbs read. Must never happen here: a name that leads out of its folder or bucket.

use std::fmt;
use std::str::FromStr;

use super::*;
use crate::definition::DataFormat;

/// Data, named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataRef {
    /// A path in the bundle, or an absolute one on the worker.
    Path(String),
    /// What an S3-compatible store has.
    S3(S3Url),
    /// What an earlier step handed on.
    Artifact {
        /// The file or folder.
        artifact: ArtifactRef,
        /// What the path under which it was handed on says of its format.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<DataFormat>,
    },
}

/// `s3://BUCKET/KEY`: an object of an S3-compatible store; with `/` at its end, all objects whose names begin so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct S3Url {
    /// The bucket.
    pub bucket: String,
    /// The object's name, or what the names begin with.
    pub key: String,
}

impl FromStr for S3Url {
    type Err = String;

    /// The error completes "`URL` …".
    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("s3://").ok_or("is no s3:// URL")?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(named) {
            return Err("names no bucket: write s3://BUCKET/KEY".to_owned());
        }
        if key.is_empty() {
            return Err("names no object: write s3://BUCKET/KEY, or s3://BUCKET/FOLDER/".to_owned());
        }
        check_relative_path(key).map_err(|wrong| format!("has a key that {wrong}"))?;
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

impl TryFrom<String> for S3Url {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<S3Url> for String {
    fn from(url: S3Url) -> Self {
        url.to_string()
    }
}

impl fmt::Display for S3Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_bucket_and_what_is_in_it() {
        let url: S3Url = "s3://lake/customers/day=1/part 1.parquet".parse().unwrap();
        assert_eq!((url.bucket.as_str(), url.key.as_str()), ("lake", "customers/day=1/part 1.parquet"));
        assert_eq!("s3://lake/customers/".parse::<S3Url>().unwrap().to_string(), "s3://lake/customers/");
        for (text, why) in [
            ("gs://lake/a", "is no s3:// URL"),
            ("s3://", "names no bucket"),
            ("s3://b/d.csv", "names no bucket"),
            ("s3://a_b@c/d.csv", "names no bucket"),
            ("s3://lake", "names no object"),
            ("s3://lake/", "names no object"),
            ("s3://lake/a/../b", "has a key that must not hold"),
            ("s3://lake//a", "has a key that must be relative"),
        ] {
            let wrong = text.parse::<S3Url>().unwrap_err();
            assert!(wrong.starts_with(why), "{text}: {wrong}");
        }
    }
}

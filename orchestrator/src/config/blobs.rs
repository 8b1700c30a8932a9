//! Where the bytes of blobs are.

use std::fmt;
use std::path::PathBuf;

use super::Secret;

/// Where the bytes of large blobs are. Those of small ones, and lists of files, are in the database whatever this says.
#[derive(Clone, Debug, Default)]
pub struct BlobPlaces {
    /// Where those of new blobs go; without it, into the database too.
    pub new: Option<BlobPlace>,
    /// Where those of earlier blobs may be as well: they are read and taken out there, and nothing is added.
    pub earlier: Vec<BlobPlace>,
}

/// What keeps bytes for all orchestrators of a database.
#[derive(Clone, Debug)]
pub enum BlobPlace {
    /// A folder that each of them reaches under this absolute path.
    Folder(PathBuf),
    /// A bucket of an S3-compatible store.
    Bucket(Bucket),
}

/// A bucket of an S3-compatible store.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What the names of all objects begin with, without `/` at its ends.
    pub prefix: Option<String>,
    /// The store's URL, `http://` or `https://`; without it that of AWS.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// The key that requests are signed with; without it what the conventional `AWS_*` variables, or the host's role, give.
    pub key: Option<AccessKey>,
}

/// A key of an S3-compatible store.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// Names it.
    pub id: Secret,
    /// What requests are signed with.
    pub secret: Secret,
}

impl fmt::Display for BlobPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bucket = match self {
            Self::Folder(path) => return write!(f, "the folder {}", path.display()),
            Self::Bucket(bucket) => bucket,
        };
        write!(f, "s3://{}", bucket.name)?;
        if let Some(prefix) = &bucket.prefix {
            write!(f, "/{prefix}")?;
        }
        match &bucket.endpoint {
            Some(endpoint) => write!(f, " at {endpoint}"),
            None => Ok(()),
        }
    }
}

//! Files and folders by digest, and what crosses when they are handed over. Must never happen here: a path that could
//! leave its folder.

use super::*;

/// A file or folder by digest. A file's digest is that of its bytes; a folder's is that of its [`Tree`] as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRef {
    /// Names the content.
    pub digest: Digest,
    /// The size in bytes; for a folder the sum of its files.
    pub bytes: u64,
    /// File or folder.
    #[serde(default)]
    pub kind: ArtifactKind,
}

/// What a digest stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactKind {
    /// One file.
    #[default]
    File,
    /// A folder, described by a [`Tree`].
    Folder,
}

/// A folder by content: stored as a blob of JSON, files sorted by path, so that equal folders have equal digests.
/// Bundles and folder artifacts are trees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The files, sorted by path. Empty folders are not kept.
    pub files: Vec<TreeFile>,
}

/// The largest [`Tree`], as JSON, in bytes.
pub const TREE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// One file of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeFile {
    /// Relative, `/` between components, no `.` or `..` component. Checked with [`check_relative_path`].
    pub path: String,
    /// Names the bytes.
    pub digest: Digest,
    /// The size in bytes.
    pub bytes: u64,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

impl Tree {
    /// The tree's canonical JSON: what its digest is taken of.
    pub fn to_json(&self) -> String {
        let mut sorted = self.clone();
        sorted.files.sort_by(|a, b| a.path.cmp(&b.path));
        serde_json::to_string(&sorted).unwrap_or_default()
    }

    /// The sum of its files' sizes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Checks a path that must stay inside a folder: relative, plain components, no backslash or control character.
/// The error completes "`PATH` …".
pub fn check_relative_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("is empty".to_owned());
    }
    if path.len() > 1024 {
        return Err("is longer than 1024 bytes".to_owned());
    }
    if path.starts_with('/') || path.contains('\\') || path.chars().any(char::is_control) {
        return Err("must be relative, with `/` between its parts".to_owned());
    }
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    if trimmed.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err("must not hold an empty, `.` or `..` part".to_owned());
    }
    Ok(())
}

/// `POST /api/v1/blobs/missing`: which of these does the orchestrator not have yet?
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MissingRequest {
    /// The digests asked about; at most 10,000.
    pub digests: Vec<Digest>,
}

/// Answer to [`MissingRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MissingReply {
    /// Those to upload.
    pub missing: Vec<Digest>,
}

/// The most bytes of one piece of an upload. Every piece but the last has whole MiB.
pub const PIECE_BYTES: u64 = 4 * 1024 * 1024;

/// Answer to `GET` and `PUT /api/v1/blobs/{digest}/upload`: how far a blob is there. A piece is put with `from`, the bytes
/// before it, `of`, the bytes of the whole, and `digest`, that of the piece. 409 `wrong-offset`: the bytes before it are not
/// those that are there; 409 `damaged-piece`: it has another digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadView {
    /// The bytes that are there and need not be sent again; 0 once it is whole.
    pub bytes: u64,
    /// Whether it is there, whole.
    pub whole: bool,
}

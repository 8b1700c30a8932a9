//! What a step may hand back: outputs, metrics, artifacts. Everything is checked and bounded here, and nothing that
//! a step wrote is believed before. Every refusal is a sentence that teaches; nothing is sent anywhere from here.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;
use refit_workflows::digest::Digest;
use refit_workflows::wire::{ArtifactKind, ArtifactRef, MetricPoint, Tree, TreeFile, check_relative_path};
use serde_json::Value;

/// The most `REFIT_OUTPUTS` may hold, in bytes.
const OUTPUTS_BYTES_MAX: u64 = 1024 * 1024;
/// The most `REFIT_METRICS` may hold, in bytes.
const METRICS_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most different names among outputs, and among metrics.
const NAMES_MAX: usize = 1_000;
/// The most values of metrics that wait for the orchestrator.
const UNSENT_MAX: usize = 10_000;
/// The longest name of an output or a metric, in bytes.
const NAME_BYTES_MAX: usize = 63;
/// The most files a folder artifact may hold.
const FILES_MAX: usize = 100_000;
/// The deepest an artifact's folders may nest.
const DEPTH_MAX: usize = 64;

/// `[A-Za-z_][A-Za-z0-9_.-]{0,62}`.
fn check_name(name: &str) -> Result<(), String> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(format!(
        "`{}` is not a name: use letters, digits, `_`, `.` and `-`, beginning with a letter or `_`, at most \
         {NAME_BYTES_MAX} characters",
        shown.escape_debug()
    ))
}

/// Opens a regular file. Whatever a step puts in its place at the last moment is neither followed nor waited for.
fn open(path: &Path) -> std::io::Result<(File, Metadata)> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() { Ok((file, meta)) } else { Err(std::io::Error::other("it is no regular file")) }
}

/// Opens what should be a regular file. A step may have put a pipe or a link in its place.
fn open_regular(path: &Path, variable: &str, bytes_max: u64) -> Result<Option<(File, u64)>, String> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(format!("failed to read {variable}: {cause}")),
    };
    if !meta.is_file() {
        return Err(format!("{variable} is no regular file any more: append to it, do not replace it"));
    }
    let (file, meta) = open(path).map_err(|cause| format!("failed to read {variable}: {cause}"))?;
    if meta.len() > bytes_max {
        return Err(format!(
            "{variable} holds {} bytes, more than the {bytes_max} allowed; hand large results on as artifacts",
            meta.len()
        ));
    }
    Ok(Some((file, meta.len())))
}

/// Reads `REFIT_OUTPUTS`: `name=value` lines, or JSON objects one a line; the last value of a name stands.
///
/// # Errors
/// What is wrong, with its line.
pub(crate) fn read_outputs(path: &Path) -> Result<BTreeMap<String, Value>, String> {
    let mut outputs = BTreeMap::new();
    let Some((file, bytes)) = open_regular(path, "REFIT_OUTPUTS", OUTPUTS_BYTES_MAX)? else {
        return Ok(outputs);
    };
    let mut text = String::new();
    file.take(bytes).read_to_string(&mut text).map_err(|_| "REFIT_OUTPUTS is not UTF-8 text".to_owned())?;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |why: String| format!("line {} of REFIT_OUTPUTS: {why}", index + 1);
        if line.trim_start().starts_with('{') {
            let object: serde_json::Map<String, Value> = serde_json::from_str(line).map_err(|cause| {
                wrong(format!("not a JSON object ({cause}); NaN and Infinity are not JSON"))
            })?;
            for (name, value) in object {
                check_name(&name).map_err(wrong)?;
                outputs.insert(name, value);
            }
        } else {
            let Some((name, value)) = line.split_once('=') else {
                return Err(wrong("expected `name=value` or a JSON object".to_owned()));
            };
            check_name(name).map_err(wrong)?;
            outputs.insert(name.to_owned(), Value::from(value));
        }
        if outputs.len() > NAMES_MAX {
            return Err(wrong(format!("more than {NAMES_MAX} outputs")));
        }
    }
    match outputs.iter().find(|(_, value)| holds_nul(value)) {
        Some((name, _)) => Err(format!("output `{name}` holds a NUL character, which cannot be stored")),
        None => Ok(outputs),
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Follows `REFIT_METRICS` as a step appends to it.
#[derive(Debug)]
pub(crate) struct Metrics {
    path: PathBuf,
    offset: u64,
    partial: Vec<u8>,
    lines: usize,
    latest: BTreeMap<String, f64>,
    /// How many values of each metric there were.
    counts: BTreeMap<String, u64>,
    /// Values that were not reported yet, oldest first.
    unsent: Vec<MetricPoint>,
    wrong: Option<String>,
}

#[derive(serde::Deserialize)]
struct MetricLine {
    name: String,
    value: f64,
    #[serde(default)]
    step: Option<f64>,
    /// The value is a share of this: `{"name": "progress", "value": 30, "total": 200}`.
    #[serde(default)]
    total: Option<f64>,
}

impl Metrics {
    /// Of the file at `path`, from its beginning.
    pub(crate) fn follow(path: PathBuf) -> Self {
        Self {
            path,
            offset: 0,
            partial: Vec::new(),
            lines: 0,
            latest: BTreeMap::new(),
            counts: BTreeMap::new(),
            unsent: Vec::new(),
            wrong: None,
        }
    }

    /// The latest value of each metric so far.
    pub(crate) fn latest(&self) -> &BTreeMap<String, f64> {
        &self.latest
    }

    /// The oldest values that were not reported yet, at most `count`.
    pub(crate) fn unsent(&self, count: usize) -> &[MetricPoint] {
        &self.unsent[..self.unsent.len().min(count)]
    }

    /// Forgets the `count` oldest of them: the orchestrator has them.
    pub(crate) fn sent(&mut self, count: usize) {
        self.unsent.drain(..count.min(self.unsent.len()));
    }

    /// Reads what was appended since the last time; tells whether there was anything.
    pub(crate) fn read_more(&mut self) -> bool {
        if self.wrong.is_some() {
            return false;
        }
        match self.read_appended() {
            Ok(changed) => changed,
            Err(wrong) => {
                self.wrong = Some(wrong);
                false
            }
        }
    }

    /// Reads the rest, the last line included even if it is not ended.
    ///
    /// # Errors
    /// The first thing that was wrong with the file.
    pub(crate) fn finish(&mut self) -> Result<BTreeMap<String, f64>, String> {
        self.read_more();
        if self.wrong.is_none() && !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            if let Err(wrong) = self.take_line(&line) {
                self.wrong = Some(wrong);
            }
        }
        match &self.wrong {
            Some(wrong) => Err(wrong.clone()),
            None => Ok(self.latest.clone()),
        }
    }

    fn read_appended(&mut self) -> Result<bool, String> {
        let Some((mut file, bytes)) = open_regular(&self.path, "REFIT_METRICS", METRICS_BYTES_MAX)? else {
            return Ok(false);
        };
        if bytes < self.offset {
            return Err("REFIT_METRICS became shorter: append to it, do not write it anew".to_owned());
        }
        if bytes == self.offset {
            return Ok(false);
        }
        let failed = |cause: std::io::Error| format!("failed to read REFIT_METRICS: {cause}");
        file.seek(SeekFrom::Start(self.offset)).map_err(failed)?;
        let mut appended = Vec::new();
        file.take(bytes - self.offset).read_to_end(&mut appended).map_err(failed)?;
        self.offset += appended.len() as u64;
        let mut rest: &[u8] = &appended;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            self.take_line(&line)?;
        }
        self.partial.extend_from_slice(rest);
        Ok(true)
    }

    /// Drops what a curve can do without while the orchestrator is away: of each metric every other value, and so on, but
    /// not its last.
    fn thin(&mut self) {
        let counts = &self.counts;
        let mut stride = 2_u64;
        while self.unsent.len() > UNSENT_MAX / 2 && stride <= METRICS_BYTES_MAX {
            self.unsent.retain(|point| {
                point.index.is_multiple_of(stride) || counts.get(&point.name) == Some(&(point.index + 1))
            });
            stride *= 2;
        }
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), String> {
        self.lines += 1;
        let line_number = self.lines;
        let wrong = |why: String| format!("line {line_number} of REFIT_METRICS: {why}");
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let metric: MetricLine = serde_json::from_slice(line).map_err(|cause| {
            wrong(format!(
                "expected {{\"name\": \"auc\", \"value\": 0.91}} with a finite number ({cause}); NaN and Infinity are \
                 no measurements"
            ))
        })?;
        check_name(&metric.name).map_err(wrong)?;
        if !metric.value.is_finite() {
            return Err(wrong(format!("`{}` is not a finite number", metric.name)));
        }
        let value = match metric.total {
            Some(total) if total > 0.0 && total.is_finite() => metric.value / total,
            Some(_) => return Err(wrong(format!("`total` of `{}` is not a number above 0", metric.name))),
            None => metric.value,
        };
        let count = self.counts.entry(metric.name.clone()).or_default();
        let (name, index, at) = (metric.name.clone(), *count, crate::host::now());
        *count += 1;
        self.unsent.push(MetricPoint { name, index, step: metric.step, value, at });
        if self.unsent.len() > UNSENT_MAX {
            self.thin();
        }
        self.latest.insert(metric.name, value);
        if self.latest.len() > NAMES_MAX {
            return Err(wrong(format!("more than {NAMES_MAX} metrics")));
        }
        Ok(())
    }
}

/// A blob to hand over: a file of the step, or a tree's JSON.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Content {
    /// A file below the working directory, and its size.
    File(PathBuf, u64),
    /// A [`Tree`]'s JSON.
    #[serde(with = "shared_text")]
    Text(Arc<str>),
}

impl Content {
    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::File(_, bytes) => *bytes,
            Self::Text(text) => text.len() as u64,
        }
    }

    /// The bytes from `from` to `to`. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter by now.
    pub(crate) fn read(&self, from: u64, to: u64) -> std::io::Result<Vec<u8>> {
        let bytes = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        match self {
            Self::File(path, _) => {
                let mut piece = vec![0; bytes];
                File::open(path)?.read_exact_at(&mut piece, from)?;
                Ok(piece)
            }
            Self::Text(text) => {
                let begin = usize::try_from(from).unwrap_or(usize::MAX);
                let piece = text.as_bytes().get(begin..begin.saturating_add(bytes));
                piece.map(<[u8]>::to_vec).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}

/// The declared artifacts, found, checked and hashed; not yet uploaded.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// By name.
    pub(crate) artifacts: BTreeMap<String, ArtifactRef>,
    /// What they consist of.
    pub(crate) blobs: BTreeMap<Digest, Content>,
}

/// Finds the declared artifacts in the working directory. Blocks: hashes every file.
///
/// # Errors
/// The first artifact that is missing or not acceptable, and why.
pub(crate) fn gather(work: &Path, declared: &BTreeMap<String, String>) -> Result<Gathered, String> {
    let mut gathered = Gathered::default();
    if declared.is_empty() {
        return Ok(gathered);
    }
    let root = work.canonicalize().map_err(|cause| format!("the working directory is gone: {cause}"))?;
    for (name, path) in declared {
        let wrong = |why: String| format!("artifact `{name}`: {why}");
        check_relative_path(path).map_err(|why| wrong(format!("`{}` {why}", path.escape_debug())))?;
        let (found, meta) = inside(&root, &root.join(path), path).map_err(wrong)?;
        let artifact = if meta.is_dir() {
            let mut tree = Tree::default();
            let mut way = vec![found];
            walk(&root, &mut way, "", &mut tree, &mut gathered).map_err(wrong)?;
            let bytes = tree.bytes();
            let json = tree.to_json();
            let digest = Digest::of(json.as_bytes());
            gathered.blobs.insert(digest.clone(), Content::Text(json.into()));
            ArtifactRef { digest, bytes, kind: ArtifactKind::Folder }
        } else {
            let (digest, bytes) =
                hash_file(&found).map_err(|cause| wrong(format!("failed to read `{path}`: {cause}")))?;
            gathered.blobs.insert(digest.clone(), Content::File(found, bytes));
            ArtifactRef { digest, bytes, kind: ArtifactKind::File }
        };
        gathered.artifacts.insert(name.clone(), artifact);
    }
    Ok(gathered)
}

/// Resolves links and makes sure that what they lead to is a file or folder inside the working directory.
fn inside(root: &Path, path: &Path, shown: &str) -> Result<(PathBuf, Metadata), String> {
    let found = path.canonicalize().map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound if path.is_symlink() => format!("`{shown}` is a link to nothing"),
        std::io::ErrorKind::NotFound => {
            format!("the step exited 0 but did not write `{shown}` (paths count from its working directory)")
        }
        std::io::ErrorKind::NotADirectory => format!("`{shown}` should be a folder, but it is a file"),
        _ => format!("failed to read `{shown}`: {cause}"),
    })?;
    if !found.starts_with(root) {
        return Err(format!("`{shown}` is a link that leaves the working directory: copy the file instead"));
    }
    let meta = std::fs::metadata(&found).map_err(|cause| format!("failed to read `{shown}`: {cause}"))?;
    if !meta.is_file() && !meta.is_dir() {
        return Err(format!("`{shown}` is neither a file nor a folder"));
    }
    Ok((found, meta))
}

/// `way` holds the real folders from the artifact's own down to the current one: a link back up is a cycle.
fn walk(
    root: &Path,
    way: &mut Vec<PathBuf>,
    prefix: &str,
    tree: &mut Tree,
    gathered: &mut Gathered,
) -> Result<(), String> {
    let Some(folder) = way.last().cloned() else { return Ok(()) };
    if way.len() > DEPTH_MAX {
        return Err(format!("folders nest deeper than {DEPTH_MAX} levels at `{prefix}`"));
    }
    let entries =
        std::fs::read_dir(&folder).map_err(|cause| format!("failed to read `{prefix}`: {cause}"))?;
    for entry in entries {
        let entry = entry.map_err(|cause| format!("failed to read `{prefix}`: {cause}"))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            let name = name.to_string_lossy();
            return Err(format!("the name of `{prefix}{}` is not UTF-8", name.escape_debug()));
        };
        let shown = format!("{prefix}{name}");
        check_relative_path(&shown).map_err(|why| format!("`{}` {why}", shown.escape_debug()))?;
        let (found, meta) = inside(root, &entry.path(), &shown)?;
        if meta.is_dir() {
            if way.contains(&found) {
                return Err(format!("`{shown}` is a link to a folder that holds it"));
            }
            way.push(found);
            walk(root, way, &format!("{shown}/"), tree, gathered)?;
            way.pop();
            continue;
        }
        if tree.files.len() >= FILES_MAX {
            return Err(format!("more than {FILES_MAX} files: hand on an archive instead"));
        }
        let (digest, bytes) =
            hash_file(&found).map_err(|cause| format!("failed to read `{shown}`: {cause}"))?;
        gathered.blobs.insert(digest.clone(), Content::File(found, bytes));
        let executable = meta.permissions().mode() & 0o111 != 0;
        tree.files.push(TreeFile { path: shown, digest, bytes, executable });
    }
    Ok(())
}

/// The digest and the size of a file.
fn hash_file(path: &Path) -> std::io::Result<(Digest, u64)> {
    use sha2::Digest as _;
    let (mut file, _) = open(path)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((Digest::from_hash(&hash.finalize()), bytes));
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn outputs(text: &str) -> Result<BTreeMap<String, Value>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outputs");
        std::fs::write(&path, text).unwrap();
        read_outputs(&path)
    }

    fn metrics(text: &str) -> Result<BTreeMap<String, f64>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics");
        std::fs::write(&path, text).unwrap();
        Metrics::follow(path).finish()
    }

    #[test]
    fn outputs_are_lines_or_objects_and_the_last_stands() {
        let read =
            outputs("rows=10\nurl=http://x/?a=b\n\n{\"rows\": 12, \"shards\": [1, 2]}\nempty=\n").unwrap();
        assert_eq!(read["rows"], Value::from(12));
        assert_eq!(read["url"], Value::from("http://x/?a=b"));
        assert_eq!(read["shards"], serde_json::json!([1, 2]));
        assert_eq!(read["empty"], Value::from(""));
    }

    #[test]
    fn bad_outputs_are_refused_with_their_line() {
        let many: String = (0..=NAMES_MAX).map(|index| format!("n{index}=1\n")).collect();
        let long = format!("{}=1", "a".repeat(64));
        for (text, reason) in [
            ("ok=1\nno value\n", "line 2 of REFIT_OUTPUTS: expected `name=value`"),
            ("{\"a\": NaN}\n", "NaN and Infinity are not JSON"),
            ("{\"a\": 1\n", "not a JSON object"),
            ("1a=1\n", "is not a name"),
            ("a b=1\n", "is not a name"),
            ("=1\n", "is not a name"),
            ("{\"\": 1}\n", "is not a name"),
            (&long, "is not a name"),
            ("{\"a\": [\"\\u0000\"]}\n", "NUL"),
            ("a=\0\n", "NUL"),
            (&many, "more than 1000 outputs"),
            (&"a=1\n".repeat(300_000), "more than the 1048576 allowed"),
        ] {
            let refused = outputs(text).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn what_takes_a_files_place_at_the_last_moment_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("/etc/passwd", &link).unwrap();
        // Opening a pipe that nobody writes to would wait for ever.
        let (done, opened) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send((open(&pipe).is_err(), open(&link).is_err())));
        assert_eq!(opened.recv_timeout(std::time::Duration::from_secs(20)), Ok((true, true)));
    }

    #[test]
    fn an_output_file_replaced_by_a_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outputs");
        symlink("/etc/passwd", &path).unwrap();
        assert!(read_outputs(&path).unwrap_err().contains("no regular file"));
    }

    #[test]
    fn metrics_are_finite_numbers_and_the_last_stands() {
        let read =
            metrics("{\"name\":\"auc\",\"value\":0.5}\n{\"name\":\"auc\",\"value\":0.9,\"step\":2}").unwrap();
        assert_eq!(read, BTreeMap::from([("auc".to_owned(), 0.9)]));
        for (text, reason) in [
            ("{\"name\":\"auc\",\"value\":NaN}\n", "finite"),
            ("{\"name\":\"auc\",\"value\":1e999}\n", "finite"),
            ("{\"name\":\"auc\",\"value\":\"0.5\"}\n", "finite"),
            ("{\"name\":\"auc\",\"value\":null}\n", "finite"),
            ("{\"name\":\"a b\",\"value\":1}\n", "is not a name"),
            ("auc 0.5\n", "line 1 of REFIT_METRICS"),
            ("{\"name\":\"auc\",\"value\":1}\n{\"value\":1}\n", "line 2 of REFIT_METRICS"),
        ] {
            let refused = metrics(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn metrics_are_followed_across_unfinished_lines() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics");
        let mut file = File::create(&path).unwrap();
        let mut following = Metrics::follow(path);
        assert!(!following.read_more());
        file.write_all(b"{\"name\":\"loss\",\"value\":2}\n{\"name\":\"lo").unwrap();
        assert!(following.read_more());
        assert_eq!(following.latest()["loss"], 2.0);
        file.write_all(b"ss\",\"value\":1}\n").unwrap();
        assert!(following.read_more());
        assert!(!following.read_more());
        assert_eq!(following.finish().unwrap()["loss"], 1.0);
        let points: Vec<(u64, f64)> =
            following.unsent(10).iter().map(|point| (point.index, point.value)).collect();
        assert_eq!(points, [(0, 2.0), (1, 1.0)]);
        following.sent(1);
        assert_eq!(following.unsent(10)[0].value, 1.0);
    }

    #[test]
    fn a_value_of_a_total_is_a_share() {
        let read = metrics("{\"name\":\"progress\",\"value\":30,\"total\":200}\n").unwrap();
        assert_eq!(read["progress"], 0.15);
        let wrong = metrics("{\"name\":\"progress\",\"value\":30,\"total\":0}\n").unwrap_err();
        assert!(wrong.contains("`total` of `progress`"), "{wrong}");
    }

    #[test]
    fn values_that_wait_are_bounded_and_keep_their_shape() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics");
        let line = |n| format!("{{\"name\":\"{}\",\"value\":{n}}}\n", if n % 2 == 0 { "a" } else { "b" });
        let text: String = (0..50_000).map(line).collect();
        std::fs::write(&path, text).unwrap();
        let mut following = Metrics::follow(path);
        following.read_more();
        let points = following.unsent(usize::MAX);
        assert!(points.len() <= UNSENT_MAX && points.len() > UNSENT_MAX / 4);
        for (name, last) in [("a", 49_998.0), ("b", 49_999.0)] {
            let curve: Vec<_> = points.iter().filter(|point| point.name == name).collect();
            assert!(curve.len() > UNSENT_MAX / 16, "{name}: {}", curve.len());
            assert_eq!(curve[curve.len() - 1].value, last);
            assert!(curve.windows(2).all(|pair| pair[0].index < pair[1].index));
        }
    }

    fn gather_one(work: &Path, path: &str) -> Result<Gathered, String> {
        gather(work, &BTreeMap::from([("model".to_owned(), path.to_owned())]))
    }

    #[test]
    fn files_and_folders_are_named_by_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path();
        std::fs::create_dir_all(work.join("out/deep")).unwrap();
        std::fs::write(work.join("out/model.bin"), "weights").unwrap();
        std::fs::write(work.join("out/deep/b"), "b").unwrap();
        symlink("model.bin", work.join("out/link")).unwrap();
        let file = gather_one(work, "out/model.bin").unwrap();
        assert_eq!(file.artifacts["model"].digest, Digest::of(b"weights"));
        assert_eq!(file.artifacts["model"].bytes, 7);
        let tree = gather_one(work, "out/").unwrap();
        assert_eq!(tree.artifacts["model"].kind, ArtifactKind::Folder);
        assert_eq!(tree.artifacts["model"].bytes, 15);
        let Content::Text(json) = &tree.blobs[&tree.artifacts["model"].digest] else { panic!("no tree") };
        let parsed: Tree = serde_json::from_str(json).unwrap();
        let paths: Vec<&str> = parsed.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["deep/b", "link", "model.bin"]);
    }

    #[test]
    fn artifacts_that_are_missing_or_leave_the_folder_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path();
        std::fs::create_dir_all(work.join("tree/sub")).unwrap();
        std::fs::write(work.join("file"), "x").unwrap();
        symlink(outside.path().join("secret"), work.join("leak")).unwrap();
        symlink("/etc", work.join("tree/etc")).unwrap();
        std::fs::create_dir(work.join("cycle")).unwrap();
        symlink(".", work.join("cycle/up")).unwrap();
        symlink("nowhere", work.join("dangling")).unwrap();
        nix::unistd::mkfifo(&work.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (path, reason) in [
            ("model.pkl", "did not write `model.pkl`"),
            ("../secret", "must not hold"),
            ("/etc/passwd", "must be relative"),
            ("leak", "leaves the working directory"),
            ("tree", "leaves the working directory"),
            ("cycle", "a folder that holds it"),
            ("dangling", "a link to nothing"),
            ("pipe", "neither a file nor a folder"),
            ("file/", "should be a folder"),
        ] {
            let refused = gather_one(work, path).unwrap_err();
            assert!(refused.contains(reason) && refused.contains("artifact `model`"), "{path}: {refused}");
        }
    }
}

//! Models as the API takes and answers them, which is what `-o json` prints. Must never happen here: a key renamed or taken
//! out; scripts read it.

use super::*;

/// A registered model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelView {
    /// Its name.
    pub model: String,
    /// Its versions, newest first.
    pub versions: Vec<VersionView>,
    /// Alias → version.
    pub aliases: BTreeMap<String, i64>,
    /// The promotions that an event can take back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watches: Vec<WatchView>,
    /// How far MLflow has its versions and aliases; left out where nothing is mirrored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorView>,
}

/// A promotion that an event can take back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchView {
    /// The alias that it moved.
    pub alias: String,
    /// The version that it moved it to.
    pub version: i64,
    /// The run that promoted.
    pub run: RunName,
    /// The last moment at which the event may be received.
    pub until: Timestamp,
    /// What the event looks like.
    pub rollback_on: Value,
    /// What must hold for it; without any, it takes the promotion back whatever it says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<WatchCheckView>,
}

/// A check of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchCheckView {
    /// What must hold, in CEL.
    pub expr: String,
    /// Why the check is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// A version of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionView {
    /// Counts the model's versions from 1.
    pub version: i64,
    /// The run that made it.
    pub run: RunName,
    /// The artifact.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
    /// The artifact's name.
    pub artifact: String,
    /// Whether it is a file or a folder.
    #[serde(default)]
    pub kind: ArtifactKind,
    /// The metrics it was gated with.
    pub metrics: BTreeMap<String, f64>,
    /// When it was promoted.
    pub created_at: Timestamp,
    /// Whether MLflow has it; left out where nothing is mirrored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorView>,
}

/// How an alias came to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moved {
    /// By gates that passed against the version it pointed to.
    Promoted,
    /// By a person, whatever the gates say.
    Overridden,
    /// Back to a version it pointed to before.
    RolledBack,
}

impl Moved {
    /// As written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Overridden => "overridden",
            Self::RolledBack => "rolled_back",
        }
    }
}

impl std::str::FromStr for Moved {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "promoted" => Ok(Self::Promoted),
            "overridden" => Ok(Self::Overridden),
            "rolled_back" => Ok(Self::RolledBack),
            other => Err(format!("`{other}` is no way for an alias to move")),
        }
    }
}

/// One move of an alias, newest first in listings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HistoryView {
    /// The alias.
    pub alias: String,
    /// The version before; none the first time.
    pub from: Option<i64>,
    /// The version after.
    pub to: i64,
    /// When.
    pub at: Timestamp,
    /// How it came about.
    pub how: Moved,
    /// Who: `run churn/12` or a person.
    pub by: String,
    /// The run that promoted.
    pub run: Option<RunName>,
    /// Why, in words.
    pub reason: Option<String>,
    /// Digest of the evidence record.
    pub evidence: Option<Digest>,
    /// Whether MLflow has moved its alias as well; left out where nothing is mirrored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorView>,
}

/// The alias that is meant where none is named.
pub const DEFAULT_ALIAS: &str = "champion";

fn default_alias() -> String {
    DEFAULT_ALIAS.to_owned()
}

/// `POST /api/v1/models/M/promote`: moves an alias to a version by hand.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PromoteVersion {
    /// The version.
    pub version: i64,
    /// The alias to move; `champion` when left out.
    #[serde(default = "default_alias")]
    pub alias: String,
    /// The version the alias must point to now, 0 for none; whatever it points to when left out.
    #[serde(default)]
    pub expect: Option<i64>,
    /// Moves it although no gate has compared the version with the one the alias points to. Needs a reason.
    #[serde(default, rename = "override")]
    pub override_gate: bool,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `POST /api/v1/models/M/rollback`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rollback {
    /// The alias to move back.
    pub alias: String,
    /// The version to go back to, one that the alias pointed to before; the one before when left out.
    #[serde(default)]
    pub to: Option<i64>,
    /// The version the alias must point to now; whatever it points to when left out.
    #[serde(default)]
    pub expect: Option<i64>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Names a version of a model: by its number, or by an alias that points to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionRef {
    /// By its number.
    Number(i64),
    /// By an alias.
    Alias(String),
}

impl std::str::FromStr for VersionRef {
    type Err = String;

    /// Digits are a number (`v3` is the alias of that name).
    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse().map_err(|_| format!("`{text}` is too large for a version"))?;
            return Ok(Self::Number(number));
        }
        crate::names::check_name(text).map_err(|wrong| format!("`{text}` {wrong}"))?;
        Ok(Self::Alias(text.to_owned()))
    }
}

impl std::fmt::Display for VersionRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Alias(alias) => alias.fmt(f),
        }
    }
}

/// A version and where it comes from: `GET /api/v1/models/M/versions/V`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionDetail {
    /// The model.
    pub model: String,
    /// The version itself.
    #[serde(flatten)]
    pub version: VersionView,
    /// The aliases that point to it now.
    pub aliases: Vec<String>,
    /// The version that its gates compared it with; none when there was none.
    pub compared_with: Option<i64>,
    /// Digest of the evidence record.
    pub evidence: Digest,
    /// Digest of its run's definition and code.
    pub definition: Digest,
    /// Digest of its run's code; none where the workflow has none.
    pub code: Option<Digest>,
    /// Its run's params.
    pub params: serde_json::Map<String, Value>,
    /// What its data looked like: the digest of the profile that each `validate` step of its run handed on, by step.
    pub data: BTreeMap<String, Digest>,
    /// What started its run, in words.
    pub trigger: String,
    /// How many events its run stands for.
    pub event_count: u64,
    /// The first 10,000 of them.
    pub events: Vec<EventRef>,
}

/// What two versions differ in: `GET /api/v1/models/M/diff?from=V&to=V`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionDiff {
    /// One version.
    pub from: VersionDetail,
    /// The other.
    pub to: VersionDetail,
    /// Every metric that either has.
    pub metrics: BTreeMap<String, MetricChange>,
    /// The params that differ.
    pub params: BTreeMap<String, Change<Value>>,
    /// The steps whose data looked otherwise, by the digests of their profiles.
    pub data: BTreeMap<String, Change<Digest>>,
    /// The definitions with their code, where they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Change<Digest>>,
    /// The code, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Change<Digest>>,
    /// The artifacts, where they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Change<Digest>>,
}

/// What something was and is; nothing where it was or is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change<T> {
    /// In one version.
    pub from: Option<T>,
    /// In the other.
    pub to: Option<T>,
}

/// A metric of two versions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricChange {
    /// In one version.
    pub from: Option<f64>,
    /// In the other.
    pub to: Option<f64>,
    /// By how much the other is greater; none unless both have it.
    pub change: Option<f64>,
}

impl VersionDiff {
    /// What two versions differ in.
    pub fn between(from: VersionDetail, to: VersionDetail) -> Self {
        let (a, b) = (&from.version.metrics, &to.version.metrics);
        let metrics = a.keys().chain(b.keys()).map(|name| {
            let (from, to) = (a.get(name).copied(), b.get(name).copied());
            let change = from.zip(to).map(|(from, to)| to - from);
            (name.clone(), MetricChange { from, to, change })
        });
        let params = |version: &VersionDetail| version.params.clone().into_iter().collect();
        Self {
            metrics: metrics.collect(),
            params: differing(&params(&from), &params(&to)),
            data: differing(&from.data, &to.data),
            definition: changed(Some(&from.definition), Some(&to.definition)),
            code: changed(from.code.as_ref(), to.code.as_ref()),
            artifact: changed(Some(&from.version.digest), Some(&to.version.digest)),
            from,
            to,
        }
    }
}

fn differing<T: Clone + PartialEq>(
    from: &BTreeMap<String, T>,
    to: &BTreeMap<String, T>,
) -> BTreeMap<String, Change<T>> {
    let names = from.keys().chain(to.keys());
    names.filter_map(|name| Some((name.clone(), changed(from.get(name), to.get(name))?))).collect()
}

fn changed<T: Clone + PartialEq>(from: Option<&T>, to: Option<&T>) -> Option<Change<T>> {
    (from != to).then(|| Change { from: from.cloned(), to: to.cloned() })
}

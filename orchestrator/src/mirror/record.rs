//! What MLflow is told of a version: a run with params, metrics and tags, and where the artifact is. Pure: the same version
//! gives the same, so that what was half told can be told again. Must never happen here: a word about how it gets there.

use std::collections::BTreeSet;

use refit_workflows::time::Timestamp;
use serde_json::Value;

use crate::store::WantedVersion;

/// The tag by which a version, or its run, is found again: its evidence is that of no other version, of no other Refit either.
pub(super) const EVIDENCE_TAG: &str = "refit.evidence";

/// The longest name of a metric or a param, in characters (MLflow's `MAX_ENTITY_KEY_LENGTH`).
const NAME_MAX: usize = 250;
/// The longest value of a param and of a run's tag, in characters (`MAX_PARAM_VAL_LENGTH`, `MAX_TAG_VAL_LENGTH`).
const PARAM_MAX: usize = 6000;
const TAG_MAX: usize = 8000;
/// The longest description, in characters.
const DESCRIPTION_MAX: usize = 2000;
/// What stands in place of what was cut off.
const CUT: &str = "…";

/// A version and its run as MLflow is to have them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MirroredRun {
    /// The run's name.
    pub(super) name: String,
    /// When the version was made; its metrics are of then.
    pub(super) at: Timestamp,
    pub(super) params: Vec<(String, String)>,
    pub(super) metrics: Vec<(String, f64)>,
    /// The tags of the version.
    pub(super) tags: Vec<(String, String)>,
    /// Those of the run: the same, and what MLflow's own pages show.
    pub(super) run_tags: Vec<(String, String)>,
    pub(super) description: String,
    /// Where the artifact is. MLflow 3 refuses `https://` and paths of files; it keeps other schemes as they are.
    pub(super) source: String,
}

impl MirroredRun {
    /// `refit_url` is where people reach Refit.
    pub(super) fn of(version: &WantedVersion, refit_url: Option<&str>) -> Self {
        let record = &version.record;
        let (model, number) = (&record.model, version.version);
        let mut tags = vec![
            ("refit.version".to_owned(), number.to_string()),
            ("refit.run".to_owned(), record.run.to_string()),
            (EVIDENCE_TAG.to_owned(), version.evidence.to_string()),
            ("refit.definition".to_owned(), record.definition.to_string()),
            ("refit.artifact".to_owned(), version.artifact.clone()),
            ("refit.digest".to_owned(), record.candidate.digest.to_string()),
        ];
        let compared = record.champion.map(|champion| champion.to_string());
        tags.extend(compared.map(|champion| ("refit.compared_with".to_owned(), champion)));
        for (step, said) in &record.approvals {
            tags.push((format!("refit.approval.{step}"), shortened(said, TAG_MAX)));
        }
        if let Some(url) = refit_url {
            let url = url.trim_end_matches('/');
            let artifact = format!("{url}/api/v1/models/{model}/versions/{number}/artifact");
            tags.push(("refit.url".to_owned(), shortened(&artifact, TAG_MAX)));
        }
        let reasons: Vec<_> =
            record.gates.iter().map(|(step, decision)| format!("{step}: {}", decision.reason)).collect();
        let description = shortened(&reasons.join("\n"), DESCRIPTION_MAX);
        let mut run_tags = tags.clone();
        run_tags.extend([
            ("refit.model".to_owned(), model.clone()),
            ("mlflow.user".to_owned(), "refit".to_owned()),
            ("mlflow.source.name".to_owned(), format!("refit:{}", record.run.workflow)),
            ("mlflow.source.type".to_owned(), "JOB".to_owned()),
            ("mlflow.note.content".to_owned(), description.clone()),
        ]);
        let mut taken = BTreeSet::new();
        let params = record
            .params
            .iter()
            .map(|(name, value)| (name_there(name, &mut taken), shortened(&text_of(value), PARAM_MAX)))
            .collect();
        let mut taken = BTreeSet::new();
        let metrics = record
            .metrics
            .iter()
            .filter(|(_, value)| value.is_finite())
            .map(|(name, value)| (name_there(name, &mut taken), *value))
            .collect();
        let source = format!("refit:/{model}/versions/{number}");
        Self {
            name: record.run.to_string(),
            at: record.at,
            params,
            metrics,
            tags,
            run_tags,
            description,
            source,
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn shortened(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(longest - CUT.chars().count()).collect();
    short.push_str(CUT);
    short
}

/// A name that MLflow takes: letters, digits and `_ - . : /` and space, and as a path one that leads nowhere else. Of two that
/// come to the same, the later one gets a number.
fn name_there(name: &str, taken: &mut BTreeSet<String>) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | ' ');
    let mut there: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).take(NAME_MAX).collect();
    let leads_away = there.split('/').any(|part| matches!(part, "" | "." | ".."));
    if leads_away {
        there = there.replace(['/', '.'], "_");
    }
    if there.is_empty() {
        there.push('_');
    }
    let mut unique = there.clone();
    let mut count = 1;
    while !taken.insert(unique.clone()) {
        count += 1;
        let end = format!("_{count}");
        unique = there.chars().take(NAME_MAX - end.len()).chain(end.chars()).collect();
    }
    unique
}

#[cfg(test)]
mod tests {
    use refit_workflows::digest::Digest;
    use serde_json::json;

    use super::*;

    fn version(params: Value, metrics: Value) -> WantedVersion {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let gate = json!({ "verdict": "pass", "reason": "accuracy 0.9 is at least 0.5", "champion": 2, "checks": [] });
        let record = json!({
            "model": "churn", "version": 3, "alias": "champion", "champion": 2,
            "candidate": { "digest": digest("model"), "bytes": 5, "kind": "file" }, "metrics": metrics,
            "gates": { "gate": gate }, "approvals": { "ask": "ada: fine" }, "run": "churn/12",
            "definition": digest("definition"), "params": params, "events": [], "at": "2027-01-15T08:00:00Z",
        });
        let record = serde_json::from_value(record).unwrap();
        WantedVersion { version: 3, artifact: "model".to_owned(), evidence: digest("evidence"), record }
    }

    #[test]
    fn a_version_is_told_with_all_that_it_rested_on() {
        let wanted = version(json!({ "depth": 4, "region": "eu", "list": [1, "a"] }), json!({ "auc": 0.5 }));
        let told = MirroredRun::of(&wanted, Some("https://refit.internal/"));
        assert_eq!((told.name.as_str(), told.source.as_str()), ("churn/12", "refit:/churn/versions/3"));
        let pair = |(key, value): &(String, String)| format!("{key}={value}");
        let params: Vec<_> = told.params.iter().map(pair).collect();
        assert_eq!(params, ["depth=4", "list=[1,\"a\"]", "region=eu"]);
        assert_eq!(told.metrics, [("auc".to_owned(), 0.5)]);
        let tags: Vec<_> = told.tags.iter().map(pair).collect();
        for tag in [
            "refit.version=3",
            "refit.run=churn/12",
            "refit.compared_with=2",
            "refit.approval.ask=ada: fine",
            "refit.url=https://refit.internal/api/v1/models/churn/versions/3/artifact",
        ] {
            assert!(tags.iter().any(|told| told == tag), "{tag} in {tags:?}");
        }
        assert!(told.tags.iter().all(|tag| told.run_tags.contains(tag)));
        assert_eq!(told.description, "gate: accuracy 0.9 is at least 0.5");
        assert_eq!(MirroredRun::of(&wanted, None), MirroredRun::of(&wanted.clone(), None), "said again");
    }

    #[test]
    fn names_and_values_are_such_as_mlflow_takes() {
        let mut taken = BTreeSet::new();
        for (name, there) in [
            ("auc", "auc"),
            ("train[depth=4].auc", "train_depth_4_.auc"),
            ("train(depth=4).auc", "train_depth_4_.auc_2"),
            ("a/b", "a/b"),
            ("a/../b", "a____b"),
            ("/a", "_a"),
            (".", "_"),
            ("é", "__2"),
        ] {
            assert_eq!(name_there(name, &mut taken), there, "{name}");
        }
        assert_eq!(name_there(&"x".repeat(300), &mut taken).len(), NAME_MAX);
        assert_eq!(name_there(&"x".repeat(300), &mut taken).len(), NAME_MAX);
        let long = MirroredRun::of(&version(json!({ "p": "ü".repeat(7000) }), json!({})), None);
        assert_eq!(long.params[0].1.chars().count(), PARAM_MAX);
    }
}

//! Outcomes that are taken again: what they are found by.

use super::*;

const WORKFLOW: &str = "
workflow: retrain
model: m
steps:
  train: { run: [a], artifacts: { model: m } }
  gate: { needs: [train], gate: { checks: [{ metric: accuracy, min_change: 0.0 }] } }
  promote: { needs: [gate], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
  aside: { run: [b], secrets: [TOKEN], cache: true }
";
const ASIDE: usize = 3;

/// A champion with an artifact of its own, which steps are handed.
fn reigning(version: i64) -> Champion {
    let digest = Digest::of(version.to_string().as_bytes());
    let artifacts = BTreeMap::from([("model".to_owned(), ArtifactRef { digest, ..artifact() })]);
    Champion { artifacts, ..champion(version, 0.5) }
}

/// A run that has just started under this champion, and what its step asks to be told of.
fn started(text: &str, version: i64) -> (Run, Vec<Digest>) {
    let mut run = new_run(&parse(text));
    let effects = run.apply(&Input::Admitted { champion: Some(reigning(version)) }, NOW).unwrap();
    let asked = |effect| if let Effect::Recall { key, .. } = effect { Some(key) } else { None };
    (run, effects.into_iter().filter_map(asked).collect())
}

#[test]
fn an_outcome_is_kept_under_what_its_attempt_was_told() {
    let (mut run, asked) = started(WORKFLOW, 1);
    run.apply(&lease(ASIDE), NOW).unwrap();
    run.apply(&lease(0), NOW).unwrap();
    run.apply(&Input::Finished { step: 0, epoch: 1, outcome: success(0.9), set_up_ms: None }, NOW).unwrap();
    // Somebody else was faster, while the step aside is at work with the champion of before.
    let champion = Some(reigning(2));
    run.apply(&Input::ChampionMoved { step: place(&run, "promote"), champion }, NOW).unwrap();
    let finished = Input::Finished { step: ASIDE, epoch: 1, outcome: success(0.9), set_up_ms: None };
    let effects = run.apply(&finished, NOW).unwrap();
    let kept = |effect| if let Effect::Remember { key, .. } = effect { Some(key) } else { None };
    let kept: Vec<Digest> = effects.into_iter().filter_map(kept).collect();
    assert_eq!(kept, asked);
    assert_ne!(started(WORKFLOW, 2).1, asked, "under the new champion it is something else");
    assert_ne!(started(&WORKFLOW.replace("TOKEN", "OTHER"), 1).1, asked, "so it is with another secret");
    assert_eq!(started(WORKFLOW, 1).1, asked);
}

//! The state machine searched, not sampled: every reachable state of small graphs with every input, valid or not.

use std::collections::HashSet;

use super::*;

const DIAMOND: &str = "
workflow: diamond
model: m
steps:
  train: { run: [a], artifacts: { model: m }, retry: { attempts: 2, backoff: 1s } }
  left: { needs: [train], run: [b] }
  gate: { needs: [left], gate: { checks: [{ metric: accuracy, min: 0.5 }] } }
  ok: { needs: [gate], approval: { timeout: 1h } }
  promote: { needs: [ok], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";

/// Epochs and losses grow for ever; a search stops where they have shown all they can.
struct Bounds {
    epoch: i64,
    uncounted: u32,
}

/// Visits every state that is reachable within the bounds. Returns their images.
fn search(workflow: &Arc<Workflow>, bounds: &Bounds) -> HashSet<String> {
    let first = new_run(workflow);
    let mut seen = HashSet::from([image(&first)]);
    let mut open = VecDeque::from([first]);
    let (mut accepted, mut refused) = (0u64, 0u64);
    while let Some(run) = open.pop_front() {
        for input in all_inputs(&run) {
            let mut next = run.clone();
            // Long enough for every pause to be over; always the same, so that times do not multiply states.
            let mut registry = Registry { champion: None, moved: false };
            match apply(&mut next, &input, NOW.plus(Duration::from_secs(7200)), &mut registry) {
                Err(_) => {
                    refused += 1;
                    let same = next.head == run.head && next.steps == run.steps;
                    assert!(same, "a refused input changed something: {input:?}");
                }
                Ok(_) => {
                    accepted += 1;
                    check_invariants(&next);
                    let within =
                        |step: &Arc<Step>| step.epoch <= bounds.epoch && step.uncounted <= bounds.uncounted;
                    if next.steps.iter().all(within) && seen.insert(image(&next)) {
                        open.push_back(next);
                    }
                }
            }
        }
    }
    println!("{} states, {accepted} inputs accepted, {refused} refused", seen.len());
    for ending in ["succeeded", "rejected", "failed", "cancelled", "coalesced"] {
        let text = format!("\"ending\":\"{ending}\"");
        assert!(seen.iter().any(|image| image.contains(&text)), "no state {ending} was reached");
    }
    seen
}

#[test]
fn every_reachable_state_holds_the_invariants() {
    let seen = search(&parse(DIAMOND), &Bounds { epoch: 3, uncounted: 1 });
    assert!(seen.len() > 100, "the search found only {} states", seen.len());
}

#[test]
fn every_reachable_state_of_a_sweep_with_finally_holds_the_invariants() {
    let text = "
workflow: sweep
model: m
steps:
  train: { run: [a], artifacts: { model: m } }
  best: { needs: [train], run: [a], artifacts: { model: m } }
  gate: { needs: [best], gate: { checks: [{ metric: accuracy, min: 0.5 }] } }
  ok: { needs: [gate], approval: {} }
  promote: { needs: [ok], promote: { artifact: '${{ steps.best.artifacts.model }}' } }
  report: { run: [a] }
";
    let workflow = changed(text, |workflow| {
        let matrix = Matrix { max_parallel: Some(1), min_success: 0.5, ..axis("depth", json!([4, 8])) };
        step(workflow, "train").matrix = Some(matrix);
        step(workflow, "best").verb = select(0, "metrics.accuracy");
        step(workflow, "report").finally = true;
    });
    let seen = search(&workflow, &Bounds { epoch: 2, uncounted: 0 });
    assert!(seen.len() > 1000, "the search found only {} states", seen.len());
}

#[test]
fn every_reachable_state_of_runs_in_a_matrix_holds_the_invariants() {
    let text = "
workflow: regions
params: { depth: { type: integer, default: 1 } }
steps:
  list: { run: [a] }
  each: { needs: [list], run: [a] }
  clean: { run: [a] }
";
    let workflow = changed(text, |workflow| {
        step(workflow, "each").matrix = Some(dynamic("${{ steps.list.outputs.list }}"));
        step(workflow, "each").verb =
            Verb::Workflow(ChildRun { name: "child".to_owned(), params: BTreeMap::new() });
        step(workflow, "clean").finally = true;
        step(workflow, "clean").verb =
            Verb::Workflow(ChildRun { name: "cleaner".to_owned(), params: BTreeMap::new() });
    });
    let seen = search(&workflow, &Bounds { epoch: 2, uncounted: 0 });
    assert!(seen.len() > 500, "the search found only {} states", seen.len());
}

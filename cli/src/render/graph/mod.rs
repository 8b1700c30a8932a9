//! The graph of a workflow or of a run, drawn: on rails in the terminal, as Mermaid or Graphviz text for documents. This
//! file turns both into one plain [`Graph`], orders it and drops the edges that go without saying. Pure; prints nothing.

mod dot;
mod mermaid;
mod rails;
#[cfg(test)]
mod tests;
mod text;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use refit_workflows::definition::Workflow;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{RunView, StepView};

use super::run::outcome;
use super::time::took;
use crate::args::GraphForm;

/// What is drawn: steps, and what each of them needs.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    /// The workflow, or the run.
    name: String,
    /// In the file's order.
    steps: Vec<Node>,
}

/// A step of the drawing.
#[derive(Clone, Debug, Default)]
struct Node {
    name: String,
    verb: String,
    /// Where it stands, in a run.
    state: Option<String>,
    /// How long it took and what came of it.
    note: String,
    /// Places of the steps it waits for.
    needs: Vec<usize>,
    /// Whether it runs after everything else.
    finally: bool,
}

impl Graph {
    /// The graph of a sound workflow.
    pub(crate) fn of_workflow(workflow: &Workflow) -> Self {
        let steps = workflow.steps.iter().map(|step| Node {
            name: step.name.clone(),
            verb: step.verb.name().to_owned(),
            needs: step.needs.clone(),
            finally: step.finally,
            ..Node::default()
        });
        Self { name: workflow.name.clone(), steps: steps.collect() }
    }

    /// The graph of a run as it stands.
    pub(crate) fn of_run(run: &RunView, now: Timestamp) -> Self {
        let views = run.steps.as_deref().unwrap_or_default();
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, view) in views.iter().enumerate() {
            places.entry(&view.step).or_default().push(place);
            // A need may name a matrix step, which stands for all its instances.
            if let Some((matrix, _)) = view.step.split_once('[') {
                places.entry(matrix).or_default().push(place);
            }
        }
        let steps = views.iter().map(|view| Node {
            name: view.step.clone(),
            verb: view.verb.clone(),
            state: Some(view.state.clone()),
            note: note(view, now),
            needs: view
                .needs
                .iter()
                .flat_map(|need| places.get(need.as_str()).into_iter().flatten().copied())
                .collect(),
            finally: view.finally,
        });
        Self { name: run.run.to_string(), steps: steps.collect() }
    }

    /// The drawing. In the terminal its lines have at most `columns` columns, where that is known.
    pub(crate) fn draw(&self, form: GraphForm, columns: Option<usize>) -> String {
        match form {
            GraphForm::Text => text::draw(self, columns),
            GraphForm::Mermaid => mermaid::draw(self),
            GraphForm::Dot => dot::draw(self),
        }
    }

    /// The places of the steps, each after what it needs, otherwise in the file's order, `finally` steps last. None when
    /// the steps go round in a circle, which no sound workflow does.
    fn order(&self) -> Option<Vec<usize>> {
        let mut dependents = vec![Vec::new(); self.steps.len()];
        for (place, step) in self.steps.iter().enumerate() {
            for &need in &step.needs {
                dependents[need].push(place);
            }
        }
        let mut waits: Vec<usize> = self.steps.iter().map(|step| step.needs.len()).collect();
        let turn = |place: usize| Reverse((self.steps[place].finally, place));
        let mut open: BinaryHeap<_> = (0..waits.len()).filter(|&place| waits[place] == 0).map(turn).collect();
        let mut order = Vec::with_capacity(waits.len());
        while let Some(Reverse((_, place))) = open.pop() {
            order.push(place);
            for &dependent in &dependents[place] {
                waits[dependent] -= 1;
                if waits[dependent] == 0 {
                    open.push(turn(dependent));
                }
            }
        }
        (order.len() == waits.len()).then_some(order)
    }

    /// Edges from what ends the graph to the `finally` steps that begin after it: they are not needs, but they are the
    /// order things happen in.
    fn afterwards(&self) -> Vec<(usize, usize)> {
        let mut needed = vec![false; self.steps.len()];
        for &need in self.steps.iter().filter(|step| !step.finally).flat_map(|step| &step.needs) {
            needed[need] = true;
        }
        let places = || 0..self.steps.len();
        let last: Vec<usize> =
            places().filter(|&place| !needed[place] && !self.steps[place].finally).collect();
        places()
            .filter(|&place| self.steps[place].finally && self.steps[place].needs.is_empty())
            .flat_map(|after| last.iter().map(move |&before| (before, after)))
            .collect()
    }
}

/// How long it took and what came of it, as `run watch` tells it.
fn note(step: &StepView, now: Timestamp) -> String {
    let idle = matches!(step.state.as_str(), "blocked" | "skipped");
    let took = took(step.started_at.or(step.ready_at), step.finished_at, now).filter(|_| !idle);
    let parts = took.into_iter().chain(Some(outcome(step)).filter(|outcome| !outcome.is_empty()));
    parts.collect::<Vec<_>>().join("  ")
}

/// The transitive reduction: `needs` without those that another need waits for anyway, ascending. Every need stands
/// before the step that needs it. Bits are kept per pair of steps: 12.5 MB for 10,000 of them.
fn reduced(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let words = needs.len().div_ceil(64);
    let mut before = vec![0_u64; words * needs.len()];
    let mut kept = Vec::with_capacity(needs.len());
    for (step, needs) in needs.iter().enumerate() {
        let mut latest_first = needs.clone();
        latest_first.sort_unstable_by_key(|&need| Reverse(need));
        latest_first.dedup();
        let (earlier, rest) = before.split_at_mut(step * words);
        let own = &mut rest[..words];
        // What a need waits for stands before it, so whatever makes a need go without saying was looked at already.
        latest_first.retain(|&need| {
            if own[need / 64] >> (need % 64) & 1 == 1 {
                return false;
            }
            for (own, of_need) in own.iter_mut().zip(&earlier[need * words..]) {
                *own |= of_need;
            }
            own[need / 64] |= 1 << (need % 64);
            true
        });
        latest_first.reverse();
        kept.push(latest_first);
    }
    kept
}

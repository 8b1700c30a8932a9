//! The graph of a file's steps: cycles, and who comes before whom. The only place that names petgraph.
//! Must never happen here: recursion along the graph, which may be thousands of steps deep.

use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};

/// Each cycle among the steps once, as the places along it; the first step in the file's order begins it.
///
/// Steps that are entangled in several cycles count as one: a shortest way around through the first of them is told.
pub(super) fn cycles(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let graph = build(needs);
    // Kosaraju's way keeps its own stack; petgraph's Tarjan calls itself along the graph.
    let mut cycles: Vec<Vec<usize>> = kosaraju_scc(&graph)
        .into_iter()
        .filter_map(|component| {
            let members: Vec<usize> = component.into_iter().map(NodeIndex::index).collect();
            let first = *members.iter().min()?;
            way_around(needs, &members, first)
        })
        .collect();
    cycles.sort_unstable();
    cycles
}

/// The shortest way from `first` along its needs back to itself, among the members of one component.
fn way_around(needs: &[Vec<usize>], members: &[usize], first: usize) -> Option<Vec<usize>> {
    if members.len() == 1 && !needs[first].contains(&first) {
        return None;
    }
    let inside: std::collections::HashSet<usize> = members.iter().copied().collect();
    let mut came_from = std::collections::HashMap::new();
    let mut open = std::collections::VecDeque::from([first]);
    while let Some(step) = open.pop_front() {
        for &need in needs[step].iter().filter(|need| inside.contains(need)) {
            if need == first {
                let mut way = vec![step];
                while let Some(&before) = came_from.get(way.last()?) {
                    way.push(before);
                }
                way.reverse();
                return Some(way);
            }
            came_from.entry(need).or_insert_with(|| {
                open.push_back(need);
                step
            });
        }
    }
    None
}

/// Which steps come before which: asked often, answered from a table of bits.
#[derive(Debug)]
pub(super) struct Ancestors {
    words: usize,
    bits: Vec<u64>,
}

impl Ancestors {
    /// The table of a graph. With a cycle it is empty: there is no before and after then.
    pub(super) fn of(needs: &[Vec<usize>]) -> Self {
        let words = needs.len().div_ceil(64);
        let mut bits = vec![0_u64; words * needs.len()];
        for step in toposort(&build(needs), None).unwrap_or_default().into_iter().map(NodeIndex::index) {
            for &need in &needs[step] {
                bits[step * words + need / 64] |= 1 << (need % 64);
                for word in 0..words {
                    let of_need = bits[need * words + word];
                    bits[step * words + word] |= of_need;
                }
            }
        }
        Self { words, bits }
    }

    /// Whether `step` waits for `earlier`, directly or through others.
    pub(super) fn is_before(&self, earlier: usize, step: usize) -> bool {
        self.bits.get(step * self.words + earlier / 64).is_some_and(|word| word >> (earlier % 64) & 1 == 1)
    }
}

/// Edges lead from a need to the step that needs it.
fn build(needs: &[Vec<usize>]) -> DiGraph<(), ()> {
    let mut graph = DiGraph::with_capacity(needs.len(), needs.iter().map(Vec::len).sum());
    for _ in needs {
        graph.add_node(());
    }
    for (step, needs) in needs.iter().enumerate() {
        for &need in needs {
            graph.add_edge(NodeIndex::new(need), NodeIndex::new(step), ());
        }
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_cycle_is_told_whole() {
        assert_eq!(cycles(&[vec![], vec![0], vec![1]]), [] as [Vec<usize>; 0]);
        assert_eq!(cycles(&[vec![0]]), [vec![0]]);
        // 0 needs 2 needs 1 needs 0; 3 and 4 need each other.
        assert_eq!(cycles(&[vec![2], vec![0], vec![1], vec![4], vec![3]]), [vec![0, 2, 1], vec![3, 4]]);
    }

    #[test]
    fn deep_graphs_are_no_danger() {
        let chain: Vec<Vec<usize>> =
            (0..10_000).map(|step: usize| step.checked_sub(1).into_iter().collect()).collect();
        assert!(cycles(&chain).is_empty());
        let ancestors = Ancestors::of(&chain);
        assert!(ancestors.is_before(0, 9_999) && !ancestors.is_before(9_999, 0));
        let mut ring = chain;
        ring[0] = vec![9_999];
        assert_eq!(cycles(&ring)[0].len(), 10_000);
    }

    proptest! {
        #[test]
        fn ancestors_are_what_a_walk_finds(edges in proptest::collection::vec((0_usize..100, 0_usize..100), 0..300)) {
            let mut needs = vec![Vec::new(); 100];
            for (a, b) in edges {
                if a < b {
                    needs[b].push(a);
                }
            }
            let table = Ancestors::of(&needs);
            for step in 0..100 {
                let mut seen = [false; 100];
                let mut open = needs[step].clone();
                while let Some(next) = open.pop() {
                    if !std::mem::replace(&mut seen[next], true) {
                        open.extend(&needs[next]);
                    }
                }
                for (earlier, seen) in seen.iter().enumerate() {
                    prop_assert_eq!(table.is_before(earlier, step), *seen);
                }
            }
        }
    }
}

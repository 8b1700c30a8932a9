//! The pass itself: batches of rows, what choices keep of each, and probes that take them in, shared out to a few threads. Each
//! probe sees every batch, one after the other, so that what it gathers does not depend on who does it.
//!
//! Must never happen here: more than a few batches in memory, however fast the data is read.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use super::STOPPED;
use super::filter::{Filter, value};
use super::probe::{Probe, Selected};
use crate::data::{Cells, Read, Rows, Table};

/// Threads that take rows in, at most, beside the one that reads them.
const HANDS_MAX: usize = 4;
/// Batches that are read before the one that a thread is at.
const AHEAD: usize = 16;

/// What chooses rows.
pub(super) enum Choice {
    /// `where`.
    Where(Filter),
    /// One value of a column, as JSON, among the rows of a choice before it.
    Slice { among: Option<usize>, read: usize, value: String },
}

/// A choice by its CEL; an error: why it cannot be made.
pub(super) type NamedChoice = (String, Result<Choice, String>);
/// A probe of all rows, or of those of a choice.
pub(super) type Placed = (Option<usize>, Probe);

/// Some rows, and which of them each choice keeps; none: it cannot be made.
struct Batch {
    rows: Rows,
    kept: Vec<Option<Vec<bool>>>,
}

/// Reads a table once; answers how many rows it has.
///
/// # Errors
/// It cannot be read, or `stop` was set. That a choice cannot be made is written into it.
pub(super) fn make(
    table: &Table,
    reads: &[Read],
    choices: &mut [NamedChoice],
    probes: &mut [Placed],
    stop: &AtomicBool,
) -> Result<u64, String> {
    std::thread::scope(|scope| {
        let (mut hands, mut threads) = (Vec::new(), Vec::new());
        for share in shared_out(probes) {
            let (hand, batches) = sync_channel(AHEAD);
            hands.push(hand);
            threads.push(scope.spawn(move || take_in(share, &batches)));
        }
        let mut read = || {
            let mut all = 0;
            for rows in table.read(reads).map_err(|wrong| wrong.to_string())? {
                if stop.load(Ordering::Relaxed) {
                    return Err(STOPPED.to_owned());
                }
                let rows = rows.map_err(|wrong| wrong.to_string())?;
                all += rows.count as u64;
                let batch = Arc::new(Batch { kept: choose(choices, &rows), rows });
                // One that is gone already has an error to tell.
                if hands.iter().any(|hand| hand.send(Arc::clone(&batch)).is_err()) {
                    break;
                }
            }
            Ok(all)
        };
        let read = read();
        drop(hands);
        for thread in threads {
            match thread.join() {
                Ok(taken) => taken?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        read
    })
}

/// Which probes each thread has: about as much work for each. Those of one choice stay together, for its rows are made once.
fn shared_out(probes: &mut [Placed]) -> Vec<Vec<&mut Placed>> {
    let mut groups: Vec<(Option<usize>, usize, Vec<&mut Placed>)> = Vec::new();
    for placed in probes {
        let (choice, effort) = (placed.0, placed.1.effort());
        match groups.iter_mut().find(|group| choice.is_some() && group.0 == choice) {
            Some(group) => {
                group.1 += effort;
                group.2.push(placed);
            }
            None => groups.push((choice, effort, vec![placed])),
        }
    }
    groups.sort_by_key(|group| Reverse(group.1));
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let hands = cores.min(HANDS_MAX).min(groups.len());
    let mut shares: Vec<(usize, Vec<&mut Placed>)> = (0..hands).map(|_| Default::default()).collect();
    for (_, effort, group) in groups {
        if let Some(share) = shares.iter_mut().min_by_key(|share| share.0) {
            share.0 += effort;
            share.1.extend(group);
        }
    }
    shares.into_iter().map(|(_, probes)| probes).collect()
}

fn take_in(mut probes: Vec<&mut Placed>, batches: &Receiver<Arc<Batch>>) -> Result<(), String> {
    for batch in batches {
        let whole = Selected::of(&batch.rows, None)?;
        let mut chosen = BTreeMap::new();
        for (choice, probe) in &mut probes {
            let Some(choice) = choice else {
                probe.add(&whole);
                continue;
            };
            let Some(kept) = &batch.kept[*choice] else { continue };
            match chosen.entry(*choice) {
                Entry::Occupied(rows) => probe.add(rows.get()),
                Entry::Vacant(place) => probe.add(place.insert(Selected::of(&batch.rows, Some(kept))?)),
            }
        }
    }
    Ok(())
}

/// Which rows each choice keeps.
fn choose(choices: &mut [NamedChoice], rows: &Rows) -> Vec<Option<Vec<bool>>> {
    let mut kept: Vec<Option<Vec<bool>>> = Vec::new();
    let mut values: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (_, choice) in choices {
        let chosen = match choice {
            Ok(Choice::Where(filter)) => filter.select(rows).map(Some),
            Ok(Choice::Slice { among, read, value }) => {
                let values = values.entry(*read).or_insert_with(|| texts(&rows.columns[*read]));
                let mut chosen: Vec<bool> = values.iter().map(|other| other == value).collect();
                match among.map(|among| &kept[among]) {
                    None => Ok(Some(chosen)),
                    Some(None) => Ok(None),
                    Some(Some(among)) => {
                        chosen.iter_mut().zip(among).for_each(|(chosen, among)| *chosen &= among);
                        Ok(Some(chosen))
                    }
                }
            }
            Err(_) => Ok(None),
        };
        kept.push(chosen.unwrap_or_else(|wrong| {
            *choice = Err(wrong);
            None
        }));
    }
    kept
}

/// The values of a column as JSON.
pub(super) fn texts(cells: &Cells) -> Vec<String> {
    (0..cells.values.len()).map(|row| value(cells, row).to_string()).collect()
}

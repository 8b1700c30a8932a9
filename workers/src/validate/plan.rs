//! What the pass over a table is to gather: which columns are read as what, which filters choose rows, what is gathered of them, and what was
//! gathered afterwards. Must never happen here: a column read twice as the same kind, or rows read where footers answer
//! everything.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::AtomicBool;

use super::filter::Filter;
use super::hashes::Hashes;
use super::pass::{self, Choice, NamedChoice, Placed};
use super::probe::{Probe, Ruled, Sample};
use super::questions::{Among, Ask, Count, Question};
use super::{Source, Task, questions, slices};
use crate::data::profile::{ColumnProfile, Profile, Profiler, Values};
use crate::data::{Kind, Read, Table};

/// The pass over a table, before and after it was made.
pub(super) struct Plan {
    reads: Vec<Read>,
    /// What chooses rows, by its CEL.
    filters: Vec<NamedChoice>,
    probes: Vec<Placed>,
    questions: Vec<Question>,
    /// Profiles of columns, by name and filter.
    profiled: BTreeMap<(String, Option<usize>), usize>,
    /// The profiles that were gathered, by probe.
    gathered: BTreeMap<usize, ColumnProfile>,
}

impl Plan {
    /// What the checks of a task ask of its table.
    ///
    /// # Errors
    /// None of a check's: those are answers. The slices of a check are found by reading their column, which may fail.
    pub(super) fn make(table: &Table, task: &Task, stop: &AtomicBool) -> Result<Self, String> {
        let mut plan = Self::empty();
        for (index, check) in task.checks.iter().enumerate() {
            let Some(by) = &check.by else {
                let filter = check.filter.as_ref().map(|source| plan.filter(source, table));
                let all = Among { filter, slice: None };
                questions::add(&mut plan, table, task, (index, check), &all);
                continue;
            };
            match slices::find(table, by, check.filter.as_deref(), stop)? {
                Ok(slices) => {
                    let among = check.filter.as_ref().map(|source| plan.filter(source, table));
                    let read = plan.read_of(by, table.column(by).and_then(|column| column.kind));
                    for slice in slices {
                        let choice = Choice::Slice { among, read, value: slice.value };
                        let filter = Some(plan.choice(slice.filter, Ok(choice)));
                        let rows = Among { filter, slice: Some(slice.name) };
                        questions::add(&mut plan, table, task, (index, check), &rows);
                    }
                }
                Err(why) => questions::add_broken(&mut plan, index, by, why),
            }
        }
        Ok(plan)
    }

    pub(super) fn empty() -> Self {
        Self {
            reads: Vec::new(),
            filters: Vec::new(),
            probes: Vec::new(),
            questions: Vec::new(),
            profiled: BTreeMap::new(),
            gathered: BTreeMap::new(),
        }
    }

    /// The profile of these columns, read as these kinds, of other data.
    pub(super) fn profile_other(
        source: &Source,
        columns: &[(String, Option<Kind>)],
        filter: Option<&str>,
        stop: &AtomicBool,
    ) -> Result<Profile, String> {
        let table = Table::open(&source.path, source.format).map_err(|wrong| wrong.to_string())?;
        let mut plan = Self::empty();
        let filter = filter.map(|source| plan.filter(source, &table));
        if let Some((_, Err(wrong))) = filter.map(|filter| &plan.filters[filter]) {
            return Err(wrong.clone());
        }
        for (column, kind) in columns {
            plan.profiled(column, *kind, filter);
        }
        if columns.is_empty() {
            plan.rows(&table, filter);
        }
        let rows =
            if plan.needs_rows() { plan.read(&table, stop)? } else { table.row_count().unwrap_or_default() };
        if let Some((_, Err(wrong))) = filter.map(|filter| &plan.filters[filter]) {
            return Err(wrong.clone());
        }
        Ok(plan.profile(rows, &table))
    }

    pub(super) fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// Whether rows must be read at all.
    pub(super) fn needs_rows(&self) -> bool {
        !self.probes.is_empty()
    }

    /// Reads the table once; answers how many rows it has.
    ///
    /// # Errors
    /// It cannot be read, or `stop` was set.
    pub(super) fn read(&mut self, table: &Table, stop: &AtomicBool) -> Result<u64, String> {
        pass::make(table, &self.reads, &mut self.filters, &mut self.probes, stop)
    }

    /// The profile of what was read; questions about columns are answered from it afterwards.
    pub(super) fn profile(&mut self, rows: u64, table: &Table) -> Profile {
        for (place, (_, probe)) in self.probes.iter_mut().enumerate() {
            match probe {
                Probe::Column(_, profiler) => {
                    let gathered = std::mem::replace(profiler, Profiler::new(None));
                    self.gathered.insert(place, gathered.finish());
                }
                Probe::Hashes(_, _, hashes) => hashes.sort(),
                Probe::Rows(_)
                | Probe::Missing(..)
                | Probe::Rule(..)
                | Probe::Values(..)
                | Probe::Alike(..) => {}
            }
        }
        let mut columns = BTreeMap::new();
        for ((name, filter), probe) in &self.profiled {
            if let Some(profile) = self.gathered.get(probe) {
                columns.insert(self.key(name, *filter), profile.clone());
            }
        }
        // What footers said of columns that nobody read.
        for question in &self.questions {
            if let (Ask::Missing { missing: Count::Known(missing), .. }, Some(name)) =
                (&question.ask, &question.column)
            {
                let count = table.row_count().unwrap_or_default().saturating_sub(*missing);
                let values = Values::Unknown { count };
                let unread = ColumnProfile { missing: *missing, unreadable: 0, values };
                columns.entry(name.clone()).or_insert(unread);
            }
        }
        let selected = self.probes.iter().filter_map(|(filter, probe)| {
            let (Some(filter), Probe::Rows(count)) = (filter, probe) else { return None };
            Some((self.filters[*filter].0.clone(), *count))
        });
        let selected = selected.collect();
        Profile::new(rows, selected, columns)
    }

    /// Some of the values that did not hold, with what was asked of them and the column.
    pub(super) fn sampled(&self) -> Vec<(String, String, Sample)> {
        let mut all = Vec::new();
        for question in &self.questions {
            let Ask::Rule { probe, .. } = &question.ask else { continue };
            for sample in self.ruled(*probe).into_iter().flat_map(|ruled| &ruled.samples) {
                let column = question.column.clone().unwrap_or_default();
                all.push((question.name.clone(), column, sample.clone()));
            }
        }
        all
    }

    /// Reads the table again for some of the rows that are alike, by question and hashes; the last that is done with a plan.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn sample_alike(
        mut self,
        alike: Vec<(usize, HashSet<u64>)>,
        table: &Table,
        stop: &AtomicBool,
    ) -> Result<Vec<(String, String, Sample)>, String> {
        let mut named = Vec::new();
        let mut probes = Vec::new();
        for (place, hashes) in alike {
            let question = &self.questions[place];
            let (Ask::Unique { probe } | Ask::Overlap { probe, .. }) = &question.ask else { continue };
            let (filter, Probe::Hashes(reads, ..)) = &self.probes[*probe] else { continue };
            let reads: Vec<_> = reads.iter().map(|read| (self.reads[*read].column.clone(), *read)).collect();
            let columns: Vec<&str> = reads.iter().map(|(column, _)| column.as_str()).collect();
            named.push((question.name.clone(), columns.join(", ")));
            probes.push((*filter, Probe::Alike(reads, hashes, Vec::new())));
        }
        self.probes = probes;
        self.read(table, stop)?;
        let mut all = Vec::new();
        for ((check, columns), (_, probe)) in named.into_iter().zip(self.probes) {
            let Probe::Alike(_, _, samples) = probe else { continue };
            all.extend(samples.into_iter().map(|sample| (check.clone(), columns.clone(), sample)));
        }
        Ok(all)
    }

    /// The name of a column among filtered ones.
    pub(super) fn key(&self, column: &str, filter: Option<usize>) -> String {
        match filter {
            Some(filter) => format!("{column} where {}", self.filters[filter].0),
            None => column.to_owned(),
        }
    }

    /// A filter's text.
    pub(super) fn filter_source(&self, filter: usize) -> &str {
        &self.filters[filter].0
    }

    /// Asks one more question.
    pub(super) fn ask(&mut self, question: Question) {
        self.questions.push(question);
    }

    /// Why the rows of a filter are not known, where it could not be evaluated.
    pub(super) fn broken_filter(&self, filter: Option<usize>) -> Option<&str> {
        match &self.filters[filter?].1 {
            Err(why) => Some(why),
            Ok(Choice::Slice { among, .. }) => self.broken_filter(*among),
            Ok(Choice::Where(_)) => None,
        }
    }

    pub(super) fn count(&self, count: Count) -> u64 {
        match count {
            Count::Known(count) => count,
            Count::Probe(place) => match &self.probes[place].1 {
                Probe::Rows(count) | Probe::Missing(_, count) => *count,
                Probe::Column(..)
                | Probe::Rule(..)
                | Probe::Hashes(..)
                | Probe::Values(..)
                | Probe::Alike(..) => 0,
            },
        }
    }

    pub(super) fn column(&self, probe: usize) -> Option<&ColumnProfile> {
        self.gathered.get(&probe)
    }

    pub(super) fn ruled(&self, probe: usize) -> Option<&Ruled> {
        let Probe::Rule(_, _, ruled) = &self.probes[probe].1 else { return None };
        Some(ruled)
    }

    pub(super) fn hashes(&self, probe: usize) -> Option<&Hashes> {
        let Probe::Hashes(_, _, hashes) = &self.probes[probe].1 else { return None };
        Some(hashes)
    }

    /// The different values of a column; none: there were too many, or some that cannot be read.
    pub(super) fn values(&self, probe: usize) -> Option<&BTreeSet<String>> {
        let Probe::Values(_, values) = &self.probes[probe].1 else { return None };
        values.as_ref()
    }

    /// What a column of a profile was read as.
    pub(super) fn kind_of(&self, probe: usize) -> Option<Kind> {
        let Probe::Column(read, _) = &self.probes[probe].1 else { return None };
        self.reads[*read].kind
    }

    pub(super) fn filter(&mut self, source: &str, table: &Table) -> usize {
        if let Some(place) = self.filters.iter().position(|(known, _)| known == source) {
            return place;
        }
        let reads = &mut self.reads;
        let natural = |name: &str| table.column(name).and_then(|column| column.kind);
        let filter = Filter::new(source, table, |name| read_in(reads, name, natural(name)));
        self.choice(source.to_owned(), filter.map(Choice::Where))
    }

    fn choice(&mut self, source: String, choice: Result<Choice, String>) -> usize {
        if let Some(place) = self.filters.iter().position(|(known, _)| *known == source) {
            return place;
        }
        self.filters.push((source, choice));
        self.filters.len() - 1
    }

    pub(super) fn read_of(&mut self, column: &str, kind: Option<Kind>) -> usize {
        read_in(&mut self.reads, column, kind)
    }

    pub(super) fn probe(&mut self, filter: Option<usize>, probe: Probe) -> usize {
        self.probes.push((filter, probe));
        self.probes.len() - 1
    }

    /// How many rows count.
    pub(super) fn rows(&mut self, table: &Table, filter: Option<usize>) -> Count {
        if let (None, Some(rows)) = (filter, table.row_count()) {
            return Count::Known(rows);
        }
        let known =
            |(other, probe): &(Option<usize>, Probe)| *other == filter && matches!(probe, Probe::Rows(_));
        let place = self.probes.iter().position(known);
        Count::Probe(place.unwrap_or_else(|| self.probe(filter, Probe::Rows(0))))
    }

    /// The description of a column as this kind.
    pub(super) fn described(&mut self, column: &str, kind: Option<Kind>, filter: Option<usize>) -> usize {
        let read = self.read_of(column, kind);
        let known = self.probes.iter().position(|(other, probe)| {
            *other == filter && matches!(probe, Probe::Column(other, _) if *other == read)
        });
        known.unwrap_or_else(|| self.probe(filter, Probe::Column(read, Profiler::new(kind))))
    }

    /// The same, to be kept in the profile.
    pub(super) fn profiled(&mut self, column: &str, kind: Option<Kind>, filter: Option<usize>) -> usize {
        let probe = self.described(column, kind, filter);
        self.profiled.insert((column.to_owned(), filter), probe);
        probe
    }
}

fn read_in(reads: &mut Vec<Read>, column: &str, kind: Option<Kind>) -> usize {
    let read = Read { column: column.to_owned(), kind };
    reads.iter().position(|known| *known == read).unwrap_or_else(|| {
        reads.push(read);
        reads.len() - 1
    })
}

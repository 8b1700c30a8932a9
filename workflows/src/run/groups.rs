//! Steps with a matrix. The step itself is the group: its instances are places of their own behind the definition's,
//! added when the group starts. The group is settled when they are.
//!
//! A place is one instance, by name, for ever: a retry of a matrix that has changed adds places and skips those that
//! are not in it any more, so that no stale lease fits another instance.

use super::*;
use crate::definition::Matrix;

/// The instances of a group, and how many of them stand where. Derived, never stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// Their places, in the matrix's order.
    pub(super) places: Arc<Vec<usize>>,
    /// Everything before this one has begun.
    cursor: usize,
    /// Not begun.
    pub(super) waiting: usize,
    /// Begun and not settled.
    pub(super) at_work: usize,
    /// Succeeded.
    pub(super) succeeded: usize,
}

/// Where an instance stands, as far as its group cares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    AtWork,
    Succeeded,
    Over,
}

impl Stage {
    fn of(state: &StepState) -> Self {
        match (state, state.settled()) {
            (_, Some(Settled::Succeeded { .. })) => Self::Succeeded,
            (_, Some(_)) => Self::Over,
            (StepState::Blocked, None) => Self::Waiting,
            (_, None) => Self::AtWork,
        }
    }
}

impl Group {
    fn count(&mut self, stage: Stage) -> Option<&mut usize> {
        match stage {
            Stage::Waiting => Some(&mut self.waiting),
            Stage::AtWork => Some(&mut self.at_work),
            Stage::Succeeded => Some(&mut self.succeeded),
            Stage::Over => None,
        }
    }

    /// The instance at `index` went from one state to another.
    pub(super) fn moved(&mut self, index: usize, from: &StepState, to: &StepState) {
        let (from, to) = (Stage::of(from), Stage::of(to));
        if let Some(count) = self.count(from) {
            *count -= 1;
        }
        if let Some(count) = self.count(to) {
            *count += 1;
        }
        if to == Stage::Waiting {
            self.cursor = self.cursor.min(index);
        }
    }

    /// How many instances are settled without having succeeded.
    pub(super) fn lost(&self) -> usize {
        self.places.len() - self.waiting - self.at_work - self.succeeded
    }
}

impl Run {
    /// Finds the instances of every group again.
    pub(super) fn derive_groups(&mut self) {
        let mut members: BTreeMap<usize, BTreeMap<usize, usize>> = BTreeMap::new();
        for (place, step) in self.steps.iter().enumerate() {
            if let Some(instance) = &step.instance
                && let Some(index) = instance.index
            {
                members.entry(instance.of).or_default().insert(index, place);
            }
        }
        self.groups = members
            .into_iter()
            .map(|(group, places)| (group, self.counted(places.into_values().collect())))
            .collect();
    }

    fn counted(&self, places: Vec<usize>) -> Group {
        let mut group = Group::default();
        for &place in &places {
            if let Some(count) = group.count(Stage::of(&self.steps[place].state)) {
                *count += 1;
            }
        }
        group.places = Arc::new(places);
        group
    }

    /// The places of a group's instances, in the matrix's order; none before it starts.
    pub(super) fn instances(&self, group: usize) -> Arc<Vec<usize>> {
        self.groups.get(&group).map(|group| Arc::clone(&group.places)).unwrap_or_default()
    }

    /// A group whose needs are settled and whose `if` holds: evaluates the matrix and starts what may start. Returns
    /// whether the group is settled already.
    pub(super) fn start_group(
        &mut self,
        group: usize,
        matrix: &Matrix,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let scope = self.scope(&matrix.references(), Some(group));
        let combinations = match matrix.combinations(self.step_name(group), &scope) {
            Ok(combinations) => combinations,
            Err(reason) => return self.conclude(group, at, Settled::Failed { reason }),
        };
        self.spread(group, combinations, at);
        let entry = self.step_mut(group);
        entry.ready_at = Some(at);
        entry.started_at = Some(at);
        self.set_state(group, StepState::Instances);
        self.look_at_group(group, at, effects)
    }

    /// Gives each combination its place: the one it had before the run was retried, or a new one.
    fn spread(&mut self, group: usize, combinations: Vec<matrix::Combination>, at: Timestamp) {
        // Counted afresh below.
        self.groups.remove(&group);
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for place in self.workflow.steps.len()..self.steps.len() {
            if let Some(instance) = &self.steps[place].instance
                && instance.of == group
            {
                known.insert(instance.name.clone(), place);
            }
        }
        let mut places = Vec::with_capacity(combinations.len());
        for (index, combination) in combinations.into_iter().enumerate() {
            let matrix::Combination { name, values } = combination;
            let place = known.remove(&name);
            let instance = Instance { of: group, index: Some(index), name, values };
            places.push(match place {
                Some(place) => self.take_up(place, instance),
                None => self.add_place(instance),
            });
        }
        for place in known.into_values() {
            if let Some(instance) = &mut self.step_mut(place).instance {
                instance.index = None;
            }
            let reason = "not in the matrix any more".to_owned();
            self.conclude(place, at, Settled::Skipped { reason, not_needed: true });
        }
        if !places.is_empty() {
            let counted = self.counted(places);
            self.groups.insert(group, counted);
        }
    }

    /// An instance that was there before the retry: what it came to stays, unless it is about other values now.
    fn take_up(&mut self, place: usize, instance: Instance) -> usize {
        let same = |old: &Instance| old.values == instance.values && old.index.is_some();
        if !self.steps[place].instance.as_deref().is_some_and(same) {
            self.reset_place(place);
        }
        self.step_mut(place).instance = Some(Box::new(instance));
        self.dirty.insert(place);
        place
    }

    fn add_place(&mut self, instance: Instance) -> usize {
        let place = self.steps.len();
        let finally = self.workflow.steps[instance.of].finally;
        self.steps.push(Arc::new(Step { instance: Some(Box::new(instance)), ..Step::blocked(0) }));
        self.count_unsettled(finally, 1);
        self.dirty.insert(place);
        place
    }

    /// Starts the instances that may start, gives up on those that cannot help any more, and settles the group when
    /// nothing of it is open. Returns whether it did.
    pub(super) fn look_at_group(&mut self, group: usize, at: Timestamp, effects: &mut Vec<Effect>) -> bool {
        let workflow = Arc::clone(&self.workflow);
        let (StepState::Instances, Some(matrix)) = (&self.steps[group].state, &workflow.steps[group].matrix)
        else {
            return false;
        };
        let window = matrix.max_parallel.map_or(usize::MAX, |most| most as usize);
        let mut hopeless = None;
        while let Some(place) = self.next_waiting(group) {
            hopeless = hopeless.or_else(|| self.hopeless(group, matrix));
            if let Some(reason) = hopeless.clone() {
                self.conclude(place, at, Settled::Skipped { reason, not_needed: false });
            } else if self.may_go_on(group) && self.at_work(group) < window {
                self.begin(place, at, effects);
            } else {
                break;
            }
        }
        let open = self.groups.get(&group).map_or(0, |counts| counts.waiting + counts.at_work);
        open == 0 && {
            let how = self.group_result(group, matrix);
            self.conclude(group, at, how)
        }
    }

    fn at_work(&self, group: usize) -> usize {
        self.groups.get(&group).map_or(0, |counts| counts.at_work)
    }

    /// The first instance that has not begun.
    fn next_waiting(&mut self, group: usize) -> Option<usize> {
        let counts = self.groups.get_mut(&group)?;
        if counts.waiting == 0 {
            return None;
        }
        let steps = &self.steps;
        let blocked = |&place: &usize| matches!(steps[place].state, StepState::Blocked);
        let ahead = counts.places[counts.cursor..].iter().position(blocked)?;
        counts.cursor += ahead;
        Some(counts.places[counts.cursor])
    }

    /// Why instances that have not begun need not begin: the share cannot be reached, or a need that was decided again
    /// while the group was at work did not come out well.
    fn hopeless(&self, group: usize, matrix: &Matrix) -> Option<String> {
        let counts = self.groups.get(&group)?;
        let (total, lost) = (counts.places.len(), counts.lost());
        let needed = matrix.needed(total);
        if total - lost < needed {
            return Some(match needed == total {
                true => format!("{lost} of {total} instances did not succeed"),
                false => format!("{lost} of {total} instances did not succeed; {needed} would have to"),
            });
        }
        self.held_back_by(group).filter(|_| !self.decides_itself(group))
    }

    fn group_result(&self, group: usize, matrix: &Matrix) -> Settled {
        let counts = self.groups.get(&group).cloned().unwrap_or_default();
        let total = counts.places.len();
        if total == 0 {
            return Settled::done("the matrix is empty: there was nothing to do".to_owned());
        }
        let lost = self.lost_in_words(&counts.places);
        if counts.succeeded >= matrix.needed(total) {
            let lost = if lost.is_empty() { lost } else { format!(": {lost}") };
            return Settled::done(format!("{} of {total} instances succeeded{lost}", counts.succeeded));
        }
        if self.is_cancelled(group) {
            return Settled::Cancelled { reason: "the run was cancelled".to_owned() };
        }
        let needed = matrix.needed(total);
        let reason = format!("{} of {total} instances succeeded, {needed} must: {lost}", counts.succeeded);
        let settled = |&place: &usize| self.steps[place].state.settled();
        let mut how = counts.places.iter().filter_map(settled);
        let rejected =
            counts.places.iter().filter_map(settled).any(|how| matches!(how, Settled::Rejected { .. }));
        let broke = how.any(|how| matches!(how, Settled::Failed { .. } | Settled::Cancelled { .. }));
        if rejected && !broke { Settled::refused(reason) } else { Settled::Failed { reason } }
    }

    /// The first instances that did not succeed, each with its reason, those that were never begun only counted.
    fn lost_in_words(&self, places: &[usize]) -> String {
        const NAMED: usize = 3;
        let lost: Vec<String> = places
            .iter()
            .filter_map(|&place| {
                let (name, how) = (self.step_name(place), self.steps[place].state.settled()?);
                match how {
                    Settled::Succeeded { .. } | Settled::Skipped { .. } => None,
                    Settled::Rejected { reason, .. }
                    | Settled::Failed { reason }
                    | Settled::Cancelled { reason } => Some(format!("{name}: {reason}")),
                }
            })
            .collect();
        let more = match lost.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        format!("{}{more}", lost[..lost.len().min(NAMED)].join("; "))
    }

    /// Sets a group back to the start, its instances with it: all of them, or those that did not succeed.
    pub(super) fn reset_instances(&mut self, group: usize, all: bool) {
        for &place in self.instances(group).iter() {
            if all {
                self.reset_place(place);
            } else if self.steps[place].state.results().is_none() {
                self.resume_place(place);
            }
        }
    }

    /// Instances of a group at work that were about to read results which are made anew wait for the new ones. When
    /// none has begun, the group itself starts over then.
    pub(super) fn hold_instances(&mut self, group: usize) {
        if !matches!(self.steps[group].state, StepState::Instances) {
            return;
        }
        let places = self.instances(group);
        for &place in places.iter() {
            if matches!(self.steps[place].state, StepState::Ready | StepState::Pausing { .. }) {
                self.reset_place(place);
            }
        }
        if places.iter().all(|&place| matches!(self.steps[place].state, StepState::Blocked)) {
            self.reset_place(group);
        }
    }
}

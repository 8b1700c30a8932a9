//! Who waits for whom: a run for the runs its steps asked for, and a run that waits in a lane for those that go on there.
//! A child that would close a ring of such waits is refused when it is created; nothing else closes one, because a run
//! that starts waits for nobody yet. Read under the `trigger` duty, so that nobody adds a wait meanwhile; what ends
//! meanwhile only sets others free. Must never happen here: a change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use refit_workflows::definition::OnConflict;
use refit_workflows::names::RunName;
use refit_workflows::run::{RunHead, RunState};

use super::StoreError;
use super::database::{Row, sql};
use super::dispatch::Round;
use super::lanes::LaneName;

const RUNNING: &str = "SELECT r.id, r.workflow, r.number, r.head, (SELECT COUNT(*) FROM children c
        WHERE c.parent = r.id AND c.cancelled = 0 AND c.phase IN ('created', 'told')) AS children
    FROM runs r WHERE r.workflow = $1 AND r.lane = $2 AND r.state = 'running' ORDER BY r.id LIMIT $3";
const CHILDREN: &str = "SELECT r.id, r.workflow, r.number, r.lane, r.state, r.head
    FROM children c JOIN runs r ON r.id = c.child
    WHERE c.parent = $1 AND c.cancelled = 0 AND c.phase IN ('created', 'told') ORDER BY c.seq";

/// The most runs and lanes that are looked at. Beyond that nothing is known, and the child may wait.
const LOOK_MAX: usize = 500;

/// What is still to be looked at.
enum Open {
    Lane(LaneName),
    Run(i64, RunName),
}

/// Everybody who may wait for ever, as far as it can be reached from the lane of a child.
#[derive(Default)]
struct Waits {
    /// Lanes without room, and the runs that go on there: all of them must end before one more can be sure to start.
    lanes: BTreeMap<LaneName, Vec<i64>>,
    /// Runs that go on, and what each waits for: any of it keeps the run from ending.
    runs: BTreeMap<i64, Waiter>,
}

struct Waiter {
    name: RunName,
    on: Vec<On>,
}

enum On {
    /// A child that goes on.
    Run(i64),
    /// This child, which waits in this lane.
    Lane(RunName, LaneName),
    /// The child that is being created.
    Itself,
}

impl Round {
    /// The ring that a new child closes which waits in this lane: the runs it would wait for, one for the other, the last
    /// of them the one that `asks` for it. None: the lane will have room one day.
    pub(super) async fn ring(
        &mut self,
        asks: i64,
        lane: &LaneName,
    ) -> Result<Option<Vec<RunName>>, StoreError> {
        self.flush().await?;
        let mut waits = Waits::default();
        let mut open = VecDeque::from([Open::Lane(lane.clone())]);
        while let Some(next) = open.pop_front() {
            if waits.lanes.len() + waits.runs.len() > LOOK_MAX {
                tracing::warn!(
                    workflow = lane.workflow,
                    "too many runs wait to look for those that wait for ever"
                );
                return Ok(None);
            }
            match next {
                Open::Lane(lane) if !waits.lanes.contains_key(&lane) => {
                    if let Some(running) = self.without_room(asks, &lane).await? {
                        waits.lanes.insert(lane, running.iter().map(|(id, _)| *id).collect());
                        open.extend(running.into_iter().map(|(id, name)| Open::Run(id, name)));
                    }
                }
                Open::Run(id, name) if !waits.runs.contains_key(&id) => {
                    let mut on = self.children_of(id, &mut open).await?;
                    on.extend((id == asks).then_some(On::Itself));
                    waits.runs.insert(id, Waiter { name, on });
                }
                Open::Lane(_) | Open::Run(..) => {}
            }
        }
        waits.set_free();
        Ok(waits.lanes.contains_key(lane).then(|| waits.way_back(lane)))
    }

    /// The runs that go on in a lane, if there are as many as may be and each of them waits for others.
    async fn without_room(
        &mut self,
        asks: i64,
        lane: &LaneName,
    ) -> Result<Option<Vec<(i64, RunName)>>, StoreError> {
        let Some(current) = self.store.current_workflow(&mut self.tx, &lane.workflow).await? else {
            return Ok(None);
        };
        let rule = current.workflow.lane_rule();
        if rule.on_conflict == OnConflict::Parallel {
            return Ok(None);
        }
        let find = sql(RUNNING).bind(&lane.workflow).bind(&lane.lane).bind(LOOK_MAX as i64);
        let mut running = Vec::new();
        for row in self.tx.all(find).await? {
            let id = row.int("id")?;
            if id != asks && (row.int("children")? == 0 || is_ending(&row)?) {
                return Ok(None);
            }
            running.push((id, name(&row)?));
        }
        Ok((running.len() as u64 >= u64::from(rule.limit)).then_some(running))
    }

    /// What a run waits for that goes on; each of it is to be looked at next.
    async fn children_of(&mut self, id: i64, open: &mut VecDeque<Open>) -> Result<Vec<On>, StoreError> {
        let mut on = Vec::new();
        for row in self.tx.all(sql(CHILDREN).bind(id)).await? {
            let child = name(&row)?;
            match row.text("state")?.as_str() {
                "running" if !is_ending(&row)? => {
                    on.push(On::Run(row.int("id")?));
                    open.push_back(Open::Run(row.int("id")?, child));
                }
                "waiting" => {
                    let lane = LaneName { workflow: child.workflow.clone(), lane: row.text("lane")? };
                    on.push(On::Lane(child, lane.clone()));
                    open.push_back(Open::Lane(lane));
                }
                // It is over, or will be: nobody waits for it for ever.
                _ => {}
            }
        }
        Ok(on)
    }
}

impl Waits {
    /// Leaves only those who wait for ever, if the child that is being created does.
    fn set_free(&mut self) {
        loop {
            let before = self.lanes.len() + self.runs.len();
            self.lanes.retain(|_, running| running.iter().all(|id| self.runs.contains_key(id)));
            let is_free = |run: &Waiter| !run.on.iter().any(|on| self.is_stuck(on));
            let free: Vec<i64> =
                self.runs.iter().filter(|(_, run)| is_free(run)).map(|(&id, _)| id).collect();
            for id in free {
                self.runs.remove(&id);
            }
            if self.lanes.len() + self.runs.len() == before {
                return;
            }
        }
    }

    fn is_stuck(&self, on: &On) -> bool {
        match on {
            On::Run(id) => self.runs.contains_key(id),
            On::Lane(_, lane) => self.lanes.contains_key(lane),
            On::Itself => true,
        }
    }

    /// The shortest way from a lane to the run that asks for the child which would wait there.
    fn way_back(&self, from: &LaneName) -> Vec<RunName> {
        let mut seen = BTreeSet::new();
        let mut open: VecDeque<(i64, Vec<RunName>)> = self.running(from).map(|id| (id, Vec::new())).collect();
        while let Some((id, mut way)) = open.pop_front() {
            let Some(run) = self.runs.get(&id).filter(|_| seen.insert(id)) else { continue };
            way.push(run.name.clone());
            for on in run.on.iter().filter(|on| self.is_stuck(on)) {
                match on {
                    On::Itself => return way,
                    On::Run(child) => open.push_back((*child, way.clone())),
                    On::Lane(child, lane) => {
                        let way: Vec<RunName> = way.iter().chain([child]).cloned().collect();
                        open.extend(self.running(lane).map(|id| (id, way.clone())));
                    }
                }
            }
        }
        Vec::new()
    }

    fn running(&self, lane: &LaneName) -> impl Iterator<Item = i64> {
        self.lanes.get(lane).into_iter().flatten().copied()
    }
}

/// Whether a run that goes on is being cancelled: then its children are ended too.
fn is_ending(row: &Row) -> Result<bool, StoreError> {
    let head: RunHead = row.json("head")?;
    Ok(matches!(head.state, RunState::Running { cancel: Some(_), .. }))
}

fn name(row: &Row) -> Result<RunName, StoreError> {
    Ok(RunName::new(row.text("workflow")?, row.int("number")?))
}

//! Which ready steps a worker's session is given. Looks at the classes of what steps ask for, then at the workflows within
//! those that fit, then at steps: what a worker cannot run costs it nothing, however much of it waits. Must never happen
//! here: a decision about what fits or whose turn it is, which are `refit_workflows::placement`'s.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use refit_workflows::definition::HostNeeds;
use refit_workflows::placement::{CLASS_LENGTH, Capacity, Claimant, Waiter, class_of, has_labels, kept_host};
use refit_workflows::run::Input;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{Register, StepOrder};

use super::database::{Row, Sql, sql};
use super::turn::{Claim, LeasedStep, Turn};
use super::workers::hosts_in;
use super::{ChangeError, Hints, StoreError, checkpoints, references, to_json};

/// How often one claim looks again when others were faster, or a run could not be read.
const LOOKS_MAX: usize = 4;

// Every class that has a step waiting, with the needs of one of them; a probe of steps_ready each. Only for a session that
// is its worker's own and takes work: a long poll may outlive either.
const CLASSES: &str = "WITH RECURSIVE classes (line) AS (
        SELECT MIN(line) FROM steps WHERE state = 'ready'
        UNION ALL
        SELECT (SELECT MIN(s.line) FROM steps s WHERE s.state = 'ready' AND s.line > substr(c.line, 1, 16) || '0')
            FROM classes c WHERE c.line IS NOT NULL)
    SELECT c.line, (SELECT s.needs FROM steps s WHERE s.state = 'ready' AND s.line = c.line LIMIT 1) AS needs,
        (SELECT w.body FROM workers w WHERE w.name = $1 AND w.session = $2 AND w.draining = 0 AND w.drained = 0) AS body
    FROM classes c WHERE c.line IS NOT NULL LIMIT 1000";
// Every line of these classes; a few probes each.
macro_rules! lines {
    ($classes:literal, $collated:literal) => {
        concat!(
            "WITH RECURSIVE lines (class, line) AS (
            SELECT f.value, (SELECT MIN(s.line) FROM steps s
                WHERE s.state = 'ready' AND s.line > f.value || '/' AND s.line < f.value || '0')
            FROM ",
            $classes,
            " UNION ALL
            SELECT l.class, (SELECT MIN(s.line) FROM steps s
                WHERE s.state = 'ready' AND s.line > l.line AND s.line < l.class || '0')
            FROM lines l WHERE l.line IS NOT NULL)
        SELECT l.line, (SELECT s.ready_at FROM steps s WHERE s.state = 'ready' AND s.line = l.line
                ORDER BY s.ready_at, s.run, s.position LIMIT 1) AS ready_at,
            (SELECT s.priority FROM steps s WHERE s.state = 'ready' AND s.line = l.line
                ORDER BY s.ready_at, s.run, s.position LIMIT 1) AS priority,
            (SELECT MAX(b.begun_at) FROM steps b
                WHERE b.workflow = substr(l.line, 18)",
            $collated,
            " AND b.begun_at IS NOT NULL) AS served_at,
            (SELECT MAX(b.begun_at) FROM steps b WHERE b.workflow = substr(l.line, 18)",
            $collated,
            " AND b.class = l.class AND b.begun_at IS NOT NULL) AS class_served_at
        FROM lines l WHERE l.line IS NOT NULL LIMIT 1000"
        )
    };
}
const LINES: Sql = Sql {
    sqlite: lines!("json_each($1) AS f", ""),
    // A line is collated as bytes, a workflow's name is not.
    postgres: lines!("jsonb_array_elements_text($1::jsonb) AS f (value)", " COLLATE \"default\""),
};
const STEPS: Sql = Sql {
    sqlite: "SELECT r.id, r.version, s.position, s.ready_at FROM steps s JOIN runs r ON r.id = s.run
        WHERE s.state = 'ready' AND s.line = $1 ORDER BY s.ready_at, s.run, s.position LIMIT $2",
    postgres: "SELECT r.id, r.version, s.position, s.ready_at FROM steps s JOIN runs r ON r.id = s.run
        WHERE s.state = 'ready' AND s.line = $1 ORDER BY s.ready_at, s.run, s.position LIMIT $2
        FOR UPDATE OF r SKIP LOCKED",
};
// Two leases of one worker at once must not both give out what is free.
const LOCK_WORKER: Sql = Sql {
    sqlite: "SELECT name FROM workers WHERE name = $1 AND session = $2",
    postgres: "SELECT name FROM workers WHERE name = $1 AND session = $2 FOR UPDATE",
};
const USED: &str = "SELECT needs FROM steps WHERE session = $1 AND needs IS NOT NULL";

/// Where a step of this workflow waits.
pub(super) fn line_of(needs: Option<&HostNeeds>, workflow: &str) -> String {
    format!("{}/{workflow}", class_of(needs))
}

fn class_in(line: &str) -> String {
    line.chars().take(CLASS_LENGTH).collect()
}

/// What a session was given so far.
#[derive(Default)]
struct Given {
    steps: Vec<LeasedStep>,
    hints: Hints,
}

/// What a worker offers to steps that wait.
pub(super) struct Room {
    offers: Capacity,
    any_host: bool,
    /// What steps of each class that the host has at all ask for.
    classes: BTreeMap<String, HostNeeds>,
}

impl Room {
    fn is_counted(&self) -> bool {
        !self.any_host && self.classes.values().any(|needs| !needs.is_empty())
    }
}

/// The steps of one class and workflow.
struct Line {
    line: String,
    workflow: String,
    waiter: Waiter,
    /// The next of them, once they were looked for.
    next: Option<VecDeque<Row>>,
}

/// What is open to one look.
struct Look {
    now: Timestamp,
    free: Capacity,
    any_host: bool,
    lines: Vec<Line>,
    /// The line that what is free is kept for, and what waits in it.
    kept: Option<(String, Waiter)>,
}

impl Look {
    fn may_have(&self, line: &Line) -> bool {
        let kept = self.kept.as_ref().filter(|(kept, _)| *kept != line.line);
        let has_room = self.any_host || self.free.holds(&line.waiter.asks);
        has_room && !kept.is_some_and(|(_, waiter)| waiter.keeps_from(&line.waiter, &self.free, self.now))
    }

    /// The place of the line whose turn it is.
    fn turn(&self) -> Option<usize> {
        let open = self.lines.iter().enumerate().filter(|(_, line)| self.may_have(line));
        let first =
            open.min_by(|(_, one), (_, other)| one.waiter.claimant.turn(&other.waiter.claimant, self.now));
        first.map(|(place, _)| place)
    }

    /// A step of the line of this place was given.
    fn gave(&mut self, place: usize) {
        let Line { line, workflow, waiter, .. } = &self.lines[place];
        self.free = self.free.without(&waiter.asks);
        if self.kept.as_ref().is_some_and(|(kept, _)| kept == line) {
            self.kept = None;
        }
        let (workflow, now) = (workflow.clone(), self.now);
        for line in self.lines.iter_mut().filter(|line| line.workflow == workflow) {
            line.waiter.claimant.given += 1;
            line.waiter.claimant.served_at = Some(now);
        }
        self.lines[place].waiter.served_at = Some(now);
    }
}

impl Turn {
    /// What each of these workers may be given; none: it takes no steps, or none waits that its host could run. The row is
    /// locked of each that may be given something that is counted: all at once and in the order of their names, so that two
    /// turns do not wait for each other. From here on the turn waits for no lock.
    pub(super) async fn rooms(&mut self, claims: &[&Claim]) -> Result<Vec<Option<Room>>, StoreError> {
        if !claims.is_empty() {
            self.writes.write(&mut self.tx).await?;
        }
        let mut rooms = Vec::with_capacity(claims.len());
        let mut counted = BTreeSet::new();
        for claim in claims {
            let room = self.room(claim).await?;
            if room.as_ref().is_some_and(Room::is_counted) {
                counted.insert((&claim.worker, &claim.session));
            }
            rooms.push(room);
        }
        for (worker, session) in counted {
            if !self.tx.all(sql(LOCK_WORKER).bind(worker).bind(session)).await?.is_empty() {
                self.locked_sessions.insert(session.clone());
            }
        }
        Ok(rooms)
    }

    /// Leases ready steps to a session, by turns of their workflows.
    pub(super) async fn lease(
        &mut self,
        claim: &Claim,
        room: Option<Room>,
    ) -> Result<(Vec<LeasedStep>, Hints), ChangeError> {
        let mut given = Given::default();
        let mut room = room;
        for _ in 0..LOOKS_MAX {
            let Some(found) = room.take() else { break };
            let again = self.give(claim, found, &mut given).await?;
            if given.steps.len() >= claim.slots || !again {
                break;
            }
            self.writes.write(&mut self.tx).await?;
            room = self.room(claim).await?;
        }
        Ok((given.steps, given.hints))
    }

    /// Gives what there is; true: it is worth looking once more.
    async fn give(&mut self, claim: &Claim, room: Room, given: &mut Given) -> Result<bool, ChangeError> {
        self.writes.write(&mut self.tx).await?;
        let mut look = self.look(claim, room).await?;
        let mut again = false;
        while given.steps.len() < claim.slots {
            let Some(place) = look.turn() else { break };
            let line = &mut look.lines[place];
            let wanted = claim.slots - given.steps.len();
            let mut next = match line.next.take() {
                Some(next) => next,
                None => {
                    let steps = sql(STEPS).bind(&line.line).bind(i64::try_from(wanted).unwrap_or(i64::MAX));
                    self.tx.all(steps).await?.into()
                }
            };
            let Some(row) = next.pop_front() else {
                look.lines.remove(place);
                continue;
            };
            if let Some(after) = next.front() {
                line.waiter.claimant.ready_at = Timestamp::from_millis(after.int("ready_at")?);
            }
            line.next = Some(next);
            if self.give_one(claim, &row, given).await? {
                look.gave(place);
            } else {
                again = true;
            }
        }
        Ok(again)
    }

    /// What a worker offers; none: it takes no steps, or none waits that its host could run.
    async fn room(&mut self, claim: &Claim) -> Result<Option<Room>, StoreError> {
        let rows = self.tx.all(sql(CLASSES).bind(&claim.worker).bind(&claim.session)).await?;
        let Some(body) = rows.first().map(|row| row.opt_text("body")).transpose()?.flatten() else {
            return Ok(None);
        };
        let host: Register = serde_json::from_str(&body)
            .map_err(|cause| StoreError::Corrupt(format!("the worker {}: {cause}", claim.worker)))?;
        let offers = Capacity::new(host.gpus, host.cpus, host.memory);
        let mut classes = BTreeMap::new();
        for row in &rows {
            let needs = needs_of(row)?;
            let fits = has_labels(&host.labels, &needs) && offers.holds(&Capacity::asked(&needs));
            if claim.any_host || fits {
                classes.insert(class_in(&row.text("line")?), needs);
            }
        }
        let any_host = claim.any_host;
        Ok(if classes.is_empty() { None } else { Some(Room { offers, any_host, classes }) })
    }

    async fn look(&mut self, claim: &Claim, mut room: Room) -> Result<Look, StoreError> {
        let mut free = room.offers;
        if self.locked_sessions.contains(&claim.session) {
            for row in self.tx.all(sql(USED).bind(&claim.session)).await? {
                free = free.without(&Capacity::asked(&needs_of(&row)?));
            }
        } else if !room.any_host {
            // What became ready since the rows were locked has its turn when it is asked for next.
            room.classes.retain(|_, needs| needs.is_empty());
        }
        let lines = self.lines(&room).await?;
        let Room { any_host, classes, .. } = room;
        let mut look = Look { now: self.store.clock().now(), free, any_host, lines, kept: None };
        if !any_host {
            look.kept = self.kept(claim, &look, &classes).await?;
        }
        Ok(look)
    }

    async fn lines(&mut self, room: &Room) -> Result<Vec<Line>, StoreError> {
        let classes: Vec<&String> = room.classes.keys().collect();
        let mut lines = Vec::new();
        for row in self.tx.all(sql(LINES).bind(to_json(&classes)?)).await? {
            let line = row.text("line")?;
            let Some(needs) = room.classes.get(&class_in(&line)) else { continue };
            let claimant = Claimant {
                priority: u32::try_from(row.int("priority")?).unwrap_or_default(),
                ready_at: Timestamp::from_millis(row.int("ready_at")?),
                served_at: row.opt_int("served_at")?.map(Timestamp::from_millis),
                given: 0,
            };
            let served_at = row.opt_int("class_served_at")?.map(Timestamp::from_millis);
            let waiter = Waiter { claimant, asks: Capacity::asked(needs), served_at };
            let workflow = line.chars().skip(CLASS_LENGTH + 1).collect();
            lines.push(Line { line, workflow, waiter, next: None });
        }
        Ok(lines)
    }

    /// The line that what is free of this host is kept for. Other hosts are looked at only when it would keep something from
    /// somebody.
    async fn kept(
        &mut self,
        claim: &Claim,
        look: &Look,
        classes: &BTreeMap<String, HostNeeds>,
    ) -> Result<Option<(String, Waiter)>, StoreError> {
        let Look { free, now, .. } = look;
        let open: Vec<&Line> = look.lines.iter().filter(|line| free.holds(&line.waiter.asks)).collect();
        let keeps = |line: &&Line| open.iter().any(|it| line.waiter.keeps_from(&it.waiter, free, *now));
        let mut keepers: Vec<&Line> = look.lines.iter().filter(keeps).collect();
        keepers.sort_by(|one, other| one.waiter.before(&other.waiter, *now));
        let mut hosts = None;
        for line in keepers {
            let here = || Some((line.line.clone(), line.waiter));
            if free.holds(&line.waiter.asks) {
                return Ok(here());
            }
            let Some(needs) = classes.get(&class_in(&line.line)) else { continue };
            let hosts = match &mut hosts {
                Some(hosts) => hosts,
                none => none.insert(hosts_in(&mut self.tx, now.minus(claim.silent_after)).await?),
            };
            if kept_host(needs, hosts).is_some_and(|host| host.worker == claim.worker) {
                return Ok(here());
            }
        }
        Ok(None)
    }

    /// Gives the step of this row; false: another was faster, or its run cannot be read.
    async fn give_one(&mut self, claim: &Claim, row: &Row, given: &mut Given) -> Result<bool, ChangeError> {
        let position = usize::try_from(row.int("position")?).unwrap_or(usize::MAX);
        let id = match self.hold_row(row).await {
            Ok(id) => id,
            Err(StoreError::Corrupt(reason)) => {
                self.shelve(row.int("id")?, &reason).await?;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        if !self.hold(id).await?.is_ready(position) {
            return Ok(false);
        }
        let (worker, session) = (claim.worker.clone(), claim.session.clone());
        let hints = self.apply(id, Input::Leased { step: position, worker, session }).await?;
        given.hints = given.hints.and(hints);
        let run = self.hold(id).await?;
        let (name, step) = (run.name().clone(), Arc::clone(&run.steps()[position]));
        let (mut order, secrets) = (run.order(position), run.secrets(position).to_vec());
        if let Ok(StepOrder { key, checkpoint: Some(checkpoint), .. }) = &mut order {
            checkpoint.from = checkpoints::latest_in(&mut self.tx, id, &key.step, step.anew_after).await?;
        }
        if let Ok(order) = &mut order
            && references::are_needed(order)
        {
            // A run before may have finished in this very transaction.
            self.writes.write(&mut self.tx).await?;
            let run = self.hold(id).await?.clone();
            references::fill_in(&mut self.tx, &run, order).await?;
        }
        given.steps.push(LeasedStep { run: name, position, epoch: step.epoch, order, secrets });
        Ok(true)
    }
}

/// What the step of this row asks of a host.
pub(super) fn needs_of(row: &Row) -> Result<HostNeeds, StoreError> {
    match row.opt_text("needs")? {
        Some(_) => row.json("needs"),
        None => Ok(HostNeeds::default()),
    }
}

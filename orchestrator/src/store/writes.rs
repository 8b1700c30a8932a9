//! What a transaction has changed of runs, gathered and written with one statement: however many inputs, steps and runs
//! a change has to do with, it costs one trip to the database. Must never happen here: a decision, or a commit.
//!
//! What is gathered is not in the database yet: whoever reads runs or steps there writes first.

use std::collections::BTreeMap;

use refit_workflows::placement::class_of;
use refit_workflows::run::{Input, Run, StepState};
use refit_workflows::time::Timestamp;
use serde::Serialize;

use super::database::{Sql, Transaction, sql};
use super::placement::line_of;
use super::{StoreError, to_json};

/// Journal, steps and runs, each a JSON array of rows; pairs of a run and an event; the workflows' next numbers. SQLite takes several statements as one text, with the arguments in
/// common; PostgreSQL takes one, whose parts see the database as it was before.
const WRITE: Sql = Sql {
    sqlite: "INSERT INTO journal (run, version, at, input)
            SELECT j.value ->> 'run', j.value ->> 'version', j.value ->> 'at', j.value ->> 'input'
            FROM json_each($1) AS j;
        INSERT INTO steps (run, position, name, state, ready_at, session, leased_at, workflow, priority, line, class,
                needs, begun_at, body)
            SELECT s.value ->> 'run', s.value ->> 'position', s.value ->> 'name', s.value ->> 'state',
                s.value ->> 'ready_at', s.value ->> 'session', s.value ->> 'leased_at', s.value ->> 'workflow',
                s.value ->> 'priority', s.value ->> 'line', s.value ->> 'class', s.value ->> 'needs',
                s.value ->> 'begun_at', s.value ->> 'body'
            FROM json_each($2) AS s WHERE true
            ON CONFLICT (run, position) DO UPDATE SET state = excluded.state, ready_at = excluded.ready_at,
                session = excluded.session, leased_at = excluded.leased_at, line = excluded.line,
                needs = excluded.needs, begun_at = excluded.begun_at, body = excluded.body;
        UPDATE runs SET state = r.value ->> 'state', version = r.value ->> 'version', wake_at = r.value ->> 'wake_at',
                head = r.value ->> 'head', facts = COALESCE(r.value ->> 'facts', facts),
                started_at = COALESCE(started_at, r.value ->> 'started_at')
            FROM json_each($3) AS r WHERE runs.id = r.value ->> 'id';
        INSERT INTO run_events (run, event)
            SELECT e.value ->> 0, e.value ->> 1 FROM json_each($4) AS e WHERE true ON CONFLICT (run, event) DO NOTHING;
        UPDATE workflows SET next_number = n.value FROM json_each($5) AS n WHERE workflows.name = n.key",
    postgres: "WITH journalled AS (INSERT INTO journal (run, version, at, input)
            SELECT run, version, at, input FROM jsonb_to_recordset($1::jsonb)
                AS j (run BIGINT, version BIGINT, at BIGINT, input TEXT)),
        stepped AS (INSERT INTO steps (run, position, name, state, ready_at, session, leased_at, workflow, priority, line,
                class, needs, begun_at, body)
            SELECT run, position, name, state, ready_at, session, leased_at, workflow, priority, line, class, needs,
                begun_at, body
            FROM jsonb_to_recordset($2::jsonb)
                AS s (run BIGINT, position BIGINT, name TEXT, state TEXT, ready_at BIGINT, session TEXT,
                    leased_at BIGINT, workflow TEXT, priority BIGINT, line TEXT, class TEXT, needs TEXT, begun_at BIGINT,
                    body TEXT)
            ON CONFLICT (run, position) DO UPDATE SET state = excluded.state, ready_at = excluded.ready_at,
                session = excluded.session, leased_at = excluded.leased_at, line = excluded.line,
                needs = excluded.needs, begun_at = excluded.begun_at, body = excluded.body),
        listed AS (INSERT INTO run_events (run, event)
            SELECT CAST(e ->> 0 AS BIGINT), CAST(e ->> 1 AS BIGINT) FROM jsonb_array_elements($4::jsonb) AS e
            ON CONFLICT (run, event) DO NOTHING),
        numbered AS (UPDATE workflows SET next_number = CAST(n.value AS BIGINT)
            FROM jsonb_each_text($5::jsonb) AS n WHERE workflows.name = n.key)
        UPDATE runs SET state = r.state, version = r.version, wake_at = r.wake_at, head = r.head,
                facts = COALESCE(r.facts, runs.facts), started_at = COALESCE(runs.started_at, r.started_at)
            FROM jsonb_to_recordset($3::jsonb) AS r (id BIGINT, state TEXT, version BIGINT, wake_at BIGINT,
                head TEXT, facts TEXT, started_at BIGINT)
            WHERE runs.id = r.id",
};

/// What is to be written. Several changes of one row are written as the last of them left it.
#[derive(Default)]
pub(super) struct Writes {
    journal: Vec<JournalRow>,
    steps: BTreeMap<(i64, usize), StepRow>,
    runs: BTreeMap<i64, RunRow>,
    /// Runs with events they stand for.
    events: Vec<(i64, i64)>,
    /// The numbers that the next runs of workflows will have.
    numbers: BTreeMap<String, i64>,
}

/// An accepted input. Times are milliseconds since the Unix epoch, here and below.
#[derive(Serialize)]
struct JournalRow {
    run: i64,
    version: i64,
    at: i64,
    input: String,
}

/// A step as it is; `session` and `leased_at` are there exactly while a worker has it, `ready_at` and `line` exactly while
/// it waits for one, `needs` in both cases.
#[derive(Serialize)]
struct StepRow {
    run: i64,
    position: usize,
    name: String,
    state: &'static str,
    ready_at: Option<i64>,
    session: Option<String>,
    leased_at: Option<i64>,
    workflow: String,
    priority: u32,
    line: Option<String>,
    class: Option<String>,
    needs: Option<String>,
    begun_at: Option<i64>,
    body: String,
}

/// A run as it is; `facts` and `started_at` only where they are to change.
#[derive(Serialize)]
struct RunRow {
    id: i64,
    state: &'static str,
    version: i64,
    wake_at: Option<i64>,
    head: String,
    facts: Option<String>,
    started_at: Option<i64>,
}

impl Writes {
    /// An input that brought the run to this version.
    pub(super) fn accepted(
        &mut self,
        run: i64,
        version: i64,
        at: Timestamp,
        input: &Input,
    ) -> Result<(), StoreError> {
        self.journal.push(JournalRow { run, version, at: at.as_millis(), input: to_json(input)? });
        Ok(())
    }

    /// What has changed of a run since this was last asked.
    pub(super) fn changed(&mut self, id: i64, run: &mut Run) -> Result<(), StoreError> {
        for position in run.take_changed() {
            self.step(id, position, run)?;
        }
        let known = self.runs.remove(&id);
        let (facts, started_at) = known.map_or((None, None), |row| (row.facts, row.started_at));
        let row = RunRow {
            id,
            state: run.head().state.name(),
            version: run.version(),
            wake_at: run.next_wake().map(Timestamp::as_millis),
            head: to_json(run.head())?,
            facts,
            started_at,
        };
        self.runs.insert(id, row);
        Ok(())
    }

    /// Every step of a run that has just been inserted.
    pub(super) fn created(&mut self, id: i64, run: &mut Run) -> Result<(), StoreError> {
        run.take_changed();
        (0..run.steps().len()).try_for_each(|position| self.step(id, position, run))
    }

    /// A run started; only the first time counts.
    pub(super) fn started(&mut self, id: i64, run: &mut Run, at: Timestamp) -> Result<(), StoreError> {
        self.changed(id, run)?;
        if let Some(row) = self.runs.get_mut(&id) {
            row.started_at.get_or_insert(at.as_millis());
        }
        Ok(())
    }

    /// A run stands for more than before.
    pub(super) fn grown(&mut self, id: i64, run: &mut Run) -> Result<(), StoreError> {
        let facts = to_json(run.facts())?;
        self.changed(id, run)?;
        if let Some(row) = self.runs.get_mut(&id) {
            row.facts = Some(facts);
        }
        Ok(())
    }

    /// A new run stands for this event.
    pub(super) fn stands_for(&mut self, run: i64, event: i64) {
        self.events.push((run, event));
    }

    /// The number that the next run of a workflow will have, where this transaction has numbered one before.
    pub(super) fn next_number(&self, workflow: &str) -> Option<i64> {
        self.numbers.get(workflow).copied()
    }

    /// A run of the workflow has this number now.
    pub(super) fn numbered(&mut self, workflow: &str, number: i64) {
        self.numbers.insert(workflow.to_owned(), number + 1);
    }

    fn step(&mut self, id: i64, position: usize, run: &Run) -> Result<(), StoreError> {
        let step = &run.steps()[position];
        let lease = step.state.lease();
        let ready = matches!(step.state, StepState::Ready);
        let (needs, workflow) = (run.host_needs(position), &run.name().workflow);
        let row = StepRow {
            run: id,
            position,
            name: run.step_name(position).to_owned(),
            state: step.state.name(),
            ready_at: ready.then(|| step.ready_at.unwrap_or_default().as_millis()),
            session: lease.map(|lease| lease.session.clone()),
            leased_at: lease.map(|lease| lease.since.as_millis()),
            workflow: workflow.clone(),
            priority: run.workflow().priority,
            line: ready.then(|| line_of(needs, workflow)),
            class: needs.map(|needs| class_of(Some(needs))),
            needs: needs.filter(|_| ready || lease.is_some()).map(to_json).transpose()?,
            begun_at: step.started_at.map(Timestamp::as_millis),
            body: to_json(&**step)?,
        };
        self.steps.insert((id, position), row);
        Ok(())
    }

    /// Writes it all.
    pub(super) async fn write(&mut self, tx: &mut Transaction) -> Result<(), StoreError> {
        let Self { journal, steps, runs, events, numbers } = self;
        if journal.is_empty()
            && steps.is_empty()
            && runs.is_empty()
            && events.is_empty()
            && numbers.is_empty()
        {
            return Ok(());
        }
        let Self { journal, steps, runs, events, numbers } = std::mem::take(self);
        let write = sql(WRITE)
            .bind(to_json(&journal)?)
            .bind(to_json(&steps.into_values().collect::<Vec<_>>())?)
            .bind(to_json(&runs.into_values().collect::<Vec<_>>())?)
            .bind(to_json(&events)?)
            .bind(to_json(&numbers)?);
        tx.execute(write).await?;
        Ok(())
    }
}

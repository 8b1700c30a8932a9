//! Workers as the store knows them: one row a worker, touched by every renewal. A lease lives as long as the session
//! it was given to is heard of; it has no expiry of its own that a renewal would have to write.

use std::collections::BTreeMap;
use std::time::Duration;

use refit_workflows::definition::HostNeeds;
use refit_workflows::names::RunName;
use refit_workflows::placement::{Capacity, Host, HostState};
use refit_workflows::run::{Input, Step, StepState};
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{AttemptKey, HeldAttempt, Register, UsedView, WorkerView};

use super::database::{Row, Sql, Transaction, sql};
use super::placement::needs_of;
use super::{ChangeError, Hints, Store, StoreError, to_json};

const KEEP: &str =
    "INSERT INTO workers (name, session, last_seen, draining, drained, body) VALUES ($1, $2, $3, 0, 0, $4)
    ON CONFLICT (name) DO UPDATE SET session = excluded.session, last_seen = excluded.last_seen, draining = 0,
        body = excluded.body";
const SEEN: &str = "UPDATE workers SET last_seen = $3, draining = $4 WHERE name = $1 AND session = $2";
const KNOWN: &str = "SELECT name FROM workers WHERE name = $1 AND session = $2";
const LEASES: &str = "SELECT r.workflow, r.number, s.run, s.position, s.name, s.leased_at, s.body
    FROM steps s JOIN runs r ON r.id = s.run WHERE s.session = $1";
const ORPHANS: &str = "SELECT r.workflow, r.number, s.run, s.position, s.name, s.leased_at, s.body
    FROM steps s JOIN runs r ON r.id = s.run LEFT JOIN workers w ON w.session = s.session
    WHERE s.session IS NOT NULL AND (w.name IS NULL OR w.last_seen < $1) LIMIT 200";
const WORKERS: &str =
    "SELECT name, session, last_seen, draining, drained, body FROM workers ORDER BY name LIMIT 1000";
const LEASE_KEYS: &str = "SELECT r.workflow, r.number, s.name, s.session, s.leased_at, s.needs, s.body
    FROM steps s JOIN runs r ON r.id = s.run WHERE s.session IS NOT NULL LIMIT 10000";
const DRAIN: &str = "UPDATE workers SET drained = $2 WHERE name = $1";
const WAITING: &str =
    "SELECT MIN(line) AS line, COUNT(*) AS steps, MIN(ready_at) AS since, MIN(needs) AS needs
    FROM steps WHERE state = 'ready' GROUP BY substr(line, 1, 16) ORDER BY 3 LIMIT 1000";
// Only workers whose rows nobody holds: it holds several at once itself.
const FORGET: Sql = Sql {
    sqlite: "DELETE FROM workers WHERE last_seen < $1 AND drained = 0
        AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.session = workers.session)",
    postgres: "DELETE FROM workers WHERE name IN (SELECT w.name FROM workers w WHERE w.last_seen < $1 AND w.drained = 0
        AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.session = w.session) FOR UPDATE OF w SKIP LOCKED)",
};
// A row for each worker, or for each step of it that asks for something.
const HOSTS: &str = "SELECT w.name, w.last_seen, w.draining, w.drained, w.body, s.needs
    FROM workers w LEFT JOIN steps s ON s.session = w.session AND s.needs IS NOT NULL ORDER BY w.name LIMIT 20000";

/// A worker that has been silent for this long and holds nothing is forgotten, unless a person drained it: then it would come
/// back as one that takes steps.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A step that a worker has.
#[derive(Clone, Debug)]
pub struct LeaseRow {
    /// The run's row.
    pub run_id: i64,
    /// The run's name.
    pub run: RunName,
    /// The step's place.
    pub position: usize,
    /// The step's name.
    pub step: String,
    /// The epoch.
    pub epoch: i64,
    /// When it was leased.
    pub leased_at: Timestamp,
    /// Whether its worker is being asked to end it.
    pub cancelling: bool,
}

impl Store {
    /// A worker process introduces itself; what its predecessor held is lost at once.
    pub async fn register(&self, register: Register) -> Result<Hints, StoreError> {
        let register = std::sync::Arc::new(register);
        self.durably(move |store| {
            let register = std::sync::Arc::clone(&register);
            async move {
                let mut tx = store.database().begin().await?;
                let keep = sql(KEEP)
                    .bind(&register.worker)
                    .bind(&register.session)
                    .bind(store.clock().now().as_millis())
                    .bind(to_json(&*register)?);
                tx.execute(keep).await?;
                tx.commit().await
            }
        })
        .await?;
        self.lose_orphans(Duration::MAX).await
    }

    /// Notes that a session was heard of. False: nobody registered it, or another one has taken its place.
    pub async fn heard_of(&self, worker: &str, session: &str, draining: bool) -> Result<bool, StoreError> {
        let (worker, session) = (worker.to_owned(), session.to_owned());
        self.durably(move |store| {
            let (worker, session) = (worker.clone(), session.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let seen = sql(SEEN)
                    .bind(&worker)
                    .bind(&session)
                    .bind(store.clock().now().as_millis())
                    .bind(i64::from(draining));
                let known = tx.execute(seen).await? > 0;
                tx.commit().await?;
                Ok(known)
            }
        })
        .await
    }

    /// Whether this session is its worker's current one.
    pub async fn knows_session(&self, worker: &str, session: &str) -> Result<bool, StoreError> {
        let (worker, session) = (worker.to_owned(), session.to_owned());
        self.durably(move |store| {
            let (worker, session) = (worker.clone(), session.clone());
            async move {
                Ok(store.database().first(sql(KNOWN).bind(&worker).bind(&session)).await?.is_some())
            }
        })
        .await
    }

    /// What a session holds.
    pub async fn leases_of(&self, session: &str) -> Result<Vec<LeaseRow>, StoreError> {
        let session = session.to_owned();
        self.durably(move |store| {
            let session = session.clone();
            async move {
                let mut tx = store.database().read().await?;
                tx.all(sql(LEASES).bind(&session)).await?.iter().map(lease_row).collect()
            }
        })
        .await
    }

    /// Gives up the leases whose session was replaced, or not heard of for `grace`.
    pub async fn lose_orphans(&self, grace: Duration) -> Result<Hints, StoreError> {
        let orphans: Vec<LeaseRow> = self
            .durably(move |store| async move {
                let before = store.clock().now().minus(grace).as_millis();
                let mut tx = store.database().read().await?;
                tx.all(sql(ORPHANS).bind(before)).await?.iter().map(lease_row).collect()
            })
            .await?;
        let mut hints = Hints::default();
        for lease in orphans {
            hints = hints.and(self.lose(&lease, "its worker went away").await?);
        }
        Ok(hints)
    }

    /// Gives up one lease, if it is still the step's.
    pub async fn lose(&self, lease: &LeaseRow, reason: &str) -> Result<Hints, StoreError> {
        let lost = Input::WorkerLost { step: lease.position, epoch: lease.epoch, reason: reason.to_owned() };
        match self.change_run(&lease.run, move |_| Ok(lost.clone())).await {
            Ok(hints) => {
                tracing::warn!(run = %lease.run, step = lease.step, epoch = lease.epoch, reason, "a lease was lost");
                Ok(hints)
            }
            // The worker, or another orchestrator, was faster.
            Err(ChangeError::Refused(_)) => Ok(Hints::default()),
            Err(ChangeError::Store(error @ StoreError::Unavailable(_))) => Err(error),
            Err(error) => {
                tracing::error!(run = %lease.run, step = lease.step, %error, "failed to give up a lease");
                Ok(Hints::default())
            }
        }
    }

    /// Forgets workers that have been away for a day.
    pub async fn forget_workers(&self) -> Result<(), StoreError> {
        self.durably(|store| async move {
            let mut tx = store.database().begin().await?;
            let before = store.clock().now().minus(FORGET_AFTER).as_millis();
            tx.execute(sql(FORGET).bind(before)).await?;
            tx.commit().await
        })
        .await
    }

    /// Lets a worker take no more steps, or take some again. False: there is no such worker.
    pub async fn drain_worker(&self, worker: &str, drained: bool) -> Result<bool, StoreError> {
        let worker = worker.to_owned();
        self.durably(move |store| {
            let worker = worker.clone();
            async move {
                let mut tx = store.database().begin().await?;
                let known = tx.execute(sql(DRAIN).bind(&worker).bind(i64::from(drained))).await? > 0;
                tx.commit().await?;
                Ok(known)
            }
        })
        .await
    }

    /// What waits for a worker, by what it asks of a host, the longest first: how many steps, and since when.
    pub async fn waiting_steps(&self) -> Result<Vec<(HostNeeds, u64, Timestamp)>, StoreError> {
        self.durably(|store| async move {
            let rows = store.database().all(sql(WAITING)).await?;
            let waiting = |row: &Row| {
                let steps = u64::try_from(row.int("steps")?).unwrap_or_default();
                Ok((needs_of(row)?, steps, Timestamp::from_millis(row.int("since")?)))
            };
            rows.iter().map(waiting).collect()
        })
        .await
    }

    /// Every worker; silent are those not heard of for `silent_after`.
    pub async fn workers(&self, silent_after: Duration) -> Result<Vec<WorkerView>, StoreError> {
        self.durably(move |store| async move {
            let silent_before = store.clock().now().minus(silent_after);
            let mut tx = store.database().read().await?;
            let mut held = held_attempts(&mut tx).await?;
            let rows = tx.all(sql(WORKERS)).await?;
            rows.iter()
                .map(|row| {
                    let attempts = held.remove(&row.text("session")?).unwrap_or_default();
                    worker_view(row, attempts, silent_before)
                })
                .collect()
        })
        .await
    }
}

/// Every worker's host, with what is in use of what is counted. Their slots are not looked at.
pub(super) async fn hosts_in(
    tx: &mut Transaction,
    silent_before: Timestamp,
) -> Result<Vec<Host>, StoreError> {
    let mut hosts: Vec<Host> = Vec::new();
    for row in tx.all(sql(HOSTS)).await? {
        let worker = row.text("name")?;
        let asked = Capacity::asked(&needs_of(&row)?);
        if let Some(host) = hosts.last_mut().filter(|host| host.worker == worker) {
            host.used = host.used.and(&asked);
            continue;
        }
        let register: Register = row.json("body")?;
        let state = if row.int("draining")? == 1 || row.int("drained")? == 1 {
            HostState::Draining
        } else if Timestamp::from_millis(row.int("last_seen")?) < silent_before {
            HostState::Silent
        } else {
            HostState::Open
        };
        hosts.push(Host {
            worker,
            state,
            labels: register.labels,
            offers: Capacity::new(register.gpus, register.cpus, register.memory),
            used: asked,
            slots: register.slots,
            busy: 0,
        });
    }
    Ok(hosts)
}

/// What a session has, and what that asks for.
type Holding = (Vec<HeldAttempt>, Capacity);

async fn held_attempts(tx: &mut Transaction) -> Result<BTreeMap<String, Holding>, StoreError> {
    let mut held: BTreeMap<String, Holding> = BTreeMap::new();
    for row in tx.all(sql(LEASE_KEYS)).await? {
        let step: Step = row.json("body")?;
        let run = RunName::new(row.text("workflow")?, row.int("number")?);
        let key = AttemptKey { run, step: row.text("name")?, epoch: step.epoch };
        let since = Timestamp::from_millis(row.int("leased_at")?);
        let (attempts, used) = held.entry(row.text("session")?).or_default();
        attempts.push(HeldAttempt { key, since });
        *used = used.and(&Capacity::asked(&needs_of(&row)?));
    }
    Ok(held)
}

fn worker_view(
    row: &Row,
    (attempts, used): Holding,
    silent_before: Timestamp,
) -> Result<WorkerView, StoreError> {
    let register: Register = row.json("body")?;
    let last_seen = Timestamp::from_millis(row.int("last_seen")?);
    let busy = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
    let (leaving, drained) = (row.int("draining")? == 1, row.int("drained")? == 1);
    let state = if last_seen < silent_before {
        "silent"
    } else if drained && busy == 0 {
        "drained"
    } else if leaving || drained {
        "draining"
    } else if busy > 0 {
        "busy"
    } else {
        "ready"
    };
    Ok(WorkerView {
        worker: row.text("name")?,
        state: state.to_owned(),
        labels: register.labels,
        gpus: register.gpus,
        cpus: register.cpus,
        memory: register.memory,
        used: UsedView { gpus: used.gpus, cpus: used.millicpus as f64 / 1000.0, memory: used.memory },
        version: register.version,
        slots: register.slots,
        busy,
        last_seen,
        attempts,
    })
}

fn lease_row(row: &Row) -> Result<LeaseRow, StoreError> {
    let step: Step = row.json("body")?;
    Ok(LeaseRow {
        run_id: row.int("run")?,
        run: RunName::new(row.text("workflow")?, row.int("number")?),
        position: usize::try_from(row.int("position")?).unwrap_or(usize::MAX),
        step: row.text("name")?,
        epoch: step.epoch,
        leased_at: Timestamp::from_millis(row.int("leased_at")?),
        cancelling: matches!(step.state, StepState::Cancelling { .. }),
    })
}

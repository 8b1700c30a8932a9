//! The database: what is true. Functions are named for moments, not for tables; each is one transaction, driven by a
//! task of its own, so that a caller that goes away cannot stop one half-way.
//!
//! Locks are always taken in this order: the `trigger` duty (whoever creates or admits runs), the run row, the model
//! row, a row of `children`. A worker's row comes after the runs' rows that are waited for: whoever holds it takes further
//! runs only where nobody else has them. Nothing here decides what happens to a run: that is `Run::apply`.

mod aliases;
mod blobs;
mod cache;
mod changes;
mod checkpoints;
mod children;
pub mod database;
mod dead_letters;
mod dispatch;
mod due;
mod duties;
mod events;
mod garbage;
mod gather;
mod holdouts;
mod hot;
mod intake;
mod lanes;
mod launch;
mod logs;
mod mirror;
mod outbox;
mod placement;
pub(crate) mod places;
mod references;
mod registry;
mod replays;
mod retention;
mod runs;
mod series;
mod slots;
mod targets;
mod together;
mod tokens;
mod turn;
mod views;
mod waits;
mod watches;
mod workers;
mod workflows;
mod writes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use refit_workflows::definition::Workflow;
use refit_workflows::digest::Digest;
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::run::Refused;
use refit_workflows::time::Timestamp;

use crate::clock::Clock;
use database::Database;

pub use aliases::MoveError;
pub use blobs::{BLOB_AGE, Blob};
pub(crate) use blobs::{CHUNK_BYTES, Growth, Upload};
use dead_letters::BODY_BYTES_MAX;
pub use dead_letters::Retried;
pub use dispatch::{Dispatched, Next};
pub(crate) use events::DECISIONS_MAX;
pub use intake::Recorded;
pub use logs::LogRow;
pub(crate) use mirror::TAKE_AGAIN;
pub use mirror::{KnownVersion, MirrorLook, MirrorNote, WantedAlias, WantedModel, WantedVersion};
pub use outbox::{Ask, GiveUp, Look};
pub use retention::Swept;
pub use targets::{ListedTarget, Standing, TargetState};
pub use turn::{Claim, LeasedStep};
pub use workers::LeaseRow;
pub use workflows::{DELETED_RUNS_MAX, Deletion};

/// What the database, or what keeps bytes for it, could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Out of reach, busy, full or restarting: wait and try again.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Two transactions stood in each other's way; repeating this one is safe.
    #[error("the database gave way to another transaction: {0}")]
    Conflict(String),
    /// A row this program cannot read.
    #[error("the database holds a row that cannot be read: {0}")]
    Corrupt(String),
    /// The folder or bucket that holds bytes of blobs does not do its part.
    #[error("{0}")]
    Blobs(String),
    /// Anything else: a defect.
    #[error("the database refused a statement: {0}")]
    Broken(String),
}

/// Why a change of a run did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such thing: `run churn/12`, `workflow churn`.
    #[error("there is no {0}")]
    NotFound(String),
    /// The run refused the input; nothing changed.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The request is not acceptable; nothing changed.
    #[error("{0}")]
    Invalid(String),
    /// The database did not do its part.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl ChangeError {
    /// For callers that asked for nothing a run could refuse: a refusal is a defect then.
    fn into_store(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            other @ (Self::NotFound(_) | Self::Refused(_) | Self::Invalid(_)) => {
                StoreError::Broken(other.to_string())
            }
        }
    }
}

/// What to list of the events.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// CloudEvents `type`.
    pub kind: Option<String>,
    /// CloudEvents `source`.
    pub source: Option<String>,
    /// CloudEvents `subject`.
    pub subject: Option<String>,
    /// Only those about which this was decided, a word of the decisions: `started`, `unmatched`, `duplicate`, …
    pub decision: Option<String>,
    /// Only those that matched nothing, or not quite, and that no run stands for, by a replay neither.
    pub unmatched: bool,
    /// Only those about which something was decided for this workflow; with `decision`, that was.
    pub workflow: Option<String>,
    /// Only those that this run stands for.
    pub run: Option<RunName>,
    /// Received at or after.
    pub since: Option<Timestamp>,
    /// Only those that came from outside: without what Refit says of itself and what its workflows emit.
    pub outside: bool,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
    /// Only those that come behind the event with this `seq`, in the order asked for.
    pub after: Option<i64>,
    /// With their data and all attributes. The page is cut short where it gets heavy.
    pub data: bool,
    /// At most; bounded to 1000.
    pub limit: i64,
}

/// What to list of the runs.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// The workflow.
    pub workflow: Option<String>,
    /// The state.
    pub state: Option<String>,
    /// Created at or after.
    pub since: Option<Timestamp>,
    /// At most; bounded to 1000.
    pub limit: i64,
}

/// What to list of the dead letters.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterFilter {
    /// The source, as in [`DeadLetter::source`]; of those that targets refused, `target:NAME`.
    pub source: Option<String>,
    /// Received at or after.
    pub since: Option<Timestamp>,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
    /// Only those that come behind the letter with this `seq`, in the order asked for.
    pub after: Option<i64>,
    /// At most; bounded to 1000.
    pub limit: i64,
}

/// A delivery that is not an event, kept with the reason.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The source's name: `orders`, `amqp:refit.events`.
    pub source: String,
    /// Why it is dead.
    pub reason: String,
    /// The first bytes as they came; at most 1 MiB.
    pub body: Vec<u8>,
    /// How many there were.
    pub bytes: u64,
    /// What came with it, from which it can be read again: an object with `content_type`, `headers` and more.
    pub context: serde_json::Value,
    /// Names the delivery: one that comes again has the same.
    pub digest: Digest,
}

impl DeadLetter {
    /// A delivery that could not be taken. `identity` is what of the context is the same each time it is delivered.
    pub fn new(
        source: &str,
        reason: String,
        context: serde_json::Value,
        identity: &serde_json::Value,
        body: &[u8],
    ) -> Self {
        let (bytes, body_digest) = (body.len() as u64, Digest::of(body));
        let named = serde_json::json!([source, identity, body_digest.as_str()]);
        Self {
            source: source.to_owned(),
            reason,
            body: body[..body.len().min(BODY_BYTES_MAX)].to_vec(),
            bytes,
            context,
            digest: Digest::of(named.to_string().as_bytes()),
        }
    }
}

/// An outbound event that is due at a target.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Its place in the outbox.
    pub seq: i64,
    /// How often sending has failed.
    pub attempts: i64,
    /// The event.
    pub event: CloudEvent,
}

/// What sending one outbound event came to.
#[derive(Clone, Debug)]
pub enum Sent {
    /// The target has it.
    Done,
    /// It has not.
    Failed {
        /// Why.
        reason: String,
        /// How long not to try it again.
        pause: Duration,
    },
}

/// What a committed change may have made possible: whom to wake. Only hints; everybody polls as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Events to route.
    pub events: bool,
    /// Steps to lease.
    pub ready: bool,
    /// A lane has room, a batch or a schedule changed.
    pub lanes: bool,
    /// A run, its log or its metrics changed.
    pub runs: bool,
    /// Outbound events.
    pub outbox: bool,
    /// Runs that other runs asked for.
    pub children: bool,
}

impl Hints {
    /// Both.
    pub fn and(self, other: Self) -> Self {
        Self {
            events: self.events || other.events,
            ready: self.ready || other.ready,
            lanes: self.lanes || other.lanes,
            runs: self.runs || other.runs,
            outbox: self.outbox || other.outbox,
            children: self.children || other.children,
        }
    }
}

/// The store's handle; cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    places: Arc<places::Places>,
    clock: Arc<Clock>,
    /// A copy of the list of outbound targets.
    targets: Mutex<Arc<targets::KnownTargets>>,
    hot: hot::HotRuns,
    changes: changes::Changes,
    queues: together::Queues,
    definitions: Mutex<HashMap<Digest, Arc<Workflow>>>,
    triggers: Mutex<dispatch::KnownTriggers>,
}

impl Store {
    /// Opens the database at `url`, brings its schema up to date and puts these targets on its list. Blobs are in the
    /// database alone.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while it is out of reach.
    pub async fn open(url: &str, targets: Vec<ListedTarget>) -> Result<Self, StoreError> {
        Self::open_with(url, targets, Arc::default()).await
    }

    /// As [`Store::open`]; bytes of blobs are in these places as well.
    pub(crate) async fn open_with(
        url: &str,
        targets: Vec<ListedTarget>,
        places: Arc<places::Places>,
    ) -> Result<Self, StoreError> {
        let database = Database::open(url).await?;
        let store = Self::new(database, Clock::default(), changes::Changes::default(), places);
        store.follow_clock().await?;
        if !targets.is_empty() {
            store.register_targets(targets).await?;
        }
        Ok(store)
    }

    /// A store over an open database, going by this clock; it sends nothing out, and tells which runs have changed.
    pub(crate) fn followed(database: Database, clock: Clock) -> Self {
        Self::new(database, clock, changes::Changes::followed(), Arc::default())
    }

    /// A store over an open database, going by this clock; it sends nothing out.
    pub(crate) fn over(database: Database, clock: Clock) -> Self {
        Self::new(database, clock, changes::Changes::default(), Arc::default())
    }

    fn new(database: Database, clock: Clock, changes: changes::Changes, places: Arc<places::Places>) -> Self {
        let inner = Inner {
            database,
            places,
            clock: Arc::new(clock),
            targets: Mutex::default(),
            hot: hot::HotRuns::default(),
            changes,
            queues: together::Queues::default(),
            definitions: Mutex::default(),
            triggers: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Sets the clock by the database's.
    pub async fn follow_clock(&self) -> Result<(), StoreError> {
        if let Some(now) = self.inner.database.clock_ms().await? {
            self.inner.clock.follow(now);
        }
        Ok(())
    }

    /// The clock that everything is due by.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.inner.clock
    }

    /// The database itself.
    pub fn database(&self) -> &Database {
        &self.inner.database
    }

    /// Runs one transaction in a task of its own and awaits it; repeats it when it gave way to another.
    ///
    /// Everything that begins a transaction goes through here: a dropped `BEGIN` or `COMMIT` would leave a pooled
    /// PostgreSQL connection inside a transaction.
    async fn durably<T, E, F, Fut>(&self, work: F) -> Result<T, E>
    where
        F: Fn(Self) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Send + 'static,
        E: From<StoreError> + IsConflict + Send + 'static,
    {
        let store = self.clone();
        let task = tokio::spawn(async move {
            let mut tries = 0u32;
            loop {
                let done = work(store.clone()).await;
                match done {
                    Err(error) if error.is_conflict() && tries < 5 => {
                        tries += 1;
                        let pause = rand::random_range(1..=10u64 << tries);
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                    }
                    done => return done,
                }
            }
        });
        match task.await {
            Ok(done) => done,
            Err(gone) => Err(StoreError::Broken(format!("a transaction's task ended early: {gone}")).into()),
        }
    }
}

/// Whether repeating the same transaction may help.
trait IsConflict {
    fn is_conflict(&self) -> bool;
}

impl IsConflict for StoreError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }
}

impl IsConflict for ChangeError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(StoreError::Conflict(_)))
    }
}

/// A lock whose holder panicked guards nothing but caches here: they are as good as before.
fn unpoisoned<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|wrong| StoreError::Broken(format!("failed to write JSON: {wrong}")))
}

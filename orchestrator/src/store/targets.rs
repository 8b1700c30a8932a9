//! The list of outbound targets: what the orchestrators that run were told, in one place, so that an event goes to every
//! target that any of them has, whichever puts it into the outbox. Must never happen here: sending, or a word about how
//! to reach a target.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use refit_workflows::event::CloudEvent;
use refit_workflows::pattern::{Pattern, PatternSet};
use refit_workflows::time::Timestamp;
use refit_workflows::wire::TargetView;
use serde_json::Value;

use super::database::{Row, Transaction, sql};
use super::{ChangeError, Store, StoreError, to_json, unpoisoned};

/// Whoever changes the list has this row first: two changes must not get one revision.
const LOCK: &str = "INSERT INTO duties (name, expires_at) VALUES ('targets', 0)
    ON CONFLICT (name) DO UPDATE SET expires_at = 0";
const REGISTER: &str =
    "INSERT INTO targets (name, kind, events, digest, active, revision, seen_at, sent, state)
    VALUES ($1, $2, $3, $4, 1, (SELECT COALESCE(MAX(revision), 0) + 1 FROM targets), $5, 0, 'ok')
    ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, events = excluded.events, digest = excluded.digest,
        active = 1, revision = excluded.revision, seen_at = excluded.seen_at,
        state = CASE WHEN targets.digest = excluded.digest THEN targets.state ELSE 'ok' END,
        since = CASE WHEN targets.digest = excluded.digest THEN targets.since END,
        error = CASE WHEN targets.digest = excluded.digest THEN targets.error END";
const SEEN: &str = "UPDATE targets SET seen_at = $2, active = 1,
        revision = CASE WHEN active = 1 THEN revision ELSE (SELECT MAX(revision) + 1 FROM targets) END
    WHERE name = $1";
const RETIRE: &str = "UPDATE targets SET active = 0, revision = (SELECT MAX(revision) + 1 FROM targets)
    WHERE active = 1 AND seen_at < $1";
const KNOWN: &str = "SELECT name, events FROM targets WHERE active = 1 ORDER BY name";
const STANDING: &str = "SELECT state, since, error FROM targets WHERE name = $1";
const SENT: &str = "UPDATE targets SET sent = sent + $2 WHERE name = $1";
/// A target that was disabled stays so until somebody enables it: what was under way meanwhile changes nothing.
const STAND: &str =
    "UPDATE targets SET state = $2, since = $3, error = $4 WHERE name = $1 AND state <> 'disabled'";
const ENABLE: &str = "UPDATE targets SET state = 'ok', since = NULL, error = NULL WHERE name = $1";
const VIEWS: &str = "SELECT t.name, t.kind, t.events, t.active, t.seen_at, t.sent, t.state, t.since, t.error,
        (SELECT COUNT(*) FROM outbox o WHERE o.target = t.name) AS pending,
        (SELECT MIN(o.created_at) FROM outbox o WHERE o.target = t.name) AS oldest
    FROM targets t
    WHERE (t.active = 1 OR EXISTS (SELECT 1 FROM outbox o WHERE o.target = t.name)) AND ($1 = '' OR t.name = $1)
    ORDER BY t.name";

/// How long nobody may say that a target is in its settings before it counts as absent: several times as long as the
/// orchestrators take to say so.
const ABSENT_AFTER: Duration = Duration::from_secs(120);
/// How long a target may be absent before it gets no more events. Longer than it takes to replace all orchestrators.
const RETIRED_AFTER: Duration = Duration::from_secs(3600);

/// A target as the list has it.
#[derive(Clone, Debug)]
pub struct ListedTarget {
    /// Its name.
    pub name: String,
    /// `amqp` or `webhook`.
    pub kind: &'static str,
    /// Which events it wants; none: all.
    pub events: Vec<Pattern>,
    /// Changes with what it wants and where it is.
    pub digest: String,
}

/// How a target is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetState {
    /// The latest try was a success, or there was none.
    #[default]
    Ok,
    /// Some events failed since the latest success.
    Retrying,
    /// It is tried with one event at a time, with pauses, until it takes one.
    Open,
    /// It said that it wants no more (410).
    Disabled,
}

impl TargetState {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retrying => "retrying",
            Self::Open => "open",
            Self::Disabled => "disabled",
        }
    }

    /// Whether anything is tried at all.
    pub fn sends(self) -> bool {
        match self {
            Self::Ok | Self::Retrying | Self::Open => true,
            Self::Disabled => false,
        }
    }
}

impl FromStr for TargetState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Ok, Self::Retrying, Self::Open, Self::Disabled]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no state of a target"))
    }
}

/// How a target is doing, since when, and what went wrong last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The state.
    pub state: TargetState,
    /// Since when it has not been well.
    pub since: Option<Timestamp>,
    /// Why the latest try failed.
    pub error: Option<String>,
}

/// The list as of one revision, ready to be held against events.
#[derive(Debug, Default)]
pub(super) struct KnownTargets {
    revision: i64,
    /// Names of those that want every event.
    all: Vec<String>,
    patterns: PatternSet,
    /// Whose each pattern of the set is.
    owners: Vec<String>,
}

impl KnownTargets {
    /// The names of the targets that an event goes to, each once.
    pub(super) fn that_want(&self, event: &CloudEvent) -> Vec<&str> {
        let mut names: Vec<&str> = self.all.iter().map(String::as_str).collect();
        if !self.patterns.is_empty() {
            let matching = self.patterns.matching(&Value::Object(event.attributes().clone()));
            names.extend(matching.into_iter().filter_map(|at| self.owners.get(at)).map(String::as_str));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    fn read(revision: i64, rows: &[Row]) -> Result<Self, StoreError> {
        let (mut all, mut patterns, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let name = row.text("name")?;
            let events: Vec<Value> = row.json("events")?;
            match events.iter().map(Pattern::parse).collect::<Result<Vec<_>, _>>() {
                Ok(events) if !events.is_empty() => {
                    owners.extend(events.iter().map(|_| name.clone()));
                    patterns.extend(events);
                }
                Ok(_) => all.push(name),
                Err(wrong) => {
                    // Written by a newer program. Too much can be thrown away by whoever gets it.
                    tracing::warn!(
                        target_name = name,
                        "every event goes to a target with a pattern that is not understood here: {wrong}"
                    );
                    all.push(name);
                }
            }
        }
        Ok(Self { revision, all, patterns: PatternSet::new(patterns), owners })
    }
}

impl Store {
    /// Puts targets on the list, or changes them there; from here on events go to them, whoever writes them. One whose
    /// settings changed begins anew, also where it was disabled.
    pub async fn register_targets(&self, listed: Vec<ListedTarget>) -> Result<(), StoreError> {
        let listed = Arc::new(listed);
        self.durably(move |store| {
            let listed = Arc::clone(&listed);
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                tx.execute(sql(LOCK)).await?;
                for target in listed.iter() {
                    let events: Vec<&Value> = target.events.iter().map(Pattern::source).collect();
                    let register = sql(REGISTER)
                        .bind(&target.name)
                        .bind(target.kind)
                        .bind(to_json(&events)?)
                        .bind(&target.digest)
                        .bind(now.as_millis());
                    tx.execute(register).await?;
                }
                tx.commit().await
            }
        })
        .await
    }

    /// Says that a running orchestrator has these targets, and takes off the list what none has had for long; at once where
    /// the caller knows to be `alone`.
    pub async fn keep_targets(&self, names: Vec<String>, alone: bool) -> Result<(), StoreError> {
        let names = Arc::new(names);
        self.durably(move |store| {
            let names = Arc::clone(&names);
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                tx.execute(sql(LOCK)).await?;
                for name in names.iter() {
                    tx.execute(sql(SEEN).bind(name).bind(now.as_millis())).await?;
                }
                let unseen_since = if alone { now } else { now.minus(RETIRED_AFTER) };
                tx.execute(sql(RETIRE).bind(unseen_since.as_millis())).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// The list of this revision.
    pub(super) async fn targets_in(
        &self,
        tx: &mut Transaction,
        revision: i64,
    ) -> Result<Arc<KnownTargets>, StoreError> {
        let known = Arc::clone(&unpoisoned(&self.inner.targets));
        if known.revision == revision {
            return Ok(known);
        }
        // The list may be newer than the revision: then it is read once more for the next event.
        let rows = tx.all(sql(KNOWN)).await?;
        let known = Arc::new(KnownTargets::read(revision, &rows)?);
        *unpoisoned(&self.inner.targets) = Arc::clone(&known);
        Ok(known)
    }

    pub(super) async fn standing_in(
        &self,
        tx: &mut Transaction,
        target: &str,
    ) -> Result<Standing, StoreError> {
        let row = tx.first(sql(STANDING).bind(target)).await?;
        row.map_or_else(|| Ok(Standing::default()), |row| standing(&row))
    }

    pub(super) async fn stand_in(
        &self,
        tx: &mut Transaction,
        target: &str,
        sent: u64,
        standing: &Standing,
    ) -> Result<(), StoreError> {
        if sent > 0 {
            tx.execute(sql(SENT).bind(target).bind(sent.cast_signed())).await?;
        }
        let stand = sql(STAND)
            .bind(target)
            .bind(standing.state.as_str())
            .bind(standing.since.map(Timestamp::as_millis))
            .bind(standing.error.as_deref());
        tx.execute(stand).await?;
        Ok(())
    }

    /// The targets, or the one of this name: those on the list, and those that are not but have events waiting.
    pub async fn targets(&self, name: Option<&str>) -> Result<Vec<TargetView>, StoreError> {
        let name = name.unwrap_or_default().to_owned();
        self.durably(move |store| {
            let name = name.clone();
            async move {
                let now = store.clock().now();
                let mut tx = store.database().read().await?;
                tx.all(sql(VIEWS).bind(&name)).await?.iter().map(|row| view(row, now)).collect()
            }
        })
        .await
    }

    /// Lets events go to a target again that was disabled; one that was not is tried at once.
    pub async fn enable_target(&self, name: &str) -> Result<(), ChangeError> {
        let name = name.to_owned();
        self.durably(move |store| {
            let name = name.clone();
            async move {
                let mut tx = store.database().begin().await?;
                if tx.execute(sql(ENABLE).bind(&name)).await? == 0 {
                    return Err(ChangeError::NotFound(format!("target {name}")));
                }
                tx.commit().await?;
                Ok(())
            }
        })
        .await
    }

    /// Drops what waits for a target that no running orchestrator sends to; returns how much that was.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`]: it is sent to.
    pub async fn drop_outbox(&self, name: &str) -> Result<u64, ChangeError> {
        let name = name.to_owned();
        self.durably(move |store| {
            let name = name.clone();
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                tx.execute(sql(LOCK)).await?;
                let row = tx.first(sql(VIEWS).bind(&name)).await?;
                let row = row.ok_or_else(|| ChangeError::NotFound(format!("target {name}")))?;
                match view(&row, now)?.state.as_str() {
                    "absent" | "disabled" => {}
                    state => {
                        let wrong = format!(
                            "target {name} is {state}: what waits for it is sent as soon as it takes it; take it out \
                             of refit.yaml first"
                        );
                        return Err(ChangeError::Invalid(wrong));
                    }
                }
                let dropped = store.drop_outbox_in(&mut tx, &name).await?;
                tx.commit().await?;
                Ok(dropped)
            }
        })
        .await
    }
}

fn standing(row: &Row) -> Result<Standing, StoreError> {
    Ok(Standing {
        state: row.parsed("state")?,
        since: row.opt_int("since")?.map(Timestamp::from_millis),
        error: row.opt_text("error")?,
    })
}

fn view(row: &Row, now: Timestamp) -> Result<TargetView, StoreError> {
    let Standing { state, since, error } = standing(row)?;
    let seen_at = Timestamp::from_millis(row.int("seen_at")?);
    let absent = row.int("active")? == 0 || seen_at <= now.minus(ABSENT_AFTER);
    Ok(TargetView {
        name: row.text("name")?,
        kind: row.text("kind")?,
        events: row.json("events")?,
        state: if absent { "absent" } else { state.as_str() }.to_owned(),
        since: if absent { Some(seen_at) } else { since },
        error,
        pending: row.int("pending")?,
        oldest_pending_at: row.opt_int("oldest")?.map(Timestamp::from_millis),
        sent: row.int("sent")?,
    })
}

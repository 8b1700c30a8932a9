//! What has been kept long enough goes, a bounded piece a transaction, so that nobody waits for it. Must never happen here:
//! an event that goes while a run under way, a model's version, an open batch, the outbox, a dead letter or a replay refers
//! to it, while it is a slot that a paused workflow may catch up on, or before it was routed; a run that goes while
//! something can still follow from it.

use std::time::Duration;

use refit_workflows::time::DURATION_MAX;

use super::database::{Sql, Statement, Transaction, sql};
use super::{Store, StoreError, duties};
use crate::config::{Keep, Retention};

/// How many rows one transaction looks at.
const PAGE: i64 = 500;
/// How many runs are chosen at a time; each goes in a transaction of its own.
const RUNS_AT_ONCE: i64 = 50;
/// The pause between two transactions.
const PAUSE: Duration = Duration::from_millis(10);
/// For how long one orchestrator has the duty; taken again with every transaction.
const DUTY: Duration = Duration::from_secs(60);
const DUTY_NAME: &str = "retention";

const NTH_EVENT: &str = "SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET $1";
const LAST_OLD_EVENT: &str = "SELECT MAX(seq) AS last FROM events WHERE received_at < $1";
const EVENTS_PAGE: &str = "SELECT MAX(seq) AS last FROM
    (SELECT seq FROM events WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3) AS page";
// Whoever retries one of these runs, or takes its events over, has its row: what follows here then sees what they did.
const LOCK_RUNS: Sql = Sql {
    sqlite:
        "SELECT id FROM runs WHERE id IN (SELECT d.run FROM decisions d WHERE d.event > $1 AND d.event <= $2)
        AND state NOT IN ('waiting', 'running') AND 1 = 0",
    postgres:
        "SELECT id FROM runs WHERE id IN (SELECT d.run FROM decisions d WHERE d.event > $1 AND d.event <= $2)
        AND state NOT IN ('waiting', 'running') ORDER BY id FOR SHARE",
};
// Every event of a run has a decision that says so: see `launch`.
const DROP_EVENTS: &str = "DELETE FROM events WHERE seq > $1 AND seq <= $2 AND routed = 1
    AND (received_at < $3 OR seq <= $4)
    AND NOT EXISTS (SELECT 1 FROM decisions d JOIN runs r ON r.id = d.run
        WHERE d.event = events.seq AND (r.state IN ('waiting', 'running')
            OR EXISTS (SELECT 1 FROM versions v WHERE v.run = r.id)
            OR EXISTS (SELECT 1 FROM alias_history h WHERE h.run = r.id)))
    AND NOT EXISTS (SELECT 1 FROM decisions d JOIN batches b ON b.seq = d.batch
        WHERE d.event = events.seq AND b.open = 1)
    AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.event = events.seq)
    AND NOT EXISTS (SELECT 1 FROM dead_letters l WHERE l.event = events.seq)
    AND NOT EXISTS (SELECT 1 FROM replays p WHERE p.finished_at IS NULL
        AND events.seq BETWEEN p.next_event AND p.last_event)
    AND NOT (events.type = 'refit.schedule' AND EXISTS (SELECT 1 FROM decisions d JOIN workflows w ON w.name = d.workflow
        WHERE d.event = events.seq AND d.decision = 'paused' AND events.received_at >= w.paused_at))";
const DROP_DECISIONS: &str = "DELETE FROM decisions WHERE event > $1 AND event <= $2
    AND NOT EXISTS (SELECT 1 FROM events e WHERE e.seq = decisions.event)";

const BATCHES_PAGE: &str =
    "SELECT MAX(seq) AS last FROM (SELECT seq FROM batches WHERE seq > $1 ORDER BY seq LIMIT $2) AS page";
const DROP_BATCHES: &str = "DELETE FROM batches WHERE seq > $1 AND seq <= $2 AND open = 0
    AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.batch = batches.seq)";

const REPLAYS_PAGE: &str =
    "SELECT MAX(seq) AS last FROM (SELECT seq FROM replays WHERE seq > $1 ORDER BY seq LIMIT $2) AS page";
const DROP_REPLAYS: &str = "DELETE FROM replays WHERE seq > $1 AND seq <= $2 AND finished_at < $3
    AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.replay = replays.seq)";

const NTH_RUN: &str = "SELECT id AS seq FROM runs ORDER BY id DESC LIMIT 1 OFFSET $1";
const LAST_OLD_RUN: &str = "SELECT MAX(id) AS last FROM runs WHERE created_at < $1";
/// The runs between two places that may go: `$1` to `$5`. The latest start in a lane stays for as long as a cooldown may
/// count from it.
macro_rules! old_runs {
    ($head:literal, $tail:literal) => {
        concat!(
            $head,
            " FROM runs WHERE id > $1 AND id <= $2 AND state NOT IN ('waiting', 'running')
            AND (id <= $4 OR NOT EXISTS (SELECT 1 FROM journal j WHERE j.run = runs.id AND j.at >= $3))
            AND NOT EXISTS (SELECT 1 FROM versions v WHERE v.run = runs.id)
            AND NOT EXISTS (SELECT 1 FROM alias_history h WHERE h.run = runs.id)
            AND NOT EXISTS (SELECT 1 FROM children c WHERE c.parent = runs.id)
            AND NOT EXISTS (SELECT 1 FROM children c WHERE c.child = runs.id)
            AND (started_at IS NULL OR started_at < $5 OR EXISTS (SELECT 1 FROM runs n
                WHERE n.workflow = runs.workflow AND n.lane = runs.lane AND n.started_at > runs.started_at))",
            $tail
        )
    };
}

const OLD_RUNS: &str = old_runs!("SELECT id", " ORDER BY id LIMIT $6");
// All of it is asked once more for each run: since it was chosen, somebody may have retried it, and it may be over again.
const DROP_LOGS_OF: &str = old_runs!(
    "DELETE FROM logs WHERE seq IN (SELECT seq FROM logs WHERE run = $2 ORDER BY seq LIMIT $6)
    AND EXISTS (SELECT 1",
    ")"
);
// What follows sees all that whoever had the run before has done.
const LOCK_RUN: Sql = Sql {
    sqlite: "SELECT id FROM runs WHERE id = $1",
    postgres: "SELECT id FROM runs WHERE id = $1 FOR UPDATE",
};
const DROP_RUN: &str = old_runs!("DELETE", "");
const DROP_OF_RUN: [&str; 7] = [
    "DELETE FROM cache WHERE run = $1",
    "DELETE FROM checkpoints WHERE run = $1",
    "DELETE FROM live_metrics WHERE run = $1",
    "DELETE FROM metric_series WHERE run = $1",
    "DELETE FROM run_events WHERE run = $1",
    "DELETE FROM journal WHERE run = $1",
    "DELETE FROM steps WHERE run = $1",
];

const LOGS_PAGE: &str = "SELECT MAX(seq) AS last, MIN(at) AS oldest FROM
    (SELECT seq, at FROM logs WHERE seq > $1 ORDER BY seq LIMIT $2) AS page";
const NTH_LOG: &str = "SELECT seq FROM logs ORDER BY seq DESC LIMIT 1 OFFSET $1";
const DROP_LOGS: &str = "DELETE FROM logs WHERE seq > $1 AND seq <= $2 AND (at < $3 OR seq <= $4)
    AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = logs.run AND r.state IN ('waiting', 'running'))";

const NTH_LETTER: &str = "SELECT seq FROM dead_letters ORDER BY seq DESC LIMIT 1 OFFSET $1";
const LAST_OLD_LETTER: &str = "SELECT MAX(seq) AS last FROM dead_letters WHERE received_at < $1";
const LETTERS_PAGE: &str = "SELECT MAX(seq) AS last FROM
    (SELECT seq FROM dead_letters WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3) AS page";
const DROP_LETTERS: &str =
    "DELETE FROM dead_letters WHERE seq > $1 AND seq <= $2 AND (received_at < $3 OR seq <= $4)";

/// How many of each went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Events, with their decisions.
    pub events: u64,
    /// Batches that no event is left of.
    pub batches: u64,
    /// Replays that are over.
    pub replays: u64,
    /// Runs, with all that belongs to them.
    pub runs: u64,
    /// Pieces of logs, beside those of runs that went.
    pub logs: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

/// What is old: what came before a moment, or up to a place in the order they came in.
#[derive(Clone, Copy)]
struct Bounds {
    before: i64,
    up_to: i64,
    /// Nothing behind this place is old.
    last: i64,
}

impl Store {
    /// Takes out what is beyond its bounds and nothing refers to. Stops early where another orchestrator is at it.
    pub async fn sweep(&self, retention: Retention, holder: &str) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        self.sweep_events(retention.events, holder, &mut swept).await?;
        self.sweep_replays(retention.events, holder, &mut swept).await?;
        self.sweep_runs(retention.runs, holder, &mut swept).await?;
        self.sweep_logs(retention.logs, holder, &mut swept).await?;
        self.sweep_letters(retention.dead_letters, holder, &mut swept).await?;
        Ok(swept)
    }

    async fn sweep_events(&self, keep: Keep, holder: &str, swept: &mut Swept) -> Result<(), StoreError> {
        let Some(bounds) = self.bounds(keep, NTH_EVENT, LAST_OLD_EVENT).await? else { return Ok(()) };
        let mut after = i64::MIN;
        loop {
            let Some((last, dropped)) = self
                .piece(holder, move |mut tx: Transaction| async move {
                    let page = sql(EVENTS_PAGE).bind(after).bind(bounds.last).bind(PAGE);
                    let Some(last) = tx.one(page).await?.opt_int("last")? else { return Ok((tx, None)) };
                    tx.all(sql(LOCK_RUNS).bind(after).bind(last)).await?;
                    let dropped = tx.execute(bounds.of(DROP_EVENTS, after, last)).await?;
                    if dropped > 0 {
                        tx.execute(sql(DROP_DECISIONS).bind(after).bind(last)).await?;
                    }
                    Ok((tx, Some((last, dropped))))
                })
                .await?
            else {
                break;
            };
            swept.events += dropped;
            after = last;
        }
        if swept.events > 0 {
            self.sweep_batches(holder, swept).await?;
        }
        Ok(())
    }

    /// Those that nothing is left of to tell: the decisions that name them have gone with their events.
    async fn sweep_replays(&self, keep: Keep, holder: &str, swept: &mut Swept) -> Result<(), StoreError> {
        let before = self.before(keep);
        let mut after = i64::MIN;
        loop {
            let Some((last, dropped)) = self
                .piece(holder, move |mut tx: Transaction| async move {
                    let page = tx.one(sql(REPLAYS_PAGE).bind(after).bind(PAGE)).await?;
                    let Some(last) = page.opt_int("last")? else { return Ok((tx, None)) };
                    let dropped = tx.execute(sql(DROP_REPLAYS).bind(after).bind(last).bind(before)).await?;
                    Ok((tx, Some((last, dropped))))
                })
                .await?
            else {
                return Ok(());
            };
            swept.replays += dropped;
            after = last;
        }
    }

    async fn sweep_batches(&self, holder: &str, swept: &mut Swept) -> Result<(), StoreError> {
        let mut after = i64::MIN;
        loop {
            let Some((last, dropped)) = self
                .piece(holder, move |mut tx: Transaction| async move {
                    let page = tx.one(sql(BATCHES_PAGE).bind(after).bind(PAGE)).await?;
                    let Some(last) = page.opt_int("last")? else { return Ok((tx, None)) };
                    let dropped = tx.execute(sql(DROP_BATCHES).bind(after).bind(last)).await?;
                    Ok((tx, Some((last, dropped))))
                })
                .await?
            else {
                return Ok(());
            };
            swept.batches += dropped;
            after = last;
        }
    }

    async fn sweep_runs(&self, keep: Keep, holder: &str, swept: &mut Swept) -> Result<(), StoreError> {
        let Some(bounds) = self.bounds(keep, NTH_RUN, LAST_OLD_RUN).await? else { return Ok(()) };
        let cooled = self.clock().now().minus(DURATION_MAX).as_millis();
        let mut after = i64::MIN;
        loop {
            let old: Vec<i64> = self
                .durably::<_, StoreError, _, _>(move |store| async move {
                    let mut tx = store.database().read().await?;
                    let old = bounds.of(OLD_RUNS, after, bounds.last).bind(cooled).bind(RUNS_AT_ONCE);
                    tx.all(old).await?.iter().map(|row| row.int("id")).collect()
                })
                .await?;
            let Some(&last) = old.last() else { return Ok(()) };
            for run in old {
                if !self.drop_run(run, (bounds, cooled), holder, swept).await? {
                    return Ok(());
                }
            }
            after = last;
        }
    }

    /// Its logs first, piece by piece, then the run at once. False: another orchestrator is at it.
    async fn drop_run(
        &self,
        run: i64,
        (bounds, cooled): (Bounds, i64),
        holder: &str,
        swept: &mut Swept,
    ) -> Result<bool, StoreError> {
        let about = move |text| bounds.of(text, run - 1, run).bind(cooled);
        loop {
            match self
                .piece(holder, move |mut tx: Transaction| async move {
                    let dropped = tx.execute(about(DROP_LOGS_OF).bind(PAGE)).await?;
                    Ok((tx, Some(dropped)))
                })
                .await?
            {
                None => return Ok(false),
                Some(0) => break,
                Some(_) => {}
            }
        }
        let Some(dropped) = self
            .piece(holder, move |mut tx: Transaction| async move {
                tx.first(sql(LOCK_RUN).bind(run)).await?;
                let dropped = tx.execute(about(DROP_RUN)).await?;
                if dropped > 0 {
                    for part in DROP_OF_RUN {
                        tx.execute(sql(part).bind(run)).await?;
                    }
                }
                Ok((tx, Some(dropped)))
            })
            .await?
        else {
            return Ok(false);
        };
        swept.runs += dropped;
        Ok(true)
    }

    async fn sweep_logs(&self, keep: Keep, holder: &str, swept: &mut Swept) -> Result<(), StoreError> {
        let (before, up_to) = (self.before(keep), self.nth(keep, NTH_LOG).await?);
        if (before, up_to) == (i64::MIN, i64::MIN) {
            return Ok(());
        }
        // Lines come in the order they were written, but for what workers' clocks are apart: behind a page without old
        // ones there are none.
        let bounds = Bounds { before, up_to, last: i64::MAX };
        let mut after = i64::MIN;
        loop {
            let Some((last, dropped)) = self
                .piece(holder, move |mut tx: Transaction| async move {
                    let page = tx.one(sql(LOGS_PAGE).bind(after).bind(PAGE)).await?;
                    let (Some(last), Some(oldest)) = (page.opt_int("last")?, page.opt_int("oldest")?) else {
                        return Ok((tx, None));
                    };
                    if oldest >= before && after >= up_to {
                        return Ok((tx, None));
                    }
                    let dropped = tx.execute(bounds.of(DROP_LOGS, after, last)).await?;
                    Ok((tx, Some((last, dropped))))
                })
                .await?
            else {
                return Ok(());
            };
            swept.logs += dropped;
            after = last;
        }
    }

    async fn sweep_letters(&self, keep: Keep, holder: &str, swept: &mut Swept) -> Result<(), StoreError> {
        let Some(bounds) = self.bounds(keep, NTH_LETTER, LAST_OLD_LETTER).await? else { return Ok(()) };
        let mut after = i64::MIN;
        loop {
            let Some((last, dropped)) = self
                .piece(holder, move |mut tx: Transaction| async move {
                    let page = sql(LETTERS_PAGE).bind(after).bind(bounds.last).bind(PAGE);
                    let Some(last) = tx.one(page).await?.opt_int("last")? else { return Ok((tx, None)) };
                    let dropped = tx.execute(bounds.of(DROP_LETTERS, after, last)).await?;
                    Ok((tx, Some((last, dropped))))
                })
                .await?
            else {
                return Ok(());
            };
            swept.dead_letters += dropped;
            after = last;
        }
    }

    /// A transaction of an orchestrator that has the duty, and a pause after it. None: another has it, or there is no
    /// more to do.
    pub(super) async fn piece<T, F, Fut>(&self, holder: &str, work: F) -> Result<Option<T>, StoreError>
    where
        F: Fn(Transaction) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<(Transaction, Option<T>), StoreError>> + Send,
        T: Send + 'static,
    {
        let holder = holder.to_owned();
        let done = self
            .durably::<_, StoreError, _, _>(move |store| {
                let (holder, work) = (holder.clone(), work.clone());
                async move {
                    let Some(tx) = store.begin_sweep(&holder).await? else { return Ok(None) };
                    let (tx, done) = work(tx).await?;
                    tx.commit().await?;
                    Ok(done)
                }
            })
            .await?;
        tokio::time::sleep(PAUSE).await;
        Ok(done)
    }

    /// A transaction that has the duty.
    async fn begin_sweep(&self, holder: &str) -> Result<Option<Transaction>, StoreError> {
        let mut tx = self.database().begin().await?;
        let now = self.clock().now();
        Ok(duties::take_in(&mut tx, DUTY_NAME, holder, now, DUTY).await?.then_some(tx))
    }

    /// What is old by these bounds; none when nothing is.
    async fn bounds(
        &self,
        keep: Keep,
        nth: &'static str,
        last_old: &'static str,
    ) -> Result<Option<Bounds>, StoreError> {
        let (before, up_to) = (self.before(keep), self.nth(keep, nth).await?);
        let last_old = match keep.age {
            None => None,
            Some(_) => {
                self.durably(move |store| async move {
                    let mut tx = store.database().read().await?;
                    tx.one(sql(last_old).bind(before)).await?.opt_int("last")
                })
                .await?
            }
        };
        let last = last_old.unwrap_or(i64::MIN).max(up_to);
        Ok((last > i64::MIN).then_some(Bounds { before, up_to, last }))
    }

    fn before(&self, keep: Keep) -> i64 {
        keep.age.map_or(i64::MIN, |age| self.clock().now().minus(age).as_millis())
    }

    /// The place of the newest that is one too many.
    async fn nth(&self, keep: Keep, nth: &'static str) -> Result<i64, StoreError> {
        let Some(count) = keep.count else { return Ok(i64::MIN) };
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.durably(move |store| async move {
            let mut tx = store.database().read().await?;
            tx.first(sql(nth).bind(count)).await?.map_or(Ok(i64::MIN), |row| row.int("seq"))
        })
        .await
    }
}

impl Bounds {
    /// A statement about what is old between two places: `$1` to `$4`.
    fn of(&self, text: &'static str, after: i64, last: i64) -> Statement {
        sql(text).bind(after).bind(last).bind(self.before).bind(self.up_to)
    }
}

//! Stored events through today's triggers once more, because a person asked. A replay is a row with a place that moves on
//! in the transaction that routes: after a kill it goes on there, and no event is routed twice by one replay. Nothing is
//! recorded again; the decisions are added to the event's own, marked with the replay. Must never happen here: a replay
//! that begins by itself.
//!
//! To batches and joins a replayed event comes at the moment it is replayed.

use std::collections::BTreeMap;

use refit_workflows::event::CloudEvent;
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::Considered;
use refit_workflows::wire::{PlannedEvent, PlannedTrigger, ReplayFilter, ReplayPlan, ReplayView};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::database::{Row, Sql, Statement, Transaction, sql};
use super::dispatch::{Decision, Round, considered, no_match};
use super::workflows::CurrentWorkflow;
use super::{ChangeError, Hints, Store, StoreError, to_json};

/// How many events one transaction routes.
const REPLAY_MAX: i64 = 200;
/// How many rows of the log one transaction looks at for them.
const LOOK_MAX: i64 = 5_000;
/// How many replays may be under way at once.
const OPEN_MAX: i64 = 100;
/// The most events a plan looks at, and the most it lists.
const PLAN_LOOK_MAX: u64 = 10_000;
const PLAN_LIST_MAX: usize = 1_000;

/// The events a filter chooses between two places: `$1` to `$8`.
macro_rules! chosen {
    ($head:literal, $ids:literal, $tail:literal) => {
        concat!(
            $head,
            " FROM events WHERE seq >= $1 AND seq <= $2 AND routed = 1 AND ($3 = '' OR type = $3)
            AND ($4 = '' OR source = $4) AND received_at >= $5 AND received_at <= $6
            AND ($7 = 1 OR (source <> '/refit' AND substr(source, 1, 7) <> '/refit/'))
            AND ($8 = '[]' OR id IN (",
            $ids,
            "))",
            $tail
        )
    };
}

const COUNT: Sql = Sql {
    sqlite: chosen!(
        "SELECT COUNT(*) AS total, MIN(seq) AS first, MAX(seq) AS last",
        "SELECT value FROM json_each($8)",
        ""
    ),
    postgres: chosen!(
        "SELECT COUNT(*) AS total, MIN(seq) AS first, MAX(seq) AS last",
        "SELECT jsonb_array_elements_text($8::jsonb)",
        ""
    ),
};
const PAGE: Sql = Sql {
    sqlite: chosen!("SELECT seq, body", "SELECT value FROM json_each($8)", " ORDER BY seq LIMIT $9"),
    postgres: chosen!(
        "SELECT seq, body",
        "SELECT jsonb_array_elements_text($8::jsonb)",
        " ORDER BY seq LIMIT $9"
    ),
};
const WINDOW: &str = "SELECT MAX(seq) AS last FROM
    (SELECT seq FROM events WHERE seq >= $1 AND seq <= $2 ORDER BY seq LIMIT $3) AS look";
const ASK: &str = "INSERT INTO replays (asked_at, asked_by, next_event, last_event, finished_at, body)
    VALUES ($1, $2, $3, $4, $5, $6) RETURNING seq";
const OPEN: &str =
    "SELECT seq, next_event, last_event, body FROM replays WHERE finished_at IS NULL ORDER BY seq LIMIT 1";
const COUNT_OPEN: &str = "SELECT COUNT(*) AS open FROM replays WHERE finished_at IS NULL";
const MOVE: &str = "UPDATE replays SET next_event = $2, finished_at = $3, body = $4 WHERE seq = $1";
const SHOW: &str = "SELECT seq, asked_at, asked_by, finished_at, body FROM replays
    WHERE seq <= $1 AND seq >= $2 ORDER BY seq DESC LIMIT $3";
const DECISIONS: &str =
    "SELECT decision, COUNT(*) AS times FROM decisions WHERE replay = $1 GROUP BY decision ORDER BY decision";

/// What a replay's row holds beside its place.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Replay {
    filter: ReplayFilter,
    /// How many events there were when it was asked for.
    events: u64,
    routed: u64,
    stopped: bool,
}

impl Replay {
    /// How many events it may still route.
    fn left(&self) -> u64 {
        self.filter.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.routed))
    }
}

/// The replay that is under way, as a round has read it.
struct Open {
    seq: i64,
    next: i64,
    last: i64,
    replay: Replay,
}

impl Store {
    /// Asks for a replay; it goes on by itself.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`]: the filter names a workflow that is not there. [`ChangeError::Invalid`]: too many are
    /// under way.
    pub async fn ask_replay(
        &self,
        filter: ReplayFilter,
        by: &str,
    ) -> Result<(ReplayView, Hints), ChangeError> {
        let by = by.to_owned();
        self.durably(move |store| {
            let (filter, by) = (filter.clone(), by.clone());
            async move {
                // Nobody else asks or routes meanwhile.
                let mut round = Round::begin(store).await?;
                let now = round.now;
                round.store.must_know(&mut round.tx, &filter).await?;
                if round.tx.one(sql(COUNT_OPEN)).await?.int("open")? >= OPEN_MAX {
                    let full = format!("{OPEN_MAX} replays are under way: wait for some, or stop them");
                    return Err(ChangeError::Invalid(full));
                }
                let (total, first, last) = count_chosen(&mut round.tx, &filter).await?;
                let replay = Replay { filter, events: total, routed: 0, stopped: false };
                let ask = sql(ASK)
                    .bind(now.as_millis())
                    .bind(&by)
                    .bind(first)
                    .bind(last)
                    .bind((total == 0).then_some(now.as_millis()))
                    .bind(to_json(&replay)?);
                let seq = round.tx.one(ask).await?.int("seq")?;
                let view = view_of(&mut round.tx, seq).await?;
                round.hints.events = true;
                Ok((view, round.commit().await?))
            }
        })
        .await
    }

    /// What a replay would do, by the code that would do it; changes nothing.
    pub async fn plan_replay(&self, filter: ReplayFilter) -> Result<ReplayPlan, ChangeError> {
        self.durably(move |store| {
            let filter = filter.clone();
            async move {
                let mut tx = store.database().read().await?;
                let now = store.clock().now();
                store.must_know(&mut tx, &filter).await?;
                let (events, first, last) = count_chosen(&mut tx, &filter).await?;
                let current = store.current_workflows(&mut tx).await?;
                let triggers = store.triggers_of(&current);
                let mut plan = Plan::default();
                let most = events.min(PLAN_LOOK_MAX);
                let mut next = first;
                while plan.looked_at < most {
                    let limit = REPLAY_MAX.min(i64::try_from(most - plan.looked_at).unwrap_or(REPLAY_MAX));
                    let rows = tx.all(page(PAGE, &filter, next, last).bind(limit)).await?;
                    let Some(row) = rows.last() else { break };
                    next = row.int("seq")? + 1;
                    for row in &rows {
                        let event: CloudEvent = row.json("body")?;
                        let found = considered(&event, &current, &triggers);
                        let found = found
                            .into_iter()
                            .map(|(matched, considered)| {
                                (&current[matched.workflow], matched.trigger, considered)
                            })
                            .filter(|(current, ..)| is_for(&filter, &current.workflow.name));
                        if !plan.note(&event, now, found) {
                            plan.list(&event, "", None, "unmatched", Some(no_match(&current).to_owned()));
                        }
                    }
                }
                Ok(plan.finish(events))
            }
        })
        .await
    }

    /// Replays, newest first.
    pub async fn replays(&self, limit: i64) -> Result<Vec<ReplayView>, StoreError> {
        self.durably(move |store| async move {
            let mut tx = store.database().read().await?;
            views(&mut tx, i64::MAX, i64::MIN, limit).await
        })
        .await
    }

    /// One replay.
    pub async fn replay(&self, seq: i64) -> Result<ReplayView, ChangeError> {
        self.durably(move |store| async move {
            let mut tx = store.database().read().await?;
            view_of(&mut tx, seq).await
        })
        .await
    }

    /// Ends a replay where it is; what it has routed stays. One that is over stays as it is.
    pub async fn stop_replay(&self, seq: i64) -> Result<ReplayView, ChangeError> {
        self.durably(move |store| async move {
            const STATE: &str = "SELECT next_event, finished_at, body FROM replays WHERE seq = $1";
            // Nobody routes meanwhile.
            let mut round = Round::begin(store).await?;
            let row = round.tx.first(sql(STATE).bind(seq)).await?.ok_or_else(|| no_replay(seq))?;
            if row.opt_int("finished_at")?.is_none() {
                let replay = Replay { stopped: true, ..row.json("body")? };
                let now = Some(round.now.as_millis());
                let stop = sql(MOVE).bind(seq).bind(row.int("next_event")?).bind(now).bind(to_json(&replay)?);
                round.tx.execute(stop).await?;
            }
            let view = view_of(&mut round.tx, seq).await?;
            round.commit().await?;
            Ok(view)
        })
        .await
    }

    /// Takes the oldest replay a piece further, setting aside one event that cannot be routed. Returns whether another
    /// look is worth it, and whom to wake; none: somebody else holds the duty.
    pub(super) async fn replay_piece(&self) -> Result<Option<(bool, Hints)>, StoreError> {
        match self.replay_some(REPLAY_MAX).await {
            Err(StoreError::Broken(_) | StoreError::Corrupt(_)) => {}
            replayed => return replayed,
        }
        match self.replay_some(1).await {
            Err(StoreError::Broken(reason) | StoreError::Corrupt(reason)) => {
                self.set_replay_aside(reason).await?;
                Ok(Some((true, Hints::default())))
            }
            replayed => replayed,
        }
    }

    async fn replay_some(&self, limit: i64) -> Result<Option<(bool, Hints)>, StoreError> {
        self.durably(move |store| async move {
            // One event alone is a second try: the round that failed may hold the duty for a moment yet.
            let round = match limit {
                1 => Some(Round::begin(store).await?),
                _ => Round::try_begin(store).await?,
            };
            let Some(mut round) = round else { return Ok(None) };
            let Some(mut open) = round.open_replay().await? else {
                return Ok(Some((false, Hints::default())));
            };
            let current = round.store.current_workflows(&mut round.tx).await?;
            let triggers = round.store.triggers_of(&current);
            let rows = round.replay_page(&mut open, limit).await?;
            round.replay = Some(open.seq);
            let filter = open.replay.filter.clone();
            // Not past events that are still to be routed: what they belong to must not be ended before them.
            let at = round.oldest_unrouted().await?.map_or(round.now, |oldest| oldest.min(round.now));
            for row in &rows {
                let event: CloudEvent = row.json("body")?;
                let seq = row.int("seq")?;
                let only = filter.workflow.as_deref();
                round.route(seq, at, &event, (&current, &triggers), only).await?;
            }
            round.replay = None;
            round.move_replay(&open).await?;
            Ok(Some((true, round.commit().await?)))
        })
        .await
    }

    /// Writes down that the next event of the oldest replay cannot be routed, and goes on behind it.
    async fn set_replay_aside(&self, reason: String) -> Result<(), StoreError> {
        self.durably(move |store| {
            let reason = reason.clone();
            async move {
                let mut round = Round::begin(store).await?;
                let Some(mut open) = round.open_replay().await? else { return Ok(()) };
                for row in round.replay_page(&mut open, 1).await? {
                    let event = row.int("seq")?;
                    tracing::error!(event, replay = open.seq, reason, "an event cannot be replayed");
                    let reason = format!("could not be routed: {reason}");
                    let reason = Some(reason.as_str());
                    round.replay = Some(open.seq);
                    round
                        .decide(event, &Decision { decision: "filter_error", reason, ..Decision::default() });
                    round.replay = None;
                }
                round.move_replay(&open).await?;
                round.commit().await.map(|_| ())
            }
        })
        .await
    }

    async fn must_know(&self, tx: &mut Transaction, filter: &ReplayFilter) -> Result<(), ChangeError> {
        if let Some(name) = &filter.workflow
            && self.current_workflow(tx, name).await?.is_none()
        {
            return Err(ChangeError::NotFound(format!("workflow {name}")));
        }
        Ok(())
    }
}

impl Round {
    async fn open_replay(&mut self) -> Result<Option<Open>, StoreError> {
        let Some(row) = self.tx.first(sql(OPEN)).await? else { return Ok(None) };
        let (seq, next, last) = (row.int("seq")?, row.int("next_event")?, row.int("last_event")?);
        Ok(Some(Open { seq, next, last, replay: row.json("body")? }))
    }

    /// The next events of a replay, whose place is behind them then.
    async fn replay_page(&mut self, open: &mut Open, limit: i64) -> Result<Vec<Row>, StoreError> {
        let limit = limit.min(i64::try_from(open.replay.left()).unwrap_or(i64::MAX));
        let window = sql(WINDOW).bind(open.next).bind(open.last).bind(LOOK_MAX);
        let Some(end) = self.tx.one(window).await?.opt_int("last")? else {
            open.next = open.last + 1;
            return Ok(Vec::new());
        };
        let chosen = page(PAGE, &open.replay.filter, open.next, end).bind(limit);
        let rows = self.tx.all(chosen).await?;
        open.next = match rows.last() {
            Some(last) if rows.len() as i64 == limit => last.int("seq")? + 1,
            Some(_) | None => end + 1,
        };
        open.replay.routed += rows.len() as u64;
        Ok(rows)
    }

    async fn move_replay(&mut self, open: &Open) -> Result<(), StoreError> {
        let over = open.next > open.last || open.replay.left() == 0;
        let finished_at = over.then_some(self.now.as_millis());
        let moved = sql(MOVE).bind(open.seq).bind(open.next).bind(finished_at).bind(to_json(&open.replay)?);
        self.tx.execute(moved).await?;
        Ok(())
    }
}

/// Whether a replay is for this workflow.
fn is_for(filter: &ReplayFilter, workflow: &str) -> bool {
    filter.workflow.as_deref().is_none_or(|only| only == workflow)
}

/// How many events a filter chooses, and between which places.
async fn count_chosen(tx: &mut Transaction, filter: &ReplayFilter) -> Result<(u64, i64, i64), StoreError> {
    let row = tx.one(page(COUNT, filter, i64::MIN, i64::MAX)).await?;
    let total = row.int("total")?.unsigned_abs().min(filter.limit.unwrap_or(u64::MAX));
    Ok((total, row.opt_int("first")?.unwrap_or_default(), row.opt_int("last")?.unwrap_or_default()))
}

/// A statement about what a filter chooses between two places.
fn page(text: Sql, filter: &ReplayFilter, first: i64, last: i64) -> Statement {
    let named = filter.kind.is_some() || filter.source.is_some() || !filter.ids.is_empty();
    sql(text)
        .bind(first)
        .bind(last)
        .bind(filter.kind.as_deref().unwrap_or_default())
        .bind(filter.source.as_deref().unwrap_or_default())
        .bind(filter.since.map_or(i64::MIN, Timestamp::as_millis))
        .bind(filter.until.map_or(i64::MAX, Timestamp::as_millis))
        .bind(i64::from(named))
        .bind(json!(filter.ids).to_string())
}

fn no_replay(seq: i64) -> ChangeError {
    ChangeError::NotFound(format!("replay {seq}"))
}

async fn view_of(tx: &mut Transaction, seq: i64) -> Result<ReplayView, ChangeError> {
    views(tx, seq, seq, 1).await?.pop().ok_or_else(|| no_replay(seq))
}

async fn views(
    tx: &mut Transaction,
    newest: i64,
    oldest: i64,
    limit: i64,
) -> Result<Vec<ReplayView>, StoreError> {
    let mut views = Vec::new();
    for row in tx.all(sql(SHOW).bind(newest).bind(oldest).bind(limit)).await? {
        let seq = row.int("seq")?;
        let mut decisions = BTreeMap::new();
        for row in tx.all(sql(DECISIONS).bind(seq)).await? {
            decisions.insert(row.text("decision")?, row.int("times")?.unsigned_abs());
        }
        let replay: Replay = row.json("body")?;
        let finished_at = row.opt_int("finished_at")?.map(Timestamp::from_millis);
        let state = match (finished_at, replay.stopped) {
            (None, _) => "running",
            (Some(_), false) => "finished",
            (Some(_), true) => "stopped",
        };
        views.push(ReplayView {
            replay: seq,
            state: state.to_owned(),
            by: row.text("asked_by")?,
            asked_at: Timestamp::from_millis(row.int("asked_at")?),
            finished_at,
            filter: replay.filter,
            events: replay.events,
            routed: replay.routed,
            decisions,
        });
    }
    Ok(views)
}

/// What a plan has found so far.
#[derive(Default)]
struct Plan {
    looked_at: u64,
    triggers: BTreeMap<(String, usize), PlannedTrigger>,
    decisions: Vec<PlannedEvent>,
}

impl Plan {
    /// Notes what the triggers that an event matches would make of it when it is replayed at `now`. False: there are none.
    fn note<'a>(
        &mut self,
        event: &CloudEvent,
        now: Timestamp,
        found: impl Iterator<Item = (&'a CurrentWorkflow, usize, Considered)>,
    ) -> bool {
        self.looked_at += 1;
        let mut matched = false;
        for (current, trigger, considered) in found {
            matched = true;
            let workflow = current.workflow.name.as_str();
            let gathers = current.workflow.triggers[trigger].gathers();
            let place = i64::try_from(trigger).unwrap_or_default();
            let counts =
                self.triggers.entry((workflow.to_owned(), trigger)).or_insert_with(|| PlannedTrigger {
                    workflow: workflow.to_owned(),
                    trigger: place,
                    fires: 0,
                    gathers: 0,
                    paused: 0,
                    unmatched: 0,
                    errors: 0,
                });
            let (count, decision, reason) = match (considered, current.paused_for(now)) {
                (Considered::Filtered(reason), _) => (&mut counts.unmatched, "unmatched", Some(reason)),
                (Considered::FilterError(wrong), _) => (&mut counts.errors, "filter_error", Some(wrong)),
                (Considered::Accepted(_), Some(paused)) => {
                    (&mut counts.paused, "paused", Some(format!("paused {paused}")))
                }
                (Considered::Accepted(_), None) if gathers => (&mut counts.gathers, "gathers", None),
                (Considered::Accepted(_), None) => (&mut counts.fires, "fires", None),
            };
            *count += 1;
            self.list(event, workflow, Some(place), decision, reason);
        }
        matched
    }

    fn list(
        &mut self,
        event: &CloudEvent,
        workflow: &str,
        trigger: Option<i64>,
        decision: &str,
        reason: Option<String>,
    ) {
        if self.decisions.len() < PLAN_LIST_MAX {
            self.decisions.push(PlannedEvent {
                id: event.id().to_owned(),
                source: event.source().to_owned(),
                kind: event.kind().to_owned(),
                workflow: workflow.to_owned(),
                trigger,
                decision: decision.to_owned(),
                reason,
            });
        }
    }

    fn finish(self, events: u64) -> ReplayPlan {
        let triggers = self.triggers.into_values().collect();
        ReplayPlan { events, looked_at: self.looked_at, triggers, decisions: self.decisions }
    }
}

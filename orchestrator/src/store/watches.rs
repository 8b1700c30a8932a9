//! Watches over promotions: until some time after one, an event that looks as its workflow says, and to which one of its checks
//! objects, takes it back, provided that the alias still stands on that very promotion. What counts is when the event was received,
//! never when somebody looked.
//!
//! Must never happen here: an alias that is moved while runs are still to be locked; it comes last in a round.

use refit_workflows::definition::Verb;
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::pattern::Pattern;
use refit_workflows::run::{Promotion, Run};
use refit_workflows::time::{Timestamp, show_duration};
use refit_workflows::watch::{self, Call, WatchCheck, WatchedVersion};
use refit_workflows::wire::{EventRef, WatchCheckView, WatchView};
use serde_json::{Map, Value};

use super::aliases::{Because, HeldAlias};
use super::database::{Row, Transaction, sql};
use super::dispatch::{Decision, Round};
use super::{Store, StoreError, to_json};

const BEGIN: &str =
    "INSERT INTO watches (model, alias, promotion, version, run, pattern, checks, since, until)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const MOVED: &str = "UPDATE watches SET ended = 'moved', ended_at = $3
    WHERE model = $1 AND alias = $2 AND ended_at IS NULL";
const END: &str = "UPDATE watches SET ended = $2, ended_at = $3 WHERE seq = $1 AND ended_at IS NULL";
const OPEN: &str =
    "SELECT w.seq, w.model, w.alias, w.promotion, w.version, w.pattern, w.checks, w.since, w.until,
        r.workflow, r.number, v.metrics, p.version AS previous_version, p.metrics AS previous_metrics
    FROM watches w JOIN runs r ON r.id = w.run
        JOIN versions v ON v.model = w.model AND v.version = w.version
        JOIN alias_history h ON h.seq = w.promotion
        LEFT JOIN versions p ON p.model = w.model AND p.version = h.from_version
    WHERE w.ended_at IS NULL ORDER BY w.model, w.alias";
const OF_MODEL: &str = "SELECT w.alias, w.version, w.pattern, w.checks, w.until, r.workflow, r.number
    FROM watches w JOIN runs r ON r.id = w.run WHERE w.model = $1 AND w.ended_at IS NULL ORDER BY w.alias";
const DUE: &str = "SELECT until FROM watches WHERE seq = $1 AND ended_at IS NULL AND until <= $2";

/// A watch that is open.
pub(super) struct Watched {
    seq: i64,
    model: String,
    alias: String,
    /// The promotion's place in the history.
    promotion: i64,
    run: RunName,
    pattern: Pattern,
    checks: Vec<WatchCheckView>,
    promoted: WatchedVersion,
    previous: Option<WatchedVersion>,
    since: Timestamp,
    until: Timestamp,
}

/// An event that a watch waited for.
pub(super) struct Called {
    /// The event's row.
    event: i64,
    named: EventRef,
    kind: String,
    at: Timestamp,
    /// The place among the open watches.
    watch: usize,
    call: Call,
}

/// Opens the watch that a promotion asks for, if it does.
pub(super) async fn begin_in(
    tx: &mut Transaction,
    (run_id, run): (i64, &Run),
    promotion: &Promotion,
    (version, seq): (i64, i64),
    now: Timestamp,
) -> Result<(), StoreError> {
    let watch = match &run.workflow().steps[promotion.step].verb {
        Verb::Promote(promote) => promote.watch.as_ref(),
        Verb::Work(_)
        | Verb::Select(_)
        | Verb::Workflow(_)
        | Verb::Gate(_)
        | Verb::Approval(_)
        | Verb::Emit(_) => None,
    };
    let Some(watch) = watch else { return Ok(()) };
    let begin = sql(BEGIN)
        .bind(&promotion.model)
        .bind(&promotion.alias)
        .bind(seq)
        .bind(version)
        .bind(run_id)
        .bind(watch.rollback_on.source().to_string())
        .bind(to_json(&watch.checks.iter().map(WatchCheck::view).collect::<Vec<_>>())?)
        .bind(now.as_millis())
        .bind(now.plus(watch.lasts).as_millis());
    tx.execute(begin).await?;
    Ok(())
}

/// The alias has moved: what was promoted before is not in use any more, and its watch is over.
pub(super) async fn moved_in(
    tx: &mut Transaction,
    model: &str,
    alias: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(sql(MOVED).bind(model).bind(alias).bind(now.as_millis())).await?;
    Ok(())
}

/// The open watches of a model, as people see them.
pub(super) async fn of_model_in(tx: &mut Transaction, model: &str) -> Result<Vec<WatchView>, StoreError> {
    let view = |row: &Row| {
        Ok(WatchView {
            alias: row.text("alias")?,
            version: row.int("version")?,
            run: RunName::new(row.text("workflow")?, row.int("number")?),
            until: Timestamp::from_millis(row.int("until")?),
            rollback_on: row.json("pattern")?,
            checks: row.json("checks")?,
        })
    };
    tx.all(sql(OF_MODEL).bind(model)).await?.iter().map(view).collect()
}

/// The watches that are open. One that cannot be read watches nothing: it must not hold up what others wait for.
pub(super) async fn open_in(tx: &mut Transaction) -> Result<Vec<Watched>, StoreError> {
    let watched = |row: &Row| {
        let pattern = Pattern::parse(&row.json("pattern")?);
        Ok::<_, StoreError>(Watched {
            seq: row.int("seq")?,
            model: row.text("model")?,
            alias: row.text("alias")?,
            promotion: row.int("promotion")?,
            run: RunName::new(row.text("workflow")?, row.int("number")?),
            pattern: pattern.map_err(|wrong| StoreError::Corrupt(format!("a watch's pattern: {wrong}")))?,
            checks: row.json("checks")?,
            promoted: WatchedVersion { version: row.int("version")?, metrics: row.json("metrics")? },
            previous: match row.opt_int("previous_version")? {
                Some(version) => Some(WatchedVersion { version, metrics: row.json("previous_metrics")? }),
                None => None,
            },
            since: Timestamp::from_millis(row.int("since")?),
            until: Timestamp::from_millis(row.int("until")?),
        })
    };
    let read = |row: &Row| {
        let watched = watched(row);
        watched.inspect_err(|error| tracing::error!(%error, "a watch over a promotion cannot be read")).ok()
    };
    Ok(tx.all(sql(OPEN)).await?.iter().filter_map(read).collect())
}

/// Which watches an event, received at `at`, is what they waited for, and what it means to them.
pub(super) fn called(watches: &[Watched], seq: i64, at: Timestamp, event: &CloudEvent) -> Vec<Called> {
    let in_time = |watch: &Watched| watch.since <= at && at <= watch.until;
    if !watches.iter().any(in_time) {
        return Vec::new();
    }
    let object = Value::Object(event.attributes().clone());
    let matching =
        watches.iter().enumerate().filter(|(_, watch)| in_time(watch) && watch.pattern.matches(&object));
    let called = matching.map(|(place, watch)| Called {
        event: seq,
        named: EventRef { source: event.source().to_owned(), id: event.id().to_owned() },
        kind: event.kind().to_owned(),
        at,
        watch: place,
        call: watch.judge(event.attributes()),
    });
    called.collect()
}

impl Watched {
    fn judge(&self, event: &Map<String, Value>) -> Call {
        // Only now that an event looks like it: reading an expression is no small matter.
        match self.checks.iter().map(WatchCheck::parse).collect::<Result<Vec<_>, _>>() {
            Ok(checks) => watch::judge(&checks, event, &self.promoted, self.previous.as_ref()),
            Err(wrong) => Call::Back(Some(format!("its checks cannot be read: {wrong}"))),
        }
    }
}

impl Round {
    /// Takes back what events have called back, and writes it down with them. The last thing that a round does.
    pub(super) async fn roll_back_called(
        &mut self,
        watches: &[Watched],
        mut called: Vec<Called>,
    ) -> Result<(), StoreError> {
        // Models are locked in the order of their names.
        called.sort_by_key(|called| (called.watch, called.at, called.event));
        for called in called {
            let watch = &watches[called.watch];
            let (decision, reason) = match &called.call {
                Call::Back(objection) => {
                    ("rolled_back", self.roll_back(watch, &called, objection.as_deref()).await?)
                }
                Call::Stay => {
                    let Watched { model, alias, run, .. } = watch;
                    ("watched", format!("every check holds: {alias} of {model} stays what {run} promoted"))
                }
            };
            let decision = Decision {
                workflow: &watch.run.workflow,
                decision,
                reason: Some(&reason),
                ..Decision::default()
            };
            self.decide(called.event, &decision);
        }
        Ok(())
    }

    /// What came of it, in words.
    async fn roll_back(
        &mut self,
        watch: &Watched,
        called: &Called,
        objection: Option<&str>,
    ) -> Result<String, StoreError> {
        let Watched { model, alias, run, .. } = watch;
        let held = HeldAlias::lock(&mut self.tx, model, alias).await?;
        let Some(held) = held.filter(|held| held.promotion == Some(watch.promotion)) else {
            return Ok(format!("{alias} of {model} had moved on already from what {run} promoted"));
        };
        let (EventRef { source, id }, kind) = (&called.named, &called.kind);
        let after = show_duration(called.at.since(watch.since));
        let objection = objection.map(|objection| format!(": {objection}")).unwrap_or_default();
        let reason = format!("{kind} {id} of {source} came {after} after the promotion by {run}{objection}");
        let by = format!("watch of {run}");
        let because =
            Because { by: &by, reason: Some(&reason), event: Some(&called.named), ..Because::default() };
        let store = self.store.clone();
        match store.roll_back_in(&mut self.tx, held, None, because).await? {
            Some((view, hints)) => {
                self.hints = self.hints.and(hints);
                let from = view.from.unwrap_or_default();
                Ok(format!("{alias} of {model} went from {from}, promoted by {run}, back to {}", view.to))
            }
            None => {
                let end = sql(END).bind(watch.seq).bind("stuck").bind(self.now.as_millis());
                self.tx.execute(end).await?;
                tracing::warn!(model, alias, %run, reason, "there is no version to go back to");
                Ok(format!(
                    "{alias} of {model} stays: there was no version before the one that {run} promoted"
                ))
            }
        }
    }

    /// Ends a watch whose time was over when everything received until then could be seen, unless events that came in its time
    /// are still to be routed.
    async fn end_watch(&mut self, watch: i64, seen_until: Timestamp) -> Result<(), StoreError> {
        let due = sql(DUE).bind(watch).bind(seen_until.as_millis());
        let Some(row) = self.tx.first(due).await? else { return Ok(()) };
        let until = row.int("until")?;
        if self.oldest_unrouted().await?.is_none_or(|oldest| oldest.as_millis() > until) {
            self.tx.execute(sql(END).bind(watch).bind("held").bind(until)).await?;
        }
        Ok(())
    }
}

impl Store {
    /// Ends a watch that is due; none: somebody else holds the duty.
    pub(super) async fn end_due_watch(
        &self,
        watch: i64,
        seen_until: Timestamp,
    ) -> Result<Option<super::Hints>, StoreError> {
        self.durably(move |store| async move {
            let Some(mut round) = Round::try_begin(store).await? else { return Ok(None) };
            round.end_watch(watch, seen_until).await?;
            round.commit().await.map(Some)
        })
        .await
    }
}

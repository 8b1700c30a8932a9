//! The record as people ask for it: events with what was decided about them, listed by an index whatever is asked for,
//! and explained in sentences. Reads only, and never on the way of an event: what it costs is paid by who asks.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use refit_workflows::definition::Trigger;
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::{Gathered, Gathering, Told, nearest, sentence, trigger_ids};
use refit_workflows::wire::{ArrivalView, DecisionView, EventExplanation, EventView, NotMatched};
use serde_json::{Value, json};

use super::database::{Row, Sql, Transaction, sql};
use super::workflows::CurrentWorkflow;
use super::{EventFilter, Store, StoreError};

/// The most a listing gives.
const LIMIT_MAX: i64 = 1000;
/// How many events with data are read at once.
const PAGE: i64 = 50;
/// The most bytes of events that a page with their data gives, unless the first few alone weigh more.
const EVENTS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most decisions that a page of events gives; with so many, later ones may be missing.
pub(crate) const DECISIONS_MAX: usize = 20_000;
/// The most workflows of which is told why an event does not match them.
const NOT_MATCHED_MAX: usize = 20;
/// The most lines that say how a run's events came.
const ARRIVALS_MAX: i64 = 1000;
/// By how much events may stand in the log in another order than they were received: transactions overtake one another,
/// and clocks differ.
const DISORDER: Duration = Duration::from_secs(600);

/// A listing, driven by an index that is in the listing's order; all that is asked for is checked of each event.
macro_rules! listing {
    ($from:literal, $seq:literal, $order:literal) => {
        concat!(
            "SELECT e.seq, e.received_at, e.duplicates, e.duplicate_at, e.body ",
            $from,
            " AND ",
            $seq,
            " > $1 AND ",
            $seq,
            " < $2 AND ($3 = '' OR e.type = $3) AND ($4 = '' OR e.source = $4) AND ($5 = '' OR e.subject = $5)
            AND e.received_at >= $6
            AND ($7 = 0 OR (e.source <> '/refit' AND substr(e.source, 1, 7) <> '/refit/'))
            AND ($8 = 0 OR e.duplicates > 0)
            AND (($9 = '' AND $10 = '') OR EXISTS (SELECT 1 FROM decisions x WHERE x.event = e.seq
                AND ($9 = '' OR x.decision = $9) AND ($10 = '' OR x.workflow = $10)))
            AND ($11 = 0 OR EXISTS (SELECT 1 FROM run_events y WHERE y.run = $11 AND y.event = e.seq))
            AND ($12 = 0 OR NOT EXISTS (SELECT 1 FROM decisions z WHERE z.event = e.seq AND z.run IS NOT NULL))
            ORDER BY ",
            $seq,
            $order,
            " LIMIT $13"
        )
    };
}

/// The two orders of a listing that one index drives.
struct Listing {
    newest: &'static str,
    oldest: &'static str,
}

macro_rules! by {
    ($from:literal, $seq:literal) => {
        Listing { newest: listing!($from, $seq, " DESC"), oldest: listing!($from, $seq, "") }
    };
}

const ALL: Listing = by!("FROM events e WHERE true", "e.seq");
const DUPLICATED: Listing = by!("FROM events e WHERE e.duplicates > 0", "e.seq");
const OF_TYPE: Listing = by!("FROM events e WHERE e.type = $3", "e.seq");
const OF_SOURCE: Listing = by!("FROM events e WHERE e.source = $4", "e.seq");
const OF_SUBJECT: Listing = by!("FROM events e WHERE e.subject = $5", "e.seq");
const OF_RUN: Listing =
    by!("FROM run_events d CROSS JOIN events e WHERE d.run = $11 AND e.seq = d.event", "d.event");
// An event with several such decisions is listed by the first of them.
const DECIDED: Listing = by!(
    "FROM decisions d CROSS JOIN events e WHERE d.decision = $9 AND e.seq = d.event
        AND NOT EXISTS (SELECT 1 FROM decisions o
            WHERE o.event = d.event AND o.decision = $9 AND o.seq < d.seq)",
    "d.event"
);
const OF_WORKFLOW: Listing = by!(
    "FROM decisions d CROSS JOIN events e WHERE d.workflow = $10 AND e.seq = d.event
        AND NOT EXISTS (SELECT 1 FROM decisions o
            WHERE o.event = d.event AND o.workflow = $10 AND o.seq < d.seq)",
    "d.event"
);
const LAST_BEFORE: &str = "SELECT seq FROM events WHERE received_at < $1 ORDER BY received_at DESC LIMIT 1";
const RUN_ROW: &str = "SELECT id FROM runs WHERE workflow = $1 AND number = $2";
const EVENT: &str = "SELECT e.seq, e.received_at, e.duplicates, e.duplicate_at, e.body FROM events e
    WHERE e.id = $1 AND ($2 = '' OR e.source = $2) ORDER BY e.seq LIMIT 100";
/// The decisions about several events, each event's in order.
const DECISIONS: Sql = Sql {
    sqlite: "SELECT d.event, d.workflow, d.trigger_index, d.decision, d.reason, d.batch, d.at, d.replay,
            p.asked_by AS replayed_by, r.workflow AS run_workflow, r.number AS run_number
        FROM decisions d LEFT JOIN runs r ON r.id = d.run LEFT JOIN replays p ON p.seq = d.replay
        WHERE d.event IN (SELECT value FROM json_each($1)) ORDER BY d.seq LIMIT $2",
    postgres: "SELECT d.event, d.workflow, d.trigger_index, d.decision, d.reason, d.batch, d.at, d.replay,
            p.asked_by AS replayed_by, r.workflow AS run_workflow, r.number AS run_number
        FROM decisions d LEFT JOIN runs r ON r.id = d.run LEFT JOIN replays p ON p.seq = d.replay
        WHERE d.event IN (SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text($1::jsonb))
        ORDER BY d.seq LIMIT $2",
};
const BATCHES: Sql = Sql {
    sqlite: "SELECT seq, workflow, trigger_id, batch_key, open, body FROM batches
        WHERE seq IN (SELECT value FROM json_each($1))",
    postgres: "SELECT seq, workflow, trigger_id, batch_key, open, body FROM batches
        WHERE seq IN (SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text($1::jsonb))",
};
const ARRIVALS: &str = "SELECT a.*, f.id AS first_id, l.id AS last_id FROM
    (SELECT d.batch, d.trigger_index, d.decision,
            CASE WHEN d.decision IN ('coalesced', 'queued') THEN d.reason END AS because,
            CAST(CASE WHEN d.decision = 'coalesced' AND d.trigger_index IS NULL AND EXISTS
                (SELECT 1 FROM decisions p WHERE p.event = d.event AND p.workflow = d.workflow AND p.seq < d.seq)
                THEN 1 ELSE 0 END AS BIGINT) AS inherited,
            COUNT(*) AS events, MIN(d.event) AS first_event, MAX(d.event) AS last_event,
            MIN(d.at) AS first_at, MAX(d.at) AS last_at, MIN(d.seq) AS place
        FROM run_events r CROSS JOIN decisions d WHERE r.run = $1 AND d.event = r.event AND d.run = r.run
        GROUP BY 1, 2, 3, 4, 5 ORDER BY place LIMIT $2) AS a
    JOIN events f ON f.seq = a.first_event JOIN events l ON l.seq = a.last_event ORDER BY a.place";

impl Store {
    /// Events with what became of them.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<EventView>, StoreError> {
        self.durably(move |store| {
            let filter = filter.clone();
            async move {
                let mut tx = store.database().read().await?;
                let rows = event_rows(&mut tx, &filter).await?;
                event_views(&mut tx, &rows, filter.data).await
            }
        })
        .await
    }

    /// The events with this id, of one source or of all.
    pub async fn event(&self, id: &str, source: Option<&str>) -> Result<Vec<EventView>, StoreError> {
        let (id, source) = (id.to_owned(), source.unwrap_or_default().to_owned());
        self.durably(move |store| {
            let (id, source) = (id.clone(), source.clone());
            async move {
                let mut tx = store.database().read().await?;
                let rows = tx.all(sql(EVENT).bind(&id).bind(&source)).await?;
                event_views(&mut tx, &rows, true).await
            }
        })
        .await
    }

    /// The events with this id, of one source or of all, with what was decided in sentences. Where nothing matched, why
    /// not, workflow by workflow; of one workflow, if it is asked about.
    pub async fn explain_event(
        &self,
        id: &str,
        source: Option<&str>,
        workflow: Option<&str>,
    ) -> Result<Vec<EventExplanation>, StoreError> {
        let (id, source) = (id.to_owned(), source.unwrap_or_default().to_owned());
        let asked = workflow.map(str::to_owned);
        self.durably(move |store| {
            let (id, source, asked) = (id.clone(), source.clone(), asked.clone());
            async move {
                let mut tx = store.database().read().await?;
                let rows = tx.all(sql(EVENT).bind(&id).bind(&source)).await?;
                let views = event_views(&mut tx, &rows, true).await?;
                let current = store.current_workflows(&mut tx).await?;
                let batches = batches_of(&mut tx, &views).await?;
                let mut explained = Vec::new();
                for (view, row) in views.into_iter().zip(&rows) {
                    let explanation = explain(&view, &current, &batches);
                    let event: CloudEvent = row.json("body")?;
                    let (not_matched, not_listed) = not_matched(&view, &event, &current, asked.as_deref());
                    explained.push(EventExplanation { event: view, explanation, not_matched, not_listed });
                }
                Ok(explained)
            }
        })
        .await
    }
}

/// The listing whose index leaves the fewest events to look at.
fn listing_for(filter: &EventFilter, run: Option<i64>) -> Listing {
    match filter {
        _ if run.is_some() => OF_RUN,
        EventFilter { subject: Some(_), .. } => OF_SUBJECT,
        EventFilter { kind: Some(_), .. } => OF_TYPE,
        EventFilter { workflow: Some(_), .. } => OF_WORKFLOW,
        EventFilter { decision: Some(decision), .. } if decision == DUPLICATE => DUPLICATED,
        EventFilter { decision: Some(_), .. } | EventFilter { unmatched: true, .. } => DECIDED,
        EventFilter { source: Some(_), .. } => OF_SOURCE,
        EventFilter { .. } => ALL,
    }
}

/// The decision that is counted with the event, and is no row of its own.
const DUPLICATE: &str = "duplicate";

/// The rows of a listing. With data it is read piece by piece, so that a page is never much heavier than its bound.
async fn event_rows(tx: &mut Transaction, filter: &EventFilter) -> Result<Vec<Row>, StoreError> {
    let run = match &filter.run {
        None => None,
        Some(run) => match tx.first(sql(RUN_ROW).bind(&run.workflow).bind(run.number)).await? {
            Some(row) => Some(row.int("id")?),
            None => return Ok(Vec::new()),
        },
    };
    let (mut low, mut high) = (i64::MIN, i64::MAX);
    // Whatever was received since stands behind one that was received so much earlier.
    if let Some(since) = filter.since
        && let Some(row) = tx.first(sql(LAST_BEFORE).bind(since.minus(DISORDER).as_millis())).await?
    {
        low = row.int("seq")?;
    }
    let listing = listing_for(filter, run);
    let list = if filter.oldest_first { listing.oldest } else { listing.newest };
    let limit = filter.limit.clamp(1, LIMIT_MAX);
    let piece = if filter.data { PAGE } else { limit };
    let (mut rows, mut bytes, mut after) = (Vec::new(), 0, filter.after);
    let duplicated = filter.decision.as_deref() == Some(DUPLICATE);
    let decision = match filter.decision.as_deref() {
        Some(decision) if !duplicated => decision,
        None if filter.unmatched => "unmatched",
        Some(_) | None => "",
    };
    while bytes < EVENTS_BYTES_MAX {
        match after {
            Some(after) if filter.oldest_first => low = low.max(after),
            Some(after) => high = after,
            None => {}
        }
        let most = piece.min(limit - rows.len() as i64);
        let list = sql(list)
            .bind(low)
            .bind(high)
            .bind(filter.kind.as_deref().unwrap_or_default())
            .bind(filter.source.as_deref().unwrap_or_default())
            .bind(filter.subject.as_deref().unwrap_or_default())
            .bind(filter.since.map_or(i64::MIN, Timestamp::as_millis))
            .bind(i64::from(filter.outside))
            .bind(i64::from(duplicated))
            .bind(decision)
            .bind(filter.workflow.as_deref().unwrap_or_default())
            .bind(run.unwrap_or_default())
            .bind(i64::from(filter.unmatched))
            .bind(most);
        let read = tx.all(list).await?;
        let last = (read.len() as i64) < most;
        for row in read {
            after = Some(row.int("seq")?);
            bytes += row.text("body")?.len();
            rows.push(row);
        }
        if last || rows.len() as i64 >= limit {
            break;
        }
    }
    Ok(rows)
}

async fn event_views(tx: &mut Transaction, rows: &[Row], data: bool) -> Result<Vec<EventView>, StoreError> {
    let seqs = rows.iter().map(|row| row.int("seq")).collect::<Result<Vec<_>, _>>()?;
    let mut decided: BTreeMap<i64, Vec<DecisionView>> = BTreeMap::new();
    let decisions = sql(DECISIONS).bind(json!(seqs).to_string()).bind(DECISIONS_MAX as i64);
    for row in tx.all(decisions).await? {
        decided.entry(row.int("event")?).or_default().push(decision_view(&row)?);
    }
    let mut views = Vec::new();
    for row in rows {
        let event: CloudEvent = row.json("body")?;
        let received_at = Timestamp::from_millis(row.int("received_at")?);
        let seq = row.int("seq")?;
        let mut decisions = decided.remove(&seq).unwrap_or_default();
        decisions.extend(duplicate(row, received_at)?);
        views.push(EventView {
            seq,
            id: event.id().to_owned(),
            source: event.source().to_owned(),
            kind: event.kind().to_owned(),
            subject: event.subject().map(str::to_owned),
            time: event.time(),
            received_at,
            data: event.attributes().get("data").filter(|_| data).cloned(),
            attributes: data.then(|| other_attributes(&event)),
            decisions,
        });
    }
    Ok(views)
}

/// What is said of further deliveries: they are counted with the event, however many they are.
fn duplicate(row: &Row, received_at: Timestamp) -> Result<Option<DecisionView>, StoreError> {
    let times = match row.int("duplicates")? {
        0 => return Ok(None),
        1 => "once".to_owned(),
        again => format!("{again} times"),
    };
    let at = row.opt_int("duplicate_at")?.map_or(received_at, Timestamp::from_millis);
    let reason = format!("delivered {times} more, which changed nothing");
    Ok(Some(DecisionView {
        workflow: String::new(),
        trigger: None,
        decision: DUPLICATE.to_owned(),
        reason: Some(reason),
        run: None,
        batch: None,
        at,
        replay: None,
        replayed_by: None,
    }))
}

/// The attributes that a view of the event does not give by themselves.
fn other_attributes(event: &CloudEvent) -> serde_json::Map<String, Value> {
    let given = ["id", "source", "type", "subject", "data"];
    let others = event.attributes().iter().filter(|(name, _)| !given.contains(&name.as_str()));
    others.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn decision_view(row: &Row) -> Result<DecisionView, StoreError> {
    let run = match row.opt_text("run_workflow")? {
        Some(workflow) => Some(RunName::new(workflow, row.int("run_number")?)),
        None => None,
    };
    Ok(DecisionView {
        workflow: row.text("workflow")?,
        trigger: row.opt_int("trigger_index")?,
        decision: row.text("decision")?,
        reason: row.opt_text("reason")?,
        run,
        batch: row.opt_int("batch")?,
        at: Timestamp::from_millis(row.int("at")?),
        replay: row.opt_int("replay")?,
        replayed_by: row.opt_text("replayed_by")?,
    })
}

/// A batch or join, open or over.
struct BatchRow {
    workflow: String,
    trigger_id: String,
    key: String,
    open: bool,
    gathering: Gathering,
}

async fn batches_of(tx: &mut Transaction, views: &[EventView]) -> Result<HashMap<i64, BatchRow>, StoreError> {
    let numbers: Vec<i64> =
        views.iter().flat_map(|view| &view.decisions).filter_map(|decision| decision.batch).collect();
    let mut batches = HashMap::new();
    if numbers.is_empty() {
        return Ok(batches);
    }
    for row in tx.all(sql(BATCHES).bind(json!(numbers).to_string())).await? {
        let batch = BatchRow {
            workflow: row.text("workflow")?,
            trigger_id: row.text("trigger_id")?,
            key: row.text("batch_key")?,
            open: row.int("open")? == 1,
            gathering: row.json("body")?,
        };
        batches.insert(row.int("seq")?, batch);
    }
    Ok(batches)
}

/// The decisions about an event in sentences.
fn explain(event: &EventView, current: &[CurrentWorkflow], batches: &HashMap<i64, BatchRow>) -> Vec<String> {
    let sentences = event.decisions.iter().enumerate().map(|(place, decision)| {
        let before = event.decisions.iter().take(place).any(|earlier| earlier.workflow == decision.workflow);
        let told = told(decision, before, current, batches);
        let sentence = sentence(decision, &Told { received_at: event.received_at, ..told });
        match (decision.replay, &decision.replayed_by) {
            (Some(replay), Some(by)) => format!("In replay {replay}, asked for by {by}: {sentence}"),
            (Some(replay), None) => format!("In replay {replay}: {sentence}"),
            (None, _) => sentence,
        }
    });
    sentences.collect()
}

/// What there is to tell about a decision, as far as the workflow is still what it was then; `before`: another was made
/// for the same workflow.
fn told(
    decision: &DecisionView,
    before: bool,
    current: &[CurrentWorkflow],
    batches: &HashMap<i64, BatchRow>,
) -> Told {
    let workflow = current.iter().find(|it| it.workflow.name == decision.workflow);
    let unchanged = workflow.filter(|it| it.applied_at <= decision.at);
    let trigger = unchanged.and_then(|it| {
        let place = usize::try_from(decision.trigger?).ok()?;
        it.workflow.triggers.get(place).map(Trigger::words)
    });
    let gathers = matches!(decision.decision.as_str(), "batched" | "joined");
    let batch = decision.batch.and_then(|number| Some((number, batches.get(&number)?)));
    let gathered = batch.filter(|_| gathers).map(|(number, batch)| gathered(number, batch, current));
    let inherited = before && decision.trigger.is_none();
    let gathered_before = decision.batch.is_some() && !gathers;
    Told { trigger, gathered_before, inherited, gathered, ..Told::default() }
}

fn gathered(number: i64, batch: &BatchRow, current: &[CurrentWorkflow]) -> Gathered {
    let workflow = current.iter().find(|it| it.workflow.name == batch.workflow).filter(|_| batch.open);
    let trigger = workflow.and_then(|it| {
        let place = trigger_ids(&it.workflow).iter().position(|known| *known == batch.trigger_id)?;
        it.workflow.triggers.get(place)
    });
    Gathered {
        number,
        key: batch.key.clone(),
        count: batch.gathering.count,
        waits_for: trigger.map(|trigger| trigger.waits_for(&batch.gathering)),
        held_since: workflow.and_then(|it| it.paused.as_ref()).map(|paused| paused.at),
    }
}

/// Why workflows have nothing to do with an event that matched nothing, or the one that is asked about; and how many more
/// there are.
fn not_matched(
    view: &EventView,
    event: &CloudEvent,
    current: &[CurrentWorkflow],
    asked: Option<&str>,
) -> (Vec<NotMatched>, u64) {
    // A replay for one workflow names it where no pattern of it matches; a `where` that is false names its trigger too.
    let no_pattern = |it: &DecisionView| it.decision == "unmatched" && it.trigger.is_none();
    let nothing = view.decisions.iter().any(|it| no_pattern(it) && it.workflow.is_empty());
    let wanted = |name: &str| match asked {
        Some(asked) => name == asked && view.decisions.iter().all(|it| it.workflow != name || no_pattern(it)),
        None => nothing,
    };
    let object = Value::Object(event.attributes().clone());
    let mut found: Vec<(f64, NotMatched)> = Vec::new();
    for it in current.iter().filter(|it| wanted(&it.workflow.name)) {
        let workflow = it.workflow.name.clone();
        let Some(near) = nearest(&it.workflow, &object) else {
            if asked.is_some() {
                let reason = "no trigger of it is about events: people and schedules start it".to_owned();
                found.push((0.0, NotMatched { workflow, trigger: None, part: None, path: None, reason }));
            }
            continue;
        };
        let place = match near.part {
            Some(part) => format!("trigger {}, part {} ({})", near.trigger + 1, part + 1, near.words),
            None => format!("trigger {} ({})", near.trigger + 1, near.words),
        };
        let reason = match &near.mismatch {
            Some(miss) => format!("{place}: {miss}"),
            None => format!("{place} would match it now: the workflow was applied at {}", it.applied_at),
        };
        let not = NotMatched {
            workflow,
            trigger: Some(near.trigger as i64),
            part: near.part.map(|part| part as i64),
            path: near.mismatch.as_ref().map(|miss| miss.path.join(".")),
            reason,
        };
        found.push((near.share(), not));
    }
    found.sort_by(|(one, a), (other, b)| other.total_cmp(one).then_with(|| a.workflow.cmp(&b.workflow)));
    let more = found.len().saturating_sub(NOT_MATCHED_MAX) as u64;
    (found.into_iter().take(NOT_MATCHED_MAX).map(|(_, not)| not).collect(), more)
}

/// How the events of a run came, oldest first: what was decided about them together is one line.
pub(super) async fn arrivals_in(tx: &mut Transaction, run: i64) -> Result<Vec<ArrivalView>, StoreError> {
    let mut arrivals: Vec<ArrivalView> = Vec::new();
    for row in tx.all(sql(ARRIVALS).bind(run).bind(ARRIVALS_MAX)).await? {
        let found = ArrivalView {
            decisions: vec![row.text("decision")?],
            trigger: row.opt_int("trigger_index")?,
            batch: row.opt_int("batch")?,
            reason: row.opt_text("because")?,
            inherited: row.int("inherited")? == 1,
            count: row.int("events")?,
            first: row.text("first_id")?,
            last: row.text("last_id")?,
            from: Timestamp::from_millis(row.int("first_at")?),
            to: Timestamp::from_millis(row.int("last_at")?),
        };
        // Of a batch, what was decided when it was over is about the same events.
        match arrivals.iter_mut().find(|it| it.batch.is_some() && it.batch == found.batch) {
            Some(same) => {
                same.decisions.extend(found.decisions);
                same.reason = same.reason.take().or(found.reason);
                same.to = same.to.max(found.to);
            }
            None => arrivals.push(found),
        }
    }
    Ok(arrivals)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use refit_workflows::definition::Workflow;
    use refit_workflows::digest::Digest;

    use super::*;

    #[test]
    fn a_sentence_names_the_replay_it_is_about_and_who_asked_for_it() {
        let decision = |more: Value| {
            let mut decision = json!({"workflow": "w", "trigger": null, "decision": "unmatched", "reason": null,
                "run": null, "at": "2026-01-05T08:00:00Z"});
            decision.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            decision
        };
        let view = json!({"id": "1", "source": "/s", "type": "t", "subject": null, "time": null,
        "received_at": "2026-01-05T08:00:00Z", "decisions": [
            decision(json!({})),
            decision(json!({"replay": 3, "replayed_by": "ada"})),
            // Of a replay that is kept no longer, there is only the number.
            decision(json!({"replay": 4})),
        ]});
        let told = explain(&serde_json::from_value(view).unwrap(), &[], &HashMap::new());
        let [delivered, asked, forgotten] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(*asked, format!("In replay 3, asked for by ada: {delivered}"));
        assert_eq!(*forgotten, format!("In replay 4: {delivered}"));
        assert!(!delivered.contains("replay"), "{delivered}");
    }

    #[test]
    fn a_workflow_asked_about_is_told_unless_a_trigger_of_it_decided() {
        let text = "workflow: w\non: [{ event: { type: [t] } }]\nsteps: { a: { run: [x] } }\n";
        let current = [CurrentWorkflow {
            digest: Digest::of(text.as_bytes()),
            bundle: None,
            workflow: Arc::new(Workflow::parse(text).unwrap()),
            applied_at: Timestamp::from_millis(0),
            paused: None,
        }];
        let event = CloudEvent::parse(json!({"id": "1", "source": "/s", "type": "other"})).unwrap();
        let told = |decisions: Value, asked: Option<&str>| {
            let view = json!({"id": "1", "source": "/s", "type": "other", "subject": null, "time": null,
                "received_at": "2026-01-05T08:00:00Z", "decisions": decisions});
            let (told, _) = not_matched(&serde_json::from_value(view).unwrap(), &event, &current, asked);
            told.into_iter().map(|not| not.path.unwrap_or_default()).collect::<Vec<_>>()
        };
        let decision = |workflow: &str, trigger: Option<i64>, decision: &str| {
            json!({"workflow": workflow, "trigger": trigger, "decision": decision, "reason": null, "run": null,
                "at": "2026-01-05T08:00:00Z"})
        };
        let nowhere = decision("", None, "unmatched");
        let replayed = decision("w", None, "unmatched");
        assert_eq!(told(json!([nowhere]), Some("w")), ["type"]);
        assert_eq!(told(json!([nowhere, replayed]), Some("w")), ["type"], "a replay for it alone");
        assert_eq!(told(json!([nowhere, replayed]), None), ["type"]);
        assert_eq!(told(json!([replayed]), None), [""; 0], "of others nothing is known");
        for decided in [decision("w", Some(0), "unmatched"), decision("w", Some(0), "started")] {
            assert_eq!(told(json!([decided]), Some("w")), [""; 0], "{decided}");
        }
    }
}

//! Runs that steps of other runs ask for. The question is written down with the step that asks; everything after it is
//! a transaction of its own that can be repeated: the run is created, the parent is told, the end is told.
//!
//! Locks: the `trigger` duty, a run's row, and a row of `children` last. No transaction holds the rows of a parent and
//! of its child. Must never happen here: two children of one question.

use std::collections::BTreeMap;

use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::run::{ChildOrder, Ending, Input, Run, RunFacts, RunHead, RunState};
use refit_workflows::trigger::BatchFacts;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::database::{Row, Sql, Transaction, sql};
use super::dispatch::{Dispatched, Next, Origin, Round};
use super::lanes::LaneName;
use super::launch::{Launch, Launched};
use super::turn::Turn;
use super::{ChangeError, Hints, Store, StoreError, to_json};

const ASK: &str = "INSERT INTO children (parent, position, epoch, phase, cancelled, due, tried, body)
    VALUES ($1, $2, $3, 'asked', 0, 1, 0, $4)";
const CANCEL: &str =
    "UPDATE children SET cancelled = 1, due = 1 WHERE parent = $1 AND position = $2 AND epoch = $3";
const OVER: &str =
    "UPDATE children SET phase = 'over', due = 1, result = $2 WHERE child = $1 AND phase <> 'over'";
const FOLLOW: &str = "UPDATE children SET phase = 'created', due = 1,
        child = (SELECT id FROM runs WHERE workflow = $2 AND number = $3)
    WHERE child = $1 AND phase <> 'over'";
const DUE: &str = "SELECT seq, phase, cancelled FROM children WHERE due = 1 ORDER BY tried, seq LIMIT $1";
const TRIED: &str = "UPDATE children SET tried = tried + 1 WHERE seq = $1";
const ASKED: &str = "SELECT parent, body FROM children WHERE seq = $1 AND phase = 'asked' AND cancelled = 0";
const CREATED: &str = "UPDATE children SET phase = 'created', child = $2 WHERE seq = $1 AND phase = 'asked'";
const SIDES: &str = "SELECT parent, child FROM children WHERE seq = $1";
const LOCKED: Sql = Sql {
    sqlite: "SELECT position, epoch, phase, cancelled, child, result FROM children WHERE seq = $1",
    postgres: "SELECT position, epoch, phase, cancelled, child, result FROM children WHERE seq = $1 FOR UPDATE",
};
const TOLD: &str = "UPDATE children SET phase = 'told', due = cancelled WHERE seq = $1 AND phase = 'created'";
const CANCEL_SENT: &str = "UPDATE children
    SET cancelled = 0, due = CASE WHEN phase = 'told' THEN 0 ELSE 1 END WHERE seq = $1";
const FORGET: &str = "DELETE FROM children WHERE seq = $1";
const NEW_RUN: &str = "SELECT id FROM runs WHERE workflow = $1 AND number = $2";
const FACTS: &str = "SELECT facts FROM runs WHERE workflow = $1 AND number = $2";
const RUN_BY_ID: &str = "SELECT workflow, number, state, facts, head FROM runs WHERE id = $1";

/// How many questions one look takes up.
const LOOK_MAX: i64 = 100;

/// The most runs that are named of those that would wait for each other.
const NAMED_MAX: usize = 8;

/// How a child ended, kept until its parent knows: a retry of the child changes nothing about it.
#[derive(Serialize, Deserialize)]
struct ChildResult {
    ending: Ending,
    outputs: BTreeMap<String, Value>,
}

/// What is to be done about a question.
enum Todo {
    Create,
    EndChild,
    Tell(Option<String>),
}

/// Whether a child could be created.
enum Creation {
    Done(Hints),
    Refused(String),
}

impl Store {
    /// Writes a question down, in the transaction of the run that asks.
    pub(super) async fn ask_in(
        &self,
        tx: &mut Transaction,
        parent: i64,
        order: &ChildOrder,
    ) -> Result<Hints, StoreError> {
        let ask = sql(ASK).bind(parent).bind(order.step as i64).bind(order.epoch).bind(to_json(order)?);
        tx.execute(ask).await?;
        Ok(Hints { children: true, ..Hints::default() })
    }

    /// Writes down that a run wants the child it asked for to end.
    pub(super) async fn cancel_child_in(
        &self,
        tx: &mut Transaction,
        parent: i64,
        step: usize,
        epoch: i64,
    ) -> Result<Hints, StoreError> {
        tx.execute(sql(CANCEL).bind(parent).bind(step as i64).bind(epoch)).await?;
        Ok(Hints { children: true, ..Hints::default() })
    }

    /// Writes down how a run ended for those who asked for it, in the transaction that ends it. One that went into
    /// another run is followed there.
    pub(super) async fn over_in(
        &self,
        tx: &mut Transaction,
        id: i64,
        run: &Run,
    ) -> Result<Hints, StoreError> {
        let RunState::Over { ending, .. } = &run.head().state else { return Ok(Hints::default()) };
        let told = match ending {
            Ending::Coalesced { into } => sql(FOLLOW).bind(id).bind(&into.workflow).bind(into.number),
            Ending::Succeeded
            | Ending::Rejected { .. }
            | Ending::Failed { .. }
            | Ending::Cancelled { .. } => sql(OVER).bind(id).bind(result_of(ending, run.head())?),
        };
        let children = tx.execute(told).await? > 0;
        Ok(Hints { children, ..Hints::default() })
    }

    /// Does what is due about children. Each is a transaction of its own, so that one that cannot be done never holds
    /// up the others.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nothing can be done at present.
    pub async fn follow_children(&self) -> Result<Dispatched, StoreError> {
        let due: Vec<(i64, Todo)> = self
            .durably::<_, StoreError, _, _>(|store| async move {
                let database = store.database();
                database
                    .all(sql(DUE).bind(LOOK_MAX))
                    .await?
                    .iter()
                    .map(|row| Ok((row.int("seq")?, todo(row)?)))
                    .collect()
            })
            .await?;
        let next = if due.len() as i64 == LOOK_MAX { Next::More } else { Next::Idle(None) };
        let mut dispatched = Dispatched { next, ..Dispatched::default() };
        for (seq, todo) in due {
            match self.follow(seq, todo).await {
                Ok(hints) => dispatched.hints = dispatched.hints.and(hints),
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                Err(error) => {
                    tracing::error!(seq, %error, "failed to follow a run that another run asked for");
                    self.tried(seq).await?;
                    dispatched.trouble = Some(error);
                }
            }
        }
        Ok(dispatched)
    }

    async fn follow(&self, seq: i64, todo: Todo) -> Result<Hints, StoreError> {
        match todo {
            Todo::Create => match self.create_child(seq).await? {
                Creation::Done(hints) => Ok(hints),
                Creation::Refused(reason) => self.tell_parent(seq, Some(reason)).await,
            },
            Todo::EndChild => self.end_child(seq).await,
            Todo::Tell(refusal) => self.tell_parent(seq, refusal).await,
        }
    }

    /// What cannot be done goes to the end of the line.
    async fn tried(&self, seq: i64) -> Result<(), StoreError> {
        self.durably(move |store| async move {
            let mut tx = store.database().begin().await?;
            tx.execute(sql(TRIED).bind(seq)).await?;
            tx.commit().await
        })
        .await
    }

    /// Creates a child the way a run is started by hand: with an event that names who asked.
    async fn create_child(&self, seq: i64) -> Result<Creation, StoreError> {
        let created = self
            .durably::<_, ChangeError, _, _>(move |store| async move {
                let mut round = Round::begin(store).await?;
                let Some(row) = round.tx.first(sql(ASKED).bind(seq)).await? else {
                    return Ok(Hints::default());
                };
                let order: ChildOrder = row.json("body")?;
                let child = round.create_child(row.int("parent")?, order).await?;
                round.tx.execute(sql(CREATED).bind(seq).bind(child)).await?;
                // A run that needs no worker may be over already, before anybody could have asked for it.
                let head = round.hold(child).await?.run.head().clone();
                if let RunState::Over { ending, .. } = &head.state {
                    round.tx.execute(sql(OVER).bind(child).bind(result_of(ending, &head)?)).await?;
                }
                let hints = round.commit().await?;
                Ok(hints.and(Hints { children: true, ..Hints::default() }))
            })
            .await;
        match created {
            Ok(hints) => Ok(Creation::Done(hints)),
            Err(ChangeError::Store(error)) => Err(error),
            Err(ChangeError::NotFound(what)) => Ok(Creation::Refused(format!("there is no {what}"))),
            Err(other @ (ChangeError::Refused(_) | ChangeError::Invalid(_))) => {
                Ok(Creation::Refused(other.to_string()))
            }
        }
    }

    /// Tells the parent what there is to tell: that its child is there, how it ended, or that there will be none.
    async fn tell_parent(&self, seq: i64, refusal: Option<String>) -> Result<Hints, StoreError> {
        self.durably(move |store| {
            let refusal = refusal.clone();
            async move {
                let mut turn = Turn::begin(store).await?;
                let Some(sides) = turn.tx.first(sql(SIDES).bind(seq)).await? else {
                    return Ok(Hints::default());
                };
                let parent = sides.int("parent")?;
                turn.hold(parent).await.map_err(ChangeError::into_store)?;
                let told = match turn.tx.first(sql(LOCKED).bind(seq)).await? {
                    Some(row) => answer(&mut turn.tx, &row, refusal).await?,
                    None => None,
                };
                let mut hints = Hints::default();
                if let Some(input) = told {
                    let again = matches!(input, Input::ChildStarted { .. });
                    let told = turn.apply_unless_refused(parent, input).await?;
                    // A step that refuses it waits for this child no longer.
                    let note = if again && told.is_some() { sql(TOLD) } else { sql(FORGET) };
                    turn.execute(note.bind(seq)).await?;
                    hints = told.unwrap_or_default();
                }
                turn.commit().await?;
                Ok(hints)
            }
        })
        .await
    }

    /// Ends a child whose parent is being cancelled. One that stands for others too goes on; the parent is told so.
    async fn end_child(&self, seq: i64) -> Result<Hints, StoreError> {
        let shared = self
            .durably::<_, StoreError, _, _>(move |store| async move {
                let mut turn = Turn::begin(store).await?;
                let sides = turn.tx.first(sql(SIDES).bind(seq)).await?;
                let Some(child) = sides.map(|row| row.opt_int("child")).transpose()?.flatten() else {
                    return Ok(Ok(Hints::default()));
                };
                let facts = turn.hold(child).await.map_err(ChangeError::into_store)?.facts().clone();
                let row = turn.tx.first(sql(LOCKED).bind(seq)).await?;
                let still = match &row {
                    Some(row) => row.opt_int("child")? == Some(child) && row.int("cancelled")? == 1,
                    None => false,
                };
                let mut done = Ok(Hints::default());
                if still {
                    let alone = facts.coalesced.is_empty() && facts.batch.count <= 1;
                    match &facts.parent {
                        Some(parent) if alone => {
                            let by = format!("run {}", parent.run);
                            // One that refuses is over, or somebody else ends it: its end is told all the same.
                            let told = turn.apply_unless_refused(child, Input::Cancelled { by }).await?;
                            turn.execute(sql(CANCEL_SENT).bind(seq)).await?;
                            let hints = Hints { children: true, ..Hints::default() };
                            done = Ok(hints.and(told.unwrap_or_default()));
                        }
                        Some(_) | None => done = Err(facts.name.clone()),
                    }
                }
                turn.commit().await?;
                Ok(done)
            })
            .await?;
        match shared {
            Ok(hints) => Ok(hints),
            Err(run) => {
                let reason = format!("{run} goes on, because others asked for it too");
                self.tell_parent(seq, Some(reason)).await
            }
        }
    }
}

impl Round {
    /// Creates the child that the run of this row asks for; the child's row.
    async fn create_child(&mut self, asks: i64, order: ChildOrder) -> Result<i64, ChangeError> {
        let ChildOrder { step: _, epoch, workflow, params, parent, no_cache } = order;
        let store = self.store.clone();
        let Some(current) = store.current_workflow(&mut self.tx, &workflow).await? else {
            return Err(ChangeError::NotFound(format!("workflow {workflow}")));
        };
        let id = format!("{}/{}/{epoch}", parent.run, parent.step);
        let source = format!("/refit/workflows/{}", parent.run.workflow);
        let data = json!({ "workflow": workflow, "params": params, "run": parent.run, "step": parent.step });
        let event = CloudEvent::new(&id, &source, "refit.run.requested", Some(&workflow), self.now, data);
        let event = CloudEvent::parse(Value::Object(event.attributes().clone()))
            .map_err(|wrong| ChangeError::Invalid(format!("the run cannot be asked for: {wrong}")))?;
        let params = current.workflow.resolve_params(&params).map_err(ChangeError::Invalid)?;
        let (seq, known) = store.record_in(&mut self.tx, &event, self.now).await?;
        if known {
            return Err(ChangeError::Invalid(format!("the event id {id} was used for something else")));
        }
        let object = Value::Object(event.attributes().clone());
        let (first, last) = (object.clone(), object);
        let batch = BatchFacts { key: String::new(), count: 1, sum: None, first, last };
        let words = format!("step {} of {}", parent.step, parent.run);
        let launch = Launch {
            current,
            trigger_index: None,
            trigger: words,
            params,
            batch,
            origin: Origin::Event(seq),
            parent: Some(parent.clone()),
            no_cache,
        };
        let name = match self.launch(launch).await? {
            Launched::Run(name) => name,
            Launched::Skipped(reason) => return Err(ChangeError::Invalid(reason)),
        };
        let id = self.tx.one(sql(NEW_RUN).bind(&name.workflow).bind(name.number)).await?.int("id")?;
        let child = &self.hold(id).await?.run;
        if let RunState::Waiting { .. } = child.head().state {
            let lane = LaneName { workflow, lane: child.facts().lane.clone() };
            self.must_not_wait_for(&parent.run, &lane).await?;
            if let Some(ring) = self.ring(asks, &lane).await? {
                return Err(for_ever(&lane.workflow, &ring));
            }
        }
        Ok(id)
    }

    /// A child that waits in a lane for a run that waits for the child would wait for ever; or that run would be cancelled
    /// to make room, and the child with it.
    async fn must_not_wait_for(&mut self, asks: &RunName, lane: &LaneName) -> Result<(), ChangeError> {
        let mut ring = Vec::new();
        let mut above = Some(asks.clone());
        while let Some(name) = above {
            let Some(row) = self.tx.first(sql(FACTS).bind(&name.workflow).bind(name.number)).await? else {
                return Ok(());
            };
            let facts: RunFacts = row.json("facts")?;
            ring.insert(0, name);
            if ring[0].workflow == lane.workflow && facts.lane == lane.lane {
                return Err(for_ever(&lane.workflow, &ring));
            }
            above = facts.parent.map(|parent| parent.run);
        }
        Ok(())
    }
}

/// A child of this workflow would wait for the first of these runs, each of which waits for the next, and the last for it.
fn for_ever(workflow: &str, ring: &[RunName]) -> ChangeError {
    let named: Vec<String> = ring.iter().take(NAMED_MAX).map(RunName::to_string).collect();
    let more = if ring.len() > NAMED_MAX { ", which waits for others" } else { "" };
    ChangeError::Invalid(format!(
        "a run of {workflow} would wait for {}{more}, which waits for it: give them different values of \
         `concurrency.key`, or say `on_conflict: parallel`",
        named.join(", which waits for ")
    ))
}

fn todo(row: &Row) -> Result<Todo, StoreError> {
    let (phase, cancelled) = (row.text("phase")?, row.int("cancelled")? == 1);
    Ok(match (phase.as_str(), cancelled) {
        ("asked", false) => Todo::Create,
        ("asked", true) => Todo::Tell(Some("the run it asked for had not started".to_owned())),
        ("created" | "told", true) => Todo::EndChild,
        _ => Todo::Tell(None),
    })
}

/// What the parent is to be told as things are under the lock; nothing when another orchestrator was faster.
async fn answer(
    tx: &mut Transaction,
    row: &Row,
    refusal: Option<String>,
) -> Result<Option<Input>, StoreError> {
    let step = usize::try_from(row.int("position")?).unwrap_or(usize::MAX);
    let epoch = row.int("epoch")?;
    let phase = row.text("phase")?;
    let run = match row.opt_int("child")? {
        Some(child) => {
            let row = tx.one(sql(RUN_BY_ID).bind(child)).await?;
            Some(RunName::new(row.text("workflow")?, row.int("number")?))
        }
        None => None,
    };
    Ok(match (phase.as_str(), run) {
        ("over", Some(run)) => {
            let ChildResult { ending, outputs } = row.json("result")?;
            Some(Input::ChildEnded { step, epoch, run, ending, outputs })
        }
        (_, None) => refusal.map(|reason| Input::ChildRefused { step, epoch, reason }),
        (_, Some(run)) => match refusal {
            Some(reason) if row.int("cancelled")? == 1 => Some(Input::ChildRefused { step, epoch, reason }),
            Some(_) | None if phase == "created" => Some(Input::ChildStarted { step, epoch, run }),
            Some(_) | None => None,
        },
    })
}

fn result_of(ending: &Ending, head: &RunHead) -> Result<String, StoreError> {
    to_json(&ChildResult { ending: ending.clone(), outputs: head.outputs.clone() })
}

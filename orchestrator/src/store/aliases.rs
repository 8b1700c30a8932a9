//! Moves of aliases: by a run that promotes, by hand, and back, by hand or because of an event (`watches`). Every one of them
//! goes through [`HeldAlias`]: under the lock of the model's row, from the version the alias points to then, with its line of
//! history.
//!
//! Must never happen here: an alias that moves by any other way.

use refit_workflows::digest::Digest;
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{EventRef, EvidenceRecord, HistoryView, Moved, PromoteVersion, Rollback};
use serde_json::{Value, json};

use super::database::{Sql, Transaction, sql};
use super::{Hints, IsConflict, Store, StoreError, watches};

const LOCK_MODEL: Sql = Sql {
    sqlite: "SELECT versions FROM models WHERE name = $1",
    postgres: "SELECT versions FROM models WHERE name = $1 FOR UPDATE",
};
const ALIAS: &str = "SELECT version, promotion FROM aliases WHERE model = $1 AND alias = $2";
const MOVE_ALIAS: &str = "INSERT INTO aliases (model, alias, version, promotion) VALUES ($1, $2, $3, $4)
    ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version, promotion = excluded.promotion";
const REMEMBER: &str = "INSERT INTO alias_history
    (model, alias, from_version, to_version, at, how, moved_by, run, reason, evidence, under)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING seq";
/// The promotions that the one in force replaced, each by the one before it, down to that of a version ($2; 0: any).
const GO_BACK: &str = "WITH RECURSIVE below (seq, version, under, depth) AS (
        SELECT h.seq, h.to_version, h.under, 1 FROM alias_history t JOIN alias_history h ON h.seq = t.under
            WHERE t.seq = $1
        UNION ALL
        SELECT h.seq, h.to_version, h.under, b.depth + 1 FROM below b JOIN alias_history h ON h.seq = b.under)
    SELECT seq, version FROM below WHERE $2 = 0 OR version = $2 ORDER BY depth LIMIT 1";
const GATED: &str = "SELECT v.evidence, e.body FROM versions v JOIN evidence e ON e.digest = v.evidence
    WHERE v.model = $1 AND v.version = $2";

/// Why an alias was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// There is no such thing: `model churn`, `version 9 of churn`.
    #[error("there is no {0}")]
    NotFound(String),
    /// It cannot be moved so now; nothing changed.
    #[error("{detail}")]
    Refused {
        /// A stable word for programs.
        kind: &'static str,
        /// What is in the way and what to do.
        detail: String,
    },
    /// The database did not do its part.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl IsConflict for MoveError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(StoreError::Conflict(_)))
    }
}

/// An alias whose model's row is locked: what it points to stays so until the transaction is over.
pub(super) struct HeldAlias {
    model: String,
    alias: String,
    /// How many versions the model has.
    pub(super) versions: i64,
    /// What it points to.
    pub(super) current: Option<i64>,
    /// The promotion by which that came into use.
    pub(super) promotion: Option<i64>,
}

/// Who moves an alias, and why.
#[derive(Clone, Copy, Default)]
pub(super) struct Because<'a> {
    pub(super) by: &'a str,
    /// The run's row.
    pub(super) run: Option<(i64, &'a RunName)>,
    pub(super) reason: Option<&'a str>,
    pub(super) evidence: Option<&'a Digest>,
    /// The event that asked for it.
    pub(super) event: Option<&'a EventRef>,
}

/// What an alias points to after a move.
enum Onto {
    /// A version that comes into use on top of what was in use.
    New(i64),
    /// A version as it came into use by an earlier promotion.
    Back { version: i64, promotion: i64 },
}

impl HeldAlias {
    /// Locks the model; none: there is no such model.
    pub(super) async fn lock(
        tx: &mut Transaction,
        model: &str,
        alias: &str,
    ) -> Result<Option<Self>, StoreError> {
        let Some(locked) = tx.first(sql(LOCK_MODEL).bind(model)).await? else { return Ok(None) };
        let row = tx.first(sql(ALIAS).bind(model).bind(alias)).await?;
        let (current, promotion) = match row {
            Some(row) => (Some(row.int("version")?), Some(row.int("promotion")?)),
            None => (None, None),
        };
        let (model, alias) = (model.to_owned(), alias.to_owned());
        Ok(Some(Self { model, alias, versions: locked.int("versions")?, current, promotion }))
    }

    /// Lets a version come into use.
    pub(super) async fn promote(
        self,
        tx: &mut Transaction,
        version: i64,
        how: Moved,
        because: Because<'_>,
        now: Timestamp,
    ) -> Result<(i64, HistoryView), StoreError> {
        self.move_to(tx, Onto::New(version), how, because, now).await
    }

    /// Goes back to a version, or to the one before; none: there is nothing such to go back to.
    pub(super) async fn roll_back(
        self,
        tx: &mut Transaction,
        to: Option<i64>,
        because: Because<'_>,
        now: Timestamp,
    ) -> Result<Option<(i64, HistoryView)>, StoreError> {
        let Some(promotion) = self.promotion else { return Ok(None) };
        let found = tx.first(sql(GO_BACK).bind(promotion).bind(to.unwrap_or(0))).await?;
        let Some(row) = found else { return Ok(None) };
        let onto = Onto::Back { version: row.int("version")?, promotion: row.int("seq")? };
        self.move_to(tx, onto, Moved::RolledBack, because, now).await.map(Some)
    }

    /// The one place where an alias moves. Gives the line's place in the history, and the line.
    async fn move_to(
        self,
        tx: &mut Transaction,
        onto: Onto,
        how: Moved,
        because: Because<'_>,
        now: Timestamp,
    ) -> Result<(i64, HistoryView), StoreError> {
        let Self { model, alias, versions: _, current, promotion } = self;
        let (to, under) = match onto {
            Onto::New(version) => (version, promotion),
            Onto::Back { version, .. } => (version, None),
        };
        let line = sql(REMEMBER)
            .bind(&model)
            .bind(&alias)
            .bind(current)
            .bind(to)
            .bind(now.as_millis())
            .bind(how.as_str())
            .bind(because.by)
            .bind(because.run.map(|(id, _)| id))
            .bind(because.reason)
            .bind(because.evidence.map(Digest::as_str))
            .bind(under);
        let seq = tx.one(line).await?.int("seq")?;
        let stands_on = match onto {
            Onto::New(_) => seq,
            Onto::Back { promotion, .. } => promotion,
        };
        tx.execute(sql(MOVE_ALIAS).bind(&model).bind(&alias).bind(to).bind(stands_on)).await?;
        watches::moved_in(tx, &model, &alias, now).await?;
        let view = HistoryView {
            alias,
            from: current,
            to,
            at: now,
            how,
            by: because.by.to_owned(),
            run: because.run.map(|(_, name)| name.clone()),
            reason: because.reason.map(str::to_owned),
            evidence: because.evidence.cloned(),
            mirror: None,
        };
        Ok((seq, view))
    }

    /// The alias and what it points to, in words.
    fn words(&self) -> String {
        match self.current {
            Some(version) => format!("{} of {} is version {version}", self.alias, self.model),
            None => format!("{} has no version under the alias {}", self.model, self.alias),
        }
    }

    fn must_be(&self, expect: Option<i64>) -> Result<(), MoveError> {
        match expect {
            Some(expect) if self.current.unwrap_or(0) != expect => {
                let expected = if expect == 0 { "none".to_owned() } else { format!("version {expect}") };
                let detail = format!("{}, not {expected}: look at it again first", self.words());
                Err(MoveError::Refused { kind: "alias-moved", detail })
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Store {
    /// Moves an alias to a version by hand: on a gate that passed against what the alias points to now, or else by a person's
    /// word; tells the world.
    pub async fn promote_by_hand(
        &self,
        model: &str,
        ask: PromoteVersion,
        by: &str,
    ) -> Result<(HistoryView, Hints), MoveError> {
        let (model, by) = (model.to_owned(), by.to_owned());
        self.durably(move |store| {
            let (model, ask, by) = (model.clone(), ask.clone(), by.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                let held = hold(&mut tx, &model, &ask.alias).await?;
                let gated = tx.first(sql(GATED).bind(&model).bind(ask.version)).await?;
                let row = gated
                    .ok_or_else(|| MoveError::NotFound(format!("version {} of {model}", ask.version)))?;
                held.must_be(ask.expect)?;
                if held.current == Some(ask.version) {
                    return Err(MoveError::Refused { kind: "already-there", detail: held.words() });
                }
                let evidence: Digest = row.parsed("evidence")?;
                let compared = row.json::<EvidenceRecord>("body")?.champion;
                let (how, evidence) = match compared == held.current {
                    true => (Moved::Promoted, Some(evidence)),
                    false if ask.override_gate => (Moved::Overridden, None),
                    false => return Err(not_gated(&held, ask.version, compared)),
                };
                let (reason, evidence) = (ask.reason.as_deref(), evidence.as_ref());
                let because = Because { by: &by, reason, evidence, ..Because::default() };
                let (seq, view) = held.promote(&mut tx, ask.version, how, because, now).await?;
                let data = json!({
                    "model": model, "version": view.to, "alias": view.alias, "from": view.from, "by": view.by,
                    "reason": view.reason, "evidence": view.evidence, "overridden": how == Moved::Overridden,
                });
                let hints = store
                    .tell_in(&mut tx, "refit.model.promoted", (model.as_str(), seq), &view, data)
                    .await?;
                tx.commit().await?;
                Ok((view, hints))
            }
        })
        .await
    }

    /// Moves an alias back to the version before, or to an earlier one; tells the world.
    pub async fn rollback(
        &self,
        model: &str,
        ask: Rollback,
        by: &str,
    ) -> Result<(HistoryView, Hints), MoveError> {
        let (model, by) = (model.to_owned(), by.to_owned());
        self.durably(move |store| {
            let (model, ask, by) = (model.clone(), ask.clone(), by.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let held = hold(&mut tx, &model, &ask.alias).await?;
                held.must_be(ask.expect)?;
                let Some(from) = held.current else {
                    return Err(MoveError::NotFound(format!(
                        "version of {model} under the alias {}",
                        ask.alias
                    )));
                };
                let because = Because { by: &by, reason: ask.reason.as_deref(), ..Because::default() };
                let Some((view, hints)) = store.roll_back_in(&mut tx, held, ask.to, because).await? else {
                    return Err(nothing_before(&model, &ask, from));
                };
                tx.commit().await?;
                Ok((view, hints))
            }
        })
        .await
    }

    /// Moves a held alias back and tells the world; none: there is nothing such to go back to.
    pub(super) async fn roll_back_in(
        &self,
        tx: &mut Transaction,
        held: HeldAlias,
        to: Option<i64>,
        because: Because<'_>,
    ) -> Result<Option<(HistoryView, Hints)>, StoreError> {
        let model = held.model.clone();
        let moved = held.roll_back(tx, to, because, self.clock().now()).await?;
        let Some((seq, view)) = moved else { return Ok(None) };
        let mut data = json!({
            "model": model, "alias": view.alias, "from": view.from, "to": view.to, "by": view.by,
            "reason": view.reason,
        });
        if let Some(event) = because.event {
            data["event"] = json!(event);
        }
        let hints = self.tell_in(tx, "refit.model.rolled_back", (model.as_str(), seq), &view, data).await?;
        Ok(Some((view, hints)))
    }

    /// Tells of a move that no run tells of.
    async fn tell_in(
        &self,
        tx: &mut Transaction,
        kind: &str,
        (model, seq): (&str, i64),
        view: &HistoryView,
        data: Value,
    ) -> Result<Hints, StoreError> {
        let id = format!("{model}/{}/{seq}", view.alias);
        let event = CloudEvent::new(&id, "/refit/models", kind, Some(model), view.at, data);
        self.emit_in(tx, &event, &format!("model {model}"), view.at).await
    }
}

async fn hold(tx: &mut Transaction, model: &str, alias: &str) -> Result<HeldAlias, MoveError> {
    let held = HeldAlias::lock(tx, model, alias).await?;
    held.ok_or_else(|| {
        MoveError::NotFound(format!("model {model}: `refit model list` shows those there are"))
    })
}

fn not_gated(held: &HeldAlias, version: i64, compared: Option<i64>) -> MoveError {
    let compared = compared.map_or("no champion".to_owned(), |compared| format!("version {compared}"));
    let detail = format!(
        "version {version} was compared with {compared}, but {}: no gate has passed for this move; run the workflow \
         again, or say --override with a --reason",
        held.words()
    );
    MoveError::Refused { kind: "not-gated", detail }
}

fn nothing_before(model: &str, ask: &Rollback, from: i64) -> MoveError {
    let detail = match ask.to {
        Some(to) => format!(
            "{} of {model} was not version {to} before it was {from}: `refit model promote` moves it to any version",
            ask.alias
        ),
        None => {
            format!(
                "{model} {from} is the first version that was {}: there is nothing to go back to",
                ask.alias
            )
        }
    };
    MoveError::Refused { kind: "nothing-to-roll-back", detail }
}

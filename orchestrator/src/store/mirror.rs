//! How far a mirror of the registry is: which server there is, what of each model it has, under which numbers, and who works on
//! it. What it ought to have is the registry itself: a line of an alias's history that the mirror has not come to is all that says
//! that something is to be done, so that no promotion writes anything for it, and nothing can be lost on the way.
//!
//! Must never happen here: a change of the registry, or a word to the mirror's server.

use std::collections::BTreeMap;
use std::time::Duration;

use refit_workflows::digest::Digest;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{EvidenceRecord, MirrorState, MirrorView};

use super::database::{Sql, Transaction, sql};
use super::{Store, StoreError, duties, to_json};

const SEEN: &str = "INSERT INTO mirrors (place, models, seen_at) VALUES ($1, $2, $3)
    ON CONFLICT (place) DO UPDATE SET models = excluded.models, seen_at = excluded.seen_at
    WHERE mirrors.models <> excluded.models OR mirrors.seen_at <= $4";
const ERROR: &str = "SELECT error FROM mirrors WHERE place = $1";
macro_rules! due {
    ($names:literal) => {
        concat!(
            "SELECT m.name FROM models m LEFT JOIN mirrored_models k ON k.place = $1 AND k.model = m.name
            WHERE m.versions > 0 AND m.name > $2 AND (k.model IS NULL OR k.look_at <= $3
                OR (k.failures = 0
                    AND k.history < (SELECT MAX(h.seq) FROM alias_history h WHERE h.model = m.name)))
                AND ($5 = '[]' OR m.name IN (",
            $names,
            ")) ORDER BY m.name LIMIT $4"
        )
    };
}
/// Of these models; of all where none is named.
const DUE: Sql = Sql {
    sqlite: due!("SELECT value FROM json_each($5)"),
    postgres: due!("SELECT jsonb_array_elements_text(CAST($5 AS jsonb))"),
};
const LATEST: &str = "SELECT MAX(seq) AS latest FROM alias_history WHERE model = $1";
const HOW_FAR: &str =
    "SELECT history, checked_at, look_at, failures, error, aliases, intended, noted, noted_at
    FROM mirrored_models WHERE place = $1 AND model = $2";
const ALIASES: &str = "SELECT a.alias, a.version, k.number FROM aliases a
    LEFT JOIN mirrored_versions k ON k.place = $1 AND k.model = a.model AND k.version = a.version
    WHERE a.model = $2 ORDER BY a.alias LIMIT 1000";
const MISSING: &str = "SELECT v.version, v.artifact, v.evidence, e.body
    FROM versions v JOIN evidence e ON e.digest = v.evidence
    WHERE v.model = $2 AND NOT EXISTS (SELECT 1 FROM mirrored_versions k
        WHERE k.place = $1 AND k.model = v.model AND k.version = v.version)
    ORDER BY v.version LIMIT $3";
const KNOWN: &str = "SELECT k.version, k.number, k.at, v.evidence FROM mirrored_versions k
    JOIN versions v ON v.model = k.model AND v.version = k.version
    WHERE k.place = $1 AND k.model = $2 ORDER BY k.version DESC LIMIT $3";
const KNOWN_ONE: &str = "SELECT version, number, at FROM mirrored_versions
    WHERE place = $1 AND model = $2 AND version = $3";
const HAS: &str =
    "INSERT INTO mirrored_versions (place, model, version, number, at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (place, model, version) DO UPDATE SET number = excluded.number, at = excluded.at";
const LACKS: &str = "DELETE FROM mirrored_versions WHERE place = $1 AND model = $2 AND version = $3";
const LACKS_ALL: &str = "DELETE FROM mirrored_versions WHERE place = $1 AND model = $2";
const INTENDS: &str = "INSERT INTO mirrored_models
    (place, model, history, look_at, failures, aliases, intended) VALUES ($1, $2, 0, 0, 0, '{}', $3)
    ON CONFLICT (place, model) DO UPDATE SET intended = excluded.intended";
const REACHED: &str = "INSERT INTO mirrored_models
    (place, model, history, checked_at, look_at, failures, aliases, intended, noted, noted_at)
    VALUES ($1, $2, $3, $4, $5, 0, $6, '{}', $7, $8)
    ON CONFLICT (place, model) DO UPDATE SET history = excluded.history, checked_at = excluded.checked_at,
        look_at = excluded.look_at, failures = 0, error = NULL, aliases = excluded.aliases, intended = '{}',
        noted = COALESCE(excluded.noted, mirrored_models.noted),
        noted_at = COALESCE(excluded.noted_at, mirrored_models.noted_at)";
const FAILED: &str = "INSERT INTO mirrored_models
    (place, model, history, look_at, failures, error, aliases, intended) VALUES ($1, $2, 0, $3, 1, $4, '{}', '{}')
    ON CONFLICT (place, model) DO UPDATE SET look_at = excluded.look_at, error = excluded.error,
        failures = mirrored_models.failures + 1";
const STANDS: &str = "UPDATE mirrors SET error = $2, next_try_at = $3 WHERE place = $1";
const THERE: &str = "SELECT place, models, error, next_try_at FROM mirrors WHERE seen_at > $1
    ORDER BY seen_at DESC, place LIMIT 1";
const RUN_MOVED: &str = "SELECT MAX(seq) AS latest FROM alias_history WHERE run = $1";

/// How long an orchestrator has a mirror to itself. It takes the duty again before a request when the latest taking is older
/// than [`TAKE_AGAIN`], so that no request of its own can be under way when another orchestrator begins.
const DUTY: Duration = Duration::from_secs(45);
/// See [`DUTY`]; what is left of it is more than the longest request.
pub(crate) const TAKE_AGAIN: Duration = Duration::from_secs(5);
/// How often it is written down that a mirror is in the settings of an orchestrator that runs, and how long it counts.
const SEEN_EVERY: Duration = Duration::from_secs(30);
const SEEN_FOR: Duration = Duration::from_secs(120);
/// How many versions that a mirror lacks are looked at together. Each comes with its evidence.
const MISSING_AT_ONCE: i64 = 10;
/// How many versions a mirror is asked about when it is read back, the newest ones.
const KNOWN_MAX: i64 = 5000;
/// The most characters kept of why something failed.
const REASON_MAX: usize = 500;

/// A version as a mirror is to have it.
#[derive(Clone, Debug)]
pub struct WantedVersion {
    /// Its number here.
    pub version: i64,
    /// The artifact's name.
    pub artifact: String,
    /// Digest of the evidence record: no other version anywhere has it.
    pub evidence: Digest,
    /// The record itself: metrics, params, run, artifact.
    pub record: EvidenceRecord,
}

/// An alias as a mirror is to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedAlias {
    /// The alias.
    pub alias: String,
    /// The version it points to here.
    pub version: i64,
    /// That version's number in the mirror, once it is there.
    pub number: Option<i64>,
}

/// A version that a mirror has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownVersion {
    /// Its number there.
    pub number: i64,
    /// Digest of its evidence record, which stands in a tag there.
    pub evidence: Digest,
}

/// A model as a mirror is to have it, and what is known of the mirror.
#[derive(Clone, Debug, Default)]
pub struct WantedModel {
    /// The latest line of its aliases' history.
    pub history: i64,
    /// The line that the mirror has come to.
    pub reached: i64,
    /// How often in a row it has failed.
    pub failures: i64,
    /// Every alias.
    pub aliases: Vec<WantedAlias>,
    /// The first of the versions that are not in the mirror as far as is known.
    pub missing: Vec<WantedVersion>,
    /// The versions that the mirror has, the newest of them, by their numbers here.
    pub known: BTreeMap<i64, KnownVersion>,
    /// Alias → number in the mirror, as it was left.
    pub left: BTreeMap<String, i64>,
    /// Alias → number in the mirror, as it was about to be moved when nothing more was heard.
    pub intended: BTreeMap<String, i64>,
}

/// What there is to be written down of a mirror.
#[derive(Clone, Debug)]
pub enum MirrorNote {
    /// Nothing but that it goes on.
    GoesOn,
    /// A version is there under this number.
    Has {
        /// The model.
        model: String,
        /// The version here.
        version: i64,
        /// Its number there.
        number: i64,
    },
    /// Versions are not there, although they were.
    Lacks {
        /// The model.
        model: String,
        /// The versions; none: no version at all.
        versions: Option<Vec<i64>>,
    },
    /// These aliases are about to be moved.
    Intends {
        /// The model.
        model: String,
        /// Alias → number there.
        aliases: BTreeMap<String, i64>,
    },
    /// It was read back and is as wanted up to this line of history.
    Reached {
        /// The model.
        model: String,
        /// The line.
        history: i64,
        /// Alias → number there.
        aliases: BTreeMap<String, i64>,
        /// What somebody else had changed.
        noted: Option<String>,
        /// When to look again.
        look_in: Duration,
    },
    /// A model could not be brought up to date.
    Failed {
        /// The model.
        model: String,
        /// Why.
        error: String,
        /// How long not to try it.
        pause: Duration,
    },
    /// The server itself: why it cannot be used, and how long it is left alone; or that it can be.
    Stands(Option<(String, Duration)>),
}

fn duty(place: &str) -> String {
    format!("mirror {place}")
}

/// What an orchestrator sees of a mirror.
#[derive(Clone, Debug, Default)]
pub struct MirrorLook {
    /// Whether it is this orchestrator's to write to; another's otherwise.
    pub ours: bool,
    /// Why the server cannot be used, as whoever writes to it has found.
    pub error: Option<String>,
    /// Models there is something to do about, in the order of their names.
    pub due: Vec<String>,
}

impl Store {
    /// Takes, or keeps, a mirror for `holder`, unless another has it, and looks which models behind `after` are to be looked
    /// at, at most `limit`. `models` are those that are mirrored; none: all.
    pub async fn mirror_look(
        &self,
        place: &str,
        models: &[String],
        holder: &str,
        after: &str,
        limit: i64,
    ) -> Result<MirrorLook, StoreError> {
        let (place, holder, after) = (place.to_owned(), holder.to_owned(), after.to_owned());
        let models = to_json(&models)?;
        self.durably(move |store| {
            let (place, holder, after, models) =
                (place.clone(), holder.clone(), after.clone(), models.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                let ours = duties::take_in(&mut tx, &duty(&place), &holder, now, DUTY).await?;
                let error = match tx.first(sql(ERROR).bind(&place)).await? {
                    Some(row) => row.opt_text("error")?,
                    None => None,
                };
                if !ours {
                    return Ok(MirrorLook { error, ..MirrorLook::default() });
                }
                let seen = sql(SEEN)
                    .bind(&place)
                    .bind(&models)
                    .bind(now.as_millis())
                    .bind(now.minus(SEEN_EVERY).as_millis());
                tx.execute(seen).await?;
                let due = sql(DUE).bind(&place).bind(&after).bind(now.as_millis()).bind(limit).bind(models);
                let due = tx.all(due).await?.iter().map(|row| row.text("name")).collect::<Result<_, _>>()?;
                tx.commit().await?;
                Ok(MirrorLook { ours, error, due })
            }
        })
        .await
    }

    /// A model as a mirror is to have it.
    pub async fn mirror_wants(&self, place: &str, model: &str) -> Result<WantedModel, StoreError> {
        let (place, model) = (place.to_owned(), model.to_owned());
        self.durably(move |store| {
            let (place, model) = (place.clone(), model.clone());
            async move {
                let mut tx = store.database().read().await?;
                let mut wanted = match tx.first(sql(HOW_FAR).bind(&place).bind(&model)).await? {
                    Some(row) => WantedModel {
                        reached: row.int("history")?,
                        failures: row.int("failures")?,
                        left: row.json("aliases")?,
                        intended: row.json("intended")?,
                        ..WantedModel::default()
                    },
                    None => WantedModel::default(),
                };
                wanted.history = tx.one(sql(LATEST).bind(&model)).await?.opt_int("latest")?.unwrap_or(0);
                for row in tx.all(sql(ALIASES).bind(&place).bind(&model)).await? {
                    wanted.aliases.push(WantedAlias {
                        alias: row.text("alias")?,
                        version: row.int("version")?,
                        number: row.opt_int("number")?,
                    });
                }
                for row in tx.all(sql(MISSING).bind(&place).bind(&model).bind(MISSING_AT_ONCE)).await? {
                    wanted.missing.push(WantedVersion {
                        version: row.int("version")?,
                        artifact: row.text("artifact")?,
                        evidence: row.parsed("evidence")?,
                        record: row.json("body")?,
                    });
                }
                for row in tx.all(sql(KNOWN).bind(&place).bind(&model).bind(KNOWN_MAX)).await? {
                    let known =
                        KnownVersion { number: row.int("number")?, evidence: row.parsed("evidence")? };
                    wanted.known.insert(row.int("version")?, known);
                }
                Ok(wanted)
            }
        })
        .await
    }

    /// Writes something down of a mirror, and keeps it for `holder`. False: another orchestrator has it, and nothing was written.
    pub async fn mirror_note(&self, place: &str, holder: &str, note: MirrorNote) -> Result<bool, StoreError> {
        let (place, holder) = (place.to_owned(), holder.to_owned());
        self.durably(move |store| {
            let (place, holder, note) = (place.clone(), holder.clone(), note.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                if !duties::take_in(&mut tx, &duty(&place), &holder, now, DUTY).await? {
                    return Ok(false);
                }
                write_in(&mut tx, &place, note, now).await?;
                tx.commit().await?;
                Ok(true)
            }
        })
        .await
    }

    /// Lets another orchestrator have the mirror at once.
    pub async fn leave_mirror(&self, place: &str, holder: &str) -> Result<(), StoreError> {
        self.leave_duty(duty(place), holder).await
    }
}

async fn write_in(
    tx: &mut Transaction,
    place: &str,
    note: MirrorNote,
    now: Timestamp,
) -> Result<(), StoreError> {
    let shortened = |text: &str| text.chars().take(REASON_MAX).collect::<String>();
    let at = now.as_millis();
    match note {
        MirrorNote::GoesOn => {}
        MirrorNote::Has { model, version, number } => {
            tx.execute(sql(HAS).bind(place).bind(model).bind(version).bind(number).bind(at)).await?;
        }
        MirrorNote::Lacks { model, versions: None } => {
            tx.execute(sql(LACKS_ALL).bind(place).bind(model)).await?;
        }
        MirrorNote::Lacks { model, versions: Some(versions) } => {
            for version in versions {
                tx.execute(sql(LACKS).bind(place).bind(&model).bind(version)).await?;
            }
        }
        MirrorNote::Intends { model, aliases } => {
            tx.execute(sql(INTENDS).bind(place).bind(model).bind(to_json(&aliases)?)).await?;
        }
        MirrorNote::Reached { model, history, aliases, noted, look_in } => {
            let reached = sql(REACHED)
                .bind(place)
                .bind(model)
                .bind(history)
                .bind(at)
                .bind(now.plus(look_in).as_millis())
                .bind(to_json(&aliases)?)
                .bind(noted.as_deref().map(shortened))
                .bind(noted.is_some().then_some(at));
            tx.execute(reached).await?;
        }
        MirrorNote::Failed { model, error, pause } => {
            let again = now.plus(pause).as_millis();
            tx.execute(sql(FAILED).bind(place).bind(model).bind(again).bind(shortened(&error))).await?;
        }
        MirrorNote::Stands(standing) => {
            let (error, again) = standing.unzip();
            let again = again.map(|pause| now.plus(pause).as_millis());
            let error = error.as_deref().map(shortened);
            tx.execute(sql(STANDS).bind(place).bind(error).bind(again)).await?;
        }
    }
    Ok(())
}

/// How far the mirror is with a model, for those who look at it.
pub(super) struct Mirrored {
    server: String,
    /// The line of history that it has come to.
    reached: i64,
    checked_at: Option<Timestamp>,
    error: Option<String>,
    next_try_at: Option<Timestamp>,
    noted: Option<(String, Timestamp)>,
    /// Version → number there, and since when it is known.
    numbers: BTreeMap<i64, (i64, Timestamp)>,
}

impl Mirrored {
    /// With the numbers of the newest versions. None: nothing is mirrored, or not this model.
    pub(super) async fn of_model_in(
        tx: &mut Transaction,
        model: &str,
        now: Timestamp,
    ) -> Result<Option<Self>, StoreError> {
        Self::find_in(tx, model, None, now).await
    }

    /// With the number of this version alone.
    pub(super) async fn of_version_in(
        tx: &mut Transaction,
        (model, version): (&str, i64),
        now: Timestamp,
    ) -> Result<Option<Self>, StoreError> {
        Self::find_in(tx, model, Some(version), now).await
    }

    async fn find_in(
        tx: &mut Transaction,
        model: &str,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Self>, StoreError> {
        let Some(there) = tx.first(sql(THERE).bind(now.minus(SEEN_FOR).as_millis())).await? else {
            return Ok(None);
        };
        let models: Vec<String> = there.json("models")?;
        if !models.is_empty() && !models.iter().any(|name| name == model) {
            return Ok(None);
        }
        let server = there.text("place")?;
        let time = |ms: Option<i64>| ms.map(Timestamp::from_millis);
        let (error, next_try_at) = (there.opt_text("error")?, time(there.opt_int("next_try_at")?));
        let mut mirrored = Self {
            server,
            reached: 0,
            checked_at: None,
            error,
            next_try_at,
            noted: None,
            numbers: BTreeMap::new(),
        };
        if let Some(row) = tx.first(sql(HOW_FAR).bind(&mirrored.server).bind(model)).await? {
            mirrored.reached = row.int("history")?;
            mirrored.checked_at = time(row.opt_int("checked_at")?);
            mirrored.noted = row.opt_text("noted")?.zip(time(row.opt_int("noted_at")?));
            // What keeps the whole server from being used comes first.
            if mirrored.error.is_none()
                && let Some(error) = row.opt_text("error")?
            {
                mirrored.error = Some(error);
                mirrored.next_try_at = Some(Timestamp::from_millis(row.int("look_at")?));
            }
        }
        let known = match version {
            Some(version) => sql(KNOWN_ONE).bind(&mirrored.server).bind(model).bind(version),
            None => sql(KNOWN).bind(&mirrored.server).bind(model).bind(KNOWN_MAX),
        };
        for row in tx.all(known).await? {
            let known = (row.int("number")?, Timestamp::from_millis(row.int("at")?));
            mirrored.numbers.insert(row.int("version")?, known);
        }
        Ok(Some(mirrored))
    }

    /// Of what the run with this row promoted.
    pub(super) async fn of_run_in(
        tx: &mut Transaction,
        run: i64,
        (model, version): (&str, i64),
        now: Timestamp,
    ) -> Result<Option<MirrorView>, StoreError> {
        let Some(mirrored) = Self::of_version_in(tx, (model, version), now).await? else { return Ok(None) };
        let moved = tx.one(sql(RUN_MOVED).bind(run)).await?.opt_int("latest")?;
        Ok(Some(mirrored.of_move(moved.unwrap_or(i64::MAX), version)))
    }

    /// The model as a whole: everything up to its latest line of history.
    pub(super) async fn whole_in(&self, tx: &mut Transaction, model: &str) -> Result<MirrorView, StoreError> {
        let latest = tx.one(sql(LATEST).bind(model)).await?.opt_int("latest")?.unwrap_or(0);
        let (noted, noted_at) = self.noted.clone().unzip();
        Ok(MirrorView { noted, noted_at, ..self.view(self.reached >= latest, None, self.checked_at) })
    }

    /// A move of an alias to a version, by its line of history.
    pub(super) fn of_move(&self, line: i64, version: i64) -> MirrorView {
        let number = self.numbers.get(&version).map(|(number, _)| *number);
        self.view(number.is_some() && self.reached >= line, number, self.checked_at)
    }

    pub(super) fn of_version(&self, version: i64) -> MirrorView {
        let known = self.numbers.get(&version).copied();
        let (number, at) = known.unzip();
        // Whenever the model is read back, so are its versions.
        self.view(number.is_some(), number, at.max(self.checked_at.filter(|_| number.is_some())))
    }

    fn view(&self, is_there: bool, version: Option<i64>, at: Option<Timestamp>) -> MirrorView {
        MirrorView {
            state: if is_there { MirrorState::Mirrored } else { MirrorState::Pending },
            server: self.server.clone(),
            version,
            at: at.filter(|_| is_there),
            error: self.error.clone(),
            next_try_at: self.next_try_at.filter(|_| self.error.is_some()),
            noted: None,
            noted_at: None,
        }
    }
}

//! SQLite and PostgreSQL behind one small face, and **every difference between them**: how to connect, begin, lock a
//! row, skip a locked one, read the clock, tell who else is listening. Everything else of the store is one SQL text.
//!
//! Statements use `$1` placeholders, `TEXT`, 64-bit integers and bytes. A transaction must be driven by a task that
//! nobody can cancel half-way (`store::durably`): a dropped `BEGIN` leaves a PostgreSQL connection inside it.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use refit_workflows::time::Timestamp;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Arguments as _, Executor as _, PgPool, Postgres, Row as _, SqlSafeStr as _, Sqlite, SqlitePool};

use super::StoreError;

/// An open database.
#[derive(Clone, Debug)]
pub enum Database {
    /// One writer connection, so that no write ever finds the file busy, and readers beside it.
    Sqlite {
        /// One connection; transactions begin `IMMEDIATE`.
        writer: SqlitePool,
        /// Read-only connections.
        reader: SqlitePool,
    },
    /// A pool.
    Postgres(PgPool),
}

/// How a database's schema stands to what this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// Nothing was migrated yet.
    Empty,
    /// Known; what is missing is migrated at start.
    Current,
    /// Of a newer program: its version.
    Newer(i64),
}

const SQLITE_SCHEMA: &str = include_str!("../../../migrations/sqlite/0001_first.sql");

/// The newest migration.
const SCHEMA_VERSION: i64 = 1;

/// A pooled connection that was used this lately is taken to be alive.
const UNASKED_MAX: Duration = Duration::from_secs(1);

/// What the URL of a SQLite database begins with.
const SQLITE_SCHEME: &str = "sqlite:";
/// SQLite before this version can lose committed data in a WAL-reset race.
const SQLITE_VERSION_MIN: &str = "3.51.3";

/// A writing transaction holds this advisory lock together with all others until it is over, from the same round trip on, so
/// that [`Database::visible_until`] can tell which are under way.
const BEGIN_POSTGRES: &str = "BEGIN; SELECT pg_advisory_xact_lock_shared(7433)";
const UNDER_WAY: &str = "SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 0 AND objid = 7433 AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
/// How often, and how many times, it is looked whether transactions under way are over.
const SETTLE_PAUSE: Duration = Duration::from_millis(2);
const SETTLE_LOOKS_MAX: u32 = 1000;

impl Database {
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while a PostgreSQL is out of reach: try again.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let database = Self::connect(url).await?;
        database.migrate().await?;
        Ok(database)
    }

    /// Opens the database and leaves its schema as it is: for those who only look.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Ok(if is_postgres(url) {
            Self::open_postgres(url).await?
        } else if let Some(path) = url.strip_prefix(SQLITE_SCHEME) {
            Self::open_sqlite(Path::new(path.trim_start_matches("//"))).await?
        } else {
            return Err(StoreError::Broken(
                "the database URL must begin with sqlite: or postgres://".to_owned(),
            ));
        })
    }

    /// Whether the URL is that of a kind of database there is.
    pub fn knows(url: &str) -> bool {
        is_postgres(url) || url.starts_with(SQLITE_SCHEME)
    }

    async fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged event must survive power loss, not only a crash.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .pragma("trusted_schema", "OFF")
            .pragma("journal_size_limit", "67108864")
            .statement_cache_capacity(256);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .acquire_timeout(Duration::from_secs(30))
            .connect_with(options.clone())
            .await?;
        let reader = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options.read_only(true))
            .await?;
        let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&reader).await?;
        if version_key(&version) < version_key(SQLITE_VERSION_MIN) {
            return Err(StoreError::Broken(format!(
                "SQLite {version} can lose committed data; {SQLITE_VERSION_MIN} or newer is needed"
            )));
        }
        Ok(Self::Sqlite { writer, reader })
    }

    /// A SQLite database that is gone with its handle. One connection is all there is: whoever holds a transaction must
    /// not begin another.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it could not be made.
    pub async fn in_memory() -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .in_memory(true)
            .foreign_keys(true)
            .pragma("trusted_schema", "OFF")
            .statement_cache_capacity(256);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        // Nothing was there before, so that there is nothing to migrate from.
        (&pool).execute(sqlx::raw_sql(SQLITE_SCHEMA)).await?;
        Ok(Self::Sqlite { writer: pool.clone(), reader: pool })
    }

    /// Empties a database made by [`Database::in_memory`], whose prepared statements stay: much faster than another one.
    ///
    /// # Errors
    /// [`StoreError::Broken`]: this is no such database.
    pub async fn clear(&self) -> Result<(), StoreError> {
        // The duties are rows of the schema.
        const CLEAR: &str = "SELECT group_concat('DELETE FROM ' || name, '; ') FROM sqlite_schema
            WHERE type = 'table' AND (name NOT LIKE 'sqlite_%' OR name = 'sqlite_sequence') AND name <> 'duties'";
        let Self::Sqlite { writer, .. } = self else {
            return Err(StoreError::Broken("only a database in memory can be emptied".to_owned()));
        };
        let clear: String = sqlx::query_scalar(CLEAR).fetch_one(writer).await?;
        writer.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(clear))).await?;
        Ok(())
    }

    async fn open_postgres(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|wrong| StoreError::Broken(format!("the database URL cannot be read: {wrong}")))?
            .application_name("refit")
            .options([
                ("statement_timeout", "30s"),
                ("lock_timeout", "10s"),
                ("idle_in_transaction_session_timeout", "30s"),
                ("synchronous_commit", "on"),
                // What recursive statements might cost is guessed far too high, and compiling them takes 20 ms each time.
                ("jit", "off"),
            ])
            .statement_cache_capacity(256);
        let pool = PgPoolOptions::new()
            .max_connections(16)
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(Duration::from_secs(600))
            .max_lifetime(Duration::from_secs(1800))
            // A connection whose BEGIN was abandoned may still be inside a transaction: it must not stay there. Only the
            // first statement of a transaction sees both clocks agree. The question proves the connection alive as well;
            // a plain ROLLBACK would fill the server's log with warnings. One that was in use just now is not asked: a
            // second BEGIN goes on with the abandoned transaction, which holds nothing, and its COMMIT is a commit.
            .test_before_acquire(false)
            .before_acquire(|connection, seen| {
                let ask = seen.idle_for > UNASKED_MAX;
                Box::pin(async move {
                    if ask && !is_fresh(connection).await? {
                        connection.execute("ROLLBACK").await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options)
            .await
            .map_err(|error| match is_misdirected(&error) {
                true => StoreError::Broken(error.to_string()),
                false => error.into(),
            })?;
        Ok(Self::Postgres(pool))
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let (sql, run) = match self {
            Self::Sqlite { .. } => (SQLITE_SCHEMA, self),
            Self::Postgres(_) => (include_str!("../../../migrations/postgres/0001_first.sql"), self),
        };
        let migrations = vec![Migration::new(
            SCHEMA_VERSION,
            "first".into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )];
        let migrator = Migrator::with_migrations(migrations);
        let done = match run {
            Self::Sqlite { writer, .. } => migrator.run(writer).await,
            Self::Postgres(pool) => migrator.run(pool).await,
        };
        done.map_err(|wrong| match wrong {
            MigrateError::Execute(error) => error.into(),
            MigrateError::VersionMissing(version) => StoreError::Broken(format!(
                "the database was migrated to version {version} by a newer refit: upgrade this program"
            )),
            other => StoreError::Broken(other.to_string()),
        })
    }

    /// `sqlite` or `postgres`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// The version of the database's own program.
    pub async fn version(&self) -> Result<String, StoreError> {
        const VERSION: Sql = Sql {
            sqlite: "SELECT sqlite_version() AS version",
            postgres: "SELECT current_setting('server_version') AS version",
        };
        self.read().await?.one(sql(VERSION)).await?.text("version")
    }

    /// How the schema stands to what this program knows.
    pub async fn schema(&self) -> Result<Schema, StoreError> {
        const MIGRATED: Sql = Sql {
            sqlite: "SELECT COUNT(*) AS tables FROM sqlite_schema WHERE name = '_sqlx_migrations'",
            postgres: "SELECT COUNT(*) AS tables FROM information_schema.tables
                WHERE table_schema = current_schema() AND table_name = '_sqlx_migrations'",
        };
        const LATEST: &str = "SELECT MAX(version) AS version FROM _sqlx_migrations";
        let mut tx = self.read().await?;
        if tx.one(sql(MIGRATED)).await?.int("tables")? == 0 {
            return Ok(Schema::Empty);
        }
        Ok(match tx.one(sql(LATEST)).await?.opt_int("version")? {
            None => Schema::Empty,
            Some(version) if version > SCHEMA_VERSION => Schema::Newer(version),
            Some(_) => Schema::Current,
        })
    }

    /// The database's clock in milliseconds since the Unix epoch; none where it is this host's.
    pub async fn clock_ms(&self) -> Result<Option<i64>, StoreError> {
        match self {
            Self::Sqlite { .. } => Ok(None),
            Self::Postgres(pool) => {
                let sql = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
                Ok(Some(sqlx::query_scalar(sql).fetch_one(pool).await?))
            }
        }
    }

    /// Begins a transaction that may write.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(match self {
            // A deferred transaction that reads first and writes later fails as busy whatever the timeout.
            Self::Sqlite { writer, .. } => Transaction::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Transaction::Postgres(pool.begin_with(BEGIN_POSTGRES).await?),
        })
    }

    /// The latest moment until which everything received can be seen from now on, at a time `at` that was taken before: waits
    /// until every transaction that has begun by now is over. What [`Database::begin`] gives afterwards takes its time later.
    /// None: one of them takes longer than a few seconds.
    ///
    /// It never asks for the lock of `BEGIN_POSTGRES` itself: whoever begins would queue behind it.
    pub async fn visible_until(&self, at: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        // On SQLite, whoever may write has begun after the last one was over.
        let Self::Postgres(pool) = self else { return Ok(Some(at)) };
        let mut under_way: Vec<String> = sqlx::query_scalar(UNDER_WAY).fetch_all(pool).await?;
        for _ in 0..SETTLE_LOOKS_MAX {
            if under_way.is_empty() {
                // Who begins within this very millisecond may still write it.
                return Ok(Some(at.minus(Duration::from_millis(1))));
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
            let now: Vec<String> = sqlx::query_scalar(UNDER_WAY).fetch_all(pool).await?;
            under_way.retain(|transaction| now.contains(transaction));
        }
        Ok(None)
    }

    /// Begins a transaction that only reads, with one view of the whole database.
    pub async fn read(&self) -> Result<Transaction, StoreError> {
        Ok(match self {
            Self::Sqlite { reader, .. } => Transaction::Sqlite(reader.begin().await?),
            Self::Postgres(pool) => Transaction::Postgres(
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?,
            ),
        })
    }

    /// Runs one statement that only reads, in no transaction: it costs one trip instead of three.
    pub async fn all(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite { reader, .. } => {
                statement.sqlite()?.fetch_all(reader).await?.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(pool) => {
                statement.postgres()?.fetch_all(pool).await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// Runs one statement that only reads, in no transaction; returns its first row.
    pub async fn first(&self, statement: Statement) -> Result<Option<Row>, StoreError> {
        Ok(self.all(statement).await?.into_iter().next())
    }

    /// Tells other orchestrators on this database that something happened. Only a hint: losing it costs a poll.
    pub async fn hint(&self, payload: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { .. } => Ok(()),
            Self::Postgres(pool) => {
                sqlx::query("SELECT pg_notify('refit', $1)").bind(payload).execute(pool).await?;
                Ok(())
            }
        }
    }

    /// Hints of other orchestrators; none where there cannot be any.
    pub async fn hints(&self) -> Result<Option<sqlx::postgres::PgListener>, StoreError> {
        match self {
            Self::Sqlite { .. } => Ok(None),
            Self::Postgres(pool) => {
                let mut listener = sqlx::postgres::PgListener::connect_with(pool).await?;
                listener.listen("refit").await?;
                Ok(Some(listener))
            }
        }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { writer, reader } => {
                reader.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

async fn is_fresh(connection: &mut sqlx::PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT transaction_timestamp() = statement_timestamp()").fetch_one(connection).await
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn version_key(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// One text with its two forms, where the databases differ. SQLite has one writer, so it needs no row locks.
#[derive(Clone, Copy, Debug)]
pub struct Sql {
    /// For SQLite.
    pub sqlite: &'static str,
    /// For PostgreSQL.
    pub postgres: &'static str,
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self { sqlite: text, postgres: text }
    }
}

/// A statement with its arguments.
#[derive(Debug)]
pub struct Statement {
    sql: Sql,
    arguments: Vec<Argument>,
}

/// What can be bound.
#[derive(Debug)]
pub enum Argument {
    /// A 64-bit integer.
    Int(Option<i64>),
    /// Text.
    Text(Option<String>),
    /// Bytes.
    Bytes(Vec<u8>),
}

macro_rules! argument_from {
    ($($from:ty, $value:ident => $argument:expr;)*) => {$(
        impl From<$from> for Argument {
            fn from($value: $from) -> Self {
                $argument
            }
        }
    )*};
}
argument_from! {
    i64, value => Self::Int(Some(value));
    Option<i64>, value => Self::Int(value);
    &str, value => Self::Text(Some(value.to_owned()));
    String, value => Self::Text(Some(value));
    &String, value => Self::Text(Some(value.clone()));
    Option<String>, value => Self::Text(value);
    Option<&str>, value => Self::Text(value.map(str::to_owned));
    Vec<u8>, value => Self::Bytes(value);
}

/// Begins a statement.
pub fn sql(text: impl Into<Sql>) -> Statement {
    Statement { sql: text.into(), arguments: Vec::new() }
}

impl Statement {
    /// Binds the next argument.
    pub fn bind(mut self, argument: impl Into<Argument>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    fn sqlite(self) -> Result<sqlx::query::Query<'static, Sqlite, SqliteArguments>, StoreError> {
        let mut bound = SqliteArguments::default();
        for argument in self.arguments {
            match argument {
                Argument::Int(value) => bound.add(value),
                Argument::Text(value) => bound.add(value),
                Argument::Bytes(value) => bound.add(value),
            }
            .map_err(|wrong| StoreError::Broken(wrong.to_string()))?;
        }
        Ok(sqlx::query_with(self.sql.sqlite, bound))
    }

    fn postgres(self) -> Result<sqlx::query::Query<'static, Postgres, PgArguments>, StoreError> {
        let mut bound = PgArguments::default();
        for argument in self.arguments {
            match argument {
                Argument::Int(value) => bound.add(value),
                Argument::Text(value) => bound.add(value),
                Argument::Bytes(value) => bound.add(value),
            }
            .map_err(|wrong| StoreError::Broken(wrong.to_string()))?;
        }
        Ok(sqlx::query_with(self.sql.postgres, bound))
    }
}

/// A transaction; rolled back when dropped.
#[derive(Debug)]
pub enum Transaction {
    /// On SQLite.
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    /// On PostgreSQL.
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Transaction {
    /// Runs a statement; returns how many rows it changed.
    pub async fn execute(&mut self, statement: Statement) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Sqlite(tx) => statement.sqlite()?.execute(&mut **tx).await?.rows_affected(),
            Self::Postgres(tx) => statement.postgres()?.execute(&mut **tx).await?.rows_affected(),
        })
    }

    /// Runs a statement; returns its first row.
    pub async fn first(&mut self, statement: Statement) -> Result<Option<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite(tx) => statement.sqlite()?.fetch_optional(&mut **tx).await?.map(Row::Sqlite),
            Self::Postgres(tx) => statement.postgres()?.fetch_optional(&mut **tx).await?.map(Row::Postgres),
        })
    }

    /// Runs a statement; returns its one row.
    pub async fn one(&mut self, statement: Statement) -> Result<Row, StoreError> {
        let text = statement.sql.sqlite;
        self.first(statement).await?.ok_or_else(|| StoreError::Corrupt(format!("no row for {text}")))
    }

    /// Runs a statement; returns all its rows.
    pub async fn all(&mut self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite(tx) => {
                statement.sqlite()?.fetch_all(&mut **tx).await?.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(tx) => {
                statement.postgres()?.fetch_all(&mut **tx).await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// Makes it durable. An error leaves open whether it was: callers must be able to repeat what they did.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}

/// A row. Reading NULL where a value is expected is [`StoreError::Corrupt`], on SQLite as well.
#[derive(Debug)]
pub enum Row {
    /// Of SQLite.
    Sqlite(SqliteRow),
    /// Of PostgreSQL.
    Postgres(PgRow),
}

impl Row {
    /// An integer.
    pub fn int(&self, column: &str) -> Result<i64, StoreError> {
        self.opt_int(column)?.ok_or_else(|| null(column))
    }

    /// An integer or NULL.
    pub fn opt_int(&self, column: &str) -> Result<Option<i64>, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(|wrong| StoreError::Corrupt(format!("column {column}: {wrong}")))
    }

    /// Text.
    pub fn text(&self, column: &str) -> Result<String, StoreError> {
        self.opt_text(column)?.ok_or_else(|| null(column))
    }

    /// Text or NULL.
    pub fn opt_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(|wrong| StoreError::Corrupt(format!("column {column}: {wrong}")))
    }

    /// Bytes.
    pub fn bytes(&self, column: &str) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get::<Option<Vec<u8>>, _>(column),
            Self::Postgres(row) => row.try_get::<Option<Vec<u8>>, _>(column),
        }
        .map_err(|wrong| StoreError::Corrupt(format!("column {column}: {wrong}")))?
        .ok_or_else(|| null(column))
    }

    /// JSON text as a value of its type.
    pub fn json<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?)
            .map_err(|wrong| StoreError::Corrupt(format!("column {column}: {wrong}")))
    }

    /// Text that is parsed.
    pub fn parsed<T: FromStr<Err = String>>(&self, column: &str) -> Result<T, StoreError> {
        self.text(column)?.parse().map_err(|wrong| StoreError::Corrupt(format!("column {column}: {wrong}")))
    }
}

fn null(column: &str) -> StoreError {
    StoreError::Corrupt(format!("column {column} is NULL"))
}

/// Whether a SQLSTATE (PostgreSQL) or a result code (SQLite) tells of a database that cannot be used at present, whatever
/// was asked of it. It must never be blamed on the event or row at hand: that would be set aside, and so lost.
fn is_absence(code: &str) -> bool {
    const SQLSTATE_LENGTH: usize = 5;
    if code.len() == SQLSTATE_LENGTH {
        // Connection exceptions; no login; no such database; out of memory, disk or connections; shut down, starting up or
        // over the statement timeout; I/O errors. Then: the database takes no connections, or is read-only (a standby).
        let class = code.get(..2).unwrap_or_default();
        return matches!(class, "08" | "28" | "3D" | "53" | "57" | "58") || matches!(code, "55000" | "25006");
    }
    // Busy, locked, I/O error, full, and two extended forms of busy.
    matches!(code, "5" | "6" | "10" | "13" | "517" | "261")
}

/// Whether the server answers and says that these settings will not do: no use in waiting for that at start.
fn is_misdirected(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("28") || code.starts_with("3D"))
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
        let text = error.to_string();
        match &error {
            // A conversation that broke off in the middle is a protocol error.
            Error::Io(_)
            | Error::Tls(_)
            | Error::Protocol(_)
            | Error::PoolTimedOut
            | Error::PoolClosed
            | Error::WorkerCrashed => Self::Unavailable(text),
            Error::Database(database) => match database.code().as_deref() {
                // PostgreSQL: serialization failure, deadlock, lock timeout, a transaction that had failed before.
                Some("40001" | "40P01" | "55P03" | "25P02") => Self::Conflict(text),
                Some(code) if is_absence(code) => Self::Unavailable(text),
                Some(_) | None => Self::Broken(text),
            },
            _ => Self::Broken(text),
        }
    }
}

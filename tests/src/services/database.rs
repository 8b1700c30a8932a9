//! Fresh databases on SQLite and PostgreSQL, each one test's own. Must never happen here: a database that another test
//! sees, or that outlives its value.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::{off_runtime, service};

/// A database of one test's own, gone with this value.
#[derive(Debug)]
pub struct Database {
    url: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Sqlite {
        folder: tempfile::TempDir,
    },
    Postgres {
        server: String,
        name: String,
    },
    /// On a server that goes with the test.
    Elsewhere,
}

/// An empty SQLite database in a temporary folder. Its file does not exist yet.
///
/// # Panics
/// When no temporary folder can be made.
pub fn sqlite() -> Database {
    let folder = tempfile::Builder::new().prefix("refit-test-").tempdir();
    let folder = folder.unwrap_or_else(|error| panic!("failed to make a temporary folder: {error}"));
    Database {
        url: format!("sqlite:{}", folder.path().join("refit.db").display()),
        place: Place::Sqlite { folder },
    }
}

/// An empty database with a name of its own on the server of `REFIT_TEST_POSTGRES_URL`.
///
/// # Panics
/// When the variable is not set or the server does not make the database.
pub async fn postgres() -> Database {
    let server = service("REFIT_TEST_POSTGRES_URL", "a PostgreSQL server");
    let name = format!("refit_test_{}", uuid::Uuid::new_v4().simple());
    if let Err(error) = administer(&server, format!("CREATE DATABASE {name}")).await {
        panic!("failed to create a database on REFIT_TEST_POSTGRES_URL: {error}");
    }
    let url = match reqwest::Url::parse(&server) {
        Ok(mut url) => {
            url.set_path(&name);
            url.to_string()
        }
        Err(error) => panic!("REFIT_TEST_POSTGRES_URL is not a URL: {error}"),
    };
    Database { url, place: Place::Postgres { server, name } }
}

async fn administer(server: &str, sql: String) -> Result<(), sqlx::Error> {
    let mut connection = sqlx::PgConnection::connect(server).await?;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}

impl Database {
    /// The PostgreSQL database at this URL, which somebody else made and will remove.
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), place: Place::Elsewhere }
    }

    /// What `--database-url` takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `sqlite` or `postgres`.
    pub fn kind(&self) -> &'static str {
        match &self.place {
            Place::Sqlite { .. } => "sqlite",
            Place::Postgres { .. } | Place::Elsewhere => "postgres",
        }
    }

    /// The folder of a SQLite database.
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Sqlite { folder } => Some(folder.path()),
            Place::Postgres { .. } | Place::Elsewhere => None,
        }
    }

    /// The whole number that a query without arguments gives: counts, mostly. Reads beside the orchestrator.
    ///
    /// # Panics
    /// When the query fails or gives anything else.
    pub async fn number(&self, sql: &str) -> i64 {
        let number = match &self.place {
            Place::Sqlite { .. } => self.sqlite_number(sql).await,
            Place::Postgres { .. } | Place::Elsewhere => self.postgres_number(sql).await,
        };
        number.unwrap_or_else(|error| panic!("failed to run `{sql}` on {}: {error}", self.kind()))
    }

    /// The texts that a query without arguments gives in its first column. Reads beside the orchestrator.
    ///
    /// # Panics
    /// When the query fails or gives anything else.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let texts = match &self.place {
            Place::Sqlite { .. } => self.sqlite_texts(sql).await,
            Place::Postgres { .. } | Place::Elsewhere => self.postgres_texts(sql).await,
        };
        texts.unwrap_or_else(|error| panic!("failed to run `{sql}` on {}: {error}", self.kind()))
    }

    /// Takes a PostgreSQL database away: no new connection is let in, and those there are end.
    ///
    /// # Panics
    /// When it is not PostgreSQL or the server refuses.
    pub async fn take_away(&self) {
        let Place::Postgres { server, name } = &self.place else {
            panic!("only PostgreSQL can be taken away")
        };
        let shut = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        for sql in [shut, end] {
            if let Err(error) = administer(server, sql).await {
                panic!("failed to take {name} away: {error}");
            }
        }
    }

    /// Gives it back after [`Database::take_away`].
    ///
    /// # Panics
    /// When it is not PostgreSQL or the server refuses.
    pub async fn give_back(&self) {
        let Place::Postgres { server, name } = &self.place else {
            panic!("only PostgreSQL can be taken away")
        };
        if let Err(error) = administer(server, format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await
        {
            panic!("failed to give {name} back: {error}");
        }
    }

    async fn sqlite_number(&self, sql: &str) -> Result<i64, sqlx::Error> {
        let mut connection = sqlx::SqliteConnection::connect(&self.url).await?;
        let row = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await?;
        connection.close().await?;
        row.try_get(0)
    }

    async fn postgres_number(&self, sql: &str) -> Result<i64, sqlx::Error> {
        let mut connection = sqlx::PgConnection::connect(&self.url).await?;
        let row = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await?;
        connection.close().await?;
        row.try_get(0)
    }
}

impl Database {
    async fn sqlite_texts(&self, sql: &str) -> Result<Vec<String>, sqlx::Error> {
        let mut connection = sqlx::SqliteConnection::connect(&self.url).await?;
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await?;
        connection.close().await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    async fn postgres_texts(&self, sql: &str) -> Result<Vec<String>, sqlx::Error> {
        let mut connection = sqlx::PgConnection::connect(&self.url).await?;
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await?;
        connection.close().await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Place::Postgres { server, name } = &self.place {
            let (server, sql) = (server.clone(), format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
            // A database left behind on a server that is thrown away does no harm; a panic in drop would.
            off_runtime(async move { administer(&server, sql).await.is_ok() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_postgres_database_is_fresh_and_gone_with_its_value() {
        let database = postgres().await;
        let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
        assert_eq!(database.number(tables).await, 0);
        let name = database.url().rsplit('/').next().unwrap().to_owned();
        let found = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
        let other = postgres().await;
        assert_eq!(other.number(&found).await, 1);
        drop(database);
        assert_eq!(other.number(&found).await, 0, "{name} is still on the server");
    }

    #[tokio::test]
    async fn sqlite_databases_are_files_of_their_own() {
        let database = sqlite();
        let folder = database.folder().map(Path::to_owned).unwrap();
        assert!(database.url().starts_with("sqlite:") && folder.is_dir());
        drop(database);
        assert!(!folder.exists());
    }
}

//! Starts an orchestrator and ends it in order: intake first, then the engine's loops, the outbox, the store.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Transport};
use crate::engine::{Engine, Settings};
use crate::intake::amqp::{AmqpSource, consume};
use crate::intake::hooks::{HookProblem, Hooks};
use crate::secrets::Vault;
use crate::store::database::Database;
use crate::store::places::Places;
use crate::store::{Store, StoreError};
use crate::{api, http, mirror, outbox};

/// A started orchestrator.
#[derive(Debug)]
pub struct Running {
    /// Where it listens; the port is the real one when 0 was asked for.
    pub address: SocketAddr,
    /// Ends when everything has ended.
    pub done: tokio::task::JoinHandle<()>,
}

/// The longest pause between two tries to reach a database at start.
const DATABASE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Opens the database (waiting for one that is down), migrates it, binds the listener and starts every loop.
///
/// Returns once requests are answered. Cancelling `shutdown` ends it cleanly; await [`Running::done`] then.
///
/// # Errors
/// [`StartError`]: the address is taken, the database is newer than this program, no token although not on loopback.
pub async fn serve(mut config: Config, shutdown: CancellationToken) -> Result<Running, StartError> {
    let hooks = Hooks::new(&config.sources, config.listen.ip().is_loopback())?;
    // Bound first: somebody who asks while the database is waited for is not told "nobody there".
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| StartError::Listen { address: config.listen, source })?;
    let address =
        listener.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
    config.listen = address;
    let lock = lock_database(&config)?;
    let engine = open_engine(config.clone()).await?;
    if lock.is_some() {
        // The lock says that whoever held something was killed.
        engine.store().void_duties().await?;
        // Nobody else has targets either: those that are not in the settings any more get no more events.
        let targets = config.targets.iter().map(|target| target.name.clone()).collect();
        engine.store().keep_targets(targets, true).await?;
    }
    if !address.ip().is_loopback() && !engine.store().any_token().await? {
        return Err(StartError::NoTokens { address });
    }
    let done = tokio::spawn(run(engine, config, hooks, listener, lock, shutdown));
    Ok(Running { address, done })
}

/// Everything an orchestrator does, until `shutdown`; then its end, in order: no new requests or deliveries, the loops,
/// the outbox, the database.
async fn run(
    engine: Engine,
    config: Config,
    hooks: Hooks,
    listener: TcpListener,
    lock: Option<File>,
    shutdown: CancellationToken,
) {
    let stop_loops = CancellationToken::new();
    let mut loops = engine.start(&stop_loops);
    let mut relays = outbox::spawn(&engine, &config, &stop_loops);
    let mut mirrors = mirror::spawn(&engine, &config, &stop_loops);
    let mut intake = JoinSet::new();
    for source in &config.sources {
        match &source.transport {
            Transport::Amqp(queue) => {
                intake.spawn(consume(engine.clone(), AmqpSource::new(source, queue), shutdown.clone()));
            }
            // Its requests come through the router.
            Transport::Webhook(_) => {}
        }
    }
    let router = api::router(engine.clone(), &config, hooks.listed(engine.health()));
    http::serve(listener, router, shutdown.clone()).await;
    while let Some(ended) = intake.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "the intake from a source ended early");
        }
    }
    stop_loops.cancel();
    while loops.join_next().await.is_some() {}
    while relays.join_next().await.is_some() {}
    while mirrors.join_next().await.is_some() {}
    engine.store().database().close().await;
    drop(lock);
}

/// The engine over the configured database, without starting anything: for commands that work on the database directly.
///
/// # Errors
/// [`StartError::Database`] when it cannot be used, or is still out of reach after [`Config::database_wait`].
pub async fn open_engine(config: Config) -> Result<Engine, StartError> {
    let url = match &config.database_url {
        Some(url) if !Database::knows(url) => return Err(StartError::DatabaseUrl),
        Some(url) => url.clone(),
        None => {
            make_folder(&config.data)?;
            format!("sqlite:{}", config.data.join("refit.db").display())
        }
    };
    let places = Arc::new(Places::new(&config.blobs).map_err(StartError::Blobs)?);
    let deadline = config.database_wait.map(|wait| Instant::now() + wait);
    let mut pause = Duration::from_millis(200);
    let mut said = false;
    let store = loop {
        match Store::open_with(&url, outbox::listed(&config), Arc::clone(&places)).await {
            Ok(store) => break store,
            Err(StoreError::Unavailable(reason))
                if deadline.is_none_or(|deadline| Instant::now() + pause < deadline) =>
            {
                if !said {
                    tracing::warn!("waiting for the database: {reason}");
                    said = true;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(DATABASE_PAUSE_MAX);
            }
            Err(error) => return Err(error.into()),
        }
    };
    if said {
        tracing::info!("the database is there");
    }
    let formats = config.sources.into_iter().map(|source| (source.name, source.format)).collect();
    let settings = Settings {
        grace: config.grace,
        poll: config.poll,
        formats,
        retention: config.retention,
        secrets: Vault::new(config.secrets),
    };
    Ok(Engine::new(store, settings))
}

/// Two orchestrators on one SQLite file would each believe to be alone. The lock lies beside the file and not in the data
/// folder: two folders may name one database.
fn lock_database(config: &Config) -> Result<Option<File>, StartError> {
    let database = match &config.database_url {
        None => {
            make_folder(&config.data)?;
            config.data.join("refit.db")
        }
        Some(url) => match url.strip_prefix("sqlite:") {
            Some(path) => Path::new(path.trim_start_matches("//")).to_owned(),
            None => return Ok(None),
        },
    };
    let mut path = database.clone().into_os_string();
    path.push(".lock");
    let path = std::path::PathBuf::from(path);
    let folder = |source| StartError::Folder { path: path.clone(), source };
    let file = File::create(&path).map_err(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::InUse { path: database }),
        Err(std::fs::TryLockError::Error(source)) => Err(folder(source)),
    }
}

fn make_folder(path: &Path) -> Result<(), StartError> {
    std::fs::create_dir_all(path).map_err(|source| StartError::Folder { path: path.to_owned(), source })
}

/// Why an orchestrator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error(
        "failed to listen on {address}: {source}; is another orchestrator running? choose another with --listen"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// Not on loopback, and nobody could be told apart.
    #[error(
        "failed to start on {address}: anybody who reaches it could run code on your workers, and there is no token \
         yet; listen on 127.0.0.1, make one with `refit token create --name NAME --role admin`, then start again"
    )]
    NoTokens {
        /// The address.
        address: SocketAddr,
    },
    /// The database cannot be used.
    #[error("{0}")]
    Database(#[from] crate::store::StoreError),
    /// The settings name no database that there is. The URL is not told, for it may hold a password.
    #[error("failed to use the database: its URL must begin with sqlite: or postgres://")]
    DatabaseUrl,
    /// The settings name a place of blobs that no client can be made for.
    #[error("{0}; change `blobs` in refit.yaml")]
    Blobs(String),
    /// A webhook cannot work.
    #[error("{0}")]
    Hook(#[from] HookProblem),
    /// Another orchestrator uses the SQLite database.
    #[error(
        "failed to use {path}: another orchestrator is running on it; choose another with --data, or PostgreSQL with \
         --database-url for several orchestrators"
    )]
    InUse {
        /// The database.
        path: std::path::PathBuf,
    },
    /// A folder cannot be made.
    #[error("failed to prepare {path}: {source}")]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

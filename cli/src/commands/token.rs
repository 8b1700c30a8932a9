//! `refit token`: who may do what. Through the server, or on its database when one is named: a server that is to
//! listen on more than loopback does not start before its first token is there.

use anyhow::Context as _;
use refit_orchestrator::engine::Engine;
use refit_workflows::wire::{CreateToken, TokenView};

use super::first;
use crate::args::{Direct, Remote, TokenCommand};
use crate::client::Client;
use crate::exit::Exit;
use crate::render::{self, GOOD, clean, paint, time::now};
use crate::settings::Settings;

/// Where tokens are kept.
enum Keeper {
    Server(Client),
    Database(Box<Engine>),
}

impl Keeper {
    async fn choose(direct: &Direct, remote: &Remote) -> anyhow::Result<Self> {
        if direct.database.data.is_none() && direct.database.database_url.is_none() {
            return Ok(Self::Server(Client::new(remote)?));
        }
        let config = Settings::database(&direct.database);
        let engine =
            refit_orchestrator::server::open_engine(config).await.context("failed to open the database")?;
        Ok(Self::Database(Box::new(engine)))
    }

    async fn create(&self, create: CreateToken) -> anyhow::Result<TokenView> {
        Ok(match self {
            Self::Server(client) => client.create_token(&create).await?,
            Self::Database(engine) => engine.create_token(create).await?,
        })
    }

    async fn list(&self) -> anyhow::Result<Vec<TokenView>> {
        Ok(match self {
            Self::Server(client) => client.tokens().await?,
            Self::Database(engine) => engine.tokens().await?,
        })
    }

    async fn revoke(&self, id: &str) -> anyhow::Result<TokenView> {
        Ok(match self {
            Self::Server(client) => client.revoke_token(id).await?,
            Self::Database(engine) => engine.revoke_token(id).await?,
        })
    }
}

/// Makes, lists or revokes.
pub(crate) async fn run(command: TokenCommand, remote: &Remote) -> anyhow::Result<Exit> {
    match command {
        TokenCommand::Create { name, role, groups, days, direct, output } => {
            let keeper = Keeper::choose(&direct, remote).await?;
            let create = CreateToken { name, role, groups, days };
            let token = keeper.create(create).await.context("failed to make a token")?;
            render::answer(output.format, &token, || render::model::new_token(&token, now()))?;
        }
        TokenCommand::List { limit, direct, output } => {
            let keeper = Keeper::choose(&direct, remote).await?;
            let tokens = first(keeper.list().await.context("failed to list tokens")?, limit);
            let none = "no tokens; on loopback none is needed until the first is made";
            render::listing(output.format, &tokens, none, || render::model::tokens(&tokens, now()))?;
        }
        TokenCommand::Revoke { id, direct, output } => {
            let keeper = Keeper::choose(&direct, remote).await?;
            let token = keeper.revoke(&id).await.with_context(|| format!("failed to revoke {id}"))?;
            render::answer(output.format, &token, || {
                format!(
                    "{} token {} of {} is revoked",
                    paint(GOOD, "✓"),
                    clean(&token.id),
                    clean(&token.name)
                )
            })?;
        }
    }
    Ok(Exit::Ok)
}

//! `refit token`.

use clap::{Args, Subcommand};
use refit_workflows::wire::Role;

use super::common::{Limit, Output};
use super::processes::Database;
use super::values::{name, role, token_id};

/// `refit token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is shown once
    #[command(after_help = "\
The first token of a server that is to listen on more than loopback is made on its database, before it starts:

  refit token create --name ops --role admin --database-url postgres://refit@db/refit

From then on every request needs a token, on loopback too.")]
    Create {
        /// Who or what will hold it; shown as the author of what it does
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it may do: viewer looks, operator sends and starts and approves, worker runs steps, admin everything
        #[arg(long, value_name = "ROLE", value_parser = role())]
        role: Role,
        /// A group its holder belongs to, which approvals may name; may be given several times
        #[arg(long = "group", value_name = "GROUP", value_parser = name)]
        groups: Vec<String>,
        /// Days until it expires [default: 90]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: Option<u32>,
        #[command(flatten)]
        direct: Direct,
        #[command(flatten)]
        output: Output,
    },
    /// List the tokens, without their secrets
    List {
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        direct: Direct,
        #[command(flatten)]
        output: Output,
    },
    /// End a token at once
    Revoke {
        /// The token's id, from `refit token list`
        #[arg(value_parser = token_id)]
        id: String,
        #[command(flatten)]
        direct: Direct,
        #[command(flatten)]
        output: Output,
    },
}

/// Acting on the database itself: for the first token, and for a server that is down.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Without a server")]
pub(crate) struct Direct {
    #[command(flatten)]
    pub(crate) database: Database,
}

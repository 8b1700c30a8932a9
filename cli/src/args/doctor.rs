//! `refit doctor`.

use clap::Args;

use super::common::Output;
use super::processes::{Broker, ConfigFile, Place};

/// Check database, broker, disk, clocks and versions, and say what to do
///
/// Looks at what the settings of an orchestrator name (the same flags, variables and file as `refit serve`), at the
/// server, and at this host. Changes nothing. Ends with 1 when something does not work.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit doctor
  refit doctor --config /etc/refit.yaml -o json
  refit doctor --database-url postgres://refit@db/refit --amqp-url amqp://broker --server http://refit.internal:7433")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) broker: Broker,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    #[command(flatten)]
    pub(crate) output: Output,
}

//! `refit completion`: a script that teaches a shell the commands.

use crate::exit::Exit;
use crate::{args, render};

/// Prints the script.
pub(crate) fn run(shell: clap_complete::Shell) -> anyhow::Result<Exit> {
    // Into memory first: the generator would panic on a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "refit", &mut script);
    render::print_raw(&script)?;
    Ok(Exit::Ok)
}

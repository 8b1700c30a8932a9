//! The program's own log: to standard error, as text or JSON lines, as loud as asked. Never writes to standard
//! output, which belongs to the commands' answers.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::{LogFormat, Logging};

/// Starts the log. `quiet` is the level of Refit's own parts when no `-v` is given; each `-v` adds one step.
/// `REFIT_LOG` (a tracing filter, such as `refit_workers=debug`) overrides both.
pub(crate) fn start(options: &Logging, quiet: Level) {
    let level =
        ["error", "warn", "info", "debug", "trace"][(quiet as usize + usize::from(options.verbose)).min(4)];
    // What libraries log of trouble, Refit's own parts tell in their own words, with what to do.
    let others = if options.verbose > 2 { "info" } else { "off" };
    let default = format!(
        "{others},refit={level},refit_orchestrator={level},refit_workers={level},refit_workflows={level}"
    );
    let filter = EnvFilter::try_from_env("REFIT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A log that is started twice stays as it was.
    let _ = match options.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            let colour =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            builder.with_ansi(colour).with_target(false).try_init()
        }
    };
}

/// How loud a command is by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Errors alone: for commands with a display of their own.
    Error = 0,
    /// Warnings too.
    Warn = 1,
    /// What happens, too: for services.
    Info = 2,
}

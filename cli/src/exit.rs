//! The exit codes scripts rely on, and which error ends with which. Every end of the program goes through here;
//! no other file names a number.

use std::process::ExitCode;

use refit_orchestrator::StartError;
use refit_orchestrator::engine::EngineError;

use crate::client::ClientError;
use crate::render;

/// How the program ends. The numbers are promised in the help and in the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// What was asked about failed or was rejected.
    Failed = 1,
    /// The command line or the settings make no sense. clap ends with the same number.
    Usage = 2,
    /// A workflow definition is invalid.
    Definition = 3,
    /// No orchestrator, or one that cannot reach its database.
    Unreachable = 4,
    /// There is no such thing, or the orchestrator refused.
    Refused = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A mistake in what was typed or configured that the parser cannot see by itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The exit code an error stands for.
pub(crate) fn of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(client) = cause.downcast_ref::<ClientError>() {
            return client.exit();
        }
        if let Some(engine) = cause.downcast_ref::<EngineError>() {
            return of_engine(engine);
        }
        if let Some(start) = cause.downcast_ref::<StartError>() {
            return of_start(start);
        }
        if cause.is::<Usage>() {
            return Exit::Usage;
        }
        if cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
        {
            // The reader of our output has seen enough (`| head`): that is no failure of ours.
            return Exit::Ok;
        }
    }
    Exit::Failed
}

/// The same answers as over HTTP, for what acts on the database itself.
fn of_engine(error: &EngineError) -> Exit {
    match error {
        EngineError::Definition(_) => Exit::Definition,
        EngineError::Store(_) => Exit::Unreachable,
        EngineError::NotFound(_)
        | EngineError::Refused { .. }
        | EngineError::Over(_)
        | EngineError::Invalid { .. }
        | EngineError::Malformed(_)
        | EngineError::Forbidden(_) => Exit::Refused,
    }
}

/// What nobody can start with is a mistake in the settings; what stands in the way on this host is not.
fn of_start(error: &StartError) -> Exit {
    match error {
        StartError::Hook(_) | StartError::DatabaseUrl | StartError::Blobs(_) => Exit::Usage,
        StartError::Listen { .. }
        | StartError::NoTokens { .. }
        | StartError::Database(_)
        | StartError::InUse { .. }
        | StartError::Folder { .. } => Exit::Failed,
    }
}

/// Tells the error on standard error and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let exit = of(error);
    if exit != Exit::Ok {
        render::error(error);
    }
    exit.into()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use refit_workflows::wire::ProblemDetails;

    use super::*;

    fn problem(status: u16, kind: &str) -> anyhow::Error {
        let problem = ProblemDetails { status, kind: kind.to_owned(), ..ProblemDetails::default() };
        ClientError::Problem(Box::new(problem)).into()
    }

    #[test]
    fn every_answer_has_its_exit_code() {
        for (status, kind, exit) in [
            (400, "invalid", Exit::Refused),
            (401, "unauthorized", Exit::Refused),
            (403, "forbidden", Exit::Refused),
            (404, "not-found", Exit::Refused),
            (409, "run-is-over", Exit::Refused),
            (422, "definition-invalid", Exit::Definition),
            (422, "malformed", Exit::Refused),
            (500, "internal", Exit::Failed),
            (503, "database-unavailable", Exit::Unreachable),
        ] {
            assert_eq!(of(&problem(status, kind)), exit, "{status}");
        }
    }

    #[test]
    fn context_does_not_hide_the_code() {
        let wrapped = Err::<(), _>(problem(404, "not-found")).context("failed to show churn/1").unwrap_err();
        assert_eq!(of(&wrapped), Exit::Refused);
        assert_eq!(of(&Usage("no".to_owned()).into()), Exit::Usage);
        assert_eq!(of(&StartError::DatabaseUrl.into()), Exit::Usage);
        assert_eq!(of(&StartError::InUse { path: "refit.db".into() }.into()), Exit::Failed);
        assert_eq!(of(&anyhow::anyhow!("anything else")), Exit::Failed);
    }

    #[test]
    fn a_closed_pipe_is_not_a_failure() {
        let broken = anyhow::Error::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(of(&broken.context("failed to print")), Exit::Ok);
    }
}

//! A word beside an empty listing: that nothing here has the name it was filtered by, which is a slip more often than
//! not. Must never happen here: a change of the answer or of the exit code, for scripts rely on both.

use std::fmt::Display;

use crate::client::{Client, ClientError};
use crate::render;

/// Tells that there is no such workflow. One that was deleted is none; a listing that finds runs of it does not ask.
pub(super) async fn workflow(client: &Client, name: Option<&str>) {
    let Some(name) = name else { return };
    if let Err(ClientError::Problem(problem)) = client.workflow(name).await
        && problem.status == 404
    {
        tell(format_args!("there is no workflow {name}: `refit workflow list` shows them"));
    }
}

/// Tells that no event that is kept has this source.
pub(super) async fn event_source(client: &Client, source: Option<&str>) {
    let Some(source) = source else { return };
    if let Ok(events) = client.events(&any_of(source)).await
        && events.is_empty()
    {
        tell(format_args!("no event has the source {source}: `refit event list` shows which there are"));
    }
}

/// Tells that no dead letter has this source.
pub(super) async fn dead_letter_source(client: &Client, source: Option<&str>) {
    let Some(source) = source else { return };
    if let Ok(letters) = client.dead_letters(&any_of(source)).await
        && letters.is_empty()
    {
        tell(format_args!(
            "no dead letter has the source {source}: `refit deadletter list` shows which there are"
        ));
    }
}

fn any_of(source: &str) -> [(&'static str, String); 2] {
    [("source", source.to_owned()), ("limit", "1".to_owned())]
}

fn tell(words: impl Display) {
    render::note(render::clean(&words.to_string()));
}

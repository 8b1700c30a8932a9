//! `refit deadletter`: what was set aside, tried again or dropped. Several letters are several requests: one that is still
//! no event holds up no other.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use refit_workflows::event::EVENT_BYTES_MAX;
use refit_workflows::wire::{DeadLetterView, Receipt, RetriedDeadLetter, RetryDeadLetter};
use serde::Serialize;
use serde_json::Value;

use super::unknown;
use crate::args::{Chosen, DeadLetterCommand};
use crate::client::{Client, ClientError};
use crate::exit::{Exit, Usage};
use crate::render::{self, time::now};

/// How many letters one listing asks for.
const PAGE: usize = 1000;

/// What became of one letter.
#[derive(Debug, Serialize)]
pub(crate) struct Became {
    /// Its number.
    pub(crate) seq: i64,
    /// `recorded | sent_again | dropped | still_dead | gone`.
    pub(crate) became: &'static str,
    /// What was recorded, or is sent again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) events: Vec<Receipt>,
    /// Why it is still dead, or what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Lists, shows, tries again or drops.
pub(crate) async fn run(command: DeadLetterCommand, client: &Client) -> anyhow::Result<Exit> {
    match command {
        DeadLetterCommand::List { source, since, limit, output } => {
            let mut query = vec![("limit", limit.limit.to_string())];
            query.extend(source.clone().map(|source| ("source", source)));
            query.extend(since.map(|since| ("since", since.moment(now()).to_string())));
            let letters = client.dead_letters(&query).await.context("failed to list dead letters")?;
            render::listing(output.format, &letters, "no dead letters", || {
                render::deadletter::list(&letters, now())
            })?;
            if letters.is_empty() {
                unknown::dead_letter_source(client, source.as_deref()).await;
            }
            Ok(Exit::Ok)
        }
        DeadLetterCommand::Show { seq, output } => {
            let letter =
                client.dead_letter(seq).await.with_context(|| format!("failed to show dead letter {seq}"))?;
            render::answer(output.format, &letter, || render::deadletter::show(&letter, now()))?;
            Ok(Exit::Ok)
        }
        DeadLetterCommand::Retry { chosen, event, output } => {
            if event.is_some() && chosen.seqs.len() != 1 {
                return Err(Usage("--event stands for one letter: name its number".to_owned()).into());
            }
            let retry = RetryDeadLetter { event: event.as_deref().map(read_event).transpose()? };
            let mut became = Vec::new();
            for seq in choose(client, &chosen).await? {
                let answer = client.retry_dead_letter(seq, &retry).await;
                let gone = |RetriedDeadLetter { events, sent_again_to }| {
                    let became = if sent_again_to.is_some() { "sent_again" } else { "recorded" };
                    Became { seq, became, events, reason: None }
                };
                became.push(judge(seq, answer.map(gone))?);
            }
            tell(output.format, &became)
        }
        DeadLetterCommand::Drop { chosen, yes, output } => {
            if chosen.all && !yes {
                return Err(
                    Usage("--all drops every dead letter for good: say --yes as well".to_owned()).into()
                );
            }
            let mut became = Vec::new();
            for seq in choose(client, &chosen).await? {
                let dropped =
                    |_: DeadLetterView| Became { seq, became: "dropped", events: Vec::new(), reason: None };
                became.push(judge(seq, client.drop_dead_letter(seq).await.map(dropped))?);
            }
            tell(output.format, &became)
        }
    }
}

/// The numbers of the letters that are meant: those there are now, so that it ends although more come in.
async fn choose(client: &Client, chosen: &Chosen) -> anyhow::Result<Vec<i64>> {
    if !chosen.seqs.is_empty() {
        return Ok(chosen.seqs.clone());
    }
    let mut query = vec![("limit", PAGE.to_string()), ("order", "oldest".to_owned())];
    query.extend(chosen.source.clone().map(|source| ("source", source)));
    query.extend(chosen.since.map(|since| ("since", since.moment(now()).to_string())));
    let newest =
        client.dead_letters(&[("limit", "1".to_owned())]).await.context("failed to list dead letters")?;
    let Some(last) = newest.first().map(|letter| letter.seq) else { return Ok(Vec::new()) };
    let mut seqs: Vec<i64> = Vec::new();
    loop {
        let mut query = query.clone();
        query.extend(seqs.last().map(|after| ("after", after.to_string())));
        let page = client.dead_letters(&query).await.context("failed to list dead letters")?;
        let full = page.len() == PAGE;
        seqs.extend(page.iter().map(|letter| letter.seq).filter(|&seq| seq <= last));
        if !full || page.last().is_some_and(|letter| letter.seq > last) {
            return Ok(seqs);
        }
    }
}

/// A letter's own failure is what became of it; anything else ends the command.
fn judge(seq: i64, answer: Result<Became, ClientError>) -> anyhow::Result<Became> {
    match answer {
        Err(ClientError::Problem(problem)) if matches!(problem.status, 404 | 422) => {
            let became = if problem.status == 404 { "gone" } else { "still_dead" };
            Ok(Became { seq, became, events: Vec::new(), reason: Some(problem.detail) })
        }
        answer => answer.with_context(|| format!("failed at dead letter {seq}; those before are done")),
    }
}

fn tell(format: crate::args::Format, became: &[Became]) -> anyhow::Result<Exit> {
    render::listing(format, became, "no dead letters", || render::deadletter::became(became))?;
    let any = |what: &str| became.iter().any(|letter| letter.became == what);
    Ok(match (any("still_dead"), any("gone")) {
        (true, _) => Exit::Failed,
        (false, true) => Exit::Refused,
        (false, false) => Exit::Ok,
    })
}

fn read_event(path: &Path) -> anyhow::Result<Value> {
    let failed = || format!("failed to read {}", path.display());
    let mut text = String::new();
    let most = EVENT_BYTES_MAX as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().take(most).read_to_string(&mut text).with_context(failed)?;
    } else {
        std::fs::File::open(path)
            .with_context(failed)?
            .take(most)
            .read_to_string(&mut text)
            .with_context(failed)?;
    }
    if text.len() > EVENT_BYTES_MAX {
        let wrong =
            format!("{}: it is larger than {EVENT_BYTES_MAX} bytes, the most an event may have", failed());
        return Err(Usage(wrong).into());
    }
    serde_json::from_str(&text)
        .map_err(|wrong| Usage(format!("{}: it is not JSON: {wrong}", failed())).into())
}

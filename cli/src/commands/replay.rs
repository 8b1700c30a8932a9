//! `refit event replay` and `refit event replays`: stored events through today's triggers once more.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use refit_workflows::wire::{ReplayFilter, ReplayView};

use crate::args::{EventReplayArgs, Limit, Output};
use crate::client::Client;
use crate::exit::Exit;
use crate::render::{self, count, time::now};

/// How often a replay under way is asked after.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long a server that does not answer is waited for, and after how long that is told.
const AWAY_MAX: Duration = Duration::from_secs(60);
const AWAY_TOLD: Duration = Duration::from_secs(2);

/// Asks for a replay and waits for its end, or shows what it would do.
pub(crate) async fn run(args: EventReplayArgs, client: &Client) -> anyhow::Result<Exit> {
    let now_is = now();
    let filter = ReplayFilter {
        since: args.since.map(|since| since.moment(now_is)),
        until: args.until.map(|until| until.moment(now_is)),
        kind: args.kind,
        source: args.source,
        ids: args.ids,
        workflow: args.workflow,
        limit: args.limit,
    };
    let format = args.output.format;
    if args.dry_run {
        let plan = client.plan_replay(&filter).await.context("failed to plan the replay")?;
        render::answer(format, &plan, || render::replay::plan(&plan))?;
        return Ok(Exit::Ok);
    }
    let mut replay = client.ask_replay(&filter).await.context("failed to replay")?;
    if !args.no_wait {
        if render::to_terminal() && replay.state == "running" {
            let events = count(replay.events, "event");
            let number = replay.replay;
            render::note(format_args!(
                "replay {number}: {events} to go through; Ctrl-C leaves it to the server, `refit event replays` follows it"
            ));
        }
        replay = follow(client, replay, AWAY_MAX).await?;
    }
    render::answer(format, &replay, || render::replay::list(std::slice::from_ref(&replay), now()))?;
    Ok(if replay.state == "stopped" { Exit::Failed } else { Exit::Ok })
}

/// Waits until a replay is over; for a server that is away only `away_max`, for it goes on without anybody who waits.
async fn follow(client: &Client, mut replay: ReplayView, away_max: Duration) -> anyhow::Result<ReplayView> {
    let (mut away, mut told): (Option<Instant>, bool) = (None, false);
    while replay.state == "running" {
        tokio::time::sleep(LOOK_EVERY).await;
        match client.replay(replay.replay).await {
            Ok(now) => (replay, away) = (now, None),
            Err(wrong) if wrong.is_away() => {
                let since = *away.get_or_insert_with(Instant::now);
                if since.elapsed() > away_max {
                    let number = replay.replay;
                    return Err(wrong).context(format!(
                        "failed to follow replay {number}; it goes on when the server is back: `refit event replays` tells"
                    ));
                }
                if since.elapsed() > AWAY_TOLD && !std::mem::replace(&mut told, true) {
                    render::note(format_args!(
                        "no answer from the server; trying again for {} s",
                        away_max.as_secs()
                    ));
                }
            }
            Err(wrong) => return Err(wrong).context("failed to follow the replay; it goes on all the same"),
        }
    }
    Ok(replay)
}

/// Lists replays, or stops one.
pub(crate) async fn list(
    stop: Option<i64>,
    limit: Limit,
    output: Output,
    client: &Client,
) -> anyhow::Result<Exit> {
    let replays = match stop {
        Some(seq) => {
            vec![client.stop_replay(seq).await.with_context(|| format!("failed to stop replay {seq}"))?]
        }
        None => {
            let query = [("limit", limit.limit.to_string())];
            client.replays(&query).await.context("failed to list replays")?
        }
    };
    render::listing(output.format, &replays, "no replays", || render::replay::list(&replays, now()))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client of a server that is not there (any more).
    fn of_nobody() -> Client {
        // Somebody else in this process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Client::at(&format!("http://127.0.0.1:{port}"), None).unwrap()
    }

    #[tokio::test]
    async fn a_server_that_stays_away_is_not_waited_for_without_end() {
        let running: ReplayView = serde_json::from_value(serde_json::json!({
            "replay": 7, "state": "running", "by": "ada", "asked_at": "2026-01-05T08:00:00Z", "finished_at": null,
            "filter": {}, "events": 9, "routed": 0, "decisions": {},
        }))
        .unwrap();
        let away_max = LOOK_EVERY * 2;
        let client = of_nobody();
        let wrong = tokio::time::timeout(AWAY_MAX, follow(&client, running, away_max))
            .await
            .expect("it waits on")
            .unwrap_err();
        assert!(wrong.to_string().starts_with("failed to follow replay 7; it goes on"), "{wrong}");
        assert_eq!(crate::exit::of(&wrong), Exit::Unreachable);
    }
}

//! Times for people: `3m ago`, `in 5m`. The only place of the command line that reads the clock; everything that
//! renders takes `now` as an argument.

use std::time::Duration;

use refit_workflows::time::Timestamp;

/// The clock of this host.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

/// How long ago, or how soon, in one unit.
pub(crate) fn relative(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        let ahead = at.since(now);
        return if ahead < Duration::from_secs(1) { "now".to_owned() } else { format!("in {}", unit(ahead)) };
    }
    let ago = now.since(at);
    if ago < Duration::from_secs(1) { "now".to_owned() } else { format!("{} ago", unit(ago)) }
}

/// [`relative`] with the exact time beside it.
pub(crate) fn exact(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({at})", relative(at, now))
}

/// The moment in UTC, to the second: for times that are not seen from now.
pub(crate) fn second(at: Timestamp) -> String {
    at.to_string().chars().take("2026-01-31T08:00:00".len()).collect::<String>().replace('T', " ")
}

/// The moment in UTC, to the minute and with its zone.
pub(crate) fn minute(at: Timestamp) -> String {
    let text: String = second(at).chars().take("2026-01-31 08:00".len()).collect();
    format!("{text} UTC")
}

/// How long from `start` to `end`, or to now while there is no end.
pub(crate) fn took(start: Option<Timestamp>, end: Option<Timestamp>, now: Timestamp) -> Option<String> {
    start.map(|start| refit_workflows::time::show_duration(end.unwrap_or(now).since(start)))
}

fn unit(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_relative_and_short() {
        let now = Timestamp::from_millis(1_000_000_000);
        let ago = |seconds: u64| relative(now.minus(Duration::from_secs(seconds)), now);
        assert_eq!(
            [ago(0), ago(59), ago(180), ago(7300), ago(200_000)],
            ["now", "59s ago", "3m ago", "2h ago", "2d ago"]
        );
        assert_eq!(relative(now.plus(Duration::from_secs(300)), now), "in 5m");
        assert_eq!(took(None, None, now), None);
        assert_eq!(took(Some(now.minus(Duration::from_millis(4200))), None, now).as_deref(), Some("4.2s"));
    }
}

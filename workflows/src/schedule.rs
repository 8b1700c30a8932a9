//! Cron schedules with a time zone: when is the next slot? Five fields as in crontab(5), in an IANA zone whose rules
//! are compiled in. Never reads a clock; slots are asked for from a given instant on.
//!
//! At the ends of daylight saving: a fixed time that does not exist (02:30 in spring) fires when the clocks have been
//! put forward, at 03:00; a fixed time that comes twice (02:30 in autumn) fires the first time alone. Intervals
//! (`*/30`) go on by elapsed time through both.

use std::sync::Arc;

use cron::Cron;
use cron::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::time::Timestamp;

/// The longest cron expression, in bytes.
pub const CRON_BYTES_MAX: usize = 200;

/// The zone of a schedule that names none.
const DEFAULT_ZONE: &str = "UTC";

/// Where the search for a first slot begins: any instant does, for an expression that never fires.
const SEARCH_FROM: Timestamp = Timestamp::from_millis(1_704_067_200_000);

/// A schedule that fires at some time, and at most once a minute.
#[derive(Clone, Debug)]
pub struct Schedule {
    source: String,
    zone_name: String,
    cron: Arc<Cron>,
    zone: TimeZone,
}

impl Schedule {
    /// Parses five cron fields (minute, hour, day of month, month, day of week; names, ranges, steps, lists, `L`, `W`
    /// and `#` allowed; 0 and 7 are Sunday) and an IANA time zone (`UTC` when none).
    ///
    /// # Errors
    /// Anything but five sound fields, an unknown zone, or an expression that never fires, in words.
    pub fn parse(cron: &str, timezone: Option<&str>) -> Result<Self, String> {
        if cron.len() > CRON_BYTES_MAX {
            return Err(format!("a cron expression has at most {CRON_BYTES_MAX} bytes"));
        }
        let fields = cron.split_whitespace().count();
        if fields != 5 {
            let seconds = if fields == 6 {
                "; seconds are not supported: a schedule fires at most once a minute"
            } else {
                ""
            };
            return Err(format!(
                "`{cron}` has {fields} field(s), but a cron expression has five: minute, hour, day of month, month, day \
                 of week, as in `0 3 * * MON`{seconds}"
            ));
        }
        let parsed = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(cron)
            .map_err(|error| explain(cron, &error.to_string()))?;
        let zone_name = timezone.unwrap_or(DEFAULT_ZONE);
        let zone = TimeZoneDatabase::bundled().get(zone_name).map_err(|_| {
            format!("`{zone_name}` is not a time zone: use a name of the IANA database, as in `Europe/Berlin` or `UTC`")
        })?;
        let schedule =
            Self { source: cron.to_owned(), zone_name: zone_name.to_owned(), cron: Arc::new(parsed), zone };
        if schedule.next_after(SEARCH_FROM).is_none() {
            return Err(format!("`{cron}` never fires: there is no such day"));
        }
        Ok(schedule)
    }

    /// The expression and the zone, as written (`UTC` when none was).
    pub fn source(&self) -> (&str, &str) {
        (&self.source, &self.zone_name)
    }

    /// The first slot strictly after `at`; none when there is no further one.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        // Whole seconds: the slot at the second `at` lies in has begun already.
        let second = jiff::Timestamp::from_second(at.as_millis().div_euclid(1000)).ok()?;
        let next = self.cron.find_next_occurrence(&second.to_zoned(self.zone.clone()), false).ok()?;
        Some(Timestamp::from_millis(next.timestamp().as_millisecond()))
    }
}

/// What is wrong with an expression of five fields: the first field that is wrong on its own, else the reader's words.
fn explain(cron: &str, error: &str) -> String {
    const FIELDS: [(&str, &str); 5] = [
        ("a minute", "0 to 59"),
        ("an hour", "0 to 23"),
        ("a day of the month", "1 to 31, or L for the last"),
        ("a month", "1 to 12, or JAN to DEC"),
        ("a day of the week", "0 to 7, or SUN to SAT"),
    ];
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let alone = |place: usize, field: &str| {
        let mut fields = ["*"; 5];
        fields[place] = field;
        parser.parse(&fields.join(" ")).is_ok()
    };
    let wrong =
        cron.split_whitespace().zip(FIELDS).enumerate().find(|(place, (field, _))| !alone(*place, field));
    match wrong {
        Some((_, (field, (what, range)))) => format!(
            "`{cron}` is not a cron expression: `{field}` is not {what}, which is {range}, or `*`, lists, ranges and steps \
             (`*/5`) of these"
        ),
        None => format!("`{cron}` is not a cron expression: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(cron, Some(zone)).unwrap();
        let mut at = Timestamp::parse(from).unwrap();
        (0..count)
            .map(|_| {
                at = schedule.next_after(at).unwrap();
                at.to_string().replace(":00.000Z", "Z")
            })
            .collect()
    }

    #[test]
    fn slots_follow_the_zone() {
        assert_eq!(
            slots("0 3 * * MON", "UTC", "2026-01-01T00:00:00Z", 2),
            ["2026-01-05T03:00Z", "2026-01-12T03:00Z"]
        );
        assert_eq!(
            slots("0 3 * * MON", "Europe/Berlin", "2026-01-01T00:00:00Z", 1),
            ["2026-01-05T02:00Z"],
            "Berlin is an hour ahead in winter"
        );
        assert_eq!(slots("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["2028-02-29T00:00Z"]);
        assert_eq!(
            slots("0 0 * * 0", "UTC", "2026-01-01T00:00:00Z", 1),
            slots("0 0 * * 7", "UTC", "2026-01-01T00:00:00Z", 1)
        );
    }

    #[test]
    fn the_next_slot_is_strictly_later() {
        let schedule = Schedule::parse("*/15 * * * *", None).unwrap();
        let next = |at: &str| schedule.next_after(Timestamp::parse(at).unwrap()).unwrap().to_string();
        assert_eq!(next("2026-01-01T00:00:00Z"), "2026-01-01T00:15:00.000Z");
        assert_eq!(next("2026-01-01T00:14:59.999Z"), "2026-01-01T00:15:00.000Z");
        assert_eq!(next("2026-01-01T00:15:00.001Z"), "2026-01-01T00:30:00.000Z");
        assert_eq!(schedule.source(), ("*/15 * * * *", "UTC"));
        assert_eq!(schedule.next_after(Timestamp::from_millis(i64::MAX)), None);
    }

    /// Berlin goes from 02:00 to 03:00 (01:00 UTC) on 2026-03-29.
    #[test]
    fn in_spring_a_time_that_does_not_exist_fires_when_clocks_go_forward() {
        assert_eq!(
            slots("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
            ["2026-03-28T01:30Z", "2026-03-29T01:00Z", "2026-03-30T00:30Z"]
        );
        assert_eq!(
            slots("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:10:00Z", 3),
            ["2026-03-29T00:30Z", "2026-03-29T01:00Z", "2026-03-29T01:30Z"]
        );
    }

    /// Berlin goes from 03:00 back to 02:00 (01:00 UTC) on 2026-10-25.
    #[test]
    fn in_autumn_a_time_that_comes_twice_fires_once_and_intervals_go_on() {
        assert_eq!(
            slots("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]
        );
        assert_eq!(
            slots("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", 5),
            [
                "2026-10-25T00:00Z",
                "2026-10-25T00:30Z",
                "2026-10-25T01:00Z",
                "2026-10-25T01:30Z",
                "2026-10-25T02:00Z"
            ]
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_the_reason() {
        for (cron, zone, reason) in [
            ("* * * * * *", None, "seconds are not supported"),
            ("* * * *", None, "five"),
            ("", None, "five"),
            ("@daily", None, "five"),
            ("@every 1ns", None, "five"),
            ("60 * * * *", None, "not a cron expression"),
            ("* * * * FUN", None, "not a cron expression"),
            ("*/0 * * * *", None, "not a cron expression"),
            ("0 0 31 2 *", None, "never fires"),
            ("0 0 30 2 *", Some("Europe/Berlin"), "never fires"),
            ("0 3 * * *", Some("Mars/X"), "not a time zone"),
            ("0 3 * * *", Some(""), "not a time zone"),
            ("0 3 * * *", Some("../../etc/passwd"), "not a time zone"),
        ] {
            let error = Schedule::parse(cron, zone).expect_err(cron);
            assert!(error.contains(reason), "{cron}: {error}");
        }
        assert!(Schedule::parse(&"0,".repeat(3000), None).is_err());
    }
}

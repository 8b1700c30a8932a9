//! The form of a `*.test.yaml` file: what is given, what the steps come to, what is expected. Knows the form alone; must
//! never happen here: a simulation, or a guess at what was meant.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use refit_workflows::gate::Verdict;
use refit_workflows::names::RunName;
use refit_workflows::time::{Timestamp, parse_duration};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, de};
use serde_json::{Map, Value};
use serde_yaml::Spanned;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestFile {
    /// The workflow file under test, beside this one; `churn.yaml` for `churn.test.yaml` when it is left out.
    pub(super) workflow: Option<PathBuf>,
    /// Further workflow files that are registered with it.
    #[serde(default)]
    pub(super) also: Vec<PathBuf>,
    pub(super) cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// Its name.
    pub(super) case: Spanned<String>,
    /// Where the virtual clock stands at the beginning.
    #[serde(default = "monday_morning")]
    pub(super) start: Timestamp,
    /// The champion that is there before.
    pub(super) champion: Option<ChampionGiven>,
    /// What happens from outside, in order.
    #[serde(default)]
    pub(super) given: Vec<Given>,
    /// What steps come to, by `STEP`, `STEP[AXIS=VALUE]`, or `WORKFLOW/STEP` for a step of another workflow.
    #[serde(default)]
    pub(super) steps: BTreeMap<String, Lines>,
    /// How long the case goes on after its start; without it until everything has come to rest.
    pub(super) until: Option<Span>,
    pub(super) expect: Expect,
}

/// 2026-01-05, 08:00 UTC.
fn monday_morning() -> Timestamp {
    const MONDAY: i64 = 1_767_600_000_000;
    Timestamp::from_millis(MONDAY)
}

/// `champion`: version 1 of the workflow's model.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChampionGiven {
    #[serde(default)]
    pub(super) metrics: BTreeMap<String, f64>,
}

/// One thing that happens from outside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    /// An event arrives.
    pub(super) event: Option<EventGiven>,
    /// Somebody starts a run.
    pub(super) run: Option<RunGiven>,
    /// Somebody cancels a run.
    pub(super) cancel: Option<RunName>,
    /// How long after what comes before it.
    #[serde(default)]
    pub(super) after: Span,
    /// How often an event arrives.
    pub(super) times: Option<u32>,
    /// How long lies between these times.
    #[serde(default)]
    pub(super) every: Span,
}

/// An event that arrives. Ids are `e1`, `e2`, … in order where none is given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventGiven {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) id: Option<String>,
    pub(super) source: Option<String>,
    pub(super) subject: Option<String>,
    #[serde(default)]
    pub(super) data: Value,
}

/// A run that is started by hand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunGiven {
    /// The workflow; that under test when it is left out.
    pub(super) workflow: Option<String>,
    #[serde(default)]
    pub(super) params: Map<String, Value>,
}

/// What a step comes to: one line for every attempt, or a list of them, attempt by attempt.
#[derive(Debug)]
pub(super) struct Lines(pub(super) Vec<Line>);

/// What one attempt, gate or approval comes to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    /// How long it takes.
    #[serde(default)]
    pub(super) takes: Span,
    #[serde(default)]
    pub(super) outputs: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) metrics: BTreeMap<String, f64>,
    /// It exits with this code; 75 asks for another try.
    pub(super) exit: Option<u8>,
    /// Its worker is lost.
    #[serde(default)]
    pub(super) lost: bool,
    /// A gate's verdict, whatever its checks say.
    pub(super) verdict: Option<Verdict>,
    /// Who approves.
    pub(super) approves: Option<String>,
    /// Who rejects.
    pub(super) rejects: Option<String>,
}

/// What is expected; what is left out may be anything.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// The runs, all of them, in the order of their creation.
    pub(super) runs: Option<Vec<ExpectRun>>,
    /// What became of events, by id: every decision, in order.
    #[serde(default)]
    pub(super) decisions: BTreeMap<String, Vec<String>>,
    /// The version the workflow's alias points to at the end; `none`.
    pub(super) champion: Option<Version>,
    /// The types of the events that workflows emitted, in order.
    pub(super) emitted: Option<Vec<String>>,
}

/// What is expected of one run.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectRun {
    pub(super) run: Option<RunName>,
    pub(super) state: Option<String>,
    /// Text that its reason contains.
    pub(super) reason: Option<String>,
    /// How many events it stands for.
    pub(super) events: Option<u64>,
    /// Some of its params.
    #[serde(default)]
    pub(super) params: Map<String, Value>,
    /// The states of some of its steps.
    #[serde(default)]
    pub(super) steps: BTreeMap<String, String>,
    /// Steps that began, one after the other.
    #[serde(default)]
    pub(super) order: Vec<String>,
    /// How often some of its steps were tried.
    #[serde(default)]
    pub(super) attempts: BTreeMap<String, u32>,
    #[serde(default)]
    pub(super) verdicts: BTreeMap<String, Verdict>,
    /// The version it promoted; `none`.
    pub(super) promoted: Option<Version>,
    /// From its start to its end.
    pub(super) took: Option<Span>,
}

/// A version of a model, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version(pub(super) Option<i64>);

/// A duration as the language writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "none" => Ok(Self(None)),
            number => number
                .parse()
                .map(|version| Self(Some(version)))
                .map_err(|_| de::Error::custom(format!("`{text}` is no version: write a number, or none"))),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(version) => write!(f, "{version}"),
            None => f.write_str("none"),
        }
    }
}

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Lines;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("what the step comes to (`{ metrics: { auc: 0.9 } }`), or a list of that, attempt by attempt")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Lines, A::Error> {
                Line::deserialize(value::MapAccessDeserializer::new(map)).map(|line| Lines(vec![line]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Lines, A::Error> {
                let lines: Vec<Line> = Vec::deserialize(value::SeqAccessDeserializer::new(list))?;
                if lines.is_empty() {
                    return Err(de::Error::custom("the list of attempts is empty"));
                }
                Ok(Lines(lines))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

#[cfg(test)]
mod tests {
    use refit_workflows::definition::language::{self, Keys};
    use serde::de::DeserializeOwned;

    use super::*;

    /// The keys that a mapping may have, as its reader tells them to one who wrote another.
    fn known<T: DeserializeOwned>() -> Vec<String> {
        let Err(wrong) = serde_json::from_str::<T>("{ \"?\": 1 }") else { return Vec::new() };
        let wrong = wrong.to_string();
        let (_, known) = wrong.split_once("expected ").unwrap();
        known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn what_is_read_is_what_the_language_lists() {
        let same = |keys: &Keys, known: Vec<String>| {
            assert_eq!(keys.names().collect::<Vec<_>>(), known, "{}", keys.name);
        };
        same(&language::TEST_FILE, known::<TestFile>());
        same(&language::CASE, known::<Case>());
        same(&language::CHAMPION_GIVEN, known::<ChampionGiven>());
        same(&language::GIVEN, known::<Given>());
        same(&language::EVENT_GIVEN, known::<EventGiven>());
        same(&language::RUN_GIVEN, known::<RunGiven>());
        same(&language::COMES_TO, known::<Line>());
        same(&language::EXPECT, known::<Expect>());
        same(&language::EXPECT_RUN, known::<ExpectRun>());
    }
}

//! Keys of `*.test.yaml` files: what is given, what the steps come to, what is expected. What reads such a file knows the
//! same keys; a test beside it holds the two against each other.

use super::{Keys, Kind, Naming, Rule, key, some};

/// A file of cases.
pub static TEST_FILE: Keys = Keys {
    name: "test_file",
    owner: "a test file",
    rules: &[],
    keys: &[
        key(
            "workflow",
            Kind::Text,
            "The workflow file under test; without it the one this file is named after.",
        ),
        key(
            "also",
            Kind::List(&Kind::Text),
            "Further workflow files that are registered with it: those it runs, or that listen to it.",
        ),
        key("cases", Kind::List(&Kind::Mapping(&CASE)), "The cases, each played for itself.").required(),
    ],
};

/// One case.
pub static CASE: Keys = Keys {
    name: "case",
    owner: "a case",
    rules: &[],
    keys: &[
        key("case", Kind::Text, "Its name: what holds when it passes.").required(),
        key(
            "start",
            Kind::Time,
            "Where the virtual clock begins; without it at 2026-01-05T08:00:00Z, a Monday.",
        ),
        key("champion", Kind::Mapping(&CHAMPION_GIVEN), "Version 1 of the model, which is there before."),
        key("given", Kind::List(&Kind::Mapping(&GIVEN)), "What happens from outside, in order."),
        key(
            "steps",
            Kind::Map(
                Naming::Any,
                &Kind::Either(&[Kind::Mapping(&COMES_TO), some(&Kind::List(&Kind::Mapping(&COMES_TO)))]),
            ),
            "What steps come to, by STEP, STEP[AXIS=VALUE] or WORKFLOW/STEP; a list speaks of attempt by attempt. Those not \
             named succeed at once.",
        ),
        key(
            "until",
            Kind::Pause,
            "How long it goes on after its start; without it until everything is at rest.",
        ),
        key("expect", Kind::Mapping(&EXPECT), "What is expected; what is left out may be anything.")
            .required(),
    ],
};

/// `champion` of a case.
pub static CHAMPION_GIVEN: Keys = Keys {
    name: "champion_given",
    owner: "a given champion",
    rules: &[],
    keys: &[key("metrics", Kind::Map(Naming::Any, &Kind::Number), "Its metrics.")],
};

/// An item of `given`.
pub static GIVEN: Keys = Keys {
    name: "given",
    owner: "what is given",
    rules: &[Rule::OneAtMost(&["event", "run", "cancel"])],
    keys: &[
        key("event", Kind::Mapping(&EVENT_GIVEN), "An event that arrives."),
        key("run", Kind::Mapping(&RUN_GIVEN), "A run that somebody starts."),
        key("cancel", Kind::Run, "The run that somebody cancels, as in churn/1."),
        key("after", Kind::Pause, "How long after what comes before it; alone it lets time pass."),
        key("times", Kind::Count(0, 10_000), "How often the event arrives."),
        key("every", Kind::Pause, "How long lies between these times."),
    ],
};

/// `given: event`.
pub static EVENT_GIVEN: Keys = Keys {
    name: "event_given",
    owner: "a given event",
    rules: &[],
    keys: &[
        key("type", Kind::Text, "The type of the event.").required(),
        key("id", Kind::Text, "Its id; without it e1, e2 and so on, in order."),
        key("source", Kind::Text, "Its source; without it /test."),
        key("subject", Kind::Text, "Its subject."),
        key("data", Kind::Value, "The data of the event."),
    ],
};

/// `given: run`.
pub static RUN_GIVEN: Keys = Keys {
    name: "run_given",
    owner: "a given run",
    rules: &[],
    keys: &[
        key("workflow", Kind::Text, "The workflow; without it the one under test."),
        key("params", Kind::Map(Naming::Any, &Kind::Value), "Its params."),
    ],
};

/// What an attempt, a gate or an approval comes to.
pub static COMES_TO: Keys = Keys {
    name: "comes_to",
    owner: "what a step comes to",
    rules: &[],
    keys: &[
        key("takes", Kind::Pause, "How long it takes; beyond the step's timeout it fails."),
        key("outputs", Kind::Map(Naming::Any, &Kind::Value), "The outputs it hands back."),
        key("metrics", Kind::Map(Naming::Any, &Kind::Number), "The metrics it hands back."),
        key("exit", Kind::Count(0, 255), "Its exit code; 75 asks for another attempt."),
        key("lost", Kind::Boolean, "Whether its worker is lost."),
        key("verdict", Kind::Word(VERDICTS), "Of a gate: what it comes to, whatever its checks say."),
        key("approves", Kind::Text, "Of an approval: who says yes."),
        key("rejects", Kind::Text, "Of an approval: who says no."),
    ],
};

const VERDICTS: &[&str] = &["pass", "fail", "inconclusive", "error"];

/// `expect`.
pub static EXPECT: Keys = Keys {
    name: "expect",
    owner: "what is expected",
    rules: &[],
    keys: &[
        key("runs", Kind::List(&Kind::Mapping(&EXPECT_RUN)), "All runs, in the order of their creation."),
        key(
            "decisions",
            Kind::Map(Naming::Any, &Kind::List(&Kind::Text)),
            "What became of events, by id: every decision, in order.",
        ),
        key("champion", Kind::Version, "The version under the workflow's alias at the end, or none."),
        key("emitted", Kind::List(&Kind::Text), "The types of the events that workflows emitted, in order."),
    ],
};

/// An item of `expect: runs`.
pub static EXPECT_RUN: Keys = Keys {
    name: "expect_run",
    owner: "an expected run",
    rules: &[],
    keys: &[
        key("run", Kind::Run, "Its name, as in churn/1."),
        key(
            "state",
            Kind::Text,
            "Its state: succeeded, rejected, failed, cancelled, coalesced, running or waiting.",
        ),
        key("reason", Kind::Text, "Text that its reason contains."),
        key("events", Kind::Count(0, u64::MAX), "How many events it stands for."),
        key("params", Kind::Map(Naming::Any, &Kind::Value), "Some of its params."),
        key("steps", Kind::Map(Naming::Any, &Kind::Text), "The states of some of its steps."),
        key("order", Kind::List(&Kind::Text), "Steps that began one after the other."),
        key("attempts", Kind::Map(Naming::Any, &Kind::Count(0, u64::MAX)), "How often steps were tried."),
        key("verdicts", Kind::Map(Naming::Any, &Kind::Word(VERDICTS)), "The verdicts of some of its gates."),
        key("promoted", Kind::Version, "The version it promoted, or none."),
        key("took", Kind::Pause, "From its start to its end."),
    ],
};

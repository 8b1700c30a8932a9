//! Keys outside of steps: the workflow itself, its triggers, params, concurrency and defaults.

use super::steps::{RETRY, STEP};
use super::{Keys, Kind, Naming, Rule, key, some};

/// A workflow.
pub static WORKFLOW: Keys = Keys {
    name: "workflow",
    owner: "a workflow",
    rules: &[],
    keys: &[
        key("workflow", Kind::Name, "The workflow's name; its runs are called NAME/1, NAME/2 and so on.")
            .required(),
        key("description", Kind::Text, "What the workflow is for."),
        key("model", Kind::Name, "The registered model this workflow retrains."),
        key(
            "on",
            Kind::Sized(
                0,
                1000,
                &Kind::List(&Kind::Either(&[
                    Kind::Mapping(&EVENT_TRIGGER),
                    Kind::Mapping(&JOIN_TRIGGER),
                    Kind::Mapping(&CRON_TRIGGER),
                ])),
            ),
            "What starts a run, besides people: events, joins of events, schedules.",
        ),
        key("params", Kind::Map(Naming::Name, &Kind::Mapping(&PARAM)), "The params a run takes, by name."),
        key(
            "concurrency",
            Kind::Mapping(&CONCURRENCY),
            "How many runs go on at once, and what becomes of one more.",
        ),
        key("cooldown", Kind::Duration, "At least this long between the starts of two runs of a key."),
        key("priority", Kind::Count(0, 100), "How urgent its steps are to workers; 50 without it."),
        key(
            "defaults",
            Kind::Mapping(&DEFAULTS),
            "What steps on workers take when they say nothing themselves.",
        ),
        key("steps", some(&Kind::Map(Naming::Name, &Kind::Mapping(&STEP))), "The steps, by name.").required(),
        key(
            "finally",
            some(&Kind::Map(Naming::Name, &Kind::Mapping(&STEP))),
            "Steps that run after all others, however those came out.",
        ),
        key(
            "outputs",
            Kind::Map(Naming::Name, &Kind::Template),
            "What a workflow that runs this one as a step gets; rendered when the run ends.",
        ),
    ],
};

/// What makes a trigger, each the key of one kind.
pub const TRIGGER_KINDS: [&str; 3] = ["event", "all", "cron"];

/// `on: event`.
pub static EVENT_TRIGGER: Keys = Keys {
    name: "event_trigger",
    owner: "an event trigger",
    rules: &[],
    keys: &[
        key("event", Kind::Pattern, "An EventBridge pattern over the whole CloudEvent.").required(),
        key(
            "where",
            Kind::Expression,
            "A condition over the event's attributes, for what a pattern cannot say.",
        ),
        key("by", Kind::Expression, "One batch, and one run, per value over the event's attributes."),
        key(
            "batch",
            Kind::Mapping(&BATCH),
            "When gathered events become a run; without it every event does.",
        ),
        key("params", Kind::Map(Naming::Name, &Kind::Template), "Params of the run, rendered over `batch`."),
    ],
};

/// `on: all`.
pub static JOIN_TRIGGER: Keys = Keys {
    name: "join_trigger",
    owner: "a join",
    rules: &[],
    keys: &[
        key(
            "all",
            Kind::Sized(2, 20, &Kind::List(&Kind::Pattern)),
            "Patterns that must all be seen, in any order; at least two.",
        )
        .required(),
        key("where", Kind::Expression, "A condition over the event's attributes, for every pattern."),
        key("by", Kind::Expression, "One join, and one run, per value over the event's attributes."),
        key("within", Kind::Duration, "How long after the first event the others may come.").required(),
        key("on_expire", Kind::Word(&["drop", "fire"]), "What becomes of the events when some did not come."),
        key("params", Kind::Map(Naming::Name, &Kind::Template), "Params of the run, rendered over `batch`."),
    ],
};

/// `on: cron`.
pub static CRON_TRIGGER: Keys = Keys {
    name: "cron_trigger",
    owner: "a cron trigger",
    rules: &[],
    keys: &[
        key("cron", Kind::Cron, "When, in five fields: minute, hour, day of month, month, day of week.")
            .required(),
        key("timezone", Kind::Text, "An IANA time zone such as Europe/Berlin; UTC without it."),
        key(
            "catch_up",
            Kind::Word(&["none", "last", "all"]),
            "Which slots fire that were missed while nobody looked.",
        ),
        key("params", Kind::Map(Naming::Name, &Kind::Template), "Params of the run, rendered over `batch`."),
    ],
};

/// `batch`.
pub static BATCH: Keys = Keys {
    name: "batch",
    owner: "`batch`",
    rules: &[Rule::AnyOf(&["quiet", "max_wait", "count", "sum"])],
    keys: &[
        key("quiet", Kind::Duration, "Fire when nothing new came for this long."),
        key("max_wait", Kind::Duration, "Fire at the latest this long after the first event."),
        key("count", Kind::Count(1, 1_000_000), "Fire at this many events."),
        key("sum", Kind::Mapping(&SUM), "Fire at this much of something the events carry."),
    ],
};

/// `batch.sum`.
pub static SUM: Keys = Keys {
    name: "sum",
    owner: "`sum`",
    rules: &[],
    keys: &[
        key("of", Kind::Expression, "A number in each event, over the event's attributes.").required(),
        key("at_least", Kind::Number, "Fire once the sum has reached this.").required(),
    ],
};

/// A param.
pub static PARAM: Keys = Keys {
    name: "param",
    owner: "a param",
    rules: &[Rule::TypedDefault],
    keys: &[
        key("type", Kind::Word(&["string", "integer", "number", "boolean"]), "The type of its value.")
            .required(),
        key("default", Kind::Scalar, "Used when none is given; without it the param is required."),
        key("description", Kind::Text, "What the param means."),
    ],
};

/// `concurrency`.
pub static CONCURRENCY: Keys = Keys {
    name: "concurrency",
    owner: "`concurrency`",
    rules: &[Rule::Only { key: "before", with: ("on_conflict", "cancel_running") }],
    keys: &[
        key("key", Kind::Expression, "Runs with the same value share the limit; without it all runs do."),
        key("limit", Kind::Count(1, 10_000), "How many runs of a key go on at once."),
        key(
            "on_conflict",
            Kind::Word(&["coalesce", "queue", "skip", "cancel_running", "parallel"]),
            "What becomes of one more run: it joins the waiting one, waits, does not start, replaces, or starts.",
        ),
        key(
            "before",
            Kind::Name,
            "With cancel_running: only while this step of the running ones has not started.",
        ),
    ],
};

/// `defaults`.
pub static DEFAULTS: Keys = Keys {
    name: "defaults",
    owner: "`defaults`",
    rules: &[],
    keys: &[
        key("timeout", Kind::Duration, "The longest one attempt may take."),
        key("retry", Kind::Mapping(&RETRY), "How often a step is tried, and the pauses between."),
    ],
};

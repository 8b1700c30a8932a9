//! Keys of steps: the verbs, what goes with each, and the files a step may use.

use super::data::{EVALUATE, VALIDATE};
use super::{Keys, Kind, Naming, Rule, key, some};
use crate::definition::Matrix;

/// What a step does: it has exactly one of these keys.
pub const VERBS: [&str; 10] =
    ["run", "validate", "evaluate", "select", "gate", "approval", "promote", "call", "emit", "workflow"];

/// What gives a step its verb: its own, or the file it uses.
const VERB_OR_FILE: [&str; 11] = [
    "run", "validate", "evaluate", "select", "gate", "approval", "promote", "call", "emit", "workflow",
    "uses",
];
const WORKER: &[&str] = &["run", "validate", "evaluate", "call"];
const MANY: &[&str] = &["run", "validate", "evaluate", "call", "workflow"];
const CACHED: &[&str] = &["run", "validate", "evaluate"];
const INSTANCES: u64 = Matrix::INSTANCES_MAX as u64;

/// One axis of a matrix.
const AXIS: Kind = Kind::Either(&[Kind::Sized(1, usize::MAX, &Kind::List(&Kind::Scalar)), Kind::Sole]);

/// A step.
pub static STEP: Keys = Keys {
    name: "step",
    owner: "a step",
    rules: &[
        Rule::AnyOf(&VERB_OR_FILE),
        Rule::OneAtMost(&VERBS),
        Rule::Where { key: "max_parallel", is: &[], asks: &["matrix", "uses"], bars: &[] },
        Rule::Where { key: "min_success", is: &[], asks: &["matrix", "uses"], bars: &[] },
        Rule::Where { key: "container", is: &[], asks: &[], bars: &["python"] },
    ],
    keys: &[
        key("needs", Kind::List(&Kind::Name), "The steps it waits for."),
        key(
            "if",
            Kind::Expression,
            "Whether it is needed; succeeded(), failed() and always() speak of its needs.",
        ),
        key(
            "uses",
            Kind::Either(&[Kind::Path, Kind::Mapping(&USES)]),
            "A file of this folder that defines the step.",
        ),
        key(
            "with",
            Kind::Map(Naming::Name, &Kind::Value),
            "Values for the file it uses, read there as with.NAME.",
        )
        .beside(&["uses"]),
        key(
            "run",
            Kind::Either(&[Kind::Sized(1, usize::MAX, &Kind::List(&Kind::Template)), Kind::Script]),
            "Runs a process on a worker: an argument list, or text for sh (without values in it).",
        ),
        key("validate", Kind::Mapping(&VALIDATE), "Checks data on a worker: CSV, JSON Lines or Parquet."),
        key(
            "evaluate",
            Kind::Mapping(&EVALUATE),
            "Counts metrics of both models from paired predictions, on a worker.",
        ),
        key("select", Kind::Mapping(&SELECT), "Chooses the best instance of a matrix."),
        key("gate", Kind::Mapping(&GATE), "Decides whether the candidate is good enough."),
        key("approval", Kind::Mapping(&APPROVAL), "Waits for a person."),
        key("promote", Kind::Mapping(&PROMOTE), "Makes the candidate the model's version under an alias."),
        key("call", Kind::Mapping(&CALL), "Makes an HTTP request from a worker."),
        key("emit", Kind::Mapping(&EMIT), "Records and sends an event."),
        key(
            "workflow",
            Kind::Either(&[Kind::Name, Kind::Mapping(&CHILD_RUN)]),
            "Runs another workflow and waits for it.",
        ),
        key("env", Kind::Map(Naming::Variable, &Kind::Template), "Environment variables.").with(&["run"]),
        key(
            "secrets",
            Kind::Sized(1, 32, &Kind::List(&Kind::Variable)),
            "Secrets of the orchestrator, each handed over as the variable of its name.",
        )
        .with(&["run", "validate", "evaluate"]),
        key(
            "inputs",
            Kind::Map(Naming::Name, &Kind::Sole),
            "Artifacts of earlier steps, by the name it finds them under.",
        )
        .with(&["run"]),
        key("artifacts", Kind::Map(Naming::Name, &Kind::Path), "Files or folders it hands on, by name.")
            .with(&["run"]),
        key("checkpoint", Kind::Path, "A folder kept across attempts, also on another host.").with(&["run"]),
        key("python", Kind::Mapping(&PYTHON), "A cached environment, built once per host.").with(&["run"]),
        key("container", Kind::Plain, "The image that it runs in a container of, by podman or docker.")
            .with(&["run"]),
        key(
            "matrix",
            Kind::Either(&[Kind::Sized(1, usize::MAX, &Kind::Map(Naming::Name, &AXIS)), Kind::Sole]),
            "One instance of the step per combination of values, or per item of a list.",
        )
        .with(MANY),
        key("max_parallel", Kind::Count(1, INSTANCES), "The most instances at work at once.").with(MANY),
        key("min_success", Kind::Share, "The share of instances that must succeed; all without it.")
            .with(MANY),
        key("needs_host", Kind::Mapping(&NEEDS_HOST), "What a worker must offer.").with(WORKER),
        key("timeout", Kind::Duration, "The longest one attempt may take.").with(WORKER),
        key("retry", Kind::Mapping(&RETRY), "How often it is tried, and the pauses between.").with(WORKER),
        key(
            "cache",
            Kind::Either(&[Kind::Boolean, Kind::Mapping(&CACHE)]),
            "Whether an earlier outcome of the same code, inputs, params and environment is taken instead.",
        )
        .with(CACHED),
    ],
};

/// `uses` as a mapping.
pub static USES: Keys = Keys {
    name: "uses",
    owner: "`uses`",
    rules: &[],
    keys: &[
        key("file", Kind::Path, "The file, by its path in the workflow's folder.").required(),
        key("with", Kind::Map(Naming::Name, &Kind::Value), "Values for it, read there as with.NAME."),
    ],
};

/// A file that a step uses: the keys of a step, except those that only the workflow can know, and what it takes.
pub static USED_FILE: Keys = Keys {
    name: "used_file",
    owner: "a file that steps use",
    rules: &[],
    keys: &[key(
        "with",
        Kind::Map(Naming::Name, &Kind::Mapping(&WITH_VALUE)),
        "The values the file takes, by name.",
    )],
};

/// One value that a used file takes.
pub static WITH_VALUE: Keys = Keys {
    name: "with_value",
    owner: "a value of `with`",
    rules: &[Rule::TypedDefault],
    keys: &[
        key(
            "type",
            Kind::Word(&["string", "integer", "number", "boolean", "artifact", "any"]),
            "The type of the value; any without it.",
        ),
        key("default", Kind::Value, "Used when none is given; without it the value is required."),
        key("description", Kind::Text, "What the value means."),
    ],
};

/// `select`.
pub static SELECT: Keys = Keys {
    name: "select",
    owner: "`select`",
    rules: &[],
    keys: &[
        key("from", Kind::Name, "The step with the matrix; it must be waited for.").required(),
        key("by", Kind::Expression, "A number over an instance's metrics, outputs, matrix and artifacts.")
            .required(),
        key("order", Kind::Word(&["max", "min"]), "Which end is best.").required(),
    ],
};

/// `gate`.
pub static GATE: Keys = Keys {
    name: "gate",
    owner: "a gate",
    rules: &[],
    keys: &[
        key(
            "checks",
            some(&Kind::List(&Kind::Mapping(&CHECK))),
            "What the candidate must show; at least one.",
        )
        .required(),
        key("alpha", Kind::Number, "How often a statistical check may err, one-sided; 0.05 without it."),
        key("no_champion", Kind::Word(&["absolute", "fail"]), "How the first model is judged."),
        key(
            "inconclusive",
            Kind::Word(&["fail", "approval"]),
            "What it means when the evidence does not suffice.",
        ),
    ],
};

/// What the names of variables begin with that Refit sets itself.
pub const RESERVED_PREFIXES: [&str; 2] = ["REFIT_", "PARAM_"];

/// Variables that make a process load code before its own.
pub const LOADERS: [&str; 4] = ["LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "BASH_ENV"];

/// The keys of a check that looks at a metric.
pub const METRIC_KEYS: [&str; 9] =
    ["metric", "role", "min", "max", "min_change", "margin", "direction", "by", "min_examples"];

/// A check of a gate.
pub static CHECK: Keys = Keys {
    name: "check",
    owner: "a check",
    rules: &[
        Rule::AnyOf(&["metric", "expr"]),
        Rule::Where { key: "expr", is: &[], asks: &[], bars: &METRIC_KEYS },
        Rule::Where { key: "metric", is: &[], asks: &["role", "min", "max", "min_change"], bars: &[] },
        Rule::Where { key: "min_change", is: &[], asks: &[], bars: &["min", "max"] },
        Rule::Where {
            key: "role",
            is: &["absolute"],
            asks: &["min", "max"],
            bars: &["margin", "direction", "min_change"],
        },
        Rule::Where {
            key: "role",
            is: &["success"],
            asks: &[],
            bars: &["margin", "min", "max", "min_change"],
        },
        Rule::Where {
            key: "role",
            is: &["guardrail"],
            asks: &["margin"],
            bars: &["min", "max", "min_change"],
        },
        Rule::Where {
            key: "role",
            is: &["deterioration"],
            asks: &[],
            bars: &["margin", "min", "max", "min_change"],
        },
    ],
    keys: &[
        key("metric", Kind::Own, "The metric that is checked."),
        key(
            "role",
            Kind::Word(&["absolute", "success", "guardrail", "deterioration"]),
            "Within bounds; significantly better; proven not worse than the margin; not significantly worse.",
        ),
        key("min", Kind::Number, "The least allowed, inclusive."),
        key("max", Kind::Number, "The most allowed, inclusive."),
        key("min_change", Kind::Number, "The least change towards better against the champion's own metric."),
        key(
            "margin",
            Kind::Number,
            "For a guardrail: the loss that is still harmless, in the metric's unit.",
        )
        .beside(&["role"]),
        key("direction", Kind::Word(&["higher", "lower"]), "Which way the metric is better.")
            .beside(&["role", "min_change"]),
        key("by", Kind::Own, "It must hold in each slice of this column."),
        key("min_examples", Kind::Count(1, 1_000_000_000), "With fewer examples the check is inconclusive.")
            .beside(&["role", "by"]),
        key("expr", Kind::Expression, "A condition instead of a metric."),
        key("because", Kind::Text, "Why the check is there."),
    ],
};

/// `approval`.
pub static APPROVAL: Keys = Keys {
    name: "approval",
    owner: "an approval",
    rules: &[],
    keys: &[
        key(
            "from",
            Kind::List(&Kind::Text),
            "Who may decide, by the name of a token or of a group; anyone with the operator role without it.",
        ),
        key("two_person", Kind::Boolean, "Whoever started the run by hand cannot approve it."),
        key("timeout", Kind::Duration, "How long to wait; for ever without it."),
        key("on_timeout", Kind::Word(&["reject", "approve"]), "What silence means.").beside(&["timeout"]),
    ],
};

/// `promote`.
pub static PROMOTE: Keys = Keys {
    name: "promote",
    owner: "`promote`",
    rules: &[],
    keys: &[
        key("artifact", Kind::Sole, "The candidate: one ${{ steps.NAME.artifacts.NAME }}.").required(),
        key("alias", Kind::Name, "The alias to move; champion without it."),
        key("watch", Kind::Mapping(&WATCH), "What takes the promotion back afterwards."),
    ],
};

/// `watch` of a promotion.
pub static WATCH: Keys = Keys {
    name: "watch",
    owner: "a watch",
    rules: &[],
    keys: &[
        key("for", Kind::Duration, "How long after the promotion an event may take it back.").required(),
        key(
            "rollback_on",
            Kind::Pattern,
            "An EventBridge pattern over the whole CloudEvent: what matches it takes the promotion back.",
        )
        .required(),
        key(
            "checks",
            Kind::Sized(1, 20, &Kind::List(&Kind::Mapping(&WATCH_CHECK))),
            "What must hold for such an event: then it takes the promotion back only if one of them does not.",
        ),
    ],
};

/// A check of a watch.
pub static WATCH_CHECK: Keys = Keys {
    name: "watch_check",
    owner: "a check of a watch",
    rules: &[],
    keys: &[
        key("expr", Kind::Expression, "What must hold, over the event's attributes, promoted and previous.")
            .required(),
        key("because", Kind::Text, "Why the check is there."),
    ],
};

/// `call`.
pub static CALL: Keys = Keys {
    name: "call",
    owner: "`call`",
    rules: &[Rule::Where { key: "method", is: &["GET", "HEAD"], asks: &[], bars: &["json"] }],
    keys: &[
        key(
            "method",
            Kind::Word(&["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]),
            "The method; without it GET, or POST where there is json.",
        ),
        key("url", Kind::Url, "Where to: http or https.").required(),
        key("headers", Kind::Map(Naming::Header, &Kind::Template), "Headers, by name."),
        key("json", Kind::Value, "The body of the request."),
    ],
};

/// `emit`.
pub static EMIT: Keys = Keys {
    name: "emit",
    owner: "`emit`",
    rules: &[],
    keys: &[
        key("type", Kind::Template, "The event's type.").required(),
        key("subject", Kind::Template, "The event's subject."),
        key("data", Kind::Map(Naming::Any, &Kind::Value), "The event's data."),
    ],
};

/// `workflow` as a mapping.
pub static CHILD_RUN: Keys = Keys {
    name: "child_run",
    owner: "`workflow`",
    rules: &[],
    keys: &[
        key("name", Kind::Name, "The workflow to run.").required(),
        key("params", Kind::Map(Naming::Any, &Kind::Template), "Its params."),
    ],
};

/// `python`.
pub static PYTHON: Keys = Keys {
    name: "python",
    owner: "`python`",
    rules: &[Rule::AnyOf(&["requirements", "packages"]), Rule::OneAtMost(&["requirements", "packages"])],
    keys: &[
        key("version", Kind::Text, "Of the interpreter, as in 3.12; the host's python3 without it."),
        key("requirements", Kind::Path, "A file of this folder that lists what is installed."),
        key("packages", some(&Kind::List(&Kind::Own)), "What is installed, as in scikit-learn==1.7."),
        key("index_args", Kind::List(&Kind::Text), "Arguments for the installer, such as --index-url=URL."),
    ],
};

/// `needs_host`.
pub static NEEDS_HOST: Keys = Keys {
    name: "needs_host",
    owner: "`needs_host`",
    rules: &[],
    keys: &[
        key("gpus", Kind::Count(0, 1024), "GPUs, whole ones."),
        key("cpus", Kind::Number, "CPUs; 0.5 is half of one."),
        key("memory", Kind::Size, "Memory, as in 16GiB."),
        key(
            "labels",
            Kind::Map(Naming::Any, &Kind::Plain),
            "Labels the worker must have, with their values.",
        ),
    ],
};

/// `retry`.
pub static RETRY: Keys = Keys {
    name: "retry",
    owner: "`retry`",
    rules: &[],
    keys: &[
        key("attempts", Kind::Count(1, 100), "How often the step is tried in all."),
        key("backoff", Kind::Pause, "The pause before the second attempt; it doubles for each further one."),
        key("max_backoff", Kind::Pause, "The longest pause."),
    ],
};

/// `cache` as a mapping.
pub static CACHE: Keys = Keys {
    name: "cache",
    owner: "`cache`",
    rules: &[Rule::AnyOf(&["key", "ttl"])],
    keys: &[
        key("key", Kind::Template, "Takes the place of what the outcome is otherwise found by."),
        key("ttl", Kind::Duration, "How old the outcome may be; any age without it."),
    ],
};

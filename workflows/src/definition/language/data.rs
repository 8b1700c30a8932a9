//! Keys of the built-in data verbs, `validate` and `evaluate`.

use super::{Keys, Kind, Rule, key, some};

const FORMAT: Kind = Kind::Word(&["csv", "jsonl", "parquet"]);
const AGAINST: Kind = Kind::Either(&[Kind::Word(&["previous", "champion"]), Kind::Template]);

/// `validate`.
pub static VALIDATE: Keys = Keys {
    name: "validate",
    owner: "`validate`",
    rules: &[],
    keys: &[
        key("data", Kind::Template, "A path in the bundle or on the worker, or an artifact.").required(),
        key("format", FORMAT, "How rows are written; the name's ending says it otherwise."),
        key(
            "checks",
            some(&Kind::List(&Kind::Mapping(&DATA_CHECK))),
            "What the data must look like; at least one.",
        )
        .required(),
    ],
};

const COLUMN: &[&str] = &["column"];

/// What a check of data looks at. `unique` may also be a rule for a column.
pub const SUBJECTS: [&str; 6] = ["rows", "column", "unique", "label_share", "overlap", "drift"];

/// What a rule for a column may be.
pub const COLUMN_RULES: [&str; 13] = [
    "type", "missing", "unique", "between", "in", "matches", "length", "mean", "median", "quantile", "sum",
    "constant", "fresh",
];

/// The keys of a check that go with `column` alone; `unique` stands without it as well.
pub const ALL_COLUMN_KEYS: [&str; 12] = [
    "type", "missing", "between", "in", "matches", "length", "mean", "median", "quantile", "sum", "constant",
    "fresh",
];

/// A check of data. One of `rows`, `column`, `unique`, `label_share`, `overlap` and `drift` says what is looked at.
pub static DATA_CHECK: Keys = Keys {
    name: "data_check",
    owner: "a data check",
    rules: &[
        Rule::AnyOf(&SUBJECTS),
        Rule::OneAtMost(&["rows", "column", "label_share", "overlap", "drift"]),
        Rule::OneAtMost(&["rows", "unique", "label_share", "overlap", "drift"]),
        Rule::Where { key: "column", is: &[], asks: &COLUMN_RULES, bars: &[] },
    ],
    keys: &[
        key("rows", Kind::Mapping(&ROWS), "How many rows there are."),
        key("column", Kind::Own, "The column that the other keys are rules for."),
        key(
            "type",
            Kind::Word(&["string", "integer", "number", "boolean", "timestamp"]),
            "Every value of the column is of this type.",
        )
        .beside(COLUMN),
        key("missing", Kind::Mapping(&MISSING), "How many values of the column may be missing.")
            .beside(COLUMN),
        key(
            "unique",
            Kind::Either(&[Kind::Boolean, Kind::Sized(1, usize::MAX, &Kind::List(&Kind::Own))]),
            "No value of the column occurs twice; or, without one, no combination of these columns.",
        ),
        key(
            "between",
            Kind::Sized(2, 2, &Kind::List(&Kind::Number)),
            "Every value lies within these two, both inclusive.",
        )
        .beside(COLUMN),
        key("in", some(&Kind::List(&Kind::Scalar)), "Every value is one of these.").beside(COLUMN),
        key("matches", Kind::Text, "Every value matches this regular expression somewhere.").beside(COLUMN),
        key("length", Kind::Mapping(&LENGTH), "The length of every value, in characters.").beside(COLUMN),
        key("mean", Kind::Mapping(&AGGREGATE), "Bounds for the mean.").beside(COLUMN),
        key("median", Kind::Mapping(&AGGREGATE), "Bounds for the median.").beside(COLUMN),
        key("quantile", Kind::Mapping(&QUANTILE), "Bounds for a quantile.").beside(COLUMN),
        key("sum", Kind::Mapping(&AGGREGATE), "Bounds for the sum.").beside(COLUMN),
        key("constant", Kind::Boolean, "Whether all values are the same; false asks for at least two.")
            .beside(COLUMN),
        key("fresh", Kind::Mapping(&FRESH), "How old the latest time in the column may be.").beside(COLUMN),
        key("label_share", Kind::Mapping(&LABEL_SHARE), "How much of a column is one value."),
        key(
            "overlap",
            Kind::Mapping(&OVERLAP),
            "Rows that other data holds too, such as test rows among training rows.",
        ),
        key("drift", Kind::Mapping(&DRIFT), "Columns that are distributed otherwise than before."),
        key("where", Kind::Plain, "Only rows for which this holds count: CEL over their columns."),
        key("by", Kind::Own, "It must hold for the rows of each value of this column."),
        key("severity", Kind::Word(&["warn", "fail"]), "What it means when the check does not hold."),
        key("because", Kind::Text, "Why the check is there."),
    ],
};

/// `rows`.
pub static ROWS: Keys = Keys {
    name: "rows",
    owner: "`rows`",
    rules: &[Rule::AnyOf(&["min", "max", "change", "usual"])],
    keys: &[
        key("min", Kind::Count(0, u64::MAX), "The least allowed."),
        key("max", Kind::Count(0, u64::MAX), "The most allowed."),
        key("change", Kind::Mapping(&CHANGE), "How much the number may differ from before."),
        key("usual", Kind::Mapping(&USUAL), "How far it may lie from what earlier runs saw."),
    ],
};

/// `usual`.
pub static USUAL: Keys = Keys {
    name: "usual",
    owner: "`usual`",
    rules: &[],
    keys: &[
        key("within", Kind::Number, "How many median absolute deviations from the median; 4 without it."),
        key("runs", Kind::Count(8, 200), "How many earlier runs count; 30 without it."),
    ],
};

/// `change`.
pub static CHANGE: Keys = Keys {
    name: "change",
    owner: "`change`",
    rules: &[],
    keys: &[
        key("max", Kind::Percent, "The greatest change, up or down.").required(),
        key("against", AGAINST, "What is compared with; previous without it."),
    ],
};

/// `missing`.
pub static MISSING: Keys = Keys {
    name: "missing",
    owner: "`missing`",
    rules: &[],
    keys: &[key(
        "max",
        Kind::Either(&[Kind::Share, Kind::Count(0, u64::MAX)]),
        "A share of the rows, or a number of them.",
    )
    .required()],
};

/// `length`.
pub static LENGTH: Keys = Keys {
    name: "length",
    owner: "`length`",
    rules: &[Rule::AnyOf(&["min", "max"])],
    keys: &[
        key("min", Kind::Count(0, 1_000_000_000), "The least allowed."),
        key("max", Kind::Count(0, 1_000_000_000), "The most allowed."),
    ],
};

/// `mean`, `median`, `sum`.
pub static AGGREGATE: Keys = Keys {
    name: "aggregate",
    owner: "a bound",
    rules: &[Rule::AnyOf(&["min", "max"])],
    keys: &[key("min", Kind::Number, "The least allowed."), key("max", Kind::Number, "The most allowed.")],
};

/// `quantile`.
pub static QUANTILE: Keys = Keys {
    name: "quantile",
    owner: "`quantile`",
    rules: &[Rule::AnyOf(&["min", "max"])],
    keys: &[
        key("at", Kind::Share, "Which one, as in 99%.").required(),
        key("min", Kind::Number, "The least allowed."),
        key("max", Kind::Number, "The most allowed."),
    ],
};

/// `fresh`.
pub static FRESH: Keys = Keys {
    name: "fresh",
    owner: "`fresh`",
    rules: &[],
    keys: &[key("within", Kind::Duration, "How old the latest time may be when the step runs.").required()],
};

/// `label_share`.
pub static LABEL_SHARE: Keys = Keys {
    name: "label_share",
    owner: "`label_share`",
    rules: &[Rule::AnyOf(&["min", "max", "change"])],
    keys: &[
        key("column", Kind::Own, "The column of the label.").required(),
        key("value", Kind::Scalar, "The value whose share is looked at.").required(),
        key("min", Kind::Share, "The least share allowed."),
        key("max", Kind::Share, "The greatest share allowed."),
        key("change", Kind::Mapping(&CHANGE), "By how many points the share may differ from before."),
    ],
};

/// `overlap`.
pub static OVERLAP: Keys = Keys {
    name: "overlap",
    owner: "`overlap`",
    rules: &[],
    keys: &[
        key("with", Kind::Template, "The other data, named as `data` is.").required(),
        key("columns", some(&Kind::List(&Kind::Own)), "The columns that count; all of them without it."),
        key("max", Kind::Share, "The greatest share of rows that may be found there; none without it."),
    ],
};

/// `drift`.
pub static DRIFT: Keys = Keys {
    name: "drift",
    owner: "`drift`",
    rules: &[],
    keys: &[
        key("columns", some(&Kind::List(&Kind::Own)), "The columns; at least one.").required(),
        key(
            "method",
            Kind::Word(&["psi", "ks", "js", "wasserstein", "chi_square"]),
            "How the distance of two distributions is counted.",
        )
        .required(),
        key("max", Kind::Number, "The greatest distance allowed.").required(),
        key("against", AGAINST, "What is compared with; previous without it."),
    ],
};

/// `evaluate`.
pub static EVALUATE: Keys = Keys {
    name: "evaluate",
    owner: "`evaluate`",
    rules: &[],
    keys: &[
        key("predictions", Kind::Template, "The table of predictions, named as `data` of validate is.")
            .required(),
        key("format", FORMAT, "How rows are written; the name's ending says it otherwise."),
        key("label", Kind::Own, "The column that holds what was right.").required(),
        key("candidate", Kind::Own, "The column of the candidate's predictions; candidate without it."),
        key("champion", Kind::Own, "The column of the champion's predictions; champion without it."),
        key("weight", Kind::Own, "The column of the rows' weights."),
        key("cluster", Kind::Own, "The column that says which rows belong together, such as a user."),
        key("id", Kind::Own, "The column that names an example; no two rows may have the same."),
        key("group", Kind::Own, "The column that says which rows answer one query, for metrics of rankings."),
        key("threshold", Kind::Number, "A score of at least this counts as positive; 0.5 without it."),
        key(
            "metrics",
            some(&Kind::List(&Kind::Either(&[Kind::Text, Kind::Mapping(&OWN_METRIC)]))),
            "What is counted: names such as roc_auc or ndcg@10, or columns of your own.",
        )
        .required(),
        key("by", Kind::List(&Kind::Own), "Columns whose values cut the rows into slices."),
    ],
};

/// A metric of someone's own: a number the table holds for each row and model.
pub static OWN_METRIC: Keys = Keys {
    name: "own_metric",
    owner: "a metric",
    rules: &[],
    keys: &[
        key("name", Kind::Name, "What it is called.").required(),
        key("candidate", Kind::Own, "The column for the candidate.").required(),
        key("champion", Kind::Own, "The column for the champion.").required(),
        key("direction", Kind::Word(&["higher", "lower"]), "Which way is better.").required(),
        key(
            "test",
            Kind::Word(&["paired_t", "welch", "mann_whitney"]),
            "How the columns are compared; paired_t without it. The others take them for two samples, not for pairs.",
        ),
    ],
};

//! The verb `validate`: what one check looks at, and which rules go with it. Must never happen here: a check that asks
//! for nothing.

use std::time::Duration;

use super::super::diagnostics::{Findings, did_you_mean};
use super::super::language::{
    AGGREGATE, ALL_COLUMN_KEYS, CHANGE, COLUMN_RULES, DATA_CHECK, DRIFT, FRESH, LABEL_SHARE, LENGTH, MISSING,
    OVERLAP, QUANTILE, ROWS, SUBJECTS, USUAL, VALIDATE,
};
use super::super::raw::{Key, Node, Raw};
use super::super::{
    Against, Amount, Bounds, Change, ColumnRule, ColumnType, DataCheck, DriftMethod, Inspect, Severity,
    Usual, ValidateTask,
};
use super::data::{data, format};
use super::fields::{Fields, json, list, text};
use super::reads::{Place, Reads, report};
use crate::expression::Expression;
use crate::template::Template;
use crate::units::parse_share;

/// The longest regular expression, in bytes.
const PATTERN_BYTES_MAX: usize = 1000;

/// Reads the verb.
pub(super) fn validate(
    key: &Key,
    node: &Node,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<ValidateTask> {
    let fields = Fields::of(node, key.position, &VALIDATE, f)?;
    let named = fields.need("data", "`validate`", "data: customers.parquet", f);
    let named = named.and_then(|(_, node)| data(node, "data", place, reads, f));
    let format = format(&fields, named.as_ref(), "data", f);
    let (key, node) = fields.need("checks", "`validate`", "checks: [{ rows: { min: 1000 } }]", f)?;
    let items = list(node, "checks", f)?;
    if items.is_empty() {
        let hint = "for example `{ rows: { min: 1000 } }`";
        f.add_with_hint("value", key.position, "`validate` without checks finds nothing wrong", hint);
    }
    let checks: Vec<Option<DataCheck>> = items.iter().map(|item| check(item, place, reads, f)).collect();
    Some(ValidateTask { data: named?, format, checks: checks.into_iter().collect::<Option<_>>()? })
}

fn check(node: &Node, place: Place, reads: &mut Reads, f: &mut Findings) -> Option<DataCheck> {
    const WORDS: [(&str, Severity); 2] = [("warn", Severity::Warn), ("fail", Severity::Fail)];
    let before = f.count();
    let fields = Fields::of(node, node.position, &DATA_CHECK, f)?;
    let severity = fields.word("severity", &WORDS, f).unwrap_or(Severity::Fail);
    let filter = fields.get("where").and_then(|(_, node)| filter(node, f));
    let by = fields.word_of_ones_own("by", f);
    let because = fields.text("because", f);
    // `unique` is a subject only where there is no column that it is a rule for.
    let present =
        |name: &&str| fields.get(name).is_some() && (*name != "unique" || fields.get("column").is_none());
    let mut subjects = SUBJECTS.into_iter().filter(present);
    let inspect = match (subjects.next(), subjects.next()) {
        (Some(subject), None) => {
            if subject != "column" {
                report_rules(subject, &fields, f);
            }
            self::inspect(subject, &fields, place, reads, f)
        }
        (Some(first), Some(second)) => {
            let message = format!("a check looks at one thing, but this has `{first}` and `{second}`");
            f.add_with_hint("value", node.position, message, "make two checks of it");
            None
        }
        (None, _) => {
            let rule = ALL_COLUMN_KEYS.into_iter().find(|name| fields.get(name).is_some());
            let hint = match rule {
                Some(rule) => format!("say which column `{rule}` is about: `column: age`"),
                None => format!("it has one of {}", SUBJECTS.join(", ")),
            };
            // A key that was meant to say it has been reported.
            if f.count() == before {
                f.add_with_hint(
                    "missing-key",
                    node.position,
                    "the check does not say what it looks at",
                    hint,
                );
            }
            None
        }
    };
    let check = DataCheck { inspect: inspect?, severity, filter, by, because };
    if let (Some(_), Some((key, _))) = (check.usual(), fields.get("where").or_else(|| fields.get("by"))) {
        let hint = "earlier runs are known by the number of all their rows: make two checks of it";
        f.add_with_hint("value", key.position, "`usual` goes without `where` and `by`", hint);
    }
    Some(check)
}

/// `where`: CEL over the columns, of which only the worker knows which there are.
fn filter(node: &Node, f: &mut Findings) -> Option<String> {
    let scalar = text(node, "where", f)?;
    if Template::is_in(&scalar.text) {
        let hint = "write the value out: the rows' columns are all that a filter sees";
        f.add_with_hint("value", node.position, "`where` of a data check takes no `${{ }}`", hint);
        return None;
    }
    match Expression::parse_fully(&scalar.text) {
        Ok(expression) if expression.reads_needs() => {
            let message = "`succeeded()`, `failed()` and `always()` are for the `if` of a step";
            f.add("expression", node.position, message);
        }
        Ok(_) => {}
        Err(wrong) => wrong.iter().for_each(|error| report("expression", scalar, node.position, error, f)),
    }
    Some(scalar.text.clone())
}

/// Rules for a column where there is no column.
fn report_rules(subject: &str, fields: &Fields<'_>, f: &mut Findings) {
    for name in ALL_COLUMN_KEYS {
        if let Some((key, _)) = fields.get(name) {
            let message = format!("`{name}` goes with `column`, not with `{subject}`");
            f.add("misplaced-key", key.position, message);
        }
    }
}

fn inspect(
    subject: &str,
    fields: &Fields<'_>,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Inspect> {
    let (key, node) = fields.get(subject)?;
    match subject {
        "column" => column(fields, f),
        "unique" => {
            if !matches!(node.value, Raw::List(_)) {
                let hint = "write `{ column: id, unique: true }` or `{ unique: [country, id] }`";
                f.add_with_hint("missing-key", key.position, "`unique` does not say of which column", hint);
                return None;
            }
            Some(Inspect::Unique(columns(fields, "unique", f)?))
        }
        "rows" => {
            let rows = Fields::of(node, key.position, &ROWS, f)?;
            let count = counts(&rows, f);
            let change = change(&rows, place, reads, f);
            let usual = rows.get("usual").and_then(|(key, node)| usual(key, node, f));
            asks_for_something(&rows, f);
            Some(Inspect::Rows { count, change, usual })
        }
        "label_share" => label_share(key, node, place, reads, f),
        "overlap" => {
            let overlap = Fields::of(node, key.position, &OVERLAP, f)?;
            let with = overlap.need("with", "`overlap`", "with: train.parquet", f);
            let with = with.and_then(|(_, node)| data(node, "with", place, reads, f));
            let columns =
                if overlap.get("columns").is_some() { columns(&overlap, "columns", f)? } else { Vec::new() };
            Some(Inspect::Overlap { with: with?, columns, max: overlap.share("max", f).unwrap_or(0.0) })
        }
        _ => drift(key, node, place, reads, f),
    }
}

fn columns(fields: &Fields<'_>, name: &str, f: &mut Findings) -> Option<Vec<String>> {
    let columns = fields.texts(name, f)?;
    if columns.is_empty() {
        let (key, _) = fields.get(name)?;
        f.add("value", key.position, format!("`{name}` names at least one column"));
        return None;
    }
    Some(columns)
}

fn label_share(key: &Key, node: &Node, place: Place, reads: &mut Reads, f: &mut Findings) -> Option<Inspect> {
    let label = Fields::of(node, key.position, &LABEL_SHARE, f)?;
    label.need("column", "`label_share`", "column: churned", f);
    let column = label.word_of_ones_own("column", f);
    let value = label.need("value", "`label_share`", "value: 1", f).and_then(|(_, node)| {
        text(node, "value", f)?;
        json(node, f)
    });
    let share = Bounds { min: label.share("min", f), max: label.share("max", f) };
    report_empty(&label, share, f);
    let change = change(&label, place, reads, f);
    if share == Bounds::default() && label.get("change").is_none() {
        report_nothing_asked(&label, f);
    }
    Some(Inspect::LabelShare { column: column?, value: value?, share, change })
}

fn drift(key: &Key, node: &Node, place: Place, reads: &mut Reads, f: &mut Findings) -> Option<Inspect> {
    const WORDS: [(&str, DriftMethod); 5] = [
        ("psi", DriftMethod::Psi),
        ("ks", DriftMethod::Ks),
        ("js", DriftMethod::Js),
        ("wasserstein", DriftMethod::Wasserstein),
        ("chi_square", DriftMethod::ChiSquare),
    ];
    let drift = Fields::of(node, key.position, &DRIFT, f)?;
    for (name, example) in [("columns", "columns: [age]"), ("method", "method: psi"), ("max", "max: 0.2")] {
        drift.need(name, "`drift`", example, f);
    }
    let columns = columns(&drift, "columns", f);
    let method = drift.word("method", &WORDS, f);
    let max = drift.number("max", f);
    if let (Some(max), Some((_, node))) = (max, drift.get("max"))
        && max <= 0.0
    {
        f.add("number", node.position, "`max` is a distance above 0: two samples always differ a little");
    }
    let against = against(&drift, place, reads, f);
    Some(Inspect::Drift { columns: columns?, method: method?, max: max?, against: against? })
}

fn change(fields: &Fields<'_>, place: Place, reads: &mut Reads, f: &mut Findings) -> Option<Change> {
    let (key, node) = fields.get("change")?;
    let change = Fields::of(node, key.position, &CHANGE, f)?;
    change.need("max", "`change`", "max: 50%", f);
    let max = change.percent("max", f);
    let against = against(&change, place, reads, f);
    Some(Change { max: max?, against: against? })
}

fn usual(key: &Key, node: &Node, f: &mut Findings) -> Option<Usual> {
    let usual = Fields::of(node, key.position, &USUAL, f)?;
    let within = usual.number("within", f).unwrap_or(4.0);
    if let (true, Some((_, node))) = (within <= 0.0, usual.get("within")) {
        f.add("number", node.position, "`within` is a number of deviations above 0");
    }
    Some(Usual { within, runs: usual.small_count("runs", f).unwrap_or(30) })
}

fn against(fields: &Fields<'_>, place: Place, reads: &mut Reads, f: &mut Findings) -> Option<Against> {
    let Some((_, node)) = fields.get("against") else { return Some(Against::Previous) };
    let written = text(node, "against", f)?;
    match written.text.as_str() {
        "previous" => Some(Against::Previous),
        "champion" => Some(Against::Champion),
        other => {
            // A bare word that is nearly one of ours is hardly the name of a file.
            if let Some(hint) =
                did_you_mean(other, ["previous", "champion"]).filter(|_| !other.contains(['.', '/']))
            {
                f.add_with_hint(
                    "value",
                    node.position,
                    "`against` is previous, champion, or other data",
                    hint,
                );
                return None;
            }
            data(node, "against", place, reads, f).map(Against::Data)
        }
    }
}

fn column(fields: &Fields<'_>, f: &mut Findings) -> Option<Inspect> {
    let name = fields.word_of_ones_own("column", f);
    let present = COLUMN_RULES.into_iter().filter(|rule| fields.get(rule).is_some());
    let rules: Vec<Option<ColumnRule>> = present.map(|name| rule(name, fields, f)).collect();
    if rules.is_empty() {
        let hint = format!("give it one of {}", COLUMN_RULES.join(", "));
        f.add_with_hint("missing-key", fields.position, "the check of a column asks for nothing", hint);
    }
    Some(Inspect::Column { name: name?, rules: rules.into_iter().collect::<Option<_>>()? })
}

fn rule(name: &str, fields: &Fields<'_>, f: &mut Findings) -> Option<ColumnRule> {
    const TYPES: [(&str, ColumnType); 5] = [
        ("string", ColumnType::String),
        ("integer", ColumnType::Integer),
        ("number", ColumnType::Number),
        ("boolean", ColumnType::Boolean),
        ("timestamp", ColumnType::Timestamp),
    ];
    let (key, node) = fields.get(name)?;
    match name {
        "type" => fields.word(name, &TYPES, f).map(ColumnRule::Type),
        "missing" => {
            let missing = Fields::of(node, key.position, &MISSING, f)?;
            let (_, node) = missing.need("max", "`missing`", "max: 1%", f)?;
            amount(node, f).map(ColumnRule::Missing)
        }
        "unique" => match fields.boolean(name, f)? {
            true => Some(ColumnRule::Unique),
            false => {
                f.add("value", node.position, "`unique: false` asks for nothing: leave it out");
                None
            }
        },
        "between" => between(node, f),
        "in" => one_of(node, f),
        "matches" => matches(node, f),
        "length" => {
            let length = Fields::of(node, key.position, &LENGTH, f)?;
            asks_for_something(&length, f);
            Some(ColumnRule::Length(counts(&length, f)))
        }
        "quantile" => {
            let quantile = Fields::of(node, key.position, &QUANTILE, f)?;
            quantile.need("at", "`quantile`", "at: 99%", f);
            let at = quantile.share("at", f);
            if let (Some(0.0 | 1.0), Some((_, node))) = (at, quantile.get("at")) {
                f.add("share", node.position, "`at` lies between 0% and 100%, both excluded");
            }
            let bounds = numbers(&quantile, f);
            if bounds == Bounds::default() && quantile.get("min").is_none() && quantile.get("max").is_none() {
                report_nothing_asked(&quantile, f);
            }
            Some(ColumnRule::Quantile { at: at?, bounds })
        }
        "constant" => fields.boolean(name, f).map(ColumnRule::Constant),
        "fresh" => {
            let fresh = Fields::of(node, key.position, &FRESH, f)?;
            fresh.need("within", "`fresh`", "within: 2d", f);
            let within: Duration = fresh.duration("within", f)?;
            Some(ColumnRule::Fresh(within))
        }
        _ => {
            let aggregate = Fields::of(node, key.position, &AGGREGATE, f)?;
            asks_for_something(&aggregate, f);
            let bounds = numbers(&aggregate, f);
            Some(match name {
                "mean" => ColumnRule::Mean(bounds),
                "median" => ColumnRule::Median(bounds),
                _ => ColumnRule::Sum(bounds),
            })
        }
    }
}

/// A share with `%`, or a number of rows.
fn amount(node: &Node, f: &mut Findings) -> Option<Amount> {
    let written = text(node, "max", f)?.text.as_str();
    if written.contains('%') {
        return parse_share(written)
            .map(Amount::Share)
            .map_err(|wrong| f.add("share", node.position, wrong))
            .ok();
    }
    let count = json(node, f)?.as_u64();
    if count.is_none() {
        f.add("number", node.position, "`max` is a share of the rows, as in 1%, or a whole number of them");
    }
    count.map(Amount::Count)
}

fn between(node: &Node, f: &mut Findings) -> Option<ColumnRule> {
    let items = list(node, "between", f)?;
    let number = |item: &Node, f: &mut Findings| json(item, f)?.as_f64().filter(|number| number.is_finite());
    let ends: Vec<f64> = items.iter().filter_map(|item| number(item, f)).collect();
    match ends.as_slice() {
        [min, max] if min <= max && items.len() == 2 => Some(ColumnRule::Between { min: *min, max: *max }),
        [min, max] if items.len() == 2 => {
            let hint = format!("write `between: [{max}, {min}]`");
            f.add_with_hint("value", node.position, format!("nothing lies between {min} and {max}"), hint);
            None
        }
        _ => {
            let hint =
                "for example `between: [0, 120]`; for one bound alone, look at a quantile or write a second";
            f.add_with_hint(
                "value",
                node.position,
                "`between` is two numbers, the least and the greatest",
                hint,
            );
            None
        }
    }
}

fn one_of(node: &Node, f: &mut Findings) -> Option<ColumnRule> {
    let items = list(node, "in", f)?;
    if items.is_empty() {
        f.add("value", node.position, "`in` lists at least one value: nothing is one of none");
        return None;
    }
    let mut values = Vec::new();
    for item in items {
        text(item, "in", f)?;
        let value = json(item, f)?;
        if values.contains(&value) {
            f.add("value", item.position, format!("{value} is there twice"));
        }
        values.push(value);
    }
    Some(ColumnRule::In(values))
}

fn matches(node: &Node, f: &mut Findings) -> Option<ColumnRule> {
    let pattern = text(node, "matches", f)?.text.clone();
    let wrong = if pattern.len() > PATTERN_BYTES_MAX {
        Some(format!("a regular expression has at most {PATTERN_BYTES_MAX} bytes"))
    } else {
        let built = regex::RegexBuilder::new(&pattern).size_limit(1 << 20).build();
        built.err().map(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("not a regular expression: {last}")
        })
    };
    match wrong {
        Some(wrong) => {
            f.add_with_hint("value", node.position, wrong, "in quotes, as in '^[A-Z]{2}$'");
            None
        }
        None => Some(ColumnRule::Matches(pattern)),
    }
}

fn numbers(fields: &Fields<'_>, f: &mut Findings) -> Bounds {
    let bounds = Bounds { min: fields.number("min", f), max: fields.number("max", f) };
    report_empty(fields, bounds, f);
    bounds
}

fn counts(fields: &Fields<'_>, f: &mut Findings) -> Bounds {
    #[expect(clippy::cast_precision_loss, reason = "rows are compared with, not counted by, this number")]
    let mut count = |name| fields.count(name, f).map(|count| count as f64);
    let bounds = Bounds { min: count("min"), max: count("max") };
    report_empty(fields, bounds, f);
    bounds
}

fn report_empty(fields: &Fields<'_>, bounds: Bounds, f: &mut Findings) {
    if let (Some(min), Some(max), Some((_, node))) = (bounds.min, bounds.max, fields.get("max"))
        && min > max
    {
        let hint = "`min` is the least it may be, `max` the most";
        f.add_with_hint("value", node.position, format!("nothing lies between {min} and {max}"), hint);
    }
}

fn asks_for_something(fields: &Fields<'_>, f: &mut Findings) {
    if fields.entries().is_empty() {
        report_nothing_asked(fields, f);
    }
}

fn report_nothing_asked(fields: &Fields<'_>, f: &mut Findings) {
    f.add_with_hint("missing-key", fields.position, "the check asks for nothing", "give it `min` or `max`");
}

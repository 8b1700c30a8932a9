//! The verb `gate`: its checks, and which keys of a check go together. What a gate needs of other steps is noted and
//! decided when the graph is known; must never happen here: a check that asks for nothing.

use super::super::Metric;
use super::super::diagnostics::{Findings, Spot};
use super::super::language::{CHECK, GATE, METRIC_KEYS};
use super::super::raw::{Key, Node};
use super::fields::{Fields, list};
use super::reads::{Place, Reads};
use crate::gate::{Check, Direction, Gate, NoChampion, OnInconclusive, Role, StatisticalCheck};

/// What a step asks of the rest of the workflow, each with the place that asks.
#[derive(Default)]
pub(super) struct Asks {
    /// A registered model.
    pub(super) model: Option<Spot>,
    /// A step before it that reports metrics.
    pub(super) metrics: Option<Spot>,
    /// Measurements of an `evaluate` step before it.
    pub(super) measurements: Vec<AskedMeasurement>,
    /// An approval after it.
    pub(super) approval: Option<Spot>,
}

/// A metric that an `evaluate` step is to measure.
pub(super) struct AskedMeasurement {
    pub(super) spot: Spot,
    pub(super) metric: String,
    pub(super) by: Option<String>,
}

/// The words for which way a metric is better.
pub(super) const DIRECTIONS: [(&str, Direction); 2] =
    [("higher", Direction::Higher), ("lower", Direction::Lower)];

/// Reads the verb.
pub(super) fn gate(
    key: &Key,
    node: &Node,
    place: Place,
    asks: &mut Asks,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Gate> {
    const NO_CHAMPION: [(&str, NoChampion); 2] =
        [("absolute", NoChampion::Absolute), ("fail", NoChampion::Fail)];
    const INCONCLUSIVE: [(&str, OnInconclusive); 2] =
        [("fail", OnInconclusive::Fail), ("approval", OnInconclusive::Approval)];
    let fields = Fields::of(node, key.position, &GATE, f)?;
    let no_champion = fields.word("no_champion", &NO_CHAMPION, f).unwrap_or(NoChampion::Absolute);
    let inconclusive = fields.word("inconclusive", &INCONCLUSIVE, f).unwrap_or(OnInconclusive::Fail);
    if let (OnInconclusive::Approval, Some((key, _))) = (inconclusive, fields.get("inconclusive")) {
        asks.approval = Some(key.position);
    }
    let checks = checks(&fields, place, asks, reads, f);
    let alpha = alpha(&fields, !asks.measurements.is_empty() || checks.is_none(), f);
    Some(Gate { checks: checks?, no_champion, alpha, inconclusive })
}

fn alpha(fields: &Fields<'_>, is_used: bool, f: &mut Findings) -> f64 {
    let Some((key, node)) = fields.get("alpha") else { return Gate::ALPHA };
    let Some(alpha) = fields.number("alpha", f) else { return Gate::ALPHA };
    if !(alpha > 0.0 && alpha < 0.5) {
        let hint = "the share of errors that is allowed, as in 0.05";
        f.add_with_hint("number", node.position, "`alpha` is above 0 and below 0.5", hint);
    }
    if !is_used {
        let hint = "give a check a `role` that compares: success, guardrail or deterioration";
        f.add_with_hint(
            "misplaced-key",
            key.position,
            "`alpha` goes with statistical checks; there is none",
            hint,
        );
    }
    alpha
}

fn checks(
    fields: &Fields<'_>,
    place: Place,
    asks: &mut Asks,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Vec<Check>> {
    let (key, node) = fields.need("checks", "a gate", "checks: [{ metric: accuracy, min: 0.8 }]", f)?;
    let items = list(node, "checks", f)?;
    if items.is_empty() {
        let hint = "for example `{ metric: accuracy, min: 0.8 }`";
        f.add_with_hint("value", key.position, "a gate without checks would let everything pass", hint);
        return None;
    }
    let checks: Vec<Option<Check>> = items.iter().map(|item| check(item, place, asks, reads, f)).collect();
    checks.into_iter().collect()
}

fn check(node: &Node, place: Place, asks: &mut Asks, reads: &mut Reads, f: &mut Findings) -> Option<Check> {
    let fields = Fields::of(node, node.position, &CHECK, f)?;
    let because = fields.text("because", f);
    if let Some((_, expr)) = fields.get("expr") {
        if let Some(other) = METRIC_KEYS.into_iter().find(|name| fields.get(name).is_some()) {
            let message =
                format!("a check is either on a metric or an `expr`, but this has `{other}` beside `expr`");
            f.add_with_hint("value", node.position, message, "make two checks of it");
        }
        return Some(Check::Condition { expr: reads.expression(expr, "expr", place, f)?, because });
    }
    fields.need("metric", "a check", "metric: accuracy", f)?;
    asks.metrics.get_or_insert(node.position);
    let metric = fields.word_of_ones_own("metric", f)?;
    if fields.get("role").is_some() || fields.get("by").is_some() {
        return on_examples(node, &fields, metric, because, asks, f);
    }
    for (name, with) in [("margin", "`role: guardrail`"), ("min_examples", "`by` or a `role` that compares")]
    {
        if let Some((key, _)) = fields.get(name) {
            f.add("misplaced-key", key.position, format!("`{name}` goes with {with}"));
        }
    }
    if fields.get("min_change").is_some() {
        return change(node, &fields, metric, because, asks, f);
    }
    report_direction(&fields, "`min_change` or a `role` that compares", f);
    let (min, max) = bounds(node, &fields, &metric, "`min`, `max` or `min_change`", f)?;
    Some(Check::Bounds { metric, min, max, because })
}

fn change(
    node: &Node,
    fields: &Fields<'_>,
    metric: String,
    because: Option<String>,
    asks: &mut Asks,
    f: &mut Findings,
) -> Option<Check> {
    if fields.get("min").is_some() || fields.get("max").is_some() {
        let message = "`min_change` compares with the champion, `min` and `max` with a number";
        f.add_with_hint("value", node.position, message, "make two checks of it");
    }
    asks.model.get_or_insert(node.position);
    let direction = direction(fields, &metric, f);
    Some(Check::Change { metric, min_change: fields.number("min_change", f)?, direction, because })
}

/// The words of `role`; what they carry is read from the keys beside them.
#[derive(Clone, Copy)]
enum Kind {
    Absolute,
    Success,
    Guardrail,
    Deterioration,
}

/// A check with a role, or in slices.
fn on_examples(
    node: &Node,
    fields: &Fields<'_>,
    metric: String,
    because: Option<String>,
    asks: &mut Asks,
    f: &mut Findings,
) -> Option<Check> {
    const WORDS: [(&str, Kind); 4] = [
        ("absolute", Kind::Absolute),
        ("success", Kind::Success),
        ("guardrail", Kind::Guardrail),
        ("deterioration", Kind::Deterioration),
    ];
    let kind = match fields.get("role") {
        Some(_) => fields.word("role", &WORDS, f)?,
        None if fields.get("min").is_some() || fields.get("max").is_some() => Kind::Absolute,
        None => {
            let hint = "for example `role: guardrail` with a `margin`, or bounds with `min` or `max`";
            f.add_with_hint("missing-key", node.position, "a check in slices (`by`) needs a `role`", hint);
            return None;
        }
    };
    report_strangers(kind, fields, f);
    let by = fields.word_of_ones_own("by", f);
    let min_examples = fields.count("min_examples", f);
    let role = match kind {
        Kind::Absolute => {
            let (min, max) = bounds(node, fields, &metric, "`min` or `max`", f)?;
            if by.is_none() {
                if let Some((key, _)) = fields.get("min_examples") {
                    f.add(
                        "misplaced-key",
                        key.position,
                        "`min_examples` goes with `by` or a `role` that compares",
                    );
                }
                return Some(Check::Bounds { metric, min, max, because });
            }
            Role::Absolute { min, max }
        }
        Kind::Success => Role::Success,
        Kind::Deterioration => Role::Deterioration,
        Kind::Guardrail => Role::Guardrail { margin: margin(node, fields, f)? },
    };
    asks.measurements.push(AskedMeasurement { spot: node.position, metric: metric.clone(), by: by.clone() });
    if !matches!(kind, Kind::Absolute) {
        asks.model.get_or_insert(node.position);
    }
    let direction = direction(fields, &metric, f);
    let check = StatisticalCheck { metric, role, direction, by, min_examples, because };
    Some(Check::Statistical(Box::new(check)))
}

/// Keys that say nothing in a check of this role.
fn report_strangers(kind: Kind, fields: &Fields<'_>, f: &mut Findings) {
    let (role, way) = match kind {
        Kind::Absolute => ("absolute", "it compares with numbers alone: `min` and `max`"),
        Kind::Success => ("success", "the candidate must be significantly better, by however little"),
        Kind::Guardrail => ("guardrail", "say with `margin` how much worse would still be harmless"),
        Kind::Deterioration => (
            "deterioration",
            "the candidate must not be significantly worse; for a margin use `role: guardrail`",
        ),
    };
    for name in CHECK.barred("role", role) {
        if let Some((key, _)) = fields.get(name) {
            let message = format!("`{name}` does not go with `role: {role}`");
            f.add_with_hint("misplaced-key", key.position, message, way);
        }
    }
}

fn margin(node: &Node, fields: &Fields<'_>, f: &mut Findings) -> Option<f64> {
    let Some((_, value)) = fields.get("margin") else {
        let hint = "say how much worse would still be harmless, in the metric's unit, as in `margin: 0.005`";
        f.add_with_hint("missing-key", node.position, "a guardrail needs a `margin`", hint);
        return None;
    };
    let margin = fields.number("margin", f)?;
    if margin < 0.0 {
        f.add("number", value.position, "`margin` is a loss, written as a number of at least 0");
    }
    Some(margin)
}

fn bounds(
    node: &Node,
    fields: &Fields<'_>,
    metric: &str,
    what: &str,
    f: &mut Findings,
) -> Option<(Option<f64>, Option<f64>)> {
    if fields.get("min").is_none() && fields.get("max").is_none() {
        if fields.is_meant("min") || fields.is_meant("max") {
            return None;
        }
        let hint = format!("give it {what}, as in `{{ metric: accuracy, min: 0.8 }}`");
        f.add_with_hint(
            "missing-key",
            node.position,
            format!("the check of `{metric}` asks for nothing"),
            hint,
        );
        return None;
    }
    let (min, max) = (fields.number("min", f), fields.number("max", f));
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        let spot = fields.get("max").map_or(node.position, |(_, node)| node.position);
        let hint = "`min` is the least it may be, `max` the most";
        f.add_with_hint("value", spot, format!("nothing lies between {min} and {max}"), hint);
    }
    Some((min, max))
}

fn report_direction(fields: &Fields<'_>, with: &str, f: &mut Findings) {
    if let Some((key, _)) = fields.get("direction") {
        f.add("misplaced-key", key.position, format!("`direction` goes with {with}"));
    }
}

/// Which way a metric is better: what the check says, else what is known of the metric, else higher.
fn direction(fields: &Fields<'_>, metric: &str, f: &mut Findings) -> Direction {
    let known = Metric::of_name(metric).map(Metric::direction);
    let said = fields.word("direction", &DIRECTIONS, f);
    if let (Some(known), Some(said), Some((_, node))) = (known, said, fields.get("direction"))
        && known != said
    {
        let better = if known == Direction::Higher { "higher" } else { "lower" };
        let hint = "leave `direction` out, or give a number of your own another name";
        f.add_with_hint("value", node.position, format!("`{metric}` is better when it is {better}"), hint);
    }
    said.or(known).unwrap_or(Direction::Higher)
}

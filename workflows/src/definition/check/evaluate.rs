//! The verb `evaluate`: which metrics of which columns. Must never happen here: a metric nobody can count.

use super::super::diagnostics::{Findings, shown};
use super::super::language::{EVALUATE, OWN_METRIC};
use super::super::raw::{Key, Node, Raw};
use super::super::{ColumnTest, EvaluateTask, EvaluatedMetric, Examples, Metric};
use super::data::{data, format};
use super::fields::{Fields, list, text};
use super::gate::DIRECTIONS;
use super::reads::{Place, Reads};

/// Reads the verb.
pub(super) fn evaluate(
    key: &Key,
    node: &Node,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<EvaluateTask> {
    let fields = Fields::of(node, key.position, &EVALUATE, f)?;
    let example = "predictions: \"${{ steps.evaluate.artifacts.predictions }}\"";
    let predictions = fields.need("predictions", "`evaluate`", example, f);
    let predictions = predictions.and_then(|(_, node)| data(node, "predictions", place, reads, f));
    let format = format(&fields, predictions.as_ref(), "predictions", f);
    let label = fields.need("label", "`evaluate`", "label: churned", f);
    let label = label.and_then(|_| fields.word_of_ones_own("label", f));
    let metrics = metrics(&fields, f);
    let mut column = |name| fields.word_of_ones_own(name, f);
    let (candidate, champion) = (column("candidate"), column("champion"));
    let (weight, cluster, id, group) = (column("weight"), column("cluster"), column("id"), column("group"));
    let threshold = fields.number("threshold", f).unwrap_or(0.5);
    let by = fields.texts("by", f).unwrap_or_default();
    let examples = Examples {
        format,
        label: label?,
        candidate: candidate.unwrap_or_else(|| "candidate".to_owned()),
        champion: champion.unwrap_or_else(|| "champion".to_owned()),
        weight,
        cluster,
        id,
        group,
        threshold,
        metrics: metrics?,
        by,
    };
    check_columns(&fields, &examples, f);
    Some(EvaluateTask { predictions: predictions?, examples })
}

fn check_columns(fields: &Fields<'_>, examples: &Examples, f: &mut Findings) {
    if examples.candidate == examples.champion {
        let spot = fields
            .get("champion")
            .or(fields.get("candidate"))
            .map_or(fields.position, |(_, node)| node.position);
        f.add("value", spot, "the candidate and the champion have a column of predictions each");
    }
    let is_ranking =
        |metric: &EvaluatedMetric| matches!(metric, EvaluatedMetric::Known(known) if known.is_ranking());
    let ranking = examples.metrics.iter().find(|metric| is_ranking(metric));
    match (ranking, &examples.group, fields.get("group")) {
        (Some(metric), None, None) => {
            let message =
                format!("`{}` is about rankings, and needs `group`: the column of the query", metric.name());
            f.add_with_hint("missing-key", fields.position, message, "for example `group: query_id`");
        }
        (None, Some(_), Some((key, _))) => {
            f.add("misplaced-key", key.position, "`group` goes with metrics of rankings, such as ndcg@10");
        }
        _ => {}
    }
    if let (true, Some((key, _))) = (
        examples.metrics.iter().any(EvaluatedMetric::is_of_two_samples),
        fields.get("weight").or_else(|| fields.get("cluster")),
    ) {
        let message = format!("`{}` does not go with `test: welch` or `test: mann_whitney`", key.name);
        let hint =
            "these take rows for independent and equal: leave one of the two out, or make two steps of it";
        f.add_with_hint("misplaced-key", key.position, message, hint);
    }
}

fn metrics(fields: &Fields<'_>, f: &mut Findings) -> Option<Vec<EvaluatedMetric>> {
    let (key, node) = fields.need("metrics", "`evaluate`", "metrics: [roc_auc, log_loss]", f)?;
    let items = list(node, "metrics", f)?;
    if items.is_empty() {
        f.add_with_hint(
            "value",
            key.position,
            "there is nothing to count",
            "for example `metrics: [accuracy]`",
        );
        return None;
    }
    let mut metrics: Vec<EvaluatedMetric> = Vec::new();
    let mut sound = true;
    for item in items {
        match metric(item, f) {
            Some(metric) if metrics.iter().any(|other| other.name() == metric.name()) => {
                f.add("value", item.position, format!("`{}` is counted twice", metric.name()));
            }
            Some(metric) => metrics.push(metric),
            None => sound = false,
        }
    }
    sound.then_some(metrics)
}

fn metric(node: &Node, f: &mut Findings) -> Option<EvaluatedMetric> {
    if let Raw::Map(_) = &node.value {
        return own_metric(node, f);
    }
    let name = text(node, "metrics", f)?.text.as_str();
    let metric = Metric::of_name(name);
    if metric.is_none() {
        let known: Vec<&str> =
            Metric::NAMES.iter().map(|(name, _)| *name).chain(["ndcg@10", "recall@10"]).collect();
        let hint =
            super::super::diagnostics::did_you_mean(name, known.iter().copied()).unwrap_or_else(|| {
                format!(
                    "the metrics are {}; a column of your own is {{ name, candidate, champion, direction }}",
                    known.join(", ")
                )
            });
        let message = format!("there is no metric `{}`", shown(name));
        f.add_with_hint("unknown-metric", node.position, message, hint);
    }
    metric.map(EvaluatedMetric::Known)
}

const TESTS: [(&str, ColumnTest); 3] = [
    ("paired_t", ColumnTest::PairedT),
    ("welch", ColumnTest::Welch),
    ("mann_whitney", ColumnTest::MannWhitney),
];

fn own_metric(node: &Node, f: &mut Findings) -> Option<EvaluatedMetric> {
    let fields = Fields::of(node, node.position, &OWN_METRIC, f)?;
    for (name, example) in [
        ("name", "name: revenue_loss"),
        ("candidate", "candidate: loss_candidate"),
        ("champion", "champion: loss_champion"),
        ("direction", "direction: lower"),
    ] {
        fields.need(name, "a metric of your own", example, f);
    }
    let name = fields.name("name", f);
    if let (Some(taken), Some((_, node))) =
        (name.as_deref().filter(|name| Metric::of_name(name).is_some()), fields.get("name"))
    {
        f.add("reserved-name", node.position, format!("`{taken}` is counted by Refit: choose another name"));
    }
    let candidate = fields.word_of_ones_own("candidate", f);
    let champion = fields.word_of_ones_own("champion", f);
    let direction = fields.word("direction", &DIRECTIONS, f);
    let test = fields.word("test", &TESTS, f).unwrap_or(ColumnTest::PairedT);
    Some(EvaluatedMetric::Column {
        name: name?,
        candidate: candidate?,
        champion: champion?,
        direction: direction?,
        test,
    })
}

//! What `validate` and `evaluate` have in common: how data is named, its format, and columns. Must never happen here:
//! looking at data.

use super::super::DataFormat;
use super::super::diagnostics::{Findings, shown};
use super::super::raw::Node;
use super::fields::Fields;
use super::reads::{Place, Reads};
use crate::template::Template;
use crate::wire::{S3Url, check_relative_path};

/// A template that names data: a path inside the bundle, an absolute path, an `s3://` URL or an artifact.
pub(super) fn data(
    node: &Node,
    what: &str,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Template> {
    let template = reads.template(node, what, place, f)?;
    let source = template.source();
    let written = source.split("${{").next().unwrap_or_default();
    if let Some((scheme, _)) = written.split_once("://") {
        if scheme != "s3" {
            let message = format!("`{what}` cannot be read from {}://", shown(scheme));
            let hint = "give a path, an artifact, or s3://BUCKET/KEY";
            f.add_with_hint("value", node.position, message, hint);
        } else if !Template::is_in(source)
            && let Err(wrong) = source.parse::<S3Url>()
        {
            f.add("value", node.position, format!("`{}` {wrong}", shown(source)));
        }
    } else if source.trim().is_empty() {
        f.add("value", node.position, format!("`{what}` is empty"));
    } else if !Template::is_in(source)
        && !source.starts_with('/')
        && let Err(wrong) = check_relative_path(source)
    {
        let shown = shown(source);
        f.add("path", node.position, format!("`{shown}` {wrong}"));
    }
    Some(template)
}

/// `format`; where it is not given and the name is written out, its ending must say it.
pub(super) fn format(
    fields: &Fields<'_>,
    data: Option<&Template>,
    named_by: &str,
    f: &mut Findings,
) -> Option<DataFormat> {
    const WORDS: [(&str, DataFormat); 3] =
        [("csv", DataFormat::Csv), ("jsonl", DataFormat::JsonLines), ("parquet", DataFormat::Parquet)];
    let format = fields.word("format", &WORDS, f);
    if fields.get("format").is_none()
        && let Some((_, node)) = fields.get(named_by)
        && let Some(name) = data.map(Template::source)
        && !name.trim().is_empty()
        && !name.trim_end().ends_with("}}")
        && !name.ends_with('/')
        && DataFormat::of_name(name).is_none()
    {
        let hint = "write `format: csv`, `jsonl` or `parquet`";
        f.add_with_hint("missing-key", node.position, "the name does not say how its rows are written", hint);
    }
    format
}

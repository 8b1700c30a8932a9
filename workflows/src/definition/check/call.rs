//! The verb `call`: an HTTP request. Must never happen here: a request to something that is no http or https URL.

use std::collections::BTreeMap;

use super::super::CallTask;
use super::super::diagnostics::{Findings, shown};
use super::super::language::CALL;
use super::super::raw::{Key, Node};
use super::fields::Fields;
use super::reads::{Place, Reads};
use crate::template::Template;

const METHODS: [(&str, &str); 6] = [
    ("GET", "GET"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("PATCH", "PATCH"),
    ("DELETE", "DELETE"),
    ("HEAD", "HEAD"),
];

/// Headers that belong to the connection or follow from the request.
const SET_BY_REFIT: [&str; 4] = ["host", "content-length", "transfer-encoding", "connection"];

/// Reads the verb.
pub(super) fn call(
    key: &Key,
    node: &Node,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<CallTask> {
    let fields = Fields::of(node, key.position, &CALL, f)?;
    let json = fields.get("json");
    let method = match fields.get("method") {
        Some(_) => fields.word("method", &METHODS, f),
        None => Some(if json.is_some() { "POST" } else { "GET" }),
    };
    if let (Some(method @ ("GET" | "HEAD")), Some((key, _))) = (method, json) {
        let hint = "leave `method` out, or write POST, PUT or PATCH";
        f.add_with_hint("value", key.position, format!("a {method} request has no body"), hint);
    }
    let url = fields.need("url", "`call`", "url: https://serving.internal/reload", f);
    let url = url.and_then(|(_, node)| {
        let url = reads.template(node, "url", place, f)?;
        check_url(&url, node, f);
        Some(url)
    });
    let headers = headers(&fields, place, reads, f);
    let body = match json {
        Some((_, node)) => Some(reads.value(node, "json", place, f)?),
        None => None,
    };
    Some(CallTask { method: method?.to_owned(), url: url?, headers, json: body })
}

/// What is written out of a URL must begin as one; a URL that is one value is looked at when it is known.
fn check_url(url: &Template, node: &Node, f: &mut Findings) {
    let written = url.source().split("${{").next().unwrap_or_default();
    let is_one_value = written.is_empty() && Template::is_in(url.source());
    let rest = ["http://", "https://"].into_iter().find_map(|scheme| written.strip_prefix(scheme));
    match rest {
        Some("") if !Template::is_in(url.source()) => f.add("value", node.position, "the URL names no host"),
        Some(rest) if rest.contains(char::is_whitespace) => {
            f.add("value", node.position, "a URL holds no spaces: write %20");
        }
        Some(_) => {}
        None if is_one_value => {}
        None => {
            let hint = "for example https://serving.internal/reload";
            f.add_with_hint("value", node.position, "`url` begins with http:// or https://", hint);
        }
    }
}

fn headers(
    fields: &Fields<'_>,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> BTreeMap<String, Template> {
    let mut headers: BTreeMap<String, Template> = BTreeMap::new();
    let declared =
        fields.get("headers").and_then(|(key, node)| Fields::any(node, key.position, "`headers`", f));
    for (key, node) in declared.iter().flat_map(|declared| declared.entries()) {
        // RFC 9110, section 5.6.2: a token.
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if key.name.is_empty() || !key.name.bytes().all(is_token) {
            let message = format!("`{}` is not a header's name", shown(&key.name));
            f.add("name", key.position, message);
        } else if SET_BY_REFIT.contains(&key.name.to_ascii_lowercase().as_str()) {
            let message = format!("`{}` follows from the request: it cannot be set", key.name);
            f.add("reserved-name", key.position, message);
        } else if headers.keys().any(|other| other.eq_ignore_ascii_case(&key.name)) {
            let message = format!("`{}` is there already: case does not matter in headers", key.name);
            f.add("duplicate-key", key.position, message);
        }
        if let Some(template) = reads.template(node, &key.name, place, f) {
            if template.source().contains(['\n', '\r']) {
                f.add("value", node.position, "a header is one line");
            }
            headers.insert(key.name.clone(), template);
        }
    }
    headers
}

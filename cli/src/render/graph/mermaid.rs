//! The graph as a Mermaid flowchart, which GitHub, GitLab and most wikis draw. Every need is an edge. Ids are places, so
//! that no name can be a keyword or break the syntax.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Graph, Node};
use crate::render::clean;

/// How the states of a run are coloured; others keep the plain look.
const LOOKS: [(&str, &str); 9] = [
    ("blocked", "fill:#f6f8fa,stroke:#8c959f,color:#57606a"),
    ("ready", "fill:#ddf4ff,stroke:#54aeff,color:#0a3069"),
    ("running", "fill:#b6e3ff,stroke:#0969da,color:#0a3069"),
    ("waiting", "fill:#fff8c5,stroke:#bf8700,color:#4d2d00"),
    ("succeeded", "fill:#dafbe1,stroke:#1a7f37,color:#044f1e"),
    ("rejected", "fill:#ffd8b5,stroke:#bc4c00,color:#471700"),
    ("failed", "fill:#ffcecb,stroke:#cf222e,color:#4c0014"),
    ("skipped", "fill:#f6f8fa,stroke:#8c959f,color:#57606a,stroke-dasharray:4"),
    ("cancelled", "fill:#eaeef2,stroke:#6e7781,color:#24292f"),
];

/// The whole flowchart.
pub(super) fn draw(graph: &Graph) -> String {
    let mut text = "flowchart TD\n".to_owned();
    // Writing to a String cannot fail.
    for (place, step) in graph.steps.iter().enumerate().filter(|(_, step)| !step.finally) {
        let _ = writeln!(text, "    {}", shape(place, step));
    }
    if graph.steps.iter().any(|step| step.finally) {
        text.push_str("    subgraph after[\"finally\"]\n");
        for (place, step) in graph.steps.iter().enumerate().filter(|(_, step)| step.finally) {
            let _ = writeln!(text, "        {}", shape(place, step));
        }
        text.push_str("    end\n");
    }
    for (place, step) in graph.steps.iter().enumerate() {
        for need in &step.needs {
            let _ = writeln!(text, "    s{need} --> s{place}");
        }
    }
    for (before, after) in graph.afterwards() {
        let _ = writeln!(text, "    s{before} -.-> s{after}");
    }
    let states: BTreeSet<&str> = graph.steps.iter().filter_map(|step| step.state.as_deref()).collect();
    for (state, look) in LOOKS.iter().filter(|(state, _)| states.contains(state)) {
        let _ = writeln!(text, "    classDef {state} {look}");
    }
    text
}

/// A step: what decides has six corners.
fn shape(place: usize, step: &Node) -> String {
    let (open, close) =
        if matches!(step.verb.as_str(), "gate" | "approval") { ("{{", "}}") } else { ("[", "]") };
    let state = step.state.as_deref();
    let told = state.map(|state| format!(", {}", escaped(state))).unwrap_or_default();
    let class = state.filter(|state| LOOKS.iter().any(|(known, _)| known == state));
    let class = class.map(|class| format!(":::{class}")).unwrap_or_default();
    let (name, verb) = (escaped(&step.name), escaped(&step.verb));
    format!("s{place}{open}\"{name}<br/>{verb}{told}\"{close}{class}")
}

/// Text inside a quoted label: what Mermaid or HTML would take for syntax becomes an entity.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in clean(text).chars() {
        if c.is_ascii_punctuation() && !matches!(c, '-' | '_' | '.' | ',' | '=' | '[' | ']' | '/' | ':') {
            let _ = write!(escaped, "#{};", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

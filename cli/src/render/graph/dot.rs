//! The graph in the language of Graphviz. Every need is an edge; all names are quoted.

use std::fmt::Write as _;

use super::{Graph, Node};
use crate::render::clean;

/// The whole digraph.
pub(super) fn draw(graph: &Graph) -> String {
    // Writing to a String cannot fail.
    let mut text = format!("digraph \"{}\" {{\n", escaped(&graph.name));
    text.push_str(
        "    node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"sans-serif\"];\n",
    );
    for step in graph.steps.iter().filter(|step| !step.finally) {
        let _ = writeln!(text, "    {}", node(step));
    }
    if graph.steps.iter().any(|step| step.finally) {
        text.push_str("    subgraph \"cluster_finally\" {\n        label=\"finally\";\n");
        for step in graph.steps.iter().filter(|step| step.finally) {
            let _ = writeln!(text, "        {}", node(step));
        }
        text.push_str("    }\n");
    }
    let name = |place: usize| escaped(&graph.steps[place].name);
    for (place, step) in graph.steps.iter().enumerate() {
        for &need in &step.needs {
            let _ = writeln!(text, "    \"{}\" -> \"{}\";", name(need), name(place));
        }
    }
    for (before, after) in graph.afterwards() {
        let _ = writeln!(text, "    \"{}\" -> \"{}\" [style=dotted];", name(before), name(after));
    }
    text.push_str("}\n");
    text
}

/// A step: what decides has six corners.
fn node(step: &Node) -> String {
    let name = escaped(&step.name);
    let state = step.state.as_deref();
    let told = state.map(|state| format!(", {}", escaped(state))).unwrap_or_default();
    let fill = state.and_then(fill).map(|fill| format!(", fillcolor=\"{fill}\"")).unwrap_or_default();
    let corners = if matches!(step.verb.as_str(), "gate" | "approval") { ", shape=hexagon" } else { "" };
    format!("\"{name}\" [label=\"{name}\\n{}{told}\"{corners}{fill}];", escaped(&step.verb))
}

fn fill(state: &str) -> Option<&'static str> {
    Some(match state {
        "ready" => "#ddf4ff",
        "running" => "#b6e3ff",
        "waiting" => "#fff8c5",
        "succeeded" => "#dafbe1",
        "rejected" => "#ffd8b5",
        "failed" => "#ffcecb",
        "blocked" | "skipped" => "#f6f8fa",
        "cancelled" => "#eaeef2",
        _ => return None,
    })
}

/// Text inside quotes. In a label a backslash begins an escape, so that it is doubled, everywhere alike.
fn escaped(text: &str) -> String {
    clean(text).replace('\\', "\\\\").replace('"', "\\\"")
}

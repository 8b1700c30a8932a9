//! What several commands take: the form of the answer, how much of it, a drawn graph.

use clap::{Args, ValueEnum};

/// `-o`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// The form of the answer: a table for people, JSON or YAML for programs
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(crate) format: Format,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people; not stable.
    Table,
    /// Stable: keys are added, never renamed.
    Json,
    /// The same as JSON.
    Yaml,
}

/// `--graph`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Graph {
    /// Draw the graph: here (text), or as text for documents (mermaid, dot)
    #[arg(long = "graph", value_enum, value_name = "FORM", num_args = 0..=1, require_equals = true,
          default_missing_value = "text", conflicts_with = "format")]
    pub(crate) form: Option<GraphForm>,
}

/// The form of a drawn graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphForm {
    /// Rails in the terminal, one step a line.
    Text,
    /// A Mermaid flowchart.
    Mermaid,
    /// Graphviz.
    Dot,
}

/// `--limit`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

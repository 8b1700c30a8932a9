//! `matrix`: one step as many instances. Which combinations there are is known here as far as the file says it; the
//! rest is counted when the step starts.

use serde_json::Value;

use crate::template::Template;

/// `matrix`, `max_parallel` and `min_success`. Only steps that do [`Verb::Work`](super::Verb::Work) or run a workflow have one.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Where the combinations come from.
    pub values: MatrixValues,
    /// The most instances at work at once; without it all of them.
    pub max_parallel: Option<u32>,
    /// The share of instances that must succeed for the step to succeed, above 0 and at most 1 (the default: all).
    pub min_success: f64,
}

impl Matrix {
    /// The most instances of one step.
    pub const INSTANCES_MAX: usize = 1000;
}

/// Where the combinations of a matrix come from.
#[derive(Clone, Debug)]
pub enum MatrixValues {
    /// Every combination of the axes' values, the last axis turning fastest. An axis may be one template that gives a
    /// list.
    Axes(Vec<(String, Axis)>),
    /// `${{ … }}` that gives a list: of objects, whose fields are the axes, or of plain values, read as `matrix.value`.
    List(Template),
}

/// The values of one axis.
#[derive(Clone, Debug)]
pub enum Axis {
    /// Written out: text, numbers and booleans.
    Values(Vec<Value>),
    /// `${{ … }}` that gives a list of such.
    List(Template),
}

impl MatrixValues {
    /// The names of the axes, in the file's order; `None` when they are known only once the list is.
    pub fn axes(&self) -> Option<Vec<&str>> {
        match self {
            Self::Axes(axes) => Some(axes.iter().map(|(name, _)| name.as_str()).collect()),
            Self::List(_) => None,
        }
    }

    /// How many combinations the axes that are written out have; at least as many as the step will have instances
    /// unless another axis is empty. `None` for a list.
    pub fn combinations(&self) -> Option<usize> {
        let Self::Axes(axes) = self else { return None };
        Some(axes.iter().fold(1_usize, |product, (_, axis)| match axis {
            Axis::Values(values) => product.saturating_mul(values.len()),
            Axis::List(_) => product,
        }))
    }
}

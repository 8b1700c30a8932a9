//! The graph in a terminal: rails on the left, one step a line beside them, in the look of `run watch`. A graph too wide
//! for rails becomes a list in which each step names what it needs.

use std::borrow::Cow;

use super::rails::{self, MARK};
use super::{Graph, Node, reduced};
use crate::render::{BOLD, DIM, clean, paint, state, state_look};

/// The widest name that others are aligned with.
const NAME_MAX: usize = 40;

/// One line a step, cut to `columns` where that is known.
pub(super) fn draw(graph: &Graph, columns: Option<usize>) -> String {
    let names = Widths::of(&graph.steps);
    let order = graph.order();
    let in_file = || (0..graph.steps.len()).collect();
    let places: Vec<usize> = order.clone().unwrap_or_else(in_file);
    let needs = match order {
        Some(_) => reduced(&moved(graph, &places)),
        None => graph.steps.iter().map(|step| step.needs.clone()).collect(),
    };
    // Without an order the needs are no graph that could be drawn, but can be told.
    let drawing = order.and_then(|_| rails::draw(&needs));
    let mut text = String::new();
    for (line, &place) in places.iter().enumerate() {
        let step = &graph.steps[place];
        let (rails, told) = match &drawing {
            Some(drawing) => (drawing.lines[line].clone(), String::new()),
            None => (MARK.to_string(), told(&needs[line], |need| &graph.steps[places[need]].name)),
        };
        let line = format!("{}  {}{told}", marked(&rails, step), names.line(step));
        let line = line.trim_end();
        match columns {
            Some(columns) => text.push_str(&console::truncate_str(line, columns, "…")),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// The needs of the steps in this order, as places in it.
fn moved(graph: &Graph, order: &[usize]) -> Vec<Vec<usize>> {
    let mut line = vec![0; order.len()];
    for (at, &place) in order.iter().enumerate() {
        line[place] = at;
    }
    order.iter().map(|&place| graph.steps[place].needs.iter().map(|&need| line[need]).collect()).collect()
}

fn told<'a>(needs: &[usize], name: impl Fn(usize) -> &'a String) -> String {
    if needs.is_empty() {
        return String::new();
    }
    let names: Vec<_> = needs.iter().map(|&need| clean(name(need))).collect();
    format!("  needs: {}", names.join(", "))
}

/// The rails with the mark in the colour of the step's state.
fn marked(rails: &str, step: &Node) -> String {
    let style = step.state.as_deref().map_or(BOLD, |state| state_look(state).1);
    rails.replace(MARK, &paint(style, MARK))
}

/// How wide the columns beside the rails are.
struct Widths {
    name: usize,
    verb: usize,
    state: usize,
}

impl Widths {
    fn of(steps: &[Node]) -> Self {
        let widest = |text: fn(&Node) -> Cow<'_, str>| {
            steps.iter().map(|step| console::measure_text_width(&text(step))).max().unwrap_or(0)
        };
        Self {
            name: widest(|step| clean(&step.name)).min(NAME_MAX),
            verb: widest(|step| Cow::Owned(verb(step))),
            state: widest(|step| Cow::Owned(step.state.as_deref().map(state).unwrap_or_default())),
        }
    }

    /// The step beside its rails.
    fn line(&self, step: &Node) -> String {
        let mut line = padded(&paint(BOLD, clean(&step.name)), self.name);
        line.push_str("  ");
        line.push_str(&padded(&paint(DIM, verb(step)), self.verb));
        if let Some(name) = &step.state {
            line.push_str("  ");
            line.push_str(&padded(&state(name), self.state));
        }
        if !step.note.is_empty() {
            line.push_str("  ");
            line.push_str(&clean(&step.note));
        }
        line
    }
}

/// A step's verb, and that it comes last where it does.
fn verb(step: &Node) -> String {
    format!("{}{}", clean(&step.verb), if step.finally { ", finally" } else { "" })
}

fn padded(text: &str, width: usize) -> String {
    console::pad_str(text, width, console::Alignment::Left, None).into_owned()
}

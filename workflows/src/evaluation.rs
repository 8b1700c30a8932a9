//! What `evaluate` hands to the gates behind it: the questions that gates ask about examples on which both models were tried,
//! and the answers. The worker that has the examples answers, a gate decides.
//! Must never happen here: statistics being counted, or a verdict.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::gate::{Direction, Role};
use crate::statistics::Difference;

/// The most slices of one column: a column with more values is no column to judge by.
pub const SLICES_MAX: usize = 100;
/// The most slices in all answers together.
pub const MEASURED_MAX: usize = 2_000;

/// What a gate wants to know of one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The metric's name.
    pub metric: String,
    /// Which way it is better.
    pub direction: Direction,
    /// What must be shown.
    pub role: Role,
    /// How often the answer may err, one-sided.
    pub alpha: f64,
    /// The column whose values cut the examples into slices; none: all of them together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What an `evaluate` step found: part of what it hands on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// How many examples there are.
    pub examples: u64,
    /// Names the examples whatever the models say of them: their labels, and their ids where they have such, in the order of the
    /// table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Digest>,
    /// What the champion comes to on them, by metric; none when there is no champion. The candidate's metrics are the step's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<BTreeMap<String, f64>>,
    /// One answer a question, in the order they were asked.
    pub answers: Vec<Answer>,
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The question.
    pub question: Question,
    /// One for all examples, or one a slice by the slice's value.
    pub measured: Vec<Measured>,
}

/// What was measured on all examples, or on one slice of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The column's value; none: all examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// How many examples it rests on: those on which the models were compared, which are queries for a metric of rankings, clusters
    /// where rows belong together, and positives for the recall of two classes. Rows, where nothing was compared.
    pub examples: u64,
    /// What came of it.
    #[serde(flatten)]
    pub found: Measurement,
}

/// What came of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "found", rename_all = "snake_case")]
pub enum Measurement {
    /// The candidate alone: there is no champion, or the question is about the candidate alone.
    Alone {
        /// Its metric; finite.
        candidate: f64,
    },
    /// Both models.
    Compared {
        /// The candidate's metric; finite.
        candidate: f64,
        /// The champion's; finite.
        champion: f64,
        /// Their difference, turned so that positive is better, and how sure it is.
        difference: Difference,
    },
    /// There are too few examples for the method; more of them would help.
    TooFew {
        /// In words.
        reason: String,
    },
    /// The examples cannot be judged by.
    Flawed {
        /// In words.
        reason: String,
    },
}

impl Evaluation {
    /// The answer to a question, if it was asked.
    pub fn answer(&self, question: &Question) -> Option<&Answer> {
        self.answers.iter().find(|answer| answer.question == *question)
    }
}

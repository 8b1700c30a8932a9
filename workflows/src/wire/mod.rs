//! Every type that crosses a process boundary: what the API answers and takes, and the worker protocol. Keys are
//! added, never renamed. No behaviour lives here beyond reading and writing.

mod api;
mod artifacts;
mod data;
mod evidence;
mod mirror;
mod models;
mod operations;
mod record;
mod secret;
mod targets;
mod worker;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::{Examples, HostNeeds, Python};
use crate::digest::Digest;
use crate::evaluation::{Evaluation, Question};
use crate::names::RunName;
use crate::time::Timestamp;

pub use api::*;
pub use artifacts::*;
pub use data::*;
pub use evidence::*;
pub use mirror::*;
pub use models::*;
pub use operations::*;
pub use record::*;
pub use secret::*;
pub use targets::*;
pub use worker::*;

//! Reading a JSON payload, with refusals that name what is missing by its path; ids made from content. Must never happen
//! here: an id that depends on the order of an object's names.

use serde_json::Value;

use super::{Delivery, Malformed};
use crate::digest::Digest;

/// The body as JSON. `wanted` says what to send, for the refusal.
pub(super) fn parse(delivery: &Delivery<'_>, wanted: &str) -> Result<Value, Malformed> {
    serde_json::from_slice(delivery.body).map_err(|error| Malformed {
        position: Some((error.line(), error.column())),
        ..Malformed::new(format!("the body is not JSON: {error}; send {wanted}"))
    })
}

/// The id of an event whose source gives none: the digest of what makes it that event and no other.
pub(super) fn derived_id(parts: Value) -> String {
    let mut parts = parts;
    parts.sort_all_objects();
    Digest::of(parts.to_string().as_bytes()).to_string()
}

//! An event pattern, and an event that it is matched with: the two halves of a line `{"pattern": …, "event": …}`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use refit_workflows::pattern::{Pattern, PatternSet};
use serde_json::Value;

fuzz_target!(|text: &str| {
    let Ok(case) = serde_json::from_str::<Value>(text) else { return };
    let Ok(pattern) = Pattern::parse(&case["pattern"]) else { return };
    let event = &case["event"];
    let matches = pattern.matches(event);
    let again = Pattern::parse(pattern.source()).expect("a sound pattern is sound again");
    assert_eq!(again.matches(event), matches);
    assert_eq!(!PatternSet::new([pattern]).matching(event).is_empty(), matches);
});

//! A workflow file through everything that `check` does: reading, keys, types of expressions, the graph, and the files that
//! steps use. Any input: an answer, with its problems in order.

#![no_main]

use libfuzzer_sys::fuzz_target;
use refit_workflows::definition::{Files, Workflow};

/// What stands behind this line is the file that every `uses` names.
const USED: &str = "\n#used\n";

struct One<'t>(Option<&'t str>);

impl Files for One<'_> {
    fn read(&self, path: &str) -> Result<String, String> {
        self.0.map(str::to_owned).ok_or_else(|| format!("there is no {path}"))
    }
}

fuzz_target!(|text: &str| {
    let (text, used) = match text.split_once(USED) {
        Some((text, used)) => (text, Some(used)),
        None => (text, None),
    };
    match Workflow::parse_all_with(text, &One(used)) {
        Ok(workflows) => assert!(workflows.iter().all(|workflow| !workflow.steps.is_empty())),
        Err(problems) => assert!(!problems.is_empty() && problems.len() <= 100),
    }
});

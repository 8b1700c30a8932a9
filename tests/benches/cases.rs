//! How long `refit test` takes for 200 cases, beside the start of the program alone. Prints; judges nothing.
//! `tests/run --bench` runs it.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on has nobody to tell but its terminal")]
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Cases in all.
const CASES: usize = 200;
/// Rounds of each measurement; odd, so that there is a middle one.
const ROUNDS: usize = 5;

fn main() {
    let refit = refit_tests::processes::release_binary();
    let example = refit_tests::processes::workspace().join("examples/digits");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in ["workflow.yaml", "train.py", "evaluate.py", "requirements.txt"] {
        std::fs::copy(example.join(file), folder.path().join(file)).expect("the example is there");
    }
    let text = std::fs::read_to_string(example.join("workflow.test.yaml")).expect("the example has tests");
    std::fs::write(folder.path().join("workflow.test.yaml"), repeated(&text)).expect("the tests are written");

    let whole = median(|| run(Command::new(&refit).arg("test").arg(folder.path())));
    let start = median(|| run(Command::new(&refit).arg("--version")));
    println!(
        "refit test, {CASES} cases of examples/digits: {:.0} ms ({:.2} ms a case); starting the program alone: {:.1} ms",
        whole.as_secs_f64() * 1000.0,
        whole.as_secs_f64() * 1000.0 / CASES as f64,
        start.as_secs_f64() * 1000.0,
    );
}

/// The cases of a file, again and again until there are enough.
fn repeated(text: &str) -> String {
    let (head, cases) = text.split_once("cases:\n").expect("a test file has cases");
    let each: Vec<&str> = cases.split("\n  - case:").collect();
    let mut repeated = format!("{head}cases:\n");
    for number in 0..CASES {
        let case = each[number % each.len()].trim_start_matches("  - case:");
        repeated.push_str(&format!("  - case:{case}\n"));
    }
    repeated
}

fn run(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let status = command.stdout(Stdio::null()).status().expect("refit starts");
    assert!(status.success(), "{command:?} failed");
    begun.elapsed()
}

fn median(mut measure: impl FnMut() -> Duration) -> Duration {
    let mut rounds: Vec<Duration> = (0..ROUNDS).map(|_| measure()).collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

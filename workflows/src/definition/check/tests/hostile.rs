//! Files that mean harm, or were damaged: refused in bounded time, never a panic.

use std::time::{Duration, Instant};

use super::language::WHOLE;
use super::workflow;
use crate::definition::Problem;

fn within(limit: Duration, name: &str, text: &str) -> Vec<Problem> {
    let started = Instant::now();
    let problems = workflow(text).err().map(|problems| problems.0).unwrap_or_default();
    assert!(started.elapsed() < limit, "{name} took {:?}", started.elapsed());
    problems
}

#[test]
fn hostile_files_are_refused_in_bounded_time() {
    let bomb: String = (1..10)
        .map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", ")))
        .fold("a0: &a0 x\n".to_owned(), |text, line| text + &line);
    let deep = |n: usize| (0..n).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>();
    let keys: String = (0..20_000).map(|n| format!("k{n}: 1\n")).collect();
    let steps = format!(
        "workflow: w\nsteps:\n{}",
        (0..11_000).map(|n| format!("  s{n}: {{}}\n")).collect::<String>()
    );
    let same = format!("workflow: w\n{}", "a: 1\n".repeat(40_000));
    for (name, text, code) in [
        ("alias bomb", bomb, "anchor"),
        ("brackets", "[".repeat(200_000), "too-deep"),
        ("braces", "{a: ".repeat(50_000), "too-deep"),
        ("question marks", "? ".repeat(20_000), "too-deep"),
        ("deep blocks", deep(600), "too-deep"),
        ("many keys", keys, "unknown-key"),
        ("equal keys", same, "duplicate-key"),
        ("too many steps", steps, "too-many"),
        ("too large", "a".repeat(300_000), "too-large"),
        ("a long scalar", "a".repeat(200_000), "wrong-type"),
        ("commas", format!("workflow: [{}]", ",".repeat(200_000)), "yaml-syntax"),
        ("documents", "---\na: 1\n".repeat(10_000), "too-many"),
        ("dashes", "- ".repeat(100_000), "too-deep"),
        ("colons", ": ".repeat(100_000), "too-deep"),
        ("quotes", "\"".repeat(200_001), "yaml-syntax"),
        ("block header", "a: |9999\n".repeat(1000), "yaml-syntax"),
    ] {
        let problems = within(Duration::from_secs(10), name, &text);
        assert!(!problems.is_empty() && problems.len() <= 100, "{name}: {} problems", problems.len());
        assert!(problems.iter().any(|problem| problem.code == code), "{name}: {:?}", problems[0]);
    }
}

#[test]
fn two_thousand_steps_in_a_chain_are_a_workflow() {
    let steps = |n: usize| match n {
        0 => "  s0: { run: [\"true\"] }\n".to_owned(),
        n => format!(
            "  s{n}: {{ needs: [s{}], run: [\"true\"], if: \"steps.s0.state == 'succeeded'\" }}\n",
            n - 1
        ),
    };
    let text = format!("workflow: w\nsteps:\n{}", (0..2000).map(steps).collect::<String>());
    let started = Instant::now();
    let chain = workflow(&text).unwrap_or_else(|problems| panic!("{:?}", problems.0[0]));
    assert!(started.elapsed() < Duration::from_secs(30), "took {:?}", started.elapsed());
    assert_eq!((chain.steps.len(), chain.ancestors(1999).len()), (2000, 1999));
}

proptest::proptest! {
    /// Whatever the bytes: an answer, not a panic; and a refusal lists at least one problem, in order.
    #[test]
    fn any_text_gets_an_answer(text in "([a-z]{1,8}: |- |\\[|\\]|\\{|\\}|, |\n|  |\"|'|\\$\\{\\{ | \\}\\}|[a-z0-9&*!|>%@é\u{0}]|steps:\n|finally:\n|run: |if: |uses: |matrix: |select: |validate: |evaluate: |gate: |call: ){0,60}") {
        if let Err(problems) = workflow(&text) {
            assert!(!problems.is_empty());
            assert!(problems.0.is_sorted_by_key(|problem| problem.position));
        }
    }

    /// A piece cut out of the sound example never panics and never yields a workflow without a step.
    #[test]
    fn a_damaged_example_gets_an_answer(from in 0..WHOLE.len(), length in 0_usize..200) {
        let to = (from + length).min(WHOLE.len());
        let text = format!("{}{}", &WHOLE[..from], &WHOLE[to..]);
        if let Ok(found) = workflow(&text) {
            assert!(!found.steps.is_empty());
        }
    }
}

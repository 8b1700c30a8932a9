//! No file makes `check` panic, hang, or take more than its share of time and memory: files that mean harm, each by a
//! process with limits; and damaged ones, in this process, where thousands are quick.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use refit_tests::processes::{binary, run_to_end, workspace};
use refit_workflows::definition::{FILE_BYTES_MAX, Workflow};

/// Of a process, in KiB of address space: 256 MiB.
const MEMORY_KIB: u32 = 256 * 1024;
/// Of a process, in seconds of its own: a debug build takes ten times as long as what people run.
const SECONDS: u32 = 30;
/// Of one damaged file, which a debug build answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A workflow whose text holds `part` as often as fits into a file.
fn filled(head: &str, part: impl Fn(usize) -> String, tail: &str) -> String {
    let mut text = head.to_owned();
    for number in 0.. {
        let next = part(number);
        if text.len() + next.len() + tail.len() > FILE_BYTES_MAX {
            break;
        }
        text.push_str(&next);
    }
    text + tail
}

fn files() -> Vec<(&'static str, String)> {
    let steps = |part: fn(usize) -> String| filled("workflow: w\nsteps:\n", part, "");
    let in_step = |head: &str, part: fn(usize) -> String| {
        filled(&format!("workflow: w\nsteps: {{ a: {{ {head}"), part, "\"] } }\n")
    };
    vec![
        ("brackets", filled("", |_| "[".to_owned(), "")),
        ("quotes", filled("", |_| "\"".to_owned(), "")),
        ("anchors", filled("workflow: w\nx: [", |n| format!("&a{n} x,"), "]\n")),
        ("equal-keys", filled("workflow: w\n", |_| "a: 1\n".to_owned(), "")),
        ("keys-on-a-line", filled("{", |n| format!("k{n}: 1,"), "}")),
        ("unknown-needs", steps(|n| format!(" s{n}: {{ needs: [t{n}], run: [a] }}\n"))),
        ("unknown-names", steps(|n| format!(" s{n}: {{ if: steps.t{n}.x, run: [a] }}\n"))),
        (
            "circles",
            steps(|n| {
                format!(" a{n}: {{ needs: [b{n}], run: [a] }}\n b{n}: {{ needs: [a{n}], run: [a] }}\n")
            }),
        ),
        (
            "brackets-in-expressions",
            steps(|n| format!(" s{n}: {{ if: \"{}1{}\", run: [a] }}\n", "(".repeat(30), ")".repeat(30))),
        ),
        (
            "long-expressions",
            steps(|n| {
                format!(
                    " s{n}: {{ if: \"{}\", run: [a] }}\n",
                    (0..250).map(|m| format!("a.b{m}")).collect::<Vec<_>>().join("+")
                )
            }),
        ),
        ("values-in-a-text", in_step("run: [a, \"", |_| "${{ a }}".to_owned())),
        ("values-in-a-script", in_step("env: {}, run: [sh, -c, \"", |_| "${{ a }}".to_owned())),
        ("letters-without-width", in_step("runn: 1, run: [\"", |_| "\u{200b}\u{301}".to_owned())),
        (
            "schedules",
            filled(
                "workflow: w\non:\n",
                |n| format!(" - cron: \"0 0 29 2 {}\"\n", n % 7),
                "steps: { a: { run: [a] } }\n",
            ),
        ),
        (
            "alternatives",
            filled(
                "workflow: w\non: [{ event: { $or: [",
                |_| "{a: [1]},".to_owned(),
                "] } }]\nsteps: { a: { run: [a] } }\n",
            ),
        ),
        (
            "axes",
            filled("workflow: w\nsteps: { a: { run: [a], matrix: {", |n| format!("x{n}: [1,2],"), "} } }\n"),
        ),
    ]
}

#[test]
fn files_that_mean_harm_are_answered_within_their_share_of_time_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files() {
        std::fs::write(folder.path().join(name), text).unwrap();
        // The limit is on what is reserved, too: one arena, or each thread that comes and goes may reserve one.
        let script = format!(
            "export MALLOC_ARENA_MAX=1 && ulimit -v {MEMORY_KIB} && ulimit -t {SECONDS} && exec \"$0\" check {name}"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(binary()).current_dir(folder.path()).process_group(0);
        let said = run_to_end(command, Duration::from_secs(240));
        assert!(matches!(said.code, Some(0 | 3)), "{name}: {:?} {}", said.code, said.err);
        assert!(said.out.len() < 1024 * 1024, "{name} prints {} bytes", said.out.len());
    }
}

/// The files that are damaged: every broken one that is text, and the examples.
fn whole() -> Vec<String> {
    let broken = super::files("yaml").into_iter().map(|file| super::folder().join(file));
    let examples = std::fs::read_dir(workspace().join("examples")).unwrap();
    let examples = examples.map(|entry| entry.unwrap().path().join("workflow.yaml"));
    broken
        .chain(examples)
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .filter(|text| text.len() > 40)
        .collect()
}

fn cut(text: &str, at: &Index) -> usize {
    let at = at.index(text.len() + 1);
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    /// Two files are cut, joined and written over: an answer in time, with its problems in order.
    #[test]
    fn damaged_files_get_an_answer(
        one in any::<Index>(), other in any::<Index>(), cuts in any::<[Index; 4]>(),
        word in "(\\$\\{\\{|\\}\\}|[\\[\\]{}:,&*!|>'\"#%@`-]|\n|\n  |\t|\u{0}|\u{feff}|🚀|steps|run|if|needs|uses|gate|matrix|[0-9]{1,30}|.inf|~|.){1,4}",
    ) {
        static WHOLE: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(whole);
        let (one, other) = (one.get(&WHOLE), other.get(&WHOLE));
        let mut places = [cut(other, &cuts[2]), cut(other, &cuts[3])];
        places.sort_unstable();
        let (begin, end) = (cut(one, &cuts[0]), cut(one, &cuts[1]));
        let text = format!("{}{word}{}{}", &one[..begin], &other[places[0]..places[1]], &one[end..]);
        let started = Instant::now();
        match Workflow::parse_all(&text) {
            Ok(workflows) => prop_assert!(workflows.iter().all(|workflow| !workflow.steps.is_empty())),
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                prop_assert!(problems.0.is_sorted_by_key(|problem| (problem.file.is_some(), problem.position)));
                let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines().count().max(1);
                for problem in &problems.0 {
                    prop_assert!(problem.position.line as usize <= lines + 1, "{problem:?}");
                }
            }
        }
        prop_assert!(started.elapsed() < PATIENCE, "took {:?}", started.elapsed());
    }
}

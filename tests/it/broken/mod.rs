//! What `refit check` says of every file under `tests/broken`: one mistake a file, and beside it, in `NAME.expected`, the
//! answer as a person reads it. `REFIT_RENEW=1 tests/run broken` writes the answers down anew; read the difference then.
//!
//! Must never happen here: a place or a code without the whole answer around it. Those of single keys stand in the tables of
//! `workflows/src/definition/check/tests`.

mod harmful;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use refit_tests::processes::{refit, run_to_end, workspace};
use similar::TextDiff;

/// Files that others of the folder use; they are no workflows themselves.
const USED: &str = "used";

fn folder() -> PathBuf {
    workspace().join("tests/broken")
}

/// The files below a folder with this ending, by their paths from `tests/broken`, in order.
fn files(ending: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != USED) {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.insert(path.strip_prefix(folder()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// What one `refit check` of all these files says of each: everything up to the line that sums up the file.
fn answers(files: &BTreeSet<String>) -> Vec<String> {
    let arguments: Vec<&str> = std::iter::once("check").chain(files.iter().map(String::as_str)).collect();
    let said = run_to_end(refit(&folder(), &arguments), Duration::from_secs(60));
    assert_eq!(said.code, Some(3), "{}", said.err);
    let mut rest = said.out.as_str();
    let answer = |file: &String| {
        let summary = format!("✗ {file}: ");
        let begin = rest.find(&summary).unwrap_or_else(|| panic!("`{file}` is not refused:\n{rest}"));
        let end = begin + rest[begin..].find('\n').unwrap() + 1;
        let (answer, after) = rest.split_at(end);
        rest = after;
        answer.to_owned()
    };
    let answers = files.iter().map(answer).collect();
    assert_eq!(rest, "", "something is said of no file");
    answers
}

/// The answer that is written down; nothing where there is none yet.
fn expected(file: &str) -> (PathBuf, String) {
    let path = folder().join(Path::new(file).with_extension("expected"));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    (path, text)
}

#[test]
fn every_mistake_is_answered_as_it_is_written_down() {
    let files = files("yaml");
    assert!(files.len() > 150, "only {} files", files.len());
    let renew = std::env::var("REFIT_RENEW").is_ok_and(|value| value == "1");
    let mut differences = String::new();
    for (file, found) in files.iter().zip(answers(&files)) {
        let (path, expected) = expected(file);
        if renew {
            std::fs::write(path, found).unwrap();
        } else if found != expected {
            let difference = TextDiff::from_lines(&expected, &found);
            let difference = difference.unified_diff().header("written down", "found").to_string();
            let _ = writeln!(differences, "\n{file}\n{difference}");
        }
    }
    assert!(
        differences.is_empty(),
        "{differences}\nif these answers are better, write them down: REFIT_RENEW=1 tests/run broken"
    );
}

#[test]
fn every_answer_belongs_to_a_file() {
    let written: BTreeSet<String> = files("expected");
    let of_files = files("yaml").iter().map(|file| file.replace(".yaml", ".expected")).collect();
    assert_eq!(written, of_files);
}

//! The schema for editors, asked by an independent reader: it is sound, it accepts whatever the checks accept (an editor
//! that marks a right file is worse than none), and it refuses what can be seen without expressions and other steps.

mod broken;
mod tree;

use std::path::Path;
use std::time::Duration;

use boon::{Compiler, SchemaIndex, Schemas};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use refit_tests::processes::{refit, run_to_end, workspace};
use refit_workflows::definition::language::{self, Keys, Kind};
use refit_workflows::definition::{Workflow, schema};
use refit_workflows::pattern::Pattern;
use serde_json::Value;

use tree::{Tree, read};

const WHOLE: &str = include_str!("whole.yaml");
const WHOLE_TEST: &str = include_str!("whole.test.yaml");

struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Schema {
    /// Compiling asks the draft's own schema whether this is one.
    fn new(schema: Value, part: &str) -> Self {
        let place = schema["$id"].as_str().unwrap().to_owned();
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource(&place, schema).unwrap();
        let index = compiler.compile(&format!("{place}{part}"), &mut schemas);
        Self { index: index.unwrap_or_else(|error| panic!("{error:#}")), schemas }
    }

    fn workflow() -> Self {
        Self::new(schema::workflow(), "")
    }

    /// Why it refuses a document, if it does.
    fn refuses(&self, document: &Value) -> Option<String> {
        self.schemas.validate(document, self.index).err().map(|error| error.to_string())
    }

    fn accepts_file(&self, text: &str, name: &str) {
        for document in read(text) {
            if let Some(why) = self.refuses(&document.json()) {
                panic!("{name}: {why}");
            }
        }
    }
}

fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()))
}

fn printed(arguments: &[&str]) -> String {
    let said = run_to_end(refit(&workspace(), arguments), Duration::from_secs(60));
    assert_eq!(said.code, Some(0), "{}", said.err);
    said.out
}

#[test]
fn the_whole_language_is_accepted() {
    Workflow::parse_all(WHOLE).unwrap_or_else(|problems| panic!("{problems:#?}"));
    Schema::workflow().accepts_file(WHOLE, "whole.yaml");
}

#[test]
fn the_whole_language_is_what_whole_yaml_holds() {
    let documents = read(WHOLE);
    let mut written = Vec::new();
    documents.iter().for_each(|document| document.keys(&mut written));
    let mut missing = Vec::new();
    let mut seen = Vec::new();
    each_key(&language::WORKFLOW, &mut seen, &mut |owner, key| {
        // Files that steps use are read from somewhere: see below.
        if !written.contains(&key) && !["uses", "with", "file"].contains(&key) {
            missing.push(format!("{owner}.{key}"));
        }
    });
    assert!(seen.len() > 30 && missing.is_empty(), "{missing:?}");
}

fn each_key(keys: &'static Keys, seen: &mut Vec<&'static str>, tell: &mut dyn FnMut(&str, &'static str)) {
    fn of_kind(kind: &'static Kind, seen: &mut Vec<&'static str>, tell: &mut dyn FnMut(&str, &'static str)) {
        match kind {
            Kind::Mapping(keys) => each_key(keys, seen, tell),
            Kind::List(kind) | Kind::Map(_, kind) | Kind::Sized(_, _, kind) => of_kind(kind, seen, tell),
            Kind::Either(kinds) => kinds.iter().for_each(|kind| of_kind(kind, seen, tell)),
            _ => {}
        }
    }
    if seen.contains(&keys.name) {
        return;
    }
    seen.push(keys.name);
    for key in keys.keys {
        tell(keys.name, key.name);
        of_kind(&key.kind, seen, tell);
    }
}

#[test]
fn every_mapping_of_the_language_has_a_name_of_its_own() {
    let mut seen = Vec::new();
    each_key(&language::WORKFLOW, &mut seen, &mut |_, _| {});
    let of_workflows = seen.len();
    each_key(&language::TEST_FILE, &mut seen, &mut |_, _| {});
    let (workflow, test) = (schema::workflow(), schema::test());
    for (place, name) in seen.iter().enumerate().filter(|(place, _)| ![0, of_workflows].contains(place)) {
        let schema = if place < of_workflows { &workflow } else { &test };
        assert!(schema["$defs"][*name]["properties"].is_object(), "{name} is something else");
    }
}

#[test]
fn the_files_that_steps_use_have_a_schema_of_their_own() {
    let step = Schema::new(schema::step(), "");
    for sound in [
        "run: [python, train.py, \"${{ with.data }}\"]\nwith: { data: { type: artifact }, n: { default: 3 } }\n",
        "env: { A: b }\nmax_parallel: 3\n",
        "uses: { file: base.yaml, with: { a: 1 } }\nwith: { b: { type: string, default: x, description: d } }\n",
        "gate: { checks: [{ metric: m, min: 0.5 }] }\nif: always()\n",
    ] {
        step.accepts_file(sound, sound);
    }
    for (why, broken) in [
        ("needs are the workflow's", "run: [a]\nneeds: [b]\n"),
        ("two verbs", "run: [a]\ngate: { checks: [{ metric: m, min: 1 }] }\n"),
        ("a key of another verb", "emit: { type: a }\ntimeout: 1h\n"),
        ("a value instead of its declaration", "run: [a]\nwith: { a: 1 }\n"),
        ("an artifact has no default", "run: [a]\nwith: { a: { type: artifact, default: x } }\n"),
    ] {
        assert!(step.refuses(&read(broken)[0].json()).is_some(), "{why}:\n{broken}");
    }
    let using = "workflow: w\nsteps:\n  a: { uses: a.yaml, with: { n: 1 }, needs: [b], timeout: 1h, min_success: 80% }\n  \
                 b: { uses: { file: b.yaml, with: { n: [1] } } }\n";
    Schema::workflow().accepts_file(using, using);
}

#[test]
fn test_files_have_a_schema_that_sees_what_refit_test_refuses() {
    let test = Schema::new(schema::test(), "");
    test.accepts_file(WHOLE_TEST, "whole.test.yaml");
    let (documents, mut written) = (read(WHOLE_TEST), Vec::new());
    documents.iter().for_each(|document| document.keys(&mut written));
    let (mut missing, mut seen) = (Vec::new(), Vec::new());
    each_key(&language::TEST_FILE, &mut seen, &mut |owner, key| {
        if !written.contains(&key) {
            missing.push(format!("{owner}.{key}"));
        }
    });
    assert!(seen.len() == 9 && missing.is_empty(), "{missing:?}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("w.yaml"), "workflow: w\nsteps: { a: { run: [x] } }\n").unwrap();
    let tested = |text: &str| {
        std::fs::write(folder.path().join("w.test.yaml"), text).unwrap();
        run_to_end(refit(folder.path(), &["test", "w.test.yaml"]), Duration::from_secs(60))
    };
    // The reader takes it too, whatever comes of its cases.
    let said = tested(WHOLE_TEST);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    for (why, text) in broken::TESTS {
        let said = tested(text);
        assert_eq!(said.code, Some(3), "{why}: `refit test` accepts\n{text}{}", said.out);
        assert!(test.refuses(&read(text)[0].json()).is_some(), "{why}: the schema accepts\n{text}");
    }
}

#[test]
fn what_init_writes_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let said = run_to_end(refit(folder.path(), &["init", "churn"]), Duration::from_secs(60));
    assert_eq!(said.code, Some(0), "{}", said.err);
    let churn = |name: &str| text_of(&folder.path().join("churn").join(name));
    Schema::workflow().accepts_file(&churn("workflow.yaml"), "init");
    Schema::new(schema::test(), "").accepts_file(&churn("workflow.test.yaml"), "init");
    assert_eq!(
        churn("workflow.schema.json"),
        printed(&["schema"]),
        "what the headers name is what is printed"
    );
    assert_eq!(churn("test.schema.json"), printed(&["schema", "test"]));
}

#[test]
fn every_example_is_accepted_and_names_the_schema_that_is_printed() {
    let of_workflows = (printed(&["schema"]), Schema::workflow(), "workflow");
    let of_tests = (printed(&["schema", "test"]), Schema::new(schema::test(), ""), "test");
    let (mut count, mut tests) = (0, 0);
    for folder in std::fs::read_dir(workspace().join("examples")).unwrap().map(|entry| entry.unwrap().path())
    {
        let Ok(files) = std::fs::read_dir(&folder) else { continue };
        for path in files.map(|entry| entry.unwrap().path()) {
            let name = path.display().to_string();
            if !name.ends_with(".yaml") {
                continue;
            }
            let is_test = name.ends_with(".test.yaml");
            let (printed, schema, of) = if is_test { &of_tests } else { &of_workflows };
            let renew = format!("renew it: cargo run -- schema {of} > examples/{of}.schema.json");
            let text = text_of(&path);
            let Some(header) = text.lines().next().and_then(|line| line.split_once("$schema=")) else {
                continue;
            };
            let named = path.parent().unwrap().join(header.1.trim());
            assert!(named.is_file(), "{name} names {}, which is not there; {renew}", named.display());
            assert!(
                text_of(&named) == *printed,
                "{} is not what `refit schema` prints; {renew}",
                named.display()
            );
            schema.accepts_file(&text, &name);
            *(if is_test { &mut tests } else { &mut count }) += 1;
        }
    }
    assert!(count > 0 && tests > 1, "{count} workflows and {tests} test files of the examples name a schema");
}

#[test]
fn the_command_prints_what_the_language_says() {
    let parsed = |arguments: &[&str]| serde_json::from_str::<Value>(&printed(arguments)).unwrap();
    assert_eq!(parsed(&["schema"]), schema::workflow());
    assert_eq!(parsed(&["schema", "workflow"]), schema::workflow());
    assert_eq!(parsed(&["schema", "step"]), schema::step());
    assert_eq!(parsed(&["schema", "test"]), schema::test());
}

#[test]
fn what_the_checks_refuse_in_a_file_alone_the_schema_refuses_too() {
    let schema = Schema::workflow();
    for (why, text) in broken::SEEN {
        assert!(Workflow::parse(text).is_err(), "{why}: the checks accept\n{text}");
        assert!(schema.refuses(&read(text)[0].json()).is_some(), "{why}: the schema accepts\n{text}");
    }
}

/// What a schema cannot see. Where it can, the case belongs to the other list.
#[test]
fn what_only_the_checks_can_see_is_known() {
    let schema = Schema::workflow();
    for (why, text) in broken::UNSEEN {
        assert!(Workflow::parse(text).is_err(), "{why}: the checks accept\n{text}");
        assert_eq!(schema.refuses(&read(text)[0].json()), None, "{why}");
    }
}

#[test]
fn every_event_pattern_that_parses_is_accepted() {
    let schema = Schema::new(schema::workflow(), "#/$defs/event_pattern");
    let cases = text_of(&workspace().join("workflows/src/pattern/tests/cases.jsonl"));
    let (mut sound, mut refused, mut let_through) = (0, 0, Vec::new());
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let pattern = &case["pattern"];
        match (Pattern::parse(pattern), schema.refuses(pattern)) {
            (Ok(_), Some(why)) => panic!("{pattern}: {why}"),
            (Ok(_), None) => sound += 1,
            (Err(_), Some(_)) => refused += 1,
            (Err(_), None) => let_through.push(pattern.to_string()),
        }
    }
    assert!(sound > 100 && refused > 0, "{sound} sound, {refused} refused");
    assert!(let_through.len() * 3 < refused + 3, "{refused} refused, but not {let_through:#?}");
}

/// Values that are easily taken for something else, and some of each kind.
fn values() -> impl Strategy<Value = Tree> {
    let plain = [
        "0",
        "1",
        "5",
        "-1",
        "0.5",
        "1.5",
        "1.10",
        "1e3",
        "+5",
        ".5",
        "012",
        "0x1F",
        "true",
        "False",
        "yes",
        "~",
        "90s",
        "0s",
        "500ms",
        "2d",
        "50%",
        "0%",
        "150%",
        "100.0%",
        "16GiB",
        "0B",
        "abc",
        "Abc",
        "a-b_c",
        "a.b",
        "2026-01-31",
        "12:30",
        "data.rows",
        "params.region",
        "'x'",
        "\"\"",
        "\" \"",
        "../x",
        "a/b/",
        "/x",
        "..a",
        "GET",
        "string",
        "integer",
        "succeeded",
        "fail",
        "\"${{ params.region }}\"",
        "\"a ${{ 1 + 1 }}\"",
        "\"$x\"",
        "\"${x}\"",
        "[]",
        "{}",
        "[a]",
        "[1, 2]",
        "[[a]]",
        "{ a: b }",
        "{ min: 1 }",
        "\"0 3 * * *\"",
        "UTC",
        "[{ exists: true }]",
        "[{ prefix: +49 }]",
        "[{ anything-but: [012, a] }]",
        "[{ numeric: [\">\", 0] }]",
    ];
    select(plain.to_vec()).prop_map(|text| read(text).remove(0))
}

#[derive(Clone, Debug)]
enum Change {
    /// Another value in this place.
    Replace(Index, Tree),
    /// Nothing in this place.
    Remove(Index, Index),
    /// What stands in one place in the other as well.
    Copy(Index, Index),
    /// An entry of one mapping, or an item of one list, in the other.
    Add(Index, Index, Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let place = any::<Index>;
    let change = prop_oneof![
        4 => (place(), values()).prop_map(|(at, value)| Change::Replace(at, value)),
        3 => (place(), place()).prop_map(|(at, item)| Change::Remove(at, item)),
        1 => (place(), place()).prop_map(|(from, to)| Change::Copy(from, to)),
        2 => (place(), place(), place()).prop_map(|(from, item, to)| Change::Add(from, item, to)),
    ];
    proptest::collection::vec(change, 1..4)
}

fn apply(change: &Change, tree: &mut Tree) {
    let size = tree.size();
    match change {
        Change::Replace(at, value) => *tree.at(at.index(size)) = value.clone(),
        Change::Remove(at, item) => match tree.at(at.index(size)) {
            Tree::List(items) if !items.is_empty() => drop(items.remove(item.index(items.len()))),
            Tree::Map(entries) if !entries.is_empty() => drop(entries.remove(item.index(entries.len()))),
            Tree::List(_) | Tree::Map(_) | Tree::Plain(_) | Tree::Quoted(_) => {}
        },
        Change::Copy(from, to) => *tree.at(to.index(size)) = tree.at(from.index(size)).clone(),
        Change::Add(from, item, to) => {
            let from = tree.at(from.index(size)).clone();
            match (from, tree.at(to.index(size))) {
                (Tree::List(from), Tree::List(items)) if !from.is_empty() => {
                    items.push(from[item.index(from.len())].clone());
                }
                (Tree::Map(from), Tree::Map(entries)) if !from.is_empty() => {
                    let (key, value) = from[item.index(from.len())].clone();
                    if entries.iter().all(|(other, _)| *other != key) {
                        entries.push((key, value));
                    }
                }
                (_, _) => {}
            }
        }
    }
}

/// The promise that matters: whatever is done to a sound workflow, what the checks still accept the schema accepts.
#[test]
fn nothing_that_the_checks_accept_is_refused() {
    let cases = if refit_tests::soak() { 20_000 } else { 1_500 };
    let schema = Schema::workflow();
    let documents = read(WHOLE);
    let accepted = std::cell::Cell::new(0_u32);
    let strategy = (any::<Index>(), changes());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&strategy, |(document, changes)| {
        let mut tree = documents[document.index(documents.len())].clone();
        changes.iter().for_each(|change| apply(change, &mut tree));
        let yaml = tree.yaml();
        if Workflow::parse(&yaml).is_ok() {
            accepted.set(accepted.get() + 1);
            let refused = schema.refuses(&tree.json());
            prop_assert_eq!(refused, None, "{}", yaml);
        }
        Ok(())
    });
    result.unwrap_or_else(|failed| panic!("{failed}"));
    assert!(accepted.get() * 20 > cases, "only {} of {cases} were sound", accepted.get());
}

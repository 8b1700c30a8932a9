//! `docs/language.md` is true: every example in it is checked, evaluated, matched or played, and nothing of the language is
//! missing from it.
//!
//! The fence of a block says what it is, in words that no reader sees:
//!
//! | fence | the block is |
//! |---|---|
//! | `yaml` | a file of whole workflows |
//! | `yaml top`, `trigger`, `steps`, `checks` | a part, which is put into a small workflow |
//! | `yaml file PATH` | a file that steps of other blocks use |
//! | `yaml test WORKFLOW` | a test file for the workflow of that name in another block |
//! | … `refused=CODE` | refused, with a problem of this code |
//! | `cel`, `cel needs=failed` | expressions with `// => VALUE` or `// error`, over the block `json scope` |
//!
//! A table of keys follows the line `<!-- keys: OWNER -->`, OWNER as in the language's own table. Events and patterns are
//! those of tables with the columns pattern, matches, does not match.

mod page;

use std::collections::BTreeMap;
use std::time::Duration;

use refit_tests::processes::{refit, run_to_end, workspace};
use refit_workflows::definition::language::{self, KeySpec, Keys, Kind, VERBS, WORKFLOW};
use refit_workflows::definition::{Problems, Workflow};
use refit_workflows::expression::{Expression, FUNCTIONS, Needs, Scope};
use refit_workflows::pattern::Pattern;
use serde_json::Value;

use page::{Block, Page, code_in};

fn text() -> String {
    std::fs::read_to_string(workspace().join("docs/language.md")).unwrap()
}

fn page() -> Page {
    Page::cut(&text())
}

// ---------------------------------------------------------------------------------------------------------------
// Workflows and parts of them

/// What parts of workflows may take for granted.
const PARAMS: &str =
    "params:\n  region: { type: string, default: eu }\n  rows: { type: integer, default: 1200 }\n";
const STEPS: [(&str, &str); 3] = [
    ("train", "{ run: [python, train.py], artifacts: { model: model.pkl } }"),
    ("evaluate", "{ needs: [train], run: [python, evaluate.py] }"),
    ("gate", "{ needs: [evaluate], gate: { checks: [{ metric: auc, min: 0.8 }] } }"),
];

/// What checks over examples take for granted.
const EVALUATED: &str = "evaluate: { needs: [train], evaluate: { predictions: p.csv, label: y, metrics: [accuracy], by: [country] } }\n";

fn indented(code: &str) -> String {
    code.lines().map(|line| format!("  {line}\n")).collect()
}

/// Whether a mapping written in block style has this key at its top.
fn has(code: &str, key: &str) -> bool {
    code.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))
}

/// Steps, with those that parts may take for granted.
fn steps_around(code: &str) -> String {
    let granted = STEPS.iter().filter(|(name, _)| !has(code, name));
    let granted: String = granted.map(|(name, step)| format!("  {name}: {step}\n")).collect();
    format!("steps:\n{}{granted}", indented(code))
}

/// The part that a block is, put into a workflow.
fn workflow_around(kind: &str, code: &str) -> String {
    let top = "workflow: example\nmodel: example\n";
    match kind {
        "top" => {
            let mut whole = code.to_owned();
            for (key, text) in
                [("workflow", "workflow: example\n"), ("model", "model: example\n"), ("params", PARAMS)]
            {
                if !has(code, key) {
                    whole.push_str(text);
                }
            }
            if has(code, "steps") { whole } else { whole + &steps_around("") }
        }
        "trigger" => format!("{top}{PARAMS}on:\n{}{}", indented(code), steps_around("")),
        "steps" => format!("{top}{PARAMS}{}", steps_around(code)),
        "checks" => {
            let on_examples = code.contains("role:") || code.contains("by:");
            let evaluated = if on_examples { EVALUATED } else { "" };
            let code = indented(&indented(code));
            let gate = format!("{evaluated}gate:\n  needs: [evaluate]\n  gate:\n    checks:\n{code}");
            format!("{top}{PARAMS}{}", steps_around(&gate))
        }
        other => panic!("`yaml {other}` is no kind of block"),
    }
}

/// The files that steps of the page use.
fn used_files(page: &Page) -> BTreeMap<String, String> {
    let files = page.blocks_in("yaml").filter(|block| block.marks.first().is_some_and(|kind| kind == "file"));
    files.map(|block| (block.marks[1].clone(), block.code.clone())).collect()
}

fn parsed(block: &Block, files: &BTreeMap<String, String>) -> Result<Vec<Workflow>, Problems> {
    match block.marks.iter().find(|mark| !mark.contains('=')) {
        None => Workflow::parse_all_with(&block.code, files),
        Some(kind) => Workflow::parse_all_with(&workflow_around(kind, &block.code), files),
    }
}

/// Every block that is a workflow or a part of one.
fn is_workflow(block: &Block) -> bool {
    let kind = block.marks.first().map(String::as_str);
    block.language == "yaml" && !matches!(kind, Some("file" | "test"))
}

#[test]
fn every_workflow_of_the_page_is_sound_or_refused_as_it_says() {
    let page = page();
    let files = used_files(&page);
    let (mut sound, mut refused, mut wrong) = (0, 0, Vec::new());
    for (_, block) in page.blocks().filter(|(_, block)| is_workflow(block)) {
        let found = parsed(block, &files).map_or_else(|problems| problems.0, |_| Vec::new());
        let codes: Vec<&str> = found.iter().map(|problem| problem.code.as_str()).collect();
        let wanted: Vec<&str> = block.mark("refused").into_iter().collect();
        if codes != wanted {
            wrong.push(format!("line {}, {wanted:?}:\n{}{found:#?}", block.line, block.code));
        }
        *(if wanted.is_empty() { &mut sound } else { &mut refused }) += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(sound > 40 && refused > 12, "only {sound} sound examples and {refused} refused ones were found");
}

#[test]
fn every_test_file_of_the_page_passes() {
    let page = page();
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for block in page.blocks_in("yaml").filter(|block| block.marks.first().is_some_and(|kind| kind == "test"))
    {
        let name = &block.marks[1];
        let declares = format!("workflow: {name}\n");
        let workflow =
            page.blocks_in("yaml").find(|other| other.marks.is_empty() && other.code.contains(&declares));
        let workflow =
            workflow.unwrap_or_else(|| panic!("line {}: the page has no workflow {name}", block.line));
        std::fs::write(folder.path().join(format!("{name}.yaml")), &workflow.code).unwrap();
        std::fs::write(folder.path().join("requirements.txt"), "").unwrap();
        let test = format!("{name}.test.yaml");
        std::fs::write(folder.path().join(&test), &block.code).unwrap();
        let said = run_to_end(refit(folder.path(), &["test", &test]), Duration::from_secs(60));
        assert_eq!(said.code, Some(0), "line {}:\n{}{}", block.line, said.out, said.err);
        count += 1;
    }
    assert!(count > 0, "the page shows no test file");
}

// ---------------------------------------------------------------------------------------------------------------
// Keys

fn walk(keys: &'static Keys, all: &mut Vec<&'static Keys>) {
    if all.iter().any(|known| std::ptr::eq(*known, keys)) {
        return;
    }
    all.push(keys);
    keys.keys.iter().for_each(|key| walk_kind(&key.kind, all));
}

fn walk_kind(kind: &'static Kind, all: &mut Vec<&'static Keys>) {
    if let Kind::Mapping(keys) = kind {
        walk(keys, all);
    }
    if let Kind::List(kind) | Kind::Map(_, kind) | Kind::Sized(_, _, kind) = kind {
        walk_kind(kind, all);
    }
    if let Kind::Either(kinds) = kind {
        kinds.iter().for_each(|kind| walk_kind(kind, all));
    }
}

/// Every mapping of the language.
fn mappings() -> Vec<&'static Keys> {
    let mut all = Vec::new();
    walk(&WORKFLOW, &mut all);
    walk(&language::USED_FILE, &mut all);
    walk(&language::TEST_FILE, &mut all);
    all
}

/// What the page must say of values of a kind.
fn words_for(kind: &Kind) -> Vec<String> {
    let plain = |word: &str| vec![word.to_owned()];
    match kind {
        Kind::Text | Kind::Plain | Kind::Script | Kind::Own | Kind::Cron => plain("text"),
        Kind::Name => plain("name"),
        Kind::Variable => plain("variable"),
        Kind::Boolean => plain("true or false"),
        Kind::Count(0, u64::MAX) => plain("whole number"),
        Kind::Count(least, most) => vec!["whole number".to_owned(), format!("{least} to {most}")],
        Kind::Number => plain("number"),
        Kind::Duration | Kind::Pause => plain("duration"),
        Kind::Size => plain("size"),
        Kind::Time => plain("time"),
        Kind::Run => plain("run"),
        Kind::Version => plain("version"),
        Kind::Share | Kind::Percent => plain("share"),
        Kind::Expression => plain("CEL"),
        Kind::Template | Kind::Sole | Kind::Url => plain("template"),
        Kind::Value => plain("value"),
        Kind::Scalar => plain("scalar"),
        Kind::Path => plain("path"),
        Kind::Pattern => plain("pattern"),
        Kind::Word(words) => words.iter().map(|word| format!("`{word}`")).collect(),
        Kind::List(of) => [plain("list"), words_for(of)].concat(),
        Kind::Map(_, of) => [plain("mapping"), words_for(of)].concat(),
        Kind::Sized(_, _, of) => words_for(of),
        Kind::Mapping(_) => plain("mapping"),
        Kind::Either(kinds) => kinds.iter().flat_map(words_for).collect(),
    }
}

#[test]
fn every_key_of_the_language_is_in_the_table_of_its_mapping() {
    let page = page();
    let mut described = Vec::new();
    for keys in mappings() {
        let mark = format!("keys: {}", keys.owner);
        let mut tables = page.tables().filter(|table| table.mark.as_ref() == Some(&mark));
        let (Some(table), None) = (tables.next(), tables.next()) else {
            panic!("the page needs one table after the line <!-- {mark} -->");
        };
        let names: Vec<&str> = table.rows.iter().flat_map(|row| code_in(&row[0])).collect();
        let known: Vec<&str> = keys.names().collect();
        assert_eq!(names, known, "the table on line {} ({})", table.line, keys.owner);
        let column = |name: &str| table.header.iter().position(|title| title == name);
        for (key, row) in keys.keys.iter().zip(&table.rows) {
            let place = format!("{}.{} on line {}", keys.owner, key.name, table.line);
            is_told(key, &row[column("value").expect("a column `value`")], &place);
            let default = &row[column("without it").expect("a column `without it`")];
            assert_eq!(default == "required", key.required, "{place}: {default}");
            if let Some(verbs) = column("goes with") {
                let told = code_in(&row[verbs]);
                let all: &[&str] = &VERBS;
                let right = key.verbs.is_empty() && (told.is_empty() || told == all) || told == key.verbs;
                assert!(right, "{place}: goes with {:?}, not {told:?}", key.verbs);
            }
        }
        described.push(mark);
    }
    for table in page.tables() {
        let Some(mark) = table.mark.as_ref().filter(|mark| mark.starts_with("keys: ")) else { continue };
        assert!(
            described.contains(mark),
            "line {}: the language has no mapping called so: {mark}",
            table.line
        );
    }
}

fn is_told(key: &KeySpec, value: &str, place: &str) {
    let plain = value.replace(',', "");
    for word in words_for(&key.kind) {
        assert!(plain.contains(&word), "{place}: its value is told as `{value}`, without `{word}`");
    }
}

#[test]
fn every_key_at_the_top_of_a_step_and_every_trigger_has_a_heading() {
    let page = page();
    let headings: Vec<&str> = page.sections.iter().flat_map(|section| code_in(&section.heading)).collect();
    let keys = WORKFLOW.names().chain(language::STEP.names()).chain(language::TRIGGER_KINDS);
    for key in keys.chain(["batch"]) {
        assert!(headings.contains(&key), "no heading names `{key}`");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Expressions

/// The expressions of a block, each with its line, what comes of it, and the code.
fn expressions(block: &Block) -> impl Iterator<Item = (usize, &str, &str)> {
    let lines = block.code.lines().zip(block.line..).filter(|(line, _)| !line.trim().is_empty());
    lines.map(|(line, number)| {
        let (code, comes) =
            line.split_once("// ").unwrap_or_else(|| panic!("line {number} says not what comes of it"));
        (number, code.trim(), comes.trim())
    })
}

#[test]
fn every_expression_of_the_page_comes_to_what_it_says() {
    let page = page();
    let scope = page.blocks_in("json").find(|block| block.marks == ["scope"]).expect("a block `json scope`");
    let Value::Object(roots) = serde_json::from_str(&scope.code).unwrap() else { panic!("no object") };
    let (mut count, mut wrong) = (0, Vec::new());
    for block in page.blocks_in("cel") {
        let failed = block.mark("needs") == Some("failed");
        let scope =
            Scope { roots: roots.clone(), needs: Needs { succeeded: !failed, failed }, ..Scope::default() };
        for (line, code, comes) in expressions(block) {
            let came = Expression::parse(code).and_then(|expression| expression.evaluate(&scope));
            let is_as_told = match (comes.strip_prefix("=> "), comes.strip_prefix("error: ")) {
                (Some(value), _) => serde_json::from_str(value).is_ok_and(|value| came == Ok(value)),
                (None, Some(words)) => came.as_ref().is_err_and(|error| error.message.contains(words)),
                (None, None) => false,
            };
            if !is_as_told {
                wrong.push(format!("line {line}: {code} {comes}, but {came:?}"));
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 60, "only {count} expressions were found");
}

#[test]
fn every_function_is_shown_at_work() {
    let page = page();
    let code: Vec<&str> = page
        .blocks_in("cel")
        .flat_map(|block| expressions(block).map(|(_, code, _)| code).collect::<Vec<_>>())
        .collect();
    for function in FUNCTIONS {
        let call = format!("{function}(");
        let is_called = |code: &&str| {
            code.match_indices(&call)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
        };
        assert!(code.iter().any(is_called), "no example calls `{function}`");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Patterns

/// The operators, as the parser lists them for somebody who has named one that there is not.
fn operators() -> Vec<String> {
    let unknown: Value = serde_json::from_str(r#"{"x": [{"0": 1}]}"#).unwrap();
    let message = Pattern::parse(&unknown).unwrap_err().message;
    let list = message.split("the operators are ").nth(1).expect("a list of operators");
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_pattern_of_the_page_matches_what_it_says() {
    let page = page();
    let value = |text: &str, line: usize| -> Value {
        serde_yaml::from_str(text).unwrap_or_else(|error| panic!("the table on line {line}: {text}: {error}"))
    };
    let mut patterns = String::new();
    let (mut count, mut wrong) = (0, Vec::new());
    for table in page.tables().filter(|table| table.header.iter().any(|title| title == "does not match")) {
        let column = |name: &str| table.header.iter().position(|title| title == name).unwrap();
        for row in &table.rows {
            let source = code_in(&row[column("pattern")]);
            let [source] = source.as_slice() else {
                panic!("line {}: one pattern a row: {row:?}", table.line)
            };
            let pattern = Pattern::parse(&value(source, table.line));
            let pattern = pattern.unwrap_or_else(|error| panic!("line {}: {source}: {error}", table.line));
            let (yes, no) = (code_in(&row[column("matches")]), code_in(&row[column("does not match")]));
            assert!(!yes.is_empty() && !no.is_empty(), "line {}: {source} lacks an event", table.line);
            for (event, wanted) in
                yes.iter().map(|event| (event, true)).chain(no.iter().map(|event| (event, false)))
            {
                if pattern.matches(&value(event, table.line)) != wanted {
                    wrong.push(format!("line {}: {source} on {event}", table.line));
                }
                count += 1;
            }
            patterns.push_str(source);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "only {count} events were found");
    for operator in operators().iter().map(String::as_str).chain(["$or"]) {
        assert!(patterns.contains(&format!("{operator}:")), "no pattern shows `{operator}`");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Links

fn has_heading(page: &std::path::Path, anchor: &str) -> bool {
    let text = std::fs::read_to_string(page).unwrap();
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .any(|it| it == anchor)
}

#[test]
fn every_link_leads_somewhere() {
    let (text, page) = (text(), page());
    let anchors: Vec<String> = page.sections.iter().map(page::Section::anchor).collect();
    for (place, anchor) in anchors.iter().enumerate() {
        assert!(!anchors[..place].contains(anchor), "two headings are called #{anchor}");
    }
    let mut count = 0;
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        if let Some(anchor) = link.strip_prefix('#') {
            assert!(anchors.iter().any(|known| known == anchor), "there is no heading #{anchor}");
        } else if !link.starts_with("https://") {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = workspace().join("docs").join(file);
            assert!(path.exists(), "there is no {link}");
            assert!(anchor.is_empty() || has_heading(&path, anchor), "there is no heading {link}");
        }
        count += 1;
    }
    assert!(count > 30, "only {count} links were found");
}

#[test]
fn every_command_the_page_names_is_one() {
    let text = text();
    let mut commands: Vec<Vec<&str>> = code_in(&text)
        .into_iter()
        .filter_map(|code| code.strip_prefix("refit "))
        .map(|rest| {
            let words = rest.split_whitespace();
            words.take_while(|word| word.bytes().all(|b| b.is_ascii_lowercase())).collect()
        })
        .collect();
    commands.sort_unstable();
    commands.dedup();
    assert!(commands.len() > 8, "only {commands:?} were found");
    for command in commands {
        let arguments = [command.as_slice(), &["--help"]].concat();
        let said = run_to_end(refit(&workspace(), &arguments), Duration::from_secs(10));
        assert_eq!(said.code, Some(0), "{command:?}: {}", said.err);
    }
}

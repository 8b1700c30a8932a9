//! Several workflows in a file, and steps that use other files.

use std::collections::BTreeMap;

use serde_json::json;

use super::{all, one, work};
use crate::definition::{Command, NoFiles, Problem, Verb, Workflow};
use crate::expression::Scope;
use crate::template::ValueTemplate;

const TRAIN: &str = "\
with:
  depth: { type: integer, default: 4 }
  name: { type: string }
run: [python, train.py, \"--name=${{ with.name }}\", \"${{ with.depth }}\"]
env: { A: base, B: \"${{ with.name }}\" }
timeout: 1h
artifacts: { model: out/model.pkl }
";

fn with_files(text: &str, files: &[(&str, &str)]) -> Result<Workflow, Vec<Problem>> {
    let files: BTreeMap<String, String> =
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    one(text, &files).map_err(|problems| problems.0)
}

fn places(text: &str, files: &[(&str, &str)]) -> Vec<String> {
    let problems = with_files(text, files).expect_err("accepted");
    let place = |problem: &Problem| {
        let file = problem.file.clone().map(|file| format!("{file}:")).unwrap_or_default();
        format!("{file}{}:{} {}", problem.position.line, problem.position.column, problem.code)
    };
    problems.iter().map(place).collect()
}

#[test]
fn a_file_may_hold_several_workflows() {
    let text =
        "# one\nworkflow: a\nsteps: { x: { run: [a] } }\n---\nworkflow: b\nsteps: { y: { run: [b] } }\n";
    let workflows = all(text, &NoFiles).unwrap();
    let names: Vec<&str> = workflows.iter().map(|workflow| workflow.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    for workflow in &workflows {
        let again = one(&workflow.sources.main, &NoFiles).unwrap();
        assert_eq!((again.name.as_str(), again.steps.len()), (workflow.name.as_str(), 1));
    }
    let alone = "workflow: a\nsteps: { x: { run: [a] } }\n";
    assert_eq!(one(alone, &NoFiles).unwrap().sources.main, alone);
}

#[test]
fn problems_of_all_workflows_are_told_and_names_differ() {
    let text = "workflow: a\nsteps: { x: { rum: [a] } }\n---\nworkflow: a\nsteps: { y: { run: [] } }\n";
    let problems = all(text, &NoFiles).unwrap_err().0;
    let found: Vec<(u32, &str)> = problems.iter().map(|p| (p.position.line, p.code.as_str())).collect();
    assert_eq!(found, [(2, "unknown-key"), (4, "duplicate-workflow"), (5, "value")]);
}

#[test]
fn a_step_takes_from_a_file_what_it_does_not_say_itself() {
    let text = "workflow: w\nparams: { r: { type: string, default: eu } }\nsteps:\n  train:\n    uses: steps/train.yaml\n    with: { name: \"m-${{ params.r }}\" }\n    env: { A: mine, C: more }\n    timeout: 2h\n";
    let workflow = with_files(text, &[("steps/train.yaml", TRAIN), ("steps/other.yaml", "x")]).unwrap();
    let (train, process) = work(&workflow.steps[0]);
    assert_eq!(train.timeout.as_secs(), 7200);
    assert_eq!(train.artifacts["model"], "out/model.pkl");
    let env: Vec<(&str, &str)> =
        process.env.iter().map(|(name, value)| (name.as_str(), value.source())).collect();
    assert_eq!(env, [("A", "mine"), ("B", "m-${{ params.r }}"), ("C", "more")]);
    let with = &workflow.steps[0].with;
    assert!(
        matches!(&with[0], (name, ValueTemplate::Literal(value)) if name == "depth" && *value == json!(4))
    );
    // What the machine does: first the values, then what reads them.
    let mut scope = Scope::default();
    scope.roots.insert("params".to_owned(), json!({ "r": "eu; rm -rf /" }));
    let mut values = serde_json::Map::new();
    for (name, value) in with {
        values.insert(name.clone(), value.render(&scope).unwrap());
        scope.roots.insert("with".to_owned(), values.clone().into());
    }
    let Command::Arguments(arguments) = &process.command else { panic!("no arguments") };
    let rendered: Vec<String> = arguments.iter().map(|a| a.render_text(&scope).unwrap()).collect();
    assert_eq!(rendered, ["python", "train.py", "--name=m-eu; rm -rf /", "4"]);
    assert_eq!(workflow.sources.used.keys().collect::<Vec<_>>(), ["steps/train.yaml"]);
    let again = Workflow::parse_with(&workflow.sources.main, &workflow.sources).unwrap();
    assert_eq!(again.sources.digest(), workflow.sources.digest());
}

#[test]
fn artifacts_and_values_go_through_files_that_use_files() {
    let inner = "with: { model: { type: artifact }, name: {} }\nrun: [python, evaluate.py, \"${{ with.name }}!\"]\ninputs: { candidate: \"${{ with.model }}\" }\n";
    let outer = "with: { model: { type: artifact }, name: { default: x } }\nuses: { file: inner.yaml, with: { model: \"${{ with.model }}\", name: \"${{ with.name }}\" } }\nenv: { N: \"${{ with.name }}\" }\n";
    let text = "workflow: w\nsteps:\n  a: { run: [a], artifacts: { m: m } }\n  b: { needs: [a], uses: outer.yaml, with: { model: \"${{ steps.a.artifacts.m }}\" } }\n";
    let workflow = with_files(text, &[("inner.yaml", inner), ("outer.yaml", outer)]).unwrap();
    let (evaluate, _) = work(&workflow.steps[1]);
    assert_eq!(evaluate.inputs["candidate"].source(), "${{ steps.a.artifacts.m }}");
    let names: Vec<&str> = workflow.steps[1].with.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["model", "name"]);
    assert!(matches!(workflow.steps[1].verb, Verb::Work(_)));
    assert_eq!(workflow.sources.used.len(), 2);
}

#[test]
fn what_is_wrong_in_a_used_file_names_the_file() {
    let uses = "workflow: w\nsteps: { a: { uses: t.yaml } }\n";
    let mut wrong = Vec::new();
    for (text, files, expected) in [
        (uses, vec![], vec!["2:21 unreadable-file"]),
        (uses, vec![("t.yaml", "run: [a]\ntimeuot: 1h\n")], vec!["t.yaml:2:1 unknown-key"]),
        (uses, vec![("t.yaml", "run: [a\n")], vec!["t.yaml:1:6 yaml-syntax"]),
        (uses, vec![("t.yaml", "run: [a]\n---\nrun: [b]\n")], vec!["t.yaml:3:1 wrong-type"]),
        (uses, vec![("t.yaml", "needs: [b]\nrun: [a]\n")], vec!["t.yaml:1:1 misplaced-key"]),
        (uses, vec![("t.yaml", "timeout: 1h\n")], vec!["2:10 no-verb"]),
        // Never a value in a script, whichever file it is in.
        (
            uses,
            vec![("t.yaml", "with: { x: { default: y } }\nrun: \"echo ${{ with.x }}\"\n")],
            vec!["t.yaml:2:12 unsafe-shell"],
        ),
        (
            "workflow: w\nparams: { p: { type: string } }\nsteps: { a: { uses: t.yaml, with: { x: '${{ params.p }}' } } }\n",
            vec![("t.yaml", "with: { x: {} }\nrun: [bash, -c, \"${{ with.x }}\"]\n")],
            vec!["t.yaml:2:18 unsafe-shell"],
        ),
        (
            uses,
            vec![("t.yaml", "with: { x: { default: bash } }\nrun: [\"${{ with.x }}\", -c, a]\n")],
            vec!["t.yaml:2:7 unsafe-shell"],
        ),
        // Values.
        (uses, vec![("t.yaml", TRAIN)], vec!["2:21 missing-with"]),
        (
            "workflow: w\nsteps: { a: { uses: t.yaml, with: { nam: a, name: 5, depth: \"x${{ run.name }}\" } } }\n",
            vec![("t.yaml", TRAIN)],
            vec!["2:37 unknown-with", "2:51 wrong-type", "2:61 wrong-type"],
        ),
        (
            uses,
            vec![(
                "t.yaml",
                "with: { x: { type: integer, default: y }, Y: { tpe: string } }\nrun: [a, \"${{ with.z }}\"]\n",
            )],
            vec![
                "2:21 missing-with",
                "t.yaml:1:38 wrong-type",
                "t.yaml:1:43 name",
                "t.yaml:1:48 unknown-key",
                "t.yaml:2:15 unknown-with",
            ],
        ),
        (
            "workflow: w\nsteps: { a: { run: [a, '${{ with.x }}'], with: { x: 1 } } }\n",
            vec![],
            vec!["2:29 unknown-name", "2:42 misplaced-key"],
        ),
        (
            "workflow: w\nsteps: { a: { uses: t.yaml, with: { m: steps.b.artifacts.m } } }\n",
            vec![("t.yaml", "with: { m: { type: artifact } }\nrun: [a]\n")],
            vec!["2:40 wrong-type"],
        ),
        // The verb, and where files are.
        (
            "workflow: w\nsteps: { a: { uses: t.yaml, run: [b] } }\n",
            vec![("t.yaml", "run: [a]\n")],
            vec!["2:29 many-verbs"],
        ),
        (
            "workflow: w\nsteps: { a: { uses: ../t.yaml }, b: { uses: '${{ params.t }}' } }\n",
            vec![],
            vec!["2:21 path", "2:45 path"],
        ),
        (
            "workflow: w\nsteps: { a: { uses: t.yaml } }\n",
            vec![("t.yaml", "uses: u.yaml\n"), ("u.yaml", "uses: t.yaml\n")],
            vec!["u.yaml:1:7 cycle"],
        ),
        // One name, two meanings.
        (
            uses,
            vec![
                ("t.yaml", "with: { x: { default: 1 } }\nuses: { file: u.yaml, with: { x: 2 } }\n"),
                ("u.yaml", "with: { x: {} }\nrun: [a, \"${{ with.x }}\"]\n"),
            ],
            vec!["t.yaml:2:31 with-clash"],
        ),
        (
            uses,
            vec![("t.yaml", "with: { x: 2 }\nuses: u.yaml\n"), ("u.yaml", "with: { x: {} }\nrun: [a]\n")],
            vec!["t.yaml:1:1 value", "t.yaml:1:12 wrong-type", "t.yaml:2:7 missing-with"],
        ),
    ] {
        let found = places(text, &files);
        if found != expected {
            wrong.push(format!("{text}{files:?}\n  found    {found:?}\n  expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_cycle_of_files_is_shown_whole() {
    let files = [("t.yaml", "uses: u.yaml\n"), ("u.yaml", "uses: t.yaml\n")];
    let problems = with_files("workflow: w\nsteps: { a: { uses: t.yaml } }\n", &files).unwrap_err();
    assert_eq!(problems[0].message, "files use each other: t.yaml -> u.yaml -> t.yaml");
}

#[test]
fn a_bomb_of_used_files_is_refused() {
    let big = format!("run: [{}]\n", vec!["a"; 20_000].join(", "));
    let steps: String = (0..50).map(|n| format!("  s{n}: {{ uses: big.yaml }}\n")).collect();
    let problems = with_files(&format!("workflow: w\nsteps:\n{steps}"), &[("big.yaml", &big)]).unwrap_err();
    assert!(problems.iter().any(|problem| problem.code == "too-many"), "{:?}", problems[0]);
}

//! What `examples/deploy` says to systemd and to container builds: commands, flags and variables that there are, and folders that are copied.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use refit_tests::processes::{binary, refit, run_to_end, workspace};

const FILES: [&str; 4] = ["refit-orchestrator.service", "refit-worker.service", "Containerfile", "README.md"];

fn read(name: &str) -> String {
    let path = workspace().join("examples/deploy").join(name);
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()))
}

fn help(words: &[&str]) -> String {
    let arguments = [words, &["--help"]].concat();
    let said = run_to_end(refit(&std::env::temp_dir(), &arguments), Duration::from_secs(30));
    assert_eq!(said.code, Some(0), "`refit {}`: {}", arguments.join(" "), said.err);
    said.out
}

/// The commands of `refit` in a text, each with what follows on its line.
fn commands(text: &str) -> Vec<Vec<String>> {
    let plain = text.replace(['"', ',', '[', ']', '`'], " ");
    let mut commands = Vec::new();
    for line in plain.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        for (at, word) in words.iter().enumerate() {
            let named = *word == "refit" || word.ends_with("/bin/refit") || (*word == "CMD" && at == 0);
            let verb =
                words.get(at + 1).is_some_and(|next| ["serve", "work", "token", "worker"].contains(next));
            if named && verb {
                commands.push(words[at + 1..].iter().map(|word| (*word).to_owned()).collect());
            }
        }
    }
    commands
}

#[test]
fn every_command_flag_and_variable_of_the_deployment_files_exists() {
    let mut seen = 0;
    for file in FILES {
        let text = read(file);
        for command in commands(&text) {
            let named: Vec<&str> = match command[0].as_str() {
                "token" | "worker" => command[..2].iter().map(String::as_str).collect(),
                one => vec![one],
            };
            let help = help(&named);
            for flag in command.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(flag.as_str()), "{file}: `refit {}` has no {flag}", named.join(" "));
                seen += 1;
            }
        }
        let all = help(&["serve"]) + &help(&["work"]);
        for name in text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("REFIT_"))
        {
            assert!(all.contains(name), "{file} names {name}, which nothing reads");
            seen += 1;
        }
    }
    assert!(seen > 15, "only {seen} flags and variables were found");
}

/// What Cargo and the compiler read for the program, from the top of the workspace: every member's manifest, and the files that the
/// compiler noted beside the program.
fn read_by_the_build(manifest: &str) -> BTreeSet<PathBuf> {
    let workspace = workspace().canonicalize().unwrap();
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    let members: Vec<String> = serde_json::from_str(members).unwrap();
    let mut read: BTreeSet<PathBuf> =
        members.iter().map(|member| PathBuf::from(member).join("Cargo.toml")).collect();
    read.extend(["Cargo.toml", "Cargo.lock"].map(PathBuf::from));
    let noted = binary().with_extension("d");
    let text = std::fs::read_to_string(&noted)
        .unwrap_or_else(|error| panic!("failed to read {}, which Cargo writes: {error}", noted.display()));
    let (_, files) = text.trim_end().split_once(": ").unwrap();
    for file in files.replace("\\ ", "\0").split(' ') {
        let file = PathBuf::from(file.replace('\0', " ")).canonicalize().unwrap();
        read.insert(file.strip_prefix(&workspace).unwrap().to_owned());
    }
    read
}

#[test]
fn the_image_has_all_that_its_build_reads_and_the_toolchain_of_the_workspace() {
    let text = read("Containerfile");
    let copied: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|line| !line.starts_with("--"))
        .flat_map(|line| line.rsplit_once(' ').unwrap().0.split(' '))
        .collect();
    for source in &copied {
        assert!(workspace().join(source).exists(), "the Containerfile copies {source}, which does not exist");
    }
    let manifest = std::fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let read = read_by_the_build(&manifest);
    assert!(read.len() > 100, "the compiler noted only {read:?}");
    let missing: Vec<_> =
        read.iter().filter(|file| !copied.iter().any(|source| file.starts_with(source))).collect();
    assert_eq!(missing, Vec::<&PathBuf>::new(), "the Containerfile does not copy what the build reads");
    let version =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(
        text.contains(&format!("rust:{version}-")),
        "the Containerfile builds with another Rust than {version}"
    );
}

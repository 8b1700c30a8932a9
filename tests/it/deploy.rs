//! What `examples/deploy` says to systemd and to container builds: commands, flags and variables that there are, and folders that are copied.

use std::time::Duration;

use refit_tests::processes::{refit, run_to_end, workspace};

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

#[test]
fn the_image_is_built_from_folders_that_exist_with_the_toolchain_of_the_workspace() {
    let text = read("Containerfile");
    let copied =
        text.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"));
    for line in copied {
        let words: Vec<&str> = line.split(' ').collect();
        for source in &words[..words.len() - 1] {
            assert!(
                workspace().join(source).exists(),
                "the Containerfile copies {source}, which does not exist"
            );
        }
    }
    let manifest = std::fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let version =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(
        text.contains(&format!("rust:{version}-")),
        "the Containerfile builds with another Rust than {version}"
    );
    for member in ["workflows", "orchestrator", "workers", "cli", "tests"] {
        assert!(
            text.contains(&format!("\nCOPY {member} {member}\n")),
            "the workspace's member {member} is not copied"
        );
    }
}

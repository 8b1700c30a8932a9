//! The layer rule of the house, from what cargo resolved: `workflows` stays pure, orchestrator and worker know each
//! other only through HTTP, every dependency's version is written once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use refit_tests::processes::workspace;
use serde_json::{Value, json};

/// What must not be in `refit-workflows`, not even through another crate: runtimes, sockets, storage, randomness.
const IMPURE: [&str; 13] = [
    "tokio",
    "tokio-util",
    "async-io",
    "sqlx",
    "sqlx-core",
    "lapin",
    "reqwest",
    "axum",
    "hyper",
    "tower",
    "rand",
    "tracing",
    "mio",
];

/// What must not be among its own dependencies. The expression parser brings `uuid` along and draws none.
const IMPURE_DIRECTLY: [&str; 4] = ["uuid", "getrandom", "chrono", "tempfile"];

/// What its code must not name: clocks, files, the environment, threads, processes, sockets.
const OUTSIDE: [&str; 8] =
    ["SystemTime", "Instant", "::now(", "std::fs", "std::env", "std::net", "std::process", "std::thread"];

/// The packages that cargo resolved, with their normal dependencies (build and development ones left out).
struct Packages {
    names: BTreeMap<String, String>,
    needs: BTreeMap<String, Vec<String>>,
}

impl Packages {
    fn read(metadata: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let normal =
            |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        let packages: BTreeMap<String, &Value> =
            metadata["packages"].as_array().unwrap().iter().map(|one| (text(&one["id"]), one)).collect();
        let names: BTreeMap<String, String> =
            packages.iter().map(|(id, one)| (id.clone(), text(&one["name"]))).collect();
        let needs = list(&metadata["resolve"]["nodes"]).into_iter().map(|node| {
            let id = text(&node["id"]);
            let active = |needed: &Value| is_active(packages[&id], &node, &names[&text(&needed["pkg"])]);
            let needs = list(&node["deps"]).into_iter().filter(normal).filter(active);
            let needs = needs.map(|needed| text(&needed["pkg"])).collect();
            (id.clone(), needs)
        });
        let needs: BTreeMap<_, _> = needs.collect();
        Self { names, needs }
    }

    fn id(&self, name: &str) -> &str {
        let found = self.names.iter().find(|(_, known)| *known == name);
        found.map(|(id, _)| id.as_str()).unwrap_or_else(|| panic!("there is no package {name}"))
    }

    fn direct(&self, name: &str) -> BTreeSet<&str> {
        self.needs[self.id(name)].iter().map(|id| self.names[id].as_str()).collect()
    }

    fn reachable(&self, name: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![self.id(name)];
        while let Some(id) = open.pop() {
            for need in &self.needs[id] {
                if seen.insert(need.as_str()) {
                    open.push(need);
                }
            }
        }
        seen.into_iter().map(|id| self.names[id].as_str()).collect()
    }

    /// Everything in `refit-workflows` that must not be there.
    fn impurities(&self) -> Vec<String> {
        let (direct, reachable) = (self.direct("refit-workflows"), self.reachable("refit-workflows"));
        let through = IMPURE.iter().filter(|name| reachable.contains(*name));
        let own = IMPURE_DIRECTLY.iter().filter(|name| direct.contains(*name));
        let house = reachable.iter().filter(|name| name.starts_with("refit"));
        through.chain(own).chain(house).map(|name| (*name).to_owned()).collect()
    }
}

/// Whether a dependency is there in what was built: cargo lists optional ones as well that a feature would use if another one asked
/// for them (`rand?/std`).
fn is_active(package: &Value, node: &Value, name: &str) -> bool {
    let declared = package["dependencies"].as_array().unwrap().iter().filter(|one| one["name"] == name);
    let declared: Vec<&Value> = declared.collect();
    if declared.is_empty() || declared.iter().any(|one| one["optional"] == false) {
        return true;
    }
    declared.iter().any(|one| {
        let called = one["rename"].as_str().unwrap_or(name);
        let asked = [called.to_owned(), format!("dep:{called}"), format!("{called}/")];
        let asks = |element: &Value| {
            let element = element.as_str().unwrap();
            element == asked[0] || element == asked[1] || element.starts_with(&asked[2])
        };
        node["features"].as_array().unwrap().iter().any(|feature| {
            let elements = package["features"][feature.as_str().unwrap()].as_array();
            elements.is_some_and(|elements| elements.iter().any(asks))
        })
    })
}

fn cargo(arguments: &[&str]) -> Vec<u8> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(arguments).current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What cargo resolved for this platform: that much is here once the tests are built, so no network is needed.
fn metadata() -> Value {
    let version = String::from_utf8(cargo(&["-vV"])).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let resolved =
        cargo(&["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform", host]);
    serde_json::from_slice(&resolved).unwrap()
}

#[test]
fn workflows_depends_on_nothing_that_acts() {
    assert_eq!(Packages::read(&metadata()).impurities(), Vec::<String>::new());
}

#[test]
fn orchestrator_and_worker_do_not_know_each_other() {
    let packages = Packages::read(&metadata());
    assert!(!packages.reachable("refit-orchestrator").contains("refit-workers"));
    assert!(!packages.reachable("refit-workers").contains("refit-orchestrator"));
    let members = packages.names.values().filter(|name| name.starts_with("refit"));
    let both = members.filter(|name| {
        let direct = packages.direct(name);
        direct.contains("refit-orchestrator") || direct.contains("refit-workers")
    });
    let both: BTreeSet<&str> = both.map(String::as_str).collect();
    assert!(
        both.is_subset(&BTreeSet::from(["refit", "refit-tests"])),
        "{both:?} know orchestrator or worker"
    );
}

#[test]
fn the_layer_rule_can_fail() {
    let mut metadata = metadata();
    let packages = Packages::read(&metadata);
    let [workflows, petgraph, tokio] =
        ["refit-workflows", "petgraph", "tokio"].map(|name| packages.id(name).to_owned());
    let uuid = packages.id("uuid").to_owned();

    let add = |metadata: &mut Value, to: &str, what: &str, kind: Value| {
        let nodes = metadata["resolve"]["nodes"].as_array_mut().unwrap();
        let node = nodes.iter_mut().find(|node| node["id"] == *to).unwrap();
        node["deps"].as_array_mut().unwrap().push(json!({"pkg": what, "dep_kinds": [{"kind": kind}]}));
    };
    add(&mut metadata, &workflows, &tokio, json!("dev"));
    assert!(Packages::read(&metadata).impurities().is_empty(), "a development dependency is allowed");
    add(&mut metadata, &petgraph, &tokio, Value::Null);
    assert!(Packages::read(&metadata).impurities().contains(&"tokio".to_owned()), "through another crate");
    add(&mut metadata, &workflows, &uuid, Value::Null);
    assert!(Packages::read(&metadata).impurities().contains(&"uuid".to_owned()), "directly");
}

#[test]
fn workflows_names_no_clock_file_or_thread() {
    let mut offences = Vec::new();
    for file in sources(&workspace().join("workflows/src")) {
        offences.extend(reaching_outside(&std::fs::read_to_string(&file).unwrap(), &file));
    }
    assert!(offences.is_empty(), "`workflows` is pure, but:\n{}", offences.join("\n"));
    let clock =
        reaching_outside("//! Instant\nfn f() {\n    jiff::Timestamp::now();\n}\n", Path::new("x.rs"));
    assert_eq!(clock, ["x.rs:3: jiff::Timestamp::now();"], "the search itself must find something");
}

/// Lines of code that name something outside; comments and the tests at the end of a file do not count.
fn reaching_outside(text: &str, file: &Path) -> Vec<String> {
    let code = text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    let code = code.map(|(index, line)| (index, line.split("//").next().unwrap_or_default()));
    code.filter(|(_, line)| OUTSIDE.iter().any(|name| line.contains(name)))
        .map(|(index, line)| format!("{}:{}: {}", file.display(), index + 1, line.trim()))
        .collect()
}

/// The Rust files under a folder, except files of tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path {
            folder if folder.is_dir() => sources(&folder),
            file => vec![file],
        })
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .filter(|file| !file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests")))
        .collect()
}

#[test]
fn every_version_is_written_once() {
    for package in metadata()["packages"].as_array().unwrap() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        if package["source"].is_null() {
            let text = std::fs::read_to_string(manifest).unwrap();
            let own = own_versions(&text);
            assert!(own.is_empty(), "{}: take these from the workspace: {own:?}", manifest.display());
        }
    }
    let wrong = "[dependencies]\nserde.workspace = true\nrand = \"0.9\"\n[dev-dependencies.tempfile]\nversion = \"3\"\n";
    assert_eq!(
        own_versions(wrong),
        ["rand = \"0.9\"", "[dev-dependencies.tempfile]"],
        "the search must find some"
    );
}

/// The dependency lines of a manifest that do not inherit from the workspace.
fn own_versions(manifest: &str) -> Vec<&str> {
    let mut in_dependencies = false;
    let mut own = Vec::new();
    for line in manifest.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            in_dependencies = line.trim_end_matches(']').ends_with("dependencies");
            own.extend(line.contains("dependencies.").then_some(line));
        } else if in_dependencies && !line.contains("workspace = true") {
            own.push(line);
        }
    }
    own
}

//! What `docs/events.md` says of webhooks is true: with each example as its settings an orchestrator starts, and its webhooks
//! are there and take nothing unsigned.

use std::collections::BTreeSet;

use refit_tests::processes::{Options, workspace};
use serde_json::Value;

use super::{Headers, House, now};

/// The YAML blocks under `## Webhooks`, up to the next heading of that level.
fn examples() -> Vec<String> {
    let page = std::fs::read_to_string(workspace().join("docs/events.md")).unwrap();
    let section = page.split("\n## ").find_map(|section| section.strip_prefix("Webhooks\n")).unwrap();
    section.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The variables that a block names.
fn variables(block: &str) -> BTreeSet<&str> {
    block
        .split("env: ")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_uppercase() && c != '_').next())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_page_starts() {
    let mut schemes = BTreeSet::new();
    for block in examples() {
        let settings: Value = serde_yaml::from_str(&block).unwrap_or_else(|error| panic!("{block}: {error}"));
        let env: Vec<(&str, &str)> =
            variables(&block).into_iter().map(|name| (name, "a secret for this")).collect();
        let house = House::start(&block, &env, Options::default()).await;
        for (name, source) in settings["sources"].as_object().unwrap_or_else(|| panic!("{block}")) {
            let scheme = source["webhook"]["scheme"].as_str().unwrap();
            schemes.insert(scheme.to_owned());
            let body = format!(r#"{{"specversion": "1.0", "id": "{}", "source": "/s", "type": "t"}}"#, now());
            let answer = house.post(name, &Headers::new(), &body).await;
            match scheme {
                "none" => drop(answer.taken(name)),
                _ => drop(answer.refused(name, 401, "not-authentic")),
            }
        }
    }
    let all = ["api_key", "basic", "bearer", "dbt", "github", "hugging_face", "mlflow", "none", "standard"];
    assert_eq!(schemes, all.map(str::to_owned).into(), "schemes with an example");
}

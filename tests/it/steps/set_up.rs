//! How long a step takes to be set up, from the worker that measures it to what a person reads.

use refit_workflows::time::Timestamp;

use super::*;

/// A package whose build takes a while, by a build backend of its own: nothing is fetched.
const BACKEND: &str = r#"
import os, time, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    time.sleep(1.2)
    name, info = "slow-1.0-py3-none-any.whl", "slow-1.0.dist-info/"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n")
    return name
"#;

const SETS_UP: &str = "
workflow: sets-up
steps:
  slow: { run: 'true', python: { requirements: requirements.txt } }
  plain: { run: sleep 0.2 }
";

#[tokio::test(flavor = "multi_thread")]
async fn how_long_a_step_took_to_be_set_up_is_shown_apart_from_how_long_it_ran() {
    let house = House::start().await;
    let _worker = house.worker("w", 2);
    let api = house.api();
    let system = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n";
    let files =
        [("requirements.txt", "./slow\n"), ("slow/pyproject.toml", system), ("slow/backend.py", BACKEND)];
    api.apply_with_files(SETS_UP, &files).await;
    let run = api.start_run("sets-up", json!({})).await;
    api.wait_run(&run, "succeeded", PATIENCE).await;

    let shown = exit(&house.refit(&["run", "show", &run, "-o", "json"]).await, 0);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let slow = Api::step(&shown, "slow");
    let time = |name: &str| serde_json::from_value::<Timestamp>(slow[name].clone()).unwrap();
    let took = time("finished_at").since(time("started_at"));
    let set_up = Duration::from_millis(slow["set_up_ms"].as_u64().unwrap());
    assert!(set_up > Duration::from_millis(1_200) && set_up < took, "{set_up:?} of {took:?}");

    let table = exit(&house.refit(&["run", "show", &run]).await, 0);
    let line = |step: &str| table.lines().find(|line| line.trim_start().starts_with(step)).unwrap();
    assert!(line("slow").contains("set up ") && line("slow").contains(", ran "), "{table}");
    assert!(!line("plain").contains("set up "), "{table}");
}

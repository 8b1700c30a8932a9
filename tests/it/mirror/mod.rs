//! The registry in MLflow: a real server has every version, with what it rested on, once, and every alias where Refit has it,
//! whatever becomes of requests, answers and orchestrators on the way, and whoever else moves things there.

mod between;
mod killed;

use std::time::Duration;

use between::{Act, Between};
use refit_tests::api::Api;
use refit_tests::eventually;
use refit_tests::processes::{Options, Orchestrator, free_port, refit, run_to_end};
use refit_tests::services::{self, Database, Mlflow, number};
use refit_workflows::wire::WORKER_PROTOCOL;
use serde_json::{Value, json};

on_both_databases! {
    a_promotion_is_in_mlflow_with_all_that_it_rested_on
    what_others_change_in_mlflow_is_set_right_and_told
}

const PATIENCE: Duration = Duration::from_secs(60);

/// A model of one test's own, retrained by a worker that is this test.
struct Scene {
    mlflow: Mlflow,
    model: String,
    orchestrator: Orchestrator,
    trained: usize,
}

fn model() -> String {
    format!("m-{}", uuid::Uuid::new_v4().simple())
}

/// `refit.yaml` with the mirror at this URL, `model` its experiment too.
fn settings(model: &str, url: &str, more: Value) -> String {
    let mut mlflow = json!({ "url": url, "experiment": model, "models": [model], "check_every": "1s" });
    mlflow.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "registry": { "mlflow": mlflow } }).to_string()
}

impl Scene {
    async fn start(database: &Database, model: &str, url: &str, more: Value) -> Self {
        let options = Options {
            database_url: Some(database.url().to_owned()),
            settings: Some(settings(model, url, more)),
            ..Options::default()
        };
        let orchestrator = Orchestrator::start(options).await;
        let scene = Self { mlflow: services::mlflow(), model: model.to_owned(), orchestrator, trained: 0 };
        scene
            .api()
            .apply(&format!(
                "
workflow: {model}
model: {model}
params: {{ depth: {{ type: integer, default: 4 }} }}
steps:
  train: {{ run: [x], artifacts: {{ model: m }} }}
  gate: {{ needs: [train], gate: {{ checks: [{{ metric: accuracy, min: 0.5 }}] }} }}
  promote: {{ needs: [gate], promote: {{ artifact: '${{{{ steps.train.artifacts.model }}}}' }} }}
"
            ))
            .await;
        let register = json!({
            "protocol": WORKER_PROTOCOL, "worker": "w", "session": "s", "labels": {}, "slots": 1, "cpus": 1,
            "memory": 1, "gpus": 0, "version": "test",
        });
        scene.api().post("/api/v1/worker/register", &register).await.ok();
        scene
    }

    fn api(&self) -> Api {
        self.orchestrator.api()
    }

    /// Retrains and promotes; gives the run's name.
    async fn promote(&mut self) -> String {
        self.trained += 1;
        let (api, accuracy) = (self.api(), 0.5 + self.trained as f64 / 100.0);
        api.start_run(&self.model, json!({})).await;
        let lease = json!({ "worker": "w", "session": "s", "slots": 1, "wait_ms": 10_000 });
        let key = api.post("/api/v1/worker/lease", &lease).await.ok()["orders"][0]["key"].clone();
        let artifact = json!({ "digest": format!("sha256:{}", "a".repeat(64)), "bytes": 5, "kind": "file" });
        let outcome = json!({
            "outcome": "succeeded", "metrics": { "accuracy": accuracy }, "outputs": {},
            "artifacts": { "model": artifact },
        });
        let finish = json!({ "key": key, "outcome": outcome, "next": null });
        api.post("/api/v1/worker/finish", &finish).await.ok();
        let run = key["run"].as_str().unwrap().to_owned();
        api.wait_run(&run, "succeeded", PATIENCE).await;
        run
    }

    async fn shown(&self) -> Value {
        self.api().get(&format!("/api/v1/models/{}", self.model)).await.ok()
    }

    /// The state of the mirror among the parts of the server.
    async fn part(&self) -> String {
        let ready = self.api().get("/readyz").await.ok();
        let part = ready["parts"].as_array().unwrap().iter().find(|part| part["part"] == "mirror").unwrap();
        part["state"].as_str().unwrap().to_owned()
    }

    /// Waits until Refit says that MLflow has everything.
    async fn mirrored(&self) -> Value {
        eventually("MLflow has everything", PATIENCE, async || {
            Some(self.shown().await).filter(|model| model["mirror"]["state"] == "mirrored")
        })
        .await
    }

    /// Checks that MLflow has each version once, each with one whole run, and the alias at the newest.
    async fn check(&self, count: usize) {
        self.mirrored().await;
        let versions = self.mlflow.versions(&self.model).await;
        let told: Vec<_> = versions.iter().map(|version| tag(version, "refit.version").unwrap()).collect();
        let expected: Vec<_> = (1..=count).map(|number| number.to_string()).collect();
        assert_eq!(told, expected, "each once");
        assert_eq!(self.mlflow.alias(&self.model, "champion").await, versions.last().map(number));
        let runs = self.mlflow.runs(&self.model).await;
        assert_eq!(runs.len(), count, "each has one run");
        for version in &versions {
            let id = &version["run_id"];
            let run = runs.iter().find(|run| run["info"]["run_id"] == *id).unwrap();
            assert_eq!(run["info"]["status"], "FINISHED");
            let accuracy = 0.5 + tag(version, "refit.version").unwrap().parse::<f64>().unwrap() / 100.0;
            assert_eq!(run["data"]["metrics"][0]["value"], accuracy, "{run}");
            assert_eq!(run["data"]["params"], json!([{ "key": "depth", "value": "4" }]), "{run}");
        }
    }

    fn refit(&self, arguments: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let asked = [arguments, &["--server", self.orchestrator.base_url()]].concat();
        let said = run_to_end(refit(folder.path(), &asked), PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
        said.out
    }
}

fn tag<'a>(version: &'a Value, key: &str) -> Option<&'a str> {
    version["tags"].as_array()?.iter().find(|tag| tag["key"] == key)?["value"].as_str()
}

async fn a_promotion_is_in_mlflow_with_all_that_it_rested_on(database: Database) {
    let (mlflow, model) = (services::mlflow(), model());
    // The model was there before Refit, so that numbers differ.
    mlflow.post("registered-models/create", &json!({ "name": model })).await.ok();
    let foreign = json!({ "name": model, "source": "s3://bucket/model" });
    mlflow.post("model-versions/create", &foreign).await.ok();
    let alias = |number: &str| json!({ "name": model, "alias": "mine", "version": number });
    mlflow.post("registered-models/alias", &alias("1")).await.ok();

    let more = json!({ "refit_url": "https://refit.internal" });
    let mut scene = Scene::start(&database, &model, mlflow.url(), more).await;
    let run = scene.promote().await;
    let shown = scene.mirrored().await;
    let mirror = &shown["versions"][0]["mirror"];
    assert_eq!((&mirror["state"], &mirror["version"]), (&json!("mirrored"), &json!(2)), "{shown}");
    assert_eq!(mirror["server"], mlflow.url());

    let there = mlflow.versions(&model).await.pop().unwrap();
    let detail = scene.api().get(&format!("/api/v1/models/{model}/versions/1")).await.ok();
    for (key, value) in [
        ("refit.version", "1"),
        ("refit.run", &run),
        ("refit.evidence", detail["evidence"].as_str().unwrap()),
        ("refit.definition", detail["definition"].as_str().unwrap()),
        ("refit.digest", detail["digest"].as_str().unwrap()),
        ("refit.artifact", "model"),
        ("refit.url", &format!("https://refit.internal/api/v1/models/{model}/versions/1/artifact")),
    ] {
        assert_eq!(tag(&there, key), Some(value), "{key} in {there}");
    }
    assert_eq!(there["source"], format!("refit:/{model}/versions/1"));
    assert!(there["description"].as_str().unwrap().starts_with("gate: "), "{there}");
    let runs = mlflow.runs(&model).await;
    let [its] = runs.as_slice() else { panic!("{runs:?}") };
    assert_eq!((&its["info"]["run_id"], &its["info"]["status"]), (&there["run_id"], &json!("FINISHED")));
    assert_eq!(its["info"]["run_name"], run);
    assert_eq!(its["data"]["metrics"][0]["value"], 0.51);
    assert_eq!(its["data"]["params"], json!([{ "key": "depth", "value": "4" }]));
    assert_eq!(mlflow.alias(&model, "champion").await, Some(2));
    assert_eq!(mlflow.alias(&model, "mine").await, Some(1), "an alias of others is left alone");

    // A promotion and a rollback move it; whoever looks is told.
    let second = scene.promote().await;
    scene.mirrored().await;
    assert_eq!(mlflow.alias(&model, "champion").await, Some(3));
    let view = scene.api().run(&second).await;
    assert_eq!((&view["mirror"]["state"], &view["mirror"]["version"]), (&json!("mirrored"), &json!(3)));
    assert!(scene.refit(&["run", "show", &second]).contains("in MLflow as version 3 (read back "));
    assert!(scene.refit(&["model", "show", &model]).contains(&format!("in MLflow at {}", mlflow.url())));
    assert!(scene.refit(&["model", "show", &model, "1"]).contains("in MLflow as version 2"));
    scene.refit(&["model", "rollback", &model]);
    eventually("the alias is back", PATIENCE, async || {
        (mlflow.alias(&model, "champion").await == Some(2)).then_some(())
    })
    .await;
    scene.mirrored().await;
    let history = scene.api().get(&format!("/api/v1/models/{model}/history")).await.ok();
    assert_eq!(history.as_array().unwrap().len(), 3);
    assert!(
        history.as_array().unwrap().iter().all(|step| step["mirror"]["state"] == "mirrored"),
        "{history}"
    );
    assert!(scene.refit(&["model", "history", &model]).contains("MLFLOW"));
    assert_eq!(mlflow.versions(&model).await.len(), 3, "nothing was made twice");
}

async fn what_others_change_in_mlflow_is_set_right_and_told(database: Database) {
    let (mlflow, model) = (services::mlflow(), model());
    let mut scene = Scene::start(&database, &model, mlflow.url(), json!({})).await;
    scene.promote().await;
    scene.promote().await;
    assert!(scene.mirrored().await["mirror"].get("noted").is_none(), "a move of ours is nobody else's");
    let noted = async |scene: &Scene, words: &str| {
        eventually(words, PATIENCE, async || {
            let mirror = scene.shown().await["mirror"].clone();
            let is_told = mirror["noted"].as_str().is_some_and(|noted| noted.contains(words));
            (is_told && mirror["state"] == "mirrored").then_some(())
        })
        .await;
    };
    mlflow
        .post("registered-models/alias", &json!({ "name": model, "alias": "champion", "version": "1" }))
        .await
        .ok();
    noted(&scene, "champion was moved to its version 1").await;
    assert_eq!(mlflow.alias(&model, "champion").await, Some(2));
    mlflow.delete("registered-models/alias", &json!({ "name": model, "alias": "champion" })).await;
    noted(&scene, "champion was taken out").await;
    assert_eq!(mlflow.alias(&model, "champion").await, Some(2));
    mlflow.delete("model-versions/delete", &json!({ "name": model, "version": "1" })).await;
    noted(&scene, "versions were taken out, and are made again: 1").await;
    let again = mlflow.versions(&model).await;
    assert_eq!((again.len(), tag(&again[1], "refit.version")), (2, Some("1")), "{again:?}");
    assert_eq!(scene.shown().await["versions"][1]["mirror"]["version"], 3);
    // All of it goes, and another has its name and numbers.
    mlflow.delete("registered-models/delete", &json!({ "name": model })).await;
    mlflow.post("registered-models/create", &json!({ "name": model })).await;
    eventually("all is there again", PATIENCE, async || {
        let versions = mlflow.versions(&model).await;
        let whole = versions.len() == 2 && mlflow.alias(&model, "champion").await.is_some();
        whole.then_some(())
    })
    .await;
    scene.check(2).await;
    assert!(scene.orchestrator.logs().contains("somebody else changes MLflow"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_waits_for_no_mirror_and_mlflow_has_it_once_it_is_back() {
    let (mlflow, model, port) = (services::mlflow(), model(), free_port());
    let address = format!("127.0.0.1:{port}");
    let mut scene = Scene::start(&services::sqlite(), &model, &format!("http://{address}"), json!({})).await;
    let run = scene.promote().await;
    let mirror = eventually("it is told why not yet", PATIENCE, async || {
        let mirror = scene.api().run(&run).await["mirror"].clone();
        mirror.get("next_try_at").is_some().then_some(mirror)
    })
    .await;
    assert_eq!(mirror["state"], "pending");
    assert!(mirror["error"].as_str().unwrap().contains("refused"), "{mirror}");
    assert!(scene.refit(&["model", "show", &model]).contains("not all of it is in MLflow at"));
    assert_eq!(scene.part().await, "degraded");
    scene.promote().await;
    let _between = Between::start_at(&address, &mlflow, |_| Act::Pass).await;
    scene.check(2).await;
    eventually("nothing is wrong any more", PATIENCE, async || {
        let told = scene.shown().await["mirror"].get("error").is_some();
        (!told && scene.part().await == "ok").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_otherwise_than_mlflow_is_told_and_left_until_it_does() {
    let (mlflow, model) = (services::mlflow(), model());
    let between = Between::start(&mlflow, |_| Act::Pass).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "hunter2\n").unwrap();
    let more = json!({ "token": { "file": token.path() } });
    let mut scene = Scene::start(&services::sqlite(), &model, &between.url, more).await;
    for (act, told) in [
        (Act::Say("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"), "500"),
        (
            Act::Say("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>"),
            "text/html instead of JSON",
        ),
        (
            Act::Say("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]"),
            "not what MLflow answers",
        ),
        (
            Act::Say("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"),
            "redirects are not followed",
        ),
        (Act::Say("HTTP/1.1 401 X\r\ncontent-length: 0\r\n\r\n"), "check who asks"),
        (Act::SayForEver, "larger than 4 MiB"),
    ] {
        between.decide(move |_| act);
        let run = scene.promote().await;
        let view = eventually(told, PATIENCE, async || {
            let mirror = scene.api().run(&run).await["mirror"].clone();
            mirror["error"].as_str().is_some_and(|error| error.contains(told)).then_some(mirror)
        })
        .await;
        assert_eq!(view["state"], "pending");
        between.decide(|_| Act::Pass);
        scene.check(scene.trained).await;
    }
    assert!(between.asked().iter().all(|asked| asked.headers["authorization"] == "Bearer hunter2"));
    assert!(!scene.orchestrator.logs().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mlflow_refuses_of_one_model_holds_up_no_other() {
    let (mlflow, model) = (services::mlflow(), model());
    let between = Between::start(&mlflow, |_| Act::Pass).await;
    let other = format!("{model}-b");
    let more = json!({ "models": [model, other] });
    let mut scene = Scene::start(&services::sqlite(), &model, &between.url, more).await;
    let refused = "HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: 65\r\n\r\n\
                   {\"error_code\":\"INVALID_PARAMETER_VALUE\",\"message\":\"no such luck\"}   ";
    let name = format!("name={model}");
    between.decide(move |asked| {
        let is_it = asked.what() == "GET registered-models/get" && asked.path.ends_with(&name);
        if is_it { Act::Say(refused) } else { Act::Pass }
    });
    scene.promote().await;
    eventually("it is told", PATIENCE, async || {
        let error = scene.shown().await["mirror"]["error"].clone();
        error.as_str().is_some_and(|error| error.contains("no such luck")).then_some(())
    })
    .await;
    let api = scene.api();
    let workflow = api.get(&format!("/api/v1/workflows/{model}")).await.ok()["text"].clone();
    api.apply(&workflow.as_str().unwrap().replace(&model, &other)).await;
    let held = std::mem::replace(&mut scene.model, other);
    scene.promote().await;
    scene.mirrored().await;
    scene.model = held;
    assert_eq!(scene.shown().await["mirror"]["state"], "pending");
    between.decide(|_| Act::Pass);
    scene.mirrored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_asks_mlflow_for_its_version() {
    let (mlflow, folder) = (services::mlflow(), tempfile::tempdir().unwrap());
    let doctor = |url: &str| {
        let said = run_to_end(refit(folder.path(), &["doctor", "-o", "json", "--mlflow-url", url]), PATIENCE);
        let findings: Vec<Value> = serde_json::from_str(&said.out).unwrap();
        findings.into_iter().find(|found| found["check"] == "registry mlflow").unwrap()
    };
    let found = doctor(mlflow.url());
    assert_eq!(found["state"], "ok", "{found}");
    assert!(found["found"].as_str().unwrap().starts_with("MLflow "), "{found}");
    let found = doctor(&format!("http://127.0.0.1:{}", free_port()));
    assert_eq!(found["state"], "fail", "{found}");
    assert!(found["found"].as_str().unwrap().contains("refused"), "{found}");
}

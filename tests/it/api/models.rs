//! Models as serving systems and people meet them: what is in a version, where it comes from, what two differ in, and an alias
//! that is moved by hand.

use refit_workflows::wire::{Tree, TreeFile, WORKER_PROTOCOL};

use super::*;

const GATED: &str = "
workflow: gated
model: m
params: { depth: { type: integer, default: 4 } }
steps:
  train: { run: [x], artifacts: { model: m } }
  gate: { needs: [train], gate: { checks: [{ metric: accuracy, min: 0.5 }, { metric: accuracy, min_change: -1 }] } }
  promote: { needs: [gate], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";

/// An orchestrator, and a worker of which this test plays the part.
struct Scene {
    orchestrator: Orchestrator,
}

impl Scene {
    async fn start() -> Self {
        let orchestrator = Orchestrator::start(Options::default()).await;
        let register = json!({
            "protocol": WORKER_PROTOCOL, "worker": "w", "session": "s", "labels": {}, "slots": 1, "cpus": 1,
            "memory": 1, "gpus": 0, "version": "test",
        });
        orchestrator.api().post("/api/v1/worker/register", &register).await.ok();
        orchestrator.api().apply(GATED).await;
        Self { orchestrator }
    }

    /// Promotes what a run of this depth made.
    async fn promote(&self, depth: i64, accuracy: f64, model: Value) {
        let api = self.orchestrator.api();
        let run = api.start_run("gated", json!({ "depth": depth })).await;
        let lease = json!({ "worker": "w", "session": "s", "slots": 1, "wait_ms": 10_000 });
        let key = api.post("/api/v1/worker/lease", &lease).await.ok()["orders"][0]["key"].clone();
        let outcome = json!({
            "outcome": "succeeded", "metrics": { "accuracy": accuracy }, "outputs": {},
            "artifacts": { "model": model },
        });
        let finish = json!({ "key": key, "outcome": outcome, "next": null });
        api.post("/api/v1/worker/finish", &finish).await.ok();
        api.wait_run(&run, "succeeded", WAIT).await;
    }

    /// A file with this text, handed over.
    async fn file(&self, text: &str) -> Value {
        let digest = self.orchestrator.api().put_blob(text.as_bytes().to_vec()).await;
        json!({ "digest": digest, "bytes": text.len(), "kind": "file" })
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask(self.orchestrator.base_url(), ("GET", path), headers, "", 1).await
    }

    async fn move_by_hand(&self, verb: &str, body: Value) -> Answer {
        let path = format!("/api/v1/models/m/{verb}");
        let headers = [("content-type", "application/json")];
        ask(self.orchestrator.base_url(), ("POST", &path), &headers, body.to_string(), 1).await
    }

    fn refit(&self, folder: &std::path::Path, arguments: &[&str]) -> refit_tests::processes::Said {
        let server = ["--server", self.orchestrator.base_url()];
        run_to_end(refit(folder, &[arguments, &server].concat()), WAIT)
    }
}

const CHAMPION: &str = "/api/v1/models/m/aliases/champion/artifact";

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_system_fetches_what_an_alias_points_to_and_is_told_when_that_is_another() {
    let scene = Scene::start().await;
    scene.promote(4, 0.7, scene.file("1234567890").await).await;
    let first = scene.get(CHAMPION, &[]).await;
    assert_eq!((first.status, &first.body), (200, &json!(1_234_567_890)));
    let header = |answer: &Answer, name: &str| answer.headers[name].to_str().unwrap().to_owned();
    let tag = format!("\"{}\"", Digest::of(b"1234567890"));
    assert_eq!(header(&first, "etag"), tag);
    // `printf 1234567890 | openssl dgst -sha256 -binary | base64`
    assert_eq!(header(&first, "repr-digest"), "sha-256=:x3Xnt1ft5jDNCqERO9ECZhqziCnKUqZCKreChi8mhkY=:");
    assert_eq!(
        (header(&first, "refit-version").as_str(), header(&first, "content-length").as_str()),
        ("1", "10")
    );

    for tags in [tag.as_str(), "*", &format!("\"other\", W/{tag}")] {
        let known = scene.get(CHAMPION, &[("if-none-match", tags)]).await;
        assert_eq!((known.status, header(&known, "etag")), (304, tag.clone()), "{tags}");
    }
    let rest = scene.get(CHAMPION, &[("range", "bytes=5-"), ("if-range", &tag)]).await;
    assert_eq!((rest.status, &rest.body), (206, &json!(67890)));
    assert_eq!(header(&rest, "repr-digest"), header(&first, "repr-digest"), "it names the whole");

    scene.promote(8, 0.8, scene.file("\"another\"").await).await;
    let second = scene.get(CHAMPION, &[("if-none-match", &tag)]).await;
    assert_eq!(
        (second.status, second.body.as_str(), header(&second, "refit-version").as_str()),
        (200, Some("another"), "2")
    );
    // What was begun before the alias moved is not gone on with in the middle of another file.
    let rest = scene.get(CHAMPION, &[("range", "bytes=5-"), ("if-range", &tag)]).await;
    assert_eq!((rest.status, rest.body.as_str()), (200, Some("another")));
    let old = scene.get("/api/v1/models/m/versions/1/artifact", &[]).await;
    assert_eq!((old.status, header(&old, "etag")), (200, tag));
    for path in ["versions/3/artifact", "aliases/shadow/artifact", "versions/3", "aliases/shadow"] {
        scene.get(&format!("/api/v1/models/m/{path}"), &[]).await.refused(path, 404);
    }
    scene.get("/api/v1/models/m/versions/new", &[]).await.refused("no number", 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_fetches_files_and_folders_whole() {
    let scene = Scene::start().await;
    scene.promote(4, 0.7, scene.file("first").await).await;
    let api = scene.orchestrator.api();
    let mut tree = Tree::default();
    for (path, text, executable) in [("run", "#!/bin/sh\n", true), ("data/words", "one two", false)] {
        let digest = api.put_blob(text.as_bytes().to_vec()).await;
        tree.files.push(TreeFile { path: path.to_owned(), digest, bytes: text.len() as u64, executable });
    }
    let digest = api.put_blob(tree.to_json().into_bytes()).await;
    scene.promote(4, 0.8, json!({ "digest": digest, "bytes": tree.bytes(), "kind": "folder" })).await;

    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let said = scene.refit(place, &["model", "download", "m", "--version", "1", "-o", "old/model"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(std::fs::read_to_string(place.join("old/model")).unwrap(), "first");
    let said = scene.refit(place, &["model", "download", "m"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(std::fs::read_to_string(place.join("model/data/words")).unwrap(), "one two");
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |name: &str| std::fs::metadata(place.join(name)).unwrap().permissions().mode();
    assert_eq!((mode("model/run") & 0o100, mode("model/data/words") & 0o100), (0o100, 0));
    let again = scene.refit(place, &["model", "download", "m"]);
    assert!(again.code == Some(1) && again.err.contains("is there already"), "{again:?}");
    let none = scene.refit(place, &["model", "download", "m", "--alias", "shadow"]);
    assert!(none.code == Some(5) && none.err.contains("under the alias shadow"), "{none:?}");
    let left: Vec<_> = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "something half done is left: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_moved_by_hand_on_a_gate_or_on_somebodys_word() {
    let scene = Scene::start().await;
    for (depth, accuracy, text) in [(4, 0.7, "one"), (4, 0.8, "two"), (8, 0.9, "three")] {
        scene.promote(depth, accuracy, scene.file(text).await).await;
    }
    let moved = async |verb: &str, body: Value| {
        let answer = scene.move_by_hand(verb, body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    };
    let refused = async |verb: &str, body: Value, status: u16, kind: &str| {
        let answer = scene.move_by_hand(verb, body).await;
        let problem = answer.refused(verb, status).clone();
        assert_eq!(problem["type"], kind, "{problem}");
        problem["detail"].as_str().unwrap().to_owned()
    };
    // Back to the first, over the second, which is not where it was before any more.
    let back = moved("rollback", json!({ "alias": "champion", "to": 1, "reason": "both forget" })).await;
    assert_eq!((&back["from"], &back["to"], &back["how"]), (&json!(3), &json!(1), &json!("rolled_back")));
    refused("rollback", json!({ "alias": "champion", "to": 2 }), 409, "nothing-to-roll-back").await;
    refused("rollback", json!({ "alias": "champion", "to": 0 }), 400, "invalid").await;
    // The second was compared with the first, the third was not.
    let why = refused("promote", json!({ "version": 3 }), 409, "not-gated").await;
    assert!(why.contains("version 3 was compared with version 2, but champion of m is version 1"), "{why}");
    refused("promote", json!({ "version": 2, "expect": 3 }), 409, "alias-moved").await;
    refused("promote", json!({ "version": 9 }), 404, "not-found").await;
    refused("promote", json!({ "version": 1 }), 409, "already-there").await;
    let second = moved("promote", json!({ "version": 2, "expect": 1 })).await;
    assert_eq!((&second["to"], &second["how"]), (&json!(2), &json!("promoted")));
    assert!(second["evidence"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{second}");
    // Now the third was.
    moved("rollback", json!({ "alias": "champion", "expect": 2 })).await;
    refused("promote", json!({ "version": 3, "override": true }), 400, "invalid").await;
    let forced = json!({ "version": 3, "override": true, "reason": "the fair is tomorrow" });
    let forced = moved("promote", forced).await;
    assert_eq!(
        (&forced["how"], &forced["by"], &forced["evidence"]),
        (&json!("overridden"), &json!("local"), &Value::Null)
    );
    // An alias of its own, which points to nothing yet: only the first version was gated without a champion.
    refused("promote", json!({ "version": 2, "alias": "shadow" }), 409, "not-gated").await;
    moved("promote", json!({ "version": 1, "alias": "shadow", "expect": 0 })).await;
    refused("promote", json!({ "version": 1, "alias": "No Name" }), 400, "invalid").await;

    let history = scene.get("/api/v1/models/m/history", &[]).await.body;
    let lines: Vec<String> = history
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|line| {
            format!(
                "{} {}→{} {}",
                line["alias"].as_str().unwrap(),
                line["from"],
                line["to"],
                line["how"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "champion null→1 promoted",
            "champion 1→2 promoted",
            "champion 2→3 promoted",
            "champion 3→1 rolled_back",
            "champion 1→2 promoted",
            "champion 2→1 rolled_back",
            "champion 1→3 overridden",
            "shadow null→1 promoted",
        ]
    );
    let told = scene.get("/api/v1/events?source=/refit/models&data=true&limit=100", &[]).await.body;
    assert_eq!(told.as_array().unwrap().len(), 5, "each is an event: {told}");
    let forced = told.as_array().unwrap().iter().find(|event| event["data"]["overridden"] == true).unwrap();
    assert_eq!(
        (&forced["type"], &forced["data"]["reason"]),
        (&json!("refit.model.promoted"), &json!("the fair is tomorrow"))
    );

    let diff = scene.get("/api/v1/models/m/diff?from=1&to=champion", &[]).await.body;
    let change = diff["metrics"]["accuracy"]["change"].as_f64().unwrap();
    assert!((change - 0.2).abs() < 1e-9, "{diff}");
    assert_eq!(diff["params"], json!({ "depth": { "from": 4, "to": 8 } }));
    assert!(diff["artifact"]["to"].is_string() && diff.get("definition").is_none(), "{diff}");
    scene.get("/api/v1/models/m/diff?from=1&to=9", &[]).await.refused("no such version", 404);
    let folder = tempfile::tempdir().unwrap();
    for (arguments, holds) in [
        (vec!["model", "diff", "m", "1", "champion"], "param depth"),
        (vec!["model", "show", "m", "shadow"], "gated/1"),
        (vec!["model", "history", "m"], "v1 → v3  (override)"),
        (
            vec!["model", "promote", "m", "2", "--override", "--reason", "back to the middle"],
            "v3 → v2  (override)",
        ),
    ] {
        let said = scene.refit(folder.path(), &arguments);
        assert!(said.code == Some(0) && said.out.contains(holds), "{arguments:?}: {said:?}");
    }
    let said = scene.refit(folder.path(), &["model", "promote", "m", "3", "--override"]);
    assert_eq!(said.code, Some(2), "an override without a reason: {said:?}");
}

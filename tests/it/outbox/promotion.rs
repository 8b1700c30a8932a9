//! A promotion and what is told of it, with the orchestrator killed at each point on the way: before the alias, between it and
//! its history, before the outbox, before the commit, while the target is told and before that is noted. Wherever it was,
//! the end is the same. What stops a promotion at a point is a lock of this test's in the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use refit_workflows::wire::WORKER_PROTOCOL;
use sqlx::{Connection as _, PgConnection};

use super::receiver::{Answer, Receiver};
use super::*;

const GATED: &str = "
workflow: gated
model: m
steps:
  train: { run: [x], artifacts: { model: m } }
  gate: { needs: [train], gate: { checks: [{ metric: accuracy, min: 0.5 }, { metric: accuracy, min_change: 0 }] } }
  promote: { needs: [gate], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";

/// What a promotion waits for when the orchestrator is killed, in the order in which a transaction comes by.
const LOCKS: [(&str, &str); 4] = [
    ("before the alias", "SELECT 1 FROM models FOR UPDATE"),
    ("between the alias and its history", "LOCK TABLE alias_history IN EXCLUSIVE MODE"),
    ("before the outbox", "LOCK TABLE outbox IN EXCLUSIVE MODE"),
    ("before the commit", "LOCK TABLE journal IN EXCLUSIVE MODE"),
];

struct Scene {
    database: Database,
    orchestrator: Orchestrator,
    receiver: Receiver,
    /// Whether the receiver is to keep who tells it something waiting, and how many it has kept.
    hold: Arc<AtomicBool>,
    held: Arc<AtomicUsize>,
    promoted: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_comes_to_the_same_wherever_the_orchestrator_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path()).await;
    // One that nothing happens to.
    let order = scene.trained().await;
    scene.finish(&order).await;
    let undisturbed = scene.end(&order).await;
    for (point, lock) in LOCKS {
        let order = scene.trained().await;
        let mut blocker = scene.lock(lock).await;
        let (api, body) = (scene.orchestrator.api(), scene.finished(&order));
        let report = tokio::spawn(async move { api.try_post("/api/v1/worker/finish", &body).await });
        scene.somebody_waits().await;
        scene.orchestrator.kill9();
        assert!(report.await.unwrap().is_err(), "{point}: it was answered");
        sqlx::raw_sql("ROLLBACK").execute(&mut blocker).await.unwrap();
        scene.back().await;
        assert_eq!(scene.moves().await.len() as i64, scene.promoted, "{point}: half of it is there");
        scene.finish(&order).await;
        assert_eq!(scene.end(&order).await, undisturbed, "{point}");
    }
    for point in ["while the target is told", "before it is noted that the target was told"] {
        let order = scene.trained().await;
        scene.hold.store(true, Ordering::SeqCst);
        let before = scene.held.load(Ordering::SeqCst);
        scene.finish(&order).await;
        eventually("the target is told", PATIENCE, async || {
            (scene.held.load(Ordering::SeqCst) > before).then_some(())
        })
        .await;
        scene.hold.store(false, Ordering::SeqCst);
        if point.starts_with("before") {
            let mut blocker = scene.lock("LOCK TABLE outbox IN EXCLUSIVE MODE").await;
            scene.receiver.let_go();
            scene.somebody_waits().await;
            scene.orchestrator.kill9();
            sqlx::raw_sql("ROLLBACK").execute(&mut blocker).await.unwrap();
        } else {
            scene.orchestrator.kill9();
        }
        scene.back().await;
        assert_eq!(scene.end(&order).await, undisturbed, "{point}");
    }
    let heard = scene.receiver.accepted();
    assert!(heard.len() > scene.receiver.distinct(), "the target was never told twice");
}

impl Scene {
    async fn start(folder: &Path) -> Self {
        let (hold, held) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (holds, count) = (Arc::clone(&hold), Arc::clone(&held));
        let receiver = Receiver::start(move |_, _| {
            if !holds.load(Ordering::SeqCst) {
                return Answer::Status(204);
            }
            count.fetch_add(1, Ordering::SeqCst);
            Answer::Held
        })
        .await;
        let events = json!([{ "type": ["refit.model.promoted"] }]);
        let webhook = json!({ "url": receiver.url, "allow": ["127.0.0.0/8"] });
        let arguments = settings(folder, &json!({ "ops": { "webhook": webhook, "events": events } }));
        let database = services::postgres().await;
        let database_url = Some(database.url().to_owned());
        let orchestrator =
            Orchestrator::start(Options { database_url, arguments, ..Options::default() }).await;
        orchestrator.api().apply(GATED).await;
        let register = json!({
            "protocol": WORKER_PROTOCOL, "worker": "w", "session": "s", "labels": {}, "slots": 1, "cpus": 1,
            "memory": 1, "gpus": 0, "version": "test",
        });
        orchestrator.api().post("/api/v1/worker/register", &register).await.ok();
        Self { database, orchestrator, receiver, hold, held, promoted: 0 }
    }

    /// A run whose training has been given out.
    async fn trained(&self) -> Value {
        let api = self.orchestrator.api();
        api.start_run("gated", json!({})).await;
        let lease = json!({ "worker": "w", "session": "s", "slots": 1, "wait_ms": 10_000 });
        api.post("/api/v1/worker/lease", &lease).await.ok()["orders"][0]["key"].clone()
    }

    fn finished(&self, order: &Value) -> Value {
        let model = json!({ "digest": format!("sha256:{}", "a".repeat(64)), "bytes": 5, "kind": "file" });
        let outcome = json!({
            "outcome": "succeeded", "metrics": { "accuracy": 0.9 }, "outputs": {}, "artifacts": { "model": model },
        });
        json!({ "key": order, "outcome": outcome, "next": null })
    }

    async fn finish(&self, order: &Value) {
        let reply = self.orchestrator.api().post("/api/v1/worker/finish", &self.finished(order)).await;
        reply.ok();
    }

    async fn lock(&self, sql: &'static str) -> PgConnection {
        let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
        sqlx::raw_sql("BEGIN").execute(&mut connection).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection
    }

    async fn somebody_waits(&self) {
        let waiting = "SELECT COUNT(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("the orchestrator waits for the lock", PATIENCE, async || {
            (self.database.number(waiting).await > 0).then_some(())
        })
        .await;
    }

    /// Starts the orchestrator again once nothing of the one that was killed is left in the database. It finds the target
    /// free, as one finds it 20 s later.
    async fn back(&mut self) {
        let there = "SELECT COUNT(*) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'";
        eventually("its transactions are over", PATIENCE, async || {
            (self.database.number(there).await == 0).then_some(())
        })
        .await;
        let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
        let free = "UPDATE duties SET expires_at = 0 WHERE holder IS NOT NULL";
        sqlx::raw_sql(free).execute(&mut connection).await.unwrap();
        self.orchestrator.restart().await;
    }

    async fn moves(&self) -> Vec<Value> {
        let reply = self.orchestrator.api().try_get("/api/v1/models/m/history").await.unwrap();
        reply.body.as_array().cloned().unwrap_or_default()
    }

    /// What a promotion has come to once everything has been told, apart from its numbers: these are checked here.
    async fn end(&mut self, order: &Value) -> Value {
        self.promoted += 1;
        let (api, number) = (self.orchestrator.api(), self.promoted);
        let run = api.wait_run(order["run"].as_str().unwrap(), "succeeded", PATIENCE).await;
        assert_eq!(run["promoted"], json!({ "model": "m", "version": number, "alias": "champion" }));
        let empty = "SELECT COUNT(*) FROM outbox";
        eventually("the outbox is empty", PATIENCE, async || {
            (self.database.number(empty).await == 0).then_some(())
        })
        .await;
        let model = api.get("/api/v1/models/m").await.ok();
        assert_eq!(model["versions"].as_array().unwrap().len() as i64, number);
        assert_eq!(model["aliases"], json!({ "champion": number }));
        let moves = self.moves().await;
        assert_eq!(moves.len() as i64, number);
        assert_eq!(moves[0]["to"], number);
        assert_eq!(moves[0]["from"].as_i64(), Some(number - 1).filter(|before| *before > 0));
        let evidence = api.get(&format!("/api/v1/runs/{}/evidence", run["run"].as_str().unwrap())).await.ok();
        assert_eq!(
            (&evidence["digest"], &evidence["record"]["champion"]),
            (&moves[0]["evidence"], &moves[0]["from"])
        );
        self.receiver.wait_for(number as usize).await;
        assert_eq!(self.receiver.distinct() as i64, number);
        let told: Vec<Value> =
            self.receiver.accepted().into_iter().filter(|event| event["data"]["version"] == number).collect();
        assert!(
            told.iter().all(|event| *event == told[0] && event["data"]["evidence"] == moves[0]["evidence"])
        );
        let steps = run["steps"].as_array().unwrap().iter();
        steps.map(|step| json!([step["step"], step["state"], step["attempt"], step["verdict"]])).collect()
    }
}

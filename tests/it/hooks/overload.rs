//! While the database is stuck or away, every sender hears so within 5 s; nothing that was acknowledged is lost, nothing is
//! there twice, and what is under way stays bounded.

use std::sync::Arc;
use std::time::Duration;

use refit_tests::eventually;
use refit_tests::processes::Options;
use refit_tests::services::{self, Database};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::{Answer, Headers, House, WAIT, send};

/// What a sender waits at most, EventBridge for one.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most recordings under way.
const UNDER_WAY_MAX: i64 = 64;
const SENT_AT_ONCE: usize = 100;

/// The texts in the first column of a query on a SQLite file.
pub(super) async fn rows(url: &str, sql: &str) -> Vec<String> {
    let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
    let rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.try_get(0).unwrap()).collect()
}

/// Somebody who keeps everybody else from writing events, until this is let go.
enum Held {
    Sqlite(sqlx::SqliteConnection),
    Postgres(sqlx::PgConnection),
}

impl Held {
    async fn hold(database: &Database) -> Self {
        if database.kind() == "sqlite" {
            let mut connection = sqlx::SqliteConnection::connect(database.url()).await.unwrap();
            sqlx::raw_sql("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE")
                .execute(&mut connection)
                .await
                .unwrap();
            return Self::Sqlite(connection);
        }
        let mut connection = sqlx::PgConnection::connect(database.url()).await.unwrap();
        let lock = "BEGIN; LOCK TABLE events, tokens IN ACCESS EXCLUSIVE MODE";
        sqlx::raw_sql(lock).execute(&mut connection).await.unwrap();
        Self::Postgres(connection)
    }

    async fn release(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await.unwrap(),
            Self::Postgres(connection) => connection.close().await.unwrap(),
        }
    }
}

async fn house(database: &Database) -> Arc<House> {
    let options = Options { database_url: Some(database.url().to_owned()), ..Options::default() };
    Arc::new(House::start("sources: { open: { webhook: { scheme: none } } }\n", &[], options).await)
}

fn event(number: usize) -> Value {
    json!({"specversion": "1.0", "id": format!("e{number}"), "source": "/tests", "type": "sent", "data": {}})
}

/// Sends one event: by the webhook, or to the API.
async fn deliver(house: &House, number: usize) -> Answer {
    let path = if number.is_multiple_of(2) { "/hooks/open" } else { "/api/v1/events" };
    let headers: Headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    send(house.url(), reqwest::Method::POST, path, &headers, event(number).to_string()).await
}

async fn deliver_at_once(house: &Arc<House>, numbers: std::ops::Range<usize>) -> Vec<Answer> {
    let sent = numbers.map(|number| {
        let house = Arc::clone(house);
        tokio::spawn(async move { deliver(&house, number).await })
    });
    let mut answers = Vec::new();
    for one in sent.collect::<Vec<_>>() {
        answers.push(one.await.unwrap());
    }
    answers
}

#[track_caller]
fn told_in_time(answer: &Answer) {
    answer.refused("while the database is stuck", 503, "database-unavailable");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    assert!(answer.took < PATIENCE, "{answer:?}");
}

async fn stored(database: &Database) -> i64 {
    database.number("SELECT COUNT(*) FROM events WHERE source = '/tests'").await
}

on_both_databases! {
    a_stuck_database_is_told_of_in_time_and_nothing_is_lost_or_doubled
    what_was_acknowledged_is_there_after_a_crash
}

async fn a_stuck_database_is_told_of_in_time_and_nothing_is_lost_or_doubled(database: Database) {
    let house = house(&database).await;
    deliver(&house, 0).await.taken("before");
    let held = Held::hold(&database).await;
    let answers = deliver_at_once(&house, 1..SENT_AT_ONCE).await;
    answers.iter().for_each(told_in_time);
    held.release().await;

    // Nobody sends again yet: only what was under way comes in.
    let quick = eventually("the database is back", WAIT, async || {
        Some(deliver(&house, SENT_AT_ONCE).await).filter(|answer| answer.status == 202)
    });
    quick.await;
    assert!(stored(&database).await <= UNDER_WAY_MAX + 2, "more was under way than may be");
    for number in 0..SENT_AT_ONCE {
        eventually("it is taken", WAIT, async || {
            Some(deliver(&house, number).await).filter(|answer| answer.status == 202)
        })
        .await;
    }
    assert_eq!(stored(&database).await, i64::try_from(SENT_AT_ONCE + 1).unwrap());
}

async fn what_was_acknowledged_is_there_after_a_crash(database: Database) {
    let mut house = house(&database).await;
    let mut acknowledged = 0;
    for round in 0..3 {
        let begin = round * 40;
        for number in begin..begin + 20 {
            assert_eq!(deliver(&house, number).await.taken("sound")["duplicate"], false);
            acknowledged += 1;
        }
        Arc::get_mut(&mut house).unwrap().orchestrator.kill9();
        Arc::get_mut(&mut house).unwrap().orchestrator.restart().await;
        // A sender that missed the answer sends again.
        for number in begin..begin + 20 {
            assert_eq!(deliver(&house, number).await.taken("again")["duplicate"], true);
        }
    }
    assert_eq!(stored(&database).await, acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_looked_up_is_told_of_in_time() {
    let database = services::postgres().await;
    let house = house(&database).await;
    house.orchestrator.api().post("/api/v1/tokens", &json!({"name": "me", "role": "admin"})).await.ok();
    let held = Held::hold(&database).await;
    let headers =
        [("content-type", "application/json"), ("authorization", "Bearer refit_operator_unheard_of")];
    let headers: Headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let path = "/api/v1/events";
    told_in_time(&send(house.url(), reqwest::Method::POST, path, &headers, event(1).to_string()).await);
    held.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_told_of_in_time() {
    let database = services::postgres().await;
    let house = house(&database).await;
    deliver(&house, 0).await.taken("before");
    database.take_away().await;
    deliver_at_once(&house, 1..20).await.iter().for_each(told_in_time);
    database.give_back().await;
    for number in 0..20 {
        eventually("it is taken", WAIT, async || {
            Some(deliver(&house, number).await).filter(|answer| answer.status == 202)
        })
        .await;
    }
    assert_eq!(stored(&database).await, 20);
}

//! The two databases themselves: twin schemas, and NULL read alike.

use super::*;

/// The two schemas are twins: same tables, same columns, same nullability.
#[tokio::test(flavor = "multi_thread")]
async fn both_schemas_have_the_same_columns() {
    use refit_orchestrator::store::database::{Database as Opened, sql};
    let (lite, pg) = (services::sqlite(), services::postgres().await);
    let (lite, pg) = (Opened::open(lite.url()).await.unwrap(), Opened::open(pg.url()).await.unwrap());
    let columns = async |database: &Opened, query: &'static str| {
        let mut tx = database.read().await.unwrap();
        let rows = tx.all(sql(query)).await.unwrap();
        rows.iter().map(|row| row.text("it").unwrap()).collect::<Vec<_>>()
    };
    let lite = columns(
        &lite,
        "SELECT m.name || '.' || c.name || CASE WHEN c.\"notnull\" = 1 THEN '' ELSE ' NULL' END AS it
         FROM sqlite_master m JOIN pragma_table_info(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> '_sqlx_migrations' ORDER BY it",
    )
    .await;
    let mut pg = columns(
        &pg,
        "SELECT table_name || '.' || column_name || CASE WHEN is_nullable = 'NO' THEN '' ELSE ' NULL' END AS it
         FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations' ORDER BY it",
    )
    .await;
    pg.sort();
    let mut lite = lite;
    lite.sort();
    assert!(lite.len() > 60, "only {} columns were found", lite.len());
    assert_eq!(lite, pg);
}

/// PostgreSQL would compile each lease before it runs it: more than ten times what it takes to run it.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_runs_statements_without_compiling_them() {
    use refit_orchestrator::store::database::{Database as Opened, sql};
    let database = services::postgres().await;
    let opened = Opened::open(database.url()).await.unwrap();
    let mut tx = opened.read().await.unwrap();
    assert_eq!(tx.one(sql("SHOW jit")).await.unwrap().text("jit").unwrap(), "off");
}

/// NULL where a value is expected is an error on both, not an empty text.
#[tokio::test(flavor = "multi_thread")]
async fn null_is_never_read_as_an_empty_value() {
    use refit_orchestrator::store::database::{Database as Opened, sql};
    for database in [services::sqlite(), services::postgres().await] {
        let opened = Opened::open(database.url()).await.unwrap();
        let mut tx = opened.read().await.unwrap();
        let row = tx.one(sql("SELECT CAST(NULL AS TEXT) AS t, CAST(NULL AS BIGINT) AS i")).await.unwrap();
        assert!(row.text("t").is_err() && row.int("i").is_err());
        assert_eq!((row.opt_text("t").unwrap(), row.opt_int("i").unwrap()), (None, None));
        let mut tx = opened.begin().await.unwrap();
        for (text, number) in [(Some("x"), None), (None, Some(1i64)), (None, None)] {
            let row = tx
                .one(sql("SELECT CAST($1 AS TEXT) AS t, CAST($2 AS BIGINT) AS i").bind(text).bind(number))
                .await
                .unwrap();
            assert_eq!(row.opt_text("t").unwrap().as_deref(), text, "nullable binds");
            assert_eq!(row.opt_int("i").unwrap(), number);
        }
    }
}

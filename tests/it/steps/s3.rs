//! Data behind `s3://` URLs: fetched with the step's own key, checked and evaluated as any other, and told when it is not there.

use refit_tests::services::S3;

use super::*;

const LAKE: &str = "
workflow: lake
params: { key: { type: string } }
steps:
  one:
    secrets: [AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]
    validate: { data: 's3://refit-test/${{ params.key }}', checks: [{ rows: { min: 200000, max: 200000 } }] }
  all:
    secrets: [AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]
    validate: { data: s3://refit-test/people/, checks: [{ rows: { min: 200002, max: 200002 } }] }
  scored:
    secrets: [AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]
    evaluate: { predictions: s3://refit-test/scored.csv, label: y, metrics: [accuracy] }
";

#[tokio::test(flavor = "multi_thread")]
async fn data_behind_a_url_is_fetched_with_the_key_of_the_step() {
    let bucket = S3::start().await;
    let people = bucket.bucket().join("people");
    std::fs::create_dir_all(people.join("deeper")).unwrap();
    // More than one request's worth.
    let line = "a text that makes the table larger than what is fetched in one go\n";
    std::fs::write(people.join("many.csv"), format!("text\n{}", line.repeat(200_000))).unwrap();
    std::fs::write(people.join("two.csv"), "text\na\nb\n").unwrap();
    std::fs::write(people.join("notes.txt"), "no table").unwrap();
    std::fs::write(people.join("deeper/three.csv"), "text\na\n").unwrap();
    std::fs::write(bucket.bucket().join("scored.csv"), "y,candidate\n1,0.9\n0,0.1\n1,0.2\n0,0.3\n").unwrap();
    let orchestrator = Orchestrator::start(Options {
        settings: Some("secrets: { env: APP_ }\n".to_owned()),
        env: vec![
            ("APP_AWS_ACCESS_KEY_ID".to_owned(), S3::KEY_ID.to_owned()),
            ("APP_AWS_SECRET_ACCESS_KEY".to_owned(), S3::SECRET.to_owned()),
        ],
        ..Options::default()
    })
    .await;
    let endpoint = bucket.endpoint();
    // The key of the worker itself is none of this store's.
    let env =
        [("AWS_ENDPOINT_URL", endpoint.as_str()), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")];
    let _worker = Worker::start_with(orchestrator.base_url(), "w", 2, &env);
    let api = orchestrator.api();
    api.apply(LAKE).await;
    let run = api.start_run("lake", json!({ "key": "people/many.csv" })).await;
    let view = api.wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(Api::step(&view, "scored")["metrics"]["accuracy"], 0.75, "{view}");
    let log = api.log(&run, Some("one")).await;
    assert!(
        log.contains("fetched s3://refit-test/people/many.csv: 12.") && !log.contains(S3::SECRET),
        "{log}"
    );

    let run = api.start_run("lake", json!({ "key": "people/none.csv" })).await;
    let view = api.wait_run(&run, "failed", PATIENCE).await;
    let reason = Api::step(&view, "one")["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.contains("failed to fetch s3://refit-test/people/none.csv")
            && reason.contains("check its name"),
        "{reason}"
    );

    api.apply(&LAKE.replacen("    secrets: [AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]\n", "", 1)).await;
    let run = api.start_run("lake", json!({ "key": "people/many.csv" })).await;
    let view = api.wait_run(&run, "failed", PATIENCE).await;
    let reason = Api::step(&view, "one")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("is the key right"), "{reason}");
}

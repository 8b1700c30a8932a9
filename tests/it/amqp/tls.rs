//! RabbitMQ over TLS: the broker is verified, and Refit is known by a password or by its certificate.

use refit_tests::services::BrokerTls;

use super::*;

fn file(tls: &BrokerTls, name: &str) -> String {
    tls.certificates.join(name).display().to_string()
}

/// The URL with a user of the broker.
fn with_user(tls: &BrokerTls) -> String {
    tls.url.replacen("amqps://", "amqps://guest:guest@", 1)
}

async fn an_event_arrives(database: &Database, broker: &Broker, queue: &str) {
    broker.wait_for_queue(queue).await;
    broker.publish(queue, numbered(0..1)).await;
    wait_for_rows(database, 1, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_goes_over_tls_to_a_broker_of_a_known_authority() {
    let (database, broker, tls) = (services::sqlite(), services::amqp().await, services::amqp_tls());
    let queue = broker.name();
    let settings = json!({ "amqp": {
        "url": { "env": "ORDERS_AMQP_URL" }, "tls": { "ca": file(&tls, "ca.pem") }, "queue": queue,
    } });
    let mut options = with_source(&database, &broker, &settings);
    options.env.push(("ORDERS_AMQP_URL".to_owned(), with_user(&tls)));
    let _orchestrator = Orchestrator::start(options).await;
    an_event_arrives(&database, &broker, &queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_stands_for_the_user() {
    let (database, broker, tls) = (services::sqlite(), services::amqp().await, services::amqp_tls());
    let queue = broker.name();
    // By an address that the certificate does not name: `server_name` says which name it has.
    let url = tls.url.replacen("localhost", "127.0.0.1", 1);
    let settings = json!({ "amqp": { "url": url, "queue": queue, "tls": {
        "ca": file(&tls, "ca.pem"), "certificate": file(&tls, "client.pem"), "key": file(&tls, "client.key"),
        "server_name": "localhost",
    } } });
    let _orchestrator = Orchestrator::start(with_source(&database, &broker, &settings)).await;
    an_event_arrives(&database, &broker, &queue).await;
    let name = "refit source orders";
    let connections =
        broker.list("list_connections", &["client_properties", "auth_mechanism", "user", "ssl"]).await;
    let is_ours = |connection: &&Value| {
        connection.to_string().contains(name) && connection["auth_mechanism"] == "EXTERNAL"
    };
    let ours = connections.iter().find(is_ours).unwrap_or_else(|| panic!("{connections:?}"));
    assert_eq!((&ours["user"], &ours["ssl"]), (&json!("guest"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_verified_is_not_trusted() {
    let (broker, tls) = (services::amqp().await, services::amqp_tls());
    for (trust, words) in [
        (json!({}), "certificate"),
        // An authority, but not the broker's.
        (json!({ "ca": file(&tls, "client.pem") }), "certificate"),
        (json!({ "ca": file(&tls, "ca.pem"), "server_name": "elsewhere.example" }), "elsewhere.example"),
        (json!({ "ca": file(&tls, "ca.key") }), "holds no certificate"),
    ] {
        let database = services::sqlite();
        let settings = json!({ "amqp": { "url": with_user(&tls), "queue": broker.name(), "tls": trust } });
        let orchestrator = Orchestrator::start(with_source(&database, &broker, &settings)).await;
        let part = wait_for_reason(&orchestrator.api(), words).await;
        assert!(!part.to_string().contains("guest"), "a password is told: {part}");
    }
}

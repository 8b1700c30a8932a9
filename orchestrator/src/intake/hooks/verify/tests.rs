//! The schemes by their own documentation's examples, and every way a request may not be one of theirs.

use axum::http::HeaderValue;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;

const NOW: i64 = 1_700_000_000;
const TOLERANCE: Duration = Duration::from_secs(300);

fn secrets(texts: &[&str]) -> Vec<Secret> {
    texts.iter().map(|text| Secret::new(*text)).collect()
}

fn verifier(scheme: &Scheme) -> Verifier {
    Verifier::new(scheme).unwrap()
}

fn standard(texts: &[&str]) -> Verifier {
    verifier(&Scheme::Standard { secrets: secrets(texts), tolerance: TOLERANCE })
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn check(verifier: &Verifier, pairs: &[(&str, &str)], body: &[u8]) -> Result<(), Refusal> {
    verifier.check(&headers(pairs), body, at(NOW))
}

/// The value of `webhook-signature` for a text secret.
fn sign(secret: &str, id: &str, timestamp: &str, body: &str) -> String {
    let key = hmac_key(secret.as_bytes()).unwrap();
    let message = format!("{id}.{timestamp}.{body}");
    format!("v1,{}", STANDARD.encode(signature(&key, &[message.as_bytes()])))
}

/// The example of Standard Webhooks 1.0, a request of an MLflow server, GitHub's example, and an HMAC made with OpenSSL.
#[test]
fn requests_of_the_senders_themselves_are_authentic() {
    let message = |verifier: &Verifier, pairs: &[(&str, &str)], body: &str, now| {
        verifier.check(&headers(pairs), body.as_bytes(), at(now))
    };
    let example = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    let known = standard(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
    assert_eq!(message(&known, &example, r#"{"test": 2432232314}"#, 1_614_265_330), Ok(()));

    let mlflow = verifier(&Scheme::Mlflow { secrets: secrets(&["s3cr3t"]), tolerance: TOLERANCE });
    let recorded = [
        ("x-mlflow-delivery-id", "91528563-cc7f-41d6-aaae-6ddd7d3e89ba"),
        ("x-mlflow-timestamp", "1795416407"),
        ("x-mlflow-signature", "v1,IZXxCitUFWjkXpzoISYJWYial6fnRUj/OKwbBMs0h54="),
    ];
    let body = r#"{"entity": "model_version_alias", "action": "created", "timestamp": "2026-11-23T06:46:47.478306+00:00", "data": {"name": "churn", "alias": "champion", "version": "1"}}"#;
    assert_eq!(message(&mlflow, &recorded, body, 1_795_416_407), Ok(()));

    let github = verifier(&Scheme::GitHub { secrets: secrets(&["It's a Secret to Everybody"]) });
    let digest = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(check(&github, &[("x-hub-signature-256", digest)], b"Hello, World!"), Ok(()));

    let dbt = verifier(&Scheme::Dbt { secrets: secrets(&["topsecret"]) });
    let digest = "a2194eeeba76cb371d94ffab81c03f776a59322a2a44fca4e37f1073674c4ef3";
    let body = br#"{"accountId":1,"eventType":"job.run.completed"}"#;
    assert_eq!(check(&dbt, &[("authorization", digest)], body), Ok(()));
}

#[test]
fn one_of_several_signatures_and_one_of_two_keys_is_enough() {
    let (id, time, body) = ("msg_1", NOW.to_string(), "{}");
    let right = sign("new secret", id, &time, body);
    let pairs = |signatures: &str| {
        [("webhook-id", id), ("webhook-timestamp", &time), ("webhook-signature", signatures)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let check = |verifier: &Verifier, signatures: &str| {
        let owned = pairs(signatures);
        let pairs: Vec<(&str, &str)> = owned.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        check(verifier, &pairs, body.as_bytes())
    };
    let both = standard(&["old secret", "new secret"]);
    assert_eq!(check(&both, &right), Ok(()));
    assert_eq!(check(&both, &format!("v2,abc v1a,abc {right}")), Ok(()));
    assert_eq!(check(&standard(&["old secret"]), &right), Err(Refusal::NotAuthentic));
    // Not even a right one, behind more than anybody sends.
    assert_eq!(check(&both, &format!("v1,a v1,b v1,c v1,d {right}")), Err(Refusal::NotAuthentic));
    assert_eq!(check(&both, &format!("{right} {}", "x".repeat(5000))), Err(Refusal::NotAuthentic));
}

#[test]
fn ed25519_signatures_are_verified_with_the_public_key() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public = format!("whpk_{}", STANDARD.encode(pair.public_key().as_ref()));
    let (time, body) = (NOW.to_string(), "{}");
    let signature = pair.sign(format!("msg_1.{time}.{body}").as_bytes());
    let signature = format!("v1a,{}", STANDARD.encode(signature.as_ref()));
    let pairs = [("webhook-id", "msg_1"), ("webhook-timestamp", &time), ("webhook-signature", &signature)];
    let both = standard(&["a shared secret", &public]);
    assert_eq!(check(&both, &pairs, body.as_bytes()), Ok(()));
    assert_eq!(check(&both, &pairs, b"{ }"), Err(Refusal::NotAuthentic));
    assert_eq!(check(&standard(&["a shared secret"]), &pairs, body.as_bytes()), Err(Refusal::NotAuthentic));
}

#[test]
fn times_are_taken_within_the_tolerance_either_way() {
    for (age, expected) in [
        (0, Ok(())),
        (300, Ok(())),
        (-300, Ok(())),
        (301, Err(Refusal::Stale { age: 301, max: 300 })),
        (-301, Err(Refusal::Stale { age: -301, max: 300 })),
    ] {
        let time = (NOW - age).to_string();
        let signature = sign("a secret", "msg_1", &time, "{}");
        let pairs =
            [("webhook-id", "msg_1"), ("webhook-timestamp", &time), ("webhook-signature", &signature)];
        assert_eq!(check(&standard(&["a secret"]), &pairs, b"{}"), expected, "{age}");
    }
    // Whoever cannot sign learns nothing of clocks.
    let pairs = [("webhook-id", "msg_1"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,x")];
    assert_eq!(check(&standard(&["a secret"]), &pairs, b"{}"), Err(Refusal::NotAuthentic));
}

#[test]
fn a_signed_message_cannot_be_cut_into_other_parts() {
    // Who may say something within a signed body must not get another id, time and body signed by it.
    let body = format!(r#"{{"note":"x.{NOW}.{{}}"}}"#);
    let signature = sign("a secret", "msg_1", "1", &body);
    let (id, time, rest) = (r#"msg_1.1.{"note":"x"#, NOW.to_string(), r#"{}"}"#);
    let pairs = [("webhook-id", id), ("webhook-timestamp", &time), ("webhook-signature", &signature)];
    assert_eq!(sign("a secret", id, &time, rest), signature, "the cut is well made");
    assert_eq!(check(&standard(&["a secret"]), &pairs, rest.as_bytes()), Err(Refusal::NotAuthentic));
}

#[test]
fn only_the_documented_forms_are_taken() {
    let body = b"Hello, World!";
    let github = verifier(&Scheme::GitHub { secrets: secrets(&["It's a Secret to Everybody"]) });
    let hex = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    for value in [
        hex.to_owned(),
        format!("sha256={}", hex.to_uppercase()),
        format!("SHA256={hex}"),
        format!("sha1={hex}"),
        format!("sha256= {hex}"),
        format!("sha256={}", &hex[..63]),
        "sha256=".to_owned(),
        "none".to_owned(),
        String::new(),
    ] {
        let pairs = [("x-hub-signature-256", value.as_str())];
        assert_eq!(check(&github, &pairs, body), Err(Refusal::NotAuthentic), "{value}");
    }
    let right = format!("sha256={hex}");
    let twice = [("x-hub-signature-256", right.as_str()), ("x-hub-signature-256", "x")];
    assert_eq!(check(&github, &twice, body), Err(Refusal::NotAuthentic), "two headers");
    assert_eq!(
        check(&github, &[("x-hub-signature", &right)], body),
        Err(Refusal::NotAuthentic),
        "the old header"
    );

    let (time, id) = (NOW.to_string(), "msg_1");
    let right = sign("a secret", id, &time, "{}");
    for (timestamp, signature) in [
        (time.as_str(), right.trim_end_matches('=')),
        (time.as_str(), right.trim_start_matches("v1,")),
        (time.as_str(), ""),
        ("", right.as_str()),
        ("soon", right.as_str()),
        ("+1700000000", right.as_str()),
    ] {
        let pairs = [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)];
        assert_eq!(check(&standard(&["a secret"]), &pairs, b"{}"), Err(Refusal::NotAuthentic), "{signature}");
    }
}

#[test]
fn secrets_that_are_sent_as_they_are_must_be_right_to_the_last_byte() {
    let both = || secrets(&["old secret", "new secret"]);
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let api_key = Scheme::ApiKey { header: "X-Refit-Key".to_owned(), secrets: both() };
    for (scheme, name, right, wrong) in [
        (
            Scheme::HuggingFace { secrets: both() },
            "x-webhook-secret",
            ["old secret".to_owned(), "new secret".to_owned()],
            vec!["new secre".to_owned(), "new secrets".to_owned(), String::new()],
        ),
        (
            Scheme::Bearer { secrets: both() },
            "authorization",
            ["Bearer old secret".to_owned(), "bearer new secret".to_owned()],
            vec![
                "new secret".to_owned(),
                "Bearer".to_owned(),
                "Bearer ".to_owned(),
                "Basic new secret".to_owned(),
            ],
        ),
        (
            Scheme::Basic { user: "refit".to_owned(), secrets: both() },
            "authorization",
            [basic("refit:old secret"), basic("refit:new secret")],
            vec![basic("other:new secret"), basic("refit:"), basic("new secret"), "Basic ???".to_owned()],
        ),
        (
            api_key,
            "x-refit-key",
            ["old secret".to_owned(), "new secret".to_owned()],
            vec!["Bearer new secret".to_owned()],
        ),
    ] {
        let verifier = verifier(&scheme);
        for value in right {
            assert_eq!(check(&verifier, &[(name, &value)], b"{}"), Ok(()), "{name}: {value}");
        }
        for value in wrong {
            assert_eq!(
                check(&verifier, &[(name, &value)], b"{}"),
                Err(Refusal::NotAuthentic),
                "{name}: {value}"
            );
        }
        assert_eq!(check(&verifier, &[], b"{}"), Err(Refusal::NotAuthentic), "{name} is missing");
    }
}

//! Tokens in the store: good until they expire or are revoked; their secrets are not there.

use super::*;

on_both_databases! {
    tokens_work_until_they_expire_or_are_revoked
}

async fn tokens_work_until_they_expire_or_are_revoked(database: Database) {
    let house = House::open(&database).await;
    assert!(!house.engine.tokens_required().await.unwrap());
    let create = CreateToken {
        name: "trainer".to_owned(),
        role: Role::Worker,
        groups: vec!["ml-leads".to_owned()],
        days: None,
    };
    let made = house.engine.create_token(create).await.unwrap();
    let secret = made.token.clone().unwrap();
    assert!(house.engine.tokens_required().await.unwrap());
    match house.engine.authenticate(&secret).await.unwrap() {
        Access::Known(identity) => {
            assert_eq!(
                identity,
                Identity {
                    name: "trainer".to_owned(),
                    role: Role::Worker,
                    groups: vec!["ml-leads".to_owned()]
                }
            )
        }
        Access::Unknown => panic!("a fresh token is known"),
    }
    for wrong in
        ["", "refit_", "refit_admin", &secret[..secret.len() - 1], &secret.replace("worker", "admin")]
    {
        assert!(matches!(house.engine.authenticate(wrong).await.unwrap(), Access::Unknown), "{wrong}");
    }
    let stored = database.number("SELECT COUNT(*) FROM tokens WHERE hash LIKE 'refit%'").await;
    assert_eq!(stored, 0, "the secret is not stored");
    assert!(house.engine.tokens().await.unwrap().iter().all(|token| token.token.is_none()));
    house.engine.revoke_token(&made.id).await.unwrap();
    assert!(matches!(house.engine.authenticate(&secret).await.unwrap(), Access::Unknown));
    assert!(house.engine.tokens_required().await.unwrap(), "there is no way back to no tokens");
    let create = CreateToken { name: "old".to_owned(), role: Role::Admin, groups: Vec::new(), days: Some(1) };
    let old = house.engine.create_token(create).await.unwrap().token.unwrap();
    execute(&database, "UPDATE tokens SET expires_at = 1 WHERE name = 'old'".to_owned()).await;
    assert!(matches!(house.engine.authenticate(&old).await.unwrap(), Access::Unknown));
}

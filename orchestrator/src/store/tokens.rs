//! Bearer tokens: kept as SHA-256 of 32 random bytes, which needs no slow hash. The secret is never stored.

use refit_workflows::time::Timestamp;
use refit_workflows::wire::TokenView;

use super::database::{Row, sql};
use super::{Store, StoreError, to_json};

const KEEP: &str = "INSERT INTO tokens (id, name, role, member_of, hash, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
const ALL: &str = "SELECT id, name, role, member_of, hash, created_at, expires_at, revoked_at FROM tokens
    ORDER BY created_at, id LIMIT 1000";
const ONE: &str =
    "SELECT id, name, role, member_of, hash, created_at, expires_at, revoked_at FROM tokens WHERE id = $1";
const REVOKE: &str = "UPDATE tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
const ANY: &str = "SELECT id FROM tokens LIMIT 1";

impl Store {
    /// Keeps a new token under the hash of its secret.
    pub async fn keep_token(&self, token: TokenView, hash: String) -> Result<(), StoreError> {
        self.durably(move |store| {
            let (token, hash) = (token.clone(), hash.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let keep = sql(KEEP)
                    .bind(&token.id)
                    .bind(&token.name)
                    .bind(token.role.as_str())
                    .bind(to_json(&token.groups)?)
                    .bind(hash)
                    .bind(token.created_at.as_millis())
                    .bind(token.expires_at.as_millis());
                tx.execute(keep).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// Every token ever made.
    pub async fn tokens(&self) -> Result<Vec<TokenView>, StoreError> {
        self.durably(|store| async move {
            let mut tx = store.database().read().await?;
            tx.all(sql(ALL)).await?.iter().map(view).collect()
        })
        .await
    }

    /// A token and its hash.
    pub async fn token(&self, id: &str) -> Result<Option<(TokenView, String)>, StoreError> {
        let id = id.to_owned();
        self.durably(move |store| {
            let id = id.clone();
            async move {
                let row = store.database().first(sql(ONE).bind(&id)).await?;
                row.map(|row| Ok((view(&row)?, row.text("hash")?))).transpose()
            }
        })
        .await
    }

    /// Revokes a token, if it is not revoked already.
    pub async fn revoke_token(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.durably(move |store| {
            let id = id.clone();
            async move {
                let mut tx = store.database().begin().await?;
                tx.execute(sql(REVOKE).bind(&id).bind(store.clock().now().as_millis())).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// Whether any token was ever made.
    pub async fn any_token(&self) -> Result<bool, StoreError> {
        self.durably(|store| async move { Ok(store.database().first(sql(ANY)).await?.is_some()) }).await
    }
}

fn view(row: &Row) -> Result<TokenView, StoreError> {
    Ok(TokenView {
        id: row.text("id")?,
        name: row.text("name")?,
        role: row.parsed("role")?,
        groups: row.json("member_of")?,
        created_at: Timestamp::from_millis(row.int("created_at")?),
        expires_at: Timestamp::from_millis(row.int("expires_at")?),
        revoked_at: row.opt_int("revoked_at")?.map(Timestamp::from_millis),
        token: None,
    })
}

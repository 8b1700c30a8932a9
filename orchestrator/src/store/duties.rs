//! Duties: what one orchestrator at a time does, by name, and for so long. Must never happen here: a word about what a duty is for.

use std::time::Duration;

use refit_workflows::time::Timestamp;

use super::database::{Transaction, sql};
use super::{Store, StoreError};

const KEEP: &str = "INSERT INTO duties (name, expires_at) VALUES ($1, 0) ON CONFLICT (name) DO NOTHING";
const TAKE: &str = "UPDATE duties SET holder = $2, expires_at = $3
    WHERE name = $1 AND (holder = $2 OR expires_at <= $4)";
const LEAVE: &str = "UPDATE duties SET expires_at = 0 WHERE name = $1 AND holder = $2";
const VOID: &str = "UPDATE duties SET expires_at = 0 WHERE holder IS NOT NULL";

/// Takes a duty, or keeps it, for so long; false: another has it.
pub(super) async fn take_in(
    tx: &mut Transaction,
    name: &str,
    holder: &str,
    now: Timestamp,
    lasts: Duration,
) -> Result<bool, StoreError> {
    tx.execute(sql(KEEP).bind(name)).await?;
    let take = sql(TAKE).bind(name).bind(holder).bind(now.plus(lasts).as_millis()).bind(now.as_millis());
    Ok(tx.execute(take).await? > 0)
}

impl Store {
    /// Lets another orchestrator have a duty at once.
    pub(super) async fn leave_duty(&self, name: String, holder: &str) -> Result<(), StoreError> {
        let holder = holder.to_owned();
        self.durably(move |store| {
            let leave = sql(LEAVE).bind(&name).bind(&holder);
            async move {
                let mut tx = store.database().begin().await?;
                tx.execute(leave).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// Writes something of no consequence: fails where nothing can be written.
    pub async fn touch(&self) -> Result<(), StoreError> {
        self.durably(|store| async move {
            let mut tx = store.database().begin().await?;
            let now = store.clock().now();
            take_in(&mut tx, "touch", "", now, Duration::ZERO).await?;
            tx.commit().await
        })
        .await
    }

    /// Ends what was held by name. Only for a caller who knows that every holder is gone.
    pub async fn void_duties(&self) -> Result<(), StoreError> {
        self.durably(|store| async move {
            let mut tx = store.database().begin().await?;
            tx.execute(sql(VOID)).await?;
            tx.commit().await
        })
        .await
    }
}

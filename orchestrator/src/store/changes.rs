//! Which runs have changed, for one who follows all of them from inside this process: the simulation. Only the rows' numbers
//! are kept, from the commit of a change until they are asked for; what a run is, the database says. Must never happen here:
//! a list that grows where nobody asks for it.

use std::collections::BTreeSet;
use std::sync::Mutex;

use refit_workflows::run::Run;

use super::database::sql;
use super::{Store, StoreError, unpoisoned};

const RUN_BY_ID: &str = "SELECT id, definition, version, facts, head FROM runs WHERE id = $1";

/// The rows of the runs that have changed; none where nobody follows them.
#[derive(Default)]
pub(super) struct Changes(Option<Mutex<BTreeSet<i64>>>);

impl Changes {
    /// For one who asks again and again.
    pub(super) fn followed() -> Self {
        Self(Some(Mutex::default()))
    }

    fn take(&self) -> BTreeSet<i64> {
        self.0.as_ref().map(|changed| std::mem::take(&mut *unpoisoned(changed))).unwrap_or_default()
    }
}

impl Store {
    /// A transaction that may have changed this run is committed.
    pub(super) fn committed(&self, id: i64, run: Run) {
        if let Some(changed) = &self.inner.changes.0 {
            unpoisoned(changed).insert(id);
        }
        self.inner.hot.keep(id, run);
    }

    /// The runs that may have changed since this was last asked, as they are now, in the order of their creation. Always
    /// none for a store that is not made for it.
    pub(crate) async fn changed_runs(&self) -> Result<Vec<Run>, StoreError> {
        let changed = self.inner.changes.take();
        self.durably(move |store| {
            let changed = changed.clone();
            async move {
                let mut tx = store.database().read().await?;
                let mut runs = Vec::with_capacity(changed.len());
                for id in changed {
                    let row = tx.one(sql(RUN_BY_ID).bind(id)).await?;
                    runs.push(store.restore(&mut tx, &row).await?);
                }
                Ok(runs)
            }
        })
        .await
    }
}

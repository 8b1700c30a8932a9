//! Who asks while others are being served waits a moment and goes with the next: all that have come meanwhile share one
//! transaction, so that a burst of reports costs one commit and not one each. Nobody waits for company: an idle database
//! serves at once. Must never happen here: one that fails failing another.
//!
//! On SQLite, which has one writer, everything goes together. On PostgreSQL only what has to do with the same run does,
//! for that would wait for the same lock; different runs commit side by side, in transactions that take one run's lock
//! before any other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use refit_workflows::names::RunName;
use refit_workflows::run::{Input, Run};
use tokio::sync::oneshot;

use super::database::Database;
use super::turn::{Claim, LeasedStep, Turn};
use super::{ChangeError, Hints, Store, StoreError, unpoisoned};

/// The most that one transaction does.
const TOGETHER_MAX: usize = 64;

/// Gives the input for a run as it is, or says why there is none.
pub(super) type InputOf = dyn Fn(&Run) -> Result<Input, ChangeError> + Send + Sync;

/// What is asked of the runs: a change of one, then leases.
pub(super) struct Ask {
    pub(super) change: Option<(RunName, Box<InputOf>)>,
    pub(super) claim: Option<Claim>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub(super) leased: Vec<LeasedStep>,
    pub(super) hints: Hints,
}

/// Those that wait, by what may go together. A queue is there exactly while somebody serves it.
#[derive(Default)]
pub(super) struct Queues(Mutex<HashMap<Queue, Vec<Waiting>>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Queue {
    Everything,
    Run(RunName),
    Leases,
}

struct Waiting {
    ask: Arc<Ask>,
    reply: oneshot::Sender<Result<Served, ChangeError>>,
}

/// Serves a queue; when it goes, however that comes, the next that asks begins anew.
struct Server {
    store: Store,
    /// None once it is closed: the next queue of this name is another server's.
    queue: Option<Queue>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            // Those that still wait are told by the loss of their reply.
            unpoisoned(&self.store.inner.queues.0).remove(queue);
        }
    }
}

impl Store {
    /// Does what is asked, in a transaction that is driven to its end even if the caller goes away.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Served, ChangeError> {
        let queue = match (self.database(), &ask.change) {
            (Database::Sqlite { .. }, _) => Queue::Everything,
            (Database::Postgres(_), Some((run, _))) => Queue::Run(run.clone()),
            (Database::Postgres(_), None) => Queue::Leases,
        };
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { ask: Arc::new(ask), reply };
        let begin = match unpoisoned(&self.inner.queues.0).entry(queue.clone()) {
            Entry::Occupied(mut waits) => {
                waits.get_mut().push(waiting);
                false
            }
            Entry::Vacant(empty) => {
                empty.insert(vec![waiting]);
                true
            }
        };
        if begin {
            let server = Server { store: self.clone(), queue: Some(queue) };
            tokio::spawn(async move { server.serve().await });
        }
        let gone = |_| StoreError::Broken("a transaction's task ended early".to_owned());
        answer.await.map_err(gone)?
    }

    async fn serve_alone(&self, ask: Arc<Ask>) -> Result<Served, ChangeError> {
        self.durably(move |store| {
            let ask = Arc::clone(&ask);
            async move {
                let mut turn = Turn::begin(store).await?;
                let mut served = turn.serve(&[ask]).await?;
                turn.commit().await?;
                let nothing = || StoreError::Broken("a transaction served nobody".to_owned());
                served.pop().ok_or_else(nothing)?
            }
        })
        .await
    }

    /// Serves several in one transaction; none when something got in the way, and then nothing has happened.
    async fn serve_together(
        &self,
        asks: &[Waiting],
    ) -> Result<Option<Vec<Result<Served, ChangeError>>>, StoreError> {
        let mut turn = Turn::begin(self.clone()).await?;
        let asks: Vec<Arc<Ask>> = asks.iter().map(|waiting| Arc::clone(&waiting.ask)).collect();
        let Ok(all) = turn.serve(&asks).await else { return Ok(None) };
        turn.commit().await?;
        Ok(Some(all))
    }
}

impl Server {
    async fn serve(mut self) {
        while let Some(asks) = self.next() {
            if asks.len() > 1
                && let Ok(Some(all)) = self.store.serve_together(&asks).await
            {
                for (waiting, served) in asks.into_iter().zip(all) {
                    // Nobody listens any more: it is done all the same.
                    let _ = waiting.reply.send(served);
                }
                continue;
            }
            // What one of them runs into is its own business.
            for waiting in asks {
                let served = self.store.serve_alone(waiting.ask).await;
                let _ = waiting.reply.send(served);
            }
        }
    }

    /// Those that have come meanwhile; none closes the queue.
    fn next(&mut self) -> Option<Vec<Waiting>> {
        let queue = self.queue.as_ref()?;
        let mut queues = unpoisoned(&self.store.inner.queues.0);
        let waiting = queues.get_mut(queue)?;
        let count = waiting.len().min(TOGETHER_MAX);
        if count == 0 {
            queues.remove(queue);
            drop(queues);
            self.queue = None;
            return None;
        }
        Some(waiting.drain(..count).collect())
    }
}

impl Turn {
    /// Does what is asked, the changes before the leases: whoever holds workers' rows waits for no run. What is refused is an
    /// answer to the one that asked.
    ///
    /// # Errors
    /// Something got in the way, or failed half-way: nothing of the turn may be committed.
    async fn serve(&mut self, asks: &[Arc<Ask>]) -> Result<Vec<Result<Served, ChangeError>>, ChangeError> {
        let mut all = Vec::with_capacity(asks.len());
        for ask in asks {
            let changed = match &ask.change {
                Some((run, input)) => self.change(run, input).await,
                None => Ok(Hints::default()),
            };
            match changed {
                Err(error) if self.is_spoiled() || matches!(error, ChangeError::Store(_)) => {
                    return Err(error);
                }
                changed => all.push(changed.map(|hints| Served { hints, ..Served::default() })),
            }
        }
        let accepted = asks
            .iter()
            .zip(&mut all)
            .filter_map(|(ask, served)| served.as_mut().ok().zip(ask.claim.as_ref()));
        let (served, claims): (Vec<&mut Served>, Vec<&Claim>) = accepted.unzip();
        let rooms = self.rooms(&claims).await?;
        for ((served, claim), room) in served.into_iter().zip(claims).zip(rooms) {
            let (leased, hints) = self.lease(claim, room).await?;
            served.leased = leased;
            served.hints = served.hints.and(hints);
        }
        Ok(all)
    }

    async fn change(&mut self, run: &RunName, input: &InputOf) -> Result<Hints, ChangeError> {
        let id = self.hold_named(run).await?;
        let input = input(self.hold(id).await?)?;
        self.apply(id, input).await
    }
}

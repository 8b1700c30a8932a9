//! What happens by itself: events are routed, batches and slots fire, waiting runs start, runs that other runs asked for
//! are followed, time passes for runs, lost workers are noticed, what has been kept long enough and blobs that
//! nothing refers to go. Each loop survives a
//! database that is away: it says so once, waits, and goes on.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::store::{Next, StoreError, Swept};
use refit_workflows::time::Timestamp;

/// The shortest pause between two looks at the clock's due things.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// How long to leave the duty to whoever has it: a transaction.
const HELD_PAUSE: Duration = Duration::from_millis(20);
/// How often workers that went away are cleared out, and blobs that nothing refers to.
const CLEAR_EVERY: Duration = Duration::from_secs(3600);
/// How often what has been kept long enough is taken out.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// The pause after hints were sent to other orchestrators: further ones are gathered.
const HINT_PAUSE: Duration = Duration::from_millis(2);

impl Engine {
    /// Starts everything that happens by itself; ends with `shutdown`.
    pub fn start(&self, shutdown: &CancellationToken) -> JoinSet<()> {
        let mut loops = JoinSet::new();
        let (engine, token) = (self.clone(), shutdown.clone());
        loops.spawn(async move {
            let _ = token.run_until_cancelled(engine.dispatch_forever()).await;
        });
        let (engine, token) = (self.clone(), shutdown.clone());
        loops.spawn(async move {
            let _ = token.run_until_cancelled(engine.follow_children_forever()).await;
        });
        let (engine, token) = (self.clone(), shutdown.clone());
        loops.spawn(async move {
            let _ = token.run_until_cancelled(engine.tick_forever()).await;
        });
        let (engine, token) = (self.clone(), shutdown.clone());
        loops.spawn(async move {
            let _ = token.run_until_cancelled(engine.watch_workers_forever()).await;
        });
        let (engine, token) = (self.clone(), shutdown.clone());
        loops.spawn(async move {
            let _ = token.run_until_cancelled(engine.send_hints_forever()).await;
        });
        let (engine, token) = (self.clone(), shutdown.clone());
        loops.spawn(async move {
            let _ = token.run_until_cancelled(engine.receive_hints_forever()).await;
        });
        let (engine, token) = (self.clone(), shutdown.clone());
        loops.spawn(async move {
            let _ = token.run_until_cancelled(engine.sweep_forever()).await;
        });
        let (engine, token) = (self.clone(), shutdown.clone());
        loops.spawn(async move {
            let _ = token.run_until_cancelled(engine.collect_forever()).await;
        });
        loops
    }

    async fn dispatch_forever(&self) {
        let mut signal = self.inner.signals.dispatch();
        let mut outage = Outage::new("route events");
        loop {
            signal.mark_unchanged();
            let done = self.store().dispatch().await;
            let due = match done {
                Ok(dispatched) => {
                    self.wake(dispatched.hints);
                    match (dispatched.trouble, dispatched.next) {
                        (Some(error), _) => Err(error),
                        (None, Next::More) => {
                            outage.over();
                            continue;
                        }
                        (None, Next::Idle(next)) => Ok(next),
                        (None, Next::Held) => Ok(Some(self.now().plus(HELD_PAUSE))),
                        (None, Next::Done) => self.store().next_due().await,
                    }
                }
                Err(error) => Err(error),
            };
            match due {
                Ok(due) => {
                    outage.over();
                    self.pause(&mut signal, due).await;
                }
                Err(error) => outage.wait(&error).await,
            }
        }
    }

    async fn follow_children_forever(&self) {
        let mut signal = self.inner.signals.children();
        let mut outage = Outage::new("follow the runs that other runs asked for");
        loop {
            signal.mark_unchanged();
            let done = match self.store().follow_children().await {
                Ok(followed) => {
                    self.wake(followed.hints);
                    followed.trouble.map_or(Ok(followed.next == Next::More), Err)
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(more) => {
                    outage.over();
                    if !more {
                        self.pause(&mut signal, None).await;
                    }
                }
                Err(error) => outage.wait(&error).await,
            }
        }
    }

    async fn tick_forever(&self) {
        let mut signal = self.inner.signals.timers();
        let mut outage = Outage::new("let time pass for runs");
        loop {
            signal.mark_unchanged();
            let due = match self.store().tick_runs().await {
                Ok(hints) => {
                    self.wake(hints);
                    self.store().next_run_wake().await
                }
                Err(error) => Err(error),
            };
            match due {
                Ok(due) => {
                    outage.over();
                    self.pause(&mut signal, due).await;
                    // A busy run wakes this loop with every step; looking that often is of no use.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => outage.wait(&error).await,
            }
        }
    }

    /// Waits for a hint, until `due`, or for a poll's length.
    async fn pause(&self, signal: &mut tokio::sync::watch::Receiver<u64>, due: Option<Timestamp>) {
        let poll = self.inner.settings.poll;
        let until_due = due.map_or(poll, |due| due.since(self.now()).max(PAUSE_MIN));
        tokio::select! {
            _ = signal.changed() => {}
            () = tokio::time::sleep(poll.min(until_due)) => {}
        }
    }

    async fn watch_workers_forever(&self) {
        let mut outage = Outage::new("watch over workers");
        let mut clear_at = Instant::now();
        loop {
            let looked = self.watch_workers(&mut clear_at).await;
            match looked {
                Ok(()) => {
                    outage.over();
                    tokio::time::sleep(self.inner.settings.poll.min(self.inner.settings.grace / 4)).await;
                }
                Err(error) => outage.wait(&error).await,
            }
        }
    }

    async fn watch_workers(&self, clear_at: &mut Instant) -> Result<(), StoreError> {
        self.store().follow_clock().await?;
        let hints = self.store().lose_orphans(self.inner.settings.grace).await?;
        self.wake(hints);
        if Instant::now() >= *clear_at {
            *clear_at = Instant::now() + CLEAR_EVERY;
            self.store().forget_workers().await?;
        }
        Ok(())
    }

    async fn sweep_forever(&self) {
        let mut outage = Outage::new("take out what has been kept long enough");
        loop {
            match self.sweep().await {
                Ok(_) => {
                    outage.over();
                    tokio::time::sleep(SWEEP_EVERY).await;
                }
                Err(error) => outage.wait(&error).await,
            }
        }
    }

    /// Takes out what has been kept long enough, and says how much it was.
    ///
    /// # Errors
    /// The database did not do its part; what was taken out before is.
    pub async fn sweep(&self) -> Result<Swept, StoreError> {
        let swept = self.store().sweep(self.inner.settings.retention, &self.inner.holder).await?;
        if swept != Swept::default() {
            let Swept { events, batches, replays, runs, logs, dead_letters } = swept;
            tracing::info!(
                events,
                batches,
                replays,
                runs,
                logs,
                dead_letters,
                "what was kept long enough is gone"
            );
        }
        Ok(swept)
    }

    async fn collect_forever(&self) {
        let mut outage = Outage::new("take out blobs that nothing refers to");
        loop {
            match self.collect_blobs().await {
                Ok(_) => {
                    outage.over();
                    tokio::time::sleep(CLEAR_EVERY).await;
                }
                Err(error) => outage.wait(&error).await,
            }
        }
    }

    /// Takes out blobs that nothing refers to, and uploads that stood still; says how many blobs it were.
    ///
    /// # Errors
    /// The database did not do its part; what was taken out before is.
    pub async fn collect_blobs(&self) -> Result<u64, StoreError> {
        match self.store().place_of_new_blobs().await {
            Err(StoreError::Blobs(why)) => tracing::warn!("blobs cannot be stored for now: {why}"),
            place => {
                place?;
            }
        }
        let blobs = self.store().collect_blobs(&self.inner.holder).await?;
        if blobs > 0 {
            tracing::info!(blobs, "blobs that nothing referred to are gone");
        }
        Ok(blobs)
    }

    async fn send_hints_forever(&self) {
        loop {
            let payload = self.inner.signals.to_send().await;
            // Losing one costs a poll; nothing to repair here.
            if let Err(error) = self.store().database().hint(&payload).await {
                tracing::debug!(%error, "a hint to other orchestrators was lost");
            }
            tokio::time::sleep(HINT_PAUSE).await;
        }
    }

    async fn receive_hints_forever(&self) {
        loop {
            match self.store().database().hints().await {
                Ok(None) => return,
                Ok(Some(mut listener)) => {
                    // What was sent while nobody listened is lost: look at everything once.
                    self.inner.signals.receive("");
                    while let Ok(Some(hint)) = listener.try_recv().await {
                        self.inner.signals.receive(hint.payload());
                    }
                }
                Err(error) => tracing::debug!(%error, "failed to listen for hints"),
            }
            tokio::time::sleep(self.inner.settings.poll).await;
        }
    }
}

/// A database that is away: said once when it goes and once when it is back, waited for in between.
struct Outage {
    doing: &'static str,
    since: Option<Instant>,
    pause: Duration,
}

impl Outage {
    const PAUSE_FIRST: Duration = Duration::from_millis(100);
    const PAUSE_MAX: Duration = Duration::from_secs(3);

    fn new(doing: &'static str) -> Self {
        Self { doing, since: None, pause: Self::PAUSE_FIRST }
    }

    async fn wait(&mut self, error: &StoreError) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::error!(%error, "failed to {}: waiting and trying again", self.doing);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Self::PAUSE_MAX);
    }

    fn over(&mut self) {
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs_f64();
            tracing::info!("able to {} again after {seconds:.1} s", self.doing);
            self.pause = Self::PAUSE_FIRST;
        }
    }
}

//! A wire between an orchestrator and the broker, to cut, to refuse, or to break whenever a certain message passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use refit_tests::services::Broker;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Stands between an orchestrator and the broker.
pub(super) struct Wire {
    /// What `--amqp-url` takes.
    pub(super) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    there: String,
    open: AtomicBool,
    cut: watch::Sender<()>,
    /// What ends a connection when the broker sends it.
    deadly: Vec<u8>,
    deaths: AtomicUsize,
}

impl Wire {
    pub(super) async fn to(broker: &Broker) -> Self {
        Self::deadly(broker, "").await
    }

    /// A wire on which a connection ends whenever the broker sends a message with this text, as if whoever reads
    /// it came down. Empty: none does.
    pub(super) async fn deadly(broker: &Broker, text: &str) -> Self {
        let mut url = reqwest::Url::parse(broker.url()).unwrap();
        let there = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let shared = Arc::new(Shared {
            there,
            open: AtomicBool::new(true),
            cut: watch::Sender::new(()),
            deadly: text.as_bytes().to_vec(),
            deaths: AtomicUsize::new(0),
        });
        let wire = Self { url: url.into(), shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                if shared.open.load(Ordering::Relaxed) {
                    tokio::spawn(Arc::clone(&shared).carry(here));
                }
            }
        });
        wire
    }

    /// Ends every connection and lets none in until [`Wire::mend`].
    pub(super) fn cut(&self) {
        self.shared.open.store(false, Ordering::Relaxed);
        self.shared.cut.send_replace(());
    }

    pub(super) fn mend(&self) {
        self.shared.open.store(true, Ordering::Relaxed);
    }

    /// How many connections the deadly text has ended.
    pub(super) fn deaths(&self) -> usize {
        self.shared.deaths.load(Ordering::Relaxed)
    }
}

impl Shared {
    async fn carry(self: Arc<Self>, here: TcpStream) {
        let mut cut = self.cut.subscribe();
        let (mut from_here, to_here) = here.into_split();
        let (from_there, mut to_there) = TcpStream::connect(&self.there).await.unwrap().into_split();
        tokio::select! {
            _ = copy(&mut from_here, &mut to_there) => {}
            () = self.deliver(from_there, to_here) => {}
            _ = cut.changed() => {}
        }
    }

    async fn deliver(&self, mut from_there: OwnedReadHalf, mut to_here: OwnedWriteHalf) {
        let mut bytes = vec![0; 64 * 1024];
        // The end of what came before, in which the text may begin.
        let mut seen = Vec::new();
        while let Ok(count @ 1..) = from_there.read(&mut bytes).await {
            seen.extend_from_slice(&bytes[..count]);
            if !self.deadly.is_empty() && seen.windows(self.deadly.len()).any(|found| found == self.deadly) {
                self.deaths.fetch_add(1, Ordering::Relaxed);
                return;
            }
            seen.drain(..seen.len().saturating_sub(self.deadly.len()));
            if to_here.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    }
}

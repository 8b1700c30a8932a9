//! The HTTP/1.1 server under the API: who may connect, and how long a peer may dawdle. Bounds everything a client
//! can make it hold: connections, heads, silence. Knows nothing of routes.
//!
//! `axum::serve` has no time limit on request heads, so the connections are driven here.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Whom a request came from; among the extensions of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What a client may make the server hold, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From connecting, or from a head's first byte, to its last.
    pub head: Duration,
    /// Between two requests of a connection.
    pub idle: Duration,
    /// Without a byte of a request's body, or without taking a byte of the answer.
    pub stall: Duration,
    /// For running requests when the server is told to stop.
    pub shutdown: Duration,
    /// Connections at once; more wait in the listener's backlog.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            shutdown: Duration::from_secs(10),
            connections: 1024,
        }
    }
}

/// The most bytes of a request's head, which is also the size of the read buffer.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The most header lines of a request.
const HEADERS_MAX: usize = 100;
/// How long to wait when a connection cannot be accepted, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers requests until `shutdown` is cancelled; then takes no new ones, lets running ones end within a limit,
/// and returns.
pub async fn serve(listener: TcpListener, router: axum::Router, shutdown: CancellationToken) {
    serve_within(listener, router, shutdown, Limits::default()).await;
}

/// [`serve`] with other limits.
pub async fn serve_within(
    listener: TcpListener,
    router: axum::Router,
    shutdown: CancellationToken,
    limits: Limits,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, peer, slot)) = accepted else { continue };
        let served = serve_connection(stream, peer, router.clone(), shutdown.clone(), limits);
        let abort = abort.clone();
        connections.spawn(async move {
            let _slot = slot;
            abort.run_until_cancelled(served).await;
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.shutdown, connections.wait()).await.is_err() {
        tracing::warn!("ending {} connection(s) that did not end by themselves", connections.len());
        abort.cancel();
        connections.wait().await;
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    // Before accepting: what is over the limit waits in the kernel's backlog.
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, slot)),
        Err(error) => {
            tracing::warn!("failed to accept a connection: {error}; trying again in {ACCEPT_PAUSE:?}");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: axum::Router,
    shutdown: CancellationToken,
    limits: Limits,
) {
    // Without it, small answers on a kept connection wait for the peer's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, "failed to set TCP_NODELAY: {error}");
    }
    let head = Arc::new(Head::default());
    head.begin();
    let service = {
        let head = Arc::clone(&head);
        service_fn(move |request: hyper::Request<Incoming>| {
            head.complete();
            let request = prepare(request, peer, limits.stall);
            let answer = router.clone().oneshot(request);
            let head = Arc::clone(&head);
            async move {
                let response: Response = answer.await?;
                Ok::<_, std::convert::Infallible>(
                    response.map(|body| Answer { body, _answered: Answered(head) }),
                )
            }
        })
    };
    let io = TokioIo::new(Connection { stream, head: Arc::clone(&head), write: Stall::new(limits.stall) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper counts from the end of the last answer, so this bounds idleness; `Head` bounds the head itself.
        .header_read_timeout(limits.idle)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, "connection ended: {error}");
                }
                return;
            }
            () = head.overdue(limits.head) => {
                tracing::debug!(%peer, "closing a connection whose request did not arrive within {:?}", limits.head);
                return;
            }
            () = shutdown.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn prepare(request: hyper::Request<Incoming>, peer: SocketAddr, stall: Duration) -> Request {
    let mut request = request.map(|body| Body::new(Upload { body, stall: Stall::new(stall) }));
    request.extensions_mut().insert(Peer(peer));
    request
}

/// When the head that is arriving began to; none between requests and while one is answered.
#[derive(Debug, Default)]
struct Head {
    state: Mutex<HeadState>,
    begun: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct HeadState {
    began: Option<Instant>,
    answering: bool,
}

impl Head {
    fn change(&self, change: impl FnOnce(&mut HeadState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn began(&self) -> Option<Instant> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).began
    }

    /// Bytes came in.
    fn begin(&self) {
        self.change(|state| {
            if !state.answering && state.began.is_none() {
                state.began = Some(Instant::now());
                self.begun.notify_one();
            }
        });
    }

    /// The head is whole; what comes in now is its body.
    fn complete(&self) {
        self.change(|state| *state = HeadState { began: None, answering: true });
    }

    /// The answer is out.
    fn answered(&self) {
        self.change(|state| state.answering = false);
    }

    /// Resolves when a head has been arriving for longer than `limit`.
    async fn overdue(&self, limit: Duration) {
        loop {
            let Some(began) = self.began() else {
                self.begun.notified().await;
                continue;
            };
            tokio::time::sleep_until(began + limit).await;
            if self.began() == Some(began) {
                return;
            }
        }
    }
}

/// Runs out when something has been waited for too long.
#[derive(Debug)]
struct Stall {
    limit: Duration,
    // Made only when something is really waited for.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn new(limit: Duration) -> Self {
        Self { limit, sleep: None }
    }

    /// Progress starts the time anew; without any, resolves once the limit is over.
    fn poll<T>(&mut self, cx: &mut Context<'_>, progress: &Poll<T>) -> Poll<()> {
        if progress.is_ready() {
            self.sleep = None;
            return Poll::Pending;
        }
        let limit = self.limit;
        self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(cx)
    }
}

/// The client stopped sending in the middle of a body.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no byte of the body came for {} s: the request was given up", .0.as_secs())]
pub struct BodyStalled(Duration);

/// A request's body that fails with [`BodyStalled`] instead of waiting for ever.
#[derive(Debug)]
struct Upload {
    body: Incoming,
    stall: Stall,
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if this.stall.poll(cx, &polled).is_ready() {
            return Poll::Ready(Some(Err(BodyStalled(this.stall.limit).into())));
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}

/// An answer's body; when it is gone, the next head may come.
struct Answer {
    body: Body,
    _answered: Answered,
}

struct Answered(Arc<Head>);

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.answered();
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}

/// A socket that notices when a head begins and when the peer stops reading.
struct Connection {
    stream: TcpStream,
    head: Arc<Head>,
    write: Stall,
}

impl Connection {
    fn written<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.write.poll(cx, &polled) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => polled,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.head.begin();
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, data);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Extension;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const QUICK: Limits = Limits {
        head: Duration::from_millis(200),
        idle: Duration::from_millis(600),
        stall: Duration::from_millis(200),
        shutdown: Duration::from_millis(300),
        connections: 4,
    };

    async fn start(limits: Limits) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let router = axum::Router::new()
            .route("/", get(|Extension(peer): Extension<Peer>| async move { peer.0.ip().to_string() }))
            .route("/slow", get(|| tokio::time::sleep(Duration::from_secs(60))))
            .route(
                "/soon",
                get(async || {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    "soon"
                }),
            )
            .route(
                "/echo",
                post(async |body: Result<Bytes, axum::extract::rejection::BytesRejection>| match body {
                    Ok(bytes) => format!("{} bytes", bytes.len()),
                    Err(_) => "given up".to_owned(),
                }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve_within(listener, router, shutdown.clone(), limits));
        (address, shutdown, server)
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.unwrap()
    }

    /// Everything until the server closes the connection, and how long that took.
    async fn until_closed(mut stream: TcpStream) -> (String, Duration) {
        let began = Instant::now();
        let mut text = Vec::new();
        // A reset is as good as an end here.
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut text))
            .await
            .expect("still open");
        (String::from_utf8(text).unwrap(), began.elapsed())
    }

    async fn ask(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = vec![0; 4096];
        let read =
            tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }

    const PLAIN: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    #[tokio::test]
    async fn a_head_that_dawdles_is_closed_while_others_are_served() {
        let (address, ..) = start(QUICK).await;
        let silent = connect(address).await;
        let mut half = connect(address).await;
        half.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
        let (mut trickle_in, mut trickle_out) = connect(address).await.into_split();
        let trickle = tokio::spawn(async move {
            for byte in PLAIN.bytes().cycle().filter(|byte| *byte != b'\n') {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if trickle_out.write_all(&[byte]).await.is_err() {
                    break;
                }
            }
        });
        let answer = ask(&mut connect(address).await, PLAIN).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
        for stalled in [silent, half] {
            assert!(until_closed(stalled).await.1 < Duration::from_secs(2));
        }
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(2), trickle_in.read_to_end(&mut rest))
            .await
            .expect("open");
        trickle.abort();
    }

    #[tokio::test]
    async fn a_kept_connection_may_idle_longer_than_a_head_may_take() {
        let (address, ..) = start(QUICK).await;
        let mut stream = connect(address).await;
        assert!(ask(&mut stream, PLAIN).await.starts_with("HTTP/1.1 200"));
        tokio::time::sleep(QUICK.head * 2).await;
        assert!(ask(&mut stream, PLAIN).await.starts_with("HTTP/1.1 200"), "closed although it may idle");
        let idle_for = until_closed(stream).await.1;
        assert!(idle_for > QUICK.head && idle_for < Duration::from_secs(3), "{idle_for:?}");
    }

    #[tokio::test]
    async fn the_second_head_of_a_connection_is_watched_as_well() {
        let (address, ..) = start(Limits { idle: Duration::from_secs(60), ..QUICK }).await;
        let mut stream = connect(address).await;
        assert!(ask(&mut stream, PLAIN).await.starts_with("HTTP/1.1 200"));
        stream.write_all(b"GET / HT").await.unwrap();
        assert!(until_closed(stream).await.1 < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_is_given_up_and_a_slow_one_is_not() {
        let (address, ..) = start(QUICK).await;
        let head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n";
        let mut stalled = connect(address).await;
        let answer = ask(&mut stalled, &format!("{head}12345")).await;
        assert!(answer.ends_with("given up"), "{answer}");

        let mut slow = connect(address).await;
        slow.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..9 {
            tokio::time::sleep(QUICK.stall / 3).await;
            slow.write_all(b"x").await.unwrap();
        }
        assert!(ask(&mut slow, "x").await.ends_with("10 bytes"));
    }

    #[tokio::test]
    async fn heads_are_bounded() {
        let (address, ..) = start(QUICK).await;
        let many: String = (0..101).map(|n| format!("X-{n}: y\r\n")).collect();
        let large = format!("X: {}\r\n", "y".repeat(HEAD_BYTES_MAX));
        for extra in [many, large] {
            let mut stream = connect(address).await;
            let _ = stream
                .write_all(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n").as_bytes())
                .await;
            let (answer, _) = until_closed(stream).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        }
    }

    #[tokio::test]
    async fn connections_over_the_limit_wait_their_turn() {
        let (address, ..) = start(Limits { head: Duration::from_secs(60), connections: 1, ..QUICK }).await;
        let first = connect(address).await;
        let mut second = connect(address).await;
        second.write_all(PLAIN.as_bytes()).await.unwrap();
        let mut byte = [0];
        let early = tokio::time::timeout(Duration::from_millis(150), second.read(&mut byte)).await;
        assert!(early.is_err(), "served although the only place is taken");
        drop(first);
        assert!(
            tokio::time::timeout(Duration::from_secs(5), second.read(&mut byte)).await.unwrap().unwrap() == 1
        );
    }

    #[tokio::test]
    async fn shutting_down_finishes_what_runs_and_cuts_what_never_ends() {
        let (address, shutdown, server) = start(QUICK).await;
        let mut soon = connect(address).await;
        soon.write_all(b"GET /soon HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut slow = connect(address).await;
        slow.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let began = Instant::now();
        shutdown.cancel();
        let (answer, _) = until_closed(soon).await;
        assert!(answer.ends_with("soon"), "{answer}");
        tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
        assert!(began.elapsed() >= QUICK.shutdown && began.elapsed() < Duration::from_secs(3));
    }
}

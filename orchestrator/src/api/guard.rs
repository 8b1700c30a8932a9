//! Stands before every route: finds out who calls, applies [`super::access`], and slows down whoever guesses
//! tokens. Never decides what a role may do and never lets a handler run without an [`Identity`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use refit_workflows::wire::Role;
use sha2::{Digest as _, Sha256};

use super::access::{Denied, Hosts, RouteAccess, admit, check_origin};
use super::extract::BodyMax;
use super::problem::Problem;
use crate::engine::{Access, Engine, EngineError, Identity};
use crate::http::Peer;
use crate::store::StoreError;

/// Failures an address may have within [`WINDOW`].
const FAILURES_MAX: u32 = 10;
/// How long failures count.
const WINDOW: Duration = Duration::from_secs(60);
/// How long a token that was right stays exempt from the limit of its address.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// The longest to wait for what the database knows of a token: whoever asks hears within seconds, whatever it does.
const IDENTIFY_WITHIN: Duration = Duration::from_millis(1500);
/// Most addresses, and most tokens, remembered at once.
const REMEMBERED_MAX: usize = 4096;

/// What the guard knows beside the request: where this server listens, and who failed lately.
#[derive(Debug)]
pub(crate) struct Guard {
    hosts: Hosts,
    loopback: bool,
    failures: Mutex<Failures>,
}

impl Guard {
    /// For a server that listens here and also answers to these names.
    pub(crate) fn new(listen: SocketAddr, names: &[String]) -> Self {
        Self {
            hosts: Hosts::new(listen, names),
            loopback: listen.ip().is_loopback(),
            failures: Mutex::default(),
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Failures> {
        // The state stays sound when a holder panics: it is only counters.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses requests that are addressed to somebody else or come from a page of another origin. For every path,
/// also those without a route.
pub(crate) async fn same_site(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let checked = guard
        .hosts
        .check(request.uri(), request.headers())
        .and_then(|()| check_origin(request.uri(), request.headers()))
        .and_then(|()| check_text(request.uri()));
    match checked {
        // Bare, so that it becomes what every path gets that does not exist.
        Ok(()) if request.uri().path().contains("%00") => StatusCode::NOT_FOUND.into_response(),
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// NUL is text that no database here keeps, so that nothing has it in its name, and nothing can be asked for by it.
fn check_text(uri: &axum::http::Uri) -> Result<(), Problem> {
    let query = uri.query().unwrap_or_default();
    if query.contains("%00") {
        return Err(Problem::invalid("the query holds a NUL character (%00), which nothing here can hold"));
    }
    Ok(())
}

/// What the guard of one route is told.
#[derive(Clone)]
pub(crate) struct RouteGuard {
    pub(crate) engine: Engine,
    pub(crate) guard: Arc<Guard>,
    pub(crate) access: RouteAccess,
    pub(crate) body_max: BodyMax,
}

/// Lets a request through to its handler with the caller's [`Identity`] among its extensions.
pub(crate) async fn identified(
    State(route): State<RouteGuard>,
    mut request: Request,
    next: Next,
) -> Response {
    request.extensions_mut().insert(route.body_max);
    if matches!(route.access, RouteAccess::Open | RouteAccess::Hook) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let identity = tokio::time::timeout(IDENTIFY_WITHIN, identify(&route, request.headers(), peer)).await;
    match identity.unwrap_or_else(|_| Err(unidentified())) {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn unidentified() -> Problem {
    let late = StoreError::Unavailable("a token was not looked up in time".to_owned());
    EngineError::Store(late).into()
}

async fn identify(
    route: &RouteGuard,
    headers: &HeaderMap,
    peer: Option<IpAddr>,
) -> Result<Identity, Problem> {
    let required = !route.guard.loopback || route.engine.tokens_required().await?;
    if !required {
        admit(route.access, None, false)?;
        return Ok(Identity { name: "local".to_owned(), role: Role::Admin, groups: Vec::new() });
    }
    let Some(token) = bearer(headers) else { return Err(Denied::NoIdentity.into()) };
    let identity = authenticate(route, peer, token).await?;
    admit(route.access, Some(&identity), true)?;
    Ok(identity)
}

async fn authenticate(route: &RouteGuard, peer: Option<IpAddr>, token: &str) -> Result<Identity, Problem> {
    let fingerprint: Fingerprint = Sha256::digest(token.as_bytes()).into();
    if let Some(peer) = peer
        && let Some(wait) = route.guard.failures().blocked(peer, &fingerprint, Instant::now())
    {
        return Err(too_many(wait));
    }
    match route.engine.authenticate(token).await? {
        Access::Known(identity) => {
            route.guard.failures().succeeded(fingerprint, Instant::now());
            Ok(identity)
        }
        Access::Unknown => {
            if let Some(peer) = peer {
                route.guard.failures().failed(peer, Instant::now());
            }
            Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "token-unknown",
                "the token is unknown, revoked or expired: ask an admin for another (`refit token create`)",
            )
            .challenge())
        }
    }
}

fn too_many(wait: Duration) -> Problem {
    let seconds = wait.as_secs() + 1;
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too-many-failures",
        format!("your address sent {FAILURES_MAX} wrong tokens within a minute: try again in {seconds} s"),
    )
    .retry_after(seconds)
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

type Fingerprint = [u8; 32];

/// Counts wrong tokens by address. A token that was right a moment ago is not held up by others at its address:
/// one misconfigured worker behind a proxy must not lock out the rest.
#[derive(Debug, Default)]
struct Failures {
    by_address: HashMap<IpAddr, (Instant, u32)>,
    known: HashMap<Fingerprint, Instant>,
}

impl Failures {
    /// How long this address must wait before it may try this token.
    fn blocked(&self, peer: IpAddr, token: &Fingerprint, now: Instant) -> Option<Duration> {
        let (since, count) = *self.by_address.get(&network_of(peer))?;
        let left = WINDOW.checked_sub(now.duration_since(since))?;
        let known = self.known.get(token).is_some_and(|at| now.duration_since(*at) < KNOWN_FOR);
        (count >= FAILURES_MAX && !known).then_some(left)
    }

    fn failed(&mut self, peer: IpAddr, now: Instant) {
        make_room(
            &mut self.by_address,
            |(since, _)| now.duration_since(*since) < WINDOW,
            |(since, _)| *since,
        );
        let entry = self.by_address.entry(network_of(peer)).or_insert((now, 0));
        if now.duration_since(entry.0) >= WINDOW {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }

    fn succeeded(&mut self, token: Fingerprint, now: Instant) {
        make_room(&mut self.known, |at| now.duration_since(*at) < KNOWN_FOR, |at| *at);
        self.known.insert(token, now);
    }
}

/// Keeps a map below its bound: forgets what has expired, then the oldest entry.
fn make_room<K, V>(map: &mut HashMap<K, V>, keep: impl Fn(&V) -> bool, age: impl Fn(&V) -> Instant)
where
    K: Clone + Eq + std::hash::Hash,
{
    if map.len() < REMEMBERED_MAX {
        return;
    }
    map.retain(|_, value| keep(value));
    if map.len() >= REMEMBERED_MAX
        && let Some(oldest) = map.iter().min_by_key(|(_, value)| age(value)).map(|(key, _)| key.clone())
    {
        map.remove(&oldest);
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 host can draw its addresses from.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Fingerprint = [7; 32];

    #[test]
    fn ten_failures_block_an_address_for_the_rest_of_the_minute() {
        let start = Instant::now();
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let mut failures = Failures::default();
        for _ in 0..FAILURES_MAX {
            assert_eq!(failures.blocked(peer, &TOKEN, start), None);
            failures.failed(peer, start);
        }
        let later = start + Duration::from_secs(20);
        assert_eq!(failures.blocked(peer, &TOKEN, later), Some(Duration::from_secs(40)));
        assert_eq!(failures.blocked("10.0.0.2".parse().unwrap(), &TOKEN, later), None);
        assert_eq!(failures.blocked(peer, &TOKEN, start + Duration::from_secs(61)), None);
    }

    #[test]
    fn a_token_that_was_right_is_not_held_up_by_its_neighbours() {
        let now = Instant::now();
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let mut failures = Failures::default();
        failures.succeeded(TOKEN, now);
        (0..50).for_each(|_| failures.failed(peer, now));
        assert_eq!(failures.blocked(peer, &TOKEN, now), None);
        assert!(failures.blocked(peer, &[8; 32], now).is_some());
    }

    #[test]
    fn memory_is_bounded_and_one_ipv6_host_is_one_address() {
        let now = Instant::now();
        let mut failures = Failures::default();
        for n in 0..10_000_u32 {
            failures.failed(IpAddr::V4(n.into()), now);
            let mut token = [0; 32];
            token[..4].copy_from_slice(&n.to_be_bytes());
            failures.succeeded(token, now);
        }
        assert!(failures.by_address.len() <= REMEMBERED_MAX && failures.known.len() <= REMEMBERED_MAX);
        let of = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[test]
    fn only_a_bearer_token_is_a_token() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(read("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(read("Basic abc"), None);
        assert_eq!(read("Bearer "), None);
        assert_eq!(read("abc"), None);
    }
}

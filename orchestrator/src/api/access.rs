//! Who may pass: pure decisions over a route's access, a caller's role, the Host and the Origin of a request.
//! Knows neither database nor clock, so that every combination can be tested; `guard` applies it.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, StatusCode, Uri, header};
use refit_workflows::wire::Role;

use super::problem::Problem;
use crate::engine::Identity;

/// What a route asks of its caller. `admin` may do everything, `operator` everything a `viewer` may; `worker`
/// stands apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteAccess {
    /// Anybody, without a token.
    Open,
    /// Anybody, without a token: the webhook's own scheme says who may send.
    Hook,
    /// A viewer, an operator or an admin.
    Viewer,
    /// An operator or an admin.
    Operator,
    /// A worker or an admin.
    Worker,
    /// A viewer, an operator, a worker or an admin.
    ViewerOrWorker,
    /// An operator, a worker or an admin.
    OperatorOrWorker,
    /// An admin.
    Admin,
}

impl RouteAccess {
    fn allows(self, role: Role) -> bool {
        match self {
            Self::Open | Self::Hook => true,
            Self::Viewer => matches!(role, Role::Viewer | Role::Operator | Role::Admin),
            Self::Operator => matches!(role, Role::Operator | Role::Admin),
            Self::Worker => matches!(role, Role::Worker | Role::Admin),
            Self::ViewerOrWorker => true,
            Self::OperatorOrWorker => matches!(role, Role::Operator | Role::Worker | Role::Admin),
            Self::Admin => matches!(role, Role::Admin),
        }
    }

    /// The roles to name when somebody lacks them, weakest first.
    pub(crate) fn wanted(self) -> &'static str {
        match self {
            Self::Open | Self::Hook => "none",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Worker => "worker",
            Self::ViewerOrWorker => "viewer or worker",
            Self::OperatorOrWorker => "operator or worker",
            Self::Admin => "admin",
        }
    }
}

/// Why a request is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A token is needed and there is none, or it is unknown, revoked or expired. 401.
    NoIdentity,
    /// The token's role may not do this. 403.
    TooWeak {
        /// What the caller is.
        role: Role,
        /// What the route asks for.
        wanted: RouteAccess,
    },
}

/// Decides whether a caller may use a route. `identity` is whom the request's token belongs to; without
/// `tokens_required` (no token was ever made, and only this host can reach the listener) everybody is let through.
///
/// # Errors
/// [`Denied`]
pub fn admit(access: RouteAccess, identity: Option<&Identity>, tokens_required: bool) -> Result<(), Denied> {
    match (access, identity) {
        (RouteAccess::Open | RouteAccess::Hook, _) => Ok(()),
        (_, Some(identity)) if access.allows(identity.role) => Ok(()),
        (_, Some(identity)) => Err(Denied::TooWeak { role: identity.role, wanted: access }),
        (_, None) if tokens_required => Err(Denied::NoIdentity),
        (_, None) => Ok(()),
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NoIdentity => Self::new(
                StatusCode::UNAUTHORIZED,
                "token-required",
                "this server asks for a token: send `Authorization: Bearer TOKEN` (set REFIT_TOKEN for the command \
                 line and for workers)",
            )
            .challenge(),
            Denied::TooWeak { role, wanted } => Self::new(
                StatusCode::FORBIDDEN,
                "role-too-weak",
                format!("your token has the role {}; this needs {}", role.as_str(), wanted.wanted()),
            ),
        }
    }
}

/// The hosts a request may be addressed to. Anything else may be a foreign name that was pointed at this address
/// to get a browser to talk to it (DNS rebinding).
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    listen: IpAddr,
    names: Vec<String>,
}

impl Hosts {
    /// Loopback, the listen address, and these names.
    pub(crate) fn new(listen: SocketAddr, names: &[String]) -> Self {
        Self {
            listen: listen.ip(),
            names: names.iter().map(|name| host_of(name).to_ascii_lowercase()).collect(),
        }
    }

    /// Checks what a request is addressed to: the target's authority, else the Host header (RFC 9112, section 3.2).
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(authority) = authority(uri, headers) else {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "host-missing",
                "the request has no readable Host header (or more than one)",
            ));
        };
        if self.allows(host_of(authority)) {
            return Ok(());
        }
        let shown: String = authority.chars().filter(|c| !c.is_control()).take(100).collect();
        Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "host-not-allowed",
            format!("this server does not answer to the host `{shown}`"),
        )
        .hint("add the name to `hosts` of the orchestrator's settings, or use the address it listens on"))
    }

    fn allows(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
        match bare.parse::<IpAddr>() {
            // Listening on every address of the host, any of them is the listen address. An address is no danger:
            // rebinding needs a name.
            Ok(address) => {
                address.is_loopback()
                    || self.listen.is_unspecified()
                    || address == self.listen
                    || self.names.iter().any(|name| name == bare || *name == host)
            }
            Err(_) => host == "localhost" || self.names.contains(&host),
        }
    }
}

/// Refuses what a page of another origin makes a browser send: an `Origin` that is not this host (RFC 6454), or
/// `Sec-Fetch-Site: cross-site` (W3C Fetch Metadata). Programs send neither.
pub(crate) fn check_origin(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let foreign = |what: &str| {
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "cross-origin",
            format!("requests from web pages of another origin are refused ({what})"),
        ))
    };
    if headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site")) {
        return foreign("Sec-Fetch-Site: cross-site");
    }
    for origin in headers.get_all(header::ORIGIN) {
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")))
            .zip(authority(uri, headers))
            .is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host));
        if !own {
            return foreign("Origin is not this host");
        }
    }
    Ok(())
}

fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    if let Some(authority) = uri.authority() {
        return Some(authority.as_str());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    }
}

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`; a bare IPv6 address is a host as it stands.
fn host_of(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').map_or(authority, |end| &authority[..=end]);
    }
    match authority.split_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tokens_everybody_is_let_through_and_with_them_nobody_unknown() {
        for access in [RouteAccess::Viewer, RouteAccess::Worker, RouteAccess::Admin] {
            assert_eq!(admit(access, None, false), Ok(()));
            assert_eq!(admit(access, None, true), Err(Denied::NoIdentity));
        }
        assert_eq!(admit(RouteAccess::Open, None, true), Ok(()));
    }

    #[test]
    fn a_known_but_weak_caller_stays_weak_when_no_token_is_required() {
        let viewer = Identity { name: "grafana".to_owned(), role: Role::Viewer, groups: Vec::new() };
        let denied = Denied::TooWeak { role: Role::Viewer, wanted: RouteAccess::Admin };
        assert_eq!(admit(RouteAccess::Admin, Some(&viewer), false), Err(denied));
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn only_own_hosts_are_answered() {
        let path = Uri::from_static("/api/v1/runs");
        let names = ["refit.internal".to_owned(), "Other.Example:7433".to_owned()];
        let hosts = Hosts::new(SocketAddr::from(([192, 168, 1, 5], 7433)), &names);
        for (host, allowed) in [
            ("localhost", true),
            ("LOCALHOST:7433", true),
            ("127.0.0.1:7433", true),
            ("127.9.9.9", true),
            ("[::1]:7433", true),
            ("[::1]", true),
            ("192.168.1.5:80", true),
            ("refit.internal", true),
            ("Refit.Internal:8443", true),
            ("other.example", true),
            ("192.168.1.6:7433", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:7433", false),
            ("refit.internal.evil.example", false),
            ("localhost:7433@evil.example", false),
            ("[::2]:7433", false),
            ("", false),
        ] {
            assert_eq!(hosts.check(&path, &headers(&[("host", host)])).is_ok(), allowed, "{host}");
        }
        let twice = headers(&[("host", "localhost"), ("host", "evil.example")]);
        assert!(hosts.check(&path, &twice).is_err(), "two Host headers were accepted");
        assert!(hosts.check(&path, &HeaderMap::new()).is_err(), "no Host header was accepted");
        let absolute = Uri::from_static("http://evil.example/api/v1/runs");
        assert!(
            hosts.check(&absolute, &headers(&[("host", "localhost")])).is_err(),
            "the target counts, not Host"
        );
    }

    #[test]
    fn listening_everywhere_answers_to_addresses_but_not_to_names() {
        let hosts = Hosts::new(SocketAddr::from(([0, 0, 0, 0], 7433)), &[]);
        let path = Uri::from_static("/healthz");
        assert!(hosts.check(&path, &headers(&[("host", "10.1.2.3:7433")])).is_ok());
        assert!(hosts.check(&path, &headers(&[("host", "evil.example:7433")])).is_err());
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let path = Uri::from_static("/api/v1/events");
        for (pairs, allowed) in [
            (vec![], true),
            (vec![("origin", "http://localhost:7433")], true),
            (vec![("origin", "https://LOCALHOST:7433")], true),
            (vec![("origin", "http://localhost:7433"), ("sec-fetch-site", "same-origin")], true),
            (vec![("origin", "http://localhost:3000")], false),
            (vec![("origin", "http://evil.example")], false),
            (vec![("origin", "null")], false),
            (vec![("origin", "file://localhost:7433")], false),
            (vec![("origin", "http://localhost:7433"), ("origin", "http://evil.example")], false),
            (vec![("sec-fetch-site", "cross-site")], false),
            (vec![("sec-fetch-site", "none")], true),
        ] {
            let mut map = headers(&pairs);
            map.insert("host", "localhost:7433".parse().unwrap());
            assert_eq!(check_origin(&path, &map).is_ok(), allowed, "{pairs:?}");
        }
    }
}

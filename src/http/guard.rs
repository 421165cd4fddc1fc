//! Who may ask for something that acts. Pure: the time is an argument.
//!
//! | there is          | what an acting request needs |
//! |-------------------|------------------------------|
//! | a bearer token    | that token, wherever it comes from |
//! | a checked user    | `application/json`, and no foreign `Origin`: browsers add passwords by themselves |
//! | a Unix socket     | `application/json`; the rights of the file decide who may connect |
//! | loopback          | `application/json`, a `Host` that names this machine, and no foreign `Origin` |
//! | the network       | nothing helps: it is refused |
//!
//! What an app held in memory goes only to a token or a checked user, also on this machine.
//!
//! A web page can make a browser send requests to loopback, but not with `application/json` unless the server agrees
//! beforehand, which it never does; a page that points its own name at 127.0.0.1 (DNS rebinding) still sends its own
//! name as `Host`.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::StatusCode;
use hyper::header::{self, HeaderName};
use subtle::{Choice, ConstantTimeEq};

use super::request::{Identity, Reach, Request};
use super::response::Response;
use crate::model::Steady;

/// Shortest token; what is shorter can be guessed.
const TOKEN_MIN: usize = 16;
/// Most tokens of a file.
const TOKENS_MAX: usize = 64;

/// The tokens that let a request act. They never show in logs. Clones are one: what replaces the tokens of one replaces
/// those of all.
#[derive(Clone, Default)]
pub struct BearerTokens {
    tokens: Arc<ArcSwap<Vec<String>>>,
}

/// A file of tokens that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No token in it.
    #[error("it has no token")]
    Empty,
    /// A token that can be guessed.
    #[error("a token needs at least {TOKEN_MIN} characters")]
    TooShort(usize),
    /// A token that no header can carry.
    #[error("a token is printable ASCII without spaces")]
    NotAHeader(usize),
    /// More than anyone needs.
    #[error("it has more than {TOKENS_MAX} tokens")]
    TooMany,
}

impl TokenError {
    /// The line that it is about; the first where it is about the whole.
    pub fn line(self) -> usize {
        match self {
            Self::Empty | Self::TooMany => 1,
            Self::TooShort(line) | Self::NotAHeader(line) => line,
        }
    }
}

/// The lines of a file of tokens that hold one, numbered from 1: not the empty ones, nor those that begin with `#`.
pub fn token_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

impl fmt::Debug for BearerTokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} tokens", self.tokens.load().len())
    }
}

impl BearerTokens {
    /// Parses the text of a file, one token a line, as [`token_lines`] finds them.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut tokens = Vec::new();
        for (number, line) in token_lines(text) {
            if !line.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(TokenError::NotAHeader(number));
            }
            if line.len() < TOKEN_MIN {
                return Err(TokenError::TooShort(number));
            }
            if tokens.len() == TOKENS_MAX {
                return Err(TokenError::TooMany);
            }
            tokens.push(line.to_owned());
        }
        if tokens.is_empty() {
            Err(TokenError::Empty)
        } else {
            Ok(Self { tokens: Arc::new(ArcSwap::from_pointee(tokens)) })
        }
    }

    /// Puts the tokens of others in the place of these.
    pub fn replace(&self, others: &Self) {
        self.tokens.store(others.tokens.load_full());
    }

    /// Whether this is one of the tokens. Takes the same time whatever is wrong with it, but for its length.
    pub(crate) fn admit(&self, offered: &str) -> bool {
        let offered = offered.as_bytes();
        let matches =
            self.tokens.load().iter().fold(Choice::from(0), |any, token| any | token.as_bytes().ct_eq(offered));
        matches.into()
    }
}

/// What an acting request has to bring here.
#[derive(Debug, Clone, Default)]
pub struct ActingPolicy {
    /// Tokens; where there are any, nothing else will do but a checked user.
    pub tokens: Option<BearerTokens>,
}

/// Why a request may not act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No `Authorization` with a bearer token.
    #[error("this needs a bearer token")]
    NoToken,
    /// Another token.
    #[error("this bearer token is not accepted")]
    WrongToken,
    /// Anyone on the network could do it.
    #[error("acting over the network needs authentication, and none is set up")]
    Open,
    /// The `Host` header is missing or names another machine.
    #[error("the Host header does not name this machine")]
    ForeignHost,
    /// A web page of another origin asks.
    #[error("requests from other web pages are not accepted")]
    ForeignOrigin,
    /// What an app had in memory, and nobody has to say who they are here.
    #[error(
        "a file of evidence holds what the app had in memory, so it is sent only to who shows a token or a password: set \
         web.token_file, or basic_auth_users in web.config_file; or copy it from the state directory on that machine"
    )]
    Secret,
    /// Not `application/json`.
    #[error("the content type must be application/json")]
    ContentType,
}

impl Refusal {
    /// The code for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoToken => "token_missing",
            Self::WrongToken => "token_wrong",
            Self::Open | Self::Secret => "authentication_not_set_up",
            Self::ForeignHost => "foreign_host",
            Self::ForeignOrigin => "foreign_origin",
            Self::ContentType => "content_type",
        }
    }

    /// The answer to the request.
    pub fn response(self) -> Response {
        let status = match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::Open | Self::Secret | Self::ForeignHost | Self::ForeignOrigin => StatusCode::FORBIDDEN,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        };
        let response = Response::error(status, self.code(), &self.to_string());
        if status == StatusCode::UNAUTHORIZED {
            response.with(header::WWW_AUTHENTICATE, "Bearer realm=\"leakslope\"")
        } else {
            response
        }
    }
}

/// Whether a request shows a token that is accepted; an error where it shows another one, or none and is nobody's.
fn token(request: &Request, tokens: &BearerTokens) -> Result<bool, Refusal> {
    match bearer(request) {
        Some(offered) if tokens.admit(offered) => Ok(true),
        Some(_) => Err(Refusal::WrongToken),
        None if matches!(request.identity, Identity::Anonymous) => Err(Refusal::NoToken),
        None => Ok(false),
    }
}

/// Decides whether a request may have what an app held in memory: nothing but a token or a checked user will do, wherever
/// it comes from.
pub fn guard_secrets(request: &Request, policy: &ActingPolicy) -> Result<(), Refusal> {
    if let Some(tokens) = &policy.tokens
        && token(request, tokens)?
    {
        return Ok(());
    }
    if matches!(request.identity, Identity::Anonymous) {
        return Err(Refusal::Secret);
    }
    if is_from_another_page(request) { Err(Refusal::ForeignOrigin) } else { Ok(()) }
}

/// Decides whether a request may act.
pub fn guard_acting(request: &Request, policy: &ActingPolicy) -> Result<(), Refusal> {
    if let Some(tokens) = &policy.tokens
        && token(request, tokens)?
    {
        return Ok(());
    }
    let checked = matches!(request.identity, Identity::User(_));
    match request.reach {
        Reach::Network if !checked => return Err(Refusal::Open),
        Reach::Loopback if !checked && !host(request).is_some_and(is_this_machine) => {
            return Err(Refusal::ForeignHost);
        }
        Reach::Network | Reach::Loopback | Reach::Unix => {}
    }
    if is_from_another_page(request) {
        return Err(Refusal::ForeignOrigin);
    }
    if request.content_type().as_deref() != Some("application/json") {
        return Err(Refusal::ContentType);
    }
    Ok(())
}

fn bearer(request: &Request) -> Option<&str> {
    bearer_of(request.header(header::AUTHORIZATION)?)
}

/// The token of an `Authorization` header, where it carries one.
pub(crate) fn bearer_of(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn host(request: &Request) -> Option<&str> {
    request.header(header::HOST)
}

/// Whether a `Host` (with or without a port) is a name that only this machine answers to.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if port.is_empty() || is_port(port) => address,
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a browser says that a page of another origin asks. A program sends neither header.
fn is_from_another_page(request: &Request) -> bool {
    let site = request.headers.get(HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return true;
    }
    if !request.headers.contains_key(header::ORIGIN) {
        return false;
    }
    let same = || {
        let origin = request.header(header::ORIGIN)?;
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))?;
        Some(authority.eq_ignore_ascii_case(host(request)?))
    };
    same() != Some(true)
}

/// A bucket of requests that refills steadily: for endpoints that act.
#[derive(Debug, Clone)]
pub struct RateLimit {
    most: u32,
    refill: Duration,
    used: u32,
    since: Steady,
}

impl RateLimit {
    /// Lets `most` requests through at once, and one more each `refill`.
    pub fn new(most: u32, refill: Duration, now: Steady) -> Self {
        Self { most: most.max(1), refill: refill.max(Duration::from_millis(1)), used: 0, since: now }
    }

    /// Lets a request through, or tells how long to wait.
    pub fn admit(&mut self, now: Steady) -> Result<(), Duration> {
        let passed = now.since(self.since);
        let refilled = u32::try_from(passed.as_millis() / self.refill.as_millis()).unwrap_or(u32::MAX);
        self.since = if refilled >= self.used { now } else { self.since + self.refill * refilled };
        self.used = self.used.saturating_sub(refilled);
        if self.used < self.most {
            self.used += 1;
            return Ok(());
        }
        Err(self.refill.saturating_sub(now.since(self.since)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hyper::Method;
    use hyper::body::Bytes;
    use hyper::header::HeaderMap;

    use super::super::query::Query;
    use super::super::request::Peer;
    use super::*;

    fn request(reach: Reach, headers: &[(&'static str, &'static str)]) -> Request {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Request {
            method: Method::POST,
            path: "/api/v1/restarts".to_owned(),
            parameters: Vec::new(),
            query: Query::default(),
            headers: map,
            body: Bytes::new(),
            peer: Peer::Tcp(SocketAddr::from(([127, 0, 0, 1], 5))),
            reach,
            identity: Identity::Anonymous,
        }
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const HOST: (&str, &str) = ("host", "127.0.0.1:19209");

    #[test]
    fn without_a_token_only_this_machine_acts_and_no_web_page() {
        use Reach::{Loopback, Network, Unix};
        type Case = (&'static str, Reach, &'static [(&'static str, &'static str)], Result<(), Refusal>);
        let cases: &[Case] = &[
            ("plain", Loopback, &[HOST, JSON], Ok(())),
            ("charset", Loopback, &[HOST, ("content-type", "Application/JSON; charset=utf-8")], Ok(())),
            ("localhost", Loopback, &[("host", "LocalHost:1"), JSON], Ok(())),
            ("no port", Loopback, &[("host", "127.1.2.3"), JSON], Ok(())),
            ("v6", Loopback, &[("host", "[::1]:19209"), JSON], Ok(())),
            ("v6 no port", Loopback, &[("host", "[::1]"), JSON], Ok(())),
            ("rebinding", Loopback, &[("host", "evil.example:19209"), JSON], Err(Refusal::ForeignHost)),
            ("name that begins well", Loopback, &[("host", "localhost.evil.example"), JSON], Err(Refusal::ForeignHost)),
            ("address in a name", Loopback, &[("host", "127.0.0.1.nip.example"), JSON], Err(Refusal::ForeignHost)),
            ("user in host", Loopback, &[("host", "127.0.0.1:1@evil.example"), JSON], Err(Refusal::ForeignHost)),
            ("odd v6", Loopback, &[("host", "[::1]evil"), JSON], Err(Refusal::ForeignHost)),
            ("no host", Loopback, &[JSON], Err(Refusal::ForeignHost)),
            ("two hosts", Loopback, &[HOST, ("host", "evil.example"), JSON], Err(Refusal::ForeignHost)),
            ("own page", Loopback, &[HOST, ("origin", "http://127.0.0.1:19209"), JSON], Ok(())),
            ("other page", Loopback, &[HOST, ("origin", "http://evil.example"), JSON], Err(Refusal::ForeignOrigin)),
            ("other port", Loopback, &[HOST, ("origin", "http://127.0.0.1:80"), JSON], Err(Refusal::ForeignOrigin)),
            ("null origin", Loopback, &[HOST, ("origin", "null"), JSON], Err(Refusal::ForeignOrigin)),
            ("fetch", Loopback, &[HOST, ("sec-fetch-site", "cross-site"), JSON], Err(Refusal::ForeignOrigin)),
            ("own fetch", Loopback, &[HOST, ("sec-fetch-site", "same-origin"), JSON], Ok(())),
            ("form", Loopback, &[HOST, ("content-type", "text/plain")], Err(Refusal::ContentType)),
            ("no type", Loopback, &[HOST], Err(Refusal::ContentType)),
            ("network", Network, &[HOST, JSON], Err(Refusal::Open)),
            ("unix", Unix, &[JSON], Ok(())),
            ("unix form", Unix, &[], Err(Refusal::ContentType)),
        ];
        for (name, reach, headers, expected) in cases {
            let request = request(*reach, headers);
            assert_eq!(guard_acting(&request, &ActingPolicy::default()), *expected, "{name}");
        }
    }

    #[test]
    fn a_token_is_needed_where_there_is_one() {
        let policy = ActingPolicy {
            tokens: Some(BearerTokens::parse("# ours\nfirst-token-of-many\n\n  second-token-of-many \n").unwrap()),
        };
        for (authorization, expected) in [
            (None, Err(Refusal::NoToken)),
            (Some("Bearer first-token-of-many"), Ok(())),
            (Some("bearer second-token-of-many"), Ok(())),
            (Some("Bearer first-token-of-man"), Err(Refusal::WrongToken)),
            (Some("Bearer first-token-of-many2"), Err(Refusal::WrongToken)),
            (Some("Bearer # ours"), Err(Refusal::WrongToken)),
            (Some("Bearer "), Err(Refusal::WrongToken)),
            (Some("Basic Zm9vOmJhcg=="), Err(Refusal::NoToken)),
        ] {
            for reach in [Reach::Loopback, Reach::Network, Reach::Unix] {
                let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().collect();
                let request = request(reach, &headers);
                assert_eq!(guard_acting(&request, &policy), expected, "{authorization:?} {reach:?}");
            }
        }
    }

    #[test]
    fn a_checked_user_acts_from_anywhere_but_not_through_a_foreign_page() {
        for policy in [ActingPolicy::default(), ActingPolicy { tokens: BearerTokens::parse(&"x".repeat(20)).ok() }] {
            let user = |headers: &[(&'static str, &'static str)]| Request {
                identity: Identity::User("ops".to_owned()),
                ..request(Reach::Network, headers)
            };
            let named = ("host", "monitor.example");
            assert_eq!(guard_acting(&user(&[named, JSON]), &policy), Ok(()));
            let own = ("origin", "https://monitor.example");
            assert_eq!(guard_acting(&user(&[named, JSON, own]), &policy), Ok(()));
            let foreign = ("origin", "https://evil.example");
            assert_eq!(guard_acting(&user(&[named, JSON, foreign]), &policy), Err(Refusal::ForeignOrigin));
            assert_eq!(guard_acting(&user(&[named]), &policy), Err(Refusal::ContentType));
        }
    }

    #[test]
    fn what_an_app_held_in_memory_is_for_who_says_who_they_are() {
        let open = ActingPolicy::default();
        let policy = ActingPolicy { tokens: BearerTokens::parse("first-token-of-many").ok() };
        for reach in [Reach::Loopback, Reach::Network, Reach::Unix] {
            let shows = |value| request(reach, &[HOST, ("authorization", value)]);
            assert_eq!(guard_secrets(&request(reach, &[HOST, JSON]), &open), Err(Refusal::Secret), "{reach:?}");
            assert_eq!(guard_secrets(&shows("Bearer anything-at-all-here"), &open), Err(Refusal::Secret));
            assert_eq!(guard_secrets(&request(reach, &[HOST]), &policy), Err(Refusal::NoToken));
            assert_eq!(guard_secrets(&shows("Bearer another-token-12345"), &policy), Err(Refusal::WrongToken));
            assert_eq!(guard_secrets(&shows("Bearer first-token-of-many"), &policy), Ok(()));
            let user = |site| Request {
                identity: Identity::User("ops".to_owned()),
                ..request(reach, &[HOST, ("sec-fetch-site", site)])
            };
            assert_eq!(guard_secrets(&user("same-origin"), &open), Ok(()));
            assert_eq!(guard_secrets(&user("none"), &policy), Ok(()));
            assert_eq!(guard_secrets(&user("cross-site"), &open), Err(Refusal::ForeignOrigin));
        }
        assert_eq!(Refusal::Secret.response().status, StatusCode::FORBIDDEN);
    }

    #[test]
    fn token_files_that_cannot_be_meant_are_refused() {
        for (text, expected) in [
            ("", TokenError::Empty),
            ("# only a comment\n", TokenError::Empty),
            ("long-enough-token-1\nshort", TokenError::TooShort(2)),
            ("two words of a token", TokenError::NotAHeader(1)),
            ("schlüssel-schlüssel", TokenError::NotAHeader(1)),
        ] {
            assert_eq!(BearerTokens::parse(text).unwrap_err(), expected, "{text:?}");
        }
        assert_eq!(BearerTokens::parse(&"0123456789abcdef\n".repeat(65)).unwrap_err(), TokenError::TooMany);
        let shown = format!("{:?}", BearerTokens::parse("0123456789abcdef").unwrap());
        assert!(!shown.contains("0123"), "{shown}");
    }

    #[test]
    fn refusals_are_answers() {
        let answer = Refusal::NoToken.response();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
        assert_eq!(Refusal::ForeignHost.response().status, StatusCode::FORBIDDEN);
        assert_eq!(Refusal::ContentType.response().status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    #[test]
    fn the_bucket_refills_and_says_how_long_to_wait() {
        let second = Duration::from_secs(1);
        let mut limit = RateLimit::new(2, second, Steady(0));
        assert_eq!(limit.admit(Steady(0)), Ok(()));
        assert_eq!(limit.admit(Steady(100)), Ok(()));
        assert_eq!(limit.admit(Steady(900)), Err(Duration::from_millis(100)));
        assert_eq!(limit.admit(Steady(1100)), Ok(()));
        assert_eq!(limit.admit(Steady(1200)), Err(Duration::from_millis(800)));
        assert_eq!(limit.admit(Steady(1_000_000)), Ok(()));
        assert_eq!(limit.admit(Steady(1_000_000)), Ok(()), "no more than the bucket holds");
        assert!(limit.admit(Steady(1_000_000)).is_err());
        assert!(limit.admit(Steady(5)).is_err(), "a time before the last one refills nothing");
    }
}

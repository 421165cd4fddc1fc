//! Who may ask for something that acts. Pure: the time is an argument.
//!
//! | who asks                     | what an acting request needs |
//! |------------------------------|------------------------------|
//! | somebody with a bearer token | nothing more, wherever it comes from |
//! | a checked user, or a browser that a link let in | `application/json`, and no foreign `Origin`: browsers add both by themselves |
//! | a process of this machine whose user may act, where there are no tokens | the same, and no proxy in between |
//! | anybody else                 | nothing helps: it is refused, and told what to do |
//!
//! What an app held in memory goes only to a token, a checked user or a browser that was let in, also on this machine.
//!
//! A web page can make a browser send requests to loopback, but not with `application/json` unless the server agrees
//! beforehand, which it never does. A page that points its own name at this machine (DNS rebinding) still sends its own name
//! as `Host`, so on every route only names that are ours are answered ([`HostNames`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderName};
use subtle::{Choice, ConstantTimeEq};

use super::peer::PeerKey;
use super::request::{Identity, Reach, only_text};
use super::response::Response;
use crate::UNIX_PREFIX;
use model::Steady;

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

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The headers.
    pub headers: &'a HeaderMap,
    /// From where the listener can be reached.
    pub reach: Reach,
    /// Who asks, as far as that is known.
    pub identity: &'a Identity,
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
    /// A user of this machine who may not act.
    #[error(
        "user {0} of this machine may only read: ask as root or as the user that leakslope runs as (`sudo leakslope …`), \
         open the page by the link that `sudo leakslope open` prints, or have web.acting_users or web.acting_groups name this user"
    )]
    Stranger(u32),
    /// The kernel does not say who asks.
    #[error(
        "it cannot be told which user of this machine asks: set web.token_file and show one of its tokens, or use the commands \
         of leakslope on that machine"
    )]
    Unknown,
    /// A proxy passes on what somebody else asks.
    #[error(
        "this came through a proxy, so it cannot be told who asks: show a token or a password, or open the page by the link \
         that `leakslope open` prints"
    )]
    Forwarded,
    /// The `Host` header names another machine.
    #[error("the Host header is not a name of this sidecar: if it is one, add it to web.allowed_hosts")]
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
            Self::Stranger(_) => "user_may_not_act",
            Self::Unknown => "user_not_known",
            Self::Forwarded => "forwarded",
            Self::ForeignHost => "foreign_host",
            Self::ForeignOrigin => "foreign_origin",
            Self::ContentType => "content_type",
        }
    }

    /// The answer to the request.
    pub fn response(self) -> Response {
        let status = match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::Open
            | Self::Secret
            | Self::Stranger(_)
            | Self::Unknown
            | Self::Forwarded
            | Self::ForeignHost
            | Self::ForeignOrigin => StatusCode::FORBIDDEN,
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

impl Asker<'_> {
    fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        only_text(self.headers, name)
    }

    fn media_type(&self) -> Option<String> {
        let value = self.header(header::CONTENT_TYPE)?;
        Some(value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase())
    }

    /// Whether a browser says that a page of another origin asks. A program sends neither header.
    fn is_from_another_page(&self) -> bool {
        let site = self.headers.get(HeaderName::from_static("sec-fetch-site"));
        if site.is_some_and(|site| site != "same-origin" && site != "none") {
            return true;
        }
        if !self.headers.contains_key(header::ORIGIN) {
            return false;
        }
        let same = || {
            let origin = self.header(header::ORIGIN)?;
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))?;
            Some(authority.eq_ignore_ascii_case(self.header(header::HOST)?))
        };
        same() != Some(true)
    }

    /// Whether a proxy says that it passes something on.
    fn is_forwarded(&self) -> bool {
        ["forwarded", "x-forwarded-for", "x-real-ip", "via"].into_iter().any(|name| self.headers.contains_key(name))
    }

    /// What is said where only a token counts and none did.
    fn without_token(&self) -> Refusal {
        let offered = self.header(header::AUTHORIZATION).and_then(bearer_of);
        if offered.is_some() { Refusal::WrongToken } else { Refusal::NoToken }
    }
}

/// Decides whether somebody may have what an app held in memory, wherever they ask from. `tokens` says whether there are any.
///
/// # Errors
/// Why not.
pub fn guard_secrets(asker: &Asker<'_>, tokens: bool) -> Result<(), Refusal> {
    match asker.identity {
        Identity::User(_) | Identity::Session if asker.is_from_another_page() => Err(Refusal::ForeignOrigin),
        Identity::Token | Identity::User(_) | Identity::Session => Ok(()),
        Identity::Anonymous | Identity::Process { .. } if tokens => Err(asker.without_token()),
        Identity::Anonymous | Identity::Process { .. } => Err(Refusal::Secret),
    }
}

/// Decides whether somebody may act at all. `tokens` says whether there are any: then users of this machine have to show one,
/// but for the commands' own socket.
///
/// # Errors
/// Why not.
pub fn who_acts(asker: &Asker<'_>, tokens: bool) -> Result<(), Refusal> {
    match asker.identity {
        Identity::Anonymous | Identity::Process { .. } if tokens && asker.reach != Reach::Control => {
            Err(asker.without_token())
        }
        Identity::Anonymous | Identity::Process { .. } if asker.reach == Reach::Network => Err(Refusal::Open),
        Identity::Process { acts: true, .. } if asker.is_forwarded() => Err(Refusal::Forwarded),
        Identity::Token | Identity::User(_) | Identity::Session | Identity::Process { acts: true, .. } => Ok(()),
        Identity::Process { uid: Some(uid), .. } => Err(Refusal::Stranger(*uid)),
        Identity::Anonymous | Identity::Process { uid: None, .. } => Err(Refusal::Unknown),
    }
}

/// Decides whether a request may act.
///
/// # Errors
/// Why not.
pub fn guard_acting(asker: &Asker<'_>, tokens: bool) -> Result<(), Refusal> {
    who_acts(asker, tokens)?;
    if *asker.identity == Identity::Token { Ok(()) } else { guard_browsers(asker) }
}

/// Turns away what a page of another origin can make a browser send.
///
/// # Errors
/// Why it is turned away.
pub fn guard_browsers(asker: &Asker<'_>) -> Result<(), Refusal> {
    if asker.is_from_another_page() {
        return Err(Refusal::ForeignOrigin);
    }
    let json = asker.media_type().as_deref() == Some("application/json");
    if json { Ok(()) } else { Err(Refusal::ContentType) }
}

/// The token of an `Authorization` header, where it carries one.
pub(crate) fn bearer_of(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The names that a `Host` may have, beside those that only this machine answers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostNames {
    names: BTreeSet<String>,
    /// Each with the dot it begins with.
    below: Vec<String>,
}

impl HostNames {
    /// Those that the configuration allows (with a dot before it also every name below one), the hosts of the addresses that are
    /// listened on, and the machine's own name.
    pub fn new(allowed: &[String], listen_addresses: &[String], machine: &str) -> Self {
        let (below, exact): (Vec<_>, Vec<_>) =
            allowed.iter().map(|name| bare(name)).partition(|name| name.starts_with('.'));
        let listening = listen_addresses.iter().filter(|address| !address.starts_with(UNIX_PREFIX));
        let own = listening.filter_map(|address| name_of(address)).chain([machine]).map(bare);
        let names = exact.into_iter().chain(own).chain(below.iter().map(|name| name[1..].to_owned()));
        Self { names: names.filter(|name| !name.is_empty()).collect(), below }
    }

    /// Whether a `Host` (with or without a port) is one of these names. A Unix socket is out of the reach of browsers, and on a
    /// network addresses and names without a dot are fine as well: nobody can make those point elsewhere.
    pub fn admit(&self, host: &str, reach: Reach) -> bool {
        if matches!(reach, Reach::Unix | Reach::Control) {
            return true;
        }
        let Some(name) = name_of(host).map(bare).filter(|name| !name.is_empty()) else { return false };
        let network = reach == Reach::Network;
        if self.names.contains(&name) || self.below.iter().any(|below| name.ends_with(below)) {
            return true;
        }
        match name.parse::<IpAddr>() {
            Ok(address) => network || address.is_loopback(),
            Err(_a_name) => name == "localhost" || name.ends_with(".localhost") || (network && !name.contains('.')),
        }
    }
}

fn bare(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The name in `host:port`, without the brackets of an address.
fn name_of(host: &str) -> Option<&str> {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        return (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(address);
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    (is_port(port) && name.chars().all(fits)).then_some(name)
}

/// A bucket of requests that refills steadily: for endpoints that act.
#[derive(Debug, Clone)]
struct RateLimit {
    most: u32,
    refill: Duration,
    used: u32,
    since: Steady,
}

impl RateLimit {
    /// Lets `most` requests through at once, and one more each `refill`.
    fn new(most: u32, refill: Duration, now: Steady) -> Self {
        Self { most: most.max(1), refill: refill.max(Duration::from_millis(1)), used: 0, since: now }
    }

    /// Lets a request through, or tells how long to wait.
    fn admit(&mut self, now: Steady) -> Result<(), Duration> {
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

/// Most that have a bucket of their own at a time.
const BUCKETS: usize = 1024;

/// A bucket for everybody, so that nobody uses up what is another's.
#[derive(Debug, Clone)]
pub struct RateLimits {
    most: u32,
    refill: Duration,
    of: BTreeMap<PeerKey, RateLimit>,
}

impl RateLimits {
    /// Lets everybody's `most` requests through at once, and one more each `refill`.
    pub fn new(most: u32, refill: Duration) -> Self {
        Self { most, refill, of: BTreeMap::new() }
    }

    /// Lets a request of somebody's through, or tells how long to wait.
    ///
    /// # Errors
    /// The time to wait.
    pub fn admit(&mut self, who: PeerKey, now: Steady) -> Result<(), Duration> {
        if self.of.len() >= BUCKETS && !self.of.contains_key(&who) {
            // Whoever has not asked for longest gets a full one next time.
            let idle = self.of.iter().min_by_key(|(_, limit)| limit.since).map(|(key, _)| *key);
            idle.and_then(|key| self.of.remove(&key));
        }
        self.of.entry(who).or_insert_with(|| RateLimit::new(self.most, self.refill, now)).admit(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const HOST: (&str, &str) = ("host", "127.0.0.1:19209");
    const OURS: Identity = Identity::Process { uid: Some(1000), acts: true };
    const STRANGER: Identity = Identity::Process { uid: Some(1001), acts: false };

    #[test]
    fn without_a_token_users_of_this_machine_who_may_act_do_and_no_web_page() {
        use Reach::{Control, Loopback, Network, Unix};
        type Case = (&'static str, Reach, Identity, &'static [(&'static str, &'static str)], Result<(), Refusal>);
        let unknown = Identity::Process { uid: None, acts: false };
        let cases: &[Case] = &[
            ("plain", Loopback, OURS, &[HOST, JSON], Ok(())),
            ("a stranger", Loopback, STRANGER, &[HOST, JSON], Err(Refusal::Stranger(1001))),
            ("nobody knows", Loopback, unknown, &[HOST, JSON], Err(Refusal::Unknown)),
            ("nobody looked", Loopback, Identity::Anonymous, &[HOST, JSON], Err(Refusal::Unknown)),
            ("a proxy", Loopback, OURS, &[HOST, JSON, ("x-forwarded-for", "192.0.2.1")], Err(Refusal::Forwarded)),
            ("charset", Loopback, OURS, &[HOST, ("content-type", "Application/JSON; charset=utf-8")], Ok(())),
            ("own page", Loopback, OURS, &[HOST, ("origin", "http://127.0.0.1:19209"), JSON], Ok(())),
            (
                "other page",
                Loopback,
                OURS,
                &[HOST, ("origin", "http://evil.example"), JSON],
                Err(Refusal::ForeignOrigin),
            ),
            (
                "other port",
                Loopback,
                OURS,
                &[HOST, ("origin", "http://127.0.0.1:80"), JSON],
                Err(Refusal::ForeignOrigin),
            ),
            ("null origin", Loopback, OURS, &[HOST, ("origin", "null"), JSON], Err(Refusal::ForeignOrigin)),
            ("fetch", Loopback, OURS, &[HOST, ("sec-fetch-site", "cross-site"), JSON], Err(Refusal::ForeignOrigin)),
            ("own fetch", Loopback, OURS, &[HOST, ("sec-fetch-site", "same-origin"), JSON], Ok(())),
            ("form", Loopback, OURS, &[HOST, ("content-type", "text/plain")], Err(Refusal::ContentType)),
            ("no type", Loopback, OURS, &[HOST], Err(Refusal::ContentType)),
            ("network", Network, OURS, &[HOST, JSON], Err(Refusal::Open)),
            ("unix", Unix, OURS, &[JSON], Ok(())),
            ("unix, a stranger", Unix, STRANGER, &[JSON], Err(Refusal::Stranger(1001))),
            ("unix form", Unix, OURS, &[], Err(Refusal::ContentType)),
            ("command", Control, OURS, &[JSON], Ok(())),
        ];
        for (name, reach, identity, headers, expected) in cases {
            let headers = map(headers);
            let asker = Asker { headers: &headers, reach: *reach, identity };
            assert_eq!(guard_acting(&asker, false), *expected, "{name}");
        }
    }

    #[test]
    fn where_there_are_tokens_users_of_this_machine_have_to_show_one_but_for_commands() {
        for (authorization, identity, expected) in [
            (None, OURS, Err(Refusal::NoToken)),
            (Some("Bearer first-token-of-man"), OURS, Err(Refusal::WrongToken)),
            (Some("Bearer "), OURS, Err(Refusal::WrongToken)),
            (Some("Basic Zm9vOmJhcg=="), OURS, Err(Refusal::NoToken)),
            (Some("Bearer first-token-of-many"), Identity::Token, Ok(())),
        ] {
            let headers = map(&authorization.map(|value| ("authorization", value)).into_iter().collect::<Vec<_>>());
            for reach in [Reach::Loopback, Reach::Network, Reach::Unix] {
                let asker = Asker { headers: &headers, reach, identity: &identity };
                assert_eq!(guard_acting(&asker, true), expected, "{authorization:?} {reach:?}");
            }
        }
        let headers = map(&[JSON]);
        assert_eq!(guard_acting(&Asker { headers: &headers, reach: Reach::Control, identity: &OURS }, true), Ok(()));
        let tokens = BearerTokens::parse("# ours\nfirst-token-of-many\n\n  second-token-of-many \n").unwrap();
        assert!(tokens.admit("first-token-of-many") && tokens.admit("second-token-of-many"));
        assert!(!tokens.admit("first-token-of-many2") && !tokens.admit("# ours") && !tokens.admit(""));
    }

    #[test]
    fn whom_a_browser_speaks_for_acts_from_anywhere_but_not_through_a_foreign_page() {
        for (identity, tokens) in [(Identity::User("ops".to_owned()), true), (Identity::Session, false)] {
            let acts = |headers: &[_]| {
                guard_acting(&Asker { headers: &map(headers), reach: Reach::Network, identity: &identity }, tokens)
            };
            let named = ("host", "monitor.example");
            assert_eq!(acts(&[named, JSON]), Ok(()));
            assert_eq!(acts(&[named, JSON, ("origin", "https://monitor.example")]), Ok(()));
            assert_eq!(acts(&[named, JSON, ("origin", "https://evil.example")]), Err(Refusal::ForeignOrigin));
            assert_eq!(acts(&[named]), Err(Refusal::ContentType));
        }
    }

    #[test]
    fn what_an_app_held_in_memory_is_for_who_says_who_they_are() {
        let user = Identity::User("ops".to_owned());
        for reach in [Reach::Loopback, Reach::Network, Reach::Unix] {
            let sent = |headers: &[_], identity: &Identity, tokens| {
                guard_secrets(&Asker { headers: &map(headers), reach, identity }, tokens)
            };
            assert_eq!(sent(&[HOST, JSON], &OURS, false), Err(Refusal::Secret), "{reach:?}");
            assert_eq!(sent(&[HOST], &OURS, true), Err(Refusal::NoToken));
            assert_eq!(sent(&[("authorization", "Bearer another-token")], &OURS, true), Err(Refusal::WrongToken));
            assert_eq!(sent(&[HOST], &Identity::Token, true), Ok(()));
            for identity in [&user, &Identity::Session] {
                assert_eq!(sent(&[("sec-fetch-site", "same-origin")], identity, false), Ok(()));
                assert_eq!(sent(&[("sec-fetch-site", "none")], identity, true), Ok(()));
                assert_eq!(sent(&[("sec-fetch-site", "cross-site")], identity, false), Err(Refusal::ForeignOrigin));
            }
        }
        assert_eq!(Refusal::Secret.response().status, StatusCode::FORBIDDEN);
    }

    #[test]
    fn only_names_that_are_ours_are_answered() {
        let allowed = ["monitor.example".to_owned(), ".corp.example".to_owned()];
        let names =
            HostNames::new(&allowed, &["app.internal:19209".to_owned(), "unix:/a.b".to_owned()], "box\n".trim());
        for (host, loopback, network) in [
            ("127.0.0.1:19209", true, true),
            ("127.1.2.3", true, true),
            ("LocalHost:1", true, true),
            ("localhost.", true, true),
            ("[::1]:19209", true, true),
            ("[::1]", true, true),
            ("a.localhost", true, true),
            ("box:19209", true, true),
            ("app.internal", true, true),
            ("Monitor.Example:443", true, true),
            ("corp.example", true, true),
            ("a.b.corp.example", true, true),
            ("192.0.2.7:19209", false, true),
            ("leakslope:19209", false, true),
            ("evil.example:19209", false, false),
            ("evilcorp.example", false, false),
            ("localhost.evil.example", false, false),
            ("127.0.0.1.nip.example", false, false),
            ("127.0.0.1:1@evil.example", false, false),
            ("[::1]evil", false, false),
            ("", false, false),
        ] {
            let admitted = [Reach::Loopback, Reach::Network].map(|reach| names.admit(host, reach));
            assert_eq!(admitted, [loopback, network], "{host}");
            assert!(names.admit(host, Reach::Unix));
        }
    }

    #[test]
    fn nobody_uses_up_what_is_anothers() {
        let mut limits = RateLimits::new(2, Duration::from_secs(1));
        let (one, other) = (PeerKey::User(1), PeerKey::User(2));
        assert!(limits.admit(one, Steady(0)).is_ok() && limits.admit(one, Steady(0)).is_ok());
        assert!(limits.admit(one, Steady(0)).is_err() && limits.admit(other, Steady(0)).is_ok());
        for uid in 0..u32::try_from(BUCKETS).unwrap() {
            limits.admit(PeerKey::User(uid + 10), Steady(1)).unwrap();
        }
        assert_eq!(limits.of.len(), BUCKETS);
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

//! Who is let in, who may act, and how connections are encrypted: what the web configuration and the file of tokens say now,
//! which users of this machine were named, and which browsers were let in by a link.
//!
//! The files are looked at again when somebody connects or asks, at most once a second. What is right is put in force as a
//! whole; what is wrong is logged once and the one before stays in force. Encryption itself can be turned on and off only
//! by a restart, and so can the last user be taken away: nobody who was promised them must find them gone.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::server::TlsStream;

use super::actors::Actors;
use super::guard::{Asker, BearerTokens, HostNames, RateLimits, Refusal, bearer_of, guard_acting, who_acts};
use super::passwords::{Looked, Passwords};
use super::peer::Peer;
use super::request::{Identity, Reach, Request, only_text};
use super::response::Response;
use super::router::{Admission, Gatekeeper};
use super::server::Transport;
use super::sessions::{SESSION_LASTS, Sessions};
use super::tls::{self, Fault, Material};
use crate::trust::{Readers, read_trusted, read_trusted_text};
use crate::web::{Pem, PemSource, TlsSettings, Users, WebConfig};
use model::{ConfigError, Problem, Steady};

/// The pause between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// What says who is let in, and who may act.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessSettings {
    /// The web configuration.
    pub web_config: Option<PathBuf>,
    /// The file of bearer tokens.
    pub tokens: Option<PathBuf>,
    /// Users of this machine who may act, by name or number.
    pub acting_users: Vec<String>,
    /// Groups of this machine whose members may.
    pub acting_groups: Vec<String>,
    /// The addresses that are listened on.
    pub listen_addresses: Vec<String>,
    /// Further names that a `Host` may have.
    pub allowed_hosts: Vec<String>,
}

/// The files that say who is let in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct AccessFiles {
    web_config: Option<PathBuf>,
    tokens: Option<PathBuf>,
}

/// What the files say now. One for all listeners.
pub struct Access {
    files: AccessFiles,
    tokens: Option<BearerTokens>,
    in_force: ArcSwap<InForce>,
    passwords: Passwords,
    actors: Actors,
    hosts: HostNames,
    sessions: Sessions,
    watched: Mutex<Watched>,
    began: Instant,
}

/// How the latest look at files that had changed went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatestLoad {
    /// Whether what they say is in force.
    pub successful: bool,
    /// The time since what is in force was read.
    pub age: Duration,
}

#[derive(Default)]
struct InForce {
    tls: Option<Arc<ServerConfig>>,
    users: Users,
    headers: Vec<(HeaderName, HeaderValue)>,
    rate: Option<Mutex<RateLimits>>,
}

struct Watched {
    /// When the files are looked at again.
    next: Instant,
    seen: Vec<(PathBuf, Stamp)>,
    successful: bool,
    /// When what is in force was read.
    read_at: Instant,
}

/// What tells one state of a file from another; none where it is not there.
type Stamp = Option<(u64, u64, u64, i64, i64, i64)>;

/// The certificate that a server with this web configuration shows; none where it does not encrypt.
///
/// # Errors
/// [`ConfigError`] where the configuration or the certificate cannot be read.
pub fn own_certificate(web_config: &Path) -> Result<Option<CertificateDer<'static>>, ConfigError> {
    let Some(tls) = parse(web_config).0?.tls else { return Ok(None) };
    let files = AccessFiles { web_config: Some(web_config.to_owned()), tokens: None };
    let chain = tls::certificates(&text(&files, &tls.certificate)?);
    let chain = chain.map_err(|what| about(&files, &tls.certificate, what))?;
    Ok(chain.into_iter().next())
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Access").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem, each with file, line and key.
    pub fn open(settings: AccessSettings) -> Result<Arc<Self>, ConfigError> {
        let now = Instant::now();
        let actors = Actors::new(&settings.acting_users, &settings.acting_groups).map_err(|(list, why)| {
            ConfigError::Unreadable { path: PathBuf::from(list), source: io::Error::other(why) }
        })?;
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let hosts = HostNames::new(&settings.allowed_hosts, &settings.listen_addresses, machine.trim());
        let files = AccessFiles { web_config: settings.web_config, tokens: settings.tokens };
        let (read, seen) = Read::all(&files, &[]);
        let Read { in_force, tokens, .. } = read?;
        let passwords = Passwords::new().ok_or_else(|| ConfigError::Unreadable {
            path: PathBuf::from("/dev/urandom"),
            source: io::Error::other("the system gives no random bytes"),
        })?;
        let watched = Mutex::new(Watched { next: now + LOOK, seen, successful: true, read_at: now });
        let in_force = ArcSwap::from_pointee(in_force);
        let sessions = Sessions::default();
        Ok(Arc::new(Self { files, tokens, in_force, passwords, actors, hosts, sessions, watched, began: now }))
    }

    /// Whether connections are encrypted.
    pub fn encrypts(&self) -> bool {
        self.in_force.load().tls.is_some()
    }

    /// Whether there is anybody who could prove who he is.
    pub fn authenticates(&self) -> bool {
        self.tokens.is_some() || !self.in_force.load().users.0.is_empty()
    }

    /// Whether the files could be read the last time they had changed.
    pub fn latest_load(&self) -> LatestLoad {
        let watched = self.watched();
        LatestLoad { successful: watched.successful, age: watched.read_at.elapsed() }
    }

    /// Whether there are bearer tokens, without which users of this machine may not act then.
    pub fn has_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Which users of this machine may act.
    pub fn actors(&self) -> &Actors {
        &self.actors
    }

    /// The gatekeeper.
    pub fn gatekeeper(self: &Arc<Self>) -> Arc<dyn Gatekeeper> {
        Arc::new(Door(self.clone()))
    }

    /// Who asks, also where they only read: then nobody has looked yet which user of this machine it is.
    pub async fn identity(self: &Arc<Self>, request: &Request) -> Identity {
        if request.identity == Identity::Anonymous {
            return self.process(&request.peer).await;
        }
        request.identity.clone()
    }

    /// Makes the secret of a link that lets one browser in; none where the system gives no random bytes.
    pub fn link(&self) -> Option<String> {
        self.sessions.link(self.now())
    }

    /// Exchanges the secret of a link for a session, once; the value of the cookie that says so.
    pub async fn begin_session(&self, link: &str, peer: &Peer) -> Option<String> {
        let session = self.sessions.begin(link, peer.key().await, self.now())?;
        let (name, seconds) = (cookie_name(peer), SESSION_LASTS.as_secs());
        let secure = if self.encrypts() { "; Secure" } else { "" };
        Some(format!("{name}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}"))
    }

    fn now(&self) -> Steady {
        Steady(i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    async fn process(self: &Arc<Self>, peer: &Peer) -> Identity {
        let Some(user) = peer.user().await else { return Identity::Process { uid: None, acts: false } };
        let access = self.clone();
        let acts = tokio::task::spawn_blocking(move || access.actors.admit(user)).await.unwrap_or(false);
        Identity::Process { uid: Some(user.uid), acts }
    }

    /// Encryption for a listener.
    pub fn transport(self: &Arc<Self>) -> Encrypted {
        Encrypted(self.clone())
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in force, after a look at the files where it is time for one.
    async fn current(self: &Arc<Self>) -> Arc<InForce> {
        if self.files == AccessFiles::default() {
            return self.in_force.load_full();
        }
        let now = Instant::now();
        let due = {
            let mut watched = self.watched();
            let due = watched.next <= now;
            if due {
                watched.next = now + LOOK;
            }
            due
        };
        if due {
            let access = self.clone();
            // A look that fails to run leaves everything as it was.
            let _ = tokio::task::spawn_blocking(move || access.look_again()).await;
        }
        self.in_force.load_full()
    }

    /// What may not change while it runs, for a file may be read while it is being written over: nobody who was promised
    /// encryption or passwords must find them gone for a moment.
    fn taken_away(&self, read: &Read) -> Option<(&'static str, &'static str)> {
        let (before, now) = (self.in_force.load(), &read.in_force);
        if before.tls.is_some() != now.tls.is_some() {
            Some(("tls_server_config", "encryption can be turned on or off only by a restart"))
        } else if now.users.0.is_empty() && !before.users.0.is_empty() {
            Some(("basic_auth_users", "the last user can be taken away only by a restart"))
        } else if read.empty && !(before.headers.is_empty() && before.rate.is_none()) {
            Some((
                "",
                "the file is empty, perhaps because it is being written over: a comment makes an empty one valid",
            ))
        } else {
            None
        }
    }

    /// Looks at the files and puts in force what has changed.
    fn look_again(&self) {
        let seen = self.watched().seen.clone();
        if seen.iter().all(|(path, before)| stamp(path) == *before) {
            return;
        }
        let known: Vec<PathBuf> = seen.into_iter().map(|(path, _)| path).collect();
        let (read, seen) = Read::all(&self.files, &known);
        self.watched().seen = seen;
        let read = read.and_then(|read| match self.taken_away(&read) {
            None => Ok(read),
            Some((key, message)) => Err(problem(&name_of(&self.files), 1, key, message)),
        });
        {
            let mut watched = self.watched();
            watched.successful = read.is_ok();
            if read.is_ok() {
                watched.read_at = Instant::now();
            }
        }
        match read {
            Ok(Read { in_force, tokens, .. }) => {
                self.in_force.store(Arc::new(in_force));
                if let (Some(own), Some(tokens)) = (&self.tokens, tokens) {
                    own.replace(&tokens);
                }
                tracing::info!("the web configuration was read again");
            }
            Err(error) => {
                for line in error.to_string().lines() {
                    tracing::error!("{line}");
                }
                tracing::error!("the web configuration is wrong; the one before stays in force");
            }
        }
    }
}

/// Everything that the files say.
struct Read {
    in_force: InForce,
    tokens: Option<BearerTokens>,
    /// Whether the web configuration has no bytes.
    empty: bool,
}

impl Read {
    /// Reads all files, and notes what they looked like before that. Files that were `known` before are noted too: when
    /// the web configuration is broken, they are what may be mended.
    fn all(files: &AccessFiles, known: &[PathBuf]) -> (Result<Self, ConfigError>, Vec<(PathBuf, Stamp)>) {
        let mut paths: Vec<PathBuf> = files.web_config.iter().chain(&files.tokens).cloned().collect();
        paths.extend(known.iter().cloned());
        let mut seen: Vec<(PathBuf, Stamp)> = paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        let (config, empty) = match files.web_config.as_deref() {
            None => (Ok(WebConfig::default()), false),
            Some(path) => parse(path),
        };
        if let Ok(config) = &config {
            seen.extend(config.files().into_iter().map(|path| (path.to_owned(), stamp(path))));
        }
        seen.sort();
        seen.dedup_by(|one, other| one.0 == other.0);
        let read = || {
            let config = config?;
            let tls = config.tls.as_ref().map(|tls| encryption(files, tls)).transpose()?;
            let tokens = files.tokens.as_deref().map(read_tokens).transpose()?;
            let rate = config.rate.map(|rate| Mutex::new(RateLimits::new(rate.burst, rate.interval)));
            let header = |(name, value): &(&'static str, String)| {
                Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
            };
            let headers = config.headers.iter().filter_map(header).collect();
            Ok(Self { in_force: InForce { tls, users: config.users, headers, rate }, tokens, empty })
        };
        (read(), seen)
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec(), found.ctime_nsec()))
}

fn problem(file: &str, line: usize, key: &str, message: impl Into<String>) -> ConfigError {
    let problem = Problem { file: file.to_owned(), line, key: key.to_owned(), message: message.into() };
    ConfigError::Invalid { problems: vec![problem] }
}

/// What the web configuration says, and whether it has no bytes at all.
fn parse(path: &Path) -> (Result<WebConfig, ConfigError>, bool) {
    let text = match read_trusted_text(path, Readers::Everybody) {
        Ok(text) => text,
        Err(source) => return (Err(ConfigError::Unreadable { path: path.to_owned(), source }), false),
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    (WebConfig::parse(&path.display().to_string(), &text, folder), text.is_empty())
}

fn read_tokens(path: &Path) -> Result<BearerTokens, ConfigError> {
    let name = path.display().to_string();
    let bytes =
        read_trusted(path, Readers::Nobody).map_err(|error| problem(&name, 1, "web.token_file", error.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    BearerTokens::parse(&text).map_err(|error| problem(&name, error.line(), "web.token_file", error.to_string()))
}

/// A problem with a text in PEM, by the place that names it.
fn about(files: &AccessFiles, pem: &Pem, what: String) -> ConfigError {
    let message = match &pem.source {
        PemSource::File(path) => format!("{}: {what}", path.display()),
        PemSource::Inline(_) => what,
    };
    problem(&name_of(files), pem.line, pem.key, message)
}

fn name_of(files: &AccessFiles) -> String {
    files.web_config.as_deref().unwrap_or(Path::new("")).display().to_string()
}

/// Reads a text in PEM.
fn text(files: &AccessFiles, pem: &Pem) -> Result<Vec<u8>, ConfigError> {
    match &pem.source {
        PemSource::File(path) => {
            read_trusted(path, Readers::Everybody).map_err(|error| about(files, pem, error.to_string()))
        }
        PemSource::Inline(text) => Ok(text.clone().into_bytes()),
    }
}

/// Reads the certificates and keys and makes of them what a handshake needs.
fn encryption(files: &AccessFiles, settings: &TlsSettings) -> Result<Arc<ServerConfig>, ConfigError> {
    let text = |pem: &Pem| text(files, pem);
    let about = |pem: &Pem, what| about(files, pem, what);
    let material = Material {
        certificate: text(&settings.certificate)?,
        key: text(&settings.key)?,
        client_authorities: settings.client_authorities.as_ref().map(text).transpose()?,
    };
    tls::server_config(settings, &material).map_err(|fault| match fault {
        Fault::Certificate(what) => about(&settings.certificate, what),
        Fault::Key(what) => about(&settings.key, what),
        Fault::ClientAuthorities(what) => {
            about(settings.client_authorities.as_ref().unwrap_or(&settings.certificate), what)
        }
        Fault::Settings(what) => problem(&name_of(files), settings.certificate.line, "tls_server_config", what),
    })
}

/// Encryption by what is in force when somebody connects.
#[derive(Debug, Clone)]
pub struct Encrypted(Arc<Access>);

impl<Raw: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport<Raw> for Encrypted {
    type Stream = TlsStream<Raw>;

    async fn secure(&self, raw: Raw) -> io::Result<TlsStream<Raw>> {
        let in_force = self.0.current().await;
        let config = in_force.tls.clone().ok_or_else(|| io::Error::other("encryption is not set up"))?;
        TlsAcceptor::from(config).accept(raw).await
    }
}

/// The gatekeeper of every listener.
struct Door(Arc<Access>);

impl Gatekeeper for Door {
    fn admit(&self, method: &Method, headers: &HeaderMap, peer: &Peer, reach: Reach) -> Admission {
        let session = cookie(headers, &cookie_name(peer));
        let knock = Knock {
            credentials: only_text(headers, header::AUTHORIZATION).map(Credentials::of),
            session,
            host: headers.get(header::HOST).map(|_| only_text(headers, header::HOST).unwrap_or_default().to_owned()),
            reads: matches!(*method, Method::GET | Method::HEAD),
            peer: peer.clone(),
            reach,
        };
        let access = self.0.clone();
        Box::pin(async move { access.admit(knock).await })
    }

    fn permit(&self, asker: &Asker<'_>) -> Result<(), Refusal> {
        guard_acting(asker, self.0.has_tokens())
    }

    fn adorn(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0.in_force.load().headers {
            headers.insert(name, value.clone());
        }
    }
}

/// The name of the cookie of a session. A browser keeps cookies by host, not by port, and several may listen on one host.
fn cookie_name(peer: &Peer) -> String {
    peer.local_port().map_or_else(|| "leakslope".to_owned(), |port| format!("leakslope-{port}"))
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
}

/// What is seen of somebody who asks.
struct Knock {
    credentials: Option<Credentials>,
    session: Option<String>,
    host: Option<String>,
    /// Whether they only read: then it makes no difference which user of this machine it is.
    reads: bool,
    peer: Peer,
    reach: Reach,
}

/// What somebody shows of himself.
enum Credentials {
    Password { user: String, password: Vec<u8> },
    Token(String),
    Unknown,
}

impl Credentials {
    fn of(value: &str) -> Self {
        if let Some(token) = bearer_of(value) {
            return Self::Token(token.to_owned());
        }
        let password = || {
            let (scheme, encoded) = value.split_once(' ')?;
            let decoded = BASE64.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
            let colon = decoded.iter().position(|byte| *byte == b':')?;
            let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
            Some(Self::Password { user, password: decoded[colon + 1..].to_vec() })
        };
        password().unwrap_or(Self::Unknown)
    }
}

impl Access {
    async fn admit(self: Arc<Self>, knock: Knock) -> Result<Identity, Response> {
        let in_force = self.current().await;
        if let Some(limits) = &in_force.rate {
            let who = knock.peer.key().await;
            let admitted = limits.lock().unwrap_or_else(PoisonError::into_inner).admit(who, self.now());
            if admitted.is_err() {
                return Err(busy("too many requests; the web configuration limits them"));
            }
        }
        let identity = self.identify(&knock, &in_force.users).await?;
        // A page that was rebound has neither a password nor a token of ours.
        let shown = matches!(identity, Identity::User(_) | Identity::Token);
        let ours = || knock.host.as_ref().is_none_or(|host| self.hosts.admit(host, knock.reach));
        if shown || ours() { Ok(identity) } else { Err(Refusal::ForeignHost.response()) }
    }

    async fn identify(self: &Arc<Self>, knock: &Knock, users: &Users) -> Result<Identity, Response> {
        if let Some(Credentials::Token(token)) = &knock.credentials
            && self.tokens.as_ref().is_some_and(|tokens| tokens.admit(token))
        {
            return Ok(Identity::Token);
        }
        if let Some(session) = &knock.session
            && self.sessions.holds(session, knock.peer.key().await, self.now())
        {
            return Ok(Identity::Session);
        }
        if knock.reach == Reach::Control {
            let process = self.process(&knock.peer).await;
            let asker = Asker { headers: &HeaderMap::new(), reach: knock.reach, identity: &process };
            return who_acts(&asker, self.has_tokens()).map_err(Refusal::response).map(|()| process);
        }
        if users.0.is_empty() {
            return Ok(if knock.reads { Identity::Anonymous } else { self.process(&knock.peer).await });
        }
        let Some(Credentials::Password { user, password }) = &knock.credentials else {
            return Err(unknown("a user and a password are needed"));
        };
        match self.passwords.look(users, user, password, knock.peer.key().await).await {
            Looked::Right => Ok(Identity::User(user.clone())),
            Looked::Wrong => Err(unknown("the user or the password is wrong")),
            Looked::Busy => Err(busy("too many passwords of yours are being looked at")),
        }
    }
}

fn unknown(message: &str) -> Response {
    Response::error(StatusCode::UNAUTHORIZED, "unauthorized", message)
        .with(header::WWW_AUTHENTICATE, "Basic realm=\"leakslope\", charset=\"UTF-8\"")
}

fn busy(message: &str) -> Response {
    Response::error(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message).with(header::RETRY_AFTER, "1")
}

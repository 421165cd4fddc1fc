//! Listening, accepting and draining.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, chmod};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Shared, converse};
use super::peer::Peer;
use super::registry::{Occupancy, Place, Registry};
use super::request::Reach;
use super::router::Router;
use super::settings::HttpSettings;

/// Connections that the system may hold for us until they are accepted.
const BACKLOG: u32 = 1024;
/// Rights of the file of a Unix socket: its user and its group may connect.
const UNIX_MODE: u32 = 0o660;
/// Descriptors that no connection gets: the store, the daemons, `/proc` and the configuration need theirs.
const RESERVED_DESCRIPTORS: u64 = 64;
/// How often a failure to accept is told of at most.
const TOLD_EVERY: Duration = Duration::from_mins(1);
/// Pause after an accept that failed, for the system to find resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Refusals that may be under way at a time; beyond that connections are just closed.
const REFUSALS: usize = 32;
/// Time for a refusal.
const REFUSAL: Duration = Duration::from_secs(1);
/// What a connection gets when there is no place for it.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    connection: close\r\nretry-after: 1\r\ncontent-length: 73\r\n\r\n\
    {\"error\":{\"code\":\"busy\",\"message\":\"every connection is being answered\"}}\n";

/// A failure to listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {kind}")]
pub struct ServeError {
    /// The address or path.
    pub address: String,
    /// What happened.
    pub kind: ServeErrorKind,
}

/// Why listening failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeErrorKind {
    /// Somebody else listens there.
    #[error("it is in use, perhaps by another leakslope")]
    InUse,
    /// Another reason.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Gives new streams.
pub trait Listener: Send + 'static {
    /// A new stream as the system gives it.
    type Raw: Send + 'static;

    /// Waits for the next stream. A dropped wait loses nothing.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Raw, Peer)>> + Send;
}

/// Turns a new stream into one that HTTP is spoken on: nothing to do, or a handshake.
pub trait Transport<Raw>: Send + Sync + 'static {
    /// The stream for HTTP.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Makes it; runs under the deadline for headers.
    fn secure(&self, raw: Raw) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// HTTP on the stream itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl<Raw: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport<Raw> for Plain {
    type Stream = Raw;

    async fn secure(&self, raw: Raw) -> io::Result<Raw> {
        Ok(raw)
    }
}

impl Listener for TcpListener {
    type Raw = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = TcpListener::accept(self).await?;
        let local = stream.local_addr()?;
        // Answers are written whole; waiting for more only delays them.
        let _ = stream.set_nodelay(true);
        Ok((stream, Peer::tcp(address, local)))
    }
}

impl Listener for UnixListener {
    type Raw = UnixStream;

    async fn accept(&mut self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = UnixListener::accept(self).await?;
        let peer = Peer::unix(stream.peer_cred().ok());
        Ok((stream, peer))
    }
}

/// A socket that listens and the limits for those who connect.
pub struct Server<Listening> {
    listener: Listening,
    address: String,
    local: Option<SocketAddr>,
    reach: Reach,
    settings: HttpSettings,
    registry: Arc<Registry>,
    socket_file: Option<SocketFile>,
}

/// The file of a Unix socket, removed when it is let go.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl<Listening> fmt::Debug for Server<Listening> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Counts of a server's connections, readable while it serves. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OccupancyHandle(Vec<Arc<Registry>>);

impl OccupancyHandle {
    /// The counts of several servers as one.
    pub fn together(all: impl IntoIterator<Item = Self>) -> Self {
        Self(all.into_iter().flat_map(|handle| handle.0).collect())
    }

    /// The counts now.
    pub fn get(&self) -> Occupancy {
        self.0.iter().map(|registry| registry.occupancy()).fold(Occupancy::default(), |sum, one| Occupancy {
            open: sum.open + one.open,
            accepted: sum.accepted + one.accepted,
            evicted: sum.evicted + one.evicted,
            refused: sum.refused + one.refused,
        })
    }

    /// Answers since the start, by status.
    pub fn answers(&self) -> BTreeMap<u16, u64> {
        let mut answers = BTreeMap::new();
        for (status, count) in self.0.iter().flat_map(|registry| registry.answers()) {
            *answers.entry(status).or_default() += count;
        }
        answers
    }
}

fn refusal(address: impl fmt::Display) -> impl FnOnce(io::Error) -> ServeError {
    move |error| ServeError {
        address: address.to_string(),
        kind: if error.kind() == io::ErrorKind::AddrInUse { ServeErrorKind::InUse } else { ServeErrorKind::Io(error) },
    }
}

impl Server<TcpListener> {
    /// Listens on an address; port 0 takes any free one.
    ///
    /// # Errors
    /// [`ServeErrorKind::InUse`] where somebody else listens there.
    pub fn bind(address: SocketAddr, settings: HttpSettings) -> Result<Self, ServeError> {
        let listen = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        Self::from_tcp(listen().map_err(refusal(address))?, settings)
    }

    /// Serves on a socket that listens already.
    pub fn from_tcp(listener: TcpListener, settings: HttpSettings) -> Result<Self, ServeError> {
        let local = listener.local_addr().map_err(refusal("a socket"))?;
        let reach = if local.ip().to_canonical().is_loopback() { Reach::Loopback } else { Reach::Network };
        Ok(Self::new(listener, local.to_string(), Some(local), reach, settings))
    }
}

impl Server<UnixListener> {
    /// Listens on a Unix socket that its user and group may connect to. A socket left behind by a server that ended is
    /// replaced; one that answers is not, and neither is a file that is no socket.
    ///
    /// # Errors
    /// [`ServeErrorKind::InUse`] where somebody else listens there.
    pub fn bind_unix(path: &Path, settings: HttpSettings) -> Result<Self, ServeError> {
        Self::bind_file(path, UNIX_MODE, Reach::Unix, settings)
    }

    /// The same for the commands of those who may act: everybody may connect where `for_all`, and only those are answered.
    ///
    /// # Errors
    /// [`ServeErrorKind::InUse`] where somebody else listens there.
    pub fn bind_control(path: &Path, for_all: bool, settings: HttpSettings) -> Result<Self, ServeError> {
        Self::bind_file(path, if for_all { 0o666 } else { 0o600 }, Reach::Control, settings)
    }

    fn bind_file(path: &Path, mode: u32, reach: Reach, settings: HttpSettings) -> Result<Self, ServeError> {
        let listen = || match listen_unix(path, mode) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
                std::fs::remove_file(path)?;
                listen_unix(path, mode)
            }
            other => other,
        };
        let listener = listen().map_err(refusal(path.display()))?;
        let mut server = Self::from_unix(listener, settings);
        server.reach = reach;
        server.address = path.display().to_string();
        server.socket_file = Some(SocketFile(path.to_owned()));
        Ok(server)
    }

    /// Serves on a socket that listens already.
    pub fn from_unix(listener: UnixListener, settings: HttpSettings) -> Self {
        Self::new(listener, "a Unix socket".to_owned(), None, Reach::Unix, settings)
    }
}

/// Binds, then sets the rights of the file, then listens: nobody connects with rights it should not have.
fn listen_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let ready = chmod(path, Mode::from_raw_mode(mode))
        .and_then(|()| net::listen(&socket, i32::try_from(BACKLOG).unwrap_or(i32::MAX)));
    if let Err(error) = ready {
        // What cannot be listened on is of no use to anybody.
        let _ = std::fs::remove_file(path);
        return Err(error.into());
    }
    UnixListener::from_std(socket.into())
}

/// Whether a socket file belongs to nobody any more.
fn is_left_behind(path: &Path) -> bool {
    if !std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        return false;
    }
    let refused = std::os::unix::net::UnixStream::connect(path).map_err(|error| error.kind());
    matches!(refused, Err(io::ErrorKind::ConnectionRefused))
}

impl<Listening: Listener> Server<Listening> {
    fn new(
        listener: Listening,
        address: String,
        local: Option<SocketAddr>,
        reach: Reach,
        settings: HttpSettings,
    ) -> Self {
        let registry = Registry::new(settings.connections);
        Self { listener, address, local, reach, settings, registry, socket_file: None }
    }

    /// The address it listens on, for people.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The address it listens on, where it is a TCP one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// From where it can be reached.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Counts of its connections.
    pub fn occupancy(&self) -> OccupancyHandle {
        OccupancyHandle(vec![self.registry.clone()])
    }

    /// Serves until `stop` is cancelled, then lets what is under way finish within the drain time. Connections are
    /// tasks of `tracker`; all have ended when this returns, but for handlers that block.
    pub async fn serve<State, Wrapping>(
        self,
        router: Router<State>,
        transport: Wrapping,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) where
        State: Send + Sync + 'static,
        Wrapping: Transport<Listening::Raw>,
    {
        let Self { mut listener, address, reach, settings, registry, socket_file, .. } = self;
        let drain = settings.drain;
        let large_bodies = Semaphore::new(settings.large_bodies.max(1));
        let shared =
            Arc::new(Shared { router, settings, reach, stop: stop.clone(), registry: registry.clone(), large_bodies });
        let transport = Arc::new(transport);
        let refusals = Arc::new(Semaphore::new(REFUSALS));
        let mut told: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            // The limit may be another than at the start.
            registry.bound(descriptors_for_connections());
            let (raw, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // One connection may be taken and the next one fail, hundreds of times a minute.
                    if told.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
                        tracing::warn!("cannot accept connections on {address}: {error}");
                        told = Some(Instant::now());
                    }
                    // Most likely file descriptors have run out: one that idles gives its own.
                    registry.evict();
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Some(place) = registry.admit() {
                tracker.spawn(take(shared.clone(), transport.clone(), raw, peer, place));
            } else if let Ok(permit) = refusals.clone().try_acquire_owned() {
                let transport = transport.clone();
                tracker.spawn(async move {
                    // Politeness only: whoever does not take the refusal in time is closed without it.
                    let _ = timeout(REFUSAL, refuse(transport, raw)).await;
                    drop(permit);
                });
            }
        }
        drop(listener);
        drop(socket_file);
        if timeout(drain, registry.wait_until_empty()).await.is_err() {
            tracing::debug!("connections on {address} were cut off at the end of the drain time");
            registry.evict_all();
            let _ = timeout(drain, registry.wait_until_empty()).await;
        }
    }
}

fn descriptors_for_connections() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(RESERVED_DESCRIPTORS)).unwrap_or(usize::MAX)
}

async fn take<State, Raw, Wrapping>(
    shared: Arc<Shared<State>>,
    transport: Arc<Wrapping>,
    raw: Raw,
    peer: Peer,
    place: Place,
) where
    State: Send + Sync + 'static,
    Wrapping: Transport<Raw>,
{
    let handshake = timeout(shared.settings.header_deadline, transport.secure(raw));
    let stream = tokio::select! {
        made = handshake => made,
        () = place.conversation.leave.cancelled() => return,
        () = shared.stop.cancelled() => return,
    };
    match stream {
        Ok(Ok(stream)) => converse(shared, stream, peer, &place).await,
        Ok(Err(error)) => tracing::trace!(?peer, "handshake failed: {error}"),
        Err(_late) => tracing::trace!(?peer, "handshake took too long"),
    }
}

async fn refuse<Raw, Wrapping: Transport<Raw>>(transport: Arc<Wrapping>, raw: Raw) -> io::Result<()> {
    let mut stream = transport.secure(raw).await?;
    stream.write_all(NO_PLACE).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_whole() {
        let text = std::str::from_utf8(NO_PLACE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.lines().any(|line| line == format!("content-length: {}", body.len())), "{} bytes", body.len());
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], "busy");
    }
}

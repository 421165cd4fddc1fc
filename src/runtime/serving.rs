//! Where the sidecar listens: addresses, Unix sockets, and sockets that systemd opened for it.

use std::future::Future;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shared::Shared;
use super::{DRAIN, RunError, endpoints};
use crate::config::{UNIX_PREFIX, WebSettings};
use crate::http::{Access, HttpSettings, OccupancyHandle, Plain, Reach, Router, ServeError, ServeErrorKind, Server};

/// A listener that serves until it is told to stop.
pub(super) type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(Server<TcpListener>),
    Unix(Server<UnixListener>),
}

/// Sockets that systemd opened before it started this process.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    tcp: Vec<StdTcpListener>,
    unix: Vec<StdUnixListener>,
}

impl Inherited {
    /// Takes what there is. It changes the environment, so it comes before all threads.
    pub(super) fn take() -> Result<Self, RunError> {
        let wrong = |source| RunError::System { what: "taking the sockets of systemd", source };
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..passed.len() {
            // Asking for the wrong kind leaves the socket where it is.
            match passed.take_unix_listener(index) {
                Ok(found) => inherited.unix.extend(found),
                Err(_other_kind) => inherited.tcp.extend(passed.take_tcp_listener(index).map_err(wrong)?),
            }
        }
        Ok(inherited)
    }
}

/// Listens where commands of those who may act look for the sidecar. It goes on without where it cannot: they have loopback.
pub(super) fn listen_to_commands(path: &Path, access: &Access) -> Option<Listening> {
    let settings = HttpSettings { drain: DRAIN, ..HttpSettings::default() };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path.parent()?);
    let bound = made.map_err(|error| error.to_string()).and_then(|()| {
        Server::bind_control(path, access.actors().are_named(), settings).map_err(|error| error.to_string())
    });
    match bound {
        Ok(server) => Some(Listening::Unix(server)),
        Err(error) => {
            tracing::warn!("commands have to use the address that is listened on: {error}");
            None
        }
    }
}

/// Listens where the settings say.
pub(super) async fn listen(web: &WebSettings, inherited: Inherited) -> Result<Vec<Listening>, RunError> {
    let settings = HttpSettings { connections: web.max_connections, drain: DRAIN, ..HttpSettings::default() };
    if web.systemd_socket {
        return adopt(inherited, &settings);
    }
    let mut all = Vec::new();
    for (index, address) in web.listen_addresses.iter().enumerate() {
        // Given twice, it is listened on once.
        if !web.listen_addresses[..index].contains(address) {
            all.push(bind(address, &settings).await?);
        }
    }
    Ok(all)
}

async fn bind(address: &str, settings: &HttpSettings) -> Result<Listening, RunError> {
    if let Some(path) = address.strip_prefix(UNIX_PREFIX) {
        return Ok(Listening::Unix(Server::bind_unix(Path::new(path), settings.clone())?));
    }
    // An empty host stands for every address, IPv4 among them.
    let lookup = address.strip_prefix(':').map_or_else(|| address.to_owned(), |port| format!("[::]:{port}"));
    let failed = |error| ServeError { address: address.to_owned(), kind: ServeErrorKind::Io(error) };
    let mut refusal = None;
    // A name that stands for several addresses is tried in their order.
    for address in tokio::net::lookup_host(&lookup).await.map_err(failed)? {
        match Server::bind(address, settings.clone()) {
            Ok(server) => return Ok(Listening::Tcp(server)),
            Err(error) => refusal = Some(error),
        }
    }
    let nothing = || failed(std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, "no such host"));
    Err(refusal.unwrap_or_else(nothing).into())
}

fn adopt(inherited: Inherited, settings: &HttpSettings) -> Result<Vec<Listening>, RunError> {
    let wrong = |source| RunError::System { what: "using a socket of systemd", source };
    let mut all = Vec::new();
    for socket in inherited.tcp {
        socket.set_nonblocking(true).map_err(wrong)?;
        let listener = TcpListener::from_std(socket).map_err(wrong)?;
        all.push(Listening::Tcp(Server::from_tcp(listener, settings.clone())?));
    }
    for socket in inherited.unix {
        socket.set_nonblocking(true).map_err(wrong)?;
        let listener = UnixListener::from_std(socket).map_err(wrong)?;
        all.push(Listening::Unix(Server::from_unix(listener, settings.clone())));
    }
    if all.is_empty() { Err(RunError::NoSockets) } else { Ok(all) }
}

impl Listening {
    pub(super) fn occupancy(&self) -> OccupancyHandle {
        match self {
            Self::Tcp(server) => server.occupancy(),
            Self::Unix(server) => server.occupancy(),
        }
    }

    /// Serves what is shared, to those whom `access` lets in. TCP is encrypted where that is set up; a Unix socket never
    /// leaves the machine.
    pub(super) fn serve(
        self,
        shared: &Arc<Shared>,
        access: &Arc<Access>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Serving {
        let routes = endpoints::router(shared.clone()).guarded_by(access.gatekeeper());
        match self {
            Self::Tcp(server) => {
                let routes = acting_or_not(routes, &server, access);
                let scheme = if access.encrypts() { "https" } else { "http" };
                told(&format!("{scheme}://{}/", server.address()));
                if access.encrypts() {
                    Box::pin(server.serve(routes, access.transport(), tracker, stop))
                } else {
                    Box::pin(server.serve(routes, Plain, tracker, stop))
                }
            }
            Self::Unix(server) => {
                if server.reach() == Reach::Control {
                    tracing::info!(path = server.address(), "taking orders of commands");
                } else {
                    told(&format!("{UNIX_PREFIX}{}", server.address()));
                }
                Box::pin(server.serve(routes, Plain, tracker, stop))
            }
        }
    }
}

fn told(address: &str) {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "serving metrics and the page on {address}");
}

/// Takes whatever acts out of the table where the network reaches it and nobody could prove who he is.
fn acting_or_not(routes: Router<Shared>, server: &Server<TcpListener>, access: &Access) -> Router<Shared> {
    if server.reach() != Reach::Network || access.authenticates() {
        return routes;
    }
    tracing::warn!(
        "{} can be reached from other machines and no authentication is set up: it serves what can be read, and takes no \
         orders and no alerts; web.token_file or users in web.config_file change that at the next start",
        server.address()
    );
    routes.reading_only()
}

//! The smallest client: one request, one deadline for all of it, one bound on the answer. It asks over TCP or a Unix
//! socket, and encrypted only where the certificate of the other end is known beforehand.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

use super::exchange::exchange;
use super::peer::Peer;
use super::pin;
use crate::UNIX_PREFIX;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nothing listens there.
    #[error("{address}: {source}")]
    Connect {
        /// Where.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It took longer than it may.
    #[error("{address}: no answer within {} s", deadline.as_secs_f64())]
    Deadline {
        /// Where.
        address: String,
        /// The deadline.
        deadline: Duration,
    },
    /// It answered with something else than success.
    #[error("{address}{path}: status {status}")]
    Status {
        /// Where.
        address: String,
        /// What was asked for.
        path: String,
        /// The status code.
        status: u16,
    },
    /// What came is not HTTP, broke off or is longer than it may be.
    #[error("{address}: {reason}")]
    Broken {
        /// Where.
        address: String,
        /// What happened.
        reason: String,
    },
}

/// How often it is looked who has taken a connection, and how far apart.
const LOOKS: (usize, Duration) = (100, Duration::from_millis(20));

/// The running sidecar, as a command beside it reaches it.
#[derive(Clone, Default)]
pub struct Beside {
    /// `host:port`, or `unix:` and a path.
    pub address: String,
    /// Where to read where that address is for those who may act.
    pub otherwise: Option<String>,
    /// The certificate it serves with; none where it does not encrypt.
    pub certificate: Option<CertificateDer<'static>>,
    /// A bearer token. Over plain HTTP of this machine it goes only to root, to our own user, and …
    pub token: Option<String>,
    /// … to this one.
    pub service: Option<u32>,
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Beside").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Beside {
    /// Fetches `path` and returns the body of a 2xx answer of at most `limit` bytes.
    ///
    /// # Errors
    /// [`ClientError`], naming the address.
    pub async fn get(&self, path: &str, deadline: Duration, limit: usize) -> Result<Bytes, ClientError> {
        let request = self.signed(hyper::Request::get(path)).body(Full::default());
        let answer = send(self, request, deadline, limit).await?;
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            if let (403, Some(address)) = (status, self.otherwise.clone()) {
                let reading = Self { address, otherwise: None, ..self.clone() };
                return Box::pin(reading.get(path, deadline, limit)).await;
            }
            return Err(ClientError::Status { address: self.address.clone(), path: path.to_owned(), status });
        }
        Ok(answer.into_body())
    }

    /// Sends a JSON body to `path` and returns the status and the body of the answer, whatever it is.
    ///
    /// # Errors
    /// [`ClientError`], naming the address.
    pub async fn post(
        &self,
        path: &str,
        body: Vec<u8>,
        deadline: Duration,
        limit: usize,
    ) -> Result<(u16, Bytes), ClientError> {
        let request = self.signed(hyper::Request::post(path)).header(CONTENT_TYPE, "application/json");
        let answer = send(self, request.body(Full::from(body)), deadline, limit).await?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }

    /// A request with the headers that each has.
    fn signed(&self, request: hyper::http::request::Builder) -> hyper::http::request::Builder {
        let host = if self.address.starts_with(UNIX_PREFIX) { "localhost" } else { &self.address };
        let request = request.header(HOST, host);
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }
}

/// The address a local client reaches a listener at: a listener on every address is reached on loopback.
pub fn reachable(listen_address: &str) -> String {
    if listen_address.starts_with(UNIX_PREFIX) {
        return listen_address.to_owned();
    }
    let (host, port) = listen_address.rsplit_once(':').unwrap_or((listen_address, "19209"));
    match host {
        "" | "0.0.0.0" => format!("127.0.0.1:{port}"),
        "[::]" => format!("[::1]:{port}"),
        _ => listen_address.to_owned(),
    }
}

/// Fetches `path` from `address` (`host:port`) and returns the body of a 2xx answer of at most `limit` bytes.
///
/// # Errors
/// [`ClientError`], naming the address.
pub async fn get(address: &str, path: &str, deadline: Duration, limit: usize) -> Result<Bytes, ClientError> {
    Beside { address: address.to_owned(), ..Beside::default() }.get(path, deadline, limit).await
}

/// Sees who has taken a connection within this machine: while the sidecar is down anybody may listen at its port.
///
/// # Errors
/// A sentence: somebody else has, or it cannot be told.
async fn check_server(stream: &TcpStream, service: Option<u32>) -> Result<(), String> {
    let ends = stream.peer_addr().and_then(|peer| Ok((peer, stream.local_addr()?)));
    let (peer, local) = ends.map_err(|error| error.to_string())?;
    if !peer.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let (looks, apart) = LOOKS;
    for _ in 0..looks {
        if let Some(user) = Peer::tcp(peer, local).user().await {
            let own = rustix::process::geteuid().as_raw();
            let known = [Some(0), Some(own), service].contains(&Some(user.uid));
            let why =
                format!("user {} listens there, who is neither root nor you nor the user of the service", user.uid);
            return if known { Ok(()) } else { Err(format!("{why}: the token was not sent")) };
        }
        tokio::time::sleep(apart).await;
    }
    Err("it cannot be told who listens there: the token was not sent".to_owned())
}

async fn send(
    beside: &Beside,
    request: hyper::http::Result<hyper::Request<Full<Bytes>>>,
    deadline: Duration,
    limit: usize,
) -> Result<hyper::Response<Bytes>, ClientError> {
    let address = &beside.address;
    let broken = |reason: String| ClientError::Broken { address: address.clone(), reason };
    let unreachable = |source| ClientError::Connect { address: address.clone(), source };
    let request = request.map_err(|error| broken(error.to_string()))?;
    let told = |error: super::exchange::ExchangeError| broken(error.to_string());
    let conversation = async {
        if let Some(path) = address.strip_prefix(UNIX_PREFIX) {
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            return exchange(stream, request, limit).await.map_err(told);
        }
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        let Some(certificate) = &beside.certificate else {
            if beside.token.is_some() {
                check_server(&stream, beside.service).await.map_err(broken)?;
            }
            return exchange(stream, request, limit).await.map_err(told);
        };
        let connector = pin::connector(certificate.clone()).map_err(|error| broken(error.to_string()))?;
        // The certificate alone counts, so any name will do.
        let name = ServerName::try_from("localhost").map_err(|error| broken(error.to_string()))?;
        let stream = connector.connect(name, stream).await.map_err(|error| broken(error.to_string()))?;
        exchange(stream, request, limit).await.map_err(told)
    };
    tokio::time::timeout(deadline, conversation)
        .await
        .map_err(|_elapsed| ClientError::Deadline { address: address.clone(), deadline })?
}

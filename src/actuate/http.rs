//! Requests to servers that the configuration names: one connection a request, a deadline on the whole, a limit on the
//! reply.
//!
//! Redirects are not followed: a server that was not named is not asked. Nothing of a reply but its status and its body is
//! looked at.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes as Body;
use hyper::{Method, Request, header};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, RootCertStore};

use crate::http::{ExchangeError, exchange};
use crate::policy::Endpoint;

/// Why a request brought no reply.
#[derive(Debug, Error)]
#[error("{subject}: {kind}")]
pub struct HttpError {
    /// The server, without path and query: those may hold secrets.
    pub subject: String,
    /// What went wrong.
    pub kind: HttpErrorKind,
}

/// What went wrong with a request.
#[derive(Debug, Error)]
pub enum HttpErrorKind {
    /// It took too long.
    #[error("no complete answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The connection could not be made.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// There was no whole answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The address cannot be asked for.
    #[error("the address cannot be asked for")]
    Address,
    /// The connection could not be encrypted, or the server is not who it should be.
    #[error("no encrypted connection: {0}")]
    Encryption(String),
}

/// What a server answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// A request.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) endpoint: &'a Endpoint,
    /// Added to the endpoint's path.
    pub(super) path: &'a str,
    /// None to read, else a body with its content type.
    pub(super) body: Option<(&'static str, Vec<u8>)>,
    pub(super) headers: &'a [(&'static str, &'static str)],
    pub(super) deadline: Duration,
    pub(super) limit: usize,
}

impl Ask<'_> {
    /// Asks and awaits the whole reply.
    pub(super) async fn send(self) -> Result<Reply, HttpError> {
        let subject = self.endpoint.authority();
        let deadline = self.deadline;
        timeout(deadline, self.exchange())
            .await
            .map_err(|_elapsed| HttpErrorKind::Deadline(deadline))
            .flatten()
            .map_err(|kind| HttpError { subject, kind })
    }

    async fn exchange(self) -> Result<Reply, HttpErrorKind> {
        let request = self.request()?;
        let address = (self.endpoint.host.as_str(), self.endpoint.port);
        let stream = TcpStream::connect(address).await.map_err(HttpErrorKind::Connect)?;
        let answer = if self.endpoint.tls {
            exchange(encrypt(stream, &self.endpoint.host).await?, request, self.limit).await?
        } else {
            exchange(stream, request, self.limit).await?
        };
        Ok(Reply { status: answer.status().as_u16(), body: answer.into_body().to_vec() })
    }

    fn request(&self) -> Result<Request<Full<Body>>, HttpErrorKind> {
        let method = if self.body.is_some() { Method::POST } else { Method::GET };
        let target = format!("{}{}", self.endpoint.path, self.path);
        let mut request = Request::builder()
            .method(method)
            .uri(if target.starts_with('/') { target } else { format!("/{target}") })
            .header(header::HOST, self.endpoint.authority())
            .header(header::CONNECTION, "close")
            .header(header::USER_AGENT, concat!("leakslope/", env!("CARGO_PKG_VERSION")));
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        let body = match &self.body {
            Some((content_type, body)) => {
                request = request.header(header::CONTENT_TYPE, *content_type);
                Body::from(body.clone())
            }
            None => Body::new(),
        };
        request.body(Full::new(body)).map_err(|_not_a_request| HttpErrorKind::Address)
    }
}

/// Encrypts a connection; the server must be certified by an authority that this machine trusts.
async fn encrypt(stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, HttpErrorKind> {
    let failed = |why: &dyn std::fmt::Display| HttpErrorKind::Encryption(why.to_string());
    let roots = tokio::task::spawn_blocking(trusted_roots).await.map_err(|error| failed(&error))?;
    if roots.is_empty() {
        return Err(failed(&"this machine trusts no certificate authority (install ca-certificates)"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let settings = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
    TlsConnector::from(Arc::new(settings)).connect(name, stream).await.map_err(|error| failed(&error))
}

/// Reads the authorities that this machine trusts, anew each time: they change while the sidecar runs.
fn trusted_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

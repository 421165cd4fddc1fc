//! The smallest client: one request, one deadline for all of it, one bound on the answer.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

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

/// The address a local client reaches a listener at: a listener on every address is reached on loopback.
pub fn reachable(listen_address: &str) -> String {
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
    let request = hyper::Request::get(path).header(HOST, address).body(Full::default());
    let answer = send(address, request, deadline, limit).await?;
    if !answer.status().is_success() {
        let status = answer.status().as_u16();
        return Err(ClientError::Status { address: address.to_owned(), path: path.to_owned(), status });
    }
    Ok(answer.into_body())
}

/// Sends a JSON body to `path` at `address`, with a bearer token where there is one, and returns the status and the
/// body of the answer, whatever it is.
///
/// # Errors
/// [`ClientError`], naming the address.
pub async fn post(
    address: &str,
    path: &str,
    body: Vec<u8>,
    token: Option<&str>,
    deadline: Duration,
    limit: usize,
) -> Result<(u16, Bytes), ClientError> {
    let mut request = hyper::Request::post(path).header(HOST, address).header(CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let answer = send(address, request.body(Full::from(body)), deadline, limit).await?;
    Ok((answer.status().as_u16(), answer.into_body()))
}

async fn send(
    address: &str,
    request: hyper::http::Result<hyper::Request<Full<Bytes>>>,
    deadline: Duration,
    limit: usize,
) -> Result<hyper::Response<Bytes>, ClientError> {
    let broken = |reason: String| ClientError::Broken { address: address.to_owned(), reason };
    let request = request.map_err(|error| broken(error.to_string()))?;
    let exchange = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|source| ClientError::Connect { address: address.to_owned(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(error.to_string()))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, limit).collect().await.map_err(|error| broken(error.to_string()))?;
            Ok(hyper::Response::from_parts(head, body.to_bytes()))
        };
        tokio::pin!(connection, answer);
        // The connection moves the bytes; the answer may be complete before it ends, or only after.
        tokio::select! {
            answer = &mut answer => answer,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(broken(error.to_string())),
            },
        }
    };
    tokio::time::timeout(deadline, exchange)
        .await
        .map_err(|_elapsed| ClientError::Deadline { address: address.to_owned(), deadline })?
}

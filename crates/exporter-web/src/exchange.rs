//! One request and its answer on a connection that is made: what every client of this program does. It refuses to follow
//! redirects and to read more than it was told.

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// Why there is no whole answer.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// It broke off, or is no HTTP.
    #[error("the exchange failed: {0}")]
    Failed(#[from] hyper::Error),
    /// The body is longer than it may be.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The body broke off.
    #[error("the answer broke off")]
    BrokenOff,
}

/// Sends a request and reads the whole answer, whose body may have `limit` bytes. The connection ends with it.
///
/// # Errors
/// [`ExchangeError`]. There is no deadline in it: that is for the caller.
pub async fn exchange<Stream>(
    stream: Stream,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<Response<Bytes>, ExchangeError>
where
    Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { ExchangeError::TooLarge(limit) } else { ExchangeError::BrokenOff }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    // The connection moves the bytes only while it is polled; the answer may be whole before it ends, or only after.
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.into()),
        },
    }
}

//! The connection of one session: a call goes out, what comes in is read until its reply.
//!
//! Nothing is read between calls. A reply that nobody waits for any more (its caller gave up) is passed over by its number.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{InspectorError, InspectorErrorKind};
use crate::http::client;

/// The most that a list of targets may say.
const LONGEST_LIST: usize = 64 << 10;
/// The longest single message: a sampling profile comes in one. Chunks of a snapshot have 100 kB.
const LONGEST_MESSAGE: usize = 32 << 20;
/// So much of a message is read at once, at least.
const READ_SIZE: usize = 64 << 10;
/// The longest text quoted from the other side in an error.
const LONGEST_QUOTE: usize = 300;
const CHUNK: &str = "HeapProfiler.addHeapSnapshotChunk";

/// One session with one process's inspector.
#[derive(Debug)]
pub struct Inspector {
    address: String,
    wire: Wire,
    last_id: u64,
}

/// What messages come and go on.
#[derive(Debug)]
enum Wire {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    /// One message a line, with what has come of the next one.
    Lines(Box<dyn Stream>, Vec<u8>),
}

/// What carries messages of a process that connected to us.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug> Stream for T {}

/// Why no message comes any more.
enum Gone {
    Closed,
    Broken(String),
    TooLarge,
}

impl Wire {
    async fn send(&mut self, text: String) -> Result<(), String> {
        match self {
            Self::WebSocket(socket) => socket.send(Message::text(text)).await.map_err(|error| error.to_string()),
            Self::Lines(stream, _) => {
                stream.write_all(format!("{text}\n").as_bytes()).await.map_err(|error| error.to_string())
            }
        }
    }

    /// The next message. Nothing is lost where this is given up half-way.
    async fn next(&mut self) -> Result<String, Gone> {
        match self {
            Self::WebSocket(socket) => loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                    // Pings are answered by the library.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_))) => {}
                    Some(Ok(Message::Close(_))) | None => return Err(Gone::Closed),
                    Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => return Err(Gone::TooLarge),
                    Some(Err(error)) => return Err(Gone::Broken(error.to_string())),
                }
            },
            Self::Lines(stream, come) => {
                let mut seen = 0;
                loop {
                    if let Some(end) = come[seen..].iter().position(|byte| *byte == b'\n') {
                        let rest = come.split_off(seen + end + 1);
                        let line = std::mem::replace(come, rest);
                        return String::from_utf8(line).map_err(|error| Gone::Broken(error.to_string()));
                    }
                    seen = come.len();
                    if seen > LONGEST_MESSAGE {
                        return Err(Gone::TooLarge);
                    }
                    come.reserve(READ_SIZE);
                    match stream.read_buf(come).await {
                        Ok(0) => return Err(Gone::Closed),
                        Ok(_) => {}
                        Err(error) => return Err(Gone::Broken(error.to_string())),
                    }
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct ListedTarget {
    id: String,
}

/// Any message from the inspector.
#[derive(Deserialize)]
struct Incoming<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    error: Option<Turned>,
}

#[derive(Deserialize)]
struct Turned {
    message: String,
}

#[derive(Deserialize)]
struct ChunkParams<'a> {
    #[serde(borrow)]
    chunk: Cow<'a, str>,
}

/// Where the chunks of a snapshot go.
pub(super) struct Chunks<'a> {
    pub(super) writer: &'a mut (dyn AsyncWrite + Unpin + Send),
    pub(super) written: u64,
    pub(super) limit: u64,
}

/// A call that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    id: u64,
    method: &'static str,
    end: Instant,
    limit: Duration,
}

impl Inspector {
    /// Finds the target that is offered at `address` and attaches to it, all within `deadline`.
    ///
    /// # Errors
    /// [`InspectorError`], naming the address.
    pub async fn open(address: SocketAddr, deadline: Duration) -> Result<Self, InspectorError> {
        let failed = |kind| InspectorError { address: address.to_string(), kind };
        let connect = |error: &dyn std::fmt::Display| failed(InspectorErrorKind::Connect(quoted(&error.to_string())));
        let opening = async {
            let list = client::get(&address.to_string(), "/json/list", deadline, LONGEST_LIST)
                .await
                .map_err(|error| connect(&error))?;
            let targets: Vec<ListedTarget> = serde_json::from_slice(&list).map_err(|error| connect(&error))?;
            let target = targets.into_iter().next().ok_or_else(|| failed(InspectorErrorKind::NoTarget))?;
            if target.id.is_empty() || !target.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err(failed(InspectorErrorKind::NoTarget));
            }
            let stream = TcpStream::connect(address).await.map_err(|error| connect(&error))?;
            let config = WebSocketConfig::default()
                .max_message_size(Some(LONGEST_MESSAGE))
                .max_frame_size(Some(LONGEST_MESSAGE));
            let url = format!("ws://{address}/{}", target.id);
            let (socket, _response) = tokio_tungstenite::client_async_with_config(url, stream, Some(config))
                .await
                .map_err(|error| connect(&error))?;
            Ok(Self { address: address.to_string(), wire: Wire::WebSocket(Box::new(socket)), last_id: 0 })
        };
        timeout(deadline, opening)
            .await
            .map_err(|_elapsed| failed(InspectorErrorKind::Deadline { step: "attaching", limit: deadline }))?
    }

    /// A session that a process opened to us on this stream, by a name for people.
    pub fn over(stream: impl Stream + 'static, name: String) -> Self {
        Self { address: name, wire: Wire::Lines(Box::new(stream), Vec::new()), last_id: 0 }
    }

    /// Sends one command and returns what it brought.
    ///
    /// # Errors
    /// [`InspectorError`]: turned down, ended, unreadable or not answered within `deadline`.
    pub async fn call(
        &mut self,
        method: &'static str,
        params: Value,
        deadline: Duration,
    ) -> Result<Value, InspectorError> {
        let sent = self.send(method, params, deadline).await?;
        let result = self.reply(sent, None).await?;
        serde_json::from_str(result.get()).map_err(|error| self.unreadable(method, &error))
    }

    /// Ends the session in good order; dropping it ends it, too.
    pub async fn close(mut self, deadline: Duration) {
        // Who is gone needs no farewell.
        if let Wire::WebSocket(socket) = &mut self.wire {
            let _ended = timeout(deadline, WebSocketStream::close(socket, None)).await;
        }
    }

    /// Sends a command whose reply is to be read with [`Self::reply`].
    pub(super) async fn send(
        &mut self,
        method: &'static str,
        params: Value,
        limit: Duration,
    ) -> Result<Sent, InspectorError> {
        self.last_id += 1;
        let sent = Sent { id: self.last_id, method, end: Instant::now() + limit, limit };
        let text = serde_json::json!({"id": sent.id, "method": method, "params": params}).to_string();
        match timeout_at(sent.end, self.wire.send(text)).await {
            Ok(Ok(())) => Ok(sent),
            Ok(Err(error)) => Err(self.ended(sent, &error)),
            Err(_elapsed) => Err(self.late(sent)),
        }
    }

    /// Reads until the reply to `sent`; chunks of a snapshot that come before it go to `chunks`.
    pub(super) async fn reply(
        &mut self,
        sent: Sent,
        mut chunks: Option<&mut Chunks<'_>>,
    ) -> Result<Box<RawValue>, InspectorError> {
        let mut come = 0;
        loop {
            let text = match timeout_at(sent.end, self.wire.next()).await {
                Ok(Ok(text)) => text,
                Ok(Err(Gone::Closed)) => return Err(self.ended(sent, "closed by the process")),
                Ok(Err(Gone::Broken(reason))) => return Err(self.ended(sent, &reason)),
                Ok(Err(Gone::TooLarge)) => return Err(self.too_large(sent)),
                Err(_elapsed) => return Err(self.late(sent)),
            };
            let incoming: Incoming<'_> =
                serde_json::from_str(&text).map_err(|error| self.unreadable(sent.method, &error))?;
            if incoming.id == Some(sent.id) {
                return match (incoming.result, incoming.error) {
                    (_, Some(turned)) => {
                        let message = quoted(&turned.message);
                        Err(self.failed(InspectorErrorKind::Refused { method: sent.method, message }))
                    }
                    (Some(result), None) => Ok(result.to_owned()),
                    (None, None) => Err(self.unreadable(sent.method, &"neither a result nor an error")),
                };
            }
            if let (Some(chunks), Some(CHUNK), Some(params)) =
                (chunks.as_deref_mut(), incoming.method.as_deref(), incoming.params)
            {
                let params: ChunkParams<'_> =
                    serde_json::from_str(params.get()).map_err(|error| self.unreadable(CHUNK, &error))?;
                self.pass_on(sent, chunks, params.chunk.as_bytes()).await?;
                continue;
            }
            // Who sends what nobody asked for gets no further than with one long message.
            come += text.len();
            if come > LONGEST_MESSAGE {
                return Err(self.too_large(sent));
            }
        }
    }

    async fn pass_on(&self, sent: Sent, chunks: &mut Chunks<'_>, bytes: &[u8]) -> Result<(), InspectorError> {
        chunks.written += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if chunks.written > chunks.limit {
            return Err(self.failed(InspectorErrorKind::TooLarge { method: sent.method, limit: chunks.limit }));
        }
        match timeout_at(sent.end, chunks.writer.write_all(bytes)).await {
            Ok(written) => written.map_err(|error| self.failed(InspectorErrorKind::Write(error))),
            Err(_elapsed) => Err(self.late(sent)),
        }
    }

    pub(super) fn failed(&self, kind: InspectorErrorKind) -> InspectorError {
        InspectorError { address: self.address.clone(), kind }
    }

    pub(super) fn unreadable(&self, method: &'static str, reason: &dyn std::fmt::Display) -> InspectorError {
        self.failed(InspectorErrorKind::Unreadable { method, reason: quoted(&reason.to_string()) })
    }

    fn too_large(&self, sent: Sent) -> InspectorError {
        let limit = u64::try_from(LONGEST_MESSAGE).unwrap_or(u64::MAX);
        self.failed(InspectorErrorKind::TooLarge { method: sent.method, limit })
    }

    fn late(&self, sent: Sent) -> InspectorError {
        self.failed(InspectorErrorKind::Deadline { step: sent.method, limit: sent.limit })
    }

    fn ended(&self, sent: Sent, reason: &str) -> InspectorError {
        self.failed(InspectorErrorKind::Closed { step: sent.method, reason: quoted(reason) })
    }
}

/// Shortens what the other side said and keeps it from steering a terminal.
pub(super) fn quoted(text: &str) -> String {
    text.chars().take(LONGEST_QUOTE).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

//! A client of pm2's daemon by its socket.
//!
//! One connection is kept from call to call: connecting again each time would make the daemon accept and forget a socket
//! every few seconds, and the kept one tells at once when the daemon has gone. It is given up after
//! whatever went wrong, so a late answer can never be taken for the next one. pm2 closes it itself when it shuts down.
//!
//! Every step has a deadline. This room connects to what is there and refuses to start a daemon, to follow a link, and to
//! connect to what is no stream socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::amp::{Decoder, Frame, FrameError, JSON_MARK, Request, RequestId};
use crate::home_file::{Home, HomeFileError, LateError, within_of};
use crate::list::{ArrivingReply, ListError, ProcessList};

/// With what is left of an entry it stays below the size from which the allocator maps a block by itself, and unmaps it again.
const READ_SIZE: usize = 48 * 1024;
/// The step that fails while the request is not yet written whole, so that the daemon cannot have read it.
const ROOM_STEP: &str = "room for the request";

/// How long each step of a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Until the daemon's queue takes the connection.
    pub connect: Duration,
    /// Until the request is written.
    pub write: Duration,
    /// From the request to the last byte of the reply.
    pub reply: Duration,
}

/// Why a call brought no reply.
#[derive(Debug, Error)]
#[error("{}: {kind}", path.display())]
pub struct SocketError {
    /// The socket.
    pub path: PathBuf,
    /// What went wrong.
    pub kind: SocketErrorKind,
}

/// Why a request that changes something brought no reply.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct ActError {
    /// What went wrong.
    pub error: SocketError,
    /// Whether the daemon may have read the request and acted on it.
    pub sent: bool,
}

/// What went wrong in a call.
#[derive(Debug, Error)]
pub enum SocketErrorKind {
    /// There is no such file: pm2 has never run with this home, or was stopped.
    #[error("no socket there (pm2 is not running with this home)")]
    Missing,
    /// The file is there, but no one listens: the daemon died without removing it.
    #[error("nobody listens (pm2 has died or is restarting)")]
    Refused,
    /// We may not open it.
    #[error("permission denied (the sidecar must run as pm2's user or in its group)")]
    Denied,
    /// Something else has the socket's name.
    #[error("not pm2's socket: {0}; nothing is asked of it and no command is run for it")]
    NotASocket(HomeFileError),
    /// The home itself does not answer.
    #[error(transparent)]
    Late(#[from] LateError),
    /// Connecting failed in another way.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The daemon that answers now may not be given a request that changes something.
    #[error("{0}")]
    Unproven(String),
    /// A step took too long.
    #[error("no {step} within {} ms", limit.as_millis())]
    Deadline {
        /// Which step.
        step: &'static str,
        /// Its deadline.
        limit: Duration,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    /// The daemon closed the connection.
    #[error("the daemon closed the connection {}", if *midway { "half-way through its reply" } else { "without a reply" })]
    Closed {
        /// Whether part of a reply had come.
        midway: bool,
    },
    /// The answer is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The answer is to another request.
    #[error("the reply does not carry the request's id")]
    WrongId,
    /// The answer's first argument is not marked as JSON.
    #[error("the reply is not marked as JSON")]
    NotJson,
}

impl SocketErrorKind {
    /// Whether a socket may be there that we may not open, so that the pm2 command may know better. Where none is there,
    /// nobody listens, or something else has its name, the command would only start a daemon.
    pub fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::Denied)
    }
}

/// The client of one daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    named_by: Option<u32>,
    deadlines: Deadlines,
    reply_limit: usize,
    connection: Option<Connection>,
    calls: u64,
}

/// Who answers at a socket, by the system's word: whoever called `listen()` on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The pid, where it lives in our pid namespace or below.
    pub pid: Option<u32>,
    /// The user.
    pub user: u32,
    /// Who made the socket.
    pub socket_owner: u32,
    /// Whose the home is.
    pub home_owner: u32,
    /// When it was asked for, since the machine was started: who has the pid later and began after this is another.
    pub seen_at: Duration,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    peer: Peer,
    /// Which of the client's connections this is.
    number: u64,
}

/// A reply with where it came from.
#[derive(Debug)]
pub struct Reply {
    /// The frame; its first argument is JSON.
    frame: Frame,
    /// Who answered.
    pub peer: Peer,
    /// Number of the connection that carried it: another number, perhaps another daemon.
    pub connection: u64,
}

impl Reply {
    /// The JSON text of the reply.
    pub fn json(&self) -> &[u8] {
        self.frame.json(0).unwrap_or_default()
    }
}

/// The process list with where it came from.
#[derive(Debug)]
pub struct ListReply {
    /// The list, read while it arrived.
    pub list: Result<ProcessList, ListError>,
    /// Who answered.
    pub peer: Peer,
    /// Number of the connection that carried it: another number, perhaps another daemon.
    pub connection: u64,
}

/// What becomes of the first argument of a reply.
enum Take {
    /// It is kept.
    Keep,
    /// It is read as a process list while it arrives, once its mark has come.
    List { mark: Vec<u8>, reply: ArrivingReply },
}

impl Take {
    fn list(limit: usize) -> Self {
        Self::List { mark: Vec::new(), reply: ArrivingReply::new(limit) }
    }

    fn feed(&mut self, decoder: &mut Decoder, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        match self {
            Self::Keep => decoder.feed(input),
            Self::List { mark, reply } => decoder.feed_passing_on(input, &mut |mut bytes| {
                let missing = bytes.len().min(JSON_MARK.len() - mark.len());
                mark.extend_from_slice(&bytes[..missing]);
                bytes = &bytes[missing..];
                // What is not marked as JSON is not worth keeping.
                if mark == JSON_MARK {
                    reply.push(bytes);
                }
            }),
        }
    }

    fn is_json(&self, frame: &Frame) -> bool {
        match self {
            Self::Keep => frame.json(0).is_some(),
            Self::List { mark, .. } => mark == JSON_MARK,
        }
    }
}

impl Client {
    /// Makes a client that connects when it is first needed.
    pub fn new(path: PathBuf, deadlines: Deadlines, reply_limit: usize) -> Self {
        Self { path, named_by: None, deadlines, reply_limit, connection: None, calls: 0 }
    }

    /// Says which user named the home, where it was not configured.
    #[must_use]
    pub fn named_by(self, user: Option<u32>) -> Self {
        Self { named_by: user, ..self }
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Calls the daemon and waits for its reply. A kept connection that turns out to be dead is opened anew, once.
    pub async fn call(&mut self, request: Request) -> Result<Reply, SocketError> {
        self.call_taking(request, &mut Take::Keep).await
    }

    /// Asks for the process list, of which at most `limit` entries are kept. It is read while it arrives and never held as a
    /// whole.
    pub async fn list(&mut self, limit: usize) -> Result<ListReply, SocketError> {
        let mut take = Take::list(limit);
        let Reply { peer, connection, .. } = self.call_taking(Request::GetMonitorData, &mut take).await?;
        let list = match take {
            Take::List { reply, .. } => reply.finish(),
            Take::Keep => Err(ListError::Shape { expected: "process list" }),
        };
        Ok(ListReply { list, peer, connection })
    }

    async fn call_taking(&mut self, request: Request, take: &mut Take) -> Result<Reply, SocketError> {
        let result = match self.connection.take() {
            Some(kept) => match self.exchange(kept, request, take).await {
                // Nothing of a reply has come, so nothing is taken yet.
                Err(SocketErrorKind::Broken(_) | SocketErrorKind::Closed { midway: false }) => {
                    self.call_anew(request, take).await
                }
                result => result,
            },
            None => self.call_anew(request, take).await,
        };
        result.map_err(|kind| SocketError { path: self.path.clone(), kind })
    }

    /// Calls the daemon on a connection of its own, once and never again, for a request that changes something. The error
    /// tells whether the request may have been read.
    pub async fn act(&mut self, request: Request) -> Result<Reply, ActError> {
        self.act_where(request, |_whoever| Ok(())).await
    }

    /// [`Client::act`], where `proven` has nothing against whoever answers on that very connection; else nothing is sent.
    pub async fn act_where(
        &mut self,
        request: Request,
        proven: impl FnOnce(&Peer) -> Result<(), String>,
    ) -> Result<Reply, ActError> {
        let failed = |path: &Path, kind, sent| ActError { error: SocketError { path: path.to_owned(), kind }, sent };
        let connection = self.connect().await.map_err(|kind| failed(&self.path, kind, false))?;
        proven(&connection.peer).map_err(|why| failed(&self.path, SocketErrorKind::Unproven(why), false))?;
        let result = self.exchange(connection, request, &mut Take::Keep).await;
        self.connection = None;
        result.map_err(|kind| {
            let unwritten = matches!(kind, SocketErrorKind::Deadline { step: ROOM_STEP, .. });
            failed(&self.path, kind, !unwritten)
        })
    }

    async fn call_anew(&mut self, request: Request, take: &mut Take) -> Result<Reply, SocketErrorKind> {
        let connection = self.connect().await?;
        self.exchange(connection, request, take).await
    }

    async fn connect(&self) -> Result<Connection, SocketErrorKind> {
        let (stream, peer) = connect(&self.path, self.named_by, self.deadlines.connect).await?;
        Ok(Connection { stream, peer, number: self.calls })
    }

    /// Sends a request and awaits its reply; the connection is kept only if all went well, also when this future is dropped
    /// half-way.
    async fn exchange(
        &mut self,
        mut connection: Connection,
        request: Request,
        take: &mut Take,
    ) -> Result<Reply, SocketErrorKind> {
        self.calls += 1;
        let id = RequestId(self.calls);
        let limit = self.deadlines.write;
        timeout(limit, connection.stream.write_all(&request.encode(id)))
            .await
            .map_err(|_elapsed| SocketErrorKind::Deadline { step: ROOM_STEP, limit })?
            .map_err(SocketErrorKind::Broken)?;
        let limit = self.deadlines.reply;
        let frame = timeout(limit, read_frame(&mut connection.stream, self.reply_limit, take))
            .await
            .map_err(|_elapsed| SocketErrorKind::Deadline { step: "complete reply", limit })??;
        if !frame.answers(id) {
            return Err(SocketErrorKind::WrongId);
        }
        if !take.is_json(&frame) {
            return Err(SocketErrorKind::NotJson);
        }
        let reply = Reply { frame, peer: connection.peer, connection: connection.number };
        self.connection = Some(connection);
        Ok(reply)
    }
}

/// Connects to a socket of a home, off the event loop: a home may lie on a file server that is gone.
pub async fn connect(
    path: &Path,
    named_by: Option<u32>,
    limit: Duration,
) -> Result<(UnixStream, Peer), SocketErrorKind> {
    let invalid = || SocketErrorKind::Connect(io::ErrorKind::InvalidFilename.into());
    let home = path.parent().ok_or_else(invalid)?.to_owned();
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(invalid)?.to_owned();
    let folder = home.clone();
    let connecting = within_of(named_by, &home, limit, move || Home::open(&folder)?.connect(&name));
    let connected = connecting.await?.map_err(connect_error)?;
    let stream = UnixStream::from_std(connected.stream).map_err(SocketErrorKind::Connect)?;
    let told = stream.peer_cred().map_err(SocketErrorKind::Connect)?;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let since_boot = |part: i64| u64::try_from(part).unwrap_or_default();
    let peer = Peer {
        // The pid is zero where the daemon lives in a namespace that is not below ours.
        pid: told.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        user: told.uid(),
        socket_owner: connected.socket_owner,
        home_owner: connected.home_owner,
        seen_at: Duration::from_secs(since_boot(now.tv_sec)) + Duration::from_nanos(since_boot(now.tv_nsec)),
    };
    Ok((stream, peer))
}

fn connect_error(error: HomeFileError) -> SocketErrorKind {
    let HomeFileError::Io(error) = error else { return SocketErrorKind::NotASocket(error) };
    #[allow(clippy::wildcard_enum_match_arm, reason = "three kinds of dozens have a sentence of their own")]
    match error.kind() {
        io::ErrorKind::NotFound => SocketErrorKind::Missing,
        io::ErrorKind::ConnectionRefused => SocketErrorKind::Refused,
        io::ErrorKind::PermissionDenied => SocketErrorKind::Denied,
        _ => SocketErrorKind::Connect(error),
    }
}

async fn read_frame(stream: &mut UnixStream, limit: usize, take: &mut Take) -> Result<Frame, SocketErrorKind> {
    let mut decoder = Decoder::new(limit);
    let mut buffer = vec![0; READ_SIZE];
    let mut begun = false;
    loop {
        let length = stream.read(&mut buffer).await.map_err(|error| {
            // Half-way through a reply it was no stale connection.
            if begun { SocketErrorKind::Closed { midway: true } } else { SocketErrorKind::Broken(error) }
        })?;
        if length == 0 {
            return Err(SocketErrorKind::Closed { midway: begun });
        }
        begun = true;
        let mut input = &buffer[..length];
        if let Some(frame) = take.feed(&mut decoder, &mut input)? {
            return if input.is_empty() { Ok(frame) } else { Err(SocketErrorKind::WrongId) };
        }
    }
}

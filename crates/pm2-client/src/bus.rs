//! A listener on pm2's public socket, for profiles, for what pm2's agent replies when asked for one, and for the end of
//! the process meanwhile.
//!
//! The daemon sends everything there to everybody, and buffers without bound for a listener that does not read. So this
//! one reads always, keeps nothing but frames on those topics, and is connected only while a profile is awaited.
//! It sends nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::net::UnixStream;

use crate::amp::{INITIATED, SAMPLE_HEAP, VERSION};
use crate::daemon_log;
use crate::socket::{self, SocketErrorKind};
use model::{DaemonEvent, DaemonLine, WallTime, plain};

/// The topic on which pm2's agent sends profiles.
const PROFILES: &[u8] = b"s:profilings";
/// The topic on which it replies to actions, the app's own among them.
const REPLIES: &[u8] = b"s:axm:reply";
/// The topic on which the daemon tells of starts and ends.
const EVENTS: &[u8] = b"s:process:event";
/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The longest frame that is read.
pub const LARGEST_FRAME: u64 = 64 << 20;
/// The longest reply that is looked at: the agent's own are short.
const LONGEST_REPLY: u64 = 64 << 10;
/// The longest event that is looked at: each carries the process's environment, of which nothing is read.
const LONGEST_EVENT: u64 = 4 << 20;
/// The topic of pm2's own log.
const LOG: &[u8] = b"s:log:PM2";
/// The topic of exceptions that nobody caught.
const EXCEPTIONS: &[u8] = b"s:process:exception";
/// The topics that matter, each with the longest payload that is kept.
const TOPICS: [(&[u8], u64); 5] = [
    (PROFILES, LARGEST_FRAME),
    (REPLIES, LONGEST_REPLY),
    (EVENTS, LONGEST_EVENT),
    (LOG, LONGEST_REPLY),
    (EXCEPTIONS, LONGEST_EVENT),
];
const READ_SIZE: usize = 64 * 1024;
/// The longest text of the agent's that is passed on.
const LONGEST_WORDS: usize = 200;

/// Why no profile came.
#[derive(Debug, Error)]
#[error("{}: {kind}", path.display())]
pub struct BusError {
    /// The socket.
    pub path: PathBuf,
    /// What went wrong.
    pub kind: BusErrorKind,
}

/// What went wrong on the public socket.
#[derive(Debug, Error)]
pub enum BusErrorKind {
    /// It cannot be connected to.
    #[error("{0}")]
    Connect(Box<SocketErrorKind>),
    /// Reading failed, or the daemon went away.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes are no frame of two arguments.
    #[error("not a published frame: it begins with {0:#04x}")]
    Header(u8),
    /// The process ended while it was waited for.
    #[error("the process has ended or was restarted meanwhile; try again")]
    Ended,
    /// A frame over the limit.
    #[error("a frame of at least {0} bytes, over the limit of {LARGEST_FRAME}")]
    TooLarge(u64),
}

/// A connection to the public socket of one daemon.
#[derive(Debug)]
pub struct Bus {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Bus {
    /// Connects to `pub.sock` in a home; what is published from now on will be read.
    pub async fn connect(home: &Path) -> Result<Self, BusError> {
        let path = home.join("pub.sock");
        match socket::connect(&path, None, CONNECT_DEADLINE).await {
            Ok((stream, _peer)) => Ok(Self { path, stream: BufReader::with_capacity(READ_SIZE, stream) }),
            Err(why) => Err(BusError { path, kind: BusErrorKind::Connect(Box::new(why)) }),
        }
    }

    /// Reads until pm2's agent in this process says that it samples now, and returns the profile's name; its own words
    /// where it turns the request down. The caller sets the deadline.
    pub async fn sampling(&mut self, pm_id: u32) -> Result<Result<String, String>, BusError> {
        loop {
            if let Heard { topic: REPLIES, payload } = self.hear(pm_id).await?
                && let Some(reply) = reply(&payload, pm_id)
            {
                return Ok(reply);
            }
        }
    }

    /// Reads until the heap profile of this name has come from this process, and returns its text. The caller sets the
    /// deadline.
    pub async fn heap_profile(&mut self, pm_id: u32, name: &str) -> Result<String, BusError> {
        loop {
            if let Heard { topic: PROFILES, payload } = self.hear(pm_id).await?
                && let Some(profile) = ours(&payload, pm_id, name)
            {
                return Ok(profile);
            }
        }
    }

    /// Reads until the daemon tells of a step in the life of a process.
    pub async fn daemon_line(&mut self) -> Result<DaemonLine, BusError> {
        loop {
            let heard = next(&mut self.stream, LARGEST_FRAME).await;
            let heard = heard.map_err(|kind| BusError { path: self.path.clone(), kind })?;
            let Some(Heard { topic: topic @ (LOG | EVENTS | EXCEPTIONS), payload }) = heard else { continue };
            if let Some(line) = payload.strip_prefix(b"j:").and_then(|json| bus_line(topic, json)) {
                return Ok(line);
            }
        }
    }

    /// Reads until something that may matter; the end of the process is an error.
    async fn hear(&mut self, pm_id: u32) -> Result<Heard, BusError> {
        let failed = |kind| BusError { path: self.path.clone(), kind };
        loop {
            match next(&mut self.stream, LARGEST_FRAME).await.map_err(failed)? {
                Some(Heard { topic: EVENTS, payload }) if ends(&payload, pm_id) => {
                    return Err(failed(BusErrorKind::Ended));
                }
                Some(heard) => return Ok(heard),
                None => {}
            }
        }
    }
}

/// A frame that may matter.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    topic: &'static [u8],
    payload: Vec<u8>,
}

/// Reads one frame; it is passed over unless its topic is one of ours and its payload no longer than such a one is.
async fn next(stream: &mut (impl AsyncRead + Unpin), limit: u64) -> Result<Option<Heard>, BusErrorKind> {
    let header = stream.read_u8().await?;
    if header != VERSION << 4 | 2 {
        return Err(BusErrorKind::Header(header));
    }
    let length = u64::from(stream.read_u32().await?);
    if length > limit {
        return Err(BusErrorKind::TooLarge(length));
    }
    let mut name = Vec::new();
    if TOPICS.iter().any(|(topic, _)| topic.len() as u64 == length) {
        take(stream, length, &mut name).await?;
    } else {
        skip(stream, length).await?;
    }
    let payload_length = u64::from(stream.read_u32().await?);
    if length + payload_length > limit {
        return Err(BusErrorKind::TooLarge(length + payload_length));
    }
    let fits = |(topic, longest): &&(&[u8], u64)| *topic == name && payload_length <= *longest;
    let Some((topic, _)) = TOPICS.iter().find(fits) else {
        skip(stream, payload_length).await?;
        return Ok(None);
    };
    let mut payload = Vec::new();
    take(stream, payload_length, &mut payload).await?;
    Ok(Some(Heard { topic, payload }))
}

async fn take(stream: &mut (impl AsyncRead + Unpin), length: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let read = stream.take(length).read_to_end(into).await?;
    if read as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn skip(stream: &mut (impl AsyncRead + Unpin), length: u64) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut stream.take(length), &mut tokio::io::sink()).await?;
    if skipped == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[derive(Deserialize)]
struct Process {
    pm_id: u32,
}

/// What an app published through pm2.
#[derive(Deserialize)]
struct Published<Data> {
    data: Data,
    process: Process,
}

/// Whether the daemon tells that this process has ended, or that another has taken its place.
fn ends(payload: &[u8], pm_id: u32) -> bool {
    #[derive(Deserialize)]
    struct Payload {
        event: String,
        process: Process,
    }
    payload
        .strip_prefix(b"j:")
        .and_then(|json| serde_json::from_slice::<Payload>(json).ok())
        .is_some_and(|read| read.process.pm_id == pm_id && matches!(read.event.as_str(), "exit" | "online"))
}

/// What the agent in this process replied to the request to sample: the profile's name, or why not.
fn reply(payload: &[u8], pm_id: u32) -> Option<Result<String, String>> {
    #[derive(Deserialize)]
    struct Data {
        action_name: String,
        r#return: Answer,
    }
    #[derive(Deserialize)]
    struct Answer {
        success: bool,
        uuid: Option<String>,
        err: Option<String>,
    }
    let read: Published<Data> = serde_json::from_slice(payload.strip_prefix(b"j:")?).ok()?;
    if read.process.pm_id != pm_id || read.data.action_name != SAMPLE_HEAP {
        return None;
    }
    let Answer { success, uuid, err } = read.data.r#return;
    if success {
        return uuid.map(Ok);
    }
    let words = err.unwrap_or_else(|| "no reason".to_owned());
    Some(Err(plain(&words, LONGEST_WORDS)))
}

/// The profile's text where this is the one we asked for; pm2's agent sends it inline.
fn ours(payload: &[u8], pm_id: u32, name: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Data {
        #[serde(rename = "data")]
        text: String,
        uuid: String,
        initiated: String,
        r#type: String,
    }
    let Published::<Data> { data, process } = serde_json::from_slice(payload.strip_prefix(b"j:")?).ok()?;
    let asked = data.uuid == name && data.initiated == INITIATED;
    (process.pm_id == pm_id && data.r#type == "heapprofile" && asked).then_some(data.text)
}

/// Reads one line that the bus published, with the time it tells.
fn bus_line(topic: &[u8], payload: &[u8]) -> Option<DaemonLine> {
    #[derive(Deserialize)]
    struct Published {
        at: Option<i64>,
        event: Option<String>,
        #[serde(default)]
        manually: bool,
        data: Option<serde_json::Value>,
        process: Option<Process>,
    }
    #[derive(Deserialize)]
    struct Process {
        // Text for pm2 itself and for the old worker of a reload.
        pm_id: Option<serde_json::Value>,
    }
    let told: Published = serde_json::from_slice(payload).ok()?;
    let pm_id = told.process.and_then(|process| process.pm_id?.as_u64()).and_then(|id| u32::try_from(id).ok());
    let event = match topic {
        b"s:log:PM2" => daemon_log::event(told.data?.as_str()?.trim_end_matches('\n'), None)?,
        b"s:process:exception" => {
            let message = told.data?.get("message")?.as_str().map(daemon_log::cut)?;
            DaemonEvent::Exception { pm_id: pm_id?, message }
        }
        _ => {
            let asked = matches!(told.event.as_deref(), Some("restart" | "reload" | "stop"));
            (asked && told.manually).then_some(DaemonEvent::Confirmed { pm_id: pm_id? })?
        }
    };
    Some(DaemonLine { at: WallTime(told.at?), event, read_at: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Named;

    fn frame(topic: &str, payload: &str) -> Vec<u8> {
        let mut bytes = vec![0x12];
        for argument in [topic, payload] {
            bytes.extend(u32::try_from(argument.len()).unwrap().to_be_bytes());
            bytes.extend(argument.as_bytes());
        }
        bytes
    }

    #[tokio::test]
    async fn only_profiles_and_short_replies_are_kept() {
        let long = "x".repeat(usize::try_from(LONGEST_REPLY).unwrap() + 1);
        let frames = [
            frame("s:log:out", "j:{}"),
            frame("s:logilings!", "j:1"),
            frame("s:axm:reply", &long),
            frame("s:profilings", "j:2"),
            frame("s:axm:reply", "j:3"),
        ];
        let bytes = frames.concat();
        let mut input = bytes.as_slice();
        for expected in [None, None, None, Some((PROFILES, b"j:2")), Some((REPLIES, b"j:3"))] {
            let expected = expected.map(|(topic, payload)| Heard { topic, payload: payload.to_vec() });
            assert_eq!(next(&mut input, LARGEST_FRAME).await.unwrap(), expected);
        }
        assert!(matches!(next(&mut input, 100).await, Err(BusErrorKind::Io(_))), "the end of the stream is an error");
    }

    #[tokio::test]
    async fn what_is_too_large_cut_or_no_frame_ends_it() {
        let large = frame("s:profilings", "j:0123456789");
        assert!(matches!(next(&mut large.as_slice(), 20).await, Err(BusErrorKind::TooLarge(24))));
        assert!(matches!(next(&mut &large[..large.len() - 1], 100).await, Err(BusErrorKind::Io(_))));
        let log = frame("s:log:out", "j:0123456789");
        assert!(matches!(next(&mut &log[..log.len() - 1], 100).await, Err(BusErrorKind::Io(_))));
        assert!(matches!(next(&mut b"GET".as_slice(), 100).await, Err(BusErrorKind::Header(b'G'))));
    }

    #[test]
    fn another_profile_is_not_taken_for_ours() {
        let payload = |pm_id: u32, kind: &str, by: &str, name: &str| {
            let data = format!(r#"{{"data":"x","type":"{kind}","initiated":"{by}","uuid":"{name}"}}"#);
            format!(r#"j:{{"data":{data},"process":{{"pm_id":{pm_id}}}}}"#)
        };
        assert_eq!(ours(payload(3, "heapprofile", INITIATED, "a").as_bytes(), 3, "a").as_deref(), Some("x"));
        for other in [
            payload(4, "heapprofile", INITIATED, "a"),
            payload(3, "cpuprofile", INITIATED, "a"),
            payload(3, "heapprofile", "manual", "a"),
            payload(3, "heapprofile", INITIATED, "b"),
            "j:nonsense".to_owned(),
        ] {
            assert_eq!(ours(other.as_bytes(), 3, "a"), None, "{other}");
        }
    }

    #[test]
    fn the_end_of_the_process_is_noticed_and_that_of_another_is_not() {
        let payload = |pm_id: &str, event: &str| {
            format!(r#"j:{{"event":"{event}","process":{{"pm_id":{pm_id},"env":{{"SECRET":"x"}}}}}}"#)
        };
        for (pm_id, event, expected) in [
            ("3", "exit", true),
            ("3", "online", true),
            ("3", "stopping", false),
            ("4", "exit", false),
            ("\"_old_3\"", "exit", false),
        ] {
            assert_eq!(ends(payload(pm_id, event).as_bytes(), 3), expected, "{pm_id} {event}");
        }
    }

    #[test]
    fn what_the_agent_replies_is_read_and_other_actions_are_passed_over() {
        let payload = |pm_id: u32, action: &str, answer: &str| {
            format!(
                r#"j:{{"data":{{"at":1,"action_name":"{action}","return":{answer}}},"process":{{"pm_id":{pm_id}}}}}"#
            )
        };
        let read = |payload: String| reply(payload.as_bytes(), 3);
        let busy = r#"{"err":"A profiling is already running","success":false}"#;
        assert_eq!(read(payload(3, SAMPLE_HEAP, r#"{"success":true,"uuid":"a"}"#)), Some(Ok("a".to_owned())));
        assert_eq!(read(payload(3, SAMPLE_HEAP, busy)), Some(Err("A profiling is already running".to_owned())));
        assert_eq!(read(payload(3, SAMPLE_HEAP, r#"{"success":false}"#)), Some(Err("no reason".to_owned())));
        assert_eq!(read(payload(4, SAMPLE_HEAP, busy)), None);
        assert_eq!(read(payload(3, "km:heap:sampling:stop", busy)), None);
        assert_eq!(read(payload(3, "refresh", r#""done""#)), None);
    }

    #[test]
    fn the_bus_tells_the_lines_of_the_log_exceptions_and_who_asked() {
        let read = |topic: &str, json: &str| bus_line(topic.as_bytes(), json.as_bytes());
        let log = r#"{"process":{"pm_id":"PM2","name":"PM2"},"at":5,"data":"App [api:3] exited with code [0] via signal [SIGSEGV]\n"}"#;
        let process = Named { app: "api".to_owned(), pm_id: 3, replaced: false };
        let exited = DaemonEvent::Exited { process, code: 0, signal: "SIGSEGV".to_owned() };
        assert_eq!(read("s:log:PM2", log), Some(DaemonLine { at: WallTime(5), event: exited, read_at: None }));
        let exception = r#"{"at":5,"data":{"message":"boom\u001b[31m"},"process":{"pm_id":3,"env":{}}}"#;
        let event = DaemonEvent::Exception { pm_id: 3, message: "boom [31m".to_owned() };
        assert_eq!(read("s:process:exception", exception).map(|line| line.event), Some(event));
        let asked = |event: &str, by_hand: bool| {
            format!(r#"{{"event":"{event}","manually":{by_hand},"at":5,"process":{{"pm_id":3}}}}"#)
        };
        let confirmed = Some(DaemonEvent::Confirmed { pm_id: 3 });
        assert_eq!(read("s:process:event", &asked("restart", true)).map(|line| line.event), confirmed);
        for other in [asked("restart", false), asked("exit", true), "{}".to_owned(), "no JSON".to_owned()] {
            assert_eq!(read("s:process:event", &other), None, "{other}");
        }
    }
}

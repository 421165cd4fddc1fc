//! A listener on pm2's public socket, for profiles only.
//!
//! The daemon sends everything there to everybody, and buffers without bound for a listener that does not read. So this
//! one reads always, keeps nothing but frames on the topic of profiles, and is connected only while a profile is awaited.
//! It sends nothing.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::net::UnixStream;

use super::amp::{INITIATED, VERSION};

/// The topic on which pm2's agent sends profiles.
const TOPIC: &[u8] = b"s:profilings";
/// The longest frame that is read.
pub const LARGEST_FRAME: u64 = 64 << 20;
const READ_SIZE: usize = 64 * 1024;

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
    /// Connecting or reading failed, or the daemon went away.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes are no frame of two arguments.
    #[error("not a published frame: it begins with {0:#04x}")]
    Header(u8),
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
        match UnixStream::connect(&path).await {
            Ok(stream) => Ok(Self { path, stream: BufReader::with_capacity(READ_SIZE, stream) }),
            Err(error) => Err(BusError { path, kind: error.into() }),
        }
    }

    /// Reads until the heap profile that we asked of this process has come, and returns its text. The caller sets the
    /// deadline.
    pub async fn heap_profile(&mut self, pm_id: u32) -> Result<String, BusError> {
        loop {
            match next(&mut self.stream, LARGEST_FRAME).await {
                Ok(None) => {}
                Ok(Some(payload)) => {
                    if let Some(profile) = ours(&payload, pm_id) {
                        return Ok(profile);
                    }
                }
                Err(kind) => return Err(BusError { path: self.path.clone(), kind }),
            }
        }
    }
}

/// Reads one frame; its payload where its topic is that of profiles.
async fn next(stream: &mut (impl AsyncRead + Unpin), limit: u64) -> Result<Option<Vec<u8>>, BusErrorKind> {
    let header = stream.read_u8().await?;
    if header != VERSION << 4 | 2 {
        return Err(BusErrorKind::Header(header));
    }
    let length = u64::from(stream.read_u32().await?);
    if length > limit {
        return Err(BusErrorKind::TooLarge(length));
    }
    let mut topic = Vec::new();
    let wanted = length == TOPIC.len() as u64;
    if wanted {
        take(stream, length, &mut topic).await?;
    } else {
        skip(stream, length).await?;
    }
    let wanted = wanted && topic == TOPIC;
    let payload_length = u64::from(stream.read_u32().await?);
    if length + payload_length > limit {
        return Err(BusErrorKind::TooLarge(length + payload_length));
    }
    if !wanted {
        skip(stream, payload_length).await?;
        return Ok(None);
    }
    let mut payload = Vec::new();
    take(stream, payload_length, &mut payload).await?;
    Ok(Some(payload))
}

async fn take(stream: &mut (impl AsyncRead + Unpin), length: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let read = stream.take(length).read_to_end(into).await?;
    if read as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn skip(stream: &mut (impl AsyncRead + Unpin), length: u64) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut stream.take(length), &mut tokio::io::sink()).await?;
    if skipped == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// The profile's text where this is the one we asked for; pm2's agent sends it inline.
fn ours(payload: &[u8], pm_id: u32) -> Option<String> {
    #[derive(Deserialize)]
    struct Payload {
        data: Data,
        process: Process,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(rename = "data")]
        text: String,
        initiated: String,
        r#type: String,
    }
    #[derive(Deserialize)]
    struct Process {
        pm_id: u32,
    }
    let read: Payload = serde_json::from_slice(payload.strip_prefix(b"j:")?).ok()?;
    let fits = read.process.pm_id == pm_id && read.data.r#type == "heapprofile" && read.data.initiated == INITIATED;
    fits.then_some(read.data.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(topic: &str, payload: &str) -> Vec<u8> {
        let mut bytes = vec![0x12];
        for argument in [topic, payload] {
            bytes.extend(u32::try_from(argument.len()).unwrap().to_be_bytes());
            bytes.extend(argument.as_bytes());
        }
        bytes
    }

    #[tokio::test]
    async fn only_profiles_are_kept() {
        let bytes = [frame("s:log:out", "j:{}"), frame("s:logilings!", "j:1"), frame("s:profilings", "j:2")].concat();
        let mut input = bytes.as_slice();
        assert_eq!(next(&mut input, 100).await.unwrap(), None);
        assert_eq!(next(&mut input, 100).await.unwrap(), None);
        assert_eq!(next(&mut input, 100).await.unwrap(), Some(b"j:2".to_vec()));
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
        let payload = |pm_id: u32, kind: &str, by: &str| {
            format!(r#"j:{{"data":{{"data":"x","type":"{kind}","initiated":"{by}"}},"process":{{"pm_id":{pm_id}}}}}"#)
        };
        assert_eq!(ours(payload(3, "heapprofile", INITIATED).as_bytes(), 3).as_deref(), Some("x"));
        for other in [payload(4, "heapprofile", INITIATED), payload(3, "cpuprofile", INITIATED)] {
            assert_eq!(ours(other.as_bytes(), 3), None);
        }
        assert_eq!(ours(payload(3, "heapprofile", "manual").as_bytes(), 3), None);
        assert_eq!(ours(b"j:nonsense", 3), None);
    }
}

//! The AMP framing of pm2's sockets: fixed requests to bytes, bytes to frames.
//!
//! A frame is one byte `version << 4 | count` followed, for each argument, by a big-endian 32-bit length and that many
//! bytes; the bytes begin with `j:` (JSON), `s:` (text) or neither (a blob). A request carries one JSON
//! argument and an id that the reply repeats.
//!
//! pm2's daemon dies, with every app under it, when a request is malformed. So this room refuses to be generic: a
//! request is a [`Request`], and each variant has an encoder of its own whose text is fixed but for checked numbers.
//! It also refuses to trust a length: a reply over its limit is turned away when its prefix has been read, before a
//! byte of it is kept.

use thiserror::Error;

/// The version of the framing, in the upper half of a frame's first byte.
pub(crate) const VERSION: u8 = 1;
const LENGTH_SIZE: usize = 4;
/// What an argument that is JSON begins with.
pub(crate) const JSON_MARK: &[u8] = b"j:";
/// An argument's buffer starts no larger than this, whatever length is announced: a liar costs nothing.
const FIRST_RESERVE: usize = 64 * 1024;

/// A call that pm2's daemon can be asked for. There is no other road to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The process list.
    GetMonitorData,
    /// The daemon's version.
    GetVersion,
    /// Replaces one process: a cluster worker by a new one beside it, anything else by a restart.
    ReloadProcessId(u32),
    /// Stops one process and starts it anew.
    RestartProcessId(u32),
    /// Has pm2's agent in one process sample its allocations; the profile comes on the public socket.
    SampleHeap {
        /// pm2's number of the process.
        pm_id: u32,
        /// How long to sample, in milliseconds.
        timeout_ms: u32,
        /// Average bytes between two samples.
        sampling_interval: u32,
    },
}

/// The action of pm2's agent that samples allocations.
pub const SAMPLE_HEAP: &str = "km:heap:sampling:start";

/// Who asked for a profile: the agent repeats it with the profile, so that no other one is taken for it.
pub const INITIATED: &str = "leakslope";

impl Request {
    /// pm2's name of the method, for logs and errors.
    pub fn method(self) -> &'static str {
        match self {
            Self::GetMonitorData => "getMonitorData",
            Self::GetVersion => "getVersion",
            Self::ReloadProcessId(_) => "reloadProcessId",
            Self::RestartProcessId(_) => "restartProcessId",
            Self::SampleHeap { .. } => "msgProcess",
        }
    }

    /// Whether the call changes something, so that it must never be sent twice.
    pub fn acts(self) -> bool {
        match self {
            Self::GetMonitorData | Self::GetVersion => false,
            Self::ReloadProcessId(_) | Self::RestartProcessId(_) | Self::SampleHeap { .. } => true,
        }
    }

    /// Encodes the call as one frame whose last argument is `id`.
    pub fn encode(self, id: RequestId) -> Vec<u8> {
        let message = match self {
            Self::GetMonitorData => r#"j:{"type":"call","method":"getMonitorData","args":[{}]}"#.to_owned(),
            Self::GetVersion => r#"j:{"type":"call","method":"getVersion","args":[{}]}"#.to_owned(),
            Self::ReloadProcessId(id) => {
                format!(r#"j:{{"type":"call","method":"reloadProcessId","args":[{{"id":{id}}}]}}"#)
            }
            Self::RestartProcessId(id) => {
                format!(r#"j:{{"type":"call","method":"restartProcessId","args":[{{"id":{id}}}]}}"#)
            }
            Self::SampleHeap { pm_id, timeout_ms, sampling_interval } => format!(
                concat!(
                    r#"j:{{"type":"call","method":"msgProcess","args":[{{"id":{},"msg":"{}","#,
                    r#""opts":{{"timeout":{},"samplingInterval":{},"initiated":"{}"}}}}]}}"#
                ),
                pm_id, SAMPLE_HEAP, timeout_ms, sampling_interval, INITIATED
            ),
        };
        frame(&[message.as_bytes(), id.to_string().as_bytes()])
    }
}

/// The mark by which a reply is matched to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

impl std::fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "s:leakslope:{}", self.0)
    }
}

/// Lays out one frame of at most 15 arguments.
fn frame(arguments: &[&[u8]]) -> Vec<u8> {
    let count = u8::try_from(arguments.len()).ok().filter(|count| *count <= 0x0f);
    let count = count.expect("invariant: a fixed request has two arguments");
    let mut bytes =
        Vec::with_capacity(1 + arguments.iter().map(|argument| LENGTH_SIZE + argument.len()).sum::<usize>());
    bytes.push(VERSION << 4 | count);
    for argument in arguments {
        let length = u32::try_from(argument.len()).expect("invariant: a fixed request is short");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(argument);
    }
    bytes
}

/// Why bytes are no frame. The connection they came from is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The first byte names another protocol version.
    #[error("not an AMP frame: version {found} where {VERSION} was expected")]
    Version {
        /// The version in the first byte.
        found: u8,
    },
    /// The frame announces no argument at all.
    #[error("an AMP frame without arguments")]
    Empty,
    /// The announced lengths exceed the limit.
    #[error("a reply of at least {announced} bytes, over the limit of {limit}: raise collect.max_reply")]
    TooLarge {
        /// Sum of the lengths announced so far.
        announced: u64,
        /// The limit.
        limit: usize,
    },
}

/// One complete frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The arguments in order, with their two-byte mark.
    pub arguments: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Frame {
    /// Shows sizes only: the content of a reply may hold secrets.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes: Vec<usize> = self.arguments.iter().map(Vec::len).collect();
        formatter.debug_struct("Frame").field("argument_sizes", &sizes).finish()
    }
}

impl Frame {
    /// Returns the JSON text of an argument, where there is such an argument and it is marked as JSON.
    pub fn json(&self, index: usize) -> Option<&[u8]> {
        self.arguments.get(index)?.strip_prefix(JSON_MARK)
    }

    /// Whether the last argument is the id of that request.
    pub fn answers(&self, id: RequestId) -> bool {
        self.arguments.last().is_some_and(|last| last.as_slice() == id.to_string().as_bytes())
    }
}

/// What bytes are handed to.
type Taker<'a> = &'a mut dyn FnMut(&[u8]);

/// Assembles frames from pieces of any size, keeping at most `limit` bytes of one frame.
pub struct Decoder {
    limit: usize,
    announced: u64,
    arguments: Vec<Vec<u8>>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Header,
    Length { left: u8, bytes: [u8; LENGTH_SIZE], have: usize },
    Argument { left: u8, missing: usize },
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Decoder")
            .field("limit", &self.limit)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// Makes a decoder that turns away frames whose arguments take more than `limit` bytes together.
    pub fn new(limit: usize) -> Self {
        Self { limit, announced: 0, arguments: Vec::new(), state: State::Header }
    }

    /// Whether a frame has begun and is not complete.
    pub fn is_midway(&self) -> bool {
        !matches!(self.state, State::Header)
    }

    /// Takes bytes from the front of `input` until a frame is complete or nothing is left. What follows a frame stays in
    /// `input`.
    ///
    /// After an error the decoder holds nothing and its stream must be given up.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        self.advance(input, None)
    }

    /// As [`Self::feed`], but hands the bytes of the first argument, mark and all, to `take` as they come and keeps none: it is
    /// empty in the frame.
    pub fn feed_passing_on(&mut self, input: &mut &[u8], take: Taker<'_>) -> Result<Option<Frame>, FrameError> {
        self.advance(input, Some(take))
    }

    fn advance(&mut self, input: &mut &[u8], mut take: Option<Taker<'_>>) -> Result<Option<Frame>, FrameError> {
        while let Some(first) = input.first().copied() {
            match self.state {
                State::Header => {
                    *input = &input[1..];
                    self.begin(first)?;
                }
                State::Length { left, mut bytes, have } => {
                    let taken = input.len().min(LENGTH_SIZE - have);
                    bytes[have..have + taken].copy_from_slice(&input[..taken]);
                    *input = &input[taken..];
                    self.state = State::Length { left, bytes, have: have + taken };
                    if have + taken == LENGTH_SIZE {
                        self.open_argument(left, u32::from_be_bytes(bytes))?;
                    }
                }
                State::Argument { left, missing } => {
                    let taken = input.len().min(missing);
                    let passed_on = take.as_mut().filter(|_| self.arguments.len() == 1);
                    if let Some(take) = passed_on {
                        take(&input[..taken]);
                    } else if let Some(argument) = self.arguments.last_mut() {
                        if argument.capacity() - argument.len() < taken {
                            // More than the first piece has come, so the rest is believed in; a buffer that grew step by
                            // step would be held twice while it is copied.
                            let believed = if argument.is_empty() { missing.min(FIRST_RESERVE) } else { missing };
                            argument.reserve_exact(believed.max(taken));
                        }
                        argument.extend_from_slice(&input[..taken]);
                    }
                    *input = &input[taken..];
                    self.state = State::Argument { left, missing: missing - taken };
                }
            }
            if let State::Argument { left, missing: 0 } = self.state {
                if left == 0 {
                    self.state = State::Header;
                    return Ok(Some(Frame { arguments: std::mem::take(&mut self.arguments) }));
                }
                self.state = State::Length { left, bytes: [0; LENGTH_SIZE], have: 0 };
            }
        }
        Ok(None)
    }

    fn begin(&mut self, header: u8) -> Result<(), FrameError> {
        let (version, left) = (header >> 4, header & 0x0f);
        if version != VERSION {
            return Err(FrameError::Version { found: version });
        }
        if left == 0 {
            return Err(FrameError::Empty);
        }
        self.announced = 0;
        self.state = State::Length { left, bytes: [0; LENGTH_SIZE], have: 0 };
        Ok(())
    }

    fn open_argument(&mut self, left: u8, length: u32) -> Result<(), FrameError> {
        self.announced += u64::from(length);
        let missing = usize::try_from(length).unwrap_or(usize::MAX);
        if self.announced > u64::try_from(self.limit).unwrap_or(u64::MAX) {
            let error = FrameError::TooLarge { announced: self.announced, limit: self.limit };
            *self = Self::new(self.limit);
            return Err(error);
        }
        self.arguments.push(Vec::new());
        self.state = State::Argument { left: left - 1, missing };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_whole(limit: usize, mut bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        Decoder::new(limit).feed(&mut bytes)
    }

    #[test]
    fn requests_are_the_bytes_that_pm2_sends_itself() {
        let version = Request::GetVersion.encode(RequestId(7));
        assert_eq!(&version[..5], [0x12, 0, 0, 0, 0x33]);
        assert_eq!(&version[5..56], br#"j:{"type":"call","method":"getVersion","args":[{}]}"#);
        assert_eq!(&version[56..60], [0, 0, 0, 13]);
        assert_eq!(&version[60..], b"s:leakslope:7");
    }

    #[test]
    fn every_request_is_valid_json_with_one_argument() {
        for request in [Request::GetMonitorData, Request::GetVersion] {
            let frame = decode_whole(1000, &request.encode(RequestId(1))).unwrap().unwrap();
            let message: serde_json::Value = serde_json::from_slice(frame.json(0).unwrap()).unwrap();
            assert_eq!(message["method"], request.method());
            assert_eq!(message["args"], serde_json::json!([{}]), "the daemon dies when the argument is missing");
            assert!(frame.answers(RequestId(1)) && !frame.answers(RequestId(2)));
        }
    }

    #[test]
    fn requests_that_act_name_one_process_by_its_number() {
        for (request, id) in [(Request::ReloadProcessId(0), 0), (Request::RestartProcessId(u32::MAX), u32::MAX)] {
            let frame = decode_whole(1000, &request.encode(RequestId(1))).unwrap().unwrap();
            let message: serde_json::Value = serde_json::from_slice(frame.json(0).unwrap()).unwrap();
            let expected = serde_json::json!({"type": "call", "method": request.method(), "args": [{"id": id}]});
            assert_eq!(message, expected);
            assert!(request.acts());
        }
    }

    #[test]
    fn sampling_is_asked_for_in_the_exact_words_of_the_agent() {
        let request = Request::SampleHeap { pm_id: 3, timeout_ms: 30_000, sampling_interval: 32_768 };
        let frame = decode_whole(1000, &request.encode(RequestId(1))).unwrap().unwrap();
        let expected = concat!(
            r#"{"type":"call","method":"msgProcess","args":[{"id":3,"msg":"km:heap:sampling:start","#,
            r#""opts":{"timeout":30000,"samplingInterval":32768,"initiated":"leakslope"}}]}"#
        );
        assert_eq!(std::str::from_utf8(frame.json(0).unwrap()).unwrap(), expected);
        assert!(serde_json::from_str::<serde_json::Value>(expected).is_ok() && request.acts());
    }

    #[test]
    fn what_is_no_frame_is_turned_away() {
        let cases: [(&[u8], FrameError); 5] = [
            (b"GET / HTTP/1.1", FrameError::Version { found: 4 }),
            (b"\x00", FrameError::Version { found: 0 }),
            (b"\x10", FrameError::Empty),
            (b"\x11\xff\xff\xff\xff", FrameError::TooLarge { announced: 0xffff_ffff, limit: 100 }),
            (b"\x12\0\0\0\x01x\0\0\0\x64", FrameError::TooLarge { announced: 101, limit: 100 }),
        ];
        for (bytes, expected) in cases {
            assert_eq!(decode_whole(100, bytes), Err(expected), "{bytes:?}");
        }
    }

    #[test]
    fn an_announced_length_is_not_reserved_before_it_arrives() {
        let mut decoder = Decoder::new(usize::MAX);
        let mut bytes: &[u8] = b"\x11\xff\xff\xff\xffj:";
        assert_eq!(decoder.feed(&mut bytes), Ok(None));
        assert!(decoder.is_midway());
        assert!(decoder.arguments[0].capacity() <= FIRST_RESERVE);
        let mut decoder = Decoder::new(usize::MAX);
        assert_eq!(decoder.feed_passing_on(&mut b"\x11\xff\xff\xff\xffj:".as_slice(), &mut |_| {}), Ok(None));
        assert_eq!(decoder.arguments[0].capacity(), 0, "what is passed on takes no room");
    }

    #[test]
    fn the_first_argument_is_passed_on_and_the_others_are_kept() {
        let bytes = frame(&[b"j:[1,2]", b"id:1"]);
        let (mut decoder, mut passed_on, mut answered) = (Decoder::new(100), Vec::new(), None);
        for byte in bytes {
            answered =
                decoder.feed_passing_on(&mut [byte].as_slice(), &mut |some| passed_on.extend_from_slice(some)).unwrap();
        }
        assert_eq!(passed_on, b"j:[1,2]");
        assert_eq!(answered.unwrap().arguments, [Vec::new(), b"id:1".to_vec()]);
    }

    #[test]
    fn empty_arguments_and_frames_in_a_row() {
        let bytes = [frame(&[b"", b"s:a"]), frame(&[b"j:1"])].concat();
        let mut input = bytes.as_slice();
        let mut decoder = Decoder::new(10);
        assert_eq!(decoder.feed(&mut input).unwrap().unwrap().arguments, [b"".to_vec(), b"s:a".to_vec()]);
        assert_eq!(decoder.feed(&mut input).unwrap().unwrap().json(0), Some(b"1".as_slice()));
        assert!(input.is_empty() && !decoder.is_midway());
    }

    #[test]
    fn debug_output_hides_the_content() {
        let frame = decode_whole(100, &frame(&[b"j:\"hunter2\""])).unwrap().unwrap();
        assert_eq!(format!("{frame:?}"), "Frame { argument_sizes: [11] }");
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_frames(
            frames in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..16), 1..5),
            cuts in prop::collection::vec(1usize..9, 1..20),
        ) {
            let bytes: Vec<u8> = frames
                .iter()
                .flat_map(|arguments| frame(&arguments.iter().map(Vec::as_slice).collect::<Vec<_>>()))
                .collect();
            let mut decoder = Decoder::new(15 * 40);
            let mut found = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (mut piece, after) = rest.split_at((*cut).min(rest.len()));
                rest = after;
                while !piece.is_empty() {
                    if let Some(frame) = decoder.feed(&mut piece).unwrap() {
                        found.push(frame.arguments);
                    }
                }
            }
            prop_assert_eq!(found, frames);
            prop_assert!(!decoder.is_midway());
        }

        #[test]
        fn noise_never_panics_nor_exceeds_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..300), limit in 0usize..200) {
            let mut decoder = Decoder::new(limit);
            let mut input = bytes.as_slice();
            while !input.is_empty() {
                match decoder.feed(&mut input) {
                    Ok(Some(frame)) => prop_assert!(frame.arguments.iter().map(Vec::len).sum::<usize>() <= limit),
                    Ok(None) => prop_assert!(input.is_empty()),
                    Err(_) => break,
                }
                prop_assert!(decoder.arguments.iter().map(Vec::len).sum::<usize>() <= limit);
            }
        }
    }
}

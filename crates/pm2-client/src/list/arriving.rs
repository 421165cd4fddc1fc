//! Reading a reply while it arrives, an entry at a time, so that a list of many megabytes is never held.
//!
//! pm2 writes a list with nothing between its tokens, so its beginning is known to the letter. A reply that begins in another
//! way is gathered and read as a whole.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::scan::Scan;
use super::{Gathered, ListError, ProcessList, Stopped, entries, place_of, read_entry, read_reply, reply_argument};

/// How a reply with a list begins.
const OPENING: &str = r#"{"args":[["#;

/// A reply to `getMonitorData` of which a part has come. It holds the entries that are read, at most twice the largest
/// entry's text, and whatever follows the list.
#[derive(Debug)]
pub struct ArrivingReply {
    limit: usize,
    gathered: Gathered,
    /// What has come and is not read yet.
    pending: Vec<u8>,
    /// Bytes that stood before it.
    read: usize,
    /// Nothing is tried before so much is pending: an entry that is cut is not read anew with every piece of it.
    patience: usize,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Too little has come to tell.
    Opening,
    /// Inside the list, before an entry. Only before the first may the list end.
    Entry { first: bool },
    /// After the list.
    Rest,
    /// In another way than pm2's: gathered.
    Whole,
    /// It was no JSON from this byte on.
    Broken(usize),
}

/// How far reading came.
enum Step {
    /// So many bytes are done with, and this is what comes next.
    Done(usize, State),
    /// What is pending ends too early.
    Cut,
    /// It is no JSON from this byte of what is pending.
    Wrong(usize),
}

impl ArrivingReply {
    /// Begins a reply of which at most `limit` entries are kept.
    pub fn new(limit: usize) -> Self {
        let gathered = Gathered::default();
        Self { limit, gathered, pending: Vec::new(), read: 0, patience: 0, state: State::Opening }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Broken(_)) {
            self.read += bytes.len();
            return;
        }
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= self.patience {
            self.advance();
        }
    }

    /// Ends the reply.
    ///
    /// # Errors
    /// As [`read_reply`].
    pub fn finish(mut self) -> Result<ProcessList, ListError> {
        self.advance();
        let length = self.read + self.pending.len();
        match self.state {
            State::Opening | State::Whole => read_reply(&self.pending, self.limit),
            State::Broken(offset) => Err(ListError::NotJson { offset, length }),
            State::Entry { .. } => {
                let cut = std::str::from_utf8(&self.pending).map_or_else(|error| error.valid_up_to(), str::len);
                Err(ListError::NotJson { offset: self.read + cut, length })
            }
            State::Rest => {
                // What stands around the list is checked as a reply with an empty one.
                let frame = [OPENING.as_bytes(), b"]", &self.pending].concat();
                let before = frame.len() - self.pending.len();
                match reply_argument(&frame).map(|list| entries(list, self.limit)) {
                    Err(ListError::NotJson { offset, .. }) => {
                        Err(ListError::NotJson { offset: offset.saturating_sub(before) + self.read, length })
                    }
                    Err(error) => Err(error),
                    Ok(None) => Err(ListError::Shape { expected: "process list" }),
                    Ok(Some(_empty)) => Ok(self.gathered.into_list()),
                }
            }
        }
    }

    /// Reads what is pending as far as it goes.
    fn advance(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let (text, torn) = match std::str::from_utf8(&pending) {
            Ok(text) => (text, false),
            Err(error) => {
                let (valid, _) = pending.split_at(error.valid_up_to());
                // Without a length the last letter may only be cut.
                (std::str::from_utf8(valid).unwrap_or_default(), error.error_len().is_some())
            }
        };
        let mut at = 0;
        loop {
            match self.step(&text[at..]) {
                Some(Step::Done(bytes, next)) => {
                    at += bytes;
                    self.state = next;
                }
                Some(Step::Cut) if torn => self.state = State::Broken(self.read + text.len()),
                Some(Step::Wrong(offset)) => self.state = State::Broken(self.read + at + offset),
                Some(Step::Cut) | None => break,
            }
        }
        self.patience = if at == 0 { 2 * pending.len() } else { 0 };
        if matches!(self.state, State::Broken(_)) {
            at = pending.len();
        }
        self.read += at;
        self.pending = pending;
        self.pending.drain(..at);
    }

    /// Reads one part of the reply at the beginning of `text`; none where nothing more is to be read before the end.
    fn step(&mut self, text: &str) -> Option<Step> {
        match self.state {
            State::Opening if text.starts_with(OPENING) => {
                Some(Step::Done(OPENING.len(), State::Entry { first: true }))
            }
            State::Opening if OPENING.starts_with(text) => Some(Step::Cut),
            State::Opening => Some(Step::Done(0, State::Whole)),
            State::Entry { first: true } if text.trim_start().starts_with(']') => {
                Some(Step::Done(after_blanks(text, 0) + 1, State::Rest))
            }
            State::Entry { .. } => Some(self.entry(text)),
            State::Rest | State::Whole | State::Broken(_) => None,
        }
    }

    /// Reads an entry and what separates it from the next.
    fn entry(&mut self, text: &str) -> Step {
        let mut scan = Scan::new(text);
        let enough = self.gathered.holds(self.limit);
        let entry = if enough { scan.skip().map(|()| None).ok_or(Stopped) } else { read_entry(&mut scan) };
        let Ok(entry) = entry else {
            return if scan.is_at_end() { Step::Cut } else { wrong(text) };
        };
        let end = after_blanks(text, scan.at());
        let next = match text.as_bytes().get(end) {
            None => return Step::Cut,
            Some(b',') => State::Entry { first: false },
            Some(b']') => State::Rest,
            // The reader names the byte behind the wrong one.
            Some(_) => return Step::Wrong(end + 1),
        };
        if enough {
            self.gathered.list.over_limit += 1;
        } else {
            self.gathered.add(entry);
        }
        Step::Done(end + 1, next)
    }
}

/// What serde's reader says of a text that is no JSON, for it knows the place.
fn wrong(text: &str) -> Step {
    let place = match IgnoredAny::deserialize(&mut serde_json::Deserializer::from_str(text)) {
        Ok(_ignored) => 0,
        Err(error) if error.is_eof() => text.len(),
        Err(error) => place_of(&error, text),
    };
    // A number that is cut behind its point is wrong rather than at its end; with more of it, one sees.
    if place >= text.len() { Step::Cut } else { Step::Wrong(place) }
}

/// The place of the first letter from `at` on that is no blank of JSON.
fn after_blanks(text: &str, at: usize) -> usize {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    at + text.as_bytes()[at..].iter().take_while(|byte| blank(byte)).count()
}

//! JSON from a stream, a chunk at a time: just the shapes a heap file is made of.
//!
//! Long arrays of whole numbers are handed on row by row and strings byte by byte, so the file is never held in memory
//! and nesting costs no stack. It refuses to build values: what is not asked for is skipped.

use std::io::Read;

use super::error::{HeapError, HeapErrorKind};

/// Bytes read from the file at a time.
const CHUNK: usize = 256 * 1024;
/// Bytes that must be at hand before a number is read, so that none is cut by a chunk's end.
const LOOK_AHEAD: usize = 64;
/// The widest row (fields of a node, an edge, a location) this reader accepts.
pub const MAX_ROW: usize = 32;

type Outcome<T> = Result<T, HeapErrorKind>;

/// A stream of JSON with its place in the file.
#[derive(Debug)]
pub struct Source<R> {
    reader: R,
    buffer: Box<[u8]>,
    position: usize,
    end: usize,
    /// Bytes of the file before the buffer's first.
    before: u64,
    finished: bool,
    /// The top-level key being read.
    pub key: &'static str,
}

impl<R: Read> Source<R> {
    /// Starts at the beginning of `reader`.
    pub fn new(reader: R) -> Self {
        let buffer = vec![0; CHUNK].into_boxed_slice();
        Self { reader, buffer, position: 0, end: 0, before: 0, finished: false, key: "" }
    }

    /// Returns how many bytes have been consumed.
    pub fn offset(&self) -> u64 {
        self.before + self.position as u64
    }

    /// Adds the file and the place to `kind`.
    pub fn error(&self, subject: &str, kind: HeapErrorKind) -> HeapError {
        HeapError { subject: subject.to_owned(), offset: self.offset(), key: self.key, kind }
    }

    /// Reads until `LOOK_AHEAD` bytes are at hand or the file ends; says whether any byte is.
    #[cold]
    fn refill(&mut self) -> Outcome<bool> {
        self.buffer.copy_within(self.position..self.end, 0);
        self.before += self.position as u64;
        self.end -= self.position;
        self.position = 0;
        while !self.finished && self.end < LOOK_AHEAD {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.finished = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // A decompressor says so of a file that is cut off.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => self.finished = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.end > 0)
    }

    #[inline]
    fn ensure(&mut self) -> Outcome<bool> {
        if self.end - self.position >= LOOK_AHEAD || (self.finished && self.position < self.end) {
            return Ok(true);
        }
        self.refill()
    }

    /// Returns the next byte that is not white space, without taking it.
    pub fn peek(&mut self) -> Outcome<u8> {
        loop {
            if !self.ensure()? {
                return Err(HeapErrorKind::Truncated);
            }
            while self.position < self.end {
                let byte = self.buffer[self.position];
                if !is_space(byte) {
                    return Ok(byte);
                }
                self.position += 1;
            }
        }
    }

    /// Takes `wanted`, or says what stands there instead.
    pub fn expect(&mut self, wanted: u8, expected: &'static str) -> Outcome<()> {
        let found = self.peek()?;
        if found != wanted {
            return Err(HeapErrorKind::Unexpected { expected, found });
        }
        self.position += 1;
        Ok(())
    }

    /// Steps to the next element of a list or object that ends with `close`; false at its end.
    ///
    /// `first` is true before the first element and is cleared.
    pub fn next(&mut self, close: u8, first: &mut bool) -> Outcome<bool> {
        let found = self.peek()?;
        if found == close {
            self.position += 1;
            return Ok(false);
        }
        if !std::mem::take(first) {
            if found != b',' {
                return Err(HeapErrorKind::Unexpected { expected: "',' or the end", found });
            }
            self.position += 1;
        }
        Ok(true)
    }

    /// Says whether only white space is left.
    pub fn at_end(&mut self) -> Outcome<bool> {
        match self.peek() {
            Ok(_) => Ok(false),
            Err(HeapErrorKind::Truncated) => Ok(true),
            Err(kind) => Err(kind),
        }
    }

    /// Reads an array of whole numbers as rows of `width`, each handed to `row`.
    ///
    /// Fails if the array ends inside a row.
    pub fn rows(&mut self, width: usize, mut row: impl FnMut(&[u64; MAX_ROW]) -> Outcome<()>) -> Outcome<()> {
        debug_assert!(width <= MAX_ROW);
        self.expect(b'[', "a list of numbers")?;
        if self.peek()? == b']' {
            self.position += 1;
            return Ok(());
        }
        let mut values = [0_u64; MAX_ROW];
        let mut column = 0;
        let mut after_number = false;
        loop {
            if !self.ensure()? {
                return Err(HeapErrorKind::Truncated);
            }
            // A number that starts before `safe` lies in the buffer whole.
            let safe = if self.finished { self.end } else { self.end - LOOK_AHEAD + 1 };
            let bytes = &self.buffer[..self.end];
            let mut position = self.position;
            let outcome = loop {
                let Some(&found) = bytes[..safe].get(position) else { break Ok(false) };
                if is_space(found) {
                    position += 1;
                } else if after_number {
                    match found {
                        b',' => after_number = false,
                        b']' if column == 0 => {
                            position += 1;
                            break Ok(true);
                        }
                        b']' => {
                            let text = format!("the list ends inside a row: {column} of {width} fields");
                            break Err(HeapErrorKind::Contradiction(text));
                        }
                        found => break Err(HeapErrorKind::Unexpected { expected: "',' or ']'", found }),
                    }
                    position += 1;
                } else {
                    match number(bytes, position) {
                        // A list ends with a bracket: digits at the file's end are cut off, and the number may be longer.
                        Ok((_, end)) if end == bytes.len() => break Err(HeapErrorKind::Truncated),
                        Ok((value, end)) => {
                            values[column] = value;
                            position = end;
                        }
                        Err(kind) => break Err(kind),
                    }
                    after_number = true;
                    column += 1;
                    if column == width {
                        column = 0;
                        if let Err(kind) = row(&values) {
                            break Err(kind);
                        }
                    }
                }
            };
            self.position = position;
            if outcome? {
                return Ok(());
            }
        }
    }

    /// Reads a string, handing its decoded bytes on in pieces.
    pub fn string(&mut self, mut piece: impl FnMut(&[u8])) -> Outcome<()> {
        self.expect(b'"', "a string")?;
        // The first half of a surrogate pair, waiting for the second.
        let mut high: Option<u32> = None;
        loop {
            if !self.ensure()? {
                return Err(HeapErrorKind::Truncated);
            }
            let bytes = &self.buffer[self.position..self.end];
            let plain =
                bytes.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20).unwrap_or(bytes.len());
            if plain > 0 {
                if high.take().is_some() {
                    piece(REPLACEMENT);
                }
                piece(&bytes[..plain]);
                self.position += plain;
                continue;
            }
            match bytes[0] {
                b'"' => {
                    if high.is_some() {
                        piece(REPLACEMENT);
                    }
                    self.position += 1;
                    return Ok(());
                }
                b'\\' => self.escape(&mut high, &mut piece)?,
                found => return Err(HeapErrorKind::Unexpected { expected: "a string's text", found }),
            }
        }
    }

    /// Reads one escape; the buffer's next byte is the backslash.
    fn escape(&mut self, high: &mut Option<u32>, piece: &mut impl FnMut(&[u8])) -> Outcome<()> {
        let bytes = &self.buffer[self.position..self.end];
        let Some(&letter) = bytes.get(1) else { return Err(HeapErrorKind::Truncated) };
        if letter == b'u' {
            let Some(digits) = bytes.get(2..6) else { return Err(HeapErrorKind::Truncated) };
            let mut code = 0;
            for &digit in digits {
                let value = char::from(digit)
                    .to_digit(16)
                    .ok_or(HeapErrorKind::Unexpected { expected: "four hexadecimal digits", found: digit })?;
                code = code << 4 | value;
            }
            self.position += 6;
            let mut encoded = [0; 4];
            match (high.take(), code) {
                (Some(first), 0xdc00..=0xdfff) => {
                    let whole = 0x1_0000 + ((first - 0xd800) << 10) + (code - 0xdc00);
                    let letter = char::from_u32(whole).unwrap_or(char::REPLACEMENT_CHARACTER);
                    piece(letter.encode_utf8(&mut encoded).as_bytes());
                }
                (before, code) => {
                    if before.is_some() {
                        piece(REPLACEMENT);
                    }
                    if (0xd800..=0xdbff).contains(&code) {
                        *high = Some(code);
                    } else {
                        let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                        piece(letter.encode_utf8(&mut encoded).as_bytes());
                    }
                }
            }
            return Ok(());
        }
        let decoded: &[u8] = match letter {
            b'n' => b"\n",
            b't' => b"\t",
            b'r' => b"\r",
            b'b' => b"\x08",
            b'f' => b"\x0c",
            b'"' => b"\"",
            b'\\' => b"\\",
            b'/' => b"/",
            found => return Err(HeapErrorKind::Unexpected { expected: "an escape", found }),
        };
        if high.take().is_some() {
            piece(REPLACEMENT);
        }
        piece(decoded);
        self.position += 2;
        Ok(())
    }

    /// Reads a short string, at most `limit` bytes.
    pub fn short_string(&mut self, limit: usize) -> Outcome<String> {
        let mut text = Vec::new();
        self.string(|piece| {
            let room = limit.saturating_sub(text.len()).min(piece.len());
            text.extend_from_slice(&piece[..room]);
        })?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Skips a value of any shape and depth, handing its bytes to `keep`.
    pub fn skip(&mut self, mut keep: impl FnMut(&[u8]) -> Outcome<()>) -> Outcome<()> {
        self.peek()?;
        let mut depth = 0_u64;
        let mut in_string = false;
        let mut escaped = false;
        loop {
            if !self.ensure()? {
                return Err(HeapErrorKind::Truncated);
            }
            let bytes = &self.buffer[self.position..self.end];
            let mut last = None;
            for (index, &byte) in bytes.iter().enumerate() {
                if in_string {
                    if escaped {
                        escaped = false;
                    } else if byte == b'\\' {
                        escaped = true;
                    } else if byte == b'"' {
                        in_string = false;
                        if depth == 0 {
                            last = Some(index + 1);
                        }
                    }
                } else {
                    match byte {
                        b'"' => in_string = true,
                        b'[' | b'{' => depth += 1,
                        // What holds a bare value goes on or ends: not ours to take.
                        b']' | b'}' | b',' if depth == 0 => last = Some(index),
                        b']' | b'}' => {
                            depth -= 1;
                            if depth == 0 {
                                last = Some(index + 1);
                            }
                        }
                        _ => {}
                    }
                }
                if last.is_some() {
                    break;
                }
            }
            let taken = last.unwrap_or(bytes.len());
            keep(&bytes[..taken])?;
            self.position += taken;
            if last.is_some() {
                return Ok(());
            }
        }
    }
}

const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

#[inline]
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\t' | b'\r')
}

/// Reads the digits at `start`; returns the value and the index after them.
#[inline]
fn number(bytes: &[u8], start: usize) -> Outcome<(u64, usize)> {
    let mut value = 0_u64;
    let mut index = start;
    while let Some(&byte) = bytes.get(index) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        index += 1;
    }
    match index - start {
        0 => Err(bytes.get(start).map_or(HeapErrorKind::Truncated, |&found| HeapErrorKind::Unexpected {
            expected: "a whole number",
            found,
        })),
        1..=19 => Ok((value, index)),
        _ => Err(HeapErrorKind::TooLarge { limit: 9_999_999_999_999_999_999 }),
    }
}

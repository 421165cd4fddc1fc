//! One HTTP exchange, byte by byte as the test writes it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An answer, read to the end of the connection.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Reads an answer.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {text:?}"))?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| head.to_owned())?;
        Ok(Self { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The code of an error; empty where it is none.
    pub fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends a text over TCP and reads until the other end closes.
pub fn exchange(address: &str, request: &str) -> Result<Answer, String> {
    let stream = TcpStream::connect(address).map_err(|error| format!("{address}: {error}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(|error| error.to_string())?;
    talk(stream, request)
}

/// The same over any stream.
pub fn talk(mut stream: impl Read + Write, request: &str) -> Result<Answer, String> {
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    // A connection that breaks after the answer has given it all the same.
    let ended = stream.read_to_end(&mut answer);
    Answer::parse(&String::from_utf8_lossy(&answer)).map_err(|error| format!("{error} ({ended:?})"))
}

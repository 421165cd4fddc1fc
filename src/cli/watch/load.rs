//! The load generator beside the command: started when the app is ready, run again when it ends, and what it counts.
//!
//! It counts by printing `requests=12345` (answered so far in this run of it) on standard output, and may print `sent=12400`
//! on the same line; every other line is passed on to standard error.

use std::process::{ExitStatus, Stdio};

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{ChildStdout, Command};

use super::command::{Group, to_stderr};

/// Most of a line that is looked at; the rest of it is passed over.
const LONGEST_LINE: usize = 4096;

/// What a line of a load generator counts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Count {
    /// Requests answered.
    pub(super) requests: Option<f64>,
    /// Requests sent.
    pub(super) sent: Option<f64>,
}

impl Count {
    /// Reads `requests=N` and `sent=N` anywhere in a line.
    pub(super) fn of(line: &str) -> Self {
        let mut count = Self::default();
        for word in line.split(|c: char| c.is_whitespace() || c == ',') {
            let Some((key, value)) = word.split_once('=') else { continue };
            let value = value.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0);
            match key {
                "requests" => count.requests = value.or(count.requests),
                "sent" => count.sent = value.or(count.sent),
                _ => {}
            }
        }
        count
    }
}

/// What happened to the load generator.
#[derive(Debug)]
pub(super) enum LoadEvent {
    Line(String),
    Exited(ExitStatus),
}

/// What a load generator prints, line by line.
#[derive(Debug)]
struct Lines {
    out: BufReader<ChildStdout>,
    /// The line as far as it has come.
    line: Vec<u8>,
}

impl Lines {
    /// The next line; none at the end. Nothing is lost where this is given up half-way.
    async fn next(&mut self) -> std::io::Result<Option<String>> {
        loop {
            let chunk = self.out.fill_buf().await?;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let room = LONGEST_LINE.saturating_sub(self.line.len());
            let words = &chunk[..end.unwrap_or(chunk.len())];
            self.line.extend_from_slice(&words[..words.len().min(room)]);
            let (ended, used) = (chunk.is_empty(), end.map_or(chunk.len(), |end| end + 1));
            self.out.consume(used);
            if end.is_some() || (ended && !self.line.is_empty()) {
                return Ok(Some(String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned()));
            }
            if ended {
                return Ok(None);
            }
        }
    }
}

/// A running load generator with its counts over all its runs.
#[derive(Debug)]
pub(super) struct Load {
    words: String,
    port: Option<u16>,
    running: Option<(Group, Option<Lines>)>,
    /// Counts of the runs before this one, …
    before: (f64, f64),
    /// … and of this one.
    now: Count,
    /// How often it was started.
    pub(super) rounds: u32,
}

impl Load {
    /// Starts it; `port` is where the app listens.
    pub(super) fn start(words: &str, port: Option<u16>) -> anyhow::Result<Self> {
        let mut load =
            Self { words: words.to_owned(), port, running: None, before: (0.0, 0.0), now: Count::default(), rounds: 0 };
        load.again()?;
        Ok(load)
    }

    /// Starts it again where it has ended.
    pub(super) fn start_if_resting(&mut self) -> anyhow::Result<()> {
        if self.running.is_none() { self.again() } else { Ok(()) }
    }

    fn again(&mut self) -> anyhow::Result<()> {
        self.before.0 += self.now.requests.unwrap_or(0.0);
        self.before.1 += self.now.sent.unwrap_or(0.0);
        let counted = Count { requests: self.now.requests.map(|_| 0.0), sent: self.now.sent.map(|_| 0.0) };
        self.now = counted;
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.words).stdout(Stdio::piped()).stderr(to_stderr());
        if let Some(port) = self.port {
            command.env("LEAKSLOPE_PORT", port.to_string());
        }
        let mut group = Group::start(command).context("the load")?;
        let lines = group.child().stdout.take().map(|out| Lines { out: BufReader::new(out), line: Vec::new() });
        self.running = Some((group, lines));
        self.rounds += 1;
        Ok(())
    }

    /// Waits for the next event; for ever where it does not run.
    pub(super) async fn event(&mut self) -> anyhow::Result<LoadEvent> {
        let Some((group, lines)) = &mut self.running else { return std::future::pending().await };
        if let Some(reading) = lines {
            match reading.next().await {
                Ok(Some(line)) => return Ok(LoadEvent::Line(line)),
                Ok(None) | Err(_) => *lines = None,
            }
        }
        let status = group.exited().await?;
        Ok(LoadEvent::Exited(status))
    }

    /// Takes in what a line counts; whether it counted anything.
    pub(super) fn count(&mut self, line: &str) -> bool {
        let count = Count::of(line);
        self.now.requests = count.requests.or(self.now.requests);
        self.now.sent = count.sent.or(self.now.sent);
        count != Count::default()
    }

    /// Requests answered over all runs, where they are counted.
    pub(super) fn requests(&self) -> Option<f64> {
        self.now.requests.map(|requests| self.before.0 + requests)
    }

    /// Requests sent and not answered, where both are counted.
    pub(super) fn waiting(&self) -> Option<f64> {
        Some((self.now.sent? - self.now.requests?).max(0.0))
    }

    /// Takes the running generator, to end it.
    pub(super) fn take(&mut self) -> Option<Group> {
        self.running.take().map(|(group, _)| group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stand_anywhere_in_a_line() {
        let of = |requests, sent| Count { requests, sent };
        for (line, count) in [
            ("requests=12", of(Some(12.0), None)),
            ("t=3 sent=20, requests=12 errors=1", of(Some(12.0), Some(20.0))),
            ("requests=", of(None, None)),
            ("requests=-3 sent=inf", of(None, None)),
            ("GET /?requests=7", of(None, None)),
            ("hello", of(None, None)),
            ("requests=1 requests=2", of(Some(2.0), None)),
        ] {
            assert_eq!(Count::of(line), count, "{line}");
        }
    }
}

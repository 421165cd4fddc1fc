//! Log lines: human or JSON on standard error, with a level that can change while running.
//!
//! What others choose (names, reasons, bodies of servers) ends up in lines, so each is bounded. It refuses to print a panic of
//! the database: it is caught and becomes an error that is told.

use std::io::{self, Write};
use std::panic::PanicHookInfo;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogFormat, LogSettings};

/// The handle by which the level is changed later.
#[derive(Debug, Clone)]
pub(super) struct Logging {
    level: reload::Handle<LevelFilter, Registry>,
}

impl Logging {
    /// Sets up logging for the process; call it once.
    pub(super) fn start(settings: LogSettings) -> Self {
        let (filter, level) = reload::Layer::new(LevelFilter::from_level(settings.level));
        let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let lines = match settings.format {
            LogFormat::Human => {
                let writer = || Bounded { out: io::stderr(), cut: cut_text };
                tracing_subscriber::fmt::layer().with_writer(writer).with_target(false).with_ansi(ansi).boxed()
            }
            LogFormat::Json => {
                let writer = || Bounded { out: io::stderr(), cut: cut_json };
                tracing_subscriber::fmt::layer().with_writer(writer).json().flatten_event(true).boxed()
            }
        };
        if let Err(error) = tracing_subscriber::registry().with(filter).with(lines).try_init() {
            tracing::debug!(%error, "logging was set up before");
        }
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !is_of_the_database(panic) {
                print(panic);
            }
        }));
        Self { level }
    }

    /// Changes the level.
    pub(super) fn set_level(&self, level: tracing::Level) {
        if let Err(error) = self.level.modify(|filter| *filter = LevelFilter::from_level(level)) {
            tracing::warn!(%error, "the log level could not be changed");
        }
    }
}

/// Whether the database gave up over a damaged file, which its caller catches.
fn is_of_the_database(panic: &PanicHookInfo<'_>) -> bool {
    panic.location().is_some_and(|place| place.file().contains("/redb-"))
}

/// The longest line; a longer one is cut.
const LONGEST_LINE: usize = 8 << 10;
/// The longest value of a line of JSON that is too long.
const LONGEST_VALUE: usize = 1 << 10;

/// A stream whose lines are bounded. A line comes in one piece.
struct Bounded<W> {
    out: W,
    cut: fn(&[u8]) -> Vec<u8>,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.len() <= LONGEST_LINE {
            return self.out.write(line);
        }
        self.out.write_all(&(self.cut)(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn cut_text(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(&line[..LONGEST_LINE]);
    format!("{}… ({} bytes more)\n", text.trim_end_matches('\u{fffd}'), line.len() - LONGEST_LINE).into_bytes()
}

/// Cuts every text of a line of JSON; what is no JSON, or has too many of them, is cut as it is.
fn cut_json(line: &[u8]) -> Vec<u8> {
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_slice(line) else { return cut_text(line) };
    for value in fields.values_mut() {
        if let serde_json::Value::String(text) = value
            && text.len() > LONGEST_VALUE
        {
            let end = text.floor_char_boundary(LONGEST_VALUE);
            text.truncate(end);
            text.push('…');
        }
    }
    let mut cut = serde_json::Value::Object(fields).to_string().into_bytes();
    cut.push(b'\n');
    if cut.len() > 2 * LONGEST_LINE { cut_text(line) } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_and_stays_what_it_is() {
        let written = |cut: fn(&[u8]) -> Vec<u8>, line: &str| {
            let mut bounded = Bounded { out: Vec::new(), cut };
            bounded.write_all(line.as_bytes()).unwrap();
            String::from_utf8(bounded.out).unwrap()
        };
        assert_eq!(written(cut_text, "short\n"), "short\n");
        let long = written(cut_text, &format!("{}\n", "ü".repeat(100_000)));
        assert!(long.len() < LONGEST_LINE + 100 && long.ends_with(" bytes more)\n"), "{}", long.len());
        let json =
            written(cut_json, &format!("{{\"level\":\"WARN\",\"reason\":\"{}\",\"n\":5}}\n", "ü".repeat(100_000)));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((value["level"].as_str(), value["n"].as_i64()), (Some("WARN"), Some(5)));
        assert!(json.len() < 2000 && json.ends_with('\n'), "{}", json.len());
    }
}

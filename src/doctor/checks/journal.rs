//! What pm2's own log says of the past of each process, from its last part.
//!
//! Only lines of pm2's own are read, by their fixed beginnings; names in them are other people's and are looked at no further
//! than the number behind them. Times are local and without a zone, so only the span between two of them is used.

use std::collections::BTreeMap;

use jiff::civil::DateTime;

/// How far back deaths count as one loop, in seconds.
const LOOP: i64 = 600;

/// The past of the processes of one daemon.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Journal {
    past: BTreeMap<u32, Past>,
}

/// The past of one process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    /// How often pm2 killed it because it did not end in time, and after how many milliseconds the last time.
    pub killed: Option<(usize, u64)>,
    /// How often it died of a native crash.
    pub native_crashes: usize,
    /// When it ended by itself, in seconds, the last ten minutes of its deaths.
    pub deaths: Vec<i64>,
    /// Seconds from its last start to the moment that it was called ready.
    pub boot: Option<i64>,
    /// Whether it came up after its last death.
    started: Option<i64>,
    stopping: bool,
}

impl Past {
    /// Deaths a minute, where it dies again and again.
    pub fn loop_rate(&self) -> Option<f64> {
        let (first, last) = (self.deaths.first()?, self.deaths.last()?);
        let span = last - first;
        #[allow(clippy::cast_precision_loss, reason = "a few hundred deaths in ten minutes")]
        (self.deaths.len() >= 3).then(|| (self.deaths.len() - 1) as f64 * 60.0 / span.max(1) as f64)
    }
}

impl Journal {
    /// Reads the last part of a log. Its first line may be cut.
    pub fn read(text: &str) -> Self {
        let mut journal = Self::default();
        let mut stopped_last = None;
        for line in text.lines() {
            let Some((stamp, said)) = line.split_once("PM2 log: ") else { continue };
            let at = seconds(stamp);
            if let Some(rest) = said.strip_prefix("Stopping app:") {
                let Some(pm_id) = rest.rsplit_once(" id:").and_then(|(_, id)| id.trim().parse().ok()) else { continue };
                journal.past.entry(pm_id).or_default().stopping = true;
                stopped_last = Some(pm_id);
            } else if let Some(after) = said.strip_prefix("Process with pid ").and_then(still_alive) {
                if let Some(past) = stopped_last.and_then(|pm_id| journal.past.get_mut(&pm_id)) {
                    past.killed = Some((past.killed.map_or(0, |(times, _)| times) + 1, after));
                }
            } else if let Some((pm_id, what)) = said.strip_prefix("App [").and_then(of_app) {
                journal.past.entry(pm_id).or_default().hear(what, at);
            }
        }
        journal
    }

    /// The past of one process.
    pub fn of(&self, pm_id: Option<u32>) -> Option<&Past> {
        self.past.get(&pm_id?)
    }
}

impl Past {
    fn hear(&mut self, what: &str, at: Option<i64>) {
        if what.starts_with("starting in") {
            self.started = at;
        } else if what.starts_with("online") {
            self.boot = self.started.zip(at).map(|(started, online)| online - started);
        } else if what.starts_with("exited with code") {
            if ["[SIGSEGV]", "[SIGBUS]", "[SIGILL]", "[SIGFPE]"].iter().any(|signal| what.contains(signal)) {
                self.native_crashes += 1;
            }
            if !std::mem::take(&mut self.stopping)
                && let Some(at) = at
            {
                self.deaths.push(at);
                self.deaths.retain(|death| at - death <= LOOP);
            }
        }
    }
}

/// The wait in `P still alive after 700ms, sending …`.
fn still_alive(rest: &str) -> Option<u64> {
    let (_, after) = rest.split_once(" still alive after ")?;
    after.split_once("ms")?.0.parse().ok()
}

/// The number and the rest of `NAME:ID] …`; the name may hold anything.
fn of_app(rest: &str) -> Option<(u32, &str)> {
    let (head, what) = rest.split_once("] ")?;
    Some((head.rsplit_once(':')?.1.parse().ok()?, what))
}

/// The seconds of `2026-12-01T04:59:26: `, on a line of their own.
fn seconds(stamp: &str) -> Option<i64> {
    let time: DateTime = stamp.get(..19)?.parse().ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

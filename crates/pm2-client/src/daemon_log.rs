//! What pm2's own log says of starts and ends, line by line, and what an app's error log says of its end: pure.
//!
//! Names and paths in a line are an app's choice, so a line is taken apart from its fixed ends. Workers of cluster mode write to
//! pm2's log, too, without pm2's stamp: where lines are stamped, others are only looked at for V8's text. Nothing of an app's text
//! is passed on but the first line of an exception, cut and cleaned.

use std::time::Duration;

use jiff::civil::DateTime;

use model::{Bytes, DaemonEvent, Named, WallTime};

/// What stands between the stamp and pm2's words.
const MARK: &str = "PM2 log: ";
/// The longest text of an app that is passed on, in characters.
const LONGEST_MESSAGE: usize = 200;
/// Text without a stamp that is kept to look for V8's words.
const RAW_KEPT: usize = 16 * 1024;

/// A line of pm2's log: what it tells, and the daemon's own calendar, as if it were in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The stamp.
    pub calendar: Option<WallTime>,
    /// The events: one, but for V8's text, where several processes may have written.
    pub events: Vec<DaemonEvent>,
}

/// Reads a log from top to bottom.
#[derive(Debug, Default)]
pub struct LogReader {
    is_stamped: bool,
    /// The latest lines of others.
    raw: String,
}

impl LogReader {
    /// Reads the line that comes next; none where it tells nothing.
    pub fn line(&mut self, line: &str) -> Option<LogLine> {
        let calendar = stamp(line);
        self.is_stamped |= calendar.is_some();
        if calendar.is_some() && line.contains("PM2 error: Error [ERR_STREAM_DESTROYED]") {
            return Some(LogLine { calendar, events: vec![DaemonEvent::OutputLost] });
        }
        let told = match (line.find(MARK), self.is_stamped) {
            (Some(place), _) => Some(&line[place + MARK.len()..]),
            (None, false) => Some(line),
            (None, true) => None,
        };
        if let Some(event) = told.and_then(|told| event(told, calendar)) {
            return Some(LogLine { calendar, events: vec![event] });
        }
        if calendar.is_some() {
            return calendar.map(|_| LogLine { calendar, events: Vec::new() });
        }
        if self.raw.len() + line.len() > RAW_KEPT {
            self.raw.clear();
        }
        self.raw.push_str(line);
        self.raw.push('\n');
        let pids = if is_fatal(line) { full_heaps(&std::mem::take(&mut self.raw)).pids } else { Vec::new() };
        let events: Vec<DaemonEvent> = pids.into_iter().map(|pid| DaemonEvent::HeapFull { pid }).collect();
        (!events.is_empty()).then_some(LogLine { calendar: None, events })
    }
}

/// The stamp of a line, wherever a text without an end stands before it.
fn stamp(line: &str) -> Option<WallTime> {
    const LENGTH: usize = "2026-11-30T21:57:05".len();
    let before = line[..line.find(": PM2 ")?].trim_end();
    let stamp = before.get(before.len().checked_sub(LENGTH)?..)?;
    let calendar: DateTime = stamp.parse().ok()?;
    Some(WallTime(calendar.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond()))
}

/// Reads pm2's own words.
pub fn event(told: &str, calendar: Option<WallTime>) -> Option<DaemonEvent> {
    if let Some(rest) = told.strip_prefix("App [") {
        if let Some((process, how)) = rest.rsplit_once("] exited with code [") {
            let (code, signal) = how.trim_end().strip_suffix(']')?.split_once("] via signal [")?;
            let signal = signal.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| signal.to_owned())?;
            return Some(DaemonEvent::Exited { process: named(process, ':')?, code: code.parse().ok()?, signal });
        }
        let (process, mode) = rest.rsplit_once("] starting in -")?;
        return mode.trim_end().ends_with(" mode-").then(|| named(process, ':').map(DaemonEvent::Starting))?;
    }
    if let Some(rest) = told.strip_prefix("Stopping app:") {
        let (app, id) = rest.trim_end().rsplit_once(" id:")?;
        return Some(DaemonEvent::Ending(of(app, id)?));
    }
    if let Some(rest) = told.strip_prefix("[PM2][WORKER] Process ") {
        let (pm_id, rest) =
            rest.split_once(" restarted because it exceeds --max-memory-restart value (current_memory=")?;
        let (measured, rest) = rest.split_once(" max_memory_limit=")?;
        let bytes = |text: &str| text.trim().parse().ok().map(Bytes);
        let limit = bytes(rest.split(' ').next()?)?;
        return Some(DaemonEvent::OverMemory { pm_id: pm_id.parse().ok()?, measured: bytes(measured)?, limit });
    }
    if told.starts_with("Change detected on path ") {
        let (_, app) = told.trim_end().strip_suffix(" - restarting")?.rsplit_once(" for app ")?;
        return Some(DaemonEvent::Changed { app: app.to_owned() });
    }
    if let Some(pm_id) = told.strip_prefix("[PM2] Deregistering a cron job on: ") {
        return Some(DaemonEvent::CronOff { pm_id: pm_id.trim().parse().ok()?, calendar });
    }
    if let Some(rest) = told.strip_prefix("Process with pid ") {
        let (pid, rest) = rest.split_once(" still alive after ")?;
        let after = Duration::from_millis(rest.split_once("ms, sending ")?.0.parse().ok()?);
        return Some(DaemonEvent::Killing { pid: pid.parse().ok()?, after });
    }
    if let Some(rest) = told.strip_prefix("Process ") {
        let pm_id = rest.trim_end().strip_suffix(" in a stopped status, starting it")?;
        return Some(DaemonEvent::Reloading { pm_id: pm_id.parse().ok()? });
    }
    if told.starts_with("Script ") && told.contains(" had too many unstable restarts (") {
        return Some(DaemonEvent::GaveUp);
    }
    if told.starts_with("pm2 has been killed by signal") || told.starts_with("PM2 successfully stopped") {
        return Some(DaemonEvent::Farewell);
    }
    told.starts_with("--- New PM2 Daemon started").then_some(DaemonEvent::Began)
}

fn named(text: &str, between: char) -> Option<Named> {
    let (app, id) = text.rsplit_once(between)?;
    of(app, id)
}

fn of(app: &str, id: &str) -> Option<Named> {
    let (id, replaced) = id.strip_prefix("_old_").map_or((id, false), |id| (id, true));
    Some(Named { app: app.to_owned(), pm_id: id.parse().ok()?, replaced })
}

fn is_fatal(text: &str) -> bool {
    text.contains("FATAL ERROR:") && text.contains("JavaScript heap out of memory")
}

/// V8's text about a full heap, as far as it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FullHeaps {
    /// The pids it stands with.
    pub pids: Vec<u32>,
    /// Whether its last words stand there without a pid.
    pub is_nameless: bool,
}

/// Finds V8's text about a full heap in text that may hold several, torn and mixed. The pids are those of the collections that it
/// lists under a heading of its own, which nothing else prints.
pub fn full_heaps(text: &str) -> FullHeaps {
    const HEADING: &str = "Last few GCs";
    /// A list of collections is no longer.
    const LIST: usize = 8 * 1024;
    let mut found = FullHeaps::default();
    for (place, _) in text.match_indices(HEADING) {
        let list = &text[place + HEADING.len()..];
        let end = list.find("JS stacktrace").or_else(|| list.find("FATAL ERROR:")).unwrap_or(list.len()).min(LIST);
        let end = (0..=end).rev().find(|end| list.is_char_boundary(*end)).unwrap_or(0);
        let pids = list[..end].split('[').filter_map(|piece| piece.split_once(":0x")?.0.parse::<u32>().ok());
        found.pids.extend(pids);
    }
    found.pids.sort_unstable();
    found.pids.dedup();
    found.is_nameless = found.pids.is_empty() && text.lines().any(is_fatal);
    found
}

/// What an app's error log says of an exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Its first line, cut and cleaned.
    pub message: String,
    /// Whether nothing of the app follows it.
    pub is_last: bool,
}

/// Finds the last stack in what an app has written to its error log: plain, with a stamp before each line, or as JSON. Stacks of
/// warnings, traces and rejected promises are none of an exception.
pub fn last_stack(text: &str) -> Option<Stack> {
    let lines: Vec<String> = text.lines().flat_map(plain).collect();
    let is_frame = |line: &str| line.contains("    at ");
    let last = lines.iter().rposition(|line| is_frame(line))?;
    let first = lines[..last].iter().rposition(|line| !is_frame(line))?;
    let follows = |line: &String| {
        let line = line.trim();
        !(line.is_empty() || line.starts_with("Node.js v") || line == "}" || line.starts_with('['))
    };
    let head = lines[first].as_str();
    let before = lines[..first].iter().rev().take(2);
    let is_other = |line: &str| {
        line.contains("unhandledRejection") || line.trim_start().starts_with("(node:") || line.contains("Trace")
    };
    if is_other(head) || before.into_iter().any(|line| line.contains("unhandledRejection")) {
        return None;
    }
    Some(Stack { message: cut(head), is_last: !lines[last + 1..].iter().any(follows) })
}

/// The lines that one line of an error log holds.
fn plain(line: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Chunk {
        message: String,
    }
    match line.starts_with('{').then(|| serde_json::from_str::<Chunk>(line)) {
        Some(Ok(chunk)) => chunk.message.lines().map(str::to_owned).collect(),
        Some(Err(_)) | None => vec![line.to_owned()],
    }
}

/// Text of an app on one line, without control characters, cut.
pub fn cut(text: &str) -> String {
    let kept: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_MESSAGE).collect();
    if text.trim().chars().count() > LONGEST_MESSAGE { kept + "…" } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(app: &str, pm_id: u32, replaced: bool) -> Named {
        Named { app: app.to_owned(), pm_id, replaced }
    }

    #[test]
    fn each_line_is_taken_for_what_it_tells() {
        let exited = |process, code, signal: &str| DaemonEvent::Exited { process, code, signal: signal.to_owned() };
        let cases = [
            ("App [api:0] exited with code [0] via signal [SIGABRT]", exited(process("api", 0, false), 0, "SIGABRT")),
            (
                "App [c:_old_13] exited with code [130] via signal [SIGINT]",
                exited(process("c", 13, true), 130, "SIGINT"),
            ),
            // A name may look like anything.
            (
                "App [x:9] exited with code [0] via signal [SIGKILL]:4] exited with code [3] via signal [SIGINT]",
                exited(process("x:9] exited with code [0] via signal [SIGKILL]", 4, false), 3, "SIGINT"),
            ),
            ("App [a:b:7] starting in -fork mode-", DaemonEvent::Starting(process("a:b", 7, false))),
            ("Stopping app:api id:_old_2", DaemonEvent::Ending(process("api", 2, true))),
            (
                "[PM2][WORKER] Process 28 restarted because it exceeds --max-memory-restart value \
                 (current_memory=155463680 max_memory_limit=94371840 [octets])",
                DaemonEvent::OverMemory { pm_id: 28, measured: Bytes(155_463_680), limit: Bytes(94_371_840) },
            ),
            (
                "Change detected on path a for app b - restarting for app api - restarting",
                DaemonEvent::Changed { app: "api".to_owned() },
            ),
            ("[PM2] Deregistering a cron job on: 30", DaemonEvent::CronOff { pm_id: 30, calendar: None }),
            ("Process 12 in a stopped status, starting it", DaemonEvent::Reloading { pm_id: 12 }),
            (
                "Process with pid 7 still alive after 700ms, sending it SIGKILL now...",
                DaemonEvent::Killing { pid: 7, after: Duration::from_millis(700) },
            ),
            (
                "Process with pid 7 still alive after 1600ms, sending SIGKILL to 2 remaining pids...",
                DaemonEvent::Killing { pid: 7, after: Duration::from_millis(1600) },
            ),
            ("Script /a/b.js had too many unstable restarts (3). Stopped. \"errored\"", DaemonEvent::GaveUp),
            ("pm2 has been killed by signal, dumping process list before exit...", DaemonEvent::Farewell),
        ];
        for (line, expected) in cases {
            assert_eq!(event(line, None), Some(expected), "{line}");
        }
        for line in ["", "App [api:0] online", "App [] exited with code [] via signal []", "Stopping app:x id:y"] {
            assert_eq!(event(line, None), None, "{line}");
        }
    }

    #[test]
    fn a_worker_cannot_tell_of_an_end_by_writing_to_the_log() {
        let mut reader = LogReader::default();
        let exit = "App [api:0] exited with code [0] via signal [SIGKILL]";
        assert!(reader.line(exit).is_some_and(|line| line.events.len() == 1), "a log without stamps");
        let stamped = reader.line(&format!("torn text 2026-11-30T21:57:05: PM2 log: {exit}")).unwrap();
        assert_eq!(
            (stamped.calendar.unwrap().to_rfc3339().as_str(), stamped.events.len()),
            ("2026-11-30T21:57:05Z", 1)
        );
        assert_eq!(reader.line(exit), None, "a log with stamps");
    }

    #[test]
    fn v8s_text_counts_for_the_process_whose_pid_stands_in_it() {
        let text = "[5:0x1] 1 ms: Scavenge\n\n<--- Last few GCs --->\n\nin[2131:0x39907d50]  10102 ms: Mark-Compact … 49.7 (51.2) MB\n\
                    [2131:0x39907d50] 10 ms\n\n<--- JS stacktrace --->\n\nFATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory\n\
                    [7:0x2] 1 ms: Scavenge\nFATAL ERROR: something else\n";
        assert_eq!(full_heaps(text).pids, [2131]);
        let nameless = FullHeaps { pids: Vec::new(), is_nameless: true };
        assert_eq!(full_heaps(&text[text.find("FATAL").unwrap()..]), nameless, "the list is lost");
        let mut reader = LogReader::default();
        let told: Vec<DaemonEvent> =
            text.lines().filter_map(|line| reader.line(line)).flat_map(|it| it.events).collect();
        assert_eq!(told, [DaemonEvent::HeapFull { pid: 2131 }]);
        assert_eq!(full_heaps(&text.replace('\n', "\\n")).pids, [2131], "in one line of JSON");
    }

    #[test]
    fn the_last_stack_is_found_in_each_form_of_an_error_log() {
        let plain = "old\nError: boom\u{1b}[31m in a timer\n    at a (b.js:1:2)\n    at c\n\nNode.js v20.20.2\n";
        let boom = |is_last| Some(Stack { message: "Error: boom [31m in a timer".to_owned(), is_last });
        assert_eq!(last_stack(plain), boom(true));
        assert_eq!(last_stack(&format!("{plain}started\n")), boom(false));
        let json = format!("{}\n", serde_json::json!({ "message": plain, "type": "err" }));
        assert_eq!(last_stack(&json), boom(true));
        let rejected = "You have triggered an unhandledRejection, you may …:\nError: boom\n    at a\n";
        for other in ["no stack\n", rejected, "(node:7) Warning: x\n    at a\n", "Trace: x\n    at a\n"] {
            assert_eq!(last_stack(other), None, "{other}");
        }
        assert_eq!(cut(&"x".repeat(300)).chars().count(), LONGEST_MESSAGE + 1);
    }
}

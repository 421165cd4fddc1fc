//! Why a run of a process ended: from signs to a cause, how sure it is, and one sentence.
//!
//! pm2 tells an exit code and, in its log alone, a signal, and both mislead: a death by any signal has code 0, and `via signal
//! [SIGINT]` also stands where there was none. So a cause is decided by all signs together; the first rule that fits counts. What
//! the signs cannot part is *undecided*, with what it is between. [`tracker`] gathers the signs of each end; it refuses to read
//! anything, and so does everything here: times are arguments.

pub mod tracker;

use std::time::Duration;

use model::{Aftermath, Bytes, Cause, Certainty, Death, Finding, LastSeen, LeakState, StayedDown};

/// A run shorter than this ended right after its start, whatever pm2's `min_uptime` is.
const SHORT: Duration = Duration::from_secs(5);
/// So many short runs in a row are a boot loop.
pub const LOOP: u32 = 3;
/// From this share of its limit on, a heap was about to run out.
const NEARLY_FULL: f64 = 0.9;

/// Who asked pm2 to end a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// leakslope.
    Leakslope,
    /// pm2's `max_memory_restart`, with what it measured and its limit.
    Memory {
        /// Resident memory as pm2 measured it.
        measured: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// pm2's `watch`.
    Watch,
    /// pm2's `cron_restart`; the time fits its expression.
    Cron,
    /// The list alone shows that it was asked, and not by what.
    Somebody,
    /// Its command line or another client of its socket.
    Client {
        /// `restart`, `reload`, `stop` or `delete`.
        command: &'static str,
        /// Whether pm2's own command line said so on the bus.
        confirmed: bool,
    },
}

/// Whether pm2 was asked to end it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Asked {
    /// It cannot be told.
    #[default]
    Unknown,
    /// It ended without pm2 being asked.
    No,
    /// pm2 was asked.
    By(Asker),
}

/// What is known of V8's text about a full heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeapText {
    /// Where it would stand cannot be read.
    #[default]
    Unreadable,
    /// There is none for this process.
    None,
    /// It stands there with this pid.
    Ours,
    /// It stands there, and the pid of the process is not known.
    Somebodys,
}

/// What the kernel says of memory that ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelWord {
    /// Its log names this pid as killed.
    pub killed: Option<Killed>,
    /// Whether its log could be read when the process ended.
    pub log_read: bool,
    /// Whether the control group has counted a kill at that time; none where the count was not read before.
    pub counted: Option<bool>,
}

/// A kill that the kernel's log tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killed {
    /// Whether a control group was full; else the whole machine.
    pub in_control_group: bool,
    /// Anonymous memory it held.
    pub held: Option<Bytes>,
}

/// What is known of an exception that nobody caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExceptionText {
    /// The error log cannot be read.
    #[default]
    Unreadable,
    /// The error log can be read and holds no stack of this time.
    None,
    /// The error log ends in a stack.
    Stack,
    /// It holds a stack of this time, which may be older than the end or another process's.
    SomeStack,
    /// pm2's bus told of the exception.
    Told,
}

/// What became of pm2's daemon at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DaemonEnd {
    /// It goes on.
    #[default]
    None,
    /// It was killed or crashed: it said no farewell.
    Killed,
    /// It was stopped.
    Stopped,
}

/// Everything that is known of one end.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Signs {
    /// The daemon's own end.
    pub daemon: DaemonEnd,
    /// Whether pm2 was asked.
    pub asked: Asked,
    /// How long pm2 had waited when it sent SIGKILL.
    pub killed_after: Option<Duration>,
    /// The exit code, by pm2's log or list; a death by signal has 0.
    pub code: Option<i64>,
    /// The signal of pm2's log, which is `SIGINT` where there was none; none where the log does not tell of this end.
    pub signal: Option<String>,
    /// Whether it was a worker of pm2's cluster mode, where an exception that nobody catches ends in code 0.
    pub cluster: bool,
    /// V8's text.
    pub heap_text: HeapText,
    /// The share of its limit that the heap had when it was last seen.
    pub heap_share: Option<f64>,
    /// The kernel's word.
    pub kernel: KernelWord,
    /// The exception.
    pub exception: ExceptionText,
    /// How long it ran, where that is known.
    pub uptime: Option<Duration>,
    /// Short runs in a row that ended by themselves, this one included.
    pub short_in_a_row: u32,
}

/// Whether a run was so short that its end counts towards a boot loop.
pub fn is_short(uptime: Duration, min_uptime: Option<Duration>) -> bool {
    uptime < SHORT.max(min_uptime.unwrap_or_default())
}

/// Decides what ended a run. The first rule that fits counts.
pub fn decide(signs: &Signs) -> Finding {
    let finding = match (signs.daemon, &signs.asked) {
        (DaemonEnd::Killed, _) if signs.kernel.killed.is_some() => killed(signs),
        (DaemonEnd::Killed, _) => {
            let clause = "pm2's daemon was killed or crashed, and it ended with it";
            certain(Cause::DaemonKilled, "", clause, ["the daemon is gone and said no farewell"])
        }
        (DaemonEnd::Stopped, _) => {
            let clause = "pm2's daemon was stopped, and its apps with it";
            certain(Cause::DaemonStopped, "", clause, ["the daemon said farewell"])
        }
        (DaemonEnd::None, Asked::By(asker)) => asked(asker, signs),
        (DaemonEnd::None, Asked::No | Asked::Unknown) => by_itself(signs),
    };
    if finding.cause == Cause::Undecided && signs.short_in_a_row >= LOOP {
        return boot_loop(finding, signs.short_in_a_row);
    }
    finding
}

fn finding(cause: Cause, detail: &str, certainty: Certainty, story: impl Into<String>, signs: Vec<String>) -> Finding {
    Finding { cause, detail: detail.to_owned(), certainty, between: Vec::new(), signs, clause: story.into() }
}

fn certain<const N: usize>(cause: Cause, detail: &str, story: impl Into<String>, signs: [&str; N]) -> Finding {
    finding(cause, detail, Certainty::Certain, story, signs.map(str::to_owned).to_vec())
}

fn likely<const N: usize>(cause: Cause, detail: &str, story: impl Into<String>, signs: [&str; N]) -> Finding {
    finding(cause, detail, Certainty::Likely, story, signs.map(str::to_owned).to_vec())
}

fn undecided<const N: usize>(between: &[&str], story: impl Into<String>, signs: [&str; N]) -> Finding {
    let between = between.iter().map(|&word| word.to_owned()).collect();
    Finding { between, ..finding(Cause::Undecided, "", Certainty::Undecided, story, signs.map(str::to_owned).to_vec()) }
}

/// pm2 was asked to end it.
fn asked(asker: &Asker, signs: &Signs) -> Finding {
    let was_killed = signs.killed_after.is_some() || signs.signal.as_deref() == Some("SIGKILL");
    if was_killed && signs.killed_after.is_none() && signs.kernel.killed.is_some() {
        return by_itself(signs);
    }
    let late = match signs.killed_after {
        Some(after) if was_killed => {
            format!("it did not end on SIGINT within {} s (kill_timeout), so pm2 killed it", seconds(after))
        }
        _ => "it did not end in time (kill_timeout), so pm2 killed it".to_owned(),
    };
    let mut finding = match asker {
        Asker::Leakslope => certain(Cause::Leakslope, "", "leakslope restarted it", ["leakslope's own record"]),
        Asker::Memory { measured, limit } => certain(
            Cause::MaxMemoryRestart,
            "",
            format!("it held {measured}, more than its max_memory_restart of {limit}, so pm2 restarted it"),
            ["pm2's log tells of the limit"],
        ),
        Asker::Watch => certain(Cause::Watch, "", "a file that pm2 watches changed", ["pm2's log tells of the change"]),
        Asker::Cron => likely(
            Cause::Cron,
            "",
            "its cron_restart was due",
            ["pm2 was asked at a time that fits cron_restart", "pm2's command line did not ask"],
        ),
        Asker::Somebody => undecided(
            &["command", "watch", "cron", "max_memory_restart"],
            "pm2 was asked to end it, by a command or by its own rules: its log does not tell",
            ["pm2's list shows that it was asked"],
        ),
        Asker::Client { command, .. } if was_killed => {
            let clause = format!("pm2 was asked to {command} it; {late}");
            certain(Cause::KillTimeout, command, clause, ["pm2 was asked", "it ended by SIGKILL"])
        }
        Asker::Client { command, confirmed } => {
            let client = if *confirmed { "by its command line" } else { "by its command line or another client" };
            let clause = format!("pm2 was asked to {command} it, {client}");
            certain(Cause::Pm2Command, command, clause, ["pm2's log or list shows that it was asked"])
        }
    };
    if was_killed && finding.cause != Cause::KillTimeout {
        finding.clause = format!("{}; {late}", finding.clause);
    }
    finding
}

/// Nobody asked pm2, or that is not known.
fn by_itself(signs: &Signs) -> Finding {
    let signal = signs.signal.as_deref();
    let may_be_abort = matches!(signal, None | Some("SIGABRT" | "SIGTRAP" | "SIGILL"));
    if may_be_abort && signs.code.is_none_or(|code| code == 0 || code == 134) && signs.heap_text == HeapText::Ours {
        let clause = "V8 ran out of heap";
        return certain(Cause::V8HeapLimit, "", clause, ["V8's text about a full heap, with its pid"]);
    }
    match signal {
        Some("SIGABRT") => aborted(signs),
        Some("SIGKILL") => killed(signs),
        Some(signal @ ("SIGSEGV" | "SIGBUS" | "SIGFPE" | "SIGILL" | "SIGTRAP" | "SIGSYS")) => {
            let clause = format!("it crashed in native code ({signal})");
            certain(Cause::NativeCrash, signal, clause, ["the signal in pm2's log"])
        }
        Some("SIGINT") | None => ended(signs),
        Some(signal) => {
            let clause = format!("somebody sent it {signal}, and not through a pm2 command that restarts or stops");
            certain(Cause::Signal, signal, clause, ["the signal in pm2's log", "pm2 was not asked"])
        }
    }
}

fn aborted(signs: &Signs) -> Finding {
    let full = signs.heap_share.is_some_and(|share| share >= NEARLY_FULL);
    match signs.heap_text {
        HeapText::Somebodys => {
            let clause = "V8 ran out of heap, as a text in its log says";
            likely(Cause::V8HeapLimit, "", clause, ["SIGABRT", "V8's text about a full heap; its pid is not known"])
        }
        HeapText::None if !full => {
            let clause = "it aborted (SIGABRT), and not for want of heap";
            likely(Cause::Abort, "SIGABRT", clause, ["SIGABRT", "no text of V8 about a full heap with its pid"])
        }
        HeapText::None | HeapText::Unreadable if full => {
            let clause = "V8 probably ran out of heap: it was nearly full when it was last seen";
            likely(Cause::V8HeapLimit, "", clause, ["SIGABRT", "its heap was last seen at 90 % of its limit or more"])
        }
        HeapText::None | HeapText::Unreadable | HeapText::Ours => undecided(
            &["abort", "v8_heap_limit"],
            "it aborted (SIGABRT); whether for want of heap cannot be told, because its error log cannot be read",
            ["SIGABRT"],
        ),
    }
}

fn killed(signs: &Signs) -> Finding {
    let KernelWord { killed, log_read, counted } = signs.kernel;
    if let Some(killed) = killed {
        let held = killed.held.map_or(String::new(), |held| format!(" (it held {held})"));
        let (detail, clause) = if killed.in_control_group {
            ("control group", format!("the kernel killed it: its control group was full{held}"))
        } else {
            ("host", format!("the kernel killed it: the machine was out of memory{held}"))
        };
        return certain(Cause::KernelOomKill, detail, clause, ["the kernel's log names its pid"]);
    }
    match (counted, log_read) {
        (Some(true), _) => likely(
            Cause::KernelOomKill,
            "control group",
            "the kernel killed it: its control group counts a kill for want of memory at that time",
            ["SIGKILL, and pm2 was not asked", "its control group's oom_kill rose"],
        ),
        (Some(false), _) | (_, true) => likely(
            Cause::Signal,
            "SIGKILL",
            "somebody sent it SIGKILL; the kernel counted no kill for want of memory",
            ["SIGKILL, and pm2 was not asked", "the kernel tells of no kill for want of memory"],
        ),
        (None, false) => undecided(
            &["signal", "kernel_oom_kill"],
            "it was killed (SIGKILL), by somebody or by the kernel for want of memory: neither the kernel's log nor the \
             control group's count could be read",
            ["SIGKILL, and pm2 was not asked"],
        ),
    }
}

/// It ended with an exit code, or pm2 does not tell of a signal.
fn ended(signs: &Signs) -> Finding {
    let boots = signs.uptime.is_none_or(|uptime| uptime < SHORT);
    let exception = || {
        let text = match signs.exception {
            ExceptionText::Told => "pm2's bus told of it",
            ExceptionText::Unreadable | ExceptionText::None | ExceptionText::Stack | ExceptionText::SomeStack => {
                "its error log ends in a stack"
            }
        };
        likely(Cause::UncaughtException, "", "an exception that nobody caught ended it", [text])
    };
    if signs.exception == ExceptionText::Told && signs.code.is_none_or(|code| code == 0 || code == 1) {
        return exception();
    }
    match signs.code {
        Some(1) => match signs.exception {
            ExceptionText::Stack | ExceptionText::Told => exception(),
            // What an app writes in its first moments may not have reached its log.
            ExceptionText::None if !boots => exit(1),
            ExceptionText::None | ExceptionText::SomeStack | ExceptionText::Unreadable => undecided(
                &["exit", "uncaught_exception"],
                "it ended with code 1, by itself or by an exception that nobody caught: its error log does not tell",
                ["the exit code"],
            ),
        },
        Some(code) if code != 0 => exit(code),
        Some(_) if signs.signal.is_none() && signs.kernel.killed.is_some() => killed(signs),
        Some(_) if signs.cluster && signs.exception == ExceptionText::Stack => exception(),
        Some(_) => {
            let mut between = vec!["exit", "signal"];
            let known = signs.signal.is_some();
            let how = if known { "SIGINT: pm2 cannot tell" } else { "a signal: pm2's log does not tell of it" };
            let mut clause = format!("it ended with code 0, or by {how}");
            let unseen = boots || matches!(signs.exception, ExceptionText::Unreadable | ExceptionText::SomeStack);
            if signs.cluster && unseen {
                between.push("uncaught_exception");
                clause = clause.replace("code 0, or", "code 0, by an exception that nobody caught, or");
            }
            if !known {
                between.extend(["v8_heap_limit", "kernel_oom_kill", "native_crash"]);
            }
            undecided(&between, clause, ["the exit code, which is 0 for every signal, too"])
        }
        None => undecided(&["exit", "signal"], "it ended, and pm2 tells neither a code nor a signal", ["it is gone"]),
    }
}

fn exit(code: i64) -> Finding {
    certain(Cause::Exit, &code.to_string(), format!("it ended by itself with exit code {code}"), ["the exit code"])
}

fn boot_loop(undecided: Finding, times: u32) -> Finding {
    let mut signs = vec![format!("{times} runs in a row ended right after their start")];
    signs.extend(undecided.signs);
    let clause = format!("it is in a boot loop; of this time is known: {}", undecided.clause);
    Finding { between: undecided.between, ..finding(Cause::BootLoop, "", Certainty::Certain, clause, signs) }
}

/// Seconds with at most one digit behind the point.
fn seconds(span: Duration) -> String {
    let text = format!("{:.1}", span.as_secs_f64());
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Writes the sentence of an end: what happened, what was known before, and what pm2 did then.
pub fn sentence(death: &Death) -> String {
    let time = death.at.to_rfc3339();
    let time = time.get(11..19).unwrap_or(&time);
    let verb = if death.finding.cause.is_asked() { "ended" } else { "died" };
    let before = match before(death.finding.cause, &death.before) {
        about if about.is_empty() => about,
        about => format!(" ({about})"),
    };
    let row = match death.in_a_row {
        times if times >= LOOP && death.finding.cause != Cause::BootLoop => {
            format!("; it is in a boot loop, {times} times in a row")
        }
        times if times >= LOOP => format!("; {times} times in a row"),
        _ => String::new(),
    };
    let then = match death.then {
        Aftermath::Restarted { seconds: 0 } => "; pm2 started it again at once".to_owned(),
        Aftermath::Restarted { seconds } => format!("; pm2 started it again after {seconds} s"),
        Aftermath::Waiting => "; pm2 waits before it starts it again".to_owned(),
        Aftermath::Stopped { by: Some(StayedDown::StopExitCodes) } => {
            "; it stays stopped, because its exit code is among stop_exit_codes".to_owned()
        }
        Aftermath::Stopped { by: Some(StayedDown::AutorestartOff) } => {
            "; it stays stopped, because autorestart is off".to_owned()
        }
        Aftermath::Stopped { by: None } => "; it stays stopped".to_owned(),
        Aftermath::Errored => "; pm2 gave up and does not start it again".to_owned(),
        Aftermath::Removed => "; it is no longer on pm2's list".to_owned(),
        Aftermath::Unknown => String::new(),
    };
    let evidence = death.before.evidence.as_ref().map_or(String::new(), |id| format!("; evidence of that run: {id}"));
    let unsure = if death.finding.certainty == Certainty::Likely { " (likely, not certain)" } else { "" };
    let (app, pm_id, clause) = (&death.app, death.pm_id, &death.finding.clause);
    format!("{app}-{pm_id} {verb} at {time}: {clause}{unsure}{before}{row}{then}{evidence}.")
}

/// What was known before that matters for this cause.
fn before(cause: Cause, before: &LastSeen) -> String {
    let mut parts = Vec::new();
    if cause == Cause::V8HeapLimit {
        parts.extend(before.heap_limit_bytes.map(|limit| format!("limit {limit}")));
    }
    if cause == Cause::KernelOomKill {
        parts.extend(before.resident_memory_bytes.map(|held| format!("{held} resident when last seen")));
        let above = before.heap_limit_bytes.zip(before.limit).filter(|(heap, limit)| *heap > limit.bytes);
        parts.extend(
            above.map(|(heap, limit)| format!("its heap limit of {heap} lies above its limit of {}", limit.bytes)),
        );
    }
    if cause.is_memory()
        && let (Some(LeakState::Suspect | LeakState::Leaking), Some(slope)) = (before.state, before.slope)
    {
        let per_hour = Bytes::from_f64(slope.bytes_per_second * 3600.0);
        let age = before.age_seconds.map_or(String::new(), |age| format!(" for {:.0} h", (age / 3600.0).max(1.0)));
        parts.push(format!("it had leaked {per_hour}/h{age}"));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests;

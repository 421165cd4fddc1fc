//! Into an app by its inspector, and out again: after checks it is opened with SIGUSR1, the session is carried over to a
//! connection of our own, and the inspector closed at once, however things go.
//!
//! It refuses to signal what is not Node, what does not catch the signal, or an app that listens for it itself; to share
//! an inspector with a debugger; and to close one that was open before.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::ledger::{Entry, Ledger, Noted};
use super::{TakeErrorKind, Target, checks, own_listener, private};
use crate::collect::home_file::within;
use crate::collect::look::Look;
use crate::collect::system::{CloseUp, SystemReader, connections, cut_off, listening_ports, taken_ports};
use crate::collect::target::CheckedTarget;
use crate::evidence::inspector::{Inspector, InspectorError, InspectorErrorKind, LoopDelay};
use crate::http::client;
use crate::model::WallTime;

pub(super) const PROC: &str = "/proc";
/// Where Node's inspector listens unless told otherwise, and the ports that workers under `--inspect` get.
const PORT: u16 = 9229;
pub(super) const PORTS: std::ops::RangeInclusive<u16> = PORT..=PORT + 100;
/// How long an app may take to open its inspector, …
const OPENING: Duration = Duration::from_secs(30);
/// … any step of a session that is quick by nature, …
pub(super) const STEP: Duration = Duration::from_secs(30);
/// … and closing it again.
const CLOSING: Duration = Duration::from_secs(30);
/// How long looking through an app's source may take.
const SOURCE: Duration = Duration::from_secs(10);
/// An inspector that was just asked for may still open within this time.
const LATE: Duration = Duration::from_secs(2);
/// How often it is looked whether an inspector that was asked for is open: from then on everybody can use it.
const OPEN_POLL: Duration = Duration::from_millis(5);
/// How often it is looked whether an app goes on, [`POLL`] apart.
const LOOKS: usize = 40;
const POLL: Duration = Duration::from_millis(50);
/// How often it is looked whether a process that is waited for lives.
const WATCHING: Duration = Duration::from_millis(100);
/// Closes the inspector a moment later, when whoever asked is gone: with somebody attached it would block the app.
const CLOSE: &str = "(inspector => { globalThis[Symbol.for('leakslope.inlining')]?.(); const end = () => { try { inspector.close(); } catch { /* closed already */ } }; \
    setTimeout(end, 100).unref(); return true; })(require('inspector'))";

/// What is said where nobody asked for an inspector.
const NOT_OPENED: &str = "pm2's agent is off in it, and its inspector is opened without a person asking only where \
    evidence.open_inspector names the app, since every user of this machine can use an open one";

/// A process that cannot come to mean another: its pid and its start.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pid: u32,
    pub(super) start_ticks: u64,
}

impl Held {
    fn is_alive(&self) -> bool {
        SystemReader::new(PROC.into()).is_alive(self.pid, self.start_ticks)
    }
}

/// A session in an app. To be ended with [`Attached::release`]; dropped, it closes the inspector as well.
#[derive(Debug)]
pub(super) struct Attached {
    // In this order they are dropped: the session ends before the inspector is closed.
    inspector: Inspector,
    watch: LoopDelay,
    opened: Opened,
}

/// How a session ended.
#[derive(Debug)]
pub(super) struct Released {
    /// How late the event loop was at the worst; none where it could not say so any more.
    pub(super) worst_delay: Option<Duration>,
    /// That the inspector is still open, and until when.
    pub(super) still_open: Option<String>,
}

/// An open inspector.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) process: Held,
    /// Where it listens, once that is known.
    pub(super) port: Option<u16>,
    /// Ports the process listened on before.
    pub(super) before: BTreeSet<u16>,
    /// Whether it is ours to close.
    pub(super) ours: bool,
    /// What is written down of it while it is.
    pub(super) noted: Option<Noted>,
}

/// Attaches to the inspector of the process, and opens it where it is closed and that is allowed (`opens`).
///
/// # Errors
/// Refused before anything was done to the app, or failed with its inspector closed again (or the sentence says so).
pub(super) async fn attach(
    target: &Target,
    look: &Look,
    ledger: &Ledger,
    now: WallTime,
    opens: bool,
) -> Result<Attached, TakeErrorKind> {
    let (pid, peer) = (target.life.pid, look.peer);
    let listed = look.find(target.key.pm_id).map_err(TakeErrorKind::Refused)?.clone();
    let checking = move || {
        let mut reader = SystemReader::new(PROC.into());
        let proven = CheckedTarget::check(&listed, &peer)?;
        let seen = reader.close_up(pid).ok_or("it has ended")?;
        if let Some(objection) = checks::against_looking(&seen) {
            return Err(objection);
        }
        let against_signal = checks::against_signal(&seen);
        let before = listening_ports(Path::new(PROC), pid);
        let process = Held { pid, start_ticks: seen.start_ticks };
        Ok((Opened { process, port: None, before, ours: false, noted: None }, proven, seen, against_signal))
    };
    let checked = tokio::task::spawn_blocking(checking).await.map_err(|error| error.to_string());
    let (mut opened, proven, seen, against_signal) =
        checked.and_then(|checked| checked).map_err(TakeErrorKind::Refused)?;
    opened.port = already_open(&opened).await.map_err(TakeErrorKind::Refused)?;
    if opened.port.is_none() {
        if !opens {
            return Err(TakeErrorKind::Refused(NOT_OPENED.to_owned()));
        }
        let mut objection = against_signal;
        if objection.is_none() {
            objection = own_listener(&seen).await;
        }
        if objection.is_none() {
            objection = against_now(pid).await;
        }
        if let Some(objection) = objection {
            return Err(TakeErrorKind::Refused(objection));
        }
        let entry = Entry::new(target, opened.process.start_ticks, opened.before.iter().copied().collect(), now);
        open(&mut opened, &proven, entry, ledger).await?;
    }
    let attached = session(&mut opened).await;
    match attached {
        Ok((inspector, watch)) => Ok(Attached { inspector, watch, opened }),
        Err(error) => Err(opened.given_up(&error).await),
    }
}

/// What of the app's own source speaks against a signal. It may lie on a file server that is gone.
async fn own_listener(seen: &CloseUp) -> Option<String> {
    let folder = seen.folder.clone().unwrap_or_else(|| "/".into());
    let (command_line, within_it) = (seen.command_line.clone(), folder.clone());
    let found = within(&folder, SOURCE, move || own_listener::find(&command_line, Some(&within_it))).await;
    match found {
        Ok(found) => found.map(|(file, line)| {
            format!(
                "it may listen for SIGUSR1 itself ({}:{line}), and would take the signal for its own; open its inspector \
                 in another way (node_args: --inspect), then try again",
                file.display()
            )
        }),
        Err(late) => Some(format!("whether it listens for SIGUSR1 itself cannot be told: {late}")),
    }
}

/// What speaks against a signal just now; a moment later it may be over.
async fn against_now(pid: u32) -> Option<String> {
    let watching = move || {
        let (mut reader, mut place) = (SystemReader::new(PROC.into()), String::new());
        for _ in 0..LOOKS {
            let seen = reader.close_up(pid)?;
            checks::broken_off(&seen)?.clone_into(&mut place);
            std::thread::sleep(POLL);
        }
        Some(format!(
            "it waits in the system ({place}), and the signal would break that off; try again when it answers requests"
        ))
    };
    tokio::task::spawn_blocking(watching).await.unwrap_or_else(|panicked| Some(panicked.to_string()))
}

/// The port of an inspector that was open before and that nobody uses.
async fn already_open(opened: &Opened) -> Result<Option<u16>, String> {
    let pid = opened.process.pid;
    for port in opened.before.iter().copied().filter(|port| PORTS.contains(port)) {
        if is_inspector(port).await {
            undebugged(pid, port).await?;
            return Ok(Some(port));
        }
    }
    if taken_ports(Path::new(PROC), pid).contains(&PORT) {
        return Err(format!(
            "port {PORT}, where its inspector would open, is taken by another process (`ss -ltnp sport = :{PORT}` names \
             it); close that one, then try again"
        ));
    }
    Ok(None)
}

/// Whether what listens there is V8's inspector.
pub(super) async fn is_inspector(port: u16) -> bool {
    #[derive(Deserialize)]
    struct Version {
        #[serde(rename = "Protocol-Version")]
        _protocol: String,
    }
    let told = client::get(&address(port).to_string(), "/json/version", STEP, 64 << 10).await;
    told.is_ok_and(|body| serde_json::from_slice::<Version>(&body).is_ok())
}

/// Whether nobody debugs a process by its inspector. What has just asked for the version may still be closing; a debugger
/// stays.
///
/// # Errors
/// A sentence where somebody does.
pub(super) async fn undebugged(pid: u32, port: u16) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(2);
    while connections(Path::new(PROC), pid, port) > 0 {
        if Instant::now() >= end {
            return Err(format!("somebody debugs it at 127.0.0.1:{port}; close the debugger, then try again"));
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Writes down what is about to be opened, sends SIGUSR1 and waits for the inspector to listen.
async fn open(
    opened: &mut Opened,
    proven: &CheckedTarget,
    mut entry: Entry,
    ledger: &Ledger,
) -> Result<(), TakeErrorKind> {
    let (ledger, to_write) = (ledger.clone(), entry.clone());
    let writing = tokio::task::spawn_blocking(move || ledger.write(&to_write).map_err(|error| error.to_string()));
    let written = writing.await.map_err(|panicked| panicked.to_string()).and_then(|written| written);
    opened.noted = written.map_err(|error| {
        TakeErrorKind::Refused(format!(
            "it cannot be written down that its inspector is open, and nobody would close it if this was killed ({error}): \
             make room, or set STATE_DIRECTORY to a folder that may be written"
        ))
    })?;
    if let Err(why) = proven.signal(Signal::USR1) {
        opened.closed();
        return Err(TakeErrorKind::Refused(why));
    }
    opened.ours = true;
    let end = Instant::now() + OPENING;
    loop {
        opened.port = opened.newly_open();
        if opened.port.is_some() {
            entry.port = opened.port;
            if let Some(noted) = opened.noted.take() {
                let rewriting = tokio::task::spawn_blocking(move || noted.rewrite(&entry));
                opened.noted = rewriting.await.ok();
            }
            return Ok(());
        }
        if !opened.process.is_alive() {
            opened.closed();
            return Err(TakeErrorKind::Failed(
                "it ended when its inspector was to open; try again when it runs".to_owned(),
            ));
        }
        if Instant::now() >= end {
            opened.ours = false;
            // The record is left behind for it.
            let later = if opened.noted.take().map(Noted::give_up).is_some() {
                "is closed by the sidecar, or by the next `leakslope heap profile` or `heap snapshot`"
            } else {
                "stays open until the app is restarted"
            };
            return Err(TakeErrorKind::Failed(format!(
                "its inspector did not open within {} s: it listens for SIGUSR1 itself, or is blocked; an inspector that \
                 opens later on 127.0.0.1:{PORT} {later}",
                OPENING.as_secs()
            )));
        }
        sleep(OPEN_POLL).await;
    }
}

async fn session(opened: &mut Opened) -> Result<(Inspector, LoopDelay), String> {
    let port = opened.port.ok_or("no port")?;
    let mut inspector = Inspector::open(address(port), STEP).await.map_err(|error| error.to_string())?;
    let asked = inspector.process_pid(STEP).await.map_err(|error| {
        if let InspectorErrorKind::Deadline { .. } = error.kind {
            return format!(
                "its event loop is blocked for {} s now; try again when it answers requests",
                STEP.as_secs()
            );
        }
        error.to_string()
    })?;
    if asked != opened.process.pid {
        return Err(of_another(port, asked));
    }
    opened.alone(1)?;
    if opened.ours {
        let pid = opened.process.pid;
        inspector = opened.while_alone(private::carried_over(inspector, pid, STEP)).await?;
        opened.seen_closed().await?;
    }
    let watch = inspector.watch_loop(STEP).await.map_err(|error| error.to_string())?;
    Ok((inspector, watch))
}

fn of_another(port: u16, pid: u32) -> String {
    format!("the inspector at 127.0.0.1:{port} is that of process {pid}; close that one, then try again")
}

/// Asks the inspector at a port whether it is in this process. A blocked app does not answer, and counts as the one that holds
/// the port.
///
/// # Errors
/// A sentence where it is in another one.
pub(super) async fn is_in(pid: u32, port: u16) -> Result<(), String> {
    let Ok(mut inspector) = Inspector::open(address(port), STEP).await else { return Ok(()) };
    match inspector.process_pid(STEP).await {
        Ok(other) if other != pid => Err(of_another(port, other)),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Attached {
    /// The session.
    pub(super) fn inspector(&mut self) -> &mut Inspector {
        &mut self.inspector
    }

    /// Waits while the process lives.
    ///
    /// # Errors
    /// It has ended.
    pub(super) async fn wait(&self, duration: Duration) -> Result<(), String> {
        let end = Instant::now() + duration;
        loop {
            if !self.opened.process.is_alive() {
                return Err(ENDED.to_owned());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(WATCHING)).await;
        }
    }

    /// Says what went wrong in a step: that the process has ended where it has.
    pub(super) fn because(&self, error: &InspectorError) -> String {
        if self.opened.process.is_alive() { error.to_string() } else { ENDED.to_owned() }
    }

    /// Ends the session after something went wrong, closes the inspector, and says both.
    pub(super) async fn given_up(self, why: String) -> TakeErrorKind {
        let Self { inspector, watch: _, mut opened } = self;
        drop(inspector);
        opened.given_up(&why).await
    }

    /// Ends the session, closes the inspector if it was opened for it, and sees its listener gone.
    pub(super) async fn release(self) -> Released {
        let Self { mut inspector, watch, mut opened } = self;
        let worst_delay = inspector.worst_delay(watch, STEP).await.ok();
        drop(inspector);
        Released { worst_delay, still_open: opened.shut().await.err() }
    }
}

/// What is said of a process that is gone.
pub(super) const ENDED: &str = "it ended meanwhile; try again when it runs";

impl Opened {
    fn newly_open(&self) -> Option<u16> {
        let now = listening_ports(Path::new(PROC), self.process.pid);
        // Others that it begins to listen on just now are not in Node's range, unless its inspector was moved.
        let new = || now.difference(&self.before).copied();
        new().find(|port| PORTS.contains(port)).or_else(|| new().next())
    }

    fn is_open(&self) -> bool {
        self.port.is_some_and(|port| listening_ports(Path::new(PROC), self.process.pid).contains(&port))
    }

    /// Whether nobody is connected to an inspector that is open on our account but we, with so many connections.
    ///
    /// # Errors
    /// A sentence where somebody is.
    fn alone(&self, own: usize) -> Result<(), String> {
        let Some(port) = self.port.filter(|_| self.ours) else { return Ok(()) };
        if connections(Path::new(PROC), self.process.pid, port) <= own {
            return Ok(());
        }
        Err(format!(
            "somebody else connected to its inspector at 127.0.0.1:{port} while it was open, so it was closed at once: whoever \
             did could run code in the app"
        ))
    }

    /// Waits for a step as long as nobody else connects.
    ///
    /// # Errors
    /// Those of the step, or somebody has.
    async fn while_alone<T>(&self, step: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let mut step = std::pin::pin!(step);
        loop {
            tokio::select! {
                done = &mut step => return done,
                () = sleep(OPEN_POLL) => self.alone(1)?,
            }
        }
    }

    /// Waits until the inspector that the app was told to close is seen closed.
    ///
    /// # Errors
    /// It stays open, or somebody is connected to it, for whom closing waits.
    async fn seen_closed(&mut self) -> Result<(), String> {
        let end = Instant::now() + STEP;
        while self.is_open() {
            self.alone(0)?;
            if Instant::now() >= end {
                return Err(format!("its event loop was blocked for {} s", STEP.as_secs()));
            }
            sleep(OPEN_POLL).await;
        }
        // Node listens no longer and then waits, with the app, for whoever is still attached.
        self.alone(0)?;
        self.closed();
        Ok(())
    }

    /// Closes the inspector after something went wrong, and says both.
    async fn given_up(&mut self, why: &str) -> TakeErrorKind {
        let why = if self.process.is_alive() { why } else { ENDED };
        match self.shut().await {
            Ok(()) => TakeErrorKind::Failed(why.to_owned()),
            Err(open) => TakeErrorKind::Failed(format!("{why}; {open}")),
        }
    }

    /// There is nothing to close any more.
    fn closed(&mut self) {
        self.ours = false;
        if let Some(noted) = self.noted.take() {
            noted.strike_out();
        }
    }

    /// Closes the inspector, if it is ours to close, and waits until its listener is gone.
    ///
    /// # Errors
    /// A sentence where it is still open.
    pub(super) async fn shut(&mut self) -> Result<(), String> {
        if !self.ours {
            return Ok(());
        }
        let (begin, mut asked) = (Instant::now(), false);
        loop {
            self.port = self.port.or_else(|| self.newly_open());
            if self.port.is_none() && begin.elapsed() < LATE && self.process.is_alive() {
                sleep(POLL).await;
                continue;
            }
            let attached = |port: u16| connections(Path::new(PROC), self.process.pid, port) > 0;
            let Some(port) = self.port.filter(|port| self.is_open() || attached(*port)) else {
                self.closed();
                return Ok(());
            };
            let left = CLOSING.saturating_sub(begin.elapsed());
            if left.is_zero() {
                self.ours = false;
                // What was asked waits in the app; the record stays until it was seen to be done.
                if let Some(noted) = self.noted.take() {
                    noted.give_up();
                }
                return Err(format!(
                    "its inspector is still open at 127.0.0.1:{port} and closes as soon as its event loop goes on"
                ));
            }
            // Closing waits for whoever is connected, and the app with it; none of them is ours.
            cut_off(self.process.pid, port);
            if !asked && let Ok(mut inspector) = Inspector::open(address(port), left).await {
                asked = inspector.evaluate(CLOSE, true, left).await.is_ok();
            }
            sleep(POLL).await;
        }
    }
}

impl Drop for Opened {
    /// Whoever gives up half-way does not wait for it, so the inspector is closed on a thread of its own.
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let shut = runtime.map(|runtime| runtime.block_on(self.shut()));
                if let Ok(Err(open)) = shut {
                    tracing::warn!("an app's {open}");
                }
            });
        });
    }
}

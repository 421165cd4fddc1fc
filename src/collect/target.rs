//! The process that may be acted on: every signal, inspector and restart order goes through here.
//!
//! A daemon's list is only its word, and the credentials of a socket name whoever called `listen()` on it. So what is acted on
//! is proven by the system alone: the daemon is a live process, began before it was asked, and belongs to the owner of its
//! home; the process is that daemon's own child, belongs to the same user, and lives in our pid namespace. Where one of these
//! cannot be seen nothing is done. It is checked again right before the act, on a handle that cannot come to mean another
//! process.
//!
//! It refuses every fallback: a start time that fits proves nothing.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::socket::Peer;
use super::system::{Credentials, SystemReader};
use crate::model::Listed;

const PROC: &str = "/proc";
const ROOT: u32 = 0;

/// A process that was proven to be an app of the daemon that lists it.
#[derive(Debug)]
pub struct CheckedTarget {
    pid: u32,
    start_ticks: u64,
    daemon: Proven,
    handle: OwnedFd,
}

/// A daemon that was proven to be the home's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Proven {
    pid: u32,
    start_ticks: u64,
    user: u32,
}

impl CheckedTarget {
    /// Proves that a listed process is an app of the daemon that answered. Reads `/proc`, so it blocks for a moment.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn check(listed: &Listed, peer: &Peer) -> Result<Self, String> {
        let pid = listed.pid.filter(|_| listed.status.has_live_pid()).ok_or("pm2 shows no live pid of it")?;
        // The handle comes first, so that what is seen next is seen of this very process.
        let handle = pidfd(pid)?;
        let mut reader = SystemReader::new(PROC.into());
        let daemon = prove_daemon(&mut reader, peer)?;
        let start_ticks = prove_child(&mut reader, pid, &daemon)?.start_ticks;
        Ok(Self { pid, start_ticks, daemon, handle })
    }

    /// Proves once more that it is the same process of the same daemon, and that this daemon is who answers.
    ///
    /// # Errors
    /// A sentence that says what has changed.
    pub fn check_again(&self, peer: &Peer) -> Result<(), String> {
        let mut reader = SystemReader::new(PROC.into());
        if prove_daemon(&mut reader, peer)? != self.daemon {
            return Err("another process answers at pm2's socket than a moment ago; try again".to_owned());
        }
        self.stands(&mut reader)
    }

    /// Sends it a signal, after it was proven once more.
    ///
    /// # Errors
    /// A sentence: what has changed, or that the system refused.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        self.stands(&mut SystemReader::new(PROC.into()))?;
        pidfd_send_signal(&self.handle, signal)
            .map_err(|error| format!("the signal may not be sent to it ({error}); run this as the app's user"))
    }

    fn stands(&self, reader: &mut SystemReader) -> Result<(), String> {
        let child = prove_child(reader, self.pid, &self.daemon)?;
        if child.start_ticks == self.start_ticks { Ok(()) } else { Err(ENDED.to_owned()) }
    }
}

const ENDED: &str = "it has ended";

fn pidfd(pid: u32) -> Result<OwnedFd, String> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("it has no pid")?;
    pidfd_open(number, PidfdFlags::empty()).map_err(|error| match error {
        rustix::io::Errno::SRCH => ENDED.to_owned(),
        error => format!("the system gives no handle on it ({error}); Linux 5.3 or later is needed"),
    })
}

fn prove_daemon(reader: &mut SystemReader, peer: &Peer) -> Result<Proven, String> {
    // A volume that several containers share belongs to root; then it counts who made the socket in it.
    let owner = if peer.home_owner == ROOT { peer.socket_owner } else { peer.home_owner };
    if peer.user != owner {
        return Err(format!(
            "pm2's daemon runs as user {}, and its home belongs to user {owner}: give the home to the daemon's user",
            peer.user
        ));
    }
    let unseen = || {
        "who answers at pm2's socket cannot be seen from here (another pid namespace, or /proc hides it): run leakslope \
         where pm2 runs"
            .to_owned()
    };
    let pid = peer.pid.ok_or_else(unseen)?;
    let seen = reader.credentials(pid).ok_or_else(unseen)?;
    let began = Duration::from_millis(u64::try_from(reader.since_boot(seen.start_ticks)).unwrap_or_default());
    if began > peer.seen_at || seen.users != [peer.user; 4] {
        return Err(format!("pid {pid}, which opened pm2's socket, is another process now"));
    }
    Ok(Proven { pid, start_ticks: seen.start_ticks, user: peer.user })
}

fn prove_child(reader: &mut SystemReader, pid: u32, daemon: &Proven) -> Result<Credentials, String> {
    let seen = reader.credentials(pid).ok_or(ENDED)?;
    let still = reader.credentials(daemon.pid).is_some_and(|now| now.start_ticks == daemon.start_ticks);
    if !still || seen.parent != daemon.pid || seen.start_ticks < daemon.start_ticks {
        return Err(format!("its pid {pid} is not that of a process of pm2's here: run leakslope where pm2 runs"));
    }
    if seen.namespaces != 1 {
        return Err("it runs in another pid namespace: run leakslope in the app's container".to_owned());
    }
    // Root's daemon may start apps as anybody; anybody else's only as its own user.
    if daemon.user != ROOT && seen.users != [daemon.user; 4] {
        return Err(format!("it runs as user {}, and pm2's daemon as user {}", seen.users[1], daemon.user));
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::list::read_list;

    fn listed(pid: u32) -> Listed {
        let json = format!(r#"[{{"pm_id":0,"pid":{pid},"pm2_env":{{"status":"online","pm_uptime":1}}}}]"#);
        read_list(json.as_bytes(), 1).unwrap().entries.remove(0)
    }

    fn us() -> Peer {
        let user = rustix::process::geteuid().as_raw();
        let seen_at = Duration::from_secs(u64::MAX / 4);
        Peer { pid: Some(std::process::id()), user, socket_owner: user, home_owner: user, seen_at }
    }

    #[test]
    fn only_a_child_of_the_very_daemon_that_owns_its_home_stands() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let check = |pid: u32, peer: &Peer| CheckedTarget::check(&listed(pid), peer);
        let target = check(child.id(), &us()).unwrap();
        assert_eq!(target.check_again(&us()), Ok(()));
        let said = |pid, peer: &Peer| check(pid, peer).expect_err("it is not proven");
        let parent = std::os::unix::process::parent_id();
        assert!(said(parent, &us()).contains("not that of a process of pm2's"), "a stranger's pid");
        assert!(said(child.id(), &Peer { pid: None, ..us() }).contains("cannot be seen"));
        assert!(said(child.id(), &Peer { pid: Some(parent), ..us() }).contains("not that of a process of pm2's"));
        assert!(said(child.id(), &Peer { seen_at: Duration::ZERO, ..us() }).contains("another process now"));
        let other = us().user + 77;
        assert!(said(child.id(), &Peer { home_owner: other, ..us() }).contains("give the home to the daemon's user"));
        assert!(
            said(child.id(), &Peer { user: other, socket_owner: other, home_owner: other, ..us() }).contains("another")
        );
        assert!(target.check_again(&Peer { pid: Some(parent), ..us() }).is_err());
        assert_eq!(target.signal(Signal::KILL), Ok(()));
        child.wait().unwrap();
        assert!(target.signal(Signal::KILL).is_err());
    }
}

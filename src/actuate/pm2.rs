//! One replacement by a daemon's socket.
//!
//! Just before it is sent the list is read afresh: unless the very life that is to end is online, is proven to be that daemon's
//! (`collect::target`), and pm2's reload lock is free, nothing is sent. What the daemon answers is not believed (it says ok to a
//! worker that never listened); whether a cluster worker reported in time is told by what pm2's log says of this very
//! replacement, else by how long pm2 took.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::collect::amp::Request;
use crate::collect::home_file::{Home, within};
use crate::collect::look::{LOOK_DEADLINE, Look, client, look, refusal};
use crate::collect::target::CheckedTarget;
use crate::model::{Listed, Status, WallTime};
use crate::policy::{Action, Answer, Order};
use pm2_client::reload_lock::Held;

/// The longest stretch of pm2's log that is read after a reload.
const LONGEST_LOG: u64 = 256 << 10;
/// How long a home may take to give the log.
const LOG_DEADLINE: Duration = Duration::from_secs(2);
/// What pm2 logs when a new worker listens, or says that it is ready.
const LISTENING: &[u8] = b"New worker listening";

/// What to do in which home.
#[derive(Debug, Clone)]
pub struct Act {
    /// The daemon's home.
    pub home: PathBuf,
    /// How.
    pub action: Action,
    /// What.
    pub order: Order,
}

/// Replaces one life of one process, at most once, and tells what is known of it.
pub async fn replace(act: &Act, wall: impl Fn() -> WallTime) -> Answer {
    let proven = find(act).await;
    let (listed, target) = match proven {
        Ok(proven) => proven,
        Err(why) => return Answer::NotSent(why),
    };
    let held = match Held::take(&act.home, wall()).await {
        Ok(held) => held,
        Err(error) => return Answer::NotSent(error.to_string()),
    };
    let log = Log::at_its_end(&act.home).await;
    let answer = order(act, &listed, &target, log).await;
    held.free().await;
    answer
}

/// Finds the process in the daemon's list of now, and proves that it may be acted on.
async fn find(act: &Act) -> Result<(Listed, CheckedTarget), String> {
    let Look { entries, peer } = look(&mut client(&act.home, LOOK_DEADLINE)).await?;
    let mut entries = entries.into_iter();
    let listed = entries.find(|entry| entry.pm_id == act.order.key.pm_id).ok_or("it left pm2's list")?;
    if listed.status != Status::Online || listed.life() != Some(act.order.life) {
        return Err("it is no longer online in the life that was to end".to_owned());
    }
    if act.action == Action::Reload && listed.exec_mode != "cluster" {
        return Err("it is no cluster worker any more".to_owned());
    }
    let checking = move || CheckedTarget::check(&listed, &peer).map(|target| (listed, target));
    tokio::task::spawn_blocking(checking).await.map_err(|panicked| panicked.to_string())?
}

async fn order(act: &Act, listed: &Listed, target: &CheckedTarget, log: Option<Log>) -> Answer {
    let request = match act.action {
        Action::Reload => Request::ReloadProcessId(act.order.key.pm_id),
        Action::Restart => Request::RestartProcessId(act.order.key.pm_id),
    };
    let begun = Instant::now();
    let mut client = client(&act.home, act.order.deadline);
    let reply = match client.act_where(request, |whoever| target.check_again(whoever)).await {
        Ok(reply) => reply,
        Err(error) if error.sent => return Answer::Unknown(error.to_string()),
        Err(error) => return Answer::NotSent(error.to_string()),
    };
    let took = begun.elapsed();
    if let Some(why) = refusal(reply.json()) {
        return Answer::Refused(why);
    }
    let listen_timeout = Duration::from_millis(listed.listen_timeout_ms.unwrap_or(3000));
    let ready = match act.action {
        Action::Restart => None,
        // Where the log is elsewhere and pm2 took longer, it has either waited in vain or the old worker was slow to end.
        Action::Reload => {
            let added = match log {
                Some(log) => log.added_since().await,
                None => None,
            };
            added
                .and_then(|added| reported(&added, act.order.app.name(), act.order.key.pm_id))
                .or_else(|| (took < listen_timeout).then_some(true))
        }
    };
    Answer::Accepted { ready }
}

/// Whether pm2's log says that the new worker reported in time; none where it does not speak of this replacement.
///
/// `Stopping app:<name> id:_old_<pm_id>` is logged in the same breath as [`LISTENING`], right after it, or alone when pm2
/// stopped waiting. Other apps' lines stand before lines of their own.
fn reported(added: &[u8], app: &str, pm_id: u32) -> Option<bool> {
    let stopping = format!("Stopping app:{app} id:_old_{pm_id}");
    let mut before: &[u8] = b"";
    for line in added.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end) {
        if line.ends_with(stopping.as_bytes()) {
            return Some(before.ends_with(LISTENING));
        }
        before = line;
    }
    None
}

/// pm2's own log, from a point on.
struct Log {
    home: PathBuf,
    from: u64,
}

const LOG: &str = "pm2.log";

impl Log {
    async fn at_its_end(home: &Path) -> Option<Self> {
        let folder = home.to_owned();
        let length = move || Home::open(&folder)?.open_file(LOG).and_then(|file| Ok(file.metadata()?.len()));
        let from = within(home, LOG_DEADLINE, length).await.ok()?.ok()?;
        Some(Self { home: home.to_owned(), from })
    }

    /// [`Log::added`], off the event loop.
    async fn added_since(self) -> Option<Vec<u8>> {
        let home = self.home.clone();
        within(&home, LOG_DEADLINE, move || self.added()).await.ok()?
    }

    /// What was added; none where nothing was although a reload always adds something: the log is elsewhere, or was rotated.
    fn added(&self) -> Option<Vec<u8>> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = Home::open(&self.home).ok()?.open_file(LOG).ok()?;
        if file.metadata().ok()?.len() <= self.from {
            return None;
        }
        file.seek(SeekFrom::Start(self.from)).ok()?;
        let mut added = Vec::new();
        file.take(LONGEST_LOG).read_to_end(&mut added).ok()?;
        Some(added)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_log_is_read_from_where_it_ended() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("pm2.log");
        assert!(Log::at_its_end(home.path()).await.is_none());
        std::fs::write(&path, "-reload- New worker listening\n").unwrap();
        let log = Log::at_its_end(home.path()).await.unwrap();
        assert_eq!(log.added(), None);
        std::fs::write(&path, "-reload- New worker listening\nStopping app:shop id:_old_1\n").unwrap();
        assert_eq!(log.added().as_deref(), Some(&b"Stopping app:shop id:_old_1\n"[..]));
    }

    /// pm2#5104: the lines of another app's reload are not taken for ours.
    #[test]
    fn only_the_line_before_the_end_of_our_old_worker_counts() {
        let listening = "PM2 log: -reload- New worker listening";
        let stopping = |what: &str| format!("PM2 log: Stopping app:{what}");
        let (ours, theirs) = (stopping("a b id:_old_1"), stopping("shop id:_old_1"));
        for (lines, expected) in [
            (vec![listening, &ours], Some(true)),
            (vec![&ours, listening], Some(false)),
            (vec![listening, &theirs, &ours], Some(false)),
            (vec![&theirs, listening, &ours], Some(true)),
            (vec![listening, &theirs], None),
            (vec![listening, &stopping("a b id:_old_11"), &stopping("a b id:1")], None),
            (vec![], None),
        ] {
            assert_eq!(reported(lines.join("\n").as_bytes(), "a b", 1), expected, "{lines:?}");
        }
    }
}

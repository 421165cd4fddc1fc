//! One replacement by a daemon's socket.
//!
//! Just before it is sent the list is read afresh: unless the very life that is to end is online, is proven to be that daemon's
//! (`collect::target`), and pm2's reload lock is free, nothing is sent. What the daemon answers is not believed (it says ok to a worker that never listened); whether a
//! cluster worker reported in time is told by how long pm2 took and by what its log says of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::reload_lock::Held;
use crate::collect::amp::Request;
use crate::collect::home_file::{Home, within};
use crate::collect::look::{LOOK_DEADLINE, Look, client, look, refusal};
use crate::collect::target::CheckedTarget;
use crate::model::{Listed, Status, WallTime};
use crate::policy::{Action, Answer, Order};

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
        Action::Reload if took < listen_timeout => Some(true),
        // pm2 has either waited in vain, or the old worker was slow to end: its log tells which.
        Action::Reload => match log {
            Some(log) => log.grown_with(LISTENING).await,
            None => None,
        },
    };
    Answer::Accepted { ready }
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

    /// Whether what was added holds `words`; none when that cannot be told.
    async fn grown_with(self, words: &'static [u8]) -> Option<bool> {
        let home = self.home.clone();
        within(&home, LOG_DEADLINE, move || self.added_holds(words)).await.ok()?
    }

    fn added_holds(&self, words: &[u8]) -> Option<bool> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = Home::open(&self.home).ok()?.open_file(LOG).ok()?;
        let length = file.metadata().ok()?.len();
        if length <= self.from {
            // Nothing was added although a reload always adds something: the log is elsewhere, or was rotated.
            return None;
        }
        file.seek(SeekFrom::Start(self.from)).ok()?;
        let mut added = Vec::new();
        file.take(LONGEST_LOG).read_to_end(&mut added).ok()?;
        let found = added.windows(words.len()).any(|window| window == words);
        if found || length - self.from <= LONGEST_LOG { Some(found) } else { None }
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
        assert_eq!(log.added_holds(LISTENING), None);
        std::fs::write(&path, "-reload- New worker listening\nStopping app\n").unwrap();
        assert_eq!(log.added_holds(LISTENING), Some(false));
        std::fs::write(&path, "-reload- New worker listening\nx -reload- New worker listening\n").unwrap();
        assert_eq!(log.added_holds(LISTENING), Some(true));
    }
}

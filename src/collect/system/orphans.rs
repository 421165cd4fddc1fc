//! Processes that an app left behind: they outlived the run that started them, and pm2 no longer knows them.
//!
//! They are found by what pm2 puts into the environment of every app and its children inherit: `PM2_HOME`, and `pm_id` (which
//! a cluster worker has inside of `pm2_env`). An environment is full of secrets, so nothing else of it is looked at, and
//! nothing of it is kept. What cannot be read (another user's environment) is not found.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::{SystemReader, descendants, parse};
use crate::model::Orphan;

/// How many readings the orphans that were found are relied upon: a minute at the usual pace.
const EVERY: u32 = 4;
/// A child of the daemon that is not listed may be one that begins or ends in the middle of a reload, in milliseconds.
const BETWEEN_TWO_LISTS: i64 = 60_000;

impl SystemReader {
    /// The processes that carry the environment of an app of `home` and belong to none of the `listed` ones; none where the
    /// daemon cannot be seen, as then nobody's belonging can.
    pub(in crate::collect) fn orphans(
        &mut self,
        home: &Path,
        daemon_pid: Option<u32>,
        listed: &BTreeSet<u32>,
    ) -> Option<Vec<Orphan>> {
        let daemon = daemon_pid?;
        if matches!(self.daemon_below, Some((_, true))) {
            return None;
        }
        if self.readings % EVERY == 1 {
            self.orphans = self.find_orphans(home, daemon, listed);
        }
        self.orphans.clone()
    }

    fn find_orphans(&mut self, home: &Path, daemon: u32, listed: &BTreeSet<u32>) -> Option<Vec<Orphan>> {
        let entries = std::fs::read_dir(&self.proc).ok()?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let mut started: BTreeMap<u32, u64> = BTreeMap::new();
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for pid in pids.collect::<Vec<_>>() {
            let Some(stat) = self.pid_file(pid, "stat").and_then(parse::stat).filter(|stat| !stat.is_dead) else {
                continue;
            };
            started.insert(pid, stat.start_ticks);
            children.entry(stat.parent).or_default().push(pid);
        }
        let known = descendants(listed, &children);
        let of_daemon = descendants(&BTreeSet::from([daemon]), &children);
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = clock.tv_sec.saturating_mul(1000);
        let mut found = Vec::new();
        for (pid, ticks) in started {
            let is_new = now.saturating_sub(self.milliseconds(ticks)) < BETWEEN_TWO_LISTS;
            if pid == daemon || listed.contains(&pid) || known.contains(&pid) || (is_new && of_daemon.contains(&pid)) {
                continue;
            }
            let pm_id = self.pid_file(pid, "environ").and_then(|environ| app_of(environ, home));
            self.buffer.fill(0);
            if let Some(pm_id) = pm_id
                && let Some(memory) = self.memory(pid)
            {
                found.push(Orphan { pid, pm_id, resident: memory.resident });
            }
        }
        found.sort_by_key(|orphan| (orphan.pm_id, orphan.pid));
        Some(found)
    }
}

/// The `pm_id` in an environment of an app of this home.
fn app_of(environ: &[u8], home: &Path) -> Option<u32> {
    let (mut is_of_home, mut pm_id) = (false, None);
    for variable in environ.split(|byte| *byte == 0) {
        if let Some(value) = variable.strip_prefix(b"PM2_HOME=") {
            is_of_home = std::str::from_utf8(value).is_ok_and(|value| Path::new(value) == home);
        } else if let Some(value) = variable.strip_prefix(b"pm_id=") {
            pm_id = number(value);
        } else if let Some(value) = variable.strip_prefix(b"pm2_env=") {
            const NAME: &[u8] = b"\"pm_id\":";
            let at = memchr::memmem::find(value, NAME);
            pm_id = pm_id.or_else(|| number(value.get(at? + NAME.len()..)?));
        }
    }
    pm_id.filter(|_| is_of_home)
}

/// The number that a text begins with.
fn number(text: &[u8]) -> Option<u32> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(text.get(..digits)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_tells_its_home_and_its_app_and_nothing_else() {
        let home = Path::new("/home/deploy/.pm2");
        for (environ, expected) in [
            ("PATH=/bin\0PM2_HOME=/home/deploy/.pm2\0pm_id=3\0SECRET=x\0", Some(3)),
            ("pm_id=0\0PM2_HOME=/home/deploy/.pm2/\0", Some(0)),
            ("PM2_HOME=/home/deploy/.pm2\0pm2_env={\"name\":\"a\",\"pm_id\":12,\"x\":1}\0", Some(12)),
            ("PM2_HOME=/home/other/.pm2\0pm_id=3\0", None),
            ("PM2_HOME=/home/deploy/.pm2\0", None),
            ("PM2_HOME=/home/deploy/.pm2\0pm_id=all\0", None),
            ("NOT_PM2_HOME=/home/deploy/.pm2\0my_pm_id=3\0", None),
            ("", None),
        ] {
            assert_eq!(app_of(environ.as_bytes(), home), expected, "{environ:?}");
        }
    }
}

//! How much of what pm2 lists is kept: pure.
//!
//! A daemon may list thousands of processes, and each may publish metrics of its own under names of its own. Written out as
//! metrics that is many times what was sent, so a single daemon could use up the memory in which all are watched. So each has a
//! budget, and all together have one: for what is shown of every process, and apart from that for what apps publish themselves.
//! What is beyond it is left out when it arrives, and counted.

use model::Listed;

/// What a process is written out in at the most, …
const SERIES: usize = 50;
/// … and the bytes of one of these lines without the names that an app chooses.
const SERIES_BYTES: usize = 80;
const MIB: usize = 1 << 20;

/// Bytes that may yet be written out, by a reckoning from the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    processes: usize,
    metrics: usize,
}

impl Budget {
    /// That of one daemon: 5,000 processes with names of up to fifty letters, and some 40,000 metrics of their own.
    pub const OF_A_DAEMON: Self = Self { processes: 32 * MIB, metrics: 8 * MIB };
    /// That of all daemons together.
    pub const OF_ALL: Self = Self { processes: 48 * MIB, metrics: 12 * MIB };

    /// Takes a process into the budget, with as many of its own metrics as there is room for, and returns how many are left
    /// out; none where there is no room for the process itself.
    pub fn admit(&mut self, entry: &mut Listed) -> Option<usize> {
        let app = entry.app.name().len() + entry.app.namespace().len();
        self.processes = self.processes.checked_sub(SERIES * (SERIES_BYTES + app))?;
        let custom = &mut entry.metrics.custom;
        let before = custom.len();
        let fits = custom.iter().take_while(|metric| {
            let bytes = SERIES_BYTES + app + metric.name.len() + metric.unit.len();
            let left = self.metrics.checked_sub(bytes);
            self.metrics = left.unwrap_or(self.metrics);
            left.is_some()
        });
        let kept = fits.count();
        if kept < before {
            custom.truncate(kept);
            custom.shrink_to_fit();
        }
        Some(before - kept)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::OF_A_DAEMON
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::read_list;

    fn list(processes: usize, metrics: usize, name: &str) -> Vec<u8> {
        let monitor: Vec<String> = (0..metrics).map(|number| format!(r#""metric {number}":{{"value":1}}"#)).collect();
        let monitor = monitor.join(",");
        let entry = |id: usize| {
            format!(r#"{{"pm_id":{id},"name":"{name}","pm2_env":{{"status":"online","axm_monitor":{{{monitor}}}}}}}"#)
        };
        format!("[{}]", (0..processes).map(entry).collect::<Vec<_>>().join(",")).into_bytes()
    }

    #[test]
    fn an_ordinary_daemon_is_kept_whole() {
        let read = read_list(&list(500, 20, "api-gateway"), 5000).unwrap();
        assert_eq!((read.entries.len(), read.left_out(), read.metrics_left_out), (500, 0, 0));
    }

    #[test]
    fn what_is_beyond_the_budget_is_left_out_and_counted() {
        let read = read_list(&list(2000, 64, "api"), 5000).unwrap();
        let kept: usize = read.entries.iter().map(|entry| entry.metrics.custom.len()).sum();
        assert_eq!((read.entries.len(), read.left_out()), (2000, 0), "the processes themselves are all there");
        assert_eq!(kept + read.metrics_left_out, 2000 * 64);
        assert!((50_000..100_000).contains(&kept), "{kept}");
        let read = read_list(&list(3000, 0, &"𝕏".repeat(128)), 5000).unwrap();
        assert_eq!(read.entries.len() + read.over_limit, 3000);
        assert!(read.entries.len() < 1200, "{}", read.entries.len());
    }

    #[test]
    fn all_together_have_a_budget_too() {
        let mut budget = Budget::OF_ALL;
        let mut entries = read_list(&list(5000, 4, "api"), 5000).unwrap().entries;
        let admitted = std::iter::repeat_with(|| entries.iter_mut().filter_map(|entry| budget.admit(entry)).count());
        assert!(admitted.take(4).sum::<usize>() < 15_000);
    }
}

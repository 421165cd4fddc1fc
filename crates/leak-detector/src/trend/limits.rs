//! Which ceiling is nearest, and when it will be met at the present pace.

use std::time::Duration;

use model::{Bytes, Limit, LimitKind, MemoryLimits, Signal};

/// The ceilings of one process, each held against what its enforcer measures: the heap against V8's limit, the process's own
/// resident memory against pm2's `max_memory_restart`, the process tree against all others.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    limits: Vec<Limit>,
    /// Memory of the process's children and what is in swap, in bytes: pm2 does not count it.
    beside: f64,
}

impl Limits {
    /// Takes the limits as they are; those of zero bytes are left out.
    pub fn new(limits: impl IntoIterator<Item = Limit>) -> Self {
        Self { limits: limits.into_iter().filter(|limit| limit.bytes > Bytes(0)).collect(), beside: 0.0 }
    }

    /// Takes what was collected of a process, with the host's memory as the last resort.
    pub fn of(limits: &MemoryLimits, host: Option<Bytes>) -> Self {
        Self::new(
            [
                (LimitKind::Configured, limits.configured),
                (LimitKind::MaxMemoryRestart, limits.max_memory_restart),
                (LimitKind::Cgroup, limits.cgroup),
                (LimitKind::Heap, limits.heap),
                (LimitKind::Host, host),
            ]
            .into_iter()
            .filter_map(|(kind, bytes)| Some(Limit { kind, bytes: bytes? })),
        )
    }

    /// Tells the process's own resident memory apart from the tree's held memory, where both are known.
    #[must_use]
    pub fn with_own(mut self, own: Option<Bytes>, tree: Option<Bytes>) -> Self {
        self.beside = own.zip(tree).map_or(0.0, |(own, tree)| tree.saturating_sub(own).as_f64());
        self
    }

    /// The limit that leaves the least room, and the room in bytes. Growth of native memory never meets V8's limit.
    pub(super) fn nearest(&self, resident: f64, heap: Option<f64>, signal: Signal) -> Option<(Limit, f64)> {
        self.limits
            .iter()
            .filter_map(|limit| {
                let used = match limit.kind {
                    LimitKind::Heap if signal == Signal::Native => return None,
                    LimitKind::Heap => heap?,
                    // Where the children hold the most, the tree's growth is theirs, and pm2 never looks at it.
                    LimitKind::MaxMemoryRestart if self.beside > resident / 2.0 => return None,
                    LimitKind::MaxMemoryRestart => resident - self.beside,
                    LimitKind::Cgroup | LimitKind::Host | LimitKind::Configured => resident,
                };
                Some((*limit, (limit.bytes.as_f64() - used).max(0.0)))
            })
            .min_by(|left, right| left.1.total_cmp(&right.1))
    }
}

/// Time until `room` bytes are used up at `slope` bytes per minute. Heap growth takes more memory than it keeps:
/// V8's headroom grows with the live set, by `amplification` (at least one).
pub(super) fn time_left(room: f64, slope: f64, amplification: f64, minute_seconds: f64) -> Option<Duration> {
    if slope <= 0.0 || !room.is_finite() {
        return None;
    }
    let seconds = room / (slope * amplification.max(1.0)) * minute_seconds;
    // A hundred years is never.
    (seconds < 3.2e9).then(|| Duration::from_secs_f64(seconds.max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_limit_counts_and_native_memory_ignores_the_heap_limit() {
        let limits = Limits::of(
            &MemoryLimits {
                max_memory_restart: Some(Bytes(500)),
                cgroup: Some(Bytes(0)),
                heap: Some(Bytes(120)),
                configured: None,
            },
            Some(Bytes(10_000)),
        );
        let (limit, room) = limits.nearest(300.0, Some(100.0), Signal::Heap).expect("some");
        assert_eq!((limit.kind, room), (LimitKind::Heap, 20.0));
        let (limit, room) = limits.nearest(300.0, Some(100.0), Signal::Native).expect("some");
        assert_eq!((limit.kind, room), (LimitKind::MaxMemoryRestart, 200.0));
        assert_eq!(Limits::default().nearest(1.0, None, Signal::Resident), None);
    }

    #[test]
    fn a_wrapper_is_held_against_its_own_memory_by_pm2_and_with_its_children_by_everyone_else() {
        let limits = MemoryLimits { max_memory_restart: Some(Bytes(150)), ..MemoryLimits::default() };
        let of = |own, tree: u64| {
            let limits = Limits::of(&limits, Some(Bytes(10_000))).with_own(Some(Bytes(own)), Some(Bytes(tree)));
            limits.nearest(Bytes(tree).as_f64(), None, Signal::Resident).map(|(limit, room)| (limit.kind, room))
        };
        assert_eq!(of(59, 220), Some((LimitKind::Host, 9_780.0)), "npm start");
        assert_eq!(of(100, 120), Some((LimitKind::MaxMemoryRestart, 50.0)), "a small child");
        assert_eq!(of(120, 120), Some((LimitKind::MaxMemoryRestart, 30.0)), "no child");
    }

    #[test]
    fn time_left_is_room_over_pace() {
        assert_eq!(time_left(600.0, 10.0, 2.0, 60.0), Some(Duration::from_mins(30)));
        assert_eq!(time_left(600.0, 10.0, 0.5, 60.0), Some(Duration::from_hours(1)));
        assert_eq!(time_left(600.0, 0.0, 1.0, 60.0), None);
        assert_eq!(time_left(f64::INFINITY, 1.0, 1.0, 60.0), None);
        assert_eq!(time_left(1e30, 1.0, 1.0, 60.0), None);
    }
}

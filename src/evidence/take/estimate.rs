//! What a heap snapshot will cost the app, and whether it may be taken: pure.
//!
//! The figures for a first snapshot are those of a harsh heap, of many small objects. The next ones of a series go by the
//! snapshot before.

use std::time::Duration;

use crate::collect::system::MemoryRoom;
use crate::model::{Bytes, LimitKind};

/// Per MiB of heap: how long the app stands still, …
const PAUSE_PER_MIB: Duration = Duration::from_millis(120);
/// … and, per byte of heap, how large the file gets, …
const FILE_TIMES: u64 = 3;
/// … and how much memory V8 takes meanwhile and keeps for a while.
const MEMORY_TIMES: u64 = 10;
/// How much more than the snapshot before the next one may cost, in hundredths.
const MARGIN_PERCENT: u64 = 150;
/// The pause that needs nobody's word.
const UNASKED_PAUSE: Duration = Duration::from_secs(1);
const PROFILE: &str = "take a profile instead (leakslope heap profile)";
/// How long an app warms up unless told otherwise.
pub const WARM_UP: Duration = Duration::from_mins(5);

/// What a snapshot is expected to cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// How long the app stands still.
    pub pause: Duration,
    /// How large the file gets.
    pub size: Bytes,
    /// How much memory V8 takes for it.
    pub memory: Bytes,
}

/// What a snapshot did cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// The heap's size before it.
    pub heap: Bytes,
    /// How long the app stood still.
    pub pause: Duration,
    /// How large the file got.
    pub size: Bytes,
}

/// Reckons what a snapshot of a heap of this size will cost, from the one before where there is one.
pub fn estimate(heap: Bytes, before: Option<&Measured>) -> Estimate {
    let memory = Bytes(heap.0.saturating_mul(MEMORY_TIMES));
    let Some(before) = before else {
        let mebibytes = u32::try_from(heap.0.div_ceil(Bytes::MIB.0)).unwrap_or(u32::MAX);
        let pause = PAUSE_PER_MIB.saturating_mul(mebibytes);
        return Estimate { pause, size: Bytes(heap.0.saturating_mul(FILE_TIMES)), memory };
    };
    let scaled = |number: u128| {
        let product = number.saturating_mul(u128::from(heap.0)).saturating_mul(u128::from(MARGIN_PERCENT));
        u64::try_from(product / u128::from(before.heap.0.max(1)) / 100).unwrap_or(u64::MAX)
    };
    let pause = Duration::from_millis(scaled(before.pause.as_millis()));
    Estimate { pause, size: Bytes(scaled(u128::from(before.size.0))), memory }
}

/// How it stands with the app and the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// How long this life has lasted.
    pub uptime: Duration,
    /// Whether a sidecar is still learning this life; none where none could be asked.
    pub learning: Option<bool>,
    /// How many other processes of the app are online.
    pub others_online: usize,
    /// Memory that is left to it, by the machine or its control group.
    pub room: MemoryRoom,
    /// What the process holds.
    pub resident: Bytes,
    /// What it may hold, and who says so.
    pub limits: Vec<(LimitKind, Bytes)>,
    /// Room on the disk.
    pub disk_available: Bytes,
    /// Room within the budget for evidence, where there is one.
    pub budget_left: Option<Bytes>,
}

/// What a person has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// Snapshots still to be taken.
    pub snapshots: u32,
    /// The pause that was accepted, for each snapshot.
    pub accepted_pause: Option<Duration>,
    /// How long the life must have lasted, where somebody said so: then a verdict is not waited for.
    pub warm_up: Option<Duration>,
}

/// What speaks against a snapshot, each with its figures and what to do about it.
pub fn objections(facts: &Facts, wishes: &Wishes, estimate: &Estimate) -> Vec<String> {
    let mut objections = Vec::new();
    let warm_up = wishes.warm_up.unwrap_or(WARM_UP);
    if facts.uptime < warm_up {
        objections.push(format!(
            "it has run for {}, and what an app loads at first would look like a leak: wait until it has run for {}, or \
             say how long it warms up (--warm-up)",
            seconds(facts.uptime),
            seconds(warm_up)
        ));
    }
    if facts.learning == Some(true) && wishes.warm_up.is_none() {
        let learning =
            "the sidecar is still learning how it behaves: wait for its verdict, or say how long it warms up";
        objections.push(format!("{learning} (--warm-up)"));
    }
    objections.extend(against_pause(facts, wishes, estimate));
    let tight = estimate.memory > facts.room.left;
    if tight {
        let what = if facts.room.group_limit.is_some() { "raise that limit meanwhile" } else { "free memory" };
        objections.push(format!("V8 may take {} for it and {}: {what}, or {PROFILE}", estimate.memory, facts.room));
    }
    let grown = facts.resident.saturating_add(estimate.memory);
    for (kind, limit) in &facts.limits {
        let told = tight && facts.room.group_limit == Some(*limit);
        if grown > *limit && !told {
            objections.push(format!(
                "it may grow from {} to {grown} and is ended at {limit} ({}): raise that limit meanwhile, or {PROFILE}",
                facts.resident,
                kind.as_str()
            ));
        }
    }
    objections.extend(against_disk(facts, wishes, estimate));
    objections
}

fn against_pause(facts: &Facts, wishes: &Wishes, estimate: &Estimate) -> Option<String> {
    let pause = seconds(estimate.pause);
    let word = format!("accept that with --i-accept-a-pause-of {pause}");
    match wishes.accepted_pause {
        Some(accepted) if estimate.pause <= accepted => None,
        Some(accepted) => Some(format!(
            "it may stand still for {pause} at each snapshot and {} are accepted: {word}, or {PROFILE}",
            seconds(accepted)
        )),
        None if facts.others_online == 0 => Some(format!(
            "it is the last healthy process of its app and may stand still for {pause} at each snapshot: start another \
             one, or {word}"
        )),
        None if estimate.pause <= UNASKED_PAUSE => None,
        None => Some(format!("it may stand still for {pause} at each snapshot: {word}")),
    }
}

fn against_disk(facts: &Facts, wishes: &Wishes, estimate: &Estimate) -> Option<String> {
    let needed = Bytes(estimate.size.0.saturating_mul(wishes.snapshots.into()));
    let files = if wishes.snapshots == 1 { "the file".to_owned() } else { format!("{} files", wishes.snapshots) };
    if needed > facts.disk_available {
        return Some(format!(
            "{files} may take {needed} and the disk has room for {}: make some, or choose another folder (--output)",
            facts.disk_available
        ));
    }
    let left = facts.budget_left.filter(|left| needed > *left)?;
    Some(format!(
        "{files} may take {needed} and evidence may take {left} in its own folder: raise evidence.max_disk, or choose \
         another folder (--output)"
    ))
}

/// A time in whole seconds, rounded up, as the command line takes it.
pub fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_millis().div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const MIB: u64 = 1 << 20;
    const SECONDS: Duration = Duration::from_secs(1);

    fn machine(mebibytes: u64) -> MemoryRoom {
        MemoryRoom { left: Bytes(mebibytes * MIB), group_limit: None }
    }

    /// A control group of 3000 MiB, one of the limits of [`fine`].
    fn group(mebibytes: u64) -> MemoryRoom {
        MemoryRoom { left: Bytes(mebibytes * MIB), group_limit: Some(Bytes(3000 * MIB)) }
    }

    fn fine() -> Facts {
        Facts {
            uptime: Duration::from_hours(1),
            learning: Some(false),
            others_online: 1,
            room: machine(4000),
            resident: Bytes(300 * MIB),
            limits: vec![(LimitKind::MaxMemoryRestart, Bytes(3000 * MIB)), (LimitKind::Cgroup, Bytes(3000 * MIB))],
            disk_available: Bytes(2000 * MIB),
            budget_left: None,
        }
    }

    fn wishes() -> Wishes {
        Wishes { snapshots: 3, accepted_pause: Some(Duration::from_secs(30)), warm_up: None }
    }

    #[test]
    fn the_first_goes_by_the_harsh_case_and_the_next_by_the_one_before() {
        let first = estimate(Bytes(200 * MIB), None);
        let expected = (Duration::from_secs(24), Bytes(600 * MIB), Bytes(2000 * MIB));
        assert_eq!((first.pause, first.size, first.memory), expected);
        let before = Measured { heap: Bytes(100 * MIB), pause: Duration::from_secs(2), size: Bytes(150 * MIB) };
        let next = estimate(Bytes(200 * MIB), Some(&before));
        assert_eq!((next.pause, next.size, next.memory), (Duration::from_secs(6), Bytes(450 * MIB), Bytes(2000 * MIB)));
        // Nothing overflows, whatever a process claims.
        let nothing = Measured { heap: Bytes(0), pause: Duration::MAX, size: Bytes(u64::MAX) };
        for before in [None, Some(&nothing)] {
            assert_eq!(estimate(Bytes(u64::MAX), before).size, Bytes(u64::MAX));
        }
    }

    #[test]
    fn nothing_speaks_against_what_is_fine() {
        assert_eq!(objections(&fine(), &wishes(), &estimate(Bytes(200 * MIB), None)), [""; 0]);
        let small = Wishes { accepted_pause: None, ..wishes() };
        assert_eq!(objections(&fine(), &small, &estimate(Bytes(8 * MIB), None)), [""; 0]);
    }

    #[rstest]
    #[case(Facts { uptime: SECONDS * 40, ..fine() }, wishes(), "it has run for 40s", "until it has run for 300s")]
    #[case(Facts { uptime: SECONDS * 40, ..fine() }, Wishes { warm_up: Some(SECONDS * 60), ..wishes() },
        "it has run for 40s", "until it has run for 60s")]
    #[case(Facts { learning: Some(true), ..fine() }, wishes(), "still learning", "--warm-up")]
    #[case(fine(), Wishes { accepted_pause: None, ..wishes() }, "stand still for 24s", "--i-accept-a-pause-of 24s")]
    #[case(fine(), Wishes { accepted_pause: Some(SECONDS * 20), ..wishes() }, "for 24s at each snapshot and 20s are",
        "--i-accept-a-pause-of 24s")]
    #[case(Facts { others_online: 0, ..fine() }, Wishes { accepted_pause: None, ..wishes() }, "last healthy process",
        "start another one")]
    #[case(Facts { room: machine(1900), ..fine() }, wishes(),
        "may take 1.95 GiB for it and the machine has 1.86 GiB available", "free memory, or")]
    #[case(Facts { room: group(1900), ..fine() }, wishes(),
        "may take 1.95 GiB for it and its control group has 1.86 GiB left of 2.93 GiB", "raise that limit meanwhile, or")]
    #[case(Facts { room: group(1900), resident: Bytes(1100 * MIB),
        limits: vec![(LimitKind::Cgroup, Bytes(3000 * MIB))], ..fine() }, wishes(),
        "its control group has 1.86 GiB left of 2.93 GiB", "take a profile instead")]
    #[case(Facts { limits: vec![(LimitKind::MaxMemoryRestart, Bytes(2048 * MIB))], ..fine() }, wishes(),
        "from 300 MiB to 2.25 GiB and is ended at 2 GiB (max_memory_restart)", "raise that limit")]
    #[case(Facts { disk_available: Bytes(1700 * MIB), ..fine() }, wishes(),
        "3 files may take 1.76 GiB and the disk has room for 1.66 GiB", "--output")]
    #[case(Facts { budget_left: Some(Bytes(512 * MIB)), ..fine() }, wishes(),
        "3 files may take 1.76 GiB and evidence may take 512 MiB", "raise evidence.max_disk")]
    fn each_objection_has_its_figures_and_what_to_do(
        #[case] facts: Facts,
        #[case] wishes: Wishes,
        #[case] figures: &str,
        #[case] advice: &str,
    ) {
        let said = objections(&facts, &wishes, &estimate(Bytes(200 * MIB), None));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(figures) && said[0].contains(advice), "{said:?}");
    }

    #[rstest]
    #[case(Facts { uptime: Duration::from_secs(61), learning: Some(true), ..fine() },
        Wishes { warm_up: Some(SECONDS * 60), ..wishes() })]
    #[case(Facts { learning: None, ..fine() }, wishes())]
    #[case(Facts { others_online: 0, ..fine() }, wishes())]
    #[case(Facts { disk_available: Bytes(700 * MIB), ..fine() }, Wishes { snapshots: 1, ..wishes() })]
    fn a_persons_word_and_what_is_not_known_are_no_objection(#[case] facts: Facts, #[case] wishes: Wishes) {
        assert_eq!(objections(&facts, &wishes, &estimate(Bytes(200 * MIB), None)), [""; 0]);
    }

    #[test]
    fn all_objections_are_told_at_once() {
        let nothing = Facts {
            uptime: Duration::ZERO,
            learning: Some(true),
            others_online: 0,
            room: machine(0),
            resident: Bytes(0),
            limits: vec![(LimitKind::Cgroup, Bytes(1))],
            disk_available: Bytes(0),
            budget_left: Some(Bytes(0)),
        };
        let strict = Wishes { accepted_pause: None, ..wishes() };
        assert_eq!(objections(&nothing, &strict, &estimate(Bytes(200 * MIB), None)).len(), 6);
    }
}

//! What is remembered of a process: the minutes of the last days and summaries of its earlier lives.
//!
//! Pure: samples and `now` are arguments. This room aggregates and condenses; it refuses to judge
//! (that is `trend`'s) and to read any clock. Memory per process is fixed: [`ProcessHistory::heap_bytes`] stays below
//! 64 KiB with the default of 72 hours.

mod composition;
mod life;
mod minutes;
mod sample;

use std::collections::VecDeque;
use std::time::Duration;

pub use composition::{Composition, MOST_POINTS, Point};
pub use life::{About, CurrentLife, NativeBasis, PARTS};
pub use minutes::MinuteRing;
pub use sample::Sample;

use model::{AppName, Bytes, Life, LifeEnd, LifeSummary, Minute, ProcessKey, ProcessSample, Status, Steady};

/// Earlier lives kept in memory for each process.
pub const EARLIER_LIVES: usize = 8;
/// Minutes whose largest resident memory is kept.
const PEAKS: usize = 60;
/// Lives whose minutes can wait to be taken.
const SPANS: usize = 16;

/// How much is kept, and how long a "minute" is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Length of one row. One minute; shorter only to compress time.
    pub minute: Duration,
    /// Rows kept for each process.
    pub minutes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { minute: Duration::from_mins(1), minutes: 72 * 60 }
    }
}

impl Retention {
    /// Returns the row that an instant falls into.
    pub fn minute_of(&self, at: Steady) -> i64 {
        at.0.div_euclid(i64::try_from(self.minute.as_millis()).unwrap_or(60_000).max(1))
    }

    /// Returns the first instant of a row.
    pub fn start_of(&self, minute: i64) -> Steady {
        Steady(minute.saturating_mul(i64::try_from(self.minute.as_millis()).unwrap_or(60_000).max(1)))
    }
}

/// Everything remembered of one process in memory.
#[derive(Debug, Clone)]
pub struct ProcessHistory {
    key: ProcessKey,
    about: About,
    retention: Retention,
    ring: MinuteRing,
    current: Option<CurrentLife>,
    earlier: VecDeque<LifeSummary>,
    gathering: Option<Gathering>,
    peaks: VecDeque<(i64, f32)>,
    taken: Option<i64>,
    spans: VecDeque<(Life, i64)>,
}

/// The minute that is not over yet.
#[derive(Debug, Clone, Copy)]
struct Gathering {
    minute: i64,
    resident: f64,
    peak: f64,
    heap_floor: f64,
    native: Mean,
    heap_used: Mean,
    load: Mean,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.sum += value;
            self.count += 1;
        }
    }

    fn get(self) -> f64 {
        if self.count == 0 { f64::NAN } else { self.sum / f64::from(self.count) }
    }
}

impl ProcessHistory {
    /// Makes an empty history.
    pub fn new(key: ProcessKey, app: AppName, retention: Retention) -> Self {
        Self {
            key,
            about: About { app, version: None, revision: None },
            retention,
            ring: MinuteRing::new(retention.minutes),
            current: None,
            earlier: VecDeque::new(),
            gathering: None,
            peaks: VecDeque::new(),
            taken: None,
            spans: VecDeque::new(),
        }
    }

    /// Takes in a life that a store kept; the oldest first. One that was still running is not remembered: it goes on, or is
    /// closed when the next one is seen. The process goes by the name of the latest.
    pub fn restore_life(&mut self, summary: LifeSummary) {
        self.about.app.clone_from(&summary.app);
        if summary.end != LifeEnd::Running {
            self.remember(summary);
        }
    }

    /// Takes in a finished minute that a store kept, of whichever life; the oldest first.
    pub fn restore_minute(&mut self, minute: &Minute) {
        self.ring.put(minute);
        self.taken = self.ring.newest();
    }

    /// Goes on with the life that was running when a store was last written. If the next sample is of the same life, windows
    /// go on where they were; else the restored life is closed as [`LifeEnd::Unseen`].
    pub fn resume(&mut self, current: CurrentLife) {
        self.spans.push_back((current.life, current.first_minute));
        self.current = Some(current);
    }

    /// Takes in one process of a collection: a sample of its life, or the end of its life where it no longer runs.
    /// Returns the summary of a life that ended with it.
    pub fn observe(&mut self, process: &ProcessSample, now: Steady) -> Option<LifeSummary> {
        let listed = &process.listed;
        let about =
            About { app: listed.app.clone(), version: listed.version.clone(), revision: listed.revision.clone() };
        if let Some(sample) = Sample::of(process) {
            return self.push(&sample, &about, now);
        }
        let end = match listed.status {
            Status::Errored => LifeEnd::Errored,
            Status::Stopped => LifeEnd::Stopped,
            Status::Online
            | Status::Launching
            | Status::Stopping
            | Status::WaitingRestart
            | Status::OneLaunch
            | Status::NoProcess
            | Status::Unknown => LifeEnd::Restarted,
        };
        self.end(end)
    }

    /// Takes in one sample at `now`; amortised constant time. A sample of another life than the current one ends the
    /// current one (as [`LifeEnd::Restarted`], or [`LifeEnd::Unseen`] where it was restored and never seen since), and
    /// its summary is returned.
    pub fn push(&mut self, sample: &Sample, about: &About, now: Steady) -> Option<LifeSummary> {
        let minute = self.retention.minute_of(now);
        let mut ended = None;
        if self.current.as_ref().is_none_or(|current| current.life != sample.life) {
            let resumed = self.gathering.is_none() && self.peaks.is_empty();
            ended = self.end(if resumed { LifeEnd::Unseen } else { LifeEnd::Restarted });
            // The minute in which a life ends belongs to it; the next one starts with the next.
            let first = self.ring.newest().map_or(minute, |newest| minute.max(newest + 1));
            self.current = Some(CurrentLife::new(sample.life, now, first));
            if self.spans.len() >= SPANS {
                self.spans.pop_front();
            }
            self.spans.push_back((sample.life, first));
        }
        if self.about != *about {
            // What was kept without a namespace was of this very process.
            for life in self.earlier.iter_mut().filter(|life| life.app.namespace().is_empty()) {
                if life.app.means(&about.app) {
                    life.app.clone_from(&about.app);
                }
            }
            self.about.clone_from(about);
        }
        let held = sample.held.map(Bytes::as_f64);
        let current = self.current.as_mut()?;
        let native = current.native(sample, minute);
        let load = current.load(sample, now, minute);
        let floor = current.floor(sample, minute);
        current.last = current.last.max(now);
        #[allow(clippy::cast_possible_truncation, reason = "24 bits of mantissa are enough for memory")]
        if let Some(held) = held {
            current.resident_max = current.resident_max.max(held as f32);
        }
        if minute < current.first_minute {
            return ended;
        }
        if self.gathering.is_some_and(|gathering| gathering.minute < minute) {
            self.finish();
        }
        let gathering = self.gathering.get_or_insert_with(|| Gathering::new(minute));
        if minute < gathering.minute {
            let mut late = Gathering::new(minute);
            late.add(held, native, floor, sample.heap_used, load);
            let row = late.row();
            self.ring.put(&row);
            return ended;
        }
        gathering.add(held, native, floor, sample.heap_used, load);
        ended
    }

    /// Closes the minute that is over at `now`, though no later sample has come.
    pub fn settle(&mut self, now: Steady) {
        let minute = self.retention.minute_of(now);
        if self.gathering.is_some_and(|gathering| gathering.minute < minute) {
            self.finish();
        }
    }

    /// Ends the current life, if there is one, and returns its summary. To be called with
    /// [`LifeEnd::RestartedByUs`] before the samples of the life that follows, and with [`LifeEnd::Removed`] when the
    /// process has left the list.
    pub fn end(&mut self, end: LifeEnd) -> Option<LifeSummary> {
        self.finish();
        let summary = self.summary(end)?;
        self.current = None;
        self.peaks.clear();
        self.remember(summary.clone());
        Some(summary)
    }

    /// Condenses the current life as it stands, without ending it.
    pub fn summary(&self, end: LifeEnd) -> Option<LifeSummary> {
        let current = self.current.as_ref()?;
        let minutes: Vec<Minute> = self.ring.since(current.first_minute).collect();
        Some(current.summary(&self.key, &self.about, &minutes, self.retention.minute.as_secs_f64(), end))
    }

    /// Returns the finished minutes that have not been taken before, each with its life, oldest first; empty ones are
    /// left out. What nobody takes is lost only when the ring overwrites it.
    pub fn take_finished(&mut self) -> Vec<(Life, Minute)> {
        let Some(&(_, first)) = self.spans.front() else { return Vec::new() };
        let from = self.taken.map_or(i64::MIN, |taken| taken.saturating_add(1)).max(first);
        self.taken = self.ring.newest();
        self.ring
            .since(from)
            .filter(|minute| !minute.resident.is_nan() || !minute.heap_used.is_nan())
            .filter_map(|minute| {
                let span = self.spans.iter().rev().find(|(_, first)| *first <= minute.minute)?;
                Some((span.0, minute))
            })
            .collect()
    }

    /// The process.
    pub fn key(&self) -> &ProcessKey {
        &self.key
    }

    /// What pm2 said of it last.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// How much is kept.
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// The life it is in.
    pub fn current(&self) -> Option<&CurrentLife> {
        self.current.as_ref()
    }

    /// Earlier lives, oldest first.
    pub fn earlier(&self) -> impl DoubleEndedIterator<Item = &LifeSummary> {
        self.earlier.iter()
    }

    /// The finished minutes, whatever their life.
    pub fn minutes(&self) -> &MinuteRing {
        &self.ring
    }

    /// Largest held memory in the last `minutes` minutes of this life (60 at most), the unfinished one included.
    pub fn peak(&self, minutes: i64) -> Option<f64> {
        let now = self.gathering.map(|gathering| gathering.minute).or(self.ring.newest())?;
        let open = self.gathering.map_or(f64::NAN, |gathering| gathering.peak);
        let peak = self
            .peaks
            .iter()
            .filter(|(minute, _)| *minute > now - minutes)
            .fold(open, |peak, (_, value)| peak.max(f64::from(*value)));
        (!peak.is_nan()).then_some(peak)
    }

    /// Returns the bytes of memory taken on the heap and in place.
    pub fn heap_bytes(&self) -> usize {
        let texts = |summary: &LifeSummary| {
            summary.version.as_ref().map_or(0, String::capacity) + summary.revision.as_ref().map_or(0, String::capacity)
        };
        let earlier: usize = self
            .earlier
            .iter()
            .map(|life| (life.floors.capacity() + life.resident_floors.capacity()) * size_of::<f32>() + texts(life))
            .sum();
        size_of::<Self>()
            + self.ring.heap_bytes()
            + self.peaks.capacity() * size_of::<(i64, f32)>()
            + self.earlier.capacity() * size_of::<LifeSummary>()
            + earlier
    }

    fn remember(&mut self, summary: LifeSummary) {
        if self.earlier.capacity() < EARLIER_LIVES {
            self.earlier.reserve_exact(EARLIER_LIVES);
        }
        if self.earlier.len() >= EARLIER_LIVES {
            self.earlier.pop_front();
        }
        self.earlier.push_back(summary);
    }

    fn finish(&mut self) {
        let Some(gathering) = self.gathering.take() else { return };
        self.ring.put(&gathering.row());
        if self.peaks.capacity() < PEAKS {
            self.peaks.reserve_exact(PEAKS);
        }
        if self.peaks.len() >= PEAKS {
            self.peaks.pop_front();
        }
        #[allow(clippy::cast_possible_truncation, reason = "24 bits of mantissa are enough for memory")]
        self.peaks.push_back((gathering.minute, gathering.peak as f32));
    }
}

impl Gathering {
    fn new(minute: i64) -> Self {
        Self {
            minute,
            resident: f64::NAN,
            peak: f64::NAN,
            heap_floor: f64::NAN,
            native: Mean::default(),
            heap_used: Mean::default(),
            load: Mean::default(),
        }
    }

    fn add(
        &mut self,
        held: Option<f64>,
        native: Option<f64>,
        floor: Option<f64>,
        used: Option<Bytes>,
        load: Option<f64>,
    ) {
        if let Some(held) = held {
            self.resident = self.resident.min(held);
            self.peak = self.peak.max(held);
        }
        if let Some(floor) = floor {
            self.heap_floor = self.heap_floor.min(floor);
        }
        self.native.add(native);
        self.heap_used.add(used.map(Bytes::as_f64));
        self.load.add(load);
    }

    #[allow(clippy::cast_possible_truncation, reason = "24 bits of mantissa are enough for memory")]
    fn row(&self) -> Minute {
        Minute {
            minute: self.minute,
            resident: self.resident as f32,
            native: self.native.get() as f32,
            heap_floor: self.heap_floor as f32,
            heap_used: self.heap_used.get() as f32,
            load: self.load.get() as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn history(minutes: usize) -> ProcessHistory {
        let key = ProcessKey { daemon: "default".into(), pm_id: 0 };
        ProcessHistory::new(key, "shop".into(), Retention { minutes, ..Retention::default() })
    }

    fn about() -> About {
        About { app: "shop".into(), version: Some("1.2.3".into()), revision: Some("0123456789abcdef".into()) }
    }

    fn sample(pid: u32, held: u64, used: u64) -> Sample {
        Sample {
            held: Some(Bytes(held)),
            heap_used: Some(Bytes(used)),
            heap_total: Some(Bytes(used + 100)),
            ..Sample::empty(Life { pid, started: i64::from(pid) })
        }
    }

    #[test]
    fn a_minute_keeps_the_floor_of_memory_and_the_mean_of_the_rest() {
        let mut history = history(100);
        for (at, held, used) in
            [(0, 5_000, 1_000), (15_000, 4_000, 3_000), (45_000, 6_000, 2_000), (MINUTE, 9_000, 9_000)]
        {
            history.push(&sample(1, held, used), &about(), Steady(at));
        }
        let minute = history.minutes().get(0).expect("finished");
        assert_eq!((minute.resident, minute.heap_floor, minute.heap_used), (4_000.0, 1_000.0, 2_000.0));
        assert!((minute.native - (3_900.0 + 900.0 + 3_900.0) / 3.0).abs() < 0.1);
        assert_eq!(history.minutes().get(1), None, "not over yet");
        history.settle(Steady(2 * MINUTE));
        assert!(history.minutes().get(1).is_some());
        assert_eq!(history.peak(60), Some(9_000.0));
    }

    #[test]
    fn exact_collections_give_floors_only_where_they_happen() {
        let mut history = history(100);
        let with = |count, after| Sample {
            major_gcs: Some(count),
            heap_after_major_gc: Some(Bytes(after)),
            ..sample(1, 1, 1)
        };
        for (minute, count, after) in [(0, 3, 500), (1, 3, 500), (2, 4, 600), (3, 4, 600)] {
            history.push(&with(count, after), &about(), Steady(minute * MINUTE));
        }
        let floors: Vec<f32> = history.minutes().since(0).map(|minute| minute.heap_floor).collect();
        assert!((floors[0] - 500.0).abs() < 0.1);
        assert!(floors[1].is_nan());
        assert!((floors[2] - 600.0).abs() < 0.1);
    }

    #[test]
    fn native_memory_of_two_kinds_never_mixes() {
        let mut history = history(200);
        let mapped =
            |outside| Sample { outside_v8: outside, heap_physical: Some(Bytes(2_000)), ..sample(1, 9_000, 4_000) };
        let at = |minute: i64| Steady(minute * MINUTE);
        history.push(&sample(1, 9_000, 4_000), &about(), at(0));
        history.push(&Sample { heap_physical: Some(Bytes(2_000)), ..sample(1, 9_000, 4_000) }, &about(), at(1));
        history.push(&mapped(Some(Bytes(5_000))), &about(), at(2));
        history.push(&mapped(None), &about(), at(3));
        for minute in 4..=34 {
            history.push(&mapped(None), &about(), at(minute));
        }
        let native = |history: &ProcessHistory, minute| history.minutes().get(minute).map(|minute| minute.native);
        assert!(native(&history, 0).is_some_and(|native| (native - 4_900.0).abs() < 0.1));
        assert_eq!((native(&history, 1), native(&history, 2)), (Some(7_000.0), Some(5_000.0)));
        assert!((3..=32).all(|minute| native(&history, minute).is_some_and(f32::is_nan)), "better figures are awaited");
        assert_eq!(native(&history, 33), Some(7_000.0), "and given up");
        let current = history.current().expect("it runs");
        assert_eq!((current.native_basis, current.native_since), (NativeBasis::Physical, Some(33)));
        let kept = history.minutes().get(2).expect("a minute");
        assert!(current.native_of(&kept).is_nan());
    }

    #[test]
    fn another_life_ends_the_one_before_and_nothing_is_lost_for_the_store() {
        let mut history = history(5_000);
        for minute in 0..100 {
            assert_eq!(history.push(&sample(1, 1_000, 10), &about(), Steady(minute * MINUTE)), None);
        }
        let ended = history.push(&sample(2, 2_000, 10), &about(), Steady(99 * MINUTE + 30_000)).expect("a life ended");
        assert_eq!((ended.end, ended.life.pid, ended.floors.len()), (LifeEnd::Restarted, 1, PARTS));
        assert_eq!(ended.version.as_deref(), Some("1.2.3"));
        history.push(&sample(2, 2_000, 10), &about(), Steady(100 * MINUTE));
        history.push(&sample(2, 2_000, 10), &about(), Steady(101 * MINUTE));
        let taken = history.take_finished();
        assert_eq!(taken.len(), 101);
        assert_eq!((taken[99].0.pid, taken[100].0.pid, taken[100].1.minute), (1, 2, 100));
        assert!(history.take_finished().is_empty());
        assert_eq!(history.earlier().count(), 1);
        assert!(history.end(LifeEnd::Removed).is_some());
        assert!(history.end(LifeEnd::Removed).is_none());
    }

    #[test]
    fn a_restored_life_goes_on_and_a_foreign_one_closes_it_unseen() {
        let mut old = history(100);
        for minute in 0..50 {
            old.push(&sample(1, 1_000, 10), &about(), Steady(minute * MINUTE));
        }
        let restore = |pid: u32| {
            let mut new = history(100);
            old.earlier().cloned().for_each(|life| new.restore_life(life));
            old.minutes().since(0).for_each(|minute| new.restore_minute(&minute));
            new.resume(old.current().cloned().unwrap());
            let ended = new.push(&sample(pid, 1_000, 10), &about(), Steady(60 * MINUTE));
            (new, ended)
        };
        let (mut same, ended) = restore(1);
        assert_eq!(ended, None);
        same.settle(Steady(61 * MINUTE));
        assert_eq!(same.minutes().len(), 61, "the gap is kept as empty minutes");
        assert_eq!(same.take_finished().len(), 1, "stored minutes are not handed out again");
        let (_, ended) = restore(2);
        assert_eq!(ended.map(|life| life.end), Some(LifeEnd::Unseen));
    }

    #[test]
    fn late_samples_lower_floors_and_steps_back_do_no_harm() {
        let mut history = history(100);
        history.push(&sample(1, 1_000, 10), &about(), Steady(10 * MINUTE));
        history.push(&sample(1, 1_000, 10), &about(), Steady(12 * MINUTE));
        history.push(&sample(1, 400, 10), &about(), Steady(10 * MINUTE + 5));
        history.push(&sample(1, 1, 1), &about(), Steady(-5 * MINUTE));
        assert_eq!(history.minutes().get(10).map(|minute| minute.resident), Some(400.0));
        assert_eq!(history.minutes().oldest(), Some(10));
    }

    #[test]
    fn everything_of_a_process_fits_in_64_kibibytes() {
        let mut history =
            ProcessHistory::new(ProcessKey { daemon: "default".into(), pm_id: 7 }, "shop".into(), Retention::default());
        for step in 0..60_000_i64 {
            let pid = u32::try_from(1 + step / 5_000).expect("small");
            history.push(&sample(pid, 1_000_000, 10_000), &about(), Steady(step * 15_000));
            if step % 4_000 == 0 {
                history.take_finished();
            }
        }
        assert_eq!(history.minutes().len(), 4_320);
        assert_eq!(history.earlier().count(), EARLIER_LIVES);
        assert!(history.heap_bytes() <= 64 << 10, "{} bytes", history.heap_bytes());
    }

    #[test]
    fn load_is_requests_where_the_app_tells_and_cores_elsewhere() {
        let mut history = history(100);
        for minute in 0..4_i64 {
            let cpu = u64::try_from(minute * 30_000).expect("small");
            let busy = Sample { cpu_milliseconds: Some(cpu), ..sample(1, 1, 1) };
            history.push(&busy, &about(), Steady(minute * MINUTE));
        }
        assert_eq!(history.minutes().get(2).map(|minute| minute.load), Some(0.5));
        let asked = Sample { requests_per_second: Some(8.0), cpu_milliseconds: Some(0), ..sample(1, 1, 1) };
        history.push(&asked, &about(), Steady(4 * MINUTE));
        history.settle(Steady(5 * MINUTE));
        assert_eq!(history.minutes().get(4).map(|minute| minute.load), Some(8.0));
        assert_eq!(history.current().and_then(|life| life.requests_since), Some(4));
    }
}

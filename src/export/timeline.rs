//! The past of one process for `/api/v1/processes/{daemon}/{pm_id}/history` and its CSV: minutes in, few points out.
//!
//! Pure. Minutes lie on the steady line; [`TimeScale`] carries them to the wall clock. This room refuses to judge: the
//! fitted line is the verdict's own slope laid through the floors it was fitted to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::history::Point;
use crate::model::{
    AppName, Bytes, LifeEnd, LifeSummary, LimitKind, MemoryKind, Minute, ProcessKey, Signal, Slope, Steady, Verdict,
    WallTime,
};

/// Points aimed at when no step is asked for.
const AIM: i64 = 480;
/// The most points ever returned: a finer step is coarsened to fit.
pub const MOST_POINTS: i64 = 2_000;
/// Span returned when no beginning is asked for.
const DEFAULT_SPAN: Duration = Duration::from_hours(24);
/// Floors that the fitted line is laid through, as in `trend`.
const FLOORS: i64 = 24;
/// The first line of the CSV: the columns that `leakslope analyze` reads.
pub const CSV_HEADER: &str =
    "time,resident_memory_bytes,heap_used_bytes,heap_total_bytes,post_gc_heap_used_bytes,major_gcs,life";

/// How rows of minutes map to the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeScale {
    /// Length of one row: a minute, shorter only where time is compressed.
    pub minute: Duration,
    /// Milliseconds to add to a steady instant to get the wall clock's.
    pub offset_ms: i64,
}

impl TimeScale {
    fn minute_ms(self) -> i64 {
        i64::try_from(self.minute.as_millis()).unwrap_or(60_000).max(1)
    }

    fn row_of(self, at: Steady) -> i64 {
        at.0.div_euclid(self.minute_ms())
    }

    fn row_of_wall(self, at: WallTime) -> i64 {
        self.row_of(Steady(at.0.saturating_sub(self.offset_ms)))
    }

    fn wall(self, at: Steady) -> f64 {
        WallTime(at.0.saturating_add(self.offset_ms)).as_seconds()
    }

    fn wall_of_row(self, row: i64) -> f64 {
        self.wall(Steady(row.saturating_mul(self.minute_ms())))
    }

    #[allow(clippy::cast_precision_loss, reason = "a few thousand rows")]
    fn seconds(self, rows: i64) -> f64 {
        rows as f64 * self.minute_ms() as f64 / 1000.0
    }
}

/// The span and the step asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Beginning, inclusive.
    pub from: WallTime,
    /// End, inclusive.
    pub to: WallTime,
    /// Length of a step; chosen by the span when left out.
    pub step: Option<Duration>,
}

/// Why a range cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parameter {parameter}: {kind}")]
pub struct RangeError {
    /// `from`, `to`, `span` or `step`.
    pub parameter: &'static str,
    /// What is wrong.
    pub kind: RangeErrorKind,
}

/// What can be wrong with a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeErrorKind {
    /// Not a time.
    #[error("is neither seconds since the Unix epoch nor an RFC 3339 time")]
    Time,
    /// Not a length of time.
    #[error("is not a positive number of seconds")]
    Length,
    /// The end lies before the beginning.
    #[error("lies before from")]
    Backwards,
}

impl Range {
    /// Reads the parameters `from`, `to`, `span` and `step` through `get`, which returns a decoded one by its name. The
    /// end is `now` where it is left out, the beginning `span` (24 hours) before the end.
    pub fn parse<'a>(get: impl Fn(&str) -> Option<&'a str>, now: WallTime) -> Result<Self, RangeError> {
        let time = |parameter| {
            let read = |text| read_time(text).ok_or(RangeError { parameter, kind: RangeErrorKind::Time });
            get(parameter).map(read).transpose()
        };
        let length = |parameter| {
            let read = |text| read_length(text).ok_or(RangeError { parameter, kind: RangeErrorKind::Length });
            get(parameter).map(read).transpose()
        };
        let to = time("to")?.unwrap_or(now);
        let span = length("span")?.unwrap_or(DEFAULT_SPAN);
        let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let from = time("from")?.unwrap_or(WallTime(to.0.saturating_sub(span)));
        if to < from {
            return Err(RangeError { parameter: "to", kind: RangeErrorKind::Backwards });
        }
        Ok(Self { from, to, step: length("step")? })
    }
}

fn read_length(text: &str) -> Option<Duration> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0)?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn read_time(text: &str) -> Option<WallTime> {
    if let Ok(seconds) = text.parse::<f64>() {
        #[allow(clippy::cast_possible_truncation, reason = "the range is checked first")]
        return (seconds.is_finite() && seconds.abs() < 1.0e12).then(|| WallTime((seconds * 1000.0).round() as i64));
    }
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(WallTime(at.as_millisecond()))
}

/// What is remembered of one process.
#[derive(Debug, Clone, Copy)]
pub struct Past<'a> {
    /// The process.
    pub key: &'a ProcessKey,
    /// Its app.
    pub app: &'a AppName,
    /// Its minutes, oldest first, empty ones allowed.
    pub minutes: &'a [Minute],
    /// Its lives, oldest first, the one that runs last (as [`LifeEnd::Running`]).
    pub lives: &'a [LifeSummary],
    /// What held the memory of the run, oldest first.
    pub composition: &'a [Point],
    /// The verdict, once there is one.
    pub verdict: Option<&'a Verdict>,
    /// The row from which on heap floors are heap after a major collection; none where they are sampled.
    pub exact_since: Option<i64>,
    /// How rows map to the wall clock.
    pub scale: TimeScale,
}

/// The body of `/api/v1/processes/{daemon}/{pm_id}/history`: columns of equal length, one entry a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryView {
    /// The daemon.
    pub daemon: String,
    /// pm2's namespace of it.
    pub namespace: String,
    /// The app.
    pub app: String,
    /// pm2's number.
    pub pm_id: u32,
    /// Length of a step in seconds.
    pub step_seconds: f64,
    /// Oldest minute that is kept, in seconds since the Unix epoch.
    pub oldest: Option<f64>,
    /// Start of each step in seconds since the Unix epoch.
    pub time: Vec<f64>,
    /// Held memory of the process tree.
    pub resident: SeriesView,
    /// V8's used heap.
    pub heap_used: SeriesView,
    /// V8's committed heap.
    pub heap_total: SeriesView,
    /// What garbage collection cannot free.
    pub floor: SeriesView,
    /// Resident memory of the run by what holds it.
    #[serde(default)]
    pub memory: MemoryView,
    /// The nearest limit's name.
    pub limit: Option<String>,
    /// The nearest limit.
    pub limit_bytes: Option<u64>,
    /// The line the verdict rests on.
    pub fit: Option<FitView>,
    /// When the limit is met at that pace.
    pub projection: Option<ProjectionView>,
    /// Restarts and new versions within the range.
    pub marks: Vec<MarkView>,
    /// The lives that are remembered, oldest first.
    pub lives: Vec<LifeView>,
}

/// Resident memory of a run by what holds it, at times of its own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MemoryView {
    /// When, in seconds since the Unix epoch.
    pub time: Vec<f64>,
    /// Bytes of each kind at each of these times.
    pub kinds: BTreeMap<String, Vec<u64>>,
}

impl MemoryView {
    fn new(points: &[Point], scale: TimeScale) -> Self {
        let column = |figure: &dyn Fn(&Point) -> f32| {
            points.iter().map(|point| bytes(figure(point)).unwrap_or_default()).collect::<Vec<_>>()
        };
        let own = MemoryKind::ALL.into_iter().map(|kind| (kind.as_str(), column(&|point| point.kind(kind))));
        let all = own.chain([(super::process::CHILDREN, column(&|point| point.children))]);
        Self {
            time: points.iter().map(|point| scale.wall(point.at)).collect(),
            kinds: all.map(|(kind, column)| (kind.to_owned(), column)).collect(),
        }
    }
}

/// One series in bytes, by step; null where nothing was measured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SeriesView {
    /// Smallest of the step.
    pub min: Vec<Option<u64>>,
    /// Largest of the step.
    pub max: Vec<Option<u64>>,
    /// Last of the step.
    pub last: Vec<Option<u64>>,
}

/// A straight line with its interval: every line turns about the pivot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitView {
    /// The signal it is fitted to: `resident`, `heap`, `native` or `footprint`.
    pub signal: String,
    /// Beginning of the window in seconds since the Unix epoch.
    pub from: f64,
    /// End of the window.
    pub to: f64,
    /// The instant all three lines meet.
    pub pivot_at: f64,
    /// Their value there.
    pub pivot_bytes: f64,
    /// Slope of the best estimate.
    pub bytes_per_second: f64,
    /// Slope of the interval's lower bound.
    pub low_bytes_per_second: f64,
    /// Slope of the interval's upper bound.
    pub high_bytes_per_second: f64,
}

/// The way from now to the limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectionView {
    /// Now, in seconds since the Unix epoch.
    pub from: f64,
    /// What is held now of what the limit limits.
    pub from_bytes: u64,
    /// The limit.
    pub limit_bytes: u64,
    /// When it is met.
    pub at: f64,
    /// When it is met at the interval's upper bound.
    pub earliest_at: f64,
    /// When it is met at the interval's lower bound; null when never.
    pub latest_at: Option<f64>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MarkView {
    /// When, in seconds since the Unix epoch.
    pub at: f64,
    /// `restart`, or `deploy` where the version changed with it.
    pub kind: String,
    /// How the life before ended.
    pub end: String,
    /// The version before.
    pub version_before: Option<String>,
    /// The version from then on.
    pub version: Option<String>,
}

/// One life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LifeView {
    /// The system's process id.
    pub pid: u32,
    /// First sample in seconds since the Unix epoch.
    pub from: f64,
    /// Last sample.
    pub to: f64,
    /// How it ended; `running` for the one that runs.
    pub end: String,
    /// The app's version.
    pub version: Option<String>,
    /// The git revision.
    pub revision: Option<String>,
    /// Largest resident memory.
    pub resident_max_bytes: Option<u64>,
    /// Slope of the footprint, where the life was long enough.
    pub slope: Option<Slope>,
}

/// The shape of the last hours for a small drawing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SparklineView {
    /// Start of the first point in seconds since the Unix epoch.
    pub from: f64,
    /// Length of a point in seconds.
    pub step_seconds: f64,
    /// Smallest resident memory of each point; null where nothing was measured.
    pub resident_min_bytes: Vec<Option<u64>>,
}

/// Condenses `minutes` (oldest first) into at most `points` smallest values of resident memory; none without minutes.
pub fn sparkline(minutes: &[Minute], points: u16, scale: TimeScale) -> Option<SparklineView> {
    let (first, last) = (minutes.first()?.minute, minutes.last()?.minute);
    let width = ((last - first).saturating_add(1)).div_ceil_by(i64::from(points.max(1)));
    let mut values: Vec<Option<u64>> = Vec::with_capacity(usize::from(points));
    for minute in minutes {
        let slot = usize::try_from((minute.minute - first).div_euclid(width)).unwrap_or(0);
        if values.len() <= slot {
            values.resize(slot + 1, None);
        }
        if let (Some(new), Some(place)) = (bytes(minute.resident), values.get_mut(slot)) {
            *place = Some(place.map_or(new, |old| old.min(new)));
        }
    }
    values.iter().any(Option::is_some).then(|| SparklineView {
        from: scale.wall_of_row(first),
        step_seconds: scale.seconds(width),
        resident_min_bytes: values,
    })
}

trait DivCeil {
    fn div_ceil_by(self, by: i64) -> i64;
}

impl DivCeil for i64 {
    /// Divides positive numbers, rounding up; at least one.
    fn div_ceil_by(self, by: i64) -> i64 {
        (self.saturating_add(by.max(1) - 1) / by.max(1)).max(1)
    }
}

impl HistoryView {
    /// Builds the view of a range.
    pub fn new(past: &Past<'_>, range: Range) -> Self {
        let scale = past.scale;
        let minutes = within(past, range);
        let first = minutes.first().map_or(0, |minute| minute.minute);
        let last = minutes.last().map_or(first, |minute| minute.minute);
        let rows = last - first + 1;
        let asked =
            range.step.map(|step| i64::try_from(step.as_millis()).unwrap_or(i64::MAX).div_ceil_by(scale.minute_ms()));
        let width = asked.unwrap_or_else(|| rows.div_ceil_by(AIM)).max(rows.div_ceil_by(MOST_POINTS));
        let mut view = Self {
            daemon: past.key.daemon.to_string(),
            namespace: past.app.namespace().to_owned(),
            app: past.app.name().to_owned(),
            pm_id: past.key.pm_id,
            step_seconds: scale.seconds(width),
            oldest: past.minutes.first().map(|minute| scale.wall_of_row(minute.minute)),
            time: Vec::new(),
            resident: SeriesView::default(),
            heap_used: SeriesView::default(),
            heap_total: SeriesView::default(),
            floor: SeriesView::default(),
            memory: MemoryView::new(past.composition, scale),
            limit: past.verdict.and_then(|verdict| verdict.limit).map(|limit| limit.kind.as_str().to_owned()),
            limit_bytes: past.verdict.and_then(|verdict| verdict.limit).map(|limit| limit.bytes.0),
            fit: past.verdict.and_then(|verdict| fit(past, verdict)),
            projection: past.verdict.and_then(|verdict| projection(past, verdict)),
            marks: marks(past, range),
            lives: past.lives.iter().map(|life| life_view(life, scale)).collect(),
        };
        let mut step = None;
        for minute in minutes {
            let this = minute.minute.div_euclid(width);
            // A gap keeps its width: empty steps fill it.
            for empty in step.map_or(this, |step: i64| step + 1)..=this {
                view.time.push(scale.wall_of_row(empty.saturating_mul(width)));
                for series in [&mut view.resident, &mut view.heap_used, &mut view.heap_total, &mut view.floor] {
                    series.open();
                }
            }
            step = Some(this);
            view.resident.add(bytes(minute.resident));
            view.heap_used.add(bytes(minute.heap_used));
            view.heap_total.add(heap_total(minute));
            view.floor.add(bytes(minute.heap_floor + minute.native));
        }
        view
    }
}

impl SeriesView {
    fn open(&mut self) {
        for column in [&mut self.min, &mut self.max, &mut self.last] {
            column.push(None);
        }
    }

    fn add(&mut self, value: Option<u64>) {
        let Some(new) = value else { return };
        if let (Some(min), Some(max), Some(last)) = (self.min.last_mut(), self.max.last_mut(), self.last.last_mut()) {
            *min = Some(min.map_or(new, |old| old.min(new)));
            *max = Some(max.map_or(new, |old| old.max(new)));
            *last = Some(new);
        }
    }
}

/// Writes the minutes of a range as the CSV that `leakslope analyze` reads, one row a minute; minutes without figures
/// are left out. `heap_used_bytes` is the smallest of its minute where the app reports no collections, so that the
/// same floors come out of it; `life` counts from 1 for the oldest life that is remembered.
pub fn csv(past: &Past<'_>, range: Range) -> String {
    let minutes = within(past, range);
    let mut text = String::with_capacity(64 * (minutes.len() + 2));
    text.push_str(CSV_HEADER);
    text.push('\n');
    let mut collections = 0_u64;
    let field = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    for minute in minutes {
        if minute.resident.is_nan() && minute.heap_used.is_nan() {
            continue;
        }
        let exact = past.exact_since.is_some_and(|since| minute.minute >= since);
        let after = if exact { bytes(minute.heap_floor) } else { None };
        let used = if exact { bytes(minute.heap_used) } else { bytes(minute.heap_floor).or(bytes(minute.heap_used)) };
        collections += u64::from(after.is_some());
        let life = past.lives.iter().filter(|life| past.scale.row_of(life.first) <= minute.minute).count().max(1);
        let written = writeln!(
            text,
            "{},{},{},{},{},{},{life}",
            past.scale.wall_of_row(minute.minute),
            field(bytes(minute.resident)),
            field(used),
            field(heap_total(minute)),
            field(after),
            if exact { collections.to_string() } else { String::new() },
        );
        debug_assert!(written.is_ok(), "a String takes everything");
    }
    text
}

fn within<'a>(past: &Past<'a>, range: Range) -> &'a [Minute] {
    let (from, to) = (past.scale.row_of_wall(range.from), past.scale.row_of_wall(range.to));
    let start = past.minutes.partition_point(|minute| minute.minute < from);
    let end = past.minutes.partition_point(|minute| minute.minute <= to);
    past.minutes.get(start..end).unwrap_or_default()
}

fn bytes(value: f32) -> Option<u64> {
    value.is_finite().then(|| Bytes::from_f64(f64::from(value)).0)
}

/// What V8 holds: held memory less what lies outside of V8; never less than the used heap.
fn heap_total(minute: &Minute) -> Option<u64> {
    let inside = minute.resident - minute.native;
    bytes(if inside.is_nan() { inside } else { inside.max(minute.heap_used) })
}

fn signal_of(minute: &Minute, signal: Signal) -> f64 {
    f64::from(match signal {
        Signal::Resident => minute.resident,
        Signal::Heap => minute.heap_floor,
        Signal::Native => minute.native,
        Signal::Footprint => minute.heap_floor + minute.native,
    })
}

/// Lays the verdict's slope through the floors of its window: the median of what is left fixes its height.
fn fit(past: &Past<'_>, verdict: &Verdict) -> Option<FitView> {
    let scale = past.scale;
    let slope = verdict.slopes.get(&verdict.signal)?;
    let end = scale.row_of(verdict.at);
    let born = past.lives.last().map_or(i64::MIN, |life| scale.row_of(life.first));
    let window = i64::try_from(verdict.window.as_millis()).unwrap_or(i64::MAX) / scale.minute_ms();
    let start = end.saturating_sub(window).max(born).max(past.minutes.first()?.minute);
    let width = (end - start + 1).div_ceil_by(FLOORS);
    let mut floors: Vec<(i64, f64)> = Vec::new();
    let mut bucket = None;
    for minute in past.minutes.iter().filter(|minute| (start..=end).contains(&minute.minute)) {
        let value = signal_of(minute, verdict.signal);
        if !value.is_finite() {
            continue;
        }
        let this = (minute.minute - start) / width;
        match floors.last_mut().filter(|_| bucket == Some(this)) {
            Some(lowest) if value < lowest.1 => *lowest = (minute.minute, value),
            Some(_) => {}
            None => floors.push((minute.minute, value)),
        }
        bucket = Some(this);
    }
    if floors.len() < 2 {
        return None;
    }
    let pivot = start + (end - start) / 2;
    let mut heights: Vec<f64> =
        floors.iter().map(|(row, value)| value - slope.bytes_per_second * scale.seconds(row - pivot)).collect();
    heights.sort_by(f64::total_cmp);
    Some(FitView {
        signal: verdict.signal.as_str().to_owned(),
        from: scale.wall_of_row(start),
        to: scale.wall_of_row(end),
        pivot_at: scale.wall_of_row(pivot),
        pivot_bytes: heights[heights.len() / 2],
        bytes_per_second: slope.bytes_per_second,
        low_bytes_per_second: slope.low,
        high_bytes_per_second: slope.high,
    })
}

fn projection(past: &Past<'_>, verdict: &Verdict) -> Option<ProjectionView> {
    let (limit, left) = (verdict.limit?, verdict.projected_exhaustion?.as_secs_f64());
    let slope = verdict.slopes.get(&verdict.signal)?;
    if slope.bytes_per_second <= 0.0 {
        return None;
    }
    let limited =
        |minute: &Minute| bytes(if limit.kind == LimitKind::Heap { minute.heap_used } else { minute.resident });
    let from = past.scale.wall(verdict.at);
    let at_pace = |pace: f64| from + left * slope.bytes_per_second / pace;
    Some(ProjectionView {
        from,
        from_bytes: past.minutes.iter().rev().find_map(limited)?,
        limit_bytes: limit.bytes.0,
        at: from + left,
        earliest_at: at_pace(slope.high.max(slope.bytes_per_second)),
        latest_at: (slope.low > 0.0).then(|| at_pace(slope.low.min(slope.bytes_per_second))),
    })
}

fn marks(past: &Past<'_>, range: Range) -> Vec<MarkView> {
    past.lives
        .windows(2)
        .filter_map(|pair| {
            let [before, after] = pair else { return None };
            let at = past.scale.wall(after.first);
            let changed = before.version != after.version || before.revision != after.revision;
            (at >= range.from.as_seconds() && at <= range.to.as_seconds()).then(|| MarkView {
                at,
                kind: if changed { "deploy" } else { "restart" }.to_owned(),
                end: end_word(before.end).to_owned(),
                version_before: before.version.clone().or_else(|| before.revision.clone()),
                version: after.version.clone().or_else(|| after.revision.clone()),
            })
        })
        .collect()
}

fn life_view(life: &LifeSummary, scale: TimeScale) -> LifeView {
    LifeView {
        pid: life.life.pid,
        from: scale.wall(life.first),
        to: scale.wall(life.last),
        end: end_word(life.end).to_owned(),
        version: life.version.clone(),
        revision: life.revision.clone(),
        resident_max_bytes: bytes(life.resident_max),
        slope: life.slope,
    }
}

fn end_word(end: LifeEnd) -> &'static str {
    match end {
        LifeEnd::Running => "running",
        LifeEnd::Restarted => "restarted",
        LifeEnd::RestartedByUs => "restarted_by_us",
        LifeEnd::Stopped => "stopped",
        LifeEnd::Errored => "errored",
        LifeEnd::Removed => "removed",
        LifeEnd::Unseen => "unseen",
    }
}

#[cfg(test)]
mod tests;

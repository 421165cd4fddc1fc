//! One life while it runs: the minute being gathered, and the summary that is kept when it has ended.
//!
//! Refuses to decide whether a life leaked; it only condenses.

use serde::{Deserialize, Serialize};

use crate::stats::slope_of_floors;
use model::{AppName, Life, LifeEnd, LifeSummary, Minute, ProcessKey, Steady};

use super::Sample;

/// Equal parts a life is cut into for its summary.
pub const PARTS: usize = 16;

/// What pm2 says a life is of: kept with its summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The app.
    pub app: AppName,
    /// The app's version, where pm2 knows it.
    pub version: Option<String>,
    /// The git revision, where pm2 knows it.
    pub revision: Option<String>,
}

/// What native memory is the rest of, the poorest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NativeBasis {
    /// V8's committed heap, of which some is not resident.
    #[default]
    Committed,
    /// What of it is resident, as the app reports: the main thread's alone.
    Physical,
    /// V8's mappings as the system shows them: every thread's.
    Mappings,
}

/// Minutes for which a poorer figure of native memory is left out in the hope of a better one.
const NATIVE_AWAITED: i64 = 30;

/// The life a process is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurrentLife {
    /// Which one.
    pub life: Life,
    /// First sample on the steady line.
    pub first: Steady,
    /// Last sample on the steady line.
    pub last: Steady,
    /// The minute of its first sample.
    pub first_minute: i64,
    /// The minute from which on the app reports its own major collections; none where it does not.
    pub exact_since: Option<i64>,
    /// The minute from which on load is in requests per second; before (or always, where none) it is in CPU cores.
    pub requests_since: Option<i64>,
    /// What native memory is the rest of …
    #[serde(default)]
    pub native_basis: NativeBasis,
    /// … and the minute from which on it is; none where it always was.
    #[serde(default)]
    pub native_since: Option<i64>,
    #[serde(default)]
    native_last: Option<i64>,
    /// Largest held memory seen in it, in bytes.
    pub resident_max: f32,
    /// Major collections seen since the first sample.
    pub major_gcs: u64,
    #[serde(default)]
    last_gcs: Option<u64>,
    #[serde(default)]
    last_cpu: Option<(Steady, u64)>,
}

impl CurrentLife {
    /// Starts a life at its first sample.
    pub fn new(life: Life, at: Steady, minute: i64) -> Self {
        Self {
            life,
            first: at,
            last: at,
            first_minute: minute,
            exact_since: None,
            requests_since: None,
            native_basis: NativeBasis::Committed,
            native_since: None,
            native_last: None,
            resident_max: f32::NAN,
            major_gcs: 0,
            last_gcs: None,
            last_cpu: None,
        }
    }

    /// Returns the load a sample tells of: requests per second, else CPU cores since the sample before.
    pub(super) fn load(&mut self, sample: &Sample, at: Steady, minute: i64) -> Option<f64> {
        let cores = sample.cpu_milliseconds.and_then(|spent| {
            let before = self.last_cpu.replace((at, spent));
            let (then, earlier) = before?;
            let seconds = at.since(then).as_secs_f64();
            #[allow(clippy::cast_precision_loss, reason = "milliseconds of CPU stay far below 2^53")]
            let used = spent.checked_sub(earlier)? as f64 / 1000.0;
            (seconds > 0.0).then(|| used / seconds)
        });
        if let Some(requests) = sample.requests_per_second.filter(|rate| rate.is_finite() && *rate >= 0.0) {
            self.requests_since.get_or_insert(minute);
            return Some(requests);
        }
        if self.requests_since.is_some() { None } else { cores }
    }

    /// Returns the native memory a sample tells of. Figures of two kinds never mix: the better one counts from when it is
    /// there, and the poorer one again only when it has been missing for half an hour.
    pub(super) fn native(&mut self, sample: &Sample, minute: i64) -> Option<f64> {
        let less = |heap: Option<model::Bytes>| Some(sample.held?.as_f64() - heap?.as_f64());
        let (basis, native) = [
            (NativeBasis::Mappings, sample.outside_v8.map(model::Bytes::as_f64)),
            (NativeBasis::Physical, less(sample.heap_physical)),
            (NativeBasis::Committed, less(sample.heap_total)),
        ]
        .into_iter()
        .find_map(|(basis, native)| Some((basis, native?)))?;
        if basis < self.native_basis && self.native_last.is_some_and(|last| minute - last <= NATIVE_AWAITED) {
            return None;
        }
        if basis != self.native_basis {
            self.native_since = (minute > self.first_minute).then_some(minute);
            self.native_basis = basis;
        }
        self.native_last = Some(minute);
        Some(native)
    }

    /// Native memory of a minute, where it is of the kind that counts now.
    pub(crate) fn native_of(&self, minute: &Minute) -> f32 {
        if self.native_since.is_some_and(|since| minute.minute < since) { f32::NAN } else { minute.native }
    }

    /// Returns the heap floor a sample tells of: the heap after a major collection that is new, or, where the app
    /// reports no collections, the used heap itself.
    pub(super) fn floor(&mut self, sample: &Sample, minute: i64) -> Option<f64> {
        if let Some(count) = sample.major_gcs {
            self.exact_since.get_or_insert(minute);
            let before = self.last_gcs.replace(count);
            let new = count.saturating_sub(before.unwrap_or(count.saturating_sub(1)));
            if before.is_some_and(|before| before == count) || count == 0 {
                return None;
            }
            self.major_gcs = self.major_gcs.saturating_add(new);
            return sample.heap_after_major_gc.map(model::Bytes::as_f64);
        }
        if self.exact_since.is_some() { None } else { sample.heap_used.map(model::Bytes::as_f64) }
    }

    /// Condenses the life from its minutes. `minutes` are those still held, of this life, oldest first.
    pub(super) fn summary(
        &self,
        key: &ProcessKey,
        about: &About,
        minutes: &[Minute],
        minute_seconds: f64,
        end: LifeEnd,
    ) -> LifeSummary {
        // The first fifth (3 to 30 minutes) is warm-up.
        let warm_up = (minutes.len() / 5).clamp(3, 30).min(minutes.len());
        let rest = &minutes[warm_up..];
        let exact_from = self.exact_since.unwrap_or(i64::MIN);
        let footprint = |minute: &Minute| {
            if minute.minute < exact_from { f32::NAN } else { minute.heap_floor + self.native_of(minute) }
        };
        let mut floors = parts(rest, footprint);
        let resident_floors = parts(rest, |minute| minute.resident);
        if 2 * floors.iter().filter(|floor| !floor.is_nan()).count() < floors.len() {
            floors.clone_from(&resident_floors);
        }
        #[allow(clippy::cast_precision_loss, reason = "a life has few minutes")]
        let part_seconds = rest.len() as f64 * minute_seconds / floors.len().max(1) as f64;
        LifeSummary {
            key: key.clone(),
            app: about.app.clone(),
            life: self.life,
            version: about.version.clone(),
            revision: about.revision.clone(),
            first: self.first,
            last: self.last,
            end,
            slope: slope_of_floors(&floors, part_seconds),
            floors,
            resident_floors,
            resident_max: self.resident_max,
        }
    }
}

/// The smallest figure in each of [`PARTS`] equal parts; of each minute where there are fewer.
fn parts(minutes: &[Minute], figure: impl Fn(&Minute) -> f32) -> Vec<f32> {
    let count = PARTS.min(minutes.len());
    (0..count)
        .map(|part| {
            let from = part * minutes.len() / count;
            let to = (part + 1) * minutes.len() / count;
            minutes[from..to].iter().map(&figure).fold(f32::NAN, f32::min)
        })
        .collect()
}

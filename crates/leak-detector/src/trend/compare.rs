//! Proving a fix: the slopes of an app's versions side by side, and whether the newer one mended the leak of the older.
//!
//! Pure: summaries of lives go in. A version's slope is the pooled slope of its lives; how much lives differ among
//! themselves widens the interval. This room refuses to call a leak fixed because too little has been seen of it.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{LifeSummary, Slope, Steady};

/// The share of the old pace that a fix may leave.
const LEFT_OVER: f64 = 0.25;
/// The least minutes a version must have been watched before anything is said of it.
const LEAST_MINUTES: u32 = 120;
/// The width of a 95 % interval in standard deviations.
const INTERVAL: f64 = 2.0 * 1.96;

/// What makes two lives the same version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum VersionName {
    /// pm2 knew the app's version, and perhaps its git revision.
    Known {
        /// The version from `package.json`, else empty.
        version: String,
        /// The git revision, where pm2 found one.
        revision: Option<String>,
    },
    /// pm2 knew nothing: every start is a version of its own.
    Started(Steady),
}

impl VersionName {
    /// The version of a life.
    pub fn of(life: &LifeSummary) -> Self {
        match (&life.version, &life.revision) {
            (None, None) => Self::Started(life.first),
            (version, revision) => {
                Self::Known { version: version.clone().unwrap_or_default(), revision: revision.clone() }
            }
        }
    }

    /// The name for people: `1.4.2`, `1.4.2 (3f2a91c)`, or the time of the start, told by `tell_time`.
    pub fn text(&self, tell_time: impl FnOnce(Steady) -> String) -> String {
        let short = |revision: &str| revision.chars().take(7).collect::<String>();
        match self {
            Self::Known { version, revision: None } => version.clone(),
            Self::Known { version, revision: Some(revision) } if version.is_empty() => short(revision),
            Self::Known { version, revision: Some(revision) } => format!("{version} ({})", short(revision)),
            Self::Started(at) => format!("started {}", tell_time(*at)),
        }
    }
}

/// One version of one app, over all its processes and lives.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionTrend {
    /// Which version.
    pub name: VersionName,
    /// First sample.
    pub from: Steady,
    /// Last sample.
    pub to: Steady,
    /// Lives it was seen in.
    pub lives: usize,
    /// Time it was watched for, over all lives.
    pub watched: Duration,
    /// Its slope; none while no life was long enough for one.
    pub slope: Option<Slope>,
    /// Largest resident memory of one of its lives, in bytes.
    pub resident_max: f64,
}

/// Sorts the lives of one app into versions, the oldest first.
pub fn versions<'a>(lives: impl IntoIterator<Item = &'a LifeSummary>) -> Vec<VersionTrend> {
    let mut by_name: BTreeMap<VersionName, Vec<&LifeSummary>> = BTreeMap::new();
    for life in lives {
        by_name.entry(VersionName::of(life)).or_default().push(life);
    }
    let mut versions: Vec<VersionTrend> = by_name.into_iter().map(|(name, lives)| trend_of(name, &lives)).collect();
    versions.sort_by_key(|version| version.from);
    versions
}

fn trend_of(name: VersionName, lives: &[&LifeSummary]) -> VersionTrend {
    let slopes: Vec<Slope> = lives.iter().filter_map(|life| life.slope).collect();
    VersionTrend {
        name,
        from: lives.iter().map(|life| life.first).min().unwrap_or_default(),
        to: lives.iter().map(|life| life.last).max().unwrap_or_default(),
        lives: lives.len(),
        watched: lives.iter().map(|life| life.last.since(life.first)).sum(),
        slope: pooled(&slopes),
        resident_max: lives.iter().map(|life| f64::from(life.resident_max)).fold(f64::NAN, f64::max),
    }
}

/// Pools slopes by the precision of each, with the spread between them added to the interval: the random-effects mean
/// of `DerSimonian` and Laird, "Meta-analysis in clinical trials", Controlled Clinical Trials 7 (1986).
pub fn pooled(slopes: &[Slope]) -> Option<Slope> {
    // A flat life without noise still leaves doubt: a hundred bytes an hour.
    let variance = |slope: &Slope| ((slope.high - slope.low) / INTERVAL).powi(2).max((100.0_f64 / 3600.0).powi(2));
    let weighted = |extra: f64| {
        let weights: Vec<f64> = slopes.iter().map(|slope| 1.0 / (variance(slope) + extra)).collect();
        let sum: f64 = weights.iter().sum();
        let mean = weights.iter().zip(slopes).map(|(weight, slope)| weight * slope.bytes_per_second).sum::<f64>() / sum;
        (mean, sum, weights)
    };
    if slopes.len() < 2 {
        return slopes.first().copied();
    }
    let (mean, sum, weights) = weighted(0.0);
    let pairs = || weights.iter().zip(slopes);
    let scatter: f64 = pairs().map(|(weight, slope)| weight * (slope.bytes_per_second - mean).powi(2)).sum();
    let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
    #[allow(clippy::cast_precision_loss, reason = "a few hundred lives")]
    let freedom = (slopes.len() - 1) as f64;
    let between = ((scatter - freedom) / (sum - squares / sum)).max(0.0);
    let (mean, sum, _) = weighted(between);
    let half = INTERVAL / 2.0 / sum.sqrt();
    Some(Slope { bytes_per_second: mean, low: mean - half, high: mean + half })
}

/// Whether a version mended the leak of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// The earlier one grew, and of that growth at most a quarter is left.
    Fixed,
    /// It still grows.
    NotFixed,
    /// The earlier one did not grow, so there was nothing to mend.
    NoLeak,
    /// Too little has been seen.
    TooEarly {
        /// About how much longer it has to be watched.
        needed: Duration,
    },
}

impl Outcome {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::NotFixed => "not_fixed",
            Self::NoLeak => "no_leak",
            Self::TooEarly { .. } => "too_early",
        }
    }
}

/// Compares a version with an earlier one. `minute` is the length of a minute of the history.
pub fn compare(before: &VersionTrend, after: &VersionTrend, minute: Duration) -> Outcome {
    let least = minute * LEAST_MINUTES;
    let Some(old) = before.slope else {
        return Outcome::TooEarly { needed: least.saturating_sub(before.watched).max(minute) };
    };
    if old.low <= 0.0 {
        return Outcome::NoLeak;
    }
    let Some(new) = after.slope.filter(|_| after.watched >= least) else {
        return Outcome::TooEarly { needed: least.saturating_sub(after.watched).max(minute) };
    };
    let tolerated = LEFT_OVER * old.bytes_per_second;
    if new.high <= tolerated {
        return Outcome::Fixed;
    }
    if new.low > tolerated || (new.low > 0.0 && new.bytes_per_second > tolerated) {
        return Outcome::NotFixed;
    }
    // The interval of a slope narrows with the time watched to the power of 3/2.
    let (width, wanted) = (new.high - new.low, (tolerated - new.bytes_per_second).max(tolerated / 2.0) * 2.0);
    let factor = libm::pow((width / wanted).max(1.1), 2.0 / 3.0) - 1.0;
    Outcome::TooEarly { needed: after.watched.mul_f64(factor.clamp(0.1, 50.0)).max(minute) }
}

/// The outcome as a sentence. The names are those of the two versions.
pub fn sentence(outcome: Outcome, before: (&str, Option<Slope>), after: (&str, Option<Slope>)) -> String {
    let pace = |slope: Option<Slope>| {
        slope.map_or_else(
            || "an unknown pace".to_owned(),
            |slope| {
                let hourly = |value: f64| value * 3600.0 / model::Bytes::MIB.as_f64();
                format!(
                    "{:+.2} MiB/h ({:+.2} to {:+.2})",
                    hourly(slope.bytes_per_second),
                    hourly(slope.low),
                    hourly(slope.high)
                )
            },
        )
    };
    let (old, new) = (pace(before.1), pace(after.1));
    match outcome {
        Outcome::Fixed => format!("fixed: {} grew by {old}, {} grows by {new}", before.0, after.0),
        Outcome::NotFixed => format!("not fixed: {} grew by {old}, {} still grows by {new}", before.0, after.0),
        Outcome::NoLeak => format!("nothing to fix: {} did not grow for certain, it went by {old}", before.0),
        Outcome::TooEarly { needed } => {
            let hours = needed.as_secs_f64() / 3600.0;
            let more = if hours >= 1.0 {
                format!("{hours:.1} more hours")
            } else {
                format!("{:.0} more minutes", hours * 60.0)
            };
            format!("too early to say: {} grew by {old}, {} by {new}; about {more} needed", before.0, after.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use model::{AppName, DaemonName, Life, LifeEnd, ProcessKey};

    const MIB_PER_HOUR: f64 = 1_048_576.0 / 3600.0;
    const MINUTE: Duration = Duration::from_mins(1);

    fn slope(middle: f64, half: f64) -> Slope {
        Slope {
            bytes_per_second: middle * MIB_PER_HOUR,
            low: (middle - half) * MIB_PER_HOUR,
            high: (middle + half) * MIB_PER_HOUR,
        }
    }

    fn life(version: Option<&str>, from_hour: i64, hours: i64, slope: Option<Slope>) -> LifeSummary {
        LifeSummary {
            key: ProcessKey { daemon: DaemonName::from("default"), pm_id: 0 },
            app: AppName::from("api"),
            life: Life { pid: 1, started: from_hour },
            version: version.map(str::to_owned),
            revision: None,
            first: Steady(from_hour * 3_600_000),
            last: Steady((from_hour + hours) * 3_600_000),
            end: LifeEnd::Restarted,
            floors: Vec::new(),
            resident_floors: Vec::new(),
            resident_max: 1.0e8,
            slope,
        }
    }

    fn outcome(old: Option<Slope>, new: Option<Slope>, hours: i64) -> Outcome {
        let lives = [life(Some("1"), 0, 30, old), life(Some("2"), 30, hours, new)];
        let versions = versions(&lives);
        compare(&versions[0], &versions[1], MINUTE)
    }

    #[test]
    fn a_fix_is_told_from_no_fix_and_from_too_little_seen() {
        let old = Some(slope(8.0, 1.0));
        assert_eq!(outcome(old, Some(slope(0.0, 0.5)), 10), Outcome::Fixed);
        assert_eq!(outcome(old, Some(slope(7.5, 1.0)), 10), Outcome::NotFixed);
        assert_eq!(outcome(old, Some(slope(4.0, 1.0)), 10), Outcome::NotFixed, "half the pace is a leak still");
        assert_eq!(outcome(Some(slope(0.2, 0.5)), Some(slope(0.0, 0.5)), 10), Outcome::NoLeak);
        for (new, hours) in [(Some(slope(0.0, 9.0)), 10), (Some(slope(0.0, 0.1)), 1), (None, 1)] {
            let Outcome::TooEarly { needed } = outcome(old, new, hours) else { panic!("{new:?}") };
            assert!(needed >= MINUTE && needed < Duration::from_hours(24), "{needed:?}");
        }
    }

    #[test]
    fn lives_without_a_version_stand_for_themselves_and_the_oldest_comes_first() {
        let lives = [life(None, 9, 1, None), life(None, 3, 1, None), life(Some("1"), 5, 1, None)];
        let names: Vec<String> =
            versions(&lives).iter().map(|version| version.name.text(|at| at.0.to_string())).collect();
        assert_eq!(names, ["started 10800000", "1", "started 32400000"]);
    }

    #[test]
    fn a_revision_tells_versions_apart() {
        let mut lives = [life(Some("1"), 0, 1, None), life(Some("1"), 1, 1, None)];
        lives[1].revision = Some("3f2a91c0ffee".to_owned());
        let versions = versions(&lives);
        assert_eq!(versions.len(), 2);
        assert_eq!(versions[1].name.text(|_| String::new()), "1 (3f2a91c)");
    }

    proptest! {
        #[test]
        fn the_pooled_slope_lies_among_its_lives(middles in proptest::collection::vec(-50.0..50.0_f64, 1..12)) {
            let slopes: Vec<Slope> = middles.iter().map(|middle| slope(*middle, 1.0)).collect();
            let pooled = pooled(&slopes).unwrap();
            let least = slopes.iter().map(|slope| slope.bytes_per_second).fold(f64::INFINITY, f64::min);
            let most = slopes.iter().map(|slope| slope.bytes_per_second).fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(pooled.bytes_per_second >= least - 1e-6 && pooled.bytes_per_second <= most + 1e-6);
            prop_assert!(pooled.low <= pooled.bytes_per_second && pooled.bytes_per_second <= pooled.high);
        }

        #[test]
        fn any_two_versions_compare_without_a_panic(
            old in (-1e9..1e9_f64, 0.0..1e9_f64), new in (-1e9..1e9_f64, 0.0..1e9_f64), hours in 0..5000_i64,
        ) {
            let (old, new) = (slope(old.0, old.1), slope(new.0, new.1));
            let found = outcome(Some(old), Some(new), hours);
            prop_assert!(!sentence(found, ("1", Some(old)), ("2", Some(new))).is_empty());
        }
    }
}

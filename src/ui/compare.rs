//! The versions of one app side by side, from the summaries of its lives.

use std::time::Duration;

use super::views::{CompareView, ComparisonView, VersionView};
use crate::model::{AppName, Bytes, LifeSummary, Steady, WallTime};
use crate::trend::compare::{Outcome, VersionTrend, compare, sentence, versions};

/// The versions to compare, by the names that [`CompareView`] shows; the two newest where they are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The earlier version.
    pub before: Option<&'a str>,
    /// The later version.
    pub after: Option<&'a str>,
}

/// A version was asked for that no life of the app had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no life of {app} had version \"{version}\"; known are: {known}")]
pub struct UnknownVersion {
    /// The app.
    pub app: String,
    /// What was asked for.
    pub version: String,
    /// What there is.
    pub known: String,
}

impl CompareView {
    /// Builds the view. `minute` is the length of a minute of the history, `offset_ms` leads from the steady line to the
    /// wall clock.
    ///
    /// # Errors
    /// [`UnknownVersion`] where the choice names one that is not there.
    pub fn new(
        daemon: &str,
        app: &AppName,
        lives: &[LifeSummary],
        choice: Choice<'_>,
        minute: Duration,
        offset_ms: i64,
    ) -> Result<Self, UnknownVersion> {
        let wall = |at: Steady| WallTime(at.0.saturating_add(offset_ms));
        let trends = versions(lives);
        let names: Vec<String> = trends.iter().map(|trend| trend.name.text(|at| wall(at).to_rfc3339())).collect();
        let find = |version: &str| {
            names.iter().rposition(|name| name == version).ok_or_else(|| UnknownVersion {
                app: app.to_string(),
                version: version.to_owned(),
                known: names.join(", "),
            })
        };
        let after = match choice.after {
            Some(version) => Some(find(version)?),
            None => trends.len().checked_sub(1),
        };
        let before = match choice.before {
            Some(version) => Some(find(version)?),
            None => after.and_then(|after| after.checked_sub(1)),
        };
        let comparison = before.zip(after).map(|(before, after)| {
            let outcome = compare(&trends[before], &trends[after], minute);
            ComparisonView {
                before: names[before].clone(),
                after: names[after].clone(),
                outcome: outcome.as_str().to_owned(),
                hours_needed: match outcome {
                    Outcome::TooEarly { needed } => Some(needed.as_secs_f64() / 3600.0),
                    Outcome::Fixed | Outcome::NotFixed | Outcome::NoLeak => None,
                },
                sentence: sentence(
                    outcome,
                    (&names[before], trends[before].slope),
                    (&names[after], trends[after].slope),
                ),
            }
        });
        let versions = trends.iter().zip(names).map(|(trend, name)| version(trend, name, wall)).collect();
        Ok(Self {
            daemon: daemon.to_owned(),
            namespace: app.namespace().to_owned(),
            app: app.name().to_owned(),
            versions,
            comparison,
        })
    }
}

fn version(trend: &VersionTrend, version: String, wall: impl Fn(Steady) -> WallTime) -> VersionView {
    VersionView {
        version,
        from: wall(trend.from).as_seconds(),
        to: wall(trend.to).as_seconds(),
        lives: trend.lives,
        hours: trend.watched.as_secs_f64() / 3600.0,
        slope: trend.slope,
        resident_max_bytes: (!trend.resident_max.is_nan()).then(|| Bytes::from_f64(trend.resident_max).0),
    }
}

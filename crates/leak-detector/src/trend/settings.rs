//! What can be set of the verdict. The defaults need no tuning; every length is in minutes of the history, so that a
//! shorter minute compresses all of them at once.

use std::time::Duration;

use model::Bytes;

/// How much a grade of verdict asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grade {
    /// Growth must have been watched for this share of the time that is left until the limit …
    pub watch_share: f64,
    /// … or for this many minutes, whichever is less …
    pub watch_cap: f64,
    /// … or for this many minutes at growth by once the floor it began with, if it is straight; twice as long for half the
    /// growth.
    pub evidence_watch: f64,
    /// … and never less than this many minutes.
    pub evidence_least: f64,
    /// Least pace of the second half of the rise over that of the first.
    pub rise_pace: f64,
    /// Largest share of the growth that may come in one step, beyond what a line explains.
    pub step_share: f64,
    /// Least share of the growth that must be left without the largest and smallest increments.
    pub spread_share: f64,
}

/// Settings of the trend. One set may be shared by every process, or one made for each app.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Length of a minute of the history.
    pub minute: Duration,
    /// Minutes between evaluations.
    pub evaluate_every: u32,
    /// Windows tried, in minutes, rising.
    pub ladder: Vec<u32>,
    /// The least minutes after a start that are left out as warm-up.
    pub warm_up: u32,
    /// Growth below this many bytes is never a leak.
    pub smallest_growth: Bytes,
    /// Growth below this share of resident memory is never a leak.
    pub smallest_share: f64,
    /// Minutes for which growth must be found again and again before a state is entered.
    pub enter_after: u32,
    /// Minutes without a finding after which a state is left.
    pub leave_after: u32,
    /// The window of the slope where there is no finding, in minutes.
    pub slope_window: u32,
    /// A life is slowing down when a logarithm leaves less than this share of what a line leaves unexplained.
    pub log_ratio: f64,
    /// Windows from this many minutes on may show a season: a trend that only shows from one day or shift to the next.
    pub season_from: f64,
    /// Growth must be found again and again for this share of its window before a state is entered.
    pub enter_share: f64,
    /// What *suspect* asks for.
    pub suspect: Grade,
    /// What *leaking* asks for.
    pub leaking: Grade,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            minute: Duration::from_mins(1),
            evaluate_every: 5,
            ladder: vec![15, 30, 60, 120, 240, 480, 960, 1440, 2880, 4320],
            warm_up: 15,
            smallest_growth: Bytes(3_000_000),
            smallest_share: 0.02,
            enter_after: 10,
            leave_after: 60,
            slope_window: 480,
            log_ratio: 0.8,
            season_from: 960.0,
            enter_share: 0.06,
            suspect: Grade {
                watch_share: 0.9,
                watch_cap: 1440.0,
                evidence_watch: 240.0,
                evidence_least: 480.0,
                rise_pace: 0.6,
                step_share: 0.21,
                spread_share: 0.25,
            },
            leaking: Grade {
                watch_share: 1.5,
                watch_cap: 2160.0,
                evidence_watch: 250.0,
                evidence_least: 500.0,
                rise_pace: 0.7,
                step_share: 0.16,
                spread_share: 0.35,
            },
        }
    }
}

impl Settings {
    /// The defaults with another length of a minute: one second compresses an hour to a minute.
    pub fn with_minute(minute: Duration) -> Self {
        Self { minute: minute.max(Duration::from_millis(1)), ..Self::default() }
    }

    /// Converts minutes of the history into real time.
    pub fn span(&self, minutes: f64) -> Duration {
        Duration::try_from_secs_f64(self.minute.as_secs_f64() * minutes).unwrap_or(Duration::MAX)
    }

    pub(crate) fn minute_seconds(&self) -> f64 {
        self.minute.as_secs_f64().max(1e-3)
    }
}

//! The circuit breaker of one app: when restarts do harm or no good, they stop until a person looks.
//!
//! Pure state. It refuses to know what a restart is: it is told of helpful, useless and failed ones.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::observation::Now;
use super::settings::BreakerSettings;
use model::{AppName, DaemonName, Steady, WallTime};

/// What kind of trouble opened a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// A new instance did not show what it must.
    VerificationFailed,
    /// Restarts in a row did not help.
    Unhelpful,
    /// Restarts came too close together.
    TooClose,
}

impl Trouble {
    /// The word used in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VerificationFailed => "verification_failed",
            Self::Unhelpful => "unhelpful",
            Self::TooClose => "too_close",
        }
    }
}

/// A breaker that is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// What opened it.
    pub trouble: Trouble,
    /// The short word for how a verification failed.
    #[serde(default)]
    pub detail: Option<String>,
    /// Why, as a sentence.
    pub cause: String,
    /// Since when.
    pub since: Steady,
    /// The same by the wall clock.
    pub since_wall: WallTime,
    /// When it closes by itself.
    pub until: Steady,
}

impl Open {
    /// The word used in the label `reason`.
    pub fn reason(&self) -> &str {
        self.detail.as_deref().unwrap_or(self.trouble.as_str())
    }
}

/// The breaker of one app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Breaker {
    /// The daemon.
    pub daemon: DaemonName,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// How it is open; none while it is closed.
    pub open: Option<Open>,
    /// Restarts in a row that did not help.
    pub unhelpful: u32,
    /// Restarts before this instant no longer count as too close together: it was reset or timed out then.
    pub forgiven: Steady,
}

impl Breaker {
    /// Makes a closed breaker.
    pub fn closed(daemon: &DaemonName, app: &AppName) -> Self {
        Self { daemon: daemon.clone(), app: app.clone(), open: None, unhelpful: 0, forgiven: Steady(i64::MIN) }
    }

    /// Opens it; one that is open already keeps its first cause and closes later.
    pub fn trip(
        &mut self,
        trouble: Trouble,
        detail: Option<&str>,
        cause: String,
        settings: &BreakerSettings,
        now: Now,
    ) {
        let until = now.steady + settings.open_for.0;
        if let Some(open) = &mut self.open {
            open.until = open.until.max(until);
        } else {
            let detail = detail.map(str::to_owned);
            self.open = Some(Open { trouble, detail, cause, since: now.steady, since_wall: now.wall, until });
        }
    }

    /// Notes that a restart helped.
    pub fn helped(&mut self) {
        self.unhelpful = 0;
    }

    /// Notes that a restart did not help; returns whether that is one too many.
    pub fn did_not_help(&mut self, settings: &BreakerSettings) -> bool {
        self.unhelpful = self.unhelpful.saturating_add(1);
        self.unhelpful >= settings.unhelpful
    }

    /// Closes it when its time is over. One more useless restart then opens it again. Returns whether it closed.
    pub fn time_out(&mut self, settings: &BreakerSettings, now: Steady) -> bool {
        if self.open.as_ref().is_none_or(|open| now < open.until) {
            return false;
        }
        self.open = None;
        self.unhelpful = self.unhelpful.min(settings.unhelpful.saturating_sub(1));
        self.forgiven = now;
        true
    }

    /// Closes it because a person says so, and forgets what led to it. Returns how it was open.
    pub fn reset(&mut self, now: Steady) -> Option<Open> {
        self.unhelpful = 0;
        self.forgiven = now;
        self.open.take()
    }

    /// How long it stays open from `now`; none while it is closed.
    pub fn closes_in(&self, now: Steady) -> Option<Duration> {
        self.open.as_ref().map(|open| open.until.since(now))
    }

    /// Whether there is anything to remember.
    pub fn is_blank(&self) -> bool {
        self.open.is_none() && self.unhelpful == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Now {
        Now { steady: Steady(hours * 3_600_000), wall: WallTime(0) }
    }

    #[test]
    fn it_opens_at_the_second_useless_restart_and_after_its_time_at_the_next() {
        let settings = BreakerSettings::default();
        let mut breaker = Breaker::closed(&"default".into(), &"shop".into());
        assert!(!breaker.did_not_help(&settings));
        breaker.helped();
        assert!(!breaker.did_not_help(&settings));
        assert!(breaker.did_not_help(&settings));
        breaker.trip(Trouble::Unhelpful, None, "no use".to_owned(), &settings, at(0));
        assert!(!breaker.time_out(&settings, at(23).steady));
        assert_eq!(breaker.closes_in(at(23).steady), Some(Duration::from_hours(1)));
        assert!(breaker.time_out(&settings, at(24).steady));
        assert!(breaker.did_not_help(&settings), "half open: one more is one too many");
    }

    #[test]
    fn a_reset_forgets_everything_and_a_second_trip_keeps_the_first_cause() {
        let settings = BreakerSettings::default();
        let mut breaker = Breaker::closed(&"default".into(), &"shop".into());
        breaker.trip(Trouble::VerificationFailed, Some("errored"), "first".to_owned(), &settings, at(0));
        breaker.trip(Trouble::TooClose, None, "second".to_owned(), &settings, at(5));
        let open = breaker.open.clone().unwrap();
        assert_eq!((open.cause.as_str(), open.until), ("first", at(29).steady));
        assert_eq!(open.reason(), "errored");
        assert_eq!(breaker.reset(at(6).steady), Some(open));
        assert_eq!(breaker.reset(at(6).steady), None);
        assert!(breaker.is_blank());
    }
}

//! Maintenance windows: when a restart is welcome, by the calendar of a time zone.
//!
//! A window opens at a civil time on chosen days and lasts for a span of real time, so it may wrap past midnight and an
//! hour that the clocks skip or repeat neither loses nor doubles it. The instant is an argument: this room refuses to
//! know what time it is.

use std::time::Duration;

use jiff::civil::{Date, Time, Weekday};
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use model::{Span, Zone};

/// The longest window: one that never closes needs no window.
pub(super) const LONGEST: Duration = Duration::from_hours(168);

/// A day of the week as the configuration writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    /// Every day, from Monday.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    fn is(self, weekday: Weekday) -> bool {
        let index = usize::try_from(weekday.to_monday_zero_offset()).unwrap_or_default();
        Self::ALL[index] == self
    }
}

/// One window that comes back on chosen days.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Days on which it opens; every day when left out.
    #[serde(default = "every_day")]
    pub days: Vec<Day>,
    /// Civil time at which it opens. An hour that the clocks skip opens it as late as they are put forward; an hour that
    /// they repeat opens it the first time.
    pub start: Time,
    /// How long it stays open, in real time.
    pub length: Span,
    /// The zone of `start` and `days`.
    #[serde(default = "Zone::utc")]
    pub time_zone: Zone,
}

fn every_day() -> Vec<Day> {
    Day::ALL.to_vec()
}

/// One opening of a window: from the first instant to the last, which is no longer in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// When it opens.
    pub from: Timestamp,
    /// When it closes.
    pub until: Timestamp,
}

impl Window {
    /// Returns the opening that `at` lies in, the one that closes last where two overlap.
    pub fn open_at(&self, at: Timestamp) -> Option<Opening> {
        let back = i32::try_from(self.length.0.as_secs() / 86_400).unwrap_or(7) + 2;
        self.openings(at, -back, 1).filter(|opening| opening.from <= at && at < opening.until).max_by_key(|o| o.until)
    }

    /// Returns the first opening that begins after `at`; none when the window has no days or the calendar ends.
    pub fn next_after(&self, at: Timestamp) -> Option<Opening> {
        self.openings(at, -1, 9).filter(|opening| opening.from > at).min()
    }

    fn openings(&self, around: Timestamp, first: i32, last: i32) -> impl Iterator<Item = Opening> + '_ {
        let today = around.to_zoned(self.time_zone.rules().clone()).date();
        (first..=last).filter_map(move |offset| self.opening_on(today.checked_add(offset.days()).ok()?))
    }

    fn opening_on(&self, date: Date) -> Option<Opening> {
        if !self.days.iter().any(|day| day.is(date.weekday())) {
            return None;
        }
        let from = self.time_zone.rules().to_timestamp(date.to_datetime(self.start)).ok()?;
        Some(Opening { from, until: from.checked_add(self.length.0).ok()? })
    }
}

/// Whether any of several windows is open; no windows at all means always open.
pub(super) fn open_at(windows: &[Window], at: Timestamp) -> bool {
    windows.is_empty() || windows.iter().any(|window| window.open_at(at).is_some())
}

/// Returns the first opening of any of several windows after `at`.
pub(super) fn next_after(windows: &[Window], at: Timestamp) -> Option<Opening> {
    windows.iter().filter_map(|window| window.next_after(at)).min()
}

/// Returns when the windows that are open at `at` will have closed; none when none is open or there are no windows.
/// Windows that overlap or touch are followed to the end of the last.
pub(super) fn closes_at(windows: &[Window], at: Timestamp) -> Option<Timestamp> {
    let mut end = None;
    let mut probe = at;
    for _ in 0..64 {
        let Some(until) = windows.iter().filter_map(|window| window.open_at(probe)).map(|o| o.until).max() else {
            break;
        };
        end = Some(until);
        probe = until;
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(days: &[Day], start: &str, length: &str, zone: &str) -> Window {
        Window {
            days: days.to_vec(),
            start: start.parse().unwrap(),
            length: length.parse().unwrap(),
            time_zone: zone.parse().unwrap(),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_is_open_from_its_start_until_just_before_its_end() {
        let nightly = window(&Day::ALL, "02:00", "2h", "UTC");
        for (instant, open) in [
            ("2025-03-10T01:59:59.999Z", false),
            ("2025-03-10T02:00:00Z", true),
            ("2025-03-10T03:59:59.999Z", true),
            ("2025-03-10T04:00:00Z", false),
        ] {
            assert_eq!(nightly.open_at(at(instant)).is_some(), open, "{instant}");
        }
    }

    #[test]
    fn a_window_wraps_past_midnight_and_belongs_to_the_day_it_opens_on() {
        let friday = window(&[Day::Fri], "23:00", "3h", "UTC");
        for (instant, open) in [
            ("2025-03-14T22:59:59Z", false),
            ("2025-03-14T23:00:00Z", true),
            ("2025-03-15T01:59:59Z", true),
            ("2025-03-15T02:00:00Z", false),
            ("2025-03-14T00:30:00Z", false),
            ("2025-03-15T23:30:00Z", false),
        ] {
            assert_eq!(friday.open_at(at(instant)).is_some(), open, "{instant}");
        }
    }

    #[test]
    fn a_window_of_days_stays_open_over_the_days_it_does_not_name() {
        let weekend = window(&[Day::Sat], "00:00", "2d", "Europe/Berlin");
        for (instant, open) in [
            ("2025-03-14T22:59:59Z", false),
            ("2025-03-14T23:00:00Z", true),
            ("2025-03-16T12:00:00Z", true),
            ("2025-03-16T23:00:00Z", false),
        ] {
            assert_eq!(weekend.open_at(at(instant)).is_some(), open, "{instant}");
        }
    }

    #[test]
    fn an_hour_that_the_clocks_skip_opens_the_window_once_and_at_full_length() {
        // Berlin, 30 March 2025: 02:00 becomes 03:00 at 01:00 UTC.
        let nightly = window(&Day::ALL, "02:30", "1h", "Europe/Berlin");
        let opening = nightly.next_after(at("2025-03-29T12:00:00Z")).unwrap();
        assert_eq!((opening.from, opening.until), (at("2025-03-30T01:30:00Z"), at("2025-03-30T02:30:00Z")));
        let next = nightly.next_after(opening.from).unwrap();
        assert_eq!(next.from, at("2025-03-31T00:30:00Z"));
    }

    #[test]
    fn an_hour_that_the_clocks_repeat_opens_the_window_only_the_first_time() {
        // Berlin, 26 October 2025: 03:00 becomes 02:00 at 01:00 UTC.
        let nightly = window(&Day::ALL, "02:30", "30m", "Europe/Berlin");
        for (instant, open) in [
            ("2025-10-26T00:29:59Z", false),
            ("2025-10-26T00:30:00Z", true),
            ("2025-10-26T01:00:00Z", false),
            ("2025-10-26T01:30:00Z", false),
        ] {
            assert_eq!(nightly.open_at(at(instant)).is_some(), open, "{instant}");
        }
        let across = window(&Day::ALL, "01:00", "4h", "America/New_York");
        // New York, 2 November 2025: the night is an hour longer, the window is not.
        assert_eq!(across.open_at(at("2025-11-02T05:00:00Z")).unwrap().until, at("2025-11-02T09:00:00Z"));
    }

    #[test]
    fn openings_that_touch_are_followed_to_their_end() {
        let two = [window(&Day::ALL, "22:00", "2h", "UTC"), window(&[Day::Sat], "00:00", "3h", "UTC")];
        assert_eq!(closes_at(&two, at("2025-03-14T23:00:00Z")), Some(at("2025-03-15T03:00:00Z")));
        assert_eq!(closes_at(&two, at("2025-03-13T23:00:00Z")), Some(at("2025-03-14T00:00:00Z")));
        assert_eq!(closes_at(&two, at("2025-03-13T12:00:00Z")), None);
        let always = [window(&Day::ALL, "00:00", "1d", "UTC")];
        assert!(closes_at(&always, at("2025-03-13T12:00:00Z")).is_some());
    }

    #[test]
    fn no_windows_means_always_open_and_no_days_means_never() {
        assert!(open_at(&[], at("2025-03-13T12:00:00Z")));
        let never = window(&[], "00:00", "1d", "UTC");
        assert!(!open_at(std::slice::from_ref(&never), at("2025-03-13T12:00:00Z")));
        assert_eq!(never.next_after(at("2025-03-13T12:00:00Z")), None);
    }

    proptest! {
        #[test]
        fn a_window_opens_exactly_when_the_next_opening_says(
            seconds in 1_700_000_000_i64..1_800_000_000,
            days in proptest::sample::subsequence(Day::ALL.to_vec(), 1..=7),
            hour in 0_i8..24, minute in 0_i8..60, length in 1_u64..(7 * 1440),
            zone in proptest::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
        ) {
            let window = Window {
                days,
                start: Time::constant(hour, minute, 0, 0),
                length: Span::minutes(length),
                time_zone: zone.parse().unwrap(),
            };
            let instant = Timestamp::from_second(seconds).unwrap();
            let next = window.next_after(instant).expect("a window with days opens within nine days");
            prop_assert!(next.from > instant);
            prop_assert!(window.open_at(next.from).is_some());
            prop_assert_eq!(next.from.duration_until(next.until).as_secs(), i64::try_from(length * 60).unwrap());
            let just_before = next.from - jiff::SignedDuration::from_millis(1);
            if window.open_at(just_before).is_none() && window.open_at(instant).is_none() {
                // Nothing opens in between.
                let between = Timestamp::from_millisecond(i64::midpoint(instant.as_millisecond(), next.from.as_millisecond())).unwrap();
                prop_assert!(window.open_at(between).is_none() || between == next.from);
            }
        }
    }
}

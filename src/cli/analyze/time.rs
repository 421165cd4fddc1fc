//! Times as recordings write them, read into milliseconds and written back in the same form.
//!
//! Pure.

use serde::{Serialize, Serializer};

use super::problem::Wrong;
use crate::model::{Steady, WallTime};

/// Numbers from here on are milliseconds: as seconds they would lie in the year 33658.
const MILLISECONDS_FROM: f64 = 1e12;
/// No time lies this far from zero, in milliseconds: beyond are micro- and nanoseconds of today.
const FURTHEST: f64 = 1e15;

/// How a recording writes its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeForm {
    /// Seconds, as a number.
    Seconds,
    /// Milliseconds, as a number.
    Milliseconds,
    /// RFC 3339.
    Rfc3339,
}

impl TimeForm {
    /// Tells the form of a time and reads it.
    pub(super) fn detect(text: &str) -> Result<(Self, Steady), Wrong> {
        let form = match number(text) {
            Some(number) if number.abs() >= MILLISECONDS_FROM => Self::Milliseconds,
            Some(_) => Self::Seconds,
            None => Self::Rfc3339,
        };
        match form.read(text) {
            Ok(at) => Ok((form, at)),
            Err(Wrong::OtherTime { text, .. }) => Err(Wrong::NotATime(text)),
            Err(wrong) => Err(wrong),
        }
    }

    /// Reads a time of this form.
    pub(super) fn read(self, text: &str) -> Result<Steady, Wrong> {
        let other = |form| Wrong::OtherTime { text: text.to_owned(), form };
        let number = match self {
            Self::Rfc3339 => {
                return text
                    .parse::<jiff::Timestamp>()
                    .map(|at| Steady(at.as_millisecond()))
                    .map_err(|_not_a_time| other("RFC 3339"));
            }
            Self::Seconds => number(text).ok_or_else(|| other("unix seconds"))? * 1000.0,
            Self::Milliseconds => number(text).ok_or_else(|| other("milliseconds"))?,
        };
        of_milliseconds(number).ok_or_else(|| Wrong::FarTime(text.to_owned()))
    }

    /// The time in this form, for JSON.
    pub(super) fn stamp(self, at: Steady) -> Stamp {
        Stamp { form: self, at }
    }
}

/// Milliseconds as a float on the line of time; none where they lie too far away.
pub(super) fn of_milliseconds(number: f64) -> Option<Steady> {
    #[allow(clippy::cast_possible_truncation, reason = "checked to be within the range")]
    (number.abs() < FURTHEST).then(|| Steady(number.round() as i64))
}

fn number(text: &str) -> Option<f64> {
    let looks_like_one = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E'));
    if looks_like_one { text.parse().ok() } else { None }
}

/// A time that serialises in the form of its recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stamp {
    form: TimeForm,
    at: Steady,
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.form {
            TimeForm::Milliseconds => serializer.serialize_i64(self.at.0),
            TimeForm::Seconds if self.at.0 % 1000 == 0 => serializer.serialize_i64(self.at.0 / 1000),
            TimeForm::Seconds => serializer.serialize_f64(self.at.as_seconds()),
            TimeForm::Rfc3339 => match jiff::Timestamp::from_millisecond(self.at.0) {
                Ok(at) => serializer.collect_str(&at),
                Err(_out_of_range) => serializer.serialize_i64(self.at.0),
            },
        }
    }
}

impl Stamp {
    /// The time for people: a date where the recording's times are dates, else the time since its zero.
    pub(super) fn for_people(self) -> String {
        // Times of the first two years count from a zero of their own: a test, a compressed trace.
        let own_zero = self.form != TimeForm::Rfc3339 && self.at.0.abs() < 2 * 365 * 86_400_000;
        if own_zero { super::text::span(self.at.as_seconds()) } else { WallTime(self.at.0).to_rfc3339() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_apart_and_written_back_as_they_came() {
        for (text, form, milliseconds, json) in [
            ("0", TimeForm::Seconds, 0, "0"),
            ("2.45", TimeForm::Seconds, 2450, "2.45"),
            ("-5", TimeForm::Seconds, -5000, "-5"),
            ("1767225600", TimeForm::Seconds, 1_767_225_600_000, "1767225600"),
            ("106033536000", TimeForm::Seconds, 106_033_536_000_000, "106033536000"),
            ("1.7672256e9", TimeForm::Seconds, 1_767_225_600_000, "1767225600"),
            ("1767225600123", TimeForm::Milliseconds, 1_767_225_600_123, "1767225600123"),
            ("2026-01-01T00:00:00Z", TimeForm::Rfc3339, 1_767_225_600_000, "\"2026-01-01T00:00:00Z\""),
            ("2026-01-01T02:00:00.5+02:00", TimeForm::Rfc3339, 1_767_225_600_500, "\"2026-01-01T00:00:00.5Z\""),
        ] {
            let (found, at) = TimeForm::detect(text).expect(text);
            assert_eq!((found, at.0), (form, milliseconds), "{text}");
            assert_eq!(serde_json::to_string(&found.stamp(at)).expect("json"), json, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "abc", "nan", "inf", "2026-01-01", "2026-01-01T00:00:00", "12:00", "1e", "--1"] {
            assert_eq!(TimeForm::detect(text), Err(Wrong::NotATime(text.to_owned())), "{text}");
        }
        assert_eq!(TimeForm::detect("1767225600123456789"), Err(Wrong::FarTime("1767225600123456789".to_owned())));
        assert!(matches!(TimeForm::Seconds.read("2026-01-01T00:00:00Z"), Err(Wrong::OtherTime { .. })));
    }
}

//! Quantities with their unit in the type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number of bytes.
///
/// `Display` writes it as a person reads memory: `512 MiB`, `1.5 GiB`, `300 B`; three significant figures at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

impl Bytes {
    /// One mebibyte.
    pub const MIB: Self = Self(1 << 20);

    /// Returns the value in bytes as a float, for arithmetic and for Prometheus (exact up to 2⁵³).
    #[allow(clippy::cast_precision_loss, reason = "memory sizes stay far below 2^53")]
    pub fn as_f64(self) -> f64 {
        self.0 as f64
    }

    /// Converts a float of bytes, rounding to the nearest byte; negative and non-finite values become zero.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range first")]
    pub fn from_f64(bytes: f64) -> Self {
        Self(if bytes.is_finite() { bytes.round().clamp(0.0, 9.0e18) as u64 } else { 0 })
    }

    /// Subtracts, stopping at zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Adds, stopping at the largest value.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.as_f64();
        let mut unit = 0;
        while value >= 1023.5 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let decimals = match value {
            _ if unit == 0 => 0,
            v if v >= 99.95 => 0,
            v if v >= 9.995 => 1,
            _ => 2,
        };
        let text = format!("{value:.decimals$}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        write!(formatter, "{text} {}", UNITS[unit])
    }
}

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self(0), Self::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (300, "300 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (512 << 20, "512 MiB"),
            ((1 << 30) - 1, "1 GiB"),
            (157_085_696, "150 MiB"),
            (13_733_888, "13.1 MiB"),
            (3_250_586, "3.1 MiB"),
            (5 << 40, "5 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text, "{bytes}");
        }
    }

    #[test]
    fn floats_outside_the_range_are_clamped() {
        assert_eq!(Bytes::from_f64(-1.0), Bytes(0));
        assert_eq!(Bytes::from_f64(f64::NAN), Bytes(0));
        assert_eq!(Bytes::from_f64(f64::INFINITY), Bytes(0));
        assert_eq!(Bytes::from_f64(1.6), Bytes(2));
    }
}

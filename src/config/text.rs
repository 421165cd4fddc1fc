//! Durations and sizes as people write them, in one grammar for the whole file: that of [`Span`] and [`Size`].

use std::time::Duration;

use crate::model::Bytes;
use crate::policy::{Size, Span};

/// Reads `"15s"`, `"1h30m"`, `"500ms"`; `"0"` needs a unit too.
///
/// # Errors
/// A sentence that says what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(|span| span.0).map_err(|error| error.to_string())
}

/// Reads `"512MiB"`, `"1.5GiB"`, `"800 MB"`.
///
/// # Errors
/// A sentence that says what a size looks like.
pub fn parse_size(text: &str) -> Result<Bytes, String> {
    text.parse::<Size>().map(|size| size.0).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("15s", 15_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("2d 1h", 176_400_000),
            (" 5m ", 300_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "15", "s", "-5s", "1.5h", "15 s", "99999999999999999999s", "9999999999999d", "5x", "5m3"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("512MiB", 512 << 20), ("1.5GiB", 3 << 29), ("800 MB", 800_000_000), ("0B", 0)] {
            assert_eq!(parse_size(text), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "512", "MiB", "-1MiB", "1e3MiB", "5 apples", "1..2MiB", "99999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_them_panic(text in "\\PC{0,20}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}

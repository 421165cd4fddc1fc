//! Numbers as people read them.

/// Writes a number with commas between its thousands.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Writes a number of bytes with three digits and its unit: `13.1 MiB`.
#[allow(clippy::cast_precision_loss, reason = "memory sizes stay far below 2^53")]
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
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
    format!("{text} {}", UNITS[unit])
}

/// Rounds a float of bytes; what is negative or no number becomes zero.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range first")]
pub(crate) fn whole(bytes: f64) -> u64 {
    if bytes.is_finite() { bytes.round().clamp(0.0, 9.0e18) as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 12_412, 1_000_000].map(thousands), ["0", "999", "12,412", "1,000,000"]);
    }

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        let sizes = [0, 1023, 1536, (1 << 30) - 1, 157_085_696, 13_733_888, 5 << 40].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.5 KiB", "1 GiB", "150 MiB", "13.1 MiB", "5 TiB"]);
        assert_eq!([-1.0, f64::NAN, f64::INFINITY, 1.6].map(whole), [0, 0, 0, 2]);
    }
}

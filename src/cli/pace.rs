//! Paces of growth in words. Pure.

/// A pace in MiB an hour, with its interval: `3.1 MiB/h (2.9 to 3.4)`.
pub(super) fn pace(bytes_per_second: f64, low: f64, high: f64) -> String {
    let hourly = [bytes_per_second, low, high].map(|pace| pace * 3600.0 / 1_048_576.0);
    let largest = hourly.iter().fold(0.0, |largest: f64, pace| largest.max(pace.abs()));
    let decimals = match largest {
        largest if largest >= 99.5 => 0,
        largest if largest >= 9.95 => 1,
        largest if largest >= 0.095 => 2,
        _ => 3,
    };
    let [middle, low, high] = hourly.map(|pace| {
        let text = format!("{pace:.decimals$}");
        // No minus before a zero.
        if text.contains(|c: char| matches!(c, '1'..='9')) { text } else { text.trim_start_matches('-').to_owned() }
    });
    format!("{middle} MiB/h ({low} to {high})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_one_unit_and_as_many_decimals_as_it_needs() {
        for (figures, text) in [
            ([902.0, 850.0, 980.0], "3.10 MiB/h (2.92 to 3.36)"),
            ([-0.1, -60.0, 55.0], "0.00 MiB/h (-0.21 to 0.19)"),
            ([0.0, -5.0, 5.0], "0.000 MiB/h (-0.017 to 0.017)"),
            ([5e4, 4e4, 6e4], "172 MiB/h (137 to 206)"),
        ] {
            assert_eq!(pace(figures[0], figures[1], figures[2]), text);
        }
    }
}

//! The two streams, and text that is safe on a terminal.

use std::io::Write as _;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// The width where nothing else is known, as in a pipe, and the widest that sentences run.
const COLUMNS: usize = 80;
const WIDEST: usize = 160;

/// The width of the terminal, or of `COLUMNS` where there is none.
pub(super) fn columns() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
    told.or_else(terminal).filter(|columns| *columns > 0).unwrap_or(COLUMNS).clamp(40, WIDEST)
}

/// Prints to standard output. A reader that has gone away is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints a line to standard error; there is nobody to tell if that fails.
pub(super) fn complain(line: &str) {
    writeln!(std::io::stderr().lock(), "{line}").ok();
}

/// Text without control characters and without marks that turn the direction of writing, so that a name cannot
/// rewrite the terminal.
pub(super) fn clean(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect()
}

/// Text in exactly `columns` columns, cut with an ellipsis or padded at the end.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let text = clean(text);
    if text.width() <= columns {
        return format!("{text}{}", " ".repeat(columns - text.width()));
    }
    let mut cut = String::new();
    let mut used = 0;
    for c in text.chars() {
        let width = c.width().unwrap_or(0);
        if used + width + 1 > columns {
            break;
        }
        cut.push(c);
        used += width;
    }
    cut.push('…');
    format!("{cut}{}", " ".repeat(columns.saturating_sub(used + 1)))
}

/// Text in `columns` columns, flush right.
pub(super) fn fit_right(text: &str, columns: usize) -> String {
    let fitted = fit(text, columns);
    let trimmed = fitted.trim_end();
    format!("{}{trimmed}", " ".repeat(columns - trimmed.width()))
}

/// A span as people say it, in at most two units: `3d 4h`, `12m`, `40s`.
pub(super) fn span(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".to_owned();
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be finite and positive")]
    let whole = seconds.min(1e12) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, 0) => format!("{hours}h"),
        (0, ..) => format!("{hours}h {minutes}m"),
        (_, 0, _) => format!("{days}d"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Breaks text into lines of at most `columns` columns, each after `indent` spaces.
pub(super) fn wrap(text: &str, columns: usize, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in clean(text).split_whitespace() {
        if !line.is_empty() && indent + line.width() + 1 + word.width() > columns {
            lines.push(format!("{pad}{line}"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(format!("{pad}{line}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fits_its_columns_whatever_its_width() {
        assert_eq!(fit("api", 5), "api  ");
        assert_eq!(fit("a-long-name", 6), "a-lon…");
        assert_eq!(fit("日本語名", 5), "日本…");
        assert_eq!(fit("x\u{1b}[2J", 8), "x\u{fffd}[2J   ");
        assert_eq!(fit_right("7", 3), "  7");
    }

    #[test]
    fn spans() {
        for (seconds, text) in
            [(0.4, "0s"), (40.0, "40s"), (720.0, "12m"), (3600.0, "1h"), (5400.0, "1h 30m"), (273_600.0, "3d 4h")]
        {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(span(f64::INFINITY), "–");
    }

    #[test]
    fn long_text_is_wrapped() {
        assert_eq!(wrap("one two three four", 10, 2), "  one two\n  three\n  four");
    }
}

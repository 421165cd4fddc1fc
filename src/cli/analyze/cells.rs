//! One line of a recording taken apart into cells, and the cells' figures.
//!
//! Pure.

use std::ops::Range;

use super::problem::Wrong;

/// The separator of a file by its first line: a tab or a semicolon where there is one (a comma is then a decimal
/// sign), else a comma, else blanks.
pub(super) fn separator_of(line: &[u8]) -> u8 {
    [b'\t', b';', b','].into_iter().find(|separator| line.contains(separator)).unwrap_or(b' ')
}

/// Splits a line into cells without the blanks and the quotes around them.
pub(super) fn split(line: &[u8], separator: u8, cells: &mut Vec<Range<usize>>) -> Result<(), Wrong> {
    cells.clear();
    let mut at = 0;
    loop {
        while at < line.len() && line[at] != separator && line[at].is_ascii_whitespace()
            || separator == b' ' && at < line.len() && line[at].is_ascii_whitespace()
        {
            at += 1;
        }
        let ends = |byte: u8| if separator == b' ' { byte.is_ascii_whitespace() } else { byte == separator };
        let (from, to);
        if line.get(at) == Some(&b'"') {
            from = at + 1;
            let length = line[from..].iter().position(|byte| *byte == b'"').ok_or(Wrong::Quote)?;
            to = from + length;
            at = to + 1;
            while at < line.len() && !ends(line[at]) {
                if !line[at].is_ascii_whitespace() {
                    return Err(Wrong::Quote);
                }
                at += 1;
            }
        } else {
            from = at;
            at += line[at..].iter().position(|byte| ends(*byte)).unwrap_or(line.len() - at);
            let mut end = at;
            while end > from && line[end - 1].is_ascii_whitespace() {
                end -= 1;
            }
            to = end;
        }
        cells.push(from..to);
        if at >= line.len() {
            break;
        }
        at += 1;
        // Blanks at the end of a line separate nothing.
        if separator == b' ' && line[at..].iter().all(u8::is_ascii_whitespace) {
            break;
        }
    }
    Ok(())
}

/// A plain run of digits as a number.
pub(super) fn digits(bytes: &[u8]) -> Option<f64> {
    if bytes.is_empty() || bytes.len() > 15 {
        return None;
    }
    let mut number = 0_u64;
    for byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u64::from(digit);
    }
    #[allow(clippy::cast_precision_loss, reason = "fifteen digits stay below 2^53")]
    Some(number as f64)
}

/// The start of a cell, for a message.
pub(super) fn shortened(text: &str) -> String {
    if text.chars().count() <= 40 { text.to_owned() } else { text.chars().take(39).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_at_their_separator() {
        for (line, separator, expected) in [
            ("a,b", b',', &["a", "b"][..]),
            (" a , \"b c\" ,", b',', &["a", "b c", ""]),
            ("a;1,5", b';', &["a", "1,5"]),
            ("a\t\tb", b'\t', &["a", "", "b"]),
            ("  a   b  ", b' ', &["a", "b"]),
            ("one", b' ', &["one"]),
        ] {
            let mut cells = Vec::new();
            assert_eq!(separator_of(line.as_bytes()), separator, "{line}");
            split(line.as_bytes(), separator, &mut cells).expect(line);
            assert_eq!(cells.iter().map(|cell| &line[cell.clone()]).collect::<Vec<_>>(), expected, "{line}");
        }
    }

    #[test]
    fn only_plain_digits_are_read_the_short_way() {
        assert_eq!(digits(b"00120"), Some(120.0));
        for text in ["", "1.5", "-1", "1234567890123456"] {
            assert_eq!(digits(text.as_bytes()), None, "{text}");
        }
    }
}

//! Which names may be quoted: those that look like code, not those that look like somebody's data.
//!
//! Objects are used as tables, so a property's name can be an address or a token. Unless strings were asked for, only
//! names that a programmer would write are told.

use std::borrow::Cow;

/// What stands for a name that is not told.
pub const WITHHELD: &str = "[…]";

/// The longest name that counts as code, in bytes.
const LONGEST: usize = 48;
/// The most digits in a row that a name in code has.
const DIGITS: usize = 3;

/// Returns the name, or what stands for it.
pub fn quotable(name: Cow<'_, str>, shows_strings: bool) -> Cow<'_, str> {
    if shows_strings || looks_like_code(&name) { name } else { Cow::Borrowed(WITHHELD) }
}

fn looks_like_code(name: &str) -> bool {
    let inner = name.strip_prefix("<symbol ").and_then(|rest| rest.strip_suffix('>')).unwrap_or(name);
    let mut digits = 0;
    inner.len() <= LONGEST
        && inner.starts_with(|letter: char| letter.is_alphabetic() || matches!(letter, '_' | '$' | '#'))
        && inner.chars().all(|letter| {
            digits = if letter.is_ascii_digit() { digits + 1 } else { 0 };
            digits <= DIGITS && (letter.is_alphanumeric() || matches!(letter, '_' | '$' | '#' | '-' | ':' | '.' | '/'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_and_data_is_not() {
        for name in ["sessions", "_events", "$store", "content-type", "utf8", "<symbol kEvents>", "node:fs", "größe"]
        {
            assert_eq!(quotable(name.into(), false), name);
        }
        for name in ["user7@example.org", "4111 1111 1111 1111", "token-20391", "a name", "", "7", "<div>"] {
            assert_eq!(quotable(name.into(), false), WITHHELD);
            assert_eq!(quotable(name.into(), true), name);
        }
    }
}

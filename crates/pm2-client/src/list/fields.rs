//! Reading single fields out of JSON that nobody vouches for.
//!
//! An object is read by an allow-list of names: what is not named is skipped without being decoded, so a secret in it
//! is never even a value in memory. Each named field is then read alone, and a field of the wrong kind is absent. No
//! function here returns an error, because the errors of a JSON reader quote the values they stumble over. What is written
//! plainly, without escapes, is borrowed from the text.

use std::borrow::Cow;

use super::scan::{Json, Names, Scan};

use model::plain;

/// Returns the values of `names` in the object `json`; all are absent where it is no object.
pub(super) fn fields<'t, const N: usize>(json: Json<'t>, names: &Names<N>) -> [Option<Json<'t>>; N] {
    Scan::new(json.0).fields(names).unwrap_or([None; N])
}

/// Reads a string, or a number as it is written, freed of control characters and cut to `limit` characters; none where
/// nothing is left.
pub(super) fn label(json: Json<'_>, limit: usize) -> Option<Cow<'_, str>> {
    let written =
        if json.0.starts_with(|first: char| first.is_ascii_digit()) { Cow::Borrowed(json.0) } else { json.string()? };
    match written {
        Cow::Borrowed(text) => clean(text, limit),
        Cow::Owned(text) => clean(&text, limit).map(|text| Cow::Owned(text.into_owned())),
    }
}

/// Frees text of control characters and outer blanks and cuts it to `limit` characters; none where nothing is left.
pub(super) fn clean(text: &str, limit: usize) -> Option<Cow<'_, str>> {
    if text.len() <= limit && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        let text = text.trim_ascii();
        return (!text.is_empty()).then_some(Cow::Borrowed(text));
    }
    let kept = plain(text, limit);
    (!kept.is_empty()).then_some(Cow::Owned(kept))
}

/// Reads a word that holds nothing but letters, digits and `.+-_`: versions and revisions. Anything else is absent.
pub(super) fn word(json: Json<'_>, limit: usize) -> Option<Cow<'_, str>> {
    let text = json.string()?;
    let fits = !text.is_empty()
        && text.len() <= limit
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-_".contains(&byte));
    fits.then_some(text)
}

/// Reads a whole number that is not negative, as a JSON number or as a string of one (an app's environment turns numbers
/// into strings).
pub(super) fn whole(json: Json<'_>) -> Option<u64> {
    let text = if json.0.starts_with('"') { json.string()? } else { Cow::Borrowed(json.0) };
    let text = text.trim();
    if let Ok(exact) = text.parse() {
        return Some(exact);
    }
    let number: f64 = text.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be whole and in range")]
    (number.fract() == 0.0 && (0.0..=9.0e15).contains(&number)).then_some(number as u64)
}

/// Reads a finite JSON number.
pub(super) fn number(json: Json<'_>) -> Option<f64> {
    let is_number = json.0.starts_with(|first: char| first.is_ascii_digit() || first == '-');
    let number: f64 = if is_number { json.0.parse().ok()? } else { return None };
    number.is_finite().then_some(number)
}

/// Reads `true` or `false`, also as a string.
pub(super) fn flag(json: Json<'_>) -> Option<bool> {
    match json.0 {
        "true" | "\"true\"" => Some(true),
        "false" | "\"false\"" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers() {
        for (json, expected) in [
            ("0", Some(0)),
            ("314572800", Some(314_572_800)),
            ("18446744073709551615", Some(u64::MAX)),
            ("\"12\"", Some(12)),
            ("\" 12 \"", Some(12)),
            ("1e3", Some(1000)),
            ("3.0", Some(3)),
            ("-1", None),
            ("1.5", None),
            ("\"5K\"", None),
            ("\"NaN\"", None),
            ("1e300", None),
            ("null", None),
            ("{}", None),
            ("true", None),
        ] {
            assert_eq!(whole(Json(json)), expected, "{json}");
        }
    }

    #[test]
    fn labels_are_cleaned_and_bounded() {
        for (json, expected) in [
            (r#""api""#, Some("api")),
            (r#""  a\u0000b\u001b[31m\n""#, Some("ab[31m")),
            (r#""\ud800x""#, Some("\u{fffd}\u{fffd}\u{fffd}x")),
            ("12", Some("12")),
            (r#""0123456789abcdef""#, Some("0123456789")),
            (r#""""#, None),
            (r#""\n\t""#, None),
            ("null", None),
            ("[]", None),
        ] {
            assert_eq!(label(Json(json), 10).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn words_have_no_room_for_sentences() {
        for (json, expected) in [
            (r#""1.2.3-rc.1+5""#, Some("1.2.3-rc.1+5")),
            (r#""N/A""#, None),
            (r#""a b""#, None),
            (r#""""#, None),
            (r#""01234567890123456789x""#, None),
            ("1", None),
        ] {
            assert_eq!(word(Json(json), 20).as_deref(), expected, "{json}");
        }
    }
}

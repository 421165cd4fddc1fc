//! Reading single fields out of JSON that nobody vouches for.
//!
//! An object is read by an allow-list of names: what is not named is skipped without being decoded, so a secret in it
//! is never even a value in memory. Each named field is then read alone, and a field of the wrong kind is absent. No
//! function here returns an error, because the errors of a JSON reader quote the values they stumble over.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Returns the raw values of `names` in the object `raw`, in the order of `names`; all absent where it is no object. Of a
/// name that stands twice, the last value counts.
pub(super) fn fields<'a, const N: usize>(raw: &'a RawValue, names: &[&str; N]) -> [Option<&'a RawValue>; N] {
    let mut found = [None; N];
    each_field(
        raw,
        |key| names.iter().position(|name| name.as_bytes() == key),
        |index, value| {
            if let Some(slot) = found.get_mut(index) {
                *slot = Some(value);
            }
        },
    );
    found
}

/// Calls `take` with every field of the object `raw` whose name `select` maps to something.
pub(super) fn each_field<'a, K>(
    raw: &'a RawValue,
    select: impl Fn(&[u8]) -> Option<K>,
    take: impl FnMut(K, &'a RawValue),
) {
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    // An error can only mean "not an object": the text has already been read once as a whole value.
    let _not_an_object = deserializer.deserialize_map(FieldVisitor { select, take });
}

struct FieldVisitor<S, T> {
    select: S,
    take: T,
}

impl<'a, K, S: Fn(&[u8]) -> Option<K>, T: FnMut(K, &'a RawValue)> Visitor<'a> for FieldVisitor<S, T> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(mut self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key_seed(KeySeed(&self.select))? {
            match key {
                Some(key) => (self.take)(key, map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Reads a key as bytes, because a key with half a surrogate pair is no string and must not spoil its neighbours.
struct KeySeed<'s, S>(&'s S);

impl<'de, K, S: Fn(&[u8]) -> Option<K>> DeserializeSeed<'de> for KeySeed<'_, S> {
    type Value = Option<K>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<K, S: Fn(&[u8]) -> Option<K>> Visitor<'_> for KeySeed<'_, S> {
    type Value = Option<K>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_bytes<E: Error>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok((self.0)(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        self.visit_bytes(key.as_bytes())
    }
}

/// Reads a JSON string; half surrogate pairs become replacement characters.
pub(super) fn string(raw: &RawValue) -> Option<String> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a string")
        }

        fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(text).into_owned())
        }
    }

    if !raw.get().starts_with('"') {
        return None;
    }
    serde_json::Deserializer::from_str(raw.get()).deserialize_bytes(Text).ok()
}

/// Reads a string, or a number as it is written, freed of control characters and cut to `limit` characters; none where
/// nothing is left.
pub(super) fn label(raw: &RawValue, limit: usize) -> Option<String> {
    let json = raw.get();
    let written = if json.starts_with(|first: char| first.is_ascii_digit()) { json.to_owned() } else { string(raw)? };
    clean(&written, limit)
}

/// Frees text of control characters and outer blanks and cuts it to `limit` characters; none where nothing is left.
pub(super) fn clean(text: &str, limit: usize) -> Option<String> {
    let kept: String = text.trim().chars().filter(|character| !character.is_control()).take(limit).collect();
    let kept = kept.trim_end();
    (!kept.is_empty()).then(|| kept.to_owned())
}

/// Reads a word that holds nothing but letters, digits and `.+-_`: versions and revisions. Anything else is absent.
pub(super) fn word(raw: &RawValue, limit: usize) -> Option<String> {
    let text = string(raw)?;
    let fits = !text.is_empty()
        && text.len() <= limit
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-_".contains(&byte));
    fits.then_some(text)
}

/// Reads a whole number that is not negative, as a JSON number or as a string of one (an app's environment turns numbers
/// into strings).
pub(super) fn whole(raw: &RawValue) -> Option<u64> {
    let owned;
    let text = if raw.get().starts_with('"') {
        owned = string(raw)?;
        owned.trim()
    } else {
        raw.get()
    };
    if let Ok(exact) = text.parse() {
        return Some(exact);
    }
    let number: f64 = text.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be whole and in range")]
    (number.fract() == 0.0 && (0.0..=9.0e15).contains(&number)).then_some(number as u64)
}

/// Reads a finite JSON number.
pub(super) fn number(raw: &RawValue) -> Option<f64> {
    serde_json::from_str(raw.get()).ok().filter(|number: &f64| number.is_finite())
}

/// Reads `true` or `false`, also as a string.
pub(super) fn flag(raw: &RawValue) -> Option<bool> {
    match raw.get() {
        "true" | "\"true\"" => Some(true),
        "false" | "\"false\"" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn only_named_fields_are_read() {
        let object = raw(r#"{"a":1,"secret":"x","b":{"a":2},"\ud800":3,"a":4}"#);
        let [a, b, c] = fields(&object, &["a", "b", "c"]);
        assert_eq!(a.map(RawValue::get), Some("4"));
        assert_eq!(b.map(RawValue::get), Some(r#"{"a":2}"#));
        assert!(c.is_none());
        for other in ["[1]", "1", "null", "\"a\"", "true"] {
            assert!(fields(&raw(other), &["a"])[0].is_none(), "{other}");
        }
    }

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
            assert_eq!(whole(&raw(json)), expected, "{json}");
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
            assert_eq!(label(&raw(json), 10).as_deref(), expected, "{json}");
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
            assert_eq!(word(&raw(json), 20).as_deref(), expected, "{json}");
        }
    }
}

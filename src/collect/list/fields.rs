//! Reading single fields out of JSON that nobody vouches for.
//!
//! An object is read by an allow-list of names: what is not named is skipped without being decoded, so a secret in it
//! is never even a value in memory. Each named field is then read alone, and a field of the wrong kind is absent. No
//! function here returns an error, because the errors of a JSON reader quote the values they stumble over.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Something that is read out of a JSON object or array, and that is absent where there is a value of another kind.
///
/// Values of another kind are skipped, so reading fails only where the text is no JSON at all.
pub(super) trait Shape<'de>: Sized {
    /// What is read; the default stands for "it was of another kind".
    type Value: Default;

    /// Reads it out of an object.
    fn of_object<M: MapAccess<'de>>(self, mut object: M) -> Result<Self::Value, M::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::Value::default())
    }

    /// Reads it out of an array.
    fn of_array<S: SeqAccess<'de>>(self, mut array: S) -> Result<Self::Value, S::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::Value::default())
    }
}

/// Lends a [`Shape`] the traits by which serde reads.
pub(super) struct Lenient<T>(pub(super) T);

impl<'de, T: Shape<'de>> DeserializeSeed<'de> for Lenient<T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Shape<'de>> Visitor<'de> for Lenient<T> {
    type Value = T::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_map<M: MapAccess<'de>>(self, object: M) -> Result<T::Value, M::Error> {
        self.0.of_object(object)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, array: S) -> Result<T::Value, S::Error> {
        self.0.of_array(array)
    }

    fn visit_bool<E>(self, _: bool) -> Result<T::Value, E> {
        Ok(T::Value::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<T::Value, E> {
        Ok(T::Value::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<T::Value, E> {
        Ok(T::Value::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T::Value, E> {
        Ok(T::Value::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<T::Value, E> {
        Ok(T::Value::default())
    }

    fn visit_unit<E>(self) -> Result<T::Value, E> {
        Ok(T::Value::default())
    }
}

/// The raw values of the named fields of an object, in the order of the names. Of a name that stands twice, the last value
/// counts.
pub(super) struct Fields<'n, const N: usize>(pub(super) &'n [&'static str; N]);

/// What [`Fields`] finds; all absent where there is no object.
pub(super) struct Found<'de, const N: usize>(pub(super) [Option<&'de RawValue>; N]);

impl<const N: usize> Default for Found<'_, N> {
    fn default() -> Self {
        Self([None; N])
    }
}

impl<'de, const N: usize> Shape<'de> for Fields<'_, N> {
    type Value = Found<'de, N>;

    fn of_object<M: MapAccess<'de>>(self, mut object: M) -> Result<Self::Value, M::Error> {
        let mut found = Found::default();
        while let Some(index) = object.next_key_seed(KeyAmong(self.0))? {
            match index.and_then(|index| found.0.get_mut(index)) {
                Some(slot) => *slot = Some(object.next_value()?),
                None => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Finds a key's place among names. Keys are read as bytes, because one with half a surrogate pair is no string and
/// must not spoil its neighbours.
pub(super) struct KeyAmong<'n, const N: usize>(pub(super) &'n [&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for KeyAmong<'_, N> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<const N: usize> Visitor<'_> for KeyAmong<'_, N> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_bytes<E: Error>(self, key: &[u8]) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|name| name.as_bytes() == key))
    }
}

/// Text, of a key or of a value; half surrogate pairs become replacement characters.
pub(super) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<String, E> {
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

/// Reads a whole text as one value.
pub(super) fn read<'de, T: Shape<'de>>(text: &'de str, shape: T) -> Result<T::Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Lenient(shape).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Returns the raw values of `names` in the object `raw`.
pub(super) fn fields<'a, const N: usize>(raw: &'a RawValue, names: &[&'static str; N]) -> [Option<&'a RawValue>; N] {
    // A raw value is JSON, or there would be none; a string with half a surrogate pair is still no object.
    read(raw.get(), Fields(names)).unwrap_or_default().0
}

/// Reads a JSON string.
pub(super) fn string(raw: &RawValue) -> Option<String> {
    raw.get().starts_with('"').then(|| Text.deserialize(&mut serde_json::Deserializer::from_str(raw.get())).ok())?
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

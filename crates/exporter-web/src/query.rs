//! The part of a target behind the question mark, and percent-decoding. Pure.

/// Most parameters of a query.
const PAIRS_MAX: usize = 64;

/// Decoded parameters of a query in the order they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// A target that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    /// A percent sign without two hexadecimal digits, or bytes that are no UTF-8.
    #[error("the request target is not valid percent-encoded UTF-8")]
    Encoding,
    /// More parameters than anyone needs.
    #[error("the query has more than {PAIRS_MAX} parameters")]
    TooMany,
}

impl Query {
    /// Parses `a=1&b=2`; a plus sign is a space, a name without a value has an empty one.
    pub(crate) fn parse(text: &str) -> Result<Self, TargetError> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() >= PAIRS_MAX {
                return Err(TargetError::TooMany);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name, true)?, decode(value, true)?));
        }
        Ok(Self { pairs })
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    /// Every parameter in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Decodes percent escapes, and plus signs where they stand for spaces.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Result<String, TargetError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'%' => {
                let (digits, tail) = rest.split_first_chunk::<2>().ok_or(TargetError::Encoding)?;
                let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(TargetError::Encoding);
                let value = digit(digits[0])? * 16 + digit(digits[1])?;
                bytes.push(u8::try_from(value).expect("invariant: two hexadecimal digits fit a byte"));
                rest = tail;
            }
            b'+' if plus_is_space => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_not_text| TargetError::Encoding)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn queries_are_decoded() {
        let cases: [(&str, &[(&str, &str)]); 7] = [
            ("", &[]),
            ("a=1&b=2", &[("a", "1"), ("b", "2")]),
            ("a", &[("a", "")]),
            ("&&a==&", &[("a", "=")]),
            ("app=my+app%2B%20x", &[("app", "my app+ x")]),
            ("%C3%BC=%e2%82%ac", &[("ü", "€")]),
            ("a=1&a=2", &[("a", "1"), ("a", "2")]),
        ];
        for (text, expected) in cases {
            assert_eq!(Query::parse(text).unwrap().iter().collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn broken_queries_are_refused() {
        for text in ["a=%", "a=%2", "a=%zz", "a=%ff", "%c3=1", "a=%+1"] {
            assert_eq!(Query::parse(text), Err(TargetError::Encoding), "{text}");
        }
        assert_eq!(Query::parse(&"a&".repeat(65)), Err(TargetError::TooMany));
        assert!(Query::parse(&"a&".repeat(64)).is_ok());
    }

    #[test]
    fn a_plus_in_a_path_is_a_plus() {
        assert_eq!(decode("a+b", false).unwrap(), "a+b");
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(text in any::<String>()) {
            let encoded: Vec<String> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let encoded = encoded.concat();
            prop_assert_eq!(decode(&encoded, true).unwrap(), text);
        }

        #[test]
        fn nothing_panics(text in any::<String>()) {
            let _ = Query::parse(&text);
        }
    }
}

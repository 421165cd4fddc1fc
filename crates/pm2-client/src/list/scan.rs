//! Walking through JSON text: finding where values begin and end, without decoding them.
//!
//! Nearly all of a process list is environments that nobody here reads, so most of the time of a collection goes by in this
//! file. It allocates nothing but the depth of nested values and keeps no error: who needs the place of one asks serde's
//! reader, which also says it in the same way for every text. JSON is held to the letter but for one thing: control characters
//! within strings, which are to be written as escapes, are let pass, for to look for them would take longer than all the rest.

use std::borrow::Cow;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// A JSON value as it stands in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Json<'t>(pub(super) &'t str);

impl<'t> Json<'t> {
    /// The text of a string; half surrogate pairs become replacement characters. None where it is no string.
    pub(super) fn string(self) -> Option<Cow<'t, str>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if inner.contains('\\') { decoded(self.0).map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
    }

    /// The elements of an array; none where it is no array.
    pub(super) fn elements(self) -> Option<impl Iterator<Item = Json<'t>>> {
        let mut scan = Scan::new(self.0);
        scan.take(b'[')?;
        let mut first = true;
        Some(std::iter::from_fn(move || {
            if !std::mem::take(&mut first) {
                scan.take(b',')?;
            }
            // Before the end of an empty array there is no value.
            scan.value()
        }))
    }
}

/// Decodes a string that holds escapes. As bytes, for half a surrogate pair is no string to serde.
fn decoded(quoted: &str) -> Option<String> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a string")
        }

        fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(text).into_owned())
        }
    }

    serde_json::Deserializer::from_str(quoted).deserialize_bytes(Text).ok()
}

/// A place in a text that is read forwards. Every step returns none where the text ends too early or is no JSON; then the place
/// is of no more use but for [`Scan::is_at_end`].
#[derive(Debug)]
pub(super) struct Scan<'t> {
    text: &'t str,
    at: usize,
    /// The ends of the values around the one that is being skipped.
    around: Vec<u8>,
}

impl<'t> Scan<'t> {
    /// Begins at the start of a text.
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0, around: Vec::new() }
    }

    /// The place: so many bytes have been read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Whether nothing is left, so that more text might make JSON of it.
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// The next byte that is no blank, which stays to be read.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Reads this byte, after blanks.
    #[inline]
    pub(super) fn take(&mut self, expected: u8) -> Option<()> {
        (self.peek()? == expected).then(|| self.at += 1)
    }

    /// Reads one value of whatever kind.
    pub(super) fn value(&mut self) -> Option<Json<'t>> {
        self.peek()?;
        let start = self.at;
        self.skip()?;
        Some(Json(self.text.get(start..self.at)?))
    }

    /// Reads an object and hands each name to `each`, which is to read its value. A value of another kind is skipped.
    pub(super) fn object(&mut self, mut each: impl FnMut(&str, &mut Self) -> Option<()>) -> Option<()> {
        if self.peek()? != b'{' {
            return self.skip();
        }
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let name = self.name()?;
            each(&name, self)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Reads the values of these names out of an object, in the order of the names; all are absent where there is a value of
    /// another kind. Of a name that stands twice, the last value counts.
    pub(super) fn fields<const N: usize>(&mut self, names: &Names<N>) -> Option<[Option<Json<'t>>; N]> {
        let mut found = [None; N];
        self.object(|name, scan| {
            match names.place(name).and_then(|place| found.get_mut(place)) {
                Some(slot) => *slot = Some(scan.value()?),
                None => scan.skip()?,
            }
            Some(())
        })?;
        Some(found)
    }

    /// Reads past one value of whatever kind.
    pub(super) fn skip(&mut self) -> Option<()> {
        let outside = self.around.len();
        loop {
            match self.peek()? {
                open @ (b'{' | b'[') => {
                    self.at += 1;
                    let close = if open == b'{' { b'}' } else { b']' };
                    if self.peek()? != close {
                        self.around.push(close);
                        self.skip_name(close)?;
                        continue;
                    }
                    self.at += 1;
                }
                b'"' => drop(self.quoted()?),
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => self.number()?,
            }
            // Behind a value: the end of what is around it, or its neighbour.
            loop {
                let close = match self.around.last() {
                    Some(close) if self.around.len() > outside => *close,
                    _ => return Some(()),
                };
                let next = self.peek()?;
                self.at += 1;
                if next == b',' {
                    self.skip_name(close)?;
                    break;
                }
                if next != close {
                    self.at -= 1;
                    return None;
                }
                self.around.pop();
            }
        }
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Reads a name of an object and the colon behind it.
    fn name(&mut self) -> Option<Cow<'t, str>> {
        self.peek()?;
        let start = self.at;
        let escaped = self.quoted()?;
        let (end, text) = (self.at, self.text);
        self.take(b':')?;
        if escaped {
            decoded(text.get(start..end)?).map(Cow::Owned)
        } else {
            text.get(start + 1..end - 1).map(Cow::Borrowed)
        }
    }

    fn skip_name(&mut self, close: u8) -> Option<()> {
        if close == b'}' {
            self.peek()?;
            self.quoted()?;
            self.take(b':')?;
        }
        Some(())
    }

    /// Reads a string, quotes and all; whether it holds escapes.
    fn quoted(&mut self) -> Option<bool> {
        if self.byte()? != b'"' {
            return None;
        }
        self.at += 1;
        let mut escaped = false;
        loop {
            let rest = self.text.as_bytes().get(self.at..)?;
            let length = plain(rest);
            self.at += length;
            if *rest.get(length)? == b'"' {
                self.at += 1;
                return Some(escaped);
            }
            self.escape()?;
            escaped = true;
        }
    }

    fn escape(&mut self) -> Option<()> {
        self.at += 1;
        let kind = self.byte()?;
        if !matches!(kind, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u') {
            return None;
        }
        self.at += 1;
        for _ in 0..if kind == b'u' { 4 } else { 0 } {
            if !self.byte()?.is_ascii_hexdigit() {
                return None;
            }
            self.at += 1;
        }
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        for expected in word.bytes() {
            if self.byte()? != expected {
                return None;
            }
            self.at += 1;
        }
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.byte()? == b'-' {
            self.at += 1;
        }
        match self.byte()? {
            b'0' => {
                self.at += 1;
                if self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
                    return None;
                }
            }
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte()?, b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// Reads digits, at least one.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// Names that are looked for in an object.
#[derive(Debug)]
pub(super) struct Names<const N: usize> {
    names: [&'static str; N],
    /// By how many letters they have, which are: bit n stands for the name at place n. Hardly any other name gets further.
    of_length: [u32; LENGTHS],
}

/// Names that are looked for are shorter than this.
const LENGTHS: usize = 32;

impl<const N: usize> Names<N> {
    /// Takes at most 32 names of one to 31 letters.
    pub(super) const fn new(names: [&'static str; N]) -> Self {
        let (mut of_length, mut place) = ([0; LENGTHS], 0);
        while place < N {
            assert!(!names[place].is_empty());
            of_length[names[place].len()] |= 1 << place;
            place += 1;
        }
        Self { names, of_length }
    }

    /// The place of a name among them.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        let mut places = self.of_length.get(name.len()).copied()?;
        while places != 0 {
            let place = places.trailing_zeros() as usize;
            let known = self.names.get(place)?;
            // Their first letters tell most names apart, at no call.
            if known.as_bytes().first() == name.as_bytes().first() && *known == name {
                return Some(place);
            }
            places &= places - 1;
        }
        None
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn all(&self) -> &[&'static str; N] {
        &self.names
    }
}

/// How many bytes come before the first that means something in a string: a quote or a backslash.
#[inline]
fn plain(bytes: &[u8]) -> usize {
    // Most strings are shorter than what a search by wide registers takes to begin.
    let Some((word, rest)) = bytes.split_first_chunk() else { return search(bytes) };
    let found = marks(*word);
    if found != 0 {
        return found.trailing_zeros() as usize / 8;
    }
    let Some((word, rest)) = rest.split_first_chunk() else { return 8 + search(rest) };
    let found = marks(*word);
    if found != 0 {
        return 8 + found.trailing_zeros() as usize / 8;
    }
    16 + search(rest)
}

fn search(bytes: &[u8]) -> usize {
    memchr::memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len())
}

/// The high bits of the bytes of a word that are a quote or a backslash; above the lowest of them others may be set, too.
#[inline]
fn marks(word: [u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let word = u64::from_le_bytes(word);
    // The lowest zero byte of a word has its high bit set in the result, and no lower one has.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    zero(word ^ (u64::from(b'"') * ONES)) | zero(word ^ (u64::from(b'\\') * ONES))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize as _;
    use serde::de::IgnoredAny;

    use super::super::place_of;
    use super::*;

    /// The length of the value at the start, by serde's reader.
    fn by_serde(text: &str) -> Result<usize, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        IgnoredAny::deserialize(&mut deserializer)?;
        Ok(deserializer.into_iter::<IgnoredAny>().byte_offset())
    }

    #[test]
    fn values_end_where_serde_says() {
        for text in [
            "0",
            "-0",
            "01",
            "1.",
            "1.5e",
            "1e+",
            "1E-7,",
            "-",
            ".5",
            "true",
            "tru",
            "truth",
            "nul",
            "\"a\"",
            "\"a",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\u00g0\"",
            "\"\u{7f}ä\u{2028}\"",
            "[",
            "[]",
            "[,]",
            "[1,]",
            "[1 2]",
            "{}",
            "{1:2}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":[{}]}",
            " [ 1 , { \"a\" : null } ] x",
            "]",
            "{\"a\":1]",
            "[1}",
            "",
            " ",
            "\"0123456789abcdef\\\"0123456789\" ",
        ] {
            let mut scan = Scan::new(text);
            let read = scan.skip().map(|()| scan.at());
            match by_serde(text) {
                Ok(length) => assert_eq!(read, Some(length), "{text}"),
                Err(error) => {
                    assert_eq!(read, None, "{text}");
                    let at_end = error.is_eof() || place_of(&error, text) >= text.len();
                    assert!(at_end || !scan.is_at_end(), "{text}: more of it would not help");
                }
            }
        }
    }

    #[test]
    fn control_characters_in_strings_are_let_pass() {
        assert_eq!(Scan::new("\"a\tb\", 1").value(), Some(Json("\"a\tb\"")));
    }

    #[test]
    fn names_with_escapes_are_names_and_the_last_value_counts() {
        const NAMES: Names<3> = Names::new(["a", "b", "c"]);
        let mut scan = Scan::new(r#"{"a":1,"secret":"x","b":{"a":2},"\u0062":[3],"\ud800":3,"a":4} "#);
        let [a, b, c] = scan.fields(&NAMES).unwrap();
        assert_eq!((a, b, c), (Some(Json("4")), Some(Json("[3]")), None));
        assert!(!scan.is_at_end());
        for other in ["[1]", "1", "null", "\"a\"", "true"] {
            assert_eq!(Scan::new(other).fields(&NAMES), Some([None; 3]), "{other}");
        }
    }

    #[test]
    fn elements_of_an_array() {
        let elements = |text| Json(text).elements().map(|each| each.map(|json| json.0).collect::<Vec<_>>());
        assert_eq!(elements("[ 1, \"a\" ,[2] ]"), Some(vec!["1", "\"a\"", "[2]"]));
        assert_eq!(elements("[]"), Some(vec![]));
        assert_eq!(elements("{}"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_serde_reads_it(text in r#"[\[\]{}:,"\\0-9a-fu.eE+\- ]{0,24}"#) {
            let mut scan = Scan::new(&text);
            let read = scan.skip().map(|()| scan.at());
            prop_assert_eq!(read, by_serde(&text).ok());
        }

        #[test]
        fn strings_end_at_their_quote(text in "[ -~äö€\u{10348}]{0,60}", tail in "[ -~]{0,20}") {
            let quoted = serde_json::to_string(&text).unwrap();
            let whole = format!("{quoted}{tail}");
            let mut scan = Scan::new(&whole);
            let json = scan.value().unwrap();
            prop_assert_eq!(json.0, &quoted);
            prop_assert_eq!(json.string().unwrap(), text);
        }
    }
}

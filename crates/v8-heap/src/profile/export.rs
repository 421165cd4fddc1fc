//! A profile for other tools: pprof's `profile.proto` (not packed yet), and speedscope's JSON.
//!
//! A sampling heap profile tells bytes and no times, and its tree no counts, so neither is claimed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::read::{Frame, Profile};
use super::report::each_stack;

/// Writes a profile in speedscope's format; `name` is shown as its title.
pub fn speedscope(profile: &Profile, name: &str) -> Value {
    let place = |frame: &Frame| {
        let mut shown = json!({"name": frame.function});
        if !frame.file.is_empty() {
            shown["file"] = json!(frame.file);
        }
        if frame.line > 0 {
            (shown["line"], shown["col"]) = (json!(frame.line), json!(frame.column));
        }
        shown
    };
    let frames: Vec<Value> = profile.frames.iter().map(place).collect();
    let (mut samples, mut weights, mut end) = (Vec::new(), Vec::new(), 0_u64);
    each_stack(profile, |stack, bytes| {
        samples.push(stack.to_vec());
        weights.push(bytes);
        end = end.saturating_add(bytes);
    });
    json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "leakslope",
        "name": name,
        "shared": {"frames": frames},
        "profiles": [{"type": "sampled", "name": name, "unit": "bytes", "startValue": 0, "endValue": end,
            "samples": samples, "weights": weights}],
    })
}

/// Writes a profile as a message `perftools.profiles.Profile`; pprof wants it packed by gzip.
pub fn pprof(profile: &Profile) -> Vec<u8> {
    let mut texts = Texts::default();
    let mut whole = Message::default();
    let value_type = |texts: &mut Texts, kind: &str| {
        let mut message = Message::default();
        message.number(1, texts.index(kind));
        message.number(2, texts.index("bytes"));
        message
    };
    let kind = value_type(&mut texts, "inuse_space");
    whole.message(1, &kind);
    each_stack(profile, |stack, bytes| {
        let mut sample = Message::default();
        // The function that allocated comes first; ids count from one.
        sample.numbers(1, stack.iter().rev().map(|&frame| u64::from(frame) + 1));
        sample.numbers(2, [bytes].into_iter());
        whole.message(2, &sample);
    });
    for (id, frame) in (1_u64..).zip(&profile.frames) {
        let mut line = Message::default();
        line.number(1, id);
        line.number(2, frame.line.into());
        line.number(3, frame.column.into());
        let mut location = Message::default();
        location.number(1, id);
        location.message(4, &line);
        whole.message(4, &location);
        let mut function = Message::default();
        function.number(1, id);
        function.number(2, texts.index(&frame.function));
        function.number(3, texts.index(frame.generated.as_deref().unwrap_or(&frame.function)));
        function.number(4, texts.index(&frame.file));
        function.number(5, frame.line.into());
        whole.message(5, &function);
    }
    let period = value_type(&mut texts, "space");
    whole.message(11, &period);
    for text in &texts.list {
        whole.bytes(6, text.as_bytes());
    }
    whole.0
}

/// The table of texts; the first is empty.
struct Texts {
    list: Vec<String>,
    known: BTreeMap<String, u64>,
}

impl Default for Texts {
    fn default() -> Self {
        Self { list: vec![String::new()], known: BTreeMap::from([(String::new(), 0)]) }
    }
}

impl Texts {
    fn index(&mut self, text: &str) -> u64 {
        if let Some(&index) = self.known.get(text) {
            return index;
        }
        let index = self.list.len() as u64;
        self.list.push(text.to_owned());
        self.known.insert(text.to_owned(), index);
        index
    }
}

/// A message of protocol buffers while it is written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn number(&mut self, field: u64, number: u64) {
        // What is not written is zero.
        if number > 0 {
            self.varint(field << 3);
            self.varint(number);
        }
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn numbers(&mut self, field: u64, numbers: impl Iterator<Item = u64>) {
        let mut packed = Self::default();
        numbers.for_each(|number| packed.varint(number));
        self.message(field, &packed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::Call;
    use super::*;

    fn profile() -> Profile {
        let frame = |function: &str, file: &str, line| {
            let (function, file) = (function.to_owned(), file.to_owned());
            Frame { function, file, line, column: 2, ..Frame::default() }
        };
        let frames = vec![frame("(root)", "", 0), frame("serve", "/a.js", 4), frame("keep", "/a.js", 300)];
        let call = |parent, frame, bytes| Call { parent, frame, bytes };
        Profile { frames, calls: vec![call(0, 0, 0), call(0, 1, 10), call(1, 2, 700)] }
    }

    /// Reads a message's fields, numbers as they are and the rest as bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Result<u64, &[u8]>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut number = 0;
            for shift in (0..).step_by(7) {
                let (&first, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                number |= u64::from(first & 0x7f) << shift;
                if first < 0x80 {
                    break;
                }
            }
            number
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let number = varint(&mut bytes);
            if key.trailing_zeros() >= 3 {
                found.push((key >> 3, Ok(number)));
            } else {
                let (inside, rest) = bytes.split_at(usize::try_from(number).unwrap());
                bytes = rest;
                found.push((key >> 3, Err(inside)));
            }
        }
        found
    }

    #[test]
    fn pprof_holds_stacks_places_and_bytes() {
        let whole = pprof(&profile());
        let all = fields(&whole);
        let inside =
            |field: u64| all.iter().filter(move |(found, _)| *found == field).map(|(_, value)| value.unwrap_err());
        let texts: Vec<&str> = inside(6).map(|text| std::str::from_utf8(text).unwrap()).collect();
        assert_eq!(texts[..3], ["", "inuse_space", "bytes"]);
        assert_eq!(fields(inside(1).next().unwrap()), [(1, Ok(1)), (2, Ok(2))]);
        let samples: Vec<_> = inside(2).map(fields).collect();
        assert_eq!(samples[1], [(1, Err(&[3, 2, 1][..])), (2, Err(&[0xbc, 0x05][..]))], "keep first, 700 bytes");
        let function = fields(inside(5).nth(2).unwrap());
        let text = |at: usize| texts[usize::try_from(function[at].1.unwrap()).unwrap()];
        assert_eq!((text(1), text(3), function[4]), ("keep", "/a.js", (5, Ok(300))));
        assert_eq!(inside(4).count(), 3);
    }

    #[test]
    fn speedscope_holds_as_much_as_the_profile() {
        let shown = speedscope(&profile(), "shop");
        assert_eq!(shown["profiles"][0]["samples"], json!([[0, 1], [0, 1, 2]]));
        assert_eq!(shown["profiles"][0]["weights"], json!([10, 700]));
        assert_eq!(shown["profiles"][0]["endValue"], 710);
        assert_eq!(shown["shared"]["frames"][2], json!({"name": "keep", "file": "/a.js", "line": 300, "col": 2}));
    }
}

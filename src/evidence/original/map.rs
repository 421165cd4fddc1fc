//! A source map: from places in generated code to places in the sources. Pure.
//!
//! The crates that read maps build a table of every segment: a hostile map of 20 MB takes 250 to 300 MB in each of them. A
//! report asks for a few hundred places, so the mappings are walked once, with the wanted places sorted, and of the lists
//! of sources and names only what the answers need is kept. What is wrong with a map costs the places after it, never more.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use serde::Deserialize;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A place in a file; both count from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// A place in one of the map's sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The source as the map names it, with its `sourceRoot`.
    pub source: Rc<str>,
    /// The place in it.
    pub at: At,
    /// The name that the map gives for what begins at just this place.
    pub name: Option<String>,
    /// The text of the source, where the map holds it.
    pub content: Option<Rc<str>>,
    /// Whether the map says that the source is somebody else's (`ignoreList`).
    pub ignored: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Map<'a> {
    #[serde(borrow)]
    sources: Option<&'a RawValue>,
    source_root: Option<String>,
    #[serde(borrow)]
    sources_content: Option<&'a RawValue>,
    #[serde(borrow)]
    names: Option<&'a RawValue>,
    #[serde(borrow, default)]
    mappings: Cow<'a, str>,
    #[serde(borrow, alias = "x_google_ignoreList")]
    ignore_list: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sections: Vec<Section<'a>>,
}

#[derive(Deserialize)]
struct Section<'a> {
    offset: Offset,
    /// A map; sections within sections are not read.
    #[serde(borrow)]
    map: Option<Box<Map<'a>>>,
}

#[derive(Deserialize)]
struct Offset {
    line: u32,
    column: u32,
}

/// A text that is copied only where it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Passes a list's items to a function, one at a time; an item of another kind ends it.
fn each<'a, T: Deserialize<'a>>(list: Option<&'a RawValue>, visit: impl FnMut(usize, T)) {
    struct Each<T, F>(F, PhantomData<T>);
    impl<'a, T: Deserialize<'a>, F: FnMut(usize, T)> Visitor<'a> for Each<T, F> {
        type Value = ();

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'a>>(mut self, mut list: A) -> Result<(), A::Error> {
            let mut index = 0;
            while let Some(item) = list.next_element()? {
                (self.0)(index, item);
                index += 1;
            }
            Ok(())
        }
    }
    let Some(list) = list else { return };
    let _what_came_before_counts =
        serde_json::Deserializer::from_str(list.get()).deserialize_seq(Each(visit, PhantomData));
}

/// Keeps those texts of a list that are wanted.
fn texts(list: Option<&RawValue>, wanted: &BTreeSet<usize>) -> BTreeMap<usize, Rc<str>> {
    let mut found = BTreeMap::new();
    each(list, |index, text: Option<Text<'_>>| {
        if let Some(Text(text)) = text.filter(|_| wanted.contains(&index)) {
            found.insert(index, Rc::from(&*text));
        }
    });
    found
}

/// Looks places up, which must be sorted; the answers stand in the same order.
///
/// # Errors
/// The parser's words where the text is no source map.
pub fn look_up(text: &[u8], wanted: &[At]) -> Result<Vec<Option<Found>>, serde_json::Error> {
    // Some servers put this before JSON to keep it from being run.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = if text.starts_with(b")]}") {
        text.iter().position(|&byte| byte == b'\n').map_or(text, |line| &text[line + 1..])
    } else {
        text
    };
    let map: Map<'_> = serde_json::from_slice(text)?;
    if map.sections.is_empty() {
        return Ok(map.look_up(wanted));
    }
    let mut found: Vec<Option<Found>> = vec![None; wanted.len()];
    for (number, section) in map.sections.iter().enumerate() {
        let Some(inner) = &section.map else { continue };
        let start = At { line: section.offset.line, column: section.offset.column };
        let end = map.sections.get(number + 1).map(|next| At { line: next.offset.line, column: next.offset.column });
        let from = wanted.partition_point(|at| *at < start);
        let to = end.map_or(wanted.len(), |end| wanted.partition_point(|at| *at < end));
        let Some(inside) = wanted.get(from..to) else { continue };
        let moved: Vec<At> = inside
            .iter()
            .map(|at| At {
                line: at.line - start.line,
                column: if at.line == start.line { at.column - start.column } else { at.column },
            })
            .collect();
        for (place, answer) in found[from..to].iter_mut().zip(inner.look_up(&moved)) {
            *place = answer;
        }
    }
    Ok(found)
}

/// A segment: where it starts in the generated line, and what it leads to.
#[derive(Debug, Clone, Copy)]
struct Segment {
    column: i64,
    source: Option<(i64, i64, i64)>,
    name: Option<i64>,
}

impl Map<'_> {
    fn look_up(&self, wanted: &[At]) -> Vec<Option<Found>> {
        let mut answers: Vec<Option<Segment>> = Vec::with_capacity(wanted.len());
        // Source, line, column and name go on from line to line; the generated column starts afresh in each.
        let mut state = [0_i64; 4];
        for (line, text) in (0_u32..).zip(self.mappings.split(';')) {
            if answers.len() >= wanted.len() {
                break;
            }
            let mut column = 0;
            let mut last = None;
            for segment in text.split(',').filter(|segment| !segment.is_empty()) {
                let Some(read) = segment_of(segment.as_bytes(), &mut column, &mut state) else { continue };
                // A place belongs to the last segment at or before it.
                while wanted.get(answers.len()).is_some_and(|at| at.line == line && i64::from(at.column) < read.column)
                {
                    answers.push(last);
                }
                last = Some(read);
            }
            while wanted.get(answers.len()).is_some_and(|at| at.line <= line) {
                answers.push(last);
            }
        }
        answers.resize(wanted.len(), None);
        self.found(wanted, &answers)
    }

    fn found(&self, wanted: &[At], answers: &[Option<Segment>]) -> Vec<Option<Found>> {
        let index = |number: i64| usize::try_from(number).ok();
        // A name belongs to what begins at its segment, not to what stands somewhere behind it.
        let name_of = |at: &At, segment: &Segment| {
            segment.name.filter(|_| i64::from(at.column) == segment.column).and_then(index)
        };
        let segments = || wanted.iter().zip(answers).filter_map(|(at, segment)| Some((at, segment.as_ref()?)));
        let needed: BTreeSet<usize> = segments().filter_map(|(_, segment)| index(segment.source?.0)).collect();
        let names = texts(self.names, &segments().filter_map(|(at, segment)| name_of(at, segment)).collect());
        let contents = texts(self.sources_content, &needed);
        let mut ignored = BTreeSet::new();
        each(self.ignore_list, |_, number: usize| {
            if needed.contains(&number) {
                ignored.insert(number);
            }
        });
        let mut sources = texts(self.sources, &needed);
        if let Some(root) = self.source_root.as_deref().filter(|root| !root.is_empty()) {
            for source in sources.values_mut() {
                *source = format!("{}/{source}", root.trim_end_matches('/')).into();
            }
        }
        let found = |at: &At, segment: &Segment| {
            let (source, line, column) = segment.source?;
            let source = index(source)?;
            Some(Found {
                source: sources.get(&source)?.clone(),
                at: At { line: u32::try_from(line).ok()?, column: u32::try_from(column).ok()? },
                name: name_of(at, segment).and_then(|name| Some(names.get(&name)?.to_string())),
                content: contents.get(&source).cloned(),
                ignored: ignored.contains(&source),
            })
        };
        wanted.iter().zip(answers).map(|(at, segment)| found(at, segment.as_ref()?)).collect()
    }
}

/// Reads a segment, going on from the one before; none where it is no segment.
fn segment_of(text: &[u8], column: &mut i64, state: &mut [i64; 4]) -> Option<Segment> {
    let mut numbers = [0_i64; 5];
    let mut count = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = number(rest)?;
        *numbers.get_mut(count)? = number;
        count += 1;
        rest = after;
    }
    *column = column.saturating_add(numbers[0]);
    if count >= 4 {
        for (known, change) in state.iter_mut().zip(&numbers[1..4]) {
            *known = known.saturating_add(*change);
        }
    }
    if count == 5 {
        state[3] = state[3].saturating_add(numbers[4]);
    }
    Some(Segment {
        column: *column,
        source: (count >= 4).then_some((state[0], state[1], state[2])),
        name: (count == 5).then_some(state[3]),
    })
}

/// Reads one number in base 64: five bits a letter, the lowest first, the sign in the lowest of all.
fn number(text: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0_i64;
    for (index, &letter) in text.iter().enumerate().take(7) {
        let digit = i64::from(match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        });
        value |= (digit & 31) << (5 * index);
        if digit & 32 == 0 {
            let number = if value & 1 == 1 { -(value >> 1) } else { value >> 1 };
            return Some((number, &text[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32, column: u32) -> At {
        At { line, column }
    }

    #[test]
    fn numbers_are_read_with_their_sign_and_never_too_long() {
        for (text, number) in
            [("A", 0), ("C", 1), ("D", -1), ("gB", 16), ("2H", 123), ("+/////D", i64::from(u32::MAX >> 1))]
        {
            assert_eq!(super::number(text.as_bytes()).map(|(read, _)| read), Some(number), "{text}");
        }
        for text in ["", "g", "!", "ggggggggggB"] {
            assert!(super::number(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_place_belongs_to_the_last_segment_before_it() {
        let text = r#"{"version":3,"sourceRoot":"src","sources":["a.ts",null],"names":["makeRow","id"],
            "mappings":"AAAA,SAASA,QAAwB;;AAGA,KCAA","sourcesContent":["one"],"ignoreList":[0]}"#;
        let wanted = [at(0, 0), at(0, 9), at(0, 500), at(1, 3), at(2, 2), at(2, 9), at(9, 0)];
        let found = look_up(text.as_bytes(), &wanted).unwrap();
        let shown: Vec<Option<(u32, u32)>> =
            found.iter().map(|found| found.as_ref().map(|found| (found.at.line, found.at.column))).collect();
        assert_eq!(shown, [Some((0, 0)), Some((0, 9)), Some((0, 33)), None, Some((3, 33)), None, None]);
        let found = found[1].as_ref().unwrap();
        assert_eq!((&*found.source, found.name.as_deref(), found.ignored), ("src/a.ts", Some("makeRow"), true));
        assert_eq!(found.content.as_deref(), Some("one"));
    }

    #[test]
    fn sections_are_read_each_from_its_offset() {
        let text = r#")]}'
            {"version":3,"sections":[
            {"offset":{"line":0,"column":0},"map":{"version":3,"sources":["a"],"names":[],"mappings":"AAAA"}},
            {"offset":{"line":0,"column":10},"map":{"version":3,"sources":["b"],"names":[],"mappings":"AAAA,EACA"}},
            {"offset":{"line":4,"column":2}}]}"#;
        let found = look_up(text.as_bytes(), &[at(0, 9), at(0, 10), at(0, 13), at(1, 0), at(5, 0)]).unwrap();
        let shown: Vec<Option<(&str, u32)>> =
            found.iter().map(|found| found.as_ref().map(|found| (&*found.source, found.at.line))).collect();
        assert_eq!(shown, [Some(("a", 0)), Some(("b", 0)), Some(("b", 1)), None, None]);
    }

    #[test]
    fn a_hostile_map_costs_its_places_and_no_memory() {
        let long = format!(r#"{{"version":3,"sources":["a"],"names":[],"mappings":"{}"}}"#, ",C".repeat(1 << 20));
        assert_eq!(look_up(long.as_bytes(), &[at(0, 5)]).unwrap(), [None]);
        for text in ["", "{", "[]", r#"{"version":3,"mappings":7}"#, r#"{"sections":[{}]}"#] {
            assert!(look_up(text.as_bytes(), &[at(0, 0)]).is_err(), "{text}");
        }
        let odd = r#"{"version":3,"sources":[{}],"names":7,"mappings":"AAAAA"}"#;
        assert_eq!(look_up(odd.as_bytes(), &[at(0, 0)]).unwrap(), [None]);
        let wrong = r#"{"version":3,"sources":["a"],"names":[],"mappings":"AAAA,!!,AEAAAAA,A9999999,DDDD"}"#;
        assert_eq!(look_up(wrong.as_bytes(), &[at(0, 0)]).unwrap().len(), 1);
    }
}

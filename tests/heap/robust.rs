//! Cut, damaged, hostile files: always an error that says where, never a panic, never more memory than allowed.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::io::Read;

use crate::heap_support::{node, snapshot};
use leakslope::evidence::profile;
use leakslope::evidence::snapshot::analysis::analyse;
use leakslope::evidence::snapshot::diff::{compare, digest};
use leakslope::evidence::snapshot::summary::{Extent, summarise};
use leakslope::evidence::snapshot::{HeapErrorKind, Limits, read};
use proptest::prelude::*;

fn small() -> String {
    let nodes = [
        node("synthetic", "", 0, &[("element", "1", 1), ("shortcut", "2", 2)]),
        node("synthetic", "(GC roots)", 0, &[("internal", "1", 3)]),
        node("object", "global", 16, &[("property", "sessions", 4), ("context", "ü \u{1f600}", 3)]),
        node("closure", "handle", 56, &[("internal", "context", 5)]),
        node("object", "Map", 32, &[("internal", "table", 6)]),
        node("object", "system / Context", 24, &[("context", "self", 3)]),
        node("array", "", 160, &[("hidden", "4", 7), ("weak", "5", 8)]),
        node("object", "Session", 48, &[("property", "name", 8)]),
        node("string", "a secret \"quoted\" \\ \n", 24, &[]),
    ];
    snapshot(&nodes, 20)
}

#[test]
fn every_prefix_is_an_error_with_its_place() {
    let text = small();
    for end in 0..text.len() {
        let error = read(&text.as_bytes()[..end], "cut.heapsnapshot", &Limits::default()).unwrap_err();
        assert!(error.offset <= end as u64, "{error}");
        assert!(error.to_string().starts_with("cut.heapsnapshot: "), "{error}");
    }
    assert!(read(text.as_bytes(), "whole", &Limits::default()).is_ok());
}

/// Reads and does everything that can be done; only an error or a result may come of it.
fn everything(bytes: &[u8]) {
    if let Ok(heap) = read(bytes, "damaged", &Limits::default()) {
        let analysis = analyse(heap, &[]);
        let digest = digest(&analysis, "damaged");
        let _ = compare(&[digest], &analysis, "damaged", Extent::default());
        let _ = summarise(&analysis, "damaged", Extent::default());
    }
    let _ = profile::read(bytes, "damaged").map(|profile| profile::summarise(&profile, "damaged", 10));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = small().into_bytes();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        everything(&bytes);
    }

    #[test]
    fn changed_numbers_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), "[0-9]{1,21}"), 1..4)) {
        let mut text = small();
        for (index, digits) in changes {
            let places: Vec<usize> = text.match_indices(|letter: char| letter.is_ascii_digit()).map(|(at, _)| at).collect();
            let at = places[index.index(places.len())];
            text.replace_range(at..=at, &digits);
        }
        everything(text.as_bytes());
    }

    #[test]
    fn parts_taken_out_or_doubled_never_panic(from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), twice: bool) {
        let bytes = small().into_bytes();
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        let (from, to) = (from.min(to), from.max(to));
        let mut changed = bytes[..if twice { to } else { from }].to_vec();
        changed.extend_from_slice(&bytes[if twice { from } else { to }..]);
        everything(&changed);
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        everything(&bytes);
    }
}

#[test]
fn white_space_and_the_size_of_reads_make_no_difference() {
    /// Gives a few bytes at a time.
    struct Slowly<'a>(&'a [u8], usize);
    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1 = self.1 % 7 + 1;
            let count = self.1.min(buffer.len()).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }
    let text = small();
    let whole = read(text.as_bytes(), "whole", &Limits::default()).unwrap();
    let pretty: serde_json::Value = serde_json::from_str(&text).unwrap();
    // Keys in any other order would be refused: the description comes first.
    let order = ["snapshot", "nodes", "edges", "locations", "strings"];
    let wide = format!("{},", " ".repeat(90));
    let part = |key: &&str| {
        let value = serde_json::to_string_pretty(&pretty[*key]).unwrap().replace(',', &wide);
        format!("{key:?} :\r\n\t {value}")
    };
    let parts: Vec<String> = order.iter().map(part).collect();
    let spaced = format!(" {{ {} }} \n", parts.join(" , "));
    for other in [
        read(Slowly(text.as_bytes(), 0), "slow", &Limits::default()),
        read(spaced.as_bytes(), "spaced", &Limits::default()),
    ] {
        let other = other.unwrap();
        let nodes = 0..whole.node_count();
        assert!(
            nodes
                .clone()
                .all(|node| other.name(node) == whole.name(node) && other.self_size(node) == whole.self_size(node))
        );
        assert!(nodes.into_iter().all(|node| other.edges(node).eq(whole.edges(node))));
    }
    assert_eq!(whole.string(whole.edges(2).nth(1).unwrap().name), "ü \u{1f600}");
}

#[test]
fn the_text_of_strings_is_kept_only_when_asked() {
    let text = small();
    let hidden = read(text.as_bytes(), "x", &Limits::default()).unwrap();
    assert_eq!((hidden.name(8).as_ref(), hidden.name(7).as_ref()), ("", "Session"));
    let shown = read(text.as_bytes(), "x", &Limits { show_strings: true, ..Limits::default() }).unwrap();
    assert_eq!(shown.name(8), "a secret \"quoted\" \\ \n");
}

/// A header that claims more nodes than any machine holds must be refused before room is made.
#[test]
fn claims_are_checked_against_the_memory_allowed() {
    for claim in ["100000000", "4000000000", "18446744073709551615"] {
        let text = small().replacen("\"node_count\":9", &format!("\"node_count\":{claim}"), 1);
        let error = read(text.as_bytes(), "huge", &Limits::default()).unwrap_err();
        assert!(matches!(error.kind, HeapErrorKind::Memory { .. }), "{error}");
        assert_eq!(error.key, "snapshot");
    }
    let error = read(small().as_bytes(), "tight", &Limits { memory: 100, ..Limits::default() }).unwrap_err();
    assert!(error.to_string().contains("--max-memory"), "{error}");
}

/// Streams that never end: each must be given up with an error.
#[test]
fn endless_lists_are_given_up() {
    struct Endless {
        start: Vec<u8>,
        again: &'static [u8],
        at: usize,
    }
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            for byte in buffer.iter_mut() {
                *byte = match self.start.get(self.at) {
                    Some(&byte) => byte,
                    None => self.again[(self.at - self.start.len()) % self.again.len()],
                };
                self.at += 1;
            }
            Ok(buffer.len())
        }
    }
    let text = small();
    let limits = Limits { memory: 8 << 20, ..Limits::default() };
    let uncounted = text.replacen("\"node_count\":9", "\"x\":9", 1).replacen("\"edge_count\":11", "\"y\":9", 1);
    for (text, key, again) in [
        (&text, "\"nodes\":[", &b"9,1,1,0,0,0,0,"[..]),
        (&uncounted, "\"nodes\":[", b"9,1,1,0,0,0,0,"),
        (&text, "\"edges\":[", b"1,1,7,"),
        (&text, "\"strings\":[", b"\"abc\","),
        (&text, "\"strings\":[", b"\"ab\\u00e4c\","),
        (&text, "\"locations\":[", b"7,1,1,1,"),
        (&text, "\"snapshot\":", b"[1,"),
    ] {
        let start = text.find(key).unwrap() + key.len();
        let endless = Endless { start: text.as_bytes()[..start].to_vec(), again, at: 0 };
        let error = read(endless, "endless", &limits).unwrap_err();
        assert!(key.contains(error.key) && !error.key.is_empty(), "{key}: {error}");
    }
}

#[test]
fn errors_say_what_where_and_in_which_key() {
    let text = small();
    for (from, to, expected) in [
        ("\"nodes\":[", "\"nodes\":[x", "expected a whole number, found 'x' (at byte"),
        ("\"edges\":[", "\"edges\":[-", "expected a whole number, found '-'"),
        ("\"edge_count\":11", "\"edge_count\":13", "13 edges are announced, the nodes claim 11"),
        ("\"node_count\":9", "\"node_count\":10", "10 nodes are announced, there are 9"),
        ("\"strings\":", "\"string\":", "the key \"strings\" is missing"),
        ("\"self_size\"", "\"sixe\"", "node_fields lacks \"self_size\""),
        ("\"snapshot\":{", "\"snapshot\":[{", "not a heap snapshot"),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from}");
        let error = read(broken.as_bytes(), "a.heapsnapshot", &Limits::default()).unwrap_err().to_string();
        assert!(error.starts_with("a.heapsnapshot: ") && error.contains(expected), "{error}");
    }
}

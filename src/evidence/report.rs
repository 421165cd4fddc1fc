//! What a series of snapshots told, small enough to be kept beside them and to be read by a sidecar, which never holds a
//! snapshot.
//!
//! Whoever takes the series makes it; what is read may be anybody's, so lists and texts are cut to the same bounds both
//! ways. It refuses to hold the text of a string.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::snapshot::diff::Diff;
use super::snapshot::paths::told;
use super::snapshot::patterns::{Finding, Pattern};
use crate::model::Bytes;
use v8_heap::format::thousands;

/// No report is longer, in bytes.
pub const LONGEST: u64 = 256 << 10;
/// Letters of one text.
const LETTERS: usize = 700;
/// Classes told.
pub const CLASSES: usize = 20;
/// Places told.
pub const PLACES: usize = 5;
/// Ways told.
const WAYS: usize = 20;
/// Steps of a way told in the sentence, the last.
const HOLDERS: usize = 2;
/// Files named: a comparison is of three at the most.
const FILES: usize = 3;

/// What a series told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeriesReport {
    /// The whole in one sentence: what grows, who holds it and by which way; or why nobody knows.
    pub sentence: String,
    /// What grew, where the snapshots could be compared.
    pub growth: Option<SeriesGrowth>,
}

/// What grew from the first snapshot to the last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeriesGrowth {
    /// The names of the files, the oldest first.
    pub files: Vec<String>,
    /// How objects of different files were told to be the same, as a sentence.
    pub compared: String,
    /// What was added after the first (of three: and before the second) and is alive in the last.
    pub added: Option<Added>,
    /// Classes that grew, the one that grew most first.
    pub classes: Vec<ClassGrowth>,
    /// Where the growth piles up, the heaviest first.
    pub places: Vec<Place>,
    /// The ways from a root to the classes that grew most, each a line.
    pub ways: Vec<String>,
}

/// Objects that were added and stayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Added {
    /// How many.
    pub count: u64,
    /// What they take themselves, in bytes.
    pub bytes: u64,
}

/// A class that grew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassGrowth {
    /// The class.
    pub class: String,
    /// Objects more.
    pub count: i64,
    /// Bytes more that they take themselves.
    pub shallow_bytes: i64,
    /// Bytes more that would be freed with them.
    pub retained_bytes: i64,
    /// What of it was added and stayed, where ids tell.
    pub added: Option<Added>,
}

/// A place where the growth piles up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The pattern that it fits; one of a later version is none of ours.
    pub pattern: Pattern,
    /// What happens there.
    pub sentence: String,
    /// What the pieces take with all they keep alive, in bytes.
    pub bytes: u64,
    /// The way from a root to the pieces.
    pub way: String,
    /// The function or constructor to look at first: file, line and column.
    #[serde(default)]
    pub code: Option<String>,
    /// V8's id of the holder, if there is one.
    #[serde(default)]
    pub id: Option<u32>,
    /// What the holder kept alive in each file, the oldest first, in bytes; empty where that is not known.
    #[serde(default)]
    pub sizes: Vec<u64>,
    /// The package that holds the pieces, with its version.
    #[serde(default)]
    pub package: Option<String>,
}

/// Why a report cannot be read.
#[derive(Debug, Error)]
pub enum ReportError {
    /// It is longer than any.
    #[error("it is longer than any report ({} at the most)", Bytes(LONGEST))]
    TooLong,
    /// It is something else, or cut off.
    #[error("it is no whole report: {0}")]
    Unexpected(#[from] serde_json::Error),
    /// It says nothing.
    #[error("it is no report: it has no sentence")]
    Silent,
}

impl SeriesReport {
    /// Makes the report of a comparison.
    pub fn of(diff: &Diff) -> Self {
        let places: Vec<Place> = diff
            .findings
            .iter()
            .take(PLACES)
            .map(|finding| Place {
                pattern: finding.pattern,
                sentence: finding.sentence.clone(),
                bytes: finding.bytes,
                way: finding.told_way(),
                code: finding.code.clone(),
                id: finding.id,
                sizes: finding.sizes.clone(),
                package: finding.package.clone(),
            })
            .collect();
        let added = diff.added.map(|added| Added { count: added.count, bytes: added.shallow_bytes });
        let grown = diff.classes.iter().map(|growth| ClassGrowth {
            class: growth.class.clone(),
            count: growth.count_delta(),
            shallow_bytes: growth.shallow_delta(),
            retained_bytes: growth.retained_delta(),
            added: growth.added.map(|added| Added { count: added.count, bytes: added.shallow_bytes }),
        });
        let ways = diff.ways.iter().flat_map(|class| {
            let steps = class.ways.iter().filter_map(|way| Some((way.steps.split_last()?.1, way.count)));
            steps.map(|(steps, count)| told(steps, &class.class, count))
        });
        let growth = SeriesGrowth {
            files: diff.files.iter().map(|file| file.rsplit('/').next().unwrap_or_default().to_owned()).collect(),
            compared: diff.compared(),
            added,
            classes: grown.take(CLASSES).collect(),
            places,
            ways: ways.take(WAYS).collect(),
        };
        Self { sentence: sentence(diff), growth: Some(growth) }.cut()
    }

    /// Makes the report of snapshots that could not be compared.
    pub fn none(why: &str, command: &str) -> Self {
        let sentence = format!("the snapshots were not compared: {why}; to do it by hand: {command}");
        Self { sentence, growth: None }.cut()
    }

    /// Writes the report as it is kept.
    ///
    /// # Errors
    /// [`ReportError`], which a report of ours never meets.
    pub fn write(&self) -> Result<Vec<u8>, ReportError> {
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() as u64 > LONGEST { Err(ReportError::TooLong) } else { Ok(bytes) }
    }

    /// Reads a report: what it lacks stays empty, what it has too much of is left out.
    ///
    /// # Errors
    /// [`ReportError`] where it is none.
    pub fn read(bytes: &[u8]) -> Result<Self, ReportError> {
        if bytes.len() as u64 > LONGEST {
            return Err(ReportError::TooLong);
        }
        let report: Self = serde_json::from_slice(bytes)?;
        if report.sentence.trim().is_empty() { Err(ReportError::Silent) } else { Ok(report.cut()) }
    }

    fn cut(mut self) -> Self {
        shorten(&mut self.sentence);
        if let Some(growth) = &mut self.growth {
            growth.files.truncate(FILES);
            growth.classes.truncate(CLASSES);
            growth.places.truncate(PLACES);
            growth.places.iter_mut().for_each(|place| place.sizes.truncate(FILES));
            growth.ways.truncate(WAYS);
            let classes = growth.classes.iter_mut().map(|grown| &mut grown.class);
            let places = growth.places.iter_mut().flat_map(|place| {
                [&mut place.sentence, &mut place.way]
                    .into_iter()
                    .chain(place.code.as_mut())
                    .chain(place.package.as_mut())
            });
            let texts = growth.files.iter_mut().chain([&mut growth.compared]).chain(&mut growth.ways);
            texts.chain(classes).chain(places).for_each(shorten);
        }
        self
    }
}

/// Cuts a text, and takes from it what could steer a terminal.
fn shorten(text: &mut String) {
    let mut letters = text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter });
    let mut short: String = letters.by_ref().take(LETTERS).collect();
    if letters.next().is_some() {
        short.push('…');
    }
    *text = short;
}

/// The first place with the end of the way to it: who holds the pieces is told there.
fn sentence(diff: &Diff) -> String {
    match (diff.findings.first(), diff.classes.first()) {
        (Some(Finding { sentence, bytes, way, class, count, .. }), _) => {
            let end = &way[way.len().saturating_sub(HOLDERS)..];
            let start = if end.len() < way.len() { "… → " } else { "" };
            format!("{sentence} ({}), alive by {start}{}", Bytes(*bytes), told(end, class, *count))
        }
        (None, Some(grown)) => {
            let (objects, bytes) = (grown.count_delta(), grown.shallow_delta());
            let more = if objects < 0 { "fewer" } else { "more" };
            format!(
                "nothing piles up in one place; of all classes {} changed most: {} objects {more}, {} of their own",
                grown.class,
                thousands(objects.unsigned_abs()),
                Bytes(bytes.unsigned_abs())
            )
        }
        (None, None) => "nothing grew between the snapshots".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::snapshot::diff::{Basis, Figures, Growth};
    use crate::evidence::snapshot::paths::Step;
    use crate::evidence::snapshot::summary::{ClassWays, CountedWay};

    fn step(by: Option<&str>, what: &str) -> Step {
        Step { by: by.map(str::to_owned), what: what.to_owned(), written_at: None, times: 1 }
    }

    fn figures(count: u64) -> Figures {
        Figures { count, shallow_bytes: count * 100, retained_bytes: count * 200 }
    }

    fn diff() -> Diff {
        let way = vec![step(None, "(GC roots)"), step(None, "system / Context"), step(Some("sessions"), "Map")];
        let steps = way.iter().cloned().chain([step(None, "Session")]).collect();
        Diff {
            files: vec!["/state/a.heapsnapshot".to_owned(), "b.heapsnapshot".to_owned()],
            basis: Basis::Ids,
            because: "100.0 % of 9 common ids stand for the same class".to_owned(),
            totals: vec![figures(9), figures(12)],
            added: Some(figures(3)),
            classes: vec![Growth {
                class: "Session".to_owned(),
                figures: vec![figures(4), figures(1_004)],
                added: Some(figures(1_000)),
            }],
            classes_left_out: 0,
            findings: vec![Finding {
                pattern: Pattern::Map,
                sentence: "the Map `sessions` in shop.js only grows: by Session × 1,000".to_owned(),
                class: "Session".to_owned(),
                count: 1_000,
                bytes: 3 << 20,
                holder: "sessions".to_owned(),
                also_held_by: Vec::new(),
                way,
                code: Some("/app/shop.js:3:1".to_owned()),
                keeps: Vec::new(),
                examples: vec![7],
                id: Some(5),
                sizes: Vec::new(),
                holder_node: None,
                file: None,
                package: None,
            }],
            ways: vec![ClassWays {
                class: "Session".to_owned(),
                count: 1_000,
                ways: vec![CountedWay { steps, count: 1_000 }],
            }],
        }
    }

    const WAY: &str = "(GC roots) → system / Context → sessions (Map) → Session × 1,000";

    #[test]
    fn a_comparison_becomes_a_sentence_a_table_and_ways() {
        let report = SeriesReport::of(&diff());
        let place = "the Map `sessions` in shop.js only grows: by Session × 1,000";
        let end = "… → system / Context → sessions (Map) → Session × 1,000";
        assert_eq!(report.sentence, format!("{place} (3 MiB), alive by {end}"));
        let growth = report.growth.clone().unwrap();
        assert_eq!(growth.files, ["a.heapsnapshot", "b.heapsnapshot"], "where they lie is nobody's business");
        assert!(growth.compared.starts_with("Compared by object id: one session (100.0 %"), "{}", growth.compared);
        assert_eq!(growth.added, Some(Added { count: 3, bytes: 300 }));
        let grown = &growth.classes[0];
        assert_eq!((grown.count, grown.shallow_bytes, grown.retained_bytes), (1_000, 100_000, 200_000));
        assert_eq!(growth.ways, [WAY]);
        assert_eq!((growth.places[0].pattern, growth.places[0].way.as_str()), (Pattern::Map, WAY));
        assert_eq!(SeriesReport::read(&report.write().unwrap()).unwrap(), report, "it comes back as it was");
    }

    #[test]
    fn where_nothing_piles_up_the_sentence_says_so() {
        let mut diff = diff();
        diff.findings.clear();
        let told = SeriesReport::of(&diff).sentence;
        assert!(
            told.starts_with("nothing piles up in one place; of all classes Session changed most: 1,000"),
            "{told}"
        );
        diff.classes.clear();
        assert_eq!(SeriesReport::of(&diff).sentence, "nothing grew between the snapshots");
        let none = SeriesReport::none("it needs 6 GiB", "leakslope heap diff a b");
        let told = "the snapshots were not compared: it needs 6 GiB; to do it by hand: leakslope heap diff a b";
        assert_eq!((none.sentence.as_str(), &none.growth), (told, &None));
    }

    #[test]
    fn a_report_is_never_long_and_never_steers_a_terminal() {
        let mut diff = diff();
        let long = format!("\u{1b}[2J{}", "語".repeat(100_000));
        diff.classes = vec![Growth { class: long.clone(), ..diff.classes[0].clone() }; 500];
        diff.findings = vec![Finding { sentence: long.clone(), class: long.clone(), ..diff.findings[0].clone() }; 500];
        diff.findings[1].code = Some(long.clone());
        diff.ways = vec![ClassWays { class: long.clone(), ..diff.ways[0].clone() }; 500];
        diff.because = long.clone();
        diff.files = vec![long; 500];
        let report = SeriesReport::of(&diff);
        let bytes = report.write().unwrap();
        assert!(bytes.len() > 100_000, "{}", bytes.len());
        let growth = report.growth.unwrap();
        let lengths = (growth.files.len(), growth.classes.len(), growth.places.len(), growth.ways.len());
        assert_eq!(lengths, (FILES, CLASSES, PLACES, WAYS));
        assert!(growth.classes.iter().all(|grown| grown.class.chars().count() == LETTERS + 1));
        assert!(!std::str::from_utf8(&bytes).unwrap().contains("\\u001b"), "no control characters");
    }

    #[test]
    fn what_is_missing_stays_empty_and_what_is_strange_is_left_out() {
        let text = r#"{"sentence":"it \u0007 grows","later":{"x":[1]},"growth":{"classes":[{"class":"A","count":-3}],
            "places":[{"pattern":"of-a-later-version","sentence":"s","bytes":1,"way":"w"}]}}"#;
        let report = SeriesReport::read(text.as_bytes()).unwrap();
        assert_eq!(report.sentence, "it \u{fffd} grows");
        let growth = report.growth.unwrap();
        let class = ClassGrowth { class: "A".to_owned(), count: -3, ..ClassGrowth::default() };
        assert_eq!((growth.classes, growth.places[0].pattern), (vec![class], Pattern::Other));
        assert!(growth.ways.is_empty() && growth.added.is_none());
    }

    #[test]
    fn what_is_no_report_is_told_and_never_more() {
        let whole = SeriesReport::of(&diff()).write().unwrap();
        for end in 0..whole.len() {
            let told = SeriesReport::read(&whole[..end]).unwrap_err().to_string();
            assert!(told.starts_with("it is no whole report: "), "{end}: {told}");
        }
        let deep = "[".repeat(100_000);
        for (bytes, told) in [
            (deep.as_str(), "it is no whole report: "),
            (r#"{"sentence":3}"#, "it is no whole report: invalid type"),
            (r#"{"sentence":"s","growth":{"classes":[{"count":1e300}]}}"#, "it is no whole report: "),
            (r#"{"growth":null}"#, "it is no report: it has no sentence"),
            ("\0\u{1}", "it is no whole report: "),
        ] {
            let error = SeriesReport::read(bytes.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(told), "{error}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x15;
            // Whatever it makes of it, it ends.
            drop(SeriesReport::read(&damaged));
        }
    }
}

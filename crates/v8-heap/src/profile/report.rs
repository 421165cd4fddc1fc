//! What a profile tells: the functions that hold most, the same as a flame graph, and two profiles compared.

use std::collections::BTreeMap;

use serde::Serialize;

use super::read::{Frame, Profile};
use crate::format::size;

/// A function with what it allocated that is still alive.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FunctionRow {
    /// The function.
    #[serde(flatten)]
    pub frame: Frame,
    /// Whether the app wrote it, as against Node, V8 and dependencies.
    pub own: bool,
    /// Bytes allocated by the function itself.
    pub self_bytes: u64,
    /// Bytes allocated by the function and all it called.
    pub total_bytes: u64,
    /// The share of all bytes that the function allocated itself, 0 to 1.
    pub self_share: f64,
}

/// A profile in a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProfileSummary {
    /// The file.
    pub file: String,
    /// All bytes still alive.
    pub total_bytes: u64,
    /// The number of calls in the tree.
    pub calls: u64,
    /// What the profile says, as a sentence.
    pub sentence: String,
    /// The lines that somebody can change: what Node, V8 and dependencies allocated counts to the function of the app that
    /// called them. The one with the most bytes first.
    pub holders: Vec<Holder>,
    /// Functions, the one that allocated most itself first.
    pub functions: Vec<FunctionRow>,
    /// The app's own functions, the one with the most bytes in all first.
    pub own: Vec<FunctionRow>,
    /// The calls as boxes of a flame graph, each before those it made.
    pub flame: Vec<FlameBox>,
}

/// A function, and what was allocated by it or for it that is still alive.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Holder {
    /// The function; one of the app's wherever the app called.
    #[serde(flatten)]
    pub frame: Frame,
    /// Bytes allocated by it, and by what it called that is not of the app.
    pub bytes: u64,
    /// The function of a package that allocated most of them, where it is a tenth or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<PackagePart>,
}

/// A function of a package, and what it allocated on somebody's behalf.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackagePart {
    /// The function.
    #[serde(flatten)]
    pub frame: Frame,
    /// Bytes allocated by it, and by what it called that is neither the app's nor another package's.
    pub bytes: u64,
}

/// One box of a flame graph.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlameBox {
    /// How deep the call lies.
    pub depth: u32,
    /// The bytes to the left of it.
    pub start_bytes: u64,
    /// Its width: bytes allocated by it and all it called.
    pub total_bytes: u64,
    /// Bytes allocated by it alone.
    pub self_bytes: u64,
    /// The function; shown as its name and place in one.
    #[serde(rename = "label", serialize_with = "shown")]
    pub frame: Frame,
}

fn shown<S: serde::Serializer>(frame: &Frame, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(frame)
}

/// Boxes narrower than one in this many are left out of a flame graph.
const NARROW: u64 = 1000;

/// Two profiles compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProfileDiff {
    /// The files.
    pub files: [String; 2],
    /// All bytes still alive in each.
    pub total_bytes: [u64; 2],
    /// Functions, the one that grew most first.
    pub functions: Vec<FunctionGrowth>,
}

/// A function in two profiles.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FunctionGrowth {
    /// The function.
    #[serde(flatten)]
    pub frame: Frame,
    /// Whether the app wrote it.
    pub own: bool,
    /// Bytes allocated by the function itself in each profile.
    pub self_bytes: [u64; 2],
    /// Bytes allocated by the function and all it called in each profile.
    pub total_bytes: [u64; 2],
}

impl FunctionGrowth {
    /// Returns by how much the function's own bytes grew.
    pub fn self_delta(&self) -> i64 {
        self.self_bytes[1].cast_signed().saturating_sub(self.self_bytes[0].cast_signed())
    }
}

/// Makes the report of one profile with at most `rows` functions.
pub fn summarise(profile: &Profile, file: &str, rows: usize) -> ProfileSummary {
    let total: u64 = profile.calls.iter().map(|call| call.bytes).fold(0, u64::saturating_add);
    let mut functions: Vec<FunctionRow> = by_function(profile)
        .into_iter()
        .filter(|(_, sizes)| sizes.total > 0)
        .map(|(frame, sizes)| FunctionRow {
            own: frame.is_own(),
            frame: frame.clone(),
            self_bytes: sizes.own,
            total_bytes: sizes.total,
            self_share: share(sizes.own, total),
        })
        .collect();
    let mut own: Vec<FunctionRow> = functions.iter().filter(|row| row.own).cloned().collect();
    own.sort_by(|one, other| (other.total_bytes, &one.frame).cmp(&(one.total_bytes, &other.frame)));
    own.truncate(rows);
    functions.retain(|row| row.self_bytes > 0);
    functions.sort_by(|one, other| (other.self_bytes, &one.frame).cmp(&(one.self_bytes, &other.frame)));
    functions.truncate(rows);
    let mut holders = holders(profile);
    holders.truncate(rows);
    ProfileSummary {
        file: file.to_owned(),
        total_bytes: total,
        calls: profile.calls.len() as u64,
        sentence: sentence(holders.first(), total),
        holders,
        functions,
        own,
        flame: flame(profile, total),
    }
}

/// Says who holds most, with its share, and which package's function it had that allocated by.
fn sentence(first: Option<&Holder>, total: u64) -> String {
    let Some(Holder { frame, bytes, package }) = first else {
        return "nothing that was allocated meanwhile is still alive".to_owned();
    };
    let function = &frame.function;
    let place = frame.at();
    let through = package.as_ref().map_or_else(String::new, |package| {
        format!(", {} of it in {}{}", size(package.bytes), package.frame.function, package.frame.at())
    });
    format!(
        "of the {} that was allocated meanwhile and is still alive, {function}{place} allocated {} ({:.0} %){through}",
        size(total),
        size(*bytes),
        share(*bytes, total) * 100.0
    )
}

/// Bytes by the nearest function of the app, else of a package, else by the function itself; those come last. Parents come
/// before children, so every parent's holder is known.
fn holders(profile: &Profile) -> Vec<Holder> {
    let frame = |index: u32| &profile.frames[index as usize];
    // For each call the nearest function of the app and the nearest of a package that it called.
    let mut above: Vec<(Option<u32>, Option<u32>)> = Vec::with_capacity(profile.calls.len());
    let mut bytes = vec![0_u64; profile.frames.len()];
    let mut packages: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for call in &profile.calls {
        let (own, package) = above.get(call.parent as usize).copied().unwrap_or_default();
        let known = if frame(call.frame).is_own() {
            (Some(call.frame), None)
        } else if frame(call.frame).package_place().is_some() {
            (own, Some(call.frame))
        } else {
            (own, package)
        };
        above.push(known);
        let holder = known.0.or(known.1).unwrap_or(call.frame);
        let sum = &mut bytes[holder as usize];
        *sum = sum.saturating_add(call.bytes);
        if let (Some(own), Some(package)) = known {
            let sum = packages.entry((own, package)).or_default();
            *sum = sum.saturating_add(call.bytes);
        }
    }
    let mut found: Vec<Holder> = (0_u32..)
        .zip(&bytes)
        .filter(|(_, bytes)| **bytes > 0)
        .map(|(index, &bytes)| {
            let below = packages.range((index, 0)..=(index, u32::MAX)).max_by_key(|(_, bytes)| **bytes);
            let package = below
                .filter(|(_, part)| part.saturating_mul(10) >= bytes)
                .map(|(&(_, package), &bytes)| PackagePart { frame: frame(package).clone(), bytes });
            Holder { frame: frame(index).clone(), bytes, package }
        })
        .collect();
    let is_somebodys = |holder: &Holder| holder.frame.is_own() || holder.frame.package_place().is_some();
    found.sort_by(|one, other| {
        (is_somebodys(other), other.bytes, &one.frame).cmp(&(is_somebodys(one), one.bytes, &other.frame))
    });
    found
}

#[allow(clippy::cast_precision_loss, reason = "memory sizes stay far below 2^53")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Compares two profiles by function; at most `rows` of them.
pub fn diff(first: (&Profile, &str), second: (&Profile, &str), rows: usize) -> ProfileDiff {
    let mut functions: BTreeMap<&Frame, [Sizes; 2]> = BTreeMap::new();
    for (side, profile) in [first.0, second.0].into_iter().enumerate() {
        for (frame, sizes) in by_function(profile) {
            functions.entry(frame).or_default()[side] = sizes;
        }
    }
    let mut functions: Vec<FunctionGrowth> = functions
        .into_iter()
        .map(|(frame, [one, two])| FunctionGrowth {
            frame: frame.clone(),
            own: frame.is_own(),
            self_bytes: [one.own, two.own],
            total_bytes: [one.total, two.total],
        })
        .filter(|growth| growth.self_bytes[0] != growth.self_bytes[1])
        .collect();
    functions.sort_by(|one, other| (other.self_delta(), &one.frame).cmp(&(one.self_delta(), &other.frame)));
    functions.truncate(rows);
    let sum = |profile: &Profile| profile.calls.iter().map(|call| call.bytes).fold(0, u64::saturating_add);
    ProfileDiff {
        files: [first.1.to_owned(), second.1.to_owned()],
        total_bytes: [sum(first.0), sum(second.0)],
        functions,
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Sizes {
    own: u64,
    total: u64,
}

/// Bytes of each call with all it called. Parents come before children, so from the back every child is complete.
fn totals(profile: &Profile) -> Vec<u64> {
    let mut totals: Vec<u64> = profile.calls.iter().map(|call| call.bytes).collect();
    for index in (1..totals.len()).rev() {
        let parent = profile.calls[index].parent as usize;
        totals[parent] = totals[parent].saturating_add(totals[index]);
    }
    totals
}

fn by_function(profile: &Profile) -> BTreeMap<&Frame, Sizes> {
    let totals = totals(profile);
    let mut sizes = vec![Sizes::default(); profile.frames.len()];
    // A function that calls itself is counted where it was first called: walk the tree with the functions now open.
    let children = children(profile);
    let mut open = vec![0_u32; profile.frames.len()];
    let mut stack: Vec<(usize, bool)> = if profile.calls.is_empty() { Vec::new() } else { vec![(0, true)] };
    while let Some((index, entering)) = stack.pop() {
        let call = profile.calls[index];
        let frame = call.frame as usize;
        if !entering {
            open[frame] -= 1;
            continue;
        }
        sizes[frame].own = sizes[frame].own.saturating_add(call.bytes);
        if open[frame] == 0 {
            sizes[frame].total = sizes[frame].total.saturating_add(totals[index]);
        }
        open[frame] += 1;
        stack.push((index, false));
        stack.extend(children[index].iter().rev().map(|&child| (child as usize, true)));
    }
    profile.frames.iter().zip(sizes).collect()
}

fn children(profile: &Profile) -> Vec<Vec<u32>> {
    let mut children = vec![Vec::new(); profile.calls.len()];
    for (index, call) in (0_u32..).zip(&profile.calls).skip(1) {
        children[call.parent as usize].push(index);
    }
    children
}

fn flame(profile: &Profile, total: u64) -> Vec<FlameBox> {
    let totals = totals(profile);
    let children = children(profile);
    let mut boxes = Vec::new();
    let mut stack: Vec<(usize, u32, u64)> = if profile.calls.is_empty() { Vec::new() } else { vec![(0, 0, 0)] };
    while let Some((index, depth, start)) = stack.pop() {
        let call = profile.calls[index];
        boxes.push(FlameBox {
            depth,
            start_bytes: start,
            total_bytes: totals[index],
            self_bytes: call.bytes,
            frame: profile.frames[call.frame as usize].clone(),
        });
        let mut wide: Vec<usize> = children[index]
            .iter()
            .map(|&child| child as usize)
            .filter(|&child| totals[child] > 0 && totals[child] >= total / NARROW)
            .collect();
        wide.sort_by_key(|&child| (std::cmp::Reverse(totals[child]), child));
        let mut left = start;
        let mut placed = Vec::new();
        for child in wide {
            placed.push((child, depth + 1, left));
            left += totals[child];
        }
        stack.extend(placed.into_iter().rev());
    }
    boxes
}

/// Writes the profile as folded stacks, one a line with its bytes, as flame graph tools read them.
pub fn folded(profile: &Profile) -> Vec<(String, u64)> {
    stacks(profile).into_iter().collect()
}

/// Writes two profiles as folded stacks with both numbers, as differential flame graph tools read them.
pub fn folded_diff(first: &Profile, second: &Profile) -> Vec<(String, u64, u64)> {
    let mut both: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (stack, bytes) in stacks(first) {
        both.entry(stack).or_default().0 = bytes;
    }
    for (stack, bytes) in stacks(second) {
        both.entry(stack).or_default().1 = bytes;
    }
    both.into_iter().map(|(stack, (one, two))| (stack, one, two)).collect()
}

/// The deepest stack that is written; what lies deeper counts to its end.
const DEEPEST: u32 = 256;

fn stacks(profile: &Profile) -> BTreeMap<String, u64> {
    // Separators of the format must not come from a name.
    let label = |frame: &Frame| frame.to_string().replace([';', '\n', '\r'], "_");
    let labels: Vec<String> = profile.frames.iter().map(label).collect();
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    each_stack(profile, |stack, bytes| {
        let parts: Vec<&str> = stack.iter().map(|&frame| labels[frame as usize].as_str()).collect();
        let sum = found.entry(parts.join(";")).or_default();
        *sum = sum.saturating_add(bytes);
    });
    found
}

/// Passes every stack that allocated something to a function: its functions, the first call first, and its bytes.
pub(super) fn each_stack(profile: &Profile, mut visit: impl FnMut(&[u32], u64)) {
    // For each call how deep it lies, and the call it counts to; parents come first.
    let mut places: Vec<(u32, usize)> = Vec::with_capacity(profile.calls.len());
    let mut bytes = vec![0_u64; profile.calls.len()];
    for (index, call) in profile.calls.iter().enumerate() {
        let place = match places.get(call.parent as usize) {
            Some(&(depth, end)) if depth + 1 >= DEEPEST => (depth, end),
            Some(&(depth, _)) => (depth + 1, index),
            None => (0, index),
        };
        places.push(place);
        bytes[place.1] = bytes[place.1].saturating_add(call.bytes);
    }
    for (index, &bytes) in bytes.iter().enumerate().filter(|(_, bytes)| **bytes > 0) {
        let mut stack = vec![profile.calls[index].frame];
        let mut at = index;
        while at > 0 {
            at = profile.calls[at].parent as usize;
            stack.push(profile.calls[at].frame);
        }
        stack.reverse();
        visit(&stack, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::Call;
    use super::*;

    fn profile(calls: &[(u32, u32, u64)]) -> Profile {
        let frames = ["(root)", "handle", "parse"].map(|name| Frame {
            function: name.to_owned(),
            file: if name == "(root)" { String::new() } else { "/app/a.js".to_owned() },
            line: 4,
            column: 2,
            ..Frame::default()
        });
        let calls = calls.iter().map(|&(parent, frame, bytes)| Call { parent, frame, bytes }).collect();
        Profile { frames: frames.to_vec(), calls }
    }

    #[test]
    fn a_function_that_calls_itself_is_counted_once() {
        let summary = summarise(&profile(&[(0, 0, 0), (0, 1, 10), (1, 2, 5), (2, 1, 7)]), "x", 9);
        let row = summary.own.iter().find(|row| row.frame.function == "handle").unwrap();
        assert_eq!((row.self_bytes, row.total_bytes, summary.total_bytes), (17, 22, 22));
    }

    #[test]
    fn what_a_library_allocated_counts_to_the_apps_line_that_called_it() {
        let frame = |function: &str, file: &str| {
            let (function, file) = (function.to_owned(), file.to_owned());
            Frame { function, file, line: 12, column: 3, ..Frame::default() }
        };
        let frames = vec![
            frame("(root)", ""),
            frame("listOnTimeout", "node:internal/timers"),
            frame("tick", "/srv/shop/app.js"),
            frame("get session", "/srv/shop/lib/sessions.js"),
            frame("clone", "/srv/shop/node_modules/lodash/clone.js"),
        ];
        let mib = 1 << 20;
        let calls = [(0, 0, 0), (0, 1, mib), (1, 2, 2 * mib), (2, 3, 5 * mib), (3, 4, 40 * mib), (1, 4, 3 * mib)];
        let calls = calls.iter().map(|&(parent, frame, bytes)| Call { parent, frame, bytes }).collect();
        let summary = summarise(&Profile { frames, calls }, "x", 9);
        let found: Vec<(&str, u64)> =
            summary.holders.iter().map(|one| (one.frame.function.as_str(), one.bytes / mib)).collect();
        assert_eq!(found, [("get session", 45), ("clone", 3), ("tick", 2), ("listOnTimeout", 1)]);
        let place = "alive, get session at /srv/shop/lib/sessions.js:12 allocated 45 MiB (88 %), 40 MiB of it in clone at lodash/clone.js:12";
        assert!(
            summary.sentence.starts_with("of the 51 MiB ") && summary.sentence.ends_with(place),
            "{}",
            summary.sentence
        );
        let shown = serde_json::to_value(&summary.flame[3]).unwrap();
        assert_eq!(shown["label"], "get session /srv/shop/lib/sessions.js:12:3");
        for empty in [Profile::default(), profile(&[(0, 0, 0), (0, 2, 0)])] {
            assert_eq!(summarise(&empty, "x", 9).sentence, "nothing that was allocated meanwhile is still alive");
        }
    }

    #[test]
    fn boxes_lie_within_the_one_below() {
        let summary = summarise(&profile(&[(0, 0, 1), (0, 1, 10), (0, 2, 30), (1, 2, 5)]), "x", 9);
        let shown: Vec<(u32, u64, u64)> =
            summary.flame.iter().map(|one| (one.depth, one.start_bytes, one.total_bytes)).collect();
        assert_eq!(shown, [(0, 0, 46), (1, 0, 30), (1, 30, 15), (2, 30, 5)]);
    }

    #[test]
    fn stacks_are_folded_with_their_bytes() {
        let calls = profile(&[(0, 0, 0), (0, 1, 10), (1, 2, 5), (1, 2, 6)]);
        let expected = ["(root);handle /app/a.js:4:2 10", "(root);handle /app/a.js:4:2;parse /app/a.js:4:2 11"];
        let lines: Vec<String> = folded(&calls).into_iter().map(|(stack, bytes)| format!("{stack} {bytes}")).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_grew_comes_first() {
        let (one, two) = (profile(&[(0, 0, 0), (0, 1, 10), (0, 2, 8)]), profile(&[(0, 0, 0), (0, 1, 4), (0, 2, 90)]));
        let found = diff((&one, "a"), (&two, "b"), 9);
        let deltas: Vec<i64> = found.functions.iter().map(FunctionGrowth::self_delta).collect();
        assert_eq!(deltas, [82, -6]);
    }
}

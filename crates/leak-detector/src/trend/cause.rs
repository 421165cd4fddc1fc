//! Which kind of memory grows, and as far as that can be seen from outside, why.
//!
//! The kind is measured. The reason is told only where the figures decide it; growth inside of `malloc` with nothing to go by
//! is a leak of an add-on, objects that wait for the collector, or free memory in pieces, and nobody can tell which without
//! a word from inside. So the answer may be "undecided", and says what would decide it.

use model::{Bytes, MemoryCause, MemoryKind};

use super::reason::span;
use super::shape::increment_noise;
use crate::history::{Composition, Point};
use crate::stats::{MOST, as_f64, kendall, median};

/// Fewest points of a run that say anything.
const LEAST_POINTS: usize = 8;
/// Growth below this many bytes is not spoken of, …
const LEAST_GROWTH: f64 = 3e6;
/// … nor below this share of what the process held at first.
const LEAST_SHARE: f64 = 0.02;
/// The share of all growth that one kind must have to be named.
const MOST_OF_IT: f64 = 0.6;
/// The share of a kind's growth that a sign must explain.
const EXPLAINS: f64 = 0.45;
/// The share of a kind's growth that a sign may have and yet count as flat.
const FLAT: f64 = 0.2;
/// What a worker thread takes at least.
const LEAST_OF_WORKER: f64 = 2e6;
/// What kept objects with native memory add to V8's global handles at least.
const LEAST_HANDLES: f64 = 1024.0;

/// How one figure moved over the run.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    /// Its growth; zero where it does not grow beyond its noise.
    grown: f64,
    /// Growth in the second half, as a share of half of the whole.
    late: f64,
}

/// Says what the growth of a run is made of; none where too little is known yet.
pub fn cause(composition: &Composition) -> Option<MemoryCause> {
    let points = composition.points();
    // The beginning is start-up.
    let points = points.get(points.len() / 10..).filter(|points| points.len() >= LEAST_POINTS)?;
    let (first, last) = (points.first()?, points.last()?);
    let over = last.at.since(first.at);
    let held = f64::from(first.kinds.iter().sum::<f32>() + first.children);
    let threshold = LEAST_GROWTH.max(LEAST_SHARE * held);
    let all: Vec<(Part, Change)> = Part::all().map(|part| (part, change(points, |point| part.of(point)))).collect();
    let total: f64 = all.iter().map(|(_, change)| change.grown).sum();
    let (part, largest) = *all.iter().max_by(|left, right| left.1.grown.total_cmp(&right.1.grown))?;
    let told = |cause: &'static str, harmless, text: String, advice: &'static str| {
        let sentence = if total < threshold { text } else { format!("{text}, over {}", span(over)) };
        Some(MemoryCause { cause, harmless, grown: Bytes::from_f64(largest.grown), over, sentence, advice })
    };
    if total < threshold {
        return told("none", true, "no kind of memory grows".to_owned(), "");
    }
    let amount = Bytes::from_f64(largest.grown);
    if largest.grown < MOST_OF_IT * total {
        let text =
            format!("several kinds of memory grow, {} the most ({amount} of {})", part.name(), Bytes::from_f64(total));
        return told("undecided", false, text, "Look at each kind's own line.");
    }
    match part {
        Part::Children => told(
            "children",
            false,
            format!("processes that the app started grew by {amount}"),
            "End what is started, and count how many run at once.",
        ),
        Part::Kind(MemoryKind::Files) => told(
            "files",
            true,
            format!("pages of mapped files grew by {amount}: the system gives them up when memory is short"),
            "This is no leak.",
        ),
        Part::Kind(MemoryKind::SharedMemory) => told(
            "shared_memory",
            false,
            format!("shared memory grew by {amount}"),
            "It counts against the container; look at /dev/shm and at memfd in the app's add-ons.",
        ),
        Part::Kind(MemoryKind::Wasm) => told(
            "wasm",
            false,
            format!("memories of WebAssembly grew by {amount}"),
            "Such a memory never shrinks: free what the module allocates, or make a new instance now and then.",
        ),
        Part::Kind(MemoryKind::OwnAllocator) => told(
            "undecided",
            false,
            format!(
                "an add-on's own allocator grew by {amount}: objects it never frees, or that wait for a collection"
            ),
            "Call the add-on's free() or dispose(); if memory falls after a forced collection, it is no leak.",
        ),
        Part::Kind(MemoryKind::CodeAndStacks) => told(
            "undecided",
            false,
            format!("compiled code and stacks of threads grew by {amount}"),
            "Look for functions that are compiled anew (eval, templates, vm) and for threads that never end.",
        ),
        Part::Kind(MemoryKind::JsHeap) => {
            let (cause, harmless, why, advice) = inside_v8(points, largest.grown);
            told(cause, harmless, format!("V8's heaps grew by {amount}: {why}"), advice)
        }
        Part::Kind(MemoryKind::Malloc) => {
            let (cause, harmless, why, advice) = inside_malloc(points, largest);
            told(cause, harmless, format!("memory from malloc grew by {amount}: {why}"), advice)
        }
    }
}

/// A cause, whether it does no harm, why it is thought to be it, and what to do.
type Answer = (&'static str, bool, String, &'static str);

/// Growth of V8's heaps: workers, the main thread's objects, or room that V8 keeps.
fn inside_v8(points: &[Point], grown: f64) -> Answer {
    let workers = change(points, |point| f64::from(point.workers) * LEAST_OF_WORKER).grown / LEAST_OF_WORKER;
    let elsewhere = change(points, |point| f64::from(point.kind(MemoryKind::JsHeap) - point.heap_total)).grown;
    let now = points.last().map_or(0.0, |point| f64::from(point.workers));
    if workers >= 1.0 && (elsewhere >= EXPLAINS * grown || points.iter().all(|point| point.heap_total.is_nan())) {
        let why = format!("worker threads are started and not ended ({now:.0} run now)");
        return ("workers", false, why, "End workers with terminate(), or keep one pool.");
    }
    if now >= 1.0 && elsewhere >= MOST_OF_IT * grown {
        let why = format!("the heap of a worker grows ({now:.0} run)");
        return ("worker_heap", false, why, "Take a profile inside the worker: the main thread's does not show it.");
    }
    let floor = change(points, |point| f64::from(point.heap_floor));
    let known = points.iter().filter(|point| !point.heap_floor.is_nan()).count();
    if known < LEAST_POINTS / 2 {
        let why = "what collections leave of it is not known".to_owned();
        return ("undecided", false, why, "Load the preload, or leave pm2's agent on.");
    }
    if floor.grown >= EXPLAINS * grown {
        let why = format!("what stays after collections grew by {}", Bytes::from_f64(floor.grown));
        return ("js_heap", false, why, "leakslope heap profile and leakslope heap snapshot name what holds it.");
    }
    if floor.grown <= FLAT * grown {
        let why = "what stays after collections does not grow; V8 keeps the room".to_owned();
        return (
            "v8_committed",
            true,
            why,
            "This is no leak; --max-semi-space-size sets how much is kept for young objects.",
        );
    }
    ("undecided", false, "a part of it stays after collections".to_owned(), "Watch it for longer, or take a snapshot.")
}

/// Growth of memory from `malloc`: what JavaScript holds of it shows in external memory or in handles.
fn inside_malloc(points: &[Point], malloc: Change) -> Answer {
    let known = |figure: fn(&Point) -> f32| points.iter().filter(|point| !figure(point).is_nan()).count();
    if known(|point| point.external) < LEAST_POINTS / 2 {
        let why = "Buffers, native objects, an add-on or free pieces; without the preload nobody can tell".to_owned();
        return ("undecided", false, why, "Load the preload into the app: it reports Buffers and handles.");
    }
    let external = change(points, |point| f64::from(point.external));
    if external.grown >= EXPLAINS * malloc.grown {
        let why = format!("Buffers that JavaScript holds grew by {}", Bytes::from_f64(external.grown));
        return ("buffers", false, why, "A snapshot names who holds them; bound the cache.");
    }
    let handles = change(points, |point| f64::from(point.handles)).grown;
    if handles >= LEAST_HANDLES {
        let why = format!(
            "objects with native memory add up (V8's handles to them grew by {}); kept, or waiting for a collection",
            Bytes::from_f64(handles)
        );
        return (
            "undecided",
            false,
            why,
            "A snapshot taken after a collection shows whether they are kept: close() them, share one context.",
        );
    }
    let why = if malloc.late < FLAT {
        "it has flattened and nothing in JavaScript holds it: free memory in pieces, most likely"
    } else {
        "nothing in JavaScript holds it: a leak of an add-on, objects waiting for a collection, or free memory in pieces"
    };
    (
        "undecided",
        false,
        why.to_owned(),
        "Update native add-ons; MALLOC_TRIM_THRESHOLD_=131072 in the app's env shows whether it is free memory.",
    )
}

/// One part of what a process and its descendants hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Kind(MemoryKind),
    Children,
}

impl Part {
    fn all() -> impl Iterator<Item = Self> {
        MemoryKind::ALL.into_iter().map(Self::Kind).chain([Self::Children])
    }

    fn of(self, point: &Point) -> f64 {
        f64::from(match self {
            Self::Kind(kind) => point.kind(kind),
            Self::Children => point.children,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kind(MemoryKind::JsHeap) => "V8's heaps",
            Self::Kind(MemoryKind::Malloc) => "memory from malloc",
            Self::Kind(MemoryKind::OwnAllocator) => "an add-on's allocator",
            Self::Kind(MemoryKind::Wasm) => "WebAssembly",
            Self::Kind(MemoryKind::CodeAndStacks) => "code and stacks",
            Self::Kind(MemoryKind::Files) => "pages of files",
            Self::Kind(MemoryKind::SharedMemory) => "shared memory",
            Self::Children => "child processes",
        }
    }
}

/// How a figure moved from the beginning of the run to its end, by the medians of equal parts of it.
fn change(points: &[Point], figure: impl Fn(&Point) -> f64) -> Change {
    let parts = MOST.min(points.len());
    let mut medians = Vec::with_capacity(parts);
    for part in 0..parts {
        let of_part = &points[part * points.len() / parts..(part + 1) * points.len() / parts];
        let mut known: Vec<f64> = of_part.iter().map(&figure).filter(|value| !value.is_nan()).collect();
        if !known.is_empty() {
            medians.push(median(&mut known));
        }
    }
    let count = medians.len();
    if count < LEAST_POINTS / 2 {
        return Change::default();
    }
    let level = |part: &[f64]| median(&mut part.to_vec());
    let (end, middle) = ((count / 6).max(1), count / 2);
    let last = level(&medians[count - end..]);
    let grown = last - level(&medians[..end]);
    let pairs = as_f64(count * (count - 1)) / 2.0;
    if grown <= 3.0 * increment_noise(&medians) || kendall(&medians) < 0.4 * pairs {
        return Change::default();
    }
    Change { grown, late: (last - level(&medians[middle..middle + end])) / (grown / 2.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Steady;

    const MIB: f32 = 1_048_576.0;

    /// A run of an hour that begins with 20 MiB of each of heap and malloc and 40 of files; `grow` adds to each point.
    fn run(grow: impl Fn(&mut Point, f32)) -> MemoryCause {
        let points = (0_u16..60).map(|minute| {
            let noise = f32::from(minute * 7 % 5) * 0.2 * MIB;
            let mut kinds = [0.0; MemoryKind::ALL.len()];
            kinds[MemoryKind::JsHeap as usize] = 20.0 * MIB + noise;
            kinds[MemoryKind::Malloc as usize] = 20.0 * MIB + noise;
            kinds[MemoryKind::Files as usize] = 40.0 * MIB;
            let mut point = Point {
                at: Steady(i64::from(minute) * 60_000),
                kinds,
                children: 0.0,
                workers: 0.0,
                heap_total: 18.0 * MIB + noise,
                heap_floor: 9.0 * MIB + noise / 4.0,
                external: 2.0 * MIB,
                handles: 8_192.0,
            };
            grow(&mut point, f32::from(minute) * MIB);
            point
        });
        cause(&Composition::of(points.collect())).expect("there are points")
    }

    fn add(point: &mut Point, kind: MemoryKind, bytes: f32) {
        point.kinds[kind as usize] += bytes;
    }

    #[test]
    fn each_kind_of_growth_is_told_by_its_signs() {
        type Grow = fn(&mut Point, f32);
        let cases: [(&str, bool, Grow); 17] = [
            ("none", true, |_, _| {}),
            ("files", true, |point, grown| add(point, MemoryKind::Files, grown)),
            ("wasm", false, |point, grown| add(point, MemoryKind::Wasm, grown)),
            ("shared_memory", false, |point, grown| add(point, MemoryKind::SharedMemory, grown)),
            ("children", false, |point, grown| point.children += grown),
            ("js_heap", false, |point, grown| {
                add(point, MemoryKind::JsHeap, 1.5 * grown);
                (point.heap_floor, point.heap_total) = (point.heap_floor + grown, point.heap_total + 1.5 * grown);
            }),
            ("v8_committed", true, |point, grown| {
                add(point, MemoryKind::JsHeap, grown);
                point.heap_total += grown;
            }),
            ("workers", false, |point, grown| {
                add(point, MemoryKind::JsHeap, grown);
                point.workers = (grown / MIB / 8.0).floor();
            }),
            ("worker_heap", false, |point, grown| {
                add(point, MemoryKind::JsHeap, grown);
                point.workers = 1.0;
            }),
            ("buffers", false, |point, grown| {
                add(point, MemoryKind::Malloc, grown);
                point.external += grown;
            }),
            ("undecided", false, |point, grown| {
                add(point, MemoryKind::Malloc, grown);
                point.handles += 64.0 * grown / MIB;
            }),
            ("undecided", false, |point, grown| add(point, MemoryKind::Malloc, grown)),
            // Nothing is known from inside.
            ("undecided", false, |point, grown| {
                add(point, MemoryKind::Malloc, grown);
                (point.external, point.handles, point.heap_floor) = (f32::NAN, f32::NAN, f32::NAN);
            }),
            ("undecided", false, |point, grown| {
                add(point, MemoryKind::JsHeap, grown);
                (point.heap_floor, point.heap_total) = (f32::NAN, f32::NAN);
            }),
            ("undecided", false, |point, grown| add(point, MemoryKind::OwnAllocator, grown)),
            ("undecided", false, |point, grown| {
                add(point, MemoryKind::Malloc, grown);
                add(point, MemoryKind::JsHeap, grown);
            }),
            // It has stopped.
            ("undecided", false, |point, grown| add(point, MemoryKind::Malloc, grown.min(30.0 * MIB))),
        ];
        for (place, (expected, harmless, grow)) in cases.into_iter().enumerate() {
            let found = run(grow);
            assert_eq!((found.cause, found.harmless), (expected, harmless), "{place}: {}", found.sentence);
            assert_eq!(found.advice.is_empty(), expected == "none", "{place}");
        }
    }
}

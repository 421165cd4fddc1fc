//! What held the memory of one run, from its beginning until now: a few dozen points, however long it lasts.
//!
//! When there is no room for another point every second one is given up, so that the run is always covered as a whole.
//! This room refuses to say what growth comes from: that is `trend::cause`'s.

use std::time::Duration;

use model::{Life, MemoryKind, ProcessSample, Steady};

/// The most points that are kept.
pub const MOST_POINTS: usize = 64;

/// What held a process's memory at one time, in bytes. `NaN` means that a figure was not measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When.
    pub at: Steady,
    /// Resident memory of each kind, in the order of [`MemoryKind::ALL`].
    pub kinds: [f32; MemoryKind::ALL.len()],
    /// Resident memory of the process's descendants.
    pub children: f32,
    /// Worker threads.
    pub workers: f32,
    /// V8's committed heap, of the main thread.
    pub heap_total: f32,
    /// The smallest heap since the point before: after a collection where the app reports it.
    pub heap_floor: f32,
    /// The smallest external memory since the point before, of Buffers for the most part.
    pub external: f32,
    /// Memory of global handles.
    pub handles: f32,
}

impl Point {
    /// Resident memory of one kind.
    pub fn kind(&self, kind: MemoryKind) -> f32 {
        self.kinds[kind as usize]
    }
}

/// What held the memory of one run.
#[derive(Debug, Clone)]
pub struct Composition {
    life: Option<Life>,
    every: Duration,
    points: Vec<Point>,
    heap_floor: f32,
    external: f32,
}

impl Composition {
    /// Makes an empty one with a point each `minute` to begin with.
    pub fn new(minute: Duration) -> Self {
        Self { life: None, every: minute, points: Vec::new(), heap_floor: f32::NAN, external: f32::NAN }
    }

    /// Takes in one process of a collection. Another run than before starts anew.
    pub fn observe(&mut self, process: &ProcessSample, now: Steady, minute: Duration) {
        if process.life != self.life {
            *self = Self { life: process.life, ..Self::new(minute) };
        }
        let metrics = &process.listed.metrics;
        let gc = metrics.gc.as_ref();
        let floor = gc.map_or(metrics.heap_used, |gc| gc.heap_after_major_gc);
        self.heap_floor = self.heap_floor.min(figure(floor));
        self.external = self.external.min(figure(gc.and_then(|gc| gc.external)));
        let Some((system, memory)) = process.system.as_ref().and_then(|system| Some((system, system.memory?))) else {
            return;
        };
        if self.is_due(now) {
            self.add(Point {
                at: now,
                kinds: MemoryKind::ALL.map(|kind| figure(Some(memory.of(kind)))),
                children: figure(Some(system.children_resident())),
                workers: u16::try_from(memory.workers).unwrap_or(u16::MAX).into(),
                heap_total: figure(metrics.heap_total),
                heap_floor: f32::NAN,
                external: f32::NAN,
                handles: figure(gc.and_then(|gc| gc.global_handles)),
            });
        }
    }

    #[cfg(test)]
    pub(crate) fn of(points: Vec<Point>) -> Self {
        Self { points, ..Self::new(Duration::from_mins(1)) }
    }

    /// Its points, oldest first.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Bytes of memory taken on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.points.capacity() * size_of::<Point>()
    }

    /// Whether it is time for the next point.
    fn is_due(&self, now: Steady) -> bool {
        self.points.last().is_none_or(|last| now.since(last.at) + self.every / 8 >= self.every)
    }

    /// Adds a point, with what was smallest since the one before.
    fn add(&mut self, point: Point) {
        if self.points.len() >= MOST_POINTS {
            self.thin_out();
        }
        let (heap_floor, external) = (self.heap_floor, self.external);
        (self.heap_floor, self.external) = (f32::NAN, f32::NAN);
        self.points.push(Point { heap_floor, external, ..point });
    }

    /// Gives up every second point; what was smallest in it stays known.
    fn thin_out(&mut self) {
        let pairs = self.points.chunks_exact(2).map(|pair| Point {
            heap_floor: pair[0].heap_floor.min(pair[1].heap_floor),
            external: pair[0].external.min(pair[1].external),
            ..pair[1]
        });
        self.points = pairs.collect();
        self.every *= 2;
    }
}

#[allow(clippy::cast_possible_truncation, reason = "24 bits of mantissa are enough for memory")]
fn figure(bytes: Option<model::Bytes>) -> f32 {
    bytes.map_or(f32::NAN, |bytes| bytes.as_f64() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_covered_as_a_whole_however_long_it_is() {
        let mut composition = Composition::new(Duration::from_mins(1));
        for minute in 0..10_000 {
            let at = Steady(minute * 60_000);
            composition.heap_floor = composition.heap_floor.min(if minute == 5_000 { 1.0 } else { 2.0 });
            if composition.is_due(at) {
                let nothing = f32::NAN;
                composition.add(Point {
                    at,
                    kinds: [nothing; MemoryKind::ALL.len()],
                    children: nothing,
                    workers: nothing,
                    heap_total: nothing,
                    heap_floor: nothing,
                    external: nothing,
                    handles: nothing,
                });
            }
        }
        let points = composition.points();
        assert!((MOST_POINTS / 2..=MOST_POINTS).contains(&points.len()), "{}", points.len());
        assert!(points[0].at < Steady(500 * 60_000) && points[points.len() - 1].at > Steady(9_500 * 60_000));
        let lowest: Vec<f32> = points.iter().map(|point| point.heap_floor).filter(|floor| *floor < 2.0).collect();
        assert_eq!(lowest, [1.0], "what was smallest is not lost with its point");
    }
}

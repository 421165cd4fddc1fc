//! Resident memory of a process by kind, told from its mappings in `/proc/<pid>/smaps`.
//!
//! On x86-64 V8 maps its pages at random addresses below 2^46, while `malloc`, stacks and libraries lie near 2^47, so
//! whose a mapping is shows from outside, without a word from the app. Two more live below 2^46: mimalloc, which some
//! add-ons bring along, told by its segments of 32 MiB, and the program itself. A memory of WebAssembly is followed by a
//! reservation of gigabytes that nobody may touch, and a worker's stack has a size of its own.
//!
//! The file is dear: the kernel walks the pages of the process for it. So a process is read at most once in the interval
//! that the caller names, a bounded number of processes at a time, and each within bounds of bytes and of time. Read is
//! only what is the daemon's own child and runs as its user. Other machines than x86-64 lay out memory differently: there
//! nothing is told.

use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{SystemReader, SystemReading, parse};
use crate::model::{Bytes, MemoryByKind, MemoryKind, Steady};

/// The most processes that are read at a time …
const MOST_AT_ONCE: usize = 16;
/// … and the time after which no other one is begun.
const TIME_AT_ONCE: Duration = Duration::from_millis(250);
/// The longest that the mappings of one process may take.
const TIME_OF_ONE: Duration = Duration::from_secs(1);
/// The most text that is read of one process: some 40,000 mappings.
const LONGEST: usize = 32 << 20;
/// How many intervals a process is left alone whose mappings could not be read.
const PAUSE_AFTER_FAILURE: u32 = 10;

/// V8's hints for its pages stay below this address.
const V8_BELOW: u64 = 1 << 46;
/// mimalloc asks for segments from this address on, …
const SEGMENTS_FROM: u64 = 2 << 40;
/// … aligned like this, …
const SEGMENT: u64 = 32 << 20;
/// … and not smaller than this.
const LEAST_SEGMENT: u64 = 4 << 20;
/// What is reserved behind a memory of WebAssembly, at least; together with the memory it is whole ones of these. Up to
/// Node.js 22 as much or more lies before it, too, and may follow upon something else.
const WASM_RESERVATION: u64 = 1 << 30;
/// glibc aligns the arenas of threads like this.
const ARENA: u64 = 64 << 20;
/// The largest page range below a stack that is kept out of reach.
const GUARD: u64 = 64 << 10;
/// The largest stack: what is larger has grown together with what lies above it.
const LARGEST_STACK: u64 = 8 << 20;
/// The size of the stack that Node.js gives a worker thread.
const WORKER_STACK: u64 = 4 << 20;

/// What is kept of one process between readings.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastReading {
    at: Steady,
    due: Steady,
    memory: Result<MemoryByKind, &'static str>,
}

impl SystemReader {
    /// Adds memory by kind to a reading of the system: read anew of those who have not been for `every`, else as it was.
    pub fn read_memory(&mut self, reading: &mut SystemReading, daemon_pid: Option<u32>, now: Steady, every: Duration) {
        let lives = |reading: &SystemReading| {
            let life = |(listed, process): (&u32, &super::PidReading)| {
                ((process.pid, process.sample.start_ticks), (*listed, process.parent))
            };
            reading.processes.iter().map(life).collect::<std::collections::BTreeMap<_, _>>()
        };
        let lives = lives(reading);
        self.memory.retain(|life, _| lives.contains_key(life));
        let daemon = daemon_pid.and_then(|pid| Some((pid, self.credentials(pid)?.users)));
        let mut due: Vec<_> = lives
            .iter()
            .map(|(life, (listed, parent))| (self.memory.get(life).map(|last| last.due), *life, *listed, *parent))
            .filter(|(due, ..)| due.is_none_or(|due| due <= now))
            .collect();
        due.sort_unstable();
        let begun = monotonic();
        for (_, life, _, parent) in due.into_iter().take(MOST_AT_ONCE) {
            if monotonic().saturating_sub(begun) > TIME_AT_ONCE {
                break;
            }
            let memory = match daemon {
                Some((pid, users)) if parent == pid => self.memory_by_kind(life, users),
                Some(_) | None => Err("it is not seen as a child of pm2's daemon"),
            };
            let pause = if memory.is_ok() { every } else { every * PAUSE_AFTER_FAILURE };
            self.memory.insert(life, LastReading { at: now, due: now + pause, memory });
        }
        for (life, (listed, _)) in lives {
            let (Some(last), Some(process)) = (self.memory.get(&life), reading.processes.get_mut(&listed)) else {
                continue;
            };
            let sample = &mut process.sample;
            match last.memory {
                Ok(memory) => {
                    sample.memory = Some(memory);
                    let swapped = sample.tree_swapped.saturating_sub(sample.swapped.unwrap_or_default());
                    let children = sample.children_resident().saturating_add(swapped);
                    let own = memory.held.saturating_sub(memory.v8_held);
                    let is_fresh = last.at == now && memory.of(MemoryKind::JsHeap) > Bytes(0);
                    sample.outside_v8 = is_fresh.then(|| own.saturating_add(children));
                }
                Err(why) => sample.memory_unknown = Some(why),
            }
        }
    }

    /// Reads the mappings of one life of a process, or says why not.
    fn memory_by_kind(&mut self, life: (u32, u64), daemon_users: [u32; 4]) -> Result<MemoryByKind, &'static str> {
        if !cfg!(target_arch = "x86_64") {
            return Err("memory by kind is not supported on this kind of machine");
        }
        let (pid, start_ticks) = life;
        let credentials = self.credentials(pid).ok_or("it has just ended")?;
        let (daemon_user, users) = (daemon_users[0], credentials.users);
        if daemon_user != 0 && users.iter().any(|user| *user != daemon_user) {
            return Err("it runs as another user than pm2's daemon");
        }
        self.name_file(pid, "smaps").ok_or("it has just ended")?;
        let memory = read(Path::new(&self.path), &mut self.buffer)?;
        // The pid may have been given to another process meanwhile.
        let same = self.pid_file(pid, "stat").and_then(parse::stat).is_some_and(|now| now.start_ticks == start_ticks);
        if same { Ok(memory) } else { Err("it has just ended") }
    }
}

/// Reads a file of mappings within its bounds.
fn read(path: &Path, buffer: &mut Vec<u8>) -> Result<MemoryByKind, &'static str> {
    let why = |error: Errno| match error {
        Errno::ACCESS | Errno::PERM => "its mappings may be read by its own user and by root only",
        Errno::NOENT | Errno::SRCH => "it has just ended",
        _ => "its mappings cannot be read",
    };
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(why)?;
    let begun = monotonic();
    let (mut mappings, mut taken) = (Mappings::default(), 0);
    buffer.clear();
    loop {
        buffer.reserve(super::READ_SIZE);
        let count = rustix::io::read(&file, rustix::buffer::spare_capacity(buffer)).map_err(why)?;
        if count == 0 {
            break;
        }
        taken += count;
        if taken > LONGEST {
            return Err("it has too many mappings to be read");
        }
        if monotonic().saturating_sub(begun) > TIME_OF_ONE {
            return Err("its mappings take too long to be read");
        }
        let whole = memchr::memrchr(b'\n', buffer).map_or(0, |end| end + 1);
        buffer[..whole].split(|byte| *byte == b'\n').for_each(|line| mappings.line(line));
        buffer.drain(..whole);
    }
    let memory = mappings.finish();
    // Of a process that is about to end nothing is mapped any more.
    if memory.resident() == Bytes(0) { Err("it has just ended") } else { Ok(memory) }
}

/// Time on the system's own clock, to keep to a bound.
fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

/// One mapping.
#[derive(Debug, Clone, Copy, Default)]
struct Mapping {
    start: u64,
    end: u64,
    /// Whether nobody may touch it.
    is_barred: bool,
    is_writable: bool,
    is_code: bool,
    backing: Backing,
    resident: Bytes,
    swapped: Bytes,
}

/// What is behind a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Backing {
    #[default]
    Nothing,
    /// The kernel's or an allocator's name tells.
    Known(MemoryKind),
}

/// The mappings of one process, taken in line by line in their order of addresses.
#[derive(Debug, Default)]
struct Mappings {
    memory: MemoryByKind,
    before: Option<Mapping>,
    current: Option<Mapping>,
}

impl Mappings {
    /// Takes in one line; one that is not understood is passed over.
    fn line(&mut self, line: &[u8]) {
        match line.first() {
            Some(b'0'..=b'9' | b'a'..=b'f') => {
                if let Some(next) = header(line) {
                    self.close(Some(next));
                    self.current = Some(next);
                }
            }
            Some(b'R' | b'S') => {
                let Some(current) = &mut self.current else { return };
                if let Some(value) = line.strip_prefix(b"Rss:") {
                    current.resident = parse::kibibytes(value).unwrap_or_default();
                } else if let Some(value) = line.strip_prefix(b"Swap:") {
                    current.swapped = parse::kibibytes(value).unwrap_or_default();
                }
            }
            _ => {}
        }
    }

    fn finish(mut self) -> MemoryByKind {
        self.close(None);
        self.memory
    }

    /// Counts the mapping that is complete, now that its neighbours are known.
    fn close(&mut self, next: Option<Mapping>) {
        let Some(mapping) = self.current.take() else { return };
        let before = self.before.replace(mapping).filter(|before| before.end == mapping.start);
        let next = next.filter(|next| next.start == mapping.end);
        let size = mapping.end - mapping.start;
        let is_guarded = before.is_some_and(|before| before.is_barred && before.end - before.start <= GUARD);
        let is_stack = is_guarded && size <= LARGEST_STACK;
        let (kind, v8) = kind_of(mapping, before, next, is_stack);
        self.memory.add(kind, mapping.resident);
        let held = mapping.resident.saturating_add(mapping.swapped);
        self.memory.held = self.memory.held.saturating_add(held);
        if v8 {
            self.memory.v8_held = self.memory.v8_held.saturating_add(held);
        }
        let worker = !mapping.is_code && mapping.backing == Backing::Nothing && is_stack;
        self.memory.workers += u32::from(worker && size == WORKER_STACK);
    }
}

/// What kind of memory a mapping is, and whether it is V8's.
fn kind_of(mapping: Mapping, before: Option<Mapping>, next: Option<Mapping>, is_stack: bool) -> (MemoryKind, bool) {
    let Mapping { start, end, .. } = mapping;
    if let Backing::Known(kind) = mapping.backing {
        return (kind, false);
    }
    let size_of = |other: Mapping| other.end - other.start;
    let reserved = next.filter(|next| next.is_barred);
    let is_wasm = reserved.is_some_and(|reserved| {
        size_of(reserved) >= WASM_RESERVATION && (reserved.end - start).is_multiple_of(WASM_RESERVATION)
    });
    if is_wasm && start >= V8_BELOW {
        return (MemoryKind::Wasm, false);
    }
    if mapping.is_code {
        return (MemoryKind::CodeAndStacks, true);
    }
    // What a program has of variables without a first value lies right behind its file.
    let is_of_program = before
        .is_some_and(|before| before.backing == Backing::Known(MemoryKind::Files) && before.is_writable)
        && mapping.is_writable;
    if is_of_program {
        return (MemoryKind::Files, false);
    }
    if start < V8_BELOW {
        let is_segment = start >= SEGMENTS_FROM && start.is_multiple_of(SEGMENT) && end - start >= LEAST_SEGMENT;
        let kind = if is_segment { MemoryKind::OwnAllocator } else { MemoryKind::JsHeap };
        return (kind, kind == MemoryKind::JsHeap);
    }
    let is_arena = start.is_multiple_of(ARENA) && reserved.is_some_and(|reserved| reserved.end.is_multiple_of(ARENA));
    (if is_stack && !is_arena { MemoryKind::CodeAndStacks } else { MemoryKind::Malloc }, false)
}

/// Reads the first line of a mapping: `55d0-55e0 rw-p 00000000 00:00 0   [heap]`.
fn header(line: &[u8]) -> Option<Mapping> {
    let line = std::str::from_utf8(line.get(..line.len().min(512))?.split(|byte| !byte.is_ascii()).next()?).ok()?;
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    let access = words.next()?.as_bytes();
    let inode = words.nth(2)?;
    let name = words.next().unwrap_or_default().trim_start();
    (start <= end && access.len() == 4).then(|| Mapping {
        start,
        end,
        is_barred: access.starts_with(b"---"),
        is_writable: access[1] == b'w',
        is_code: access[2] == b'x',
        backing: backing(name, inode != "0", access[3] == b's'),
        ..Mapping::default()
    })
}

fn backing(name: &str, has_file: bool, is_shared: bool) -> Backing {
    const SHARED: [&str; 5] = ["/memfd:", "/dev/shm/", "/SYSV", "/dev/zero", "anon_inode:"];
    let kind = match name {
        "[heap]" => MemoryKind::Malloc,
        "[stack]" | "[vdso]" | "[vvar]" | "[vvar_vclock]" | "[vsyscall]" => MemoryKind::CodeAndStacks,
        _ if name.starts_with("[anon_shmem:") => MemoryKind::SharedMemory,
        _ if name.starts_with("[anon:") && name.contains("malloc") => MemoryKind::Malloc,
        _ if has_file && SHARED.iter().any(|begin| name.starts_with(begin)) => MemoryKind::SharedMemory,
        _ if has_file => MemoryKind::Files,
        _ if is_shared => MemoryKind::SharedMemory,
        _ => return Backing::Nothing,
    };
    Backing::Known(kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each mapping with what it holds in KiB, and the kind it is of.
    const MAPPINGS: &[(&str, u64, Option<MemoryKind>)] = &[
        ("00400000-0563e000 r-xp 00000000 fe:00 247584    /usr/bin/node", 40_000, Some(MemoryKind::Files)),
        ("0563e000-0565d000 rw-p 0523d000 fe:00 247584    /usr/bin/node", 124, Some(MemoryKind::Files)),
        ("0565d000-05689000 rw-p 00000000 00:00 0 ", 17, Some(MemoryKind::Files)),
        ("05700000-05702000 rw-p 00000000 00:00 0 ", 8, Some(MemoryKind::JsHeap)),
        ("05703000-0573f000 r-xp 00000000 00:00 0 ", 100, Some(MemoryKind::CodeAndStacks)),
        ("1b83c000-1baff000 rw-p 00000000 00:00 0         [heap]", 2_000, Some(MemoryKind::Malloc)),
        ("bf6d5c0000-bf6d600000 rw-p 00000000 00:00 0 ", 256, Some(MemoryKind::JsHeap)),
        // A segment of an add-on's allocator, and one of V8's large objects.
        ("20002000000-20004000000 rw-p 00000000 00:00 0 ", 30_000, Some(MemoryKind::OwnAllocator)),
        ("3f952fe40000-3f9533e40000 rw-p 00000000 00:00 0 ", 60_000, Some(MemoryKind::JsHeap)),
        // A memory of WebAssembly, aligned like an arena.
        ("7f0000000000-7f0004000000 rw-p 00000000 00:00 0 ", 65_536, Some(MemoryKind::Wasm)),
        ("7f0004000000-7f0200000000 ---p 00000000 00:00 0 ", 0, None),
        // What happens to lie before the reservation of another one is none.
        ("7f1000000000-7f1000300000 rw-p 00000000 00:00 0 ", 3_000, Some(MemoryKind::Malloc)),
        ("7f1000300000-7f1080300000 ---p 00000000 00:00 0 ", 0, None),
        ("7f1080300000-7f1080330000 rw-p 00000000 00:00 0 ", 192, Some(MemoryKind::Wasm)),
        ("7f1080330000-7f1280300000 ---p 00000000 00:00 0 ", 0, None),
        ("7fc17e7fd000-7fc17e7fe000 ---p 00000000 00:00 0 ", 0, None),
        ("7fc17e7fe000-7fc17effe000 rw-p 00000000 00:00 0 ", 12, Some(MemoryKind::CodeAndStacks)),
        ("7fc17effe000-7fc17efff000 ---p 00000000 00:00 0 ", 0, None),
        ("7fc17efff000-7fc17f3ff000 rw-p 00000000 00:00 0 ", 90, Some(MemoryKind::CodeAndStacks)),
        ("7fc180000000-7fc180021000 rw-p 00000000 00:00 0 ", 132, Some(MemoryKind::Malloc)),
        ("7fc180021000-7fc184000000 ---p 00000000 00:00 0 ", 0, None),
        ("7fc184100000-7fc186100000 rw-p 00000000 00:00 0 ", 9_000, Some(MemoryKind::Malloc)),
        ("7fc186200000-7fc186300000 r--s 00000000 00:01 77     /dev/shm/a b", 800, Some(MemoryKind::SharedMemory)),
        ("7fc186400000-7fc186500000 rw-s 00000000 00:01 78     /memfd:x (deleted)", 70, Some(MemoryKind::SharedMemory)),
        ("7fc186500000-7fc186600000 r--s 00000000 fe:00 79     /var/data.mdb", 1_000, Some(MemoryKind::Files)),
        ("7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0     [stack]", 40, Some(MemoryKind::CodeAndStacks)),
        ("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]", 0, None),
    ];

    fn text() -> String {
        let mapping = |(head, resident, _): &(&str, u64, Option<MemoryKind>)| {
            format!("{head}\nSize:   1 kB\nRss:     {resident} kB\nShared_Clean: 5 kB\nSwap:   2 kB\nSwapPss: 9 kB\n")
        };
        MAPPINGS.iter().map(mapping).collect()
    }

    fn read_text(text: &str) -> MemoryByKind {
        let mut mappings = Mappings::default();
        text.lines().for_each(|line| mappings.line(line.as_bytes()));
        mappings.finish()
    }

    #[test]
    fn every_mapping_has_its_kind_and_the_sum_is_what_is_resident() {
        let memory = read_text(&text());
        for kind in MemoryKind::ALL {
            let of_kind = MAPPINGS.iter().filter(|(.., of)| *of == Some(kind));
            let expected: u64 = of_kind.map(|(_, resident, _)| resident).sum();
            assert_eq!(memory.of(kind), Bytes(expected << 10), "{kind:?}");
        }
        let all: u64 = MAPPINGS.iter().map(|(_, resident, _)| resident).sum();
        assert_eq!(memory.resident(), Bytes(all << 10));
        assert_eq!(memory.held, Bytes((all + 2 * MAPPINGS.len() as u64) << 10));
        // Its heaps and its code, with what of them is in swap.
        assert_eq!(memory.v8_held, Bytes((8 + 100 + 256 + 60_000 + 4 * 2) << 10));
        assert_eq!(memory.workers, 1);
    }

    #[test]
    fn a_file_is_read_in_pieces_and_one_that_is_not_ours_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("smaps");
        std::fs::write(&file, text().repeat(40)).unwrap();
        let memory = read(&file, &mut Vec::new()).unwrap();
        assert_eq!(memory.resident(), Bytes(40 * read_text(&text()).resident().0));
        assert_eq!(read(&folder.path().join("gone"), &mut Vec::new()), Err("it has just ended"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "([0-9a-f]{1,16}-[0-9a-f]{1,17} [rwxps-]{4} [0-9]{1,3} |Rss: |\\PC|\n){0,60}") {
            let memory = read_text(&text);
            prop_assert!(memory.v8_held <= memory.held);
        }
    }
}

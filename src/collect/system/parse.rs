//! Reading the texts of `/proc`: pure, and lenient about what a kernel of another age leaves out.

use crate::model::Bytes;

/// What is used of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The process id.
    pub pid: u32,
    /// Whether it has ended and only waits for its parent.
    pub is_dead: bool,
    /// Its parent.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// CPU time spent in user and kernel mode, in clock ticks.
    pub cpu_ticks: u64,
    /// Threads.
    pub threads: u64,
    /// Start in clock ticks after boot.
    pub start_ticks: u64,
}

/// Reads `/proc/<pid>/stat`. The command stands in parentheses and may itself hold parentheses, blanks and line ends.
pub fn stat(text: &[u8]) -> Option<Stat> {
    let open = memchr::memchr(b'(', text)?;
    let close = memchr::memrchr(b')', text)?;
    let pid = number(text.get(..open)?.trim_ascii())?;
    // Numbered as in proc_pid_stat(5), where the state is field 3.
    let mut fields = Words(text.get(close + 1..)?);
    let state = fields.next()?;
    let parent = number(fields.next()?)?;
    // The kernel's own have group 0; what is no number is none.
    let group = number(fields.next()?).unwrap_or(0);
    let user: u64 = number(fields.nth(14 - 6)?)?;
    let system: u64 = number(fields.next()?)?;
    let threads = number(fields.nth(20 - 16)?)?;
    let start_ticks = number(fields.nth(22 - 21)?)?;
    let is_dead = matches!(state, b"Z" | b"X" | b"x");
    Some(Stat { pid, is_dead, parent, group, cpu_ticks: user.saturating_add(system), threads, start_ticks })
}

/// What `/proc/<pid>/statm` tells of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statm {
    /// Resident memory.
    pub resident: Bytes,
    /// The anonymous part of it.
    pub anonymous: Bytes,
}

/// Reads `/proc/<pid>/statm`, whose figures are pages of `page` bytes.
pub fn statm(text: &[u8], page: u64) -> Option<Statm> {
    let mut pages = Words(text).skip(1).map(number::<u64>);
    let (resident, shared) = (pages.next()??, pages.next()??);
    let bytes = |pages: u64| Bytes(pages.saturating_mul(page));
    // What is not anonymous is mapped from files or shared, and both are in the third figure.
    Some(Statm { resident: bytes(resident), anonymous: bytes(resident.saturating_sub(shared)) })
}

/// The pid that was given last, from `/proc/loadavg`; none where it is not told.
pub fn last_pid(text: &[u8]) -> Option<u32> {
    number(Words(text).nth(4)?).filter(|pid| *pid > 0)
}

/// Whether any memory of the machine is in swap, from `/proc/swaps`; none where the text is of another kind.
pub fn swaps_are_used(text: &[u8]) -> Option<bool> {
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let place = Words(lines.next()?).position(|word| word == b"Used")?;
    let mut used = false;
    for line in lines {
        // Blanks in a file's name are written as escapes.
        used |= number::<u64>(Words(line).nth(place)?)? > 0;
    }
    Some(used)
}

/// The words of a text, between blanks and tabs.
struct Words<'t>(&'t [u8]);

impl<'t> Iterator for Words<'t> {
    type Item = &'t [u8];

    fn next(&mut self) -> Option<&'t [u8]> {
        let text = self.0.trim_ascii_start();
        let mut end = 0;
        while end < text.len() && !text[end].is_ascii_whitespace() {
            end += 1;
        }
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

fn number<N: std::str::FromStr>(word: &[u8]) -> Option<N> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// What is used of `/proc/<pid>/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// Resident memory.
    pub resident: Bytes,
    /// The anonymous part of it (Linux 4.5 and later).
    pub anonymous: Option<Bytes>,
    /// Memory in swap.
    pub swapped: Option<Bytes>,
    /// Virtual memory.
    pub virtual_memory: Bytes,
    /// How many pid namespaces lie between us and the process, itself included; one where it lives in ours.
    pub namespaces: usize,
    /// The pid by which the process knows itself.
    pub innermost_pid: Option<u32>,
}

/// Reads `/proc/<pid>/status`. A process without memory of its own (a kernel thread, a dead one) has zeros.
pub fn status(text: &[u8]) -> Status {
    let mut status = Status::default();
    for line in text.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = &line[colon + 1..];
        match &line[..colon] {
            b"NSpid" => {
                let pids = std::str::from_utf8(value).unwrap_or_default().split_ascii_whitespace();
                for pid in pids {
                    status.namespaces += 1;
                    status.innermost_pid = pid.parse().ok();
                }
            }
            b"VmSize" => status.virtual_memory = kibibytes(value).unwrap_or_default(),
            b"VmRSS" => status.resident = kibibytes(value).unwrap_or_default(),
            b"RssAnon" => status.anonymous = kibibytes(value),
            b"VmSwap" => {
                status.swapped = kibibytes(value);
                break; // nothing that is used stands below
            }
            _ => {}
        }
    }
    status
}

/// What a process does with each signal: bit n − 1 stands for signal n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SignalMasks {
    /// Held back.
    pub blocked: u64,
    /// Thrown away.
    pub ignored: u64,
    /// Handled by code of its own.
    pub caught: u64,
}

/// Reads the signal masks from `/proc/<pid>/status`.
pub fn signal_masks(text: &[u8]) -> Option<SignalMasks> {
    let mask = |name: &str| {
        let mut lines = text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        u64::from_str_radix(value.trim(), 16).ok()
    };
    Some(SignalMasks { blocked: mask("SigBlk")?, ignored: mask("SigIgn")?, caught: mask("SigCgt")? })
}

/// Reads the real, effective, saved and file system user from `/proc/<pid>/status`.
pub fn users(text: &[u8]) -> Option<[u32; 4]> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    let mut users = Words(line).map(number::<u32>);
    Some([users.next()??, users.next()??, users.next()??, users.next()??])
}

/// Reads a figure such as `   12 kB`.
pub(super) fn kibibytes(value: &[u8]) -> Option<Bytes> {
    let number = std::str::from_utf8(value).ok()?.trim().strip_suffix("kB")?.trim_end();
    number.parse::<u64>().ok()?.checked_mul(1024).map(Bytes)
}

/// Reads the first figure of `/proc/uptime`: milliseconds since boot, times of sleep included.
pub fn uptime_ms(text: &str) -> Option<i64> {
    let seconds: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, reason = "bounded first")]
    (0.0..1e12).contains(&seconds).then_some((seconds * 1000.0) as i64)
}

/// Reads the total and the available memory from `/proc/meminfo`; where the kernel does not tell the latter (before 3.14)
/// it is free memory and page cache together.
pub fn meminfo(text: &str) -> Option<(Bytes, Bytes)> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        kibibytes(line.as_bytes())
    };
    let available = value("MemAvailable").or_else(|| Some(value("MemFree")?.saturating_add(value("Cached")?)))?;
    Some((value("MemTotal")?, available))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATUS: &str = "Name:\tnode\nPid:\t42\nPPid:\t7\nNSpid:\t42\t3\nVmPeak:\t  900 kB\nVmSize:\t  800 kB\nVmRSS:\t   \
        55000 kB\nRssAnon:\t   20000 kB\nRssFile:\t   35000 kB\nVmSwap:\t     12 kB\nThreads:\t11\nVmRSS:\t1 kB\n";

    #[test]
    fn stat_reads_through_any_command_name() {
        let rest = "S 7 42 42 0 -1 4194304 1 2 3 4 150 50 9 9 20 0 11 0 163425 1000 500 18446744073709551615 1 1 1 0";
        let expected =
            Stat { pid: 42, is_dead: false, parent: 7, group: 42, cpu_ticks: 200, threads: 11, start_ticks: 163_425 };
        for name in ["node", "a b", "x) S 1 (y", "(", ")", "", "two\nlines", "\u{fffd}"] {
            assert_eq!(stat(format!("42 ({name}) {rest}\n").as_bytes()), Some(expected), "{name}");
        }
        assert!(stat(format!("42 (node) {}", rest.replacen('S', "Z", 1)).as_bytes()).unwrap().is_dead);
        assert!(stat(b"5 (kworker/0:1) I 2 0 0 0 -1 69238880 0 0 0 0 0 9 0 0 20 0 1 0 7").is_some());
        for broken in ["", "42", "42 (node)", "42 (node) S 7", "x (node) S 7", ") 42 ("] {
            assert_eq!(stat(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn status_reads_memory_and_namespaces() {
        let expected = Status {
            resident: Bytes(55_000 << 10),
            anonymous: Some(Bytes(20_000 << 10)),
            swapped: Some(Bytes(12 << 10)),
            virtual_memory: Bytes(800 << 10),
            namespaces: 2,
            innermost_pid: Some(3),
        };
        assert_eq!(status(STATUS.as_bytes()), expected);
        assert_eq!(status(b"Name:\tkworker\nThreads:\t1\n"), Status::default());
        let old = status(b"VmRSS:\t 5 kB\nVmSwap:\t garbage\n");
        assert_eq!((old.resident, old.anonymous, old.swapped), (Bytes(5120), None, None));
    }

    #[test]
    fn statm_counts_pages() {
        let expected = Statm { resident: Bytes(50 << 12), anonymous: Bytes(20 << 12) };
        assert_eq!(statm(b"200 50 30 1 0 90 0\n", 4096), Some(expected));
        assert_eq!(statm(b"0 0 0 0 0 0 0\n", 4096).map(|statm| statm.resident), Some(Bytes(0)));
        for broken in ["", "200", "200 50", "200 x 30"] {
            assert_eq!(statm(broken.as_bytes(), 4096), None, "{broken}");
        }
    }

    #[test]
    fn swap_is_used_where_a_device_says_so() {
        let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        let device =
            |used: &str| format!("/swap\\040file                            file\t\t8388604\t\t{used}\t\t-2\n");
        for (devices, expected) in [
            (String::new(), Some(false)),
            (device("0"), Some(false)),
            (device("0") + &device("12"), Some(true)),
            (device("much"), None),
            ("/swapfile\n".to_owned(), None),
        ] {
            assert_eq!(swaps_are_used(format!("{head}{devices}").as_bytes()), expected, "{devices}");
        }
        assert_eq!(swaps_are_used(b""), None);
        assert_eq!(swaps_are_used(b"something else\n"), None);
    }

    #[test]
    fn the_last_pid_is_the_last_word_of_the_load() {
        assert_eq!(last_pid(b"0.52 0.40 0.31 1/254 26213\n"), Some(26_213));
        // Where it is made up, nobody knows.
        for other in ["0.00 0.00 0.00 0/0 0\n", "0.52 0.40 0.31 1/254", "0.52 0.40 0.31 1/254 many", ""] {
            assert_eq!(last_pid(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn signal_masks_are_hexadecimal() {
        let text = b"Name:\tnode\nSigQ:\t6/9\nSigBlk:\t0000000000000000\nSigIgn:\t0000000001001000\n\
            SigCgt:\t0000000100004602\n";
        assert_eq!(signal_masks(text), Some(SignalMasks { blocked: 0, ignored: 0x0100_1000, caught: 0x1_0000_4602 }));
        assert_eq!(signal_masks(b"SigBlk:\t0\nSigCgt:\t0\n"), None);
        assert_eq!(signal_masks(b"SigBlk:\t0\nSigIgn:\tnone\nSigCgt:\t0\n"), None);
    }

    #[test]
    fn host_figures() {
        assert_eq!(uptime_ms("1682.61 2778.53\n"), Some(1_682_610));
        assert_eq!(uptime_ms("soon"), None);
        assert_eq!(
            meminfo("MemTotal:  100 kB\nMemFree: 5 kB\nMemAvailable:   40 kB\n"),
            Some((Bytes(102_400), Bytes(40_960)))
        );
        assert_eq!(meminfo("MemTotal: 100 kB\nMemFree: 5 kB\nCached: 6 kB\n"), Some((Bytes(102_400), Bytes(11_264))));
        assert_eq!(meminfo("MemTotal: 100 kB\n"), None);
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
            let _ = stat(&bytes);
            let _ = status(&bytes);
            let _ = (statm(&bytes, 4096), last_pid(&bytes), swaps_are_used(&bytes), swaps_are_used(text.as_bytes()));
            let _ = (stat(text.as_bytes()), status(text.as_bytes()), uptime_ms(&text), meminfo(&text));
        }
    }
}

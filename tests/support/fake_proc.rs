//! A process file system made of plain files.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// One process of a fake system.
#[derive(Debug, Clone)]
pub struct FakeProcess {
    /// Its pid.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// Resident memory in kibibytes; half of it is anonymous.
    pub resident_kib: u64,
    /// Swapped memory in kibibytes.
    pub swapped_kib: u64,
    /// Start in ticks after boot.
    pub start_ticks: u64,
    /// `S`, or `Z` for a dead one.
    pub state: char,
    /// The pids it has in namespaces below ours, outermost first.
    pub inner_pids: Vec<u32>,
    /// The text of its `cgroup` file.
    pub cgroup: String,
    /// Its title.
    pub title: String,
    /// Open files.
    pub open_fds: usize,
}

impl FakeProcess {
    /// A process that holds 1,000 kibibytes.
    pub fn new(pid: u32, parent: u32) -> Self {
        Self {
            pid,
            parent,
            resident_kib: 1000,
            swapped_kib: 0,
            start_ticks: 5000,
            state: 'S',
            inner_pids: Vec::new(),
            cgroup: "0::/\n".to_owned(),
            title: "node app.js".to_owned(),
            open_fds: 3,
        }
    }

    /// The same with this much resident memory.
    pub fn resident(mut self, kibibytes: u64) -> Self {
        self.resident_kib = kibibytes;
        self
    }
}

/// The folder, until it is dropped.
#[derive(Debug)]
pub struct FakeProc {
    folder: TempDir,
}

impl FakeProc {
    /// A system that has been up for a hundred seconds, with these processes.
    pub fn new(processes: &[FakeProcess]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let proc = Self { folder };
        proc.write("uptime", "100.00 150.00\n");
        proc.write("meminfo", "MemTotal:       2000 kB\nMemFree:  100 kB\nMemAvailable:    1500 kB\n");
        let groups = proc.path().join("cgroup-fs");
        proc.write("self/mountinfo", &format!("30 23 0:26 / {} rw - cgroup2 cgroup2 rw\n", groups.display()));
        for process in processes {
            proc.add(process);
        }
        proc
    }

    /// The root.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file below the root.
    pub fn write(&self, path: &str, text: &str) {
        let file: PathBuf = self.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// Adds a process, or changes one.
    pub fn add(&self, process: &FakeProcess) {
        let FakeProcess { pid, parent, resident_kib, swapped_kib, start_ticks, state, .. } = process;
        self.write(
            &format!("{pid}/stat"),
            &format!(
                "{pid} (a (b) c) {state} {parent} 1 1 0 -1 4194304 1 2 3 4 150 50 9 9 20 0 11 0 {start_ticks} 1000 500 1 1\n"
            ),
        );
        let pids: Vec<String> = process.inner_pids.iter().map(|pid| format!("\t{pid}")).collect();
        let inner = pids.concat();
        self.write(
            &format!("{pid}/status"),
            &format!(
                "Name:\tx\nPPid:\t{parent}\nNSpid:\t{pid}{inner}\nVmSize:\t  9000 kB\nVmRSS:\t  {resident_kib} kB\nRssAnon:\t  {} kB\nVmSwap:\t  {swapped_kib} kB\nThreads:\t11\n",
                resident_kib / 2
            ),
        );
        self.write(&format!("{pid}/cgroup"), &process.cgroup);
        self.write(&format!("{pid}/cmdline"), &process.title);
        for number in 0..process.open_fds {
            self.write(&format!("{pid}/fd/{number}"), "");
        }
    }

    /// Ends a process.
    pub fn remove(&self, pid: u32) {
        fs::remove_dir_all(self.path().join(pid.to_string())).unwrap();
    }
}

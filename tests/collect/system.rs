//! Reading the system from a fake `/proc`, and real processes from the real one.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::fake_daemon::{Behaviour, FakeDaemon, entry};
use crate::support::fake_proc::{FakeProc, FakeProcess};
use crate::support::{steady, wall};
use leakslope::collect::system::{MemoryRoom, SystemReader, SystemReading, own_sample};
use leakslope::collect::{Collector, Settings};
use leakslope::model::{Bytes, MemorySource, WallTime};

const NOW: WallTime = WallTime(1_795_393_500_000);

fn read(proc: &FakeProc, daemon: Option<u32>, pids: &[u32]) -> SystemReading {
    let pids: BTreeSet<u32> = pids.iter().copied().collect();
    SystemReader::new(proc.path().to_owned()).read(daemon, &pids, NOW).unwrap()
}

#[test]
fn a_process_and_its_tree() {
    let proc = FakeProc::new(&[
        FakeProcess::new(1, 0),
        FakeProcess::new(7, 1).resident(60_000),
        FakeProcess { swapped_kib: 5, open_fds: 12, ..FakeProcess::new(100, 7).resident(50_000) },
        FakeProcess { swapped_kib: 20, ..FakeProcess::new(101, 100).resident(2000) }, // npm's shell
        FakeProcess::new(102, 101).resident(300_000),                                 // the real app
        FakeProcess { state: 'Z', ..FakeProcess::new(103, 101) },
        FakeProcess::new(200, 7).resident(40_000), // another app
    ]);
    let reading = read(&proc, Some(7), &[100, 200, 300]);
    assert_eq!((reading.daemon_resident, reading.daemon_seen), (Some(Bytes(60_000 << 10)), true));
    assert_eq!(reading.processes.keys().copied().collect::<Vec<_>>(), [100, 200]);
    let app = &reading.processes[&100];
    let sample = &app.sample;
    assert_eq!((app.parent, sample.resident, sample.tree_processes), (7, Bytes(50_000 << 10), 3));
    assert_eq!(sample.tree_resident, Bytes(352_000 << 10));
    assert_eq!((sample.swapped, sample.tree_swapped), (Some(Bytes(5 << 10)), Bytes(25 << 10)));
    assert_eq!((sample.anonymous, sample.open_fds, sample.threads), (Some(Bytes(25_000 << 10)), Some(12), Some(11)));
    assert_eq!((sample.cpu_milliseconds, sample.start_ticks), (2000, 5000));
    assert_eq!(sample.started_at_ms, NOW.0 - 100_000 + 50_000);
    assert_eq!(reading.processes[&200].sample.tree_processes, 1);
}

#[test]
fn whoever_is_no_kin_is_passed_over_until_it_may_have_become_another() {
    let proc = FakeProc::new(&[
        FakeProcess::new(7, 1),
        FakeProcess::new(100, 7).resident(1000),
        FakeProcess::new(300, 1),
        FakeProcess::new(400, 1),
    ]);
    let mut reader = SystemReader::new(proc.path().to_owned());
    let mut tree = |listed: &[u32]| {
        let listed = listed.iter().copied().collect();
        let reading = reader.read(Some(7), &listed, NOW).unwrap();
        reading.processes.iter().map(|(pid, app)| (*pid, app.sample.tree_resident.0 >> 10)).collect::<Vec<_>>()
    };
    assert_eq!(tree(&[100]), [(100, 1000)]);
    // A new process is seen at once, whoever its parent is.
    proc.add(&FakeProcess::new(101, 100).resident(10));
    assert_eq!(tree(&[100]), [(100, 1010)]);
    // A pid that was a stranger's is believed after a while, or as soon as pm2 lists something else.
    proc.add(&FakeProcess::new(300, 101).resident(5));
    assert_eq!(tree(&[100]), [(100, 1010)]);
    let later: Vec<_> = (0..20).map(|_| tree(&[100])).collect();
    assert_eq!(later.last().unwrap(), &[(100, 1015)], "{later:?}");
    proc.add(&FakeProcess::new(400, 7).resident(7));
    proc.add(&FakeProcess::new(401, 400).resident(3));
    assert_eq!(tree(&[100, 400]), [(100, 1015), (400, 10)]);
}

#[test]
fn a_loop_of_parents_ends() {
    let proc = FakeProc::new(&[FakeProcess::new(100, 102), FakeProcess::new(101, 100), FakeProcess::new(102, 101)]);
    assert_eq!(read(&proc, None, &[100]).processes[&100].sample.tree_processes, 3);
}

#[test]
fn the_dead_are_not_read() {
    let proc = FakeProc::new(&[FakeProcess { state: 'Z', ..FakeProcess::new(100, 7) }, FakeProcess::new(101, 7)]);
    proc.write("101/status", "");
    proc.write("102/stat", "102 (half");
    let reading = read(&proc, Some(7), &[100, 101, 102]);
    assert_eq!(reading.processes.keys().copied().collect::<Vec<_>>(), [101]);
    assert_eq!(reading.processes[&101].sample.resident, Bytes(0));
    assert!(!reading.daemon_seen);
}

#[test]
fn pids_of_a_namespace_below_ours_are_found_by_their_inner_number() {
    let inside = |pid, parent, inner: u32| FakeProcess { inner_pids: vec![inner], ..FakeProcess::new(pid, parent) };
    let proc = FakeProc::new(&[
        FakeProcess::new(1, 0),
        inside(5000, 1, 1),
        inside(5010, 5000, 17).resident(70_000),
        inside(5011, 5000, 18).resident(80_000),
        FakeProcess::new(17, 1).resident(1), // the host's own 17 is somebody else
    ]);
    let reading = read(&proc, Some(5000), &[17, 18, 19]);
    let told: Vec<_> = reading.processes.iter().map(|(pid, reading)| (*pid, reading.sample.resident)).collect();
    assert_eq!(told, [(17, Bytes(70_000 << 10)), (18, Bytes(80_000 << 10))]);
}

#[test]
fn the_limit_of_the_nearest_and_of_every_group_above_counts() {
    let group = |pid, path: &str| FakeProcess { cgroup: format!("0::{path}\n"), ..FakeProcess::new(pid, 1) };
    let proc = FakeProc::new(&[group(10, "/pm2.slice/api"), group(11, "/pm2.slice/free"), group(12, "/other")]);
    proc.write("cgroup-fs/pm2.slice/api/memory.max", "100000\n");
    proc.write("cgroup-fs/pm2.slice/free/memory.max", "max\n");
    proc.write("cgroup-fs/pm2.slice/memory.max", "200000\n");
    let reading = read(&proc, None, &[10, 11, 12]);
    let limits: Vec<_> = reading.processes.values().map(|process| process.cgroup_limit).collect();
    assert_eq!(limits, [Some(Bytes(100_000)), Some(Bytes(200_000)), None]);
}

#[test]
fn a_limit_that_changes_is_seen_within_four_readings() {
    let proc = FakeProc::new(&[FakeProcess { cgroup: "0::/pm2.slice\n".to_owned(), ..FakeProcess::new(10, 1) }]);
    let mut reader = SystemReader::new(proc.path().to_owned());
    let mut limit = || reader.read(None, &[10].into(), NOW).unwrap().processes[&10].cgroup_limit;
    for bytes in [100_000, 200_000] {
        proc.write("cgroup-fs/pm2.slice/memory.max", &format!("{bytes}\n"));
        assert_eq!((0..4).map(|_| limit()).last(), Some(Some(Bytes(bytes))));
    }
}

#[test]
fn what_is_left_to_a_process_is_what_the_machine_has_or_its_group_whichever_is_less() {
    let group = |pid, path: &str| FakeProcess { cgroup: format!("0::{path}\n"), ..FakeProcess::new(pid, 1) };
    let proc = FakeProc::new(&[group(10, "/tight/api"), group(11, "/wide"), group(12, "/other")]);
    for (path, limit, usage) in [("tight", 1_000_000, 900_000), ("wide", 1 << 30, 0)] {
        proc.write(&format!("cgroup-fs/{path}/memory.max"), &format!("{limit}\n"));
        proc.write(&format!("cgroup-fs/{path}/memory.current"), &format!("{usage}\n"));
    }
    proc.write("cgroup-fs/tight/memory.stat", "anon 800000\ninactive_file 100000\n");
    let mut reader = SystemReader::new(proc.path().to_owned());
    let machine = MemoryRoom { left: Bytes(1500 << 10), group_limit: None };
    let tight = MemoryRoom { left: Bytes(200_000), group_limit: Some(Bytes(1_000_000)) };
    for (pid, room) in [(10, tight), (11, machine), (12, machine), (13, machine)] {
        assert_eq!(reader.room(pid).unwrap(), room, "{pid}");
    }
    assert_eq!(tight.to_string(), "its control group has 195 KiB left of 977 KiB");
    assert_eq!(machine.to_string(), "the machine has 1.46 MiB available");
}

#[test]
fn the_boot_time_is_steady_against_jitter_but_follows_a_step() {
    let proc = FakeProc::new(&[FakeProcess::new(10, 1)]);
    let mut reader = SystemReader::new(proc.path().to_owned());
    let mut started =
        |wall: i64| reader.read(None, &[10].into(), WallTime(wall)).unwrap().processes[&10].sample.started_at_ms;
    let first = started(NOW.0);
    assert_eq!(started(NOW.0 + 40), first);
    assert_eq!(started(NOW.0 - 900), first);
    assert_eq!(started(NOW.0 + 3_600_000), first + 3_600_000);
}

#[test]
fn a_missing_proc_says_so() {
    let error = SystemReader::new(PathBuf::from("/nonexistent")).read(None, &BTreeSet::new(), NOW).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/uptime: cannot be read"), "{error}");
    let proc = FakeProc::new(&[]);
    proc.write("uptime", "hunter2");
    let error = SystemReader::new(proc.path().to_owned()).read(None, &BTreeSet::new(), NOW).unwrap_err();
    assert!(error.to_string().ends_with("/uptime: holds no uptime"), "{error}");
}

#[test]
fn the_host_by_sysinfo_and_by_another_proc() {
    let host = SystemReader::new(PathBuf::from("/proc")).host().unwrap();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = meminfo.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(host.memory_total, Bytes(total << 10));
    assert!(host.memory_available.0 > 0 && host.memory_available < host.memory_total);
    assert!(SystemReader::new(PathBuf::from("/nonexistent")).host().is_err());
    let proc = FakeProc::new(&[]);
    let host = SystemReader::new(proc.path().to_owned()).host().unwrap();
    assert_eq!((host.memory_total, host.memory_available), (Bytes(2000 << 10), Bytes(1500 << 10)));
}

#[test]
fn the_sidecar_reads_itself() {
    let own = own_sample(wall()).unwrap();
    assert!(own.resident > Bytes(1 << 20) && own.virtual_memory >= own.resident, "{own:?}");
    assert!(own.open_fds >= 3 && own.max_fds >= own.open_fds && own.threads >= 1, "{own:?}");
    let age = wall().as_seconds() - own.start_time_seconds;
    assert!((-1.0..600.0).contains(&age), "{age}");
}

/// Processes of our own, ended on drop.
struct Children(Vec<Child>);

impl Children {
    fn start(count: usize) -> Self {
        let start = |_| Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        Self((0..count).map(start).collect())
    }

    fn pids(&self) -> Vec<u32> {
        self.0.iter().map(Child::id).collect()
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ended = child.kill();
            let _waited = child.wait();
        }
    }
}

#[tokio::test]
async fn real_children_are_told_from_reused_pids() {
    let children = Children::start(2);
    let [own, other] = children.pids()[..] else { panic!("two children") };
    // The fake daemon listens in this very process, so our children are its apps, and pid 1 is not.
    let dead = { Children::start(1).pids()[0] };
    let mut waiting = entry(4, other);
    waiting["pm2_env"]["status"] = "waiting restart".into();
    let list = serde_json::json!([entry(0, own), entry(1, 1), entry(2, dead), entry(3, 0), waiting]);
    let daemon = FakeDaemon::start(Behaviour::List(list.to_string()));
    let mut collector = Collector::new(vec![daemon.spec("default")], Settings::default());
    let sample = collector.collect(steady(), wall()).await.daemons.remove(0);
    assert_eq!(sample.pid, Some(std::process::id()));
    assert!(sample.resident.is_some_and(|resident| resident > Bytes(1 << 20)));
    assert_eq!(sample.reports[1].failure, None);
    let told: Vec<_> = sample
        .processes
        .iter()
        .map(|process| (process.system.is_some(), process.resident_source, process.life.is_some()))
        .collect();
    assert_eq!(
        told,
        [
            (true, Some(MemorySource::System), true),
            (false, None, false),                   // somebody else has the pid
            (false, Some(MemorySource::Pm2), true), // just ended, or out of sight
            (false, None, false),                   // no pid
            (false, None, false),                   // waiting for its restart
        ]
    );
    let system = sample.processes[0].system.as_ref().unwrap();
    assert!(system.resident > Bytes(200 << 10) && system.resident < Bytes(20 << 20), "{system:?}");
    assert!((wall().0 - system.started_at_ms).abs() < 60_000, "{system:?}");
    assert!(system.open_fds.is_some_and(|fds| fds >= 3), "{system:?}");
}

#[test]
fn a_real_child_is_seen_as_soon_as_it_is_born() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "read word; sleep 1000 & wait; read word"]).stdin(Stdio::piped());
    let mut shell = Children(vec![shell.spawn().unwrap()]);
    let pid = shell.pids()[0];
    let mut reader = SystemReader::new(PathBuf::from("/proc"));
    let mut tree = || reader.read(None, &[pid].into(), wall()).unwrap().processes[&pid].sample.tree_processes;
    for _ in 0..3 {
        assert_eq!(tree(), 1);
    }
    shell.0[0].stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let children = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let begun = Instant::now();
    while children().trim().is_empty() {
        assert!(begun.elapsed().as_secs() < 60, "the shell starts nobody");
    }
    assert_eq!(tree(), 2);
    let child = children().trim().to_owned();
    assert!(Command::new("kill").arg(&child).status().unwrap().success());
    while children().contains(&child) {
        assert!(begun.elapsed().as_secs() < 60, "{child} does not end");
    }
    assert_eq!(tree(), 1);
}

/// Not a bound on the machine's speed, but a figure to look at (`cargo test -- --nocapture cost`).
#[test]
fn the_cost_of_reading_two_hundred_processes() {
    let children = Children::start(200);
    let pids: BTreeSet<u32> = children.pids().into_iter().collect();
    let mut reader = SystemReader::new(PathBuf::from("/proc"));
    let begun = Instant::now();
    for _ in 0..10 {
        let reading = reader.read(Some(std::process::id()), &pids, wall()).unwrap();
        assert_eq!(reading.processes.len(), 200);
    }
    let each = begun.elapsed() / 10;
    println!("200 processes among {}: {each:?}", std::fs::read_dir("/proc").unwrap().count());
    assert!(each.as_millis() < 500, "{each:?}");
}

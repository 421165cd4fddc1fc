//! The store on files that were cut, changed or replaced: it starts, says what it found, and goes on with what can be read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use leakslope::history::store::{Keeper, LifeFilter, MinuteRow, Notice, Saved, Store, StoreSettings};
use leakslope::model::{Life, LifeEnd, LifeSummary, Minute, ProcessKey, Steady, WallTime};

const FILE: &str = "history.redb";
const LIFE: Life = Life { pid: 7, started: 1 };
const WALL: WallTime = WallTime(1_750_000_000_000);

fn key(pm_id: u32) -> ProcessKey {
    ProcessKey { daemon: "default".into(), pm_id }
}

fn rows(minute: i64) -> Vec<MinuteRow> {
    (0..20_u16)
        .map(|pm_id| {
            let resident = f32::from(pm_id) * 1000.0;
            (key(u32::from(pm_id)), LIFE, Minute { resident, native: 1.0, load: 2.0, ..Minute::empty(minute) })
        })
        .collect()
}

/// A history with hours, a journal, lives, state and audit; closed properly, or as a killed process leaves it.
fn history(clean: bool) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), StoreSettings::default(), WALL).unwrap();
    for minute in 0..70 {
        store.append(&rows(minute)).unwrap();
    }
    for started in 0..30 {
        let summary = LifeSummary {
            key: key(0),
            app: "api".into(),
            life: Life { pid: 7, started },
            version: None,
            revision: None,
            first: Steady(0),
            last: Steady(1),
            end: LifeEnd::Stopped,
            floors: vec![1.0; 24],
            resident_floors: vec![1.0; 24],
            resident_max: 2.0,
            slope: None,
        };
        store.put_life(summary).unwrap();
    }
    store.put_state("policy", Some(vec![7; 5000])).unwrap();
    store.append_audit(Steady(5), vec![8; 500]).unwrap();
    if clean {
        store.close().unwrap();
    }
    fs::read(directory.path().join(FILE)).unwrap()
}

/// All that a reader can see.
#[derive(Clone, PartialEq)]
struct Seen {
    minutes: Vec<Vec<(i64, u32)>>,
    lives: usize,
    state: Option<Vec<u8>>,
    audit: usize,
}

impl Seen {
    fn brief(&self) -> String {
        let minutes: usize = self.minutes.iter().map(Vec::len).sum();
        format!("{minutes} minutes, {} lives, state {}, audit {}", self.lives, self.state.is_some(), self.audit)
    }

    /// How many minutes there are, and how many of them are not what was written.
    fn minutes_beside(&self, whole: &Self) -> (usize, usize) {
        let all =
            self.minutes.iter().zip(&whole.minutes).flat_map(|(seen, whole)| seen.iter().zip(std::iter::repeat(whole)));
        (all.clone().count(), all.filter(|(minute, whole)| !whole.contains(minute)).count())
    }
}

fn look(keeper: &mut Keeper) -> Seen {
    let now = Steady(0);
    Seen {
        minutes: (0..20)
            .map(|pm_id| {
                let minutes = keeper.minutes(&key(pm_id), LIFE, 0, now);
                minutes.iter().map(|minute| (minute.minute, minute.resident.to_bits())).collect()
            })
            .collect(),
        lives: keeper.lives(&LifeFilter::default(), now).len(),
        state: keeper.state("policy", now).ok().flatten(),
        audit: keeper.audit(0..=u64::MAX, 1000, now).len(),
    }
}

fn was_set_aside(notices: &[Notice]) -> bool {
    notices.iter().any(|notice| matches!(notice, Notice::SetAside { .. }))
}

/// Starts on a file and checks everything that must hold whatever is in it. Returns whether it was set aside.
fn start_on(bytes: &[u8], whole: &Seen, name: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(FILE), bytes).unwrap();
    let mut keeper = Keeper::open(directory.path(), StoreSettings::default(), Steady(0), WALL).unwrap();
    let seen = look(&mut keeper);
    keeper.append(rows(1000));
    let saved = keeper.flush(Steady(0), WALL);
    let notices = keeper.take_notices();
    if let Saved::InMemory(reason) = &saved {
        assert!(reason.contains("newer leakslope"), "{name}: {reason}");
        assert_eq!(fs::read(directory.path().join(FILE)).unwrap(), bytes, "{name}: it was not left alone");
        return false;
    }
    let aside = was_set_aside(&notices);
    if aside {
        let kept = set_aside_files(directory.path());
        assert_eq!(kept.len(), 1, "{name}");
        let (found, wrong) = seen.minutes_beside(whole);
        assert!(wrong <= found / 50, "{name}: {wrong} of {found} minutes are not what was written");
        let text = notices[0].to_string();
        assert!(text.contains("set aside as") && text.contains("corrupt-"), "{text}");
    } else {
        let before = Seen { audit: 0, ..whole.clone() };
        // Where the newest commit does not check, the database goes back to the one before: the last write is lost.
        assert!(seen == *whole || seen == before, "{name}: wrong figures, and nothing was said: {}", seen.brief());
    }
    assert_eq!(keeper.minutes(&key(3), LIFE, 1000, Steady(0)).len(), 1, "{name}: what is new is there");
    assert_eq!(keeper.close(Steady(0), WALL), Saved::OnDisk, "{name}");
    let mut again = Keeper::open(directory.path(), StoreSettings::default(), Steady(0), WALL).unwrap();
    assert_eq!(again.take_notices(), [], "{name}: the second start finds nothing wrong");
    assert_eq!(again.minutes(&key(3), LIFE, 1000, Steady(0)).len(), 1, "{name}");
    aside
}

fn set_aside_files(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".corrupt-20250615T")).collect()
}

fn whole(bytes: &[u8]) -> Seen {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(FILE), bytes).unwrap();
    let mut keeper = Keeper::open(directory.path(), StoreSettings::default(), Steady(0), WALL).unwrap();
    let seen = look(&mut keeper);
    assert_eq!((seen.minutes[3].len(), seen.lives, seen.audit), (70, 30, 1));
    assert_eq!(keeper.take_notices(), []);
    seen
}

/// Numbers that look random and are the same each time.
fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    })
}

#[test]
fn a_cut_file_is_set_aside() {
    for clean in [true, false] {
        let bytes = history(clean);
        let whole = whole(&bytes);
        let mut lengths: Vec<usize> = vec![1, 8, 9, 63, 64, 100, 319, 320, 4095, 4096, 4097, 8192];
        lengths.extend((1..10).map(|part| bytes.len() * part / 10));
        lengths.extend([bytes.len() - 4096, bytes.len() - 1]);
        let aside = lengths.iter().filter(|length| start_on(&bytes[..**length], &whole, &format!("cut at {length}")));
        assert!(aside.count() >= lengths.len() / 2, "nothing was noticed");
    }
}

#[test]
fn changed_bytes_are_noticed_or_do_not_matter() {
    for clean in [true, false] {
        let bytes = history(clean);
        let whole = whole(&bytes);
        let mut places: Vec<usize> = (0..320).step_by(16).collect();
        let far = numbers(11).take(30).map(|number| usize::try_from(number).unwrap() % bytes.len());
        places.extend(far);
        let mut aside = 0;
        for (place, bit) in places.iter().zip(numbers(5)) {
            let mut changed = bytes.clone();
            changed[*place] ^= 1 << (bit % 8);
            aside += u32::from(start_on(&changed, &whole, &format!("bit {} of byte {place}", bit % 8)));
        }
        assert!(aside > 6, "only {aside} changes were noticed");
    }
}

#[test]
fn blanked_and_garbled_pages_are_noticed_or_do_not_matter() {
    let bytes = history(true);
    let whole = whole(&bytes);
    let pages = bytes.len() / 4096;
    let mut aside = 0;
    for page in (0..pages).step_by(pages / 24 + 1) {
        for fill in [0, 0xff] {
            let mut changed = bytes.clone();
            changed[page * 4096..(page + 1) * 4096].fill(fill);
            aside += u32::from(start_on(&changed, &whole, &format!("page {page} filled with {fill}")));
        }
    }
    assert!(aside > 4, "only {aside} pages mattered");
}

#[test]
fn anything_else_in_its_place_is_set_aside() {
    let bytes = history(true);
    let whole = whole(&bytes);
    let noise: Vec<u8> = numbers(3).take(100_000).map(|number| number.to_le_bytes()[0]).collect();
    let headed = [&bytes[..64], &noise[..]].concat();
    for (name, content) in [
        ("text", b"this is not a database\n".to_vec()),
        ("zeros", vec![0; 50_000]),
        ("noise", noise),
        ("noise behind a header", headed),
    ] {
        assert!(start_on(&content, &whole, name), "{name}");
    }
}

#[test]
fn of_a_damaged_history_all_is_read_but_what_stood_on_the_damage() {
    for clean in [true, false] {
        let file = history(clean);
        let whole = whole(&file);
        let written: usize = whole.minutes.iter().map(Vec::len).sum();
        let (mut aside, mut read) = (0, 0);
        for seed in 0..24 {
            let mut changed = file.clone();
            let place =
                numbers(seed).next().map(|number| usize::try_from(number).unwrap() % (file.len() - 4096)).unwrap();
            changed[4096 + place] ^= 0x55;
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(FILE), &changed).unwrap();
            let mut keeper = Keeper::open(directory.path(), StoreSettings::default(), Steady(0), WALL).unwrap();
            look(&mut keeper);
            keeper.append(rows(1000));
            keeper.flush(Steady(0), WALL);
            let notices = keeper.take_notices();
            let Some(Notice::SetAside { read: told, .. }) = notices.first() else { continue };
            let seen = look(&mut keeper);
            let (found, wrong) = seen.minutes_beside(&whole);
            // Twenty are new. An hour of one process is packed together, so a changed byte that still decodes may change all of it.
            let pairs = seen.minutes.iter().zip(&whole.minutes);
            let odd = pairs.filter(|(seen, whole)| seen.iter().any(|row| row.0 < 1000 && !whole.contains(row)));
            let processes = odd.count();
            assert!(
                wrong <= 20 + 60 && processes <= 1,
                "{wrong} minutes of {processes} processes are not what was written"
            );
            assert!(usize::try_from(told.minutes).unwrap() + 20 >= found, "{told:?} of {found}");
            aside += 1;
            read += usize::from(found > written / 2);
        }
        // One that a kill left open wants repair first, and redb repairs a whole file or none.
        let told = format!("closed: {clean}: of {aside} damaged files {read} were read for the most part");
        assert!(aside >= 4 && (!clean || read * 2 >= aside), "{told}");
    }
}

#[test]
fn a_panic_over_damage_is_caught_and_not_printed() {
    use std::io::{BufRead as _, BufReader};
    use std::sync::atomic::{AtomicUsize, Ordering};
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let whole = history(true);
    let opened = |bytes: &[u8]| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), bytes).unwrap();
        drop(Keeper::open(directory.path(), StoreSettings::default(), Steady(0), WALL));
    };
    // Where the database gives up depends on its version, so a place is looked for.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(|panic| {
        let of_the_database = panic.location().is_some_and(|place| place.file().contains("/redb-"));
        PANICS.fetch_add(usize::from(of_the_database), Ordering::Relaxed);
    }));
    let damaged = (0..whole.len() - 64).step_by(256).find_map(|at| {
        let mut bytes = whole.clone();
        bytes[at..at + 64].fill(0xff);
        let before = PANICS.load(Ordering::Relaxed);
        opened(&bytes);
        (PANICS.load(Ordering::Relaxed) > before).then_some(bytes)
    });
    std::panic::set_hook(print);

    let state = tempfile::tempdir().unwrap();
    fs::create_dir(state.path().join("leakslope")).unwrap();
    fs::write(state.path().join("leakslope").join(FILE), damaged.expect("a place at which it panics")).unwrap();
    let mut sidecar = std::process::Command::new(env!("CARGO_BIN_EXE_leakslope"));
    sidecar.env_clear().env("XDG_STATE_HOME", state.path()).env("PM2_HOME", state.path()).current_dir(state.path());
    sidecar.args(["--web.listen-address", "127.0.0.1:0"]).stderr(std::process::Stdio::piped());
    let mut sidecar = sidecar.spawn().unwrap();
    let mut log = String::new();
    for line in BufReader::new(sidecar.stderr.take().unwrap()).lines() {
        log.push_str(&line.unwrap());
        log.push('\n');
        if log.contains("no pm2 daemon answers") {
            break;
        }
    }
    sidecar.kill().unwrap();
    sidecar.wait().unwrap();
    assert!(log.contains("set aside as") && !log.contains("panicked"), "{log}");
}

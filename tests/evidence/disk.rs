//! Evidence where the system refuses to write any more: a process with a limit on the size of its files meets the same
//! refusal as one on a full disk, and needs no rights to be put there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use leakslope::evidence::keep::{self, Kind, Record, Trigger};
use leakslope::model::WallTime;

const FOLDER: &str = "LEAKSLOPE_TEST_FOLDER";

fn write(folder: &Path) -> Result<(), String> {
    let record = Record {
        kind: Kind::HeapProfile,
        trigger: Trigger::Leak,
        daemon: "default".into(),
        app: "shop".into(),
        pm_id: 3,
        user: None,
        life: None,
        taken_at: WallTime(1),
        sampled_seconds: Some(30.0),
        cost: None,
        notes: Vec::new(),
        file: "shop-3.heapprofile".to_owned(),
    };
    keep::write(folder, &record, &vec![b'x'; 100_000]).map(drop).map_err(|error| error.to_string())
}

/// With room it is written; in the process of the other test there is none.
#[test]
fn with_room_it_is_there_with_its_record() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let why = write(Path::new(&folder)).unwrap_err();
        assert!(why.contains("shop-3.heapprofile: no room left to write (") && why.ends_with("on that disk"), "{why}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(write(folder.path()), Ok(()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn without_room_nothing_is_left_behind_and_the_reason_is_plain() {
    let folder = tempfile::tempdir().unwrap();
    // Without the trap the signal that comes with the refusal would end the process. 64 blocks of 512 bytes.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "disk::with_room_it_is_there_with_its_record", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

//! Process lists from arbitrary bytes: no panic, bounds kept, and no error that quotes what was read.
//!
//! Run with `cargo +nightly fuzz run list` after `cargo install cargo-fuzz`; the bodies in `crates/pm2-client/tests/fixtures` make a good
//! first corpus.

#![no_main]

use leakslope::collect::banner::find_list;
use leakslope::collect::list::{ArrivingReply, CUSTOM_LIMIT, ListError, ProcessList, read_list, read_reply, read_version};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 8;

fn check(result: Result<ProcessList, ListError>) {
    if let Ok(list) = result {
        assert!(list.entries.len() <= LIMIT);
        assert!(list.entries.windows(2).all(|pair| pair[0].pm_id < pair[1].pm_id));
        assert!(list.entries.iter().all(|entry| entry.metrics.custom.len() <= CUSTOM_LIMIT));
        assert!(list.entries.iter().all(|entry| !entry.app.name().chars().any(char::is_control)));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(read_reply(bytes, LIMIT));
    check(read_list(bytes, LIMIT));
    let mut arriving = ArrivingReply::new(LIMIT);
    bytes.chunks(7).for_each(|piece| arriving.push(piece));
    check(arriving.finish());
    if let Some(line) = find_list(bytes) {
        check(read_list(line, LIMIT));
    }
    let _ = read_version(bytes);
});

//! Frames from arbitrary bytes: no panic, nothing kept beyond the limit, and the same frames however the bytes are cut.
//!
//! Run with `cargo +nightly fuzz run amp` after `cargo install cargo-fuzz`.

#![no_main]

use leakslope::collect::amp::{Decoder, Frame, FrameError};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;

fn decode(bytes: &[u8], piece: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::new(LIMIT);
    let mut frames = Vec::new();
    for mut input in bytes.chunks(piece) {
        while !input.is_empty() {
            match decoder.feed(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => {}
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = decode(bytes, usize::MAX);
    assert!(whole.0.iter().all(|frame| frame.arguments.iter().map(Vec::len).sum::<usize>() <= LIMIT));
    assert_eq!(whole, decode(bytes, 1));
    assert_eq!(whole, decode(bytes, 7));
});

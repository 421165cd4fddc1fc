//! `leakslope memory` beside a real app: the kind of memory that grows is named.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use crate::support::pm2::{Pm2, app};
use crate::support::sidecar::{DEADLINE, Place};
use crate::support::wait_for;

#[test]
fn a_memory_of_webassembly_that_grows_is_named() {
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &app("wasm-grow.js"), "--name", "grower"]);
    let place = Place::new(&pm2.home(), "interval = \"1s\"\n[trend]\nminute = \"1s\"\n");
    let sidecar = place.start();
    let memory = |app: &str| {
        let output = place.run(&["memory", app, "--web.listen-address", sidecar.address()]);
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let text = wait_for("the cause of growth", DEADLINE, || match memory("grower") {
        (true, text) if text.contains("memories of WebAssembly grew by") => Ok(text),
        (_, text) => Err(text),
    });
    assert!(text.starts_with("grower (0): ") && text.contains("wasm ") && text.contains("JS heap "), "{text}");
    assert!(text.contains("Such a memory never shrinks"), "{text}");
    let (found, text) = memory("nobody");
    assert!(!found && text.contains("pm2 lists no app \"nobody\""), "{text}");
    let history = sidecar.json("/api/v1/processes/default/0/history");
    let wasm = history["memory"]["kinds"]["wasm"].as_array().unwrap();
    assert_eq!(wasm.len(), history["memory"]["time"].as_array().unwrap().len());
    assert!(wasm.first().unwrap().as_u64() < wasm.last().unwrap().as_u64(), "{wasm:?}");
}

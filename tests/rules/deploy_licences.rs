//! `docs/licences.md`: every crate that is in the binary, with its licence.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const BEGIN: &str = "<!-- crates -->\n";
const END: &str = "<!-- /crates -->";

/// A row for each licence with the crates under it, as cargo knows them.
fn table() -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal", "--no-dedupe", "--prefix", "none", "--format", "{p}|{l}"])
        .args(["--target", "x86_64-unknown-linux-musl"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo is missing");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let mut crates: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines() {
        let (package, licence) = line.split_once('|').expect("the format has one");
        if package.contains("(/") {
            continue; // One of ours.
        }
        let name = package.split(' ').next().unwrap_or_default();
        assert!(!licence.is_empty(), "{name} names no licence");
        crates.insert(name, licence);
    }
    let mut by_licence: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, licence) in crates {
        // An older way to write it.
        by_licence.entry(licence.replace(" / ", " OR ").replace('/', " OR ")).or_default().push(name);
    }
    let mut table = "| licence | crates |\n| --- | --- |\n".to_owned();
    for (licence, names) in by_licence {
        writeln!(table, "| {licence} | {} |", names.join(", ")).expect("a string takes all");
    }
    table
}

#[test]
fn every_crate_of_the_binary_is_listed_with_its_licence() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/licences.md");
    let text = std::fs::read_to_string(&path).expect("docs/licences.md is there");
    let (head, rest) = text.split_once(BEGIN).expect("the table begins");
    let (_, tail) = rest.split_once(END).expect("the table ends");
    let expected = format!("{head}{BEGIN}{}{END}{tail}", table());
    if std::env::var_os("WRITE_LICENCES").is_some() {
        std::fs::write(&path, &expected).expect("docs/licences.md can be written");
    }
    assert_eq!(text, expected, "write it anew with `WRITE_LICENCES=1 cargo test --test rules deploy_licences`");
}

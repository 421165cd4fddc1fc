//! Prints what grew between the snapshots named on the command line, the oldest first.

#![allow(clippy::print_stdout, reason = "an example prints what it found")]

use std::error::Error;
use std::fs::File;

use v8_heap::format::size;
use v8_heap::snapshot::analysis::{Analysis, analyse};
use v8_heap::snapshot::classes::Interface;
use v8_heap::snapshot::diff::{compare, digest};
use v8_heap::snapshot::summary::Extent;
use v8_heap::snapshot::{Limits, read};

fn load(path: &str, known: &[Interface]) -> Result<Analysis, Box<dyn Error>> {
    Ok(analyse(read(File::open(path)?, path, &Limits::default())?, known))
}

fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let (last, earlier) = files.split_last().ok_or("name two snapshots or more")?;
    let mut digests = Vec::new();
    let mut known = Vec::new();
    for path in earlier {
        let taken = digest(&load(path, &known)?, path);
        known.clone_from(&taken.interfaces);
        digests.push(taken);
    }
    let diff = compare(&digests, &load(last, &known)?, last, Extent::default());
    println!("{}", diff.compared());
    for finding in &diff.findings {
        println!("{} ({})", finding.sentence, size(finding.bytes));
        println!("  {}", finding.told_way());
        if let Some(course) = finding.course() {
            println!("  it kept alive {course}");
        }
    }
    Ok(())
}

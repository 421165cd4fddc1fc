//! Every command in the documents is proven: run in a prepared place, or, where it needs a machine of its own, held against
//! what is there. `docs_support/table.rs` says which. What was not run is told, line by line.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use std::fs;
use std::io::Write as _;

use crate::docs_support::checks;
use crate::docs_support::markdown::{Document, Piece, commands, documents, root};
use crate::docs_support::table::{Proof, bare, idle, is_command, row};
use crate::place::Prepared;
use crate::support::pm2::Pm2;
use crate::support::sidecar::DEADLINE;
use crate::support::wait_for;

/// Blocks that hold commands.
const SHELL: [&str; 2] = ["sh", "console"];
/// Blocks that hold something else, which `docs_examples.rs` proves, and of pipelines the steps.
const OTHER: [&str; 8] = ["rust", "text", "toml", "yaml", "json", "ini", "js", "sudoers"];

/// The commands of every block, and those in the text. Of leakslope's own only the first are run: in the text they are
/// mentioned, often with a stand-in for a file.
fn every_command() -> Vec<Piece> {
    let documents = documents();
    let holds = |info: &str| SHELL.contains(&info) || info == "yaml";
    let shell = documents.iter().flat_map(|document| &document.blocks).filter(|block| holds(&block.info));
    let in_text = in_text(&documents).filter(|span| !span.text.starts_with("leakslope ")).cloned();
    shell.flat_map(commands).chain(in_text.collect::<Vec<_>>()).collect()
}

fn in_text(documents: &[Document]) -> impl Iterator<Item = &Piece> {
    documents.iter().flat_map(|document| &document.spans).filter(|span| is_command(&span.text))
}

#[test]
fn every_block_says_what_it_holds_and_hides_no_command() {
    for block in documents().iter().flat_map(|document| &document.blocks) {
        let (spot, info) = (&block.piece.spot, &*block.info);
        assert!(SHELL.contains(&info) || OTHER.contains(&info), "{spot}: {info:?} is none of {SHELL:?} {OTHER:?}");
        if SHELL.contains(&info) {
            assert!(!commands(block).is_empty(), "{spot}: no command in it (console: behind a dollar sign)");
        }
        if info == "text" {
            let hidden = block.piece.text.lines().find(|line| is_command(line));
            assert_eq!(hidden, None, "{spot}: a command that nobody runs; make it a block of sh");
        }
    }
}

#[test]
fn what_the_text_says_of_the_command_line_is_understood() {
    let documents = documents();
    let spans: Vec<&Piece> = in_text(&documents).collect();
    let wrong: Vec<String> = spans
        .iter()
        .filter_map(|span| Some(format!("{} `{}`: {}", span.spot, span.text, checks::usage(&span.text).err()?)))
        .collect();
    assert!(spans.len() > 50, "only {} were found", spans.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_is_proven() {
    let all = every_command();
    assert!(all.len() > 30, "only {} commands were found", all.len());
    let mut wrong: Vec<String> = Vec::new();
    let mut proven = Vec::new();
    for command in &all {
        let bare = bare(&command.text);
        let faults = checks::faults(&bare);
        wrong.extend(faults.iter().map(|fault| format!("{} `{bare}`: {fault}", command.spot)));
        match row(&bare) {
            Some((_, proof)) => proven.push((command, bare, *proof)),
            None => wrong.push(format!("{} `{bare}`: docs_support/table.rs does not know it", command.spot)),
        }
    }
    let idle = idle(proven.iter().map(|(_, bare, _)| &**bare));
    wrong.extend(idle.iter().map(|pattern| format!("docs_support/table.rs: no document says `{pattern}`")));

    let suite = fs::read_to_string(root().join("tests/run")).unwrap();
    let place = Prepared::new();
    let mut not_run = Vec::new();
    for (command, bare, proof) in &proven {
        let named = format!("{} `{bare}`", command.spot);
        match proof {
            Proof::Ends(codes) => {
                wrong.extend(ends(&place, &command.text, codes).err().map(|why| format!("{named}: {why}")));
            }
            Proof::Serves => serves(&place, bare),
            Proof::Suite if bare == "./tests/run" => not_run.push(format!("{named}: runs this test")),
            Proof::Suite if suite.contains(&**bare) => not_run.push(format!("{named}: a step of ./tests/run")),
            Proof::Suite => wrong.push(format!("{named}: no step of ./tests/run")),
            Proof::Elsewhere(test) if root().join(test).exists() => not_run.push(format!("{named}: run by {test}")),
            Proof::Elsewhere(test) => wrong.push(format!("{named}: there is no {test}")),
            Proof::NotRun(why) => {
                not_run.push(format!("{named}: {why}"));
                wrong.extend(unknown_to_pm2(&place.pm2, bare).map(|why| format!("{named}: {why}")));
            }
        }
    }
    // Straight to the terminal: what was not run is to be seen also when all is well.
    let list = format!("{} of {} commands were not run here:\n{}\n", not_run.len(), all.len(), not_run.join("\n"));
    std::io::stderr().write_all(list.as_bytes()).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs a command until it ends as it should; some need something that comes about in a while.
fn ends(place: &Prepared, command: &str, codes: &[i32]) -> Result<(), String> {
    let begun = std::time::Instant::now();
    loop {
        let output = place.run(command);
        if output.status.code().is_some_and(|code| codes.contains(&code)) {
            return Ok(());
        }
        if begun.elapsed() > DEADLINE {
            let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
            return Err(format!("{}: {}", output.status, said.concat()));
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

/// Starts a sidecar by a command and compares what it serves with what the system says.
fn serves(place: &Prepared, command: &str) {
    let (_place, sidecar) = place.serve(command);
    let pid = String::from_utf8(place.pm2.run(&["pid", "shop"]).stdout).unwrap();
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
    };
    wait_for("real figures", DEADLINE, || {
        let metrics = sidecar.metrics();
        let served = metrics.value("pm2_process_resident_memory_bytes", &[("app", "shop")]);
        let real = resident();
        let near = served.is_some_and(|served| (served / real - 1.0).abs() < 0.5);
        if near { Ok(()) } else { Err(format!("{served:?} is served and {real} is so")) }
    });
    assert!(sidecar.get("/").contains("<html"), "no page");
}

/// What pm2's help does not know of a command of pm2's.
fn unknown_to_pm2(pm2: &Pm2, bare: &str) -> Option<String> {
    let mut words = bare.strip_prefix("pm2 ")?.split(' ');
    let command = words.next()?;
    let help = |words: &[&str]| String::from_utf8(pm2.run(words).stdout).unwrap();
    let general = help(&["--help"]);
    let known = |line: &str| line.trim().split([' ', '|']).take(2).any(|word| word == command);
    if !general.lines().any(known) {
        return Some(format!("pm2 knows no {command}"));
    }
    let all = general + &help(&[command, "--help"]);
    words
        .find(|word| word.starts_with("--") && !all.contains(*word))
        .map(|flag| format!("pm2 {command} knows no {flag}"))
}

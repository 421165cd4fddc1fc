//! What can be said of a command without running it: the shell reads it, and whatever of this project it names is there.

use std::fs;
use std::path::Path;
use std::process::Command;

use leakslope::cli;
use wildmatch::WildMatch;

use super::markdown::root;

/// Words that every test binary understands.
const LIBTEST: [&str; 3] = ["--", "--exact", "--nocapture"];

/// Everything that is wrong with a command.
pub fn faults(bare: &str) -> Vec<String> {
    let words: Vec<&str> = bare.split(' ').map(|word| word.trim_matches(['"', '\''])).collect();
    let mut faults = Vec::new();
    faults.extend(syntax(bare).err());
    faults.extend(usage(bare).err());
    // kubectl calls what runs in a cluster by names that look like paths.
    let named = words.iter().zip(words.iter().skip(1)).filter(|(before, _)| words[0] != "kubectl" || **before == "-k");
    let missing = named.map(|(_, word)| word).chain(words.first()).filter(|word| !is_there(word));
    faults.extend(missing.map(|word| format!("{word} is not there")));
    faults.extend(units(&words));
    faults.extend(own_words(&words));
    faults
}

fn syntax(bare: &str) -> Result<(), String> {
    let output = Command::new("bash").args(["-n", "-c", bare]).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Whether leakslope understands its command line; what is in brackets may be left out, `…` after a word stands for more of
/// it, and alone for what the help tells.
pub fn usage(bare: &str) -> Result<(), String> {
    let arguments = bare.strip_prefix("leakslope ").or_else(|| bare.strip_prefix("cargo run --release -- "));
    let Some(arguments) = arguments.filter(|arguments| !arguments.contains('|')) else { return Ok(()) };
    // What stands in quotes is one word, whatever it says.
    let quoted = arguments.split('\'').enumerate();
    let unquoted: String = quoted.map(|(index, part)| if index % 2 == 1 { "QUOTED" } else { part }).collect();
    let words = unquoted.split(' ').map(|word| match word.trim_matches(['[', ']']) {
        "…" => "--help",
        "SHELL" => "bash",
        "PM_ID" => "0",
        word => word.trim_end_matches('…'),
    });
    let words: Vec<&str> = words.collect();
    // A command that is only named, without what it is about, is one that has a help.
    let named = || cli::check_usage(words.iter().copied().chain(["--help"]));
    let understood = cli::check_usage(words.iter().copied()).or_else(|_| named());
    understood.map_err(|error| error.lines().next().unwrap_or_default().to_owned())
}

/// Whether a word names a file of the project that is there, or no such file at all.
fn is_there(word: &str) -> bool {
    let word = word.trim_start_matches("./");
    let Some((top, _)) = word.split_once('/') else { return true };
    let ours = !top.is_empty() && root().join(top).exists();
    if !ours || word.starts_with("target/") {
        return true;
    }
    if !word.contains('*') {
        return root().join(word).exists();
    }
    let (folder, fits) = (Path::new(word).parent().unwrap(), WildMatch::new(word));
    let mut entries = fs::read_dir(root().join(folder)).into_iter().flatten().flatten();
    entries.any(|entry| fits.matches(folder.join(entry.file_name()).to_str().unwrap()))
}

/// Units that systemctl is to act on and that are neither ours nor those that pm2 makes for its users.
fn units(words: &[&str]) -> Vec<String> {
    if words[0] != "systemctl" {
        return Vec::new();
    }
    let named = words[1..].iter().skip(1).filter(|word| !word.starts_with('-') && !word.starts_with("pm2-"));
    let unit = |word: &&str| if word.contains('.') { (*word).to_string() } else { format!("{word}.service") };
    let ours = |unit: &String| root().join("deploy/systemd").join(unit).exists();
    named.map(unit).filter(|unit| !ours(unit)).map(|unit| format!("{unit} is not in deploy/systemd")).collect()
}

/// The text of a file, or of every file in a folder.
fn sources(path: &Path) -> std::io::Result<String> {
    if path.is_file() {
        return fs::read_to_string(path);
    }
    let files = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    files.filter(|file| file.as_ref().is_ok_and(|file| file.is_file())).map(|file| fs::read_to_string(file?)).collect()
}

/// Tests and benches that a command names, and words that it says to a program of the project, must stand in the sources.
fn own_words(words: &[&str]) -> Vec<String> {
    let at = |flag: &str| words.iter().position(|word| *word == flag);
    let (source, rest) = if let Some(at) = at("--test") {
        (format!("tests/{}", words[at + 1]), at + 2)
    } else if let Some(at) = at("--bench") {
        let (file, folder) = (format!("benches/{}.rs", words[at + 1]), format!("benches/{}/main.rs", words[at + 1]));
        (if root().join(&file).exists() { file } else { folder }, at + 2)
    } else if words[0] == "./tests/run" {
        ("tests/run".to_owned(), 1)
    } else if words[0] == "node" {
        (words[1].to_owned(), 2)
    } else {
        return Vec::new();
    };
    let Ok(text) = sources(&root().join(&source)) else { return vec![format!("{source} is not there")] };
    // Numbers, names of files and words in capitals are the reader's.
    let readers = |word: &str| word.contains(|one: char| "./".contains(one) || one.is_ascii_uppercase());
    let said = words[rest..].iter().filter(|word| !readers(word) && word.parse::<f64>().is_err());
    let missing = said.filter(|word| !LIBTEST.contains(word) && !text.contains(**word));
    missing.map(|word| format!("{source} knows no {word}")).collect()
}

//! The commands as people use them: on real files from Node, as text, as JSON and as folded stacks.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::path::Path;

use crate::heap_support::{node, run_app, run_script, snapshot};
use clap::Parser;
use leakslope::cli::heap::{ReadCommand, execute};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: ReadCommand,
}

fn output(arguments: &[&str]) -> anyhow::Result<String> {
    let cli = Cli::try_parse_from(std::iter::once("heap").chain(arguments.iter().copied()))?;
    let mut out = Vec::new();
    execute(&cli.command, &mut out)?;
    Ok(String::from_utf8(out)?)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_real_snapshot_is_summarised_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let files = run_app("leak-map", &folder.path().join("map"));
    let summary = output(&["summary", text(&files[2])]).unwrap();
    for expected in
        ["By constructor", "Session", "the Map `sessions`", "leak-map.js:6:14", "Why it is alive", "strings"]
    {
        assert!(summary.contains(expected), "{expected} is not in:\n{summary}");
    }
    let diff = output(&["diff", text(&files[0]), text(&files[1]), text(&files[2])]).unwrap();
    for expected in ["one session", "alive in the third", "Session × 300", "sessions (Map) → Session"] {
        assert!(diff.contains(expected), "{expected} is not in:\n{diff}");
    }
    let json = output(&["diff", text(&files[0]), text(&files[2]), "--format", "json"]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["basis"], "ids");
    assert_eq!(json["findings"][0]["pattern"], "map");
    assert_eq!(json["findings"][0]["count"], 600);
    let session = json["classes"].as_array().unwrap().iter().find(|class| class["class"] == "Session").unwrap();
    assert_eq!(session["added"]["count"], 600);
}

#[test]
fn the_texts_of_strings_are_quoted_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.heapsnapshot");
    let nodes = [
        node("synthetic", "", 0, &[("shortcut", "1", 1)]),
        node("object", "Store", 64, &[("property", "token", 2), ("property", "jo@example.org", 3)]),
        node("string", "a secret text", 32, &[]),
        node("object", "User", 64, &[]),
    ];
    std::fs::write(&path, snapshot(&nodes, 20)).unwrap();
    for format in ["text", "json"] {
        let plain = output(&["summary", text(&path), "--format", format]).unwrap();
        assert!(!plain.contains("secret text") && !plain.contains("jo@example.org"), "{plain}");
        let asked = output(&["summary", text(&path), "--format", format, "--show-strings"]).unwrap();
        assert!(asked.contains("a secret text"), "{asked}");
    }
}

#[test]
fn a_real_profile_names_the_function_and_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("p");
    run_script(Path::new("node"), "profile", &prefix);
    let [one, two] = [1, 2].map(|number| format!("{}-{number}.heapprofile", prefix.display()));
    let summary = output(&["profile-summary", &one]).unwrap();
    let mut shares = summary.lines().filter(|line| line.contains(" %"));
    let (sentence, first) = (shares.next().unwrap(), shares.next().unwrap());
    assert!(sentence.contains("profile.js:11 allocated"), "{sentence}");
    assert!(first.contains("profile.js:11:"), "the function that keeps comes first:\n{summary}");
    let diff = output(&["profile-summary", &one, &two]).unwrap();
    assert!(diff.lines().any(|line| line.trim_start().starts_with('+') && line.contains("profile.js:11:")), "{diff}");
    for folded in [
        output(&["profile-summary", &two, "--format", "folded"]),
        output(&["profile-summary", &one, &two, "--format", "folded"]),
    ] {
        for line in folded.unwrap().lines() {
            let (stack, bytes) = line.rsplit_once(' ').unwrap();
            assert!(stack.starts_with("(root)") && bytes.parse::<u64>().is_ok(), "{line}");
        }
    }
    let speedscope = output(&["profile-summary", &two, "--format", "speedscope"]).unwrap();
    let speedscope: serde_json::Value = serde_json::from_str(&speedscope).unwrap();
    let weights = speedscope["profiles"][0]["weights"].as_array().unwrap();
    let sum: u64 = weights.iter().map(|bytes| bytes.as_u64().unwrap()).sum();
    assert_eq!(speedscope["profiles"][0]["endValue"], sum);
    assert!(output(&["profile-summary", &one, &two, "--format", "speedscope"]).is_err(), "it holds one profile");
    let json = output(&["profile-summary", &two, "--format", "json"]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["flame"][0]["total_bytes"], json["total_bytes"]);
    assert_eq!(json["own"][0]["own"], true);
    let functions = json["functions"].as_array().unwrap();
    let bytes = |name: &str| {
        functions.iter().find(|row| row["function"] == name).map_or(0, |row| row["self_bytes"].as_u64().unwrap())
    };
    assert!(bytes("forget") * 20 < bytes("remember"), "what was freed does not count: {functions:?}");
}

#[test]
fn what_cannot_be_read_is_refused_with_the_file_and_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.heapsnapshot");
    let whole = snapshot(&[node("synthetic", "", 0, &[])], 20);
    std::fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    let error = format!("{:#}", output(&["summary", text(&path)]).unwrap_err());
    assert!(error.contains("cut.heapsnapshot: the file is cut off (at byte"), "{error}");
    let error = format!("{:#}", output(&["summary", "/nowhere/x.heapsnapshot"]).unwrap_err());
    assert!(error.contains("cannot open /nowhere/x.heapsnapshot"), "{error}");
    std::fs::write(&path, br#"{"typeId":"CPU","head":{"functionName":"(root)","hitCount":0,"children":[]}}"#).unwrap();
    for command in ["summary", "profile-summary"] {
        let error = output(&[command, text(&path)]).unwrap_err().to_string();
        assert!(error.contains("cut.heapsnapshot: this is a CPU profile"), "{error}");
    }
    let error = output(&["profile-summary", text(packed(&path, &whole))]).unwrap_err().to_string();
    assert!(error.contains("this is a heap snapshot; `leakslope heap summary"), "{error}");
    assert!(output(&["summary", text(&path)]).unwrap().contains("By constructor"), "what gzip packed is read");
    let error = output(&["diff", "one"]).unwrap_err().to_string();
    assert!(error.contains("2 values required"), "{error}");
}

/// Writes the text packed by gzip.
fn packed<'a>(path: &'a Path, text: &str) -> &'a Path {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(std::fs::File::create(path).unwrap(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap();
    path
}

#[test]
fn names_from_a_file_cannot_steer_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evil.heapsnapshot");
    let nodes = [node("synthetic", "", 0, &[("shortcut", "1", 1)]), node("object", "Evil\u{1b}[2J\u{7}", 64, &[])];
    std::fs::write(&path, snapshot(&nodes, 20)).unwrap();
    let summary = output(&["summary", text(&path)]).unwrap();
    assert!(summary.contains("Evil\u{fffd}[2J\u{fffd}") && !summary.contains('\u{1b}'), "{summary}");
}

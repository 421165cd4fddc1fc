//! `leakslope analyze` as a person or a program calls it: recordings in every form, and everything that can be wrong
//! with them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::{Value, json};

const MIB: f64 = 1_048_576.0;

/// One row of a made-up process.
struct Look {
    minute: i64,
    resident: f64,
    used: f64,
    total: f64,
    post_gc: f64,
    gcs: u32,
}

/// A process over some minutes: its heap fills up and is collected every 20 minutes; `leak` MiB an hour stay behind.
fn process(minutes: i64, leak: f64) -> Vec<Look> {
    let (mut gcs, mut post_gc, mut noise) = (0, 0.0, 7_u32);
    (0..minutes)
        .map(|minute| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let jitter = f64::from(noise >> 16) / 65_536.0 * MIB;
            let live = 40.0 * MIB + leak * MIB * f64::from(u32::try_from(minute).expect("positive")) / 60.0;
            let phase = f64::from(u32::try_from(minute % 20).expect("positive"));
            if minute > 0 && minute % 20 == 0 {
                gcs += 1;
                post_gc = (live + jitter).round();
            }
            let used = (live + phase * MIB + jitter).round();
            let total = (live + 24.0 * MIB).round();
            Look { minute, resident: (total + 50.0 * MIB + jitter).round(), used, total, post_gc, gcs }
        })
        .collect()
}

const LIMIT: &[&str] = &["--memory-limit", "450MiB"];

const HEADER: &str = "time,resident_memory_bytes,heap_used_bytes,heap_total_bytes,external_memory_bytes,\
                      post_gc_heap_used_bytes,major_gcs";

fn csv(looks: &[Look], start: i64) -> String {
    let mut text = format!("{HEADER}\n");
    for look in looks {
        let at = start + look.minute * 60;
        writeln!(text, "{at},{},{},{},1495116,{},{}", look.resident, look.used, look.total, look.post_gc, look.gcs)
            .expect("a string");
    }
    text
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }
}

fn leakslope() -> Command {
    let mut command = Command::cargo_bin("leakslope").expect("built");
    command.arg("analyze").env_remove("NO_COLOR");
    command
}

fn answer(path: &Path, more: &[&str]) -> (Value, i32) {
    let output = leakslope().arg(path).args(["--format", "json"]).args(more).output().expect("run");
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)));
    (value, output.status.code().expect("a code"))
}

#[test]
fn a_leak_is_found_and_a_healthy_process_is_not() {
    let files = Files::new();
    let leak = files.put("leak.csv", csv(&process(1500, 10.0), 0));
    let (found, code) = answer(&leak, LIMIT);
    assert_eq!((found["verdict"].as_str(), code), (Some("leaking"), 3), "{found}");
    assert_eq!(found["file"].as_str(), leak.to_str());
    assert_eq!(found["signal"], "footprint");
    assert_eq!(found["basis"], "major_gc");
    let slope = found["slope_bytes_per_second"].as_f64().expect("a slope");
    let true_slope = 10.0 * MIB / 3600.0;
    assert!((slope / true_slope - 1.0).abs() < 0.05, "{slope} {true_slope}");
    assert!(found["slope_low"].as_f64() <= Some(slope) && found["slope_high"].as_f64() >= Some(slope));
    // 450 MiB less the 364 MiB that are resident, at 10 MiB an hour; the heap's headroom makes it somewhat sooner.
    let left = found["projected_exhaustion_seconds"].as_f64().expect("growing") / 3600.0;
    assert!((4.0..9.0).contains(&left), "{left}");
    let (suspect, leaking) = (found["first_suspect_at"].as_i64(), found["first_leaking_at"].as_i64());
    assert!(suspect.is_some() && suspect <= leaking, "{found}");
    let episodes = found["episodes"].as_array().expect("episodes");
    assert_eq!(episodes.last().expect("one")["state"], "leaking");
    assert_eq!(episodes[0]["from"].as_i64(), suspect);
    assert!(found["window_seconds"].as_f64() > Some(1800.0));
    assert!(found["reason"].as_str().is_some_and(|reason| reason.contains("grew")));

    let healthy = files.put("healthy.csv", csv(&process(1500, 0.0), 0));
    let (found, code) = answer(&healthy, LIMIT);
    assert_eq!((found["verdict"].as_str(), code), (Some("stable"), 0), "{found}");
    assert_eq!(found["episodes"], json!([]));
    assert_eq!(found["first_suspect_at"], Value::Null);
    assert_eq!(found["projected_exhaustion_seconds"], Value::Null);
}

#[test]
fn evidence_alone_makes_a_verdict_where_no_limit_is_given() {
    let files = Files::new();
    let (found, code) = answer(&files.put("leak.csv", csv(&process(4000, 6.0), 0)), &[]);
    assert_eq!((found["verdict"].as_str(), code), (Some("leaking"), 3), "{found}");
    assert_eq!(found["memory_limit_bytes"], Value::Null);
    assert_eq!(found["projected_exhaustion_seconds"], Value::Null);
}

/// The answer without what depends on the form of the times and the file's name.
fn core(found: &Value) -> Value {
    let mut core = found.clone();
    for key in ["file", "series", "first_suspect_at", "first_leaking_at", "episodes", "from", "to", "notes"] {
        core.as_object_mut().expect("an object").remove(key);
    }
    core
}

#[test]
fn the_same_recording_gives_the_same_answer_in_every_form() {
    let files = Files::new();
    let looks = process(1500, 10.0);
    let start = 1_767_225_600;
    let plain = csv(&looks, start);
    let (expected, _) = answer(&files.put("plain.csv", &plain), LIMIT);
    let at = expected["first_leaking_at"].as_i64().expect("leaking");

    let instant = |seconds: i64| jiff::Timestamp::from_second(seconds).expect("a date").to_string();
    let dated: String = plain
        .lines()
        .map(|line| match line.split_once(',') {
            Some((time, rest)) if time != "time" => format!("{},{rest}\r\n", instant(time.parse().expect("a number"))),
            _ => format!("\u{feff}{line}\r\n"),
        })
        .collect();
    let (found, _) = answer(&files.put("dated.csv", dated), LIMIT);
    assert_eq!(core(&found), core(&expected));
    assert_eq!(found["first_leaking_at"], json!(instant(at)));

    let milliseconds: String = plain
        .lines()
        .map(|line| {
            line.split_once(',')
                .filter(|(time, _)| *time != "time")
                .map_or_else(|| format!("{line}\n"), |(time, rest)| format!("{time}000,{rest}\n"))
        })
        .collect();
    let (found, _) = answer(&files.put("milliseconds.csv", milliseconds), LIMIT);
    assert_eq!(core(&found), core(&expected));
    assert_eq!(found["first_leaking_at"], json!(at * 1000));

    let (found, _) = answer(&files.put("semicolons.csv", plain.replace(',', ";")), LIMIT);
    assert_eq!(core(&found), core(&expected));

    let mut kibibytes = format!("{}\n", HEADER.replace("_bytes", "_BYTES"));
    for look in &looks {
        let k = |bytes: f64| bytes / 1024.0;
        writeln!(
            kibibytes,
            "{},{},{},{},0,{},{}",
            start + look.minute * 60,
            k(look.resident),
            k(look.used),
            k(look.total),
            k(look.post_gc),
            look.gcs
        )
        .expect("a string");
    }
    let (found, _) = answer(&files.put("kibibytes.csv", kibibytes), &["--unit", "KiB", "--memory-limit", "450MiB"]);
    assert_eq!(core(&found), core(&expected));

    let series = |name: &str, more: &str, figure: &dyn Fn(&Look) -> f64| {
        let values: Vec<Value> =
            looks.iter().map(|look| json!([start + look.minute * 60, figure(look).to_string()])).collect();
        format!(r#"{{"metric":{{"__name__":"{name}","app":"api"{more}}},"values":{}}}"#, Value::from(values))
    };
    let result = [
        series("pm2_process_resident_memory_bytes", "", &|look| look.resident),
        series("pm2_process_heap_used_bytes", "", &|look| look.used),
        series("pm2_process_heap_total_bytes", "", &|look| look.total),
        series("pm2_process_heap_after_major_gc_bytes", "", &|look| look.post_gc),
        series("pm2_process_gcs_total", r#","kind":"major""#, &|look| f64::from(look.gcs)),
    ]
    .join(",");
    let json = format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{result}]}}}}"#);
    let (found, code) = answer(&files.put("range.json", json), LIMIT);
    assert_eq!(core(&found), core(&expected));
    assert_eq!((found["series"].as_str(), code), (Some(r#"{app="api"}"#), 3));
    assert_eq!(found["first_leaking_at"], json!(at));
}

#[test]
fn order_of_rows_does_not_matter() {
    let files = Files::new();
    let plain = csv(&process(1500, 10.0), 0);
    let (expected, _) = answer(&files.put("plain.csv", &plain), LIMIT);
    let (header, rows) = plain.split_once('\n').expect("a header");
    let mut backwards: Vec<&str> = rows.lines().collect();
    let mut a_little: Vec<&str> = backwards.clone();
    backwards.reverse();
    a_little.chunks_mut(500).for_each(<[&str]>::reverse);
    for (name, lines, note) in [("backwards", &backwards, "were sorted"), ("a little", &a_little, "put in order")] {
        let (found, _) = answer(&files.put(name, format!("{header}\n{}\n", lines.join("\n"))), LIMIT);
        assert_eq!(core(&found), core(&expected), "{name}");
        assert!(found["notes"][0].as_str().is_some_and(|text| text.contains(note)), "{found}");
    }
    // What is piped in is put in order within bounds only.
    let output = leakslope()
        .args(["-", "--format", "json", "--memory-limit", "450MiB"])
        .write_stdin(format!("{header}\n{}\n", a_little.join("\n")))
        .output()
        .expect("run");
    let piped: Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(core(&piped), core(&expected));
    assert_eq!(piped["file"], "standard input");
    let refused = leakslope().arg("-").write_stdin(format!("{header}\n{}\n", backwards.join("\n"))).assert().code(1);
    let complaint = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(complaint.starts_with("leakslope: standard input: line 1027: its time lies before rows"), "{complaint}");
}

#[test]
fn lives_are_told_apart_by_column_or_counter_and_gaps_and_repeated_rows_do_no_harm() {
    let files = Files::new();
    let text = csv(&process(300, 30.0), 0);
    let mut named = format!("{HEADER},life\n");
    let mut counted = format!("{HEADER}\n");
    for life in 0..3 {
        // A day between one life and the next.
        for line in text.lines().skip(1) {
            let (time, rest) = line.split_once(',').expect("cells");
            let at = time.parse::<i64>().expect("a number") + life * 90_000;
            writeln!(named, "{at},{rest},life-{life}\n{at},{rest},life-{life}").expect("a string");
            writeln!(counted, "{at},{rest}").expect("a string");
        }
    }
    let (found, _) = answer(&files.put("named.csv", named), &[]);
    assert_eq!((found["lives"].as_i64(), found["samples"].as_i64()), (Some(3), Some(1800)));
    assert!(found["notes"][0].as_str().is_some_and(|note| note.starts_with("900 rows repeat a time")), "{found}");
    let (found, _) = answer(&files.put("counted.csv", counted), &[]);
    assert_eq!(found["lives"].as_i64(), Some(3));
}

#[test]
fn several_files_give_an_array_and_each_keeps_its_own_answer() {
    let files = Files::new();
    let leak = files.put("leak.csv", csv(&process(1500, 10.0), 0));
    let healthy = files.put("healthy.csv", csv(&process(1500, 0.0), 0));
    let wrong = files.put("wrong.csv", "time,resident_memory_bytes\n1,much\n");
    let output =
        leakslope().args([&healthy, &leak, &wrong]).args(["--format", "json"]).args(LIMIT).output().expect("run");
    let found: Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(found.as_array().map(Vec::len), Some(3));
    assert_eq!((found[0]["verdict"].as_str(), found[1]["verdict"].as_str()), (Some("stable"), Some("leaking")));
    assert_eq!(found[2]["error"], "line 2: resident_memory_bytes: \"much\" is not a number");
    assert_eq!(output.status.code(), Some(3));
    let alone = leakslope().args([&healthy, &wrong]).output().expect("run");
    assert_eq!(alone.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&alone.stderr),
        format!("leakslope: {}: line 2: resident_memory_bytes: \"much\" is not a number\n", wrong.display())
    );
}

#[test]
fn what_cannot_be_read_is_said_with_exit_code_one_and_wrong_usage_with_two() {
    let files = Files::new();
    for (name, bytes, message) in [
        ("empty.csv", &b""[..], "there is nothing in it"),
        ("header.csv", b"time,resident_memory_bytes\n", "there is a header but no row"),
        ("table.csv", b"name,resident_memory_bytes\na,1\n", "line 1: the header has no column \"time\""),
        ("packed.csv.gz", b"\x1f\x8b\x08\x00", "it is compressed: write `zcat FILE | leakslope analyze -`"),
        ("picture.png", b"\x89PNG\r\n\x1a\n\0\0", "it is not text"),
        (
            "broken.json",
            b"{\"status\":",
            "line 1: not the JSON of a Prometheus range query: EOF while parsing a value at line 1 column 10",
        ),
    ] {
        let path = files.put(name, bytes);
        let run = leakslope().arg(&path).args(["--format", "json"]).assert().code(1);
        let complaint = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        assert_eq!(complaint, format!("leakslope: {}: {message}\n", path.display()));
        let found: Value = serde_json::from_slice(&run.get_output().stdout).expect("json");
        assert!(found["error"].is_string() && found["file"].as_str() == path.to_str(), "{found}");
    }
    leakslope().arg(files.0.path().join("missing.csv")).assert().code(1);
    leakslope().arg(files.0.path()).assert().code(1);
    let path = files.put("fine.csv", "0,1000000\n60,1000000\n");
    leakslope().arg(&path).assert().code(0);
    for wrong in [
        &[][..],
        &["--memory-limit", "512"],
        &["--memory-limit", "0MiB"],
        &["--unit", "apples"],
        &["--format", "xml"],
        &["--restart-drop", "100"],
        &["--minute", "0s"],
    ] {
        let mut command = leakslope();
        if !wrong.is_empty() {
            command.arg(&path);
        }
        command.args(wrong).assert().code(2);
    }
}

#[test]
fn a_short_recording_is_still_learning() {
    let files = Files::new();
    let (found, code) = answer(&files.put("short.csv", "0,100000000\n60,100000000\n"), &[]);
    assert_eq!((found["verdict"].as_str(), code), (Some("learning"), 0));
    assert_eq!(found["slope_bytes_per_second"], Value::Null);
    assert!(found["reason"].as_str().is_some_and(|reason| reason.contains("a first answer takes")), "{found}");
}

#[test]
fn the_text_fits_eighty_columns_and_has_colour_only_where_told() {
    let files = Files::new();
    let leak = files.put("leak.csv", csv(&process(1500, 10.0), 1_767_225_600));
    let text = |more: &[&str]| {
        let output = leakslope().arg(&leak).args(more).output().expect("run");
        String::from_utf8(output.stdout).expect("utf-8")
    };
    let plain = text(LIMIT);
    assert!(!plain.contains('\u{1b}'));
    assert!(plain.lines().skip(1).all(|line| line.chars().count() <= 80), "{plain}");
    assert!(plain.lines().next().is_some_and(|line| line.ends_with(": leaking")));
    for part in ["█", "░", "•", "┄", "2026-01-01T00:00:00Z", "450 MiB", "MiB/h", "leaking from 2026-01-0"] {
        assert!(plain.contains(part), "{part} in\n{plain}");
    }
    assert_eq!(plain, text(&["--memory-limit", "450MiB", "--color", "never"]));
    assert!(text(&["--memory-limit", "450MiB", "--color", "always"]).contains("\u{1b}[31mleaking\u{1b}[0m"));
}

#[test]
fn a_compressed_recording_is_judged_with_a_shorter_minute() {
    let files = Files::new();
    let mut seconds = format!("{HEADER}\n");
    for (at, line) in csv(&process(1500, 10.0), 0).lines().skip(1).enumerate() {
        let (_, rest) = line.split_once(',').expect("cells");
        writeln!(seconds, "{at},{rest}").expect("a string");
    }
    let path = files.put("seconds.csv", seconds);
    let (found, code) = answer(&path, &["--minute", "1s", "--memory-limit", "450MiB"]);
    assert_eq!((found["verdict"].as_str(), code), (Some("leaking"), 3), "{found}");
    let (found, code) = answer(&path, LIMIT);
    assert_ne!((found["verdict"].as_str(), code), (Some("leaking"), 3), "25 minutes are too short: {found}");
}

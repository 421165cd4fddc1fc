//! Measures the detector and what it is compared with, on the same series: `cargo bench --bench detection`.
//!
//! Options after `--`: `--seeds 1000..1020`, `--families prototype|other|NAME`, `--split plain|harder`,
//! `--view collections|sampled|resident|load`, `--csv FILE`, `--no-baselines`, `--no-twins`, `--no-traces`, `--tests` (which
//! test said no, for each miss and each false alarm), `--tune` (the grid `predict_linear` was tuned over).
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a simulation: all counts are small"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its table")]
#![allow(missing_docs, unreachable_pub, dead_code, reason = "a bench has no readers but its own")]

mod baselines;
mod generator;
mod ours;
mod random;
mod score;
mod traces;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use leakslope::model::LeakState;
use leakslope::trend::Settings;
use ours::View;
use score::{Score, score, summarize};

#[allow(clippy::struct_excessive_bools, reason = "switches of a command line")]
struct Arguments {
    seeds: std::ops::Range<u64>,
    families: Vec<&'static str>,
    harder: bool,
    twins: bool,
    traces: bool,
    views: Vec<View>,
    tests: bool,
    baselines: bool,
    tune: bool,
    csv: Option<String>,
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        seeds: 1000..1020,
        families: [&generator::HEALTHY[..], &generator::LEAKING[..]].concat(),
        harder: false,
        twins: true,
        traces: true,
        views: vec![View::Collections, View::Sampled, View::Resident],
        tests: false,
        baselines: true,
        tune: false,
        csv: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        match word.as_str() {
            "--seeds" => {
                let range = value();
                let (from, to) = range.split_once("..").expect("--seeds FROM..TO");
                arguments.seeds = from.parse().expect("a number")..to.parse().expect("a number");
            }
            "--families" => match value().as_str() {
                "prototype" => {}
                "other" => arguments.families = [&generator::OTHER_HEALTHY[..], &generator::OTHER_LEAKING[..]].concat(),
                "none" => arguments.families.clear(),
                name => {
                    arguments.families = [
                        &generator::HEALTHY[..],
                        &generator::LEAKING[..],
                        &generator::OTHER_HEALTHY[..],
                        &generator::OTHER_LEAKING[..],
                    ]
                    .concat();
                    arguments.families.retain(|family| *family == name);
                }
            },
            "--split" => arguments.harder = value() == "harder",
            "--no-traces" => arguments.traces = false,
            "--no-twins" => arguments.twins = false,
            "--view" => {
                arguments.views = vec![match value().as_str() {
                    "sampled" => View::Sampled,
                    "load" => View::Load,
                    "resident" => View::Resident,
                    _ => View::Collections,
                }];
            }
            "--no-baselines" => arguments.baselines = false,
            "--tune" => arguments.tune = true,
            "--tests" => arguments.tests = true,
            "--csv" => arguments.csv = Some(value()),
            _ => {}
        }
    }
    arguments
}

fn main() {
    let arguments = arguments();
    let settings = Settings::default();
    let jobs: Vec<(&str, u64)> =
        arguments.families.iter().flat_map(|family| arguments.seeds.clone().map(move |seed| (*family, seed))).collect();
    let scores: Mutex<BTreeMap<String, Vec<Score>>> = Mutex::default();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((family, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for (name, score) in measure(family, *seed, &arguments, &settings) {
                        scores.lock().expect("no panic").entry(name).or_default().push(score);
                    }
                }
            });
        }
    });
    let scores = scores.into_inner().expect("no panic");
    if arguments.traces {
        print_traces(&settings);
    }
    print_families(&scores);
    print_summary(&scores);
    if let Some(path) = &arguments.csv {
        std::fs::write(path, csv(&scores)).expect("the CSV file can be written");
    }
}

fn measure(family: &str, seed: u64, arguments: &Arguments, settings: &Settings) -> Vec<(String, Score)> {
    let series = generator::generate(family, seed, arguments.harder, false);
    let twin = (series.leak && arguments.twins).then(|| generator::generate(family, seed, arguments.harder, true));
    let mut results = Vec::new();
    if arguments.tune {
        return baselines::tuning(&series).into_iter().map(|(name, alarms)| (name, score(&series, &alarms))).collect();
    }
    if arguments.baselines {
        let quiet = twin.as_ref().map(baselines::judge);
        for (place, (name, alarms)) in baselines::judge(&series).into_iter().enumerate() {
            let mut score = score(&series, &alarms);
            score.twin_alarmed = quiet.as_ref().is_some_and(|quiet| quiet[place].1.contains(&true));
            results.push((name.to_owned(), score));
        }
    }
    for view in &arguments.views {
        let states = ours::judge(&series, *view, settings);
        let twin_states = twin.as_ref().map(|twin| ours::judge(twin, *view, settings));
        for (word, least) in [("suspect", LeakState::Suspect), ("leaking", LeakState::Leaking)] {
            let on = |states: &[(LeakState, &str)]| states.iter().map(|(state, _)| *state >= least).collect::<Vec<_>>();
            let mut score = score(&series, &on(&states));
            score.twin_alarmed = twin_states.as_ref().is_some_and(|states| on(states).contains(&true));
            if arguments.tests && ((score.leak && !score.before) || (!score.leak && score.false_episodes > 0)) {
                let mut tests: BTreeMap<&str, usize> = BTreeMap::new();
                for (_, test) in &states {
                    *tests.entry(test).or_default() += 1;
                }
                let first = states.iter().position(|(state, _)| *state >= least).map(|at| at as f64 / 12.0);
                eprintln!(
                    "{view:?} {word} {family} {seed}: delay {:?} exhausted {:?} first {first:?} {tests:?}",
                    score.delay, series.exhausted
                );
            }
            results.push((format!("{view:?} {word}"), score));
        }
    }
    results
}

/// The real traces at both scales: hours until *suspect* and *leaking*.
fn print_traces(settings: &Settings) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/traces");
    for (label, milliseconds, limit) in [("1 s = 1 min, 400 MB", 60_000, 400), ("1 s = 15 s, 250 MB", 15_000, 250)] {
        println!("traces, {label}: hours to suspect / leaking with collections, sampled heap, resident only");
        for trace in traces::read(&folder) {
            let views = [View::Collections, View::Sampled, View::Resident];
            let text: String = views
                .map(|view| {
                    let judged = traces::judge(&trace, milliseconds, limit, view, settings);
                    let hours = |at: Option<f64>| at.map_or("-".to_owned(), |at| format!("{at:.1}"));
                    if let Some(reason) = judged.first.filter(|_| !trace.leak) {
                        eprintln!("{} {view:?} {label}: {reason}", trace.name);
                    }
                    let test = judged.last.rejection.map_or("", |rejection| rejection.test);
                    format!("{:>7} {:>7} {test:>12}", hours(judged.suspect), hours(judged.leaking))
                })
                .concat();
            println!("  {:14} {:5} {text}", trace.name, if trace.leak { "leak" } else { "" });
        }
    }
}

fn print_families(scores: &BTreeMap<String, Vec<Score>>) {
    let mut families: Vec<&str> = Vec::new();
    for score in scores.values().flatten() {
        if !families.contains(&score.family.as_str()) {
            families.push(&score.family);
        }
    }
    families.sort_unstable();
    println!("family: healthy = false episodes (series); leaking = found / before exhaustion, median delay in h");
    let ours = |name: &str| name.ends_with("suspect") || name.ends_with("leaking");
    let scores: BTreeMap<&String, &Vec<Score>> = scores.iter().filter(|(name, _)| ours(name)).collect();
    print!("{:18} ", "");
    for name in scores.keys() {
        print!("{name:>20}");
    }
    println!();
    for family in families {
        print!("{family:18} ");
        for scores in scores.values() {
            let mine: Vec<Score> = scores.iter().filter(|score| score.family == family).cloned().collect();
            let summary = summarize(&mine);
            let text = if mine.iter().any(|score| score.leak) {
                format!("{:.2}/{:.2} {:5.1}h", summary.recall, summary.before, summary.delay)
            } else {
                format!("{} ({})", mine.iter().map(|score| score.false_episodes).sum::<usize>(), summary.false_series)
            };
            print!("{text:>20}");
        }
        println!();
    }
}

fn csv(scores: &BTreeMap<String, Vec<Score>>) -> String {
    let mut text = "detector,family,leak,false_episodes,days,delay_hours,before_exhaustion,twin_alarmed\n".to_owned();
    for (name, scores) in scores {
        for s in scores {
            let delay = s.delay.map_or(String::new(), |delay| format!("{delay:.3}"));
            writeln!(
                text,
                "\"{name}\",{},{},{},{:.3},{delay},{},{}",
                s.family, s.leak, s.false_episodes, s.days, s.before, s.twin_alarmed
            )
            .expect("a string takes everything");
        }
    }
    text
}

fn print_summary(scores: &BTreeMap<String, Vec<Score>>) {
    println!(
        "\n{:24}{:>7}{:>8}{:>8}{:>8}{:>9}{:>8}{:>9}{:>8}",
        "", "F1", "P", "R", "FA/day", "at most", "before", "credited", "delay"
    );
    for (name, scores) in scores {
        let s = summarize(scores);
        println!(
            "{name:24}{:7.3}{:8.3}{:8.3}{:8.3}{:9.3}{:8.3}{:9.3}{:8.1}",
            s.f1, s.precision, s.recall, s.false_a_day, s.false_a_day_at_most, s.before, s.credited, s.delay
        );
    }
}

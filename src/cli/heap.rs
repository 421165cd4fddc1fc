//! `leakslope heap …`: reads heap snapshots and profiles and prints what they tell, for people or as JSON.
//!
//! It opens the files and prints; what it prints is decided in `evidence`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use flate2::read::MultiGzDecoder;
use v8_heap::kind::{FileKind, LOOK, kind};

use super::arguments::Flags;
use super::heap_snapshot::{self, SnapshotArguments};
use super::heap_take::{self, TakeArguments};
use crate::evidence::export::Export;
use crate::evidence::keep;
use crate::evidence::original::{Originals, Places};
use crate::evidence::profile::{self, ProfileDiff, ProfileSummary, report::FunctionRow};
use crate::evidence::snapshot::analysis::{Analysis, analyse};
use crate::evidence::snapshot::classes::Interface;
use crate::evidence::snapshot::diff::{Diff, Growth, compare, digest};
use crate::evidence::snapshot::paths::told;
use crate::evidence::snapshot::patterns::Finding;
use crate::evidence::snapshot::rows::Row;
use crate::evidence::snapshot::statistics::{Amount, Statistics};
use crate::evidence::snapshot::summary::{ClassWays, Extent, Summary, summarise};
use crate::evidence::snapshot::{Limits, read};
use crate::model::Bytes;
use v8_heap::format::thousands;

/// Reads heap snapshots and heap profiles.
#[derive(Debug, Args)]
pub struct HeapArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: HeapCommand,
}

/// What can be done about heaps: files are read, or taken of a running app.
#[derive(Debug, Subcommand)]
pub enum HeapCommand {
    /// Reads files
    #[command(flatten)]
    Read(ReadCommand),
    /// Take a sampling heap profile of a running app, and tell what it shows
    Profile(TakeArguments),
    /// Take full snapshots of a running app, which stands still during each: estimated and checked first, never by itself
    Snapshot(SnapshotArguments),
}

/// What can be done with heap files.
#[derive(Debug, Subcommand)]
pub enum ReadCommand {
    /// Tell what one snapshot holds: by constructor, and what keeps it alive
    Summary {
        /// A .heapsnapshot file, packed by gzip or not; - for standard input
        file: PathBuf,
        /// How to read and print
        #[command(flatten)]
        options: SnapshotOptions,
    },
    /// Tell what grew between two snapshots or more, and who holds it; with three and more, only what stayed and went on growing
    Diff {
        /// The .heapsnapshot files, the oldest first
        #[arg(num_args = 2..=64, required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How to read and print
        #[command(flatten)]
        options: SnapshotOptions,
    },
    /// Tell which functions allocated what a sampling profile found alive; with two profiles, what changed
    ProfileSummary {
        /// One or two .heapprofile files, the older first; packed by gzip or not, - for standard input
        #[arg(num_args = 1..=2, required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How to print
        #[arg(long, value_enum, default_value_t = ProfileFormat::Text)]
        format: ProfileFormat,
        /// Functions to list
        #[arg(long, default_value_t = 25)]
        rows: usize,
        /// Where the scripts are
        #[command(flatten)]
        sources: SourceOptions,
    },
}

/// Where scripts and their source maps lie.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceOptions {
    /// Look for the app's scripts and their source maps in TO instead of FROM, where they ran; can be given several times
    #[arg(long, value_name = "FROM=TO", value_parser = moved)]
    pub path_map: Vec<(PathBuf, PathBuf)>,
    /// Look for source maps that are not beside their scripts in this folder, too (Next leaves them behind); can be given several times
    #[arg(long, value_name = "DIR")]
    pub source_maps: Vec<PathBuf>,
}

impl SourceOptions {
    /// What looks up where the code of this file was written; what comes by standard input counts as our own, but not as root's.
    fn originals(&self, file: &Path) -> Originals {
        let own = Some(rustix::process::geteuid()).filter(|user| !user.is_root());
        let user = if file == Path::new("-") { own.map(rustix::fs::Uid::as_raw) } else { keep::user(file) };
        Originals::new(Places { moved: self.path_map.clone(), maps: self.source_maps.clone() }, user)
    }
}

fn moved(text: &str) -> Result<(PathBuf, PathBuf), String> {
    Places::moved(text).map_err(str::to_owned)
}

/// How snapshots are read and printed.
#[derive(Debug, Clone, Args)]
pub struct SnapshotOptions {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Classes to list
    #[arg(long, default_value_t = 25)]
    pub rows: usize,
    /// Places where memory piles up to tell
    #[arg(long, default_value_t = 5)]
    pub findings: usize,
    /// Quote the texts of strings, and names of properties that look like data: a report may hold secrets then
    #[arg(long)]
    pub show_strings: bool,
    /// The most memory to use, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub max_memory: u64,
    /// Where the scripts are
    #[command(flatten)]
    pub sources: SourceOptions,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for people.
    Text,
    /// One JSON document.
    Json,
}

/// How to print a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileFormat {
    /// A table for people.
    Text,
    /// One JSON document.
    Json,
    /// Folded stacks, one a line, for flame graph tools.
    Folded,
    /// pprof's profile.proto, packed by gzip, of one profile.
    Pprof,
    /// speedscope's JSON, of one profile.
    Speedscope,
}

/// Runs a command and prints its result to standard output.
pub(super) fn run(flags: &Flags, args: &HeapArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        HeapCommand::Read(command) => read_and_print(command),
        HeapCommand::Profile(arguments) => heap_take::run(flags, arguments),
        HeapCommand::Snapshot(arguments) => heap_snapshot::run(flags, arguments),
    }
}

fn read_and_print(command: &ReadCommand) -> anyhow::Result<ExitCode> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match execute(command, &mut out).and_then(|()| Ok(out.flush()?)) {
        // Who reads has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Reads files and writes what they tell to `out`.
pub fn execute(command: &ReadCommand, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        ReadCommand::Summary { file, options } => {
            let analysis = load(file, options, &[])?;
            let mut summary = summarise(&analysis, &file.display().to_string(), options.extent());
            options.sources.originals(file).of_findings(&mut summary.findings);
            match options.format {
                Format::Text => write_summary(out, &summary),
                Format::Json => write_json(out, &summary),
            }
        }
        ReadCommand::Diff { files, options } => {
            let diff = diff(files, options)?;
            match options.format {
                Format::Text => write_diff(out, &diff),
                Format::Json => write_json(out, &diff),
            }
        }
        ReadCommand::ProfileSummary { files, format, rows, sources } => {
            profile_summary(out, files, *format, *rows, sources)
        }
    }
}

/// Writes what one profile tells, as `profile-summary` does.
pub(super) fn summarise_profile(out: &mut impl Write, path: &Path) -> anyhow::Result<()> {
    profile_summary(out, &[path.to_owned()], ProfileFormat::Text, 25, &SourceOptions::default())
}

fn profile_summary(
    out: &mut impl Write,
    files: &[PathBuf],
    format: ProfileFormat,
    rows: usize,
    sources: &SourceOptions,
) -> anyhow::Result<()> {
    let mut profiles = Vec::new();
    let mut notes = Vec::new();
    for path in files {
        let mut originals = sources.originals(path);
        let name = path.display().to_string();
        let mut read = profile::read(open(path, FileKind::HeapProfile)?, &name)?;
        originals.of_profile(&mut read);
        notes.extend(originals.notes().map(str::to_owned));
        profiles.push((read, name));
    }
    for note in notes.iter().filter(|_| format == ProfileFormat::Text) {
        writeln!(out, "note: {}", printable(note))?;
    }
    match (profiles.as_slice(), format) {
        ([(one, name)], ProfileFormat::Text) => write_profile(out, &profile::summarise(one, name, rows)),
        ([(one, name)], ProfileFormat::Json) => write_json(out, &profile::summarise(one, name, rows)),
        ([(one, _)], ProfileFormat::Folded) => {
            for (stack, bytes) in profile::folded(one) {
                writeln!(out, "{} {bytes}", printable(&stack))?;
            }
            Ok(())
        }
        ([(one, name)], ProfileFormat::Pprof | ProfileFormat::Speedscope) => {
            let export = if format == ProfileFormat::Pprof { Export::Pprof } else { Export::Speedscope };
            Ok(out.write_all(&export.write(one, name)?)?)
        }
        ([(one, first), (two, second)], ProfileFormat::Text) => {
            write_profile_diff(out, &profile::diff((one, first), (two, second), rows))
        }
        ([(one, first), (two, second)], ProfileFormat::Json) => {
            write_json(out, &profile::diff((one, first), (two, second), rows))
        }
        ([(one, _), (two, _)], ProfileFormat::Folded) => {
            for (stack, before, after) in profile::folded_diff(one, two) {
                writeln!(out, "{} {before} {after}", printable(&stack))?;
            }
            Ok(())
        }
        _ => anyhow::bail!("one profile is needed"),
    }
}

fn write_profile(out: &mut impl Write, summary: &ProfileSummary) -> anyhow::Result<()> {
    let (total, calls) = (Bytes(summary.total_bytes), thousands(summary.calls));
    writeln!(out, "{}: {total} still alive, allocated from {calls} calls", summary.file)?;
    writeln!(out, "{}\n", printable(&summary.sentence))?;
    let mut table = |title: &str, rows: &[FunctionRow]| -> anyhow::Result<()> {
        writeln!(out, "{title}")?;
        writeln!(out, "{:>9}  {:>6}  {:>9}  function", "self", "share", "total")?;
        for row in rows {
            let (own, all) = (Bytes(row.self_bytes).to_string(), Bytes(row.total_bytes).to_string());
            let share = format!("{:.1} %", row.self_share * 100.0);
            writeln!(out, "{own:>9}  {share:>6}  {all:>9}  {}", printable(&row.frame.to_string()))?;
        }
        Ok(())
    };
    table("Functions that allocated what is still alive", &summary.functions)?;
    table("\nThe app's own functions, with all they called", &summary.own)
}

fn write_profile_diff(out: &mut impl Write, diff: &ProfileDiff) -> anyhow::Result<()> {
    for (file, total) in diff.files.iter().zip(diff.total_bytes) {
        writeln!(out, "{file}: {} still alive", Bytes(total))?;
    }
    writeln!(out, "\nWhat changed, by function")?;
    writeln!(out, "{:>10}  {:>9}  {:>9}  function", "change", "before", "after")?;
    for row in &diff.functions {
        let change = signed(row.self_delta(), |bytes| Bytes(bytes).to_string());
        let [before, after] = row.self_bytes.map(|bytes| Bytes(bytes).to_string());
        writeln!(out, "{change:>10}  {before:>9}  {after:>9}  {}", printable(&row.frame.to_string()))?;
    }
    Ok(())
}

impl SnapshotOptions {
    fn extent(&self) -> Extent {
        Extent { rows: self.rows, findings: self.findings }
    }

    fn limits(&self) -> Limits {
        Limits { memory: self.max_memory << 20, show_strings: self.show_strings, ..Limits::default() }
    }
}

fn load(path: &Path, options: &SnapshotOptions, known: &[Interface]) -> anyhow::Result<Analysis> {
    let name = path.display().to_string();
    let mut heap = read(open(path, FileKind::Snapshot)?, &name, &options.limits())?;
    options.sources.originals(path).of_heap(&mut heap);
    Ok(analyse(heap, known))
}

/// Opens a file, `-` for standard input, unpacks what gzip packed, and refuses what is no such file with what it is.
fn open(path: &Path, wanted: FileKind) -> anyhow::Result<impl Read + use<>> {
    let name = path.display();
    let reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("cannot open {name}"))?)
    };
    let (mut start, mut reader) = begin(reader).with_context(|| format!("cannot read {name}"))?;
    if kind(&start) == FileKind::Gzip {
        (start, reader) =
            begin(Box::new(MultiGzDecoder::new(reader))).with_context(|| format!("cannot unpack {name}"))?;
    }
    match kind(&start).refusal(wanted) {
        Some(why) => anyhow::bail!("{name}: {}", why.replace("FILE", &name.to_string())),
        None => Ok(reader),
    }
}

/// Reads the start of a file, and puts it before the rest again.
fn begin(mut reader: Box<dyn Read>) -> std::io::Result<(Vec<u8>, Box<dyn Read>)> {
    let mut start = Vec::new();
    match reader.by_ref().take(LOOK as u64).read_to_end(&mut start) {
        // What is cut off is told by who reads it.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        other => drop(other?),
    }
    Ok((start.clone(), Box::new(std::io::Cursor::new(start).chain(reader))))
}

/// Reads the files one after the other: only digests of the earlier ones are kept.
pub(super) fn diff(files: &[PathBuf], options: &SnapshotOptions) -> anyhow::Result<Diff> {
    let (last, earlier) = files.split_last().context("two files or more are needed")?;
    let mut digests = Vec::new();
    let mut known: Vec<Interface> = Vec::new();
    for path in earlier {
        let taken = digest(&load(path, options, &known)?, &path.display().to_string());
        known.clone_from(&taken.interfaces);
        digests.push(taken);
    }
    let analysis = load(last, options, &known)?;
    let mut diff = compare(&digests, &analysis, &last.display().to_string(), options.extent());
    options.sources.originals(last).of_findings(&mut diff.findings);
    Ok(diff)
}

fn write_json(out: &mut impl Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

fn write_summary(out: &mut impl Write, summary: &Summary) -> anyhow::Result<()> {
    let total = Bytes(summary.statistics.total.bytes);
    let (nodes, edges) = (thousands(summary.nodes), thousands(summary.edges));
    writeln!(out, "{}: {total} in {nodes} nodes and {edges} references\n", summary.file)?;
    write_statistics(out, &summary.statistics)?;
    writeln!(out, "\nBy constructor")?;
    writeln!(out, "{:>10}  {:>9}  {:>9}  {:>8}  {:>6}  class", "count", "shallow", "retained", "distance", "median")?;
    for row in &summary.classes {
        write_row(out, row)?;
    }
    if summary.classes_left_out > 0 {
        writeln!(out, "{:>10}  more classes", summary.classes_left_out)?;
    }
    if !summary.strings.is_empty() {
        writeln!(out, "\nStrings that take most")?;
    }
    for string in &summary.strings {
        let bytes = Bytes(string.bytes).to_string();
        writeln!(out, "{:>10}  {bytes:>9}  {}", thousands(string.count), printable(&string.text))?;
    }
    write_findings(out, "Where memory piles up", &summary.findings)?;
    write_ways(out, &summary.ways)
}

fn write_statistics(out: &mut impl Write, statistics: &Statistics) -> anyhow::Result<()> {
    let mut write = |title: &str, rows: &[(&str, Amount)]| -> anyhow::Result<()> {
        for (name, amount) in rows.iter().filter(|(_, amount)| amount.count > 0 || amount.bytes > 0) {
            writeln!(out, "{:>10}  {:>9}  {title}{name}", thousands(amount.count), Bytes(amount.bytes).to_string())?;
        }
        Ok(())
    };
    write("", &statistics.parts())?;
    write("  of them ", &statistics.among())
}

fn write_row(out: &mut impl Write, row: &Row) -> anyhow::Result<()> {
    let distance = |distance: Option<u32>| distance.map_or_else(|| "-".to_owned(), |distance| distance.to_string());
    write!(
        out,
        "{:>10}  {:>9}  {:>9}  {:>8}  {:>6}  {}",
        thousands(row.count),
        Bytes(row.shallow_bytes).to_string(),
        Bytes(row.retained_bytes).to_string(),
        distance(row.distance_min),
        distance(row.distance_median),
        printable(&row.class),
    )?;
    if let Some(place) = &row.written_at {
        write!(out, "  {}", printable(place))?;
    }
    if let Some(outliers) = &row.outliers {
        let examples: Vec<String> =
            outliers.examples.iter().map(|&(id, at)| format!("@{id} at {}", distance(at))).collect();
        write!(out, "  ({} elsewhere than the others: {})", outliers.count, examples.join(", "))?;
    }
    writeln!(out)?;
    Ok(())
}

fn write_findings(out: &mut impl Write, title: &str, findings: &[Finding]) -> anyhow::Result<()> {
    writeln!(out, "\n{title}")?;
    if findings.is_empty() {
        writeln!(out, "  nowhere that stands out")?;
    }
    for (number, finding) in (1..).zip(findings) {
        writeln!(out, "{number:>3}. {} ({})", printable(&finding.sentence), Bytes(finding.bytes))?;
        if let Some(course) = finding.course() {
            let id = finding.id.map(|id| format!("@{id} ")).unwrap_or_default();
            writeln!(out, "     {id}kept alive {course}")?;
        }
        writeln!(out, "     {}", printable(&finding.told_way()))?;
        if let Some(package) = &finding.package {
            writeln!(out, "     held by the package {}", printable(package))?;
        }
        let keeps: Vec<String> =
            finding.keeps.iter().map(|kept| format!("{} {}", Bytes(kept.bytes_per_piece), kept.class)).collect();
        if !keeps.is_empty() {
            writeln!(out, "     each keeps {}", printable(&keeps.join(", ")))?;
        }
        if !finding.examples.is_empty() {
            let ids: Vec<String> = finding.examples.iter().map(|id| format!("@{id}")).collect();
            writeln!(out, "     look at {} in DevTools", ids.join(", "))?;
        }
    }
    Ok(())
}

fn write_ways(out: &mut impl Write, classes: &[ClassWays]) -> anyhow::Result<()> {
    if classes.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nWhy it is alive")?;
    for class in classes {
        for counted in &class.ways {
            let Some((_, steps)) = counted.steps.split_last() else { continue };
            writeln!(out, "  {}", printable(&told(steps, &class.class, counted.count)))?;
        }
    }
    Ok(())
}

fn write_diff(out: &mut impl Write, diff: &Diff) -> anyhow::Result<()> {
    for (file, total) in diff.files.iter().zip(&diff.totals) {
        writeln!(out, "{file}: {} in {} nodes", Bytes(total.shallow_bytes), thousands(total.count))?;
    }
    writeln!(out, "{}.", diff.compared())?;
    if let Some(added) = diff.added {
        let when = match diff.files.len() {
            0..=2 => "Added",
            3 => "Added between the first two and alive in the third",
            _ => "Added after the first and alive in the last two",
        };
        writeln!(out, "{when}: {} objects, {}.", thousands(added.count), Bytes(added.shallow_bytes))?;
    }
    writeln!(out, "\nGrowth by constructor")?;
    writeln!(
        out,
        "{:>10}  {:>10}  {:>10}  {:>10}  {:>10}  class",
        "count", "shallow", "retained", "added", "added size"
    )?;
    for growth in &diff.classes {
        write_growth(out, growth)?;
    }
    if diff.classes_left_out > 0 {
        writeln!(out, "{:>10}  more classes", diff.classes_left_out)?;
    }
    write_findings(out, "Where the growth piles up", &diff.findings)?;
    write_ways(out, &diff.ways)
}

fn write_growth(out: &mut impl Write, growth: &Growth) -> anyhow::Result<()> {
    let (count, bytes) = growth.added.map_or_else(
        || ("-".to_owned(), "-".to_owned()),
        |added| (thousands(added.count), Bytes(added.shallow_bytes).to_string()),
    );
    writeln!(
        out,
        "{:>10}  {:>10}  {:>10}  {count:>10}  {bytes:>10}  {}",
        signed(growth.count_delta(), thousands),
        signed(growth.shallow_delta(), |bytes| Bytes(bytes).to_string()),
        signed(growth.retained_delta(), |bytes| Bytes(bytes).to_string()),
        printable(&growth.class),
    )?;
    Ok(())
}

fn signed(number: i64, write: impl Fn(u64) -> String) -> String {
    let sign = match number {
        0 => "",
        n if n > 0 => "+",
        _ => "-",
    };
    format!("{sign}{}", write(number.unsigned_abs()))
}

/// Keeps text from a file from steering the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

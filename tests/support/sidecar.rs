//! The real binary in a place of its own, and its `/metrics` read back.
//!
//! Every sidecar here listens on a port that the system chooses and says which in its log; its home, its state directory
//! and its configuration lie in a folder that goes with the test.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{pm2, wait_for};

/// Far more than anything here takes on a busy machine; only a hang meets it.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Where a sidecar runs: its home, its state, its configuration and its log.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    pm2_home: PathBuf,
    starts: Cell<usize>,
}

impl Place {
    /// Makes a place whose sidecars look for pm2 at `pm2_home` and read `configuration`.
    pub fn new(pm2_home: &Path, configuration: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("sidecar-").tempdir().unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        let place = Self { folder, pm2_home: pm2_home.to_owned(), starts: Cell::new(0) };
        place.configure(configuration);
        place
    }

    /// The configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("leakslope.toml")
    }

    /// Writes the configuration anew.
    pub fn configure(&self, text: &str) {
        fs::write(self.configuration(), text).unwrap();
    }

    /// The `XDG_STATE_HOME`.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Everything the sidecars of this place keep on disk, file by file.
    pub fn state_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let (mut files, mut folders) = (Vec::new(), vec![self.state()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    files.push((entry.path(), fs::read(entry.path()).unwrap()));
                }
            }
        }
        files
    }

    /// The binary with these arguments and nothing of our own environment but the path.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_leakslope"));
        command.args(arguments);
        command
    }

    /// The same for any program.
    pub fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("XDG_STATE_HOME", self.state())
            .env("PM2_HOME", &self.pm2_home)
            .env("LEAKSLOPE_CONFIG", self.configuration())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts a sidecar on a port of the system's choice and waits until it has collected once.
    pub fn start(&self) -> Sidecar {
        self.start_with(&[])
    }

    /// The same with more arguments.
    pub fn start_with(&self, arguments: &[&str]) -> Sidecar {
        self.launch("127.0.0.1:0", arguments)
    }

    /// Starts a sidecar that listens on this address, which is reached over loopback.
    pub fn start_on(&self, address: &str) -> Sidecar {
        self.launch(address, &[])
    }

    fn launch(&self, listen_address: &str, arguments: &[&str]) -> Sidecar {
        let mut command = self.command(&["--web.listen-address", listen_address]);
        command.args(arguments);
        self.spawn(command).ready()
    }

    /// Runs this command as a sidecar; where it serves is for the caller to find in its log.
    pub fn spawn(&self, mut command: Command) -> Sidecar {
        self.starts.set(self.starts.get() + 1);
        let log = self.folder.path().join(format!("log-{}", self.starts.get()));
        let child = command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn();
        Sidecar { child: child.unwrap_or_else(|error| panic!("{command:?}: {error}")), log, address: String::new() }
    }
}

/// A running sidecar, killed when it is dropped.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    log: PathBuf,
    address: String,
}

impl Sidecar {
    /// Waits until it has collected once, and remembers the TCP address that it names.
    pub fn ready(mut self) -> Self {
        self.address = self.announced("http://");
        wait_for("the first collection", DEADLINE, || match self.try_get("/-/ready") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        self
    }

    /// Waits until the log says that it serves on an address of this kind, and returns what follows that.
    pub fn announced(&self, kind: &str) -> String {
        let wanted = format!("serving metrics and the page on {kind}");
        wait_for("the sidecar to listen", DEADLINE, || {
            let log = self.log();
            let (_, rest) = log.split_once(&wanted).ok_or_else(|| log.clone())?;
            let line =
                rest.split_inclusive('\n').next().filter(|line| line.ends_with('\n')).ok_or_else(|| log.clone())?;
            let address = line.split_whitespace().next().unwrap_or_default();
            Ok(address.trim_end_matches('/').replace("0.0.0.0", "127.0.0.1"))
        })
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The lines of the log that hold `text`.
    pub fn logged(&self, text: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Asks for a path; the status and the body, or why there is none.
    pub fn try_get(&self, path: &str) -> Result<(u16, String), String> {
        let told = |error: std::io::Error| format!("{path}: {error}");
        let mut stream = TcpStream::connect(&self.address).map_err(told)?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(told)?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address).map_err(told)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(told)?;
        let answer = String::from_utf8(answer).map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{path}: {answer:?}"))?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.ok_or_else(|| format!("{path}: {head:?}"))?, body.to_owned()))
    }

    /// The body of a path that must answer 200.
    pub fn get(&self, path: &str) -> String {
        let (status, body) = self.try_get(path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// The body of a path as JSON.
    pub fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.get(path)).unwrap()
    }

    /// One scrape.
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics"))
    }

    /// Scrapes until `check` is content, and returns what it found with the scrape it found it in.
    pub fn until<T>(&self, what: &str, mut check: impl FnMut(&Metrics) -> Option<T>) -> (Metrics, T) {
        wait_for(what, DEADLINE, || {
            let metrics = self.metrics();
            if let Some(found) = check(&metrics) {
                return Ok((metrics, found));
            }
            // Scraping without a pause would take the time that the apps need.
            std::thread::sleep(Duration::from_millis(150));
            Err(format!("{}\n{}", metrics.body, self.log()))
        })
    }

    /// Waits for so many further collections, failed ones included.
    pub fn collections(&self, further: usize) {
        let mut seen = std::collections::BTreeSet::new();
        wait_for("further collections", DEADLINE, || {
            seen.insert(self.json("/api/v1/processes")["collected_at"].to_string());
            if seen.len() > further { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        pm2::signal(self.pid(), signal);
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the sidecar's end", DEADLINE, || {
            self.child.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned())
        })
    }

    /// Sends a signal and waits for the end; how it ended and how long that took.
    pub fn stop(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        self.signal(signal);
        (self.wait(), begun.elapsed())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The labels of a series.
pub type Labels = BTreeMap<String, String>;

/// A body of `/metrics`, read.
#[derive(Debug)]
pub struct Metrics {
    /// The text.
    pub body: String,
    series: BTreeMap<String, Vec<(Labels, f64)>>,
}

impl Metrics {
    /// Reads the text format; panics at a line that is not of it and at a series that stands twice.
    pub fn parse(body: &str) -> Self {
        let mut series: BTreeMap<String, Vec<(Labels, f64)>> = BTreeMap::new();
        for line in body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, labels, value) = read_series(line).unwrap_or_else(|| panic!("not a series: {line}"));
            let family = series.entry(name.to_owned()).or_default();
            assert!(family.iter().all(|(other, _)| *other != labels), "stands twice: {line}");
            family.push((labels, value));
        }
        Self { body: body.to_owned(), series }
    }

    /// The series of a family that have these labels among theirs.
    pub fn all(&self, family: &str, labels: &[(&str, &str)]) -> Vec<(&Labels, f64)> {
        let fits =
            |own: &Labels| labels.iter().all(|(name, value)| own.get(*name).is_some_and(|own| own.as_str() == *value));
        let series = self.series.get(family).map(Vec::as_slice).unwrap_or_default();
        series.iter().filter(|(own, _)| fits(own)).map(|(own, value)| (own, *value)).collect()
    }

    /// The value of the one series that fits; none where there is none.
    pub fn value(&self, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
        match self.all(family, labels)[..] {
            [] => None,
            [(_, value)] => Some(value),
            ref several => panic!("{family} {labels:?} fits {several:?}"),
        }
    }

    /// Every series by its family.
    pub fn families(&self) -> impl Iterator<Item = (&str, &[(Labels, f64)])> {
        self.series.iter().map(|(name, series)| (name.as_str(), series.as_slice()))
    }
}

fn read_series(line: &str) -> Option<(&str, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = read_quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    Some((name, labels, rest.strip_prefix(' ')?.parse().ok()?))
}

/// Reads up to the closing quote; the value without its escapes, and what follows.
fn read_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                _ => return None,
            }),
            plain => value.push(plain),
        }
    }
    None
}

/// Asserts that `promtool check metrics` has nothing to say about a body.
pub fn assert_promtool_is_content(body: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool =
        promtool.unwrap_or_else(|error| panic!("promtool: {error}: install it with `apt-get install prometheus`"));
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{}: {said}\n{body}", output.status);
}

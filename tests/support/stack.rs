//! A real sidecar, a real Prometheus and a real Alertmanager, each on a port of its own, and somebody who hears what
//! Alertmanager has to say. Everything is ended on drop.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::wait_for;

const START: Duration = Duration::from_secs(30);

/// A program that runs until it is dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _waited = self.0.wait();
    }
}

fn start(command: &mut Command, log: &Path, install: &str) -> Running {
    let file = File::create(log).unwrap();
    let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn();
    Running(child.unwrap_or_else(|error| panic!("{command:?} does not start ({error}): {install}")))
}

/// An address on which nobody listens at the moment.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Starts the sidecar and returns it with its address.
pub fn sidecar(folder: &Path, configuration: &str) -> (Running, SocketAddr) {
    let config = configuration_file(folder);
    fs::write(&config, configuration).unwrap();
    let state = folder.join("state");
    fs::create_dir(&state).unwrap();
    let log = folder.join("leakslope.log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_leakslope"));
    command.arg("--config").arg(&config).env("STATE_DIRECTORY", &state);
    let running = start(&mut command, &log, "cargo build");
    let address = wait_for("the sidecar's address", START, || {
        let said = fs::read_to_string(&log).unwrap();
        let rest = said.split("http://").nth(1).ok_or_else(|| said.clone())?;
        rest.split('/').next().and_then(|address| address.parse().ok()).ok_or_else(|| said.clone())
    });
    (running, address)
}

/// The configuration that [`sidecar`] starts with.
pub fn configuration_file(folder: &Path) -> PathBuf {
    folder.join("leakslope.toml")
}

/// Starts Prometheus on rule files and targets of `configuration`, and waits until it is ready.
pub fn prometheus(folder: &Path, configuration: &str) -> (Running, SocketAddr) {
    let storage = format!("--storage.tsdb.path={}", folder.join("tsdb").display());
    server("prometheus", "prometheus", folder, configuration, &[&storage])
}

/// Starts a Prometheus in a hurry that scrapes a sidecar and tells an Alertmanager what the shipped rules find.
pub fn watching(folder: &Path, sidecar: SocketAddr, alertmanager: SocketAddr) -> (Running, SocketAddr) {
    let rule_files = impatient_rules(folder).join(", ");
    prometheus(
        folder,
        &format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{rule_files}]\n\
             scrape_configs: [{{job_name: any name, static_configs: [{{targets: ['{sidecar}']}}]}}]\n\
             alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}\n"
        ),
    )
}

/// Starts Alertmanager and waits until it is ready.
pub fn alertmanager(folder: &Path, configuration: &str) -> (Running, SocketAddr) {
    let storage = format!("--storage.path={}", folder.join("alertmanager").display());
    server("alertmanager", "prometheus-alertmanager", folder, configuration, &[&storage, "--cluster.listen-address="])
}

/// Starts a program of Prometheus' family, which is also the name of its package, on an address of its own, with `NAME.yml` and
/// `NAME.log` in the folder, and waits until it is ready.
fn server(name: &str, program: &str, folder: &Path, configuration: &str, arguments: &[&str]) -> (Running, SocketAddr) {
    let (config, address) = (folder.join(format!("{name}.yml")), free_address());
    fs::write(&config, configuration).unwrap();
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display())).args(arguments);
    command.arg(format!("--web.listen-address={address}"));
    let running = start(&mut command, &folder.join(format!("{name}.log")), &format!("apt-get install {program}"));
    wait_for(name, START, || get(address, "/-/ready").map(drop));
    (running, address)
}

/// Asks for a path and returns the body of a good answer, else what was wrong.
pub fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        // By HTTP/1.0 the answer comes in one piece and ends with the connection.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("{address}{path}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {answer:?}"))?;
    if head.split(' ').nth(1) == Some("200") { Ok(body.to_owned()) } else { Err(answer) }
}

/// Asks Prometheus' API and returns its `data`; an error is an error of the query.
pub fn api(address: SocketAddr, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
    let query: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    let body = get(address, &format!("/api/v1/{path}?{}", query.join("&")))?;
    let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
    if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(body) }
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The text of a file of the project.
pub fn shipped(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Writes the shipped rule files into a folder with every wait cut to a second, and returns their names.
pub fn impatient_rules(folder: &Path) -> [&'static str; 2] {
    let names = ["leakslope.rules.yml", "leakslope.alerts.yml"];
    for name in names {
        let rules = shipped(&format!("alerts/{name}"));
        let waiting = |line: &str| line.trim_start().starts_with("for: ");
        let hurried = rules.lines().map(|line| if waiting(line) { "        for: 1s" } else { line });
        fs::write(folder.join(name), hurried.fold(String::new(), |text, line| text + line + "\n")).unwrap();
    }
    names
}

/// The shipped Alertmanager example in a hurry, told where people (`people`) and whoever acts for `sidecar` (`actor`) hear
/// of alerts, and where the token lies.
pub fn impatient_routes(people: SocketAddr, actor: SocketAddr, sidecar: SocketAddr, token: &Path) -> String {
    shipped("alerts/alertmanager.example.yml")
        .replace("http://127.0.0.1:19209/", &format!("http://{actor}/"))
        .replace("127.0.0.1:9999", &people.to_string())
        .replace("instance = \"127.0.0.1:19209\"", &format!("instance = \"{sidecar}\""))
        .replace("/etc/alertmanager/leakslope.token", &token.display().to_string())
        .lines()
        .map(|line| match line.trim_start().split(": ").next() {
            Some("group_wait") => line.split(':').next().unwrap().to_owned() + ": 1s",
            Some("group_interval") => line.split(':').next().unwrap().to_owned() + ": 2s",
            _ => line.to_owned(),
        })
        .fold(String::new(), |text, line| text + &line + "\n")
}

/// One request that Alertmanager made.
#[derive(Debug, Clone)]
pub struct Notification {
    /// Where to.
    pub path: String,
    /// With whose right.
    pub authorization: Option<String>,
    /// What it says.
    pub body: Value,
}

impl Notification {
    /// The names of its alerts.
    pub fn names(&self) -> BTreeSet<String> {
        let alerts = self.body["alerts"].as_array().map_or(&[][..], Vec::as_slice);
        alerts.iter().filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect()
    }

    /// A label of its first alert.
    pub fn label(&self, name: &str) -> &str {
        self.body["alerts"][0]["labels"][name].as_str().unwrap_or_default()
    }
}

/// Somebody who answers every webhook and remembers it.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Notification>>>,
}

impl Listener {
    /// Starts to listen.
    pub fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&heard);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                if let Ok(notification) = answer(stream) {
                    memory.lock().unwrap_or_else(PoisonError::into_inner).push(notification);
                }
            }
        });
        Self { address, heard }
    }

    /// Everything heard so far.
    pub fn heard(&self) -> Vec<Notification> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(stream: TcpStream) -> std::io::Result<Notification> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let (mut length, mut authorization, mut path) = (0, None, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap_or(0),
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = Some(value.to_owned()),
            Some(_) => {}
            None => path = line.split(' ').nth(1).map(str::to_owned),
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    Ok(Notification { path: path.unwrap_or_default(), authorization, body: serde_json::from_slice(&body)? })
}

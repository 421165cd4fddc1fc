//! The real binary, with a configuration and a state directory of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::pm2::signal;
use super::wait_for;

/// A sidecar that runs until it is dropped or stopped.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    log: PathBuf,
    /// Where it serves.
    pub address: String,
}

impl Sidecar {
    /// Starts it on a free port, with `folder` for its state, its log and its configuration.
    pub fn start(folder: &Path, configuration: &str) -> Self {
        let (config, log) = (folder.join("leakslope.toml"), folder.join("log"));
        fs::write(&config, configuration).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_leakslope"))
            .args(["--web.listen-address", "127.0.0.1:0", "--config"])
            .arg(&config)
            .env("STATE_DIRECTORY", folder.join("state"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut sidecar = Self { child, log, address: String::new() };
        sidecar.address = wait_for("the sidecar's address", Duration::from_secs(20), || {
            let log = sidecar.log();
            let (_, rest) = log.split_once("on http://").ok_or_else(|| log.clone())?;
            rest.split_once('/').map(|(address, _)| address.to_owned()).ok_or_else(|| log.clone())
        });
        sidecar
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The body of an answer, whatever its status.
    pub fn get(&self, path: &str) -> Result<String, String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(&self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|error| format!("{path}: {error}"))?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{path}: {answer:?}"))?;
        Ok(body.to_owned())
    }

    /// An answer as JSON.
    pub fn json(&self, path: &str) -> Result<serde_json::Value, String> {
        let body = self.get(path)?;
        serde_json::from_str(&body).map_err(|error| format!("{path}: {error}: {body}"))
    }

    /// The process of the API's list with this number.
    pub fn process(&self, pm_id: u64) -> Result<serde_json::Value, String> {
        let list = self.json("/api/v1/processes")?;
        let processes = list["processes"].as_array().ok_or_else(|| format!("no processes: {list}"))?;
        let found = processes.iter().find(|process| process["pm_id"] == pm_id);
        found.cloned().ok_or_else(|| format!("no process {pm_id}: {list}"))
    }

    /// Ends it by SIGTERM and returns how it ended.
    pub fn stop(mut self) -> ExitStatus {
        signal(self.child.id(), Signal::TERM);
        wait_for("the sidecar's end", Duration::from_secs(20), || {
            self.child.try_wait().unwrap().ok_or_else(|| self.log())
        })
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

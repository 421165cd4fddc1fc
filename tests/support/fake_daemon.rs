//! A daemon that speaks pm2's protocol and misbehaves on demand.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use leakslope::collect::{DaemonSpec, Source};
use serde_json::json;
use tempfile::TempDir;

/// What the daemon does with a request for the list. A request for the version is always answered.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Answers with this list.
    List(String),
    /// Answers with this JSON as the whole message.
    Message(String),
    /// Answers with these bytes, whatever they are, and leaves the connection open.
    Bytes(Vec<u8>),
    /// Sends these bytes and closes the connection.
    BytesThenClose(Vec<u8>),
    /// Closes the connection instead of answering.
    Close,
    /// Never answers.
    Silence,
    /// Announces a reply of this length and sends noise for as long as anyone takes it.
    Noise(u32),
    /// Sends the right answer, one byte at a time, this far apart.
    Drip(String, Duration),
    /// Answers with the id of another request.
    WrongId(String),
}

/// A daemon with a home of its own, until it is dropped.
#[derive(Debug)]
pub struct FakeDaemon {
    folder: TempDir,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    behaviour: Mutex<Behaviour>,
    methods: Mutex<Vec<String>>,
    connections: Mutex<Vec<UnixStream>>,
    accepted: Mutex<usize>,
    sent: Mutex<usize>,
    ended: Mutex<bool>,
}

impl FakeDaemon {
    /// Starts a daemon in a new home.
    pub fn start(behaviour: Behaviour) -> Self {
        let folder = tempfile::Builder::new().prefix("fake-").tempdir_in("/tmp").unwrap();
        let state = Arc::new(State {
            behaviour: Mutex::new(behaviour),
            methods: Mutex::default(),
            connections: Mutex::default(),
            accepted: Mutex::default(),
            sent: Mutex::default(),
            ended: Mutex::new(false),
        });
        let daemon = Self { folder, state };
        daemon.listen();
        daemon
    }

    /// Begins to listen (again, after [`FakeDaemon::die`]).
    pub fn listen(&self) {
        let _absent = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket()).unwrap();
        *self.state.ended.lock().unwrap() = false;
        let state = Arc::clone(&self.state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if *state.ended.lock().unwrap() {
                    return;
                }
                *state.accepted.lock().unwrap() += 1;
                state.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let state = Arc::clone(&state);
                thread::spawn(move || serve(stream, &state));
            }
        });
    }

    /// Dies without removing the socket: open connections break and nobody listens.
    pub fn die(&self) {
        *self.state.ended.lock().unwrap() = true;
        for connection in self.state.connections.lock().unwrap().drain(..) {
            let _closed_already = connection.shutdown(std::net::Shutdown::Both);
        }
        let _wakes_the_listener = UnixStream::connect(self.socket());
        super::wait_for("the listener's end", Duration::from_secs(5), || {
            if UnixStream::connect(self.socket()).is_err() { Ok(()) } else { Err("it listens".to_owned()) }
        });
    }

    /// Changes what it does from the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    /// The `PM2_HOME`.
    pub fn home(&self) -> &Path {
        self.folder.path()
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("rpc.sock")
    }

    /// How a collector reaches this daemon: by its socket alone.
    pub fn spec(&self, name: &str) -> DaemonSpec {
        DaemonSpec {
            name: name.into(),
            home: self.home().to_owned(),
            source: Source::Socket,
            pm2_command: Vec::new(),
            expected: true,
            named_by: None,
        }
    }

    /// The methods that were called, in order.
    pub fn methods(&self) -> Vec<String> {
        self.state.methods.lock().unwrap().clone()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        *self.state.accepted.lock().unwrap()
    }

    /// How many bytes of noise were taken from it.
    pub fn noise_sent(&self) -> usize {
        *self.state.sent.lock().unwrap()
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        if !*self.state.ended.lock().unwrap() {
            self.die();
        }
    }
}

fn serve(mut stream: UnixStream, state: &State) {
    while let Some((message, id)) = read_request(&mut stream) {
        let request: serde_json::Value = serde_json::from_slice(message.strip_prefix(b"j:").unwrap()).unwrap();
        // The real one dies of anything else.
        assert_eq!((&request["type"], &request["args"]), (&json!("call"), &json!([{}])));
        let method = request["method"].as_str().unwrap().to_owned();
        state.methods.lock().unwrap().push(method.clone());
        if method == "getVersion" {
            if stream.write_all(&frame(&[br#"j:{"args":["9.8.7"]}"#, &id])).is_err() {
                return;
            }
            continue;
        }
        let behaviour = state.behaviour.lock().unwrap().clone();
        if answer(&mut stream, behaviour, &id, state).is_err() {
            return;
        }
    }
}

fn answer(stream: &mut UnixStream, behaviour: Behaviour, id: &[u8], state: &State) -> std::io::Result<()> {
    let closed = || std::io::Error::other("closed on purpose");
    match behaviour {
        Behaviour::List(list) => stream.write_all(&reply(&list, id)),
        Behaviour::Message(json) => stream.write_all(&frame(&[format!("j:{json}").as_bytes(), id])),
        Behaviour::Bytes(bytes) => stream.write_all(&bytes),
        Behaviour::BytesThenClose(bytes) => {
            stream.write_all(&bytes)?;
            stream.shutdown(std::net::Shutdown::Both)?;
            Err(closed())
        }
        Behaviour::Close => {
            stream.shutdown(std::net::Shutdown::Both)?;
            Err(closed())
        }
        Behaviour::Silence => Ok(()),
        Behaviour::Noise(length) => {
            stream.write_all(&[0x12])?;
            stream.write_all(&length.to_be_bytes())?;
            let mut left = usize::try_from(length).unwrap();
            while left > 0 {
                let sent = stream.write(&vec![b'x'; left.min(65_536)])?;
                *state.sent.lock().unwrap() += sent;
                left -= sent;
            }
            stream.write_all(&frame(&[id])[1..])
        }
        Behaviour::Drip(list, pause) => {
            for byte in reply(&list, id) {
                stream.write_all(&[byte])?;
                thread::sleep(pause);
            }
            Ok(())
        }
        Behaviour::WrongId(list) => stream.write_all(&reply(&list, b"s:somebody else")),
    }
}

/// The frame that a daemon answers with.
pub fn reply(list: &str, id: &[u8]) -> Vec<u8> {
    frame(&[format!(r#"j:{{"args":[{list}]}}"#).as_bytes(), id])
}

fn frame(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0x10 | u8::try_from(arguments.len()).unwrap()];
    for argument in arguments {
        bytes.extend(u32::try_from(argument.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(argument);
    }
    bytes
}

fn read_request(stream: &mut UnixStream) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut header = [0];
    stream.read_exact(&mut header).ok()?;
    assert_eq!(header, [0x12], "two arguments of version one");
    let mut argument = || {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let mut bytes = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    Some((argument()?, argument()?))
}

/// One entry as pm2 lists it, with an environment of about eight kilobytes that holds secrets.
pub fn entry(pm_id: usize, pid: u32) -> serde_json::Value {
    let secret = format!("hunter2-s3cr3t-{}", "x".repeat(120));
    let environment: serde_json::Map<String, serde_json::Value> =
        (0..25).map(|index| (format!("SECRET_{index}"), json!(secret))).collect();
    let mut pm2_env = environment.clone();
    pm2_env.extend(
        json!({
            "name": format!("app-{}", pm_id / 4), "pm_id": pm_id, "status": "online", "pm_uptime": 1_795_393_485_552_u64,
            "restart_time": 3, "unstable_restarts": 0, "exec_mode": "cluster_mode", "namespace": "default",
            "node_version": "20.20.2", "exec_interpreter": "node", "pmx": true, "env": environment,
            "axm_monitor": {
                "Used Heap Size": {"value": "24.50", "type": "internal/v8/heap/used", "unit": "MiB", "historic": true},
                "Heap Size": {"value": "32.00", "type": "internal/v8/heap/total", "unit": "MiB", "historic": true},
                "Event Loop Latency": {"value": "0.36", "type": "internal/libuv/latency/p50", "unit": "ms"},
                "Event Loop Latency p95": {"value": "1.18", "type": "internal/libuv/latency/p95", "unit": "ms"},
                "Active handles": {"value": 3, "type": "internal/libuv/handles", "historic": true},
                "Active requests": {"value": 0, "type": "internal/libuv/requests", "historic": true},
                "HTTP": {"value": 120, "type": "internal/http/builtin/reqs", "unit": "req/min"},
            },
        })
        .as_object()
        .unwrap()
        .clone(),
    );
    json!({
        "pid": pid, "name": format!("app-{}", pm_id / 4), "pm_id": pm_id, "pm2_env": pm2_env,
        "monit": {"memory": 54_312_960, "cpu": 0.3},
    })
}

/// A list of `count` online processes without pids that exist here.
pub fn list(count: usize) -> String {
    let entries: Vec<_> = (0..count).map(|pm_id| entry(pm_id, 4_000_000 + u32::try_from(pm_id).unwrap())).collect();
    serde_json::Value::Array(entries).to_string()
}

//! Where the real binary listens: a Unix socket, sockets that systemd passes; and what it tells systemd.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::fake_daemon::{self, Behaviour, FakeDaemon};
use crate::support::raw::{Answer, exchange, talk};
use crate::support::sidecar::{DEADLINE, Place, Sidecar};
use crate::support::wait_for;
use rustix::process::Signal;

const GET: &str = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

fn stage() -> (FakeDaemon, Place, tempfile::TempDir) {
    let daemon = FakeDaemon::start(Behaviour::List(fake_daemon::list(2)));
    let place = Place::new(daemon.home(), "interval = \"1s\"\n");
    (daemon, place, tempfile::tempdir().unwrap())
}

fn ask_unix(socket: &Path, request: &str) -> Result<Answer, String> {
    let stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    talk(stream, request)
}

fn metrics_of(socket: &Path) -> String {
    wait_for("metrics on the socket", DEADLINE, || match ask_unix(socket, GET)? {
        Answer { status: 200, body, .. } if body.contains("pm2_up") => Ok(body),
        other => Err(format!("{other:?}")),
    })
}

#[test]
fn a_unix_socket_is_for_its_user_and_group_and_a_file_of_others_is_left_alone() {
    let (_daemon, place, folder) = stage();
    let socket = folder.path().join("http.sock");
    let address = format!("unix:{}", socket.display());
    let arguments = ["--web.listen-address", &address];
    let start = || {
        let sidecar = place.spawn(place.command(&arguments));
        assert_eq!(sidecar.announced("unix:"), socket.display().to_string());
        sidecar
    };
    let mut sidecar = start();
    metrics_of(&socket);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);

    // Orders are taken as JSON, whatever the Host says: who may open the file may act.
    let body = r#"{"app":"app-0"}"#;
    let order = |kind: &str| {
        let length = body.len();
        let head = format!("host: a\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n");
        ask_unix(&socket, &format!("POST /api/v1/restarts HTTP/1.1\r\n{head}\r\n{body}")).unwrap().status
    };
    assert_eq!((order("text/plain"), order("application/json")), (415, 202));
    let output = place.run(&[&["status"], &arguments[..]].concat());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("the sidecar at unix:") && said.contains("/control-unix_"), "{said}");

    // A second one does not take the socket away.
    let second = place.command(&arguments).env("XDG_STATE_HOME", folder.path()).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && said.contains("it is in use"), "{said}");
    metrics_of(&socket);

    // One that was killed leaves it behind, and the next one replaces it; one that ends takes it along.
    sidecar.stop(Signal::KILL);
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    let mut sidecar = start();
    metrics_of(&socket);
    assert!(sidecar.stop(Signal::TERM).0.success());
    assert!(!socket.exists());

    // A file that is no socket stays as it is.
    fs::write(&socket, "precious").unwrap();
    let refused = place.run(&arguments);
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn several_addresses_are_served_and_commands_take_the_socket() {
    let (daemon, place, folder) = stage();
    let socket = folder.path().join("http.sock");
    let unix = format!("unix:{}", socket.display());
    let served = |sidecar: &Sidecar| {
        for host in ["127.0.0.1", "[::1]"] {
            let address = format!("{host}:{}", sidecar.announced(&format!("http://{host}:")));
            assert_eq!(exchange(&address, GET).unwrap().status, 200, "{address}");
        }
        metrics_of(&socket);
    };

    // By the flag, also twice the same.
    let flag = "--web.listen-address";
    let flags = [flag, "127.0.0.1:0", flag, "[::1]:0", flag, &unix, flag, &unix];
    let mut sidecar = place.spawn(place.command(&flags));
    served(&sidecar);
    let said = String::from_utf8(place.run(&[&["status"], &flags[..]].concat()).stdout).unwrap();
    assert!(said.contains("the sidecar at unix:") && said.contains("/control-127.0.0.1_0.sock"), "{said}");
    assert!(sidecar.stop(Signal::TERM).0.success());

    // By the configuration.
    let settings = format!("interval = \"1s\"\n[web]\nlisten_address = [\"127.0.0.1:0\", \"[::1]:0\", \"{unix}\"]\n");
    let place = Place::new(daemon.home(), &settings);
    let mut sidecar = place.spawn(place.command(&[]));
    served(&sidecar);
    assert!(sidecar.stop(Signal::TERM).0.success());

    // Where one of them is taken it does not start, and leaves no socket behind.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let refused = place.run(&[flag, &unix, flag, &taken]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains(&format!("cannot listen on {taken}")), "{said}");
    assert!(!socket.exists());
}

/// Passes sockets as systemd does: from descriptor 3 on, with their count and the pid in the environment.
const LAUNCHER: &str = "import os, sys\n\
    passed = [int(number) for number in sys.argv[1].split(',')]\n\
    copies = [os.dup2(number, 100 + place) for place, number in enumerate(passed)]\n\
    for place, number in enumerate(copies): os.dup2(number, 3 + place, inheritable=True)\n\
    os.environ['LISTEN_FDS'] = str(len(passed))\n\
    os.environ['LISTEN_PID'] = str(os.getpid() + int(sys.argv[2]))\n\
    os.execv(sys.argv[3], sys.argv[3:])\n";

fn launched(place: &Place, sockets: &[i32], pid_offset: i32) -> Command {
    let inner = place.command(&["--web.systemd-socket"]);
    let numbers: Vec<String> = sockets.iter().map(ToString::to_string).collect();
    let mut command = Command::new("python3");
    command.args(["-c", LAUNCHER, &numbers.join(","), &pid_offset.to_string()]);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(inner.get_current_dir().unwrap());
    command
}

/// Lets a socket survive the start of another program.
fn inheritable(socket: &impl std::os::fd::AsFd) {
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
}

#[test]
fn the_sockets_that_systemd_passes_are_served_and_nothing_else() {
    let (_daemon, place, folder) = stage();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = folder.path().join("passed.sock");
    let unix = UnixListener::bind(&path).unwrap();
    inheritable(&tcp);
    inheritable(&unix);
    let address = tcp.local_addr().unwrap().to_string();
    let mut sidecar = place.spawn(launched(&place, &[tcp.as_raw_fd(), unix.as_raw_fd()], 0));
    assert_eq!(sidecar.announced("http://"), address);
    sidecar.announced("unix:");
    metrics_of(&path);
    assert_eq!(exchange(&address, GET).unwrap().status, 200);
    assert!(sidecar.stop(Signal::TERM).0.success());
    assert!(path.exists(), "the socket belongs to systemd");

    // None passed, or passed to somebody else.
    let other = launched(&place, &[tcp.as_raw_fd()], 1);
    for mut command in [place.command(&["--web.systemd-socket"]), other] {
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains("systemd passed no socket"), "{said}");
    }
}

/// Everything that was said to systemd so far, and what comes until `wanted` is among it.
fn hear(systemd: &UnixDatagram, heard: &mut Vec<String>, what: &str, wanted: impl Fn(&[String]) -> bool) {
    systemd.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    wait_for(what, DEADLINE, || {
        let mut message = [0; 4096];
        if let Ok(length) = systemd.recv(&mut message) {
            heard.push(String::from_utf8_lossy(&message[..length]).into_owned());
        }
        if wanted(heard) { Ok(()) } else { Err(format!("{heard:?}")) }
    });
}

fn has(heard: &[String], line: &str) -> bool {
    heard.iter().any(|message| message.lines().any(|own| own == line))
}

#[test]
fn systemd_is_told_of_the_start_the_reload_the_end_and_that_collections_go_on() {
    let (_daemon, place, folder) = stage();
    let path: PathBuf = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let mut command = place.command(&["--web.listen-address", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "900000");
    let mut sidecar = place.spawn(command);
    let mut heard = Vec::new();
    hear(&systemd, &mut heard, "READY=1", |heard| has(heard, "READY=1"));
    let address = sidecar.announced("http://");
    assert_eq!(exchange(&address, GET).unwrap().status, 200, "ready is ready");

    let begun = Instant::now();
    let pings = |heard: &[String]| heard.iter().filter(|message| message.trim() == "WATCHDOG=1").count();
    hear(&systemd, &mut heard, "five pings", |heard| pings(heard) >= 5);
    assert!(begun.elapsed() >= Duration::from_millis(600), "three a period, not a flood: {heard:?}");

    heard.clear();
    sidecar.signal(Signal::HUP);
    hear(&systemd, &mut heard, "the reload and its end", |heard| has(heard, "RELOADING=1") && has(heard, "READY=1"));
    let reloading = heard.iter().position(|message| message.contains("RELOADING=1")).unwrap();
    assert!(heard[reloading].contains("MONOTONIC_USEC="), "{heard:?}");
    assert!(heard.iter().position(|message| message.contains("READY=1")).unwrap() > reloading, "{heard:?}");

    heard.clear();
    assert!(sidecar.stop(Signal::TERM).0.success());
    hear(&systemd, &mut heard, "STOPPING=1", |heard| has(heard, "STOPPING=1"));
}

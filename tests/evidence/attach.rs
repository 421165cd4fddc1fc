//! Real apps without pm2's agent, looked into by their inspector, and what must never come of it.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::inspected::{
    PORT, Turn, assert_untouched, is_open, is_sampled, left_alone, pid, refused, run, sampled, told,
};
use crate::support::pm2::{Pm2, app, is_alive};
use crate::support::sidecar::{DEADLINE, Place};
use crate::support::{stranger, wait_for};
use leakslope::collect::system::listening_ports;
use leakslope::evidence::inspector::Inspector;
use leakslope::evidence::keep::{self, Road};
use rstest::rstest;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::{Pid, Signal, kill_process};

const SHORT: [&str; 5] = ["heap", "profile", "app", "--duration", "2s"];

/// Far longer than a test waits.
const LONG: [&str; 5] = ["heap", "profile", "app", "--duration", "30m"];

fn started(script: &str, more: &[&str]) -> (Pm2, Place, u32) {
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&[&["start", script, "--name", "app", "--no-pmx"], more].concat());
    let place = Place::new(&pm2.home(), "");
    let pid = pid(&pm2, "app");
    (pm2, place, pid)
}

#[rstest]
#[case::fork("leaker.js", &[])]
#[case::cluster("leaker.js", &["-i", "1"])]
#[case::module("leaker.mjs", &[])]
fn the_leaking_function_is_named(#[case] script: &str, #[case] more: &[&str]) {
    let _turn = Turn::wait();
    let (pm2, place, pid) = started(&app(script), more);
    // Twice: the second finds the app as the first did.
    for _ in 0..2 {
        let text = run(&place, &SHORT);
        assert!(text.contains("keepForEver") && text.contains(&format!("{script}:")), "{text}");
        assert!(text.contains("Taken through the app's inspector: it is as it was before; its event loop"), "{text}");
        assert_untouched(pid, &text);
    }
    let records = keep::records(&place.state().join("leakslope/evidence"));
    assert_eq!(records.len(), 2, "{records:?}");
    for record in records {
        let cost = record.cost.unwrap();
        assert_eq!(cost.road, Road::Inspector);
        assert!(cost.pause_seconds.is_some_and(|pause| pause < DEADLINE.as_secs_f64()), "{cost:?}");
    }
    drop(pm2);
}

#[test]
fn an_app_that_takes_the_signal_for_its_own_is_not_sent_it() {
    let _turn = Turn::wait();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("own.js");
    fs::write(&script, "setInterval(() => {}, 1000);\nprocess.on('SIGUSR1', () => process.exit(1));\n").unwrap();
    let (_pm2, place, pid) = started(script.to_str().unwrap(), &[]);
    let text = refused(&place, &SHORT, "refused: it may listen for SIGUSR1 itself");
    assert!(text.contains("own.js:2)"), "{text}");
    assert_untouched(pid, &text);
}

#[test]
fn a_program_that_is_not_node_is_not_sent_it() {
    let _turn = Turn::wait();
    let (_pm2, place, pid) = started(&app("sleeper.sh"), &["--interpreter", "bash"]);
    let text = refused(&place, &SHORT, "refused: it runs bash, not node");
    assert_untouched(pid, &text);
}

#[test]
fn a_port_that_is_taken_is_told_before_anything_is_done() {
    let _turn = Turn::wait();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap();
    let (_pm2, place, pid) = started(&app("leaker.js"), &[]);
    let text =
        refused(&place, &SHORT, "refused: port 9229, where its inspector would open, is taken by another process");
    assert_untouched(pid, &text);
    drop(taken);
    run(&place, &SHORT);
}

#[tokio::test]
async fn an_app_that_is_being_debugged_is_left_to_its_debugger_and_its_own_inspector_stays_open() {
    let _turn = Turn::wait();
    let (_pm2, place, pid) = started(&app("leaker.js"), &["--node-args", "--inspect"]);
    let debugger = crate::support::wait_until("the inspector", DEADLINE, || async {
        let open = Inspector::open((Ipv4Addr::LOCALHOST, PORT).into(), Duration::from_secs(10)).await;
        open.map_err(|error| error.to_string())
    })
    .await;
    refused(&place, &SHORT, "refused: somebody debugs it at 127.0.0.1:9229; close the debugger, then try again");
    debugger.close(DEADLINE).await;
    let text = run(&place, &SHORT);
    assert!(text.contains("keepForEver"), "{text}");
    assert!(is_alive(pid) && is_open(pid), "what was open before is not closed: {text}");
}

#[test]
fn an_app_that_stands_still_now_and_then_is_profiled_and_its_pause_is_told() {
    let _turn = Turn::wait();
    let folder = tempfile::tempdir().unwrap();
    let stop = folder.path().join("stop");
    let (_pm2, place, pid) = started(&app("stutter.js"), &["--", stop.to_str().unwrap()]);
    let text = run(&place, &["heap", "profile", "app", "--duration", "5s"]);
    assert!(text.contains("keepForEver"), "{text}");
    let pause = text.split("event loop was ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(pause.parse::<u64>().unwrap() >= 1000, "it stood still for 1500 ms: {text}");
    assert_untouched(pid, &text);

    // Now it stands still for good: an inspector that is open by then stays so, which is told, and closes as soon as it can.
    fs::write(&stop, "").unwrap();
    let open = "its inspector is still open at 127.0.0.1:9229 and closes as soon as its event loop goes on";
    let text = wait_for("it to stand still", DEADLINE * 4, || {
        let text = told(&place.run(&SHORT));
        if text.contains(open) { Ok(text) } else { Err(text) }
    });
    assert!(is_alive(pid) && is_open(pid), "{text}");
    fs::remove_file(&stop).unwrap();
    wait_for("the inspector to close", DEADLINE, || if is_open(pid) { Err("open".to_owned()) } else { Ok(()) });
    assert_untouched(pid, &text);
}

#[test]
fn an_app_that_the_signal_would_break_off_is_not_sent_it() {
    let _turn = Turn::wait();
    let folder = tempfile::tempdir().unwrap();
    let (pipe, script) = (folder.path().join("pipe"), folder.path().join("reader.js"));
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::write(&script, "setInterval(() => require('fs').readFileSync(process.argv[2]), 100);").unwrap();
    let (_pm2, place, pid) = started(script.to_str().unwrap(), &["--", pipe.to_str().unwrap()]);
    let _never_written = wait_for("it to read", DEADLINE, || {
        rustix::fs::open(&pipe, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).map_err(|error| error.to_string())
    });
    let text = refused(&place, &SHORT, "refused: it waits in the system (");
    assert!(text.contains("and the signal would break that off; try again when it answers requests"), "{text}");
    assert_untouched(pid, &text);
}

#[test]
fn an_app_that_ends_in_the_middle_is_told_and_one_that_goes_on_is_closed_when_the_command_is_stopped() {
    let _turn = Turn::wait();
    let (pm2, place, first) = started(&app("leaker.js"), &[]);
    let spawn = || place.command(&LONG).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let command = spawn();
    sampled(first);
    pm2.run(&["restart", "app"]);
    let output = command.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("failed: it ended meanwhile; try again when it runs"), "{}", told(&output));

    let second = pid(&pm2, "app");
    for signal in [Signal::INT, Signal::TERM] {
        let command = spawn();
        sampled(second);
        kill_process(Pid::from_raw(command.id().try_into().unwrap()).unwrap(), signal).unwrap();
        let output = command.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(told(&output).contains("no profile was taken"), "{}", told(&output));
        left_alone(second, &told(&output));
    }
    assert_eq!(place.state_files(), []);
}

/// Asks the app's inspector every millisecond, attaches to it as soon as it is there, and holds on, whatever it is told.
const INTRUDER: &str = "const http = require('http'); const net = require('net'); const port = process.argv[1]; \
    const again = () => setTimeout(ask, 1); \
    const ask = () => http.get({ host: '127.0.0.1', port, path: '/json/list', agent: false }, (answer) => { \
        let text = ''; answer.on('data', (more) => { text += more; }).on('end', () => { \
            const socket = net.connect(port, '127.0.0.1').on('error', again); \
            socket.once('data', () => console.log('attached')); socket.on('close', () => console.log('gone')); \
            socket.write(`GET /${JSON.parse(text)[0].id} HTTP/1.1\\r\\nhost: 127.0.0.1\\r\\nconnection: Upgrade\\r\\n` + \
                'upgrade: websocket\\r\\nsec-websocket-version: 13\\r\\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\n\\r\\n'); \
        }); }).on('error', again); ask();";

/// What another user of this machine gets of the app's inspector while somebody looks into it.
#[test]
fn another_user_gets_nothing_while_allocations_are_sampled_and_is_cut_off_where_the_inspector_is_open() {
    let _turn = Turn::wait();
    let (_pm2, place, pid) = started(&app("leaker.js"), &[]);
    run(&place, &SHORT);
    let spawn =
        |arguments: &[&str]| place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

    // The whole time of a profile: no port answers, and there is none but those that were there before.
    let mut command = spawn(&LONG);
    sampled(pid);
    for _ in 0..20 {
        let answer = stranger::exchange(&format!("127.0.0.1:{PORT}"), "GET /json/list HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(answer.is_err(), "{answer:?}");
        assert!(is_sampled(pid) && listening_ports(Path::new("/proc"), pid).is_empty());
    }
    // Killed, it leaves nothing behind: not in the app, and no record.
    command.kill().unwrap();
    command.wait().unwrap();
    left_alone(pid, "killed");
    let records = place.state_files().into_iter().filter(|(path, _)| path.to_string_lossy().contains("/inspectors/"));
    assert_eq!(records.count(), 0);

    // Who attaches while it is open has it closed, though they hold on, and the app goes on.
    let said = "somebody else connected to its inspector at 127.0.0.1:9229 while it was open, so it was closed at once";
    let long = ["heap", "snapshot", "app", "--wait", "1s", "--warm-up", "1s", "--i-accept-a-pause-of", "10m"];
    for arguments in [&long[..], &SHORT] {
        let intruder = stranger::command("node")
            .args(["-e", INTRUDER, &PORT.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut intruder = intruder.unwrap();
        // One that comes too late finds the inspector of the next one.
        let text = until_said(&place, arguments, said);
        let mut seen = String::new();
        let mut lines = BufReader::new(intruder.stdout.take().unwrap());
        while !seen.contains("gone") {
            assert_ne!(lines.read_line(&mut seen).unwrap(), 0, "{text} {seen}");
        }
        intruder.kill().unwrap();
        intruder.wait().unwrap();
        assert!(text.contains("whoever did could run code in the app"), "{text}");
        assert_untouched(pid, &text);
        run(&place, &SHORT);
    }
}

/// Runs a command, which may succeed, until it says this.
fn until_said(place: &Place, arguments: &[&str], words: &str) -> String {
    wait_for(words, DEADLINE * 2, || {
        let text = told(&place.run(arguments));
        if text.contains(words) { Ok(text) } else { Err(text) }
    })
}

/// Takes the place of its own inspector and never comes to an end: of the list of targets, of one message, or of messages.
const FAKE: &str = "const mode = process.argv[2]; const crypto = require('crypto'); \
    const flood = (to, piece) => { const more = () => { while (!to.destroyed && to.write(piece)); }; to.on('drain', more); more(); }; \
    const server = require('http').createServer((request, answer) => { \
        if (request.url === '/json/version') answer.end('{\"Protocol-Version\":\"1.3\"}'); \
        else if (mode === 'list') flood(answer, ' '.repeat(65536)); else answer.end('[{\"id\":\"x\"}]'); }); \
    server.on('upgrade', (request, socket) => { socket.on('error', () => {}); \
        const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'; \
        const accept = crypto.createHash('sha1').update(key).digest('base64'); \
        socket.write(`HTTP/1.1 101 x\\r\\nupgrade: websocket\\r\\nconnection: Upgrade\\r\\nsec-websocket-accept: ${accept}\\r\\n\\r\\n`); \
        const body = Buffer.from(`{\"method\":\"x\",\"params\":\"${'x'.repeat(1 << 20)}\"}`); \
        const frame = (first) => { const head = Buffer.alloc(10); head[0] = first; head[1] = 127; \
            head.writeBigUInt64BE(BigInt(body.length), 2); return Buffer.concat([head, body]); }; \
        if (mode === 'message') { socket.write(frame(0x01)); flood(socket, frame(0x00)); } else flood(socket, frame(0x81)); }); \
    server.listen(9229, '127.0.0.1');";

#[test]
fn an_inspector_that_is_none_is_given_so_much_and_no_more_and_nobody_else_is_blamed() {
    let _turn = Turn::wait();
    let folder = tempfile::Builder::new().prefix("fake-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let script = folder.path().join("fake.js");
    fs::write(&script, FAKE).unwrap();
    let pm2 = Pm2::start("pm2-7");
    let place = Place::new(&pm2.home(), "");
    for (mode, why) in [
        ("list", "the answer is larger than 65536 bytes"),
        ("message", "is longer than 33554432 bytes"),
        ("messages", "is longer than 33554432 bytes"),
    ] {
        // The app of another user, who wants us dead.
        pm2.run(&["start", script.to_str().unwrap(), "--name", "app", "--no-pmx", "--uid", "65534", "--", mode]);
        let text = wait_for(why, DEADLINE * 2, || {
            let mut command = place.command(&SHORT).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let (mut most, status) = (0, format!("/proc/{}/status", command.id()));
            while command.try_wait().unwrap().is_none() {
                let status = fs::read_to_string(&status).unwrap_or_default();
                let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                most = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(most);
                std::thread::sleep(Duration::from_millis(10));
            }
            let text = told(&command.wait_with_output().unwrap());
            assert!(most < 300 << 10, "{most} kB: {text}");
            if text.contains(why) { Ok(text) } else { Err(text) }
        });
        let text = format!("{text}{}", told(&place.run(&["heap", "profile", "nobody"])));
        assert!(!text.contains("killed") && is_alive(pid(&pm2, "app")), "{text}");
        pm2.run(&["delete", "app"]);
    }
}

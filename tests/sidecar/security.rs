//! Who may act, asked of the real binary: web pages of others, programs of this machine, holders of a token, the network.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::support::fake_daemon::{self, Behaviour, FakeDaemon};
use crate::support::raw::{Answer, exchange};
use crate::support::sidecar::{DEADLINE, Place, Sidecar};
use crate::support::{stranger, wait_for};

const TOKEN: &str = "the-token-of-this-test";
/// Every path that acts, with an order that each understands.
const ORDERS: [(&str, &str); 6] = [
    ("/api/v1/restarts", r#"{"app":"app-0"}"#),
    ("/api/v1/restarts/withdraw", r#"{"request":77}"#),
    ("/api/v1/restarts/breaker", r#"{"app":"nobody"}"#),
    ("/api/v1/alerts", r#"{"version":"4","status":"firing","alerts":[]}"#),
    ("/api/v1/evidence", r#"{"app":"nobody"}"#),
    ("/api/v1/session/link", "{}"),
];

fn daemon() -> FakeDaemon {
    FakeDaemon::start(Behaviour::List(fake_daemon::list(2)))
}

/// An order with these headers (without the usual ones).
fn text(path: &str, body: &str, headers: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// Sends an order and returns the answer.
fn order(sidecar: &Sidecar, path: &str, body: &str, headers: &str) -> Answer {
    exchange(sidecar.address(), &text(path, body, headers)).unwrap()
}

/// The same by another user of this machine.
fn strangers_order(sidecar: &Sidecar, path: &str, body: &str, headers: &str) -> Answer {
    stranger::exchange(sidecar.address(), &text(path, body, headers)).unwrap()
}

fn usual(sidecar: &Sidecar) -> String {
    format!("host: {}\r\ncontent-type: application/json\r\n", sidecar.address())
}

fn acting_as_seen_by_a_stranger(sidecar: &Sidecar) -> serde_json::Value {
    let request = format!("GET /api/v1/restarts HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", sidecar.address());
    let answer = stranger::exchange(sidecar.address(), &request).unwrap();
    serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()["acting"].clone()
}

#[test]
fn another_user_of_this_machine_reads_and_acts_only_where_named() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "interval = \"1s\"\n");
    let sidecar = place.start();
    for (path, body) in ORDERS {
        let answer = strangers_order(&sidecar, path, body, &usual(&sidecar));
        assert_eq!((answer.status, answer.code()), (403, "user_may_not_act".to_owned()), "{path}: {answer:?}");
        assert!(answer.body.contains("user 65534") && answer.body.contains("leakslope open"), "{answer:?}");
        // Whoever is gone before the kernel is asked is nobody, not root.
        let hasty = format!("{}\r\n", text(path, body, &usual(&sidecar)).trim_end());
        let (host, port) = sidecar.address().rsplit_once(':').unwrap();
        let script = format!("exec 3<>/dev/tcp/{host}/{port} && printf '%s' \"$1\" >&3");
        for _ in 0..5 {
            assert!(stranger::command("bash").args(["-c", &script, "-", &hasty]).status().unwrap().success());
        }
        // A proxy speaks for others.
        let forwarded = format!("{}x-forwarded-for: 192.0.2.1\r\n", usual(&sidecar));
        assert_eq!(order(&sidecar, path, body, &forwarded).code(), "forwarded", "{path}");
    }
    sidecar.collections(1);
    assert_eq!(sidecar.json("/api/v1/restarts")["audit"].as_array().map(Vec::len), Some(0), "nothing was taken down");
    assert_eq!(acting_as_seen_by_a_stranger(&sidecar)["allowed"], false);
    assert_eq!(sidecar.json("/api/v1/restarts")["acting"]["allowed"], true);
    drop(sidecar);

    for named in ["acting_users = [\"65534\"]", "acting_groups = [\"65534\"]"] {
        place.configure(&format!("interval = \"1s\"\n[web]\n{named}\n"));
        let sidecar = place.start();
        let by_group = named.contains("groups");
        let answer = strangers_order(&sidecar, ORDERS[0].0, ORDERS[0].1, &usual(&sidecar));
        // The first group of a user stands in /etc/passwd, where there is one of that number.
        let known = fs::read_to_string("/etc/passwd").unwrap().contains(":65534:65534:");
        let expected = if by_group && !known { 403 } else { 202 };
        assert_eq!(answer.status, expected, "{named}: {answer:?}");
    }
    place.configure("[web]\nacting_users = [\"nobody of that name\"]\n");
    let said = String::from_utf8(place.run(&["--web.listen-address", "127.0.0.1:0"]).stderr).unwrap();
    assert!(said.contains("web.acting_users"), "{said}");
}

#[test]
fn a_stranger_uses_up_nobodys_orders() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "interval = \"1s\"\n[web]\nacting_users = [\"65534\"]\n");
    let sidecar = place.start();
    let request = text("/api/v1/restarts/withdraw", ORDERS[1].1, &usual(&sidecar)).replace("close", "keep-alive");
    let last = text("/api/v1/restarts/withdraw", ORDERS[1].1, &usual(&sidecar));
    let all = [request.repeat(59), last].concat();
    let answers = stranger::exchange(sidecar.address(), &all).unwrap();
    let refused = answers.body.matches("HTTP/1.1 429").count();
    assert!(refused >= 35, "{refused} of 60 orders were too many");
    let (path, body) = ORDERS[0];
    assert_eq!(order(&sidecar, path, body, &usual(&sidecar)).status, 202, "others still have theirs");
}

#[test]
fn wrong_passwords_of_a_stranger_lock_nobody_out() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "");
    let file = place.state().join("web.yml");
    let hash = bcrypt::hash("correct horse", 11).unwrap();
    fs::write(&file, format!("basic_auth_users:\n  ops: {hash}\n")).unwrap();
    place.configure(&format!("interval = \"1s\"\n[web]\nconfig_file = \"{}\"\n", file.display()));
    let command = place.command(&["--web.listen-address", "127.0.0.1:0"]);
    let sidecar = place.spawn(command);
    let address = sidecar.announced("http://");
    let get = |password: &str| {
        use base64::Engine as _;
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("ops:{password}"));
        format!(
            "GET /-/healthy HTTP/1.1\r\nhost: {address}\r\nauthorization: Basic {credentials}\r\nconnection: close\r\n\r\n"
        )
    };
    // Sixty connections at once, each with a wrong password, again and again until they are ended.
    let script = "const [, address, request] = process.argv; const [host, port] = address.split(':'); let seen = 0; \
        const again = () => { const socket = require('net').connect(port, host, () => socket.write(request)); \
        socket.on('data', () => { if (++seen === 30) console.log('busy'); }).on('error', () => {}).on('close', again); }; \
        for (let index = 0; index < 60; index += 1) again();";
    let mut flood = stranger::command("node")
        .args(["-e", script, &address, &get("wrong")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(flood.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "busy\n", "the flood goes on");
    let answer = exchange(&address, &get("correct horse"));
    flood.kill().unwrap();
    flood.wait().unwrap();
    assert_eq!(answer.unwrap().status, 200, "a login goes on beside it");
}

#[test]
fn every_route_answers_only_names_of_this_machine() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "interval = \"1s\"\n[web]\nallowed_hosts = [\"monitor.example\"]\n");
    let sidecar = place.start();
    let status = |path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = exchange(sidecar.address(), &request).unwrap();
        (answer.status, answer.code())
    };
    let port = sidecar.address().rsplit_once(':').unwrap().1;
    for path in ["/", "/metrics", "/-/healthy", "/-/ready", "/api/v1/processes", "/api/v1/evidence", "/nowhere"] {
        for host in ["evil.example", "evil.example:80", "127.0.0.1.nip.example", "evil.monitor.example"] {
            assert_eq!(status(path, host), (403, "foreign_host".to_owned()), "{path} of {host}");
        }
        for host in [sidecar.address(), &format!("localhost:{port}"), "[::1]", "monitor.example:443"] {
            assert!(matches!(status(path, host).0, 200 | 404), "{path} of {host}");
        }
    }
}

#[test]
fn commands_act_by_a_socket_of_their_own_and_a_link_lets_one_browser_act() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "");
    let file = place.state().join("tokens");
    fs::write(&file, TOKEN).unwrap();
    let token_file = format!("token_file = \"{}\"\nacting_users = [\"1\"]", file.display());
    place.configure(&format!("interval = \"1s\"\n[web]\nlisten_address = \"127.0.0.1:0\"\n{token_file}\n"));
    let sidecar = place.start();
    // The port is the system's choice, which no command can know: they find the socket.
    let output = place.run(&["restart", "app-0"]);
    assert!(output.status.success(), "{output:?}");
    let output = place.run(&["open"]);
    let link = String::from_utf8(output.stdout).unwrap();
    let secret = link.trim().split_once("#open=").unwrap_or_else(|| panic!("{link} {:?}", output.stderr)).1;

    // The socket itself answers nobody else, whatever the rights of the folder.
    let socket = place.state().join("leakslope/control-127.0.0.1_0.sock");
    for folder in socket.ancestors().skip(1).take(3) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = "const socket = require('net').connect(process.argv[1], () => socket.write(\
        'GET /metrics HTTP/1.1\\r\\nhost: localhost\\r\\nconnection: close\\r\\n\\r\\n')); \
        socket.pipe(process.stdout);";
    let output = stranger::command("node").args(["-e", script]).arg(&socket).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.starts_with("HTTP/1.1 403") && told.contains("user_may_not_act"), "{told} {:?}", output.stderr);

    // A browser of another user exchanges the secret for a cookie, once.
    let exchange_it =
        || strangers_order(&sidecar, "/api/v1/session", &format!("{{\"secret\":\"{secret}\"}}"), &usual(&sidecar));
    let foreign = format!("{}origin: http://evil.example\r\n", usual(&sidecar));
    let body = format!("{{\"secret\":\"{secret}\"}}");
    assert_eq!(strangers_order(&sidecar, "/api/v1/session", &body, &foreign).code(), "foreign_origin");
    let answer = exchange_it();
    assert_eq!(answer.status, 204, "{answer:?}");
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains(secret), "{cookie}");
    let cookie = format!("cookie: a=b; {}\r\n", cookie.split(';').next().unwrap());
    assert_eq!(exchange_it().code(), "link_not_valid");
    let (path, body) = ORDERS[0];
    let with = |headers: &str| strangers_order(&sidecar, path, body, &format!("{}{headers}", usual(&sidecar)));
    assert_eq!(with(&cookie).status, 202);
    assert_eq!(with("").code(), "token_missing");
    assert_eq!(with(&format!("{cookie}origin: http://evil.example\r\n")).code(), "foreign_origin");
    // Another port of the host gets the cookie as well; who listens there has nothing of it.
    assert_eq!(order(&sidecar, path, body, &format!("{}{cookie}", usual(&sidecar))).code(), "token_missing");
}

#[test]
fn on_loopback_without_a_token_a_program_acts_and_a_web_page_does_not() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "interval = \"1s\"\n");
    let sidecar = place.start();
    let own = sidecar.address().to_owned();
    let json = "content-type: application/json\r\n";
    for (path, body) in ORDERS {
        for (what, headers, status, code) in [
            ("a name that was rebound", format!("host: evil.example\r\n{json}"), 403, "foreign_host"),
            ("another page", format!("host: {own}\r\norigin: http://evil.example\r\n{json}"), 403, "foreign_origin"),
            ("a page in a frame", format!("host: {own}\r\norigin: null\r\n{json}"), 403, "foreign_origin"),
            ("a fetch", format!("host: {own}\r\nsec-fetch-site: cross-site\r\n{json}"), 403, "foreign_origin"),
            ("a form", format!("host: {own}\r\ncontent-type: text/plain\r\n"), 415, "content_type"),
            ("no type", format!("host: {own}\r\n"), 415, "content_type"),
        ] {
            let answer = order(&sidecar, path, body, &headers);
            assert_eq!((answer.status, answer.code()), (status, code.to_owned()), "{what} at {path}: {answer:?}");
        }
        let answer = order(&sidecar, path, body, &format!("host: {own}\r\n{json}"));
        assert!(matches!(answer.status, 200 | 202 | 409), "a program at {path}: {answer:?}");
    }
    assert_eq!(sidecar.json("/api/v1/restarts")["acting"]["allowed"], true);
    let asked = sidecar.json("/api/v1/restarts")["audit"].clone();
    let requests = asked.as_array().unwrap().iter().filter(|record| record["kind"] == "requested").count();
    assert_eq!(requests, 1, "one order was good, one was taken down: {asked:#}");
}

#[test]
fn where_there_is_a_token_it_alone_acts() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "");
    let file = place.state().join("tokens");
    fs::write(&file, format!("# ours\n{TOKEN}\n")).unwrap();
    place.configure(&format!("interval = \"1s\"\n[web]\ntoken_file = \"{}\"\n", file.display()));
    let sidecar = place.start();
    let usual = format!("host: {}\r\ncontent-type: application/json\r\n", sidecar.address());
    for (path, body) in ORDERS {
        for (what, credentials, expected) in [
            ("none", String::new(), "token_missing"),
            ("wrong", "authorization: Bearer the-token-of-another-test\r\n".to_owned(), "token_wrong"),
            ("a part", format!("authorization: Bearer {}\r\n", &TOKEN[..TOKEN.len() - 1]), "token_wrong"),
            ("a password", "authorization: Basic b3BzOnNlY3JldA==\r\n".to_owned(), "token_missing"),
            ("two", format!("authorization: Bearer {TOKEN}\r\nauthorization: Bearer {TOKEN}\r\n"), "token_missing"),
        ] {
            let answer = order(&sidecar, path, body, &format!("{usual}{credentials}"));
            assert_eq!((answer.status, answer.code()), (401, expected.to_owned()), "{what} at {path}: {answer:?}");
            assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")), "{answer:?}");
        }
        // Who has the token may come from anywhere: no browser sends it by itself.
        let foreign = format!("host: monitor.example\r\nauthorization: Bearer {TOKEN}\r\n");
        let answer = order(&sidecar, path, body, &foreign);
        assert!(matches!(answer.status, 200 | 202 | 409), "the token at {path}: {answer:?}");
    }
    assert!(!sidecar.log().contains(TOKEN), "{}", sidecar.log());

    // Another token takes its place without a restart; a file that is none changes nothing.
    let (path, body) = ORDERS[3];
    let with = |token: &str| order(&sidecar, path, body, &format!("{usual}authorization: Bearer {token}\r\n")).status;
    fs::write(&file, "another-token-of-this-test").unwrap();
    wait_for("the new token", DEADLINE, || match with("another-token-of-this-test") {
        200 => Ok(()),
        status => Err(format!("{status} {}", sidecar.log())),
    });
    assert_eq!(with(TOKEN), 401);
    fs::write(&file, "short").unwrap();
    wait_for("the complaint", DEADLINE, || {
        assert_eq!(with("another-token-of-this-test"), 200);
        if sidecar.log().contains("at least 16 characters") { Ok(()) } else { Err(sidecar.log()) }
    });
}

#[test]
fn a_token_is_not_sent_to_whoever_listens_while_the_sidecar_is_down() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "");
    let file = place.state().join("tokens");
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let script = "const server = require('net').createServer((socket) => socket.on('data', (bytes) => \
        { console.log(JSON.stringify(String(bytes))); socket.end(); }).on('error', () => {})); \
        server.listen(0, '127.0.0.1', () => console.log(server.address().port));";
    let mut thief =
        stranger::command("node").args(["-e", script]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(thief.stdout.take().unwrap()));
    let address = format!("127.0.0.1:{}", lines.next().unwrap().unwrap());
    let token = file.to_str().unwrap();
    for words in [&["restart", "app-0", "--token-file", token][..], &["open", "--token-file", token]] {
        let output = place.run(&[&["--web.listen-address", &address], words].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("user 65534 listens there") && said.contains("the token was not sent"), "{said}");
    }
    // What holds no token is answered, so the thief has heard nothing before it.
    place.run(&["--web.listen-address", &address, "status"]);
    let heard = lines.next().unwrap().unwrap();
    assert!(heard.contains("GET ") && !heard.contains(TOKEN), "{heard}");
    thief.kill().unwrap();
    thief.wait().unwrap();

    place.configure(&format!("interval = \"1s\"\n[web]\ntoken_file = \"{token}\"\n"));
    let sidecar = place.start();
    let output = place.run(&["--web.listen-address", sidecar.address(), "restart", "app-0", "--token-file", token]);
    assert!(output.status.success(), "ours gets it: {output:?}");
}

#[test]
fn beyond_loopback_nothing_acts_without_authentication_and_the_start_says_so_once() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "interval = \"1s\"\n[restart]\nmode = \"enforce\"\n");
    let sidecar = place.start_on("0.0.0.0:0");
    assert!(sidecar.get("/metrics").contains("\npm2_up{daemon=\"default\"} 1\n"), "metrics stay readable");
    let told = sidecar.logged("no authentication is set up");
    assert!(told.len() == 1 && told[0].contains("WARN") && told[0].contains("web.token_file"), "{}", sidecar.log());
    let usual = format!("host: {}\r\ncontent-type: application/json\r\n", sidecar.address());
    for (path, body) in ORDERS {
        let answer = order(&sidecar, path, body, &usual);
        assert_eq!((answer.status, answer.code()), (403, "authentication_not_set_up".to_owned()), "{path}: {answer:?}");
        // Not even a large body is read for it.
        let answer = exchange(
            sidecar.address(),
            &format!("POST {path} HTTP/1.1\r\n{usual}expect: 100-continue\r\ncontent-length: 16000000\r\n\r\n"),
        );
        assert_eq!(answer.unwrap().status, 403);
    }
    assert_eq!(sidecar.json("/api/v1/restarts")["acting"]["allowed"], false);
    assert_eq!(sidecar.json("/api/v1/restarts")["audit"].as_array().map(Vec::len), Some(0));
    drop(sidecar);

    // With a token the same listener takes orders, and there is nothing to warn of.
    let file = place.state().join("tokens");
    fs::write(&file, TOKEN).unwrap();
    place.configure(&format!("interval = \"1s\"\n[web]\ntoken_file = \"{}\"\n", file.display()));
    let sidecar = place.start_on("0.0.0.0:0");
    assert!(sidecar.logged("no authentication is set up").is_empty(), "{}", sidecar.log());
    let (path, body) = ORDERS[0];
    assert_eq!(order(&sidecar, path, body, &usual).status, 401);
    assert_eq!(order(&sidecar, path, body, &format!("{usual}authorization: Bearer {TOKEN}\r\n")).status, 202);
}

#[test]
fn a_token_file_that_cannot_be_meant_stops_the_start_and_is_named() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "");
    let file = place.state().join("tokens");
    place.configure(&format!("[web]\ntoken_file = \"{}\"\n", file.display()));
    for (text, reason) in [
        (None, "No such file"),
        (Some("# none\n"), "no token"),
        (Some("guess-me\n"), "tokens:1: web.token_file: a token"),
    ] {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let output = place.run(&["--web.listen-address", "127.0.0.1:0"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains("web.token_file") && said.contains(&file.display().to_string()), "{said}");
        assert!(said.contains(reason) && !said.contains("guess-me"), "{said}");
    }
}

#[test]
fn what_is_kept_is_for_its_user_alone() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "interval = \"1s\"\n");
    // Started by somebody who shares whatever they write.
    let mut sharing = place.program("bash");
    let binary = env!("CARGO_BIN_EXE_leakslope");
    sharing.args(["-c", &format!("umask 0; exec {binary} --web.listen-address 127.0.0.1:0")]);
    let mut sidecar = place.spawn(sharing).ready();
    let usual = format!("host: {}\r\ncontent-type: application/json\r\n", sidecar.address());
    let (path, body) = ORDERS[0];
    assert_eq!(order(&sidecar, path, body, &usual).status, 202);
    sidecar.collections(2);
    assert!(sidecar.stop(rustix::process::Signal::TERM).0.success());
    let files = place.state_files();
    assert!(files.iter().any(|(_, content)| !content.is_empty()), "nothing is kept: {}", sidecar.log());
    for (path, _) in files {
        for kept in path.ancestors().take_while(|kept| *kept != place.state()) {
            let mode = fs::metadata(kept).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} is for others: {mode:o}", kept.display());
        }
    }
}

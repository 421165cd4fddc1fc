//! The web configuration on the real binary: a real Prometheus scrapes it encrypted and with a password, curl is turned
//! away without, certificates and users change while it runs.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::certificates::Authority;
use crate::support::fake_daemon::{self, Behaviour, FakeDaemon};
use crate::support::raw::exchange;
use crate::support::sidecar::{DEADLINE, Metrics, Place, Sidecar};
use crate::support::stack::{api, prometheus};
use crate::support::stranger;
use crate::support::wait_for;

const PASSWORD: &str = "correct horse battery";

/// A daemon, a place, and a folder for certificates and the web configuration.
struct Stage {
    _daemon: FakeDaemon,
    place: Place,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let daemon = FakeDaemon::start(Behaviour::List(fake_daemon::list(2)));
        let place = Place::new(daemon.home(), "interval = \"1s\"\n");
        Self { _daemon: daemon, place, folder: tempfile::tempdir().unwrap() }
    }

    fn web_file(&self) -> PathBuf {
        self.folder.path().join("web.yml")
    }

    fn web(&self, text: &str) {
        fs::write(self.web_file(), text).unwrap();
    }

    /// Starts a sidecar that encrypts, and returns it with its address.
    fn start_encrypted(&self) -> (Sidecar, String) {
        let file = self.web_file().display().to_string();
        let arguments = ["--web.listen-address", "127.0.0.1:0", "--web.config.file", &file];
        let sidecar = self.place.spawn(self.place.command(&arguments));
        let address = sidecar.announced("https://");
        (sidecar, address)
    }
}

fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

fn tls((certificate, key): &(PathBuf, PathBuf)) -> String {
    format!("tls_server_config:\n  cert_file: {}\n  key_file: {}\n", certificate.display(), key.display())
}

/// What curl says: the status with the body, or its own complaint.
fn curl(arguments: &[&str], url: &str) -> Result<(u16, String), String> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}"])
        .args(arguments)
        .arg(url)
        .output()
        .unwrap_or_else(|error| panic!("curl: {error}: install it with `apt-get install curl`"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let (body, status) = text.rsplit_once('\n').unwrap();
    Ok((status.parse().unwrap(), body.to_owned()))
}

fn curl_trusting(authority: &Authority, arguments: &[&str], url: &str) -> Result<(u16, String), String> {
    let certificate = authority.certificate().display().to_string();
    curl(&[&["--cacert", &certificate], arguments].concat(), url)
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn prometheus_scrapes_encrypted_with_a_password_and_nobody_reads_without() {
    let stage = Stage::new();
    let authority = Authority::new(stage.folder.path(), "authority");
    let server = authority.certify("server");
    stage.web(&format!(
        "{}http_server_config:\n  http2: true\n  headers:\n    Strict-Transport-Security: max-age=60\n\
         basic_auth_users:\n  prometheus: {}\n",
        tls(&server),
        hash(PASSWORD)
    ));
    let (sidecar, address) = stage.start_encrypted();

    let (_running, prometheus) = prometheus(
        stage.folder.path(),
        &format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs:\n  - job_name: leakslope\n    scheme: https\n    tls_config: {{ca_file: '{}'}}\n    \
             basic_auth: {{username: prometheus, password: '{PASSWORD}'}}\n    \
             static_configs: [{{targets: ['{address}']}}]\n  - job_name: stranger\n    scheme: https\n    \
             tls_config: {{ca_file: '{}'}}\n    static_configs: [{{targets: ['{address}']}}]\n",
            path(&authority.certificate()),
            path(&authority.certificate()),
        ),
    );
    wait_for("a scrape with the password, and one that is refused", DEADLINE, || {
        let value = |query| -> Result<String, String> {
            let data = api(prometheus, "query", &[("query", query)])?;
            data["result"][0]["value"][1].as_str().map(str::to_owned).ok_or_else(|| data.to_string())
        };
        let found = [value(r#"pm2_up{job="leakslope"}"#)?, value(r#"up{job="stranger"}"#)?];
        if found == ["1", "0"] { Ok(()) } else { Err(format!("{found:?} {}", sidecar.log())) }
    });

    let url = |path: &str| format!("https://{address}{path}");
    for path in ["/metrics", "/", "/-/healthy", "/api/v1/processes", "/nowhere"] {
        let (status, body) = curl_trusting(&authority, &[], &url(path)).unwrap();
        assert_eq!(status, 401, "{path}: {body}");
        assert!(!body.contains("app-0"), "{path}: {body}");
    }
    for user in ["prometheus:wrong", "nobody:correct horse battery", ":", "prometheus:"] {
        assert_eq!(curl_trusting(&authority, &["--user", user], &url("/metrics")).unwrap().0, 401, "{user}");
    }
    let user = format!("prometheus:{PASSWORD}");
    let (status, answer) = curl_trusting(&authority, &["--user", &user, "--include"], &url("/metrics")).unwrap();
    assert_eq!(status, 200);
    assert!(answer.contains("strict-transport-security: max-age=60\r\n"), "{answer}");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let refused = curl(&["--user", &user], &url("/metrics")).unwrap_err();
    assert!(refused.contains("certificate"), "an authority that is not trusted: {refused}");
    assert!(exchange(&address, "GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").is_err());
    let log = sidecar.log();
    assert!(!log.contains(PASSWORD) && !log.contains("$2b$"), "{log}");

    // A user whose password was checked may act, from a program and not from a foreign page.
    let order = ["--user", &user, "--header", "content-type: application/json", "--data", r#"{"app":"app-0"}"#];
    assert_eq!(curl_trusting(&authority, &order, &url("/api/v1/restarts")).unwrap().0, 202);
    let foreign = [&order[..], &["--header", "origin: https://evil.example"]].concat();
    assert_eq!(curl_trusting(&authority, &foreign, &url("/api/v1/restarts")).unwrap().0, 403);
}

#[test]
fn certificates_and_users_change_without_a_restart_and_bad_ones_change_nothing() {
    let stage = Stage::new();
    let (first, second) = (Authority::new(stage.folder.path(), "a"), Authority::new(stage.folder.path(), "b"));
    let served = (stage.folder.path().join("served.pem"), stage.folder.path().join("served.key"));
    let serve = |(certificate, key): (PathBuf, PathBuf)| {
        fs::copy(certificate, &served.0).unwrap();
        fs::copy(key, &served.1).unwrap();
    };
    serve(first.certify("one"));
    let web = |users: &str| stage.web(&format!("{}{users}", tls(&served)));
    web("");
    let (sidecar, address) = stage.start_encrypted();
    let url = format!("https://{address}/metrics");
    assert_eq!(curl_trusting(&first, &[], &url).unwrap().0, 200);
    assert!(curl_trusting(&second, &[], &url).is_err());

    serve(second.certify("two"));
    let shows = |authority: &Authority, arguments: &[&str], expected: u16| {
        wait_for("the change to be noticed", DEADLINE, || {
            std::thread::sleep(Duration::from_millis(200));
            match curl_trusting(authority, arguments, &url) {
                Ok((status, _)) if status == expected => Ok(()),
                other => Err(format!("{other:?}\n{}", sidecar.log())),
            }
        });
    };
    shows(&second, &[], 200);
    assert!(curl_trusting(&first, &[], &url).is_err());

    // A key of another certificate, and a text that is none: the old ones stay, and it is said once each.
    fs::copy(first.certify("three").1, &served.1).unwrap();
    wait_for("the complaint about the key", DEADLINE, || {
        assert_eq!(curl_trusting(&second, &[], &url).unwrap().0, 200);
        if sidecar.log().contains("does not belong to the certificate") { Ok(()) } else { Err(sidecar.log()) }
    });
    web("basic_auth_user:\n  ops: hunter2\n");
    wait_for("the complaint about the text", DEADLINE, || {
        assert_eq!(curl_trusting(&second, &[], &url).unwrap().0, 200);
        if sidecar.log().contains("web.yml:4: basic_auth_user: unknown key") { Ok(()) } else { Err(sidecar.log()) }
    });
    for _ in 0..8 {
        assert_eq!(curl_trusting(&second, &[], &url).unwrap().0, 200);
        std::thread::sleep(Duration::from_millis(300));
    }
    let complaints = sidecar.logged("basic_auth_user: unknown key");
    assert_eq!(complaints.len(), 1, "{}", sidecar.log());
    assert!(!sidecar.log().contains("hunter2"));

    // The metric tells it, and when what is in force was read.
    let loaded = |user: &[&str], expected: f64| {
        wait_for("the metric of the web configuration", DEADLINE, || {
            std::thread::sleep(Duration::from_millis(200));
            let metrics = Metrics::parse(&curl_trusting(&second, user, &url)?.1);
            let loaded = metrics.value("leakslope_web_config_last_reload_successful", &[]);
            let at =
                metrics.value("leakslope_web_config_last_reload_success_timestamp_seconds", &[]).unwrap_or_default();
            if loaded == Some(expected) { Ok(at) } else { Err(format!("{loaded:?}")) }
        })
    };
    let before = loaded(&[], 0.0);

    // Mended, with users: from now on they alone are let in; and encryption cannot be taken away under them.
    serve(second.certify("four"));
    web(&format!("basic_auth_users:\n  ops: {}\n", hash(PASSWORD)));
    shows(&second, &[], 401);
    shows(&second, &["--user", &format!("ops:{PASSWORD}")], 200);
    web(&format!("basic_auth_users:\n  ops: {}\n", hash("another")));
    shows(&second, &["--user", "ops:another"], 200);
    assert!(loaded(&["--user", "ops:another"], 1.0) > before);
    assert_eq!(curl_trusting(&second, &["--user", &format!("ops:{PASSWORD}")], &url).unwrap().0, 401);
    stage.web("basic_auth_users: {}\n");
    wait_for("the complaint about encryption", DEADLINE, || {
        assert_eq!(curl_trusting(&second, &["--user", "ops:another"], &url).unwrap().0, 200);
        if sidecar.log().contains("only by a restart") { Ok(()) } else { Err(sidecar.log()) }
    });
}

#[test]
fn a_file_that_is_being_written_over_opens_no_door() {
    let stage = Stage::new();
    let users = format!("basic_auth_users:\n  ops: {}\n", hash(PASSWORD));
    stage.web(&format!("rate_limit: {{interval: 1ms, burst: 1000}}\n{users}"));
    let file = path(&stage.web_file());
    let arguments = ["--web.listen-address", "127.0.0.1:0", "--web.config.file", &file];
    let sidecar = stage.place.spawn(stage.place.command(&arguments));
    let url = format!("http://{}/metrics", sidecar.announced("http://"));
    let refused = |text: &str, message: &str| {
        stage.web(text);
        wait_for(message, DEADLINE, || {
            assert_eq!(curl(&[], &url).unwrap().0, 401);
            if sidecar.log().contains(message) { Ok(()) } else { Err(sidecar.log()) }
        });
    };
    refused("", "basic_auth_users: the last user can be taken away only by a restart");
    refused("rate_limit: {interval: 1ms, ", "web.yml:1: ");
    let user = format!("ops:{PASSWORD}");
    stage.web(&users);
    wait_for("the mended one", DEADLINE, || {
        let answer = curl(&["--user", &user], &url)?;
        if answer.1.contains("leakslope_web_config_last_reload_successful 1") { Ok(()) } else { Err(sidecar.log()) }
    });
}

#[test]
fn clients_show_certificates_where_that_is_asked() {
    let stage = Stage::new();
    let (ours, others) = (Authority::new(stage.folder.path(), "ours"), Authority::new(stage.folder.path(), "others"));
    let (server, client, stranger) = (ours.certify("server"), ours.certify("client"), others.certify("stranger"));
    let with = |(certificate, key): &(PathBuf, PathBuf)| -> [String; 4] {
        ["--cert".to_owned(), path(certificate), "--key".to_owned(), path(key)]
    };
    let signed = format!("client_ca_file: {}", path(&ours.certificate()));
    // What a kind asks for, whether a stranger's certificate will do, and none.
    for (kind, more, foreign, without) in [
        ("RequireAndVerifyClientCert", &*signed, false, false),
        ("VerifyClientCertIfGiven", &signed, false, true),
        ("RequireAnyClientCert", "", true, false),
        ("RequestClientCert", "", true, true),
    ] {
        stage.web(&format!("{}  client_auth_type: {kind}\n  {more}\n  min_version: TLS13\n", tls(&server)));
        let (_sidecar, address) = stage.start_encrypted();
        let url = format!("https://{address}/metrics");
        let ask = |arguments: &[String]| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            curl_trusting(&ours, &arguments, &url)
        };
        assert_eq!(ask(&with(&client)).unwrap().0, 200, "{kind}");
        assert_eq!(ask(&with(&stranger)).is_ok(), foreign, "{kind}");
        assert_eq!(ask(&[]).is_ok(), without, "{kind}");
        let older =
            curl_trusting(&ours, &["--tls-max", "1.2", "--cert", &path(&client.0), "--key", &path(&client.1)], &url);
        assert!(older.is_err(), "{kind}: {older:?}");
    }
}

#[test]
fn of_those_who_are_certified_only_the_named_ones_are_let_in() {
    let stage = Stage::new();
    let ours = Authority::new(stage.folder.path(), "ours");
    let others = Authority::new(stage.folder.path(), "others");
    let server = ours.certify("server");
    let web = |kind: &str, names: &str| {
        let authority = path(&ours.certificate());
        stage.web(&format!(
            "{}  client_auth_type: {kind}\n  client_ca_file: {authority}\n  client_allowed_sans: {names}\n",
            tls(&server)
        ));
    };
    web(
        "RequireAndVerifyClientCert",
        "[ops.example.org, ops@example.org, 'spiffe://shop/ops', 10.1.2.3, '2001:db8::1']",
    );
    let (sidecar, address) = stage.start_encrypted();
    let url = format!("https://{address}/metrics");
    let ask = |shown: Option<&(PathBuf, PathBuf)>, more: &[&str]| {
        let shown = shown.map(|(certificate, key)| (path(certificate), path(key)));
        let shown = shown.as_ref().map_or(Vec::new(), |(certificate, key)| vec!["--cert", certificate, "--key", key]);
        curl_trusting(&ours, &[&shown, more].concat(), &url)
    };
    let names =
        ["DNS:ops.example.org", "email:ops@example.org", "URI:spiffe://shop/ops", "IP:10.1.2.3", "IP:2001:db8::1"];
    for (index, name) in names.iter().enumerate() {
        let certificate = ours.certify_as(&format!("named{index}"), &format!("DNS:else.example.org,{name}"));
        for versions in [&[][..], &["--tls-max", "1.2"]] {
            assert_eq!(ask(Some(&certificate), versions).unwrap().0, 200, "{name}: {}", sidecar.log());
        }
    }
    // A name is no pattern, and the common name is none.
    for (index, name) in ["DNS:*.example.org", "DNS:mail.example.org", "IP:10.1.2.4"].iter().enumerate() {
        let certificate = ours.certify_as(&format!("other{index}"), name);
        assert!(ask(Some(&certificate), &[]).is_err(), "{name}");
    }
    assert!(ask(Some(&ours.certify("ops.example.org")), &[]).is_err());
    let stranger = others.certify_as("stranger", "DNS:ops.example.org");
    assert!(ask(Some(&stranger), &[]).is_err(), "the right name by the wrong authority");
    assert!(ask(None, &[]).is_err());

    // Names are read again like everything else, and whoever shows no certificate has none.
    let mail = ours.certify_as("mail", "DNS:mail.example.org");
    web("VerifyClientCertIfGiven", "[mail.example.org]");
    wait_for("the other name", DEADLINE, || ask(Some(&mail), &[]).map(drop));
    assert!(ask(None, &[]).is_err());
}

#[test]
fn commands_reach_a_sidecar_that_encrypts_and_a_wrong_configuration_is_told_before_anything_listens() {
    let stage = Stage::new();
    let authority = Authority::new(stage.folder.path(), "authority");
    let server = authority.certify("server");
    let tokens = stage.folder.path().join("tokens");
    fs::write(&tokens, "the-token-of-this-test\n").unwrap();
    stage.web(&format!("{}basic_auth_users:\n  ops: {}\n", tls(&server), hash(PASSWORD)));
    stage.place.configure(&format!("interval = \"1s\"\n[web]\ntoken_file = \"{}\"\n", path(&tokens)));
    let (sidecar, address) = stage.start_encrypted();
    let file = path(&stage.web_file());
    let flags = ["--web.listen-address", &address, "--web.config.file", &file];
    let status = wait_for("a status from the sidecar", DEADLINE, || {
        let output = stage.place.run(&[&["status"], &flags[..]].concat());
        let said = String::from_utf8(output.stdout).unwrap();
        if said.contains(&format!("the sidecar at {address}")) { Ok(said) } else { Err(said) }
    });
    assert!(status.contains("app-0"), "{status}");
    let output = stage.place.run(&[&["restart", "app-0"], &flags[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    drop(sidecar);

    // Somebody else with another certificate is not taken for the sidecar.
    let other = authority.certify("other");
    let pretender = stage.folder.path().join("pretender.yml");
    fs::write(&pretender, tls(&other)).unwrap();
    let (_pretends, address) = {
        let mut command = stage.place.command(&["--web.listen-address", "127.0.0.1:0", "--web.config.file"]);
        command.arg(&pretender);
        let sidecar = stage.place.spawn(command);
        let address = sidecar.announced("https://");
        (sidecar, address)
    };
    let output = stage.place.run(&["restart", "app-0", "--web.listen-address", &address, "--web.config.file", &file]);
    assert!(!output.status.success(), "{output:?}");

    stage.web("tls_server_config:\n  cert_file: nowhere.pem\n  key_file: nowhere.key\n");
    for command in [&["run"][..], &["check-config"]] {
        let output = stage.place.run(&[command, &["--web.config.file", &file]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains("web.yml:2: tls_server_config.cert_file: ") && said.contains("nowhere.pem"), "{said}");
    }
}

#[test]
fn requests_are_limited_where_the_configuration_says_so() {
    let stage = Stage::new();
    stage.web("rate_limit: {interval: 1h, burst: 30}\n");
    let file = path(&stage.web_file());
    let sidecar = stage.place.start_with(&["--web.config.file", &file]);
    let ask = |last| format!("GET /-/healthy HTTP/1.1\r\nHost: {}\r\n{last}\r\n", sidecar.address());
    let flood = format!("{}{}", ask("").repeat(31), ask("Connection: close\r\n"));
    let _begins_with_good_ones = stranger::exchange(sidecar.address(), &flood).unwrap();
    let answer = stranger::exchange(sidecar.address(), &ask("Connection: close\r\n")).unwrap();
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(sidecar.try_get("/-/healthy").unwrap().0, 200, "what a stranger has used up is not ours");
    let answers: Vec<u16> = (0..32).map(|_| sidecar.try_get("/-/healthy").unwrap().0).collect();
    assert!(answers.contains(&200) && answers.ends_with(&[429, 429]), "{answers:?}");
    assert!(answers.iter().filter(|status| **status == 200).count() < 30, "the start has asked as well: {answers:?}");
}

//! The servers that restarts depend on, faked with their faults: FleetLock, Prometheus, Alertmanager, a chat webhook.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and spawn")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leakslope::actuate::{Driver, Handle, Keeper, Spec};
use leakslope::collect::{DaemonSpec, Source};
use leakslope::model::{
    AppMetrics, Bytes, DaemonSample, Ending, HostSample, Life, Listed, MemoryLimits, ProcessKey, ProcessSample,
    Snapshot, Status, Steady, WallTime,
};
use leakslope::policy::{AuditRecord, Decision, FleetLock, Now, PersonCall, RecordKind, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(30);

/// What a fake server does with a request.
#[derive(Debug, Clone)]
enum Manner {
    Answers(u16, String),
    Noise,
    Hangs,
    HangsHalfWay,
    HangsUp,
    NeverEnds,
    Drips,
}

/// A server on a port of its own that does as it is told and remembers what it was asked.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    manner: Arc<Mutex<Manner>>,
    task: AbortHandle,
}

impl Server {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, manner) = (Arc::default(), Arc::new(Mutex::new(manner)));
        let (seen, acts): (Arc<Mutex<Vec<String>>>, _) = (Arc::clone(&asked), Arc::clone(&manner));
        let task = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                clients.spawn(serve(stream, Arc::clone(&seen), Arc::clone(&acts)));
            }
        });
        Self { port, asked, manner, task: task.abort_handle() }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/base/", self.port)
    }

    fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The paths it was asked for.
    fn paths(&self) -> Vec<String> {
        self.asked().iter().map(|text| text.split(' ').nth(1).unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>, manner: Arc<Mutex<Manner>>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .to_lowercase()
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.split("\r\n").next().unwrap_or_default().parse::<usize>().unwrap());
            if body.len() >= length {
                break;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    asked.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
    let manner = manner.lock().unwrap().clone();
    let _client_may_have_gone = answer(&mut stream, manner).await;
}

async fn answer(stream: &mut TcpStream, manner: Manner) -> std::io::Result<()> {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
    match manner {
        Manner::Answers(status, body) => {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(head.as_bytes()).await
        }
        Manner::Noise => stream.write_all(&[0x16, 3, 1, 0xff, b'\n', b'\n']).await,
        Manner::HangsUp => Ok(()),
        Manner::Hangs => std::future::pending().await,
        Manner::HangsHalfWay => {
            stream.write_all(HEAD.as_bytes()).await?;
            std::future::pending().await
        }
        Manner::NeverEnds => {
            stream.write_all(HEAD.as_bytes()).await?;
            loop {
                stream.write_all(&[b' '; 4096]).await?;
            }
        }
        Manner::Drips => {
            for byte in HEAD.bytes().chain(std::iter::repeat(b' ')) {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        }
    }
}

fn faults() -> Vec<Manner> {
    vec![
        Manner::Answers(500, "broken".to_owned()),
        Manner::Answers(302, String::new()),
        Manner::Noise,
        Manner::Hangs,
        Manner::HangsHalfWay,
        Manner::HangsUp,
        Manner::NeverEnds,
        Manner::Drips,
    ]
}

#[derive(Debug, Default)]
struct MemoryKeeper(Mutex<(Option<State>, BTreeMap<u64, AuditRecord>)>);

impl Keeper for MemoryKeeper {
    fn keep(&self, state: &State, records: &[AuditRecord]) -> Result<(), String> {
        let mut kept = self.0.lock().unwrap();
        kept.0 = Some(state.clone());
        kept.1.extend(records.iter().map(|record| (record.id, record.clone())));
        Ok(())
    }
}

/// A driver that sees two workers whose daemon is not there: an order comes to nothing, everything before it is real.
struct Stage {
    handle: Handle,
    keeper: Arc<MemoryKeeper>,
    tasks: Vec<AbortHandle>,
    _home: tempfile::TempDir,
}

fn now() -> Now {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let milliseconds = i64::try_from(since_epoch.as_millis()).unwrap();
    Now { steady: Steady(milliseconds), wall: WallTime(milliseconds) }
}

impl Stage {
    async fn start(servers: &str, policy: &str) -> Self {
        let text = format!(
            "mode = 'enforce'\nanswer_timeout = '700ms'\n{servers}\n[[policy]]\napps = ['shop']\nminimum_uptime = '0s'\n{policy}\n"
        );
        let home = tempfile::tempdir().unwrap();
        let keeper = Arc::new(MemoryKeeper::default());
        let spec = Spec {
            witness: None,
            settings: toml::from_str(&text).unwrap(),
            daemons: vec![DaemonSpec {
                name: "default".into(),
                home: home.path().to_owned(),
                source: Source::Socket,
                pm2_command: Vec::new(),
                expected: true,
                named_by: None,
            }],
            kept: None,
            keeper: Arc::clone(&keeper) as Arc<dyn Keeper>,
            clock: Arc::new(now),
        };
        let (driver, handle) = Driver::new(spec);
        let mut tasks = vec![tokio::spawn(driver.run(CancellationToken::new())).abort_handle()];
        handle.observed(Arc::new(snapshot()), Arc::default()).await.unwrap();
        let call = PersonCall {
            daemon: None,
            app: "shop".into(),
            pm_id: Some(0),
            all: false,
            now: true,
            hard: false,
            who: String::new(),
            why: String::new(),
        };
        handle.ask(call).await.unwrap().unwrap();
        let feed = handle.clone();
        let task = tokio::spawn(async move {
            while feed.observed(Arc::new(snapshot()), Arc::default()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        tasks.push(task.abort_handle());
        Self { handle, keeper, tasks, _home: home }
    }

    /// Waits until the request is held for a reason.
    async fn held_for(&self, label: &str) {
        let end = tokio::time::Instant::now() + LONG;
        loop {
            let (plan, _) = self.handle.look().await.unwrap();
            let found = match plan.entries.first().map(|entry| &entry.now) {
                Some(Decision::Hold(reason)) => reason.label(),
                _ => "nothing",
            };
            if found == label {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "held for {found}, not for {label}: {plan:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until an order has been given (which comes to nothing here).
    async fn ordered(&self) {
        let end = tokio::time::Instant::now() + LONG;
        while !self.keeper.0.lock().unwrap().1.values().any(|record| record.kind == RecordKind::Restart) {
            assert!(tokio::time::Instant::now() < end, "no order was given");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn has_ordered(&self) -> bool {
        self.keeper.0.lock().unwrap().1.values().any(|record| record.kind == RecordKind::Restart)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

fn snapshot() -> Snapshot {
    let at = now();
    let process = |pm_id: u32| {
        let life = Life { pid: 4_000_000 + pm_id, started: at.wall.0 - at.wall.0 % 1000 - 10_000_000 };
        let life = Life { started: 1_700_000_000_000, ..life };
        ProcessSample {
            key: ProcessKey { daemon: "default".into(), pm_id },
            listed: Listed {
                pm_id,
                app: "shop".into(),
                pid: Some(life.pid),
                status: Status::Online,
                pm_uptime: Some(life.started),
                restarts: Some(0),
                unstable_restarts: Some(0),
                module: false,
                exec_mode: "cluster",
                version: None,
                revision: None,
                node_version: None,
                interpreter: None,
                pmx: true,
                instance: Some(pm_id),
                max_memory_restart: None,
                max_old_space: None,
                kill_timeout_ms: None,
                listen_timeout_ms: None,
                min_uptime_ms: None,
                wait_ready: false,
                autorestart: true,
                ending: Ending::default(),
                created_at: None,
                monit_memory: Some(Bytes(100 << 20)),
                monit_cpu_percent: None,
                metrics: AppMetrics::default(),
            },
            life: Some(life),
            system: None,
            resident: Some(Bytes(100 << 20)),
            resident_source: None,
            limits: MemoryLimits::default(),
            metrics_age_seconds: None,
            metrics_frozen: false,
        }
    };
    Snapshot {
        at: at.steady,
        wall: at.wall,
        daemons: vec![DaemonSample {
            name: "default".into(),
            up: true,
            version: None,
            pid: None,
            life: None,
            resident: None,
            processes: vec![process(0), process(1)],
            processes_left_out: 0,
            orphans: None,
            app_metrics_left_out: 0,
            reports: Vec::new(),
            last_success: None,
        }],
        host: HostSample { memory_total: Bytes(16 << 30), memory_available: Bytes(8 << 30) },
    }
}

fn lock_settings(server: &Server) -> String {
    format!("[fleet_lock]\nurl = '{}'\nid = 'host-1'\ngroup = 'web'", server.url())
}

#[tokio::test]
async fn a_lock_that_is_granted_is_given_back_when_nothing_came_of_it() {
    let server = Server::start(Manner::Answers(200, String::new())).await;
    let stage = Stage::start(&lock_settings(&server), "").await;
    stage.ordered().await;
    let end = tokio::time::Instant::now() + LONG;
    while server.paths() != ["/base/v1/pre-reboot", "/base/v1/steady-state"] {
        assert!(tokio::time::Instant::now() < end, "{:?}", server.paths());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for request in server.asked() {
        assert!(request.starts_with("POST "), "{request}");
        assert!(request.to_lowercase().contains("\r\nfleet-lock-protocol: true\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"client_params\":{\"id\":\"host-1\",\"group\":\"web\"}}"), "{request}");
    }
}

#[tokio::test]
async fn a_lock_that_another_host_holds_holds_and_needs_no_release() {
    let reason = r#"{"kind":"failed_lock","value":"semaphore currently full, all slots are locked already"}"#;
    let server = Server::start(Manner::Answers(409, reason.to_owned())).await;
    let stage = Stage::start(&lock_settings(&server), "").await;
    stage.held_for("fleet_lock_held").await;
    let (plan, kept) = stage.handle.look().await.unwrap();
    assert!(plan.entries[0].sentence.contains("semaphore currently full"), "{}", plan.entries[0].sentence);
    assert_eq!(kept.fleet_lock, FleetLock::Free);
    assert_eq!(server.paths(), ["/base/v1/pre-reboot"]);
    assert!(!stage.has_ordered());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_server_with_a_fault_holds_and_is_told_that_we_hold_nothing() {
    for manner in faults() {
        let server = Server::start(manner.clone()).await;
        let stage = Stage::start(&lock_settings(&server), "").await;
        stage.held_for("fleet_lock_failed").await;
        assert!(!stage.has_ordered(), "{manner:?}");
        server.set(Manner::Answers(200, String::new()));
        let end = tokio::time::Instant::now() + LONG;
        while stage.handle.look().await.unwrap().1.fleet_lock != FleetLock::Free {
            assert!(tokio::time::Instant::now() < end, "{manner:?}: {:?}", server.paths());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(server.paths().last().map(String::as_str), Some("/base/v1/steady-state"), "{manner:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prometheus_with_a_fault_keeps_its_gate_closed() {
    for manner in faults() {
        let server = Server::start(manner.clone()).await;
        let settings = format!("[prometheus]\nurl = '{}'", server.url());
        let stage = Stage::start(&settings, "promql = ['up{app=\"$app\"} == 1']").await;
        stage.held_for("promql_failed").await;
        assert!(!stage.has_ordered(), "{manner:?}");
    }
}

#[tokio::test]
async fn a_prometheus_that_says_yes_opens_its_gate() {
    let yes = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0"]}]}}"#;
    let server = Server::start(Manner::Answers(200, yes.to_owned())).await;
    let settings = format!("[prometheus]\nurl = '{}'", server.url());
    let stage = Stage::start(&settings, "promql = ['up{app=\"$app\"} == 1']").await;
    stage.ordered().await;
    let request = server.asked().remove(0);
    assert!(request.starts_with("POST /base/api/v1/query HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\nquery=up%7Bapp%3D%22shop%22%7D%20%3D%3D%201&timeout=700ms"), "{request}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alertmanager_with_a_fault_holds_and_a_silence_is_honoured() {
    for manner in faults() {
        let server = Server::start(manner.clone()).await;
        let stage = Stage::start(&format!("[alertmanager]\nurl = '{}'", server.url()), "").await;
        stage.held_for("silences_unknown").await;
        assert!(!stage.has_ordered(), "{manner:?}");
    }
    let silence = r#"[{"id":"s1","comment":"launch day","status":{"state":"active"},
        "matchers":[{"name":"app","value":"sh.p","isRegex":true,"isEqual":true}]}]"#;
    let server = Server::start(Manner::Answers(200, silence.to_owned())).await;
    let stage = Stage::start(&format!("[alertmanager]\nurl = '{}'", server.url()), "").await;
    stage.held_for("silenced").await;
    assert_eq!(server.paths(), ["/base/api/v2/silences"]);
    assert!(!stage.has_ordered());
}

#[tokio::test]
async fn restarts_are_announced_to_a_chat_and_to_alertmanager() {
    let chat = Server::start(Manner::Answers(200, "ok".to_owned())).await;
    let alertmanager = Server::start(Manner::Answers(200, "[]".to_owned())).await;
    let settings = format!(
        "[notify]\nurl = '{}'\n[alertmanager]\nurl = '{}'\nsend_alerts = true\nlabels = {{ instance = 'host-1' }}",
        chat.url(),
        alertmanager.url()
    );
    let stage = Stage::start(&settings, "").await;
    stage.ordered().await;
    let end = tokio::time::Instant::now() + LONG;
    loop {
        let said = chat.asked();
        let alerts: Vec<String> =
            alertmanager.asked().into_iter().filter(|text| text.starts_with("POST /base/api/v2/alerts ")).collect();
        if let (Some(said), Some(alert)) = (said.first(), alerts.first()) {
            assert!(said.contains("{\"text\":\"leakslope: reloads default/0 of shop"), "{said}");
            let body = alert.split("\r\n\r\n").nth(1).unwrap();
            let alert: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(alert[0]["labels"]["alertname"], "LeakslopeRestart");
            assert_eq!(alert[0]["labels"]["instance"], "host-1");
            return;
        }
        assert!(tokio::time::Instant::now() < end, "{said:?} {alerts:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Set in the run of this test that trusts the server's certificate.
const TRUSTING: &str = "LEAKSLOPE_TEST_TRUSTED_FOLDER";

/// Makes a certificate for 127.0.0.1 in a folder.
fn make_certificate(folder: &std::path::Path) {
    let file = |name: &str| folder.join(name).display().to_string();
    let status = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=leakslope test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &file("key.pem"), "-out", &file("certificate.pem")])
        .stderr(std::process::Stdio::null())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "openssl is missing: run `apt-get install openssl`");
}

/// A server that takes one request over TLS and answers 200; returns its port and what it was asked.
async fn serve_encrypted(folder: &std::path::Path) -> (u16, Arc<Mutex<Vec<String>>>) {
    let certificate = CertificateDer::from_pem_file(folder.join("certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                seen.lock().unwrap().push("refused".to_owned());
                continue;
            };
            let mut buffer = vec![0; 65_536];
            let count = stream.read(&mut buffer).await.unwrap();
            seen.lock().unwrap().push(String::from_utf8_lossy(&buffer[..count]).into_owned());
            let _client_may_have_gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    });
    (port, asked)
}

#[tokio::test]
async fn a_chat_is_told_over_https_only_if_its_certificate_is_trusted() {
    let trusted = std::env::var_os(TRUSTING).map(std::path::PathBuf::from);
    let own = tempfile::tempdir().unwrap();
    let folder = trusted.clone().unwrap_or_else(|| own.path().to_owned());
    if trusted.is_none() {
        make_certificate(&folder);
        // The same test once more, by a process that trusts the certificate from its start.
        let name = "servers::a_chat_is_told_over_https_only_if_its_certificate_is_trusted";
        let run = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(TRUSTING, &folder)
            .env("SSL_CERT_FILE", folder.join("certificate.pem"))
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("1 passed"), "{said}");
    }
    let (port, asked) = serve_encrypted(&folder).await;
    let stage = Stage::start(&format!("[notify]\nurl = 'https://127.0.0.1:{port}/services/secret'"), "").await;
    stage.ordered().await;
    let end = tokio::time::Instant::now() + LONG;
    let heard = loop {
        let heard = asked.lock().unwrap().first().cloned();
        if let Some(heard) = heard {
            break heard;
        }
        assert!(tokio::time::Instant::now() < end, "the chat heard nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    if trusted.is_some() {
        assert!(heard.starts_with("POST /services/secret HTTP/1.1\r\n"), "{heard}");
    } else {
        assert_eq!(heard, "refused");
    }
}

//! Apps that expose `prom-client`'s metrics: their heap arrives, and one that is slow, huge or wrong costs only itself.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::fake_daemon::{Behaviour, FakeDaemon, entry};
use crate::support::sidecar::{Place, Sidecar};
use crate::support::{steady, wait_for, wall};
use leakslope::collect::{Collector, ExposedReader, MetricsUrl, Settings};
use leakslope::model::{AppName, Bytes, CollectorName, Snapshot};
use rustix::process::Signal;

/// What a fake app answers.
#[derive(Debug, Clone)]
enum Answer {
    Body(String),
    Raw(&'static str),
    Silence,
    /// Bytes without end.
    Flood,
}

/// An app that answers every request alike until it is told otherwise.
#[derive(Debug)]
struct FakeApp {
    address: String,
    answer: Arc<Mutex<Answer>>,
    sent: Arc<AtomicU64>,
}

impl FakeApp {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (answer, sent) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicU64::new(0)));
        let (told, counted) = (Arc::clone(&answer), Arc::clone(&sent));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, sent) = (told.lock().unwrap().clone(), Arc::clone(&counted));
                thread::spawn(move || serve(stream, answer, &sent));
            }
        });
        Self { address, answer, sent }
    }

    fn url(&self, path: &str) -> MetricsUrl {
        MetricsUrl::parse(&format!("http://{}{path}", self.address)).unwrap()
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }
}

fn serve(mut stream: TcpStream, answer: Answer, sent: &AtomicU64) {
    let mut request = [0; 1024];
    let _length = stream.read(&mut request);
    match answer {
        Answer::Body(body) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _closed = stream.write_all((head + &body).as_bytes());
        }
        Answer::Raw(bytes) => drop(stream.write_all(bytes.as_bytes())),
        // Until the client gives up.
        Answer::Silence => drop(stream.read(&mut request)),
        Answer::Flood => {
            let _closed = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let line = "nodejs_heap_size_used_bytes 5\n".repeat(1000);
            while stream.write_all(line.as_bytes()).is_ok() {
                sent.fetch_add(line.len() as u64, Ordering::Relaxed);
            }
        }
    }
}

/// Metrics of an app with this many major collections and megabytes outside of the new space.
fn metrics(majors: u64, megabytes: u64) -> Answer {
    Answer::Body(format!(
        "# TYPE nodejs_gc_duration_seconds histogram\n\
         nodejs_gc_duration_seconds_count{{kind=\"major\"}} {majors}\n\
         nodejs_gc_duration_seconds_count{{kind=\"minor\"}} 7\n\
         nodejs_gc_duration_seconds_sum{{kind=\"major\"}} 0.25\n\
         nodejs_gc_duration_seconds_sum{{kind=\"minor\"}} 0.5\n\
         nodejs_heap_size_used_bytes {}\nnodejs_heap_size_total_bytes 90000000\n\
         nodejs_heap_space_size_used_bytes{{space=\"new\"}} 8000000\n\
         nodejs_heap_space_size_used_bytes{{space=\"old\"}} {megabytes}000000\n",
        (megabytes + 8) * 1_000_000
    ))
}

/// A daemon with one process of each app, none of which reports anything through pm2.
fn daemon(apps: &[&str]) -> FakeDaemon {
    let entries: Vec<_> = apps
        .iter()
        .enumerate()
        .map(|(pm_id, app)| {
            let mut entry = entry(pm_id, 4_000_000 + u32::try_from(pm_id).unwrap());
            entry["name"] = (*app).into();
            entry["pm2_env"]["name"] = (*app).into();
            entry["pm2_env"]["axm_monitor"] = serde_json::json!({});
            entry
        })
        .collect();
    FakeDaemon::start(Behaviour::List(serde_json::Value::Array(entries).to_string()))
}

async fn collect(daemon: &FakeDaemon) -> Snapshot {
    Collector::new(vec![daemon.spec("default")], Settings::default()).collect(steady(), wall()).await
}

fn failure(snapshot: &Snapshot) -> Option<&str> {
    let reports = &snapshot.daemons[0].reports;
    let report = reports.iter().find(|report| report.collector == CollectorName::Exposed).expect("a report");
    report.failure.as_deref()
}

#[tokio::test]
async fn the_heap_after_a_major_collection_is_taken_at_the_first_reading_after_it() {
    let (daemon, app) = (daemon(&["api"]), FakeApp::start(metrics(4, 60)));
    let url = app.url("/metrics");
    let mut reader = ExposedReader::default();
    for (majors, megabytes, expected) in [
        // When the fourth was, nobody knows.
        (4, 60, None),
        (4, 61, None),
        (5, 40, Some(40)),
        (5, 55, Some(40)),
        (8, 42, Some(42)),
        // Another process answers there now.
        (1, 20, None),
        (2, 21, Some(21)),
    ] {
        app.answer(metrics(majors, megabytes));
        let mut snapshot = collect(&daemon).await;
        reader.read(&mut snapshot, |_app| Some(&url), Duration::from_secs(5)).await;
        assert_eq!(failure(&snapshot), None);
        let told = &snapshot.daemons[0].processes[0].listed.metrics;
        assert_eq!(told.heap_used, Some(Bytes((megabytes + 8) * 1_000_000)));
        assert_eq!(told.heap_total, Some(Bytes(90_000_000)));
        let gc = told.gc.expect("a report");
        assert_eq!((gc.major_gcs, gc.minor_gcs, gc.gc_seconds), (majors, 7, 0.75));
        assert_eq!(gc.heap_after_major_gc, expected.map(|megabytes: u64| Bytes(megabytes * 1_000_000)), "{majors}");
    }
}

#[tokio::test]
async fn an_app_that_is_slow_huge_or_wrong_costs_only_itself() {
    let apps = ["good", "slow", "huge", "html", "moved", "nonsense", "gone"];
    let daemon = daemon(&apps);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let servers = [
        FakeApp::start(metrics(1, 30)),
        FakeApp::start(Answer::Silence),
        FakeApp::start(Answer::Flood),
        FakeApp::start(Answer::Body("<html>not here</html>".to_owned())),
        FakeApp::start(Answer::Raw("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")),
        FakeApp::start(Answer::Raw("\u{1}\u{2}\u{3} what is this\r\n\r\n")),
    ];
    let mut urls: Vec<MetricsUrl> = servers.iter().map(|server| server.url("/metrics")).collect();
    urls.push(MetricsUrl::parse(&format!("http://{gone}/metrics")).unwrap());
    let url_of = |app: &AppName| apps.iter().position(|known| *known == app.name()).map(|index| &urls[index]);
    let mut snapshot = collect(&daemon).await;
    let begun = Instant::now();
    ExposedReader::default().read(&mut snapshot, url_of, Duration::from_secs(2)).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "it took {took:?}");
    let processes = &snapshot.daemons[0].processes;
    assert_eq!(processes[0].listed.metrics.heap_used, Some(Bytes(38_000_000)));
    assert!(processes[1..].iter().all(|process| process.listed.metrics == leakslope::model::AppMetrics::default()));
    let told = failure(&snapshot).expect("six apps failed").to_owned();
    let lines: Vec<&str> = told.split("; ").collect();
    for (line, (app, reason)) in lines.iter().zip([
        ("gone", "refused"),
        ("html", "nothing there is a metric of Node.js's heap"),
        ("huge", "larger than"),
        ("moved", "status 302"),
        ("nonsense", ""),
        ("and 1 more", "apps"),
    ]) {
        assert!(line.starts_with(app) && line.contains(reason), "{line}\nof {told}");
    }
    assert_eq!(lines.len(), 6, "{told}");
    let sent = servers[2].sent.load(Ordering::Relaxed);
    assert!(sent < 64 << 20, "the flood went on for {sent} bytes");
}

#[tokio::test]
async fn one_url_is_not_read_for_two_processes() {
    let (daemon, app) = (daemon(&["api", "api"]), FakeApp::start(metrics(1, 30)));
    let mut snapshot = collect(&daemon).await;
    let (shared, own) = (app.url("/metrics"), app.url("/metrics?worker={pm_id}"));
    ExposedReader::default().read(&mut snapshot, |_app| Some(&shared), Duration::from_secs(5)).await;
    assert!(failure(&snapshot).expect("it is ambiguous").contains("2 processes share http://127.0.0.1:"));
    assert!(snapshot.processes().all(|process| process.listed.metrics.heap_used.is_none()));
    let mut snapshot = collect(&daemon).await;
    ExposedReader::default().read(&mut snapshot, |_app| Some(&own), Duration::from_secs(5)).await;
    assert_eq!(failure(&snapshot), None);
    assert!(snapshot.processes().all(|process| process.listed.metrics.heap_used.is_some()));
}

/// What the API calls the source of a process's heap figures.
fn basis(sidecar: &Sidecar, pm_id: u64) -> String {
    let list = sidecar.json("/api/v1/processes");
    let process = list["processes"].as_array().unwrap().iter().find(|process| process["pm_id"] == pm_id).unwrap();
    process["verdict"]["basis"].to_string()
}

#[test]
fn the_sidecars_verdict_rests_on_major_collections() {
    let (daemon, app) = (daemon(&["api", "web"]), FakeApp::start(metrics(1, 30)));
    let place = Place::new(
        daemon.home(),
        &format!(
            "interval = \"1s\"\n[trend]\nminute = \"100ms\"\n\
             [[app]]\nname = \"a*\"\nmetrics_url = \"http://{}/metrics\"\n",
            app.address
        ),
    );
    let mut sidecar = place.start();
    let success = |value: f64| {
        let labels = [("daemon", "default"), ("collector", "app_metrics")];
        sidecar.until("the collector's word", |metrics| {
            metrics.value("leakslope_collect_success", &labels).filter(|told| told.to_bits() == value.to_bits())
        });
    };
    success(1.0);
    let mut majors = 1;
    wait_for("a verdict by major collections", Duration::from_mins(1), || {
        majors += 1;
        app.answer(metrics(majors, 30));
        let basis = basis(&sidecar, 0);
        if basis == "\"major_gc\"" { Ok(()) } else { Err(basis) }
    });
    assert_eq!(basis(&sidecar, 1), "\"resident_only\"");
    app.answer(Answer::Body("gone".to_owned()));
    success(0.0);
    sidecar.collections(2);
    let told = sidecar.logged("metrics that apps expose cannot be read");
    assert_eq!(told.len(), 1, "it is told once, not at every collection: {told:?}");
    assert!(sidecar.stop(Signal::TERM).0.success());
}

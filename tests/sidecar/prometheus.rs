//! A real Prometheus scrapes the assembled binary beside a real pm2, and its answers are those of the sidecar.

#![allow(
    clippy::disallowed_methods,
    clippy::float_cmp,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure, and the figures compared are exact"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::support::pm2::{Pm2, app};
use crate::support::sidecar::{DEADLINE, Labels, Place, Sidecar};
use crate::support::wait_for;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// A Prometheus that scrapes one target every second, until it is dropped.
struct Prometheus {
    child: Child,
    address: String,
    _folder: TempDir,
}

impl Prometheus {
    fn scraping(target: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("prometheus-").tempdir().unwrap();
        let configuration = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: leakslope, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        fs::write(&configuration, text).unwrap();
        let log = folder.path().join("log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("prometheus: {error}: install it with `apt-get install prometheus`"));
        let mut prometheus = Self { child, address: String::new(), _folder: folder };
        prometheus.address = wait_for("Prometheus to listen", DEADLINE, || {
            let log = fs::read_to_string(&log).unwrap();
            // Written as `msg="Listening on" address=127.0.0.1:1234`.
            let line = log.lines().find(|line| line.contains("Listening on")).ok_or_else(|| log.clone())?;
            let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
            address.map(str::to_owned).ok_or_else(|| log.clone())
        });
        prometheus
    }

    /// Runs an instant query; the labels and the value of each series of the answer.
    fn query(&self, query: &str) -> Result<Vec<(Labels, f64)>, String> {
        let mut encoded = String::new();
        query.bytes().for_each(|byte| std::fmt::Write::write_fmt(&mut encoded, format_args!("%{byte:02X}")).unwrap());
        let told = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(&self.address).map_err(told)?;
        write!(stream, "GET /api/v1/query?query={encoded} HTTP/1.0\r\nhost: {}\r\n\r\n", self.address).map_err(told)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(told)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        let body: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))?;
        let series = body["data"]["result"].as_array().ok_or_else(|| body.to_string())?;
        Ok(series
            .iter()
            .map(|series| {
                let labels = serde_json::from_value(series["metric"].clone()).unwrap();
                (labels, series["value"][1].as_str().unwrap().parse().unwrap())
            })
            .collect())
    }

    /// Asks until `check` is content with the answer.
    fn until<T>(&self, query: &str, check: impl Fn(&[(Labels, f64)]) -> Option<T>) -> T {
        wait_for(query, DEADLINE, || {
            let answer = self.query(query)?;
            check(&answer).ok_or_else(|| format!("{answer:?}"))
        })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Every series that comes from a collection, by name and labels, as the sidecar serves it; to Prometheus an empty label
/// is none.
fn collected(sidecar: &Sidecar) -> BTreeMap<(String, Labels), f64> {
    let metrics = sidecar.metrics();
    let mut all = BTreeMap::new();
    for (name, series) in metrics.families().filter(|(name, _)| name.starts_with("pm2_")) {
        for (labels, value) in series {
            let mut labels = labels.clone();
            labels.retain(|_, value| !value.is_empty());
            all.insert((name.to_owned(), labels), *value);
        }
    }
    all
}

#[test]
fn prometheus_answers_with_the_values_that_the_sidecar_serves() {
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &app("server.js"), "--name", "web", "--max-memory-restart", "300M"]);
    pm2.run(&["start", &app("custom.js"), "--name", "custom \"quoted\""]);
    let place = Place::new(&pm2.home(), "interval = \"1s\"\n");
    let sidecar = place.start();
    sidecar.until("metrics of both apps", |metrics| {
        metrics.value("pm2_process_custom_metric", &[("metric", "queue length")])?;
        (metrics.all("pm2_process_event_loop_latency_seconds", &[("percentile", "95")]).len() == 2).then_some(())
    });
    let prometheus = Prometheus::scraping(sidecar.address());

    // With an hour between collections nothing moves, so every series has to be the same there and here.
    place.configure("interval = \"1h\"\n");
    sidecar.signal(Signal::HUP);
    sidecar.until("the reload", |metrics| {
        metrics.value("leakslope_collect_interval_seconds", &[]).filter(|seconds| *seconds == 3600.0)
    });
    let served = wait_for("the last collection", DEADLINE, || {
        let (first, second) = (collected(&sidecar), collected(&sidecar));
        let stored = prometheus.query("{__name__=~\"pm2_.*\"}")?;
        // Prometheus asks for OpenMetrics, which has the starts of counters beside them.
        let stored: BTreeMap<_, _> = stored
            .into_iter()
            .filter(|(labels, _)| !labels["__name__"].ends_with("_created"))
            .map(|(mut labels, value)| {
                let name = labels.remove("__name__").unwrap();
                labels.retain(|label, _| label != "job" && label != "instance");
                ((name, labels), value)
            })
            .collect();
        if first == second && first == stored {
            Ok(first)
        } else {
            let other = first.iter().find(|(series, value)| stored.get(*series) != Some(value));
            Err(format!("{} here, {} there; {other:?}", first.len(), stored.len()))
        }
    });
    assert!(served.len() > 60, "{served:?}");
    let value = |query: &str| {
        let answer = prometheus.query(query).unwrap();
        assert_eq!(answer.len(), 1, "{query}: {answer:?}");
        answer[0].1
    };
    assert_eq!(value("up{job=\"leakslope\"}"), 1.0);
    assert_eq!(value("pm2_up"), 1.0);
    assert_eq!(value("pm2_process_memory_limit_bytes{app=\"web\", limit=\"max_memory_restart\"}"), 314_572_800.0);
    assert_eq!(value(r#"pm2_process_custom_metric{app="custom \"quoted\"", metric="queue length", unit="jobs"}"#), 7.0);
    let resident = value("pm2_process_resident_memory_bytes{app=\"web\"}");
    let here = sidecar.metrics().value("pm2_process_resident_memory_bytes", &[("app", "web")]);
    assert_eq!(Some(resident), here);
    assert_eq!(value("sum by (app) (pm2_app_instances{app=\"web\"})"), 1.0);

    // Counters count: CPU time rises, a restart is one restart, and a scrape is a request.
    place.configure("interval = \"1s\"\n");
    sidecar.signal(Signal::HUP);
    pm2.run(&["restart", "web"]);
    let one = |answer: &[(Labels, f64)]| answer.first().map(|(_, value)| *value);
    prometheus.until("increase(pm2_process_restarts_total{app=\"web\"}[1m]) > 0", one);
    assert_eq!(value("pm2_process_restarts_total{app=\"web\"}"), 1.0);
    prometheus.until("rate(pm2_process_cpu_seconds_total{app=~\"custom.*\"}[1m]) > 0", one);
    prometheus.until("rate(leakslope_http_requests_total{code=\"200\"}[1m]) > 0.5", one);
    let age = prometheus.until("time() - leakslope_last_collect_timestamp_seconds < 10", one);
    assert!(age > -1.0, "{age}");

    // What is deleted becomes stale at once; a daemon that is gone is down and has no processes.
    pm2.run(&["delete", "web"]);
    let none = |answer: &[(Labels, f64)]| answer.is_empty().then_some(());
    prometheus.until("{__name__=~\"pm2_.*\", app=\"web\"}", none);
    pm2.kill_daemon();
    prometheus.until("pm2_up == 0", one);
    prometheus.until("pm2_process_info", none);
    assert_eq!(value("up{job=\"leakslope\"}"), 1.0, "the sidecar itself is up");
}

/// Asks for the metrics with these headers; the head and the bytes.
fn scraped(sidecar: &Sidecar, headers: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(sidecar.address()).unwrap();
    let host = sidecar.address();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase(), answer[end + 4..].to_vec())
}

#[test]
fn the_form_and_the_packing_of_a_scrape_are_the_readers_choice() {
    let home = tempfile::tempdir().unwrap();
    let place = Place::new(home.path(), "");
    let sidecar = place.spawn(place.command(&["--web.listen-address", "127.0.0.1:0"])).ready();
    let (head, plain) = scraped(&sidecar, "");
    assert!(head.contains("text/plain; version=0.0.4") && head.contains("vary: accept, accept-encoding"), "{head}");
    let (head, packed) = scraped(&sidecar, "accept-encoding: deflate, gzip;q=0.8\r\n");
    assert!(head.contains("content-encoding: gzip") && head.contains("text/plain"), "{head}");
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut unpacked).unwrap();
    let names =
        |text: &str| text.lines().filter(|line| line.starts_with("# TYPE")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(&unpacked), names(&String::from_utf8(plain.clone()).unwrap()));
    assert!(packed.len() * 3 < plain.len(), "{} of {}", packed.len(), plain.len());

    let accept = "accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3\r\n";
    let (head, open) = scraped(&sidecar, accept);
    let open = String::from_utf8(open).unwrap();
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(open.ends_with("\n# EOF\n") && open.matches("# EOF").count() == 1, "{open}");
    for line in [
        "# TYPE process_cpu_seconds counter\n# UNIT process_cpu_seconds seconds\n",
        "\nprocess_cpu_seconds_created ",
        "# TYPE leakslope_build_info gauge\n",
    ] {
        assert!(open.contains(line), "no {line:?} in {open}");
    }
}

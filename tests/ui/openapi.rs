//! The API is what `docs/openapi.yaml` says: every body is held against it, field by field, in both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::schema::Document;
use leakslope::evidence::report::{Added, ClassGrowth, Place, SeriesGrowth};
use leakslope::evidence::snapshot::patterns::Pattern;
use leakslope::export::json::{LivesView, MemoryCauseView, PlanView, ProcessesView};
use leakslope::export::timeline::{HistoryView, Past, Range, TimeScale, sparkline};
use leakslope::export::{Collected, DeathCounts};
use leakslope::history::Point;
use leakslope::model::{
    AppMetrics, AppName, Basis, Bytes, CollectorName, CollectorReport, DaemonName, DaemonSample, Ending, HostSample,
    LeakState, Life, LifeEnd, LifeSummary, Limit, LimitKind, Listed, MemoryKind, MemoryLimits, MemorySource, Minute,
    ProcessKey, ProcessSample, Rejection, Signal, Slope, Snapshot, Status, Steady, SystemSample, Verdict, WallTime,
};
use leakslope::ui::{
    ActingView, AppPolicyView, AuditView, BreakerView, CompareView, ComparisonView, EvidenceItemView,
    EvidenceTakenView, EvidenceView, FrameView, GateView, PreviewTargetView, PreviewView, RequestView, RestartsView,
    TakenView, TargetView, VersionView,
};
use serde::Serialize;
use serde_json::{Value, json};

const NOW: Steady = Steady(1_795_400_000_000);
const SCALE: TimeScale = TimeScale { minute: Duration::from_mins(1), offset_ms: 250 };

fn holds(schema: &str, view: &impl Serialize) {
    let value = serde_json::to_value(view).expect("a view becomes JSON");
    let faults = Document::read().faults(schema, &value);
    assert!(faults.is_empty(), "{schema}:\n{}\n{value:#}", faults.join("\n"));
}

fn text(value: &str) -> String {
    value.to_owned()
}

fn slope() -> Slope {
    Slope { bytes_per_second: 903.5, low: 820.0, high: 990.0 }
}

fn listed(pm_id: u32, status: Status) -> Listed {
    Listed {
        pm_id,
        app: AppName::from("shop <b>"),
        pid: status.has_live_pid().then_some(4_000),
        status,
        pm_uptime: Some(NOW.0 - 7_200_000),
        restarts: Some(3),
        unstable_restarts: Some(0),
        module: false,
        exec_mode: "cluster",
        version: Some(text("1.4.2")),
        revision: None,
        node_version: Some(text("20.20.2")),
        interpreter: Some(text("node")),
        pmx: true,
        instance: Some(0),
        max_memory_restart: Some(Bytes(512 << 20)),
        max_old_space: None,
        kill_timeout_ms: None,
        listen_timeout_ms: None,
        min_uptime_ms: None,
        wait_ready: false,
        autorestart: true,
        ending: Ending::default(),
        created_at: None,
        monit_memory: None,
        monit_cpu_percent: None,
        metrics: AppMetrics {
            heap_used: Some(Bytes(80 << 20)),
            heap_total: Some(Bytes(100 << 20)),
            event_loop_p50_seconds: Some(0.0004),
            ..AppMetrics::default()
        },
    }
}

fn sample(pm_id: u32, status: Status) -> ProcessSample {
    let listed = listed(pm_id, status);
    let life = listed.life();
    ProcessSample {
        key: key(pm_id),
        limits: MemoryLimits { max_memory_restart: listed.max_memory_restart, ..MemoryLimits::default() },
        system: life.map(|_| SystemSample { resident: Bytes(200 << 20), ..SystemSample::default() }),
        resident: life.map(|_| Bytes(200 << 20)),
        resident_source: life.map(|_| MemorySource::System),
        life,
        listed,
        metrics_age_seconds: None,
        metrics_frozen: false,
    }
}

fn key(pm_id: u32) -> ProcessKey {
    ProcessKey { daemon: DaemonName::from("default"), pm_id }
}

fn verdict() -> Verdict {
    Verdict {
        state: LeakState::Suspect,
        since: NOW - Duration::from_mins(10),
        at: NOW,
        signal: Signal::Footprint,
        basis: Basis::SampledHeap,
        slopes: BTreeMap::from([(Signal::Footprint, slope()), (Signal::Resident, slope())]),
        window: Duration::from_hours(2),
        floor: Some(Bytes(150 << 20)),
        limit: Some(Limit { kind: LimitKind::MaxMemoryRestart, bytes: Bytes(512 << 20) }),
        projected_exhaustion: Some(Duration::from_hours(100)),
        provisional: None,
        first_verdict_at: None,
        previous: None,
        rejection: Some(Rejection { signal: Signal::Footprint, test: "plateau" }),
        reason: text("footprint grew 3.1 MiB/h"),
    }
}

fn minutes() -> Vec<Minute> {
    (0..120_u8)
        .map(|age| Minute {
            minute: NOW.minute() - i64::from(age),
            resident: 2.0e8 - f32::from(age) * 5.0e4,
            native: 6.0e7,
            heap_floor: 9.0e7 - f32::from(age) * 5.0e4,
            heap_used: 1.0e8,
            load: 0.1,
        })
        .rev()
        .collect()
}

fn life(pid: u32, age: u64, version: &str, end: LifeEnd) -> LifeSummary {
    LifeSummary {
        key: key(0),
        app: AppName::from("shop"),
        life: Life { pid, started: 0 },
        version: Some(text(version)),
        revision: None,
        first: NOW - Duration::from_secs(age),
        last: NOW - Duration::from_secs(age / 2),
        end,
        floors: Vec::new(),
        resident_floors: Vec::new(),
        resident_max: 2.1e8,
        slope: Some(slope()),
    }
}

/// Returns every `$ref` of the document that leads nowhere, and every field without a value (a comma in a text that should
/// have been quoted).
fn broken_parts(document: &Document) -> Vec<String> {
    let mut broken = Vec::new();
    let mut open = vec![&document.0];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                let dangling = fields.get("$ref").filter(|pointer| document.resolve(pointer).is_none());
                broken.extend(dangling.map(ToString::to_string));
                broken.extend(fields.iter().filter(|(_, held)| held.is_null()).map(|(field, _)| field.clone()));
                open.extend(fields.values());
            }
            Value::Array(items) => open.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    broken
}

#[test]
fn every_part_of_the_document_is_whole() {
    let document = Document::read();
    assert_eq!(broken_parts(&document), Vec::<String>::new());
    assert_eq!(document.0["openapi"], "3.1.0");
}

#[test]
fn every_route_of_the_api_is_documented_and_nothing_else_is() {
    let source = std::fs::read_to_string("src/runtime/endpoints/mod.rs").unwrap();
    let routed: BTreeSet<(String, String)> = source
        .split("Route::")
        .skip(1)
        .filter_map(|rest| {
            let (method, rest) = rest.split_once("(\"")?;
            Some((method.to_owned(), rest.split_once('"')?.0.to_owned()))
        })
        .filter(|(_, path)| path.starts_with("/api/"))
        .collect();
    let document = Document::read();
    let documented: BTreeSet<(String, String)> = document.0["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
        })
        .collect();
    assert!(routed.contains(&(text("get"), text("/api/v1/lives"))), "the routes are elsewhere now: {routed:?}");
    assert_eq!(routed, documented);
}

/// The tests of the page rest on a stand-in for the sidecar: what it answers is what the sidecar may answer.
#[test]
fn the_stand_in_of_the_page_answers_by_the_document() {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    let mut stand_in = std::process::Command::new("node")
        .arg("tests/ui/mock.mjs")
        .env("PORT", "0")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("node is missing: run `apt-get install nodejs npm`");
    let mut url = String::new();
    BufReader::new(stand_in.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let address = url.trim().strip_prefix("http://").unwrap();
    let answers: Vec<(&str, String)> = [
        ("Processes", "processes"),
        ("History", "processes/default/0/history?span=3600"),
        ("Compare", "compare?daemon=default&app=default%2Fshop-api"),
        ("Restarts", "restarts"),
        ("Preview", "restarts/preview?daemon=default&app=default%2Fshop-api"),
        ("Evidence", "evidence?daemon=default&pm_id=0"),
        ("Evidence", "evidence?daemon=default&pm_id=3"),
        ("Deaths", "deaths?daemon=default&pm_id=0"),
        ("Error", "nothing"),
    ]
    .into_iter()
    .map(|(schema, path)| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET /api/v1/{path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (schema, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    })
    .collect();
    stand_in.kill().unwrap();
    stand_in.wait().unwrap();
    for (schema, body) in answers {
        let value: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{schema}: {error}: {body}"));
        let faults = Document::read().faults(schema, &value);
        assert!(faults.is_empty(), "the stand-in's {schema}:\n{}", faults.join("\n"));
    }
}

#[test]
fn lives() {
    let old =
        LifeSummary { resident_max: f32::NAN, slope: None, version: None, ..life(1, 7_000, "1", LifeEnd::Unseen) };
    let new = LifeSummary { app: AppName::new("staging", "shop"), ..life(2, 9_000, "2", LifeEnd::Running) };
    holds("Lives", &LivesView::new(vec![old, new], NOW, Duration::from_mins(1)));
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let document = Document::read();
    let wrong = [
        ("Slope", json!({ "bytes_per_second": 1.0, "low": 1.0 }), "Slope: high is missing"),
        (
            "Slope",
            json!({ "bytes_per_second": "1", "low": 1, "high": 1 }),
            "Slope.bytes_per_second: \"1\" is not of type \"number\"",
        ),
        ("Slope", json!({ "bytes_per_second": 1, "low": 1, "high": 1, "x": 1 }), "Slope: x is not documented"),
        ("Mode", json!("perhaps"), "Mode: \"perhaps\" is none of [\"off\",\"dry-run\",\"enforce\"]"),
        ("Column", json!([1, null, -1]), "Column[2]: -1 is below 0"),
        ("Nothing", json!(1), "Nothing: there is no schema"),
    ];
    for (schema, value, fault) in wrong {
        assert_eq!(document.faults(schema, &value), [fault], "{schema} {value}");
    }
}

#[test]
fn processes() {
    let snapshot = Snapshot {
        at: NOW,
        wall: WallTime(NOW.0 + 250),
        daemons: [true, false]
            .map(|up| DaemonSample {
                name: DaemonName::from(if up { "default" } else { "gone" }),
                up,
                version: up.then(|| text("7.0.4")),
                pid: up.then_some(9),
                life: None,
                resident: up.then_some(Bytes(60 << 20)),
                processes: if up { vec![sample(0, Status::Online), sample(1, Status::Errored)] } else { Vec::new() },
                processes_left_out: 0,
                orphans: None,
                app_metrics_left_out: 0,
                reports: vec![CollectorReport {
                    collector: CollectorName::Pm2,
                    duration: Duration::from_millis(1),
                    failure: (!up).then(|| text("connection refused")),
                }],
                last_success: up.then_some(WallTime(NOW.0)),
            })
            .to_vec(),
        host: HostSample { memory_total: Bytes(16 << 30), memory_available: Bytes(9 << 30) },
    };
    let verdicts = BTreeMap::from([(key(0), verdict())]);
    let mut view = ProcessesView::new(&Collected {
        snapshot: &snapshot,
        verdicts: &verdicts,
        version_slopes: &[],
        restarts: None,
        evidence: &[],
        deaths: &DeathCounts::default(),
    });
    holds("Processes", &view);
    view.interval_seconds = Some(15.0);
    view.first_verdict_after_seconds = Some(2400.0);
    view.processes[0].sparkline = sparkline(&minutes(), 60, SCALE);
    view.processes[0].plan = Some(plan());
    view.processes[0].memory_cause = Some(MemoryCauseView {
        cause: text("workers"),
        harmless: false,
        grown_bytes: 9,
        over_seconds: 60.0,
        sentence: text("it grows"),
        advice: String::new(),
    });
    assert_eq!(view.processes[0].sparkline.as_ref().map(|line| line.resident_min_bytes.len()), Some(60));
    holds("Processes", &view);
}

#[test]
fn doctor() {
    let apps =
        leakslope::doctor::checks::read_ecosystem(br#"[{"name":"a","exec_interpreter":"node","stop_exit_codes":[0]}]"#)
            .unwrap();
    let apps = apps
        .into_iter()
        .map(|settings| leakslope::doctor::checks::App { settings, ..leakslope::doctor::checks::App::default() })
        .collect();
    let daemon = leakslope::doctor::checks::Daemon {
        name: text("default"),
        apps,
        stamps: Some(false),
        ..leakslope::doctor::checks::Daemon::default()
    };
    let facts =
        leakslope::doctor::checks::Facts { daemons: vec![daemon], ..leakslope::doctor::checks::Facts::default() };
    let report = leakslope::doctor::Gathered { facts, unexamined: vec![text("daemon other: it is down")] }.report();
    assert_eq!((report.findings.len(), report.restarts.len()), (2, 1));
    holds("Doctor", &report);
}

#[test]
fn history() {
    let (key, minutes, verdict) = (key(0), minutes(), verdict());
    let lives = [life(1, 7_000, "1.4.1", LifeEnd::RestartedByUs), life(2, 3_000, "1.4.2", LifeEnd::Running)];
    let all = Range { from: WallTime(0), to: WallTime(i64::MAX / 2), step: None };
    let app = AppName::new("default", "shop");
    let point = Point {
        at: NOW,
        kinds: [1e6; MemoryKind::ALL.len()],
        children: 0.0,
        workers: 1.0,
        heap_total: f32::NAN,
        heap_floor: f32::NAN,
        external: f32::NAN,
        handles: f32::NAN,
    };
    let full = Past {
        key: &key,
        app: &app,
        minutes: &minutes,
        lives: &lives,
        composition: &[point],
        verdict: Some(&verdict),
        exact_since: None,
        scale: SCALE,
    };
    let view = HistoryView::new(&full, all);
    assert!(view.fit.is_some() && view.projection.is_some() && view.marks.len() == 1 && view.lives.len() == 2);
    holds("History", &view);
    holds("History", &HistoryView::new(&Past { minutes: &[], lives: &[], verdict: None, ..full }, all));
}

#[test]
fn compare() {
    let version = VersionView {
        version: text("1.4.2"),
        from: 1.0,
        to: 2.5,
        lives: 2,
        hours: 30.5,
        slope: Some(slope()),
        resident_max_bytes: Some(1),
    };
    let comparison = ComparisonView {
        before: text("1.4.1"),
        after: text("1.4.2"),
        outcome: text("too_early"),
        hours_needed: Some(7.5),
        sentence: text("too early to say: 7.5 more hours are needed"),
    };
    let versions = vec![VersionView { slope: None, resident_max_bytes: None, ..version.clone() }, version];
    let mut view = CompareView {
        daemon: text("default"),
        namespace: text("default"),
        app: text("shop"),
        versions,
        comparison: Some(comparison),
    };
    holds("Compare", &view);
    view.comparison = None;
    holds("Compare", &view);
}

fn plan() -> PlanView {
    PlanView { decision: text("hold"), sentence: text("no maintenance window is open"), at: Some(1.0) }
}

#[test]
fn restarts() {
    let gates = [None, Some(text("window_closed"))].map(|reason| GateView {
        gate: text("window"),
        open: reason.is_none(),
        reason,
        sentence: text("a window is open"),
    });
    let target = TargetView { pm_id: 0, state: text("waiting"), plan: Some(plan()), gates: gates.to_vec() };
    let done = TargetView { pm_id: 1, state: text("done"), plan: None, gates: Vec::new() };
    let record = AuditView {
        id: 7,
        at: 1.0,
        kind: text("restart"),
        request: Some(1),
        trigger: Some(text("leak")),
        daemon: text("default"),
        namespace: text("default"),
        app: text("shop"),
        pm_id: Some(0),
        action: Some(text("reload")),
        outcome: Some(text("verified")),
        detail: None,
        sentence: text("reloaded"),
        memory_before_bytes: Some(2),
        memory_after_bytes: Some(1),
        slope_before: Some(900.0),
        slope_after: Some(-3.0),
        time_bought_seconds: Some(1.5),
        helped: Some(true),
        evidence: Some(text("shop-0-1.heapprofile")),
        probes_asked: Some(12),
        probes_failed: Some(0),
    };
    let asked = AuditView {
        evidence: None,
        probes_asked: None,
        probes_failed: None,
        kind: text("requested"),
        action: None,
        outcome: None,
        trigger: None,
        memory_before_bytes: None,
        helped: None,
        ..record.clone()
    };
    let breaker = BreakerView { open: true, cause: Some(text("restarts did not help")), closes_at: Some(2.0) };
    let app = AppPolicyView {
        daemon: text("default"),
        namespace: text("default"),
        app: text("shop"),
        opted_in: true,
        mode: text("enforce"),
        next_window_at: Some(9.0),
        budget_left: 1,
        host_budget_left: 60,
        breaker,
        memory_freed_bytes: Some(-5),
    };
    let view = RestartsView {
        mode: text("dry-run"),
        acting: ActingView { allowed: true, authentication: text("bearer"), sentence: text("with a token") },
        requests: vec![RequestView {
            id: 1,
            trigger: text("leak"),
            daemon: text("default"),
            namespace: text("default"),
            app: text("shop"),
            made_at: 1.0,
            reason: text("it leaks"),
            begun: false,
            targets: vec![target, done],
        }],
        apps: vec![app],
        audit: vec![record, asked],
    };
    holds("Restarts", &view);
    let target = PreviewTargetView { daemon: text("default"), pm_id: 1, decision: text("would_reload") };
    holds("Preview", &PreviewView { targets: vec![target], sentences: vec![text("it waits")] });
    holds("Taken", &TakenView { requests: vec![1], sentence: text("it waits for its window") });
}

#[test]
fn evidence() {
    let leaf = FrameView {
        name: text("Session"),
        location: None,
        generated: None,
        package: None,
        bytes: 1,
        children: Vec::new(),
    };
    let root = FrameView {
        name: text("(root)"),
        location: Some(text("a.js:1")),
        generated: Some(text("dist/a.js:1:99")),
        package: Some(text("shop@1.2.3")),
        bytes: 2,
        children: vec![leaf.clone()],
    };
    let profile = EvidenceItemView {
        id: text("shop-0-1"),
        kind: text("heap_profile"),
        daemon: text("default"),
        namespace: text("default"),
        app: text("shop"),
        pm_id: 0,
        taken_at: 1.0,
        trigger: text("leak"),
        state: text("done"),
        duration_seconds: Some(300.0),
        pause_seconds: Some(0.004),
        size_bytes: Some(84_211),
        sentence: text("74 % is held by remember"),
        top: vec![leaf],
        flame: Some(Box::new(root)),
        growth: None,
        notes: vec![text("no source map")],
    };
    let amount = Added { count: 3, bytes: 300 };
    let class =
        ClassGrowth { class: text("Session"), count: 9, shallow_bytes: -1, retained_bytes: 1, added: Some(amount) };
    let place = Place {
        pattern: Pattern::ClosureScope,
        sentence: text("the Map `sessions` only grows"),
        bytes: 1,
        way: text("sessions (Map) → Session × 9"),
        code: Some(text("a.js:1:1")),
        id: Some(7),
        sizes: vec![1, 2, 3],
        package: Some(text("shop@1.2.3")),
    };
    let series = SeriesGrowth {
        files: vec![text("shop.1.heapsnapshot"), text("shop.2.heapsnapshot")],
        compared: text("by object id"),
        added: Some(amount),
        classes: vec![ClassGrowth { added: None, ..class.clone() }, class],
        places: vec![Place { code: None, id: None, package: None, ..place.clone() }, place],
        ways: vec![text("sessions (Map) → Session × 9")],
    };
    let snapshot = |growth: SeriesGrowth| EvidenceItemView {
        kind: text("heap_snapshot"),
        top: Vec::new(),
        flame: None,
        growth: Some(Box::new(growth)),
        ..profile.clone()
    };
    let (whole, bare) = (snapshot(series), snapshot(SeriesGrowth::default()));
    let failed = EvidenceItemView {
        kind: text("heap_snapshot"),
        state: text("failed"),
        duration_seconds: None,
        pause_seconds: None,
        size_bytes: None,
        top: Vec::new(),
        flame: None,
        ..profile.clone()
    };
    let acting = ActingView { allowed: true, authentication: text("none"), sentence: text("from here") };
    let items = [profile, failed, whole, bare].to_vec();
    let view = |standing| EvidenceView { evidence: items.clone(), acting: acting.clone(), standing };
    holds("Evidence", &view(None));
    holds("Evidence", &view(Some(text("it rests"))));
    holds("EvidenceTaken", &EvidenceTakenView { id: text("shop-0-1"), sentence: text("it goes on") });
}

#[test]
fn what_the_page_sends_is_what_the_document_asks_for() {
    let document = Document::read();
    let orders: [(&str, Value); 4] = [
        ("EvidenceOrder", json!({ "daemon": "d", "app": "a", "pm_id": 0, "duration": "30s", "who": "the page" })),
        (
            "RestartOrder",
            json!({ "daemon": "d", "app": "a", "now": true, "all": false, "who": "the page", "why": "", "pm_id": 0 }),
        ),
        ("WithdrawOrder", json!({ "request": 4, "who": "the page" })),
        ("BreakerOrder", json!({ "daemon": "d", "app": "a", "who": "the page" })),
    ];
    let page = include_str!("../../src/ui/assets/dialog.js");
    for (schema, order) in orders {
        assert_eq!(document.faults(schema, &order), Vec::<String>::new());
        for field in order.as_object().unwrap().keys() {
            assert!(page.contains(&format!("{field}:")), "the page sends no {field}");
        }
    }
}

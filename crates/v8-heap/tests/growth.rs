//! Real apps whose memory grows in ways that no count of pieces shows, and healthy ones beside them: the report must
//! name the one thing that grew.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use v8_heap::snapshot::analysis::{Analysis, analyse};
use v8_heap::snapshot::classes::Interface;
use v8_heap::snapshot::diff::{Diff, compare, digest};
use v8_heap::snapshot::summary::{Extent, summarise};
use v8_heap::snapshot::{Limits, read};

/// Name, work, and what the first finding must say; nothing where the app is healthy.
const APPS: [(&str, &str, &[&str]); 14] = [
    (
        "set-of-numbers",
        "const seen = new Set(); run((n) => { for (let i = 0; i < 500; i++) seen.add(n * 500 + i); });",
        &["the Set `seen` in ", "set-of-numbers.js only grows", "inside it"],
    ),
    (
        "integer-keys",
        "const byId = {}; run((n) => { for (let i = 0; i < 300; i++) byId[n * 3000 + i * 7] = i; });",
        &["the object byId (Object) in ", "integer-keys.js only grows"],
    ),
    (
        "string-keys",
        "const hits = {}; run((n) => { for (let i = 0; i < 100; i++) hits['/u/' + n + '/' + i] = 1; });",
        &["the object hits (Object) in ", "string-keys.js", "only grows"],
    ),
    (
        "few-buffers",
        "const uploads = []; run((n) => { if (n % 60 === 0) uploads.push({ body: Buffer.alloc(1 << 20, 1) }); });",
        &["the array `uploads` in ", "few-buffers.js only grows: by {body} × 5"],
    ),
    (
        "few-reports",
        "class Report { constructor(n) { this.rows = Array.from({ length: 5000 }, (_, i) => ({ i, n })); } }
         const reports = new Map(); run((n) => { if (n % 60 === 0) reports.set(n, new Report(n)); });",
        &["the Map `reports` in ", "Report × 5"],
    ),
    (
        "tenants",
        "class Tenant { constructor() { this.events = []; } } const tenants = new Map();
         for (let i = 0; i < 40; i++) tenants.set(i, new Tenant());
         run((n) => { for (const one of tenants.values()) one.events.push({ n, at: n + 0.5 }); });",
        &["40 arrays like `events` of Tenant in ", "only grow: by ", "× 12,000"],
    ),
    (
        "numbers-of-a-class",
        "class Log { constructor() { this.lines = []; } } const log = new Log();
         run((n) => { for (let i = 0; i < 50; i++) log.lines.push(n * 50 + i); });",
        &["the array `lines` of Log in ", "numbers-of-a-class.js only grows"],
    ),
    (
        "contexts",
        "const vm = require('node:vm'); const boxes = [];
         run((n) => { if (n % 30 === 0) boxes.push(vm.runInContext('({ f() {} })', vm.createContext({}))); });",
        &["10 more vm contexts are kept alive"],
    ),
    (
        "sockets",
        "const net = require('node:net'); const server = net.createServer((s) => s.on('data', () => {}));
         server.listen(0, '127.0.0.1');
         run((n) => { if (n % 10 || !server.listening) return;
           net.connect(server.address().port, '127.0.0.1').on('error', () => {}); });",
        &[" more TCP are kept alive by Node itself"],
    ),
    (
        "tree",
        "class Leaf { constructor(k) { this.key = k; this.left = null; this.right = null; } }
         const root = new Leaf(0.5); let seed = 7;
         const random = () => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) / 0x7fffffff;
         const add = (key) => { for (let at = root; ; ) { const side = key < at.key ? 'left' : 'right';
           if (!at[side]) { at[side] = new Leaf(key); return; } at = at[side]; } };
         run(() => { for (let i = 0; i < 20; i++) add(random()); });",
        &["from root (Leaf) in ", "Leaf × 6,000"],
    ),
    (
        "healthy-cache",
        "class Entry { constructor(k) { this.body = new Array(16).fill(k + 0.5); } } const cache = new Map();
         run((n) => { for (let i = 0; i < 20; i++) { cache.set(n * 20 + i, new Entry(n));
           if (cache.size > 500) cache.delete(cache.keys().next().value); } });",
        &[],
    ),
    (
        "healthy-buffers",
        "const ring = []; run((n) => { if (n % 60) return; ring.push(Buffer.alloc(1 << 20, 1));
           if (ring.length > 3) ring.shift(); });",
        &[],
    ),
    (
        "healthy-filled",
        "const known = new Set(); run((n) => { if (n < 350) for (let i = 0; i < 500; i++) known.add(n * 500 + i); });",
        &[],
    ),
    ("healthy-idle", "let last; run((n) => { last = { n, text: `${n}` }; });", &[]),
];

fn load(path: &Path, known: &[Interface]) -> Analysis {
    analyse(read(File::open(path).unwrap(), "test", &Limits::default()).unwrap(), known)
}

/// Runs an app, which takes three snapshots of itself, and compares them; also what the last alone holds.
fn grown(folder: &Path, name: &str, work: &str) -> (Diff, Vec<String>) {
    let harness = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/heap/apps/harness.js");
    let script = folder.join(format!("{name}.js"));
    let text = format!("const {{ run }} = require('{}');\n{work}\n", harness.canonicalize().unwrap().display());
    std::fs::write(&script, text).unwrap();
    let node = Command::new("node").arg(&script).arg(folder.join(name)).stdin(Stdio::null()).output();
    let node = node.expect("node starts; install it: apt-get install -y nodejs");
    assert!(node.status.success(), "{name}: {}", String::from_utf8_lossy(&node.stderr));
    let path = |number: usize| folder.join(format!("{name}-{number}.heapsnapshot"));
    let first = digest(&load(&path(1), &[]), "first");
    let second = digest(&load(&path(2), &first.interfaces), "second");
    let last = load(&path(3), &second.interfaces);
    let summary = summarise(&last, "third", Extent::default());
    let sum: u64 = summary.statistics.parts().iter().map(|(_, part)| part.bytes).sum();
    assert_eq!(sum, summary.statistics.total.bytes, "{name}: the breakdown adds up");
    let held = summary.findings.into_iter().map(|finding| finding.sentence).collect();
    (compare(&[first, second], &last, "third", Extent::default()), held)
}

#[test]
fn what_grows_is_named_with_its_way_and_its_sizes_and_healthy_apps_stay_quiet() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for apps in APPS.chunks(4) {
        let runs: Vec<(Diff, Vec<String>)> = std::thread::scope(|scope| {
            let path = folder.path();
            let start = |app: &'static (&str, &str, &[&str])| scope.spawn(move || grown(path, app.0, app.1));
            let threads: Vec<_> = apps.iter().map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for ((name, _, words), (diff, held)) in apps.iter().zip(runs) {
            let told: Vec<&str> = diff.findings.iter().map(|finding| finding.sentence.as_str()).collect();
            let named = diff.findings.first().is_some_and(|finding| {
                let sized = finding.sizes.is_empty() || finding.sizes.len() == 3 && finding.sizes.is_sorted();
                !finding.way.is_empty() && sized && words.iter().all(|word| finding.sentence.contains(word))
            });
            if words.is_empty() != told.is_empty() || !words.is_empty() && !named {
                wrong.push(format!("{name}: {told:?}"));
            }
            if *name == "few-reports" && !held.first().is_some_and(|told| told.contains("the Map `reports`")) {
                wrong.push(format!("{name} alone: {held:?}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

// A stand-in for the sidecar: the page's own files with the headers the sidecar sends, and answers that are made up from
// a clock the tests turn. Run it by hand to look at the page: `node tests/ui/mock.mjs`, then open the address it prints.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const ROOT = fileURLToPath(new URL("../../src/ui/", import.meta.url));
const RUST = readFileSync(`${ROOT}mod.rs`, "utf8");
const MIB = 1048576;
const MINUTE = 60;

/** The policy exactly as the binary sends it. */
export const POLICY = /CONTENT_SECURITY_POLICY: &str = "((?:[^"\\]|\\\n\s*)+)"/.exec(RUST)[1].replace(/\\\n\s*/g, "");

const TYPES = { html: "text/html; charset=utf-8", js: "text/javascript; charset=utf-8", css: "text/css; charset=utf-8", svg: "image/svg+xml", txt: "text/plain; charset=utf-8" };
const FILES = new Map([...RUST.matchAll(/^ {4}"(\/[^"]*)" [^,]+, "([^"]+)";$/gm)].map(([, path, file]) => [path, file]));

const noise = (seed) => {
  const x = Math.sin(seed * 12.9898) * 43758.5453;
  return x - Math.floor(x) - 0.5;
};

/** One made-up app: its memory is a straight line with a saw of garbage on top. */
const app = (fields) => ({
  daemon: "default", version: "2.4.0", exec_mode: "fork", status: "online", base: 120, slope: 0, limit: 512, state: "stable",
  uptime: 3 * 86400, restarts: 0, plan: null, ...fields,
});

export const APPS = [
  app({ app: "shop-api", pm_id: 0, exec_mode: "cluster", base: 168, slope: 3.1, state: "leaking", uptime: 16 * 3600, restarts: 4,
    plan: { decision: "hold", sentence: "no maintenance window is open; the next one opens in 9 h", at: 9 * 3600 } }),
  app({ app: "shop-api", pm_id: 1, exec_mode: "cluster", base: 160, slope: 2.9, state: "leaking", uptime: 16 * 3600, restarts: 4,
    plan: { decision: "hold", sentence: "a restart of shop-api is under way in the same daemon", at: null } }),
  app({ app: "image-worker", pm_id: 2, base: 240, slope: 1.4, state: "suspect", version: "0.9.3", restarts: 1 }),
  app({ app: "checkout", pm_id: 3, exec_mode: "cluster", base: 142, version: "5.1.2" }),
  app({ app: "checkout", pm_id: 4, exec_mode: "cluster", base: 138, version: "5.1.2" }),
  app({ app: "search", pm_id: 5, base: 410, limit: 1024, version: "1.18.0" }),
  app({ app: "mailer", pm_id: 6, base: 88, state: "learning", uptime: 540, restarts: 1, version: null }),
  app({ app: "nightly-report", pm_id: 7, status: "stopped", state: null, version: "1.0.4" }),
];

export const HOSTILE = [
  app({ app: "<script>document.title='owned'</script>", pm_id: 0, slope: 2, state: "leaking" }),
  app({ app: "<img src=x onerror=alert(1)>", pm_id: 1, slope: 2, state: "suspect" }),
  app({ app: "\u202egnp.eliforp\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627", pm_id: 2, slope: 2, state: "suspect" }),
  app({ app: "a".repeat(200), pm_id: 3 }),
  app({ app: "\u{1f4a7}\u{1f468}\u200d\u{1f469}\u200d\u{1f467} drip", pm_id: 4 }),
  app({ app: "\"><svg/onload=alert(2)>", pm_id: 5, daemon: "a/b %2F?#'\"<b>" }),
  app({ app: "__proto__", pm_id: 6 }),
];

/** What is remembered of an app at a minute `age` seconds into its life; earlier lives grew the same way. */
const memory = (one, at, now) => {
  const born = now - one.uptime;
  const life = at >= born ? at - born : (at - born + 40 * 3600) % (40 * 3600);
  const grown = one.base + (one.slope * life) / 3600 + (one.slope === 0 ? 6 * Math.sin(at / 13_000) : 0);
  const warm = Math.min(1, life / 1800);
  const resident = (grown * (0.7 + 0.3 * warm) + 4 * noise(at + one.pm_id)) * MIB;
  const total = resident * 0.62;
  const saw = ((at / 900) % 1) * 0.24;
  return { resident, total, used: total * (0.66 + saw), floor: resident - total * 0.34 };
};

const verdictOf = (one, now) => {
  if (!one.state) return null;
  const here = memory(one, now, now);
  const pace = (one.slope * MIB) / 3600;
  const left = one.slope > 0 ? (one.limit * MIB - here.resident) / pace : null;
  const reason = {
    leaking: `footprint grew ${one.slope} MiB/h over 12 h, floors rising in 23 of 24 intervals, the same pace in the second half; limit ${one.limit} MiB in ${Math.round((left ?? 0) / 3600)} h`,
    suspect: `footprint grew ${one.slope} MiB/h over 8 h, floors rising in 19 of 24 intervals; the second half is slower, so the strict test still says no`,
    stable: "footprint did not grow over 24 h: 11 of 24 floors rose, 12 fell",
    learning: "too little has been seen of this life: 9 min of at least 30 min",
  }[one.state];
  const slope = one.state === "learning" ? {} : { footprint: { bytes_per_second: pace, low: pace * 0.92 - 12, high: pace * 1.09 + 12 } };
  return {
    state: one.state, since: now - 5 * 3600, reason, signal: "footprint", basis: "sampled_heap", window_seconds: one.state === "learning" ? 540 : 12 * 3600, slopes: slope,
    floor_bytes: Math.round(here.floor), limit: "max_memory_restart", limit_bytes: one.limit * MIB,
    projected_exhaustion_seconds: left, provisional: null, first_verdict_at: one.state === "learning" ? now + 1860 : null, rejected_by: one.state === "suspect" ? "footprint/plateau" : null,
  };
};

/** What holds the memory of an app over its last two hours. */
const layersOf = (one, now) => {
  const time = [...Array(5).keys()].map((index) => now - (4 - index) * 1800);
  const here = time.map((at) => memory(one, at, now));
  const kinds = { files: here.map(() => 46 * MIB), js_heap: here.map(({ total }) => Math.round(total)) };
  for (const kind of ["malloc", "own_allocator", "wasm", "code_and_stacks", "shared_memory", "children"]) kinds[kind] = time.map(() => 0);
  return { time, kinds };
};

const processOf = (one, now) => {
  const alive = one.status === "online";
  const here = memory(one, now, now);
  const points = Array.from({ length: 60 }, (_, index) => now - (59 - index) * 720);
  return {
    daemon: one.daemon, namespace: "default", app: one.app, module: false, pm_id: one.pm_id, pid: alive ? 4000 + one.pm_id : null, status: one.status, exec_mode: one.exec_mode,
    version: one.version, revision: null, node_version: "20.20.2", started_at: now - one.uptime,
    uptime_seconds: one.uptime, restarts: one.restarts, unstable_restarts: 0,
    resident_memory_bytes: alive ? Math.round(here.resident) : null, tree_resident_memory_bytes: alive ? Math.round(here.resident) : null,
    swapped_memory_bytes: 0, memory_by_kind_bytes: null, memory_by_kind_unknown: "it was not read yet", worker_threads: null, memory_cause: one.cause ?? null, heap_used_bytes: alive ? Math.round(here.used) : null, heap_total_bytes: alive ? Math.round(here.total) : null,
    cpu_seconds: 120.5, event_loop_latency_p50_seconds: 0.0004, event_loop_latency_p95_seconds: 0.0021, metrics_age_seconds: 1,
    metrics_frozen: false, limits: { max_memory_restart: one.limit * MIB }, verdict: alive ? verdictOf(one, now) : null,
    sparkline: alive ? { from: points[0], step_seconds: 720, resident_min_bytes: points.map((at) => (at < now - 3 * 86400 ? null : Math.round(memory(one, at, now).resident))) } : null,
    plan: one.plan ? { ...one.plan, at: one.plan.at === null ? null : now + one.plan.at } : null,
  };
};

const processesOf = (state) => ({
  version: "0.1.0", collected_at: state.now, interval_seconds: state.interval, first_verdict_after_seconds: 2400,
  host: { memory_total_bytes: 16 * 1024 * MIB, memory_available_bytes: Math.round(9.4 * 1024) * MIB },
  daemons: [
    { name: "default", up: true, version: "7.0.4", resident_memory_bytes: 61 * MIB, verdict: null, failure: null, last_success_at: state.now, processes_left_out: 0, app_metrics_left_out: 0, orphans: [] },
    ...(state.daemonDown ? [{ name: "staging", up: false, version: null, resident_memory_bytes: null, verdict: null, failure: "connection refused", last_success_at: state.now - 700, processes_left_out: 0, app_metrics_left_out: 0, orphans: null }] : []),
  ],
  processes: state.apps.map((one) => processOf(one, state.now)),
});

const historyOf = (one, state, query) => {
  const { now } = state;
  const verdict = one.status === "online" ? verdictOf(one, now) : null;
  const to = Number(query.get("to") ?? now);
  const oldest = now - 72 * 3600;
  const from = Math.max(oldest, query.has("from") ? Number(query.get("from")) : to - Number(query.get("span") ?? 86400));
  const step = Math.max(1, Math.ceil((to - from) / MINUTE / 480)) * MINUTE;
  const time = [];
  const series = Object.fromEntries(["resident", "heap_used", "heap_total", "floor"].map((id) => [id, { min: [], max: [], last: [] }]));
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    time.push(at);
    const here = memory(one, at, now);
    for (const [id, value] of [["resident", here.resident], ["heap_used", here.used], ["heap_total", here.total], ["floor", here.floor]]) {
      series[id].min.push(Math.round(value * 0.985));
      series[id].max.push(Math.round(value * 1.015));
      series[id].last.push(Math.round(value));
    }
  }
  const slope = verdict?.slopes.footprint;
  const born = now - one.uptime;
  const mid = now - 6 * 3600;
  const left = verdict?.projected_exhaustion_seconds;
  const here = memory(one, now, now);
  const lives = [
    { pid: 3100 + one.pm_id, from: born - 56 * 3600, to: born - 40 * 3600, end: "restarted", version: "2.3.1", revision: null, resident_max_bytes: 214 * MIB, slope: { bytes_per_second: 40, low: -60, high: 120 } },
    { pid: 3500 + one.pm_id, from: born - 40 * 3600, to: born - 30, end: "restarted_by_us", version: "2.3.1", revision: null, resident_max_bytes: 290 * MIB, slope: slope ?? null },
    { pid: 4000 + one.pm_id, from: born, to: now, end: "running", version: one.version, revision: null, resident_max_bytes: Math.round(here.resident * 1.03), slope: slope ?? null },
  ];
  const marks = [
    { at: born - 40 * 3600, kind: "restart", end: "restarted", version_before: "2.3.1", version: "2.3.1" },
    { at: born, kind: "deploy", end: "restarted_by_us", version_before: "2.3.1", version: one.version },
  ].filter((mark) => mark.at >= from && mark.at <= to);
  return {
    daemon: one.daemon, namespace: "default", app: one.app, pm_id: one.pm_id, step_seconds: step, oldest, time, ...series, memory: layersOf(one, now),
    limit: verdict?.limit ?? null, limit_bytes: verdict?.limit_bytes ?? null,
    fit: slope ? {
      signal: "footprint", from: now - 12 * 3600, to: now, pivot_at: mid, pivot_bytes: memory(one, mid, now).floor,
      bytes_per_second: slope.bytes_per_second * 0.79, low_bytes_per_second: slope.low * 0.79, high_bytes_per_second: slope.high * 0.79,
    } : null,
    projection: slope && left ? {
      from: now, from_bytes: Math.round(here.resident), limit_bytes: verdict.limit_bytes, at: now + left,
      earliest_at: now + left * (slope.bytes_per_second / slope.high), latest_at: now + left * (slope.bytes_per_second / slope.low),
    } : null,
    marks, lives,
  };
};

const csvOf = (history) => ["time,resident_memory_bytes,heap_used_bytes,heap_total_bytes,post_gc_heap_used_bytes,major_gcs,life",
  ...history.time.map((at, index) => [at, history.resident.min[index], history.heap_used.min[index], history.heap_total.last[index], "", "", 1].join(","))].join("\n");

const compareOf = (one, state) => ({
  daemon: one.daemon, namespace: "default", app: one.app,
  versions: [
    { version: "2.3.1", from: state.now - 72 * 3600, to: state.now - one.uptime, lives: 4, hours: 112, slope: { bytes_per_second: 40, low: -60, high: 120 }, resident_max_bytes: 290 * MIB },
    { version: one.version ?? "unknown", from: state.now - one.uptime, to: state.now, lives: 2, hours: 32, slope: verdictOf(one, state.now)?.slopes.footprint ?? null, resident_max_bytes: 300 * MIB },
  ],
  comparison: { before: "2.3.1", after: one.version ?? "unknown", outcome: one.slope > 0 ? "not_fixed" : "fixed", hours_needed: null,
    sentence: one.slope > 0 ? "Not fixed: 2.4.0 grows 3.1 MiB/h (2.7 to 3.5), 2.3.1 did not grow." : "Fixed: the newer version does not grow." },
});

const GATES = [
  { gate: "mode", open: true, reason: null, sentence: "the mode is enforce and the app has opted in" },
  { gate: "breaker", open: true, reason: null, sentence: "the breaker is closed" },
  { gate: "window", open: false, reason: "window_closed", sentence: "no maintenance window is open; the next one opens in 9 h" },
  { gate: "app_budget", open: true, reason: null, sentence: "2 of 4 restarts are left today" },
];

const actingOf = (state) => ({
  allowed: state.allowed, authentication: state.token ? "bearer" : "none",
  sentence: state.allowed ? "Restarts may be asked for from this address." : "Restarts can only be asked for with a token; none is configured.",
});

const previewOf = (state, query) => {
  const targets = state.apps.filter((one) => one.daemon === query.get("daemon") && `default/${one.app}` === query.get("app") && (query.get("pm_id") ?? String(one.pm_id)) === String(one.pm_id));
  const dry = state.mode === "dry-run" ? ["This is a dry run (the mode is dry-run): nothing will be restarted; what would have happened is recorded"] : [];
  const now = query.get("now") === "true" ? ["It does not wait for a maintenance window or for the minimum uptime; every other gate can still hold it"] : [];
  const held = query.get("app") === "default/image-worker" ? ["It waits: the circuit breaker is open"] : [];
  const workers = targets.filter((one) => one.exec_mode === "cluster").length;
  const gently = workers > 0 ? [`One at a time pm2 reloads ${workers} ${workers === 1 ? "worker" : "workers"}: a new worker starts before the old one stops, so connections are kept if the app closes gracefully`] : [];
  const hard = targets.length > workers ? ["Open connections drop: pm2 stops 1 process and starts anew, and requests fail until the app is back"] : [];
  const decision = state.mode === "dry-run" ? "would_reload" : "reload";
  return { targets: targets.map((one) => ({ daemon: one.daemon, pm_id: one.pm_id, decision })), sentences: [...dry, ...now, ...held, ...gently, ...hard] };
};

const restartsOf = (state) => ({
  mode: state.mode,
  acting: actingOf(state),
  requests: [{
    id: 41, trigger: "leak", daemon: "default", namespace: "default", app: "shop-api", made_at: state.now - 3600, begun: false,
    reason: "process 0 has been leaking for 5 h and meets its limit in 94 h",
    targets: [0, 1].map((pm_id) => ({
      pm_id, state: "waiting", gates: GATES,
      plan: { decision: "hold", sentence: "now: held: no maintenance window is open; the next one opens in 9 h", at: state.now + 9 * 3600 },
    })),
  }],
  apps: [
    { daemon: "default", namespace: "default", app: "shop-api", opted_in: true, mode: state.mode, next_window_at: state.now + 9 * 3600, budget_left: 2, host_budget_left: 60,
      breaker: { open: false, cause: null, closes_at: null }, memory_freed_bytes: 169 * MIB },
    { daemon: "default", namespace: "default", app: "image-worker", opted_in: true, mode: state.mode, next_window_at: null, budget_left: 4, host_budget_left: 60,
      breaker: { open: true, cause: "2 restarts in a row freed less than 5 % of memory", closes_at: state.now + 20 * 3600 }, memory_freed_bytes: 3 * MIB },
    { daemon: "default", namespace: "default", app: "checkout", opted_in: false, mode: "dry-run", next_window_at: null, budget_left: 4, host_budget_left: 60,
      breaker: { open: false, cause: null, closes_at: null }, memory_freed_bytes: null },
  ],
  audit: [
    { id: 9, at: state.now - 16 * 3600, kind: "restart", request: 38, trigger: "leak", daemon: "default", namespace: "default", app: "shop-api", pm_id: 0, action: "reload", outcome: "verified", detail: null,
      sentence: "reloaded inside its window: the new worker was ready after 1.4 s", memory_before_bytes: 290 * MIB, memory_after_bytes: 121 * MIB,
      slope_before: 860, slope_after: 903, time_bought_seconds: 54 * 3600, helped: true, evidence: "shop-api-0-1", probes_asked: null, probes_failed: null },
    { id: 8, at: state.now - 41 * 3600, kind: "restart", request: 35, trigger: "person", daemon: "default", namespace: "default", app: "image-worker", pm_id: 2, action: "restart", outcome: "failed", detail: "unstable",
      sentence: "the new instance did not stay online for 10 s", memory_before_bytes: 402 * MIB, memory_after_bytes: null, slope_before: null, slope_after: null, time_bought_seconds: null, helped: null, evidence: null, probes_asked: null, probes_failed: null },
  ],
});

const EVIDENCE = {
  name: "(root)", location: null, generated: null, package: null, bytes: 96 * MIB, children: [
    { name: "remember", location: "/srv/shop/sessions.js:41", generated: null, package: null, bytes: 71 * MIB, children: [
      { name: "Session", location: "/srv/shop/sessions.js:12", generated: null, package: null, bytes: 52 * MIB, children: [{ name: "Buffer.from", location: "node:buffer:320", generated: null, package: null, bytes: 40 * MIB, children: [] }] },
      { name: "Map.set", location: null, generated: null, package: null, bytes: 14 * MIB, children: [] }] },
    { name: "render", location: "/srv/shop/views.js:88", generated: null, package: null, bytes: 17 * MIB, children: [{ name: "compile", location: "/srv/shop/views.js:19", generated: null, package: null, bytes: 12 * MIB, children: [] }] }],
};

/** The last snapshot of a series with the report beside it, whose names are anybody's. */
export const series = (state, growth) => ({
  id: "shop-api-0-4711.3.heapsnapshot", kind: "heap_snapshot", daemon: "default", namespace: "default", app: "shop-api", pm_id: 0, taken_at: state.now - 600, trigger: "person", state: "done",
  duration_seconds: null, pause_seconds: 0.8, size_bytes: 210 * MIB, top: [], flame: null, growth, notes: [],
  sentence: "the Map `sessions` in sessions.js only grows: by Session × 12,412 (41 MiB), alive by … → sessions (Map) → Session × 12,412",
});

const deathsOf = (one, state) => ({
  deaths: one?.state !== "leaking" ? [] : [{
    id: 7, at: state.now - 7200, daemon: one.daemon, namespace: "default", app: one.app, pm_id: one.pm_id, pid: 4242,
    cause: "v8_heap_limit", detail: "", certainty: "certain", between: [], signs: ["it ended by SIGABRT", "V8 told of a full heap"],
    then: { state: "restarted", seconds: 1 }, in_a_row: 0,
    resident_memory_bytes: 301_000_000, heap_used_bytes: 262_000_000, heap_limit_bytes: 268_435_456, limit: { kind: "heap", bytes: 268_435_456 },
    slope_bytes_per_second: 902.5, state: "leaking", age_seconds: 219_600, evidence: null, message: "<img src=x onerror=alert(1)>",
    sentence: `${one.app}-${one.pm_id} died at 03:12:07: V8 ran out of heap (limit 256 MiB)`,
  }],
});

const evidenceOf = (one, state) => ({
  acting: actingOf(state),
  standing: one.state === "leaking" ? "this life has had its profile when it was found to leak (shop-api-0-1)" : "a profile is taken when this process is found to leak; its verdict is stable",
  evidence: one.state !== "leaking" ? state.evidence : [...state.evidence, {
    id: "shop-api-0-1", kind: "heap_profile", daemon: one.daemon, namespace: "default", app: one.app, pm_id: one.pm_id, taken_at: state.now - 4 * 3600, trigger: "leak", state: "done",
    duration_seconds: 300, pause_seconds: 0.004, size_bytes: 84_211, sentence: "74 % of what is still held was allocated under remember (/srv/shop/sessions.js:41).",
    top: [EVIDENCE.children[0], EVIDENCE.children[0].children[0], EVIDENCE.children[1]].map((frame) => ({ ...frame, children: [] })), flame: EVIDENCE, growth: null, notes: [],
  }],
});

/** Takes an order for a profile: from then on one is being taken. */
const sampling = (state, order) => {
  state.evidence = [{ id: "shop-api-0-2", kind: "heap_profile", daemon: order.daemon, namespace: "default", app: order.app.replace("default/", ""), pm_id: order.pm_id, taken_at: state.now, trigger: "person", state: "running",
    duration_seconds: 120, pause_seconds: null, size_bytes: null, sentence: "allocations are being sampled for 120 s", top: [], flame: null, growth: null, notes: [] }];
  return { id: "shop-api-0-2", sentence: "allocations of shop-api (default/0) are sampled for 120 s while it goes on; GET /api/v1/evidence tells how it stands" };
};

/** Starts the stand-in. `state` can be changed while it runs; `log` holds the orders that came in. */
export const start = async (changes = {}) => {
  const state = { now: 1_795_400_000, interval: 3600, apps: APPS, daemonDown: false, mode: "enforce", allowed: true, token: null, broken: false, evidence: [], ...changes };
  const log = { orders: [], requests: 0, unchanged: 0 };
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://127.0.0.1");
    const reply = (status, type, text, headers = {}) => {
      const body = /\bgzip\b/.test(request.headers["accept-encoding"] ?? "") ? gzipSync(text) : text;
      const tag = `"${createHash("sha1").update(body).digest("hex")}"`;
      const same = status === 200 && request.headers["if-none-match"] === tag;
      if (same) log.unchanged += 1;
      response.writeHead(same ? 304 : status, { "Content-Type": type, "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache", ETag: tag, ...(body === text ? {} : { "Content-Encoding": "gzip" }), ...headers });
      response.end(same ? undefined : body);
    };
    const json = (value, status = 200) => reply(status, "application/json", JSON.stringify(value));
    log.requests += 1;
    if (url.pathname === "/api/v1/processes") state.now += state.step ?? 0;
    const file = FILES.get(url.pathname);
    if (file) return reply(200, TYPES[file.split(".").at(-1)], readFileSync(`${ROOT}assets/${file}`));
    if (state.broken) return json({ error: { code: "not_ready", message: "the first collection is not complete" } }, 503);
    if (url.pathname === "/api/v1/processes") return json(processesOf(state));
    const part = /^\/api\/v1\/processes\/([^/]+)\/(\d+)\/(history|history\.csv)$/.exec(url.pathname);
    const key = part ? { daemon: decodeURIComponent(part[1]), pm_id: Number(part[2]) } : { daemon: url.searchParams.get("daemon"), pm_id: Number(url.searchParams.get("pm_id") ?? "NaN") };
    const one = state.apps.find((entry) => entry.daemon === key.daemon && (entry.pm_id === key.pm_id || `default/${entry.app}` === url.searchParams.get("app")));
    if (part && one) {
      const history = historyOf(one, state, url.searchParams);
      return part[3] === "history" ? json(history) : reply(200, "text/csv; charset=utf-8", csvOf(history));
    }
    if (url.pathname === "/api/v1/compare" && one) return json(compareOf(one, state));
    if (url.pathname === "/api/v1/deaths") return json(deathsOf(one, state));
    if (url.pathname === "/api/v1/evidence" && request.method === "GET" && one) return json(evidenceOf(one, state));
    if (url.pathname === "/api/v1/restarts/preview") return json(previewOf(state, url.searchParams));
    if (url.pathname === "/api/v1/restarts" && request.method === "GET") return json(restartsOf(state));
    if (/^\/api\/v1\/(restarts|evidence)/.test(url.pathname) && request.method === "POST") {
      let body = "";
      request.on("data", (chunk) => (body += chunk));
      request.on("end", () => {
        if (state.token && request.headers.authorization !== `Bearer ${state.token}`) return json({ error: { code: "unauthorised", message: "this token is not known" } }, 401);
        log.orders.push({ path: url.pathname, type: request.headers["content-type"], order: JSON.parse(body) });
        if (url.pathname === "/api/v1/evidence") return json(sampling(state, log.orders.at(-1).order), 202);
        return json({ requests: [42], sentence: "Request 42 was taken; it waits for its window." }, 202);
      });
      return undefined;
    }
    return json({ error: { code: "not_found", message: "there is nothing here" } }, 404);
  });
  await new Promise((resolve) => server.listen(Number(changes.port ?? 0), "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`, state, log,
    close: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }),
  };
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await start({ interval: 5, now: Math.floor(Date.now() / 1000), port: process.env.PORT, apps: process.env.HOSTILE ? HOSTILE : APPS });
  setInterval(() => { mock.state.now = Math.floor(Date.now() / 1000); }, 1000);
  console.log(mock.url);
}

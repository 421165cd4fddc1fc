// One process: what the verdict is and why, its memory over time, its versions before and after, its lives, its evidence.

import { Source, about } from "./api.js";
import { chart } from "./chart.js";
import { h, name, shape, show, write, mark, plain, Keyed } from "./dom.js";
import { flame } from "./flame.js";
import { amount, appName, bytes, change, held, instant, interval, moment, pace, place, sentence, span, words } from "./format.js";
import { picture, save } from "./picture.js";
import { badge, leftOf, limitName, limitOf, slopeOf, soFarOf, stateOf } from "./verdict.js";

const RANGES = [
  { id: "1h", label: "1 h", seconds: 3600 },
  { id: "6h", label: "6 h", seconds: 6 * 3600 },
  { id: "24h", label: "24 h", seconds: 86400 },
  { id: "3d", label: "3 d", seconds: 3 * 86400 },
  { id: "all", label: "All", seconds: null },
];

const fact = (label, key = false) => {
  const value = h("dd", { class: "figure", dir: "auto" });
  const extra = h("dd", { class: "small", dir: "auto" });
  const node = h("div", { class: key ? "fact key" : "fact" }, h("dt", { text: label }), value, extra);
  return { node, update: (text, more = "") => { write(value, text); write(extra, more); show(extra, more !== ""); } };
};

const table = (caption, heads, label) => {
  const body = h("tbody");
  const node = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label ?? caption }, h("table", { class: "plain" },
    h("caption", { class: "unseen", text: caption }),
    h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col", text: head })))), body));
  return { node, body };
};

/** Rows of text cells, the first one a heading; a cell may be text or a node. */
const rows = (body, list) => {
  const text = JSON.stringify(list);
  if (body.dataset.shown === text) return;
  body.dataset.shown = text;
  body.replaceChildren(...list.map((cells) => h("tr", {}, ...cells.map((cell, index) =>
    h(index === 0 ? "th" : "td", index === 0 ? { scope: "row" } : {}, h("bdi", { text: cell }))))));
};

const OUTCOMES = {
  fixed: { word: "Fixed", state: "stable" },
  no_leak: { word: "No leak", state: "stable" },
  not_fixed: { word: "Not fixed", state: "leaking" },
  too_early: { word: "Too early to say", state: "learning" },
};

const comparison = () => {
  const sign = h("span", { class: "badge" });
  const text = h("p", { class: "reason", dir: "auto" });
  const versions = table("Growth of each version", ["Version", "Seen", "For", "Lives", "Growth MiB/h", "Interval", "Largest"]);
  const node = h("section", { class: "card", "aria-labelledby": "versions-title" },
    h("h2", { id: "versions-title", text: "Before and after a deploy" }), h("div", { class: "verdict-line" }, sign, text), versions.node);
  const update = (view) => {
    show(node, Boolean(view) && view.versions.length > 0);
    if (node.hidden) return;
    const result = view.comparison;
    const outcome = OUTCOMES[result?.outcome];
    show(sign, Boolean(outcome));
    if (outcome && sign.dataset.outcome !== result.outcome) {
      sign.dataset.outcome = result.outcome;
      mark(sign, "data-state", outcome.state);
      sign.replaceChildren(shape(outcome.state), outcome.word);
    }
    write(text, sentence(result?.sentence ?? "Only one version has been seen so far"));
    rows(versions.body, view.versions.map((version) => [
      version.version, `${moment(version.from)} to ${moment(version.to)}`, span(version.hours * 3600), String(version.lives),
      pace(version.slope?.bytes_per_second), interval(version.slope), bytes(version.resident_max_bytes),
    ]));
  };
  return { node, update };
};

const CAUSES = { person: "asked for by a person", leak: "taken when it was found to leak", before_restart: "taken before a restart" };
const KINDS = { heap_profile: "Heap profile", heap_snapshot: "Heap snapshot" };

/** Lines of text below a heading; gone where there are none. */
const lines = (heading) => {
  const list = h("ul", { class: "lines" });
  const node = h("div", {}, h("h4", { text: heading }), list);
  const update = (texts) => {
    show(node, texts.length > 0);
    const text = JSON.stringify(texts);
    if (list.dataset.shown === text) return;
    list.dataset.shown = text;
    list.replaceChildren(...texts.map((line) => h("li", {}, h("bdi", { text: line }))));
  };
  return { node, update };
};

/** What grew over a series of snapshots: the classes, the places, and the ways that keep them alive. */
const growthOf = (item) => {
  const compared = h("p", { class: "small", dir: "auto" });
  const classes = table("What grew", ["Class", "Objects", "Own size", "Retained", "Added and alive"], `What grew, ${item.id}`);
  const places = lines("Where the growth piles up");
  const ways = lines("Why it is alive");
  const node = h("div", { class: "growth" }, classes.node, places.node, ways.node, compared);
  const update = (growth) => {
    show(node, Boolean(growth));
    if (!growth) return;
    write(compared, `${sentence(growth.compared)} ${growth.files.join(", ")}`);
    show(classes.node, growth.classes.length > 0);
    rows(classes.body, growth.classes.map((grown) => [grown.class, change(grown.count, amount), change(grown.shallow_bytes, bytes),
      change(grown.retained_bytes, bytes), grown.added ? `${amount(grown.added.count)}, ${bytes(grown.added.bytes)}` : "–"]));
    places.update(growth.places.map((at) => `${words(at.pattern)}: ${[`${at.sentence} (${bytes(at.bytes)})`, at.code, at.package, at.sizes.length > 0 ? `@${at.id} kept alive ${at.sizes.map(bytes).join(" → ")}` : null].filter(Boolean).join(", ")}`));
    ways.update([...new Set([...growth.places.map((at) => at.way), ...growth.ways])]);
  };
  return { node, update };
};

const evidenceItem = (item) => {
  const title = h("h3");
  const facts = h("p", { class: "small" });
  const text = h("p", { dir: "auto" });
  const top = table("What holds most memory", ["Name", "Where", "Memory"], `What holds most memory, ${item.id}`);
  const tree = h("div");
  const notes = lines("What it cannot tell");
  const growth = growthOf(item);
  const file = h("a", { class: "button", download: true, text: "File for DevTools" });
  const node = h("li", { class: "evidence" }, title, facts, text, top.node, growth.node, tree, notes.node, h("p", {}, file));
  let drawn = null;
  const update = (next) => {
    write(title, `${KINDS[next.kind] ?? words(next.kind)} of ${moment(next.taken_at)}`);
    mark(node, "data-evidence", next.id);
    mark(node, "data-state", next.state);
    write(facts, [words(next.state), CAUSES[next.trigger] ?? words(next.trigger), next.duration_seconds ? `sampled ${span(next.duration_seconds)}` : null,
      next.pause_seconds !== null ? `worst pause ${Math.round(next.pause_seconds * 1000)} ms` : null,
      next.size_bytes !== null ? bytes(next.size_bytes) : null].filter(Boolean).join(" · "));
    write(text, sentence(next.sentence));
    // A browser sends a password by itself; with a token the file is for a command line.
    show(file, next.sent && next.size_bytes !== null);
    mark(file, "href", `api/v1/evidence/${encodeURIComponent(next.id)}/file`);
    show(top.node, next.top.length > 0);
    rows(top.body, next.top.map((frame) => [frame.name, place(frame), bytes(frame.bytes)]));
    growth.update(next.growth);
    notes.update(next.notes);
    const shape = JSON.stringify(next.flame);
    if (shape === drawn) return;
    drawn = shape;
    tree.replaceChildren(...(next.flame ? [flame(next.flame)] : []));
  };
  return { node, update };
};

/** Makes the view of a process. `onOrder({ kind, … })` is called when a person wants something done about it. */
export const processView = (onOrder) => {
  const sources = { history: new Source(), compare: new Source(60_000), evidence: new Source(60_000), deaths: new Source(60_000) };
  let process = null;
  let target = null;
  let collectedAt = 0;
  let range = RANGES[2];
  let custom = null;
  /** The piece of evidence that the address names, until it was gone to. */
  let sought = null;

  const app = name("");
  const which = h("span", { class: "which" });
  const verdict = badge("learning");
  const since = h("span", { class: "small" });
  const reason = h("p", { class: "reason", dir: "auto" });
  const plan = h("p", { class: "plan", dir: "auto" });
  const cause = h("p", { class: "cause", dir: "auto" });
  const order = (kind) => onOrder({ kind, daemon: process.daemon, namespace: process.namespace, app: process.app, pm_id: process.pm_id });
  const restart = h("button", { type: "button", class: "quiet", text: "Restart …", onclick: () => order("restart") });
  const facts = {
    slope: fact("Growth", true), left: fact("Until the limit", true), resident: fact("Memory"), heap: fact("Heap used"), floor: fact("Floor"),
    limit: fact("Limit"), uptime: fact("Uptime"), restarts: fact("Restarts"), version: fact("Version"), loop: fact("Event loop"),
  };

  const plot = chart((from, to) => { custom = { from, to }; again(); });
  const ranges = h("fieldset", { class: "segments" }, h("legend", { class: "unseen", text: "Range" }));
  for (const option of RANGES) {
    const input = h("input", { type: "radio", name: "range", id: `range-${option.id}`, value: option.id,
      onchange: () => { range = option; custom = null; again(); } });
    input.checked = option === range;
    ranges.append(input, h("label", { for: input.id, text: option.label }));
  }
  const whole = h("button", { type: "button", class: "quiet", text: "Leave the zoom", onclick: () => { custom = null; again(); } });
  const forward = h("input", { type: "checkbox", id: "forward", onchange: () => draw() });
  forward.checked = true;
  const csv = h("a", { class: "button", download: true, text: "CSV" });
  const png = h("button", { type: "button", text: "PNG", onclick: async () => {
    const title = `${appName(process)} #${process.pm_id}`;
    save(await picture(plot, title, reason.textContent), `leakslope-${plain(process.app).replace(/[^\w.-]+/gu, "_").slice(0, 60)}-${process.pm_id}.png`);
  } });
  const empty = h("p", { class: "empty" });
  const numbers = table("The chart in figures", ["From", "Resident min", "Resident max", "Heap used", "Heap total", "Floor"]);
  const details = h("details", { class: "numbers", ontoggle: () => draw() }, h("summary", { text: "The chart in figures" }), numbers.node);
  const versions = comparison();
  const lives = table("Lives of this process", ["Started", "Ran for", "Ended", "Version", "Growth MiB/h", "Interval", "Largest"]);
  const livesCard = h("section", { class: "card", "aria-labelledby": "lives-title" }, h("h2", { id: "lives-title", text: "Lives" }), lives.node);
  const deaths = table("Why runs of this process ended", ["Ended", "Why", "How sure", "It wrote"]);
  const deathsCard = h("section", { class: "card", "aria-labelledby": "deaths-title" }, h("h2", { id: "deaths-title", text: "Deaths" }), deaths.node);
  const items = h("ul", { class: "evidences" });
  const evidence = new Keyed(items, (item) => item.id, evidenceItem);
  const profile = h("button", { type: "button", class: "quiet", text: "Take a profile …", onclick: () => order("profile") });
  const standing = h("p", { class: "small", dir: "auto" });
  const evidenceCard = h("section", { class: "card", "aria-labelledby": "evidence-title" },
    h("div", { class: "verdict-line" }, h("h2", { id: "evidence-title", text: "Evidence" }), h("span", { class: "spread" }), profile), standing, items);

  const title = h("h1", { id: "process-title" }, app, " ", which);
  const card = h("section", { class: "card", "aria-label": "Memory over time" },
    h("div", { class: "tools" }, ranges, whole, h("label", { class: "check", for: "forward" }, forward, "Up to the limit"),
      h("span", { class: "spread" }), csv, png), plot.node, empty, details);
  const content = h("div", { class: "stack" }, h("div", { class: "verdict-card" },
    h("div", { class: "verdict-line" }, verdict.node, since, h("span", { class: "spread" }), restart), reason, cause, plan,
    h("dl", { class: "facts-grid" }, ...Object.values(facts).map((entry) => entry.node))),
  card, versions.node, evidenceCard, deathsCard, livesCard);
  const gone = h("p", { class: "notice", text: "pm2 does not list this process any more." });
  const node = h("section", { class: "view", "aria-labelledby": "process-title" },
    h("a", { class: "back", href: "#/" }, shape("back"), "All processes"), title, gone, content);

  /** Goes to the piece of evidence that the address names, once it is there. */
  const seek = () => {
    const there = sought && [...items.children].find((item) => item.dataset.evidence === sought);
    if (!there) return;
    sought = null;
    there.scrollIntoView({ block: "center" });
  };
  const draw = () => {
    const history = sources.history.body;
    const has = Boolean(history?.time.length);
    show(plot.node, has);
    show(empty, !has);
    show(details, has);
    show(whole, custom !== null);
    write(empty, history || sources.history.missing ? "Nothing is remembered for this span yet." : "Loading …");
    if (!has) return;
    const last = history.time.at(-1) + history.step_seconds;
    const to = custom?.to ?? Math.max(last, collectedAt);
    const from = custom?.from ?? Math.max(history.time[0], range.seconds === null ? 0 : to - range.seconds);
    const causes = new Map((sources.deaths.body?.deaths ?? []).map((death) => [death.pid, death.cause]));
    const marks = history.marks.map((event) => ({ ...event, cause: causes.get(history.lives.findLast((life) => life.to < event.at)?.pid) }));
    plot.update({ ...history, marks }, from, to, forward.checked && custom === null && history.projection !== null);
    if (details.open) {
      const every = Math.max(1, Math.ceil(history.time.length / 48));
      const chosen = history.time.map((_, index) => index).filter((index) => index % every === 0);
      rows(numbers.body, chosen.map((index) => [moment(history.time[index]), bytes(history.resident.min[index]), bytes(history.resident.max[index]),
        bytes(history.heap_used.last[index]), bytes(history.heap_total.last[index]), bytes(history.floor.min[index])]));
    }
    show(livesCard, history.lives.length > 0);
    rows(lives.body, [...history.lives].reverse().map((life) => [moment(life.from), span(life.to - life.from), words(causes.get(life.pid) ?? life.end),
      life.version ?? life.revision ?? "–", pace(life.slope?.bytes_per_second), interval(life.slope), bytes(life.resident_max_bytes)]));
  };

  const drawProcess = () => {
    show(content, process !== null);
    show(gone, process === null);
    if (process === null) return;
    const state = stateOf(process);
    const now = process.verdict;
    const slope = slopeOf(process);
    write(app, appName(process));
    write(which, `#${process.pm_id} on ${plain(process.daemon)}`);
    verdict.update(state);
    write(since, now ? `since ${instant(now.since, collectedAt)}` : "");
    write(reason, sentence(now?.reason ?? "There is no verdict yet: too little has been seen of this life"));
    const grows = process.memory_cause && process.memory_cause.cause !== "none" ? process.memory_cause : null;
    show(cause, grows !== null);
    write(cause, grows ? `${sentence(grows.sentence)} ${grows.advice}` : "");
    show(plan, process.plan !== null);
    write(plan, process.plan ? `Restart policy: ${sentence(process.plan.sentence)}` : "");
    mark(node, "data-state", state);
    const soFar = slope ? null : soFarOf(process);
    facts.slope.update(slope ? `${pace(slope.bytes_per_second)} MiB/h` : soFar ? `~ ${pace(soFar.slope.bytes_per_second)} MiB/h` : "–",
      soFar ? `so far, ${interval(soFar.slope)}, ${words(soFar.signal)} over ${span(soFar.window_seconds)}; too early to call it a leak` : slope ? `${interval(slope)}, ${words(now.signal)} over ${span(now.window_seconds)}` : "");
    const left = leftOf(process);
    facts.left.update(left === 0 ? "over it" : span(left), left === null || left === 0 ? "" : moment(collectedAt + left));
    facts.resident.update(bytes(held(process)),
      held(process) > process.resident_memory_bytes ? `${bytes(process.resident_memory_bytes)} of it its own, the rest its children’s` : "");
    facts.heap.update(bytes(process.heap_used_bytes), process.heap_total_bytes === null ? "" : `of ${bytes(process.heap_total_bytes)} committed`);
    facts.floor.update(bytes(now?.floor_bytes), now ? `by ${words(now.basis)}` : "");
    const ceiling = limitOf(process);
    facts.limit.update(bytes(ceiling?.bytes), ceiling ? limitName(ceiling.kind) : "");
    facts.uptime.update(span(process.pid === null ? null : process.uptime_seconds), process.started_at ? `since ${moment(process.started_at)}` : "");
    facts.restarts.update(process.restarts === null ? "–" : String(process.restarts),
      process.unstable_restarts ? `${process.unstable_restarts} too soon after the start` : "");
    facts.version.update(process.version ?? process.revision?.slice(0, 12) ?? "–", process.node_version ? `Node ${process.node_version}, ${process.exec_mode}` : process.exec_mode);
    const p95 = process.event_loop_latency_p95_seconds;
    facts.loop.update(p95 === null ? "–" : `${(p95 * 1000).toFixed(1)} ms`, process.metrics_frozen
      ? `blocked for ${span(process.metrics_age_seconds)}` : p95 === null ? "" : "95th percentile of latency");
  };

  const addresses = () => {
    const span = range.seconds === null ? "from=0" : `span=${range.seconds}`;
    const query = custom ? `from=${custom.from.toFixed(0)}&to=${custom.to.toFixed(0)}` : span;
    const app = `daemon=${encodeURIComponent(target.daemon)}&app=${encodeURIComponent(process ? `${process.namespace}/${process.app}` : "")}`;
    return {
      query,
      history: about(target, `history?${query}`),
      compare: `api/v1/compare?${app}`,
      evidence: `api/v1/evidence?daemon=${encodeURIComponent(target.daemon)}&pm_id=${target.pm_id}`,
      deaths: `api/v1/deaths?daemon=${encodeURIComponent(target.daemon)}&pm_id=${target.pm_id}&limit=20`,
    };
  };

  /** Asks for everything that this view shows; draws what has changed. */
  const read = async (signal) => {
    const to = addresses();
    mark(csv, "href", about(target, `history.csv?${to.query}`));
    if (process === null) return;
    const [history, compare, list, ends] = await Promise.all(Object.keys(sources).map((part) => sources[part].read(to[part], signal)));
    if (history || ends) draw();
    if (ends) {
      const told = sources.deaths.body?.deaths ?? [];
      show(deathsCard, told.length > 0);
      rows(deaths.body, told.map((death) => [moment(death.at), death.sentence, words(death.certainty), death.message ?? ""]));
    }
    if (compare) versions.update(sources.compare.body);
    if (list) {
      const body = sources.evidence.body;
      const found = body?.evidence ?? [];
      show(evidenceCard, body !== null);
      show(profile, process.pid !== null);
      profile.disabled = !body?.acting.allowed;
      mark(profile, "title", body?.acting.allowed ? null : sentence(body?.acting.sentence ?? ""));
      show(standing, Boolean(body?.standing));
      write(standing, sentence(body?.standing ?? ""));
      evidence.update(found.map((item) => ({ ...item, sent: body.acting.authentication === "basic" })));
      seek();
    }
  };
  let again = () => {};
  show(versions.node, false);
  show(evidenceCard, false);
  show(livesCard, false);
  show(deathsCard, false);

  /** Turns to another process. */
  const open = (next) => {
    sought = next.evidence || null;
    if (target && target.daemon === next.daemon && target.pm_id === next.pm_id) return;
    target = next;
    process = null;
    custom = null;
    for (const part in sources) sources[part].reset(null);
    write(app, "");
    write(which, `#${next.pm_id} on ${plain(next.daemon)}`);
    evidence.update([]);
    for (const part of [versions.node, evidenceCard, deathsCard, livesCard]) show(part, false);
    draw();
  };
  const update = (view) => {
    collectedAt = view.collected_at;
    process = view.processes.find((entry) => entry.daemon === target.daemon && entry.pm_id === target.pm_id) ?? null;
    drawProcess();
  };
  return { node, open, update, read, onChange: (ask) => { again = ask; }, heading: () => (process ? `${plain(appName(process))} #${process.pm_id}` : null) };
};

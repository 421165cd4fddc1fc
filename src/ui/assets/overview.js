// The overview: one sentence, the counts, and a row for each process, the most urgent first.

import { h, svg, name, show, write, mark, plain, Keyed } from "./dom.js";
import { appName, bytes, count, held, instant, interval, pace, percent, sentence, span, words } from "./format.js";
import { STATES, badge, headline, leftOf, limitName, limitOf, slopeOf, soFarOf, stateOf, urgency } from "./verdict.js";

const low = Number.NEGATIVE_INFINITY;

/** The columns: heading, what sorts it (bigger first), and how a cell is made. */
const COLUMNS = [
  { id: "verdict", head: "Verdict", by: urgency },
  { id: "process", head: "Process", text: appName },
  { id: "trend", head: "Trend" },
  { id: "slope", head: "Growth", unit: "MiB/h", by: (process) => slopeOf(process)?.bytes_per_second ?? low, number: true },
  { id: "left", head: "Until limit", by: (process) => -(leftOf(process) ?? Number.MAX_VALUE), number: true },
  { id: "resident", head: "Memory", by: (process) => held(process) ?? low, number: true },
  { id: "heap", head: "Heap used", by: (process) => process.heap_used_bytes ?? low, number: true },
  { id: "uptime", head: "Uptime", by: (process) => process.uptime_seconds ?? low, number: true },
  { id: "restarts", head: "Restarts", by: (process) => process.restarts ?? low, number: true },
  { id: "plan", head: "Policy" },
];

const WIDTH = 120;
const HEIGHT = 28;

/** The path of a sparkline, from the smallest value at the bottom; a flat series lies flat. */
export const sparkPath = (values) => {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return "";
  const top = Math.max(...known);
  const range = Math.max(top - Math.min(...known), top * 0.1, 1);
  const step = WIDTH / (values.length - 1);
  let path = "";
  let pen = "M";
  values.forEach((value, index) => {
    if (value === null) {
      pen = "M";
      return;
    }
    const y = 2 + (HEIGHT - 4) * ((top - value) / range);
    path += `${pen}${(index * step).toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  });
  return path;
};

const key = (process) => `${process.daemon}\u0000${process.pm_id}`;
export const linkTo = (process) => `#/process/${encodeURIComponent(process.daemon)}/${process.pm_id}`;

const cell = (column, ...children) => {
  const role = column.id === "process" ? "rowheader" : "cell";
  const tag = column.id === "process" ? "th" : "td";
  const attributes = { class: `c-${column.id}${column.number ? " number" : ""}`, role, "data-head": column.head };
  if (tag === "th") attributes.scope = "row";
  return h(tag, attributes, ...children);
};

const row = () => {
  const verdict = badge("learning");
  const app = name("");
  const link = h("a", { class: "process-link" }, app);
  const facts = h("span", { class: "facts" });
  const line = svg("path", { class: "spark-line", fill: "none" });
  const spark = svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, line);
  const slope = h("span", { class: "figure" });
  const slopeInterval = h("span", { class: "small" });
  const left = h("span", { class: "figure" });
  const limit = h("span", { class: "small" });
  const resident = h("span");
  const own = h("span", { class: "small" });
  const meter = h("meter", { min: 0, max: 1, low: 0.7, high: 0.9, optimum: 0 });
  const heap = h("span");
  const uptime = h("span");
  const restarts = h("span");
  const plan = h("span", { dir: "auto" });
  const parts = {
    verdict: [verdict.node],
    process: [link, facts],
    trend: [spark],
    slope: [slope, slopeInterval],
    left: [left, limit],
    resident: [resident, own, meter],
    heap: [heap],
    uptime: [uptime],
    restarts: [restarts],
    plan: [plan],
  };
  const node = h("tr", { role: "row" }, ...COLUMNS.map((column) => cell(column, ...parts[column.id])));
  const update = (process) => {
    const state = stateOf(process);
    const fitted = slopeOf(process);
    mark(node, "data-state", state);
    verdict.update(state);
    write(app, appName(process));
    mark(link, "href", linkTo(process));
    mark(link, "title", plain(appName(process)));
    write(facts, [`#${process.pm_id}`, process.version, process.status === "online" ? null : words(process.status),
      process.module ? "module of pm2" : null, process.metrics_frozen ? "event loop blocked" : null].filter(Boolean).join(" · "));
    mark(line, "d", sparkPath(process.sparkline?.resident_min_bytes ?? []));
    mark(spark, "aria-label", process.sparkline
      ? `Resident memory over ${span(process.sparkline.step_seconds * process.sparkline.resident_min_bytes.length)}`
      : "No history yet");
    const soFar = fitted ? null : soFarOf(process)?.slope ?? null;
    write(slope, soFar ? `~ ${pace(soFar.bytes_per_second)}` : pace(fitted?.bytes_per_second));
    write(slopeInterval, fitted ? interval(fitted) : soFar ? `so far, ${interval(soFar)}` : "");
    const ceiling = limitOf(process);
    const room = leftOf(process);
    write(left, room === 0 ? "over it" : span(room));
    write(limit, ceiling ? `${bytes(ceiling.bytes)} · ${limitName(ceiling.kind, true)}` : "");
    write(resident, bytes(held(process)));
    write(own, held(process) > process.resident_memory_bytes ? `${bytes(process.resident_memory_bytes)} its own` : "");
    const share = ceiling?.share ?? null;
    show(meter, share !== null);
    if (share !== null) {
      meter.value = Math.min(1, share);
      mark(meter, "aria-label", `${percent(share, 1)} of the limit`);
      mark(meter, "title", `${bytes(ceiling.used)}, ${percent(share, 1)} of ${limitName(ceiling.kind)}`);
    }
    write(heap, bytes(process.heap_used_bytes));
    write(uptime, span(process.pid === null ? null : process.uptime_seconds));
    write(restarts, process.restarts === null ? "–" : String(process.restarts));
    write(plan, sentence(process.plan?.sentence));
    mark(plan, "title", process.plan ? plain(process.plan.sentence) : null);
    mark(node, "data-plan", process.plan?.decision ?? null);
  };
  return { node, update };
};

/** One app: a heading row when it has several processes, and their rows. */
const group = () => {
  const app = name("");
  const total = h("span", { class: "small" });
  const title = h("th", { scope: "rowgroup", role: "rowheader", colspan: COLUMNS.length }, app, total);
  const head = h("tr", { class: "group-head", role: "row" }, title);
  const node = h("tbody", { role: "rowgroup" }, head);
  const rows = new Keyed(node, key, row);
  const update = ({ app: text, processes }) => {
    write(app, text);
    const all = processes.reduce((sum, process) => sum + (held(process) ?? 0), 0);
    write(total, ` ${processes.length} processes, ${bytes(all)}`);
    show(head, processes.length > 1);
    rows.update(processes);
  };
  return { node, update };
};

/** Sorts processes and gathers them by app, each app where its first process stands. */
export const arrange = (processes, column, ascending) => {
  const compare = (left, right) => {
    const order = column.text
      ? column.text(left).localeCompare(column.text(right))
      : column.by(right) - column.by(left) || 0;
    return (ascending ? -order : order) || key(left).localeCompare(key(right), undefined, { numeric: true });
  };
  const groups = new Map();
  for (const process of [...processes].sort(compare)) {
    const id = `${process.daemon}\u0000${process.namespace}\u0000${process.app}`;
    if (!groups.has(id)) groups.set(id, { id, app: appName(process), processes: [] });
    groups.get(id).processes.push(process);
  }
  return [...groups.values()];
};

const matches = (process, needle, state) =>
  (!state || stateOf(process) === state) &&
  (!needle || [process.app, process.daemon, process.version ?? "", process.namespace ?? "", `#${process.pm_id}`]
    .some((text) => text.toLowerCase().includes(needle)));

/** What is thought of the daemon itself, where there is something to say. */
const own = ({ verdict }) => {
  if (!["growing", "suspect", "leaking"].includes(verdict?.state)) return "";
  const slope = verdict.slopes[verdict.signal];
  return `, ${STATES[verdict.state].word.toLowerCase()}${slope ? ` by ${pace(slope.bytes_per_second)} MiB/h` : ""}`;
};

const hostView = () => {
  const meter = h("meter", { min: 0, max: 1, low: 0.8, high: 0.92, optimum: 0, "aria-label": "Host memory in use" });
  const text = h("span");
  const daemons = h("ul", { class: "daemons", "aria-label": "Daemons" });
  const list = new Keyed(daemons, (daemon) => daemon.name, () => {
    const title = name("");
    const facts = h("span", { class: "small", dir: "auto" });
    const node = h("li", {}, h("span", { class: "dot", "aria-hidden": "true" }), title, facts);
    return {
      node,
      update: (daemon) => {
        mark(node, "data-state", daemon.up ? "up" : "down");
        write(title, daemon.name);
        const seen = daemon.last_success_at ? `, last seen ${instant(daemon.last_success_at)}` : "";
        const left = daemon.processes_left_out > 0 ? `, ${daemon.processes_left_out} left out` : "";
        const behind = (daemon.orphans ?? []).map((left) =>
          `, ${plain(appName(left))} left ${count(left.processes, "process", "processes")} behind: ${bytes(left.resident_memory_bytes)}`).join("");
        write(facts, daemon.up
          ? `up${daemon.version ? `, pm2 ${daemon.version}` : ""}, ${bytes(daemon.resident_memory_bytes)}${own(daemon)}${left}${behind}`
          : `down: ${daemon.failure ?? "no answer"}${seen}`);
      },
    };
  });
  const node = h("div", { class: "machine" },
    h("div", { class: "host" }, h("span", { class: "label", text: "Host" }), meter, text),
    h("div", { class: "host" }, h("span", { class: "label", text: "pm2" }), daemons));
  const update = (view) => {
    const { memory_total_bytes: all, memory_available_bytes: free } = view.host;
    meter.value = all > 0 ? 1 - free / all : 0;
    write(text, `${bytes(free)} of ${bytes(all)} available`);
    list.update(view.daemons);
  };
  return { node, update };
};

/** Makes the overview. `onSearch(text)` is told what is looked for. */
export const overview = (onSearch) => {
  let view = null;
  let needle = "";
  let only = null;
  let sorted = COLUMNS[0];
  let ascending = false;

  const title = h("h1", { class: "headline", dir: "auto", id: "overview-title" });
  const tiles = h("div", { class: "tiles", role: "group", "aria-label": "Show only" });
  const buttons = Object.keys(STATES).map((state) => {
    const sign = badge(state);
    const number = h("strong");
    const node = h("button", { type: "button", class: "tile", "aria-pressed": "false", "data-state": state,
      onclick: () => { only = only === state ? null : state; draw(); } }, number, sign.node);
    tiles.append(node);
    return { state, node, number };
  });
  const machine = hostView();
  const search = h("input", { type: "search", id: "filter", placeholder: "Filter by app, version, daemon …", autocomplete: "off",
    spellcheck: "false", dir: "auto", maxlength: 200, oninput: () => { needle = search.value.trim().toLowerCase(); onSearch(search.value); draw(); } });
  const order = h("select", { id: "order", onchange: () => { sorted = COLUMNS.find((column) => column.id === order.value); ascending = false; draw(); } },
    ...COLUMNS.filter((column) => column.by || column.text).map((column) =>
      h("option", { value: column.id, text: column.id === "verdict" ? "Urgency" : column.head })));
  const shown = h("span", { class: "small", id: "shown" });
  const heads = COLUMNS.map((column) => {
    const label = column.unit ? [column.head, h("span", { class: "unit", text: ` ${column.unit}` })] : [column.head];
    const sortable = column.by || column.text;
    const content = sortable
      ? h("button", { type: "button", class: "sort", onclick: () => { ascending = sorted === column ? !ascending : false; sorted = column; draw(); } },
        ...label, h("span", { class: "arrow", "aria-hidden": "true" }))
      : h("span", {}, ...label);
    const node = h("th", { scope: "col", role: "columnheader", class: `c-${column.id}${column.number ? " number" : ""}` }, content);
    return { column, node };
  });
  const table = h("table", { class: "processes", role: "table", "aria-labelledby": "overview-title" },
    h("caption", { class: "unseen", text: "Processes by app, the most urgent first" }),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads.map((head) => head.node))));
  const groups = new Keyed(table, (item) => item.id, group);
  const nothing = h("p", { class: "empty", text: "No process matches." });

  const draw = () => {
    if (!view) return;
    const chosen = view.processes.filter((process) => matches(process, needle, only));
    for (const { column, node } of heads) {
      const direction = (column.text ? !ascending : ascending) ? "ascending" : "descending";
      mark(node, "aria-sort", column === sorted ? direction : null);
    }
    order.value = sorted.id;
    groups.update(arrange(chosen, sorted, ascending));
    for (const { state, node, number } of buttons) {
      const amount = view.processes.filter((process) => stateOf(process) === state).length;
      write(number, String(amount));
      mark(node, "aria-pressed", String(only === state));
      show(node, amount > 0 || only === state || ["leaking", "suspect", "stable"].includes(state));
    }
    mark(table, "data-plans", view.processes.some((process) => process.plan !== null) ? "some" : null);
    write(shown, chosen.length === view.processes.length ? "" : `${chosen.length} of ${count(view.processes.length, "process", "processes")}`);
    show(table, chosen.length > 0);
    show(nothing, chosen.length === 0 && view.processes.length > 0);
  };

  let spoken = "";
  const update = (next) => {
    view = next;
    const { state, parts } = headline(view);
    const text = parts.map((part) => (typeof part === "string" ? part : part.textContent)).join("");
    if (text !== spoken) title.replaceChildren(...parts);
    spoken = text;
    mark(title, "data-state", state);
    machine.update(view);
    draw();
  };

  const node = h("section", { class: "view", "aria-labelledby": "overview-title" },
    title,
    h("div", { class: "band" }, tiles, h("div", { class: "tools", role: "search" }, shown,
      h("label", { class: "unseen", for: "filter", text: "Filter" }), search, h("label", { class: "order", for: "order" }, "Sort by ", order))),
    machine.node, table, nothing);
  const find = (text) => { search.value = text; needle = text.trim().toLowerCase(); draw(); };
  return { node, update, find, focusSearch: () => search.focus() };
};

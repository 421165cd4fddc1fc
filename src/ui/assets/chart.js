// The chart of one process: its series, the line the verdict rests on, the way to the limit, and what happened when.
// One uPlot instance for the whole life of the page; new data go into it.

import { h, show, write, mark } from "./dom.js";
import { bytes, instant, moment, words } from "./format.js";

const MIB = 1048576;

/** The series a person can switch: where its values are, its colour (a custom property), its line. */
export const SERIES = [
  { id: "resident", label: "Resident", colour: "--series-resident", width: 2, on: true },
  { id: "heap_total", label: "Heap total", colour: "--series-heap-total", width: 1.5, dash: [2, 3], on: false },
  { id: "heap_used", label: "Heap used", colour: "--series-heap-used", width: 1.5, on: true },
  { id: "floor", label: "Floor", colour: "--series-floor", width: 2, on: true, column: "min" },
];

/** What holds the memory, from the bottom of the stack up. */
const KINDS = [
  ["files", "Files"], ["code_and_stacks", "Code and stacks"], ["js_heap", "JS heap"], ["malloc", "malloc"],
  ["own_allocator", "Add-on's allocator"], ["wasm", "WebAssembly"], ["shared_memory", "Shared memory"], ["children", "Children"],
];

const TIMES = [
  [86400 * 360, "{YYYY}", null, null, null, null, null, null, 1],
  [86400 * 28, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
];

const colour = (property) => getComputedStyle(document.documentElement).getPropertyValue(property).trim();

/** The value of a line of the fit at an instant, by its slope. */
const lineAt = (fit, slope, at) => fit.pivot_bytes + slope * (at - fit.pivot_at);

/** How far to the right the chart goes: to the limit, but not so far that the past becomes a sliver. */
export const horizon = (history, from, to) => {
  if (!history.projection) return to;
  return Math.max(to, Math.min(history.projection.at + (history.projection.at - from) * 0.04, to + (to - from) * 1.5));
};

/** Draws what holds the memory of the run as layers below the series, each with its name and its newest figure. */
const layers = (state) => (plot) => {
  const memory = state.history?.memory;
  if (!state.kinds || !memory || memory.time.length < 2) return;
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  const x = memory.time.map((at) => plot.valToPos(at, "x", true));
  let below = memory.time.map(() => 0);
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  ctx.textAlign = "right";
  for (const [kind, label] of KINDS) {
    const figures = memory.kinds[kind] ?? [];
    if (!figures.some((figure) => figure > 0)) continue;
    const above = below.map((base, index) => base + figures[index]);
    const y = (values) => values.map((value) => plot.valToPos(value, "y", true));
    const [top, bottom] = [y(above), y(below)];
    ctx.beginPath();
    x.forEach((left, index) => ctx[index === 0 ? "moveTo" : "lineTo"](left, top[index]));
    for (let index = x.length - 1; index >= 0; index -= 1) ctx.lineTo(x[index], bottom[index]);
    ctx.closePath();
    ctx.fillStyle = colour(`--kind-${kind.replaceAll("_", "-")}`);
    ctx.fill();
    const last = x.length - 1;
    if (bottom[last] - top[last] > 14 * ratio) {
      ctx.fillStyle = colour("--text");
      ctx.fillText(`${label} ${bytes(figures[last])}`, Math.min(x[last], bbox.left + bbox.width) - 6 * ratio, (top[last] + bottom[last]) / 2 + 4 * ratio);
    }
    below = above;
  }
  ctx.restore();
};

/** Draws what lies over the series. Everything comes from one history, so nothing is kept between draws. */
const overlay = (state) => (plot) => {
  const { history } = state;
  if (!history) return;
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  const x = (at) => plot.valToPos(at, "x", true);
  const y = (value) => plot.valToPos(value, "y", true);
  const right = bbox.left + bbox.width;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;

  const line = (points, stroke, width, dash) => {
    ctx.beginPath();
    points.forEach(([at, value], index) => ctx[index === 0 ? "moveTo" : "lineTo"](x(at), y(value)));
    ctx.strokeStyle = stroke;
    ctx.lineWidth = width * ratio;
    ctx.setLineDash(dash.map((part) => part * ratio));
    ctx.stroke();
  };
  const area = (points, fill) => {
    ctx.beginPath();
    points.forEach(([at, value], index) => ctx[index === 0 ? "moveTo" : "lineTo"](x(at), y(value)));
    ctx.closePath();
    ctx.fillStyle = fill;
    ctx.fill();
  };
  // Text with the background behind it, so that it reads over any line.
  const label = (text, left, top, fill, align = "left") => {
    ctx.textAlign = align;
    ctx.textBaseline = "alphabetic";
    ctx.setLineDash([]);
    ctx.lineWidth = 4 * ratio;
    ctx.lineJoin = "round";
    ctx.strokeStyle = colour("--surface");
    ctx.strokeText(text, left, top);
    ctx.fillStyle = fill;
    ctx.fillText(text, left, top);
  };

  const { fit, projection, limit_bytes: limit } = history;
  const trend = colour("--chart-trend");
  if (fit) {
    const at = (slope) => [[fit.from, lineAt(fit, slope, fit.from)], [fit.to, lineAt(fit, slope, fit.to)]];
    const [low, high] = [at(fit.low_bytes_per_second), at(fit.high_bytes_per_second)];
    const pivot = [fit.pivot_at, fit.pivot_bytes];
    area([low[0], pivot, high[0]], colour("--chart-band"));
    area([low[1], pivot, high[1]], colour("--chart-band"));
    line(at(fit.bytes_per_second), trend, 2, []);
  }
  if (projection && state.forward) {
    const start = [projection.from, projection.from_bytes];
    const end = projection.limit_bytes;
    const far = projection.latest_at ?? projection.at + (projection.at - projection.from) * 50;
    area([start, [projection.earliest_at, end], [far, end]], colour("--chart-band"));
    line([start, [projection.at, end]], trend, 2, [6, 5]);
    if (x(projection.at) > right) {
      label(`${bytes(end)} at ${moment(projection.at)} →`, right - 8 * ratio, y(end) + 18 * ratio, trend, "right");
    } else {
      ctx.beginPath();
      ctx.arc(x(projection.at), y(end), 4 * ratio, 0, 2 * Math.PI);
      ctx.fillStyle = trend;
      ctx.fill();
      label(instant(projection.at), x(projection.at) - 8 * ratio, y(end) + 18 * ratio, trend, "right");
    }
  }
  if (limit) {
    const fill = colour("--chart-limit");
    line([[plot.scales.x.min, limit], [plot.scales.x.max, limit]], fill, 1.5, [2, 3]);
    label(`Limit ${bytes(limit)}`, bbox.left + 8 * ratio, y(limit) - 6 * ratio, fill);
  }
  let free = bbox.left;
  for (const event of history.marks) {
    const left = x(event.at);
    const deploy = event.kind === "deploy";
    const fill = colour(deploy ? "--chart-deploy" : "--chart-restart");
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.strokeStyle = fill;
    ctx.lineWidth = ratio;
    ctx.setLineDash(deploy ? [] : [3 * ratio, 3 * ratio]);
    ctx.stroke();
    const text = deploy ? String(event.version ?? "new version").slice(0, 16) : words(event.cause ?? "restart");
    const width = ctx.measureText(text).width;
    const from = left + width + 8 * ratio > right ? left - width - 8 * ratio : left + 5 * ratio;
    // Only where there is room: a crowd of restarts would cover itself.
    if (left >= bbox.left && left <= right && from >= free) {
      label(text, from, bbox.top + bbox.height - 8 * ratio, fill);
      free = from + width + 6 * ratio;
    }
  }
  ctx.restore();
};

/** The columns uPlot draws: time, then for each series its line; resident memory has its extremes as well. */
const columns = (history) => [
  history.time,
  ...SERIES.map(({ id, column }) => history[id][column ?? "last"]),
  history.resident.max,
  history.resident.min,
];

/** Makes the chart. `onSpan(from, to)` is told which part a person has pulled out with the pointer. */
export const chart = (onSpan) => {
  const state = { history: null, forward: true, kinds: false, from: 0, to: 1 };
  const on = new Map(SERIES.map((series) => [series.id, series.on]));
  const readout = h("p", { class: "readout", "aria-live": "off" });
  const legend = h("div", { class: "legend", role: "group", "aria-label": "Series" });
  const values = new Map();
  const frame = h("div", { class: "chart-frame", tabindex: 0, role: "img", "aria-describedby": "chart-help" });
  const help = h("p", { class: "unseen", id: "chart-help", text: "Left and right arrow keys read the values; Escape ends." });
  const spoken = h("p", { class: "unseen", role: "status" });
  const node = h("div", { class: "chart" }, legend, frame, readout, help, spoken);

  const extent = (plot, low, high) => {
    const limit = state.history?.limit_bytes ?? 0;
    const reaches = state.forward && state.history?.projection ? limit : 0;
    const top = Math.max(high ?? 0, limit <= (high ?? 0) * 1.6 ? limit : 0, reaches);
    const bottom = !state.kinds && (low ?? 0) > top * 0.6 ? Math.floor(low * 0.97) : 0;
    return [bottom, Math.max(top + (top - bottom) * 0.08, bottom + MIB)];
  };
  const axis = (side) => ({
    stroke: () => colour("--muted"),
    grid: { stroke: () => colour("--grid"), width: 1 },
    ticks: { show: false },
    font: "12px system-ui, sans-serif",
    ...side,
  });
  const line = ({ id, label, colour: property, width, dash }) => ({
    label, width, dash, show: on.get(id), stroke: () => colour(property), points: { show: false }, spanGaps: id === "floor",
  });
  const hidden = { show: on.get("resident"), stroke: "transparent", width: 0, points: { show: false } };
  const plot = new window.uPlot({
    width: 800,
    height: 380,
    padding: [14, 14, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: true, y: false, setScale: false } },
    scales: { x: { time: true, range: () => [state.from, state.to] }, y: { range: extent } },
    axes: [
      axis({ values: TIMES, space: 80, gap: 8 }),
      axis({
        size: 72, space: 44, gap: 8, incrs: Array.from({ length: 26 }, (_, power) => MIB / 16 * 2 ** power),
        values: (_, splits) => splits.map((value) => bytes(value)),
      }),
    ],
    series: [{}, ...SERIES.map(line), { ...hidden }, { ...hidden }],
    bands: [{ series: [SERIES.length + 1, SERIES.length + 2], fill: () => colour("--series-resident-band") }],
    hooks: {
      drawAxes: [layers(state)],
      draw: [overlay(state)],
      setCursor: [() => read()],
      setSelect: [(self) => {
        if (self.select.width < 8) return;
        const at = (left) => self.posToVal(left, "x");
        const [from, to] = [at(self.select.left), at(self.select.left + self.select.width)];
        self.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        onSpan(from, to);
      }],
    },
  }, [[], ...SERIES.map(() => []), [], []], frame);

  /** Writes the values under the cursor, else the latest ones. */
  const read = () => {
    if (!state.history) return;
    const index = plot.cursor.idx ?? state.history.time.length - 1;
    const at = state.history.time[index];
    write(readout, at === undefined ? "" : moment(at));
    SERIES.forEach(({ id }, place) => write(values.get(id), bytes(plot.data[place + 1][index])));
  };

  SERIES.forEach(({ id, label, colour: property }, place) => {
    const value = h("span", { class: "figure" });
    values.set(id, value);
    const box = h("input", { type: "checkbox", id: `series-${id}`, onchange: () => {
      on.set(id, box.checked);
      plot.setSeries(place + 1, { show: box.checked });
      if (id === "resident") [1, 2].forEach((extra) => plot.setSeries(SERIES.length + extra, { show: box.checked }));
    } });
    box.checked = on.get(id);
    legend.append(h("label", { class: "series", for: `series-${id}`, "data-series": property.slice(2) },
      box, h("span", { class: "swatch", "aria-hidden": "true" }), h("span", { text: label }), value));
  });

  const stacked = h("input", { type: "checkbox", id: "series-kinds", onchange: () => {
    state.kinds = stacked.checked;
    plot.setData(plot.data);
  } });
  const byKind = h("label", { class: "series", for: "series-kinds" }, stacked, h("span", { text: "By kind" }));
  legend.append(byKind);

  const step = (by) => {
    const last = state.history.time.length - 1;
    const index = Math.min(last, Math.max(0, (plot.cursor.idx ?? last) + by));
    plot.setCursor({ left: plot.valToPos(state.history.time[index], "x"), top: 10 });
    const parts = SERIES.filter(({ id }) => on.get(id)).map(({ id, label }) => `${label} ${values.get(id).textContent}`);
    write(spoken, `${moment(state.history.time[index])}: ${parts.join(", ")}`);
  };
  frame.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9 }[event.key];
    if (event.key === "Escape") plot.setCursor({ left: -10, top: -10 });
    if (by === undefined || !state.history?.time.length) return;
    event.preventDefault();
    step(by);
  });
  new ResizeObserver(() => {
    const width = Math.floor(frame.clientWidth);
    if (width > 0 && width !== plot.width) plot.setSize({ width, height: width < 560 ? 280 : 380 });
  }).observe(frame);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", () => plot.redraw(false, true));
  }

  /** Shows a history between two instants, with the way to the limit where `forward` says so. */
  const update = (history, from, to, forward) => {
    Object.assign(state, { history, forward, from, to: forward ? horizon(history, from, to) : to });
    plot.setData(columns(history));
    show(byKind, history.memory.time.length > 1);
    const restarts = history.marks.map((event) => `${words(event.kind)} at ${moment(event.at)}${event.cause ? `, ${words(event.cause)}` : ""}`).join(", ");
    mark(frame, "aria-label", `Memory from ${moment(from)} to ${moment(to)}${restarts ? `; ${restarts}` : ""}`);
    read();
  };
  const shown = () => SERIES.filter(({ id }) => on.get(id));
  return { node, update, canvas: plot.ctx.canvas, shown, colour };
};

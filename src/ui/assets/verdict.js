// What a verdict means on the page: its word, its shape, how urgent it is, and the sentence that sums everything up.

import { h, name, shape, write, mark } from "./dom.js";
import { appName, bytes, count, held, rate, span } from "./format.js";

/** The states in the order a person cares about them: the word, and how urgent. */
export const STATES = {
  leaking: { word: "Leaking", rank: 6 },
  suspect: { word: "Suspect", rank: 5 },
  failed: { word: "Errored", rank: 4 },
  growing: { word: "Growing", rank: 3 },
  learning: { word: "Learning", rank: 2 },
  stable: { word: "Stable", rank: 1 },
  off: { word: "Not running", rank: 0 },
};

/** The state a process is shown in. One that does not run has no verdict to act on. */
export const stateOf = (process) => {
  if (process.status === "errored") return "failed";
  if (process.pid === null) return "off";
  return STATES[process.verdict?.state] ? process.verdict.state : "learning";
};

/** The slope that the verdict rests on. */
export const slopeOf = (process) => process.verdict?.slopes[process.verdict.signal] ?? null;

/** Growth so far of a run that is too young for a verdict. */
export const soFarOf = (process) => process.verdict?.provisional ?? null;

/**
 * Seconds until the limit. Where nothing speaks of a leak and the slope may as well be zero, there is no telling: the
 * best estimate alone would put a date on noise.
 */
export const leftOf = (process) => {
  const worrying = ["growing", "suspect", "leaking"].includes(stateOf(process));
  if (!worrying && (slopeOf(process)?.low ?? 0) <= 0) return null;
  return process.verdict?.projected_exhaustion_seconds ?? null;
};

/** Orders by urgency: state, then time left, then memory. Bigger is more urgent. */
export const urgency = (process) => {
  const left = leftOf(process);
  const soon = left === null ? 0 : 1 / (1 + left / 3600);
  return STATES[stateOf(process)].rank * 10 + soon + (held(process) ?? 0) / 2 ** 60;
};

/**
 * The limit to show, with the memory that its enforcer holds against it: the verdict's own, and before there is one the
 * nearest that is known. pm2 looks at the process alone, V8 at its heap, everyone else at the process with its children.
 */
export const limitOf = (process) => {
  const known = process.verdict?.limit_bytes
    ? [[process.verdict.limit, process.verdict.limit_bytes]] : Object.entries(process.limits);
  const used = { max_memory_restart: process.resident_memory_bytes, heap: process.heap_used_bytes };
  const limits = known.map(([kind, limit]) => {
    const by = kind in used ? used[kind] : held(process);
    return { kind, bytes: limit, used: by, share: by === null ? null : by / limit };
  });
  return limits.sort((one, other) => (other.share ?? 0) - (one.share ?? 0))[0] ?? null;
};

/** Shape and word of a state. Call `update` with another state to change it. */
export const badge = (state) => {
  const word = h("span");
  const node = h("span", { class: "badge" });
  let shown = null;
  const update = (next) => {
    if (next === shown) return;
    shown = next;
    mark(node, "data-state", next);
    node.replaceChildren(shape(next), word);
    write(word, STATES[next].word);
  };
  update(state);
  return { node, update };
};

const LIMITS = {
  max_memory_restart: ["pm2’s limit", "pm2"],
  cgroup: ["the cgroup’s limit", "cgroup"],
  heap: ["V8’s heap limit", "V8 heap"],
  host: ["the host’s memory", "host"],
  configured: ["the configured limit", "configured"],
};

/** The name of a limit in a sentence, or in one word. */
export const limitName = (kind, short = false) => LIMITS[kind]?.[short ? 1 : 0] ?? "its limit";

const which = (process, all) => {
  const app = appName(process);
  const twins = all.filter((other) => appName(other) === app && other.daemon === process.daemon);
  return twins.length > 1 ? [name(app), ` (process ${process.pm_id})`] : [name(app)];
};

/** What is not known yet, and when it will be: the first verdict among those that are still watched. */
const notKnown = (learning, { collected_at: now, first_verdict_after_seconds: after }) => {
  const waits = learning.map((process) => (process.verdict?.first_verdict_at ?? now + (after ?? NaN)) - now).filter(Number.isFinite);
  const first = waits.length > 0 ? ` The first verdict comes in about ${span(Math.max(60, Math.min(...waits)))}.` : "";
  const fast = learning.filter((process) => (soFarOf(process)?.exhaustion_seconds ?? null) !== null)
    .sort((left, right) => soFarOf(left).exhaustion_seconds - soFarOf(right).exhaustion_seconds)[0];
  const pace = fast ? ` So far ${appName(fast)} #${fast.pm_id} grows ${rate(soFarOf(fast).slope.bytes_per_second)}, which meets its limit in ${span(soFarOf(fast).exhaustion_seconds)}; too early to call it a leak.` : "";
  return `Not known yet: ${count(learning.length, "process is", "processes are")} still learning.${first}${pace}`;
};

const growth = (process) => {
  const slope = slopeOf(process);
  const left = leftOf(process);
  const verdict = process.verdict;
  const parts = slope ? [` ${rate(slope.bytes_per_second)}`] : [];
  if (left !== null && verdict.limit_bytes !== null) {
    const limit = `${limitName(verdict.limit)} of ${bytes(verdict.limit_bytes)}`;
    if (left > 0) parts.push(` and meets ${limit} in `, h("strong", { text: span(left) }));
    else parts.push(" and is ", h("strong", { text: "over" }), ` ${limit}`);
  }
  return parts;
};

/** The state of everything in one sentence, as nodes, with the state that colours it. */
export const headline = (view) => {
  const { processes, daemons } = view;
  const down = daemons.filter((daemon) => !daemon.up);
  const of = (state) => processes.filter((process) => stateOf(process) === state);
  const sorted = (list) => list.sort((left, right) => urgency(right) - urgency(left));
  const others = (list, verb, verbs) =>
    (list.length === 2 ? ` One more ${verb}.` : list.length > 2 ? ` ${list.length - 1} more ${verbs}.` : "");
  const [leaking, suspect, growing, failed, learning] = ["leaking", "suspect", "growing", "failed", "learning"].map(of);
  const open = learning.length > 0 ? ` ${notKnown(learning, view)}` : "";
  if (leaking.length > 0) {
    const worst = sorted(leaking)[0];
    return { state: "leaking", parts: [...which(worst, processes), " leaks", ...growth(worst), ".", others(leaking, "leaks", "leak")] };
  }
  if (suspect.length > 0) {
    const worst = sorted(suspect)[0];
    const parts = [...which(worst, processes), " may leak: it grows", ...growth(worst), ".", others(suspect, "may leak", "may leak")];
    return { state: "suspect", parts };
  }
  if (processes.length === 0) {
    return down.length > 0
      ? { state: "failed", parts: ["pm2 does not answer: ", name(down[0].failure ?? "no daemon was found"), "."] }
      : { state: "off", parts: [daemons.length > 0 ? "pm2 runs no process." : "No pm2 daemon was found yet."] };
  }
  if (failed.length > 0) {
    return { state: "failed", parts: [...which(failed[0], processes), " has errored.", others(failed, "has", "have"), open] };
  }
  if (growing.length > 0) {
    const worst = sorted(growing)[0];
    return { state: "growing", parts: [...which(worst, processes), " grows", ...growth(worst), "; it is not called a leak yet.", open] };
  }
  const stable = of("stable").length;
  if (learning.length > 0) {
    const rest = stable > 0 ? `${count(stable, "process is", "processes are")} stable.` : "";
    return { state: "learning", parts: [`${rest}${open}`.trim()] };
  }
  const daemon = daemons.find((one) => ["suspect", "leaking"].includes(one.verdict?.state));
  if (daemon) {
    return { state: daemon.verdict.state, parts: ["The pm2 daemon ", name(daemon.name), daemon.verdict.state === "leaking" ? " itself leaks." : " itself may leak."] };
  }
  return { state: "stable", parts: [`Nothing leaks: ${count(stable, "process", "processes")} stable.`] };
};

// What a verdict means on the page: its word, its shape, how urgent it is, and the sentence that sums everything up.

import { h, name, shape, write, mark } from "./dom.js";
import { bytes, count, rate, span } from "./format.js";

/** The states in the order a person cares about them: the word, and how urgent. */
export const STATES = {
  leaking: { word: "Leaking", rank: 5 },
  suspect: { word: "Suspect", rank: 4 },
  failed: { word: "Errored", rank: 3 },
  growing: { word: "Growing", rank: 2.5 },
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
  return STATES[stateOf(process)].rank * 10 + soon + (process.resident_memory_bytes ?? 0) / 2 ** 60;
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
  const twins = all.filter((other) => other.app === process.app && other.daemon === process.daemon);
  return twins.length > 1 ? [name(process.app), ` (process ${process.pm_id})`] : [name(process.app)];
};

const growth = (process) => {
  const slope = slopeOf(process);
  const left = leftOf(process);
  const verdict = process.verdict;
  const parts = slope ? [` ${rate(slope.bytes_per_second)}`] : [];
  if (left !== null && verdict.limit_bytes !== null) {
    parts.push(` and meets ${limitName(verdict.limit)} of ${bytes(verdict.limit_bytes)} in `, h("strong", { text: span(left) }));
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
  const [leaking, suspect, failed, learning] = ["leaking", "suspect", "failed", "learning"].map(of);
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
    return { state: "failed", parts: ["Nothing leaks, but ", ...which(failed[0], processes), " has errored.", others(failed, "has", "have")] };
  }
  const stable = of("stable").length;
  if (stable === 0 && learning.length > 0) {
    return { state: "learning", parts: [`Watching ${count(learning.length, "process", "processes")}: too early to say.`] };
  }
  const rest = learning.length > 0 ? `, ${learning.length} still learning` : "";
  return { state: "stable", parts: [`Nothing leaks: ${count(stable, "process", "processes")} stable${rest}.`] };
};

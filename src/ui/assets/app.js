// The page as a whole: which view is shown, when the sidecar is asked, and what is said when it does not answer.

import { Source, send } from "./api.js";
import { orderDialog } from "./dialog.js";
import { doctorView } from "./doctor.js";
import { show, write, mark, plain } from "./dom.js";
import { appName, instant } from "./format.js";
import { overview } from "./overview.js";
import { processView } from "./process.js";
import { restartsView } from "./restarts.js";
import { STATES, stateOf } from "./verdict.js";

const element = (id) => document.getElementById(id);
const main = element("main");
const sources = { processes: new Source(), restarts: new Source(60_000), doctor: new Source(60_000) };
const facts = () => ({ view: sources.processes.body, restarts: sources.restarts.body });

const dialog = orderDialog(facts, () => refresh());
const views = {
  overview: overview((text) => history.replaceState(null, "", text ? `#/?q=${encodeURIComponent(text)}` : "#/")),
  process: processView((what) => order(what)),
  restarts: restartsView((what) => order(what)),
  doctor: doctorView(),
};
main.replaceChildren(...Object.values(views).map((view) => view.node));
document.body.append(dialog.node);

const order = async (what) => {
  // The dialog speaks of the policy, so it wants to know how that stands now.
  await sources.restarts.read("api/v1/restarts", AbortSignal.timeout(5000)).catch(() => false);
  dialog.open(what);
};

/** Reads the fragment: `#/`, `#/?q=…`, `#/restarts`, `#/doctor`, `#/process/{daemon}/{pm_id}`, the same with
 * `/{evidence}`. */
const routeOf = (fragment) => {
  const [path, query] = fragment.replace(/^#\/?/, "").split("?");
  const [first, daemon, pmId, evidence] = path.split("/");
  if (first === "restarts" || first === "doctor") return { view: first };
  if (first === "process" && daemon && /^\d+$/.test(pmId ?? "")) {
    try {
      return { view: "process", daemon: decodeURIComponent(daemon), pm_id: Number(pmId), evidence: decodeURIComponent(evidence ?? "") };
    } catch {
      return { view: "overview", query: "" };
    }
  }
  return { view: "overview", query: new URLSearchParams(query ?? "").get("q") ?? "" };
};

/** A link of `leakslope open` holds a secret, good once, that lets this browser act. */
const letIn = async () => {
  const secret = location.hash.match(/^#open=([0-9a-f]+)$/)?.[1];
  if (!secret) return;
  history.replaceState(null, "", "#/");
  // A link that is spent lets nobody in: the page is as it was, and says how to come by another one where an order is refused.
  await send("api/v1/session", { secret }).catch(() => null);
};
await letIn();

let route = routeOf(location.hash);

const title = () => {
  const view = facts().view;
  const leaking = view ? view.processes.filter((process) => stateOf(process) === "leaking").length : 0;
  const part = { overview: null, restarts: "Restarts", doctor: "Doctor", process: views.process.heading() }[route.view];
  document.title = [leaking > 0 ? `(${leaking} leaking)` : null, part, "leakslope"].filter(Boolean).join(" · ").replace(") ·", ")");
};

const navigate = (moved) => {
  route = routeOf(location.hash);
  for (const id in views) show(views[id].node, id === route.view);
  for (const id of ["overview", "restarts", "doctor"]) mark(element(`nav-${id}`), "aria-current", id === route.view ? "page" : null);
  if (route.view === "process") views.process.open(route);
  if (route.view === "overview") views.overview.find(route.query);
  draw();
  if (moved) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  refresh();
};

const draw = () => {
  const { view, restarts } = facts();
  if (!view) return;
  write(element("version"), `leakslope ${view.version}`);
  if (route.view === "restarts") {
    if (restarts || sources.restarts.missing) views.restarts.update(restarts);
  } else views[route.view].update(route.view === "doctor" ? sources.doctor.body : view);
  title();
};

let states = new Map();

/** Says aloud what has changed: a verdict that turned, nothing else. */
const announce = (view) => {
  const next = new Map(view.processes.map((process) => [`${process.daemon}/${process.pm_id}`, stateOf(process)]));
  const turned = view.processes.filter((process) => {
    const before = states.get(`${process.daemon}/${process.pm_id}`);
    return before && before !== stateOf(process);
  });
  states = next;
  if (turned.length > 0) {
    write(element("announcer"), turned.slice(0, 5).map((process) =>
      `${plain(appName(process)).slice(0, 60)} #${process.pm_id}: ${STATES[stateOf(process)].word}`).join(". "));
  }
};

let failures = 0;

const connection = (state, text) => {
  mark(element("connection"), "data-state", state);
  write(element("connection-text"), text);
  mark(main, "data-connection", state);
};

let under = null;

/** Asks for everything the shown view needs, and draws what has changed. Resolves when that is done. */
export const refresh = async () => {
  under?.abort();
  const mine = new AbortController();
  under = mine;
  try {
    const changed = await sources.processes.read("api/v1/processes", mine.signal);
    if (changed) announce(sources.processes.body);
    if (changed) draw();
    if (route.view === "process") {
      await views.process.read(mine.signal);
      title();
    }
    if (route.view === "doctor" && (await sources.doctor.read("api/v1/doctor", mine.signal))) draw();
    if (route.view === "restarts" && (await sources.restarts.read("api/v1/restarts", mine.signal))) draw();
    failures = 0;
    const at = sources.processes.body?.collected_at;
    connection("live", at ? `Live, ${instant(at)}` : "No collection yet");
  } catch (error) {
    if (mine.signal.aborted) return;
    failures += 1;
    connection("lost", `No answer: ${error.name === "TimeoutError" ? "timed out" : error.message}`);
  } finally {
    if (under === mine) {
      under = null;
      plan();
    }
  }
};

let timer = 0;

/** Asks again after one collection; more rarely while there is no answer, not at all while nobody looks. */
const plan = () => {
  clearTimeout(timer);
  if (document.hidden) return;
  const interval = Math.min(60, Math.max(1, facts().view?.interval_seconds ?? 5));
  timer = setTimeout(refresh, Math.min(60, interval * 2 ** Math.min(failures, 4)) * 1000);
};

views.process.onChange(() => refresh());
addEventListener("hashchange", () => letIn().then(() => navigate(true)));
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
element("skip").addEventListener("click", () => main.focus());
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && route.view === "overview") {
    event.preventDefault();
    views.overview.focusSearch();
  }
  if (event.key === "r") refresh();
});
navigate(false);

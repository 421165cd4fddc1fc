// Restarts: what is asked for and what holds it, where each app stands, what was done; and the dialog that asks.

import { Refused, send } from "./api.js";
import { h, name, show, write, mark, plain, Keyed } from "./dom.js";
import { bytes, count, instant, moment, pace, sentence, span, words } from "./format.js";

const MODES = {
  off: "Restarts are switched off. Requests are not even recorded.",
  dry_run: "Dry run: everything is decided and recorded, nothing is restarted.",
  enforce: "Restarts are carried out once every gate lets them through.",
};

const DECISIONS = {
  hold: "Held", reload: "Reloading", restart: "Restarting", would_reload: "Would reload", would_restart: "Would restart",
};

const requestItem = () => {
  const app = name("");
  const decision = h("span", { class: "chip" });
  const facts = h("p", { class: "small" });
  const reason = h("p", { dir: "auto" });
  const text = h("p", { class: "reason", dir: "auto" });
  const gates = h("ol", { class: "gates", "aria-label": "Gates" });
  const list = new Keyed(gates, (gate) => gate.gate, () => {
    const state = h("strong");
    const title = h("span", { class: "gate-name" });
    const said = h("span", { dir: "auto" });
    const node = h("li", {}, state, title, said);
    return { node, update: (gate) => {
      mark(node, "data-open", String(gate.open));
      write(state, gate.open ? "Open" : "Holds");
      write(title, words(gate.gate));
      write(said, sentence(gate.sentence));
    } };
  });
  const all = h("details", {}, h("summary", { text: "What every gate says" }), gates);
  const node = h("li", { class: "card request" }, h("div", { class: "verdict-line" }, h("h3", {}, app), decision), facts, reason, text, all);
  const update = (request) => {
    write(app, request.app);
    write(decision, DECISIONS[request.decision] ?? words(request.decision));
    mark(decision, "data-decision", request.decision);
    const targets = request.targets.map((target) => `#${target.pm_id} ${words(target.state)}`).join(", ");
    write(facts, `Request ${request.id} by ${words(request.trigger)}, ${moment(request.made_at)}${targets ? ` · ${targets}` : ""}`);
    write(reason, sentence(request.reason));
    write(text, `${sentence(request.sentence)}${request.at ? ` Goes on at ${instant(request.at)} at the earliest.` : ""}`);
    list.update(request.gates);
    show(all, request.gates.length > 0);
  };
  return { node, update };
};

const policyRow = (onAsk) => () => {
  const app = name("");
  const cells = ["mode", "window", "budget", "breaker"].map(() => h("td", { dir: "auto" }));
  let shown = null;
  const ask = h("button", { type: "button", class: "quiet", text: "Restart …", onclick: () => onAsk(shown) });
  const node = h("tr", {}, h("th", { scope: "row" }, app), ...cells, h("td", { class: "actions" }, ask));
  const update = (policy) => {
    shown = policy;
    write(app, policy.app);
    mark(ask, "aria-label", `Restart ${plain(policy.app)}`);
    write(cells[0], words(policy.mode));
    write(cells[1], policy.window_open ? "open now" : policy.next_window_at ? `opens ${moment(policy.next_window_at)}` : "none will open");
    write(cells[2], `${policy.budget_remaining} of ${policy.budget_per_day} left today`);
    const { open, cause, closes_at: closes } = policy.breaker;
    write(cells[3], open ? `open: ${cause ?? "no cause given"}${closes ? `; closes ${moment(closes)}` : ""}` : "closed");
    mark(cells[3], "data-open", String(open));
  };
  return { node, update };
};

const auditRow = () => {
  const app = name("");
  const cells = ["at", "what", "outcome", "memory", "bought", "why"].map(() => h("td", { dir: "auto" }));
  const node = h("tr", {}, cells[0], h("th", { scope: "row" }, app), ...cells.slice(1));
  const update = (entry) => {
    write(app, entry.pm_id === null ? entry.app : `${entry.app} #${entry.pm_id}`);
    write(cells[0], moment(entry.at));
    write(cells[1], [entry.action, entry.trigger ? `by ${words(entry.trigger)}` : null].filter(Boolean).join(" "));
    write(cells[2], words(entry.outcome));
    mark(cells[2], "data-outcome", entry.outcome);
    write(cells[3], entry.memory_before_bytes === null ? "–" : `${bytes(entry.memory_before_bytes)} → ${bytes(entry.memory_after_bytes)}`);
    const slopes = entry.slope_before === null ? "" : `, ${pace(entry.slope_before)} → ${pace(entry.slope_after)} MiB/h`;
    write(cells[4], `${span(entry.time_bought_seconds)}${slopes}`);
    write(cells[5], sentence(entry.sentence));
  };
  return { node, update };
};

const tableOf = (label, heads, body) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
  h("table", { class: "plain" }, h("caption", { class: "unseen", text: label }),
    h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col", text: head })))), body));

/** Makes the view of restarts. `onAsk({ daemon, app })` is called when a person wants one. */
export const restartsView = (onAsk) => {
  const mode = h("p", { class: "reason" });
  const acting = h("p", { class: "small", dir: "auto" });
  const waiting = h("ul", { class: "requests" });
  const requests = new Keyed(waiting, (request) => request.id, requestItem);
  const quiet = h("p", { class: "empty", text: "Nothing is asked for." });
  const policyBody = h("tbody");
  const policies = new Keyed(policyBody, (policy) => `${policy.daemon}\u0000${policy.app}`, policyRow(onAsk));
  const auditBody = h("tbody");
  const audit = new Keyed(auditBody, (entry) => entry.id, auditRow);
  const none = h("p", { class: "empty", text: "Nothing has been done yet." });
  const apps = h("section", { class: "card" }, h("h2", { text: "Apps" }),
    tableOf("Where each app stands", ["App", "Mode", "Window", "Budget", "Breaker", ""], policyBody));
  const past = tableOf("What was done", ["When", "App", "What", "Outcome", "Memory", "Time bought", "Why"], auditBody);
  const missing = h("p", { class: "notice", text: "This sidecar does not tell of restarts." });
  const content = h("div", { class: "stack" }, mode, acting, h("h2", { text: "Asked for" }), quiet, waiting, apps,
    h("section", { class: "card" }, h("h2", { text: "Done" }), none, past));
  const node = h("section", { class: "view", "aria-labelledby": "restarts-title" },
    h("h1", { id: "restarts-title", text: "Restarts" }), missing, content);
  const update = (view) => {
    show(missing, view === null);
    show(content, view !== null);
    if (view === null) return;
    write(mode, MODES[view.mode] ?? words(view.mode));
    mark(node, "data-mode", view.mode);
    mark(node, "data-acting", String(view.acting.allowed));
    write(acting, view.acting.sentence);
    requests.update(view.requests);
    show(quiet, view.requests.length === 0);
    policies.update(view.policies);
    show(apps, view.policies.length > 0);
    audit.update(view.audit);
    show(none, view.audit.length === 0);
    show(past, view.audit.length > 0);
    for (const button of policyBody.querySelectorAll("button")) button.disabled = !view.acting.allowed;
  };
  return { node, update };
};

/** What will happen, in sentences, before anybody says yes. */
export const consequences = (targets, restarts, policy, now) => {
  const cluster = targets.length > 0 && targets.every((process) => process.exec_mode === "cluster");
  const sentences = [];
  const who = count(targets.length, "process", "processes");
  if (restarts.mode === "off") return ["Restarts are switched off: the request will be refused."];
  if (restarts.mode === "dry_run" || policy?.mode === "dry_run") {
    sentences.push("This is a dry run: nothing will be restarted. What would have happened is recorded.");
  }
  if (policy?.breaker.open) sentences.push(`The circuit breaker of this app is open (${policy.breaker.cause ?? "no cause given"}): the request waits until it closes.`);
  if (now) sentences.push("It does not wait for a maintenance window or for the minimum uptime; every other gate still holds it.");
  else if (policy && !policy.window_open) {
    sentences.push(policy.next_window_at ? `It waits for the next maintenance window, ${moment(policy.next_window_at)}.` : "It waits for a maintenance window, and none will open.");
  } else sentences.push("It starts as soon as every gate lets it through.");
  sentences.push(cluster
    ? `pm2 then reloads ${who}, one at a time: a new worker starts before the old one stops, and no connection drops if the app closes gracefully.`
    : `pm2 then stops ${who} and starts anew: open connections drop and requests fail until the app is back.`);
  return sentences;
};

/** Makes the dialog. `facts()` returns `{ view, restarts }` as last read; `onDone()` is called after an order was taken. */
export const restartDialog = (facts, onDone) => {
  let wanted = null;
  let token = "";
  const app = name("");
  const detail = h("span");
  const list = h("ul", { class: "consequences", dir: "auto" });
  const now = h("input", { type: "checkbox", id: "restart-now", onchange: () => tell() });
  const why = h("input", { type: "text", id: "restart-why", maxlength: 200, autocomplete: "off" });
  const secret = h("input", { type: "password", id: "restart-token", autocomplete: "off", spellcheck: "false" });
  const secretRow = h("label", { class: "row", for: "restart-token" }, "Token", secret);
  const answer = h("p", { class: "answer", role: "status", dir: "auto" });
  const yes = h("button", { type: "submit", class: "danger", text: "Ask for the restart" });
  const no = h("button", { type: "button", text: "Cancel", onclick: () => node.close() });
  const form = h("form", { method: "dialog" }, h("h2", { id: "restart-title" }, "Restart ", app, detail, "?"), list,
    h("label", { class: "check", for: "restart-now" }, now, "Do not wait for a window"),
    h("label", { class: "row", for: "restart-why" }, "Why (for the record)", why), secretRow, answer, h("div", { class: "buttons" }, no, yes));
  const node = h("dialog", { class: "dialog", "aria-labelledby": "restart-title" }, form);

  const targets = () => (facts().view?.processes ?? []).filter((process) =>
    process.daemon === wanted.daemon && process.app === wanted.app && process.pid !== null && (wanted.pm_id === null || process.pm_id === wanted.pm_id));
  const tell = () => {
    const { restarts } = facts();
    const policy = restarts?.policies.find((entry) => entry.daemon === wanted.daemon && entry.app === wanted.app) ?? null;
    const allowed = restarts?.acting.allowed ?? false;
    const sentences = restarts && allowed ? consequences(targets(), restarts, policy, now.checked)
      : [restarts?.acting.sentence ?? "This sidecar takes no requests for restarts."];
    list.replaceChildren(...sentences.map((text) => h("li", { text })));
    yes.disabled = !allowed;
    show(secretRow, allowed && restarts.acting.authentication === "bearer");
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    yes.disabled = true;
    write(answer, "Asking …");
    token = secret.value || token;
    const order = { daemon: wanted.daemon, app: wanted.app, now: now.checked, who: "page", why: why.value };
    if (wanted.pm_id !== null) order.pm_id = wanted.pm_id;
    try {
      const reply = await send("/api/v1/restarts", order, token);
      write(answer, reply.sentence ?? "The request was taken.");
      write(no, "Close");
      onDone();
    } catch (error) {
      if (error instanceof Refused && error.status === 401) token = "";
      write(answer, `Not taken: ${error.message}`);
      yes.disabled = false;
    }
  });
  const open = (what) => {
    wanted = { daemon: what.daemon, app: what.app, pm_id: what.pm_id ?? null };
    now.checked = false;
    why.value = "";
    secret.value = "";
    write(no, "Cancel");
    write(answer, "");
    write(app, what.app);
    write(detail, wanted.pm_id === null ? "" : `, process ${wanted.pm_id}`);
    tell();
    node.showModal();
    no.focus();
  };
  return { node, open };
};

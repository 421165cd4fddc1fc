// Restarts: what is asked for and what holds it, where each app stands, what was done.

import { h, name, show, write, mark, plain, Keyed } from "./dom.js";
import { appName, bytes, fullName, instant, moment, pace, sentence, span, words } from "./format.js";

const MODES = {
  off: "Restarts are switched off: nothing is decided.",
  "dry-run": "Dry run: everything is decided and recorded, nothing is restarted.",
  enforce: "Restarts are carried out once every gate lets them through.",
};

/** A decision of the policy in two words. */
export const DECISIONS = {
  hold: "Held", reload: "Reloading", restart: "Restarting", under_way: "Under way", would_reload: "Would reload", would_restart: "Would restart",
};

const gateItem = () => {
  const state = h("strong");
  const title = h("span", { class: "gate-name" });
  const said = h("span", { dir: "auto" });
  const node = h("li", {}, state, title, said);
  return { node, update: (gate) => {
    mark(node, "data-open", String(gate.open));
    write(state, gate.open ? "Passes" : "Holds");
    write(title, words(gate.gate));
    write(said, sentence(gate.sentence));
  } };
};

const targetItem = () => {
  const who = h("strong");
  const decision = h("span", { class: "chip" });
  const said = h("p", { class: "reason", dir: "auto" });
  const gates = h("ol", { class: "gates", "aria-label": "Gates" });
  const list = new Keyed(gates, (gate) => gate.gate, gateItem);
  const all = h("details", {}, h("summary", { text: "What every gate says" }), gates);
  const node = h("li", { class: "target" }, h("div", { class: "verdict-line" }, who, decision), said, all);
  return { node, update: (target) => {
    write(who, `Process ${target.pm_id}`);
    write(decision, target.plan ? DECISIONS[target.plan.decision] ?? words(target.plan.decision) : words(target.state));
    mark(decision, "data-decision", target.plan?.decision ?? target.state);
    show(said, target.plan !== null);
    if (target.plan) write(said, `${sentence(target.plan.sentence)}${target.plan.at ? ` Not before ${instant(target.plan.at)}.` : ""}`);
    list.update(target.gates);
    show(all, target.gates.length > 0);
  } };
};

const requestItem = (onOrder) => () => {
  let shown = null;
  const app = name("");
  const facts = h("p", { class: "small" });
  const reason = h("p", { dir: "auto" });
  const withdraw = h("button", { type: "button", class: "quiet acts", text: "Take back …", onclick: () => onOrder({ kind: "withdraw", ...shown }) });
  const targets = h("ul", { class: "targets" });
  const list = new Keyed(targets, (target) => target.pm_id, targetItem);
  const node = h("li", { class: "card request" },
    h("div", { class: "verdict-line" }, h("h3", {}, app), h("span", { class: "spread" }), withdraw), facts, reason, targets);
  return { node, update: (request) => {
    shown = request;
    write(app, appName(request));
    write(facts, `Request ${request.id} by ${words(request.trigger)}, ${moment(request.made_at)}`);
    write(reason, sentence(request.reason));
    show(withdraw, !request.begun);
    list.update(request.targets);
  } };
};

const appRow = (onOrder) => () => {
  let shown = null;
  const app = name("");
  const [mode, nextWindow, budget, breaker] = ["mode", "window", "budget", "breaker"].map(() => h("td", { dir: "auto" }));
  const ask = h("button", { type: "button", class: "quiet acts", text: "Restart …", onclick: () => onOrder({ kind: "restart", ...shown, pm_id: null }) });
  const reset = h("button", { type: "button", class: "quiet acts", text: "Close the breaker …", onclick: () => onOrder({ kind: "breaker", ...shown }) });
  const node = h("tr", {}, h("th", { scope: "row" }, app), mode, nextWindow, budget, breaker, h("td", { class: "actions" }, reset, ask));
  return { node, update: (policy) => {
    shown = policy;
    write(app, appName(policy));
    mark(ask, "aria-label", `Restart ${plain(appName(policy))} …`);
    mark(reset, "aria-label", `Close the breaker of ${plain(appName(policy))} …`);
    write(mode, policy.opted_in ? words(policy.mode) : `${words(policy.mode)}, not opted in`);
    write(nextWindow, policy.next_window_at ? `opens ${moment(policy.next_window_at)}` : "open");
    write(budget, `${policy.budget_left} left, host ${policy.host_budget_left}`);
    const { open, cause, closes_at: closes } = policy.breaker;
    write(breaker, open ? `Open: ${sentence(cause ?? "no cause given")}${closes ? ` Closes ${moment(closes)}.` : ""}` : "closed");
    mark(breaker, "data-open", String(open));
    show(reset, open);
  } };
};

const auditRow = () => {
  const app = name("");
  const [at, what, outcome, memory, bought, why] = ["at", "what", "outcome", "memory", "bought", "why"].map(() => h("td", { dir: "auto" }));
  const said = h("span");
  const evidence = h("a", { text: "What it held" });
  why.append(said, " ", evidence);
  const node = h("tr", {}, at, h("th", { scope: "row" }, app), what, outcome, memory, bought, why);
  return { node, update: (entry) => {
    write(at, moment(entry.at));
    write(app, entry.pm_id === null ? appName(entry) : `${appName(entry)} #${entry.pm_id}`);
    write(what, [words(entry.action ?? entry.kind), entry.trigger ? `by ${words(entry.trigger)}` : null].filter(Boolean).join(" "));
    write(outcome, [entry.outcome, entry.detail].filter(Boolean).map(words).join(": ") || "–");
    mark(outcome, "data-outcome", entry.outcome);
    write(memory, entry.memory_before_bytes === null ? "–" : `${bytes(entry.memory_before_bytes)} → ${bytes(entry.memory_after_bytes)}`);
    const slopes = entry.slope_before === null ? "" : `, ${pace(entry.slope_before)} → ${pace(entry.slope_after)} MiB/h`;
    write(bought, `${span(entry.time_bought_seconds)}${slopes}`);
    write(said, sentence(entry.sentence));
    show(evidence, Boolean(entry.evidence));
    mark(evidence, "href", `#/process/${encodeURIComponent(entry.daemon)}/${entry.pm_id}/${encodeURIComponent(entry.evidence ?? "")}`);
  } };
};

const tableOf = (label, heads, body) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
  h("table", { class: "plain" }, h("caption", { class: "unseen", text: label }),
    h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head || h("span", { class: "unseen", text: "Actions" }))))), body));

/** Makes the view of restarts. `onOrder({ kind, … })` is called when a person wants something done. */
export const restartsView = (onOrder) => {
  const mode = h("p", { class: "reason" });
  const acting = h("p", { class: "small", dir: "auto" });
  const waiting = h("ul", { class: "requests" });
  const requests = new Keyed(waiting, (request) => request.id, requestItem(onOrder));
  const quiet = h("p", { class: "empty", text: "Nothing is asked for." });
  const appBody = h("tbody");
  const apps = new Keyed(appBody, (policy) => `${policy.daemon}\u0000${fullName(policy)}`, appRow(onOrder));
  const auditBody = h("tbody");
  const audit = new Keyed(auditBody, (entry) => entry.id, auditRow);
  const none = h("p", { class: "empty", text: "Nothing has been done yet." });
  const standing = h("section", { class: "card" }, h("h2", { text: "Apps" }),
    tableOf("Where each app stands", ["App", "Mode", "Window", "Budget", "Breaker", ""], appBody));
  const past = tableOf("What was done", ["When", "App", "What", "Outcome", "Memory", "Time bought", "Why"], auditBody);
  const missing = h("p", { class: "notice", text: "This sidecar does not tell of restarts." });
  const content = h("div", { class: "stack" }, mode, acting, h("h2", { text: "Asked for" }), quiet, waiting, standing,
    h("section", { class: "card" }, h("h2", { text: "Done" }), none, past));
  const node = h("section", { class: "view", "aria-labelledby": "restarts-title" },
    h("h1", { id: "restarts-title", text: "Restarts" }), missing, content);
  const update = (view) => {
    show(missing, view === null);
    show(content, view !== null);
    if (view === null) return;
    write(mode, MODES[view.mode] ?? words(view.mode));
    mark(node, "data-acting", String(view.acting.allowed));
    write(acting, sentence(view.acting.sentence));
    requests.update(view.requests);
    show(quiet, view.requests.length === 0);
    apps.update(view.apps);
    show(standing, view.apps.length > 0);
    audit.update(view.audit);
    show(none, view.audit.length === 0);
    show(past, view.audit.length > 0);
    for (const button of node.querySelectorAll("button.acts")) button.disabled = !view.acting.allowed;
  };
  show(missing, false);
  show(content, false);
  return { node, update };
};

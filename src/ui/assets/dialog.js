// The dialog before anything acts: it says what will happen, asks once more, sends the order and shows the answer.

import { Refused, read, send } from "./api.js";
import { h, name, show, write } from "./dom.js";
import { appName, fullName, sentence, span } from "./format.js";

/** How long a profile that is asked for here may sample. */
const DURATIONS = { "30s": "30 seconds", "2m": "2 minutes", "5m": "5 minutes", "30m": "30 minutes" };

/** What taking a profile does, in sentences, before anybody says yes. */
const looking = (target) => [
  "pm2's agent in the app samples its allocations meanwhile (where it is off, Node's inspector, which is closed again); the app goes on, and nothing is restarted.",
  "It tells which functions allocated what is still alive at its end. What was allocated before is not seen: a slow leak needs a long look.",
  ...(target && target.uptime_seconds < 600 ? [`The process has run for ${span(target.uptime_seconds)} only: what it sets up once may look like a leak.`] : []),
  "One profile at a time is taken on a host.",
];

const KINDS = {
  restart: { title: "Restart ", yes: "Ask for the restart", address: "api/v1/restarts" },
  withdraw: { title: "Take back the request for ", yes: "Take it back", address: "api/v1/restarts/withdraw" },
  breaker: { title: "Close the breaker of ", yes: "Close the breaker", address: "api/v1/restarts/breaker" },
  profile: { title: "Take a heap profile of ", yes: "Take the profile", address: "api/v1/evidence" },
};

/** Makes the dialog. `facts()` returns `{ view, restarts }` as last read; `onDone()` is called after an order was taken. */
export const orderDialog = (facts, onDone) => {
  let wanted = null;
  let token = "";
  const title = h("span");
  const app = name("");
  const detail = h("span");
  const list = h("ul", { class: "consequences", dir: "auto" });
  const check = (id, text) => {
    const box = h("input", { type: "checkbox", id, onchange: () => tell() });
    return { box, node: h("label", { class: "check", for: id }, box, text) };
  };
  const now = check("order-now", "Do not wait for a window");
  const all = check("order-all", "All processes, not only those that leak");
  const length = h("select", { id: "order-duration" }, ...Object.entries(DURATIONS).map(([value, text]) => h("option", { value, text })));
  const lengthRow = h("label", { class: "row", for: "order-duration" }, "Sample for", length);
  const why = h("input", { type: "text", id: "order-why", maxlength: 200, autocomplete: "off" });
  const whyRow = h("label", { class: "row", for: "order-why" }, "Why (for the record)", why);
  const secret = h("input", { type: "password", id: "order-token", autocomplete: "off", spellcheck: "false" });
  const secretRow = h("label", { class: "row", for: "order-token" }, "Token", secret);
  const answer = h("p", { class: "answer", role: "status", dir: "auto" });
  const yes = h("button", { type: "submit", class: "danger" });
  const no = h("button", { type: "button", text: "Cancel", onclick: () => node.close() });
  const form = h("form", { method: "dialog" }, h("h2", { id: "order-title" }, title, app, detail, "?"), list,
    now.node, all.node, lengthRow, whyRow, secretRow, answer, h("div", { class: "buttons" }, no, yes));
  const node = h("dialog", { class: "dialog", "aria-labelledby": "order-title" }, form);

  const said = (restarts) => {
    if (wanted.kind === "withdraw") return ["Nothing has been done for it yet, and nothing will be. The audit keeps who took it back."];
    if (wanted.kind === "profile") return looking((facts().view?.processes ?? []).find((one) => one.daemon === wanted.daemon && one.pm_id === wanted.pm_id));
    const policy = restarts.apps.find((entry) => entry.daemon === wanted.daemon && fullName(entry) === fullName(wanted)) ?? null;
    if (wanted.kind === "breaker") {
      return [`It opened because: ${sentence(policy?.breaker.cause ?? "no cause given")}`, "Restarts that are asked for go on as soon as every other gate lets them through."];
    }
    return preview();
  };
  // What a restart would do is decided where it is carried out: the policy itself says it.
  const preview = async () => {
    const query = new URLSearchParams({ daemon: wanted.daemon, app: fullName(wanted), all: all.box.checked, now: now.box.checked });
    if (wanted.pm_id !== null) query.set("pm_id", wanted.pm_id);
    try {
      return (await read(`api/v1/restarts/preview?${query}`)).sentences;
    } catch (error) {
      return [`The request would be refused: ${error.message}`];
    }
  };
  let turn = 0;
  const tell = async () => {
    const { restarts } = facts();
    const allowed = restarts?.acting.allowed ?? false;
    const mine = ++turn;
    yes.disabled = true;
    const sentences = await (allowed ? said(restarts) : [restarts?.acting.sentence ?? "This sidecar takes no orders"]);
    // Somebody has changed the question meanwhile.
    if (mine !== turn) return;
    list.replaceChildren(...sentences.map((text) => h("li", { text: sentence(text) })));
    yes.disabled = !allowed;
    show(secretRow, allowed && restarts.acting.authentication === "bearer");
  };
  const orderOf = () => {
    if (wanted.kind === "withdraw") return { request: wanted.id, who: "the page" };
    if (wanted.kind === "breaker") return { daemon: wanted.daemon, app: fullName(wanted), who: "the page" };
    if (wanted.kind === "profile") {
      return { daemon: wanted.daemon, app: fullName(wanted), pm_id: wanted.pm_id, kind: "heap_profile", duration: length.value, who: "the page" };
    }
    const order = { daemon: wanted.daemon, app: fullName(wanted), now: now.box.checked, all: all.box.checked, who: "the page", why: why.value };
    return wanted.pm_id === null ? order : { ...order, pm_id: wanted.pm_id };
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    yes.disabled = true;
    write(answer, "Asking …");
    token = secret.value || token;
    try {
      const reply = await send(KINDS[wanted.kind].address, orderOf(), token);
      write(answer, sentence(reply.sentence ?? "The order was taken"));
      write(no, "Close");
      no.focus();
      onDone();
    } catch (error) {
      if (error instanceof Refused && error.status === 401) token = "";
      write(answer, sentence(`Not taken: ${error.message}`));
      yes.disabled = false;
    }
  });
  const open = (what) => {
    wanted = what;
    const kind = KINDS[what.kind];
    const restart = what.kind === "restart";
    length.value = "2m";
    yes.className = what.kind === "profile" ? "" : "danger";
    now.box.checked = false;
    all.box.checked = false;
    why.value = "";
    secret.value = "";
    write(no, "Cancel");
    write(answer, "");
    list.replaceChildren();
    write(title, kind.title);
    write(yes, kind.yes);
    write(app, appName(what));
    write(detail, (restart || what.kind === "profile") && what.pm_id !== null ? `, process ${what.pm_id}` : "");
    show(now.node, restart);
    show(all.node, restart && what.pm_id === null);
    show(lengthRow, what.kind === "profile");
    show(whyRow, restart);
    tell();
    node.showModal();
    no.focus();
  };
  return { node, open };
};

// Doctor: what is wrong with the way apps run under pm2, and the line to change.

import { h, name, show, write, mark, Keyed } from "./dom.js";
import { sentence } from "./format.js";

const WORDS = { critical: "Critical", warning: "Warning", note: "Note" };

const findingItem = () => {
  const severity = h("span", { class: "chip" });
  const who = name("");
  const numbers = h("span", { class: "small" });
  const what = h("p", { class: "reason", dir: "auto" });
  const why = h("p", { dir: "auto" });
  const change = h("code", { dir: "auto" });
  const link = h("a", { text: "More", rel: "noreferrer" });
  const node = h("li", { class: "card" },
    h("div", { class: "verdict-line" }, severity, h("h3", {}, who), numbers), what, why, h("p", {}, "Change: ", change), h("p", { class: "small" }, link));
  return { node, update: (finding) => {
    write(severity, WORDS[finding.severity] ?? finding.severity);
    mark(severity, "data-decision", finding.severity);
    write(who, finding.app ?? `pm2 ${finding.daemon}`);
    write(numbers, finding.pm_ids.map((id) => `#${id}`).join(" "));
    write(what, sentence(finding.what));
    write(why, sentence(finding.why));
    write(change, finding.change);
    mark(link, "href", finding.link);
  } };
};

const restartItem = () => {
  const app = name("");
  const what = h("span", { dir: "auto" });
  const change = h("code");
  const node = h("li", {}, h("strong", {}, app), ": ", what, " ", change);
  return { node, update: (restart) => {
    write(app, restart.app);
    write(what, sentence(restart.what));
    write(change, restart.change.join(" "));
  } };
};

const sentenceItem = () => {
  const node = h("li", { dir: "auto" });
  return { node, update: (text) => write(node, sentence(text)) };
};

/** Makes the view of what the checks found. */
export const doctorView = () => {
  const summary = h("p", { class: "reason" });
  const list = h("ul", { class: "requests" });
  const findings = new Keyed(list, (one) => [one.check, one.daemon, one.app, one.what].join("\u0000"), findingItem);
  const lost = h("ul");
  const restarts = new Keyed(lost, (one) => `${one.daemon}\u0000${one.app}`, restartItem);
  const blind = h("ul");
  const unexamined = new Keyed(blind, (text) => text, sentenceItem);
  const losing = h("section", { class: "card" }, h("h2", { text: "Lose connections when they are restarted" }), lost);
  const unseen = h("section", { class: "card" }, h("h2", { text: "Not examined" }), blind);
  const node = h("section", { class: "view", "aria-labelledby": "doctor-title" },
    h("h1", { id: "doctor-title", text: "Doctor" }), h("div", { class: "stack" }, summary, list, losing, unseen));
  const update = (report) => {
    if (!report) return write(summary, "Examining …");
    const { findings: found, critical, processes } = report;
    const nothing = report.examined.length > 0 ? `Nothing is wrong with ${processes} processes.` : "Nothing could be examined.";
    write(summary, found.length > 0 ? `${found.length} findings in ${processes} processes, ${critical} of them critical.` : nothing);
    findings.update(found);
    restarts.update(report.restarts);
    unexamined.update(report.unexamined);
    show(losing, report.restarts.length > 0);
    show(unseen, report.unexamined.length > 0);
  };
  return { node, update };
};

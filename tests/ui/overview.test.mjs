// What a person reads and does on the overview.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { open } from "./browser.mjs";
import { APPS, HOSTILE, start } from "./mock.mjs";

let mock;
let browser;
let page;

const visit = async (hash = "#/") => {
  // Another fragment alone would keep the page: what is live then may be the view before.
  await page.goto("about:blank");
  await page.goto(`${mock.url}/${hash}`);
  await page.locator("#connection[data-state=live]").waitFor();
};
const names = () => page.locator(".process-link").allInnerTexts();
const column = (id) => page.locator(`tbody tr:not(.group-head) .c-${id}`).allInnerTexts();
/** Asks the page to ask the sidecar, as its timer would, and waits until it has drawn. */
const refresh = () => page.evaluate(() => import("/static/app.js").then((app) => app.refresh()));

before(async () => {
  mock = await start();
  browser = await open();
  page = browser.page;
});
beforeEach(async () => {
  Object.assign(mock.state, { now: 1_795_400_000, apps: APPS, daemonDown: false, broken: false });
  browser.complaints.length = 0;
  await page.goto("about:blank");
});
after(async () => {
  await browser?.close();
  await mock?.close();
});

test("one sentence says which app leaks, how fast and until when", async () => {
  await visit();
  const headline = await page.getByRole("heading", { level: 1 }).innerText();
  assert.equal(headline, "shop-api (process 0) leaks 3.1 MiB/h and meets pm2’s limit of 512 MiB in 3 d 22 h. One more leaks.");
  assert.equal(await page.title(), "(2 leaking) leakslope");
  assert.deepEqual(browser.complaints, []);
});

test("every process has a row with its figures, the most urgent first", async () => {
  await visit();
  assert.deepEqual(await names(), ["shop-api", "shop-api", "image-worker", "mailer", "search", "checkout", "checkout", "nightly-report"]);
  assert.deepEqual(await column("verdict"), ["Leaking", "Leaking", "Suspect", "Learning", "Stable", "Stable", "Stable", "Not running"]);
  const first = page.locator("tbody tr:not(.group-head)").first();
  const text = async (id) => (await first.locator(`.c-${id}`).innerText()).replace(/\s+/g, " ");
  assert.match(await text("slope"), /^\+3\.1 \+2\.8 to \+3\.4$/);
  assert.match(await text("left"), /^3 d 22 h 512 MiB · pm2$/);
  assert.match(await text("resident"), /^2\d\d MiB$/);
  assert.match(await text("heap"), /^1\d\d MiB$/);
  assert.equal(await text("uptime"), "16 h");
  assert.equal(await text("restarts"), "4");
  assert.equal(await text("plan"), "No maintenance window is open; the next one opens in 9 h.");
  assert.match(await first.locator(".spark-line").getAttribute("d"), /^M0\.0 .*L120\.0 /);
});

test("a verdict is told by word and shape, not by colour alone", async () => {
  await visit();
  const shapes = await page.locator("tbody tr:not(.group-head) .badge use").evaluateAll((uses) => uses.map((use) => use.getAttribute("href")));
  assert.deepEqual(new Set(shapes), new Set(["#shape-leaking", "#shape-suspect", "#shape-learning", "#shape-stable", "#shape-off"]));
  for (const shape of new Set(shapes)) assert.equal(await page.locator(shape).count(), 1);
});

test("headings sort, and say so", async () => {
  await visit();
  const head = (name) => page.getByRole("columnheader", { name });
  assert.equal(await head("Verdict").getAttribute("aria-sort"), "descending");
  await page.getByRole("button", { name: "Memory" }).click();
  assert.deepEqual((await names()).slice(0, 2), ["search", "image-worker"]);
  assert.equal(await head("Memory").getAttribute("aria-sort"), "descending");
  assert.equal(await head("Verdict").getAttribute("aria-sort"), null);
  await page.getByRole("button", { name: "Memory" }).click();
  assert.equal((await names())[0], "nightly-report");
  assert.equal(await head("Memory").getAttribute("aria-sort"), "ascending");
  await page.getByRole("button", { name: "Process" }).click();
  const sorted = await names();
  assert.deepEqual(sorted, [...sorted].sort());
});

test("the filter and the counts narrow the table, and a link keeps what was looked for", async () => {
  await visit();
  await page.keyboard.press("/");
  await page.keyboard.type("CHECK");
  assert.deepEqual(await names(), ["checkout", "checkout"]);
  assert.equal(await page.locator("#shown").innerText(), "2 of 8 processes");
  const address = new URL(page.url());
  assert.equal(address.hash, "#/?q=CHECK");
  await page.goto("about:blank");
  await visit(address.hash);
  assert.deepEqual(await names(), ["checkout", "checkout"]);
  await page.getByRole("searchbox").fill("no such app");
  assert.equal(await page.getByText("No process matches.").isVisible(), true);
  await page.getByRole("searchbox").fill("");
  const suspects = page.getByRole("button", { name: "Suspect" });
  await suspects.click();
  assert.equal(await suspects.getAttribute("aria-pressed"), "true");
  assert.deepEqual(await names(), ["image-worker"]);
});

test("host and daemons are shown, also when one is down", async () => {
  mock.state.daemonDown = true;
  await visit();
  const machine = await page.locator(".machine").innerText();
  assert.match(machine, /9\.4 GiB of 16 GiB available/);
  assert.match(machine, /default\s+up, pm2 7\.0\.4, 61 MiB/);
  assert.match(machine, /staging\s+down: connection refused, last seen/);
});

test("a new verdict is shown and spoken; the row that has the focus keeps it", async () => {
  await visit();
  const link = page.getByRole("link", { name: "mailer" });
  await link.focus();
  await link.evaluate((node) => { globalThis.kept = node; });
  mock.state.apps = APPS.map((app) => (app.app === "mailer" ? { ...app, state: "leaking", slope: 40 } : app));
  mock.state.now += 60;
  await refresh();
  assert.equal((await names())[0], "mailer");
  assert.equal(await page.locator("#announcer").innerText(), "mailer #6: Leaking");
  assert.equal(await page.evaluate(() => document.activeElement === globalThis.kept), true);
  assert.match(await page.getByRole("heading", { level: 1 }).innerText(), /^mailer leaks 40 MiB\/h/);
});

test("what has not changed costs a tag and no work", async () => {
  await visit();
  const before = mock.log.unchanged;
  const changes = await page.evaluate(async () => {
    let seen = 0;
    const observer = new MutationObserver((list) => { seen += list.length; });
    observer.observe(document.querySelector("main"), { subtree: true, childList: true, attributes: true, characterData: true });
    const app = await import("/static/app.js");
    await app.refresh();
    await app.refresh();
    observer.takeRecords().forEach(() => { seen += 1; });
    return seen;
  });
  assert.equal(mock.log.unchanged - before, 2);
  assert.equal(changes, 0);
});

test("it asks again by itself, once an interval", async () => {
  mock.state.interval = 1;
  await visit();
  const before = mock.log.requests;
  await page.waitForFunction((count) => performance.getEntriesByType("resource").filter((entry) => entry.name.endsWith("/processes")).length >= count, 4);
  const asked = mock.log.requests - before;
  mock.state.interval = 3600;
  assert.ok(asked >= 2 && asked <= 6, String(asked));
});

test("a silent sidecar is told of, what is known stays, and it recovers", async () => {
  await visit();
  mock.state.broken = true;
  await refresh();
  assert.equal(await page.locator("#connection").getAttribute("data-state"), "lost");
  assert.match(await page.locator("#connection").innerText(), /No answer: the first collection is not complete/);
  assert.equal((await names()).length, 8);
  mock.state.broken = false;
  await refresh();
  assert.equal(await page.locator("#connection").getAttribute("data-state"), "live");
});

test("no process, no verdict, nothing leaking: each has its sentence", async () => {
  const sentence = async (apps, daemonDown = false) => {
    Object.assign(mock.state, { apps, daemonDown });
    await page.goto("about:blank");
    await visit();
    return page.getByRole("heading", { level: 1 }).innerText();
  };
  const only = (...states) => APPS.filter((app) => states.includes(app.state));
  assert.equal(await sentence([]), "pm2 runs no process.");
  assert.equal(await sentence([], true), "pm2 does not answer: connection refused.");
  assert.equal(await sentence(only("learning")), "Not known yet: 1 process is still learning. The first verdict comes in about 31 min.");
  assert.equal(await sentence(only("stable", "learning")), "3 processes are stable. Not known yet: 1 process is still learning. The first verdict comes in about 31 min.");
  assert.equal(await sentence(only("suspect")), "image-worker may leak: it grows 1.4 MiB/h and meets pm2’s limit of 512 MiB in 5 d 1 h.");
  assert.equal(await sentence([{ ...APPS[3], status: "errored" }, APPS[4]]), "checkout (process 3) has errored.");
});

test("hostile names are text and nothing else, on every view", async () => {
  mock.state.apps = HOSTILE;
  await visit();
  assert.deepEqual(new Set(await page.locator(".process-link").evaluateAll((links) => links.map((link) => link.textContent))), new Set(HOSTILE.map((app) => app.app)));
  for (const app of HOSTILE) {
    await visit(`#/process/${encodeURIComponent(app.daemon)}/${app.pm_id}`);
    await page.waitForFunction((name) => document.querySelector("#process-title bdi").textContent === name, app.app);
    await page.locator(".uplot").waitFor();
  }
  await visit("#/process/%E0%A4%A/0");
  assert.equal((await names()).length, HOSTILE.length);
  assert.match(await page.title(), /leakslope$/);
  assert.equal(await page.locator("main img, main script, main iframe, main svg [onload]").count(), 0);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `the page is ${wide} px too wide`);
  assert.deepEqual(browser.complaints, []);
});

test("names written from right to left do not turn the text around them", async () => {
  mock.state.apps = [HOSTILE[2]];
  await visit();
  const order = await page.evaluate(() => {
    const cell = document.querySelector("tbody .c-process");
    const left = (selector) => cell.querySelector(selector).getBoundingClientRect().left;
    return { isolation: getComputedStyle(cell.querySelector("bdi")).unicodeBidi, title: cell.querySelector("a").title, facts: left(".facts") <= left("bdi") + 1 };
  });
  assert.equal(order.isolation, "isolate");
  assert.doesNotMatch(order.title, /[\u202a-\u202e\u2066-\u2069]/);
  assert.equal(order.facts, true);
});

test("the policy of the page lets no foreign or inline script run", async () => {
  await visit();
  const refused = await page.evaluate(async () => {
    const seen = [];
    document.addEventListener("securitypolicyviolation", (event) => seen.push(event.violatedDirective));
    try { document.body.innerHTML += "<b>x</b>"; } catch (error) { seen.push(error.name); }
    const script = document.createElement("script");
    try { script.text = "globalThis.owned = true"; document.body.append(script); } catch (error) { seen.push(error.name); }
    await fetch("http://127.0.0.1:9/").catch(() => {});
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    return { seen, owned: globalThis.owned === true };
  });
  assert.equal(refused.owned, false);
  assert.ok(refused.seen.includes("TypeError"));
  assert.ok(refused.seen.includes("connect-src"));
  browser.complaints.length = 0;
});

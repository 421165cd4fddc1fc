// What a person reads and does on the view of one process.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, beforeEach, test } from "node:test";
import { open, painted } from "./browser.mjs";
import { APPS, series, start } from "./mock.mjs";

let mock;
let browser;
let page;

const visit = async (pmId = 0) => {
  // Another fragment alone would keep the page: what is live then may be the view before.
  await page.goto("about:blank");
  await page.goto(`${mock.url}/#/process/default/${pmId}`);
  await page.locator("#connection[data-state=live]").waitFor();
};
const fact = async (label) => (await page.locator(".fact", { has: page.locator("dt", { hasText: new RegExp(`^${label}$`) }) }).innerText()).split("\n").slice(1);

before(async () => {
  mock = await start();
  browser = await open({ acceptDownloads: true });
  page = browser.page;
});
beforeEach(async () => {
  Object.assign(mock.state, { apps: APPS, allowed: true, token: null, mode: "enforce", evidence: [] });
  mock.log.orders.length = 0;
  browser.complaints.length = 0;
  await page.goto("about:blank");
});
after(async () => {
  await browser?.close();
  await mock?.close();
});

test("the verdict comes with its reason as a sentence and with its figures", async () => {
  await visit();
  assert.equal(await page.getByRole("heading", { level: 1 }).innerText(), "shop-api #0 on default");
  assert.equal(await page.locator(".verdict-card .badge").innerText(), "Leaking");
  assert.match(await page.locator(".verdict-card .reason").innerText(), /^Footprint grew 3\.1 MiB\/h over 12 h, floors rising in 23 of 24 intervals.*\.$/);
  assert.deepEqual(await fact("Growth"), ["+3.1 MiB/h", "+2.8 to +3.4, footprint over 12 h"]);
  assert.equal((await fact("Until the limit"))[0], "3 d 22 h");
  assert.deepEqual(await fact("Limit"), ["512 MiB", "pm2’s limit"]);
  assert.equal((await fact("Version"))[1], "Node 20.20.2, cluster");
  assert.match(await page.locator(".plan").innerText(), /^Restart policy: No maintenance window is open/);
  assert.deepEqual(browser.complaints, []);
});

test("the ends of its runs are told with their cause, and what the app wrote stays text", async () => {
  await visit();
  const deaths = page.getByRole("region", { name: "Deaths" });
  const cells = deaths.getByRole("cell");
  await cells.first().waitFor();
  assert.deepEqual((await cells.allInnerTexts()).slice(-3), ["shop-api-0 died at 03:12:07: V8 ran out of heap (limit 256 MiB)", "certain", "<img src=x onerror=alert(1)>"]);
  await visit(3);
  await deaths.waitFor({ state: "hidden" });
  assert.deepEqual(browser.complaints, []);
});

test("the chart shows the series over the chosen range, to the limit", async () => {
  await visit();
  const asked = [];
  page.on("request", (request) => { if (request.url().includes("/history?")) asked.push(new URL(request.url()).search); });
  const spanned = () => page.evaluate(() => document.querySelector(".chart-frame").getAttribute("aria-label"));
  assert.match(await spanned(), /^Memory from Sun,? 22 Nov,? 02:1\d to Mon,? 23 Nov,? 02:1\d; deploy at Sun,? 22 Nov,? 10:13$/);
  for (const [label, search] of [["1 h", "?span=3600"], ["All", "?from=0"], ["6 h", "?span=21600"]]) {
    const before = await spanned();
    await page.getByText(label, { exact: true }).click();
    await page.waitForFunction((old) => document.querySelector(".chart-frame").getAttribute("aria-label") !== old, before);
    assert.equal(asked.at(-1), search);
  }
  assert.equal(await page.getByRole("checkbox", { name: "Up to the limit" }).isChecked(), true);
  const pixels = await Promise.all(["--series-resident", "--series-heap-used", "--series-floor", "--chart-trend", "--chart-limit"].map((property) => painted(page, property)));
  // Resident, heap used, floor, the fitted line and the limit, each in its own colour; heap total is switched off.
  for (const [index, amount] of pixels.entries()) assert.ok(amount > 60, `${index}: ${amount} pixels`);
  const total = page.getByRole("checkbox", { name: /^Heap total/ });
  assert.equal(await total.isChecked(), false);
  await total.check();
  await page.getByRole("checkbox", { name: /^Resident/ }).uncheck();
});

test("the chart can be read with the keyboard, and as a table", async () => {
  await visit();
  await page.locator(".chart-frame").focus();
  await page.keyboard.press("Home");
  const first = await page.locator(".chart [role=status]").textContent();
  assert.match(first, /: Resident \d+ MiB, Heap used \d+(\.\d)? MiB, Floor \d+ MiB$/);
  await page.keyboard.press("ArrowRight");
  assert.notEqual(await page.locator(".chart [role=status]").textContent(), first);
  await page.locator("summary", { hasText: "The chart in figures" }).click();
  const rows = page.getByRole("table", { name: "The chart in figures" }).getByRole("row");
  await rows.nth(20).waitFor();
  assert.match(await rows.nth(1).innerText(), /MiB/);
});

test("what holds the memory lies in layers below the series, and what grows is said", async () => {
  const sentence = "V8's heaps grew by 113 MiB: worker threads are started and not ended (28 run now), over 60 min";
  const cause = { cause: "workers", harmless: false, grown_bytes: 1, over_seconds: 3600, sentence, advice: "End workers with terminate()." };
  mock.state.apps = APPS.map((one) => ({ ...one, cause }));
  await visit();
  assert.ok((await page.locator(".verdict-card").innerText()).includes(`${sentence}. End workers with terminate().`));
  const drawn = () => page.locator(".uplot canvas").evaluate((canvas) => canvas.toDataURL());
  const before = await drawn();
  await page.getByRole("checkbox", { name: "By kind" }).check();
  assert.notEqual(await drawn(), before);
  await page.getByRole("checkbox", { name: "By kind" }).uncheck();
  assert.equal(await drawn(), before);
});

test("pulling out a part of the chart asks for just that part", async () => {
  await visit();
  const box = await page.locator(".u-over").boundingBox();
  const asked = page.waitForRequest((request) => /history\?from=\d+&to=\d+$/.test(request.url()));
  await page.mouse.move(box.x + 60, box.y + 80);
  await page.mouse.down();
  await page.mouse.move(box.x + 200, box.y + 90, { steps: 5 });
  await page.mouse.up();
  const range = new URL((await asked).url()).searchParams;
  assert.ok(range.get("to") - range.get("from") > 3600);
  await page.getByRole("button", { name: "Leave the zoom" }).click();
  await page.getByRole("button", { name: "Leave the zoom" }).waitFor({ state: "hidden" });
});

test("versions stand side by side with the answer whether it is fixed", async () => {
  await visit();
  const section = page.getByRole("region", { name: "Before and after a deploy" });
  assert.equal(await section.locator(".badge").innerText(), "Not fixed");
  assert.equal(await section.locator(".reason").innerText(), "Not fixed: 2.4.0 grows 3.1 MiB/h (2.7 to 3.5), 2.3.1 did not grow.");
  assert.deepEqual(await section.locator("tbody th").allInnerTexts(), ["2.3.1", "2.4.0"]);
  await visit(3);
  await page.waitForFunction(() => [...document.querySelectorAll(".badge")].some((badge) => badge.textContent === "Fixed"));
});

test("evidence is shown where there is some, with a flame graph one can walk", async () => {
  await visit();
  const section = page.getByRole("region", { name: "Evidence", exact: true });
  assert.match(await section.innerText(), /74 % of what is still held was allocated under remember \(\/srv\/shop\/sessions\.js:41\)\./);
  const box = section.getByRole("button", { name: "Session, 52 MiB" });
  await box.focus();
  assert.equal(await section.getByRole("status").innerText(), "Session at /srv/shop/sessions.js:12: 52 MiB, 54 % of all");
  const before = (await box.boundingBox()).width;
  await box.click();
  assert.ok((await section.getByRole("button", { name: "Session, 52 MiB" }).boundingBox()).width > before * 1.5);
  assert.match(await section.innerText(), /Done · taken when it was found to leak · sampled 5 min/i);
  assert.match(await section.innerText(), /This life has had its profile when it was found to leak/);
  await visit(3);
  await section.getByText("A profile is taken when this process is found to leak; its verdict is stable.").waitFor();
});

test("a series of snapshots tells what grew, who holds it and by which way, and its names stay text", async () => {
  const hostile = "<img src=x onerror=\"document.title='owned'\">";
  const added = { count: 12_412, bytes: 3_000_000 };
  const way = "(GC roots) → system / Context [shop/sessions.js] → sessions (Map) → Session × 12,412";
  mock.state.evidence = [series(mock.state, {
    files: ["shop-api-0-4711.1.heapsnapshot", "shop-api-0-4711.3.heapsnapshot"], compared: "Compared by object id: one session (100.0 %)", added,
    classes: [{ class: "Session", count: 24_824, shallow_bytes: 6_000_000, retained_bytes: 83_886_080, added },
      { class: hostile, count: -3, shallow_bytes: -2048, retained_bytes: -2048, added: null }],
    places: [{ pattern: "map", sentence: "the Map `sessions` in sessions.js only grows: by Session × 12,412", bytes: 42_991_616, way, code: "/srv/shop/sessions.js:41:3", id: 7, package: null, sizes: [] },
      { pattern: "other", sentence: hostile, bytes: 1, way: hostile, code: null, id: 8, package: null, sizes: [] }],
    ways: [way],
  })];
  await visit();
  const piece = page.locator("[data-evidence$='.3.heapsnapshot']");
  const text = await piece.innerText();
  const [sentence, table, why] = ["The Map `sessions` in sessions.js only grows: by Session × 12,412 (41 MiB)", "Own size", "Why it is alive"].map((part) => text.indexOf(part));
  assert.ok(sentence > 0 && sentence < table && table < why, `the sentence, then the table, then the ways:\n${text}`);
  const rows = piece.getByRole("region", { name: /^What grew, shop-api-0-4711/ }).locator("tbody tr");
  assert.deepEqual(await rows.first().locator("th, td").allInnerTexts(), ["Session", "+24,824", "+5.72 MiB", "+80 MiB", "12,412, 2.86 MiB"]);
  assert.deepEqual(await rows.nth(1).locator("th, td").allInnerTexts(), [hostile, "−3", "−2 KiB", "−2 KiB", "–"]);
  assert.deepEqual(await piece.locator("ul.lines").nth(1).locator("li").allInnerTexts(), [way, hostile]);
  assert.match(text, /map: the Map `sessions` in sessions\.js only grows: by Session × 12,412 \(41 MiB\), \/srv\/shop\/sessions\.js:41:3/);
  assert.match(text, /Compared by object id: one session \(100\.0 %\)\. shop-api-0-4711\.1\.heapsnapshot, /);
  assert.equal(await piece.locator("img").count(), 0);
  assert.equal((await page.title()).includes("owned"), false);
  mock.state.evidence = [series(mock.state, null)];
  await visit();
  await piece.waitFor();
  assert.equal(await piece.getByRole("table").count(), 0);
  assert.equal(await piece.locator(".lines:visible").count(), 0);
  assert.deepEqual(browser.complaints, []);
});

test("a profile is asked for only after the page has said what it does, and shows while it runs", async () => {
  await visit();
  const section = page.getByRole("region", { name: "Evidence", exact: true });
  await section.getByRole("button", { name: "Take a profile …" }).click();
  const dialog = page.getByRole("dialog");
  assert.equal(await dialog.getByRole("heading").innerText(), "Take a heap profile of shop-api, process 0?");
  assert.match(await dialog.locator(".consequences").innerText(), /the app goes on, and nothing is restarted/);
  assert.equal(await dialog.getByLabel("Why (for the record)").isVisible(), false);
  assert.deepEqual(mock.log.orders, []);
  await dialog.getByLabel("Sample for").selectOption("5m");
  await dialog.getByRole("button", { name: "Take the profile" }).click();
  await dialog.getByText("Allocations of shop-api (default/0) are sampled for 120 s").waitFor();
  assert.deepEqual(mock.log.orders, [{ path: "/api/v1/evidence", type: "application/json",
    order: { daemon: "default", app: "default/shop-api", pm_id: 0, kind: "heap_profile", duration: "5m", who: "the page" } }]);
  await dialog.getByRole("button", { name: "Close" }).click();
  await section.getByText("Allocations are being sampled for 120 s.").waitFor();
  assert.match(await section.innerText(), /running · asked for by a person/i);
  assert.equal(await section.getByRole("link", { name: "File for DevTools" }).count(), 0);
  assert.deepEqual(browser.complaints, []);
});

test("who may not act cannot ask for a profile, and the button says why", async () => {
  mock.state.allowed = false;
  await visit();
  const button = page.getByRole("button", { name: "Take a profile …" });
  assert.equal(await button.isDisabled(), true);
  assert.match(await button.getAttribute("title"), /\.$/);
});

test("the record of a restart leads to what was taken before it", async () => {
  await page.goto(`${mock.url}/#/restarts`);
  const rows = page.getByRole("table", { name: "What was done" }).locator("tbody tr");
  await rows.nth(1).waitFor();
  assert.equal(await rows.nth(1).getByRole("link").count(), 0);
  await rows.first().getByRole("link", { name: "What it held" }).click();
  await page.locator('[data-evidence="shop-api-0-1"]').waitFor();
  assert.equal(await page.getByRole("heading", { level: 1 }).innerText(), "shop-api #0 on default");
  await page.waitForFunction(() => {
    const { top, bottom } = document.querySelector('[data-evidence="shop-api-0-1"]').getBoundingClientRect();
    return top < innerHeight && bottom > 0;
  });
});

test("the CSV is the one that analyze reads", async () => {
  await visit();
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "CSV" }).click()]);
  const text = readFileSync(await download.path(), "utf8");
  assert.equal(text.split("\n")[0], "time,resident_memory_bytes,heap_used_bytes,heap_total_bytes,post_gc_heap_used_bytes,major_gcs,life");
  assert.ok(text.split("\n").length > 100);
});

test("the PNG is a picture of the chart with its words", async () => {
  await visit();
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "PNG" }).click()]);
  assert.equal(download.suggestedFilename(), "leakslope-shop-api-0.png");
  const png = readFileSync(await download.path());
  assert.equal(png.subarray(1, 4).toString(), "PNG");
  assert.equal(png.readUInt32BE(16), 2400);
  assert.ok(png.length > 20_000, String(png.length));
  assert.deepEqual(browser.complaints, []);
});

test("a process that has left the list is said to be gone", async () => {
  await visit(99);
  assert.equal(await page.getByText("pm2 does not list this process any more.").isVisible(), true);
  assert.equal(await page.locator(".verdict-card").isVisible(), false);
});

test("a restart is asked for only after the page has said what will happen", async () => {
  await visit();
  await page.getByRole("button", { name: "Restart …" }).click();
  const dialog = page.getByRole("dialog");
  assert.equal(await dialog.getByRole("heading").innerText(), "Restart shop-api, process 0?");
  await dialog.locator(".consequences li").first().waitFor();
  const said = await dialog.locator(".consequences li").allInnerTexts();
  assert.deepEqual(said, ["One at a time pm2 reloads 1 worker: a new worker starts before the old one stops, so connections are kept if the app closes gracefully."]);
  assert.deepEqual(mock.log.orders, []);
  await dialog.getByLabel("Do not wait for a window").check();
  await dialog.getByText(/does not wait for a maintenance window/).waitFor();
  await dialog.getByLabel("Why (for the record)").fill("before the sale");
  await dialog.getByRole("button", { name: "Ask for the restart" }).click();
  await dialog.getByText("Request 42 was taken; it waits for its window.").waitFor();
  assert.deepEqual(mock.log.orders, [{ path: "/api/v1/restarts", type: "application/json",
    order: { daemon: "default", app: "default/shop-api", now: true, all: false, who: "the page", why: "before the sale", pm_id: 0 } }]);
});

test("cancelling and Escape ask for nothing", async () => {
  await visit(2);
  await page.getByRole("button", { name: "Restart …" }).click();
  await page.getByRole("dialog").getByText(/circuit breaker is open/).waitFor();
  await page.getByRole("dialog").getByText(/Open connections drop/).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Restart …" }).click();
  await page.getByRole("button", { name: "Cancel" }).click();
  assert.equal(await page.getByRole("dialog").isVisible(), false);
  assert.deepEqual(mock.log.orders, []);
});

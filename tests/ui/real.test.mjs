// The page of the sidecar itself, beside a real pm2 with a leaking app, its healthy twin and apps with hostile names: what
// a person would read there.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { open, painted } from "./browser.mjs";
import { POLICY } from "./mock.mjs";
import { start, until } from "./sidecar.mjs";

const HOSTILE = ["<script>document.title='owned'</script>", "\u202egnp.eliforp\u202c \u05e9\u05dc\u05d5\u05dd", "a".repeat(200), "\u{1f4a7} drip"];
// The sidecar bounds a name to this many characters.
const SHOWN = HOSTILE.map((name) => name.slice(0, 128));

let sidecar;
let browser;
let page;

const visit = async (hash) => {
  // Another fragment alone would keep the page: what is live then may be the view before.
  await page.goto("about:blank");
  await page.goto(`${sidecar.url}/${hash}`);
  await page.locator("#connection[data-state=live]").waitFor();
};
const processOf = async (app) => (await sidecar.json("/api/v1/processes")).processes.find((process) => process.app === app);
const row = (app) => page.locator("tbody tr:not(.group-head)", { has: page.getByText(app, { exact: true }) });

before(async () => {
  sidecar = await start([
    // A limit that is only told: pm2's own would restart the app when the leak is found late on a slow machine.
    { name: "shop-api", keep: 2000, max_memory_restart: "2G" },
    { name: "checkout" },
    ...HOSTILE.map((name) => ({ name, args: "quiet" })),
  ], '[[app]]\nname = "shop-api"\nmemory_limit = "300MiB"\n');
  browser = await open({ viewport: { width: 1320, height: 900 } });
  page = browser.page;
});
after(async () => {
  await browser?.close();
  await sidecar?.close();
});

test("the page comes with its policy, quickly, small and whole", async (context) => {
  const answer = await fetch(`${sidecar.url}/`);
  assert.equal(answer.headers.get("content-security-policy"), POLICY);
  assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
  const again = await fetch(`${sidecar.url}/`, { headers: { "If-None-Match": answer.headers.get("etag") } });
  assert.equal(again.status, 304);
  await visit("#/");
  const loads = await page.evaluate(() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .map(({ name, encodedBodySize }) => ({ name: name.split("#")[0], size: encodedBodySize })));
  assert.ok(loads.length > 12, String(loads.length));
  const files = loads.filter((load) => !load.name.includes("/api/")).reduce((sum, load) => sum + load.size, 0);
  assert.ok(files < 90_000, `${files} bytes`);
  // The best of five: the machine has other things to do. One after the other is more than a browser waits for.
  const rounds = [];
  for (let round = 0; round < 5; round += 1) {
    const began = performance.now();
    for (const { name } of loads) await (await fetch(name)).arrayBuffer();
    rounds.push(performance.now() - began);
  }
  context.diagnostic(`everything a first visit loads takes the server ${Math.min(...rounds).toFixed(1)} ms`);
  assert.ok(Math.min(...rounds) < 100, `${rounds} ms`);
});

test("while it learns it says so, for every app by its name", async () => {
  await visit("#/");
  assert.deepEqual(new Set(await page.locator(".process-link").evaluateAll((links) => links.map((link) => link.textContent))), new Set(["shop-api", "checkout", ...SHOWN]));
  assert.equal(await page.locator("main img, main script").count(), 0);
  assert.match(await page.title(), /leakslope$/);
});

test("the leak is named with its pace and its end; the twin is stable", async () => {
  await visit("#/");
  await page.waitForFunction(() => document.querySelector(".headline")?.dataset.state === "leaking", null, { timeout: 240_000 });
  assert.match(await page.getByRole("heading", { level: 1 }).innerText(), /^shop-api leaks [\d.]+ MiB\/min and meets the configured limit of 300 MiB in [\d.]+ (s|min)( \d+ s)?\.$/);
  assert.equal(await row("shop-api").locator(".c-verdict").innerText(), "Leaking");
  await until("the twin's verdict", 30, async () => (await row("checkout").locator(".c-verdict").innerText()) === "Stable");
  assert.match(await page.locator(".machine").innerText(), /GiB available[\s\S]*default\s+up, pm2 7\.0\.4/);
});

test("its process shows the line, the limit and the reason of the verdict", async () => {
  const { pm_id: pmId, verdict } = await processOf("shop-api");
  assert.equal(verdict.state, "leaking");
  await visit(`#/process/default/${pmId}`);
  await page.locator(".uplot").waitFor();
  assert.equal(await page.locator(".verdict-card .badge").innerText(), "Leaking");
  assert.match(await page.locator(".verdict-card .reason").innerText(), /^[A-Z].*MiB\/h.*\.$/);
  const pixels = await painted(page, "--chart-trend");
  assert.ok(pixels > 60, `${pixels} pixels of the fitted line`);
});

test("a profile that is asked for tells which line holds the memory", async () => {
  const { pm_id: pmId } = await processOf("shop-api");
  await visit(`#/process/default/${pmId}`);
  const section = page.getByRole("region", { name: "Evidence", exact: true });
  assert.match(await section.innerText(), /A profile is taken only when somebody asks, since evidence\.on_leak is "none"/);
  await section.getByRole("button", { name: "Take a profile …" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Sample for").selectOption("30s");
  await dialog.getByRole("button", { name: "Take the profile" }).click();
  await dialog.getByText(/^Allocations of shop-api \(default\/\d+\) are sampled for 30 s while it goes on/).waitFor();
  await dialog.getByRole("button", { name: "Close" }).click();
  await section.getByText("Allocations are being sampled for 30 s.").waitFor();
  await until("the profile", 180, async () => /still alive, .* at \S+shop\.cjs:\d+ allocated [\d.]+ MiB \(\d+ %\)/.test(await section.innerText()));
  assert.match(await section.innerText(), /done · asked for by a person · sampled 30 s/i);
  assert.ok((await section.locator(".flame-box").count()) > 1);
  const { evidence } = await sidecar.json(`/api/v1/evidence?daemon=default&pm_id=${pmId}`);
  const file = await fetch(`${sidecar.url}/api/v1/evidence/${evidence[0].id}/file`);
  assert.equal(file.status, 403);
  assert.match((await file.json()).error.message, /only to who shows a token or a password/);
});

test("the CSV holds a row for each minute that was measured", async () => {
  const { pm_id: pmId } = await processOf("shop-api");
  const text = await (await fetch(`${sidecar.url}/api/v1/processes/default/${pmId}/history.csv?from=0`)).text();
  const [head, ...rows] = text.trim().split("\n");
  assert.equal(head, "time,resident_memory_bytes,heap_used_bytes,heap_total_bytes,post_gc_heap_used_bytes,major_gcs,life");
  assert.ok(rows.length > 20, String(rows.length));
  const last = rows.at(-1).split(",").map(Number);
  assert.ok(last[1] > 80 * 1048576 && last[2] < last[1], rows.at(-1));
  const file = join(sidecar.folder, "shop.csv");
  writeFileSync(file, text);
  const { code, stdout } = await sidecar.run("analyze", "--format", "json", file);
  assert.equal(code, 0, stdout);
  assert.equal(JSON.parse(stdout).samples, rows.length);
});

test("a restart that is asked for in a dry run restarts nothing and is on record", async () => {
  const before = await processOf("checkout");
  await visit(`#/process/default/${before.pm_id}`);
  await page.getByRole("button", { name: "Restart …" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText(/This is a dry run \(no policy names this app\): nothing will be restarted/).waitFor();
  await dialog.getByText(/Open connections drop/).waitFor();
  await dialog.getByLabel("Do not wait for a window").check();
  await dialog.getByRole("button", { name: "Ask for the restart" }).click();
  await dialog.getByText(/^DRY RUN \(no policy names the app\): request \d+ is recorded, and nothing will be restarted/).waitFor();
  await dialog.getByRole("button", { name: "Close" }).click();
  await visit("#/restarts");
  assert.match(await page.locator("main").innerText(), /Dry run: everything is decided and recorded, nothing is restarted\./);
  const done = page.getByRole("table", { name: "What was done" });
  await until("the record", 30, async () => /checkout[\s\S]*by person/.test(await done.innerText()));
  assert.match(await page.getByRole("table", { name: "Where each app stands" }).innerText(), /checkout\s+dry-run, not opted in/);
  assert.equal((await processOf("checkout")).pid, before.pid);
});

test("a restart is marked in the chart and begins a new life", async () => {
  const { pm_id: pmId } = await processOf("shop-api");
  await visit(`#/process/default/${pmId}`);
  const lives = page.getByRole("table", { name: "Lives of this process" }).locator("tbody tr");
  const before = await lives.count();
  await sidecar.command("restart", "shop-api");
  await until("the new life", 30, async () => (await lives.count()) === before + 1);
  assert.match((await lives.first().innerText()).replace(/\s+/g, " "), /running/);
  assert.match((await lives.nth(1).innerText()).replace(/\s+/g, " "), /restarted/);
  assert.match(await page.locator(".chart-frame").getAttribute("aria-label"), /; restart at /);
});

test("hostile names do no harm on their own pages", async () => {
  for (const app of SHOWN) {
    const { pm_id: pmId } = await processOf(app);
    await visit(`#/process/default/${pmId}`);
    await page.waitForFunction((name) => document.querySelector("#process-title bdi").textContent === name, app);
  }
  assert.match(await page.title(), /leakslope$/);
  assert.deepEqual(browser.complaints, []);
});

test("when pm2 goes the page says so, and it says when pm2 is back", async () => {
  await visit("#/");
  await sidecar.command("kill");
  await page.waitForFunction(() => document.querySelector(".daemons li")?.dataset.state === "down", null, { timeout: 30_000 });
  assert.match(await page.getByRole("heading", { level: 1 }).innerText(), /^pm2 does not answer: .+\.$/);
  await sidecar.command("start", join(sidecar.folder, "ecosystem.json"));
  await page.waitForFunction(() => document.querySelector(".daemons li")?.dataset.state === "up", null, { timeout: 30_000 });
});

// A deploy as a person sees it on the page of the real sidecar: two apps leak, a new version of each comes, one mended and
// one not. At first it is too early to say; then each gets its answer, with both versions side by side.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { open } from "./browser.mjs";
import { start, until } from "./sidecar.mjs";

const KEEP = 1600;
let sidecar;
let browser;
let page;

const processes = async () => (await sidecar.json("/api/v1/processes")).processes;
const versionsOf = async (app) => (await sidecar.json(`/api/v1/compare?daemon=default&app=${app}`)).versions;
const section = () => page.getByRole("region", { name: "Before and after a deploy" });

const visit = async (app) => {
  const { pm_id: pmId } = (await processes()).find((process) => process.app === app);
  // Another fragment alone would keep the page, and what it last heard of the versions.
  await page.goto("about:blank");
  await page.goto(`${sidecar.url}/#/process/default/${pmId}`);
  await page.locator("#connection[data-state=live]").waitFor();
  await section().waitFor();
};

before(async () => {
  // Two of the detector's minutes pass in a second, so that the two hours a version has to be watched take one minute.
  sidecar = await start([
    { name: "mended", keep: KEEP, version: "1.0.0", max_memory_restart: "2G" },
    { name: "unmended", keep: KEEP, version: "1.0.0", max_memory_restart: "2G" },
  ], "", { minute: "500ms" });
  browser = await open();
  page = browser.page;
});
after(async () => {
  await browser?.close();
  await sidecar?.close();
});

test("before a deploy there is one version and nothing to compare", async () => {
  await until("enough of the old version", 120, async () => {
    const seen = await Promise.all(["mended", "unmended"].map(versionsOf));
    return seen.every(([only]) => only && only.to - only.from > 65 && only.slope?.low > 0);
  });
  await visit("mended");
  assert.equal(await section().locator(".reason").innerText(), "Only one version has been seen so far.");
  assert.deepEqual(await section().locator("tbody th").allInnerTexts(), ["1.0.0"]);
  assert.equal(await section().locator(".badge").isVisible(), false);
});

test("right after it is too early to say, and the deploy is marked in the chart", async () => {
  await sidecar.deploy("mended", { keep: 0, version: "2.0.0" });
  await sidecar.deploy("unmended", { keep: KEEP, version: "2.0.0" });
  await until("the new versions", 60, async () => {
    const seen = await Promise.all(["mended", "unmended"].map(versionsOf));
    return seen.every((versions) => versions.length === 2);
  });
  for (const app of ["mended", "unmended"]) {
    await visit(app);
    assert.deepEqual(await section().locator("tbody th").allInnerTexts(), ["1.0.0", "2.0.0"]);
    assert.equal(await section().locator(".badge").innerText(), "Too early to say");
  }
  assert.match(await page.locator(".chart-frame").getAttribute("aria-label"), /; deploy at /);
});

test("in the end the page says which is fixed and which is not", async () => {
  for (const [app, word, reason] of [
    ["mended", "Fixed", /^Fixed: 1\.0\.0 .* MiB\/h .*, 2\.0\.0 .*\.$/],
    ["unmended", "Not fixed", /^Not fixed: 1\.0\.0 .* MiB\/h .*, 2\.0\.0 .*\.$/i],
  ]) {
    await until(`the answer on ${app}`, 240, async () => {
      const { comparison } = await sidecar.json(`/api/v1/compare?daemon=default&app=${app}`);
      return comparison.outcome !== "too_early";
    });
    await visit(app);
    assert.equal(await section().locator(".badge").innerText(), word);
    assert.match(await section().locator(".reason").innerText(), reason);
    const growth = await section().locator("tbody tr td:nth-child(5)").allInnerTexts();
    assert.equal(growth.length, 2);
    assert.ok(Number(growth[0].replace(/[^\d.-]/g, "")) > 1000, growth.join(" "));
  }
  assert.deepEqual(browser.complaints, []);
});

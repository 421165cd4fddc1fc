// The link of `leakslope open` in the browser of another user of the machine: before it the page only shows, by it it acts.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { open } from "./browser.mjs";
import { start } from "./sidecar.mjs";

const NOBODY = 65534;
let sidecar;
let browser;
let page;

before(async () => {
  sidecar = await start([{ name: "shop" }]);
  browser = await open({ user: NOBODY });
  page = browser.page;
});
after(async () => {
  await browser?.close();
  await sidecar?.close();
});

/** Opens the page afresh and returns what the view of restarts says of who may act. */
const acting = async (fragment) => {
  await page.goto("about:blank");
  await page.goto(`${sidecar.url}/${fragment}`);
  await page.locator("#connection[data-state=live]").waitFor();
  await page.getByRole("navigation").getByRole("link", { name: "Restarts" }).click();
  await page.locator("[data-acting]").waitFor();
  return page.locator("[data-acting]").evaluate((node) => node.dataset.acting);
};

test("a link lets this browser act, once, and leaves no secret in its address", async () => {
  assert.equal(await acting("#/"), "false");
  assert.match(await page.locator("main").innerText(), /User 65534 of this machine may only read: .*sudo leakslope open/i);
  const { code, stdout } = await sidecar.run("open", "--config", `${sidecar.folder}/leakslope.toml`);
  assert.equal(code, 0);
  const [, fragment] = /^http:\/\/127\.0\.0\.1:0\/(#open=[0-9a-f]{64})\n$/.exec(stdout) ?? assert.fail(stdout);
  assert.equal(await acting(fragment), "true");
  const secret = fragment.slice("#open=".length);
  assert.equal(new URL(page.url()).hash, "#/restarts");
  const seen = await page.evaluate(() => JSON.stringify([document.cookie, location.href, { ...localStorage }, { ...sessionStorage }]));
  assert.ok(!seen.includes(secret) && seen.startsWith('["",'), seen);
  await page.goBack();
  assert.ok(!page.url().includes("open="), page.url());
  assert.ok(!sidecar.log().includes(secret), sidecar.log());

  // An order of this browser is taken.
  await page.goto(`${sidecar.url}/#/process/default/0`);
  await page.getByRole("button", { name: "Restart …" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name: "Ask for the restart" }).click();
  await dialog.getByText(/request \d+ is recorded, and nothing will be restarted/).waitFor();
  await dialog.getByRole("button", { name: "Close" }).click();

  // Whoever has the link later has nothing of it; this browser stays let in after a reload.
  assert.equal(await acting("#/"), "true");
  await page.context().clearCookies();
  assert.equal(await acting(fragment), "false");
});

// What a person reads and does on the view of restarts.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { open } from "./browser.mjs";
import { start } from "./mock.mjs";

let mock;
let browser;
let page;

const visit = async () => {
  // Another fragment alone would keep the page: what is live then may be the view before.
  await page.goto("about:blank");
  await page.goto(`${mock.url}/#/restarts`);
  await page.locator("#connection[data-state=live]").waitFor();
};
const dialog = () => page.getByRole("dialog");

before(async () => {
  mock = await start();
  browser = await open();
  page = browser.page;
});
beforeEach(async () => {
  Object.assign(mock.state, { allowed: true, token: null, mode: "enforce" });
  mock.log.orders.length = 0;
  browser.complaints.length = 0;
  await page.goto("about:blank");
});
after(async () => {
  await browser?.close();
  await mock?.close();
});

test("what is asked for, what holds it and what every gate says", async () => {
  await visit();
  const request = page.locator(".request");
  assert.match(await request.innerText(), /Request 41 by leak/);
  assert.match(await request.innerText(), /Process 0 has been leaking for 5 h/);
  assert.deepEqual(await request.locator(".chip").allInnerTexts(), ["Held", "Held"]);
  await request.getByText("What every gate says").first().click();
  const gates = await request.locator(".gates").first().locator("li").allInnerTexts();
  assert.deepEqual(gates.map((text) => text.split("\n").slice(0, 2)), [["Passes", "mode"], ["Passes", "breaker"], ["Holds", "window"], ["Passes", "app budget"]]);
  assert.deepEqual(browser.complaints, []);
});

test("next window, budget, breaker and opting in of every app", async () => {
  await visit();
  const rows = await page.getByRole("table", { name: "Where each app stands" }).locator("tbody tr").allInnerTexts();
  const flat = rows.map((row) => row.replace(/\s+/g, " "));
  assert.match(flat[0], /^shop-api enforce opens Mon,? 23 Nov,? 11:13 2 left, host 60 closed Restart …$/);
  assert.match(flat[1], /Open: 2 restarts in a row freed less than 5 % of memory\. Closes Mon,? 23 Nov,? 22:13\. Close the breaker … ?Restart …$/);
  assert.match(flat[2], /^checkout dry-run, not opted in open /);
});

test("what was done, with memory before and after and the time bought", async () => {
  await visit();
  const rows = await page.getByRole("table", { name: "What was done" }).locator("tbody tr").allInnerTexts();
  assert.match(rows[0].replace(/\s+/g, " "), /shop-api #0 reload by leak verified 290 MiB → 121 MiB 2 d 6 h, \+2\.95 → \+3\.1 MiB\/h Reloaded inside its window/);
  assert.match(rows[1].replace(/\s+/g, " "), /image-worker #2 restart by person failed: unstable 402 MiB → –/);
});

test("where nobody may act the buttons are dead and the page says why", async () => {
  mock.state.allowed = false;
  await visit();
  assert.match(await page.locator("main").innerText(), /Restarts can only be asked for with a token; none is configured\./);
  for (const button of await page.locator("button.acts:visible").all()) assert.equal(await button.isDisabled(), true);
});

test("a token is asked for where one is needed, and a wrong one is refused in words", async () => {
  mock.state.token = "right";
  await visit();
  await page.getByRole("button", { name: "Restart checkout …" }).click();
  await dialog().getByLabel("Token").fill("wrong");
  await dialog().getByRole("button", { name: "Ask for the restart" }).click();
  await dialog().getByText("Not taken: this token is not known.").waitFor();
  await dialog().getByLabel("Token").fill("right");
  await dialog().getByRole("button", { name: "Ask for the restart" }).click();
  await dialog().getByText("Request 42 was taken").waitFor();
  assert.equal(mock.log.orders.length, 1);
  assert.equal(await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])), '[{},{},""]');
});

test("a dry run says that nothing will be restarted", async () => {
  mock.state.mode = "dry-run";
  await visit();
  assert.match(await page.locator("main").innerText(), /Dry run: everything is decided and recorded, nothing is restarted\./);
  await page.getByRole("button", { name: "Restart shop-api …" }).click();
  await dialog().getByText(/This is a dry run \(the mode is dry-run\): nothing will be restarted/).waitFor();
  await dialog().getByText(/One at a time pm2 reloads 2 workers/).waitFor();
});

test("a breaker is closed and a request taken back only after a question", async () => {
  await visit();
  await page.getByRole("button", { name: "Close the breaker of image-worker …" }).click();
  await dialog().getByText(/It opened because: 2 restarts in a row freed less than 5 % of memory\./).waitFor();
  await dialog().getByRole("button", { name: "Close the breaker" }).click();
  await dialog().getByText("Request 42 was taken").waitFor();
  await dialog().getByRole("button", { name: "Close", exact: true }).click();
  await page.getByRole("button", { name: "Take back …" }).click();
  await dialog().getByRole("button", { name: "Take it back" }).click();
  await dialog().getByText("Request 42 was taken").waitFor();
  assert.deepEqual(mock.log.orders.map(({ path, order }) => [path, order]), [
    ["/api/v1/restarts/breaker", { daemon: "default", app: "default/image-worker", who: "the page" }],
    ["/api/v1/restarts/withdraw", { request: 41, who: "the page" }],
  ]);
});

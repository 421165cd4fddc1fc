// The page without a mouse, without eyes, on a phone, on paper, in the dark; and what it costs.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { open } from "./browser.mjs";
import { APPS, start } from "./mock.mjs";

let mock;
let browser;
let page;
const VIEWS = ["#/", "#/process/default/0", "#/restarts"];

const visit = async (hash) => {
  // Another fragment alone would keep the page: what is live then may be the view before.
  await page.goto("about:blank");
  await page.goto(`${mock.url}/${hash}`);
  await page.locator("#connection[data-state=live]").waitFor();
};

before(async () => {
  mock = await start({ daemonDown: true });
  browser = await open();
  page = browser.page;
});
beforeEach(async () => {
  await page.setViewportSize({ width: 1320, height: 860 });
  await page.emulateMedia({ colorScheme: "light", media: "screen" });
  await page.goto("about:blank");
});
after(async () => {
  await browser?.close();
  await mock?.close();
});

test("landmarks, one main heading, and names for all that can be used", async () => {
  for (const view of VIEWS) {
    await visit(view);
    for (const role of ["banner", "navigation", "main", "contentinfo"]) assert.equal(await page.getByRole(role).count(), 1, `${view} ${role}`);
    assert.equal(await page.getByRole("heading", { level: 1 }).count(), 1, view);
    const nameless = await page.evaluate(() => [...document.querySelectorAll("button, a[href], input, select, meter, [role=region], [role=img]")]
      .filter((node) => node.checkVisibility())
      .filter((node) => !(node.getAttribute("aria-label") || node.getAttribute("aria-labelledby") || node.labels?.length || node.textContent.trim()))
      .map((node) => node.outerHTML.slice(0, 120)));
    assert.deepEqual(nameless, [], view);
    const twice = await page.evaluate(() => [...document.querySelectorAll("[id]")].map((node) => node.id).filter((id, index, all) => all.indexOf(id) !== index));
    assert.deepEqual(twice, [], view);
  }
});

test("the table is a table to a screen reader, on a phone as well", async () => {
  for (const width of [1320, 390]) {
    await page.setViewportSize({ width, height: 844 });
    await visit("#/");
    const table = page.getByRole("table");
    assert.equal(await table.getByRole("columnheader").count(), 10);
    assert.equal(await table.getByRole("rowheader", { name: /^image-worker/ }).count(), 1);
    assert.equal(await table.getByRole("row").count(), APPS.length + 3);
  }
});

test("everything can be reached with the keyboard, with a ring around it", async () => {
  await visit("#/");
  const reached = new Set();
  for (let press = 0; press < 60; press += 1) {
    await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => {
      const node = document.activeElement;
      if (node === document.body) return null;
      const style = getComputedStyle(node);
      return { label: node.getAttribute("aria-label") ?? node.id ?? node.textContent, text: node.textContent.trim(), ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 };
    });
    if (!stop) break;
    assert.equal(stop.ring, true, JSON.stringify(stop));
    reached.add(stop.text || stop.label);
  }
  for (const wanted of ["Skip to the content", "Restarts", "filter", "image-worker", "nightly-report", "Metrics"]) assert.ok(reached.has(wanted), `${wanted} in ${[...reached]}`);
  await page.getByRole("link", { name: "image-worker" }).focus();
  await page.keyboard.press("Enter");
  await page.locator("#process-title").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
});

test("the skip button moves to the content and changes no address", async () => {
  await visit("#/restarts");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  assert.equal(new URL(page.url()).hash, "#/restarts");
});

/** Contrast of every text against what is painted behind it, by WCAG's formula. */
const contrast = () => page.evaluate(() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
  const light = ({ r, g, b }) => [r, g, b].map((part) => part / 255).map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) { const colour = parse(getComputedStyle(at).backgroundColor); if (colour.a === 1) return colour; }
    return parse("255, 255, 255");
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.textContent.trim() || !node.checkVisibility() || node.closest(".unseen, .skip, symbol, :disabled")) continue;
    const [front, back] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${text.textContent.trim().slice(0, 40)}`);
  }
  return poor;
});

test("text stands out from its ground by 4.5 to 1, in light and in dark", async () => {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    for (const view of VIEWS) {
      await visit(view);
      assert.deepEqual(await contrast(), [], `${colorScheme} ${view}`);
    }
  }
});

test("on a phone nothing is cut off and buttons are big enough for a thumb", async () => {
  await page.setViewportSize({ width: 360, height: 740 });
  for (const view of VIEWS) {
    await visit(view);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth), view);
    const small = await page.evaluate(() => [...document.querySelectorAll("button, select, input[type=search], .button")]
      .filter((node) => node.checkVisibility() && !node.closest(".unseen, .flame, thead"))
      .filter((node) => node.getBoundingClientRect().height < 36).map((node) => node.outerHTML.slice(0, 80)));
    assert.deepEqual(small, [], view);
  }
  await visit("#/");
  await page.getByLabel("Sort by").selectOption("resident");
  assert.equal(await page.locator(".process-link").first().innerText(), "search");
});

test("on paper the facts remain and the controls are gone", async () => {
  await visit("#/");
  await page.emulateMedia({ media: "print", colorScheme: "dark" });
  assert.equal(await page.getByRole("searchbox").isVisible(), false);
  assert.equal(await page.getByRole("heading", { level: 1 }).isVisible(), true);
  assert.equal(await page.getByRole("columnheader", { name: "Growth" }).isVisible(), true);
  assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(255, 255, 255)");
  const pdf = await page.pdf({ format: "A4" });
  assert.equal(pdf.subarray(0, 4).toString(), "%PDF");
});

test("the first visit loads less than 90 KB and nothing from elsewhere", async () => {
  browser.complaints.length = 0;
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  await session.send("Network.setCacheDisabled", { cacheDisabled: true });
  let bytes = 0;
  session.on("Network.loadingFinished", (event) => { bytes += event.encodedDataLength; });
  await visit("#/");
  await session.detach();
  assert.ok(bytes > 30_000 && bytes < 90_000, String(bytes));
  assert.deepEqual(browser.complaints, []);
});

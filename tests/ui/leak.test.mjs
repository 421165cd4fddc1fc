// A page that watches for leaks must not leak: a day's worth of updates (one every 15 seconds is 5,760), and the heap
// after a collection is what it was.

import assert from "node:assert/strict";
import { test } from "node:test";
import { open } from "./browser.mjs";
import { start } from "./mock.mjs";

const UPDATES = 5_760;

const measure = async (session) => {
  await session.send("HeapProfiler.collectGarbage");
  await session.send("HeapProfiler.collectGarbage");
  const { metrics } = await session.send("Performance.getMetrics");
  const of = (name) => metrics.find((metric) => metric.name === name).value;
  return { heap: of("JSHeapUsedSize"), nodes: of("Nodes"), listeners: of("JSEventListeners") };
};

test(`${UPDATES} updates leave the page as small as it was`, async (context) => {
  const mock = await start();
  const browser = await open();
  try {
    const { page } = browser;
    await page.goto(`${mock.url}/#/`);
    await page.locator("#connection[data-state=live]").waitFor();
    const session = await page.context().newCDPSession(page);
    await session.send("Performance.enable");
    /** Updates with new figures each time; every tenth turns to another view, as a person would. */
    const update = async (times) => {
      for (let done = 0; done < times; done += 120) {
        mock.state.step = 15;
        await page.evaluate(async (count) => {
          const { refresh } = await import("/static/app.js");
          const views = ["#/", "#/process/default/0", "#/", "#/restarts", "#/", "#/process/default/3"];
          for (let turn = 0; turn < count; turn += 1) {
            if (turn % 10 === 0) location.hash = views[(turn / 10) % views.length];
            await refresh();
          }
        }, 120);
      }
    };
    await update(600);
    const before = await measure(session);
    await update(UPDATES / 2);
    const half = await measure(session);
    await update(UPDATES / 2);
    const after = await measure(session);
    const [first, second] = [half.heap - before.heap, after.heap - half.heap].map((bytes) => Math.round(bytes / 1024));
    context.diagnostic(`heap ${(before.heap / 1048576).toFixed(2)} MiB, then ${first} KiB in the first half and ${second} KiB in the second; `
      + `nodes ${before.nodes} → ${after.nodes}, listeners ${before.listeners} → ${after.listeners}`);
    // The engine settles in the first half (inline caches, compiled code); what grows on and on is a leak.
    assert.ok(first < 512 && second < 160, `the heap grew by ${first} and then by ${second} KiB`);
    assert.ok(after.nodes <= before.nodes + 50, `${before.nodes} → ${after.nodes} nodes`);
    assert.ok(after.listeners <= before.listeners + 20, `${before.listeners} → ${after.listeners} listeners`);
    assert.deepEqual(browser.complaints, []);
  } finally {
    await browser.close();
    await mock.close();
  }
});

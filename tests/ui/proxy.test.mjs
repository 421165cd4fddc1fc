// The page behind a reverse proxy that serves it below a path of its own: every view, every order and every download stays
// below that path.

import assert from "node:assert/strict";
import { createServer, request as ask } from "node:http";
import { after, before, test } from "node:test";
import { open } from "./browser.mjs";
import { start } from "./mock.mjs";

const PREFIX = "/tools/leaks";
let mock;
let proxy;
let browser;
let page;
const strayed = [];

before(async () => {
  mock = await start();
  proxy = createServer((request, response) => {
    if (!request.url.startsWith(`${PREFIX}/`)) {
      // A browser asks for the icon of a host on its own.
      if (request.url !== "/favicon.ico") strayed.push(request.url);
      response.writeHead(404).end();
      return;
    }
    const { method, headers } = request;
    const beyond = ask(mock.url + request.url.slice(PREFIX.length), { method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    request.pipe(beyond);
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  browser = await open({ acceptDownloads: true });
  page = browser.page;
});
after(async () => {
  await browser?.close();
  proxy?.closeAllConnections();
  proxy?.close();
  await mock?.close();
});

test("everything works below the path and nothing is asked for beyond it", async () => {
  await page.goto(`http://127.0.0.1:${proxy.address().port}${PREFIX}/`);
  await page.locator("#connection[data-state=live]").waitFor();
  await page.getByRole("link", { name: "image-worker" }).click();
  await page.locator(".uplot").waitFor();
  await page.getByRole("region", { name: "Before and after a deploy" }).waitFor();
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "CSV" }).click()]);
  assert.match(new URL(download.url()).pathname, /^\/tools\/leaks\/api\/v1\/processes\/default\/2\/history\.csv$/);
  await page.getByRole("button", { name: "Restart …" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Ask for the restart" }).click();
  await page.getByText("Request 42 was taken").waitFor();
  assert.deepEqual(mock.log.orders.map(({ path }) => path), ["/api/v1/restarts"]);
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  await page.getByRole("link", { name: "Restarts" }).click();
  await page.locator(".request").first().waitFor();
  for (const link of ["Metrics", "API"]) {
    assert.match(await page.getByRole("contentinfo").getByRole("link", { name: link }).evaluate((node) => node.href), /\/tools\/leaks\/(metrics|api\/v1\/processes)$/);
  }
  assert.deepEqual(strayed, []);
  assert.deepEqual(browser.complaints, []);
});

// Debian's Chromium, started afresh for each test with a folder of its own, silent on the network.

import { chownSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"];

/** Opens a browser, as another `user` of the machine where one is given. Every complaint of the page (exceptions, refused
 * loads, console errors) is gathered in `complaints`. */
export const open = async ({ user, ...options } = {}) => {
  if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is missing: apt-get install --yes chromium`);
  const folder = mkdtempSync(join(tmpdir(), "leakslope-chromium-"));
  let executablePath = CHROMIUM;
  if (user !== undefined) {
    executablePath = join(folder, "as-user");
    writeFileSync(executablePath, `#!/bin/sh\nHOME=${folder} exec setpriv --reuid ${user} --regid ${user} --clear-groups ${CHROMIUM} "$@"\n`, { mode: 0o755 });
    chownSync(folder, user, user);
  }
  const context = await chromium.launchPersistentContext(folder, {
    executablePath, args: FLAGS, viewport: { width: 1320, height: 860 }, locale: "en-GB", timezoneId: "UTC", reducedMotion: "reduce", ...options,
  });
  const page = context.pages()[0] ?? (await context.newPage());
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`exception: ${error.message}`));
  page.on("console", (message) => { if (message.type() === "error") complaints.push(`console: ${message.text()} ${message.location().url}`); });
  page.on("request", (request) => { if (!/^(http:\/\/127\.0\.0\.1|blob:|data:)/.test(request.url())) complaints.push(`foreign: ${request.url()}`); });
  return { page, context, complaints, close: async () => { await context.close(); rmSync(folder, { recursive: true, force: true }); } };
};

/** How many pixels of the chart are painted in the colour of a custom property, or nearly so. */
export const painted = (page, property) => page.locator(".uplot canvas").evaluate((canvas, name) => {
  const [r, g, b] = getComputedStyle(document.documentElement).getPropertyValue(name).match(/[0-9a-f]{2}/g).map((part) => parseInt(part, 16));
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let near = 0;
  for (let at = 0; at < data.length; at += 4) {
    near += data[at + 3] > 200 && Math.hypot(data[at] - r, data[at + 1] - g, data[at + 2] - b) < 24 ? 1 : 0;
  }
  return near;
}, property);

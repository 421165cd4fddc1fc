// Debian's Chromium, started afresh for each test with a folder of its own, silent on the network.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"];

/** Opens a browser. Every complaint of the page (exceptions, refused loads, console errors) is gathered in `complaints`. */
export const open = async (options = {}) => {
  if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is missing: apt-get install --yes chromium`);
  const folder = mkdtempSync(join(tmpdir(), "leakslope-chromium-"));
  const context = await chromium.launchPersistentContext(folder, {
    executablePath: CHROMIUM, args: FLAGS, viewport: { width: 1320, height: 860 }, locale: "en-GB", timezoneId: "UTC", reducedMotion: "reduce", ...options,
  });
  const page = context.pages()[0] ?? (await context.newPage());
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`exception: ${error.message}`));
  page.on("console", (message) => { if (message.type() === "error") complaints.push(`console: ${message.text()} ${message.location().url}`); });
  page.on("request", (request) => { if (!/^(http:\/\/127\.0\.0\.1|blob:|data:)/.test(request.url())) complaints.push(`foreign: ${request.url()}`); });
  return { page, context, complaints, close: async () => { await context.close(); rmSync(folder, { recursive: true, force: true }); } };
};

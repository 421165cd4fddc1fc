// Makes the pictures of the page for the README: the sidecar itself beside a real pm2, with time compressed (a minute of
// its history passes in a second). Run it as `node tests/ui/pictures.mjs [FOLDER]`; the folder is docs/images if not told.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { open } from "./browser.mjs";
import { start, until } from "./sidecar.mjs";

const folder = process.argv[2] ?? fileURLToPath(new URL("../../docs/images/", import.meta.url));
mkdirSync(folder, { recursive: true });

const sidecar = await start([
  { name: "shop-api", keep: 1900, version: "2.4.0", max_memory_restart: "320M" },
  { name: "checkout", version: "5.1.2" },
  { name: "search", version: "1.18.0", keep: 3000, until: 25 },
  { name: "image-worker", version: "0.9.3", args: "quiet" },
  { name: "mailer", version: "3.0.1", args: "quiet" },
], `[restart]
mode = "dry-run"
[[restart.policy]]
apps = ["shop-*"]
leak = { for = "1s" }
[[restart.policy.windows]]
days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
start = "03:00"
length = "1h"
`);
const browser = await open({ deviceScaleFactor: 2 });
const { page } = browser;
const shown = async (hash, what, width, height, colorScheme = "light") => {
  await page.emulateMedia({ colorScheme });
  await page.setViewportSize({ width, height });
  await page.goto("about:blank");
  await page.goto(`${sidecar.url}/${hash}`);
  await page.locator("#connection[data-state=live]").waitFor();
  await page.locator(what).first().waitFor();
};
const take = async (name) => {
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path });
  console.log(path);
};
try {
  await shown("#/", ".processes", 1280, 640);
  await until("the leak", 240, async () => (await page.locator(".headline").getAttribute("data-state")) === "leaking");
  const first = (await sidecar.json("/api/v1/processes")).processes.find((process) => process.app === "shop-api");
  await page.waitForFunction(() => document.querySelectorAll("tr[data-state=stable]").length === 4, null, { timeout: 60_000 });
  await take("overview");
  for (const [name, scheme] of [["process", "light"], ["process-dark", "dark"]]) {
    await shown(`#/process/default/${first.pm_id}`, ".uplot", 1280, 1100, scheme);
    await take(name);
  }
  await shown("#/", ".processes", 390, 844);
  await take("phone");
  await shown("#/restarts", ".request", 1280, 1000);
  await take("restarts");
} finally {
  await browser.close();
  await sidecar.close();
}

// Makes the pictures of the page for the README out of `leakslope demo`, beside the pinned pm2: what they show is what a
// newcomer sees. Run it as `./tests/run pictures` or `node tests/ui/pictures.mjs [FOLDER]`; the folder is docs/images if not told.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { open } from "./browser.mjs";
import { BINARY, PM2, until } from "./sidecar.mjs";

const folder = process.argv[2] ?? fileURLToPath(new URL("../../docs/images/", import.meta.url));
mkdirSync(folder, { recursive: true });

const demo = spawn(BINARY, ["demo", "--web.listen-address", "127.0.0.1:0", "--duration", "8m", "--pm2", `${process.execPath} ${PM2}`],
  { stdio: ["ignore", "pipe", "inherit"] });
const ended = once(demo, "exit");
let said = "";
demo.stdout.on("data", (chunk) => { said += chunk; process.stdout.write(chunk); });
const told = (what, seconds, pattern) => until(what, seconds, async () => {
  if (demo.exitCode !== null) throw new Error("the demo has ended");
  return pattern.exec(said);
});
const browser = await open({ deviceScaleFactor: 2 });
const { page } = browser;
/** Takes a picture of a view once `what` is there. */
const pictures = (url) => async (name, hash, what, width, height, colorScheme = "light") => {
  await page.emulateMedia({ colorScheme });
  await page.setViewportSize({ width, height });
  await page.goto("about:blank");
  await page.goto(`${url}/${hash}`);
  await page.locator("#connection[data-state=live]").waitFor();
  await page.locator(what).first().waitFor();
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path });
  console.log(path);
};
try {
  const [, url] = await told("the page's address", 30, /The page: (http:\/\/[^/]+)\//);
  const picture = pictures(url);
  await told("the leak", 300, /LEAKING: .*/);
  for (const [suffix, scheme] of [["", "light"], ["-dark", "dark"]]) {
    await picture(`overview${suffix}`, "#/", ".processes", 1280, 560, scheme);
    await picture(`process${suffix}`, "#/process/default/0", ".uplot", 1280, 1100, scheme);
  }
  await picture("phone", "#/", ".processes", 390, 844);
  await picture("restarts", "#/restarts", ".request", 1280, 1000);
} finally {
  await browser.close();
  demo.kill("SIGINT");
  await ended;
}

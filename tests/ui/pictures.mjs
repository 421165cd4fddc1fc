// Makes the pictures of the page, beside the pinned pm2: those of the README out of `leakslope demo`, so that they show what a
// newcomer sees, and those of docs/evidence.md out of its worked example. Run it as `./tests/run pictures` or
// `node tests/ui/pictures.mjs [demo|example] [FOLDER]`; both and docs/images if not told.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { open } from "./browser.mjs";
import { BINARY, PM2, start, until } from "./sidecar.mjs";

const folder = process.argv.slice(2).find((word) => !["demo", "example"].includes(word)) ?? fileURLToPath(new URL("../../docs/images/", import.meta.url));
mkdirSync(folder, { recursive: true });

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
/** The pictures of the README. */
const ofTheDemo = async () => {
  const demo = spawn(BINARY, ["demo", "--web.listen-address", "127.0.0.1:0", "--duration", "8m", "--pm2", `${process.execPath} ${PM2}`],
    { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(demo, "exit");
  let said = "";
  demo.stdout.on("data", (chunk) => { said += chunk; process.stdout.write(chunk); });
  const told = (what, seconds, pattern) => until(what, seconds, async () => {
    if (demo.exitCode !== null) throw new Error("the demo has ended");
    return pattern.exec(said);
  });
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
    demo.kill("SIGINT");
    await ended;
  }
};

/** The pictures of the worked example: a leak that is found, profiled by itself, and asked about once more. */
const ofTheExample = async () => {
  const sidecar = await start([{ name: "shop", source: "visitors.cjs", version: "2.4.0", max_memory_restart: "2G" }],
    '[[app]]\nname = "*"\nmemory_limit = "512MiB"\n[evidence]\non_leak = "profile"\nduration = "30s"\n');
  try {
    const picture = pictures(sidecar.url);
    const taken = await until("a profile of the leak", 400, async () => {
      const { evidence } = await sidecar.json("/api/v1/evidence?daemon=default&pm_id=0");
      return evidence.find((item) => item.trigger === "leak" && item.state === "done");
    });
    console.log(taken.sentence);
    await picture("evidence-verdict", "#/process/default/0", ".uplot", 1280, 560);
    await picture("evidence", `#/process/default/0/${encodeURIComponent(taken.id)}`, ".evidence .flame", 1280, 520);
    await page.getByRole("button", { name: "Take a profile …" }).click();
    await page.getByRole("dialog").waitFor();
    const path = join(folder, "evidence-dialog.png");
    await page.screenshot({ path });
    console.log(path);
  } finally {
    await sidecar.close();
  }
};

const parts = { demo: ofTheDemo, example: ofTheExample };
const wanted = process.argv.slice(2).filter((word) => word in parts);
try {
  for (const part of wanted.length > 0 ? wanted : Object.keys(parts)) await parts[part]();
} finally {
  await browser.close();
}

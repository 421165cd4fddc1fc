// The sidecar itself beside a real pm2 with real apps, in a folder of its own, with time compressed: a minute of its
// history passes in a second. Everything that is started here is ended by `close`.

import { execFile, spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
export const PM2 = `${ROOT}tests/pm2/node_modules/pm2-7/bin/pm2`;
export const BINARY = process.env.LEAKSLOPE ?? `${ROOT}target/debug/leakslope`;
const APPS = fileURLToPath(new URL("apps/", import.meta.url));

/** Asks until there is an answer that is not null; fails with `what` after the deadline. */
export const until = async (what, seconds, ask) => {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const answer = await ask().catch(() => null);
    if (answer !== null && answer !== undefined && answer !== false) return answer;
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
};

/** Every process that was started with a pm2 home: the daemon, its apps and theirs. */
const processesOf = (home) => readdirSync("/proc").filter((entry) => /^\d+$/.test(entry)).filter((pid) => {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(`PM2_HOME=${home}`);
  } catch {
    return false;
  }
}).map(Number);

/**
 * Starts pm2 with `apps` (`{ name, keep, until, version, … }` and whatever else pm2 takes) and the sidecar beside it. An app
 * is the script `source` of `apps`; `shop.cjs` keeps `keep` KiB a second, for as many seconds as `until` says. A minute of the history passes in `minute`.
 */
export const start = async (apps, configuration = "", { minute = "1s" } = {}) => {
  if (!existsSync(PM2)) throw new Error(`${PM2} is missing: npm ci --prefix tests/pm2`);
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is missing: cargo build`);
  // A socket's path is short by nature, so is the folder's name.
  const folder = mkdtempSync("/tmp/lsu-");
  const home = join(folder, "pm2");
  const env = { ...process.env, PM2_HOME: home, PM2_DISCRETE_MODE: "true", HOME: folder, STATE_DIRECTORY: join(folder, "state") };
  mkdirSync(join(folder, "state"));
  const command = (...args) => promisify(execFile)(process.execPath, [PM2, ...args], { env, cwd: folder, timeout: 60_000 });
  let sidecar = null;
  const close = async () => {
    sidecar?.kill("SIGKILL");
    // The daemon revives what is killed before it, so again until nobody is left.
    await until("pm2's end", 20, async () => {
      const left = processesOf(home);
      for (const pid of left) try { process.kill(pid, "SIGKILL"); } catch { /* It has ended by itself. */ }
      return left.length === 0;
    });
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const ecosystem = apps.map(({ keep = 0, until: end = 1e9, version = "1.0.0", source = "shop.cjs", ...app }, index) => {
      // pm2 takes the version from the package.json beside the script.
      const place = join(folder, `app-${index}`);
      mkdirSync(place);
      writeFileSync(join(place, "package.json"), JSON.stringify({ name: "shop", version }));
      copyFileSync(join(APPS, source), join(place, source));
      return { script: join(place, source), cwd: place, env: { KEEP: String(keep), UNTIL: String(end) }, max_memory_restart: "512M", ...app };
    });
    writeFileSync(join(folder, "ecosystem.json"), JSON.stringify({ apps: ecosystem }));
    await command("start", "ecosystem.json");
    writeFileSync(join(folder, "leakslope.toml"), `interval = "1s"
[[pm2]]
name = "default"
home = ${JSON.stringify(home)}
[collect]
heap_interval = "250ms"
[web]
listen_address = "127.0.0.1:0"
[trend]
minute = "${minute}"
${configuration}`);
    let log = "";
    sidecar = spawn(BINARY, ["run", "--config", join(folder, "leakslope.toml")], { env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [sidecar.stdout, sidecar.stderr]) stream.on("data", (chunk) => { log += chunk; });
    const url = await until("the sidecar's address", 20, async () => {
      if (sidecar.exitCode !== null) throw new Error(log);
      return /http:\/\/127\.0\.0\.1:\d+/.exec(log)?.[0];
    }).catch((error) => { throw new Error(`${error.message}\n${log}`); });
    const json = async (path) => (await fetch(url + path)).json();
    /** Runs one of the binary's other commands; the exit code and what it printed. */
    const run = (...args) => new Promise((resolve) => {
      execFile(BINARY, args, { env, cwd: folder, timeout: 60_000 }, (error, stdout) => resolve({ code: error?.code ?? 0, stdout }));
    });
    /** Puts a new version of an app in place of the old one, as a deploy does. */
    const deploy = async (name, { keep, version }) => {
      const app = ecosystem.find((entry) => entry.name === name);
      writeFileSync(join(app.cwd, "package.json"), JSON.stringify({ name: "shop", version }));
      app.env.KEEP = String(keep);
      writeFileSync(join(folder, "deploy.json"), JSON.stringify({ apps: [app] }));
      await command("restart", "deploy.json", "--update-env");
    };
    return { url, json, command, run, deploy, close, log: () => log, folder };
  } catch (error) {
    await close();
    throw error;
  }
};

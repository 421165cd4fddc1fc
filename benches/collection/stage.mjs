// The stage that measurements and fault trials share: what is started here is ended by `tidy`, the last first. Everything
// runs under /tmp and on 127.0.0.1.
import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { available, withEnvironment } from './proc.mjs';

const here = dirname(fileURLToPath(import.meta.url));
/** The project's folder. */
export const root = resolve(here, '../..');
/** The pm2 that measurements run against. */
const BENCH_PM2 = join(here, 'node_modules/pm2/bin/pm2');

/**
 * Reads `--name=value` or `--name value` over these defaults; anything else is refused. `--quick` puts other defaults first, where
 * there are any.
 */
export function readOptions(defaults, quick = null) {
  const given = {};
  let isQuick = false;
  const words = process.argv.slice(2);
  while (words.length > 0) {
    const word = words.shift();
    if (word === '--quick' && quick !== null) {
      isQuick = true;
      continue;
    }
    const [, name, value = words.shift()] = /^--([a-z]+)(?:=(.+))?$/.exec(word) ?? [];
    if (!(name in defaults) || value === undefined) {
      const known = Object.keys(defaults).concat(quick === null ? [] : ['quick']);
      throw new Error(`unknown argument ${word}; known: ${known.map((each) => `--${each}`).join(', ')}`);
    }
    given[name] = value;
  }
  return { ...defaults, ...(isQuick ? quick : {}), ...given };
}

export const say = (text) => console.error(`${new Date().toISOString().slice(11, 19)} ${text}`);
export const pause = (seconds) => new Promise((wake) => setTimeout(wake, seconds * 1000));

/** What has to be undone, the last first. */
const undo = [];

export function onTidy(action) {
  undo.push(action);
}

export async function tidy() {
  while (undo.length > 0) await undo.pop()();
}

/** Runs to the end or to a signal and leaves nothing behind. */
export async function onStage(main) {
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => tidy().finally(() => process.exit(1)));
  try {
    await main();
  } finally {
    await tidy();
  }
}

export function folder(prefix) {
  const path = mkdtempSync(join(tmpdir(), prefix));
  undo.push(() => rmSync(path, { recursive: true, force: true, maxRetries: 5 }));
  return path;
}

/** Starts a process that is ended with the rest; resolves once its output shows `sign`. With `channel` it takes messages. */
export async function start(command, args, env, log, sign, { channel = false } = {}) {
  const file = openSync(log, 'w');
  const stdio = ['ignore', file, file, ...(channel ? ['ipc'] : [])];
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio, cwd: dirname(log) });
  closeSync(file);
  const ended = new Promise((resolve_) => child.once('exit', resolve_));
  const stop = async (signal = 'SIGTERM') => {
    child.kill(signal);
    const killer = setTimeout(() => child.kill('SIGKILL'), 6000);
    await ended;
    clearTimeout(killer);
  };
  undo.push(() => stop());
  for (let waited = 0; !sign.test(readFileSync(log, 'utf8')); waited += 0.1) {
    if (waited > 60 || child.exitCode !== null || child.signalCode !== null) {
      throw new Error(`${command} ${args}: ${readFileSync(log, 'utf8')}`);
    }
    await pause(0.1);
  }
  return { child, pid: child.pid, log, stop, match: sign.exec(readFileSync(log, 'utf8')) };
}

/** A port that nobody listens on now. */
export function freePort() {
  return new Promise((resolve_) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve_(port));
    });
  });
}

/** Runs a command of the pm2 at this path; resolves with what it printed. */
export async function pm2(home, args, command = BENCH_PM2) {
  const env = { ...process.env, PM2_HOME: home, PM2_DISCRETE_MODE: 'true', PORT: '0' };
  const { stdout } = await promisify(execFile)('node', [command, '-s', ...args], { env, cwd: here, maxBuffer: 1 << 28, timeout: 600_000 });
  return stdout;
}

/** Ends every process that was started with this home at once. */
export function killAll(home) {
  for (const pid of withEnvironment(`PM2_HOME=${home}`)) {
    try { process.kill(pid, 'SIGKILL'); } catch { /* It has ended by itself. */ }
  }
}

/** A home for real daemons of the pm2 at this path, ended with everything they started. */
export function pm2Home(command = BENCH_PM2) {
  const home = join(folder('leakslope-pm2-'), '.pm2');
  undo.push(() => {
    spawnSync('node', [command, '-s', 'kill'], { env: { ...process.env, PM2_HOME: home }, timeout: 60_000 });
    killAll(home);
  });
  return home;
}

/** Processes that are started together, so that a machine with few cores gets them online in time. */
const BATCH = 50;
/** No more processes are started where less than this would stay available: others may work on the machine. */
const SPARE_MEBIBYTES = 4096;
/** How long a batch may take to be online. */
const ONLINE_SECONDS = 600;

/** Waits until so many processes are online and report their own metrics; with which of the daemon's list. */
async function online(home, count) {
  for (let waited = 0; ; waited += 3) {
    const list = JSON.parse((await pm2(home, ['jlist'])).split('\n').at(-1));
    const settled = list.filter((entry) => entry.pm2_env.status === 'online'
      && 'Event Loop Latency p95' in (entry.pm2_env.axm_monitor ?? {}));
    if (settled.length === count) return;
    if (waited > ONLINE_SECONDS) throw new Error(`${settled.length} of ${count} processes are online`);
    await pause(3);
  }
}

/** A real daemon with `count` real processes, or with as many as leave the machine memory to spare: `count` tells. */
export async function realDaemon(count) {
  const home = pm2Home();
  const script = join(here, 'app.js');
  await pm2(home, ['start', script, '--name', 'app', '-i', '1', '-f']);
  await pm2(home, ['delete', 'app']);
  const apps = join(dirname(home), 'apps.json');
  const before = available();
  for (let started = 0; started < count;) {
    const batch = Math.min(BATCH, count - started);
    const each = started > 0 ? (before - available()) / started : 0;
    if (started > 0 && available() - each * batch < SPARE_MEBIBYTES) {
      say(`${started} processes of ${each.toFixed(1)} MiB are what leaves ${SPARE_MEBIBYTES} MiB available`);
      return { home, count: started };
    }
    writeFileSync(apps, JSON.stringify({ apps: [{ name: `app-${started / BATCH}`, script, instances: batch, exec_mode: 'fork' }] }));
    await pm2(home, ['start', apps]);
    started += batch;
    await online(home, started);
    if (count > BATCH) say(`${started} of ${count} processes are online, ${available().toFixed(0)} MiB available`);
  }
  return { home, count };
}

/** A sidecar that listens on a port of the system's choice. */
export async function sidecar(binary, home, configuration) {
  const place = folder('leakslope-sidecar-');
  mkdirSync(join(place, 'state'));
  writeFileSync(join(place, 'leakslope.toml'), configuration);
  const env = { PM2_HOME: home, XDG_STATE_HOME: join(place, 'state'), HOME: place, STATE_DIRECTORY: '' };
  const args = ['--config', join(place, 'leakslope.toml'), '--web.listen-address', '127.0.0.1:0'];
  const started = await start(binary, args, env, join(place, 'log'), /on http:\/\/127\.0\.0\.1:(\d+)\//);
  return { ...started, place, port: Number(started.match[1]) };
}

/** npm's exporter on the same daemon. */
export async function pm2Metrics(home) {
  const [place, port] = [folder('leakslope-peer-'), await freePort()];
  const env = { PM2_HOME: home, name: 'pm2-metrics', 'pm2-metrics': JSON.stringify({ port, host: '127.0.0.1' }) };
  const script = join(here, 'node_modules/pm2-metrics/exporter.js');
  return { ...await start('node', [script], env, join(place, 'log'), /listening at/), port };
}

/** A server that does nothing but send so many bytes. */
export async function bareServer(bytes) {
  const place = folder('leakslope-bare-');
  const started = await start('node', [join(here, 'bare.mjs'), String(bytes)], {}, join(place, 'log'), /listening at (\d+)/);
  return { ...started, port: Number(started.match[1]) };
}

/** A daemon that lists processes that do not exist; `send` a number to it to have it list so many, `lists` asks how often it has. */
export async function fakeDaemon(count, variables = 40) {
  const home = folder('leakslope-fake-');
  const args = [join(here, 'fake_daemon.mjs'), join(home, 'rpc.sock'), String(count), String(variables)];
  const started = await start('node', args, {}, join(home, 'log'), /listening/, { channel: true });
  const lists = () => new Promise((resolve_) => {
    started.child.once('message', resolve_);
    started.child.send('lists');
  });
  return { ...started, home, send: (message) => started.child.send(message), lists };
}

/** Installs and builds what is missing. */
export function prepare(binary) {
  if (!existsSync(join(here, 'node_modules/pm2-metrics'))) {
    say('npm ci');
    execFileSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: here, stdio: 'inherit' });
  }
  if (!existsSync(binary)) {
    say('cargo build --profile dist');
    execFileSync('cargo', ['build', '--release', '--locked'], { cwd: root, stdio: 'inherit' });
  }
}

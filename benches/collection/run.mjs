// What watching costs: one collection against `pm2 jlist`, and the sidecar against npm's pm2-metrics beside it on the same
// daemon, with real pm2 and real processes; then scrapes with a thousand processes from a fake daemon.
//
//   node benches/collection/run.mjs [--sizes=10,50,200] [--fake=1000] [--history=50] [--span=300] [--collections=60]
//                                   [--commands=10] [--scrapes=1000] [--nice=0] [--sidecar=target/release/leakslope]
//
// Prints Markdown tables and whether the aims are met. Everything runs under /tmp and on 127.0.0.1 and is ended after. On a
// machine that others use too, a negative --nice (as root) puts everything that is measured, the peers and the scraper
// included, before them.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setPriority, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CpuMeter, load, machine, mebibytes, withEnvironment } from './proc.mjs';
import { Scraper, latencies } from './scrape.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, '../..');
const options = { sizes: '10,50,200', fake: '1000', history: '50', span: '300', collections: '60', commands: '10',
  scrapes: '1000', nice: '0', sidecar: 'target/release/leakslope' };
for (const argument of process.argv.slice(2)) {
  const [, name, value] = /^--([a-z]+)=(.+)$/.exec(argument) ?? [];
  if (!(name in options)) throw new Error(`unknown argument ${argument}; known: ${Object.keys(options).join(', ')}`);
  options[name] = value;
}
const number = (name) => Number(options[name]);
const sidecarBinary = resolve(root, options.sidecar);
const pm2Command = join(here, 'node_modules/pm2/bin/pm2');
/** How often both are scraped while they run side by side: Prometheus' usual pace. */
const SCRAPE_EVERY = 15;

const say = (text) => console.error(`${new Date().toISOString().slice(11, 19)} ${text}`);
const pause = (seconds) => new Promise((wake) => setTimeout(wake, seconds * 1000));

/** What has to be undone, the last first. */
const undo = [];
async function tidy() {
  while (undo.length > 0) await undo.pop()();
}

function folder(prefix) {
  const path = mkdtempSync(join(tmpdir(), prefix));
  undo.push(() => rmSync(path, { recursive: true, force: true, maxRetries: 5 }));
  return path;
}

/** Starts a process that is ended with the rest; resolves once its output shows `sign`. */
async function start(command, args, env, log, sign) {
  const file = openSync(log, 'w');
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', file, file], cwd: dirname(log) });
  const ended = new Promise((resolve_) => child.once('exit', resolve_));
  const stop = async () => {
    child.kill('SIGTERM');
    const killer = setTimeout(() => child.kill('SIGKILL'), 6000);
    await ended;
    clearTimeout(killer);
  };
  undo.push(stop);
  for (let waited = 0; !sign.test(readFileSync(log, 'utf8')); waited += 0.1) {
    if (waited > 60 || child.exitCode !== null) throw new Error(`${command} ${args}: ${readFileSync(log, 'utf8')}`);
    await pause(0.1);
  }
  return { child, pid: child.pid, log, stop, match: sign.exec(readFileSync(log, 'utf8')) };
}

function freePort() {
  return new Promise((resolve_) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve_(port));
    });
  });
}

function pm2(home, ...args) {
  const env = { ...process.env, PM2_HOME: home, PM2_DISCRETE_MODE: 'true', PORT: '0' };
  return execFileSync('node', [pm2Command, '-s', ...args], { env, cwd: here, stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: 1 << 28, timeout: 600_000 });
}

/** A real daemon with `count` real processes; ended with everything it started. */
async function realDaemon(count) {
  const home = join(folder('leakslope-bench-'), '.pm2');
  const script = join(here, 'app.js');
  undo.push(async () => {
    spawnSync('node', [pm2Command, '-s', 'kill'], { env: { ...process.env, PM2_HOME: home }, timeout: 60_000 });
    for (const pid of withEnvironment(`PM2_HOME=${home}`)) {
      try { process.kill(pid, 'SIGKILL'); } catch { /* It has ended by itself. */ }
    }
  });
  pm2(home, 'start', script, '--name', 'app', '-i', '1', '-f');
  pm2(home, 'delete', 'app');
  writeFileSync(join(dirname(home), 'apps.json'),
    JSON.stringify({ apps: [{ name: 'app', script, instances: count, exec_mode: 'fork' }] }));
  pm2(home, 'start', join(dirname(home), 'apps.json'));
  for (let waited = 0; ; waited += 5) {
    const list = JSON.parse(pm2(home, 'jlist').toString().split('\n').at(-1));
    const settled = list.filter((entry) => entry.pm2_env.status === 'online'
      && 'Event Loop Latency p95' in (entry.pm2_env.axm_monitor ?? {}));
    if (settled.length === count) return { home };
    if (waited > 600) throw new Error(`${settled.length} of ${count} processes are online`);
    await pause(5);
  }
}

/** A sidecar that listens on a port of the system's choice. */
async function sidecar(home, configuration) {
  const place = folder('leakslope-sidecar-');
  mkdirSync(join(place, 'state'));
  writeFileSync(join(place, 'leakslope.toml'), configuration);
  const env = { PM2_HOME: home, XDG_STATE_HOME: join(place, 'state'), HOME: place, STATE_DIRECTORY: '' };
  const args = ['--config', join(place, 'leakslope.toml'), '--web.listen-address', '127.0.0.1:0'];
  const started = await start(sidecarBinary, args, env, join(place, 'log'), /on http:\/\/127\.0\.0\.1:(\d+)\//);
  return { ...started, port: Number(started.match[1]) };
}

async function pm2Metrics(home) {
  const [place, port] = [folder('leakslope-peer-'), await freePort()];
  const env = { PM2_HOME: home, name: 'pm2-metrics', 'pm2-metrics': JSON.stringify({ port, host: '127.0.0.1' }) };
  const script = join(here, 'node_modules/pm2-metrics/exporter.js');
  return { ...await start('node', [script], env, join(place, 'log'), /listening at/), port };
}

/** Nothing but whole collections: the list, the system, history, verdicts, and the body that will be scraped. */
const COLLECTIONS = 'interval = "1s"\n[collect]\nheap_interval = "0s"\n';
/** Nothing but the list, which is what `pm2 jlist` gives: the look that the sidecar takes between collections. */
const LISTS = 'interval = "1h"\n[collect]\nheap_interval = "1s"\n';

/** CPU seconds of what the configuration makes the sidecar do once a second, while nobody scrapes. */
async function costOfSecond(home, configuration, seconds) {
  const running = await sidecar(home, configuration);
  await pause(5);
  const meter = new CpuMeter(running.pid);
  const [before, begun] = [meter.seconds(), process.hrtime.bigint()];
  await pause(seconds);
  const cost = (meter.seconds() - before) / (Number(process.hrtime.bigint() - begun) / 1e9);
  meter.stop();
  await running.stop();
  return cost;
}

/** CPU seconds of one `pm2 jlist`, the command's own and its children's, the middle one of so many. */
function costOfCommand(home, count) {
  const costs = Array.from({ length: count }, () => {
    const script = `TIMEFORMAT='%U %S'; time node '${pm2Command}' -s jlist >/dev/null 2>/dev/null`;
    const { stderr } = spawnSync('bash', ['-c', script], { env: { ...process.env, PM2_HOME: home }, encoding: 'utf8' });
    const [user, system] = stderr.trim().split('\n').at(-1).split(' ').map(Number);
    return user + system;
  });
  return costs.sort((left, right) => left - right)[Math.floor(count / 2)];
}

/** Both watch the same daemon and are scraped every 15 s; what each takes. */
async function sideBySide(home, span, scrapes) {
  const rivals = { ours: await sidecar(home, ''), theirs: await pm2Metrics(home) };
  await pause(20);
  const names = Object.keys(rivals);
  const meters = Object.fromEntries(names.map((name) => [name, new CpuMeter(rivals[name].pid)]));
  const before = Object.fromEntries(names.map((name) => [name, meters[name].seconds()]));
  for (let left = span; left > 0; left -= SCRAPE_EVERY) {
    for (const name of names) {
      const scraper = await Scraper.open(rivals[name].port);
      await scraper.scrape();
      scraper.close();
    }
    await pause(Math.min(left, SCRAPE_EVERY));
  }
  const result = {};
  for (const name of names) {
    meters[name].stop();
    const { pid, port } = rivals[name];
    result[name] = { cpu: meters[name].seconds() - before[name], resident: mebibytes(pid, 'VmRSS'), peak: mebibytes(pid, 'VmHWM') };
    Object.assign(result[name], await latencies(port, name === 'ours' ? scrapes : Math.min(scrapes, 200)));
    result[name].afterwards = mebibytes(pid, 'VmRSS');
  }
  for (const name of names) await rivals[name].stop();
  return result;
}

async function fakeDaemon(count) {
  const home = folder('leakslope-fake-');
  const script = join(here, 'fake_daemon.mjs');
  await start('node', [script, join(home, 'rpc.sock'), String(count)], {}, join(home, 'log'), /listening/);
  return { home };
}

/** Resident memory with all the minutes that are ever kept, which pass in eight minutes here. */
async function withFullHistory(count) {
  const { home } = await fakeDaemon(count);
  const running = await sidecar(home, 'interval = "1s"\n[trend]\nminute = "100ms"\n');
  await pause(72 * 60 * 0.1 + 30);
  const body = await (await fetch(`http://127.0.0.1:${running.port}/metrics`)).text();
  const history = Number(/^leakslope_history_memory_bytes (.*)$/m.exec(body)[1]) / 1048576;
  return { count, history, resident: mebibytes(running.pid, 'VmRSS') };
}

/** The sidecar beside a fake daemon with so many processes. */
async function many(count, seconds, scrapes) {
  const { home } = await fakeDaemon(count);
  const list = await costOfSecond(home, LISTS, seconds);
  const collection = await costOfSecond(home, COLLECTIONS, seconds);
  const running = await sidecar(home, '');
  await pause(20);
  const measured = { count, list, collection, resident: mebibytes(running.pid, 'VmRSS'), ...await latencies(running.port, scrapes) };
  measured.afterwards = mebibytes(running.pid, 'VmRSS');
  return measured;
}

function prepare() {
  if (!existsSync(join(here, 'node_modules/pm2-metrics'))) {
    say('npm ci');
    execFileSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: here, stdio: 'inherit' });
  }
  if (!existsSync(sidecarBinary)) {
    say('cargo build --release');
    execFileSync('cargo', ['build', '--release', '--locked'], { cwd: root, stdio: 'inherit' });
  }
}

const milli = (seconds) => (seconds * 1000).toFixed(seconds < 0.01 ? 2 : 0);
const two = (value) => value.toFixed(2);
const one = (value) => value.toFixed(1);

function report(rows, fake, full, loads) {
  const span = number('span');
  const lines = [
    `${machine()}; load ${one(Math.min(...loads))} to ${one(Math.max(...loads))} while measuring, nice ${options.nice}; ${new Date().toISOString().slice(0, 10)}.`,
    '',
    '| processes | `pm2 jlist` | the list alone | ratio | a whole collection | ratio |',
    '|---:|---:|---:|---:|---:|---:|',
    ...rows.map((row) => `| ${row.count} | ${milli(row.command)} ms | ${milli(row.list)} ms | ${Math.round(row.command / row.list)} `
      + `| ${milli(row.collection)} ms | ${Math.round(row.command / row.collection)} |`),
    ...(fake ? [`| ${fake.count} (fake daemon) | – | ${milli(fake.list)} ms | – | ${milli(fake.collection)} ms | – |`] : []),
    '',
    `| processes | exporter | CPU over ${span} s | resident | after the scrapes | scrape p50 | scrape p99 | body |`,
    '|---:|---|---:|---:|---:|---:|---:|---:|',
  ];
  const line = (count, name, cpu, what) => lines.push(`| ${count} | ${name} | ${cpu} | ${one(what.resident)} MiB | ${one(what.afterwards)} MiB `
    + `| ${two(what.p50)} ms | ${two(what.p99)} ms | ${Math.round(what.bytes / 1024)} KiB |`);
  for (const row of rows) {
    line(row.count, 'leakslope', `${two(row.ours.cpu)} s`, row.ours);
    line(row.count, 'pm2-metrics', `${two(row.theirs.cpu)} s`, row.theirs);
  }
  if (fake) line(`${fake.count} (fake daemon)`, 'leakslope', '–', fake);
  if (full) lines.push('', `With all 72 hours of ${full.count} processes remembered: ${one(full.resident)} MiB resident, ${one(full.history)} MiB of it history.`);
  return lines.join('\n');
}

function aims(rows, fake) {
  const at = (count) => rows.find((row) => row.count === count);
  const cheaper = (row, what, cost) => [`${row.count} processes: ${what} at least 100 times cheaper than pm2 jlist`,
    row.command / cost >= 100, `${Math.round(row.command / cost)} times`];
  const checks = rows.flatMap((row) =>
    [cheaper(row, 'the list', row.list), cheaper(row, 'a whole collection', row.collection)]);
  if (at(50)) {
    checks.push(['50 processes: resident below 12 MiB', at(50).ours.resident < 12, `${one(at(50).ours.resident)} MiB`]);
    checks.push(['50 processes: scrape p99 below 2 ms', at(50).ours.p99 < 2, `${two(at(50).ours.p99)} ms`]);
  }
  if (fake) checks.push([`${fake.count} processes: scrape p99 below 10 ms`, fake.p99 < 10, `${two(fake.p99)} ms`]);
  return checks.map(([aim, met, value]) => `- ${met ? 'met' : 'NOT MET'}: ${aim} (${value})`).join('\n');
}

async function main() {
  prepare();
  setPriority(number('nice'));
  const [rows, loads] = [[], [load()]];
  for (const count of options.sizes.split(',').map(Number).filter((size) => size > 0)) {
    say(`${count} processes: starting them`);
    const { home } = await realDaemon(count);
    say(`${count} processes: one collection`);
    const list = await costOfSecond(home, LISTS, number('collections'));
    const collection = await costOfSecond(home, COLLECTIONS, number('collections'));
    const command = costOfCommand(home, number('commands'));
    say(`${count} processes: side by side for ${number('span')} s`);
    rows.push({ count, list, collection, command, ...await sideBySide(home, number('span'), number('scrapes')) });
    loads.push(load());
    say(JSON.stringify(rows.at(-1)));
    await tidy();
  }
  let fake = null;
  if (number('fake') > 0) {
    say(`${number('fake')} processes of a fake daemon`);
    fake = await many(number('fake'), number('collections'), number('scrapes'));
    loads.push(load());
    await tidy();
  }
  let full = null;
  if (number('history') > 0) {
    say(`${number('history')} processes with all their history`);
    full = await withFullHistory(number('history'));
    await tidy();
  }
  console.log(`${report(rows, fake, full, loads)}\n\n${aims(rows, fake)}`);
}

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => tidy().finally(() => process.exit(1)));
try {
  await main();
} finally {
  await tidy();
}

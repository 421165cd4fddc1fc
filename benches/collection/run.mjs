// What watching costs: one collection against `pm2 jlist`, and the sidecar against npm's pm2-metrics beside it on the same
// daemon, with real pm2 and real processes; then scrapes with a thousand processes from a fake daemon.
//
//   node benches/collection/run.mjs [--quick] [--sizes=10,50,200] [--fake=1000] [--history=50] [--span=300] [--collections=60]
//                                   [--commands=10] [--scrapes=1000] [--nice=0] [--sidecar=target/dist/leakslope]
//
// Takes 40 minutes. With --quick it measures for shorter and leaves the full history out, which is meant to take a quarter of an hour.
// Prints Markdown tables and whether the aims are met. Everything runs under /tmp and on 127.0.0.1 and is ended after. On a
// machine that others use too, a negative --nice (as root) puts everything that is measured, the peers and the scraper
// included, before them.
import { spawnSync } from 'node:child_process';
import { setPriority } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CpuMeter, load, machine, mebibytes } from './proc.mjs';
import { Scraper, alternately, latencies } from './scrape.mjs';
import { bareServer, fakeDaemon, onStage, pause, pm2Metrics, prepare, readOptions, realDaemon, root, say, sidecar as startSidecar, tidy } from './stage.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const options = readOptions({ sizes: '10,50,200', fake: '1000', history: '50', span: '300', collections: '60', commands: '10',
  scrapes: '1000', nice: '0', sidecar: 'target/dist/leakslope' }, { history: '0', span: '60', collections: '30', scrapes: '500' });
const number = (name) => Number(options[name]);
const sidecarBinary = resolve(root, options.sidecar);
const pm2Command = join(here, 'node_modules/pm2/bin/pm2');
/** How often both are scraped while they run side by side: Prometheus' usual pace. */
const SCRAPE_EVERY = 15;

const sidecar = (home, configuration) => startSidecar(sidecarBinary, home, configuration);

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
    Object.assign(result[name], name === 'ours' ? await besideBare(port, scrapes) : await latencies(port, Math.min(scrapes, 200)));
    result[name].afterwards = mebibytes(pid, 'VmRSS');
  }
  for (const name of names) await rivals[name].stop();
  return result;
}

/** Scrapes in turns with a server that only sends as many bytes: what of a latency is the machine's and the scraper's own. */
async function besideBare(port, scrapes) {
  const { bytes } = await latencies(port, 1);
  const server = await bareServer(bytes);
  const [measured, bare] = await alternately([port, server.port], scrapes);
  await server.stop();
  return { ...measured, bare };
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
  const measured = { count, list, collection, resident: mebibytes(running.pid, 'VmRSS'), ...await besideBare(running.port, scrapes) };
  measured.afterwards = mebibytes(running.pid, 'VmRSS');
  return measured;
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
  const bare = (count, { bare: what }) => lines.push(`| ${count} | the same bytes, nothing else | – | – | – | ${two(what.p50)} ms `
    + `| ${two(what.p99)} ms | ${Math.round(what.bytes / 1024)} KiB |`);
  for (const row of rows) {
    line(row.count, 'leakslope', `${two(row.ours.cpu)} s`, row.ours);
    bare(row.count, row.ours);
    line(row.count, 'pm2-metrics', `${two(row.theirs.cpu)} s`, row.theirs);
  }
  if (fake) {
    line(`${fake.count} (fake daemon)`, 'leakslope', '–', fake);
    bare(`${fake.count} (fake daemon)`, fake);
  }
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
  prepare(sidecarBinary);
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

await onStage(main);

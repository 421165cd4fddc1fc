// What the sidecar costs as the number of processes grows: beside real pm2 with as many idle Node.js processes as the machine
// carries, with npm's pm2-metrics on the same daemon, and beside a fake daemon with thousands; at several intervals.
//
//   node benches/load/run.mjs [--real=200] [--fake=50,500,1000,2000,5000] [--intervals=1,5,15] [--span=60] [--scrapes=300]
//                             [--nice=0] [--sidecar=target/release/leakslope]
//
// Prints Markdown tables, the cost of one process, and whether it grows with their number. Everything runs under /tmp and on
// 127.0.0.1 and is ended after.
import { setPriority } from 'node:os';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CpuMeter, load, machine, mebibytes } from '../collection/proc.mjs';
import { latencies } from '../collection/scrape.mjs';
import { fakeDaemon, onStage, pause, pm2Metrics, prepare, readOptions, realDaemon, root, say, sidecar, tidy } from '../collection/stage.mjs';

const options = readOptions({ real: '200', fake: '50,500,1000,2000,5000', intervals: '1,5,15', span: '60', scrapes: '300', nice: '0',
  sidecar: 'target/release/leakslope' });
const number = (name) => Number(options[name]);
const list = (name) => options[name].split(',').map(Number).filter((value) => value > 0);
const binary = resolve(root, options.sidecar);
/** More than 5,000 processes with the environment of real ones take; the default of 32 MiB holds about 3,400 of them. */
const REPLY = '64MiB';
/** Hours of history that growth is measured between, and the seconds of a minute while it is compressed. The file grows in steps. */
const GROWTH = { from: 2, to: 8, minute: 1 };

/** Waits until the sidecar lists them all. */
async function listed(running, count) {
  for (let waited = 0; ; waited += 1) {
    const body = await (await fetch(`http://127.0.0.1:${running.port}/metrics`)).text();
    if ((body.match(/^pm2_process_info\{/gm)?.length ?? 0) === count) return;
    if (waited > 120) throw new Error(`${count} processes are not listed: ${readFileSync(running.log, 'utf8')}`);
    await pause(1);
  }
}

/** CPU time, memory and scrapes at one interval. Nothing is read between collections, so that the interval alone tells. */
async function atInterval(home, count, interval) {
  const settings = `interval = "${interval}s"\n[collect]\nheap_interval = "0s"\nmax_reply = "${REPLY}"\n`;
  const running = await sidecar(binary, home, settings);
  await listed(running, count);
  await pause(Math.max(5, interval));
  const meter = new CpuMeter(running.pid);
  // Whole intervals, so that no collection counts by half.
  const span = Math.ceil(number('span') / interval) * interval;
  const [before, begun] = [meter.seconds(), process.hrtime.bigint()];
  await pause(span);
  const cpu = (meter.seconds() - before) / (Number(process.hrtime.bigint() - begun) / 1e9);
  meter.stop();
  const measured = { count, interval, cpu, resident: mebibytes(running.pid, 'VmRSS'), peak: mebibytes(running.pid, 'VmHWM'),
    ...await latencies(running.port, number('scrapes')) };
  await running.stop();
  return measured;
}

/** npm's exporter on the same daemon; it collects when it is scraped, at the same pace. */
async function rival(home, interval) {
  const running = await pm2Metrics(home);
  await pause(15);
  const meter = new CpuMeter(running.pid);
  const before = meter.seconds();
  const begun = process.hrtime.bigint();
  for (let left = number('span'); left > 0; left -= interval) {
    await (await fetch(`http://127.0.0.1:${running.port}/metrics`)).text();
    await pause(interval);
  }
  const cpu = (meter.seconds() - before) / (Number(process.hrtime.bigint() - begun) / 1e9);
  meter.stop();
  const measured = { interval, cpu, resident: mebibytes(running.pid, 'VmRSS'), peak: mebibytes(running.pid, 'VmHWM'),
    ...await latencies(running.port, Math.min(100, number('scrapes'))) };
  await running.stop();
  return measured;
}

/** How much the store grows in a day: minutes are a second long, and each has its row whatever the interval. */
async function growth(home, count) {
  const settings = `interval = "1s"\n[collect]\nheap_interval = "0s"\nmax_reply = "${REPLY}"\n[trend]\nminute = "${GROWTH.minute}s"\n`;
  const running = await sidecar(binary, home, settings);
  const file = join(running.place, 'state/leakslope/history.redb');
  await listed(running, count);
  const size = () => (existsSync(file) ? statSync(file).blocks * 512 : 0);
  await pause(GROWTH.from * 60 * GROWTH.minute);
  const before = size();
  await pause((GROWTH.to - GROWTH.from) * 60 * GROWTH.minute);
  const grown = size() - before;
  await running.stop();
  return { count, day: grown / (GROWTH.to - GROWTH.from) * 24 };
}

/** An exponent beyond this is no noise. */
const SUPERLINEAR = 1.25;
const MEBIBYTE = 1 << 20;
const two = (value) => value.toFixed(2);
const one = (value) => value.toFixed(1);
const percent = (value) => `${(value * 100).toFixed(value < 0.1 ? 2 : 1)} %`;

function row(what, { count, interval, cpu, resident, peak, p50, p99, bytes }) {
  const each = `${(cpu * interval * 1e6 / count).toFixed(0)} µs`;
  return `| ${count} | ${what} | ${interval} s | ${percent(cpu)} | ${each} | ${one(resident)} MiB | ${one(peak)} MiB | ${two(p50)} ms | ${two(p99)} ms | ${Math.round(bytes / 1024)} KiB |`;
}

/** By which power of their number a figure grows: 1 is linear. */
function exponent(small, large, value) {
  return Math.log(value(large) / value(small)) / Math.log(large.count / small.count);
}

async function main() {
  prepare(binary);
  setPriority(number('nice'));
  const loads = [load()];
  const rows = [];
  const fakes = [];
  const grown = [];
  const real = number('real');
  const gauge = (measured) => {
    loads.push(load());
    say(JSON.stringify(measured));
    return measured;
  };
  if (real > 0) {
    say(`${real} real processes`);
    const { home } = await realDaemon(real);
    for (const interval of list('intervals')) {
      rows.push(row('leakslope', gauge(await atInterval(home, real, interval))));
      rows.push(row('pm2-metrics', { count: real, ...gauge(await rival(home, interval)) }));
    }
    await tidy();
  }
  for (const count of list('fake')) {
    say(`${count} processes of a fake daemon`);
    const { home } = await fakeDaemon(count);
    for (const interval of list('intervals')) {
      const measured = gauge(await atInterval(home, count, interval));
      fakes.push(measured);
      rows.push(row('leakslope, fake daemon', measured));
    }
    grown.push(gauge(await growth(home, count)));
    await tidy();
  }
  const lines = [
    `${machine()}; load ${one(Math.min(...loads))} to ${one(Math.max(...loads))} while measuring, nice ${options.nice}; ${new Date().toISOString().slice(0, 10)}.`,
    '',
    '| processes | exporter | interval | CPU (of one core) | CPU per process and collection | resident | at its highest | scrape p50 | scrape p99 | body |',
    '|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|',
    ...rows,
    '',
    '| processes | the store grows by | per process |',
    '|---:|---:|---:|',
    ...grown.map(({ count, day }) => `| ${count} | ${one(day / MEBIBYTE)} MiB a day | ${one(day / 1024 / count)} KiB a day |`),
  ];
  for (const interval of list('intervals')) {
    const at = fakes.filter((measured) => measured.interval === interval).sort((left, right) => left.count - right.count);
    if (at.length < 2) continue;
    const [small, large] = [at[0], at.at(-1)];
    const told = (name, value) => `${name} ×${one(value(large) / value(small))} (exponent ${two(exponent(small, large, value))})`;
    lines.push('', `Every ${interval} s, ${large.count} processes against ${small.count} (×${one(large.count / small.count)}): `
      + `${told('CPU', ({ cpu }) => cpu)}, ${told('resident memory', ({ resident }) => resident)}, ${told('scrape p50', ({ p50 }) => p50)}.`);
    if (exponent(small, large, ({ cpu }) => cpu) > SUPERLINEAR) process.exitCode = 1;
  }
  console.log(lines.join('\n'));
}

await onStage(main);

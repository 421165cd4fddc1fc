// What the sidecar costs as the number of processes grows: beside real pm2 with as many idle Node.js processes as the machine
// carries, with npm's pm2-metrics on the same daemon, and beside a fake daemon with thousands; at several intervals.
//
//   node benches/load/run.mjs [--quick] [--real=1000] [--fake=500,2000,5000] [--intervals=1,5,15] [--span=30] [--scrapes=200]
//                             [--growth=500] [--nice=0] [--sidecar=target/dist/leakslope]
//
// With --quick, which leaves out what is between the extremes, it is meant to take a quarter of an hour. Prints one Markdown table
// and below it whether the cost of one process grows with their number. Real processes are started while 4 GiB of memory stay
// available, and the table tells how many there were. Everything runs under /tmp and on 127.0.0.1 and is ended after.
import { setPriority } from 'node:os';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CpuMeter, load, machine, mebibytes } from '../collection/proc.mjs';
import { latencies } from '../collection/scrape.mjs';
import { fakeDaemon, onStage, pause, pm2Metrics, prepare, readOptions, realDaemon, root, say, sidecar, tidy } from '../collection/stage.mjs';
import { body } from './table.mjs';

const options = readOptions({ real: '1000', fake: '500,2000,5000', intervals: '1,5,15', span: '30', scrapes: '200', growth: '500', nice: '0',
  sidecar: 'target/dist/leakslope' }, { fake: '500,5000', intervals: '5,15' });
const number = (name) => Number(options[name]);
const list = (name) => options[name].split(',').map(Number).filter((value) => value > 0);
const binary = resolve(root, options.sidecar);
/** More than 5,000 processes with the environment of real ones take; the default of 32 MiB holds about 3,400 of them. */
const REPLY = '64MiB';
/** Hours of history that growth is measured between, and the seconds of a minute while it is compressed. The file grows in steps. */
const GROWTH = { from: 1, to: 4, minute: 1 };
/** The other exporter asks the daemon for its list at each scrape, so that a few hundred would take many minutes. */
const RIVAL_SCRAPES = 30;

/** Waits until the sidecar lists them all. */
async function listed(running, count) {
  for (let waited = 0; ; waited += 1) {
    const text = await (await fetch(`http://127.0.0.1:${running.port}/metrics`)).text();
    if ((text.match(/^pm2_process_info\{/gm)?.length ?? 0) === count) return;
    if (waited > 120) throw new Error(`${count} processes are not listed: ${readFileSync(running.log, 'utf8')}`);
    await pause(1);
  }
}

/**
 * CPU time, memory and scrapes at one interval. Nothing is read between collections, so that the interval alone tells. A fake
 * daemon counts the lists it gives: where it cannot make them in time, collections are fewer than the interval says.
 */
async function atInterval({ home, lists }, count, interval) {
  const settings = `interval = "${interval}s"\n[collect]\nheap_interval = "0s"\nmax_reply = "${REPLY}"\n`;
  const running = await sidecar(binary, home, settings);
  await listed(running, count);
  await pause(Math.max(5, interval));
  const meter = new CpuMeter(running.pid);
  // Whole intervals, so that no collection counts by half.
  const intervals = Math.max(2, Math.ceil(number('span') / interval));
  const given = await lists?.();
  const [before, begun] = [meter.seconds(), process.hrtime.bigint()];
  await pause(intervals * interval);
  const spent = meter.seconds() - before;
  const cpu = spent / (Number(process.hrtime.bigint() - begun) / 1e9);
  const collections = lists === undefined ? intervals : await lists() - given;
  meter.stop();
  const measured = { count, interval, cpu, collections, intervals, each: spent / collections / count,
    resident: mebibytes(running.pid, 'VmRSS'), peak: mebibytes(running.pid, 'VmHWM'), ...await latencies(running.port, number('scrapes')) };
  await running.stop();
  return measured;
}

/** npm's exporter on the same daemon; it collects when it is scraped, at the same pace. */
async function rival(home, count, interval) {
  const running = await pm2Metrics(home);
  await pause(15);
  const meter = new CpuMeter(running.pid);
  const [before, begun] = [meter.seconds(), process.hrtime.bigint()];
  let collections = 0;
  for (let left = number('span'); left > 0; left -= interval) {
    const due = pause(interval);
    await (await fetch(`http://127.0.0.1:${running.port}/metrics`)).text();
    collections += 1;
    await due;
  }
  const spent = meter.seconds() - before;
  const cpu = spent / (Number(process.hrtime.bigint() - begun) / 1e9);
  meter.stop();
  const measured = { count, interval, cpu, each: spent / collections / count, resident: mebibytes(running.pid, 'VmRSS'),
    peak: mebibytes(running.pid, 'VmHWM'), ...await latencies(running.port, Math.min(RIVAL_SCRAPES, number('scrapes'))) };
  await running.stop();
  return measured;
}

/** How many bytes the store grows by in a day for each process: minutes are a second long, and each has its row whatever the interval. */
async function growth(count) {
  const { home } = await fakeDaemon(count);
  const settings = `interval = "1s"\n[collect]\nheap_interval = "0s"\nmax_reply = "${REPLY}"\n[trend]\nminute = "${GROWTH.minute}s"\n`;
  const running = await sidecar(binary, home, settings);
  const file = join(running.place, 'state/leakslope/history.redb');
  await listed(running, count);
  const size = () => (existsSync(file) ? statSync(file).blocks * 512 : 0);
  await pause(GROWTH.from * 60 * GROWTH.minute);
  const before = size();
  await pause((GROWTH.to - GROWTH.from) * 60 * GROWTH.minute);
  const grown = size() - before;
  await tidy();
  return { count, each: grown / (GROWTH.to - GROWTH.from) * 24 / count };
}

async function main() {
  prepare(binary);
  setPriority(number('nice'));
  const loads = [load()];
  const [real, fake] = [[], []];
  const gauge = (measured) => {
    loads.push(load());
    say(JSON.stringify(measured));
    return measured;
  };
  if (number('real') > 0) {
    say(`${number('real')} real processes`);
    const { home, count } = await realDaemon(number('real'));
    for (const interval of list('intervals')) {
      real.push({ ours: gauge(await atInterval({ home }, count, interval)), theirs: gauge(await rival(home, count, interval)) });
    }
    await tidy();
  }
  for (const count of list('fake')) {
    say(`${count} processes of a fake daemon`);
    const daemon = await fakeDaemon(count);
    for (const interval of list('intervals')) fake.push(gauge(await atInterval(daemon, count, interval)));
    await tidy();
  }
  const grown = number('growth') > 0 ? gauge(await growth(number('growth'))) : null;
  const conditions = `${machine()}; load ${Math.min(...loads).toFixed(1)} to ${Math.max(...loads).toFixed(1)} while measuring, `
    + `nice ${options.nice}; ${new Date().toISOString().slice(0, 10)}.`;
  console.log(`${conditions}\n\n${body({ real, fake, grown })}`);
}

await onStage(main);

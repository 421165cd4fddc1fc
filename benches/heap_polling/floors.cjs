// How far the smallest sampled heap of a minute lies above the heap that a major collection leaves, by polling interval.
// Runs real apps under a pm2 of its own and prints a table in Markdown:
//
//   npm ci --prefix tests/pm2 && node benches/heap_polling/floors.cjs [MINUTES]
//
// pm2's list is read every second; longer intervals are the same series thinned out, from every phase.
'use strict';
const fs = require('fs');
const path = require('path');
const { call, folder, measure, pause } = require('./pm2.cjs');

const minutes = Number(process.argv[2] || 10);
const INTERVALS = [1, 2, 5, 15];
const APPS = [
  { name: 'fast', about: '20 MiB kept, 8 MiB/s turned over', KEPT_KIB: 20480, TURNOVER_KIB: 8192, LEAKED_KIB: 0 },
  { name: 'middle', about: '20 MiB kept, 1 MiB/s turned over', KEPT_KIB: 20480, TURNOVER_KIB: 1024, LEAKED_KIB: 0 },
  { name: 'slow', about: '20 MiB kept, 0.2 MiB/s turned over', KEPT_KIB: 20480, TURNOVER_KIB: 205, LEAKED_KIB: 0 },
  { name: 'leaking', about: '20 MiB kept, 1 MiB/s turned over, 1.2 MiB/min lost', KEPT_KIB: 20480, TURNOVER_KIB: 1024, LEAKED_KIB: 20 },
];

const sorted = (values) => [...values].sort((left, right) => left - right);
const quantile = (values, share) => (values.length ? sorted(values)[Math.floor(share * (values.length - 1))] : NaN);
const mib = (bytes) => (bytes / 1048576).toFixed(1);
const log = (name) => path.join(folder, `${name}.gc`);

function readLog(name) {
  if (!fs.existsSync(log(name))) return [];
  return fs.readFileSync(log(name), 'utf8').trim().split('\n').map((line) => line.split(' ').map(Number));
}

/**
 * For each minute and phase: the smallest sample above the smallest heap that a major collection left in that minute. The
 * time in which the app fills up, in seconds, is left out.
 */
function excesses(samples, majors, interval, filling) {
  const found = [];
  const first = Math.ceil((samples[0][0] + filling) / 60);
  const last = Math.floor(samples[samples.length - 1][0] / 60);
  for (let minute = first; minute < last; minute++) {
    const within = ([at]) => Math.floor(at / 60) === minute;
    const floor = Math.min(...majors.filter(within).map(([, used]) => used));
    // A minute without a collection has no floor.
    if (!Number.isFinite(floor)) continue;
    for (let phase = 0; phase < interval; phase++) {
      const seen = samples.filter(([at]) => within([at]) && Math.floor(at) % interval === phase).map(([, used]) => used);
      if (seen.length) found.push(Math.min(...seen) - floor);
    }
  }
  return found;
}

async function run() {
  const started = APPS.map(({ name, KEPT_KIB, TURNOVER_KIB, LEAKED_KIB }) =>
    call('start', { name, script: path.join(__dirname, 'app.cjs'), env: { KEPT_KIB, TURNOVER_KIB, LEAKED_KIB, GC_LOG: log(name) } }));
  await Promise.all(started);
  const samples = new Map(APPS.map(({ name }) => [name, []]));
  const end = Date.now() + minutes * 60_000;
  while (Date.now() < end) {
    for (const entry of await call('list')) {
      const used = entry.pm2_env.axm_monitor && entry.pm2_env.axm_monitor['Used Heap Size'];
      if (used) samples.get(entry.name).push([Date.now() / 1000, Number(used.value) * 1048576]);
    }
    await pause(1000 - (Date.now() % 1000));
  }
  console.log('| app | majors a minute | polled every | p10 | median | p90 | largest |');
  console.log('| --- | ---: | ---: | ---: | ---: | ---: | ---: |');
  for (const { name, about, KEPT_KIB, TURNOVER_KIB } of APPS) {
    const majors = readLog(name);
    for (const interval of INTERVALS) {
      const found = excesses(samples.get(name), majors, interval, 30 + KEPT_KIB / TURNOVER_KIB);
      const figures = [0.1, 0.5, 0.9, 1].map((share) => mib(quantile(found, share)));
      const pace = (majors.length / minutes).toFixed(1);
      console.log(`| ${name}: ${about} | ${pace} | ${interval} s | ${figures.join(' | ')} |`);
    }
  }
  console.log('\nAll in MiB above the floor.\n');
  const told = samples.get('fast').map(([, used]) => used);
  const changed = told.filter((used, index) => index > 0 && used !== told[index - 1]).length;
  console.log(`The figure pm2 shows had changed at ${((100 * changed) / (told.length - 1)).toFixed(0)} % of polls a second apart.`);
}

measure(run);

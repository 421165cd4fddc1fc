// What taking evidence costs an app: the latency of its requests with and without, in turns in one run, for a profile by
// pm2's action, a profile by the inspector, and a series of three snapshots. Prints a table in Markdown:
//
//   npm ci --prefix tests/pm2 && cargo build --profile dist && node benches/evidence/run.cjs [ROUNDS [BINARY]]
//
// On a machine that others use too, run it as root with `nice -n -15`: then what is measured goes before them.
//
// Requests are due every 20 ms whether the ones before were answered or not, and a latency counts from when its request was
// due: so a pause of the app is seen by every request that it delays.
'use strict';
const { spawn } = require('child_process');
const fs = require('fs');
const http = require('http');
const path = require('path');
const { call, folder, measure, pause } = require('../heap_polling/pm2.cjs');

const rounds = Number(process.argv[2] || 3);
const binary = path.resolve(process.argv[3] || path.join(__dirname, '../../target/dist/leakslope'));
const EVERY_MS = 20;
const SECONDS = 12;
const HEAPS = [20, 100];
const WORD = ['--warm-up', '1s', '--wait', '2s', '--i-accept-a-pause-of', '10m'];
const METHODS = [
  { name: "profile, pm2's action", pmx: true, words: ['heap', 'profile', '--duration', `${SECONDS}s`] },
  { name: 'profile, inspector', pmx: false, words: ['heap', 'profile', '--duration', `${SECONDS}s`] },
  { name: 'three snapshots', pmx: false, words: ['heap', 'snapshot', ...WORD] },
];

/** Asks until `until` settles; latencies in milliseconds, and the app's resident memory in MiB as it went. */
async function ask(port, pid, until) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
  const [latencies, open, resident] = [[], new Set(), []];
  let over = false;
  const ended = until.finally(() => { over = true; });
  const watch = setInterval(() => {
    const found = /^VmRSS:\s+(\d+) kB/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
    resident.push(Number(found[1]) / 1024);
  }, 100);
  const begun = performance.now();
  for (let number = 0; !over; number++) {
    const due = begun + number * EVERY_MS;
    const early = due - performance.now();
    if (early > 0) await pause(early);
    const answer = new Promise((resolve, reject) => {
      http.get({ port, host: '127.0.0.1', agent }, (response) => {
        response.resume();
        response.once('end', () => { latencies.push(performance.now() - due); resolve(); });
      }).once('error', reject);
    });
    open.add(answer);
    answer.finally(() => open.delete(answer)).catch(() => {});
  }
  await Promise.all(open);
  clearInterval(watch);
  agent.destroy();
  return { latencies, resident, told: await ended };
}

function take(words, name) {
  const env = { ...process.env, STATE_DIRECTORY: path.join(folder, 'state'), LEAKSLOPE_CONFIG: path.join(folder, 'config.toml') };
  const child = spawn(binary, [...words, name, '--output', path.join(folder, 'evidence')], { env });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { text += data; });
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => (code === 0 ? resolve(text) : reject(new Error(text))));
  });
}

/** A port that nobody listens on now. */
const freePort = () => new Promise((resolve) => {
  const server = http.createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

const sorted = (numbers) => [...numbers].sort((left, right) => left - right);
const at = (numbers, share) => sorted(numbers)[Math.min(numbers.length - 1, Math.floor(numbers.length * share))];
const write = (number) => (number < 10 ? number.toFixed(1) : String(Math.round(number)));

measure(async () => {
  const { load, machine } = await import('../collection/proc.mjs');
  fs.writeFileSync(path.join(folder, 'config.toml'), '[evidence]\nmax_disk = "10GiB"\n');
  const lines = [];
  for (const heap of HEAPS) {
    for (const method of METHODS) {
      const port = await freePort();
      const name = `app${port}`;
      await call('start', { name, script: path.join(__dirname, 'app.cjs'), args: [String(heap), String(port)], pmx: method.pmx });
      await pause(10_000);
      const [{ pid }] = await call('describe', name);
      if (!(pid > 0)) throw new Error(`${name} does not run`);
      const all = { without: [], with: [], before: [], peak: [], after: [], pauses: [] };
      for (let round = 0; round < rounds; round++) {
        const quiet = await ask(port, pid, pause(SECONDS * 1000));
        const busy = await ask(port, pid, take(method.words, name));
        all.without.push(...quiet.latencies);
        all.with.push(...busy.latencies);
        all.before.push(quiet.resident.at(-1));
        all.peak.push(Math.max(...busy.resident));
        all.after.push(busy.resident.at(-1));
        all.pauses.push(...[...busy.told.matchAll(/taken: a pause of ([\d.]+)s/g)].map((match) => Number(match[1]) * 1000));
        all.pauses.push(...[...busy.told.matchAll(/was (\d+) ms late/g)].map((match) => Number(match[1])));
        console.error(`${heap} MiB, ${method.name}, round ${round + 1}: load ${load()}`);
      }
      await call('delete', name);
      const columns = [0.5, 0.99, 1].map((share) => {
        const [without, taken] = [at(all.without, share), at(all.with, share)];
        return `${write(without)} → ${write(taken)} (${write(taken / without)}×)`;
      });
      const pauses = all.pauses.length > 0 ? `${write(Math.max(...all.pauses))}` : '–';
      // One round leaves the next one what it made V8 take.
      const memory = [all.before[0], Math.max(...all.peak), all.after.at(-1)].map(Math.round).join(' → ');
      lines.push(`| ${heap} MiB | ${method.name} | ${columns.join(' | ')} | ${pauses} | ${memory} |`);
    }
  }
  console.log(`${machine()}; load ${load()}; ${rounds} rounds of ${SECONDS} s without and as long as it takes with.\n`);
  console.log('| heap | method | p50, ms | p99, ms | longest, ms | pause told, ms | resident, MiB |');
  console.log('|---:|---|---:|---:|---:|---:|---:|');
  console.log(lines.join('\n'));
});

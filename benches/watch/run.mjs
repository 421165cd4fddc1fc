// `leakslope watch` on apps that leak and on apps that do not, many times over: how often is it right?
//
//   cargo build && node benches/watch/run.mjs [--runs 20] [--duration 45s] [--beside 2] [--only NAME,…] [--keep FOLDER] [--binary FILE]
//
// A right answer is "leak" for an app that leaks and "no leak" for one that does not; for one of which a short run cannot
// tell (a cache that is still filling), "no leak" and "too short to say" are both right. A leak that is reported there is the
// worst answer and is counted by itself. Every round takes each app once; SIGINT ends it after the runs that are under way.
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '../..');
const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '20' },
    duration: { type: 'string', default: '45s' },
    beside: { type: 'string', default: '2' },
    only: { type: 'string' },
    keep: { type: 'string' },
    binary: { type: 'string', default: path.join(root, 'target/debug/leakslope') },
  },
});
const patterns = path.join(root, 'tests/fixtures/heap/apps');
const apps = path.join(root, 'tests/watch/apps');
const seconds = Number(values.duration.replace(/s$/, ''));
const leaks = ['listener', 'interval', 'map', 'array', 'closure', 'promise', 'console', 'scope', 'list', 'table', 'two-holders',
  'handler', 'signal'];
const twins = ['listener', 'interval', 'map', 'array', 'closure', 'promise', 'console'];
const steady = { WORK_PER_SECOND: '100' };
const load = `node ${path.join(apps, 'load.js')}`;
const cases = [
  ...leaks.map((name) => ({ name: `leak-${name}`, right: ['leak'], file: path.join(patterns, `leak-${name}.js`), env: steady })),
  ...twins.map((name) => ({ name: `healthy-${name}`, right: ['no_leak'], file: path.join(patterns, `healthy-${name}.js`), env: steady })),
  { name: 'buffers', right: ['leak'], file: path.join(apps, 'buffers.js') },
  { name: 'server-leak', right: ['leak'], file: path.join(apps, 'server.js'), env: { MODE: 'leak' }, load },
  { name: 'server-healthy', right: ['no_leak'], file: path.join(apps, 'server.js'), load },
  { name: 'server-rounds', right: ['no_leak'], file: path.join(apps, 'server.js'), load, env: { ROUND_SECONDS: '5' } },
  { name: 'server-overrun', right: ['no_leak', 'too_short'], file: path.join(apps, 'server.js'), env: { MODE: 'slow' }, load },
  ...[0.15, 0.4, 0.6, 0.8, 0.9].map((share) => ({
    name: `cache-full-at-${share}`, right: ['no_leak', 'too_short'], file: path.join(apps, 'cache-fills.js'),
    env: { FILL_SECONDS: String(share * seconds) },
  })),
  ...[0.3, 0.7, 1.5, 3].map((share) => ({
    name: `cache-random-${share}`, right: ['no_leak', 'too_short'], file: path.join(apps, 'cache-random.js'),
    env: { KEYS: String(share * seconds * 200) },
  })),
  ...[0.2, 0.4, 0.6].map((share) => ({
    name: `backlog-until-${share}`, right: ['no_leak', 'too_short'], file: path.join(apps, 'backlog-drains.js'),
    env: { BURST_SECONDS: String(share * seconds) },
  })),
].filter((one) => !values.only || values.only.split(',').some((word) => one.name.includes(word)));

let started = 0;
const evidence = fs.mkdtempSync(path.join(os.tmpdir(), 'watch-bench-'));

function run(one) {
  const kept = values.keep ? ['--csv', path.join(values.keep, `${one.name}-${++started}.csv`)] : [];
  const load = one.load ? ['--load', one.load] : [];
  const args = ['watch', '--duration', values.duration, '--format', 'json', '--output', evidence, ...kept, ...load, '--', 'node', one.file];
  return new Promise((resolve) => {
    execFile(values.binary, args, { env: { ...process.env, ...one.env }, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      try {
        resolve(JSON.parse(stdout));
      } catch {
        resolve({ answer: 'failed', reason: stderr.trim().split('\n').at(-1) });
      }
    });
  });
}

const rows = new Map(cases.map((one) => [one, { right: 0, answers: {}, wrong: [] }]));
const queue = [];
for (let round = 0; round < Number(values.runs); round++) for (const one of cases) queue.push(one);
process.on('SIGINT', () => (queue.length = 0));
await Promise.all(Array.from({ length: Number(values.beside) }, async () => {
  while (queue.length) {
    const one = queue.shift();
    const report = await run(one);
    const row = rows.get(one);
    row.answers[report.answer] = (row.answers[report.answer] ?? 0) + 1;
    if (one.right.includes(report.answer)) row.right += 1;
    else row.wrong.push(report.reason);
  }
}));

fs.rmSync(evidence, { recursive: true });

console.log(`| app (${values.duration}) | expected | right | answers |\n| --- | --- | --- | --- |`);
let [right, total, falsely] = [0, 0, 0];
for (const [one, row] of rows) {
  const count = Object.values(row.answers).reduce((sum, each) => sum + each, 0);
  right += row.right;
  total += count;
  if (!one.right.includes('leak')) falsely += row.answers.leak ?? 0;
  const answers = Object.entries(row.answers).map(([answer, each]) => `${answer} ${each}`).join(', ');
  console.log(`| ${one.name} | ${one.right.join(' or ')} | ${row.right}/${count} | ${answers} |`);
}
console.log(`\nright ${right} of ${total}; a leak where there is none: ${falsely}`);
for (const [one, row] of rows) for (const reason of row.wrong) console.log(`wrong: ${one.name}: ${reason}`);

// Runs every test that the build has built: `cargo test --no-run --message-format=json | node tests/suite.mjs`. A test of
// `tests/` has a process of its own, as under cargo-nextest, so that no limit, lock or figure of one meets another; the unit
// tests of a crate share one. A built program without tests, and a test without a result, fail the run. It prints what cargo
// prints, a line for each test and a result for each program, so that whatever reads cargo's output can count.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, openSync, closeSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

// Most tests wait, for pm2, Prometheus or time to pass: another one begins whenever the processors have room. At least and at most so many run.
const LEAST = 4;
const MOST = 14;
const BUSY = 0.85;
const TICK_MS = 200;
// The longest begin first, in this order.
const LONGEST = [/^evidence::(attach|left_open|policy|series|versions)/, /^ui::page::/, /^heap::patterns/, /^policy::(end_to_end|pm2)/, /^rules::(alerts_end_to_end|docs_commands|deploy)/, /^sidecar::(demo|live|pm2)/, /^evidence::/, /^unit tests/];
// These wait for the port of Node's inspector, which there is once in a network: each has a network of its own, where the
// system lets us make one; else they run one at a time, so that no others wait behind them.
const OWN_PORT = /^evidence::(attach|left_open|series|versions)/;
const OWN_NETWORK = ['unshare', '--net', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh'];
const NETWORKS = spawnSync(OWN_NETWORK[0], [...OWN_NETWORK.slice(1), 'true'], { stdio: 'ignore' }).status === 0;
// These share what the first of them makes.
const TOGETHER = ['rules::deploy_npm::'];
const DEADLINE_MS = 20 * 60_000;

const programs = [];
for await (const line of createInterface({ input: process.stdin })) {
  if (!line.startsWith('{')) continue;
  const message = JSON.parse(line);
  if (message.reason === 'compiler-artifact' && message.executable && message.profile.test) {
    programs.push({ name: message.target.name, integration: message.target.kind.includes('test'), path: message.executable, cwd: dirname(message.manifest_path) });
  }
}

const logs = mkdtempSync(join(tmpdir(), 'leakslope-tests-'));
process.on('exit', () => rmSync(logs, { recursive: true, force: true }));
const running = new Set();
const stop = () => {
  for (const child of running) try { process.kill(-child.pid, 'SIGTERM'); } catch { /* it has ended */ }
};
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => { stop(); process.exit(1); });

let number = 0;
/** Runs a program in a process group of its own, below `within`; resolves with its exit code and everything it printed. */
function run(program, args, within = []) {
  const [command, ...rest] = [...within, program.path, ...args];
  const log = join(logs, String(number++));
  const file = openSync(log, 'w');
  return new Promise((resolve) => {
    const child = spawn(command, rest, { cwd: program.cwd, stdio: ['ignore', file, file], detached: true });
    running.add(child);
    const late = setTimeout(() => { try { process.kill(-child.pid, 'SIGKILL'); } catch { /* it has ended */ } }, DEADLINE_MS);
    child.on('error', (error) => resolve({ code: error.message, said: '' }));
    child.on('close', (code, signal) => {
      clearTimeout(late);
      closeSync(file);
      running.delete(child);
      const said = readFileSync(log, 'utf8');
      rmSync(log);
      resolve({ code: code ?? signal, said });
    });
  });
}

const jobs = [];
let failed = 0;
let passed = 0;
const began = Date.now();
for (const program of programs) {
  const { code, said } = await run(program, ['--list', '--format', 'terse']);
  const tests = [...said.matchAll(/^(.*): test$/gm)].map((found) => found[1]);
  if (code !== 0) {
    console.log(`FAILED ${program.path} does not list its tests (${code}): ${said}`);
    failed += 1;
  } else if (!program.integration) {
    jobs.push({ name: `unit tests of ${program.name}`, program, tests, args: ['--test-threads=2'] });
  } else {
    if (tests.length === 0) {
      console.log(`FAILED ${program.name}: a test program without a test`);
      failed += 1;
    }
    const named = (test) => `${program.name}::${test}`;
    for (const prefix of TOGETHER) {
      const some = tests.filter((test) => named(test).startsWith(prefix));
      if (some.length > 0) jobs.push({ name: `${prefix}*`, program, tests: some, args: ['--exact', ...some] });
    }
    const rest = tests.filter((test) => !TOGETHER.some((prefix) => named(test).startsWith(prefix)));
    jobs.push(...rest.map((test) => ({ name: named(test), program, tests: [test], args: ['--exact', test] })));
  }
}
const rank = (name) => LONGEST.findIndex((pattern) => pattern.test(name));
const place = (name) => (rank(name) === -1 ? LONGEST.length : rank(name));
jobs.sort((one, other) => place(one.name) - place(other.name));

async function judge(job) {
  const start = Date.now();
  const { code, said } = await run(job.program, [...job.args, '--nocapture'], NETWORKS && OWN_PORT.test(job.name) ? OWN_NETWORK : []);
  const seconds = Math.round((Date.now() - start) / 1000);
  const result = said.match(/^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;/gm)?.at(-1) ?? 'no result';
  const all = code === 0 && result.includes(` ${job.tests.length} passed; 0 failed; 0 ignored;`);
  if (all) passed += job.tests.length;
  else failed += 1;
  if (!all) console.log(said);
  const took = seconds > 5 ? ` in ${seconds} s` : '';
  if (!all) console.log(`test ${job.name} ... FAILED (${code}; ${result})${took}`);
  else if (job.tests.length === 1) console.log(`test ${job.name} ... ok${took}`);
  else for (const test of job.tests) console.log(`test ${job.program.name}::${test} ... ok${took}`);
}

/** Time that the processors have spent, all in all and at rest, in milliseconds. */
function spent() {
  let [all, idle] = [0, 0];
  for (const { times } of cpus()) {
    all += Object.values(times).reduce((sum, time) => sum + time);
    idle += times.idle;
  }
  return { all, idle };
}

const waiting = [...jobs];
let going = 0;
let turn = false;
let busy = 0;
let before = spent();
await new Promise((resolve) => {
  const ticks = setInterval(() => {
    const now = spent();
    if (now.all > before.all) busy = 0.5 * busy + 0.5 * (1 - (now.idle - before.idle) / (now.all - before.all));
    before = now;
    if (going === 0 && waiting.length === 0) {
      clearInterval(ticks);
      resolve();
    }
    if (going >= MOST || (busy > BUSY && going >= LEAST)) return;
    const index = waiting.findIndex((job) => !(turn && OWN_PORT.test(job.name)));
    if (index === -1) return;
    const [job] = waiting.splice(index, 1);
    const takesTurn = !NETWORKS && OWN_PORT.test(job.name);
    turn ||= takesTurn;
    going += 1;
    judge(job).then(() => {
      going -= 1;
      if (takesTurn) turn = false;
    });
  }, TICK_MS);
});
const good = failed === 0 && passed > 0;
console.log(`\ntest result: ${good ? 'ok' : 'FAILED'}. ${passed} passed; ${failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in ${((Date.now() - began) / 1000).toFixed(2)}s`);
process.exitCode = good ? 0 : 1;

// Everything that goes wrong, at once, beside the real sidecar: two of them, one that is never ended, so that its memory can be
// judged, and one that is killed and started again and again on a store that is whole, read-only or corrupt. Both suffer
// all the rest. Started by `run`, in a mount namespace of its own.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fakeDaemon, folder, onStage, onTidy, pause, pm2, pm2Home, readOptions, root, say, start } from '../../benches/collection/stage.mjs';
import { machine } from '../../benches/collection/proc.mjs';
import { FAULTS, Ledger, Stage, injectAll } from './faults.mjs';
import { SILENCE, Trial, lost, now } from './trial.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const PM2 = resolve(here, '../pm2/node_modules/pm2-7/bin/pm2');
const options = readOptions({ minutes: '10', sidecar: 'target/release/leakslope', keep: '', sabotage: 'none' });
/** Ways to make a sidecar break its promises, so that it shows that they are looked at. */
const SABOTAGE = ['none', 'kill', 'stop', 'forget', 'leak'];
if (!SABOTAGE.includes(options.sabotage)) throw new Error(`--sabotage is one of ${SABOTAGE.join(', ')}`);
const seconds = 60 * Number(options.minutes);
const MEBIBYTE = 1 << 20;
const LIMIT = 64;
/** What threads reserve for their stacks and hardly touch: a limit on data counts it, a control group's would not. */
const STACKS = 12 * 2;
/** Seconds between collections. */
const INTERVAL = 2;
const SLOW_CLIENTS = 1000;
/** Seconds: history younger than this may be lost with a process that is killed. A minute is promised; far less is asked for. */
const GRACE = 5 * INTERVAL;
/** Room of the disk of each sidecar. */
const DISK = '256m';
const plan = { interval: INTERVAL, minute: Math.max(100, Math.round(seconds * 1000 / 1440)), limit: (LIMIT + STACKS) * MEBIBYTE, library: process.env.FAKETIME_LIBRARY,
  binary: resolve(root, options.sidecar) };

/** A real daemon with real apps that can be revived. */
async function realDaemon() {
  const home = pm2Home(PM2);
  const apps = join(dirname(home), 'apps');
  cpSync(resolve(here, '../pm2/apps'), apps, { recursive: true });
  const file = join(apps, 'faults.json');
  const app = (name, more) => ({ name, script: 'server.js', cwd: apps, max_restarts: 100_000, min_uptime: 100, ...more });
  writeFileSync(file, JSON.stringify({ apps: [app('web', { instances: 2, exec_mode: 'cluster' }), app('api'), app('jobs')] }));
  await pm2(home, ['start', file], PM2);
  await pm2(home, ['save'], PM2);
  return { home, command: PM2 };
}

function disk(name) {
  const path = folder(`leakslope-disk-${name}-`);
  const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK}`, 'none', path], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`mounting a small disk: ${stderr}`);
  onTidy(() => spawnSync('umount', ['-l', path]));
  return path;
}

/** A process of its own that attacks one sidecar; `tell` asks it what it did. */
async function attack(trial) {
  const started = await start('node', [join(here, 'attacks.mjs'), String(trial.port), String(SLOW_CLIENTS)], {},
    join(trial.place, `attacks-${trial.name}`), /attacking/, { channel: true });
  const tell = () => new Promise((told, failed) => {
    started.child.once('message', told).once('exit', () => failed(new Error('the attackers have ended')));
    started.child.send('tell');
  });
  return { ...started, tell };
}

/** What sabotage does half-way through. */
async function sabotage(kind, stage) {
  await pause(seconds / 2);
  const { steady } = stage;
  if (kind === 'kill') process.kill(steady.pid, 'SIGKILL');
  if (kind === 'stop') {
    process.kill(steady.pid, 'SIGSTOP');
    await pause(steady.allowed() + 3);
    process.kill(steady.pid, 'SIGCONT');
  }
}

/** The verdict of `leakslope analyze` about a trace of memory. */
function judge(trial) {
  const { stdout, stderr } = spawnSync(plan.binary, ['analyze', '--minute', `${plan.minute}ms`, '--format', 'json', trial.trace], { encoding: 'utf8' });
  const answer = JSON.parse(stdout || '{}');
  return answer.verdict ? answer : { verdict: 'unknown', reason: stderr };
}

/** Ends the steady sidecar as a crash would and looks whether a new one knows what it knew. */
async function afterwards(trial) {
  const before = await trial.history();
  const newest = Math.max(...before.flat().map(([time]) => time));
  await trial.kill();
  if (options.sabotage === 'forget') spawnSync('rm', ['-rf', join(trial.state, 'leakslope')]);
  await trial.start();
  const after = await trial.history();
  const rows = before.reduce((sum, some) => sum + some.length, 0);
  const missing = lost(before, after, GRACE);
  const holes = before.map((some) => some.slice(1).map(([time], index) => time - some[index][0])).flat();
  return { rows, missing, hole: Math.max(...holes), span: newest - before[0][0][0] };
}

function table(ledger) {
  const lines = ['| fault | times | what the sidecar did | verdict |', '|---|---:|---|---|'];
  for (const { title, times, seen, wrong } of ledger.rows.values()) {
    const did = Object.entries(seen).map(([what, count]) => (count > 1 ? `${what} ${count} times` : what)).join('; ') || 'went on';
    lines.push(`| ${title} | ${times} | ${did} | ${wrong.size > 0 ? `**broken**: ${[...wrong].join('; ')}` : times > 0 ? 'held' : '**never came**'} |`);
  }
  return lines.join('\n');
}

async function main() {
  if (!existsSync(plan.binary)) throw new Error(`${plan.binary} is missing: cargo build --release --locked`);
  const begunAt = new Date().toISOString();
  say('starting daemons');
  const [witness, crowd] = [await fakeDaemon(20), await fakeDaemon(20)];
  const real = await realDaemon();
  plan.daemons = [{ name: 'witness', home: witness.home }, { name: 'crowd', home: crowd.home }, { name: 'real', home: real.home }];
  const place = options.keep ? resolve(options.keep) : folder('leakslope-faults-');
  mkdirSync(place, { recursive: true });
  const steady = new Trial('steady', place, disk('steady'), plan);
  const shaken = new Trial('shaken', mkdirAt(place, 'shaken'), disk('shaken'), plan);
  const trials = [steady, shaken];
  for (const trial of trials) await trial.start();
  const ledger = new Ledger(FAULTS);
  const stage = new Stage({ trials, steady, shaken, crowd, real, ledger, interval: INTERVAL, grace: GRACE, end: now() + seconds });
  say(`faults for ${options.minutes} minutes; a minute of history is ${plan.minute} ms`);
  const watching = trials.map((trial) => trial.watch());
  await pause(3 * INTERVAL);
  const openAtFirst = steady.descriptors();
  const attackers = [];
  for (const trial of trials) attackers.push(await attack(trial));
  const wrecking = sabotage(options.sabotage, stage);
  await injectAll(stage);
  await wrecking;

  say('faults are over');
  for (const [index, attacker] of attackers.entries()) {
    const told = await attacker.tell();
    ledger.times('slow', index === 0 ? SLOW_CLIENTS : 0);
    ledger.seen('slow', 'connections begun', told.slow);
    ledger.times('malformed', told.malformed);
    ledger.times('webhooks', told.webhooks);
    for (const [code, count] of Object.entries(told.malformedAnswers)) ledger.seen('malformed', code === '0' ? 'closed' : code, count);
    for (const [code, count] of Object.entries(told.webhookAnswers)) ledger.seen('webhooks', code === '0' ? 'closed' : code, count);
    for (const what of told.wrongly) ledger.wrong(what.startsWith('webhook') ? 'webhooks' : 'malformed', what);
    await attacker.stop();
  }
  await pause(6 * INTERVAL);
  const problems = [];
  const promise = (text, kept, figure) => {
    problems.push(...(kept ? [] : [`${text}: ${figure}`]));
    return `| ${text} | ${figure} | ${kept ? 'kept' : '**broken**'} |`;
  };
  const promises = [];
  for (const trial of trials) trial.watching = false;
  await Promise.all(watching);
  ledger.times('memory', 1);
  for (const trial of trials) {
    ledger.seen('memory', `${trial.name}: ${trial.peak.toFixed(1)} MiB at its highest`);
    const panics = trial.log().match(/panicked/g)?.length ?? 0;
    if (panics > 0) trial.violated(`${panics} panics in its log`);
    promises.push(promise(`${trial.name}: nothing crashes`, trial.violations.length === 0, trial.violations.join('; ') || `${trial.starts} starts, none of them forced by it`));
    promises.push(promise(`${trial.name}: no collection late by more than two intervals of ${INTERVAL} s`, trial.longestGap <= trial.allowed(),
      `${trial.longestGap.toFixed(1)} s between two at most${trial.gaps.length > 0 ? ` (${trial.gaps.join(', ')})` : ''}, ${trial.collections} counted, the observer itself up to ${trial.observerLate.toFixed(1)} s late`));
    promises.push(promise(`${trial.name}: it goes on answering`, trial.collections > 0 && trial.longestSilence <= SILENCE,
      `${trial.unanswered} of ${trial.scrapes} scrapes unanswered, ${trial.longestSilence.toFixed(1)} s without an answer at most`));
    promises.push(promise(`${trial.name}: its memory without mapped files stays below ${LIMIT} MiB`, trial.peak < LIMIT, `${trial.peak.toFixed(1)} MiB at its highest`));
  }
  if (options.sabotage === 'leak') leak(steady);
  const verdict = judge(steady);
  // Stable for want of time says nothing.
  const judged = verdict.verdict === 'stable' && !/watched for long enough/.test(verdict.reason);
  promises.push(promise('steady: its own memory is stable by `leakslope analyze`', judged, `${verdict.verdict}: ${verdict.reason}`));
  if (steady.running) {
    const open = steady.descriptors();
    promises.push(promise('steady: descriptors are given back', open <= openAtFirst + 8, `${openAtFirst} before, ${open} after`));
    const known = await afterwards(steady);
    promises.push(promise('steady: history is whole', known.hole <= steady.allowed() + plan.minute / 1000,
      `${known.rows} rows of 4 processes over ${(known.span * 1000 / plan.minute / 60).toFixed(1)} h of its time, the longest hole ${known.hole.toFixed(1)} s`));
    promises.push(promise(`steady: no history older than ${GRACE} s is lost with a crash`, known.missing === 0, `${known.missing} rows lost`));
  }
  for (const { title, times, wrong } of ledger.rows.values()) {
    problems.push(...[...wrong].map((what) => `${title}: ${what}`), ...(times > 0 ? [] : [`${title}: it never came`]));
  }
  console.log(`${machine()}; ${begunAt}, ${options.minutes} minutes, a minute of history every ${plan.minute} ms.\n\n${table(ledger)}\n\n`
    + `| promise | seen | |\n|---|---|---|\n${promises.join('\n')}\n`);
  for (const problem of problems) console.log(`BROKEN ${problem}`);
  process.exitCode = problems.length > 0 ? 1 : 0;
}

function mkdirAt(...parts) {
  const path = join(...parts);
  mkdirSync(path, { recursive: true });
  return path;
}

/** MiB by which sabotage has the trace grow: a quarter of it is not told from the ups and downs of three minutes. */
const LEAK = 240;

/** Has the trace grow as a leak would. */
function leak(trial) {
  const [head, ...rows] = readFileSync(trial.trace, 'utf8').trim().split('\n');
  const grown = rows.map((row, index) => {
    const [time, bytes, life] = row.split(',');
    return `${time},${Number(bytes) + Math.round((index / rows.length) * LEAK * MEBIBYTE)},${life}`;
  });
  writeFileSync(trial.trace, `${[head, ...grown].join('\n')}\n`);
}

await onStage(main);

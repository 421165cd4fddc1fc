// What goes wrong, each in a loop of its own until the time is over: injects, counts, looks at what the sidecars make of it, and
// undoes itself. None waits for another, so they meet in every combination.
import { closeSync, openSync, readFileSync, readSync, readdirSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { killAll, pause, pm2 } from '../../benches/collection/stage.mjs';
import { SILENCE, STEPS, lost, now } from './trial.mjs';

/** Every fault by its key: what it is called, how often it came, what was seen of it, what was wrong. */
export class Ledger {
  constructor(faults) {
    this.rows = new Map(Object.entries(faults).map(([key, title]) => [key, { title, times: 0, seen: {}, wrong: new Set() }]));
  }

  times(key, count = 1) {
    this.rows.get(key).times += count;
  }

  /** Counts something that the sidecar did. */
  seen(key, what, count = 1) {
    const { seen } = this.rows.get(key);
    seen[what] = (seen[what] ?? 0) + count;
  }

  wrong(key, what) {
    this.rows.get(key).wrong.add(what);
  }
}

export const FAULTS = {
  killed: 'pm2 daemon killed and revived',
  hung: 'pm2 daemons hung (SIGSTOP)',
  restarts: 'apps restarted at random',
  crowd: '2,000 processes appear and vanish',
  full: 'disk full',
  readonly: 'state directory read-only at a start',
  crash: 'sidecar killed (SIGKILL)',
  corrupt: 'store corrupt at a start',
  clock: 'clock steps of ±1 h and ±1 year',
  slow: '1,000 slow-loris clients',
  malformed: 'malformed HTTP',
  webhooks: 'webhook floods',
  reload: 'configuration reloads, good and bad',
  descriptors: 'file descriptors exhausted',
  memory: 'memory limited to 64 MiB',
};

/** Numbers that look random and are the same in every run. */
export function dice(seed) {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** What all faults need: the trials, the daemons, the ledger, the end. */
export class Stage {
  constructor(parts) {
    Object.assign(this, parts);
    this.roll = dice(9);
  }

  /** Seconds left; none once a sidecar has ended by itself, since all has been said then. */
  left() {
    return this.trials.some((trial) => trial.gone) ? 0 : this.end - now();
  }

  /** Pauses between so many seconds; false when the time is over meanwhile. */
  async rest(least, most) {
    const seconds = least + this.roll(1000 * (most - least)) / 1000;
    await pause(Math.max(0, Math.min(seconds, this.left())));
    return this.left() > 0;
  }

  /** Whether what was scraped becomes true in time. It is not said to be false before an answer of a later time says so. */
  async becomes(trial, seconds, test) {
    const due = now() + seconds;
    for (; now() < due + SILENCE && !trial.gone; await pause(0.25)) {
      if (test(trial)) return true;
      if (now() > due && (trial.answeredAt > due || !trial.running)) break;
    }
    return false;
  }

  /** All sidecars see this daemon up (1) or down (0) in time. */
  async see(key, daemon, up, seconds) {
    for (const trial of this.trials) {
      const told = () => !trial.running || trial.value(`pm2_up{daemon="${daemon}"}`) === up;
      if (await this.becomes(trial, seconds, told)) this.seen(key, `${up ? 'up' : 'down'} shown`);
      else this.ledger.wrong(key, `${trial.name}: ${daemon} is not shown as ${up ? 'up' : 'down'} after ${seconds} s`);
    }
  }

  seen(key, what, count) {
    this.ledger.seen(key, what, count);
  }
}

/** Seconds in which everything has to show: two intervals, the deadline of a daemon, a scrape. */
const shows = (stage) => 2 * stage.interval + 6;

async function killed(stage) {
  const { home } = stage.real;
  while (await stage.rest(15, 25)) {
    const pid = Number(readFileSync(join(home, 'pm2.pid'), 'utf8'));
    stage.realBusy = true;
    process.kill(pid, 'SIGKILL');
    killAll(home);
    stage.ledger.times('killed');
    await stage.see('killed', 'real', 0, shows(stage));
    await pm2(home, ['resurrect'], stage.real.command);
    await stage.see('killed', 'real', 1, shows(stage) + 20);
    stage.realBusy = false;
  }
}

async function hung(stage) {
  while (await stage.rest(8, 16)) {
    // The crowd's daemon and the real one in turn.
    const real = stage.ledger.rows.get('hung').times % 2 === 1 && !stage.realBusy;
    const pid = real ? Number(readFileSync(join(stage.real.home, 'pm2.pid'), 'utf8')) : stage.crowd.pid;
    try {
      process.kill(pid, 'SIGSTOP');
    } catch {
      continue;
    }
    stage.ledger.times('hung');
    if (!real) await stage.see('hung', 'crowd', 0, shows(stage));
    await stage.rest(2, 6);
    try {
      process.kill(pid, 'SIGCONT');
    } catch {
      // It was killed while it hung.
    }
    if (!real) await stage.see('hung', 'crowd', 1, shows(stage) + 10);
  }
}

async function restarts(stage) {
  while (await stage.rest(1, 6)) {
    if (stage.realBusy) continue;
    try {
      if (stage.roll(4) === 0) {
        await pm2(stage.real.home, ['restart', 'web'], stage.real.command);
      } else {
        const files = readdirSync(join(stage.real.home, 'pids'));
        process.kill(Number(readFileSync(join(stage.real.home, 'pids', files[stage.roll(files.length)]), 'utf8')), 'SIGKILL');
      }
      stage.ledger.times('restarts');
    } catch {
      // It had ended already, or its daemon was killed under it.
    }
  }
}

async function crowd(stage) {
  let many = false;
  while (await stage.rest(6, 12)) {
    many = !many;
    stage.crowd.send(many ? 2000 : 20);
    stage.ledger.times('crowd');
    const shown = () => [...stage.steady.latest.keys()].filter((series) => series.startsWith('pm2_process_info{daemon="crowd"')).length;
    if (many && await stage.becomes(stage.steady, 12, () => shown() === 2000)) stage.seen('crowd', '2,000 shown');
  }
  stage.crowd.send(20);
}

async function full(stage) {
  const { steady } = stage;
  const filler = join(steady.state, 'filler');
  // Room that the sidecar makes by giving up what is damaged is taken as well.
  const pour = () => {
    const file = openSync(filler, 'a');
    try {
      for (const block of [1 << 20, 4096, 1]) {
        try {
          for (;;) writeSync(file, Buffer.alloc(block, 1));
        } catch (error) {
          if (error.code !== 'ENOSPC') throw error;
        }
      }
    } finally {
      closeSync(file);
    }
  };
  while (await stage.rest(15, 25)) {
    stage.ledger.times('full');
    const kept = await stage.becomes(steady, 15, () => {
      pour();
      return steady.value('leakslope_store_degraded') === 1;
    });
    if (kept) stage.seen('full', 'kept in memory and said so');
    await stage.rest(3, 8);
    rmSync(filler, { force: true });
    // The pause between two attempts doubles up to a minute; here the disk was full for less than twenty seconds.
    if (await stage.becomes(steady, 45, () => steady.value('leakslope_store_degraded') === 0)) stage.seen('full', 'saved again');
    else stage.ledger.wrong('full', 'the store is still degraded 45 s after the disk has room');
  }
}

const remount = (state, how) => {
  const { status, stderr } = spawnSync('mount', ['-o', `remount,${how}`, state], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
};

/** Flips bytes all over the file, which no process has open. */
function flip(path, roll, count) {
  const file = openSync(path, 'r+');
  const { size } = statSync(path);
  for (let index = 0; index < count; index += 1) {
    const at = roll(size);
    const byte = Buffer.alloc(1);
    readSync(file, byte, 0, 1, at);
    byte[0] ^= 1 + roll(255);
    try {
      writeSync(file, byte, 0, 1, at);
    } catch (error) {
      // A hole in the file, and no room to fill it.
      if (error.code !== 'ENOSPC') throw error;
    }
  }
  closeSync(file);
}

/** Kills a sidecar as a crash would and starts it anew: on its store as it is, on a read-only disk, on a corrupt store. */
async function shaken(stage) {
  const { shaken: trial, ledger } = stage;
  const folder = join(trial.state, 'leakslope');
  // Only the last few are kept, so their names tell, not their number.
  const aside = () => readdirSync(folder).filter((name) => name.includes('corrupt-')).sort().join();
  for (let round = 0; await stage.rest(15, 25); round += 1) {
    const kind = ['crash', 'readonly', 'corrupt'][round % 3];
    await stage.becomes(trial, 30, () => trial.value('leakslope_store_degraded') === 0);
    if (stage.left() <= 0) return;
    const before = await trial.history();
    await trial.kill();
    ledger.times('crash');
    if (kind !== 'crash') ledger.times(kind);
    const asideBefore = aside();
    if (kind === 'corrupt') flip(join(folder, 'history.redb'), stage.roll, 40);
    if (kind === 'readonly') remount(trial.state, 'ro');
    try {
      await trial.start();
    } catch (error) {
      trial.violated(`it did not start (${kind}): ${error.message.trim().split('\n').slice(-3).join(' | ')}`);
      return;
    }
    if (!await stage.becomes(trial, trial.allowed() + 5, () => trial.collected !== null)) ledger.wrong(kind, 'no collection after the start');
    if (kind === 'readonly') {
      if (await stage.becomes(trial, 15, () => trial.value('leakslope_store_degraded') === 1)) stage.seen(kind, 'kept in memory and said so');
      else ledger.wrong(kind, 'a read-only state directory is not told of');
      await stage.rest(2, 6);
      remount(trial.state, 'rw');
      if (await stage.becomes(trial, 45, () => trial.value('leakslope_store_degraded') === 0)) stage.seen(kind, 'saved again');
      else ledger.wrong(kind, 'the store is still degraded 45 s after the disk can be written');
      continue;
    }
    const after = await trial.history();
    const missing = lost(before, after, stage.grace);
    if (kind === 'corrupt' && aside() !== asideBefore) {
      stage.seen(kind, 'set the file aside and went on with what could be read');
    } else if (missing > 0) {
      const span = ([rows]) => `${rows.length} rows, ${rows[0]} to ${rows.at(-1)}`;
      ledger.wrong(kind, `${missing} rows older than ${stage.grace} s are gone or changed: the first process had ${span(before)}; it has ${span(after)}`);
    } else {
      stage.seen(kind, 'history there');
    }
  }
}

async function clock(stage) {
  for (let index = 0; await stage.rest(6, 12); index += 1) {
    const step = STEPS[index % STEPS.length];
    for (const trial of stage.trials) writeFileSync(trial.clock, `${step < 0 ? '' : '+'}${step}`);
    stage.ledger.times('clock');
    const { steady } = stage;
    const arrived = () => Math.abs(steady.value('leakslope_last_collect_timestamp_seconds{daemon="witness"}') - Date.now() / 1000 - step) < 60;
    if (await stage.becomes(steady, 12, arrived)) stage.seen('clock', 'followed');
    else if (stage.left() > 0) stage.ledger.wrong('clock', `a step to ${step} s never showed`);
  }
  for (const trial of stage.trials) writeFileSync(trial.clock, '+0');
}

const BAD = ['interval = "1s', 'interval = "banana"\n', 'unknown_key = 1\n', '[collect]\nmax_processes = -1\n', '\0\0\0', '[[pm2]]\nname = 7\n'];

async function reload(stage) {
  for (let round = 0; await stage.rest(2, 4); round += 1) {
    const good = round % 2 === 1;
    for (const trial of stage.trials) {
      const { running } = trial;
      if (!running) continue;
      trial.configure(good ? trial.text(round) : BAD[stage.roll(BAD.length)]);
      process.kill(trial.pid, 'SIGHUP');
      stage.ledger.times('reload');
      // A second reload while the first is looked at would confuse what is expected.
      const told = await stage.becomes(trial, 10, () => trial.value('leakslope_config_last_reload_successful') === Number(good));
      if (told) stage.seen('reload', good ? 'taken' : 'refused, old one kept');
      // One that was killed meanwhile has read another configuration at its start.
      else if (trial.running === running) stage.ledger.wrong('reload', `${trial.name}: a ${good ? 'good' : 'bad'} configuration is not told of after 10 s`);
      trial.configure(trial.text());
    }
  }
}

async function descriptors(stage) {
  const limit = (trial, count) => spawnSync('prlimit', ['--pid', String(trial.pid), `--nofile=${count}:4096`]);
  for (let round = 0; await stage.rest(10, 18); round += 1) {
    for (const trial of stage.trials) {
      if (!trial.running) continue;
      // So few that its clients alone take them all; every third time none is left at all.
      limit(trial, round % 3 === 2 ? 3 : 96);
      stage.ledger.times('descriptors');
    }
    if (round % 3 === 2) await pause(stage.interval / 2);
    else await stage.rest(8, 12);
    for (const trial of stage.trials) if (trial.running) limit(trial, 1024);
  }
}

/** Runs all of them until the end. */
export function injectAll(stage) {
  const faults = [killed, hung, restarts, crowd, full, shaken, clock, reload, descriptors];
  return Promise.all(faults.map((fault) => fault(stage).catch((error) => {
    // What is asked of a sidecar that has ended fails; that it has ended is told of by itself.
    if (!stage.trials.some((trial) => trial.gone)) throw error;
  })));
}


// A sidecar under trial, seen from outside only: scraped every second, its memory read from /proc, its history from its API.
import { appendFileSync, readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { join } from 'node:path';
import { freePort, pause, start } from '../../benches/collection/stage.mjs';
import { mebibytes } from '../../benches/collection/proc.mjs';

/** Seconds on a clock that never steps. */
export const now = () => performance.now() / 1000;
/** How long a scrape may take, in milliseconds. */
const PATIENCE = 5000;
/** Seconds that one observer among a thousand clients may be without an answer. */
export const SILENCE = 30;

export class Trial {
  /** `plan` has minute (ms), interval (s), limit (bytes), library (libfaketime), binary, daemons [{name, home}]. */
  constructor(name, place, state, plan) {
    Object.assign(this, { name, place, state, plan });
    this.configuration = join(place, 'leakslope.toml');
    this.clock = join(place, 'clock');
    this.trace = join(place, `memory-${name}.csv`);
    writeFileSync(this.clock, '+0');
    writeFileSync(this.trace, 'time,resident_memory_bytes,life\n');
    Object.assign(this, { starts: 0, running: null, gone: false, violations: [], longestGap: 0, scrapes: 0, unanswered: 0, degraded: 0,
      peak: 0, latest: new Map(), collected: null, collectedAt: null, answeredAt: null, longestSilence: 0, watching: true, collections: 0,
      gaps: [], observerLate: 0, logs: [] });
  }

  violated(what) {
    if (!this.violations.includes(what)) this.violations.push(what);
  }

  /** The configuration; `variant` changes what a reload can change. */
  text(variant = 0) {
    const { minute, interval, daemons } = this.plan;
    return `interval = "${interval}s"
[collect]
heap_interval = "${1 + (variant % 2)}s"
deadline = "2s"
[history]
window = "48h"
[trend]
minute = "${minute}ms"
${daemons.map(({ name, home }) => `[[pm2]]\nname = "${name}"\nhome = "${home}"\nsource = "socket"\n`).join('')}
[[restart.policy]]
apps = ["*"]
`;
  }

  /** Puts a configuration in place as a whole: half a file would be another fault, and an empty one is a good configuration. */
  configure(text) {
    writeFileSync(`${this.configuration}.new`, text);
    renameSync(`${this.configuration}.new`, this.configuration);
  }

  /** Starts it, and waits until it has collected once. */
  async start() {
    const { binary, limit, library } = this.plan;
    this.port ??= await freePort();
    this.configure(this.text());
    const env = { PM2_HOME: join(this.place, 'no-pm2'), HOME: this.place, XDG_STATE_HOME: this.state, STATE_DIRECTORY: '', RUST_BACKTRACE: '1',
      LD_PRELOAD: library, FAKETIME_TIMESTAMP_FILE: this.clock, FAKETIME_CACHE_DURATION: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1', NO_FAKE_STAT: '1' };
    const log = join(this.place, `log-${this.name}-${this.starts}`);
    this.logs.push(log);
    this.starts += 1;
    const args = [`--data=${limit}`, '--nofile=1024:4096', binary, '--config', this.configuration, '--web.listen-address', `127.0.0.1:${this.port}`];
    const running = await start('prlimit', args, env, log, /on http:\/\/127\.0\.0\.1:(\d+)\//);
    this.running = running;
    running.child.once('exit', (code, signal) => {
      if (this.running !== running) return;
      this.running = null;
      this.gone = true;
      this.violated(`it ended by itself (${signal ?? `code ${code}`}): ${readFileSync(log, 'utf8').trim().split('\n').slice(-3).join(' | ')}`);
    });
    this.collected = null;
    this.collectedAt = now();
    this.answeredAt = now();
  }

  /** Ends it as a crash would. */
  async kill() {
    const running = this.running;
    this.running = null;
    if (running) await running.stop('SIGKILL');
  }

  get pid() {
    return this.running?.pid ?? null;
  }

  async get(path) {
    const answer = await fetch(`http://127.0.0.1:${this.port}${path}`, { signal: AbortSignal.timeout(PATIENCE), headers: { connection: 'close' } });
    if (answer.status !== 200) throw new Error(`${path}: ${answer.status}`);
    return answer.text();
  }

  /** As `get`, but asks again until it is answered. */
  async insist(path, patience = 30) {
    for (const end = now() + patience; ;) {
      try {
        return await this.get(path);
      } catch (error) {
        if (now() > end) throw error;
        await pause(0.2);
      }
    }
  }

  /**
   * One scrape; notes how often the undisturbed daemon was collected from since the last one that was answered. The sidecar counts its
   * collections itself, so a scrape that had to wait for its turn among a thousand clients hides none and makes none late.
   */
  async scrape() {
    this.scrapes += 1;
    const { running } = this;
    let body;
    try {
      body = await this.get('/metrics');
    } catch {
      if (running === this.running) this.unanswered += 1;
      return;
    }
    // It was killed, and perhaps started again, while this was under way.
    if (running !== this.running) return;
    this.longestSilence = Math.max(this.longestSilence, now() - this.answeredAt);
    this.answeredAt = now();
    this.latest = new Map(body.split('\n').filter((line) => line && line[0] !== '#').map((line) => {
      const cut = line.lastIndexOf(' ');
      return [line.slice(0, cut), Number(line.slice(cut + 1))];
    }));
    if (this.value('leakslope_store_degraded') === 1) this.degraded += 1;
    const count = this.value('leakslope_collections_total{daemon="witness",outcome="success"}') ?? 0;
    this.note(count - (this.collected ?? 0));
    if (count > 0) this.collected = count;
  }

  /**
   * Notes so many collections since the one that was noted last. They come an interval apart when none is late, so what is left of the
   * time is the longest that can lie between two of them.
   */
  note(more) {
    const gap = now() - this.collectedAt - Math.max(0, more - 1) * this.plan.interval;
    if (gap > this.allowed() && more > 0) this.gaps.push(`${gap.toFixed(1)} s until ${now().toFixed(0)} s`);
    this.longestGap = Math.max(this.longestGap, gap);
    if (more <= 0) return;
    this.collections += more;
    this.collectedAt = now();
  }

  value(series) {
    return this.latest.get(series);
  }

  /** Watches it until told to stop: two loops, so that a scrape that hangs delays no reading of its memory. */
  watch() {
    const scraping = async () => {
      let expected = now();
      while (this.watching) {
        if (this.running) await this.scrape();
        expected = Math.max(expected + 1, now());
        await pause(Math.max(0, expected - now()));
        // A machine that is too busy for the one who looks is too busy to judge by.
        this.observerLate = Math.max(this.observerLate, now() - expected);
      }
    };
    const weighing = async () => {
      const begun = now();
      while (this.watching) {
        if (this.running) this.weigh(now() - begun);
        // Four to a minute, as those whose memory is judged are looked at.
        await pause(this.plan.minute / 4000);
      }
    };
    return Promise.all([scraping(), weighing()]);
  }

  weigh(at) {
    try {
      appendFileSync(this.trace, `${at.toFixed(3)},${Math.round(mebibytes(this.pid, 'VmRSS') * 1048576)},${this.pid}\n`);
      this.peak = Math.max(this.peak, mebibytes(this.pid, 'RssAnon'));
    } catch {
      // It has ended since; its exit is told of by itself.
    }
  }

  /** The longest time between two collections: the interval, two that may be missed, and a second for the scrape. */
  allowed() {
    return 3 * this.plan.interval + 1;
  }

  /** What it remembers of the witness' processes: the rows of each as `[seconds, the rest]`. */
  async history(count = 4) {
    const rows = [];
    for (let pmId = 0; pmId < count; pmId += 1) {
      const csv = await this.insist(`/api/v1/processes/witness/${pmId}/history.csv`);
      rows.push(csv.trim().split('\n').slice(1).map((line) => {
        const [time, resident] = line.split(',');
        return [Number(time), resident];
      }));
    }
    return rows;
  }

  descriptors() {
    return readdirSync(`/proc/${this.pid}/fd`).length;
  }

  log() {
    return this.logs.map((path) => readFileSync(path, 'utf8')).join('');
  }
}

/** What the wall clock is set to, in seconds from the right time. */
export const STEPS = [3600, -3600, 365 * 86400, -365 * 86400, 0];
/** By how much it may have stepped between two looks. */
const SHIFTS = [...new Set(STEPS.flatMap((to) => STEPS.map((from) => to - from)))];

/**
 * The rows of `before` that are missing or different in `after`, but for those of the last `grace` seconds. Rows lie on a line that
 * does not step; it is told by the wall clock as it is then, so all rows of a process may have moved together.
 */
export function lost(before, after, grace) {
  return before.reduce((sum, rows, pmId) => sum + Math.min(...SHIFTS.map((shift) => missing(rows, after[pmId], grace, shift))), 0);
}

function missing(rows, others, grace, shift) {
  const until = Math.max(...rows.map(([time]) => time)) - grace;
  const known = new Map(others.map(([time, value]) => [Math.round((time - shift) * 20), value]));
  return rows.filter(([time, value]) => {
    const at = Math.round(time * 20);
    // The wall clock's offset is told to the millisecond, so a row may round to a neighbour.
    return time <= until && ![at - 1, at, at + 1].some((slot) => known.get(slot) === value);
  }).length;
}

// What processes cost, read from /proc: CPU time to the nanosecond, and resident memory.
import { readFileSync, readdirSync } from 'node:fs';

/** Follows the CPU time of one process, thread by thread, so that what a thread used is not lost when it ends. */
export class CpuMeter {
  constructor(pid) {
    this.pid = pid;
    this.threads = new Map();
    this.look();
    this.timer = setInterval(() => this.look(), 500);
    this.timer.unref();
  }

  look() {
    for (const thread of readdirSync(`/proc/${this.pid}/task`)) {
      try {
        const [nanoseconds] = readFileSync(`/proc/${this.pid}/task/${thread}/schedstat`, 'utf8').split(' ');
        this.threads.set(thread, Number(nanoseconds));
      } catch {
        // The thread has ended since it was listed.
      }
    }
  }

  /** Seconds of CPU time since the process started, as far as they were seen. */
  seconds() {
    this.look();
    let sum = 0;
    for (const nanoseconds of this.threads.values()) sum += nanoseconds;
    return sum / 1e9;
  }

  stop() {
    clearInterval(this.timer);
  }
}

/** A field of /proc/<pid>/status in MiB: `VmRSS` now, `VmHWM` at its highest. */
export function mebibytes(pid, field) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)[1]) / 1024;
}

/** Memory that the machine can still give, in MiB. */
export function available() {
  return Number(/^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))[1]) / 1024;
}

/** Pids of every process whose environment has this variable at this value. */
export function withEnvironment(variable) {
  const found = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      if (readFileSync(`/proc/${entry}/environ`, 'utf8').split('\0').includes(variable)) found.push(Number(entry));
    } catch {
      // It has ended, or it is not ours.
    }
  }
  return found;
}

/** The machine in a line. */
export function machine() {
  const model = /^model name\s*: (.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? 'unknown processor';
  const cores = readFileSync('/proc/cpuinfo', 'utf8').match(/^processor/gm)?.length ?? 1;
  const kernel = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
  return `${cores} × ${model}, Linux ${kernel}, Node ${process.versions.node}`;
}

/** Processes that want a core, on average over the last minute. */
export function load() {
  return Number(readFileSync('/proc/loadavg', 'utf8').split(' ')[0]);
}

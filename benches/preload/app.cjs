'use strict';
// The measured process of run.cjs. Prints as JSON the CPU time its work took, with the number of units of work done.
//   idle SECONDS          does nothing
//   busy SECONDS REQUESTS serves that many imaginary requests, spread over the seconds
//   collect COUNT [HOW]   makes V8 run that many minor collections; with HOW `observed` it looks at each as the preload does
const [mode, first, second] = process.argv.slice(2);
const started = process.cpuUsage();

function finish(work) {
  const { user, system } = process.cpuUsage(started);
  process.stdout.write(`${JSON.stringify({ cpuSeconds: (user + system) / 1e6, work })}\n`, () => process.exit(0));
}

/** A session that lives for a while, with short-lived objects around it. */
function request(sessions, number) {
  const items = Array.from({ length: 40 }, (_, i) => ({ i, name: `item ${i}`, at: number + i }));
  sessions.set(number % 20000, JSON.parse(JSON.stringify({ number, items })).items.slice(0, 3));
}

function busy(seconds, requests) {
  const sessions = new Map();
  const batch = Math.ceil(requests / (seconds * 100));
  let done = 0;
  const timer = setInterval(() => {
    for (let i = 0; i < batch && done < requests; i += 1, done += 1) request(sessions, done);
    if (done >= requests) {
      clearInterval(timer);
      finish(done);
    }
  }, 10);
}

function collect(count, how) {
  if (how === 'observed') {
    const { PerformanceObserver } = require('perf_hooks');
    let milliseconds = 0;
    const observer = new PerformanceObserver((list) => {
      for (const { detail, duration } of list.getEntries()) if (detail.kind) milliseconds += duration;
    });
    observer.observe({ entryTypes: ['gc'] });
  }
  let done = 0;
  // Through the event loop, as in an app: whoever observes collections is told between two of them.
  const next = () => {
    for (let i = 0; i < 10; i += 1, done += 1) globalThis.gc({ type: 'minor' });
    if (done < count) setImmediate(next);
    else finish(done);
  };
  next();
}

if (mode === 'idle') setTimeout(finish, Number(first) * 1000, 0);
else if (mode === 'busy') busy(Number(first), Number(second));
else collect(Number(first), second);

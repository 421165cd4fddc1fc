// A burst of jobs is queued faster than it is worked off, for BURST_SECONDS; then the queue drains.
'use strict';
const burst = Number(process.env.BURST_SECONDS || 15);
const queue = [];
const start = Date.now();
let queued = 0;
let worked = 0;
setInterval(() => {
  const seconds = (Date.now() - start) / 1000;
  while (queued < Math.min(seconds, burst) * 400) queue.push({ number: queued++, body: new Array(40).fill(queued) });
  while (worked < seconds * 200 && queue.length) {
    queue.shift();
    worked += 1;
  }
}, 20);

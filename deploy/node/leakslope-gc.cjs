'use strict';
/*
 * leakslope-gc: tells the leakslope sidecar what only the inside of a Node.js app knows.
 *
 * Loaded into an app under pm2 with `node -r /path/leakslope-gc.cjs` (pm2: `node_args`) or by NODE_OPTIONS, it sends heap
 * used after major collections, counts and time of collections, V8's heap limit and the size of its spaces, about once a
 * second, through the channel on which pm2 collects an app's metrics. Works on Node.js 16 and later, in fork and in
 * cluster mode, with pm2's own agent on or off.
 *
 * It refuses to be noticed: it never throws, never keeps the process alive, listens to no message and no event of the
 * process, and is silent wherever the other end of the channel is not pm2: without a channel, in worker threads, and in
 * processes that the app itself forks (they inherit NODE_OPTIONS and pm2's variables, but their messages would reach the
 * app, not pm2).
 */

const INTERVAL_MS = 1000;
// Collections observed a second on average, at the most.
const OBSERVED = 8;
// Which process speaks for a pm_id: `pm_id:pid`. Children inherit it, and so know that it is not them.
const SPEAKER = 'LEAKSLOPE_GC_SPEAKER';

/** The number under which pm2 started this process, as text; undefined where pm2 did not. */
function pm2Id(env) {
  // A cluster worker gets its variables in one, which pm2 unpacks after this file has run.
  if (env.pm2_env !== undefined) {
    const id = JSON.parse(env.pm2_env).pm_id;
    return id === undefined || id === null ? undefined : String(id);
  }
  // The daemon itself inherits the variables of the shell or app that brought it up.
  if (env.PM2_HOME === undefined || /[\\/]lib[\\/]Daemon\.js$/.test(process.argv[1] || '')) return undefined;
  return env.pm_id;
}

/** Whether `ancestor` is a process above this one; assumed to be where the system cannot tell. */
function isAbove(ancestor) {
  if (ancestor === process.ppid) return true;
  try {
    process.kill(ancestor, 0);
  } catch (error) {
    if (error.code === 'ESRCH') return false;
  }
  if (process.platform !== 'linux') return true;
  const { readFileSync } = require('fs');
  for (let pid = process.ppid, depth = 0; pid > 1 && depth < 32; depth += 1) {
    if (pid === ancestor) return true;
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    pid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  }
  return false;
}

/** Claims to speak for the pm_id; false where a process above this one does. */
function claim(env, id) {
  const [otherId, otherPid] = (env[SPEAKER] || '').split(':');
  if (otherId === id && Number(otherPid) !== process.pid && isAbove(Number(otherPid))) return false;
  env[SPEAKER] = `${id}:${process.pid}`;
  return true;
}

/** Counts V8's collections for as little as it can. */
function watchCollections() {
  const v8 = require('v8');
  const { PerformanceObserver, constants } = require('perf_hooks');
  const seen = { major: 0, minor: 0, milliseconds: 0, heapAfterMajor: undefined };

  // An object that nobody holds goes with the next major collection: exact, and free between two of them. By the time
  // this is told the app has allocated again, but in the new space, which a major collection leaves empty.
  const majors = new FinalizationRegistry(() => {
    seen.major += 1;
    const young = v8.getHeapSpaceStatistics().filter(({ space_name: name }) => name.startsWith('new_'));
    seen.heapAfterMajor = young.reduce((used, space) => used - space.space_used_size, v8.getHeapStatistics().used_heap_size);
    majors.register({});
  });
  majors.register({});

  // Observing one collection costs some 40 µs, most of it Node's own. So after a second with many of them nothing is
  // observed for some seconds, and the next second that is stands for those as well.
  let last = { minor: 0, milliseconds: 0 };
  let skipped = 0;
  let skipping = 0;
  const observer = new PerformanceObserver((list) => {
    for (const { detail, duration } of list.getEntries()) {
      if (detail.kind === constants.NODE_PERFORMANCE_GC_MINOR) {
        last.minor += 1;
        last.milliseconds += duration;
      } else {
        seen.milliseconds += duration;
      }
    }
  });
  observer.observe({ entryTypes: ['gc'] });

  seen.endOfSecond = () => {
    if (skipping > 0) {
      skipping -= 1;
      if (skipping === 0) observer.observe({ entryTypes: ['gc'] });
      return;
    }
    seen.minor += last.minor * (1 + skipped);
    seen.milliseconds += last.milliseconds * (1 + skipped);
    skipped = Math.ceil(last.minor / OBSERVED) - 1;
    if (skipped > 0) {
      skipping = skipped;
      observer.disconnect();
    } else {
      skipped = 0;
    }
    last = { minor: 0, milliseconds: 0 };
  };
  seen.stop = () => observer.disconnect();
  return seen;
}

/** What pm2 is told: names for people, types and base units for the sidecar. */
function report(seen) {
  const v8 = require('v8');
  const heap = v8.getHeapStatistics();
  const used = {};
  for (const space of v8.getHeapSpaceStatistics()) used[space.space_name] = space.space_used_size;
  const large = (used.large_object_space || 0) + (used.new_large_object_space || 0) + (used.code_large_object_space || 0);
  const data = {
    'GC major collections': { type: 'leakslope/major_gcs', value: seen.major },
    'GC minor collections': { type: 'leakslope/minor_gcs', value: seen.minor },
    'GC time': { type: 'leakslope/gc_seconds', value: Math.round(seen.milliseconds) / 1000, unit: 's' },
    'GC heap limit': { type: 'leakslope/heap_size_limit', value: heap.heap_size_limit, unit: 'bytes' },
    'GC new space': { type: 'leakslope/space/new', value: used.new_space || 0, unit: 'bytes' },
    'GC old space': { type: 'leakslope/space/old', value: used.old_space || 0, unit: 'bytes' },
    'GC large objects': { type: 'leakslope/space/large_object', value: large, unit: 'bytes' },
    'GC external memory': { type: 'leakslope/external', value: heap.external_memory || 0, unit: 'bytes' },
    'GC heap resident': { type: 'leakslope/heap_physical', value: heap.total_physical_size, unit: 'bytes' },
    'GC global handles': { type: 'leakslope/global_handles', value: heap.used_global_handles_size || 0, unit: 'bytes' },
  };
  if (seen.heapAfterMajor !== undefined) {
    data['GC heap after major'] = { type: 'leakslope/heap_after_major_gc', value: seen.heapAfterMajor, unit: 'bytes' };
  }
  return data;
}

function start() {
  if (typeof process.send !== 'function' || !process.connected || !require('worker_threads').isMainThread) return;
  const id = pm2Id(process.env);
  if (id === undefined || !claim(process.env, id)) return;

  // The original, so that an app that wraps `process.send` does not see messages it did not send.
  const send = process.send;
  const seen = watchCollections();
  // One message at a time: a daemon that does not read must not make the app buffer.
  let onTheWay = false;
  const timer = setInterval(() => {
    try {
      if (!process.connected) throw new Error('the channel is closed');
      seen.endOfSecond();
      if (onTheWay) return;
      onTheWay = true;
      send.call(process, { type: 'axm:monitor', data: report(seen) }, () => {
        onTheWay = false;
      });
    } catch (_) {
      // The app matters, the report does not.
      clearInterval(timer);
      seen.stop();
    }
  }, INTERVAL_MS);
  timer.unref();
}

try {
  start();
} catch (_) {
  // As above.
}

((require, limit) => {
  // V8's sampler counts what an inlined function allocates to the function it was inlined into. So inlining is off while
  // allocations are sampled; a round of coverage has V8 compile anew what is hot already. The app itself turns it on again
  // where nobody comes back.
  const v8 = require('v8');
  const { Session } = require('inspector');
  const { heapUsed, external } = process.memoryUsage();
  const within = (work) => {
    const session = new Session();
    session.connect();
    try { work(session); } finally { session.disconnect(); }
  };
  let workers = 0;
  within((session) => {
    session.on('NodeWorker.attachedToWorker', () => { workers += 1; });
    session.post('NodeWorker.enable', { waitForDebuggerOnStart: false });
    session.post('NodeWorker.disable');
  });
  const told = [...process.execArgv, process.env.NODE_OPTIONS].join(' ');
  // Coverage that somebody else collects would end with ours, and flags that somebody set are theirs.
  if (process.env.NODE_V8_COVERAGE || told.includes('inlining')) return { exact: false, workers, heapUsed, external };
  const symbol = Symbol.for('leakslope.inlining');
  const kinds = parseInt(process.versions.v8, 10) > 10 ? ['turbo', 'maglev'] : ['turbo'];
  const turn = (no) => {
    for (const kind of kinds) v8.setFlagsFromString(`--${no}${kind}-inlining`);
    within((session) => {
      for (const step of ['enable', 'startPreciseCoverage', 'stopPreciseCoverage', 'disable']) session.post(`Profiler.${step}`);
    });
  };
  globalThis[symbol]?.();
  const timer = setTimeout(() => globalThis[symbol]?.(), limit);
  timer.unref();
  Object.defineProperty(globalThis, symbol, { configurable: true, value: () => {
    clearTimeout(timer);
    delete globalThis[symbol];
    turn('');
  } });
  turn('no-');
  return { exact: true, workers, heapUsed, external };
})

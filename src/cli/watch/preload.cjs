// Loaded by `leakslope watch` into the Node processes of the command it runs, never by anyone else. It opens V8's inspector
// on a loopback port of its own and says which one in a file beside this one. Wrappers (npm, yarn, pnpm) are left alone.
'use strict';
const { isMainThread } = require('node:worker_threads');
const path = require('node:path');
const fs = require('node:fs');
const wrapper = /^(npm|npx|pnpm|pnpx|yarn|yarnpkg|corepack)([-.].*)?$/;
const script = process.argv[1] || '';

if (isMainThread && !wrapper.test(path.basename(script))) {
  try {
    // While an inspector is open, V8 keeps the last thousand things that were written to the console: a healthy app would
    // look like a leak. So the console writes past it. `require('inspector').console` stays as it is.
    let plain;
    for (const name of ['assert', 'clear', 'count', 'countReset', 'debug', 'dir', 'dirxml', 'error', 'group', 'groupCollapsed',
      'groupEnd', 'info', 'log', 'table', 'time', 'timeEnd', 'timeLog', 'trace', 'warn']) {
      console[name] = (...rest) => {
        plain ??= new console.Console({ stdout: process.stdout, stderr: process.stderr });
        return plain[name](...rest);
      };
    }
    // The inspector's own collection is a task of the event loop, and the app would run between it and a reading: here both
    // are one step. The second collection frees what the first one only found to be dead by way of weak references.
    const v8 = require('node:v8');
    v8.setFlagsFromString('--expose-gc');
    const collect = require('node:vm').runInNewContext('gc');
    v8.setFlagsFromString('--no-expose-gc');
    const { memoryUsage } = process;
    Object.defineProperty(globalThis, Symbol.for('leakslope.watch'), {
      value: () => (collect(), collect(), memoryUsage()),
    });
    const inspector = require('node:inspector');
    if (!inspector.url()) inspector.open(0, '127.0.0.1');
    const port = new URL(inspector.url().replace(/^ws/, 'http')).port;
    const file = path.join(__dirname, String(process.pid));
    fs.writeFileSync(`${file}.new`, `${port}\n${script}\n`, { mode: 0o600 });
    fs.renameSync(`${file}.new`, file);
  } catch {
    // Then resident memory has to do.
  }
}

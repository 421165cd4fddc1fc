// Loaded by `leakslope watch` into the Node processes of the command it runs, never by anyone else. It opens a session with V8's
// inspector inside the process and carries its messages over the socket beside this file, which nobody but this user may
// open: no port is listened on. Wrappers (npm, yarn, pnpm) are left alone.
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
    // V8 counts what an inlined function allocates to the function it was inlined into. Nothing is compiled yet.
    if (![...process.execArgv, process.env.NODE_OPTIONS].join(' ').includes('inlining')) {
      const kinds = parseInt(process.versions.v8, 10) > 10 ? ['turbo', 'maglev'] : ['turbo'];
      for (const kind of kinds) v8.setFlagsFromString(`--no-${kind}-inlining`);
    }
    const { memoryUsage } = process;
    Object.defineProperty(globalThis, Symbol.for('leakslope.watch'), {
      value: () => (collect(), collect(), memoryUsage()),
    });
    const { Session } = require('node:inspector');
    const net = require('node:net');
    // One message a line, both ways.
    const dial = () => {
      const session = new Session();
      const socket = net.connect(path.join(__dirname, 'socket'));
      let rest = '';
      let failure;
      socket.unref();
      socket.setEncoding('utf8');
      socket.on('connect', () => session.connect());
      socket.on('data', (text) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop();
        for (const line of lines) {
          const { id, method, params } = JSON.parse(line);
          session.post(method, params, (error, result) => socket.write(`${JSON.stringify(error ? { id, error: { message: error.message } } : { id, result })}\n`));
        }
      });
      socket.on('error', ({ code }) => { failure = code; });
      socket.on('close', () => {
        session.disconnect();
        // Whoever runs this has given up one session and stays, or is gone: then nothing of it is left behind.
        if (failure !== 'ECONNREFUSED' && failure !== 'ENOENT') setTimeout(dial, 100).unref();
        else {
          fs.rmSync(__dirname, { recursive: true, force: true });
          process.kill(process.pid, 'SIGTERM');
        }
      });
    };
    dial();
  } catch {
    // Then resident memory has to do.
  }
}

'use strict';
// An app for the preload to be loaded into. The first argument says what it does before it has nothing left to do.
const { fork, spawn } = require('child_process');

const FOR_MS = 2600;
const wait = () => new Promise((resolve) => setTimeout(resolve, FOR_MS));
const count = (child, found) => new Promise((resolve) => {
  let messages = 0;
  child.on('message', () => { messages += 1; });
  child.on('exit', () => { process.send({ [found]: messages }); resolve(); });
});

const deeds = {
  wait,
  /** Keeps some memory, and has V8 collect all of the rest. */
  collect: async () => {
    globalThis.kept = Array.from({ length: 1e5 }, (_, number) => ({ number }));
    global.gc();
    for (let i = 0; i < 5; i += 1) global.gc({ type: 'minor' });
    await wait();
  },
  /** Ends at once, of itself. */
  nothing: async () => {},
  /** Forks a child of its own, which inherits everything, and one behind a shell. */
  fork: async () => {
    const behindShell = spawn('sh', ['-c', `true; "${process.execPath}" "${__filename}" wait; true`], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env: { ...process.env, NODE_OPTIONS: `-r ${process.env.PRELOAD}` },
    });
    await Promise.all([count(fork(__filename, ['wait']), 'fromFork'), count(behindShell, 'fromShell')]);
  },
  /** Runs the preload in a worker thread as well. */
  thread: async () => {
    const { Worker } = require('worker_threads');
    const worker = new Worker(__filename, { argv: ['wait'] });
    await new Promise((resolve) => { worker.on('exit', resolve); });
  },
  /** Wraps `process.send`, as some agents do, and talks to pm2 itself. */
  talk: async () => {
    const send = process.send;
    const wrapped = [];
    process.send = (...message) => { wrapped.push(message[0]); return send.apply(process, message); };
    process.send('please answer');
    process.once('message', (answer) => process.send({ answer }));
    await wait();
    process.send({ wrapped: wrapped.length });
    process.disconnect();
  },
  /** Closes the channel and goes on. */
  disconnect: async () => {
    process.disconnect();
    await wait();
  },
};
deeds[process.argv[2]]();

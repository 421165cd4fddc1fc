#!/usr/bin/env node
'use strict';
/*
 * Runs the binary as if it had been called itself: the same terminal, signals passed on, the same end. Where it runs for
 * long, ecosystem.config.cjs starts the binary without this process around it.
 */
const { spawn } = require('node:child_process');
const { binary } = require('../index.cjs');

const fail = (message) => {
  console.error(`leakslope: ${message}`);
  process.exit(1);
};

let path;
try {
  path = binary();
} catch (error) {
  fail(error.message);
}
const child = spawn(path, process.argv.slice(2), { stdio: 'inherit' });
child.on('error', (error) => fail(`${path}: ${error.message}`));
const passed = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM'];
for (const signal of passed) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => {
  if (signal === null) process.exit(code);
  // Ends as the binary did, so that the caller sees the same.
  for (const passedOn of passed) process.removeAllListeners(passedOn);
  process.kill(process.pid, signal);
});

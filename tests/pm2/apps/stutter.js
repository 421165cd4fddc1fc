// Keeps objects for ever and stands still for a second and a half, again and again; for good once there is the named pipe
// that its argument names, which it reads and nobody writes.
'use strict';
const { existsSync, readFileSync } = require('fs');
const cell = new Int32Array(new SharedArrayBuffer(4));
const kept = [];
function keepForEver() {
  for (let i = 0; i < 20_000; i++) kept.push({ at: Date.now(), text: [i, i + 1, i + 2, i + 3] });
  if (existsSync(process.argv[2])) readFileSync(process.argv[2]);
  Atomics.wait(cell, 0, 0, 1500);
}
setInterval(() => keepForEver(), 500);

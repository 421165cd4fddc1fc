// Keeps objects for ever and stands still for a second and a half, again and again; and for as long as there is the file that
// its argument names.
'use strict';
const { existsSync } = require('fs');
const cell = new Int32Array(new SharedArrayBuffer(4));
const kept = [];
function keepForEver() {
  for (let i = 0; i < 20_000; i++) kept.push({ at: Date.now(), text: [i, i + 1, i + 2, i + 3] });
  Atomics.wait(cell, 0, 0, 1500);
  while (existsSync(process.argv[2])) Atomics.wait(cell, 0, 0, 50);
}
setInterval(() => keepForEver(), 500);

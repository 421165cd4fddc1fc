// Keeps objects for ever and stands still for a second and a half, again and again. Once there is the file that its
// argument names, it takes that away and stands still for ever.
'use strict';
const { existsSync, unlinkSync } = require('fs');
const cell = new Int32Array(new SharedArrayBuffer(4));
const kept = [];
function keepForEver() {
  for (let i = 0; i < 20_000; i++) kept.push({ at: Date.now(), text: [i, i + 1, i + 2, i + 3] });
  const forever = existsSync(process.argv[2]);
  if (forever) unlinkSync(process.argv[2]);
  Atomics.wait(cell, 0, 0, forever ? Infinity : 1500);
}
setInterval(() => keepForEver(), 500);

'use strict';
// Grows a memory of WebAssembly by a mebibyte, every fifth of a second.
const memory = new WebAssembly.Memory({ initial: 16 });
setInterval(() => {
  const from = memory.grow(16) << 16;
  new Uint8Array(memory.buffer, from).fill(1);
}, 200);

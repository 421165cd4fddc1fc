'use strict';
// Holds memory of each kind, in known amounts: 64 MiB of Buffers, 32 MiB of WebAssembly, strings of 48 MiB, two workers.
const { Worker } = require('worker_threads');

const kept = { buffers: [], strings: [] };
for (let i = 0; i < 1024; i += 1) kept.buffers.push(Buffer.alloc(64 << 10, 1));
for (let i = 0; i < 48; i += 1) kept.strings.push(Array.from({ length: 1 << 17 }, (_, at) => at + i + 0.5));
kept.wasm = new WebAssembly.Memory({ initial: 512 });
new Uint8Array(kept.wasm.buffer).fill(1);
kept.workers = [1, 2].map(() => new Worker('setInterval(() => {}, 1000)', { eval: true }));
globalThis.kept = kept;

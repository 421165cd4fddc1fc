// Buffers that are kept: the heap stays small, what lies outside of it grows.
'use strict';
const kept = [];
setInterval(() => kept.push(Buffer.alloc(8 * 1024, 1)), 50);

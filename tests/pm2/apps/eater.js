// Holds 96 MiB outside of V8's heap, all of it touched.
'use strict';
const held = Buffer.alloc(96 * 1024 * 1024, 1);
setInterval(() => held[0]++, 60000);

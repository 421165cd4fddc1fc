// The same work with three fates for what it makes, by MEMORY: "keep" keeps all of it, "cache" the newest 40 MiB, "drop"
// nothing. About 4 MiB a second, however late the timer comes.
'use strict';
const fate = process.env.MEMORY || 'drop';
const KIBIBYTES_A_SECOND = 4096;
const CACHED = 40 * 1024;
const kept = new Map();
const begun = process.hrtime.bigint();
let made = 0;
setInterval(() => {
  const due = (Number(process.hrtime.bigint() - begun) / 1e9) * KIBIBYTES_A_SECOND;
  for (let count = 0; made < due && count < 4096; count++) {
    const kibibyte = new Array(128).fill(made + 0.5);
    if (fate !== 'drop') kept.set(made, kibibyte);
    if (fate === 'cache') kept.delete(made - CACHED);
    made++;
  }
}, 25);

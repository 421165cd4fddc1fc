// The same work with three fates for what it makes, by MEMORY: "keep" keeps all of it, "drop" nothing, and "cache" fills a
// cache of 40 MiB, most of whose entries are found from then on: one in sixteen is new and drives out the oldest. About
// 4 MiB a second, however late the timer comes.
'use strict';
const fate = process.env.MEMORY || 'drop';
const KIBIBYTES_A_SECOND = 4096;
const CACHED = 40 * 1024;
const kept = new Map();
const begun = process.hrtime.bigint();
let made = 0;
setInterval(() => {
  const due = (Number(process.hrtime.bigint() - begun) / 1e9) * KIBIBYTES_A_SECOND;
  for (let count = 0; made < due && count < 4096; count++, made++) {
    const kibibyte = new Array(128).fill(made + 0.5);
    const found = fate === 'drop' || (fate === 'cache' && kept.size >= CACHED && made % 16 !== 0);
    if (found) continue;
    kept.set(made, kibibyte);
    if (fate === 'cache' && kept.size > CACHED) kept.delete(kept.keys().next().value);
  }
}, 25);

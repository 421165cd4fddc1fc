// A cache with a limit, reached after FILL_SECONDS: every key is new, so it fills in a straight line and then stays.
'use strict';
const seconds = Number(process.env.FILL_SECONDS || 20);
const perSecond = 200;
const cache = new Map();
const start = Date.now();
let key = 0;
setInterval(() => {
  while (key < ((Date.now() - start) / 1000) * perSecond) {
    cache.set(`key-${key}`, { key, body: new Array(40).fill(key) });
    key += 1;
    if (cache.size > seconds * perSecond) cache.delete(cache.keys().next().value);
  }
}, 20);

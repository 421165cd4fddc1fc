// A cache over a finite set of keys that are asked for at random: it fills ever more slowly. KEYS is how many there are.
'use strict';
const keys = Number(process.env.KEYS || 6000);
const perSecond = 200;
const cache = new Map();
const start = Date.now();
let asked = 0;
setInterval(() => {
  while (asked < ((Date.now() - start) / 1000) * perSecond) {
    asked += 1;
    const key = Math.floor(Math.random() * keys);
    if (!cache.has(key)) cache.set(key, { key, body: new Array(40).fill(key) });
  }
}, 20);

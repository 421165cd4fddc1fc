// A cache that fills and stops: it grows like a leak for half a minute, and then each new entry drives out the oldest.
'use strict';
const traffic = require('./traffic.cjs');
const MOST = 36_000;
const entries = new Map();

traffic(function lookUp(entry) {
  // Once it is warm, most visitors ask for what is there.
  if (entries.size >= MOST && entry.id % 16 !== 0) return;
  entries.set(entry.id, entry);
  if (entries.size > MOST) entries.delete(entries.keys().next().value);
});

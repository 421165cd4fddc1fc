// An app that makes garbage at a steady pace and keeps as much of it as KEEP says, in KiB a second, for UNTIL seconds.
// Everything else is the same in each copy, so that what differs is the leak alone. With the argument `quiet` it does
// next to nothing.
'use strict';
const keep = Number(process.env.KEEP || 0);
const end = Date.now() + Number(process.env.UNTIL || 1e9) * 1000;
const kept = [];
let garbage = null;
setInterval(() => {
  garbage = Array.from({ length: 2000 }, (_, index) => ({ index, text: `garbage ${index}` }));
  if (Date.now() > end) return;
  for (let kibibyte = 0; kibibyte < keep / 10; kibibyte += 1) kept.push(Array.from({ length: 64 }, () => Math.random() + 2));
}, process.argv.includes('quiet') ? 10_000 : 100);
process.on('SIGINT', () => process.exit(garbage === null ? 1 : 0));

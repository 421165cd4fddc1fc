// Steady work: objects of 1 KiB that live in a ring of KEPT_KIB and are then garbage, TURNOVER_KIB a second, and LEAKED_KIB
// a second that stay for ever. After each major collection a line goes to GC_LOG: the time in seconds and the used heap
// outside of the new space, in bytes.
'use strict';
const { appendFileSync } = require('fs');
const v8 = require('v8');
const number = (name) => Number(process.env[name]);
const [keptKib, turnoverKib, leakedKib] = [number('KEPT_KIB'), number('TURNOVER_KIB'), number('LEAKED_KIB')];

const majors = new FinalizationRegistry(() => {
  const young = v8.getHeapSpaceStatistics().filter(({ space_name: name }) => name.startsWith('new_'));
  const used = young.reduce((sum, space) => sum - space.space_used_size, v8.getHeapStatistics().used_heap_size);
  appendFileSync(process.env.GC_LOG, `${Date.now() / 1000} ${used}\n`);
  majors.register({});
});
majors.register({});

const ring = new Array(keptKib).fill(null);
const leaked = [];
const begun = process.hrtime.bigint();
let [made, lost] = [0, 0];
setInterval(() => {
  const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
  for (; made < seconds * turnoverKib; made++) ring[made % keptKib] = new Array(128).fill(made + 0.5);
  for (; lost < seconds * leakedKib; lost++) leaked.push(new Array(128).fill(lost + 0.5));
}, 20);

// Publishes metrics of its own: through @pm2/io, and straight through pm2's channel, some of them unreadable.
'use strict';
const io = require('@pm2/io');
io.metric({ name: 'queue length', unit: 'jobs' }).set(7);
io.counter({ name: 'orders' }).inc(3);

const told = {
  'disk used': { value: '15.07 MB' },
  broken: { value: null },
  strange: { value: { nested: true } },
  words: { value: 'not a number' },
  'leakslope heap after major gc': { value: 5000001, type: 'leakslope/heap_after_major_gc', unit: 'bytes' },
  'leakslope major gcs': { value: 4, type: 'leakslope/major_gcs' },
  'leakslope heap size limit': { value: 268435456, type: 'leakslope/heap_size_limit', unit: 'bytes' },
};
setInterval(() => process.send && process.send({ type: 'axm:monitor', data: told }), 200);

// Reads a snapshot with memlab's heap-analysis and makes the table by class. Usage: node memlab.cjs FILE [OUT]
'use strict';
const fs = require('node:fs');
const { getFullHeapFromFile } = require('@memlab/heap-analysis');

(async () => {
  const [file, out] = process.argv.slice(2);
  const heap = await getFullHeapFromFile(file);
  const classes = new Map();
  const lines = [];
  const dump = out && fs.openSync(out, 'w');
  const flush = () => dump && lines.length && fs.writeSync(dump, `${lines.splice(0).join('\n')}\n`);
  heap.nodes.forEach((node) => {
    const name = node.type === 'object' || node.type === 'native' ? node.name : `(${node.type})`;
    const row = classes.get(name) ?? [0, 0, 0];
    row[0] += 1;
    row[1] += node.self_size;
    row[2] += node.retainedSize;
    classes.set(name, row);
    if (dump) lines.push(`${node.id}\t${node.self_size}\t${node.retainedSize}`);
    if (lines.length > 50_000) flush();
  });
  flush();
  const rows = [...classes].sort((one, other) => other[1][2] - one[1][2]);
  for (const [name, row] of rows.slice(0, 10)) console.log([name, ...row].join('\t'));
  process.exit(0);
})();

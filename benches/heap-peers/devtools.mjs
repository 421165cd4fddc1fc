// Reads a snapshot with Chrome DevTools' own code (heap-snapshot-toolkit bundles it) and makes the table by class.
// Usage: node devtools.mjs FILE [OUT]
import fs from 'node:fs';
import { parse } from 'heap-snapshot-toolkit';

const [file, out] = process.argv.slice(2);
const heap = await parse(fs.createReadStream(file));
const rows = Object.values(heap.aggregatesWithFilter({})).sort((one, other) => other.maxRet - one.maxRet);
for (const row of rows.slice(0, 10)) console.log([row.name, row.count, row.self, row.maxRet].join('\t'));
if (out) {
  const dump = fs.openSync(out, 'w');
  const lines = [];
  const node = heap.createNode(0);
  for (let ordinal = 0; ordinal < heap.nodeCount; ordinal++) {
    node.nodeIndex = ordinal * heap.nodeFieldCount;
    const name = node.className().replace(/[\t\n\r]/g, ' ');
    lines.push([node.id(), node.selfSize(), node.retainedSize(), heap.nodeDistances[ordinal], name].join('\t'));
    if (lines.length > 50_000) fs.writeSync(dump, `${lines.splice(0).join('\n')}\n`);
  }
  fs.writeSync(dump, `${lines.join('\n')}\n`);
}
process.exit(0);

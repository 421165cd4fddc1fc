// A server with a heap of so many MiB of small objects, whose every request works a little and leaves something behind.
'use strict';
const http = require('http');
const [mebibytes, port] = process.argv.slice(2).map(Number);
const kept = [];
function fill(until) {
  for (let i = 0; process.memoryUsage().heapUsed < until * 2 ** 20; i++) {
    for (let j = 0; j < 5000; j++) kept.push({ number: j, text: `item ${i} ${j}`, parts: [i, j, { deep: j }] });
  }
}
fill(mebibytes);
const sessions = new Map();
http.createServer((request, response) => {
  const rows = Array.from({ length: 500 }, (_, row) => ({ row, label: `row ${row}` }));
  sessions.set(sessions.size, { at: Date.now(), rows: rows.slice(0, 3) });
  response.end(JSON.stringify(rows));
}).listen(port, '127.0.0.1');

'use strict';
// A cluster worker that serves and keeps 3 MiB a second, the second of two workers twice as much, however late the timer
// comes.
const http = require('http');
const kibibytesASecond = 3072 * (1 + Number(process.env.NODE_APP_INSTANCE || 0));
const begun = process.hrtime.bigint();
const kept = [];
setInterval(() => {
  const due = (Number(process.hrtime.bigint() - begun) / 1e9) * kibibytesASecond;
  for (let count = 0; kept.length < due && count < 4096; count++) kept.push(new Array(128).fill(kept.length + 0.5));
}, 25);
http.createServer((request, response) => response.end(`${process.pid}\n`)).listen(0, '127.0.0.1');

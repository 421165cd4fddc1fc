// A server on a free port. MODE=leak keeps something of every request; MODE=slow answers after the queue before it, at most
// 100 a second; anything else is healthy.
'use strict';
const http = require('node:http');
const mode = process.env.MODE || 'healthy';
const kept = [];
const waiting = [];
if (mode === 'slow') setInterval(() => waiting.shift()?.(), 10);
http
  .createServer((request, response) => {
    const body = new Array(60).fill(request.url);
    if (mode === 'leak') kept.push(body);
    if (mode === 'slow') waiting.push(() => response.end(String(body.length)));
    else response.end(String(body.length));
  })
  .listen(0, '127.0.0.1');

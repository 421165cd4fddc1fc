// A plain HTTP server. SIGUSR2 blocks its event loop for as long as BLOCK_MS says.
'use strict';
const http = require('http');
http.createServer((request, response) => response.end('ok\n')).listen(Number(process.env.PORT || 0), '127.0.0.1');
process.on('SIGUSR2', () => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(process.env.BLOCK_MS || 60000));
});

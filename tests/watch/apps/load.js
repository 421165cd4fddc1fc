// Asks $LEAKSLOPE_PORT RATE times a second, whether or not it is answered, and counts. It ends after ROUND_SECONDS, if set.
'use strict';
const http = require('node:http');
const rate = Number(process.env.RATE || 200);
const agent = new http.Agent({ keepAlive: true });
const start = Date.now();
let sent = 0;
let answered = 0;
setInterval(() => {
  while (sent < ((Date.now() - start) / 1000) * rate) {
    sent += 1;
    http.get({ port: process.env.LEAKSLOPE_PORT, host: '127.0.0.1', path: `/${sent % 50}`, agent }, (response) => {
      response.resume();
      response.on('end', () => (answered += 1));
    }).on('error', () => {});
  }
}, 20);
setInterval(() => console.log(`sent=${sent} requests=${answered}`), 250);
if (process.env.ROUND_SECONDS) setTimeout(() => process.exit(0), process.env.ROUND_SECONDS * 1000);

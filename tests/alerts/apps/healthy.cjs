'use strict';
// Serves requests, its own ones, and keeps nothing of them; publishes a metric of its own through pm2.
const http = require('http');
const server = http.createServer((request, response) => {
  response.end(JSON.stringify(Array.from({ length: 200 }, (_, number) => ({ number }))));
});
server.listen(0, '127.0.0.1', () => {
  const agent = new http.Agent({ keepAlive: true });
  const { port } = server.address();
  const ask = () => http.get({ port, host: '127.0.0.1', agent }, (response) => response.resume()).on('error', () => {});
  setInterval(ask, 50);
});
setInterval(() => {
  if (process.send) process.send({ type: 'axm:monitor', data: { 'open carts': { value: 7, unit: 'carts' } } });
}, 1000);

// Its neighbour, which does the same work and remembers nothing.
const http = require('node:http');

const port = Number(process.env.PORT ?? 3001);

http.createServer((request, response) => response.end('as ever\n')).listen(port, () => {
  setInterval(() => http.get({ port, path: `/${Date.now()}` }, (answer) => answer.resume()).on('error', () => {}), 50);
});

// A small HTTP server that leaks: it keeps 12 kB of every request, and sends requests to itself: 15 MB a minute.
const http = require('node:http');

const port = Number(process.env.PORT ?? 3000);
const perSecond = Number(process.env.REQUESTS_PER_SECOND ?? 20);
const remembered = new Map();

class Session {
  constructor(url) {
    this.url = url;
    this.body = Buffer.alloc(6144).toString('hex') + url;
  }
}

http.createServer((request, response) => {
  remembered.set(`${request.url}#${remembered.size}`, new Session(request.url));
  response.end(`${remembered.size} sessions and counting\n`);
}).listen(port, () => {
  setInterval(() => http.get({ port, path: `/${Date.now()}` }, (answer) => answer.resume()).on('error', () => {}), 1000 / perSecond);
});

// A server that answers every request with the same bytes at once: what scraping costs where nothing is done for it.
//
//   node benches/collection/bare.mjs BYTES
import { createServer } from 'node:net';

const head = (length) => `HTTP/1.1 200 OK\r\ncontent-length: ${length}\r\n\r\n`;
const whole = Number(process.argv[2]);
const length = whole - head(whole).length;
const answer = Buffer.concat([Buffer.from(head(length)), Buffer.alloc(length, 'x')]);

const server = createServer((socket) => {
  socket.setNoDelay(true);
  socket.on('error', () => socket.destroy());
  // Requests come one at a time and in one piece.
  socket.on('data', () => socket.write(answer));
});
server.listen(0, '127.0.0.1', () => console.log(`listening at ${server.address().port}`));

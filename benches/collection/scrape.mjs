// A scraper: one connection that stays, and the time from the request's first byte to the answer's last.
import { connect } from 'node:net';

export class Scraper {
  /** Connects to `127.0.0.1:port`. */
  static async open(port) {
    const socket = connect(port, '127.0.0.1');
    socket.setNoDelay(true);
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    return new Scraper(socket);
  }

  constructor(socket) {
    this.socket = socket;
  }

  /** One scrape: how many milliseconds it took and how many bytes came. */
  scrape(path = '/metrics') {
    return new Promise((resolve, reject) => {
      const begun = process.hrtime.bigint();
      const parts = [];
      let received = 0;
      let wanted = null;
      const finish = (outcome) => {
        this.socket.off('data', take).off('close', fail).off('error', fail);
        outcome();
      };
      const fail = (error) => finish(() => reject(error instanceof Error ? error : new Error('the connection was closed')));
      const take = (bytes) => {
        parts.push(bytes);
        received += bytes.length;
        if (wanted === null) {
          const all = Buffer.concat(parts);
          const head = all.indexOf('\r\n\r\n');
          if (head < 0) return;
          const text = all.toString('latin1', 0, head);
          if (!/^HTTP\/1\.1 200 /.test(text)) return fail(new Error(text.split('\r\n')[0]));
          const length = /^content-length: (\d+)$/im.exec(text);
          // A chunked body ends with an empty chunk.
          wanted = length ? () => received >= head + 4 + Number(length[1])
            : () => Buffer.concat(parts.slice(-2)).toString('latin1').endsWith('0\r\n\r\n');
        }
        if (wanted()) {
          const took = Number(process.hrtime.bigint() - begun) / 1e6;
          finish(() => resolve({ took, bytes: received }));
        }
      };
      this.socket.on('data', take).once('close', fail).once('error', fail);
      this.socket.write(`GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n`);
    });
  }

  close() {
    this.socket.destroy();
  }
}

/** So many scrapes in a row, a pause after each: the middle one, the slowest but one in a hundred, and the body's size. */
export async function latencies(port, count, pause = 5) {
  return (await alternately([port], count, pause))[0];
}

/** The same of several servers that are scraped in turns, so that whatever the machine does meanwhile meets all of them. */
export async function alternately(ports, count, pause = 5) {
  const scrapers = await Promise.all(ports.map((port) => Scraper.open(port)));
  const results = ports.map(() => ({ took: [], bytes: 0 }));
  for (let round = 0; round < count + 10; round += 1) {
    for (const [index, scraper] of scrapers.entries()) {
      const answer = await scraper.scrape();
      results[index].bytes = answer.bytes;
      // The first ones warm up the scraper itself.
      if (round >= 10) results[index].took.push(answer.took);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
  for (const scraper of scrapers) scraper.close();
  return results.map(({ took, bytes }) => {
    took.sort((left, right) => left - right);
    const at = (part) => took[Math.min(took.length - 1, Math.floor(part * took.length))];
    return { p50: at(0.5), p99: at(0.99), bytes };
  });
}

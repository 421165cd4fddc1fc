// Clients that mean no good, as a process of their own: `node attacks.mjs PORT SLOW`. Counts what it did and what was answered;
// a message makes it tell. A server that answers well to what is no HTTP, or takes a wrong webhook for a right one, shows in
// `wrongly`.
import { connect } from 'node:net';

const [port, slow] = process.argv.slice(2).map(Number);
const counts = { slow: 0, slowNow: 0, malformed: 0, webhooks: 0, malformedAnswers: {}, webhookAnswers: {}, wrongly: [] };
const pause = (milliseconds) => new Promise((wake) => setTimeout(wake, milliseconds));

/** One of many clients that send their headers a byte at a time for ever. */
async function slowLoris() {
  for (;;) {
    await pause(Math.random() * 3000);
    const socket = connect(port, '127.0.0.1');
    let dripping = null;
    await new Promise((gone) => {
      socket.on('connect', () => {
        counts.slow += 1;
        counts.slowNow += 1;
        socket.once('close', () => { counts.slowNow -= 1; });
        socket.write('GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ');
        dripping = setInterval(() => socket.write('a'), 1000 + Math.random() * 2000);
      });
      socket.on('error', () => {});
      socket.on('data', () => {});
      socket.once('close', gone);
    });
    clearInterval(dripping);
  }
}

/** Sends bytes and resolves with what came back until the end, at most five seconds later. */
function exchange(bytes) {
  return new Promise((done) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    let text = '';
    socket.setTimeout(5000, () => socket.destroy());
    socket.on('data', (part) => { if (text.length < 4096) text += part.toString('latin1'); });
    socket.on('error', () => {});
    socket.on('close', () => done(text));
  });
}

const status = (answer) => Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1] ?? 0);

/** None of these is a request that may be answered well. */
const MALFORMED = [
  Buffer.from('\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 'latin1'),
  Buffer.alloc(4096, 0),
  Buffer.from('GET\r\n\r\n'),
  Buffer.from('GET /metrics HTTP/9.9\r\nhost: a\r\n\r\n'),
  Buffer.from('G\0T /metrics HTTP/1.1\r\nhost: a\r\n\r\n'),
  Buffer.from('GET /metrics HTTP/1.1\r\nno colon here\r\n\r\n'),
  Buffer.from(`GET /${'a'.repeat(100_000)} HTTP/1.1\r\nhost: a\r\n\r\n`),
  Buffer.from(`GET /metrics HTTP/1.1\r\nx: ${'b'.repeat(100_000)}\r\n\r\n`),
  Buffer.from(`GET /metrics HTTP/1.1\r\n${Array.from({ length: 500 }, (_, index) => `h${index}: x\r\n`).join('')}\r\n`),
  Buffer.from('GET /%00%ff/../../etc/passwd HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n'),
  Buffer.from('GET /api/v1/processes/%/%zz/history HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n'),
  Buffer.from('POST /api/v1/alerts HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n'),
  Buffer.from('POST /api/v1/alerts HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef'),
  Buffer.from('POST /api/v1/alerts HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc'),
  Buffer.from('DELETE /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n'),
];

async function malformed() {
  for (let round = 0; ; round += 1) {
    const answered = status(await exchange(MALFORMED[round % MALFORMED.length]));
    counts.malformed += 1;
    counts.malformedAnswers[answered] = (counts.malformedAnswers[answered] ?? 0) + 1;
    if (answered >= 200 && answered < 400) counts.wrongly.push(`malformed request ${round % MALFORMED.length}: ${answered}`);
    await pause(50);
  }
}

/** An alert that calls for a restart; no two are the same, so that whoever remembers them all shows. */
let alerts = 0;
function alert(index) {
  alerts += 1;
  const labels = { alertname: 'Pm2Leak', leakslope_action: 'restart', daemon: 'crowd', app: `app-${index}`, pm_id: `${index}`, number: `${alerts}` };
  return { status: 'firing', labels, annotations: {}, startsAt: '2026-01-01T00:00:00Z', endsAt: '0001-01-01T00:00:00Z', fingerprint: `${alerts}` };
}
const webhook = (alerts) => JSON.stringify({ version: '4', groupKey: 'a', status: 'firing', receiver: 'leakslope', groupLabels: {},
  commonLabels: {}, commonAnnotations: {}, externalURL: '', alerts });
const post = (body) => `POST /api/v1/alerts HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close\r\n`
  + `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
/** Makers of bodies, and whether what they make may be taken. */
const WEBHOOKS = [
  [() => webhook([alert(1)]), true],
  [() => webhook(Array.from({ length: 100 }, (_, index) => alert(index))), true],
  [() => webhook(Array.from({ length: 1000 }, (_, index) => ({ ...alert(index), annotations: { text: 'x'.repeat(3600) } }))), true],
  [() => '{"version":"4","alerts":', false],
  [() => '[]', false],
  [() => webhook([]).replace('"4"', '"9"'), false],
  [() => 'x'.repeat(6_000_000), false],
  [() => '['.repeat(50_000), false],
];

async function flood() {
  for (let round = 0; ; round += 1) {
    const [make, right] = WEBHOOKS[round % WEBHOOKS.length];
    const answered = status(await exchange(post(make())));
    counts.webhooks += 1;
    counts.webhookAnswers[answered] = (counts.webhookAnswers[answered] ?? 0) + 1;
    if (!right && answered >= 200 && answered < 400) counts.wrongly.push(`webhook ${round % WEBHOOKS.length}: ${answered}`);
    await pause(20);
  }
}

for (let index = 0; index < slow; index += 1) slowLoris();
for (let index = 0; index < 2; index += 1) malformed();
for (let index = 0; index < 4; index += 1) flood();
process.on('message', () => process.send({ ...counts, wrongly: [...new Set(counts.wrongly)] }));
console.log('attacking');

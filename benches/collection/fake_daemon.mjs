// A daemon that answers getMonitorData with a list of so many processes that do not exist, each with an environment as
// large as real ones are. Run as a process of its own, `node fake_daemon.mjs SOCKET COUNT [VARIABLES]`, so that its CPU time is
// not ours. A message with a number makes it list so many; all but the first KEEPERS are then other processes than before. The
// message `lists` is answered with how many lists it has given.
import { createServer } from 'node:net';

const [socket, variables] = [process.argv[2], Number(process.argv[4] ?? 40)];
let count = Number(process.argv[3]);
/** Processes that stay the same whatever message comes. */
const KEEPERS = 20;
let generation = 0;
process.on('message', (many) => {
  if (many === 'lists') {
    process.send(calls);
    return;
  }
  count = many;
  generation += 1;
});

function argument(bytes) {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

const metric = (type, value, unit) => ({ value, type, unit, historic: true });

/** The environment as text, since nearly all of a list is that and it never changes: thousands of processes are listed in time. */
const environment = JSON.stringify(Object.fromEntries(
  Array.from({ length: variables }, (_, index) => [`VARIABLE_OF_THE_APP_${index}`, 'x'.repeat(80)])));

/** A process as pm2 lists it; the values move from call to call as real ones do. */
function entry(pmId, moved) {
  const born = pmId < KEEPERS ? 0 : generation;
  const name = `app-${pmId >> 2}`;
  const outer = JSON.stringify({ pid: 3_000_000 + pmId + born * 10_000, name, pm_id: pmId,
    monit: { memory: 54312960 + moved * 4096, cpu: 0.3 } });
  const inner = JSON.stringify({
    name, pm_id: pmId, status: 'online', pm_uptime: 1795393485552 + born,
    restart_time: 3, unstable_restarts: 0, exec_mode: 'cluster_mode', namespace: 'default', node_version: '20.20.2',
    version: '1.4.2', exec_interpreter: 'node', pmx: true,
    axm_monitor: {
      'Used Heap Size': metric('internal/v8/heap/used', (24.5 + (moved % 10) / 10).toFixed(2), 'MiB'),
      'Heap Size': metric('internal/v8/heap/total', '32.00', 'MiB'),
      'Heap Usage': metric('internal/v8/heap/usage', 77.1, '%'),
      'Event Loop Latency': metric('internal/libuv/latency/p50', '0.36', 'ms'),
      'Event Loop Latency p95': metric('internal/libuv/latency/p95', '1.18', 'ms'),
      'Active handles': metric('internal/libuv/handles', 3),
      'Active requests': metric('internal/libuv/requests', 0),
      HTTP: metric('internal/http/builtin/reqs', 2.1, 'req/min'),
      'HTTP Mean Latency': metric('internal/http/builtin/latency/p50', 3, 'ms'),
      'HTTP P95 Latency': metric('internal/http/builtin/latency/p95', 12, 'ms'),
    },
  });
  const flattened = variables > 0 ? `${environment.slice(1, -1)},` : '';
  return `${outer.slice(0, -1)},"pm2_env":{${flattened}"env":${environment},${inner.slice(1)}}`;
}

let calls = 0;
function answer(request, id) {
  const { method } = JSON.parse(request.subarray(2));
  const list = () => {
    const entries = Array.from({ length: count }, (_, pmId) => entry(pmId, calls));
    calls += 1;
    return `[${entries.join(',')}]`;
  };
  const body = `j:{"args":[${method === 'getVersion' ? '"7.0.4"' : list()}]}`;
  return Buffer.concat([Buffer.from([0x12]), argument(Buffer.from(body)), argument(id)]);
}

createServer((connection) => {
  let pending = Buffer.alloc(0);
  connection.on('error', () => {});
  connection.on('data', (bytes) => {
    pending = Buffer.concat([pending, bytes]);
    for (;;) {
      if (pending.length < 5) return;
      const first = pending.readUInt32BE(1);
      if (pending.length < 9 + first) return;
      const second = pending.readUInt32BE(5 + first);
      if (pending.length < 9 + first + second) return;
      const [request, id] = [pending.subarray(5, 5 + first), pending.subarray(9 + first, 9 + first + second)];
      pending = pending.subarray(9 + first + second);
      connection.write(answer(request, Buffer.from(id)));
    }
  });
}).listen(socket, () => console.log('listening'));

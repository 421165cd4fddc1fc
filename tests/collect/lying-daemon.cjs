// A daemon in somebody's own home that lists the process of somebody else, COUNT times with so many metrics of its own:
// `node lying-daemon.cjs HOME PID UPTIME [COUNT METRICS]`; a PID of 0 is a child of its own.
const fs = require('node:fs');
const net = require('node:net');
const [home, listed, uptime, count = 1, metrics = 0] = process.argv.slice(2);
const pid = Number(listed) || require('node:child_process').spawn('sleep', ['1000']).pid;

const argument = bytes => {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
};
const axm_monitor = Object.fromEntries(Array.from({ length: Number(metrics) }, (_, at) => [`metric ${at}`, { value: at }]));
const entry = (pm_id) => ({
  pid, name: 'victim', pm_id, monit: { memory: 1, cpu: 0 },
  pm2_env: { status: 'online', pm_uptime: Number(uptime), pmx: false, exec_mode: 'cluster_mode', node_args: [], axm_monitor },
});
const list = Array.from({ length: Number(count) }, (_, pm_id) => entry(pm_id));
const serve = server => server.on('connection', stream => {
  let held = Buffer.alloc(0);
  stream.on('error', () => {});
  stream.on('data', data => {
    held = Buffer.concat([held, data]);
    const parts = [];
    let at = 1;
    while (parts.length < 2 && held.length >= at + 4) {
      const length = held.readUInt32BE(at);
      if (held.length < at + 4 + length) return;
      parts.push(held.subarray(at + 4, at + 4 + length));
      at += 4 + length;
    }
    if (parts.length < 2) return;
    held = held.subarray(at);
    const { method } = JSON.parse(parts[0].toString().slice(2));
    fs.appendFileSync(`${home}/methods`, `${method}\n`);
    const args = method === 'getMonitorData' ? [list] : ['7.0.4'];
    stream.write(Buffer.concat([Buffer.from([0x12]), argument(Buffer.from(`j:${JSON.stringify({ args })}`)), argument(parts[1])]));
  });
});

serve(net.createServer().listen(`${home}/rpc.sock`));

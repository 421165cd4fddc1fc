// What a poll of the heap costs: CPU of the sidecar and of pm2's daemon, for 4, 16 and 40 processes. Prints a table in
// Markdown:
//
//   npm ci --prefix tests/pm2 && cargo build --profile dist && node benches/heap_polling/cost.cjs [BINARY]
'use strict';
const { spawn } = require('child_process');
const fs = require('fs');
const path = require('path');
const { call, folder, measure, pause } = require('./pm2.cjs');

const binary = path.resolve(process.argv[2] || path.join(__dirname, '../../target/dist/leakslope'));
const SECONDS = 20;
const PAUSE_MS = 50;

/** CPU time of a process in milliseconds; the kernel counts in ticks of ten. */
function cpu(pid) {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** CPU in milliseconds that the sidecar and the daemon use in a while of polling at this pace. */
async function used(heapInterval) {
  const config = path.join(folder, 'leakslope.toml');
  // The list alone is to be measured, so nothing else is done after the first collection.
  fs.writeFileSync(config, `interval = "1h"\n[collect]\nheap_interval = "${heapInterval}"\n`);
  const env = { ...process.env, STATE_DIRECTORY: path.join(folder, 'state') };
  const sidecar = spawn(binary, ['--config', config, '--web.listen-address', '127.0.0.1:0'], { env, stdio: 'ignore' });
  const daemon = Number(fs.readFileSync(path.join(process.env.PM2_HOME, 'pm2.pid'), 'utf8'));
  await pause(3000);
  const before = [cpu(sidecar.pid), cpu(daemon)];
  await pause(SECONDS * 1000);
  const after = [cpu(sidecar.pid), cpu(daemon)];
  sidecar.kill();
  await new Promise((resolve) => sidecar.once('exit', resolve));
  return after.map((value, index) => value - before[index]);
}

measure(async () => {
  const script = path.join(__dirname, '../../tests/pm2/apps/server.js');
  console.log('| processes | CPU of the sidecar a poll | CPU of the daemon a poll |');
  console.log('| ---: | ---: | ---: |');
  let running = 0;
  for (const processes of [4, 16, 40]) {
    await call('start', { name: `idle-${processes}`, script, instances: processes - running, exec_mode: 'cluster', env: { PORT: '0' } });
    running = processes;
    await pause(5000);
    const idle = await used('0s');
    const polling = await used(`${PAUSE_MS}ms`);
    const polls = (SECONDS * 1000) / PAUSE_MS;
    const [sidecar, daemon] = polling.map((value, index) => ((value - idle[index]) / polls).toFixed(2));
    console.log(`| ${processes} | ${sidecar} ms | ${daemon} ms |`);
  }
});

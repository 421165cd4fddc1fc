'use strict';
// What deploy/node/leakslope-gc.cjs costs an app, as a share of one core. Run: node benches/preload/run.cjs
//
// The cost is far below the noise of a whole app's CPU time, so its two parts are measured where they stand out: the
// report (once a second) on an idle app, and the observation of one collection on an app that does nothing but collect.
// A busy app says how many collections a second there are; the preload observes no more than OBSERVED of them on average.
// Exits 1 when the sum is above the aim.
const { fork } = require('child_process');
const path = require('path');

const AIM = 0.001;
const OBSERVED = 8;
const PRELOAD = path.join(__dirname, '..', '..', 'deploy', 'node', 'leakslope-gc.cjs');
const ROUNDS = 5;

function run(preload, args) {
  return new Promise((resolve) => {
    const execArgv = ['--expose-gc', ...(preload ? ['-r', PRELOAD] : [])];
    const env = { ...process.env, pm_id: '0', PM2_HOME: '/nowhere' };
    const child = fork(path.join(__dirname, 'app.cjs'), args, { execArgv, env, stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
    const reports = [];
    let output = '';
    child.stdout.on('data', (data) => { output += data; });
    child.on('message', ({ data }) => reports.push(data));
    child.on('close', () => resolve({ ...JSON.parse(output), reports }));
  });
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

/** CPU seconds by which the second of two kinds of runs is dearer, by the median of rounds in which they take turns. */
async function dearer(plain, loaded) {
  const differences = [];
  let last;
  for (let round = 0; round < ROUNDS; round += 1) {
    const without = await plain();
    last = await loaded();
    differences.push(last.cpuSeconds - without.cpuSeconds);
  }
  return { seconds: Math.max(0, median(differences)), last };
}

async function main() {
  const idle = await dearer(() => run(false, ['idle', '10']), () => run(true, ['idle', '10']));
  const perReport = idle.seconds / idle.last.reports.length;
  const collect = ['collect', '20000'];
  const collections = await dearer(() => run(false, collect), () => run(false, [...collect, 'observed']));
  const perCollection = collections.seconds / collections.last.work;

  const seconds = 10;
  const busy = await run(true, ['busy', String(seconds), '100000']);
  const last = busy.reports[busy.reports.length - 1];
  const rate = (last['GC minor collections'].value + last['GC major collections'].value) / busy.reports.length;
  const share = perReport + perCollection * Math.min(rate, OBSERVED);

  const rows = [
    ['one report', `${(perReport * 1e6).toFixed(0)} µs of CPU, once a second`],
    ['one collection observed', `${(perCollection * 1e6).toFixed(1)} µs of CPU`],
    ['collections of a busy app', `${rate.toFixed(1)} a second, at ${((100 * busy.cpuSeconds) / seconds).toFixed(0)} % of a core`],
    ['an idle app pays', `${(perReport * 100).toFixed(3)} % of a core`],
    ['a busy app pays', `${(share * 100).toFixed(3)} % of a core (aim: below ${AIM * 100} %)`],
  ];
  for (const [what, value] of rows) console.log(`${what.padEnd(28)}${value}`);
  process.exitCode = share < AIM ? 0 : 1;
}

main();

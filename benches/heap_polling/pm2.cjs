// A pm2 of its own for a measurement, gone afterwards with all it started.
'use strict';
const fs = require('fs');
const os = require('os');
const path = require('path');

// A socket's path is short by nature, so is the folder's name.
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'poll-'));
process.env.PM2_HOME = path.join(folder, '.pm2');
process.env.PM2_DISCRETE_MODE = 'true';
const pm2 = require(path.join(__dirname, '../../tests/pm2/node_modules/pm2-7'));

/** Asks pm2 for something. */
const call = (name, ...given) =>
  new Promise((resolve, reject) => pm2[name](...given, (error, value) => (error ? reject(error) : resolve(value))));

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs a measurement with a daemon to itself. */
function measure(run) {
  call('connect')
    .then(run)
    .catch((error) => {
      console.error(error);
      process.exitCode = 1;
    })
    .finally(() => pm2.killDaemon(() => fs.rm(folder, { recursive: true, force: true }, () => process.exit())));
}

module.exports = { call, folder, measure, pause };

'use strict';
// Stands where pm2 stands: forks an app with a channel and prints what arrives on it, one JSON document a line, then how
// the app ended. Argument: JSON with `file`, and if wanted `args`, `execArgv` and `env` (null takes a variable away).
const { fork } = require('child_process');

const { file, args = [], execArgv = [], env = {} } = JSON.parse(process.argv[2]);
const variables = { ...process.env, ...env };
for (const [name, value] of Object.entries(env)) if (value === null) delete variables[name];
const child = fork(file, args, { execArgv, env: variables });
const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
child.on('message', (message) => {
  print({ message });
  if (message === 'please answer') child.send('an answer');
});
child.on('exit', (code, signal) => print({ exit: code, signal }));

'use strict';
// Dies once in the way DEATH names, when the file GO appears; its next run lives, unless it dies at boot.
const fs = require('fs');
const { DEATH, GO } = process.env;
const kept = [];
const deaths = {
  heap() {
    const grow = () => {
      for (let i = 0; i < 4000; i++) kept.push({ i, text: 'x'.repeat(8) + i, more: [i, i] });
      setImmediate(grow);
    };
    grow();
  },
  memory() { for (let i = 0; i < 12; i++) kept.push(Buffer.alloc(8 << 20, 1)); },
  exit0() { process.exit(0); },
  exit1() { process.exit(1); },
  exit3() { process.exit(3); },
  throw() { throw new Error('boom in a timer\u001b[31m'); },
  reject() { Promise.reject(new Error('boom in a promise')); },
  abort() { process.abort(); },
  segv() { process.kill(process.pid, 'SIGSEGV'); },
};
if (DEATH === 'stubborn') process.on('SIGINT', () => {});
if (DEATH === 'boot') throw new Error('boom at boot');
if (deaths[DEATH] && !fs.existsSync(`${GO}.${process.env.name}`)) {
  const timer = setInterval(() => {
    if (!fs.existsSync(GO)) return;
    clearInterval(timer);
    fs.writeFileSync(`${GO}.${process.env.name}`, '');
    deaths[DEATH]();
  }, 50);
} else setInterval(() => {}, 1000);

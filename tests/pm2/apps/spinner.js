// Keeps its event loop busy for as long as SPIN_MS says, from SIGUSR2 on.
'use strict';
process.on('SIGUSR2', () => {
  const end = Date.now() + Number(process.env.SPIN_MS || 60000);
  while (Date.now() < end);
});
setInterval(() => {}, 1000);

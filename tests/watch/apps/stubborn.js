// Says in the file FILE which signal it got, and stays until it is killed.
'use strict';
const fs = require('node:fs');
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => fs.appendFileSync(process.env.FILE, `${signal}\n`));
setInterval(() => {}, 1000);
fs.writeFileSync(process.env.FILE, 'up\n');

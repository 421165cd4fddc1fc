// The leak: a session for every visitor, and nobody ever takes one out again.
'use strict';
const traffic = require('./traffic.cjs');
const sessions = new Map();

traffic(function rememberVisitor(session) {
  sessions.set(session.id, session);
});

// In the end it dies, as such apps do, and pm2 starts it anew: a demo that is forgotten must not fill the machine.
const end = Number(process.env.DEMO_DIES_AT_BYTES);
setInterval(() => {
  if (process.memoryUsage.rss() > end) process.exit(1);
}, 500);

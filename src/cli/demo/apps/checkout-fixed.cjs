// The healthy twin: the same sessions, but each is taken out again after two seconds.
'use strict';
const traffic = require('./traffic.cjs');
const KEPT = 2200;
const sessions = new Map();

traffic(function rememberVisitor(session) {
  sessions.set(session.id, session);
  sessions.delete(session.id - KEPT);
});

require('./watch.cjs');

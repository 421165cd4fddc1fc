// A small shop that leaks: a session for every visitor, and nobody ever takes one out again. The app of the worked example in
// docs/evidence.md. With FIXED it takes each out after two seconds.
'use strict';
const VISITS_A_SECOND = 1100;
const sessions = new Map();
const begun = process.hrtime.bigint();
let visits = 0;

function rememberVisitors() {
  const due = Math.floor((Number(process.hrtime.bigint() - begun) / 1e9) * VISITS_A_SECOND);
  for (; visits < due; visits += 1) {
    const session = { id: visits, basket: new Array(128).fill(visits + 0.5) };
    sessions.set(session.id, session);
    if (process.env.FIXED) sessions.delete(session.id - 2 * VISITS_A_SECOND);
  }
}

setInterval(rememberVisitors, 100);

// The visitors of a small shop, made up: about 1,100 a second whatever the machine does, each with a session of a
// kibibyte. What an app does with the sessions is all that tells one app of the demo from another.
'use strict';
const VISITS_A_SECOND = 1100;
// A machine that was busy for a while does not get all of its visitors at once.
const MOST_AT_ONCE = 2200;

module.exports = (visit) => {
  const begun = process.hrtime.bigint();
  let visits = 0;
  setInterval(() => {
    const due = Math.floor((Number(process.hrtime.bigint() - begun) / 1e9) * VISITS_A_SECOND);
    visits = Math.max(visits, due - MOST_AT_ONCE);
    for (; visits < due; visits += 1) visit({ id: visits, basket: new Array(128).fill(visits + 0.5) });
  }, 25);
};

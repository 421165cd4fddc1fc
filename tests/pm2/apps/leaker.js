// Keeps objects for ever, ten times a second, from one function.
'use strict';
const kept = [];
function keepForEver() {
  for (let i = 0; i < 2000; i++) kept.push({ at: Date.now(), text: [i, i + 1, i + 2, i + 3] });
}
setInterval(() => keepForEver(), 100);

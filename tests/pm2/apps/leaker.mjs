// The same leak in a module of the newer kind.
import { setInterval } from 'node:timers';
const kept = [];
function keepForEver() {
  for (let i = 0; i < 2000; i++) kept.push({ at: Date.now(), text: [i, i + 1, i + 2, i + 3] });
}
setInterval(() => keepForEver(), 100);

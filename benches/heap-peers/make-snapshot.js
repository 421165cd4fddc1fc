// Builds many small objects and writes a snapshot of them. Usage: node make-snapshot.js COUNT FILE
// 136000 gives about 250 MB, 540000 about 1.1 GB (needs --max-old-space-size=16000).
'use strict';
const v8 = require('node:v8');

class Session {
  constructor(number) {
    this.number = number;
    this.user = { name: `user ${number}`, roles: ['reader', 'writer'], tags: new Map([[number, { number }]]) };
    this.log = [];
    for (let line = 0; line < 4; line++) this.log.push({ line, at: number * 1.5 + line, text: `line ${number}:${line}` });
    this.next = null;
    this.onEvent = () => this.number;
  }
}

class Store {
  constructor() {
    this.sessions = new Map();
  }
}

const store = new Store();
let previous = null;
const count = Number(process.argv[2]);
for (let number = 0; number < count; number++) {
  const session = new Session(number);
  session.previous = previous;
  if (previous && number % 3) previous.next = session;
  previous = number % 5 ? session : null;
  store.sessions.set(`key ${number}`, session);
}
globalThis.store = store;
v8.writeHeapSnapshot(process.argv[3]);

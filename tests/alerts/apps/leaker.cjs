'use strict';
// Keeps some 1.5 MB a second, in a straight line.
const kept = [];
setInterval(() => kept.push(Array.from({ length: 4500 }, (_, number) => ({ number }))), 100);

'use strict';
// Keeps a few megabytes and collects garbage once a second. Needs `--expose-gc`.
globalThis.kept = Array.from({ length: 1e5 }, (_, number) => ({ number }));
setInterval(() => global.gc(), 1000);

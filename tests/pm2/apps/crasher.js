// Fails at once, every time.
'use strict';
process.exit(1);

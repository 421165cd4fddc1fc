'use strict';
/*
 * leakslope under the pm2 that it watches: pm2 start "$(npm root -g)/leakslope/ecosystem.config.cjs"
 *
 * pm2 runs the binary itself, with no Node.js around it. Orders to restart it are refused by leakslope, whoever asks: it
 * never restarts the process that it is.
 */
module.exports = {
  apps: [
    {
      name: 'leakslope',
      script: require('./index.cjs').binary(),
      interpreter: 'none',
      // The history is flushed at the end, which takes at most 4 s.
      kill_timeout: 10000,
      // Started again with the same wrong configuration (64) it would only say the same again.
      stop_exit_codes: [64],
    },
  ],
};

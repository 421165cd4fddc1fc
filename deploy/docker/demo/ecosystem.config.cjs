// The demo's apps, each with the preload that tells exact figures of V8's heap.
const preload = '-r /opt/leakslope/leakslope-gc.cjs';

module.exports = {
  apps: [
    { name: 'shop', script: '/app/app.js', node_args: preload, env: { PORT: '3000' }, max_memory_restart: '600M' },
    { name: 'steady', script: '/app/steady.js', node_args: preload, env: { PORT: '3001' } },
  ],
};

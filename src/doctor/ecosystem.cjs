// Reads an ecosystem file as pm2 would and prints its apps as pm2 would list them. The file's text comes by standard input.
// Of the apps' variables only those are passed on that a check is about.
'use strict';

const fs = require('fs');
const Module = require('module');
const path = require('path');
const vm = require('vm');

const [file, mark] = process.argv.slice(1);
const folder = path.dirname(file);
const text = fs.readFileSync(0, 'utf8');

const compile = async () => {
  if (/\.(json|ya?ml)$/.test(file)) return vm.runInNewContext(`(${text})`);
  const asModule = async () => import(`data:text/javascript,${encodeURIComponent(text)}`);
  if (file.endsWith('.mjs')) return asModule();
  try {
    const loaded = new Module(file);
    loaded.filename = file;
    loaded.paths = Module._nodeModulePaths(folder);
    loaded._compile(text, file);
    return loaded.exports;
  } catch (error) {
    if (error instanceof SyntaxError && /\bexport\b/.test(text)) return asModule();
    throw error;
  }
};

const INTERPRETERS = { '.js': 'node', '.cjs': 'node', '.mjs': 'node', '.py': 'python3', '.sh': 'bash', '.rb': 'ruby', '.php': 'php',
  '.pl': 'perl', '.ts': 'bun', '.tsx': 'bun' };
const SAME = ['namespace', 'pmx', 'max_memory_restart', 'kill_timeout', 'listen_timeout', 'wait_ready', 'min_uptime',
  'max_restarts', 'restart_delay', 'exp_backoff_restart_delay', 'autorestart', 'stop_exit_codes', 'watch', 'ignore_watch', 'treekill',
  'args'];

const listed = (app) => {
  const first = (...names) => names.map((name) => app[name]).find((value) => value !== undefined);
  const cwd = path.resolve(folder, String(app.cwd ?? '.'));
  const [command] = String(app.script ?? app.exec ?? '').split(' ');
  const script = command.includes('/') || fs.existsSync(path.join(cwd, command)) ? path.resolve(cwd, command) : command;
  const interpreter = first('exec_interpreter', 'interpreter') ?? INTERPRETERS[path.extname(command)] ?? 'none';
  const instances = app.instances === 'max' ? 0 : app.instances;
  const isNode = /^node/.test(path.basename(String(interpreter)));
  const mode = app.exec_mode ?? (instances !== undefined && isNode ? 'cluster_mode' : 'fork_mode');
  const log = (...names) => {
    const value = first(...names);
    if (typeof value !== 'string') return undefined;
    return /^null$/i.test(value) ? '/dev/null' : path.resolve(cwd, value);
  };
  const variables = { ...app.env };
  return {
    ...Object.fromEntries(SAME.map((name) => [name, app[name]])),
    name: app.name ?? path.basename(command, path.extname(command)),
    pm_exec_path: script,
    pm_cwd: cwd,
    exec_interpreter: interpreter,
    exec_mode: mode,
    instances,
    node_args: first('node_args', 'nodeArgs', 'interpreter_args', 'interpreterArgs'),
    cron_restart: first('cron_restart', 'cron'),
    merge_logs: first('merge_logs', 'combine_logs'),
    pm_out_log_path: log('out_file', 'output', 'out', 'out_log'),
    pm_err_log_path: log('error_file', 'error', 'err', 'err_file', 'err_log'),
    NODE_ENV: variables.NODE_ENV ?? app.env_production?.NODE_ENV,
    NODE_OPTIONS: variables.NODE_OPTIONS,
  };
};

compile().then((loaded) => {
  const exported = loaded?.default ?? loaded;
  const apps = exported?.apps ?? exported?.pm2 ?? exported;
  const list = (Array.isArray(apps) ? apps : [apps]).filter((app) => app && typeof app === 'object');
  process.stdout.write(`\n${mark}${JSON.stringify(list.map(listed))}\n`);
  process.exit(0);
}).catch((error) => {
  process.stderr.write(`${error?.name ?? 'Error'}: ${String(error?.message ?? error).split('\n')[0]}\n`);
  process.exit(1);
});

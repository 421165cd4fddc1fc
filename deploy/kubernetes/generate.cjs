// Writes base/prometheusrule.yaml from alerts/*.yml: run `node deploy/kubernetes/generate.cjs` after a change there.
// The rules go in as they stand, comments included, two columns further to the right.
const { readFileSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');

const root = join(__dirname, '../..');

const groups = (name) => {
  const lines = readFileSync(join(root, 'alerts', name), 'utf8').trimEnd().split('\n');
  const start = lines.indexOf('groups:');
  if (start < 0) throw new Error(`alerts/${name}: no line reads "groups:"`);
  return lines.slice(start + 1).map((line) => (line === '' ? '' : `  ${line}`));
};

const text = [
  '# Generated from alerts/leakslope.rules.yml and alerts/leakslope.alerts.yml by deploy/kubernetes/generate.cjs.',
  'apiVersion: monitoring.coreos.com/v1',
  'kind: PrometheusRule',
  'metadata:',
  '  name: leakslope',
  '  labels:',
  '    app.kubernetes.io/name: leakslope',
  'spec:',
  '  groups:',
  ...groups('leakslope.rules.yml'),
  '',
  ...groups('leakslope.alerts.yml'),
  '',
].join('\n');

writeFileSync(process.argv[2] ?? join(__dirname, 'base/prometheusrule.yaml'), text);

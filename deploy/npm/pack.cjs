// Packs what goes to npm: node deploy/npm/pack.cjs FOLDER PLATFORM=BINARY…
//
//   node deploy/npm/pack.cjs dist linux-x64=target/x86_64-unknown-linux-musl/dist/leakslope
//
// A package for each binary, and leakslope itself, which names them all as optional dependencies in its own version.
// Publish those of the platforms first: an optional dependency that is not there yet is left out in silence.
const { execFileSync } = require('node:child_process');
const { cpSync, copyFileSync, chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join, resolve } = require('node:path');

const root = join(__dirname, '../..');
const template = JSON.parse(readFileSync(join(__dirname, 'leakslope/package.json'), 'utf8'));
const [, version] = /^version = "(.+)"$/m.exec(readFileSync(join(root, 'Cargo.toml'), 'utf8'));
const platforms = Object.keys(template.optionalDependencies).map((name) => name.replace('@leakslope/', ''));

const [into, ...binaries] = process.argv.slice(2);
if (into === undefined) throw new Error('usage: node deploy/npm/pack.cjs FOLDER PLATFORM=BINARY…');
mkdirSync(into, { recursive: true });
const work = mkdtempSync(join(tmpdir(), 'leakslope-npm-'));

const pack = (folder, manifest) => {
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  copyFileSync(join(root, 'LICENSE'), join(folder, 'LICENSE'));
  const arguments_ = ['pack', '--silent', '--pack-destination', resolve(into)];
  console.log(join(into, execFileSync('npm', arguments_, { cwd: folder, encoding: 'utf8' }).trim()));
};

try {
  for (const given of binaries) {
    const [platform, binary] = given.split('=');
    if (!platforms.includes(platform) || !binary) {
      throw new Error(`${given}: expected PLATFORM=BINARY with a platform of ${platforms.join(', ')}`);
    }
    const [os, cpu] = platform.split('-');
    const folder = join(work, platform);
    mkdirSync(folder);
    copyFileSync(binary, join(folder, 'leakslope'));
    chmodSync(join(folder, 'leakslope'), 0o755);
    const { license, homepage, repository } = template;
    const description = `The binary of leakslope for ${platform}`;
    pack(folder, { name: `@leakslope/${platform}`, version, description, license, homepage, repository, os: [os], cpu: [cpu] });
  }
  const folder = join(work, 'leakslope');
  cpSync(join(__dirname, 'leakslope'), folder, { recursive: true });
  copyFileSync(join(__dirname, 'README.md'), join(folder, 'README.md'));
  copyFileSync(join(root, 'deploy/node/leakslope-gc.cjs'), join(folder, 'leakslope-gc.cjs'));
  const optionalDependencies = Object.fromEntries(platforms.map((platform) => [`@leakslope/${platform}`, version]));
  pack(folder, { ...template, version, optionalDependencies });
} finally {
  rmSync(work, { recursive: true });
}

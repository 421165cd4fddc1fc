'use strict';
/*
 * Where the binary of this machine is. Each lies in a package of its own, an optional dependency of this one of which npm
 * installs only what fits the machine. Nothing is downloaded and no script runs at installation.
 */
const { optionalDependencies, version } = require('./package.json');

/** The path of the binary; throws an error that says what to do where there is none. */
exports.binary = () => {
  const machine = `${process.platform}-${process.arch}`;
  const name = `@leakslope/${machine}`;
  if (!(name in optionalDependencies)) {
    const known = Object.keys(optionalDependencies).map((known) => known.replace('@leakslope/', ''));
    throw new Error(
      `there is no binary for ${machine} (there is for ${known.join(', ')}); on another Linux build it from source: `
      + 'https://github.com/leakslope/leakslope#readme',
    );
  }
  try {
    return require.resolve(`${name}/leakslope`);
  } catch (_) {
    throw new Error(
      `the package ${name} with the binary is missing: install leakslope without --omit=optional, or add it with `
      + `npm install ${name}@${version} (with -g where leakslope was)`,
    );
  }
};

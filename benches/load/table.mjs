// The table of what the sidecar costs as processes grow in number, and what follows from it. Pure: figures in, Markdown out.

/** A power of their number that is told from 1: what lies within is noise of one run. */
const NOISE = 0.1;
const MEBIBYTE = 1 << 20;
const two = (value) => value.toFixed(2);
const one = (value) => value.toFixed(1);
const percent = (value) => `${(value * 100).toFixed(value < 0.1 ? 2 : 1)} %`;
const times = (value) => `${value.toFixed(value < 10 ? 1 : 0)}×`;

const HEAD = ['processes', 'exporter', 'interval', 'CPU (of one core)', 'CPU per process and collection', 'resident', 'at its highest',
  'scrape p50', 'scrape p99', 'body', 'store, a day', 'pm2-metrics: CPU', 'resident', 'p99'];

function row(what, measured, store, rival) {
  const { count, interval, cpu, each, resident, peak, p50, p99, bytes, collections, intervals } = measured;
  // Fewer collections than intervals: the daemon was too slow.
  const pace = collections < intervals ? `${interval} s (${collections} of ${intervals} lists)` : `${interval} s`;
  const ratios = rival ? [rival.cpu / cpu, rival.resident / resident, rival.p99 / p99].map(times) : ['–', '–', '–'];
  return [count, what, pace, percent(cpu), `${(each * 1e6).toFixed(1)} µs`, `${one(resident)} MiB`, `${one(peak)} MiB`, `${two(p50)} ms`,
    `${two(p99)} ms`, `${Math.round(bytes / 1024)} KiB`, store, ...ratios];
}

/** By which power of their number a figure grows between the smallest and the largest: 1 is linear. */
export function exponent(small, large, value) {
  return Math.log(value(large) / value(small)) / Math.log(large.count / small.count);
}

function growth(at, name, value) {
  const [small, large] = [at[0], at.at(-1)];
  const power = exponent(small, large, value);
  const word = power > 1 + NOISE ? '**more than linear**' : power < 1 - NOISE ? 'less than linear' : 'linear';
  return `${name} ×${one(value(large) / value(small))} (exponent ${two(power)}, ${word})`;
}

function lines(fake) {
  const intervals = [...new Set(fake.map(({ interval }) => interval))];
  return intervals.flatMap((interval) => {
    const at = fake.filter((measured) => measured.interval === interval).sort((left, right) => left.count - right.count);
    if (at.length < 2 || at[0].count === at.at(-1).count) return [];
    const [small, large] = [at[0], at.at(-1)];
    return [`- Every ${interval} s, from ${small.count} to ${large.count} processes (×${one(large.count / small.count)}): `
      + [growth(at, 'CPU of a collection', ({ each, count }) => each * count), growth(at, 'resident memory', ({ resident }) => resident),
        growth(at, 'scrape p50', ({ p50 }) => p50), growth(at, 'scrape p99', ({ p99 }) => p99)].join(', ') + '.'];
  });
}

/**
 * The whole: `real` are pairs of `ours` and `theirs` at one interval, `fake` ours alone, `grown` the bytes a day and process by
 * which the store grew beside `count` processes, where it was measured.
 */
export function body({ real, fake, grown }) {
  const store = (count) => (grown ? `${count === grown.count ? '' : '≈ '}${one(grown.each * count / MEBIBYTE)} MiB` : 'not measured');
  const rows = [
    ...real.flatMap(({ ours, theirs }) => [row('leakslope', ours, store(ours.count), theirs), row('pm2-metrics', theirs, 'none', null)]),
    ...fake.map((measured) => row('leakslope, fake daemon', measured, store(measured.count), null)),
  ];
  const table = [HEAD, HEAD.map((_, place) => (place === 1 ? '---' : '---:')), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
  const notes = grown ? [`- The store grew by ${one(grown.each / 1024)} KiB a process and day beside ${grown.count} processes: a row a minute, `
    + 'whatever the interval. Where ≈ stands before it, it is reckoned from that.'] : [];
  return [...table, '', ...lines(fake), ...notes].join('\n');
}

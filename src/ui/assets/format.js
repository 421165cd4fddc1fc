// Quantities as people read them. Pure: the same figures as the sidecar's own texts, in the browser's time zone.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const NONE = "–";

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

const three = (value) => {
  const size = Math.abs(value);
  const decimals = size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return String(Number(value.toFixed(decimals)));
};

const two = (value) => {
  const size = Math.abs(value);
  return String(Number(value.toFixed(size >= 9.95 ? 0 : size >= 0.995 ? 1 : 2)));
};

/** Bytes with three digits: `512 MiB`, `1.5 GiB`. */
export const bytes = (value) => {
  if (!known(value)) return NONE;
  let unit = 0;
  let rest = value;
  while (Math.abs(rest) >= 1023.5 && unit + 1 < UNITS.length) {
    rest /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(rest) : three(rest)} ${UNITS[unit]}`;
};

/** A change with its sign: `+4.1 MiB`, `−3`; `write` writes the amount. */
export const change = (value, write) => (value > 0 ? `+${write(value)}` : write(value).replace("-", "−"));

/** A number of things, with its thousands set apart. */
export const amount = (value) => (known(value) ? value.toLocaleString("en") : NONE);

/** An app's name, with pm2's namespace where that is not the default one. */
export const appName = ({ namespace, app }) => (!namespace || namespace === "default" ? app : `${namespace}/${app}`);

/** The name by which the sidecar knows the app without doubt: with its namespace, also the default one. */
export const fullName = ({ namespace, app }) => (namespace ? `${namespace}/${app}` : app);

/** Memory that a process holds: with its children where the system told, as pm2 tells it where not. */
export const held = (process) => process.tree_resident_memory_bytes ?? process.resident_memory_bytes;

const MEBIBYTES_PER_HOUR = 3600 / 1048576;

/** A slope in MiB/h with its sign, without the unit; `digits` writes the number. */
export const pace = (bytesPerSecond, digits = three) => {
  if (!known(bytesPerSecond)) return NONE;
  const value = bytesPerSecond * MEBIBYTES_PER_HOUR;
  const text = Math.abs(value) < 0.005 ? "0" : digits(value);
  return value > 0 && text !== "0" ? `+${text}` : text.replace("-", "−");
};

/** A slope in a sentence: `3.1 MiB/h`, by the minute where an hour would say nothing any more. */
export const rate = (bytesPerSecond) => {
  const fast = bytesPerSecond * MEBIBYTES_PER_HOUR >= 1000;
  return `${pace(fast ? bytesPerSecond / 60 : bytesPerSecond).replace("+", "")} MiB/${fast ? "min" : "h"}`;
};

/** The interval of a slope, to two digits: `+2.8 to +3.4`. */
export const interval = (slope) => (slope ? `${pace(slope.low, two)} to ${pace(slope.high, two)}` : NONE);

const PARTS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

/** A span with at most two units: `2 d 4 h`, `41 h`, `12 min`. */
export const span = (seconds) => {
  if (!known(seconds)) return NONE;
  let rest = Math.max(0, seconds);
  if (rest >= 365 * 86400) return "over a year";
  // Beyond the first ten of a unit the next one says nothing more.
  const first = PARTS.findIndex(([size, unit]) => rest >= (unit === "h" ? size : size * 2) || unit === "s");
  const [size, unit] = PARTS[first];
  const whole = Math.floor(rest / size);
  rest -= whole * size;
  const [next, small] = PARTS[first + 1] ?? [0, ""];
  const part = next && whole < 10 ? Math.floor(rest / next) : 0;
  return part > 0 ? `${whole} ${unit} ${part} ${small}` : `${whole} ${unit}`;
};

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const full = new Intl.DateTimeFormat(undefined, {
  weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});

/** An instant: the time alone on the day of `now`, else with its day. */
export const instant = (seconds, now = Date.now() / 1000) => {
  if (!known(seconds)) return NONE;
  const date = new Date(seconds * 1000);
  const near = Math.abs(seconds - now) < 86400 && date.getDate() === new Date(now * 1000).getDate();
  return (near ? clock : full).format(date);
};

/** The instant in full, always with its day. */
export const moment = (seconds) => (known(seconds) ? full.format(new Date(seconds * 1000)) : NONE);

/** `1 process`, `3 processes`. */
export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/** A share of a whole in percent. */
export const percent = (part, whole) => (known(part) && whole > 0 ? `${Math.round((part / whole) * 100)} %` : NONE);

/** A text of the API as a sentence: a capital first, a full stop last. */
export const sentence = (text) => {
  const trimmed = (text ?? "").trim();
  if (trimmed === "") return "";
  const whole = trimmed[0].toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
};

/** Where a function is: its package, and the code that ran where a source map tells another place. */
export const place = (frame) => {
  const beside = [frame.package, frame.generated].filter(Boolean).join(", ");
  return `${frame.location ?? NONE}${beside ? ` (${beside})` : ""}`;
};

/** A word of the API for people: `restarted_by_us` becomes `restarted by us`. */
export const words = (text) => (text ?? NONE).replaceAll("_", " ");

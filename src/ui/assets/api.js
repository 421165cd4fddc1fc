// Asking the sidecar. One `Source` an address: it asks with the tag of what it has, so that an unchanged answer costs a
// few bytes and no work, and what is not there is not asked for again at every turn.

/** An answer that is not the one asked for. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

const DEADLINE_MS = 10_000;

const explain = async (response) => {
  const text = (await response.text()).slice(0, 500);
  try {
    const { error } = JSON.parse(text);
    return error?.message ?? error ?? text;
  } catch {
    return text || response.statusText;
  }
};

export class Source {
  /** `patience` is for how many milliseconds an address that leads nowhere is left alone. */
  constructor(patience = 0) {
    this.patience = patience;
    this.reset(null);
  }

  reset(address) {
    this.address = address;
    this.tag = null;
    this.body = null;
    this.missing = false;
    this.notBefore = 0;
  }

  /** Asks for an address. Returns whether the body is another than before. Throws when there is no answer. */
  async read(address, signal) {
    const other = address !== this.address;
    if (other) this.reset(address);
    if (performance.now() < this.notBefore) return false;
    const headers = this.tag ? { "If-None-Match": this.tag } : {};
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]);
    const response = await fetch(address, { headers, cache: "no-store", signal: deadline });
    // Somebody asked for another address while this one was on its way.
    if (address !== this.address) return false;
    if (response.status === 304) return other;
    if (response.status === 404 || response.status === 501) {
      await response.text();
      const changed = !this.missing;
      this.reset(address);
      this.missing = true;
      this.notBefore = performance.now() + this.patience;
      return changed || other;
    }
    if (!response.ok) throw new Refused(response.status, await explain(response));
    const body = await response.json();
    this.tag = response.headers.get("ETag");
    this.body = body;
    this.missing = false;
    return true;
  }
}

/** Reads what an address says now. */
export const read = async (address) => {
  const response = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(DEADLINE_MS) });
  if (!response.ok) throw new Refused(response.status, await explain(response));
  return response.json();
};

/** Sends an order. The content type and the token keep other pages from doing the same in our name. */
export const send = async (address, order, token) => {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(address, {
    method: "POST",
    headers,
    cache: "no-store",
    body: JSON.stringify(order),
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  if (!response.ok) throw new Refused(response.status, await explain(response));
  const text = await response.text();
  return text ? JSON.parse(text) : {};
};

/** The address of something about one process. Like every address of the page it is relative: a proxy may serve it all
 * below a path of its own. */
export const about = (process, part) =>
  `api/v1/processes/${encodeURIComponent(process.daemon)}/${process.pm_id}/${part}`;

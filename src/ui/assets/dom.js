// Making and changing nodes. Text only ever becomes text: nothing here (or anywhere on the page) turns a string into
// markup, so a name can hold whatever it likes.

const SVG = "http://www.w3.org/2000/svg";

const set = (node, name, value) => {
  if (name === "text") node.textContent = value;
  else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
  else if (value === true) node.setAttribute(name, "");
  else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
};

/** Makes an element: attributes, `text`, `on…` listeners, then children (nodes or strings; null is left out). */
export const h = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const name in attributes) set(node, name, attributes[name]);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
};

/** Makes an SVG element. */
export const svg = (tag, attributes = {}, ...children) => {
  const node = document.createElementNS(SVG, tag);
  for (const name in attributes) set(node, name, attributes[name]);
  node.append(...children);
  return node;
};

/** A symbol of the document, as decoration. */
export const shape = (name) => {
  const use = svg("use", { href: `#shape-${name}` });
  return svg("svg", { class: "shape", viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, use);
};

/** A name that somebody else chose, fenced off from the direction of the text around it. */
export const name = (text, attributes = {}) => h("bdi", { class: "name", ...attributes, text });

/** Sets text only when it differs, so that nothing is laid out or read aloud anew for nothing. */
export const write = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

/** Sets or removes an attribute only when it differs. */
export const mark = (node, attribute, value) => {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(attribute)) node.removeAttribute(attribute);
  } else if (node.getAttribute(attribute) !== String(value)) {
    node.setAttribute(attribute, value);
  }
};

/** Shows or hides. */
export const show = (node, visible) => {
  if (node.hidden === visible) node.hidden = !visible;
};

/** Removes what could turn text around or hide in it: for titles and labels, where no element can fence it off. */
export const plain = (text) => text.replace(/[\u0000-\u001f\u007f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g, "");

/**
 * Keeps the children of a node in step with a list: one child for each key, made once, updated in place, moved only
 * when the order changed and dropped when its key is gone. `create(item)` returns `{ node, update(item) }`. Children that
 * are there before stay first.
 */
export class Keyed {
  constructor(parent, keyOf, create) {
    this.parent = parent;
    this.keyOf = keyOf;
    this.create = create;
    this.entries = new Map();
    this.kept = parent.childElementCount;
  }

  update(items) {
    const gone = new Set(this.entries.keys());
    const focused = document.activeElement;
    let place = this.parent.children[this.kept] ?? null;
    for (const item of items) {
      const key = this.keyOf(item);
      let entry = this.entries.get(key);
      if (!entry) {
        entry = this.create(item);
        this.entries.set(key, entry);
      }
      gone.delete(key);
      entry.update(item);
      if (entry.node === place) place = place.nextElementSibling;
      else this.parent.insertBefore(entry.node, place);
    }
    for (const key of gone) {
      this.entries.get(key).node.remove();
      this.entries.delete(key);
    }
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  }
}

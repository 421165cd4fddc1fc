// A heap profile as a flame graph: width is memory still held, depth is who called whom. Every box is a button, so that
// it can be read and zoomed without a pointer.

import { h, write, mark, plain } from "./dom.js";
import { bytes, percent, place } from "./format.js";

const DEEPEST = 24;
const NARROWEST = 0.004;

/** Makes a flame graph of a tree of `{ name, location, generated, package, bytes, children }`. */
export const flame = (root) => {
  const stage = h("div", { class: "flame", role: "group", "aria-label": "Flame graph of the heap profile" });
  const detail = h("p", { class: "readout", role: "status", dir: "auto" });
  const node = h("div", {}, stage, detail);

  const tell = (frame) => {
    const where = frame.location ? ` at ${place(frame)}` : "";
    write(detail, `${plain(frame.name)}${plain(where)}: ${bytes(frame.bytes)}, ${percent(frame.bytes, root.bytes)} of all`);
  };
  const draw = (top) => {
    const boxes = [];
    const place = (frame, left, depth) => {
      const width = frame.bytes / top.bytes;
      if (depth > DEEPEST || width < NARROWEST) return;
      const box = h("button", {
        type: "button", class: "flame-box", dir: "auto", text: plain(frame.name),
        onclick: () => { draw(frame === top ? root : frame); tell(frame); },
        onfocus: () => tell(frame), onpointerenter: () => tell(frame),
        "aria-label": `${plain(frame.name)}, ${bytes(frame.bytes)}`,
      });
      // Single properties of a style object are no inline style to the security policy.
      box.style.left = `${left * 100}%`;
      box.style.width = `${width * 100}%`;
      box.style.top = `${depth * 22}px`;
      mark(box, "data-tone", String([...frame.name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 4));
      boxes.push({ box, depth });
      let next = left;
      for (const child of frame.children) {
        place(child, next, depth + 1);
        next += child.bytes / top.bytes;
      }
    };
    place(top, 0, 0);
    stage.style.height = `${(Math.max(0, ...boxes.map((entry) => entry.depth)) + 1) * 22}px`;
    stage.replaceChildren(...boxes.map((entry) => entry.box));
  };
  if (root.bytes > 0) draw(root);
  tell(root);
  return node;
};

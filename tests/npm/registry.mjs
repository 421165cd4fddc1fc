// A registry with what lies in a folder of packed packages and nothing else: node registry.mjs FOLDER says its address.
//
// It answers what `npm install NAME` asks: the document of a package, made of the package.json in its tarball, and the
// tarball. Every request is told on a line, so that a test sees what was fetched.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

const folder = process.argv[2];
const documents = new Map();

const server = createServer((request, response) => {
  const path = decodeURIComponent(request.url.slice(1));
  console.log(`${request.method} ${path}`);
  if (documents.has(path)) return response.end(JSON.stringify(documents.get(path)));
  const file = path.startsWith("files/") && readdirSync(folder).find((name) => path === `files/${name}`);
  if (file) return response.end(readFileSync(join(folder, file)));
  response.statusCode = 404;
  return response.end("{}");
});

server.listen(0, "127.0.0.1", () => {
  const address = `http://127.0.0.1:${server.address().port}/`;
  for (const file of readdirSync(folder)) {
    const manifest = JSON.parse(execFileSync("tar", ["-xOzf", join(folder, file), "package/package.json"], { encoding: "utf8" }));
    const integrity = `sha512-${createHash("sha512").update(readFileSync(join(folder, file))).digest("base64")}`;
    documents.set(manifest.name, {
      name: manifest.name,
      "dist-tags": { latest: manifest.version },
      versions: { [manifest.version]: { ...manifest, dist: { tarball: `${address}files/${file}`, integrity } } },
    });
  }
  console.log(`serving on ${address}`);
});

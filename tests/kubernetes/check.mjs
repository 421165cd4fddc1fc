// Checks what kustomize built against the schemas of Kubernetes and of the Prometheus operator: node check.mjs FILE…
//
// The schemas tell wrong values but let unknown keys pass; the types, held against each object written as a literal, tell
// those. Says one line for each object; ends with 1 when one is refused or has no schema.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Deployment } from "kubernetes-models/apps/v1/Deployment";
import { ConfigMap } from "kubernetes-models/v1/ConfigMap";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import ts from "typescript";
import { parseAllDocuments } from "yaml";

const operator = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
const models = {
  "v1/ConfigMap": [ConfigMap, "kubernetes-models/v1/ConfigMap"],
  "apps/v1/Deployment": [Deployment, "kubernetes-models/apps/v1/Deployment"],
  "monitoring.coreos.com/v1/PodMonitor": [PodMonitor, `${operator}/PodMonitor`],
  "monitoring.coreos.com/v1/PrometheusRule": [PrometheusRule, `${operator}/PrometheusRule`],
};

const folder = mkdtempSync(join(fileURLToPath(new URL(".", import.meta.url)), "node_modules", ".check-"));

/** What TypeScript says against literals of these interfaces; one program for all, since starting one takes seconds. */
const typeErrors = (objects) => {
  const files = objects.map(({ object, kind, module }, at) => {
    const file = join(folder, `${at}.ts`);
    const literal = JSON.stringify(object, null, 1);
    writeFileSync(file, `import type { I${kind} } from "${module}";\nexport const object: I${kind} = ${literal};\n`);
    return file;
  });
  const program = ts.createProgram(files, {
    noEmit: true, strict: true, skipLibCheck: true, types: [],
    module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext,
  });
  return ts.getPreEmitDiagnostics(program).map((found) => ts.flattenDiagnosticMessageText(found.messageText, " "));
};

try {
  for (const file of process.argv.slice(2)) {
    const objects = [];
    for (const document of parseAllDocuments(readFileSync(file, "utf8"))) {
      if (document.errors.length > 0) throw new Error(`${file}: ${document.errors[0].message}`);
      const object = document.toJS();
      const name = `${object.apiVersion}/${object.kind}`;
      if (!models[name]) throw new Error(`${file}: no schema for ${name}`);
      const [Model, module] = models[name];
      new Model(object).validate();
      objects.push({ object, kind: object.kind, module });
    }
    const errors = typeErrors(objects);
    if (errors.length > 0) throw new Error(`${file}: ${errors.join("; ")}`);
    for (const { object } of objects) console.log(`${object.kind} ${object.metadata.name} is valid`);
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true });
}

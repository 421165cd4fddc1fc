import { start, HOSTILE } from "./mock.mjs";
import { open } from "./browser.mjs";
const out = process.argv[2] ?? "/tmp/looks";
import { mkdirSync } from "node:fs"; mkdirSync(out, { recursive: true });
const mock = await start({ daemonDown: true });
for (const scheme of ["light", "dark"]) {
  const b = await open({ colorScheme: scheme });
  const shot = async (name, hash, full = true) => { await b.page.goto(mock.url + "/" + hash); await b.page.waitForSelector('[data-state="live"]'); await b.page.waitForTimeout(300); await b.page.screenshot({ path: `${out}/${name}-${scheme}.png`, fullPage: full }); };
  await shot("overview", "#/"); await shot("process", "#/process/default/0"); await shot("restarts", "#/restarts");
  if (scheme === "light") { await b.page.setViewportSize({ width: 390, height: 844 }); await shot("phone-overview", "#/"); await shot("phone-process", "#/process/default/0"); await shot("phone-restarts", "#/restarts");
   await b.page.setViewportSize({ width: 1320, height: 860 }); mock.state.apps = HOSTILE; await shot("hostile", "#/"); 
    mock.state.apps = (await import("./mock.mjs")).APPS; }
  console.log(scheme, b.complaints);
  await b.close();
}
await mock.close();

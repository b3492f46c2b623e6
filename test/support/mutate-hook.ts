// Loaded by `--import` into a process under test (`mutate.ts` makes the
// environment): replaces exact pieces of its source, so that a protection can be
// missing there without a switch in the product. A piece that is not found
// exactly once ends the process with 70, as the control would prove nothing.
import { appendFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { fileURLToPath } from "node:url";
import { isMainThread } from "node:worker_threads";
import type { Edit } from "./mutate.ts";

const root = new URL("../../", import.meta.url);
const edits = JSON.parse(process.env["MUTATION"] ?? "[]") as readonly Edit[];
const log = process.env["MUTATION_LOG"] ?? "";
const byUrl = Map.groupBy(edits, ({ module }) => new URL(module, root).href);

function apply(source: string, { module, find, replace }: Edit): string {
  const pieces = source.split(find);
  if (pieces.length !== 2) {
    process.stderr.write(`mutation: ${module} has ${pieces.length - 1} of: ${find}\n`);
    process.exit(70);
  }
  if (isMainThread) appendFileSync(log, `${JSON.stringify({ pid: process.pid, module, find })}\n`);
  return pieces.join(replace);
}

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    const found = byUrl.get(url);
    if (found === undefined) return loaded;
    const { source } = loaded;
    if (source === undefined || source === null) {
      process.stderr.write(`mutation: ${fileURLToPath(url)} was loaded without its source\n`);
      process.exit(70);
    }
    const text = typeof source === "string" ? source : Buffer.from(source as Uint8Array).toString("utf8");
    return { ...loaded, source: found.reduce(apply, text) };
  },
});

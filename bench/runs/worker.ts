import { createCadre, defineTool } from "@cadre/sdk";
import { z } from "zod";

// A process that does the steps of `bench/runs/cadre.ts` as a worker: it serves
// a tool through the SDK that returns what it is given, until its parent goes.

const [baseUrl, apiKey] = process.argv.slice(2);
if (baseUrl === undefined || apiKey === undefined || process.send === undefined) {
  throw new TypeError("started by bench/runs/cadre.ts alone");
}
const schema = z.object({ text: z.string(), step: z.number() });
const echo = defineTool({
  name: "bench_echo",
  description: "Returns its arguments as they are.",
  input: schema,
  output: schema,
  sideEffects: "effectful",
  timeoutMs: 30_000,
  handler: async (input) => input,
});
const worker = await createCadre({ baseUrl, apiKey }).tools.serve([echo], { concurrency: 64, name: "bench" });
process.on("disconnect", () => {
  void worker.close().finally(() => process.exit(0));
});
// It listens on no port: its parent waits for a number all the same.
process.send(0);

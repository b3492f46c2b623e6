// A worker in a process of its own whose one tool, `record`, writes to a ledger:
//   node ledger-worker-process.ts <server's URL> <key> <ledger's URL> <calls at once>
// Arguments of the tool: `run` and `step`, as the test names them, and `ms`, how
// long it works, half of it before its effect and half after. It writes
// `ready` when it is registered, and leaves when its standard input ends.
import { setTimeout as delay } from "node:timers/promises";
import { createCadre, defineTool } from "@cadre/sdk";
import { ledgerTool } from "./ledger-tool.ts";

const [baseUrl = "", apiKey = "", ledgerUrl = "", concurrency = ""] = process.argv.slice(2);
const cadre = createCadre({ baseUrl, apiKey });

async function tell(what: "called" | "effect", call: object): Promise<{ readonly applied: boolean }> {
  const response = await fetch(`${ledgerUrl}/${what}`, { method: "POST", body: JSON.stringify(call) });
  if (!response.ok) throw new Error(`the ledger answered ${response.status}`);
  return (await response.json()) as { applied: boolean };
}

const worker = await cadre.tools.serve(
  [
    defineTool({
      ...ledgerTool,
      handler: async ({ run, step, ms }, { idempotencyKey, attempt, print }) => {
        const call = { run, step, key: idempotencyKey, attempt, worker: process.pid };
        await tell("called", call);
        await print("called\n");
        await delay(Number(ms) / 2);
        await tell("effect", call);
        await delay(Number(ms) / 2);
        return { run, step };
      },
    }),
  ],
  {
    concurrency: Number(concurrency),
    maxReconnectDelayMs: 250,
    onError: (error) => process.stderr.write(`${String(error)}\n`),
  },
);
process.stdout.write("ready\n");
process.stdin.resume();
process.stdin.once("end", () => {
  void worker.close().then(() => process.exit(0));
});

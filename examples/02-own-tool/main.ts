import { readFileSync } from "node:fs";
import { createCadre, defineTool, ToolFailure } from "@cadre/sdk";
import { z } from "zod";

const cadre = createCadre({
  baseUrl: process.env.CADRE_URL ?? "http://127.0.0.1:8010",
  apiKey: process.env.CADRE_API_KEY ?? readFileSync(".cadre/admin.key", "utf8").trim(),
});

// What a shop's database would hold.
const orders = new Map([
  ["A-1001", { status: "shipped", carrier: "DHL", days: 2 }],
  ["A-1002", { status: "packed", carrier: "UPS", days: 4 }],
]);

const orderStatus = defineTool({
  name: "order_status",
  description: "Looks up the status of an order of the shop, and in how many days it arrives.",
  input: z.object({ order_id: z.string().describe("The order's number, for example A-1001.") }),
  output: z.object({ status: z.string(), carrier: z.string(), days: z.number().int() }),
  sideEffects: "none",
  timeoutMs: 10_000,
  handler: async ({ order_id }, { print }) => {
    await print(`looking for ${order_id}\n`);
    const order = orders.get(order_id);
    // The model and the user are told this; other errors stay in this process.
    if (order === undefined) throw new ToolFailure(`there is no order ${order_id}`);
    return order;
  },
});

const worker = await cadre.tools.serve([orderStatus], {
  concurrency: 4,
  name: "example 02",
  onBreak: ({ error }) => process.stderr.write(`connecting again: ${error.message}\n`),
});
process.stdout.write(`serving order_status as ${worker.workerId}; Ctrl-C stops\n`);

for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void worker.close());
await worker.closed;

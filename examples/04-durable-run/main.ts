import { readFileSync } from "node:fs";
import { createCadre, defineTool, graph, RunFailed, ToolFailure } from "@cadre/sdk";
import { z } from "zod";

const cadre = createCadre({
  baseUrl: process.env.CADRE_URL ?? "http://127.0.0.1:8010",
  apiKey: process.env.CADRE_API_KEY ?? readFileSync(".cadre/admin.key", "utf8").trim(),
});

// What a shop's database would hold.
const orders = new Map([
  ["A-1001", { amount: 19, currency: "EUR" }],
  ["A-1002", { amount: 23, currency: "EUR" }],
]);
// A bank that pays once for each key, however often it is asked.
const paid = new Map<string, number>();

const orderAmount = defineTool({
  name: "order_amount",
  description: "Looks up what was paid for an order.",
  input: z.object({ order_id: z.string() }),
  output: z.object({ order_id: z.string(), amount: z.number(), currency: z.string() }),
  sideEffects: "none",
  handler: ({ order_id }) => {
    const order = orders.get(order_id);
    if (order === undefined) throw new ToolFailure(`there is no order ${order_id}`);
    return { order_id, ...order };
  },
});

const refund = defineTool({
  name: "refund_order",
  description: "Pays the amount of an order back.",
  input: z.object({ order_id: z.string(), amount: z.number() }),
  output: z.object({ order_id: z.string(), refunded: z.number() }),
  sideEffects: "idempotent",
  handler: ({ order_id, amount }, { idempotencyKey }) => {
    // Another attempt of the same step comes with the same key.
    if (!paid.has(idempotencyKey)) process.stdout.write(`the bank pays ${amount} for ${order_id}\n`);
    paid.set(idempotencyKey, amount);
    return { order_id, refunded: amount };
  },
});

const refunds = graph("refunds", { input: z.object({ order_ids: z.array(z.string()) }) })
  .fanOut(
    "amounts",
    ({ input }) => input.order_ids,
    (task) => task.tool({ tool: orderAmount, arguments: ({ item }) => ({ order_id: item }) }),
    { concurrency: 4, retry: { maxAttempts: 3 } },
  )
  .approval("approved", { prompt: ({ amounts }) => ["Pay these back?", amounts] })
  .fanOut(
    "refunds",
    ({ amounts }) => amounts,
    (task) => task.tool({ tool: refund, arguments: ({ item }) => ({ order_id: item.order_id, amount: item.amount }) }),
    { after: ["approved"] },
  )
  .output(({ refunds, approved }) => ({ refunds, by: approved.by }));

const worker = await cadre.tools.serve([orderAmount, refund], {
  name: "example 04",
  onBreak: ({ error }) => process.stdout.write(`connecting again: ${error.message}\n`),
});
try {
  const run = await cadre.runs.start({
    graph: refunds,
    input: { order_ids: ["A-1001", "A-1002"] },
    labels: { example: "04" },
  });
  process.stdout.write(`started ${run.runId}\n`);
  for await (const { body } of run.events()) {
    if (body.case === "approvalRequested") {
      process.stdout.write(`${body.value.prompt}\n  npx cadre runs approve ${run.runId} ${body.value.step}\n`);
    }
  }
  // Its type follows from the graph.
  const { refunds: done, by } = await run.result();
  process.stdout.write(`${done.map(({ order_id, refunded }) => `${order_id}: ${refunded}`).join(", ")}, for ${by}\n`);
} catch (error) {
  if (!(error instanceof RunFailed)) throw error;
  process.stdout.write(`${error.state}: ${error.message}\n`);
  process.exitCode = 1;
} finally {
  await worker.close();
}

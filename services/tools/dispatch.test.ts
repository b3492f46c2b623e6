import { type MessageInitShape, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { type ToolDefinitionSchema, ToolExecutionService, ToolService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { ToolWorkerService } from "@cadre/gen/cadre/tools/v1/tool_worker_pb";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestWorker, type TestWorker } from "../../test/support/test-worker.ts";
import { principalOf, startToolsReplicas, type ToolsReplicas } from "../../test/support/tools-replicas.ts";
import { newId, toUuid } from "../runtime/ids/id.ts";

let world: ToolsReplicas;
beforeAll(async () => {
  world = await startToolsReplicas(2, { settings: { CADRE_TOOLS_WORKER_WAIT_MS: "20000" } });
});
afterAll(() => world.stop());

const definitions: readonly MessageInitShape<typeof ToolDefinitionSchema>[] = ["one", "two", "three"].map((name) => ({
  name: `tool_${name}`,
  description: "A tool of a test.",
  inputSchema: { type: "object" },
}));

/** What happens while calls run. */
type Disturbance = "reconnect" | "vanish" | "drain" | "cut";

const scenario = fc.record({
  workers: fc.array(
    fc.record({
      tools: fc.uniqueArray(fc.nat({ max: 2 }), { minLength: 1, maxLength: 3 }),
      concurrency: fc.integer({ min: 1, max: 4 }),
      replica: fc.nat({ max: 1 }),
    }),
    { minLength: 1, maxLength: 4 },
  ),
  calls: fc.array(
    fc.record({
      tool: fc.nat({ max: 2 }),
      replica: fc.nat({ max: 1 }),
      repeated: fc.boolean(),
      ms: fc.nat({ max: 30 }),
    }),
    {
      minLength: 5,
      maxLength: 40,
    },
  ),
  disturbances: fc.array(
    fc.record({
      kind: fc.constantFrom<Disturbance>("reconnect", "vanish", "drain", "cut"),
      worker: fc.nat({ max: 3 }),
      afterMs: fc.nat({ max: 60 }),
    }),
    { maxLength: 4 },
  ),
});

test("whatever happens, no worker has more calls than places, and every call ends once, with one result", async () => {
  await fc.assert(
    fc.asyncProperty(scenario, async ({ workers: specs, calls, disturbances }) => {
      const principal = principalOf(newId("org"));
      const replicas = world.replicas;
      const replica = (index: number) => at(replicas, index % replicas.length);
      for (const definition of definitions)
        await replica(0).client(ToolService, principal).registerTool({ definition });
      const pinned = await replica(0)
        .client(ToolExecutionService, principal)
        .resolveTools({ names: ["*"] });
      const tools = definitions.map(({ name }) => pinned.tools.filter((tool) => tool.definition?.name === name));
      // How many places each worker has, and how many handlers ran at once in it.
      const started: TestWorker[] = [];
      const runsByKey = new Map<string, number>();
      const start = async (served: readonly number[], concurrency: number, where: number): Promise<TestWorker> => {
        const worker = await startTestWorker({
          client: replica(where).client(ToolWorkerService, principal),
          reports: replica(where + 1).client(ToolWorkerService, principal),
          tools: served.map((index) => at(definitions, index)),
          concurrency,
          async handle(input, { call }) {
            runsByKey.set(call.idempotencyKey, (runsByKey.get(call.idempotencyKey) ?? 0) + 1);
            await new Promise((resolve) => setTimeout(resolve, Number(input["ms"])));
            return { key: call.idempotencyKey, attempt: call.attempt };
          },
        });
        started.push(worker);
        return worker;
      };
      const places: number[] = [];
      for (const spec of specs) {
        await start(spec.tools, spec.concurrency, spec.replica);
        places.push(spec.concurrency);
      }
      const lostWorkers = new Set<TestWorker>();
      const disturb = Promise.all(
        disturbances.map(async ({ kind, worker: index, afterMs }) => {
          await new Promise((resolve) => setTimeout(resolve, afterMs));
          const worker = started[index % specs.length];
          if (worker === undefined || lostWorkers.has(worker)) return;
          if (kind === "reconnect")
            await worker.reconnect(replica(afterMs).client(ToolWorkerService, principal)).catch(() => undefined);
          if (kind === "drain") await worker.drain().catch(() => undefined);
          if (kind === "cut") {
            // As good as gone, with its lease over at once.
            await endLease(worker.workerId);
          }
          if (kind === "vanish") {
            lostWorkers.add(worker);
            worker.vanish();
            await endLease(worker.workerId);
          }
        }),
      );
      // Whoever is lost, somebody is left who serves everything.
      const rescue = disturb.then(() => start([0, 1, 2], 2, 0)).then(() => places.push(2));
      const outcomes = calls.flatMap(({ tool, replica: first, repeated, ms }) => {
        const request = {
          toolId: at(at(tools, tool), 0).toolId,
          digest: at(at(tools, tool), 0).digest,
          arguments: { ms },
          idempotencyKey: newId("stp"),
          epoch: 1n,
          runId: newId("run"),
          stepId: newId("stp"),
          attempt: 1,
        };
        const run = async (where: number) => {
          const results: string[] = [];
          for await (const { part } of replica(where).client(ToolExecutionService, principal).executeTool(request)) {
            if (part.case === "result") results.push(JSON.stringify(toJson(ValueSchema, part.value)));
            if (part.case === "error") results.push(`error ${part.value.message}`);
          }
          return { key: request.idempotencyKey, results };
        };
        return repeated ? [run(first), run(first + 1)] : [run(first)];
      });
      await rescue;
      const ended = await Promise.all(outcomes);
      const resultByKey = new Map<string, string>();
      for (const { key, results } of ended) {
        expect(results).toHaveLength(1);
        expect(resultByKey.get(key) ?? results[0]).toBe(results[0]);
        resultByKey.set(key, results[0] ?? "");
      }
      for (const [index, worker] of started.entries()) {
        expect(worker.mostRunning, `worker ${index}`).toBeLessThanOrEqual(places[index] ?? 0);
      }
      const isDisturbed = disturbances.some(({ kind }) => kind === "vanish" || kind === "cut");
      if (!isDisturbed) expect([...runsByKey.values()].every((runs) => runs === 1)).toBe(true);
      for (const worker of started) worker.vanish();
    }),
    { numRuns: 25, endOnFailure: true },
  );
}, 120_000);

function at<T>(list: readonly T[], index: number): T {
  const found = list[index];
  if (found === undefined) throw new RangeError(`there is no element ${index}`);
  return found;
}

async function endLease(workerId: string): Promise<void> {
  await world.replicas[0]?.database.engine
    .updateTable("worker")
    .set({ lease_until: new Date(0) })
    .where("worker_id", "=", toUuid("wrk", workerId))
    .execute();
}

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createCadre } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseGraph } from "../../cli/graph/read-graph.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";

let server: RunningCadre;

beforeAll(async () => {
  server = await startCadre();
}, 90_000);
afterAll(() => server.dispose());

test("the guide's graph runs: a small order by itself, a large one after an approval", async () => {
  const guide = readFileSync(join(import.meta.dirname, "../../docs/guides/graphs.md"), "utf8");
  const [, source = ""] = /```yaml\n# order.yaml\n([\s\S]*?)```/.exec(guide) ?? [];
  const graph = parseGraph("order.yaml", source);
  const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });

  const small = await cadre.runs.start({ graph, input: { expression: "40 * 2", lines: ["1 + 1", "2 * 3"] } });
  expect(await small.result()).toEqual({ total: "80", approval: null, lines: [{ result: "2" }, { result: "6" }] });

  const large = await cadre.runs.start({ graph, input: { expression: "40 * 3", lines: [] } });
  for await (const { body } of cadre.runs.events(large.runId)) if (body.case === "approvalRequested") break;
  await cadre.runs.approve(large.runId, "approval");
  expect(await large.result()).toMatchObject({ total: "120", approval: { approved: true } });

  const wrong = parseGraph("order.yaml", source.replace("steps.total.output.result }]", "steps.total.output.sum }]"));
  await expect(cadre.runs.start({ graph: wrong, input: { expression: "1", lines: [] } })).rejects.toMatchObject({
    reason: "INVALID_GRAPH",
    violations: [{ field: "graph.steps[1].approval.prompt[1]" }],
  });
}, 60_000);

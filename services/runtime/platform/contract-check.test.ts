import { HealthService, ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { ContractCheckService, type FindUnregisteredRequest } from "@cadre/gen/cadre/registry/v1/contract_pb";
import { ToolService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { Code, ConnectError, createClient, createRouterTransport } from "@connectrpc/connect";
import pino from "pino";
import { expect, onTestFinished, test } from "vitest";
import { agentRuns } from "../bus/topics.ts";
import { createContractCheck } from "./contract-check.ts";
import type { Mode } from "./platform.ts";

type Answer = { readonly absent?: string[]; readonly different?: string[] };

/** A check against a registry of which the nth question is answered like that. */
function start(mode: Mode, answerTo: (question: number) => Answer | "away") {
  const asked: FindUnregisteredRequest[] = [];
  const transport = createRouterTransport(({ service }) => {
    service(ContractCheckService, {
      findUnregistered(request) {
        const answer = answerTo(asked.push(request));
        if (answer === "away") throw new ConnectError("away", Code.Unavailable);
        return answer;
      },
    });
  });
  const lines: { readonly level: number; readonly msg: string; readonly absent: readonly string[] }[] = [];
  const log = pino({ level: "warn" }, { write: (line: string) => lines.push(JSON.parse(line)) });
  const registry = createClient(ContractCheckService, transport);
  const check = createContractCheck({ mode, log, registryOf: () => registry, firstMs: 1, againMs: 1 });
  onTestFinished(() => check.stop());
  return { check, asked, lines };
}

const remedy = "register them with `cadre contracts push --own`";

test("in production each service says what of its own is missing, until it is registered", async () => {
  let answer: Answer | "away" = "away";
  const { check, asked } = start("production", () => answer);
  const dependencies = [
    ...check.watch("orchestrator", [], [agentRuns]),
    ...check.watch("gateway", [HealthService.file], []),
  ];
  const states = async () => {
    const checked = await Promise.all(dependencies.map((dependency) => dependency.check()));
    return checked.map(({ state, detail }) => `${ServingState[state]} ${detail}`);
  };
  const wait = { timeout: 30_000, interval: 5 };
  expect(await states()).toEqual(Array(2).fill("NOT_SERVING the registry has not been asked yet"));
  await expect.poll(states, wait).toEqual(Array(2).fill("NOT_SERVING the registry could not be asked: away"));
  answer = {
    absent: ["agent.runs.v1-value", "cadre/events/v1/run.proto"],
    different: ["cadre/gateway/v1/health.proto", "google/api/http.proto"],
  };
  await expect
    .poll(states, wait)
    .toEqual([
      `NOT_SERVING not registered: agent.runs.v1-value, cadre/events/v1/run.proto; ${remedy}`,
      `NOT_SERVING registered differently: cadre/gateway/v1/health.proto, google/api/http.proto; ${remedy}`,
    ]);
  answer = {};
  await expect.poll(states, wait).toEqual(["SERVING ", "SERVING "]);

  const { contracts = [] } = asked[0] ?? {};
  expect(contracts.find(({ path }) => path === "cadre/events/v1/run.proto")?.subjects).toEqual(["agent.runs.v1-value"]);
  // Each after what it imports, and none that every compiler has.
  const paths = contracts.map(({ path }) => path);
  for (const [index, { imports }] of contracts.entries()) {
    for (const path of imports) expect(paths.slice(0, index)).toContain(path);
  }
  expect(paths.filter((path) => path.startsWith("google/protobuf/"))).toEqual([]);
});

test("embedded nothing waits for it, and one warning names all", async () => {
  const absent = Array.from({ length: 7 }, (_, index) => `subject-${index}`);
  const { check, asked, lines } = start("embedded", (question) => (question === 1 ? "away" : { absent }));
  expect([check.watch("tools", [ToolService.file], []), check.watch("orchestrator", [], [agentRuns])]).toEqual([
    [],
    [],
  ]);
  await expect.poll(() => lines, { timeout: 30_000 }).toHaveLength(1);
  expect(lines[0]).toMatchObject({
    level: 40,
    absent,
    msg: `contracts of this build are not registered: subject-0, subject-1, subject-2, subject-3, subject-4 and 2 more; ${remedy}`,
  });
  expect(asked).toHaveLength(2);
});

test.each(["registry", "credentials"] as const)("%s needs nothing: it is up first", (service) => {
  expect(start("production", () => ({})).check.watch(service, [HealthService.file], [])).toEqual([]);
});

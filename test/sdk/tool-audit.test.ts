import { type Cadre, createCadre, defineTool, type ToolWorker } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { z } from "zod";
import { type RunningCadre, startCadre } from "../support/cadre.ts";

// What tools were denied, and how they failed, is in the org's audit log: read
// here as an admin reads it.

interface Entry {
  readonly type: string;
  readonly reason: string;
  readonly resource: string;
  readonly actor: string;
  readonly decision: string;
}

let server: RunningCadre;
let cadre: Cadre;
let worker: ToolWorker;

beforeAll(async () => {
  server = await startCadre();
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const breaks = defineTool({
    name: "breaks",
    description: "Fails.",
    input: z.object({}),
    handler: () => {
      throw new Error("a secret of the tool");
    },
  });
  worker = await cadre.tools.serve([breaks], { onError: () => undefined });
}, 90_000);
afterAll(async () => {
  await worker?.close();
  await server?.dispose();
});

async function entries(type: string): Promise<readonly Entry[]> {
  const response = await fetch(`${server.url}/v1/audit?type=${type}`, {
    headers: { authorization: `Bearer ${server.adminKey}` },
  });
  expect(response.status).toBe(200);
  return ((await response.json()) as { events?: Entry[] }).events ?? [];
}

test.each([
  ["calculator {}", "calculator", "tool.denied", "TOOL_ARGUMENTS_INVALID", "AUDIT_DECISION_DENIED"],
  ['http_fetch {"url":"https://10.0.0.1/"}', "http_fetch", "tool.denied", "EGRESS_DENIED", "AUDIT_DECISION_DENIED"],
  ["breaks {}", "breaks", "tool.failed", "TOOL_FAILED", "AUDIT_DECISION_ALLOWED"],
])(
  "a turn's call of %s leaves the run, the step, the tool and the reason",
  async (call, name, type, reason, decision) => {
    const session = await cadre.sessions.create();
    const turn = await session.send(`call ${call}`);
    const steps: string[] = [];
    for await (const event of turn.events()) {
      if (event.body.case === "toolStarted") steps.push(event.body.value.stepId);
    }
    const tool = await cadre.tools.find(name);
    const resource = `tool/${tool?.toolId} run/${turn.turnId} step/${steps[0]}`;
    // A failure holds nobody up, so it may be on record a moment later.
    const entry = await vi.waitFor(async () => {
      const found = (await entries(type)).find((candidate) => candidate.resource === resource);
      expect(found).toBeDefined();
      return found;
    }, 5_000);
    expect(entry).toMatchObject({ reason, decision, actor: expect.stringMatching(/^key_/) });
    expect(JSON.stringify(entry)).not.toContain("secret of the tool");
  },
);

test("a key that may not serve a tool is on record with the tool's name", async () => {
  const { key, secret } = await cadre.keys.issue({
    name: "worker",
    role: "developer",
    scopes: ["tools.serve", "tools.write"],
    tools: ["allowed"],
  });
  const limited = createCadre({ baseUrl: server.url, apiKey: secret });
  const tool = defineTool({ name: "forbidden", description: "A tool.", input: z.object({}), handler: () => null });
  await expect(limited.tools.serve([tool], { onError: () => undefined })).rejects.toMatchObject({
    reason: "TOOL_NOT_GRANTED",
  });
  const found = (await entries("tool.denied")).filter(({ reason }) => reason === "TOOL_NOT_GRANTED");
  expect(found).toMatchObject([{ resource: "tool/forbidden", actor: key.keyId }]);
});

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { create, type JsonObject, type JsonValue, type MessageInitShape, toJson } from "@bufbuild/protobuf";
import { durationFromMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import {
  type ExecuteToolRequestSchema,
  type ExecuteToolResponse,
  ExecutionProgress,
  SideEffects,
  type Tool,
  type ToolDefinitionSchema,
  ToolExecutionService,
  ToolKind,
  ToolService,
} from "@cadre/gen/cadre/tools/v1/tool_pb";
import { ToolWorkerService } from "@cadre/gen/cadre/tools/v1/tool_worker_pb";
import { type CallOptions, type Client, ConnectError } from "@connectrpc/connect";
import { sql } from "kysely";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { startTestWorker, type TestWorker, type TestWorkerOptions } from "../../test/support/test-worker.ts";
import {
  principalOf,
  startToolsReplicas,
  type ToolsReplica,
  type ToolsReplicas,
} from "../../test/support/tools-replicas.ts";
import { fromConnectError } from "../runtime/errors/failure.ts";
import { newId, toUuid } from "../runtime/ids/id.ts";

let world: ToolsReplicas;
let first: ToolsReplica;
let second: ToolsReplica;

/** A server that answers `/hello` and lets everything else hang. */
const web = createServer((request, response) => {
  if (request.url === "/hello") response.writeHead(200, { "content-type": "text/plain" }).end("hello");
  else hangs += 1;
});
let hangs = 0;
/** Limits of the orgs, where a test sets them. */
const limits: Record<string, number> = {};
let origin: string;

beforeAll(async () => {
  await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
  origin = `localhost:${(web.address() as AddressInfo).port}`;
  const settings = {
    CADRE_TOOLS_WORKER_WAIT_MS: "500",
    CADRE_EGRESS_ALLOW: `http://${origin}`,
    CADRE_EGRESS_ALLOW_PRIVATE: origin,
  };
  world = await startToolsReplicas(2, { settings, limits });
  [first, second] = world.replicas as [ToolsReplica, ToolsReplica];
});
afterAll(async () => {
  await world.stop();
  web.closeAllConnections();
  await new Promise((resolve) => web.close(resolve));
});

type DefinitionInit = MessageInitShape<typeof ToolDefinitionSchema>;

function definition(name: string, more: DefinitionInit = {}): DefinitionInit {
  return {
    name,
    description: "A tool of a test.",
    inputSchema: { type: "object", properties: { n: { type: "integer" }, text: { type: "string" } } },
    sideEffects: SideEffects.EFFECTFUL,
    ...more,
  };
}

/** The reason that a call fails with. */
async function reasonOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ConnectError)) throw new Error("the call did not fail");
  return fromConnectError(error)?.reason ?? error.message;
}

interface Execution {
  readonly started: readonly string[];
  readonly output: string;
  readonly result: JsonValue | undefined;
  readonly error:
    | { readonly reason: string; readonly message: string; readonly progress: ExecutionProgress }
    | undefined;
}

/** An org of a test's own, with its clients on both replicas. */
function org() {
  const orgId = newId("org");
  const principal = principalOf(orgId);
  const workers: TestWorker[] = [];
  const clients = (replica: ToolsReplica) => ({
    tools: replica.client(ToolService, principal),
    execution: replica.client(ToolExecutionService, principal),
    worker: replica.client(ToolWorkerService, principal),
  });
  const one = clients(first);
  const two = clients(second);
  const work = async (options: Partial<TestWorkerOptions> & Pick<TestWorkerOptions, "tools">): Promise<TestWorker> => {
    const worker = await startTestWorker({ client: one.worker, handle: (input) => input, ...options });
    workers.push(worker);
    return worker;
  };
  const toolNamed = async (name: string): Promise<Tool> => {
    const { tools } = await one.tools.listTools({ pageSize: 200 });
    const tool = tools.find((candidate) => candidate.definition?.name === name);
    if (tool === undefined) throw new Error(`there is no tool ${name}`);
    return tool;
  };
  return { orgId, principal, one, two, work, toolNamed, leave: () => workers.forEach((worker) => worker.vanish()) };
}

type Org = ReturnType<typeof org>;

interface ExecuteOptions {
  readonly args?: JsonObject;
  readonly key?: string;
  readonly epoch?: bigint;
  readonly attempt?: number;
  readonly times?: MessageInitShape<typeof ExecuteToolRequestSchema>;
  readonly client?: Client<typeof ToolExecutionService>;
  readonly call?: CallOptions;
}

function request(tool: { toolId: string; digest: string }, options: ExecuteOptions = {}) {
  const { args = {}, key = newId("stp"), epoch = 1n, attempt = 1, times = {} } = options;
  const { toolId, digest } = tool;
  const call = { toolId, digest, arguments: args, idempotencyKey: key, epoch, ...times };
  return { ...call, runId: newId("run"), stepId: newId("stp"), attempt };
}

function execute(at: Org, tool: { toolId: string; digest: string }, options: ExecuteOptions = {}): Promise<Execution> {
  const { client = at.one.execution } = options;
  return collect(client.executeTool(request(tool, options), options.call));
}

async function collect(
  parts: AsyncIterable<{
    readonly part: { readonly case: string | undefined; readonly value?: unknown };
  }>,
): Promise<Execution> {
  const started: string[] = [];
  let output = "";
  let result: JsonValue | undefined;
  let error: Execution["error"];
  for await (const { part } of parts as AsyncIterable<{ part: ExecutePart }>) {
    if (part.case === "started") started.push(part.value.workerName);
    else if (part.case === "output") output += part.value;
    else if (part.case === "result") result = toJson(ValueSchema, part.value);
    else if (part.case === "error") {
      const { reason, message, progress } = part.value;
      error = { reason: Reason[reason] ?? "", message, progress };
    }
  }
  return { started, output, result, error };
}

type ExecutePart = ExecuteToolResponse["part"];

let at: Org;
beforeEach(() => {
  at = org();
});
afterEach(() => at.leave());

describe("definitions", () => {
  test("are registered, listed among the built-in ones by name, and got", async () => {
    const { tool } = await at.one.tools.registerTool({ definition: definition("crm_lookup") });
    expect(tool).toMatchObject({
      kind: ToolKind.WORKER,
      workers: 0,
      digest: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
    });
    const { tools, nextPageToken } = await at.two.tools.listTools({});
    expect(tools.map((each) => each.definition?.name)).toEqual([
      "calculator",
      "clock",
      "crm_lookup",
      "echo",
      "http_fetch",
    ]);
    expect(nextPageToken).toBe("");
    for (const each of tools) {
      expect((await at.two.tools.getTool({ toolId: each.toolId })).tool).toEqual(each);
    }
  });

  test("are paged without a gap or a repetition", async () => {
    for (const name of ["zz", "aa", "mm", "dd"]) await at.one.tools.registerTool({ definition: definition(name) });
    const names: (string | undefined)[] = [];
    let pageToken = "";
    do {
      const page = await at.one.tools.listTools({ pageSize: 3, pageToken });
      expect(page.tools.length).toBeLessThanOrEqual(3);
      names.push(...page.tools.map((tool) => tool.definition?.name));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(names).toEqual(["aa", "calculator", "clock", "dd", "echo", "http_fetch", "mm", "zz"]);
  });

  test("registered again change nothing; a new one is in force, the old one stays for runs that pinned it", async () => {
    const one = await at.one.tools.registerTool({ definition: definition("changing") });
    expect((await at.one.tools.registerTool({ definition: definition("changing") })).tool).toEqual(one.tool);
    const { tool } = await at.one.tools.registerTool({ definition: definition("changing", { description: "Other." }) });
    expect(tool?.toolId).toBe(one.tool?.toolId);
    expect(tool?.digest).not.toBe(one.tool?.digest);
    expect((await at.one.tools.getTool({ toolId: tool?.toolId })).tool?.digest).toBe(tool?.digest);
  });

  test.each<[string, DefinitionInit]>([
    ["ALREADY_EXISTS", definition("echo")],
    ["INVALID_SCHEMA", definition("bad", { inputSchema: { type: "nonsense" } })],
    ["INVALID_SCHEMA", definition("bad", { inputSchema: { type: "string" } })],
    ["INVALID_SCHEMA", definition("bad", { outputSchema: { $ref: "https://example.com/" } })],
    ["INVALID_ARGUMENT", definition("Bad Name")],
  ])("are refused as %s", async (reason, bad) => {
    expect(await reasonOf(at.one.tools.registerTool({ definition: bad }))).toBe(reason);
  });

  test("of another org are not there, neither registered nor built-in ones", async () => {
    const other = org();
    const { tool } = await other.one.tools.registerTool({ definition: definition("private_tool") });
    const echo = await other.toolNamed("echo");
    for (const toolId of [tool?.toolId ?? "", echo.toolId, newId("tool")]) {
      expect(await reasonOf(at.one.tools.getTool({ toolId }))).toBe("TOOL_NOT_FOUND");
      expect(await reasonOf(collect(at.one.tools.callTool({ toolId })))).toBe("TOOL_NOT_FOUND");
      expect(await reasonOf(execute(at, { toolId, digest: tool?.digest ?? "" }))).toBe("TOOL_NOT_FOUND");
    }
    expect((await at.one.execution.resolveTools({ names: ["private_tool"] })).missing).toEqual(["private_tool"]);
  });

  test("are resolved by name, or all of them", async () => {
    const { tool } = await at.one.tools.registerTool({ definition: definition("pinned") });
    const named = await at.one.execution.resolveTools({ names: ["pinned", "echo", "nope"] });
    expect(named.tools.map(({ definition: each }) => each?.name)).toEqual(["echo", "pinned"]);
    expect(named.tools[1]).toMatchObject({ toolId: tool?.toolId, digest: tool?.digest });
    expect(named.missing).toEqual(["nope"]);
    const all = await at.one.execution.resolveTools({ names: ["*"] });
    expect(all.tools.map(({ definition: each }) => each?.name)).toEqual([
      "calculator",
      "clock",
      "echo",
      "http_fetch",
      "pinned",
    ]);
  });
});

describe("a built-in tool", () => {
  test("is called directly and by the orchestrator", async () => {
    const calculator = await at.toolNamed("calculator");
    const direct = await collect(
      at.one.tools.callTool({ toolId: calculator.toolId, arguments: { expression: "6*7" } }),
    );
    expect(direct).toMatchObject({ result: { result: "42" }, error: undefined });
    expect(await execute(at, calculator, { args: { expression: "1/0" } })).toMatchObject({
      started: [""],
      error: { reason: "TOOL_FAILED", message: expect.stringContaining("not finite") },
    });
    const echo = await at.toolNamed("echo");
    expect((await execute(at, echo, { args: { a: [1, null, { b: "ü" }] } })).result).toEqual({
      a: [1, null, { b: "ü" }],
    });
    expect((await execute(at, await at.toolNamed("clock"))).result).toMatchObject({ time_zone: "UTC" });
  });

  test("answers a unary call with its outcome, as a worker's tool does, which is joined by its key", async () => {
    const calculator = await at.toolNamed("calculator");
    const { outcome } = await at.one.execution.executeToolUnary({
      call: request(calculator, { args: { expression: "6*7" } }),
    });
    expect(outcome).toMatchObject({ case: "result" });
    await at.work({
      tools: [definition("counted")],
      async handle(_, { print }) {
        await print("not told");
        throw new Error("out of order");
      },
    });
    const call = request(await at.toolNamed("counted"));
    const failed = await at.one.execution.executeToolUnary({ call });
    expect(failed.outcome).toMatchObject({ case: "error", value: { reason: Reason.TOOL_FAILED } });
    expect(await at.two.execution.executeToolUnary({ call: { ...call, epoch: 2n } })).toEqual(failed);
    expect(await reasonOf(at.one.execution.executeToolUnary({ call }))).toBe("EPOCH_STALE");
    expect(await reasonOf(at.one.execution.executeToolUnary({}))).toBe("INVALID_ARGUMENT");
  });

  test("refuses arguments by JSON Pointer, and a digest of another release", async () => {
    const calculator = await at.toolNamed("calculator");
    const error = await execute(at, calculator, { args: { expression: 1, more: true } }).catch(
      (thrown: unknown) => thrown,
    );
    const failure = error instanceof ConnectError ? fromConnectError(error) : undefined;
    expect(failure?.reason).toBe("TOOL_ARGUMENTS_INVALID");
    expect(failure?.violations.map(({ field }) => field).sort()).toEqual(["arguments/expression", "arguments/more"]);
    const digest = `sha256:${"0".repeat(64)}`;
    expect(await reasonOf(execute(at, { toolId: calculator.toolId, digest }))).toBe("DEFINITION_CHANGED");
  });

  test("fetches what the operator allowed, and stops when it is cancelled on another replica", async () => {
    const httpFetch = await at.toolNamed("http_fetch");
    const fetched = await execute(at, httpFetch, { args: { url: `http://${origin}/hello` } });
    expect(fetched.result).toEqual({
      status: 200,
      content_type: "text/plain",
      bytes: 5,
      body: "hello",
      truncated: false,
    });
    const key = newId("stp");
    const hanging = execute(at, httpFetch, { args: { url: `http://${origin}/hang` }, key });
    await expect.poll(() => hangs).toBe(1);
    await at.two.execution.cancelExecution({ idempotencyKey: key, epoch: 1n });
    expect((await hanging).error?.reason).toBe("CANCELLED");
    const again = execute(at, httpFetch, { args: { url: `http://${origin}/hang` }, key: "here" });
    await expect.poll(() => hangs).toBe(2);
    const { progress } = await at.one.execution.cancelExecution({ idempotencyKey: "here", epoch: 1n });
    expect(progress).toBe(ExecutionProgress.PARTIAL);
    expect((await again).error).toMatchObject({ reason: "CANCELLED", progress: ExecutionProgress.PARTIAL });
    const cancel = async (idempotencyKey: string) =>
      (await at.one.execution.cancelExecution({ idempotencyKey, epoch: 1n })).progress;
    expect(await cancel("here")).toBe(ExecutionProgress.PARTIAL);
    await execute(at, await at.toolNamed("echo"), { key: "echoed" });
    expect(await cancel("echoed")).toBe(ExecutionProgress.DONE);
  });

  test("that is refused by the egress rules says so, and the audit log has it", async () => {
    const httpFetch = await at.toolNamed("http_fetch");
    const url = "https://169.254.169.254/latest/meta-data/?token=hidden";
    expect((await execute(at, httpFetch, { args: { url } })).error?.reason).toBe("EGRESS_DENIED");
    expect(world.denials).toContainEqual(
      expect.objectContaining({ type: "egress.denied", orgId: at.orgId, reason: "METADATA" }),
    );
    expect(JSON.stringify(world.denials)).not.toContain("hidden");
  });
});

describe("a call of a worker's tool", () => {
  test("brings arguments, prints in order, and gives the result, whichever replica is asked", async () => {
    const worker = await at.work({
      tools: [definition("speak")],
      name: "host-1",
      async handle(input, { print }) {
        for (let part = 0; part < 20; part++) await print(`${part} `);
        return { said: input["text"] ?? null };
      },
    });
    const tool = await at.toolNamed("speak");
    expect(tool.workers).toBe(1);
    const expected = {
      started: ["host-1"],
      output: Array.from({ length: 20 }, (_, part) => `${part} `).join(""),
      result: { said: "hi" },
      error: undefined,
    };
    expect(await execute(at, tool, { args: { text: "hi" }, key: "k 1" })).toEqual(expected);
    expect(await execute(at, tool, { args: { text: "hi" }, client: at.two.execution })).toEqual(expected);
    expect(worker.received[0]).toMatchObject({
      tool: "speak",
      digest: tool.digest,
      arguments: { text: "hi" },
      idempotencyKey: "k 1",
      attempt: 1,
    });
    expect(worker.refused).toEqual([]);
  });

  test("reports may land on another replica than the stream", async () => {
    await at.work({
      tools: [definition("split_brain")],
      reports: at.two.worker,
      async handle(_, { print }) {
        await print("from two");
        return "done";
      },
    });
    const tool = await at.toolNamed("split_brain");
    expect(await execute(at, tool)).toMatchObject({ output: "from two", result: "done" });
    expect(await execute(at, tool, { client: at.two.execution })).toMatchObject({ output: "from two", result: "done" });
  });

  test("fails as the tool failed", async () => {
    await at.work({ tools: [definition("fail")], handle: () => Promise.reject(new Error("no such customer")) });
    const { error } = await execute(at, await at.toolNamed("fail"));
    const progress = ExecutionProgress.UNSPECIFIED;
    expect(error).toEqual({ reason: "TOOL_FAILED", message: "Error: no such customer", progress });
  });

  test("is refused before anything is stored when its arguments are wrong", async () => {
    const worker = await at.work({ tools: [definition("strict")] });
    const tool = await at.toolNamed("strict");
    const key = newId("stp");
    expect(await reasonOf(execute(at, tool, { args: { n: "one" }, key }))).toBe("TOOL_ARGUMENTS_INVALID");
    expect(await reasonOf(execute(at, tool, { args: { text: "x".repeat(1_100_000) }, key }))).toBe(
      "TOOL_ARGUMENTS_INVALID",
    );
    // The key is still unused.
    expect((await execute(at, tool, { args: { n: 1 }, key })).result).toEqual({ n: 1 });
    expect(worker.received).toHaveLength(1);
  });

  test.each<[string, DefinitionInit, JsonValue]>([
    ["does not match the output schema", { outputSchema: { type: "object", required: ["a"] } }, { b: 1 }],
    ["is larger than a mebibyte", {}, "x".repeat(1_100_000)],
  ])("ends as TOOL_RESULT_INVALID when its result %s", async (_, more, result) => {
    await at.work({ tools: [definition("odd_result", more)], handle: () => result });
    expect((await execute(at, await at.toolNamed("odd_result"))).error?.reason).toBe("TOOL_RESULT_INVALID");
  });

  test("keeps odd texts as they are: NUL, control characters, delimiters, emoji over chunk edges", async () => {
    const text = "\u0000\u001b[31m data: [DONE]\n\n \u{1f680}";
    await at.work({
      tools: [definition("odd_text")],
      async handle(_, { print }) {
        await print(text);
        await print(text);
        return { [text]: text };
      },
    });
    const tool = await at.toolNamed("odd_text");
    expect(await execute(at, tool, { args: { text } })).toMatchObject({
      output: text + text,
      result: { [text]: text },
    });
  });

  test("prints no more than is kept, and says so", async () => {
    await at.work({
      tools: [definition("chatty")],
      async handle(_, { print }) {
        for (let part = 0; part < 20; part++) await print("x".repeat(262_144));
        return "done";
      },
    });
    const { output, result } = await execute(at, await at.toolNamed("chatty"));
    expect(result).toBe("done");
    expect(output.length).toBe(4_194_304 + "\n[output truncated]\n".length);
    expect(output.endsWith("\n[output truncated]\n")).toBe(true);
  });

  test("without a worker is unavailable after the wait, and the same key may ask again", async () => {
    const { tool } = await at.one.tools.registerTool({ definition: definition("lonely") });
    if (tool === undefined) throw new Error("not registered");
    const key = newId("stp");
    expect(await reasonOf(execute(at, tool, { key }))).toBe("TOOL_UNAVAILABLE");
    const worker = await at.work({ tools: [definition("lonely")] });
    expect((await execute(at, tool, { key })).result).toEqual({});
    expect(worker.received.map(({ attempt }) => attempt)).toEqual([1]);
  });

  test("waits for a worker that comes in time", async () => {
    const { tool } = await at.one.tools.registerTool({ definition: definition("late_worker") });
    if (tool === undefined) throw new Error("not registered");
    const execution = execute(at, tool, { client: at.two.execution });
    await at.work({ tools: [definition("late_worker")] });
    expect((await execution).result).toEqual({});
  });

  test("ends by the tool's timeout; the worker is told, and its late result is refused", async () => {
    const finish = Promise.withResolvers<void>();
    const worker = await at.work({
      tools: [definition("slow", { timeout: durationFromMs(300) })],
      async handle() {
        await finish.promise;
        return "late";
      },
    });
    const tool = await at.toolNamed("slow");
    const key = newId("stp");
    expect((await execute(at, tool, { key })).error?.reason).toBe("DEADLINE_EXCEEDED");
    await expect.poll(() => worker.cancelled).toHaveLength(1);
    finish.resolve();
    await expect.poll(() => worker.refused).toEqual(["CALL_NOT_FOUND"]);
    expect((await execute(at, tool, { key })).error?.reason).toBe("DEADLINE_EXCEEDED");
  });
});

describe("an idempotency key", () => {
  test("joins the call that runs, with all that it printed, and gives the outcome afterwards", async () => {
    const finish = Promise.withResolvers<void>();
    const printed = Promise.withResolvers<void>();
    const worker = await at.work({
      tools: [definition("once")],
      concurrency: 10,
      async handle(_, { print }) {
        await print("before ");
        printed.resolve();
        await finish.promise;
        await print("after");
        return "done";
      },
    });
    const tool = await at.toolNamed("once");
    const key = newId("stp");
    const executions = [execute(at, tool, { key })];
    await printed.promise;
    executions.push(execute(at, tool, { key, client: at.two.execution }), execute(at, tool, { key }));
    finish.resolve();
    const expected = { started: ["test"], output: "before after", result: "done", error: undefined };
    expect(await Promise.all(executions)).toEqual([expected, expected, expected]);
    expect(await execute(at, tool, { key, epoch: 3n, attempt: 7, client: at.two.execution })).toEqual(expected);
    expect(worker.received).toHaveLength(1);
  });

  test("of fifty calls at once runs one", async () => {
    const worker = await at.work({ tools: [definition("fifty")], concurrency: 50 });
    const tool = await at.toolNamed("fifty");
    const key = newId("stp");
    const clients = [at.one.execution, at.two.execution];
    const results = await Promise.all(
      Array.from({ length: 50 }, (_, index) => execute(at, tool, { key, client: clients[index % 2] as never })),
    );
    expect(new Set(results.map((each) => JSON.stringify(each.result)))).toEqual(new Set(["{}"]));
    expect(worker.received).toHaveLength(1);
  });

  test("is refused with a lower epoch, whatever became of the call", async () => {
    await at.work({ tools: [definition("fenced")] });
    const tool = await at.toolNamed("fenced");
    const key = newId("stp");
    await execute(at, tool, { key, epoch: 5n });
    expect(await reasonOf(execute(at, tool, { key, epoch: 4n }))).toBe("EPOCH_STALE");
    expect(await reasonOf(at.one.execution.cancelExecution({ idempotencyKey: key, epoch: 4n }))).toBe("EPOCH_STALE");
    await execute(at, tool, { key, epoch: 6n });
    expect(await reasonOf(execute(at, tool, { key, epoch: 5n }))).toBe("EPOCH_STALE");
  });

  test("that failed is called again for a caller who has that failure on record, and only then", async () => {
    let calls = 0;
    const handle = (): JsonValue => {
      calls += 1;
      if (calls < 3) throw new Error(`no ${calls}`);
      return calls;
    };
    await at.work({ tools: [definition("flaky")], handle });
    const tool = await at.toolNamed("flaky");
    const key = newId("stp");
    const again = (afterFailures: number) => execute(at, tool, { key, times: { afterFailures } });
    expect((await again(0)).error?.message).toBe("Error: no 1");
    expect((await again(0)).error?.message).toBe("Error: no 1");
    expect((await again(1)).error?.message).toBe("Error: no 2");
    expect((await again(1)).error?.message).toBe("Error: no 2");
    expect((await again(2)).result).toBe(3);
    // What succeeded is never done again.
    expect((await again(3)).result).toBe(3);
    expect(calls).toBe(3);
  });

  test("is refused with another request, and belongs to one org", async () => {
    await at.work({ tools: [definition("keyed")] });
    const tool = await at.toolNamed("keyed");
    await execute(at, tool, { key: "shared", args: { n: 1 } });
    expect(await reasonOf(execute(at, tool, { key: "shared", args: { n: 2 } }))).toBe("IDEMPOTENCY_KEY_REUSED");
    const other = org();
    await other.work({ tools: [definition("keyed")] });
    const theirs = await other.toolNamed("keyed");
    expect((await execute(other, theirs, { key: "shared", args: { n: 2 } })).result).toEqual({ n: 2 });
    other.leave();
  });

  test("of a direct call is another one than a step's", async () => {
    const worker = await at.work({ tools: [definition("both_ways")] });
    const tool = await at.toolNamed("both_ways");
    await execute(at, tool, { key: "same", args: { n: 1 } });
    const direct = () =>
      collect(
        at.one.tools.callTool({ toolId: tool.toolId, arguments: { n: 2 } }, { headers: { "idempotency-key": "same" } }),
      );
    expect((await direct()).result).toEqual({ n: 2 });
    expect((await direct()).result).toEqual({ n: 2 });
    expect(worker.received).toHaveLength(2);
  });

  test("of a stream that was cut finds the call still running", async () => {
    const finish = Promise.withResolvers<void>();
    const worker = await at.work({ tools: [definition("uncut")], handle: () => finish.promise.then(() => "done") });
    const tool = await at.toolNamed("uncut");
    const key = newId("stp");
    const controller = new AbortController();
    const cut = execute(at, tool, { key, call: { signal: controller.signal } });
    await expect.poll(() => worker.received).toHaveLength(1);
    controller.abort();
    await expect(cut).rejects.toThrow(ConnectError);
    finish.resolve();
    expect((await execute(at, tool, { key, epoch: 2n })).result).toBe("done");
    expect(worker.received).toHaveLength(1);
    expect(worker.cancelled).toEqual([]);
  });
});

describe("cancelling", () => {
  /** A handler that runs until it is told to stop, or for good. */
  const untilStopped = (signal: AbortSignal): Promise<never> =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("stopped")), { once: true }));

  test("stops a handler, on another replica, and says that it had begun", async () => {
    const worker = await at.work({ tools: [definition("stoppable")], handle: (_, { signal }) => untilStopped(signal) });
    const tool = await at.toolNamed("stoppable");
    const key = newId("stp");
    const execution = execute(at, tool, { key });
    await expect.poll(() => worker.running).toBe(1);
    // Not that it may still run, which it would be if it had not stopped in the time that it has for that.
    const { progress } = await at.two.execution.cancelExecution({ idempotencyKey: key, epoch: 1n });
    expect(progress).toBe(ExecutionProgress.PARTIAL);
    expect((await execution).error).toMatchObject({ reason: "CANCELLED", progress });
    // Whoever asks later is told the same.
    expect((await execute(at, tool, { key, epoch: 2n })).error).toMatchObject({ reason: "CANCELLED", progress });
    expect(worker.running).toBe(0);
    expect((await at.one.execution.cancelExecution({ idempotencyKey: key, epoch: 2n })).progress).toBe(progress);
  });

  test("says that a handler may still run that does not listen, and keeps its place taken until it ends", async () => {
    const finish = Promise.withResolvers<void>();
    const worker = await at.work({ tools: [definition("deaf")], handle: () => finish.promise.then(() => "late") });
    const tool = await at.toolNamed("deaf");
    const key = newId("stp");
    const execution = execute(at, tool, { key });
    await expect.poll(() => worker.running).toBe(1);
    const grace = durationFromMs(200);
    const { progress } = await at.two.execution.cancelExecution({ idempotencyKey: key, epoch: 1n, grace });
    expect(progress).toBe(ExecutionProgress.MAY_STILL_RUN);
    expect((await execution).error).toMatchObject({ reason: "CANCELLED", progress });
    // Its only place is taken, so the next call waits.
    const next = execute(at, tool);
    finish.resolve();
    expect((await next).result).toBe("late");
    expect(worker.mostRunning).toBe(1);
    expect(worker.refused).toEqual(["CALL_NOT_FOUND"]);
    const later = await at.one.execution.cancelExecution({ idempotencyKey: key, epoch: 1n });
    expect(later.progress).toBe(ExecutionProgress.PARTIAL);
  });

  test("finds that a call is done, or never started, and nothing starts afterwards", async () => {
    const worker = await at.work({ tools: [definition("early")] });
    const tool = await at.toolNamed("early");
    const [done, unknown] = [newId("stp"), newId("stp")];
    await execute(at, tool, { key: done });
    const cancel = (idempotencyKey: string) => at.two.execution.cancelExecution({ idempotencyKey, epoch: 1n });
    expect((await cancel(done)).progress).toBe(ExecutionProgress.DONE);
    expect((await cancel(unknown)).progress).toBe(ExecutionProgress.NOT_STARTED);
    expect((await execute(at, tool, { key: unknown })).error).toMatchObject({
      reason: "CANCELLED",
      progress: ExecutionProgress.NOT_STARTED,
    });
    expect((await execute(at, tool, { key: unknown, epoch: 2n })).error?.reason).toBe("CANCELLED");
    expect(worker.received).toHaveLength(1);
  });

  test("takes a call out of the queue", async () => {
    const finish = Promise.withResolvers<void>();
    const worker = await at.work({ tools: [definition("queued")], handle: () => finish.promise.then(() => "done") });
    const tool = await at.toolNamed("queued");
    const running = execute(at, tool);
    await expect.poll(() => worker.running).toBe(1);
    const key = newId("stp");
    const waiting = execute(at, tool, { key });
    await expect
      .poll(() => first.database.engine.selectFrom("call").select("key").where("key", "=", `step:${key}`).execute())
      .toHaveLength(1);
    const { progress } = await at.two.execution.cancelExecution({ idempotencyKey: key, epoch: 1n });
    expect(progress).toBe(ExecutionProgress.NOT_STARTED);
    expect((await waiting).error?.reason).toBe("CANCELLED");
    finish.resolve();
    expect((await running).result).toBe("done");
    expect(worker.received).toHaveLength(1);
  });

  test("reaches the handler by the answers of output and heartbeat when the stream is down", async () => {
    const worker = await at.work({
      tools: [definition("by_answer")],
      reports: at.two.worker,
      async handle(_, { print, signal }) {
        for (let part = 0; ; part++) {
          signal.throwIfAborted();
          await print(`${part} `);
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      },
    });
    const tool = await at.toolNamed("by_answer");
    const key = newId("stp");
    const execution = execute(at, tool, { key, client: at.two.execution });
    await expect.poll(() => worker.running).toBe(1);
    first.cutConnections();
    const { progress } = await at.two.execution.cancelExecution({ idempotencyKey: key, epoch: 1n });
    expect(progress).toBe(ExecutionProgress.PARTIAL);
    expect((await execution).error?.reason).toBe("CANCELLED");
  });

  test("happens when the caller of a direct call leaves", async () => {
    const worker = await at.work({
      tools: [definition("left_alone")],
      handle: (_, { signal }) => untilStopped(signal),
    });
    const tool = await at.toolNamed("left_alone");
    const controller = new AbortController();
    const call = collect(at.one.tools.callTool({ toolId: tool.toolId }, { signal: controller.signal }));
    await expect.poll(() => worker.running).toBe(1);
    controller.abort();
    await expect(call).rejects.toThrow(ConnectError);
    await expect.poll(() => worker.running).toBe(0);
    expect(worker.cancelled).toHaveLength(1);
  });
});

describe("a call with times of its own", () => {
  test("ends by its timeout, which is never longer than its tool's, and the worker is told to stop", async () => {
    const worker = await at.work({
      tools: [definition("hurried", { timeout: durationFromMs(2_000) })],
      concurrency: 2,
      handle: (_, { signal }) =>
        new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error()))),
    });
    const tool = await at.toolNamed("hurried");
    const late = { reason: "DEADLINE_EXCEEDED", progress: ExecutionProgress.MAY_STILL_RUN };
    const shorter = execute(at, tool, { times: { timeout: durationFromMs(200) } });
    const longer = execute(at, tool, { times: { timeout: durationFromMs(60_000) } });
    let longerEnded = false;
    void longer.then(() => (longerEnded = true));
    expect((await shorter).error).toMatchObject(late);
    expect(longerEnded).toBe(false);
    expect((await longer).error).toMatchObject(late);
    await expect.poll(() => worker.running).toBe(0);
    expect(worker.cancelled).toHaveLength(2);
  });

  test("of a built-in tool ends by its timeout", async () => {
    const httpFetch = await at.toolNamed("http_fetch");
    const before = hangs;
    const options = { args: { url: `http://${origin}/hang` }, times: { timeout: durationFromMs(300) } };
    const { error } = await execute(at, httpFetch, options);
    expect(hangs).toBe(before + 1);
    expect(error?.reason).toBe("DEADLINE_EXCEEDED");
  });

  const heartbeatTimeout = durationFromMs(1_000);

  test("is lost when its worker falls silent; the same key finds another worker, and the silent one must stop", async () => {
    const began = Promise.withResolvers<void>();
    const finish = Promise.withResolvers<void>();
    const silent = await at.work({
      tools: [definition("heard")],
      concurrency: 5,
      heartbeats: false,
      name: "silent",
      handle: async () => {
        began.resolve();
        await finish.promise;
        return "late";
      },
    });
    const tool = await at.toolNamed("heard");
    const key = newId("stp");
    const options = { key, times: { heartbeatTimeout } };
    const startedAt = performance.now();
    const first = reasonOf(execute(at, tool, options));
    await began.promise;
    expect(silent.received[0]?.heartbeatTimeout).toEqual(heartbeatTimeout);
    // What nobody times is not lost with it.
    const patient = execute(at, tool);
    expect(await first).toBe("TOOL_HEARTBEAT_LOST");
    const afterMs = performance.now() - startedAt;
    expect(afterMs).toBeGreaterThanOrEqual(1_000);
    // It has places, but is not given the call again before it is heard.
    const again = { ...options, epoch: 2n, attempt: 2 };
    expect(await reasonOf(execute(at, tool, again))).toBe("TOOL_UNAVAILABLE");
    await at.work({ tools: [definition("heard")], name: "other", handle: () => "done" });
    expect(await execute(at, tool, again)).toMatchObject({ result: "done", started: ["other"] });
    await silent.reconnect();
    const lost = silent.received.find(({ idempotencyKey }) => idempotencyKey === key);
    await expect.poll(() => silent.cancelled).toContain(lost?.callId);
    finish.resolve();
    expect((await patient).result).toBe("late");
    await expect.poll(() => silent.refused).toEqual(["CALL_NOT_FOUND"]);
    expect((await execute(at, tool, { ...options, epoch: 3n })).result).toBe("done");
  });

  test("lives as long as its worker prints, or names it in heartbeats", async () => {
    await at.work({
      tools: [definition("talks")],
      heartbeats: false,
      async handle(_, { print }) {
        for (let part = 0; part < 6; part++) {
          await new Promise((resolve) => setTimeout(resolve, 500));
          await print(".");
        }
        return "done";
      },
    });
    const tool = await at.toolNamed("talks");
    const talked = await execute(at, tool, { times: { heartbeatTimeout: durationFromMs(2_000) } });
    expect(talked).toMatchObject({ output: "......", result: "done" });
    const beating = await at.work({
      tools: [definition("beats")],
      heartbeats: false,
      async handle(_, { call: { callId } }) {
        for (let beat = 0; beat < 6; beat++) {
          await new Promise((resolve) => setTimeout(resolve, 500));
          await at.two.worker.heartbeat({ workerId: beating.workerId, callIds: [callId] });
        }
        return "done";
      },
    });
    const beaten = await execute(at, await at.toolNamed("beats"), {
      times: { heartbeatTimeout: durationFromMs(2_000) },
    });
    expect(beaten.result).toBe("done");
  });
});

describe("the limits of an org", () => {
  afterEach(() => {
    for (const name of Object.keys(limits)) delete limits[name];
  });

  /** What a refusal says. */
  async function quotasOf(work: Promise<unknown>): Promise<unknown> {
    const error = await work.catch((thrown: unknown) => thrown);
    const failure = error instanceof ConnectError ? fromConnectError(error) : undefined;
    expect(failure?.reason).toBe("LIMIT_EXCEEDED");
    return failure?.quotas.map(({ subject, limit, value }) => ({ subject, limit, value }));
  }

  test("hold tools and their definitions; what is known is registered again", async () => {
    limits["tools"] = 2;
    limits["tool_definitions"] = 2;
    const register = (name: string, description = "A tool of a test.") =>
      at.one.tools.registerTool({ definition: definition(name, { description }) });
    await register("first");
    await register("second");
    expect(await quotasOf(register("third"))).toEqual([{ subject: at.orgId, limit: "tools", value: 2n }]);
    await register("second", "Another.");
    const refused = [{ subject: at.orgId, limit: "tool_definitions", value: 2n }];
    expect(await quotasOf(register("second", "A third."))).toEqual(refused);
    await register("second");
    limits["tools"] = 3;
    await register("third");
  });

  test("hold workers, and not those that connect again", async () => {
    limits["workers"] = 1;
    const worker = await at.work({ tools: [definition("lonely")] });
    const another = at.work({ tools: [definition("lonely")] });
    expect(await quotasOf(another)).toEqual([{ subject: at.orgId, limit: "workers", value: 1n }]);
    await worker.reconnect(at.two.worker);
    limits["workers"] = 2;
    await at.work({ tools: [definition("lonely")] });
  });

  test("hold calls that wait or run, and not what joins one of them", async () => {
    limits["tool_calls"] = 2;
    const finish = Promise.withResolvers<void>();
    const worker = await at.work({ tools: [definition("crowded")], handle: () => finish.promise.then(() => "done") });
    const tool = await at.toolNamed("crowded");
    const key = newId("stp");
    const running = [execute(at, tool, { key }), execute(at, tool)];
    await vi.waitFor(async () => {
      const { rows } = await sql`select from call where tool_id = ${toUuid("tool", tool.toolId)}`.execute(
        first.database.engine,
      );
      expect(rows).toHaveLength(2);
    }, 30_000);
    expect(await quotasOf(execute(at, tool))).toEqual([{ subject: at.orgId, limit: "tool_calls", value: 2n }]);
    running.push(execute(at, tool, { key, client: at.two.execution }));
    finish.resolve();
    expect((await Promise.all(running)).map(({ result }) => result)).toEqual(["done", "done", "done"]);
    expect((await execute(at, tool)).result).toBe("done");
    expect(worker.received).toHaveLength(3);
  });
});

describe("workers", () => {
  test("share the load, the least busy first", async () => {
    const finish = Promise.withResolvers<void>();
    const handle = () => finish.promise.then(() => "done");
    const workers = [
      await at.work({ tools: [definition("shared")], concurrency: 4, handle }),
      await at.work({ tools: [definition("shared")], concurrency: 4, handle, client: at.two.worker }),
    ];
    const tool = await at.toolNamed("shared");
    expect(tool.workers).toBe(2);
    const executions: Promise<Execution>[] = [];
    for (let count = 1; count <= 8; count++) {
      executions.push(execute(at, tool));
      await expect.poll(() => workers.reduce((sum, { running }) => sum + running, 0)).toBe(count);
      expect(Math.abs((workers[0]?.running ?? 0) - (workers[1]?.running ?? 0))).toBeLessThanOrEqual(1);
    }
    finish.resolve();
    await Promise.all(executions);
    expect(workers.map(({ mostRunning }) => mostRunning)).toEqual([4, 4]);
  });

  test("take turns when all are idle", async () => {
    const workers = [await at.work({ tools: [definition("turns")] }), await at.work({ tools: [definition("turns")] })];
    const tool = await at.toolNamed("turns");
    for (let count = 0; count < 6; count++) await execute(at, tool);
    // One that reports an end takes what waits already, which may be out of turn.
    for (const { received } of workers) expect(received.length).toBeGreaterThanOrEqual(2);
  });

  test("are told apart by the digest of their definition", async () => {
    const old = definition("versioned");
    const recent = definition("versioned", { description: "A newer one." });
    const [a, b] = [await at.work({ tools: [old], name: "old" }), await at.work({ tools: [recent], name: "new" })];
    const tool = await at.toolNamed("versioned");
    expect(tool.digest).toBe(b.digests[0]);
    expect((await execute(at, tool)).started).toEqual(["new"]);
    expect((await execute(at, { toolId: tool.toolId, digest: a.digests[0] ?? "" })).started).toEqual(["old"]);
    // The newer one leaves; the older one is in force again, as it is the one that is there.
    await b.drain();
    b.vanish();
    await expect.poll(async () => (await at.toolNamed("versioned")).digest).toBe(a.digests[0]);
    expect(await reasonOf(execute(at, tool))).toBe("TOOL_UNAVAILABLE");
  });

  test("must be granted the tools that they serve, and a scope to bring new definitions", async () => {
    const connect = (fields: Parameters<typeof principalOf>[1], tools: DefinitionInit[]) => {
      const client = first.client(ToolWorkerService, principalOf(at.orgId, fields));
      return reasonOf(startTestWorker({ client, tools, handle: () => null }));
    };
    const serve = ["tools.serve"];
    expect(await connect({ tools: ["other"] }, [definition("granted")])).toBe("TOOL_NOT_GRANTED");
    expect(await connect({ tools: [] }, [definition("granted")])).toBe("TOOL_NOT_GRANTED");
    expect(await connect({ tools: ["granted"], scopes: serve }, [definition("granted")])).toBe("SCOPE_MISSING");
    expect(await connect({}, [definition("granted"), definition("granted")])).toBe("INVALID_ARGUMENT");
    expect(await connect({}, [definition("echo")])).toBe("ALREADY_EXISTS");
    await at.one.tools.registerTool({ definition: definition("granted") });
    const client = first.client(ToolWorkerService, principalOf(at.orgId, { tools: ["granted"], scopes: serve }));
    const worker = await startTestWorker({ client, tools: [definition("granted")], handle: () => "served" });
    expect((await execute(at, await at.toolNamed("granted"))).result).toBe("served");
    worker.vanish();
  });

  test("keep their calls when they reconnect in time, also to another replica", async () => {
    const finish = Promise.withResolvers<void>();
    const worker = await at.work({ tools: [definition("steady")], handle: () => finish.promise.then(() => "done") });
    const tool = await at.toolNamed("steady");
    const execution = execute(at, tool);
    await expect.poll(() => worker.running).toBe(1);
    const { workerId } = worker;
    await worker.reconnect(at.two.worker);
    expect(worker.workerId).toBe(workerId);
    finish.resolve();
    expect((await execution).result).toBe("done");
    expect((await execute(at, tool)).result).toBe("done");
    expect(worker.received.map(({ attempt }) => attempt)).toEqual([1, 1]);
  });

  test("get a call again that was lost with the stream", async () => {
    const finish = Promise.withResolvers<void>();
    const handle = () => finish.promise.then(() => "done");
    // A client that does not read what is sent: the call goes to a stream that nobody reads any more.
    const { worker: client } = at.one;
    const controller = new AbortController();
    const stream = client.connect({ tools: [definition("resent")], concurrency: 1 }, { signal: controller.signal });
    const { value } = await stream[Symbol.asyncIterator]().next();
    const workerId = value.message.value.workerId as string;
    const tool = await at.toolNamed("resent");
    const execution = execute(at, tool);
    await vi.waitFor(async () => {
      const [call] = await first.database.engine
        .selectFrom("call")
        .select("state")
        .where("digest", "=", tool.digest)
        .where("org_id", "is not", null)
        .where("tool_id", "is not", null)
        .orderBy("queued_at", "desc")
        .limit(1)
        .execute();
      expect(call?.state).toBe("dispatched");
    }, 30_000);
    controller.abort();
    const received: string[] = [];
    const again = client.connect({ tools: [definition("resent")], concurrency: 1, workerId });
    for await (const { message } of again) {
      if (message.case !== "call") continue;
      received.push(message.value.callId);
      void handle().then(() =>
        client.reportResult({
          workerId,
          callId: message.value.callId,
          outcome: { case: "result", value: create(ValueSchema, { kind: { case: "stringValue", value: "done" } }) },
        }),
      );
      finish.resolve();
      break;
    }
    expect(received).toHaveLength(1);
    expect((await execution).result).toBe("done");
  });

  test("whose lease is over are forgotten, and their calls handed out again under the same key", async () => {
    const lost = await at.work({
      tools: [definition("fragile")],
      name: "lost",
      handle: () => new Promise(() => undefined),
    });
    const tool = await at.toolNamed("fragile");
    const key = newId("stp");
    const execution = execute(at, tool, { key });
    await expect.poll(() => lost.running).toBe(1);
    const heir = await at.work({ tools: [definition("fragile")], name: "heir", handle: () => "inherited" });
    const lateId = lost.received[0]?.callId ?? "";
    lost.vanish();
    await expireLease(lost.workerId);
    const outcome = await execution;
    expect(outcome).toMatchObject({ started: ["lost", "heir"], result: "inherited" });
    expect(heir.received[0]).toMatchObject({ idempotencyKey: key, attempt: 2 });
    const { worker: client } = at.one;
    const late = { workerId: lost.workerId, callId: lateId, outcome: { case: "cancelled", value: {} } } as const;
    expect(await reasonOf(client.reportResult(late))).toBe("CALL_NOT_FOUND");
    expect(await reasonOf(client.heartbeat({ workerId: lost.workerId }))).toBe("WORKER_NOT_FOUND");
    expect(await reasonOf(lost.reconnect())).toBe("WORKER_NOT_FOUND");
  });

  test("that lose a call five times make it fail", async () => {
    const { tool } = await at.one.tools.registerTool({ definition: definition("poison") });
    if (tool === undefined) throw new Error("not registered");
    const execution = execute(at, tool);
    for (let count = 1; count <= 5; count++) {
      const worker = await at.work({ tools: [definition("poison")], handle: () => new Promise(() => undefined) });
      await expect.poll(() => worker.received[0]?.attempt).toBe(count);
      worker.vanish();
      await expireLease(worker.workerId);
    }
    expect((await execution).error).toMatchObject({ reason: "TOOL_FAILED", message: expect.stringContaining("lost") });
  });

  test("that drain get no more calls, finish those they have, and leave", async () => {
    const finish = Promise.withResolvers<void>();
    const leaving = await at.work({
      tools: [definition("draining")],
      concurrency: 5,
      name: "leaving",
      handle: () => finish.promise.then(() => "old"),
    });
    const tool = await at.toolNamed("draining");
    const running = execute(at, tool);
    await expect.poll(() => leaving.running).toBe(1);
    await leaving.drain();
    expect((await at.toolNamed("draining")).workers).toBe(0);
    const staying = await at.work({
      tools: [definition("draining")],
      concurrency: 5,
      name: "staying",
      handle: () => "new",
    });
    expect((await execute(at, tool)).started).toEqual(["staying"]);
    finish.resolve();
    expect((await running).result).toBe("old");
    leaving.vanish();
    await vi.waitFor(async () => {
      const workers = await first.database.engine
        .selectFrom("worker")
        .select("name")
        .where("org_id", "is not", null)
        .execute();
      expect(workers.map(({ name }) => name)).not.toContain("leaving");
    }, 30_000);
    expect(staying.received).toHaveLength(1);
  });

  test("of another principal cannot report for them, nor continue them", async () => {
    const finish = Promise.withResolvers<void>();
    const worker = await at.work({ tools: [definition("owned")], handle: () => finish.promise.then(() => "mine") });
    const tool = await at.toolNamed("owned");
    const execution = execute(at, tool);
    await expect.poll(() => worker.received).toHaveLength(1);
    const { workerId } = worker;
    const callId = worker.received[0]?.callId ?? "";
    for (const orgId of [at.orgId, newId("org")]) {
      const intruder = first.client(ToolWorkerService, principalOf(orgId));
      const forged = {
        workerId,
        callId,
        outcome: { case: "result", value: create(ValueSchema, { kind: { case: "stringValue", value: "forged" } }) },
      } as const;
      expect(await reasonOf(intruder.reportResult(forged))).toBe("CALL_NOT_FOUND");
      expect(await reasonOf(intruder.reportOutput({ workerId, callId, seq: 1n, output: "forged" }))).toBe(
        "CALL_NOT_FOUND",
      );
      expect(await reasonOf(intruder.heartbeat({ workerId }))).toBe("WORKER_NOT_FOUND");
      expect(await reasonOf(intruder.drain({ workerId }))).toBe("WORKER_NOT_FOUND");
      const tools = [definition("owned")];
      expect(await reasonOf(collect(intruder.connect({ workerId, tools, concurrency: 1 }) as never))).toBe(
        "WORKER_NOT_FOUND",
      );
    }
    finish.resolve();
    expect(await execution).toMatchObject({ output: "", result: "mine" });
  });

  test("are superseded by a newer stream of their own", async () => {
    const worker = await at.work({ tools: [definition("superseded")] });
    const { workerId, ended } = worker;
    const controller = new AbortController();
    const newer = at.two.worker.connect(
      { tools: [definition("superseded")], concurrency: 1, workerId },
      { signal: controller.signal },
    );
    const messages = newer[Symbol.asyncIterator]();
    expect((await messages.next()).value.message.case).toBe("registered");
    expect(await ended).toBe("ended");
    controller.abort();
  });

  test("may repeat a report; another one for the same call is refused", async () => {
    const worker = await at.work({ tools: [definition("repeated")], handle: () => "one" });
    await execute(at, await at.toolNamed("repeated"));
    const { workerId } = worker;
    const callId = worker.received[0]?.callId ?? "";
    const report = (value: string) => {
      const outcome = { case: "result", value: create(ValueSchema, { kind: { case: "stringValue", value } }) } as const;
      return at.two.worker.reportResult({ workerId, callId, outcome });
    };
    await vi.waitFor(() => report("one"), 30_000);
    expect(await reasonOf(report("two"))).toBe("CALL_NOT_FOUND");
  });

  test("may repeat output, but leave none out", async () => {
    const worker = await at.work({
      tools: [definition("numbered")],
      async handle(_, { call }) {
        const say = (seq: bigint, output: string) =>
          at.two.worker.reportOutput({ workerId: worker.workerId, callId: call.callId, seq, output });
        await say(1n, "a");
        await say(1n, "a");
        await say(2n, "b");
        await say(1n, "a");
        return reasonOf(say(4n, "d"));
      },
    });
    expect(await execute(at, await at.toolNamed("numbered"))).toMatchObject({
      output: "ab",
      result: "INVALID_ARGUMENT",
    });
  });
});

/** Lets a registration run out, as ten seconds without a heartbeat would. */
async function expireLease(workerId: string): Promise<void> {
  const { toUuid } = await import("../runtime/ids/id.ts");
  await first.database.engine
    .updateTable("worker")
    .set({ lease_until: new Date(0) })
    .where("worker_id", "=", toUuid("wrk", workerId))
    .execute();
}

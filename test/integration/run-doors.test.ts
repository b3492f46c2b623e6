import { create, fromBinary, fromJson, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { WatchRunRequestSchema, WatchRunResponseSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { type Cadre, createCadre } from "@cadre/sdk";
import * as grpc from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type RunningCadre, startCadre, topologies } from "../support/cadre.ts";
import { runProgram } from "../support/run-program.ts";

// A run is started and watched by doors that are not ours, in one process and
// over a mesh with two orchestrators.

const graph: JsonObject = {
  name: "doors",
  steps: [
    { name: "first", tool: { tool: "echo", arguments: { text: { $ref: "input" } } } },
    { name: "go", signal: { signal: "go" } },
  ],
};

describe.each(topologies)("%s", (topology) => {
  let server: RunningCadre;
  let cadre: Cadre;
  beforeAll(async () => {
    server = await startCadre({ topology });
    cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  }, 120_000);
  afterAll(() => server.dispose());

  test("curl starts a run over REST, and follows it as server-sent events, again from Last-Event-ID", async () => {
    const auth = ["-sS", "-H", `Authorization: Bearer ${server.adminKey}`];
    const body = ["-H", "Content-Type: application/json", "-d", JSON.stringify({ graph, input: "hello" })];
    const started = await runProgram("curl", [...auth, ...body, `${server.url}/v1/runs`]);
    const { run_id: runId } = JSON.parse(started.stdout).run;
    await cadre.runs.signal(runId, "go", 1);
    const url = `${server.url}/v1/runs/${runId}/events`;
    // The stream ends by itself behind the run's end.
    const whole = parseSse((await runProgram("curl", [...auth, "-N", url])).stdout);
    expect(whole[0]).toMatchObject({ event: "run.accepted" });
    expect(whole.map(({ event }) => event)).toContain("step.ended");
    expect(whole.at(-1)).toMatchObject({ event: "run.ended" });
    expect(JSON.parse(whole.at(-1)?.data ?? "")).toMatchObject({ run_id: runId, run_ended: { output: { go: 1 } } });
    const middle = whole[2]?.id ?? "";
    const resumed = parseSse((await runProgram("curl", [...auth, "-N", "-H", `Last-Event-ID: ${middle}`, url])).stdout);
    expect(resumed).toEqual(whole.slice(3));
    const shown = await runProgram("curl", [...auth, `${server.url}/v1/runs/${runId}`]);
    expect(JSON.parse(shown.stdout).run).toMatchObject({
      state: "RUN_STATE_SUCCEEDED",
      output: { first: { text: "hello" } },
    });
  });

  test("grpc-js watches a run while it goes on", async () => {
    const run = await cadre.runs.start({ graph: fromJson(GraphSchema, graph), input: "x" });
    const client = new grpc.Client(new URL(server.url).host, grpc.credentials.createInsecure());
    const metadata = new grpc.Metadata();
    metadata.set("authorization", `Bearer ${server.adminKey}`);
    const call = client.makeServerStreamRequest(
      "/cadre.orchestrator.v1.RunService/WatchRun",
      (message: Uint8Array) => Buffer.from(message),
      (bytes: Buffer) => fromBinary(WatchRunResponseSchema, bytes),
      toBinary(WatchRunRequestSchema, create(WatchRunRequestSchema, { runId: run.runId })),
      metadata,
    );
    const types: string[] = [];
    for await (const { event } of call as AsyncIterable<{ event?: { body: { case?: string } } }>) {
      if (event?.body.case === undefined) continue;
      types.push(event.body.case);
      // One step waits and the other one has ended, in whatever order.
      const isDue = types.includes("stepWaiting") && types.includes("stepEnded") && !types.includes("signalReceived");
      if (isDue) await run.signal("go");
    }
    client.close();
    expect(types.slice(-3)).toEqual(["signalReceived", "stepEnded", "runEnded"]);
  });

  test("20 runs that two orchestrators own are listed, signalled and ended, whoever is asked", async () => {
    const labels = { doors: topology };
    const start = () => cadre.runs.start({ graph: fromJson(GraphSchema, graph), input: 1, labels });
    const runs = await Promise.all(Array.from({ length: 20 }, start));
    const listed = await Array.fromAsync(cadre.runs.list({ labels, pageSize: 7 }));
    expect(listed.map(({ runId }) => runId).toSorted()).toEqual(runs.map(({ runId }) => runId).toSorted());
    // By curl, too, whose brackets would be patterns without --globoff.
    const auth = ["-sS", "--globoff", "-H", `Authorization: Bearer ${server.adminKey}`];
    const byRest = async (query: string) =>
      JSON.parse((await runProgram("curl", [...auth, `${server.url}/v1/runs?${query}`])).stdout).runs;
    expect(await byRest(`filter.labels[doors]=${topology}`)).toHaveLength(20);
    expect(await byRest(`filter.labels[doors]=${topology}&filter.labels[nosuch]=x`)).toEqual([]);
    const results = await Promise.all(
      runs.map(async (run, index) => {
        await run.signal("go", index);
        return await run.result();
      }),
    );
    expect(results).toEqual(runs.map((_, index) => ({ first: { text: 1 }, go: index })));
  }, 60_000);
});

interface SseEvent {
  readonly id: string;
  readonly event: string;
  readonly data: string;
}

function parseSse(text: string): SseEvent[] {
  return text
    .split("\n\n")
    .map((block) => new Map(block.split("\n").map((line) => line.split(/: (.*)/s, 2) as [string, string])))
    .filter((fields) => fields.has("id"))
    .map((fields) => ({
      id: fields.get("id") ?? "",
      event: fields.get("event") ?? "",
      data: fields.get("data") ?? "",
    }));
}

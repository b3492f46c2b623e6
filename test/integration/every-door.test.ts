import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  SendTurnRequestSchema,
  SendTurnResponseSchema,
  StreamEventsRequestSchema,
  StreamEventsResponseSchema,
} from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { type CadreError, createCadre } from "@cadre/sdk";
import * as grpc from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type RunningCadre, startCadre, topologies } from "../support/cadre.ts";
import { runProgram } from "../support/run-program.ts";

// A turn is sent and its events are read by every door that there is: each by
// a client that is not ours, against one server.

let server: RunningCadre;
let cadre: ReturnType<typeof createCadre>;

const question = "calculator: 6 * 7";

/** The types of a turn's events, in order, with runs of deltas as one. */
function assertWholeTurn(types: readonly string[]): void {
  const shape = types.filter((type, index) => type !== types[index - 1]);
  expect(shape[0]).toBe("turn.started");
  expect(shape).toContain("tool.started");
  expect(shape).toContain("tool.ended");
  expect(shape.indexOf("tool.started")).toBeLessThan(shape.indexOf("tool.ended"));
  expect(shape.at(-2)).toBe("text.delta");
  expect(shape.at(-1)).toBe("turn.ended");
}

async function newSession(): Promise<string> {
  const session = await cadre.sessions.create();
  return session.sessionId;
}

const dotted = (caseName: string): string => caseName.replace(/[A-Z]/g, (letter) => `.${letter.toLowerCase()}`);

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

describe.each(topologies)("%s", (topology) => {
  beforeAll(async () => {
    server = await startCadre({ topology });
    cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  });
  afterAll(() => server.dispose());

  test.each(["grpc", "grpcweb", "connect"])("buf curl by reflection over %s", async (protocol) => {
    const sessionId = await newSession();
    const common = [
      "curl",
      "--protocol",
      protocol,
      "--http2-prior-knowledge",
      "-H",
      `Authorization: Bearer ${server.adminKey}`,
    ];
    const send = await runProgram("buf", [
      ...common,
      "-d",
      JSON.stringify({ session_id: sessionId, text: question }),
      `${server.url}/cadre.orchestrator.v1.SessionService/SendTurn`,
    ]);
    expect(send.stderr).toBe("");
    expect(JSON.parse(send.stdout).turn.sessionId).toBe(sessionId);

    const stream = await runProgram(
      "buf",
      [
        ...common,
        "-d",
        JSON.stringify({ session_id: sessionId }),
        `${server.url}/cadre.orchestrator.v1.SessionService/StreamEvents`,
      ],
      { until: (stdout) => stdout.includes('"turnEnded"') },
    );
    const cases = [...stream.stdout.matchAll(/"(turnStarted|textDelta|toolStarted|toolEnded|turnEnded)":/g)];
    assertWholeTurn(cases.map(([, name]) => dotted(name ?? "")));
  });

  test("curl over REST, then SSE from the start and again from Last-Event-ID", async () => {
    const sessionId = await newSession();
    const auth = ["-sS", "-H", `Authorization: Bearer ${server.adminKey}`];
    const send = await runProgram("curl", [
      ...auth,
      "-H",
      "Content-Type: application/json",
      "-d",
      JSON.stringify({ text: question }),
      `${server.url}/v1/sessions/${sessionId}/turns`,
    ]);
    const turn = JSON.parse(send.stdout).turn;
    expect(turn.session_id).toBe(sessionId);

    const url = `${server.url}/v1/sessions/${sessionId}/events`;
    const ended = (stdout: string): boolean =>
      /event: turn\.ended\ndata: .*\n\n/.test(stdout) || /event: turn\.ended[\s\S]*\n\n/.test(stdout);
    const whole = parseSse((await runProgram("curl", [...auth, "-N", url], { until: ended })).stdout);
    assertWholeTurn(whole.map(({ event }) => event));
    expect(whole.map(({ id }) => id)).toEqual(whole.map((_, index) => String(index + 1)));

    const middle = Math.floor(whole.length / 2);
    const resumed = parseSse(
      (await runProgram("curl", [...auth, "-N", "-H", `Last-Event-ID: ${middle}`, url], { until: ended })).stdout,
    );
    expect(resumed).toEqual(whole.slice(middle));
  });

  test("grpc-js from a bare script", async () => {
    const sessionId = await newSession();
    const client = new grpc.Client(new URL(server.url).host, grpc.credentials.createInsecure());
    const metadata = new grpc.Metadata();
    metadata.set("authorization", `Bearer ${server.adminKey}`);
    const path = "/cadre.orchestrator.v1.SessionService";

    const turnSession = await new Promise<string | undefined>((resolve, reject) => {
      client.makeUnaryRequest(
        `${path}/SendTurn`,
        (message: Uint8Array) => Buffer.from(message),
        (bytes: Buffer) => fromBinary(SendTurnResponseSchema, bytes),
        toBinary(SendTurnRequestSchema, create(SendTurnRequestSchema, { sessionId, text: question })),
        metadata,
        (failure, response) => (failure === null ? resolve(response?.turn?.sessionId) : reject(failure)),
      );
    });
    expect(turnSession).toBe(sessionId);

    const call = client.makeServerStreamRequest(
      `${path}/StreamEvents`,
      (message: Uint8Array) => Buffer.from(message),
      (bytes: Buffer) => fromBinary(StreamEventsResponseSchema, bytes),
      toBinary(StreamEventsRequestSchema, create(StreamEventsRequestSchema, { sessionId })),
      metadata,
    );
    const types: string[] = [];
    try {
      for await (const { event } of call as AsyncIterable<{ event?: { body: { case?: string } } }>) {
        if (event?.body.case === undefined) continue;
        types.push(dotted(event.body.case));
        if (event.body.case === "turnEnded") break;
      }
    } finally {
      call.cancel();
      client.close();
    }
    assertWholeTurn(types);
  });

  test("the SDK", async () => {
    const session = await cadre.sessions.create();
    const types: string[] = [];
    for await (const { body } of session.stream(question)) types.push(dotted(body.case ?? ""));
    assertWholeTurn(types);
  });
});

test("told to end, the server lets its streams go on elsewhere at once, and ends with 0", async () => {
  const running = await startCadre();
  const client = createCadre({ baseUrl: running.url, apiKey: running.adminKey });
  const session = await client.sessions.create();
  const reasons: string[] = [];
  const reader = (async () => {
    const onBreak = ({ error }: { error: CadreError }): number => reasons.push(error.reason);
    for await (const _ of session.events({ onBreak, reconnect: { maxElapsedMs: 500 } })) {
      // for as long as the server lives
    }
  })().catch((thrown: unknown) => thrown);
  await session.send("hello");
  await until(async () => (await session.turns().page()).items[0]?.answer !== "");
  const startedAt = performance.now();
  expect(await running.stop()).toBe(0);
  // Calls that run would be waited for for 30 seconds.
  expect(performance.now() - startedAt).toBeLessThan(20_000);
  expect(await reader).toMatchObject({ reason: "UNAVAILABLE" });
  expect(reasons[0]).toBe("SHUTTING_DOWN");
  await running.dispose();
}, 60_000);

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}

import { type ChildProcess, fork } from "node:child_process";
import { create, toBinary } from "@bufbuild/protobuf";
import { GetSessionRequestSchema } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { Pool } from "undici";
import { newId } from "../services/runtime/ids/id.ts";
import type { Contestant } from "./gateway/contestant.ts";
import { median, printReport } from "./report.ts";

// What a call through the gateway costs: Connect, binary, HTTP/1.1 with
// keep-alive, 32 at once. Ours is authenticated, counted, validated, authorized
// and forwarded through the mesh in memory to a service that checks it again;
// theirs is the same handler behind bare connect-node. The client writes bytes
// and reads bytes, so that what is measured are the servers. In turns, so that
// whatever else the machine does meets both alike.

const rounds = Number(process.env["BENCH_ROUNDS"] ?? 7);
const roundMs = Number(process.env["BENCH_ROUND_MS"] ?? 2_000);
const concurrent = 32;
const warmUpCalls = 20_000;

const contestants: readonly Contestant[] = ["ours", "connect-node"];
const path = "/cadre.orchestrator.v1.SessionService/GetSession";
const body = toBinary(GetSessionRequestSchema, create(GetSessionRequestSchema, { sessionId: newId("ses") }));
const headers = {
  "content-type": "application/proto",
  "connect-protocol-version": "1",
  "connect-timeout-ms": "10000",
  authorization: "Bearer member.test.key",
};

const measured = await Promise.all(
  contestants.map(async (contestant) => {
    const profiling =
      process.env["BENCH_PROFILE"] === contestant ? ["--cpu-prof", "--cpu-prof-dir=/tmp/cadre-bench"] : [];
    const child = fork(new URL("./gateway/serve.ts", import.meta.url), [contestant], { execArgv: profiling });
    const url = await new Promise<string>((resolve, reject) => {
      child.once("message", (message) => resolve(String(message)));
      child.once("exit", (code) => reject(new Error(`the server of ${contestant} ended with ${code}`)));
    });
    return {
      contestant,
      child,
      pool: new Pool(url, { connections: concurrent, pipelining: 1 }),
      samples: [] as number[],
      costs: [] as number[],
    };
  }),
);

function processorMicroseconds(child: ChildProcess): Promise<number> {
  return new Promise((resolve) => {
    child.once("message", (used) => resolve(Number(used)));
    child.send("used");
  });
}

async function callFor(pool: Pool, forMs: number): Promise<{ calls: number; seconds: number }> {
  const startedAt = performance.now();
  let calls = 0;
  const worker = async (): Promise<void> => {
    while (performance.now() - startedAt < forMs) {
      const response = await pool.request({ method: "POST", path, headers, body });
      await response.body.arrayBuffer();
      if (response.statusCode !== 200) throw new Error(`answered ${response.statusCode}`);
      calls += 1;
    }
  };
  await Promise.all(Array.from({ length: concurrent }, worker));
  return { calls, seconds: (performance.now() - startedAt) / 1_000 };
}

// Until the compiler has seen enough: a call of ours passes more code.
for (const { pool } of measured) {
  let calls = 0;
  for (let turn = 0; turn < 20 && calls < warmUpCalls; turn++) calls += (await callFor(pool, roundMs)).calls;
}
for (let round = 0; round < rounds; round++) {
  for (const { contestant, child, pool, samples, costs } of measured) {
    const usedBefore = await processorMicroseconds(child);
    const { calls, seconds } = await callFor(pool, roundMs);
    const perCall = ((await processorMicroseconds(child)) - usedBefore) / calls;
    samples.push(calls / seconds);
    costs.push(perCall);
    const figures = `${Math.round(calls / seconds)} calls/s, ${Math.round(perCall)} µs of the processor a call`;
    process.stdout.write(`round ${round + 1}  ${contestant}: ${figures}\n`);
  }
}
for (const { child } of measured) child.disconnect();
const of = (contestant: Contestant, figure: "samples" | "costs"): number =>
  median(measured.find((one) => one.contestant === contestant)?.[figure] ?? []);
process.stdout.write(
  `time of the processor a call: ours ${Math.round(of("ours", "costs"))} µs, connect-node ${Math.round(of("connect-node", "costs"))} µs\n`,
);
printReport([
  {
    bench: "gateway",
    what: `unary calls/s, ${concurrent} at once`,
    ours: of("ours", "samples"),
    peer: "connect-node 2.2.0",
    theirs: of("connect-node", "samples"),
    target: "≥ 0.7",
  },
]);
await Promise.all(measured.map(({ pool }) => pool.close()));

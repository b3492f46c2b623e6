import { type ChildProcess, fork } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { type Call, type Contestant, connect, contestants } from "./mesh/contestant.ts";
import type { ServeOrder } from "./mesh/serve.ts";
import { type MeshTls, makeTls } from "./mesh/tls.ts";
import { median, printReport } from "./report.ts";

// What a call between two services costs: 32 at once, client and server in two
// processes of one machine; mutual TLS 1.3 on both sides of every contestant,
// as the mesh is deployed, then the same in plaintext. Ours passes every
// interceptor of the mesh, with authentication; the others have none. In short
// turns, so that whatever else the machine does meets all of them alike.

const rounds = Number(process.env["BENCH_ROUNDS"] ?? 15);
const roundMs = Number(process.env["BENCH_ROUND_MS"] ?? 700);
const concurrent = 32;
const warmUpCalls = 15_000;

const { publicKey, privateKey } = generateKeyPairSync("ed25519");
const publicKeyPem = publicKey.export({ type: "spki", format: "pem" }).toString();

/** A contestant whose server runs, and what was measured of it. */
interface Measured {
  readonly contestant: Contestant;
  readonly server: ChildProcess;
  readonly call: Call;
  /** Calls a second, a round. */
  readonly rates: number[];
  /** Time of the processor a call, client and server together, in microseconds, a round. */
  readonly costs: number[];
}

/** The next message of a server's process. */
function told(server: ChildProcess, contestant: Contestant): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null): void => reject(new Error(`the server of ${contestant} ended with ${code}`));
    server.once("exit", ended);
    server.once("message", (message) => {
      server.off("exit", ended);
      resolve(message);
    });
  });
}

async function start(contestant: Contestant, tls: MeshTls | undefined): Promise<Measured> {
  const profiling =
    process.env["BENCH_PROFILE"] === contestant ? ["--cpu-prof", "--cpu-prof-dir=/tmp/cadre-bench"] : [];
  const server = fork(new URL("./mesh/serve.ts", import.meta.url), { execArgv: profiling });
  const order: ServeOrder = { contestant, publicKeyPem, ...(tls === undefined ? {} : { tls: tls.server }) };
  const address = told(server, contestant);
  server.send(order);
  const call = await connect(contestant, String(await address), privateKey, tls?.client);
  return { contestant, server, call, rates: [], costs: [] };
}

/** Time of the processor used so far by this process and a server, in microseconds. */
async function usedMicroseconds({ server, contestant }: Measured): Promise<number> {
  const used = told(server, contestant);
  server.send("used");
  const { user, system } = process.cpuUsage();
  return Number(await used) + user + system;
}

async function callFor(call: Call, forMs: number): Promise<{ calls: number; seconds: number }> {
  const startedAt = performance.now();
  let calls = 0;
  const worker = async (): Promise<void> => {
    while (performance.now() - startedAt < forMs) {
      await call();
      calls += 1;
    }
  };
  await Promise.all(Array.from({ length: concurrent }, worker));
  return { calls, seconds: (performance.now() - startedAt) / 1_000 };
}

async function measure(chosen: readonly Contestant[], tls: MeshTls | undefined): Promise<Measured[]> {
  const measured = await Promise.all(chosen.map((contestant) => start(contestant, tls)));
  // Until the compiler has seen enough: a call of ours passes more code.
  for (const { call } of measured) {
    let calls = 0;
    for (let turn = 0; turn < 20 && calls < warmUpCalls; turn++) calls += (await callFor(call, roundMs)).calls;
  }
  for (let round = 0; round < rounds; round++) {
    for (const one of measured) {
      const usedBefore = await usedMicroseconds(one);
      const { calls, seconds } = await callFor(one.call, roundMs);
      one.costs.push(((await usedMicroseconds(one)) - usedBefore) / calls);
      one.rates.push(calls / seconds);
    }
  }
  for (const { server } of measured) server.disconnect();
  return measured;
}

const only = process.env["BENCH_ONLY"]?.split(";") as Contestant[] | undefined;
const securities =
  process.env["BENCH_TLS"] === "0" ? [false] : process.env["BENCH_TLS"] === "1" ? [true] : [true, false];
const comparisons = [];
for (const isSecure of securities) {
  const security = isSecure ? "mutual TLS" : "plaintext";
  const measured = await measure(only ?? contestants, isSecure ? await makeTls() : undefined);
  for (const { contestant, rates, costs } of measured) {
    process.stdout.write(
      `${security}  ${contestant}: ${Math.round(median(rates))} calls/s, ${median(costs).toFixed(1)} µs of the processor a call\n`,
    );
  }
  const of = (contestant: Contestant) => measured.find((one) => one.contestant === contestant);
  const ours = of("ours");
  for (const [peer, version] of [
    ["grpc-js", "1.14.7"],
    ["connect-node", "2.2.0"],
  ] as const) {
    const theirs = of(peer);
    if (ours === undefined || theirs === undefined) continue;
    const target = peer === "grpc-js" ? "≥ 0.85" : "";
    const common = { bench: "mesh", peer: `${peer} ${version}` };
    comparisons.push(
      {
        ...common,
        what: `unary calls/s, ${concurrent} at once, ${security}`,
        ours: median(ours.rates),
        theirs: median(theirs.rates),
        target,
      },
      {
        ...common,
        what: `µs of the processor a call, ${security}`,
        ours: median(ours.costs),
        theirs: median(theirs.costs),
        target: "",
      },
    );
  }
}
printReport(comparisons);
process.exit(0);

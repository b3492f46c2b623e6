import { fork } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { type Call, type Contestant, connect, contestants } from "./mesh/contestant.ts";
import { median, printReport } from "./report.ts";

// What a call between two services costs: 32 at once, client and server in two
// processes of one machine, no TLS on either. Ours passes every interceptor of
// the mesh, with authentication; the others have none. In turns, so that
// whatever else the machine does meets all of them alike.

const rounds = Number(process.env["BENCH_ROUNDS"] ?? 7);
const roundMs = Number(process.env["BENCH_ROUND_MS"] ?? 2_000);
const concurrent = 32;

const { publicKey, privateKey } = generateKeyPairSync("ed25519");
const publicKeyPem = publicKey.export({ type: "spki", format: "pem" }).toString();

async function callsPerSecond(call: Call, forMs: number): Promise<number> {
  const startedAt = performance.now();
  let calls = 0;
  const worker = async (): Promise<void> => {
    while (performance.now() - startedAt < forMs) {
      await call();
      calls += 1;
    }
  };
  await Promise.all(Array.from({ length: concurrent }, worker));
  return calls / ((performance.now() - startedAt) / 1_000);
}

const chosen = process.env["BENCH_ONLY"]?.split(";") as Contestant[] | undefined;
const children = (chosen ?? contestants).map((contestant) => ({
  contestant,
  child: fork(new URL("./mesh/serve.ts", import.meta.url), [contestant, publicKeyPem]),
}));
const measured = await Promise.all(
  children.map(async ({ contestant, child }) => {
    const address = await new Promise<string>((resolve, reject) => {
      child.once("message", (message) => resolve(String(message)));
      child.once("exit", (code) => reject(new Error(`the server of ${contestant} ended with ${code}`)));
    });
    return { contestant, call: await connect(contestant, address, privateKey), samples: [] as number[] };
  }),
);

for (const { call } of measured) await callsPerSecond(call, roundMs);
for (let round = 0; round < rounds; round++) {
  for (const { contestant, call, samples } of measured) {
    samples.push(await callsPerSecond(call, roundMs));
    process.stdout.write(`round ${round + 1}  ${contestant}: ${Math.round(samples.at(-1) ?? 0)} calls/s\n`);
  }
}
for (const { child } of children) child.disconnect();

const rate = (contestant: Contestant): number =>
  median(measured.find((one) => one.contestant === contestant)?.samples ?? []);
if (chosen === undefined) {
  process.stdout.write(`ours without interceptors: ${Math.round(rate("ours, no interceptors"))} calls/s\n`);
  const comparison = { bench: "mesh", what: `unary calls/s, ${concurrent} at once`, ours: rate("ours") };
  printReport([
    { ...comparison, peer: "grpc-js 1.14.7", theirs: rate("grpc-js"), target: "≥ 0.85" },
    { ...comparison, peer: "connect-node 2.2.0", theirs: rate("connect-node"), target: "" },
  ]);
}
process.exit(0);

// The outside world in a process of its own, whose effects can be counted:
//   node ledger-process.ts <file>
// It listens on 127.0.0.1, writes its port as a line, and answers
// `POST /called` and `POST /effect` with `{ applied }` after the record is on
// disk. An effect is applied once for each idempotency key, as a service does
// that honours the key. It ends when its standard input does.
import { fsyncSync, openSync, writeSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import type { LedgerCall, LedgerRecord } from "./ledger.ts";

const file = openSync(process.argv[2] ?? "", "a", 0o600);
const applied = new Set<string>();
let count = 0;

function record(type: LedgerRecord["type"], call: LedgerCall): LedgerRecord {
  const isApplied = type === "effect" && !applied.has(call.key);
  count += 1;
  const { run, step, key, attempt, worker } = call;
  const line: LedgerRecord = { n: count, atMs: Date.now(), type, run, step, key, attempt, worker, applied: isApplied };
  writeSync(file, `${JSON.stringify(line)}\n`);
  fsyncSync(file);
  if (isApplied) applied.add(key);
  return line;
}

const server = createServer((request, response) => {
  void (async () => {
    const type = request.url?.slice(1);
    if (request.method !== "POST" || (type !== "called" && type !== "effect")) {
      response.writeHead(404).end();
      return;
    }
    const line = record(type, JSON.parse(await text(request)) as LedgerCall);
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ applied: line.applied }));
  })().catch((error: unknown) => {
    process.stderr.write(`${String(error)}\n`);
    response.destroy();
  });
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`));
process.stdin.resume();
process.stdin.once("end", () => process.exit(0));

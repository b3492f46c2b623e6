import { Pool } from "undici";
import { assertDone } from "./answer.ts";
import type { RunRequest } from "./contestant.ts";
import type { DriverAnswer, DriverCommand } from "./load.ts";

// The process that asks for runs, the same for every contestant: so many at
// once over HTTP/1.1 with keep-alive, each asked for when one before it ended.
// It does what its parent says, one round after the other, and ends with it.

/** Longer than any run of a contestant that is not stuck. */
const answerWithinMs = 60_000;

async function drive(request: RunRequest, steps: number, command: DriverCommand): Promise<DriverAnswer> {
  const { atOnce, runs, startWithinMs } = command;
  const timeouts = { headersTimeout: answerWithinMs, bodyTimeout: answerWithinMs };
  const pool = new Pool(request.origin, { connections: atOnce, pipelining: 1, ...timeouts });
  const body = Buffer.from(request.body, "base64");
  const durationsMs: number[] = [];
  const cpuBefore = process.cpuUsage();
  const startedAt = performance.now();
  let started = 0;
  const asker = async (): Promise<void> => {
    while (started < runs && performance.now() - startedAt < startWithinMs) {
      started += 1;
      const askedAt = performance.now();
      const response = await pool.request({ method: "POST", path: request.path, headers: request.headers, body });
      const answer = await response.body.bytes();
      if (response.statusCode !== 200)
        throw new Error(`HTTP ${response.statusCode}: ${Buffer.from(answer).toString()}`);
      durationsMs.push(performance.now() - askedAt);
      assertDone(request.answer, steps, answer);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(atOnce, runs) }, asker));
    const seconds = (performance.now() - startedAt) / 1_000;
    const cpu = process.cpuUsage(cpuBefore);
    return { durationsMs, seconds, cpuSeconds: (cpu.user + cpu.system) / 1e6 };
  } finally {
    await pool.destroy();
  }
}

const [encoded, steps] = process.argv.slice(2);
if (encoded === undefined || process.send === undefined) throw new TypeError("started by bench/runs/load.ts alone");
const request = JSON.parse(encoded) as RunRequest;
process.on("message", (command: DriverCommand) => {
  drive(request, Number(steps), command).then(
    (answer) => process.send?.(answer),
    (error: unknown) => process.send?.({ failed: error instanceof Error ? error.message : String(error) }),
  );
});
process.on("disconnect", () => process.exit(0));

import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { type Cadre, createCadre } from "@cadre/sdk";
import { type RunningCadre, startCadre } from "../test/support/cadre.ts";
import { type Comparison, median, printReport, quantile } from "./report.ts";

// What a person feels of the embedded topology: the start, the first token,
// many sessions at once, and memory at rest. The server runs as a process of
// its own and is called through the SDK over the public port.

const startRounds = 5;
const firstTokenRounds = 40;
const heldSessions = 200;
const messagesPerSecond = 20;
const heldSeconds = 30;
/** After the last call, before a server is at rest. */
const restMs = 10_000;

const settings = { CADRE_LOG_LEVEL: "warn" };

function clientOf(server: RunningCadre): Cadre {
  return createCadre({ baseUrl: server.url, apiKey: server.adminKey });
}

/** Milliseconds from the start of the process, on a warm data directory, to the first answered call. */
async function measureStart(): Promise<number[]> {
  const first = await startCadre({ settings });
  await first.stop();
  const samples: number[] = [];
  let server = first;
  for (let round = 0; round < startRounds; round++) {
    const startedAt = performance.now();
    server = await server.restart();
    await clientOf(server).principal();
    samples.push(performance.now() - startedAt);
    await server.stop();
  }
  await (await server.restart()).dispose();
  return samples;
}

/** Milliseconds from sending a message to its first text, with the stream open already. */
async function measureFirstToken(cadre: Cadre): Promise<number[]> {
  const samples: number[] = [];
  const session = await cadre.sessions.create({ agent: "assistant" });
  const events = session.events();
  for (let round = 0; round < firstTokenRounds; round++) {
    const startedAt = performance.now();
    await session.send("Say something.");
    for (;;) {
      const { value: event } = await events.next();
      if (event.body.case === "textDelta" && samples.length === round) samples.push(performance.now() - startedAt);
      if (event.body.case === "turnEnded") break;
    }
  }
  await events.return(undefined as never);
  return samples;
}

interface HeldResult {
  readonly latenciesMs: readonly number[];
  readonly dropped: number;
}

/**
 * Holds sessions open, each with a stream, and sends messages at a fixed rate,
 * whatever the answers do. A latency runs from when the message was due to the
 * end of its turn.
 */
async function measureHeld(cadre: Cadre): Promise<HeldResult> {
  await cadre.limits.set("sessions", 1_000n);
  await cadre.limits.set("concurrent_turns", 1_000n);
  await cadre.limits.set("requests_per_second", 2_000n);
  await cadre.limits.set("request_burst", 2_000n);
  const stop = new AbortController();
  const dueAtOf = new Map<string, number>();
  const endedAtOf = new Map<string, number>();
  const lastSeq = new Map<string, bigint>();
  let dropped = 0;
  const sessions = await Promise.all(
    Array.from({ length: heldSessions }, () => cadre.sessions.create({ agent: "assistant" })),
  );
  const readers = sessions.map(async (session) => {
    try {
      for await (const event of session.events({ signal: stop.signal })) {
        const expected = (lastSeq.get(session.sessionId) ?? 0n) + 1n;
        if (event.seq !== expected) dropped += 1;
        lastSeq.set(session.sessionId, event.seq);
        if (event.body.case === "turnEnded") endedAtOf.set(event.turnId, performance.now());
      }
    } catch (thrown) {
      if (!stop.signal.aborted) throw thrown;
    }
  });
  const startedAt = performance.now();
  const total = messagesPerSecond * heldSeconds;
  const sends: Promise<void>[] = [];
  for (let index = 0; index < total; index++) {
    const dueAt = startedAt + (index * 1_000) / messagesPerSecond;
    await delay(Math.max(0, dueAt - performance.now()));
    const session = sessions[index % sessions.length];
    if (session === undefined) continue;
    const text = index % 2 === 0 ? `calculator: ${index} + 1` : `message ${index}`;
    sends.push(
      session.send(text, { onBusy: "enqueue" }).then((turn) => {
        dueAtOf.set(turn.turnId, dueAt);
      }),
    );
  }
  await Promise.all(sends);
  const patienceUntil = performance.now() + 30_000;
  while (endedAtOf.size < total && performance.now() < patienceUntil) {
    await delay(50);
  }
  stop.abort();
  await Promise.allSettled(readers);
  const latenciesMs = [...dueAtOf].flatMap(([turnId, dueAt]) => {
    const endedAt = endedAtOf.get(turnId);
    return endedAt === undefined ? [] : [endedAt - dueAt];
  });
  return { latenciesMs, dropped: dropped + (total - latenciesMs.length) };
}

/** Resident memory of a process in MiB, without its children. Linux only. */
function residentMib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? Number.NaN) / 1024;
}

const comparisons: Comparison[] = [];
const bench = "embedded";

const starts = await measureStart();
comparisons.push({
  bench,
  what: "start to first answer, ms",
  ours: median(starts),
  peer: "required",
  theirs: 2_500,
  target: "≤ 1",
});

const server = await startCadre({ settings });
try {
  const cadre = clientOf(server);
  await cadre.principal();
  await delay(restMs);
  const rest = residentMib(server.pid);
  comparisons.push({ bench, what: "RSS at rest, MiB", ours: rest, peer: "required", theirs: 200, target: "≤ 1" });

  const firstTokens = await measureFirstToken(cadre);
  comparisons.push({
    bench,
    what: "first token, ms",
    ours: median(firstTokens),
    peer: "required",
    theirs: 50,
    target: "≤ 1",
  });

  const held = await measureHeld(cadre);
  const p95 = quantile(held.latenciesMs, 0.95);
  process.stdout.write(
    `${heldSessions} sessions, ${messagesPerSecond} messages/s for ${heldSeconds} s: p50 ${median(held.latenciesMs).toFixed(1)} ms, p95 ${p95.toFixed(1)} ms, dropped ${held.dropped}\n`,
  );
  comparisons.push({ bench, what: "held sessions p95, ms", ours: p95, peer: "required", theirs: 500, target: "≤ 1" });
  if (held.dropped > 0) process.exitCode = 1;
} finally {
  await server.dispose();
}
printReport(comparisons);

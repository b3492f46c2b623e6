import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type TurnEnded, TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { type Cadre, createCadre, defineTool, type SessionHandle } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { leastOfThree } from "../support/least-of-three.ts";

let server: RunningCadre;
let cadre: Cadre;
const stopWorker = new AbortController();
const directory = mkdtempSync(join(tmpdir(), "cadre-cancel-"));
const witness = join(directory, "witness");
/** Calls whose handlers run now. */
let running = 0;
let signalled = 0;
/** Calls that do not heed their signals. */
let deaf = 0;
let releaseDeaf = (): void => {};
const deafReleased = new Promise<void>((resolve) => (releaseDeaf = resolve));

beforeAll(async () => {
  server = await startCadre({ settings: { CADRE_SCRIPTED_WORD_MS: "3" } });
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const inputSchema = { type: "object" };
  await cadre.tools.serve(
    [
      defineTool({
        name: "append_lines",
        description: "Appends to a file until it is told to stop.",
        inputSchema,
        handler: async (_, { signal }) => {
          running += 1;
          try {
            while (!signal.aborted) {
              appendFileSync(witness, "line\n");
              await delay(10, undefined, { signal }).catch(() => {});
            }
            signalled += 1;
            return null;
          } finally {
            running -= 1;
          }
        },
      }),
      defineTool({
        name: "deaf_tool",
        description: "Does not heed its signal.",
        inputSchema,
        handler: async () => {
          deaf += 1;
          await deafReleased;
          return null;
        },
      }),
    ],
    { signal: stopWorker.signal, concurrency: 20 },
  );
});
afterAll(async () => {
  releaseDeaf();
  stopWorker.abort();
  await server.dispose();
  rmSync(directory, { recursive: true, force: true });
});

/** Sends a message, cancels after a time or at a condition, and returns how the turn ended and how long that took. */
async function cancelDuring(session: SessionHandle, text: string, whenToCancel: () => Promise<unknown>) {
  const turn = await session.send(text);
  await whenToCancel();
  const cancelledAt = performance.now();
  await session.cancel();
  for await (const { turnId, body } of session.events()) {
    if (turnId !== turn.turnId || body.case !== "turnEnded") continue;
    return { ended: body.value as TurnEnded, tookMs: performance.now() - cancelledAt };
  }
  throw new Error("the stream of events never ends by itself");
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(5);
}

test("cancelled while its tool appends to a file: the signal fires, the file stops growing, nothing starts after", async () => {
  const script = ["call append_lines {}", "say afterwards", 'call calculator {"expression":"1+1"}'].join("\n");
  const cancelledMs = await leastOfThree(1_500, async () => {
    const session = await cadre.sessions.create();
    const { ended, tookMs } = await cancelDuring(session, script, () => until(() => running > 0));
    expect(ended.state).toBe(TurnState.CANCELLED);
    expect(ended.toolsMayStillRun).toEqual([]);
    await until(() => running === 0);
    const size = readFileSync(witness).length;
    await delay(300);
    expect(readFileSync(witness).length).toBe(size);
    const [turn] = await Array.fromAsync(session.turns());
    expect(turn?.toolCalls.map(({ tool }) => tool)).toEqual(["append_lines"]);
    return tookMs;
  });
  expect(cancelledMs).toBeLessThan(1_500);
});

test("a tool that does not heed its signal: the turn ends all the same, and says that it may still run", async () => {
  const cancelledMs = await leastOfThree(4_000, async () => {
    const before = deaf;
    const session = await cadre.sessions.create();
    const { ended, tookMs } = await cancelDuring(session, "call deaf_tool {}", () => until(() => deaf > before));
    expect(ended.state).toBe(TurnState.CANCELLED);
    expect(ended.toolsMayStillRun).toEqual(["deaf_tool"]);
    return tookMs;
  });
  expect(cancelledMs).toBeLessThan(4_000);
});

test("100 cancels at random moments: each turn ends once, and no handler is left running", async () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
  await cadre.limits.set("concurrent_turns", 100n);
  const script = ["say one two three", "call append_lines {}", "say four"].join("\n");
  const sessions: SessionHandle[] = [];
  const one = async (index: number): Promise<void> => {
    const session = await cadre.sessions.create();
    // A fixed sequence for a seed: the moments spread over the whole turn.
    const moment = ((seed + index * 7919) % 400) + 1;
    const outcome = await cancelDuring(session, script, () => delay(moment));
    expect(outcome.ended.state, `seed ${seed}, ${index}`).toBe(TurnState.CANCELLED);
    sessions.push(session);
  };
  for (let batch = 0; batch < 10; batch++) {
    await Promise.all(Array.from({ length: 10 }, (_, index) => one(batch * 10 + index)));
  }
  await until(() => running === 0);
  expect(signalled).toBeGreaterThan(0);
  for (const { sessionId } of sessions) {
    // The log ends with the turn's end, once: whatever raced, nothing came after.
    const { session } = await cadre.sessions.get(sessionId);
    const types: string[] = [];
    for await (const { seq, body } of cadre.sessions.events(sessionId)) {
      types.push(body.case ?? "");
      if (seq === session.lastSeq) break;
    }
    expect(types.indexOf("turnEnded"), `seed ${seed}`).toBe(types.length - 1);
  }
}, 120_000);

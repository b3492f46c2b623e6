import { setTimeout as delay } from "node:timers/promises";
import { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { createCadre } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";

let server: RunningCadre;
beforeAll(async () => {
  server = await startCadre();
});
afterAll(() => server.dispose());

const sessions = 20;
const seconds = 60;

// The least load of all, in every run: no figure is asserted but that nothing
// fails and no event is dropped.
test("20 sessions, a message with a tool each second for a minute: no error, no event dropped", async () => {
  const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  await cadre.limits.set("concurrent_turns", 100n);
  const states: TurnState[] = [];
  const gaps: string[] = [];
  await Promise.all(
    Array.from({ length: sessions }, async (_, index) => {
      const session = await cadre.sessions.create();
      const reader = (async () => {
        let lastSeq = 0n;
        let ended = 0;
        for await (const { seq, body } of session.events()) {
          if (seq !== lastSeq + 1n) gaps.push(`${session.sessionId}: ${seq} after ${lastSeq}`);
          lastSeq = seq;
          if (body.case !== "turnEnded") continue;
          states.push(body.value.state);
          ended += 1;
          if (ended === seconds) return;
        }
      })();
      const startedAt = performance.now() + index * 50;
      for (let message = 0; message < seconds; message++) {
        await delay(Math.max(0, startedAt + message * 1_000 - performance.now()));
        await session.send(`call echo {"n":${message}}\nanswer`, { onBusy: "enqueue" });
      }
      await reader;
    }),
  );
  expect(gaps).toEqual([]);
  expect(states).toHaveLength(sessions * seconds);
  expect(states.filter((state) => state !== TurnState.SUCCEEDED)).toEqual([]);
}, 150_000);

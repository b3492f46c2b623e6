import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ConnectGate } from "./connect-gate.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const now = () => Date.now();
const down = () => Promise.reject(new Error("refused"));

async function outcome(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(
    () => "connected",
    (error: { reason?: string; message: string }) => error.reason ?? error.message,
  );
}

test("a server that answers is connected to by all at once, after the first one has shown it", async () => {
  const gate = new ConnectGate(now, () => 0);
  const { promise: answer, resolve } = Promise.withResolvers<void>();
  let begun = 0;
  const attempts = Array.from({ length: 17 }, () =>
    outcome(
      gate.attempt(() => {
        begun += 1;
        return answer;
      }),
    ),
  );
  await vi.advanceTimersByTimeAsync(0);
  expect(begun).toBe(1);
  resolve();
  expect(await Promise.all(attempts)).toEqual(Array.from({ length: 17 }, () => "connected"));
});

test("after a failure tries seldom, and refuses everybody else at once", async () => {
  const gate = new ConnectGate(now, () => 0.999);
  let attempts = 0;
  const refused = () => {
    attempts += 1;
    return down();
  };
  await outcome(gate.attempt(refused));
  const before = attempts;
  for (let ms = 0; ms < 20_000; ms += 10) {
    void outcome(gate.attempt(refused));
    await vi.advanceTimersByTimeAsync(10);
  }
  // 400, 800, 1,600 ms, then every two seconds.
  expect(attempts - before).toBeLessThan(16);
  expect(attempts - before).toBeGreaterThan(8);
});

test("a server that is back is found within two seconds, by one attempt for all", async () => {
  const gate = new ConnectGate(now, () => 0.999);
  for (let failure = 0; failure < 12; failure++) {
    await outcome(gate.attempt(down));
    await vi.advanceTimersByTimeAsync(2_000);
  }
  let probes = 0;
  const { promise: answer, resolve } = Promise.withResolvers<void>();
  const probe = () => {
    probes += 1;
    return answer;
  };
  const waiting = Array.from({ length: 5 }, () => outcome(gate.attempt(probe)));
  expect(probes).toBe(1);
  resolve();
  expect(await Promise.all(waiting)).toEqual(Array.from({ length: 5 }, () => "connected"));
});

test("a connection that broke lets one attempt decide for all who want another one", async () => {
  const gate = new ConnectGate(now, () => 0);
  await gate.attempt(() => Promise.resolve());
  gate.doubt();
  let begun = 0;
  const { promise: answer, reject: refuse } = Promise.withResolvers<void>();
  const attempts = Array.from({ length: 17 }, () =>
    outcome(
      gate.attempt(() => {
        begun += 1;
        return answer;
      }),
    ),
  );
  await vi.advanceTimersByTimeAsync(0);
  refuse(new Error("refused"));
  expect(await Promise.all(attempts)).toEqual(["refused", ...Array.from({ length: 16 }, () => "UNAVAILABLE")]);
  expect(begun).toBe(1);
});

test("says how long to wait", async () => {
  const gate = new ConnectGate(now, () => 0);
  await outcome(gate.attempt(down));
  await expect(gate.attempt(down)).rejects.toMatchObject({ reason: "UNAVAILABLE", retryAfterMs: 100 });
});

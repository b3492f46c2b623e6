import { expect, test } from "vitest";
import { AppError } from "../../errors/app-error.ts";
import { UndecodableError } from "./decode.ts";
import { retry } from "./retry.ts";

const never = new AbortController().signal;

test("the longest pauses are 0.2 s and 0.4 s, so that three attempts of a second end within 4 s", async () => {
  const atMs: number[] = [];
  const failing = retry<string>(
    async () => {
      atMs.push(performance.now());
      throw new Error("no");
    },
    { random: () => 1 },
  );
  await expect(failing("event", never)).rejects.toMatchObject({ attempts: 3, cause: { message: "no" } });
  const [first = 0, second = 0, third = 0] = atMs;
  expect(second - first).toBeGreaterThanOrEqual(198);
  expect(third - second).toBeGreaterThanOrEqual(398);
});

test("the second attempt can be the one that counts", async () => {
  let attempts = 0;
  const flaky = retry<string>(
    async () => {
      attempts += 1;
      if (attempts === 1) throw new Error("no");
      return "handled";
    },
    { random: () => 0 },
  );
  expect(await flaky("event", never)).toBe("handled");
  expect(attempts).toBe(2);
});

test("what cannot be decoded is tried once", async () => {
  const cause = new AppError("MALFORMED_MESSAGE", "garbage");
  const failing = retry<string>(async () => {
    throw new UndecodableError(cause);
  });
  await expect(failing("event", never)).rejects.toMatchObject({ attempts: 1, cause: { cause } });
});

test("a partition that was lost meanwhile ends it with what was thrown", async () => {
  const lost = new AbortController();
  const failing = retry<string>(async () => {
    lost.abort(new Error("lost"));
    throw new Error("cut");
  });
  await expect(failing("event", lost.signal)).rejects.toThrow("cut");
});

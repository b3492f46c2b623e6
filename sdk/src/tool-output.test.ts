import { expect, test, vi } from "vitest";
import { createToolOutput } from "./tool-output.ts";

function createSink(taken: () => Promise<void> = async () => undefined) {
  const reports: { readonly seq: bigint; readonly text: string }[] = [];
  const output = createToolOutput(async (seq, text) => {
    reports.push({ seq, text });
    await taken();
  });
  return { output, reports, text: () => reports.map((report) => report.text).join("") };
}

test("small pieces go together, after at most 25 ms", async () => {
  vi.useFakeTimers();
  try {
    const { output, reports } = createSink();
    await output.print("a");
    await output.print("b");
    await vi.advanceTimersByTimeAsync(24);
    expect(reports).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(reports).toEqual([{ seq: 1n, text: "ab" }]);
  } finally {
    vi.useRealTimers();
  }
});

test("16 Ki characters go at once", async () => {
  const { output, reports } = createSink();
  await output.print("x".repeat(16 * 1024));
  expect(reports).toHaveLength(1);
});

test("no report tears a character or is larger than the contract allows", async () => {
  const { output, reports, text } = createSink();
  // Odd, so that the cut falls into a pair of surrogates.
  const all = `x${"😀".repeat(100_000)}`;
  await output.print(all);
  await output.end();
  expect(text()).toBe(all);
  for (const report of reports) {
    expect(new TextEncoder().encode(report.text).length).toBeLessThanOrEqual(262_144);
    expect(report.text.isWellFormed()).toBe(true);
  }
  expect(reports.map(({ seq }) => seq)).toEqual(reports.map((_, index) => BigInt(index + 1)));
});

test("what comes faster than it can be sent is left out beyond 1 MiB, and a note says so", async () => {
  const gate = Promise.withResolvers<void>();
  const { output, text } = createSink(() => gate.promise);
  for (let index = 0; index < 40; index += 1) void output.print("y".repeat(64 * 1024));
  gate.resolve();
  await output.end();
  expect(text().length).toBeLessThan(1.2 * 1024 * 1024);
  expect(text()).toContain("output left out");
});

test("after its end nothing is taken", async () => {
  const { output, reports } = createSink();
  await output.end();
  await output.print("late");
  await output.end();
  expect(reports).toEqual([]);
});

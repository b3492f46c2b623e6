import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Cut, createFakeSessionService, fakeSessionId } from "../../test/support/fake-session-service.ts";
import { CadreError, createCadre, type ReconnectOptions, type SessionEvent } from "./index.ts";

const atOnce: ReconnectOptions = { initialDelayMs: 0, maxDelayMs: 0, silenceTimeoutMs: 30 };

function setUp() {
  const service = createFakeSessionService();
  const transport = createRouterTransport((router) => router.service(SessionService, service.handlers));
  return { service, cadre: createCadre({ baseUrl: "http://fake", transport }) };
}

async function take(events: AsyncIterable<SessionEvent>, count: number): Promise<bigint[]> {
  const seqs: bigint[] = [];
  for await (const { seq } of events) {
    seqs.push(seq);
    if (seqs.length === count) break;
  }
  return seqs;
}

const text = (value: string) => ({ case: "textDelta", value: { text: value } }) as const;
const numbers = (from: number, count: number) => Array.from({ length: count }, (_, index) => BigInt(from + index));

test("events come in order from a number on, and those that follow later", async () => {
  const { service, cadre } = setUp();
  service.append(text("a"), text("b"), text("c"));
  const taken = take(cadre.sessions.events(fakeSessionId, { afterSeq: 1n, reconnect: atOnce }), 4);
  service.append(text("d"), text("e"));
  expect(await taken).toEqual([2n, 3n, 4n, 5n]);
});

test("whatever the connections do, no event is lost, repeated or out of order", async () => {
  const cut = fc.oneof(
    fc.record({
      kind: fc.constantFrom("error", "end", "silence", "repeat", "skip"),
      after: fc.nat(6),
    }) as fc.Arbitrary<Cut>,
    fc.constant<Cut>({ kind: "refuse" }),
  );
  // A skip at one place three times in a row is data loss, and has its own test.
  const cuts = fc.array(cut, { maxLength: 12 }).filter((list) => list.filter(({ kind }) => kind === "skip").length < 3);
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 25 }), cuts, fc.nat(3), async (count, list, after) => {
      const { service, cadre } = setUp();
      service.append(...Array.from({ length: count + after }, (_, index) => text(String(index))));
      service.breakNext(...list);
      const events = cadre.sessions.events(fakeSessionId, { afterSeq: BigInt(after), reconnect: atOnce });
      expect(await take(events, count)).toEqual(numbers(after + 1, count));
    }),
    { numRuns: 60 },
  );
});

test("leaving the loop ends the connection", async () => {
  const { service, cadre } = setUp();
  service.append(text("a"));
  await take(cadre.sessions.events(fakeSessionId), 1);
  await expect.poll(() => service.open).toBe(0);
});

test("a signal ends the iteration with CANCELLED, also while it waits", async () => {
  const { cadre, service } = setUp();
  const controller = new AbortController();
  const next = cadre.sessions.events(fakeSessionId, { signal: controller.signal }).next();
  await expect.poll(() => service.open).toBe(1);
  controller.abort(new Error("enough"));
  await expect(next).rejects.toMatchObject({ reason: "CANCELLED", cause: new Error("enough") });
  await expect.poll(() => service.open).toBe(0);
});

test("a hole that stays is data loss, and never passed over", async () => {
  const { service, cadre } = setUp();
  service.append(text("a"), text("b"), text("c"));
  const skip: Cut = { kind: "skip", after: 1 };
  service.breakNext(skip, { kind: "skip", after: 0 }, { kind: "skip", after: 0 });
  const events = cadre.sessions.events(fakeSessionId, { reconnect: atOnce });
  expect((await events.next()).value?.seq).toBe(1n);
  await expect(events.next()).rejects.toMatchObject({ reason: "DATA_LOSS" });
});

test("it gives up when the server was gone for the whole reconnect time, and tells of each break", async () => {
  const { service, cadre } = setUp();
  service.breakNext(...Array.from({ length: 500 }, (): Cut => ({ kind: "refuse" })));
  const attempts: number[] = [];
  const events = cadre.sessions.events(fakeSessionId, {
    reconnect: { initialDelayMs: 1, maxDelayMs: 5, maxElapsedMs: 60 },
    onBreak: ({ attempt }) => attempts.push(attempt),
  });
  await expect(events.next()).rejects.toMatchObject({ reason: "UNAVAILABLE", retryable: true });
  expect(attempts.slice(0, 3)).toEqual([1, 2, 3]);
});

test("what the server refuses for good is thrown at once", async () => {
  const transport = createRouterTransport((router) =>
    router.service(SessionService, {
      // biome-ignore lint/correctness/useYield: the call is refused before the first event
      async *streamEvents() {
        throw new ConnectError("no such session", Code.NotFound);
      },
    }),
  );
  const cadre = createCadre({ baseUrl: "http://fake", transport });
  const failure = await cadre.sessions
    .events(fakeSessionId)
    .next()
    .catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(CadreError);
  expect(failure).toMatchObject({ code: Code.NotFound, retryable: false });
});

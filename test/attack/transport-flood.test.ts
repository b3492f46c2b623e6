import { once } from "node:events";
import * as http2 from "node:http2";
import { setTimeout } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { leastOfThree } from "../support/least-of-three.ts";
import {
  codeOf,
  connectFrames,
  type FrameConnection,
  frame,
  frameType,
  grpcFields,
  h2Code,
  headerBlock,
} from "./h2-frames.ts";
import { doors, startTarget, type Target } from "./target.ts";
import { callConnect, envelope, sessionMethod } from "./wire-client.ts";

const sendTurn = sessionMethod("SendTurn");
const block = headerBlock(grpcFields(sendTurn));
const cancelled = Buffer.from([0, 0, 0, h2Code.cancel]);

// The same at both doors: the edge's own handler, and the gateway that is built on it.
describe.each(doors)("at the door of the %s", (door) => {
  let target: Target;
  beforeAll(async () => {
    target = await startTarget({ door });
  });
  afterAll(() => target.stop());

  /** The 95th percentile of good calls, in milliseconds, while something else happens. */
  async function latencyDuring(work: Promise<unknown>): Promise<number> {
    const times: number[] = [];
    let running = true;
    const ended = work.finally(() => {
      running = false;
    });
    while (running || times.length < 20) {
      const startMs = performance.now();
      expect(await callConnect(target.port, sendTurn, { text: "good" })).toMatchObject({ status: 200 });
      times.push(performance.now() - startMs);
    }
    await ended;
    times.sort((a, b) => a - b);
    return times[Math.floor(times.length * 0.95)] ?? 0;
  }

  async function abuseLines(): Promise<number> {
    return (await target.report()).lines.filter((line) => line.includes('"conn.abuse"')).length;
  }

  function isGoaway({ type }: { readonly type: number }): boolean {
    return type === frameType.goaway;
  }

  /** Sends chunks, so many each 10 ms, until GOAWAY comes; returns how many went out. */
  async function floodUntilGoaway(
    connection: FrameConnection,
    { chunks, per10Ms }: { readonly chunks: number; readonly per10Ms: number },
    make: (index: number) => Buffer,
  ): Promise<number> {
    for (let sent = 0; sent < chunks; sent += per10Ms) {
      if (connection.closed || connection.frames.some(isGoaway)) return sent;
      connection.send(...Array.from({ length: per10Ms }, (_, index) => make(sent + index)));
      await setTimeout(10);
    }
    return chunks;
  }

  /** A stream that is opened and given up at once. */
  function givenUp(stream: number): Buffer {
    return Buffer.concat([
      frame(frameType.headers, 4, stream, block),
      frame(frameType.rstStream, 0, stream, cancelled),
    ]);
  }

  describe("resets", () => {
    test("10,000 are stopped within 1,000 by GOAWAY, cost few handlers, and disturb nobody", async () => {
      const quietMs = await latencyDuring(Promise.resolve());
      // Twice, but for what a shared machine does to single calls.
      const promisedMs = Math.max(2 * quietMs, 500);
      const busyMs = await leastOfThree(promisedMs, async () => {
        const before = await target.report();
        const linesBefore = await abuseLines();
        const connection = await connectFrames(target.port);
        const flood = async () => {
          const rate = { chunks: 10_000, per10Ms: 10 };
          const sent = await floodUntilGoaway(connection, rate, (index) => givenUp(2 * index + 1));
          expect(codeOf(await connection.next(isGoaway))).toBe(h2Code.enhanceYourCalm);
          return sent;
        };
        const flooding = flood();
        const latencyMs = await latencyDuring(flooding);
        expect(await flooding).toBeLessThan(1_000);
        await connection.whenClosed();
        const after = await target.assertUnharmed();
        expect(after.entered - before.entered - 200).toBeLessThan(1_000);
        expect(await abuseLines()).toBe(linesBefore + 1);
        return latencyMs;
      });
      expect(busyMs).toBeLessThan(promisedMs);
    });

    test("100 in 10 s are allowed", async () => {
      const linesBefore = await abuseLines();
      const connection = await connectFrames(target.port);
      expect(await floodUntilGoaway(connection, { chunks: 100, per10Ms: 10 }, (index) => givenUp(2 * index + 1))).toBe(
        100,
      );
      connection.send(frame(frameType.headers, 4, 201, block), frame(frameType.data, 1, 201, envelope("")));
      await connection.next(
        ({ type, stream, flags }) => type === frameType.headers && stream === 201 && (flags & 1) === 1,
      );
      expect(connection.frames.some(isGoaway)).toBe(false);
      connection.socket.destroy();
      expect(await abuseLines()).toBe(linesBefore);
    });

    test("a call that runs on the same connection still gets its answer", async () => {
      const connection = await connectFrames(target.port);
      connection.send(frame(frameType.headers, 4, 1, block));
      await floodUntilGoaway(connection, { chunks: 500, per10Ms: 10 }, (index) => givenUp(2 * index + 3));
      expect(codeOf(await connection.next(isGoaway))).toBe(h2Code.enhanceYourCalm);
      connection.send(frame(frameType.data, 1, 1, envelope("")));
      const end = await connection.next(
        ({ type, stream, flags }) => stream === 1 && type === frameType.headers && (flags & 1) === 1,
      );
      expect(end.payload.length).toBeGreaterThan(0);
      await connection.whenClosed();
      await target.assertUnharmed();
    });
  });

  test("2,000 CONTINUATION frames end the connection", async () => {
    const before = await target.reset();
    const connection = await connectFrames(target.port);
    connection.send(frame(frameType.headers, 0, 1, block));
    const sent = await floodUntilGoaway(connection, { chunks: 2_000, per10Ms: 10 }, () =>
      frame(frameType.continuation, 0, 1, headerBlock([["x-a", "b".repeat(100)]])),
    );
    await connection.whenClosed();
    expect(sent).toBeLessThan(2_000);
    const after = await target.assertUnharmed();
    expect(after.maxRssBytes - before.rssBytes).toBeLessThan(32 * 1024 * 1024);
  });

  test("PINGs without a call are answered with GOAWAY within 100", async () => {
    const linesBefore = await abuseLines();
    const connection = await connectFrames(target.port);
    // At 5,000 a second; the 100 that it may take at most are enough.
    await floodUntilGoaway(connection, { chunks: 100, per10Ms: 50 }, () =>
      frame(frameType.ping, 0, 0, Buffer.alloc(8)),
    );
    expect(codeOf(await connection.next(isGoaway))).toBe(h2Code.enhanceYourCalm);
    await connection.whenClosed();
    await target.assertUnharmed();
    expect(await abuseLines()).toBe(linesBefore + 1);
  });

  test("PINGs beside a call that says nothing are answered with GOAWAY within 100", async () => {
    const connection = await connectFrames(target.port);
    connection.send(frame(frameType.headers, 4, 1, block));
    // At 5,000 a second; the 100 that it may take at most are enough.
    await floodUntilGoaway(connection, { chunks: 100, per10Ms: 50 }, () =>
      frame(frameType.ping, 0, 0, Buffer.alloc(8)),
    );
    expect(codeOf(await connection.next(isGoaway))).toBe(h2Code.enhanceYourCalm);
    connection.socket.destroy();
    await target.assertUnharmed();
  });

  test("a PING after each answer, as gRPC clients send it, is no abuse", async () => {
    const connection = await connectFrames(target.port);
    for (let index = 0; index < 50; index++) {
      const stream = 2 * index + 1;
      connection.send(frame(frameType.headers, 4, stream, block), frame(frameType.data, 1, stream, envelope("")));
      await connection.next(
        (answer) => answer.stream === stream && answer.type === frameType.headers && (answer.flags & 1) === 1,
      );
      const before = connection.frames.length;
      connection.send(frame(frameType.ping, 0, 0, Buffer.alloc(8)));
      await connection.next((answer) => connection.frames.indexOf(answer) >= before && answer.type === frameType.ping);
    }
    expect(connection.frames.some(isGoaway)).toBe(false);
    connection.socket.destroy();
  });

  test.each([
    ["empty", Buffer.alloc(0)],
    ["with a window", Buffer.from([0, 4, 0, 0, 255, 255])],
  ])("SETTINGS frames %s without end are answered with GOAWAY", async (_, payload) => {
    const connection = await connectFrames(target.port);
    const sent = await floodUntilGoaway(connection, { chunks: 5_000, per10Ms: 50 }, () =>
      frame(frameType.settings, 0, 0, payload),
    );
    expect(sent).toBeLessThan(1_000);
    await connection.whenClosed();
    await target.assertUnharmed();
  });

  test("a SETTINGS frame of 17 entries is refused", async () => {
    const connection = await connectFrames(target.port);
    connection.send(
      frame(frameType.settings, 0, 0, Buffer.concat(Array<Buffer>(17).fill(Buffer.from([0, 4, 0, 0, 255, 255])))),
    );
    await connection.whenClosed();
    await target.assertUnharmed();
  });

  test("of 1,001 streams on one connection 100 are open, and no more come in", async () => {
    await expect.poll(async () => (await target.report()).stats.requests).toBe(0);
    const connection = await connectFrames(target.port);
    for (let index = 0; index < 1_001 && !connection.closed; index++) {
      await connection.flush(frame(frameType.headers, 4, 2 * index + 1, block));
      if (index === 99) {
        await expect.poll(async () => (await target.report()).stats.requests).toBe(100);
      }
    }
    // nghttp2 refuses a stream until the client has acknowledged the limit; after that it is a breach of the protocol.
    const refused = await connection.next(({ type }) => type === frameType.rstStream || type === frameType.goaway);
    expect([h2Code.refusedStream, h2Code.protocolError]).toContain(codeOf(refused));
    expect((await target.report()).stats.requests).toBeLessThanOrEqual(100);
    connection.socket.destroy();
    await expect.poll(async () => (await target.report()).stats.requests).toBe(0);
    await target.assertUnharmed();
  });

  test("an honest client of HTTP/2 makes 2,000 calls on one connection", async () => {
    const session = http2.connect(`http://127.0.0.1:${target.port}`);
    try {
      for (let round = 0; round < 40; round++) {
        await Promise.all(
          Array.from({ length: 50 }, async () => {
            const stream = session.request({
              ":method": "POST",
              ":path": sendTurn,
              "content-type": "application/grpc",
            });
            stream.end(envelope(""));
            stream.resume();
            const [trailers] = await once(stream, "trailers");
            expect(trailers).toMatchObject({ "grpc-status": "0" });
          }),
        );
      }
    } finally {
      session.destroy();
    }
  });

  test("connections past the limit of their source are closed, and the gauge counts them", async () => {
    const small = await startTarget({ door, limits: { maxConnectionsPerSource: 5 } });
    try {
      const open = await Promise.all(Array.from({ length: 5 }, () => connectFrames(small.port)));
      await expect(connectFrames(small.port)).rejects.toThrow();
      expect((await small.report()).stats).toMatchObject({ connections: 5, rejected: { source: 1 } });
      for (const connection of open) connection.socket.destroy();
      await expect.poll(async () => (await small.report()).stats.connections).toBe(0);
      await small.assertUnharmed();
    } finally {
      await small.stop();
    }
  });
});

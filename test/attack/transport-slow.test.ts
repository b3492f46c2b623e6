import { once } from "node:events";
import { readdir } from "node:fs/promises";
import * as net from "node:net";
import * as tls from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { leastOfThree } from "../support/least-of-three.ts";
import { connectFrames, type FrameConnection, frame, frameType, grpcFields, headerBlock } from "./h2-frames.ts";
import { selfSigned } from "./self-signed.ts";
import { doors, startTarget, type Target } from "./target.ts";
import { call, callConnect, envelope, sessionMethod } from "./wire-client.ts";

const mebibyte = 1024 * 1024;
const sendTurn = sessionMethod("SendTurn");
const streamEvents = sessionMethod("StreamEvents");

/** The timeouts of the defaults, shortened by about 20. */
const limits = {
  maxConnectionsPerSource: 2_000,
  firstByteTimeoutMs: 500,
  tlsHandshakeTimeoutMs: 500,
  headersTimeoutMs: 600,
  requestTimeoutMs: 3_000,
  checkIntervalMs: 100,
  bodyGraceMs: 500,
  lingerMs: 300,
  stallTimeoutMs: 1_000,
};

async function openFiles(target: Target): Promise<number> {
  return (await readdir(`/proc/${target.pid}/fd`)).length;
}

/**
 * Opens plain connections that say `first`, then `drip` again and again. Resolves
 * when all were closed by the server, with how long the longest lived, in milliseconds.
 */
async function drip(
  port: number,
  count: number,
  first: string | Buffer,
  dripped: string | Buffer,
  everyMs: number,
): Promise<number> {
  const livesMs = await Promise.all(
    Array.from({ length: count }, async () => {
      const socket = net.connect(port, "127.0.0.1");
      socket.on("error", () => {
        // "close" follows.
      });
      socket.resume();
      await once(socket, "connect");
      const startMs = performance.now();
      if (first.length > 0) socket.write(first);
      const timer = dripped.length === 0 ? undefined : setInterval(() => socket.write(dripped), everyMs);
      // Not `once`, which takes a reset for a failure.
      await new Promise((resolve) => socket.once("close", resolve));
      clearInterval(timer);
      return performance.now() - startMs;
    }),
  );
  return Math.max(...livesMs);
}

// The same at both doors: the edge's own handler, and the gateway that is built on it.
describe.each(doors)("at the door of the %s", (door) => {
  describe("in plain text", () => {
    let target: Target;
    beforeAll(async () => {
      target = await startTarget({ door, limits });
    });
    afterAll(() => target.stop());

    const head = `POST ${sendTurn} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnect-Protocol-Version: 1\r\n`;
    const preface = Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(frameType.settings, 0, 0)]);
    const h2Head = frame(frameType.headers, 4, 1, headerBlock(grpcFields(sendTurn)));
    const cutHead = Buffer.concat([preface, h2Head.subarray(0, 12)]);

    test.each([
      ["500 that say nothing", 500, "", "", 0, limits.firstByteTimeoutMs],
      ["100 that say one letter of HTTP/2", 100, "P", "", 0, limits.firstByteTimeoutMs],
      ["500 that drip a header of HTTP/1.1", 500, head, "x", 100, limits.headersTimeoutMs],
      ["100 that end within a header", 100, head, "", 0, limits.headersTimeoutMs],
      ["100 that end within the preface of HTTP/2", 100, "PRI * HT", "", 0, limits.headersTimeoutMs],
      ["100 that drip a header of HTTP/2", 100, cutHead, "x", 100, 2 * limits.headersTimeoutMs],
      ["200 that drip a body over HTTP/1.1", 200, `${head}Content-Length: 1000\r\n\r\n{`, " ", 100, limits.bodyGraceMs],
      [
        "200 that end within a body over HTTP/1.1",
        200,
        `${head}Content-Length: 1000\r\n\r\n{`,
        "",
        0,
        limits.bodyGraceMs,
      ],
    ])("%s are closed in time, and their files with them", async (_, count, first, dripped, everyMs, withinMs) => {
      await target.assertUnharmed();
      await expect.poll(async () => (await target.report()).stats.connections).toBe(0);
      const files = await openFiles(target);
      // The timeout, the sweeps, and what hundreds of connections take on a busy machine.
      const closedMs = withinMs + limits.checkIntervalMs + limits.lingerMs + 2_500;
      const longestMs = await leastOfThree(closedMs, async () => {
        const attack = drip(target.port, count, first, dripped, everyMs);
        for (let index = 0; index < 10; index++) {
          expect(await callConnect(target.port, sendTurn, { text: "good" })).toMatchObject({ status: 200 });
        }
        return await attack;
      });
      expect(longestMs).toBeLessThan(closedMs);
      await expect.poll(async () => (await target.report()).stats.connections).toBe(0);
      expect(await openFiles(target)).toBeLessThanOrEqual(files + 2);
      await target.assertUnharmed();
    });

    test("200 bodies that drip over HTTP/2 are ended with deadline_exceeded", async () => {
      const connections: FrameConnection[] = await Promise.all(
        Array.from({ length: 4 }, () => connectFrames(target.port)),
      );
      const timers = connections.map((connection) => {
        for (let index = 0; index < 50; index++) {
          connection.send(frame(frameType.headers, 4, 2 * index + 1, headerBlock(grpcFields(sendTurn))));
        }
        return setInterval(() => {
          for (let index = 0; index < 50; index++)
            connection.send(frame(frameType.data, 0, 2 * index + 1, Buffer.alloc(1)));
        }, 100);
      });
      try {
        for (const connection of connections) {
          await expect
            .poll(
              () =>
                connection.closed ||
                connection.frames.filter(({ type, flags }) => type === frameType.headers && (flags & 1) === 1)
                  .length === 50,
              { timeout: 5_000 },
            )
            .toBe(true);
        }
        await expect.poll(async () => (await target.report()).stats.requests).toBe(0);
        const report = await target.assertUnharmed();
        expect(report.inFlightBytes).toBe(0);
      } finally {
        for (const timer of timers) clearInterval(timer);
        for (const connection of connections) connection.socket.destroy();
      }
    });

    test("a slow body is answered in the form of its protocol", async () => {
      const socket = net.connect(target.port, "127.0.0.1");
      socket.write(`${head}Content-Length: 1000\r\n\r\n{`);
      const chunks: Buffer[] = [];
      socket.on("data", (chunk: Buffer) => chunks.push(chunk));
      await once(socket, "close");
      const text = Buffer.concat(chunks).toString();
      expect(text).toMatch(/^HTTP\/1\.1 504 /);
      expect(text).toContain('"code":"deadline_exceeded"');
    });

    test("a body that comes slowly, but fast enough, is taken", async () => {
      const socket = net.connect(target.port, "127.0.0.1");
      const body = JSON.stringify({ text: "a".repeat(20_000) });
      socket.write(`${head}Connection: close\r\nContent-Length: ${body.length}\r\n\r\n`);
      for (let position = 0; position < body.length; position += 1_000) {
        socket.write(body.slice(position, position + 1_000));
        await new Promise((resolve) => setTimeout(resolve, 40));
      }
      const [chunk] = (await once(socket, "data")) as [Buffer];
      expect(chunk.toString()).toMatch(/^HTTP\/1\.1 200 /);
      socket.destroy();
    });

    describe("readers that do not read", () => {
      const events = 50_000;
      const body = JSON.stringify({ sessionId: "s", afterSeq: String(events) });
      const request = Buffer.concat([
        Buffer.from(
          `POST ${streamEvents} HTTP/1.1\r\nHost: a\r\nContent-Type: application/connect+json\r\nConnect-Protocol-Version: 1\r\nContent-Length: ${body.length + 5}\r\n\r\n`,
        ),
        envelope(body),
      ]);

      test("50 of 50,000 events each hold at most their buffer, and end; another stream loses nothing", {
        timeout: 60_000,
      }, async () => {
        const before = await target.reset();
        const sockets = await Promise.all(
          Array.from({ length: 50 }, async () => {
            const socket = net.connect(target.port, "127.0.0.1");
            socket.pause();
            socket.on("error", () => {
              // It is cut in the end.
            });
            await once(socket, "connect");
            socket.write(request);
            return socket;
          }),
        );
        const other = call(target.port, "grpc", streamEvents, JSON.stringify({ afterSeq: "2000" }), {
          json: true,
          stream: true,
        });
        expect((await other).messages).toHaveLength(2_000);
        // All are looked at until the last has ended; the process holds less than 1 MiB of each.
        let held = await target.report();
        let maxHeldBytes = 0;
        while (held.stats.requests > 0) {
          maxHeldBytes = Math.max(maxHeldBytes, held.heldBytes);
          held = await target.report();
        }
        expect(maxHeldBytes).toBeGreaterThan(0);
        expect(maxHeldBytes - before.heldBytes).toBeLessThan(50 * mebibyte);
        const after = await target.assertUnharmed();
        expect(after.streamed - before.streamed - 2_000).toBeLessThan(50 * events * 0.5);
        expect(after.lines.join("\n")).toContain("SLOW_READER");
        for (const socket of sockets) socket.destroy();
      });

      test("one over HTTP/1.1 that wakes up late finds the end of its stream, and how to go on", async () => {
        const slowReaders = async () =>
          (await target.report()).lines.filter((line) => line.includes("SLOW_READER")).length;
        const before = await slowReaders();
        const socket = net.connect(target.port, "127.0.0.1");
        socket.pause();
        socket.write(request);
        await expect.poll(slowReaders).toBeGreaterThan(before);
        await new Promise((resolve) => setTimeout(resolve, limits.stallTimeoutMs + 300));
        const chunks: Buffer[] = [];
        socket.on("data", (chunk: Buffer) => chunks.push(chunk));
        socket.resume();
        await expect.poll(() => Buffer.concat(chunks).subarray(-2_000).toString().includes("0\r\n\r\n")).toBe(true);
        const text = Buffer.concat(chunks).toString("latin1");
        expect(text).toContain('"code":"resource_exhausted"');
        expect(text).toContain("resume after the last event");
        socket.destroy();
      });

      test("one over HTTP/2 that wakes up late finds the end of its stream", async () => {
        const connection = await connectFrames(target.port);
        const json = grpcFields(streamEvents).map(([name, text]): [string, string] => [
          name,
          text.replace("+proto", "+json"),
        ]);
        connection.send(frame(frameType.headers, 4, 1, headerBlock(json)), frame(frameType.data, 1, 1, envelope(body)));
        // The window of 64 KiB is never opened, until the server has given up.
        await expect
          .poll(() =>
            connection.frames
              .filter(({ type }) => type === frameType.data)
              .reduce((sum, { payload }) => sum + payload.length, 0),
          )
          .toBe(65_535);
        await new Promise((resolve) => setTimeout(resolve, 3 * limits.stallTimeoutMs));
        const window = Buffer.from([0x3f, 0xff, 0xff, 0xff]);
        connection.send(frame(8, 0, 0, window), frame(8, 0, 1, window));
        const trailers = await connection.next(
          ({ type, stream, flags }) => type === frameType.headers && stream === 1 && (flags & 1) === 1,
        );
        expect(trailers.payload.length).toBeGreaterThan(0);
        const sent = connection.frames
          .filter(({ type }) => type === frameType.data)
          .reduce((sum, { payload }) => sum + payload.length, 0);
        expect(sent).toBeLessThan(1.25 * mebibyte);
        connection.socket.destroy();
        await target.assertUnharmed();
      });

      test("one that reads slowly, but reads, gets everything", async () => {
        const socket = net.connect(target.port, "127.0.0.1");
        socket.write(Buffer.from(request.toString("latin1").replace("50000", "20000"), "latin1"));
        let received = 0;
        let tail = "";
        socket.on("data", (chunk: Buffer) => {
          received += chunk.length;
          tail = (tail + chunk.toString("latin1")).slice(-200);
          socket.pause();
          setTimeout(() => socket.resume(), 2);
        });
        await expect.poll(() => tail.endsWith("0\r\n\r\n")).toBe(true);
        expect(received).toBeGreaterThan(20_000 * 1_000);
        socket.destroy();
      });
    });
  });

  describe("over TLS", () => {
    let target: Target;
    beforeAll(async () => {
      target = await startTarget({ door, limits, tls: await selfSigned() });
    });
    afterAll(() => target.stop());

    test.each([
      ["nothing", ""],
      ["half a record", "\x16\x03\x01\x02\x00\x01"],
    ])("500 handshakes of %s are cut in time", async (_, first) => {
      const cutMs = limits.tlsHandshakeTimeoutMs + 2_500;
      const attack = () => drip(target.port, 500, Buffer.from(first, "latin1"), "", 0);
      expect(await leastOfThree(cutMs, attack)).toBeLessThan(cutMs);
      const report = await target.assertUnharmed();
      expect(report.stats.rejected.handshake + report.stats.rejected.first_byte).toBeGreaterThanOrEqual(500);
    });

    test("plain text is refused", async () => {
      const plain = () => drip(target.port, 1, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", 0);
      expect(await leastOfThree(2_000, plain)).toBeLessThan(2_000);
      await target.assertUnharmed();
    });

    test("a handshake that ends and says nothing more is cut", async () => {
      const cutMs = limits.headersTimeoutMs + 1_500;
      const longestMs = await leastOfThree(cutMs, async () => {
        const socket = tls.connect({ port: target.port, host: "127.0.0.1", rejectUnauthorized: false });
        socket.on("error", () => {
          // "close" follows.
        });
        await once(socket, "secureConnect");
        const startMs = performance.now();
        await once(socket, "close");
        return performance.now() - startMs;
      });
      expect(longestMs).toBeLessThan(cutMs);
      await target.assertUnharmed();
    });
  });
});

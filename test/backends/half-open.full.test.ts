import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { eventIdOf } from "../../services/runtime/bus/envelope.ts";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { conversationTurns } from "../../services/runtime/bus/topics.ts";
import { AppError } from "../../services/runtime/errors/app-error.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { collectEvents } from "../support/collect-events.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { turnEvent } from "../support/turn-facts.ts";
import { freePorts } from "./free-ports.ts";
import { createKafkaNode, type KafkaNode } from "./kafka-node.ts";
import { makeTopics } from "./kafka-topics.ts";

// Connections of which one side, or neither, hears that they are gone.

const log = pino({ level: "silent" });
const topics = [conversationTurns];
/** Until a dead connection is found out and another one used, in milliseconds. */
const foundWithinMs = 40_000;
let directory: string;
let node: KafkaNode;
let proxy: TcpProxy;
let connection: KafkaConnection;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "cadre kafka "));
  const [plain = 0, controller = 0] = await freePorts(2);
  proxy = await startTcpProxy(`127.0.0.1:${plain}`);
  node = await createKafkaNode({
    clusterId: randomBytes(16).toString("base64url"),
    nodeId: 1,
    directory,
    ports: { plain, controller },
    advertisedPort: Number(proxy.address.split(":")[1]),
    voters: [{ nodeId: 1, port: controller }],
    copies: 1,
  });
  await node.start();
  connection = { brokers: [proxy.address] };
  await makeTopics(connection, topics);
});
afterAll(async () => {
  await proxy.close();
  await node.crash();
  await rm(directory, { recursive: true, force: true });
});

function isUnavailable(thrown: unknown): false {
  if (thrown instanceof AppError && thrown.reason === "UNAVAILABLE") return false;
  throw thrown;
}

test.each(["both", "up", "down"] as const)(
  "what gets lost unheard, %s: publisher and consumer go on within 40 s",
  {
    timeout: 240_000,
  },
  async (direction) => {
    const bus = openKafkaEventBus({ connection: async () => connection, log, topics });
    onTestFinished(() => bus.close());
    const read = collectEvents(bus, conversationTurns.name, `test.${direction}`);
    const orgId = newId("org");
    const sessionId = newId("ses");
    const isRead = (eventId: string) => read.events.some((event) => eventIdOf(event) === eventId);
    const first = await turnEvent(orgId, sessionId, 1);
    await bus.publish([first]);
    await expect.poll(() => isRead(eventIdOf(first)), { timeout: 60_000 }).toBe(true);

    proxy.forget(direction);
    const lostMs = performance.now();
    const second = await turnEvent(orgId, sessionId, 2);
    // As a relay does: what was not acknowledged is published again.
    while (!(await bus.publish([second]).then(() => true, isUnavailable))) {
      expect(performance.now() - lostMs).toBeLessThan(foundWithinMs);
    }
    const publishedMs = performance.now() - lostMs;
    await expect.poll(() => isRead(eventIdOf(second)), { timeout: 2 * foundWithinMs }).toBe(true);
    const readMs = performance.now() - lostMs;
    process.stdout.write(
      `${direction}: published after ${Math.round(publishedMs)} ms, read after ${Math.round(readMs)} ms\n`,
    );
    expect(publishedMs).toBeLessThan(foundWithinMs);
    expect(readMs).toBeLessThan(foundWithinMs);
  },
);

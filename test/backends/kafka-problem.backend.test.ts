import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import pino from "pino";
import { afterAll, expect, inject, test } from "vitest";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { type KafkaEventBus, openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { numberedEvent } from "../support/event-bus-contract.ts";
import { createTestAuthority } from "./kafka-certificates.ts";
import { makeTopics, removeTopics } from "./kafka-topics.ts";

const log = pino({ level: "silent" });
const topic = `problems-${randomUUID()}`;
const opened: KafkaEventBus[] = [];

afterAll(async () => {
  await Promise.all(opened.map((bus) => bus.close()));
});

function open(connection: () => Promise<KafkaConnection>, partitions = 3): KafkaEventBus {
  const bus = openKafkaEventBus({ connection, log, topics: [{ name: topic, partitions }], sessionMs: 6_000 });
  opened.push(bus);
  return bus;
}

const publish = (bus: KafkaEventBus) => bus.publish([numberedEvent(topic, "k", 1)]);

function addressOf(server: Server): string {
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the server does not listen");
  return `127.0.0.1:${address.port}`;
}

/** Both who publishes and who asks for readiness are told the same. */
async function expectProblem(bus: KafkaEventBus, told: RegExp): Promise<void> {
  await expect(publish(bus)).rejects.toMatchObject({ reason: "UNAVAILABLE", message: expect.stringMatching(told) });
  await expect
    .poll(() => bus.dependency.check(), { timeout: 20_000 })
    .toEqual({ state: ServingState.NOT_SERVING, detail: expect.stringMatching(told) });
}

test("brokers that cannot be reached are named; once they can, all goes on", async () => {
  // A port that is ours, and where nobody listens any more.
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  let connection: KafkaConnection = { brokers: [addressOf(server)] };
  await new Promise((resolve) => server.close(resolve));
  const bus = open(async () => connection, 1);
  await expectProblem(bus, /cannot be reached at 127\.0\.0\.1:\d+: connect ECONNREFUSED.*CADRE_KAFKA_BROKERS/);

  const handled: string[] = [];
  const subscription = bus.subscribe({
    topic,
    group: "late",
    handle: async ({ headers }) => {
      handled.push(headers.number ?? "");
    },
  });
  connection = inject("secureKafka");
  await makeTopics(connection, [{ name: topic, partitions: 1 }]);
  await publish(bus);
  await expect.poll(() => handled, { timeout: 20_000 }).toEqual(["1"]);
  await expect
    .poll(() => bus.dependency.check(), { timeout: 20_000 })
    .toEqual({ state: ServingState.SERVING, detail: "" });
  await subscription.stop();
});

test("a wrong password is named, and never shown", async () => {
  const { sasl, ...rest } = inject("secureKafka");
  if (sasl === undefined) throw new Error("this broker asks for a password");
  const bus = open(async () => ({ ...rest, sasl: { ...sasl, password: "not-the-password" } }));
  await expectProblem(bus, /refuses the user or the password.*CADRE_KAFKA_PASSWORD_FILE/);
  expect((await bus.dependency.check()).detail).not.toContain("not-the-password");
});

test("an authority that did not sign the broker's certificate is named", async () => {
  const { sasl, brokers } = inject("secureKafka");
  const bus = open(async () => ({ brokers, tls: {}, ...(sasl === undefined ? {} : { sasl }) }));
  await expectProblem(bus, /certificate of the Kafka broker at 127\.0\.0\.1:\d+ is not trusted.*CADRE_KAFKA_CA_FILE/);
});

test("a broker without TLS is named", async () => {
  const bus = open(async () => ({ ...inject("kafka"), tls: {} }));
  await expectProblem(bus, /TLS/);
});

test("an expired certificate of a broker is named", async () => {
  const authority = await createTestAuthority();
  const { certificate: cert, key } = await authority.issue("kafka", -60_000);
  // TLS ends before Kafka begins, so any server does; Kafka itself does not start with such a certificate.
  const server = createTlsServer({ cert, key }).on("tlsClientError", () => undefined);
  try {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const bus = open(async () => ({ brokers: [addressOf(server)], tls: { authority: authority.certificate } }));
    await expectProblem(bus, /certificate of the Kafka broker at 127\.0\.0\.1:\d+ has expired\. Renew/);
    await bus.close();
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});

test("an expired certificate of ours is named", async () => {
  const { tls, ...rest } = inject("secureKafka");
  const bus = open(async () => ({ ...rest, tls: { ...tls, ...inject("expiredClient") } }));
  await expectProblem(bus, /refused our side of TLS.*CADRE_KAFKA_CERT_FILE/);
});

test("a topic that is missing, and one that has other partitions, are named", async () => {
  await removeTopics(inject("kafka"), [topic]);
  const bus = open(async () => inject("kafka"));
  await expectProblem(bus, /topic.*cadre topics apply/);
  await makeTopics(inject("kafka"), [{ name: topic, partitions: 5 }]);
  await expectProblem(bus, new RegExp(`the topic ${topic} has 5 partitions, and its keys are spread over 3`));
});

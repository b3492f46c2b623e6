import { expect, test } from "vitest";
import { ConfigurationError } from "../../config/settings.ts";
import { type KafkaProblemKind, missingTopic, toKafkaProblem } from "./kafka-problem.ts";

/** An error as kafkajs makes them: a name and what else it says. */
function errorOf(name: string, message: string, more: object = {}): Error {
  return Object.assign(new Error(message), { name, ...more });
}

const cases: readonly (readonly [string, Error, KafkaProblemKind])[] = [
  [
    "a connection that is refused",
    errorOf("KafkaJSConnectionError", "connect ECONNREFUSED", { code: "ECONNREFUSED" }),
    "unreachable",
  ],
  ["a name that nobody knows", errorOf("Error", "getaddrinfo", { code: "ENOTFOUND" }), "unreachable"],
  ["an expired certificate", errorOf("KafkaJSConnectionError", "expired", { code: "CERT_HAS_EXPIRED" }), "certificate"],
  ["our expired certificate", errorOf("KafkaJSConnectionError", "ssl/tls alert certificate expired:x"), "certificate"],
  ["a broker without TLS", errorOf("KafkaJSConnectionError", "wrong version number"), "certificate"],
  ["a wrong password", errorOf("KafkaJSSASLAuthenticationError", "no"), "authentication"],
  ["no right", errorOf("KafkaJSProtocolError", "no", { type: "GROUP_AUTHORIZATION_FAILED" }), "authorization"],
  [
    "no topic",
    errorOf("KafkaJSProtocolError", "no", { type: "UNKNOWN_TOPIC_OR_PARTITION", retriable: true }),
    "missing_topic",
  ],
  ["too much", errorOf("KafkaJSProtocolError", "no", { type: "MESSAGE_TOO_LARGE" }), "too_large"],
  [
    "a coordinator that loads",
    errorOf("KafkaJSProtocolError", "loads", { type: "GROUP_LOAD_IN_PROGRESS", retriable: true }),
    "not_yet",
  ],
  ["a file that is not there", new ConfigurationError(["CADRE_KAFKA_CA_FILE cannot be read"]), "configuration"],
  ["what nobody has seen", new Error("something"), "failed"],
];

test.each(cases)("%s is told with its remedy, however deep it lies", (_, error, kind) => {
  for (const thrown of [error, new Error("retries", { cause: new Error("more", { cause: error }) })]) {
    const problem = toKafkaProblem(thrown);
    expect(problem.kind).toBe(kind);
    expect(problem.remedy).not.toBe("");
    expect(problem.retriable).toBe(false);
  }
});

test("a problem stays what it is", () => {
  const problem = missingTopic("agent.runs.v1");
  expect(toKafkaProblem(new Error("outer", { cause: problem }))).toBe(problem);
  expect(problem.message).toContain("agent.runs.v1");
});

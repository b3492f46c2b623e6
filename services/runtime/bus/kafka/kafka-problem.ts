import { ConfigurationError } from "../../config/settings.ts";

/** What is wrong with Kafka, as an operator tells it apart. */
export type KafkaProblemKind =
  | "not_yet"
  | "configuration"
  | "unreachable"
  | "certificate"
  | "authentication"
  | "authorization"
  | "missing_topic"
  | "other_partitions"
  | "too_large"
  | "failed";

/** Why Kafka does not do what is asked, in words for an operator: what it is, and the remedy. Never with a secret. */
export class KafkaProblem extends Error {
  override readonly name = "KafkaProblem";
  readonly kind: KafkaProblemKind;
  /** What to do about it. */
  readonly remedy: string;
  /** Read by kafkajs: it does not try again by itself what only an operator can mend. */
  readonly retriable = false;

  constructor(kind: KafkaProblemKind, message: string, remedy: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
    this.remedy = remedy;
  }
}

/** A topic that Kafka does not have. */
export function missingTopic(topic: string): KafkaProblem {
  return new KafkaProblem("missing_topic", `Kafka has no topic ${topic}`, "Run: cadre topics apply");
}

/** A topic whose keys would lie in other partitions than they did. */
export function otherPartitions(topic: string, found: number, expected: number): KafkaProblem {
  return new KafkaProblem(
    "other_partitions",
    `the topic ${topic} has ${found} partitions, and its keys are spread over ${expected}`,
    `Another number moves keys to other partitions and loses their order: make the topic anew with ${expected}.`,
  );
}

/** What an error of kafkajs, of TLS or of a socket means. A problem stays what it is. */
export function toKafkaProblem(error: unknown): KafkaProblem {
  const chain = causesOf(error);
  const known = chain.find((one) => one instanceof KafkaProblem);
  if (known !== undefined) return known;
  for (const one of chain) {
    const problem = problemOf(one);
    if (problem !== undefined) return problem;
  }
  const text = chain.at(-1)?.message ?? String(error);
  return new KafkaProblem("failed", `Kafka refuses: ${text}`, "Look into the log of the brokers.", { cause: error });
}

/** An error and what caused it, the outermost first; at most eight. */
function causesOf(error: unknown): readonly Error[] {
  const chain: Error[] = [];
  for (let one = error; one instanceof Error && chain.length < 8; one = one.cause) chain.push(one);
  return chain;
}

const certificateCodes: ReadonlySet<string> = new Set([
  "CERT_HAS_EXPIRED",
  "CERT_NOT_YET_VALID",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "ERR_TLS_CERT_ALTNAME_INVALID",
]);

function problemOf(error: Error): KafkaProblem | undefined {
  const options = { cause: error };
  const code = textOf(error, "code");
  if (error instanceof ConfigurationError) {
    return new KafkaProblem("configuration", error.problems.join("; "), "Correct the settings of Kafka.", options);
  }
  const broker = textOf(error, "broker");
  const at = broker === "" ? "" : ` at ${broker}`;
  if (certificateCodes.has(code)) {
    const what = code === "CERT_HAS_EXPIRED" ? "has expired" : `is not trusted (${code})`;
    const remedy =
      code === "CERT_HAS_EXPIRED"
        ? "Renew the broker's certificate."
        : "Name the authority that signed it in CADRE_KAFKA_CA_FILE, and the brokers by a name that it is for.";
    return new KafkaProblem("certificate", `the certificate of the Kafka broker${at} ${what}`, remedy, options);
  }
  const [, alert] = /\balert ([a-z ]+)/.exec(error.message) ?? [];
  if (alert !== undefined) {
    return new KafkaProblem(
      "certificate",
      `the Kafka broker${at} refused our side of TLS: ${alert}`,
      "Give it a certificate that it trusts and that has not expired: CADRE_KAFKA_CERT_FILE and CADRE_KAFKA_KEY_FILE.",
      options,
    );
  }
  if (/wrong version number|packet length too long/i.test(error.message)) {
    return new KafkaProblem(
      "certificate",
      `the Kafka broker${at} does not speak TLS`,
      "Name the broker's TLS port in CADRE_KAFKA_BROKERS, or set CADRE_KAFKA_TLS=false.",
      options,
    );
  }
  if (error.name === "KafkaJSSASLAuthenticationError") {
    return new KafkaProblem(
      "authentication",
      "Kafka refuses the user or the password",
      "Correct CADRE_KAFKA_USERNAME, CADRE_KAFKA_PASSWORD_FILE and CADRE_KAFKA_SASL_MECHANISM.",
      options,
    );
  }
  const type = textOf(error, "type");
  if (type.endsWith("_AUTHORIZATION_FAILED")) {
    return new KafkaProblem(
      "authorization",
      `Kafka does not allow it: ${error.message}`,
      "Give the user of CADRE_KAFKA_USERNAME the rights to its topics and groups.",
      options,
    );
  }
  if (type === "UNKNOWN_TOPIC_OR_PARTITION") {
    return new KafkaProblem("missing_topic", "Kafka lacks a topic", "Run: cadre topics apply", options);
  }
  if (type === "MESSAGE_TOO_LARGE" || type === "RECORD_LIST_TOO_LARGE") {
    return new KafkaProblem(
      "too_large",
      "an event is larger than the topic allows",
      "Raise the topic's max.message.bytes.",
      options,
    );
  }
  if (error.name === "KafkaJSProtocolError" && Reflect.get(error, "retriable") === true) {
    return new KafkaProblem("not_yet", `Kafka cannot do it now: ${error.message}`, "It is tried again.", options);
  }
  if (error.name.startsWith("KafkaJSConnection") || /^E[A-Z]+$/.test(code)) {
    return new KafkaProblem(
      "unreachable",
      `Kafka cannot be reached${at}: ${error.message.replace(/^Connection error: /, "")}`,
      "Start the brokers, or correct CADRE_KAFKA_BROKERS and CADRE_KAFKA_TLS.",
      options,
    );
  }
  return undefined;
}

function textOf(error: Error, property: string): string {
  const value: unknown = Reflect.get(error, property);
  return typeof value === "string" ? value : "";
}

import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { timestampNow, type Value } from "@bufbuild/protobuf/wkt";
import { RunChange, type RunChanged } from "@cadre/gen/cadre/events/v1/run_pb";
import { RunRequestedSchema } from "@cadre/gen/cadre/events/v1/run_request_pb";
import { reasonName, type SignedRunRequest, valueOf } from "@cadre/sdk";
import pino from "pino";
import { type DeadLetterFailure, fromDeadLetterEvent } from "../../services/runtime/bus/dead-letter-event.ts";
import { type EventCodec, envelopeHeader } from "../../services/runtime/bus/envelope.ts";
import type { BusEvent } from "../../services/runtime/bus/event-bus.ts";
import { kafkaGroupOf, resetOffsets } from "../../services/runtime/bus/kafka/kafka-offsets.ts";
import { KafkaProblem } from "../../services/runtime/bus/kafka/kafka-problem.ts";
import { kafkaSettings } from "../../services/runtime/bus/kafka/kafka-settings.ts";
import { type KafkaEventBus, openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { openEventCodec } from "../../services/runtime/bus/open-event-codec.ts";
import { agentRuns, agentRunsRequested, deadLetterTopicOf } from "../../services/runtime/bus/topics.ts";
import { parseSettings } from "../../services/runtime/config/settings.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { platformSettings } from "../../services/runtime/platform/platform-settings.ts";
import { type ExitCode, exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printJson, printLine, printNotice } from "../output.ts";
import { askKafka, connectionOf, toCliError } from "./kafka-target.ts";

export interface RunByBusOptions {
  /** Whether what is printed is JSON. */
  readonly json: boolean;
  /** Whether the run's end is waited for. */
  readonly wait: boolean;
  /** For how long it is, in milliseconds. */
  readonly timeoutMs: number;
}

const topics = [agentRuns.name, deadLetterTopicOf(agentRunsRequested.name)] as const;

/**
 * Publishes a signed request for a run and, if that is wanted, waits for what
 * is told of the run through the broker; nothing else is asked.
 *
 * @param sign signs it; asked once it is known where to go
 * @throws CliError 78 without brokers, 69 if they cannot be reached, 77 if they do not allow it, 1 if the request is
 *   refused or nothing is told in time
 */
export async function runByBus(
  sign: () => Promise<SignedRunRequest>,
  { wait, json, timeoutMs }: RunByBusOptions,
): Promise<ExitCode> {
  assertBrokers();
  const codec = ownCodec();
  const { orgId, request, token, idempotencyKey } = await sign();
  const metadata = { eventId: newId("evt"), seq: 1n, at: timestampNow(), orgId, requestId: newId("req") };
  const fact = create(RunRequestedSchema, { metadata, request, token });
  const event = await codec.encode(agentRunsRequested, fact, { orgId, traceparent: process.env.TRACEPARENT ?? "" });
  const find = `cadre runs list --label cadre.request=${idempotencyKey}`;

  // What is told from here on is read, however fast the run is.
  const group = `cadre-cli-${randomUUID()}`;
  if (wait) {
    await askKafka({}, (admin, kafka) =>
      Promise.all(topics.map((topic) => resetOffsets(admin, kafka, group, topic, "latest"))),
    );
  }
  const bus = openKafkaEventBus({ connection: connectionOf({}), log: pino({ enabled: false }) });
  try {
    const told = wait ? listen(bus, codec, group, event) : undefined;
    await publish(bus, event);
    printNotice(`${metadata.requestId} is on the bus; find its run with: ${find}`);
    if (told === undefined) {
      if (json) printJson({ request_id: metadata.requestId, idempotency_key: idempotencyKey });
      return exitCode.done;
    }
    const answer = await within(timeoutMs, told);
    if (answer === "left") return exitCode.done;
    if (answer !== undefined) return show(answer, json);
    const { detail } = await bus.dependency.check();
    throw new CliError(
      detail === "" ? exitCode.failed : exitCode.unreachable,
      `nothing was told of the run within ${timeoutMs / 1_000} s${detail === "" ? "" : `: ${detail}`}`,
      `The request is not lost: it is started within a quarter of an hour, and its run goes on. Find it with: ${find}`,
    );
  } finally {
    await bus.close();
    if (wait) await forget(group);
  }
}

/** Refuses where no broker is named. */
function assertBrokers(): void {
  if (parseSettings(kafkaSettings, process.env).CADRE_KAFKA_BROKERS.length > 0) return;
  throw new CliError(
    exitCode.configuration,
    "--via bus has no broker to go to: CADRE_KAFKA_BROKERS is not set",
    "Name the brokers there. The bus of a server without Kafka is in its PostgreSQL, where only servers reach it: leave --via bus out.",
  );
}

/** What became of a request. */
type Answer =
  | { readonly kind: "ended"; readonly fact: RunChanged }
  | { readonly kind: "refused"; readonly failure: DeadLetterFailure };

/** Resolves with what became of a request; tells on the way how it goes. */
function listen(bus: KafkaEventBus, codec: EventCodec, group: string, request: BusEvent): Promise<Answer> {
  const { promise, resolve } = Promise.withResolvers<Answer>();
  const own = (name: string): string => request.headers[name] ?? "";
  const [runs, refused] = topics;
  bus.subscribe({
    topic: runs,
    group,
    handle: async (event) => {
      if (event.headers[envelopeHeader.requestId] !== own(envelopeHeader.requestId)) return;
      const fact = await codec.decode(agentRuns, event);
      if (fact.metadata?.orgId !== own(envelopeHeader.orgId)) return;
      if (ends.has(fact.change)) resolve({ kind: "ended", fact });
      else printNotice(`${fact.runId} ${RunChange[fact.change].toLowerCase()}`);
    },
  });
  bus.subscribe({
    topic: refused,
    group,
    handle: async (event) => {
      if (event.headers[envelopeHeader.eventId] !== own(envelopeHeader.eventId)) return;
      resolve({ kind: "refused", failure: fromDeadLetterEvent(event).failure });
    },
  });
  return promise;
}

/** Behind which a run does not go on by itself. */
const ends: ReadonlySet<RunChange> = new Set([
  RunChange.SUCCEEDED,
  RunChange.FAILED,
  RunChange.CANCELLED,
  RunChange.PARKED,
]);

async function publish(bus: KafkaEventBus, event: BusEvent): Promise<void> {
  try {
    await bus.publish([event]);
  } catch (thrown) {
    const cause = thrown instanceof Error ? thrown.cause : undefined;
    throw cause instanceof KafkaProblem ? toCliError(cause) : thrown;
  }
}

/** Undefined when the time is over, `left` on Ctrl-C. */
async function within(timeoutMs: number, told: Promise<Answer>): Promise<Answer | "left" | undefined> {
  const over = Promise.withResolvers<"left" | undefined>();
  const timer = setTimeout(() => over.resolve(undefined), timeoutMs);
  const leave = () => over.resolve("left");
  process.once("SIGINT", leave);
  try {
    return await Promise.race([told, over.promise]);
  } finally {
    clearTimeout(timer);
    process.off("SIGINT", leave);
  }
}

function show(answer: Answer, json: boolean): ExitCode {
  if (answer.kind === "refused") {
    const { reason, message } = answer.failure;
    throw new CliError(
      reason === "UNAUTHENTICATED" ? exitCode.notAllowed : exitCode.failed,
      `the request was refused: ${reason}: ${message}`,
      "It is kept as a dead letter: cadre events dead-letters list --topic agent.runs.requested.v1",
    );
  }
  const { runId, change, reason, output } = answer.fact;
  const state = RunChange[change].toLowerCase();
  const why = reason === 0 ? "" : reasonName(reason);
  if (json) printJson({ run_id: runId, state, reason: why, output: jsonOf(output) });
  else if (change === RunChange.SUCCEEDED && output !== undefined) printLine(JSON.stringify(valueOf(output)));
  printNotice(`${runId} ${state}${why === "" ? "" : `: ${why}`}`);
  if (change === RunChange.SUCCEEDED && output === undefined) {
    printNotice(`Its output is too large for the bus; read it with: cadre runs get ${runId}`);
  }
  return change === RunChange.SUCCEEDED ? exitCode.done : exitCode.failed;
}

function jsonOf(output: Value | undefined) {
  return output === undefined ? null : valueOf(output);
}

/** Removes the group's positions. Kafka forgets by itself those of a group that is empty for long. */
async function forget(group: string): Promise<void> {
  const groups = topics.map((topic) => kafkaGroupOf(group, topic));
  try {
    await askKafka({}, (admin) => admin.deleteGroups(groups));
  } catch (thrown) {
    printNotice(`the groups ${groups.join(" and ")} are left in Kafka: ${String(thrown)}`);
  }
}

/** The codec of the server's events: its registry has to be named here, too. */
function ownCodec(): EventCodec {
  const { CADRE_REGISTRY_URL, CADRE_REGISTRY_CREDENTIALS_FILE } = platformSettings;
  const settings = parseSettings({ CADRE_REGISTRY_URL, CADRE_REGISTRY_CREDENTIALS_FILE }, process.env);
  const { CADRE_REGISTRY_URL: url, CADRE_REGISTRY_CREDENTIALS_FILE: credentialsFile } = settings;
  return openEventCodec(url === undefined ? undefined : { url: url.replace(/\/$/, ""), credentialsFile }).codec;
}

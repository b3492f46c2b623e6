import type { Message } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import { type AuditRecorded, AuditRecordedSchema } from "@cadre/gen/cadre/events/v1/audit_pb";
import { type CredentialsChanged, CredentialsChangedSchema } from "@cadre/gen/cadre/events/v1/credentials_pb";
import {
  type RunChanged,
  RunChangedSchema,
  type StepChanged,
  StepChangedSchema,
} from "@cadre/gen/cadre/events/v1/run_pb";
import { type RunRequested, RunRequestedSchema } from "@cadre/gen/cadre/events/v1/run_request_pb";
import { type ToolCalled, ToolCalledSchema } from "@cadre/gen/cadre/events/v1/tool_pb";
import { type EventMetadata, type TurnChanged, TurnChangedSchema } from "@cadre/gen/cadre/events/v1/turn_pb";

/** What every fact carries beside its own fields. */
export type Fact = Message & { readonly metadata?: EventMetadata };

/** A topic: one message type, and what its events are ordered by. */
export interface Topic<M extends Fact = Fact> {
  readonly name: string;
  readonly message: GenMessage<M>;
  /** Fixed once the topic exists: another number would move keys to other partitions. */
  readonly partitions: number;
  /** The id of the session or run, or a name for what an org has one of; together with the org it is the key. */
  readonly objectId: (event: M) => string;
}

/** A turn of a conversation changed. */
export const conversationTurns: Topic<TurnChanged> = {
  name: "conversation.turns.v1",
  message: TurnChangedSchema,
  partitions: 12,
  objectId: (event) => event.sessionId,
};

/** A run changed, be it a turn or a run of a graph. */
export const agentRuns: Topic<RunChanged> = {
  name: "agent.runs.v1",
  message: RunChangedSchema,
  partitions: 12,
  objectId: (event) => event.runId,
};

/** A step of a run changed. Stated where `CADRE_STEP_FACTS` says so. */
export const agentSteps: Topic<StepChanged> = {
  name: "agent.steps.v1",
  message: StepChangedSchema,
  partitions: 12,
  objectId: (event) => event.runId,
};

/** A run called a tool. Stated where `CADRE_STEP_FACTS` says so. */
export const agentTools: Topic<ToolCalled> = {
  name: "agent.tools.v1",
  message: ToolCalledSchema,
  partitions: 12,
  objectId: (event) => event.runId,
};

/** An entry was appended to an org's audit log, which comes in order. */
export const agentAudit: Topic<AuditRecorded> = {
  name: "agent.audit.v1",
  message: AuditRecordedSchema,
  partitions: 6,
  objectId: () => "audit",
};

/** What an org's callers may do changed. */
export const credentialsChanged: Topic<CredentialsChanged> = {
  name: "credentials.changed.v1",
  message: CredentialsChangedSchema,
  partitions: 6,
  objectId: () => "credentials",
};

/** Somebody asks for a run: the one topic that is read to do something. */
export const agentRunsRequested: Topic<RunRequested> = {
  name: "agent.runs.requested.v1",
  message: RunRequestedSchema,
  partitions: 6,
  objectId: (event) => event.metadata?.requestId ?? "",
};

/** All topics that exist. */
export const topics: readonly Pick<Topic, "name" | "partitions" | "message">[] = [
  conversationTurns,
  agentRuns,
  agentSteps,
  agentTools,
  agentAudit,
  credentialsChanged,
  agentRunsRequested,
];

/** The Kafka and registry subject of a topic's events. */
export function subjectOf(topic: Pick<Topic, "name">): string {
  return `${topic.name}-value`;
}

/** The topic of events that consumers of a topic could not handle. */
export function deadLetterTopicOf(topic: string): string {
  return `${topic}.dlt`;
}

/** All topics of the bus: those of facts, and a dead-letter topic, of one partition, for each. */
export const busTopics: readonly Pick<Topic, "name" | "partitions">[] = topics.flatMap(({ name, partitions }) => [
  { name, partitions },
  { name: deadLetterTopicOf(name), partitions: 1 },
]);

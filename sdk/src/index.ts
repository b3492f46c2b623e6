export { type Key, Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
export { type Limit, type Org, type Principal, PrincipalKind } from "@cadre/gen/cadre/credentials/v1/identity_pb";
export type { RevokeTokenResponse } from "@cadre/gen/cadre/credentials/v1/token_pb";
export {
  type DeadLetter,
  DeadLetterState,
  type GetDeadLetterResponse,
} from "@cadre/gen/cadre/events/v1/dead_letter_pb";
export {
  type DependencyHealth,
  type GetHealthResponse,
  type ServiceHealth,
  ServingState,
} from "@cadre/gen/cadre/gateway/v1/health_pb";
export type { Agent, AgentDefinition, AgentLimits } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
export type { Graph } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
export type { Model } from "@cadre/gen/cadre/orchestrator/v1/model_pb";
export {
  type RunError,
  type RunEvent,
  type RunParked,
  type StepPlace,
  StepReceipt,
  type StepWait,
} from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
export {
  type Checkpoint,
  type ExportRunResponse,
  type LedgerKey,
  type ReplayRunsResponse,
  type Run,
  RunState,
  type RunStep,
  StepState,
} from "@cadre/gen/cadre/orchestrator/v1/run_pb";
export { CatchUp, Overlap, type Schedule } from "@cadre/gen/cadre/orchestrator/v1/schedule_pb";
export type {
  AttemptDiscarded,
  ContextTrimmed,
  SessionEvent,
  TextDelta,
  ToolDelta,
  ToolEnded,
  ToolStarted,
  TurnEnded,
  TurnError,
  TurnStarted,
  Usage,
} from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
export { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
export type { Session, Turn, TurnToolCall } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
export {
  type ComparedContract,
  type Contract,
  ContractState,
  type Review,
  ReviewState,
  type VersionOrigin,
} from "@cadre/gen/cadre/registry/v1/contract_pb";
export type { FieldReader, FieldUse } from "@cadre/gen/cadre/registry/v1/field_use_pb";
export { type Incompatibility, SchemaType, type SubjectVersion } from "@cadre/gen/cadre/registry/v1/registry_pb";
export { SideEffects, type Tool, type ToolDefinition, ToolKind } from "@cadre/gen/cadre/tools/v1/tool_pb";
export type { AgentOptions, Agents } from "./agent.ts";
export type { CallOptions, EffectCallOptions } from "./caller.ts";
export type { Contracts, PushedContracts } from "./contract.ts";
export type { ContractInit } from "./contract-init.ts";
export { type Cadre, type CadreOptions, createCadre, type Identity } from "./create-cadre.ts";
export type { DeadLetterFilterOptions, DeadLetters } from "./dead-letter.ts";
export {
  type DefinedTool,
  defineTool,
  type ToolCallContext,
  type ToolDefinitionInit,
  ToolFailure,
  type ToolOptions,
  type TypedToolOptions,
  type UntypedToolOptions,
} from "./define-tool.ts";
export {
  CadreError,
  type CadreErrorInit,
  type CadreErrorReason,
  type CadreQuotaViolation,
  type CadreViolation,
  reasonName,
} from "./error.ts";
export {
  type GraphBuilder,
  type GraphOptions,
  graph,
  type ItemTask,
  type ItemTasks,
} from "./graph/graph.ts";
export type { Reference, ReferenceTo, Resolved, Template } from "./graph/reference.ts";
export type {
  After,
  AgentTaskOptions,
  ApprovalOutput,
  ApprovalTaskOptions,
  ChildRunTaskOptions,
  GraphRetry,
  ItemContext,
  ModelTaskOptions,
  SignalTaskOptions,
  StepContext,
  StepOptions,
  TimerTaskOptions,
  ToolOrName,
  ToolTaskOptions,
  WorkOptions,
} from "./graph/step-options.ts";
export { type JsonObject, type JsonValue, jsonOf, valueOf } from "./json.ts";
export type { IssuedKey, IssueKeyOptions, Keys, TokenReference } from "./key.ts";
export type { Limits } from "./limit.ts";
export type { Models } from "./model.ts";
export type { Listing, Page, PageOptions } from "./page.ts";
export type { EventsOptions, ReconnectOptions, StreamBreak } from "./resumed-stream.ts";
export type { RetryOptions } from "./retry.ts";
export type { ReviewFilterOptions, Reviews, ReviewWithContracts } from "./review.ts";
export type { RunBudgetOptions, RunDefinition, RunGraph } from "./runs/run-definition.ts";
export { RunFailed } from "./runs/run-failed.ts";
export type { RunFilterOptions } from "./runs/run-filter.ts";
export type { RunHandle } from "./runs/run-handle.ts";
export { pictureOf, type RunPicture, type RunPictureEdge, type RunPictureNode, toMermaid } from "./runs/run-picture.ts";
export type { SignedRunRequest } from "./runs/run-request.ts";
export {
  hasRunEnded,
  type RunStateName,
  runStateName,
  runStateNames,
  type StepStateName,
  stepStateName,
} from "./runs/run-state.ts";
export type {
  BatchOptions,
  BatchProgress,
  CancelRunOptions,
  DecideOptions,
  ForkRunOptions,
  GetRunOptions,
  Runs,
  StartRunOptions,
} from "./runs/runs.ts";
export type { ScheduleOptions, Schedules } from "./runs/schedules.ts";
export type { SchemaInit, Schemas } from "./schema.ts";
export type { CreateSessionOptions, SendOptions, SessionHandle, Sessions, StreamOptions } from "./session.ts";
export type {
  InferInput,
  InferOutput,
  StandardIssue,
  StandardJsonSchema,
  StandardResult,
  StandardSchema,
} from "./standard-schema.ts";
export { collectText, createTextView, type TextView } from "./text.ts";
export type { ToolCall, Tools } from "./tool.ts";
export { toolDigest } from "./tool-digest.ts";
export type { ServeOptions, ToolWorker, WorkerTrouble } from "./tool-worker.ts";
export type { TurnHandle, TurnOutcome } from "./turn.ts";

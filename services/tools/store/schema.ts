import type { ColumnType, Generated } from "kysely";
import type { CallState, Outcome, Progress } from "../domain/call.ts";
import type { Definition } from "../domain/definition.ts";

/** The tables of the tools service, as `migrations` makes them. Ids are UUIDs. */
export interface ToolsSchema {
  tool: ToolTable;
  tool_definition: ToolDefinitionTable;
  worker: WorkerTable;
  worker_tool: WorkerToolTable;
  call: CallTable;
  call_output: CallOutputTable;
}

/** JSON kept letter by letter (`json`, not `jsonb`), as texts may hold a NUL. Written as text, read as a value. */
type Json<T> = ColumnType<T, string, string>;

/** The tools that an org registered; the built-in ones have no row. */
export interface ToolTable {
  tool_id: string;
  org_id: string;
  name: string;
  /** The definition in force. */
  digest: string;
  created_at: Generated<Date>;
  updated_at: Generated<Date>;
}

/** Every definition that a tool ever had: runs pin them by digest. */
export interface ToolDefinitionTable {
  tool_id: string;
  org_id: string;
  digest: string;
  definition: Json<Definition>;
  created_at: Generated<Date>;
}

/** The workers that are registered now. */
export interface WorkerTable {
  worker_id: string;
  org_id: string;
  /** The principal that connected; only it may report for the worker. */
  subject: string;
  name: string;
  concurrency: number;
  /** The stream that brings it calls; null while there is none. */
  stream_id: string | null;
  draining: boolean;
  /** The registration ends then, by the database's clock, unless a heartbeat comes. */
  lease_until: Date;
  /** When it was given a call last. */
  assigned_at: Generated<Date>;
}

/** The definitions that a worker serves. */
export interface WorkerToolTable {
  worker_id: string;
  org_id: string;
  tool_id: string;
  digest: string;
}

/** The calls of tools that workers serve; see `domain/call.ts`. */
export interface CallTable {
  call_id: string;
  org_id: string;
  /** Unique in the org; `step:` or `direct:` before the key that the worker is told. */
  key: string;
  /** Null for a call that was cancelled before it was asked for. */
  request_hash: Buffer | null;
  epoch: bigint;
  tool_id: string | null;
  digest: string | null;
  arguments: Json<unknown> | null;
  timeout_ms: number;
  /** How long the worker may say nothing of the call; null for as long as its lease. */
  heartbeat_timeout_ms: number | null;
  /** When the worker said something of the call last, since it was handed out. */
  heard_at: Date | null;
  run_id: string | null;
  traceparent: string;
  request_id: string;
  state: CallState;
  /** Hand-outs so far, on top of what the first request said. */
  attempt: number;
  /** Hand-outs whose worker was lost. */
  losses: Generated<number>;
  /** The hand-out in force: what the worker knows as the call's id. */
  handout_id: string | null;
  worker_id: string | null;
  worker_name: string;
  /** Whether the call takes no place at its worker. */
  released: boolean;
  queued_at: Date;
  dispatched_at: Date | null;
  deadline_at: Date | null;
  cancel_at: Date | null;
  cancel_deadline: Date | null;
  outcome: Json<Outcome> | null;
  progress: Progress | null;
  /** SHA-256 of the worker's report, by which a repetition is known. */
  report_hash: Buffer | null;
  /** The last output report of the hand-out. */
  report_seq: bigint;
  output_count: number;
  output_bytes: number;
  ended_at: Date | null;
}

/** What calls printed. */
export interface CallOutputTable {
  call_id: string;
  org_id: string;
  /** Counts from 1 over all hand-outs. */
  position: number;
  text: Buffer;
}

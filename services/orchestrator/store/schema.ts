import type { Generated } from "kysely";

/** The orchestrator's tables, as queries see them. What each is for, the migration says. */
export interface OrchestratorSchema {
  writer: WriterTable;
  shard: ShardTable;
  agent: AgentTable;
  session: SessionTable;
  run: RunTable;
  run_label: RunLabelTable;
  entry: EntryTable;
  session_event: SessionEventTable;
  inbox: InboxTable;
  answered: AnsweredTable;
  blob: BlobTable;
  run_receipt: RunReceiptTable;
  schedule: ScheduleTable;
}

interface WriterTable {
  writer: Generated<bigint>;
  process: string;
  lease_until: Date;
  fenced: boolean;
  batch: bigint;
  pos: bigint;
  relayed: bigint;
  created_at: Generated<Date>;
}

interface ShardTable {
  shard: number;
  writer: bigint | null;
  epoch: bigint;
}

interface AgentTable {
  agent_id: string;
  org_id: string;
  name: string;
  definition: Uint8Array;
  revision: number;
  digest: string;
  created_at: Generated<Date>;
  updated_at: Generated<Date>;
}

interface SessionTable {
  session_id: string;
  org_id: string;
  shard: number;
  agent_id: string;
  title: string;
  labels: unknown;
  last_seq: Generated<bigint>;
  input_tokens: Generated<bigint>;
  output_tokens: Generated<bigint>;
  model_calls: Generated<number>;
  tool_calls: Generated<number>;
  duration_ms: Generated<bigint>;
  created_at: Generated<Date>;
  updated_at: Generated<Date>;
  deleted_at: Date | null;
}

interface RunTable {
  run_id: string;
  org_id: string;
  root_id: string;
  session_id: string | null;
  parent_run_id: string | null;
  shard: number;
  ordinal: number | null;
  name: string;
  state: number;
  labels: unknown;
  schedule_id: string | null;
  head: number;
  chain: Uint8Array;
  ended: boolean;
  view: Uint8Array;
  wake_at: Date | null;
  created_at: Generated<Date>;
  ended_at: Date | null;
}

interface RunLabelTable {
  org_id: string;
  name: string;
  value: string;
  run_id: string;
}

interface EntryTable {
  run_id: string;
  seq: number;
  org_id: string;
  writer: bigint;
  pos: bigint;
  kind: number;
  body: Uint8Array;
  hash: Uint8Array;
}

interface SessionEventTable {
  session_id: string;
  seq: bigint;
  org_id: string;
  body: Uint8Array;
}

interface InboxTable {
  command_id: string;
  org_id: string;
  root_id: string;
  shard: number;
  body: Uint8Array;
  reply: Uint8Array | null;
  created_at: Generated<Date>;
  answered_at: Date | null;
}

interface AnsweredTable {
  org_id: string;
  method: string;
  key_digest: Uint8Array;
  request_digest: Uint8Array;
  response: Uint8Array;
  created_at: Generated<Date>;
}

interface BlobTable {
  org_id: string;
  sha256: Uint8Array;
  size: bigint;
  kept_at: Generated<Date>;
}

interface RunReceiptTable {
  run_id: string;
  org_id: string;
  name: string;
  state: number;
  entries: number;
  ledger_head: Uint8Array;
  pins: Uint8Array;
  created_at: Date;
  ended_at: Date;
}

interface ScheduleTable {
  schedule_id: string;
  org_id: string;
  shard: number;
  name: string;
  definition: Uint8Array;
  principal: Uint8Array;
  next_due: Date | null;
  queued_due: Date | null;
  starting_due: Date | null;
  starting_since: Date | null;
  last_due: Date | null;
  last_run_id: string | null;
  skipped: Generated<bigint>;
  last_error: Uint8Array | null;
  created_at: Generated<Date>;
  updated_at: Generated<Date>;
}

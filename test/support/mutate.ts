import { existsSync } from "node:fs";
import type pg from "pg";
import { InfrastructureError } from "./fault-driver.ts";
import { readLines } from "./ledger.ts";

/** A piece of a module's source and what stands there instead. */
export interface Edit {
  /** The module's path in the repository. */
  readonly module: string;
  /** Text that the module has exactly once. */
  readonly find: string;
  readonly replace: string;
}

/** Protections that a negative control takes away: without them the test of the promise has to fail. */
export const mutations = {
  /** Each attempt of a step calls its tool under a key of its own. */
  "a key for each attempt": [
    {
      module: "services/orchestrator/rpc/tool-client.ts",
      find: "\n              idempotencyKey: call.stepId,",
      replace: "\n              idempotencyKey: `${call.stepId}-${crypto.randomUUID()}`,",
    },
    {
      module: "services/orchestrator/rpc/tool-client.ts",
      find: "\n      idempotencyKey: call.stepId,",
      replace: "\n      idempotencyKey: `${call.stepId}-${crypto.randomUUID()}`,",
    },
  ],
  /** An event that was handled before is handled again. */
  "no dedup": [
    {
      module: "services/runtime/bus/consumer/dedup.ts",
      find: 'if (rows.length === 0) return "repeated";',
      replace: "void rows;",
    },
    {
      module: "services/runtime/bus/consumer/batch.ts",
      find: "const isFresh = fresh.delete(decoded.eventId);",
      replace: "fresh.delete(decoded.eventId);\n        const isFresh = true;",
    },
  ],
  /** A relay ticks off what it hands to the bus only then. */
  "relayed before published": [
    {
      module: "services/runtime/bus/relay.ts",
      find: 'if (events.length > 0) await boundary("relay.publish", () => bus.publish(events));',
      replace: 'await boundary("relay.mark", () => source.markRelayed(position));',
    },
    {
      module: "services/runtime/bus/relay.ts",
      find: '\n    await boundary("relay.mark", () => source.markRelayed(position));\n    relayed?.add',
      replace:
        '\n    if (events.length > 0) await boundary("relay.publish", () => bus.publish(events));\n    relayed?.add',
    },
  ],
  /** An entry counts as what was stored, whatever its hash says. */
  "no look at the hashes": [
    {
      module: "services/orchestrator/store/journal-reader.ts",
      find: "if (!intact) throw damaged(`was changed at its entry ${seq}`);",
      replace: "void intact;",
    },
    {
      module: "services/orchestrator/store/journal-reader.ts",
      find: 'if (Buffer.compare(chain, end) !== 0) throw damaged("does not end where it should");',
      replace: "void end;",
    },
  ],
  /** A process that was replaced does not notice; see `functionMutations` for the store's side. */
  "no fence in the process": [
    {
      module: "services/orchestrator/app/ownership.ts",
      find: '    this.#expiry = setTimeout(() => this.lost("expired"), Math.max(0, this.#state.leaseUntilMs - performance.now()));\n',
      replace: "",
    },
    {
      module: "services/orchestrator/app/ownership.ts",
      find: '      this.lost("fenced");\n',
      replace: "",
    },
  ],
  /** A process whose clock is wrong owns what it owned. */
  "a wrong clock keeps its shards": [
    {
      module: "services/orchestrator/app/ownership.ts",
      find: "if (this.#options.hasWrongClock?.() === true) {",
      replace: "if (Date.now() < 0) {",
    },
  ],
} as const satisfies Readonly<Record<string, readonly Edit[]>>;

/** Takes nothing away: a worker that falls silent is given up after 3 seconds instead of 6, where many do. */
export const shortWorkerLease: readonly Edit[] = [
  { module: "services/tools/domain/call.ts", find: "leaseMs: 6_000,", replace: "leaseMs: 3_000," },
  { module: "services/tools/domain/call.ts", find: "heartbeatMs: 2_000,", replace: "heartbeatMs: 750," },
];

/** The same as mutations for functions in the database, once they are there. */
export const functionMutations = {
  /** A writer that was replaced is not refused. */
  "no fence in append": {
    name: "append",
    edits: [
      {
        find: "where writer = w and not fenced and batch = expected_batch and lease_until > clock_timestamp()",
        replace: "where writer = w and batch = expected_batch",
      },
      {
        find: "if found_count <> cardinality(shards) then raise 'a shard is lost' using errcode = 'CF001'; end if;",
        replace: "",
      },
    ],
  },
} as const satisfies Readonly<Record<string, FunctionMutation>>;

/** A function of the orchestrator's schema, and what is changed in it. */
export interface FunctionMutation {
  readonly name: string;
  readonly edits: readonly Omit<Edit, "module">[];
}

/** Changes a function in the database. Throws InfrastructureError unless each piece is there exactly once. */
export async function mutateFunction(database: pg.Client, { name, edits }: FunctionMutation): Promise<void> {
  const { rows } = await database.query<{ text: string }>("select pg_get_functiondef($1::regproc) as text", [name]);
  let text = rows[0]?.text ?? "";
  for (const { find, replace } of edits) {
    const pieces = text.split(find);
    if (pieces.length !== 2) throw new InfrastructureError(`${name} has ${pieces.length - 1} of: ${find}`);
    text = pieces.join(replace);
  }
  await database.query(text);
}

/**
 * The environment of a process whose source is changed; its children inherit it.
 *
 * @param log a file that tells which edits were made, for `assertMutated`
 */
export function mutatedEnvironment(edits: readonly Edit[], log: string): Readonly<Record<string, string>> {
  return {
    NODE_OPTIONS: `--import=${new URL("mutate-hook.ts", import.meta.url).href}`,
    MUTATION: JSON.stringify(edits),
    MUTATION_LOG: log,
  };
}

/** Throws InfrastructureError unless every edit was made in some process. */
export function assertMutated(edits: readonly Edit[], log: string): void {
  const made = existsSync(log) ? readLines<Pick<Edit, "module" | "find">>(log) : [];
  for (const { module, find } of edits) {
    if (made.some((edit) => edit.module === module && edit.find === find)) continue;
    throw new InfrastructureError(`no process has loaded ${module} without: ${find}`);
  }
}

/** A limit that an org has by name. */
export interface LimitDefinition {
  /** What it limits, in which unit. */
  readonly description: string;
  readonly default: number;
  /** The greatest value that an admin of the org can set. */
  readonly max: number;
}

/**
 * Every limit of an org. Who enforces it reads it by name (`Limits.get`). The
 * defaults protect a laptop; an admin, and a load test, raises them.
 */
export const limitDefinitions = {
  sessions: { description: "Sessions that exist at once", default: 200, max: 1_000_000 },
  open_runs: { description: "Runs of graphs that have not ended", default: 1_000, max: 1_000_000 },
  concurrent_turns: { description: "Turns that run at once", default: 20, max: 10_000 },
  queued_turns: { description: "Turns that wait in one session", default: 16, max: 1_000 },
  schedules: { description: "Schedules that exist at once", default: 1_000, max: 100_000 },
  run_retention_days: { description: "Days for which runs are kept after their end", default: 30, max: 400 },
  agents: { description: "Agents that are registered", default: 1_000, max: 100_000 },
  tools: { description: "Tools that are registered", default: 2_000, max: 100_000 },
  tool_definitions: { description: "Definitions that one tool ever had", default: 1_000, max: 10_000 },
  subjects: { description: "Subjects of the schema registry", default: 5_000, max: 100_000 },
  subject_versions: { description: "Versions of one subject of the schema registry", default: 500, max: 10_000 },
  tool_calls: { description: "Calls of workers' tools that wait or run at once", default: 10_000, max: 100_000 },
  workers: { description: "Workers that are connected at once", default: 1_000, max: 10_000 },
  keys: { description: "API keys that are neither revoked nor expired", default: 1_000, max: 100_000 },
  revoked_tokens: { description: "JWTs that are remembered as revoked", default: 10_000, max: 1_000_000 },
  requests_per_second: { description: "Calls a second of one credential, sustained", default: 100, max: 100_000 },
  request_burst: { description: "Calls of one credential at once", default: 200, max: 200_000 },
} as const satisfies Readonly<Record<string, LimitDefinition>>;

/** The name of a limit. */
export type LimitName = keyof typeof limitDefinitions;

/** Whether a limit of that name exists. */
export function isLimitName(name: string): name is LimitName {
  return Object.hasOwn(limitDefinitions, name);
}

/** A limit as it is for an org. */
export interface OrgLimit extends LimitDefinition {
  readonly name: LimitName;
  readonly value: number;
}

/** All limits of an org, by name, from those that it has set. One that was lowered in a newer build is cut. */
export function limitsOf(set: ReadonlyMap<string, number>): readonly OrgLimit[] {
  return (Object.keys(limitDefinitions) as LimitName[]).sort().map((name) => {
    const definition: LimitDefinition = limitDefinitions[name];
    return { ...definition, name, value: Math.min(set.get(name) ?? definition.default, definition.max) };
  });
}

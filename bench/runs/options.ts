import { parseArgs } from "node:util";

/** What can be measured by itself. */
export const parts = ["restate", "dbos", "ours", "remote", "flat", "timers"] as const;
export type Part = (typeof parts)[number];

/** What to measure, and how long. */
export interface Options {
  readonly parts: ReadonlySet<Part>;
  /** Runs that are under way at once, one load after the other. */
  readonly loads: readonly number[];
  readonly ownRounds: number;
  readonly peerRounds: number;
  /** Of a run alone, and of several. */
  readonly roundMs: { readonly alone: number; readonly together: number };
  /** Of a system that was just started. */
  readonly warmUpMs: number;
  readonly timers: number;
  readonly idleMs: number;
  /** Where data are kept; the system's temporary directory if it is missing. */
  readonly dataDirectory: string | undefined;
  /** Whether everything is measured, as long as it should be. */
  readonly isWhole: boolean;
}

/** How the command is called. */
export const usage = `npm run bench:runs -- [--quick] [--only ${parts.join(",")}] [--data DIRECTORY]

--quick   shorter and fewer rounds; the docs are not written
--only    some of the parts, with commas between; the docs are not written
--data    where the systems keep their data, on a disk; the temporary directory unless said
`;

/** @throws TypeError if they make no sense */
export function parseOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: { quick: { type: "boolean", default: false }, only: { type: "string" }, data: { type: "string" } },
  });
  const chosen = values.only?.split(",") ?? parts;
  for (const part of chosen) {
    if (!(parts as readonly string[]).includes(part)) throw new TypeError(`there is no part ${part}`);
  }
  const length = values.quick
    ? { ownRounds: 3, peerRounds: 1, roundMs: { alone: 500, together: 1_000 }, warmUpMs: 1_500 }
    : { ownRounds: 5, peerRounds: 3, roundMs: { alone: 2_000, together: 3_000 }, warmUpMs: 10_000 };
  return {
    ...length,
    parts: new Set(chosen as readonly Part[]),
    loads: [1, 50, 500],
    timers: values.quick ? 10_000 : 100_000,
    idleMs: values.quick ? 5_000 : 20_000,
    dataDirectory: values.data,
    isWhole: !values.quick && values.only === undefined,
  };
}

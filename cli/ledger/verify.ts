import { readFile } from "node:fs/promises";
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { type ExportedRun, ExportedRunSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printFields, printJson } from "../output.ts";
import { type LedgerReport, verifyLedger } from "./verify-ledger.ts";
import { type LedgerKeySet, ledgerKeySet } from "./verify-signature.ts";

/** What `cadre runs verify` is given. */
export interface VerifyFlags {
  /** The head that was noted elsewhere, in hexadecimal. */
  readonly head?: string;
  /** A file with the installation's public keys. */
  readonly keys?: string;
  readonly json?: boolean;
}

/**
 * Verifies a file that `cadre runs export` wrote, without a server, and says
 * what the run held on to.
 *
 * @throws CliError 2 if a file is not what it should be; 1, naming the entry, if the ledger is broken
 */
export async function verifyFile(path: string, flags: VerifyFlags): Promise<void> {
  if (flags.head !== undefined && !/^[0-9a-f]{64}$/i.test(flags.head)) {
    throw new CliError(exitCode.usage, "--head: must be 64 hexadecimal digits", "`cadre runs get` shows it as ledger.");
  }
  const keys = flags.keys === undefined ? undefined : await readLedgerKeys(flags.keys);
  report(verifyLedger(await readExport(path), { head: flags.head, keys }), flags);
}

/**
 * Reads public keys that `cadre runs keys` wrote.
 *
 * @throws CliError 2
 */
export async function readLedgerKeys(path: string): Promise<LedgerKeySet> {
  const text = await readText(path);
  try {
    return ledgerKeySet.parse(JSON.parse(text));
  } catch {
    // Told below: what a parser says of such a file helps nobody.
  }
  throw new CliError(exitCode.usage, `${path}: are no ledger keys`, "Make it with `cadre runs keys > keys.json`.");
}

/**
 * Reads an export: the Protobuf JSON of a `cadre.orchestrator.v1.ExportedRun`.
 *
 * @throws CliError 2
 */
export async function readExport(path: string): Promise<ExportedRun> {
  const text = await readText(path);
  try {
    const run = fromJson(ExportedRunSchema, JSON.parse(text) as JsonValue);
    if (/^run_[0-9a-hjkmnp-tv-z]{26}$/.test(run.runId)) return run;
  } catch {
    // Told below: what a parser says of such a file helps nobody.
  }
  throw new CliError(
    exitCode.usage,
    `${path}: is no exported run`,
    "Make one with `cadre runs export <run> > run.json`.",
  );
}

const unverified = {
  unchecked: "not checked: give --keys, a file that `cadre runs keys` wrote",
  none: "none",
} as const;

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new CliError(exitCode.usage, `${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** Says what came of a verification. Throws CliError 1 if the ledger is broken. */
export function report(result: LedgerReport, { json }: Pick<VerifyFlags, "json">): void {
  if (!result.intact) {
    if (json === true) printJson({ ...result });
    throw new CliError(
      exitCode.failed,
      `the ledger of ${result.runId} is broken at entry ${result.entry}: ${result.problem}`,
    );
  }
  const { pins, firstAt, lastAt, signature } = result;
  const signed = signature.state === "verified" ? signature : undefined;
  if (json === true) {
    const named = (items: readonly { readonly name: string; readonly digest: string }[]) =>
      items.map(({ name, digest }) => ({ name, digest }));
    return printJson({
      intact: true,
      run_id: result.runId,
      entries: result.entries,
      head: result.head,
      ended: result.ended,
      first_at: firstAt?.toISOString() ?? null,
      last_at: lastAt?.toISOString() ?? null,
      definition: pins.definition,
      agent: pins.agent,
      agents: named(pins.agents),
      tools: named(pins.tools),
      models: [...pins.models],
      signature: signature.state,
      signed_by: signed?.keyId ?? null,
      signed_at: signed?.signedAt.toISOString() ?? null,
    });
  }
  const lines = (items: readonly { readonly name: string; readonly digest: string }[]) =>
    items.map(({ name, digest }) => `${name} ${digest}`).join("\n");
  const rows: (readonly [string, string])[] = [
    [
      "ledger",
      `intact: ${result.entries} entries${result.ended ? ", to the end of the run" : ", the run has not ended"}`,
    ],
    ["run", result.runId],
    ["head", result.head],
    [
      "signature",
      signature.state === "verified"
        ? `${signature.keyId}, ${signature.signedAt.toISOString()}`
        : unverified[signature.state],
    ],
    ["from", firstAt?.toISOString() ?? ""],
    ["to", lastAt?.toISOString() ?? ""],
    ["definition", pins.definition],
    ["agent", pins.agent],
    ["agents", lines(pins.agents)],
    ["tools", lines(pins.tools)],
    ["models", pins.models.join("\n")],
  ];
  printFields(rows.filter(([, value]) => value !== ""));
}

import type { ExportedRun } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import {
  type ExportRunResponse,
  hasRunEnded,
  jsonOf,
  type ReplayRunsResponse,
  reasonName,
  runStateNames,
} from "@cadre/sdk";
import type { Command } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { readExport, readLedgerKeys, report, type VerifyFlags, verifyFile } from "../ledger/verify.ts";
import { verifyLedger } from "../ledger/verify-ledger.ts";
import { ledgerKeySet } from "../ledger/verify-signature.ts";
import { printable, printJson, printLine, printNotice } from "../output.ts";
import { type SelectionFlags, toSelection, withSelection } from "../run-selection.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };

interface ReplayFlags extends Flags, SelectionFlags {
  readonly allOpen?: boolean;
  readonly file?: string;
}

/** Adds `cadre runs export`, `verify`, `keys` and `replay`. */
export function registerRunHistories(runs: Command): void {
  withConnection(runs.command("export"))
    .description("Writes the journal of a run to standard output, with what is needed to verify it offline.")
    .argument("<run>", "run_…")
    .option("--json", "as without it; for the sake of uniformity")
    .action(async (runId: string, flags: Flags) => {
      printLine(JSON.stringify(await readHistory(flags, runId)));
    });

  withConnection(runs.command("verify"))
    .description("Verifies that nothing of a run's ledger was changed: of an exported file, or of a run at the server.")
    .argument("<file or run>", "a file that `cadre runs export` wrote, or run_…")
    .option("--head <hash>", "the ledger's head as it was noted elsewhere")
    .option(
      "--keys <file>",
      "the installation's public keys, as `cadre runs keys` wrote them: its end has to be signed",
    )
    .option("--json", "print JSON")
    .action(async (given: string, flags: Flags & VerifyFlags) => {
      if (!isRunId(given)) return await verifyFile(given, flags);
      const { entries } = await readEntries(flags, given);
      const { runs: served } = await connect(flags);
      const { run } = await served.get(given);
      const keys = flags.keys === undefined ? { keys: await served.ledgerKeys() } : await readLedgerKeys(flags.keys);
      // A run that goes on may have more by now than was exported.
      const head = flags.head ?? (hasRunEnded(run.state) ? run.ledgerHead : undefined);
      const exported: ExportedRun = { $typeName: "cadre.orchestrator.v1.ExportedRun", runId: given, entries };
      report(verifyLedger(exported, { head, keys: ledgerKeySet.parse(keys) }), flags);
    });

  withConnection(runs.command("keys"))
    .description("Writes the public keys that the ends of exported ledgers are signed with: keep them elsewhere.")
    .option("--json", "as without it; for the sake of uniformity")
    .action(async (flags: Flags) => {
      printLine(JSON.stringify({ keys: (await (await connect(flags)).runs.ledgerKeys()).map(jsonOf) }));
    });

  withConnection(withSelection(runs.command("replay")))
    .description(
      "Checks whether stored histories are what the server's code and definitions make of them now; executes nothing.",
    )
    .argument("[runs...]", "run_…")
    .option("--all-open", "all runs that have not ended: before a new version takes over")
    .option("--file <path>", "a file that `cadre runs export` wrote")
    .option("--json", "print each result as JSON on a line")
    .action(async (runIds: readonly string[], flags: ReplayFlags) => {
      const { allOpen = false, file } = flags;
      if ([runIds.length > 0, allOpen, file !== undefined].filter(Boolean).length !== 1) {
        throw new CliError(exitCode.usage, "say which histories: runs, --all-open, or --file");
      }
      const open = runStateNames.filter((name) => name === "running" || name === "waiting" || name === "parked");
      const history =
        file === undefined
          ? { ...(allOpen ? { states: open } : {}), ...toSelection(flags), ...(allOpen ? {} : { runIds }) }
          : await readExport(file);
      await replay(flags, (await connect(flags)).runs.replay(history));
    });
}

async function replay(flags: Flags, results: AsyncIterable<ReplayRunsResponse>): Promise<void> {
  let count = 0;
  let diverged = 0;
  for await (const result of results) {
    const { runId, entries, error, diff } = result;
    count += 1;
    if (error !== undefined) diverged += 1;
    if (flags.json === true) printJson(jsonOf(result));
    else if (error === undefined) printLine(`${runId}  replays: ${entries} entries`);
    else {
      printLine(printable(`${runId}  ${reasonName(error.reason)} behind entry ${entries}: ${error.message}`));
      for (const line of diff) printLine(printable(`    ${line}`));
    }
  }
  if (diverged > 0) {
    throw new CliError(
      exitCode.failed,
      `${diverged} of ${count} histories do not replay`,
      "Restore what changed, as the diff says; or let those runs end before the new version takes over.",
    );
  }
  if (count === 0) printNotice("There are no such runs.");
}

/** A history as files hold it: the Protobuf JSON of an ExportedRun. */
async function readHistory(flags: Flags, runId: string) {
  const { entries } = await readEntries(flags, runId);
  return { run_id: runId, entries: entries.map(jsonOf) };
}

async function readEntries(flags: Flags, runId: string): Promise<{ readonly entries: ExportRunResponse[] }> {
  return { entries: await Array.fromAsync((await connect(flags)).runs.export(runId)) };
}

function isRunId(text: string): boolean {
  return /^run_[0-9a-hjkmnp-tv-z]{26}$/.test(text);
}

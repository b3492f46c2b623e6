import { type ComparedContract, jsonOf, type Review } from "@cadre/sdk";
import { type ConnectionFlags, connect } from "../connection.ts";
import { type ExitCode, exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printJson, printLine, printNotice } from "../output.ts";
import { showTime } from "../time.ts";
import { readSource, type SourceFlags, setTimeoutMs, toContract } from "./contract-source.ts";
import { lintContracts } from "./lint-contracts.ts";
import { isBroken, isSame, setToJson, tellDifferences } from "./tell-contracts.ts";

/** The flags of `cadre contracts push`. */
export interface PushFlags extends ConnectionFlags, SourceFlags {
  readonly json?: boolean;
  readonly force?: boolean;
  readonly review?: boolean;
  readonly reason?: string;
}

/**
 * `cadre contracts push`: lints, compares, and registers everything or nothing.
 *
 * @throws CliError if the flags do not fit together
 */
export async function runPush(directory: string | undefined, flags: PushFlags): Promise<ExitCode> {
  const { force = false, review = false, reason = "", json = false } = flags;
  if (force && review) throw new CliError(exitCode.usage, "--force needs no --review");
  if ((force || review) && reason === "") {
    throw new CliError(exitCode.usage, `--${force ? "force" : "review"} needs a --reason, which the audit log keeps`);
  }
  const tellStep = (text: string): void => {
    if (!json) printNotice(text);
  };
  const source = await readSource(directory, flags);
  tellStep(`${source.files.length} files are linted.`);
  const problems = await lintContracts(source.directory, source.files);
  if (problems.length > 0) return refuseUnlinted(problems, json);

  const { contracts: registry } = await connect(flags, { timeoutMs: setTimeoutMs });
  const contracts = source.files.map(toContract);
  tellStep("They are compared with what is registered.");
  const compared = await registry.compare(contracts);
  const broken = compared.contracts.filter(isBroken);
  if (broken.length > 0 && !force) {
    if (!json) tellDifferences(broken, source.files);
    if (review) return tellReview(await registry.reviews.request(contracts, reason), json);
    if (json) printJson(setToJson({ ...compared, contracts: broken }));
    printNotice(
      "Nothing was registered. Have an admin decide: --review --reason '…'. An admin can force it: --force --reason '…'",
    );
    return exitCode.failed;
  }
  const losing = compared.contracts.filter(({ removedFields }) => removedFields.length > 0);
  if (!json && broken.length === 0 && losing.length > 0) tellDifferences(losing, source.files);
  const isNew = (contract: ComparedContract): boolean => !isSame(contract);
  const added = compared.contracts.filter(isNew).length;
  if (added > 0) tellStep(`${added} are registered.`);
  const pushed =
    added === 0 ? compared : await (broken.length > 0 ? registry.force(contracts, reason) : registry.push(contracts));
  if (json) {
    const { digest, contracts: all } = setToJson(pushed);
    printJson({ digest, registered: all.filter(({ state }) => state !== "same"), unchanged: all.length - added });
    return exitCode.done;
  }
  for (const { subject, version, schemaId } of pushed.contracts.filter(isNew)) {
    printLine(`${subject}: version ${version}, id ${schemaId}`);
  }
  printLine(`digest ${pushed.digest}`);
  printNotice(`${added} registered, ${pushed.contracts.length - added} as they were.`);
  return exitCode.done;
}

function tellReview(review: Review, json: boolean): ExitCode {
  if (json) printJson({ review: jsonOf(review) });
  else printLine(`review ${review.reviewId}`);
  printNotice(
    `Nothing is registered until an admin approves it: cadre contracts reviews approve ${review.reviewId}, until ${showTime(review.expiresAt)}.`,
  );
  return exitCode.done;
}

function refuseUnlinted(problems: readonly string[], json: boolean): ExitCode {
  if (json) printJson({ problems: [...problems] });
  else for (const problem of problems) printLine(problem);
  printNotice("Nothing was registered. Mend these, or say in a buf.yaml which rules are yours.");
  return exitCode.failed;
}

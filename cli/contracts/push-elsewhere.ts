import { registerTopics } from "../../services/runtime/bus/register-topics.ts";
import { topics } from "../../services/runtime/bus/topics.ts";
import { AppError } from "../../services/runtime/errors/app-error.ts";
import { type ExitCode, exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printJson, printLine, printNotice } from "../output.ts";

/** Where `cadre contracts push --own` goes instead of to the server. */
export interface ElsewhereFlags {
  readonly own?: boolean;
  readonly json?: boolean;
  readonly registryUrl?: string;
  readonly registryCredentialsFile?: string;
  readonly force?: boolean;
  readonly review?: boolean;
}

const exits: Readonly<Record<string, ExitCode>> = {
  UNAVAILABLE: exitCode.unreachable,
  UNAUTHENTICATED: exitCode.notAllowed,
  SCOPE_MISSING: exitCode.notAllowed,
};

/**
 * Registers what events need in a registry that is not Cadre's: the contracts
 * of its topics, by the Confluent Schema Registry's REST API.
 *
 * @throws CliError if the flags do not fit together, or the registry refuses
 */
export async function pushElsewhere(url: string, flags: ElsewhereFlags): Promise<ExitCode> {
  if (flags.own !== true || flags.force === true || flags.review === true) {
    throw new CliError(
      exitCode.usage,
      "--registry-url goes with --own, and without --force and --review",
      "Other contracts are registered there with its own tools; what it refuses is decided on there.",
    );
  }
  const access = { url: url.replace(/\/$/, ""), credentialsFile: flags.registryCredentialsFile };
  const registered: { readonly subject: string; readonly version: number; readonly schema_id: number }[] = [];
  let unchanged = 0;
  try {
    for await (const { subject, version, id, isNew } of registerTopics(access, topics)) {
      if (isNew) registered.push({ subject, version, schema_id: id });
      else unchanged += 1;
      if (isNew && flags.json !== true) printLine(`${subject}: version ${version}, id ${id}`);
    }
  } catch (thrown) {
    if (!(thrown instanceof AppError)) throw thrown;
    throw new CliError(
      exits[thrown.reason] ?? exitCode.failed,
      `${thrown.reason}: ${thrown.message}`,
      registered.length === 0 ? "Nothing was registered." : `${registered.length} before it are registered.`,
    );
  }
  if (flags.json === true) printJson({ registered, unchanged });
  else printNotice(`${registered.length} registered, ${unchanged} as they were.`);
  return exitCode.done;
}

import { existsSync } from "node:fs";
import { jsonOf, type SubjectVersion } from "@cadre/sdk";
import type { Command } from "commander";
import { subjectOf, topics } from "../../services/runtime/bus/topics.ts";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { type Comparison, compareContracts } from "../contracts/compare-contracts.ts";
import { pushContracts } from "../contracts/push-contracts.ts";
import { type ContractFile, readContracts } from "../contracts/read-contracts.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printJson, printLine, printNotice, printTable } from "../output.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };
type SourceFlags = Flags & { readonly import?: readonly string[] };
type PushFlags = SourceFlags & { readonly force?: boolean; readonly reason?: string };

/** Adds `cadre contracts`. */
export function registerContracts(program: Command): void {
  const contracts = program.command("contracts").summary("register, compare, list and show contracts");

  withSource(contracts.command("push"))
    .description(
      "Registers .proto files: each under its path, and a topic's file under the topic's subject as well. Nothing is registered if a file breaks who holds to the version before.",
    )
    .option("--force", "register what breaks as well; wants the role admin")
    .option("--reason <text>", "why, for the audit log; needed with --force")
    .action(async (directory: string, flags: PushFlags) => {
      if (flags.force === true && (flags.reason ?? "") === "") {
        throw new CliError(exitCode.usage, "--force needs a --reason, which the audit log keeps");
      }
      process.exitCode = await push(directory, flags);
    });

  withSource(contracts.command("diff"))
    .description("Says how .proto files differ from what is registered. Exit code 1 if they do.")
    .action(async (directory: string, flags: SourceFlags) => {
      const files = await read(directory, flags);
      const comparisons = await compareContracts(await connect(flags), files, subjectsOf);
      if (flags.json === true) printJson({ contracts: comparisons.map(toJson) });
      else tellDifferences(comparisons);
      if (comparisons.some(({ state }) => state.kind !== "same")) process.exitCode = exitCode.failed;
    });

  withConnection(contracts.command("list", { isDefault: true }))
    .description("Lists the subjects of the registry with their latest versions.")
    .argument("[prefix]", "what the names begin with", "")
    .option("--json", "print JSON")
    .action(async (prefix: string, flags: Flags) => {
      const { schemas } = await connect(flags);
      const rows: SubjectVersion[] = [];
      for (const subject of await schemas.subjects(prefix)) rows.push(await schemas.get(subject));
      if (flags.json === true) return printJson({ contracts: rows.map(toSummary) });
      printTable(
        rows,
        [
          { title: "subject", cell: ({ subject }) => subject },
          { title: "version", cell: ({ version }) => String(version) },
          { title: "id", cell: ({ schemaId }) => String(schemaId) },
          { title: "references", cell: ({ references }) => String(references.length) },
        ],
        "There are no subjects.",
      );
    });

  withConnection(contracts.command("get"))
    .description("Prints the schema of a subject's version.")
    .argument("<subject>", "the subject")
    .argument("[version]", "the version; the latest unless said")
    .option("--json", "print JSON")
    .action(async (subject: string, version: string | undefined, flags: Flags) => {
      if (version !== undefined && !/^[1-9]\d{0,8}$/.test(version)) {
        throw new CliError(exitCode.usage, "the version is a number from 1");
      }
      const { schemas } = await connect(flags);
      const found = await schemas.get(subject, version === undefined ? undefined : Number(version));
      if (flags.json === true) return printJson(jsonOf(found));
      process.stdout.write(found.schema.endsWith("\n") ? found.schema : `${found.schema}\n`);
    });
}

function withSource(command: Command): Command {
  return withConnection(command)
    .argument("[directory]", "where the .proto files are", "proto")
    .option("--import <directories...>", "where else imports are looked for; third_party/proto if it is there")
    .option("--json", "print JSON");
}

function read(directory: string, flags: SourceFlags): Promise<readonly ContractFile[]> {
  const usual = "third_party/proto";
  return readContracts(directory, flags.import ?? (existsSync(usual) ? [usual] : []));
}

/** A file's own subject, and those of the topics that carry its messages. */
function subjectsOf(path: string): readonly string[] {
  const carrying = topics.filter(({ message }) => `${message.file.name}.proto` === path);
  return [path, ...carrying.map(subjectOf)];
}

async function push(directory: string, flags: PushFlags) {
  const files = await read(directory, flags);
  const cadre = await connect(flags);
  const comparisons = await compareContracts(cadre, files, subjectsOf);
  const broken = comparisons.filter(({ state }) => state.kind === "breaks");
  if (broken.length > 0 && flags.force !== true) {
    if (flags.json === true) printJson({ contracts: broken.map(toJson) });
    tellDifferences(broken);
    printNotice("Nothing was registered. An admin can force it: --force --reason '…'");
    return exitCode.failed;
  }
  const unchanged = comparisons.filter(({ state }) => state.kind === "same").length;
  const registered: SubjectVersion[] = [];
  for await (const version of pushContracts(cadre, comparisons, subjectsOf, flags.reason)) {
    registered.push(version);
    if (flags.json !== true) printLine(`${version.subject}: version ${version.version}, id ${version.schemaId}`);
  }
  if (flags.json === true) printJson({ registered: registered.map(toSummary), unchanged });
  else printNotice(`${registered.length} registered, ${unchanged} as they were.`);
  return exitCode.done;
}

function tellDifferences(comparisons: readonly Comparison[]): void {
  for (const { subject, state } of comparisons) {
    switch (state.kind) {
      case "same":
        break;
      case "breaks":
        printLine(`${subject}: breaks`);
        for (const message of state.messages) printLine(`  ${message}`);
        break;
      case "follows":
        printLine(`${subject}: follows a change of ${state.imported}`);
        break;
      default:
        printLine(`${subject}: ${state.kind}`);
    }
  }
  if (comparisons.every(({ state }) => state.kind === "same")) printNotice("Everything is registered as it is here.");
}

function toJson({ file, subject, state }: Comparison) {
  return {
    path: file.path,
    subject,
    state: state.kind,
    ...(state.kind === "same" ? { version: state.version.version, schema_id: state.version.schemaId } : {}),
    ...(state.kind === "breaks" ? { messages: [...state.messages] } : {}),
  };
}

/** A version without its text. */
function toSummary({ subject, version, schemaId, references, forcedReason }: SubjectVersion) {
  return {
    subject,
    version,
    schema_id: schemaId,
    references: references.map(({ name, subject: referred, version: at }) => ({
      name,
      subject: referred,
      version: at,
    })),
    forced_reason: forcedReason,
  };
}

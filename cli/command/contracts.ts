import { timestampDate } from "@bufbuild/protobuf/wkt";
import { jsonOf, ReviewState, type SubjectVersion, type VersionOrigin } from "@cadre/sdk";
import type { Command } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { readSource, type SourceFlags, setTimeoutMs, toContract } from "../contracts/contract-source.ts";
import type { ElsewhereFlags } from "../contracts/push-elsewhere.ts";
import type { PushFlags } from "../contracts/run-push.ts";
import { isSame, setToJson, tellDifferences } from "../contracts/tell-contracts.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printJson, printTable, shorten } from "../output.ts";
import { printReviews, registerReviews } from "./contracts-reviews.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };

/** Adds `cadre contracts`. */
export function registerContracts(program: Command): void {
  const contracts = program.command("contracts").summary("register, compare, list and show contracts");

  withSource(contracts.command("push"))
    .description(
      "Lints .proto files and registers them, all or nothing: each under its path, and a topic's file under the topic's subject as well. Nothing is registered if a file breaks who holds to the version before.",
    )
    .option("--force", "register what breaks as well; wants the role admin")
    .option("--review", "have an admin decide on what breaks, instead of refusing it")
    .option("--reason <text>", "why, for the audit log and the history; needed with --force and --review")
    .option("--registry-url <url>", "with --own: register what events need in a registry that is not Cadre's")
    .option("--registry-credentials-file <path>", "with --registry-url: a file with name:password")
    .action(async (directory: string | undefined, flags: PushFlags & ElsewhereFlags) => {
      if (flags.registryUrl !== undefined) {
        const { pushElsewhere } = await import("../contracts/push-elsewhere.ts");
        process.exitCode = await pushElsewhere(flags.registryUrl, flags);
        return;
      }
      const { runPush } = await import("../contracts/run-push.ts");
      process.exitCode = await runPush(directory, flags);
    });

  withSource(contracts.command("diff"))
    .description("Says how .proto files differ from what is registered. Exit code 1 if they do.")
    .action(async (directory: string | undefined, flags: Flags & SourceFlags) => {
      const { files } = await readSource(directory, flags);
      const cadre = await connect(flags, { timeoutMs: setTimeoutMs });
      const compared = await cadre.contracts.compare(files.map(toContract));
      if (flags.json === true) printJson(setToJson(compared));
      else tellDifferences(compared.contracts, files);
      if (!compared.contracts.every(isSame)) process.exitCode = exitCode.failed;
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

  withConnection(contracts.command("history"))
    .description(
      "Lists the versions of a subject: who registered each, when, with which set, and why if it was forced or approved; and the reviews that it was not approved in.",
    )
    .argument("<subject>", "the subject")
    .option("--json", "print JSON")
    .action(async (subject: string, flags: Flags) => {
      const { contracts: registry } = await connect(flags);
      const versions = await registry.history(subject);
      const reviews = await registry.reviews.list({ subject });
      if (flags.json === true) return printJson({ versions: versions.map(jsonOf), reviews: reviews.map(jsonOf) });
      printTable(
        versions,
        [
          { title: "version", cell: ({ version, deleted }) => `${version}${deleted ? " (deleted)" : ""}` },
          { title: "id", cell: ({ schemaId }) => String(schemaId) },
          { title: "registered", cell: registeredAt },
          { title: "by", cell: ({ registeredBy }) => shorten(registeredBy, 40) },
          { title: "set", cell: ({ setDigest }) => setDigest.replace("sha256:", "").slice(0, 12) },
          { title: "asked for by", cell: ({ requestedBy }) => shorten(requestedBy, 40) },
          { title: "forced because", cell: ({ forcedReason }) => forcedReason },
        ],
        "There are no versions.",
      );
      const others = reviews.filter(({ state }) => state !== ReviewState.APPROVED);
      if (others.length > 0) printReviews(others);
    });

  registerReviews(contracts);
}

function withSource(command: Command): Command {
  return withConnection(command)
    .argument("[directory]", "where the .proto files are; proto unless said")
    .option("--own", "instead: the contracts of Cadre itself, as this build has them")
    .option("--import <directories...>", "where else imports are looked for; third_party/proto if it is there")
    .option("--json", "print JSON");
}

function registeredAt({ registeredAt: at }: VersionOrigin): string {
  return at === undefined ? "" : timestampDate(at).toISOString();
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

import { text } from "node:stream/consumers";
import { jsonOf, type Key, Role, type TokenReference } from "@cadre/sdk";
import { type Command, Option } from "commander";
import { type ConnectionFlags, connect, withConnection } from "../connection.ts";
import { parseDurationMs } from "../duration.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printFields, printJson, printLine, printNotice, printTable } from "../output.ts";
import { showTime } from "../time.ts";

type Flags = ConnectionFlags & { readonly json?: boolean };

const roles = ["member", "developer", "admin", "owner"] as const;

interface IssueFlags extends Flags {
  readonly name: string;
  readonly role: (typeof roles)[number];
  readonly scope: readonly string[];
  readonly tool?: readonly string[];
  readonly lifetime?: string;
}

interface RevokeTokenFlags extends Flags {
  readonly issuer?: string;
  readonly id?: string;
  readonly expires?: string;
}

/** Adds `cadre keys`. */
export function registerKeys(program: Command): void {
  const keys = program.command("keys").summary("list, issue and revoke API keys; revoke JWTs");

  withConnection(keys.command("list", { isDefault: true }))
    .description("Lists the org's keys, newest first, without their secrets.")
    .option("--json", "print JSON")
    .action(async (flags: Flags) => {
      const rows: Key[] = [];
      for await (const key of (await connect(flags)).keys.list({ pageSize: 200 })) rows.push(key);
      if (flags.json === true) return printJson({ keys: rows.map(jsonOf) });
      printTable(
        rows,
        [
          { title: "key", cell: ({ keyId }) => keyId },
          { title: "name", cell: ({ name }) => name },
          { title: "begins", cell: ({ prefix }) => prefix },
          { title: "role", cell: ({ role }) => Role[role].toLowerCase() },
          { title: "scopes", cell: ({ scopes }) => scopes.join(" ") },
          { title: "last used", cell: ({ lastUsedAt }) => showTime(lastUsedAt) },
          { title: "ends", cell: (key) => (key.revokedAt ? "revoked" : showTime(key.expiresAt)) },
        ],
        "The org has no keys.",
      );
    });

  withConnection(keys.command("issue"))
    .description("Issues a key. Its secret is shown this once.")
    .requiredOption("--name <name>", "what it is for")
    .addOption(new Option("--role <role>", "what who presents it may be at most").choices(roles).default("member"))
    .requiredOption("--scope <scopes...>", "what it may be used for: *, sessions.*, tools.serve, …")
    .option("--tool <names...>", "the tools that a worker with it may serve")
    .option("--lifetime <duration>", "how long it is valid, for example 30d; 90 days unless said, at most 400d")
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      `
Examples:
  $ cadre keys issue --name web --scope 'sessions.*' agents.read
  $ cadre keys issue --name worker --role developer --scope tools.serve --tool order_status`,
    )
    .action(async ({ name, role, scope, tool, lifetime, ...flags }: IssueFlags) => {
      const { key, secret } = await (await connect(flags)).keys.issue({
        name,
        role,
        scopes: scope,
        ...(tool === undefined ? {} : { tools: tool }),
        ...(lifetime === undefined ? {} : { lifetimeMs: parseDurationMs(lifetime) }),
      });
      if (flags.json === true) return printJson({ key: jsonOf(key), secret });
      printFields([
        ["key", key.keyId],
        ["name", key.name],
        ["role", Role[key.role].toLowerCase()],
        ["scopes", key.scopes.join(" ")],
        ["ends", showTime(key.expiresAt)],
        ["secret", secret],
      ]);
      printNotice("Keep the secret now: it is not shown again.");
    });

  withConnection(keys.command("revoke"))
    .description("Revokes a key: when this returns, no process accepts it any more.")
    .argument("<key>", "the key's id, key_…")
    .option("--json", "print JSON")
    .action(async (keyId: string, flags: Flags) => {
      const key = await (await connect(flags)).keys.revoke(keyId);
      if (flags.json === true) return printJson(jsonOf(key));
      printLine(`${key.keyId} (${key.name}) is revoked`);
    });

  withConnection(keys.command("revoke-token"))
    .description("Revokes one JWT: when this returns, no process accepts it any more.")
    .argument("[jwt]", "the token; - reads it from standard input, where other users of the machine do not see it")
    .option("--issuer <issuer>", "its iss, where the token is not at hand")
    .option("--id <id>", "its jti")
    .option("--expires <time>", "its exp, for example 2026-01-31T12:00:00Z; 400 days from now unless said")
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      `
Examples:
  $ cadre keys revoke-token - < token.txt
  $ cadre keys revoke-token --issuer https://login.example.com --id 6f1d0a`,
    )
    .action(async (jwt: string | undefined, { issuer, id, expires, ...flags }: RevokeTokenFlags) => {
      const token = await tokenReference(jwt, { issuer, id, expires });
      const revoked = await (await connect(flags)).keys.revokeToken(token);
      if (flags.json === true) return printJson(jsonOf(revoked));
      printLine(`${revoked.tokenId} of ${revoked.issuer} is revoked`);
    });
}

async function tokenReference(
  jwt: string | undefined,
  { issuer, id, expires }: Pick<RevokeTokenFlags, "issuer" | "id" | "expires">,
): Promise<TokenReference> {
  if (jwt !== undefined) {
    if (issuer !== undefined || id !== undefined || expires !== undefined) {
      throw new CliError(exitCode.usage, "give the token, or --issuer and --id, not both");
    }
    return { jwt: (jwt === "-" ? await text(process.stdin) : jwt).trim() };
  }
  if (issuer === undefined || id === undefined) {
    throw new CliError(exitCode.usage, "give the token, or --issuer and --id");
  }
  if (expires === undefined) return { issuer, tokenId: id };
  const expiresAt = new Date(expires);
  if (Number.isNaN(expiresAt.getTime())) {
    throw new CliError(exitCode.usage, `${JSON.stringify(expires)} is no time`);
  }
  return { issuer, tokenId: id, expiresAt };
}

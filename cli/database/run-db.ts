import pino from "pino";
import {
  type MigrationStatus,
  migrateDown,
  migrateUp,
  migrationStatus,
} from "../../services/runtime/postgres/migrator.ts";
import { type ExitCode, exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printJson, printLine, printNotice, printTable } from "../output.ts";
import { openTarget, type Target, type TargetFlags } from "./open-target.ts";
import { type SchemaSource, schemaSources } from "./schemas.ts";

/** The flags of every `cadre db` command. */
export interface DbFlags extends TargetFlags {
  readonly service?: readonly string[];
  readonly json?: boolean;
}

// A person waits: a PostgreSQL that is not there is told of, not waited for.
const waitMs = 10_000;
const log = pino({ enabled: false });

/** `cadre db status`. Fails when a schema is not as this build and its last step left it. */
export async function runDbStatus(flags: DbFlags): Promise<ExitCode> {
  const statuses = await onEach(flags, true, async ({ url }, { service, load }) =>
    migrationStatus({ url, service, migrations: await load(), log }),
  );
  if (flags.json === true) {
    printJson({
      services: statuses.map(({ service, migrations, unknown, edited, drift }) => ({
        service,
        migrations: migrations.map(({ name, destructive, appliedAt }) => ({
          name,
          destructive,
          applied_at: appliedAt?.toISOString() ?? null,
        })),
        unknown: [...unknown],
        edited: [...edited],
        drift: [...drift],
      })),
    });
  } else {
    printTable(
      statuses.flatMap(({ service, migrations }) => migrations.map((migration) => ({ service, ...migration }))),
      [
        { title: "service", cell: ({ service }) => service },
        { title: "step", cell: ({ name }) => name },
        { title: "applied", cell: ({ appliedAt }) => appliedAt?.toISOString() ?? "not yet" },
      ],
      "There are no steps.",
    );
    for (const problem of statuses.flatMap(problemsOf)) printNotice(problem);
  }
  return statuses.flatMap(problemsOf).length === 0 ? exitCode.done : exitCode.failed;
}

/** `cadre db migrate`. */
export async function runDbMigrate(flags: DbFlags & { readonly allowDestructive?: boolean }): Promise<ExitCode> {
  const allowDestructive = flags.allowDestructive === true;
  const applied = await onEach(flags, false, async ({ url }, { service, load }) => ({
    service,
    steps: await migrateUp({ url, service, migrations: await load(), log, allowDestructive, waitMs }),
  }));
  tell(flags, applied, "applied", "Everything is up to date.");
  return exitCode.done;
}

/** `cadre db down`. Asks first, unless told not to. */
export async function runDbDown(flags: DbFlags & { readonly to?: string; readonly yes?: boolean }): Promise<ExitCode> {
  const [service, ...others] = flags.service ?? [];
  if (service === undefined || others.length > 0) {
    throw new CliError(exitCode.usage, "name the one service to go back with --service");
  }
  if (flags.yes !== true) {
    if (process.stdin.isTTY !== true) throw new CliError(exitCode.usage, "this loses data: confirm it with --yes");
    const { confirm, isCancel } = await import("@clack/prompts");
    const answer = await confirm({ message: `Undo steps of ${service}? What they hold is lost.`, initialValue: false });
    if (isCancel(answer) || !answer) return exitCode.failed;
  }
  const undone = await onEach(flags, false, async ({ url }, source) => ({
    service: source.service,
    steps: await migrateDown({
      url,
      service: source.service,
      migrations: await source.load(),
      log,
      ...(flags.to === undefined ? {} : { to: flags.to }),
    }),
  }));
  tell(flags, undone, "undone", "There was nothing to undo.");
  return exitCode.done;
}

async function onEach<T>(
  flags: DbFlags,
  readOnly: boolean,
  work: (target: Target, source: SchemaSource) => Promise<T>,
): Promise<readonly T[]> {
  const unknown = (flags.service ?? []).filter((name) => !schemaSources.some(({ service }) => service === name));
  if (unknown.length > 0) {
    const known = schemaSources.map(({ service }) => service).join(", ");
    throw new CliError(exitCode.usage, `no such service: ${unknown.join(", ")}`, `There are ${known}.`);
  }
  const chosen = schemaSources.filter(({ service }) => flags.service === undefined || flags.service.includes(service));
  const target = await openTarget(flags, readOnly, log);
  try {
    if (flags.json !== true) printNotice(`database: ${target.place}`);
    const results: T[] = [];
    for (const source of chosen) results.push(await work(target, source));
    return results;
  } finally {
    await target.close();
  }
}

function tell(
  flags: DbFlags,
  changes: readonly { readonly service: string; readonly steps: readonly string[] }[],
  verb: string,
  nothing: string,
): void {
  if (flags.json === true) {
    return printJson({ services: changes.map(({ service, steps }) => ({ service, [verb]: [...steps] })) });
  }
  const lines = changes.flatMap(({ service, steps }) => steps.map((step) => `${service}: ${step} ${verb}`));
  for (const line of lines) printLine(line);
  if (lines.length === 0) printNotice(nothing);
}

function problemsOf({ service, unknown, edited, drift }: MigrationStatus): readonly string[] {
  return [
    ...unknown.map(
      (step) => `${service}: ${step} is applied, and this build does not know it: it is older than the schema`,
    ),
    ...edited.map((step) => `${service}: ${step} was edited after it was applied`),
    ...drift.map((line) => `${service}: the schema was changed by hand: ${line}`),
  ];
}

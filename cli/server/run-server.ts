import { setTimeout as delay } from "node:timers/promises";
import { assertClockAgrees } from "../../services/runtime/postgres/clock.ts";
import type { ServerConfiguration } from "./configuration.ts";
import { explainFailedStart } from "./exit.ts";
import { openProcessScope, type ProcessScope } from "./process-scope.ts";
import { giveBackStartMemory } from "./start-memory.ts";

/**
 * What is still open after a stop must not keep the process alive longer than this: a connection that nobody closed,
 * or, where one part could not start, another one that waits for what has been stopped by then.
 */
const exitAfterMs = 1_000;
/** How long what still starts may take to come to an end when the process was told to, in milliseconds. */
const settleMs = 5_000;

/**
 * The life of a server process: starts it, prints what it says when it is
 * ready, and resolves with the exit code when it was told to end and has.
 *
 * @param name the log file's name, and the service's in traces
 * @param start returns what is printed
 */
export async function runServer(
  configuration: ServerConfiguration,
  name: string,
  start: (scope: ProcessScope) => Promise<string>,
): Promise<number> {
  const code = await live(await openProcessScope(configuration, name), configuration, start);
  setTimeout(() => process.exit(code), exitAfterMs).unref();
  return code;
}

async function live(
  scope: ProcessScope,
  configuration: ServerConfiguration,
  start: (scope: ProcessScope) => Promise<string>,
): Promise<number> {
  try {
    const starting = assertSafe(configuration, scope).then(() => start(scope));
    const said = await unlessToldToEnd(starting, scope);
    if (said !== undefined) {
      process.stdout.write(said);
      giveBackStartMemory(scope.log);
    }
  } catch (thrown) {
    scope.log.info({ err: thrown }, "could not start");
    await scope.stop();
    return explainFailedStart(thrown);
  }
  return await scope.ended;
}

/**
 * What a start says. Undefined if the process is told to end before: that the start fails then is no failure, and what
 * it begins a moment later is stopped, too.
 */
async function unlessToldToEnd(starting: Promise<string>, scope: ProcessScope): Promise<string | undefined> {
  try {
    const said = await Promise.race([starting, scope.ended]);
    if (typeof said === "string" && !scope.stopping.aborted) return said;
  } catch (thrown) {
    if (!scope.stopping.aborted) throw thrown;
  }
  await scope.ended;
  await Promise.race([starting.catch(() => undefined), delay(settleMs)]);
  await scope.stop();
  return undefined;
}

/** What production demands of the world around the process; of its settings it was demanded when they were read. */
async function assertSafe({ platform }: ServerConfiguration, { log }: ProcessScope): Promise<void> {
  const url = platform.CADRE_DATABASE_URL;
  if (platform.CADRE_MODE === "production" && url !== undefined) await assertClockAgrees({ url, log });
}

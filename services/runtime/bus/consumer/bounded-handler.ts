import { type KyselyPlugin, sql, type Transaction } from "kysely";
import { untilAborted } from "../../wait/until-aborted.ts";
import type { Fact } from "../topics.ts";
import type { DecodedEvent } from "./handler.ts";

/** What makes the effect of a fact: by the transaction that it is given, and by nothing else. */
export type FactHandler<M extends Fact, Schema> = (
  decoded: DecodedEvent<M>,
  transaction: Transaction<Schema>,
  signal: AbortSignal,
) => Promise<void>;

/**
 * Runs a handler until it ends or its signal aborts, whichever is first. Begins
 * nothing if the signal has aborted. What a handler that was cut still sends in
 * its transaction is refused: on its way it would meet the rollback, and run
 * behind it in no transaction.
 *
 * @throws the signal's reason if it aborted, else what the handler throws
 */
export async function runBounded<M extends Fact, Schema>(
  handle: FactHandler<M, Schema>,
  decoded: DecodedEvent<M>,
  transaction: Transaction<Schema>,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  await untilAborted(handle(decoded, transaction.withPlugin(refusedAfter(signal)), signal), signal);
  signal.throwIfAborted();
}

/**
 * Bounds each further statement of a transaction, so that a rollback need not
 * wait for longer. Stands where a statement's answer is asked for, and costs no
 * trip of its own.
 */
export function statementsWithin(timeoutMs: number) {
  return sql`set_config('statement_timeout', ${String(Math.ceil(timeoutMs))}, true)`;
}

function refusedAfter(signal: AbortSignal): KyselyPlugin {
  return {
    transformQuery({ node }) {
      signal.throwIfAborted();
      return node;
    },
    transformResult: async ({ result }) => result,
  };
}

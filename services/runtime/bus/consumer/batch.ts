import { context, SpanKind, SpanStatusCode, type Tracer, trace } from "@opentelemetry/api";
import { sql, type Transaction } from "kysely";
import { toAppError } from "../../errors/failure.ts";
import { toUuid } from "../../ids/id.ts";
import type { Logger } from "../../log/log.ts";
import type { Database } from "../../postgres/database.ts";
import type { ReceivedEvent } from "../event-bus.ts";
import type { Fact } from "../topics.ts";
import { type FactHandler, runBounded, statementsWithin } from "./bounded-handler.ts";
import { UndecodableError } from "./decode.ts";
import type { Consumer, DecodedEvent, Handler, Outcome } from "./handler.ts";
import { isForOthers } from "./own-group.ts";
import { linksOf } from "./telemetry.ts";

// Invariants:
// B1. One transaction holds the effects of many events of an org and the records
//     that they were handled: all of them or none.
// B2. Whatever goes wrong, nothing of the batch is there, and its events are
//     handled one by one, with attempts of their own. So a batch is never needed,
//     and decides nothing about an event that fails.
// B3. Events of a key keep their order: of an org, a batch takes those at the
//     front and never one behind another that it leaves.

export interface BatchOptions<M extends Fact, Schema> {
  readonly consumer: Consumer;
  readonly decode: (event: ReceivedEvent) => Promise<DecodedEvent<M>>;
  readonly database: Database<Schema>;
  readonly handle: FactHandler<M, Schema>;
  /** How long a batch may take, in milliseconds; no event is begun after half of it. */
  readonly batchMs: number;
  readonly log: Logger;
  /** A batch has a span of its own, linked to all who stated its events. */
  readonly tracer: Tracer;
}

/** Handles what comes next in one go, and lets through what it could not handle so. */
export interface Batch {
  /** For `SubscribeOptions.prepare`. Never rejects. */
  prepare(events: readonly ReceivedEvent[], signal: AbortSignal): Promise<void>;
  /** A layer that answers for events that a batch has handled. */
  layer(next: Handler<ReceivedEvent>): Handler<ReceivedEvent>;
}

/** Creates the batches of a consumer. */
export function createBatch<M extends Fact, Schema>(options: BatchOptions<M, Schema>): Batch {
  const { consumer, database, handle, batchMs, log, tracer } = options;
  const progress = new Map<number, Progress>();

  /** The facts by org, in order; B3: nothing behind an event that cannot be told now. */
  async function decodeAll(events: readonly ReceivedEvent[]): Promise<ReadonlyMap<string, DecodedEvent<M>[]>> {
    const byOrg = new Map<string, DecodedEvent<M>[]>();
    for (const event of events) {
      if (isForOthers(consumer, event)) continue;
      try {
        const decoded = await options.decode(event);
        const ofOrg = byOrg.get(decoded.orgId);
        if (ofOrg === undefined) byOrg.set(decoded.orgId, [decoded]);
        else ofOrg.push(decoded);
      } catch (thrown) {
        if (!(thrown instanceof UndecodableError)) break;
      }
    }
    return byOrg;
  }

  async function handleOrg(orgId: string, events: readonly DecodedEvent<M>[], signal: AbortSignal) {
    const done = new Map<bigint, Outcome>();
    const beganMs = performance.now();
    await database.asOrg(orgId, async (transaction) => {
      const fresh = await claim(transaction, consumer, orgId, events, batchMs);
      for (const decoded of events) {
        if (performance.now() - beganMs > batchMs / 2) break;
        const isFresh = fresh.delete(decoded.eventId);
        if (isFresh) await runBounded(handle, decoded, transaction, signal);
        done.set(decoded.event.offset, isFresh ? "handled" : "repeated");
      }
      await release(transaction, consumer, fresh);
    });
    return done;
  }

  async function inSpan<T>(events: readonly DecodedEvent<M>[], work: () => Promise<T>): Promise<T> {
    const span = tracer.startSpan(`process batch ${consumer.topic}`, {
      kind: SpanKind.CONSUMER,
      root: true,
      links: events.flatMap(({ event }) => linksOf(event)),
      attributes: {
        "messaging.batch.message_count": events.length,
        "messaging.consumer.group.name": consumer.group,
      },
    });
    try {
      return await context.with(trace.setSpan(context.active(), span), work);
    } catch (thrown) {
      span.setStatus({ code: SpanStatusCode.ERROR, message: toAppError(thrown).reason });
      throw thrown;
    } finally {
      span.end();
    }
  }

  /** @param done what became of those before, whose turn to be acknowledged may be yet to come */
  async function handleAhead(
    events: readonly ReceivedEvent[],
    done: Map<bigint, Outcome>,
    signal: AbortSignal,
  ): Promise<void> {
    const partition = events[0]?.partition;
    if (partition === undefined) return;
    const late = new Set<bigint>();
    progress.set(partition, { events, done, late });
    for (const [orgId, ofOrg] of await decodeAll(events)) {
      if (ofOrg.length < 2) continue;
      const over = AbortSignal.any([signal, AbortSignal.timeout(batchMs)]);
      try {
        const outcomes = await inSpan(ofOrg, () => handleOrg(toUuid("org", orgId), ofOrg, over));
        for (const { event } of ofOrg) {
          const outcome = outcomes.get(event.offset);
          if (outcome === undefined) late.add(event.offset);
          else done.set(event.offset, outcome);
        }
      } catch (thrown) {
        if (signal.aborted) return;
        log.debug({ err: thrown, ...consumer, events: ofOrg.length }, "a batch failed; its events are handled singly"); // B2
      }
    }
  }

  return {
    prepare: (events, signal) => handleAhead(events, new Map(), signal),
    layer: (next) => async (event, signal) => {
      const before = progress.get(event.partition);
      if (before?.late.has(event.offset) === true) {
        // What the last batch had no time for is the next one.
        const late = before.events.filter(({ offset }) => before.late.has(offset));
        await handleAhead(late, before.done, signal);
      }
      return progress.get(event.partition)?.done.get(event.offset) ?? next(event, signal);
    },
  };
}

/** How far the batch of a partition got. */
interface Progress {
  readonly events: readonly ReceivedEvent[];
  /** What became of those that were handled. */
  readonly done: Map<bigint, Outcome>;
  /** The offsets that there was no time for. */
  readonly late: ReadonlySet<bigint>;
}

/** Records the events as handled; returns the ids of those that were not before. */
async function claim<M extends Fact, Schema>(
  transaction: Transaction<Schema>,
  { group }: Consumer,
  orgId: string,
  events: readonly DecodedEvent<M>[],
  batchMs: number,
): Promise<Set<string>> {
  const idOfUuid = new Map(events.map(({ eventId }) => [toUuid("evt", eventId), eventId]));
  // In one order for all, so that two batches do not wait for each other.
  const uuids = [...idOfUuid.keys()].sort();
  const { rows } = await sql<{ event_id: string }>`
    insert into handled_event (org_id, consumer_group, event_id, handled_at)
    select ${orgId}::uuid, ${group}, e, clock_timestamp() from unnest(${uuids}::uuid[]) e
    on conflict do nothing returning event_id, ${statementsWithin(batchMs)}`.execute(transaction);
  return new Set(rows.map(({ event_id: uuid }) => idOfUuid.get(uuid) ?? ""));
}

/** Takes back what was claimed and not handled. */
async function release<Schema>(transaction: Transaction<Schema>, { group }: Consumer, ids: ReadonlySet<string>) {
  if (ids.size === 0) return;
  const uuids = [...ids].map((id) => toUuid("evt", id));
  await sql`delete from handled_event
    where consumer_group = ${group} and event_id = any(${uuids}::uuid[])`.execute(transaction);
}

import { createHash } from "node:crypto";
import { type QueryExecutorProvider, sql } from "kysely";
import type { DeadLetterEvent } from "../../runtime/bus/dead-letter-event.ts";
import { envelopeHeader } from "../../runtime/bus/envelope.ts";
import type { BusEvent } from "../../runtime/bus/event-bus.ts";
import { isFailureReason } from "../../runtime/errors/failure.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import type {
  Closing,
  DeadLetter,
  DeadLetterFilter,
  DeadLetterState,
  DeadLetterStore,
  FullDeadLetter,
  LetterReference,
} from "./dead-letter-store.ts";

interface LetterRow {
  readonly dead_letter_id: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  readonly consumer_group: string;
  readonly attempts: number;
  readonly reason: string;
  readonly message: string;
  readonly event_id: string;
  readonly event_type: string;
  readonly size: number;
  readonly sha256: Buffer;
  readonly failed_at: Date;
  readonly state: DeadLetterState;
  readonly closed_at: Date | null;
  readonly closed_by: string;
}

interface FullRow extends LetterRow {
  readonly key: Buffer;
  readonly headers: Buffer;
  readonly value: Buffer;
}

const letterColumns = sql`dead_letter_id, topic, partition, "offset", consumer_group, attempts, reason, message, event_id,
  event_type, octet_length(value) as size, sha256, failed_at, state, closed_at, closed_by`;
const fullColumns = sql`${letterColumns}, key, headers, value`;
/** Of what an envelope says, which may be anything. */
const maxTextLength = 249;

/** The dead letters of orgs in PostgreSQL. */
export class PostgresDeadLetterStore implements DeadLetterStore {
  readonly #database: Database<Record<never, never>>;

  constructor(database: Database<Record<never, never>>) {
    this.#database = database;
  }

  async keep(orgId: string, { event, partition, offset, failure }: DeadLetterEvent): Promise<boolean> {
    const { rows } = await sql`
      insert into dead_letter (dead_letter_id, org_id, topic, partition, "offset", consumer_group, attempts, reason, message,
        event_id, event_type, key, headers, value, sha256, failed_at)
      values (${toUuid("dlt", newId("dlt"))}, ${orgId}, ${toText(event.topic)}, ${partition}, ${offset},
        ${toText(failure.group)}, ${failure.attempts}, ${failure.reason}, ${failure.message.replaceAll("\0", "")},
        ${toText(event.headers[envelopeHeader.eventId] ?? "")}, ${toText(event.headers[envelopeHeader.eventType] ?? "")},
        ${Buffer.from(event.key)}, ${Buffer.from(JSON.stringify(event.headers))}, ${Buffer.from(event.value)},
        ${createHash("sha256").update(event.value).digest()}, ${failure.failedAt})
      on conflict do nothing returning 1`.execute(this.#database.engine);
    return rows.length === 1;
  }

  async list(
    orgId: string,
    { topic, group, state }: DeadLetterFilter,
    before: string | undefined,
    limit: number,
  ): Promise<readonly DeadLetter[]> {
    return this.#database.asOrg(orgId, async (transaction) => {
      const { rows } = await sql<LetterRow>`
        select ${letterColumns} from dead_letter
         where (${topic} = '' or topic = ${topic}) and (${group} = '' or consumer_group = ${group})
           and (${state ?? ""} = '' or state = ${state ?? ""})
           and (${before ?? null}::uuid is null or dead_letter_id < ${before ?? null}::uuid)
         order by dead_letter_id desc limit ${limit}`.execute(transaction);
      return rows.map(toLetter);
    });
  }

  async find({ orgIds, deadLetterId }: LetterReference): Promise<FullDeadLetter | undefined> {
    for (const orgId of orgIds) {
      const row = await this.#database.asOrg(orgId, (transaction) => selectFull(transaction, deadLetterId, sql``));
      if (row !== undefined) return toFull(row);
    }
    return undefined;
  }

  async close({ orgIds, deadLetterId }: LetterReference, closing: Closing): Promise<DeadLetter | undefined> {
    for (const orgId of orgIds) {
      const closed = await this.#database.asOrg(orgId, async (transaction) => {
        const row = await selectFull(transaction, deadLetterId, sql`for update`);
        if (row === undefined) return undefined;
        const { letter, event } = toFull(row);
        if (letter.state !== "kept") return letter;
        await closing.before(event, letter);
        const { rows } = await sql<LetterRow>`
          update dead_letter set state = ${closing.state}, closed_at = clock_timestamp(), closed_by = ${closing.by}
           where dead_letter_id = ${deadLetterId} returning ${letterColumns}`.execute(transaction);
        return rows.map(toLetter)[0];
      });
      if (closed !== undefined) return closed;
    }
    return undefined;
  }

  async prune(retentionDays: number, limit: number): Promise<number> {
    const { numAffectedRows } = await sql`
      delete from dead_letter where dead_letter_id in (
        select dead_letter_id from dead_letter where kept_at < clock_timestamp() - make_interval(days => ${retentionDays})
         order by kept_at limit ${limit} for update skip locked
      )`.execute(this.#database.engine);
    return Number(numAffectedRows ?? 0n);
  }
}

async function selectFull(
  transaction: QueryExecutorProvider,
  deadLetterId: string,
  lock: ReturnType<typeof sql>,
): Promise<FullRow | undefined> {
  const { rows } = await sql<FullRow>`
    select ${fullColumns} from dead_letter where dead_letter_id = ${deadLetterId} ${lock}`.execute(transaction);
  return rows[0];
}

function toLetter(row: LetterRow): DeadLetter {
  return {
    deadLetterId: row.dead_letter_id,
    topic: row.topic,
    partition: row.partition,
    offset: row.offset,
    failure: {
      group: row.consumer_group,
      attempts: row.attempts,
      reason: isFailureReason(row.reason) ? row.reason : "INTERNAL",
      message: row.message,
      failedAt: row.failed_at,
    },
    eventId: row.event_id,
    eventType: row.event_type,
    size: row.size,
    sha256: row.sha256,
    state: row.state,
    closedAt: row.closed_at ?? undefined,
    closedBy: row.closed_by,
  };
}

function toFull(row: FullRow): FullDeadLetter {
  const headers = JSON.parse(row.headers.toString("utf8")) as BusEvent["headers"];
  return {
    letter: toLetter(row),
    event: { topic: row.topic, key: row.key.toString("utf8"), headers, value: row.value },
  };
}

function toText(text: string): string {
  return text.replaceAll("\0", "").slice(0, maxTextLength);
}

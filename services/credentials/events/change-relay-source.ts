/**
 * The numbered changes as their own outbox. A revision is taken with a lock that
 * is held until the commit, so they are read in order and without holes; the
 * relayed one is in a row that no request touches.
 */
import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  CredentialsChange,
  type CredentialsChanged,
  CredentialsChangedSchema,
} from "@cadre/gen/cadre/events/v1/credentials_pb";
import { type Kysely, type Selectable, sql } from "kysely";
import type { EventCodec } from "../../runtime/bus/envelope.ts";
import type { RelaySource } from "../../runtime/bus/relay.ts";
import { credentialsChanged } from "../../runtime/bus/topics.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import { traceIdOf } from "../../runtime/telemetry/traceparent.ts";
import type { RelayLease } from "../store/relay-lease.ts";
import type { ChangeTable, CredentialsSchema } from "../store/schema.ts";

export interface ChangeRelaySourceOptions {
  readonly engine: Kysely<CredentialsSchema>;
  readonly codec: EventCodec;
  readonly lease: Pick<RelayLease, "hold">;
}

const kinds = {
  credential_revoked: CredentialsChange.REVOKED,
  limits_changed: CredentialsChange.LIMITS,
} as const;

/** Reads the changes that the bus does not have. */
export function createChangeRelaySource(options: ChangeRelaySourceOptions): RelaySource {
  const { engine, codec, lease } = options;
  return {
    async read(limit) {
      if (!(await lease.hold())) return undefined;
      const rows = await engine
        .selectFrom("change")
        .selectAll()
        .where("revision", ">", (relay) => relay.selectFrom("relay").select("relayed_revision"))
        .orderBy("revision")
        .limit(limit)
        .execute();
      const last = rows.at(-1);
      if (last === undefined) return undefined;
      const events = rows.map((row) => {
        const { org_id, traceparent } = row;
        return codec.encode(credentialsChanged, toCredentialsChanged(row), {
          orgId: fromUuid("org", org_id),
          traceparent,
        });
      });
      return { events: await Promise.all(events), position: last.revision, more: rows.length === limit };
    },

    async markRelayed(position) {
      await engine
        .updateTable("relay")
        .set({ relayed_revision: position })
        .where("relayed_revision", "<", position)
        .execute();
    },

    async lag() {
      const { rows } = await sql<{ lag: bigint }>`
        select value - relayed_revision as lag from revision cross join relay`.execute(engine);
      return rows[0]?.lag ?? 0n;
    },
  };
}

function toCredentialsChanged(row: Selectable<ChangeTable>): CredentialsChanged {
  return create(CredentialsChangedSchema, {
    metadata: {
      eventId: fromUuid("evt", row.event_id),
      seq: row.revision,
      at: timestampFromDate(row.at),
      orgId: fromUuid("org", row.org_id),
      traceId: traceIdOf(row.traceparent),
      requestId: row.request_id,
    },
    change: kinds[row.kind],
    subject: row.subject,
    tokenId: row.token_id,
  });
}

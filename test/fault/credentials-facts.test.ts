import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { IdentityService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import pino from "pino";
import { expect, onTestFinished, test } from "vitest";
import { eventIdOf } from "../../services/runtime/bus/envelope.ts";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { agentAudit } from "../../services/runtime/bus/topics.ts";
import { fromUuid } from "../../services/runtime/ids/id.ts";
import { startChild } from "../support/child.ts";
import { startCredentialsWorld } from "../support/credentials-world.ts";
import { openFailpoints } from "../support/failpoints.ts";
import { reach } from "../support/fault-driver.ts";
import { assertMutated, type Edit, mutatedEnvironment, mutations } from "../support/mutate.ts";
import { codec } from "../support/turn-facts.ts";

const program = join(import.meta.dirname, "../support/credentials-relay-process.ts");
const entries = 12;

interface Told {
  readonly eventId: string;
  readonly seq: bigint;
}

/** Kills a relay of the audit log at a place in its first batch; the service's own goes on. Says what the bus was told. */
async function killAt(place: "relay.publish" | "relay.mark", edits: readonly Edit[] = []) {
  const world = await startCredentialsWorld();
  onTestFinished(() => world.stop());
  const holder = "the first";
  await world.sql("update credentials.relay set holder = $1, held_until = 'infinity'", [holder]);
  const { org, secret } = await world.client(IdentityService, world.adminKey).createOrg({ name: "killed" });
  const client = world.client(IdentityService, secret);
  for (let value = 1n; value <= entries; value++) await client.setLimit({ name: "sessions", value });
  const stored = await world.sql<{ event_id: string }>(
    "select event_id from credentials.audit_entry where type = 'limit.set' order by seq",
  );
  // As if the changes were relayed: the first batch is one of the audit log.
  await world.sql("update credentials.relay set relayed_revision = (select value from credentials.revision)");

  const failpoints = openFailpoints();
  onTestFinished(() => failpoints.dispose());
  const mutationLog = join(mkdtempSync(join(tmpdir(), "mutation-")), "log");
  const mutated = edits.length === 0 ? {} : mutatedEnvironment(edits, mutationLog);
  const options = [mutated["NODE_OPTIONS"] ?? "", failpoints.environment["NODE_OPTIONS"]].join(" ");
  failpoints.armAtStart({ name: place, action: "exit", nth: 1 });
  const first = startChild(program, [world.databaseUrl, holder], {
    ...mutated,
    ...failpoints.environment,
    NODE_OPTIONS: options,
  });
  await reach("the relay's end", () => failpoints.fired().length === 1, { timeoutMs: 60_000 });
  await first.crash();
  if (edits.length > 0) assertMutated(edits, mutationLog);
  await client.setLimit({ name: "sessions", value: 100n });

  const told: Told[] = [];
  const bus = await openPostgresEventBus({ url: world.databaseUrl, log: pino({ level: "silent" }) });
  onTestFinished(() => bus.close());
  bus.subscribe({
    topic: agentAudit.name,
    group: "test.audit",
    handle: async (event) => {
      const { metadata } = await codec.decode(agentAudit, event);
      if (metadata?.orgId === org?.orgId) told.push({ eventId: eventIdOf(event), seq: metadata?.seq ?? 0n });
    },
  });
  await reach("the last entry's fact", () => told.some(({ seq }) => seq === BigInt(entries) + 1n), {
    timeoutMs: 60_000,
  });
  return { told, stored: stored.map(({ event_id }) => fromUuid("evt", event_id)) };
}

test("a relay that dies between publishing and marking repeats entries under their ids; control: one that marks first loses them", {
  timeout: 180_000,
}, async () => {
  const [{ told, stored }, control] = await Promise.all([
    killAt("relay.mark"),
    killAt("relay.publish", mutations["relayed before published"]),
  ]);
  // All entries, and all of them again, and then what came meanwhile.
  expect(told.slice(0, entries).map(({ eventId }) => eventId)).toEqual(stored);
  expect(told.slice(entries, 2 * entries).map(({ eventId }) => eventId)).toEqual(stored);
  expect([...new Set(told.map(({ seq }) => seq))]).toEqual(
    Array.from({ length: entries + 1 }, (_, n) => BigInt(n + 1)),
  );
  expect(control.told.map(({ seq }) => seq)).toEqual([BigInt(entries) + 1n]);
});

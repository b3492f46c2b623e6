import { join } from "node:path";
import { AuditService } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { IdentityService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { createCadre, type DeadLetter, reasonName } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type PoisonWorld, settle, startPoisonWorld } from "../faults/poison.ts";
import { callRaw } from "../support/connect-json.ts";
import { reach } from "../support/fault-driver.ts";
import { runProgram } from "../support/run-program.ts";

// One percent of the events is poison, of each of six kinds.
const count = 600;
const program = join(import.meta.dirname, "../../cli/bin/cadre.js");
let world: PoisonWorld;
let letters: readonly DeadLetter[] = [];

beforeAll(async () => {
  world = await startPoisonWorld(count);
  await settle(world, count);
  letters = await world.letters();
}, 60_000);
afterAll(() => world.stop());

function cadre(...args: readonly string[]) {
  const { url, adminKey } = world.server;
  return runProgram(process.execPath, [program, ...args, "--url", url, "--api-key", adminKey, "--json"]);
}

function letterOf(reason: string): DeadLetter {
  const found = letters.find((letter) => reasonName(letter.reason) === reason);
  if (found === undefined) throw new Error(`no letter of ${reason}`);
  return found;
}

test("all that can be handled is, poison is kept byte for byte, and no partition waits for long", async () => {
  expect(await world.effects()).toEqual({ total: count - 6, distinct: count - 6 });
  expect(await world.changed()).toBe(0);
  expect(world.longestMs()).toBeLessThan(5_000);
  const seen = letters.map(({ reason, attempts, group, topic }) => [reasonName(reason), attempts, group, topic]).sort();
  expect(seen).toEqual(
    [
      ["DEADLINE_EXCEEDED", 3],
      ["INTERNAL", 3],
      ["MALFORMED_MESSAGE", 1],
      ["MALFORMED_MESSAGE", 1],
      ["SCHEMA_MISMATCH", 1],
      ["SCHEMA_UNKNOWN", 1],
    ].map(([reason, attempts]) => [reason, attempts, "sample.effects", "conversation.turns.v1"]),
  );
});

test("the CLI lists them page by page, and shows what can be decoded", async () => {
  const listed = await cadre("events", "dead-letters", "list", "--group", "sample.effects", "--state", "kept");
  expect(listed).toMatchObject({ code: 0, stderr: "" });
  expect(JSON.parse(listed.stdout).dead_letters).toHaveLength(6);
  const { items, nextPageToken } = await world.cadre.deadLetters.list({ pageSize: 4 }).page();
  const rest = await world.cadre.deadLetters.list({ pageSize: 4, pageToken: nextPageToken }).page();
  expect([...items, ...rest.items].map(({ deadLetterId }) => deadLetterId)).toEqual(
    letters.map(({ deadLetterId }) => deadLetterId),
  );
  const shown = await cadre("events", "dead-letters", "show", letterOf("INTERNAL").deadLetterId);
  const { value, headers, dead_letter: letter } = JSON.parse(shown.stdout);
  expect(value).toMatchObject({ change: "TURN_CHANGE_STARTED" });
  expect(headers["cadre-event-id"]).toBe(letter.event_id);
  const garbled = await world.cadre.deadLetters.get(letterOf("MALFORMED_MESSAGE").deadLetterId);
  expect(garbled.value).toBeUndefined();
});

test("another org does not find them, and a developer may not requeue", async () => {
  const { url, adminKey } = world.server;
  const { deadLetterId } = letterOf("INTERNAL");
  const made = await callRaw(url, IdentityService.method.createOrg, { name: "B" }, adminKey);
  const other = createCadre({ baseUrl: url, apiKey: JSON.parse(made.body).secret });
  expect(await Array.fromAsync(other.deadLetters.list())).toEqual([]);
  for (const ask of [other.deadLetters.get, other.deadLetters.requeue, other.deadLetters.discard]) {
    await expect(ask(deadLetterId)).rejects.toMatchObject({ reason: "DEAD_LETTER_NOT_FOUND" });
  }
  const { secret } = await world.cadre.keys.issue({ name: "d", scopes: ["events.*"], role: "developer" });
  const developer = createCadre({ baseUrl: url, apiKey: secret });
  await developer.deadLetters.get(deadLetterId);
  await expect(developer.deadLetters.requeue(deadLetterId)).rejects.toMatchObject({ reason: "ROLE_TOO_LOW" });
  await expect(developer.deadLetters.list({ unattributed: true }).page()).rejects.toMatchObject({
    reason: "ROLE_TOO_LOW",
  });
});

test("requeued twenty times at once it has one effect; what was discarded is not requeued", async () => {
  world.heal();
  const { deadLetterId } = letterOf("INTERNAL");
  const answers = await Promise.all(Array.from({ length: 20 }, () => world.cadre.deadLetters.requeue(deadLetterId)));
  expect(
    new Set(answers.map(({ closedBy, closedAt }) => JSON.stringify([closedBy, `${closedAt?.seconds}`]))).size,
  ).toBe(1);
  const hung = await cadre("events", "dead-letters", "requeue", letterOf("DEADLINE_EXCEEDED").deadLetterId);
  expect(hung).toMatchObject({ code: 0, stderr: "" });
  await reach("two more effects", async () => (await world.effects()).distinct === count - 4);
  expect(await world.effects()).toEqual({ total: count - 4, distinct: count - 4 });

  const garbage = letterOf("SCHEMA_UNKNOWN").deadLetterId;
  expect((await cadre("events", "dead-letters", "discard", garbage)).code).toBe(0);
  await expect(world.cadre.deadLetters.requeue(garbage)).rejects.toMatchObject({ reason: "DEAD_LETTER_CLOSED" });
});

test("what happened is in the audit log", async () => {
  const { url, adminKey } = world.server;
  const types = async (type: string) => {
    const asked = AuditService.method.listAuditEvents;
    const { body } = await callRaw(url, asked, { type }, adminKey);
    return (JSON.parse(body).events ?? []) as { readonly resource: string; readonly count?: number }[];
  };
  expect(await types("dlq.requeued")).not.toEqual([]);
  expect((await types("dlq.discarded")).map(({ resource }) => resource)).toContain(
    `dead_letter/${letterOf("SCHEMA_UNKNOWN").deadLetterId}`,
  );
  expect(await types("event.deadlettered")).not.toEqual([]);
});

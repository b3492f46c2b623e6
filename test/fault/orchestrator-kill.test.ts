import { type ChildProcess, fork } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { toJsonString } from "@bufbuild/protobuf";
import { PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { type SessionEvent, TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { afterEach, beforeEach, expect, test } from "vitest";
import { toUuid } from "../../services/runtime/ids/id.ts";
import {
  endsTurn,
  migrateOrchestrator,
  newSession,
  readEvents,
  shownText,
  startTestOrchestrator,
  type TestOrchestrator,
  testPrincipal,
} from "../support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";

const principal = testPrincipal();
let database: TestDatabase;
let folder: string;
/** Only reads and creates sessions; the turns run in the children. */
let reader: TestOrchestrator;
let children: ChildProcess[];

beforeEach(async () => {
  children = [];
  folder = mkdtempSync(join(tmpdir(), "witness-"));
  database = await createTestDatabase();
  await migrateOrchestrator(database.url);
});

afterEach(async () => {
  for (const child of children) await kill(child);
  await reader?.stop();
  await database.drop();
  rmSync(folder, { recursive: true });
});

async function launch(settings: Record<string, string> = {}): Promise<ChildProcess> {
  const child = fork(join(import.meta.dirname, "../support/orchestrator-process.ts"), {
    env: {
      ...process.env,
      DATABASE_URL: database.url,
      WITNESS: join(folder, "witness"),
      PRINCIPAL: toJsonString(PrincipalSchema, principal),
      ...settings,
    },
    execArgv: [],
  });
  child.setMaxListeners(200);
  children.push(child);
  await new Promise<void>((resolve, reject) => {
    child.on("message", (message: { ready?: boolean }) => {
      if (message.ready === true) resolve();
    });
    child.once("exit", () => reject(new Error("the process ended")));
  });
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
}

let nextId = 1;

/** Sends a turn by a child; resolves with whether it was acknowledged before the child died. */
function send(child: ChildProcess, sessionId: string, text: string): Promise<boolean> {
  const id = nextId++;
  return new Promise((resolve) => {
    child.on("message", (message: { id?: number; ok?: boolean }) => {
      if (message.id === id) resolve(message.ok === true);
    });
    child.once("exit", () => resolve(false));
    child.send({ id, sessionId, text, key: sessionId });
  });
}

function witnessed(): string[] {
  const file = join(folder, "witness");
  return existsSync(file) ? readFileSync(file, "utf8").trimEnd().split("\n").filter(Boolean) : [];
}

function assertGapless(events: readonly SessionEvent[]): void {
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, place) => BigInt(place + 1)));
}

const script =
  'say one two three four five six\ncall record {"text":"a","ms":300}\ncall record {"text":"b","ms":300}\nsay seven eight nine ten';

async function until(sessionId: string, isReached: (event: SessionEvent) => boolean): Promise<void> {
  await readEvents(reader.sessions, sessionId, 0n, isReached);
}

test.each([
  ["text streams", (event: SessionEvent) => event.body.case === "textDelta"],
  ["its tools run", (event: SessionEvent) => event.body.case === "toolStarted"],
  ["one of its tools has ended", (event: SessionEvent) => event.body.case === "toolEnded"],
])("killed while %s, the turn goes on at its first unfinished step in the next process", async (_when, isReached) => {
  // Nothing goes on in time if that lease is waited for.
  const first = await launch({ LEASE_MS: "120000" });
  reader = await startTestOrchestrator({ databaseUrl: database.url, takesShards: false }, principal);
  const sessionId = await newSession(reader.sessions);
  expect(await send(first, sessionId, script)).toBe(true);
  await until(sessionId, isReached);
  await kill(first);
  await launch({ PREVIOUS_ARE_DEAD: "true" });
  const events = await readEvents(reader.sessions, sessionId, 0n, endsTurn());
  assertGapless(events);
  expect(events.at(-1)?.body.value).toMatchObject({ state: TurnState.SUCCEEDED, answer: "seven eight nine ten" });
  expect(shownText(events)).toBe("one two three four five sixseven eight nine ten");
  const lines = witnessed();
  expect(new Set(lines.map((line) => line.split(" ")[1]))).toEqual(new Set(["a", "b"]));
  expect(lines).toHaveLength(2);
  expect(new Set(lines.map((line) => line.split(" ")[0])).size).toBe(2);
});

/** The process that owns a session's shard. */
async function ownerOf(sessionId: string): Promise<ChildProcess> {
  const row = await reader.database.engine
    .selectFrom("session")
    .innerJoin("shard", "shard.shard", "session.shard")
    .innerJoin("writer", "writer.writer", "shard.writer")
    .select("writer.process")
    .where("session_id", "=", toUuid("ses", sessionId))
    .executeTakeFirstOrThrow();
  const owner = children.find(({ pid }) => row.process === `test ${pid}`);
  if (owner === undefined) throw new Error(`no child is ${row.process}`);
  return owner;
}

async function liveWriters(): Promise<number> {
  const rows = await reader.database.engine.selectFrom("writer").select("writer").where("fenced", "=", false).execute();
  return rows.length;
}

test("with the default lease, another process goes on within 10 seconds of a kill", { timeout: 300_000 }, async () => {
  const [first] = await Promise.all([launch({ LEASE_MS: "5000" }), launch({ LEASE_MS: "5000" })]);
  reader = await startTestOrchestrator({ databaseUrl: database.url, takesShards: false }, principal);
  const sessionId = await newSession(reader.sessions);
  if (first === undefined) throw new Error("no process");
  // Six seconds of text: on a busy machine, too, the kill meets an attempt. Between two steps there is none to discard.
  const words = Array.from({ length: 400 }, (_, index) => `word${index}`).join(" ");
  expect(await send(first, sessionId, `say ${words}`)).toBe(true);
  await until(sessionId, (event) => event.body.case === "textDelta");
  await kill(await ownerOf(sessionId));
  const killedMs = performance.now();
  await until(sessionId, (event) => event.body.case === "attemptDiscarded");
  const tookMs = performance.now() - killedMs;
  expect(tookMs).toBeLessThan(10_000);
  const events = await readEvents(reader.sessions, sessionId, 0n, endsTurn());
  assertGapless(events);
  expect(shownText(events)).toBe(words);
});

test("a process that was stopped and woken writes nothing of what another took over, and takes part again", {
  timeout: 300_000,
}, async () => {
  const [first] = await Promise.all([launch({ LEASE_MS: "1500" }), launch({ LEASE_MS: "1500" })]);
  reader = await startTestOrchestrator({ databaseUrl: database.url, takesShards: false }, principal);
  if (first === undefined) throw new Error("no process");
  for (let round = 0; round < 3; round += 1) {
    const sessionId = await newSession(reader.sessions);
    expect(await send(first, sessionId, script)).toBe(true);
    await until(sessionId, (event) => event.body.case === (round % 2 === 0 ? "textDelta" : "toolStarted"));
    const owner = await ownerOf(sessionId);
    owner.kill("SIGSTOP");
    const before = await readEvents(reader.sessions, sessionId, 0n, endsTurn(), 60_000);
    owner.kill("SIGCONT");
    // It is back when it has a writer again, after it learned that the old one is fenced.
    await expect.poll(liveWriters).toBe(2);
    const after = await readEvents(reader.sessions, sessionId, 0n, (event) => event.seq === before.at(-1)?.seq);
    expect(after).toEqual(before);
    const { session } = await reader.sessions.getSession({ sessionId });
    expect(session?.lastSeq).toBe(before.at(-1)?.seq);
    assertGapless(before);
    expect(shownText(before)).toBe("one two three four five sixseven eight nine ten");
    await expect
      .poll(
        async () => {
          const rows = await reader.database.engine.selectFrom("shard").select("writer").distinct().execute();
          return rows.length;
        },
        // Busy shards are given up after 30 seconds.
        { timeout: 300_000 },
      )
      .toBe(2);
  }
  const lines = witnessed();
  expect(lines).toHaveLength(6);
  expect(new Set(lines).size).toBe(6);
});

/** Kills whichever of two processes has lived longest, again and again, while turns run. */
async function rampage(settings: Record<string, string>, turns: number, kills: number) {
  let old = await launch(settings);
  let young = await launch(settings);
  reader = await startTestOrchestrator({ databaseUrl: database.url, takesShards: false }, principal);
  const sessionIds = await Promise.all(Array.from({ length: turns }, () => newSession(reader.sessions)));
  const sending = Promise.all(
    sessionIds.map(async (sessionId, index) => {
      await delay(index * 200);
      for (let tries = 0; tries < 40; tries += 1) {
        if (await send(tries % 2 === 0 ? young : old, sessionId, script)) return;
        await delay(100);
      }
      throw new Error("the turn was never accepted");
    }),
  );
  for (let killed = 0; killed < kills; killed += 1) {
    await delay(150 + Math.random() * 500);
    await kill(old);
    old = young;
    young = await launch(settings);
  }
  await sending;
  const histories = await Promise.all(
    sessionIds.map((sessionId) => readEvents(reader.sessions, sessionId, 0n, endsTurn(), 60_000)),
  );
  return { histories, lines: witnessed() };
}

test("8 kills under 50 turns in two processes lose nothing, double nothing, and leave no gap", {
  timeout: 300_000,
}, async () => {
  const { histories, lines } = await rampage({ LEASE_MS: "1000" }, 50, 8);
  for (const events of histories) {
    assertGapless(events);
    expect(events.at(-1)?.body.value).toMatchObject({ state: TurnState.SUCCEEDED, answer: "seven eight nine ten" });
    expect(shownText(events)).toBe("one two three four five sixseven eight nine ten");
    expect(events.filter(({ body }) => body.case === "turnEnded")).toHaveLength(1);
  }
  expect(lines).toHaveLength(100);
  expect(new Set(lines).size).toBe(100);
});

test("control: with a tool that ignores the key, the same kills double effects", { timeout: 300_000 }, async () => {
  const { lines } = await rampage({ LEASE_MS: "1000", WITNESS_IGNORES_KEYS: "true" }, 50, 8);
  expect(lines.length).toBeGreaterThan(100);
});

import { setTimeout as delay } from "node:timers/promises";
import { fromJson } from "@bufbuild/protobuf";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { RunState } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { OnBusy } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { sql } from "kysely";
import pg from "pg";
import pino from "pino";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FakeTools } from "../../test/support/fake-tools.ts";
import {
  endsTurn,
  migrateOrchestrator,
  newSession,
  readEvents,
  reasonOf,
  startTestOrchestrator,
  type TestOrchestrator,
  type TestOrchestratorOptions,
  testPrincipal,
} from "../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../test/support/postgres.ts";
import { AppError } from "../runtime/errors/app-error.ts";
import { toAppError } from "../runtime/errors/failure.ts";
import { newId, toUuid } from "../runtime/ids/id.ts";
import type { Logger } from "../runtime/log/log.ts";
import { describeSchema, migrate, migrateDown } from "../runtime/postgres/migrator.ts";
import { emptyChain } from "./domain/chain.ts";
import { shardOf } from "./domain/shard.ts";
import type { AppendOutcome, AppendStore, Batch } from "./store/append-store.ts";
import { migrations } from "./store/migrations/index.ts";

const principal = testPrincipal();
let database: TestDatabase;
let worlds: TestOrchestrator[];

beforeEach(async () => {
  worlds = [];
  database = await createTestDatabase();
  await migrateOrchestrator(database.url);
});

afterEach(async () => {
  for (const world of worlds) await world.stop();
  await database.drop();
});

async function start(options: Partial<TestOrchestratorOptions> = {}): Promise<TestOrchestrator> {
  const world = await startTestOrchestrator({ databaseUrl: database.url, ...options }, principal);
  worlds.push(world);
  return world;
}

/** Runs a statement as the superuser, past all rights. */
async function asSuperuser(statement: string): Promise<pg.QueryResult> {
  const client = new pg.Client(database.url);
  await client.connect();
  try {
    await client.query("set search_path = orchestrator");
    return await client.query(statement);
  } finally {
    await client.end();
  }
}

function writerOf(world: TestOrchestrator): bigint {
  const { writer } = world.orchestrator.engine.status;
  if (writer === undefined) throw new Error("no writer");
  return writer;
}

/** An append store whose process is held up or cut off at will. */
class BrokenStore implements AppendStore {
  before: (batch: Batch) => Promise<void> = async () => undefined;
  after: (batch: Batch, outcome: AppendOutcome) => AppendOutcome = (_batch, outcome) => outcome;
  readonly #store: AppendStore;

  constructor(store: AppendStore) {
    this.#store = store;
  }

  async append(writer: bigint, batch: Batch): Promise<AppendOutcome> {
    await this.before(batch);
    return this.after(batch, await this.#store.append(writer, batch));
  }

  position(writer: bigint) {
    return this.#store.position(writer);
  }

  heads(runIds: readonly string[]) {
    return this.#store.heads(runIds);
  }
}

describe("two processes", () => {
  test("share the shards evenly, take commands for each other, and follow each other's events", async () => {
    const first = await start({ leaseMs: 1_000 });
    expect(first.orchestrator.engine.status.shards).toBe(64);
    const second = await start({ leaseMs: 1_000 });
    await expect.poll(() => [first, second].map((world) => world.orchestrator.engine.status.shards)).toEqual([32, 32]);
    for (let index = 0; index < 12; index += 1) {
      const sender = index % 2 === 0 ? first : second;
      const reader = index % 3 === 0 ? first : second;
      const sessionId = await newSession(sender.sessions);
      const live = readEvents(reader.sessions, sessionId, 0n, endsTurn());
      const { turn } = await sender.sessions.sendTurn({ sessionId, text: "say one two three" });
      const events = await live;
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, place) => BigInt(place + 1)));
      const { turn: stored } = await reader.sessions.getTurn({ sessionId, turnId: turn?.turnId ?? "" });
      expect(stored?.state).toBe(TurnState.SUCCEEDED);
      await sender.sessions.sendTurn({ sessionId, text: "wait 5s" });
      expect(await reasonOf(reader.sessions.sendTurn({ sessionId, text: "x" }))).toBe("SESSION_BUSY");
      expect((await reader.sessions.cancelTurn({ sessionId })).turns).toHaveLength(1);
      await readEvents(sender.sessions, sessionId, events.at(-1)?.seq ?? 0n, endsTurn());
      await reader.sessions.deleteSession({ sessionId });
      expect(await reasonOf(sender.sessions.getSession({ sessionId }))).toBe("SESSION_NOT_FOUND");
    }
  });

  test("an equal command with a key is one turn, whichever of them it comes to", async () => {
    const first = await start({ leaseMs: 1_000 });
    const second = await start({ leaseMs: 1_000 });
    const sessionId = await newSession(first.sessions);
    const headers = { "idempotency-key": "same" };
    const replies = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        (index % 2 === 0 ? first : second).sessions.sendTurn({ sessionId, text: "say x" }, { headers }),
      ),
    );
    expect(new Set(replies.map(({ turn }) => turn?.turnId)).size).toBe(1);
  });

  test("what a stopped one was at goes on at the other, with the step's key and a higher epoch", async () => {
    const finish = Promise.withResolvers<void>();
    const tools = new FakeTools().add("later", async () => {
      await finish.promise;
      return "done";
    });
    const first = await start({ leaseMs: 1_000, tools });
    const sessionId = await newSession(first.sessions);
    const { turn } = await first.sessions.sendTurn({ sessionId, text: "call later {}\nanswer" });
    await expect.poll(() => tools.begun.length).toBe(1);
    const second = await start({ leaseMs: 1_000, tools });
    await first.stop();
    await expect.poll(() => tools.requests.length).toBe(2);
    finish.resolve();
    const events = await readEvents(second.sessions, sessionId, 0n, endsTurn(turn?.turnId));
    expect(events.at(-1)?.body.value).toMatchObject({ state: TurnState.SUCCEEDED, answer: "later says: done" });
    expect(tools.begun).toHaveLength(1);
    const [before, after] = tools.requests;
    expect(after?.idempotencyKey).toBe(before?.idempotencyKey);
    expect(after?.attempt).toBe(2);
    expect(after?.epoch).toBeGreaterThan(before?.epoch ?? 0n);
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, place) => BigInt(place + 1)));
  });
});

describe("a writer that was replaced", () => {
  /** A zombie is held up before its next append while another process takes over; then it goes on. */
  async function zombie(): Promise<{ sessionId: string; ends: number; answers: string[] }> {
    let store: BrokenStore | undefined;
    let release: () => void = () => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    let reached: () => void = () => undefined;
    const isHeld = new Promise<void>((resolve) => {
      reached = resolve;
    });
    const first = await start({
      leaseMs: 60_000,
      wrapAppendStore: (inner) => {
        store = new BrokenStore(inner);
        return store;
      },
    });
    const sessionId = await newSession(first.sessions);
    if (store === undefined) throw new Error("no store");
    store.before = async (batch) => {
      if (!batch.events.some((event) => Buffer.from(event.body).includes("zombie"))) return;
      reached();
      await held;
    };
    await first.sessions.sendTurn({ sessionId, text: "wait 100ms\nsay zombie" });
    await isHeld;
    await asSuperuser(`update writer set lease_until = now() - interval '1 hour' where writer = ${writerOf(first)}`);
    const second = await start({ leaseMs: 1_000 });
    await expect.poll(() => second.orchestrator.engine.status.shards).toBeGreaterThan(0);
    await readEvents(second.sessions, sessionId, 0n, endsTurn());
    release();
    await delay(500);
    const { rows } = await asSuperuser(
      `select count(*) from entry e join run r using (run_id) where r.session_id = '${toUuid("ses", sessionId)}' and kind = 17`,
    );
    const events = await readEvents(second.sessions, sessionId, 0n, endsTurn());
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, place) => BigInt(place + 1)));
    return {
      sessionId,
      ends: Number(rows[0].count),
      answers: events.flatMap(({ body }) => (body.case === "textDelta" ? [body.value.text] : [])),
    };
  }

  test("writes nothing more, and its turn has ended once at the other", async () => {
    const { ends, answers } = await zombie();
    expect(ends).toBe(1);
    expect(answers.join("")).toContain("zombie");
  });

  test("is refused by its shards, its lease, its fence and its batch", async () => {
    const world = await start({ leaseMs: 60_000 });
    const writer = writerOf(world);
    const sessionId = toUuid("ses", await newSession(world.sessions));
    const shard = shardOf(sessionId);
    const append = async (
      change: string,
      batchNumber = "(select batch from writer where writer = $1)",
    ): Promise<string> => {
      const client = new pg.Client(database.url);
      await client.connect();
      try {
        await client.query("begin");
        await client.query("set search_path = orchestrator");
        await client.query(change);
        const { rows } = await client.query(
          `select ${batchNumber} as n`,
          batchNumber.includes("$1") ? [String(writer)] : [],
        );
        await client.query(
          `select append($1, $2, array[${shard}]::smallint[], (select array[epoch] from shard where shard = ${shard}),
            '{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}', '{}','{}','{}','{}','{}',
            '{}','{}','{}','{}','{}','{}','{}','{}',
            array['${sessionId}']::uuid[], array[0]::bigint[], array[1]::bigint[], '{0}','{0}','{0}','{0}','{0}','{f}',
            array[1], array[1]::bigint[], array['x'::bytea], '{}','{}', '{}','{}','{}','{}','{}', '')`,
          [String(writer), rows[0].n],
        );
        return "stored";
      } catch (error) {
        return error instanceof pg.DatabaseError ? (error.code ?? "") : String(error);
      } finally {
        await client.query("rollback");
        await client.end();
      }
    };
    expect(await append("select 1")).toBe("stored");
    expect(await append(`update writer set fenced = true where writer = ${writer}`)).toBe("CF001");
    expect(await append(`update shard set epoch = epoch + 1, writer = null where shard = ${shard}`)).toBe("CF001");
    expect(await append(`update shard set writer = writer + 1 where shard = ${shard}`)).toBe("CF001");
    expect(await append(`update writer set lease_until = now() - interval '1 s' where writer = ${writer}`)).toBe(
      "CF005",
    );
    expect(await append("select 1", "0 - 1")).toBe("CF004");
    expect(await append(`update session set last_seq = 5 where session_id = '${sessionId}'`)).toBe("CF002");
  });

  test("control: with these checks removed, a fenced writer's turn is stored", async () => {
    const { rows } = await asSuperuser("select pg_get_functiondef('orchestrator.append'::regproc) as source");
    const source: string = rows[0].source;
    const open = source
      .replace("and not fenced and batch = expected_batch and lease_until > clock_timestamp()", "")
      .replace(/if found_count <> cardinality\(shards\) then[^;]*;\s*end if;/, "");
    expect(open.length).toBeLessThan(source.length - 100);
    await asSuperuser(open);
    expect(await entriesOfFencedWriter()).toBeGreaterThan(0);
  });

  test("stores nothing of a turn that is sent to it; a new writer of the same process does", async () => {
    expect(await entriesOfFencedWriter()).toBe(0);
  });

  /** Fences a process's writer behind its back, sends it a turn, and counts what that writer stored. */
  async function entriesOfFencedWriter(): Promise<number> {
    const world = await start({ leaseMs: 60_000 });
    const writer = writerOf(world);
    const sessionId = await newSession(world.sessions);
    await asSuperuser(`update writer set fenced = true where writer = ${writer}`);
    const { turn } = await world.sessions.sendTurn({ sessionId, text: "say accepted" });
    expect(turn?.turnId).toMatch(/^run_/);
    const { rows } = await asSuperuser(`select count(*) from entry where writer = ${writer}`);
    return Number(rows[0].count);
  }
});

describe("append", () => {
  test("finds its rows by their keys, however many came since its plans were made", async () => {
    const world = await start({ leaseMs: 60_000 });
    const writer = writerOf(world);
    const client = new pg.Client(database.url);
    await client.connect();
    const orgUuid = toUuid("org", newId("org"));
    /** Appends a run that begins, ends with its second entry, and says how many rows of `run` that read. */
    const append = async (): Promise<number> => {
      const runUuid = toUuid("run", newId("run"));
      const shard = shardOf(runUuid);
      const before = await rowsRead();
      await client.query(
        `select append($1, (select batch from writer where writer = $1), array[$2::smallint],
          (select array[epoch] from shard where shard = $2::smallint),
          array[$3]::uuid[], array[$3]::uuid[], array[$2]::smallint[], array[$4]::uuid[], array[null]::uuid[],
          array[null]::uuid[], array[null]::int[], array['n'], array['{}'], array[null]::uuid[], array[''::bytea],
          array[1, 1], array[1, 2], array[10, 26]::smallint[], array['a'::bytea, 'b'::bytea], array['h'::bytea, 'i'::bytea],
          array[$3]::uuid[], array[0], array[$5]::bytea[], array[2], array['i'::bytea],
          array[4]::smallint[], array[null]::timestamptz[], array[null]::bytea[],
          '{}','{}','{}','{}','{}','{}','{}','{}','{}', '{}','{}','{}', '{}','{}', '{}','{}','{}','{}','{}', null)`,
        [String(writer), shard, runUuid, orgUuid, Buffer.from(emptyChain)],
      );
      return (await rowsRead()) - before;
    };
    const rowsRead = async (): Promise<number> => {
      const { rows } = await client.query(
        "select seq_tup_read + idx_tup_fetch as n from pg_stat_xact_user_tables where relid = 'run'::regclass",
      );
      return Number(rows[0].n);
    };
    try {
      await client.query("begin");
      await client.query("set search_path = orchestrator");
      // What PostgreSQL plans with from here on is a table of one run that has ended.
      await append();
      await client.query("analyze run");
      for (let calls = 0; calls < 8; calls++) await append();
      await client.query(
        `insert into run (run_id, org_id, root_id, shard, name, labels, view)
          select id, $1, id, 0, '', '{}', '' from (select gen_random_uuid() as id from generate_series(1, 5000)) x`,
        [orgUuid],
      );
      expect(await append()).toBeLessThan(10);
    } finally {
      await client.query("rollback");
      await client.end();
    }
  });
});

test("what is due at once is woken, however long its commit takes", async () => {
  const world = await start({
    tools: new FakeTools().addPure("echo", (call) => call.arguments),
    wrapAppendStore: (inner) => ({
      async append(writer, batch) {
        // Longer than a look for what is due.
        await delay(100);
        return await inner.append(writer, batch);
      },
      position: (writer) => inner.position(writer),
      heads: (runIds) => inner.heads(runIds),
    }),
  });
  const graph = fromJson(GraphSchema, {
    name: "at-once",
    steps: [
      { name: "first", tool: { tool: "echo", arguments: { text: "a" } } },
      { name: "pause", timer: { duration: "0s" }, after: [{ step: "first" }] },
    ],
  });
  for (let run = 0; run < 3; run++) {
    const ended = await world.runs.startRun({ definition: { case: "graph", value: graph }, wait: { seconds: 20n } });
    expect(ended.run?.state).toBe(RunState.SUCCEEDED);
  }
});

describe("an outcome that got lost", () => {
  test("after the commit is found and not repeated; before it, the batch is stored once", async () => {
    let appends = 0;
    let lost = 0;
    const world = await start({
      wrapAppendStore: (inner) => {
        const store: AppendStore = {
          async append(writer, batch) {
            appends += 1;
            // Every third is lost on the way there, every third on the way back.
            if (appends % 3 === 0) {
              lost += 1;
              return { type: "unknown", cause: new Error("lost on the way there") };
            }
            const outcome = await inner.append(writer, batch);
            if (appends % 3 === 1 && outcome.type === "stored") {
              lost += 1;
              return { type: "unknown", cause: new Error("lost on the way back") };
            }
            return outcome;
          },
          position: (writer) => inner.position(writer),
          heads: (runIds) => inner.heads(runIds),
        };
        return store;
      },
      tools: new FakeTools().add("echo", ({ arguments: { text } }) => `${text}`),
    });
    const turns = await Promise.all(
      Array.from({ length: 20 }, async (_, index) => {
        const sessionId = await newSession(world.sessions);
        await world.sessions.sendTurn({ sessionId, text: `call echo {"text":"${index}"}\nanswer` });
        return await readEvents(world.sessions, sessionId, 0n, endsTurn());
      }),
    );
    for (const [index, events] of turns.entries()) {
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, place) => BigInt(place + 1)));
      expect(events.at(-1)?.body.value).toMatchObject({ answer: `echo says: ${index}` });
    }
    // Each turn takes five commits one after the other, however many turns share them.
    expect(lost).toBeGreaterThan(2);
  });

  describe("and then the writer", () => {
    /** Sends a turn whose commit's answer gets lost, as its writer is replaced; gives how many turns there are in the end. */
    async function sendTurn({ canTell }: { readonly canTell: boolean }) {
      let isLost = false;
      const world = await start({
        leaseMs: 2_000,
        wrapAppendStore: (inner) => ({
          async append(writer, batch) {
            const outcome = await inner.append(writer, batch);
            if (isLost || batch.newRuns.length === 0) return outcome;
            isLost = true;
            await asSuperuser(`update writer set fenced = true where writer = ${writer}`);
            return { type: "unknown", cause: new Error("lost on the way back") };
          },
          async position(writer) {
            if (!canTell) throw new AppError("UNAVAILABLE", "the database cannot be reached");
            return await inner.position(writer);
          },
          heads: (runIds) => inner.heads(runIds),
        }),
      });
      const sessionId = await newSession(world.sessions);
      const answered = await world.sessions
        .sendTurn({ sessionId, text: "say once" })
        .catch((error: unknown) => toAppError(error).reason);
      await readEvents(world.sessions, sessionId, 0n, endsTurn());
      const { rows } = await asSuperuser(`select count(*) from run where session_id = '${toUuid("ses", sessionId)}'`);
      return { answered, turns: Number(rows[0].count) };
    }

    test("a command is answered, and not executed again by the next writer", async () => {
      const { answered, turns } = await sendTurn({ canTell: true });
      expect(answered).toMatchObject({ turn: { turnId: expect.stringMatching(/^run_/) } });
      expect(turns).toBe(1);
    });

    test("a command is refused as UNAVAILABLE where nobody can tell, and not executed again", async () => {
      const { answered, turns } = await sendTurn({ canTell: false });
      expect(answered).toBe("UNAVAILABLE");
      expect(turns).toBe(1);
    });
  });

  test("a run whose writer is replaced while it starts is started by the next writer", async () => {
    const tools = new FakeTools().add("echo", ({ arguments: { text } }) => `${text}`);
    const world = await start({ leaseMs: 60_000, tools });
    const writer = writerOf(world);
    await asSuperuser(`update writer set fenced = true where writer = ${writer}`);
    const graph = fromJson(GraphSchema, {
      name: "moved",
      steps: [{ name: "first", tool: { tool: "echo", arguments: { text: "a" } } }],
    });
    const ended = await world.runs.startRun({ definition: { case: "graph", value: graph }, wait: { seconds: 20n } });
    expect(ended.run?.state).toBe(RunState.SUCCEEDED);
    const { rows } = await asSuperuser("select distinct writer from entry");
    expect(rows.map((row) => BigInt(row.writer))).toEqual([writerOf(world)]);
    expect(writerOf(world)).not.toBe(writer);
  });

  test("with the connection really cut under the append", async () => {
    const world = await start();
    const results = await Promise.all(
      Array.from({ length: 10 }, async () => {
        const sessionId = await newSession(world.sessions);
        const reading = readEvents(world.sessions, sessionId, 0n, endsTurn());
        for (;;) {
          try {
            await world.sessions.sendTurn(
              { sessionId, text: "say a b c\nwait 200ms\nsay d e f" },
              { headers: { "idempotency-key": sessionId } },
            );
            break;
          } catch {
            await delay(50);
          }
        }
        return reading.catch(() => readEvents(world.sessions, sessionId, 0n, endsTurn()));
      }).concat(
        (async () => {
          for (let cut = 0; cut < 15; cut += 1) {
            await asSuperuser(
              "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and state = 'active' and query like '%from append(%' and pid <> pg_backend_pid()",
            );
            await delay(20);
          }
          return [];
        })(),
      ),
    );
    for (const events of results.slice(0, 10)) {
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, place) => BigInt(place + 1)));
      expect(events.at(-1)?.body.value).toMatchObject({ answer: "a b cd e f" });
    }
  });
});

describe("the write path", () => {
  test("goes down and up again, and is the same", async () => {
    const options = {
      url: database.url,
      service: "orchestrator",
      migrations,
      log: pino({ level: "silent" }) as Logger,
    };
    const before = await describeSchema(database.url, "orchestrator");
    expect(before.length).toBeGreaterThan(50);
    await migrateDown({ ...options, to: "" });
    await migrate(options);
    expect(await describeSchema(database.url, "orchestrator")).toEqual(before);
  });

  test("is the only one: no role of the process can write runs, entries or events", async () => {
    const world = await start();
    for (const statement of [
      "insert into session_event (session_id, seq, org_id, body) values (gen_random_uuid(), 1, gen_random_uuid(), '')",
      "update run set head = 0",
      "delete from entry",
      "update writer set fenced = false",
      "update shard set writer = 1",
    ]) {
      await expect(sql.raw(statement).execute(world.database.engine)).rejects.toThrow(/permission denied/);
    }
  });

  test("refuses new work when the relay is too far behind, and goes on with what runs", async () => {
    const world = await start({ maxUnrelayedEntries: 4 });
    const sessionId = await newSession(world.sessions);
    await world.sessions.sendTurn({ sessionId, text: "say first" });
    await readEvents(world.sessions, sessionId, 0n, endsTurn());
    expect(await reasonOf(world.sessions.sendTurn({ sessionId, text: "x", onBusy: OnBusy.ENQUEUE }))).toBe(
      "BACKPRESSURE",
    );
    expect(world.audited.map(({ type, reason }) => [type, reason])).toEqual([["backpressure.on", "BACKPRESSURE"]]);
    world.orchestrator.engine.setUnrelayed(0);
    await world.sessions.sendTurn({ sessionId, text: "say second" });
    expect(world.audited.map(({ type }) => type).slice(0, 2)).toEqual(["backpressure.on", "backpressure.off"]);
  });

  test("notices an entry that was changed, moved or removed, and does not run on", async () => {
    for (const damage of [
      "update entry set body = body || '\\x00' where seq = 2",
      "delete from entry where seq = 2",
      "update entry set kind = kind + 1 where seq = 2",
    ]) {
      const world = await start({ leaseMs: 1_000 });
      const sessionId = await newSession(world.sessions);
      const { turn } = await world.sessions.sendTurn({ sessionId, text: "wait 30s" });
      await readEvents(world.sessions, sessionId, 0n, (event) => event.body.case === "turnStarted");
      await world.stop();
      await asSuperuser(damage.replace("where", `where run_id = '${toUuid("run", turn?.turnId ?? "")}' and`));
      const next = await start({ previousWritersAreDead: true });
      const events = await readEvents(next.sessions, sessionId, 0n, endsTurn());
      const end = events.at(-1)?.body;
      expect(end?.case === "turnEnded" && end.value.error?.reason).toBe(Reason.DATA_LOSS);
      const lost = await next.sessions.getTurn({ sessionId, turnId: turn?.turnId ?? "" });
      expect(lost.turn).toMatchObject({
        state: TurnState.FAILED,
        text: "wait 30s",
        error: { reason: Reason.DATA_LOSS },
      });
      const { session } = await next.sessions.getSession({ sessionId });
      expect(session?.busy).toBe(false);
      // The session goes on without it, also over another restart.
      await next.sessions.sendTurn({ sessionId, text: "say on" });
      await readEvents(next.sessions, sessionId, events.at(-1)?.seq ?? 0n, endsTurn());
      await next.stop();
      const last = await start({ previousWritersAreDead: true });
      const { turns } = await last.sessions.listTurns({ sessionId });
      expect(turns.map(({ state }) => state)).toEqual([TurnState.FAILED, TurnState.SUCCEEDED]);
      await last.stop();
    }
  });
});

test("a reader is told when its process stops, so that it goes on elsewhere", async () => {
  const world = await start();
  const sessionId = await newSession(world.sessions);
  const reading = reasonOf(readEvents(world.sessions, sessionId, 0n, () => false));
  await expect.poll(() => world.orchestrator.engine.feed.size).toBe(1);
  await world.stop();
  expect(await reading).toBe("SHUTTING_DOWN");
});

test("what is deleted is removed from the tables once it is relayed", async () => {
  const world = await start({ leaseMs: 1_000 });
  const sessionId = await newSession(world.sessions);
  await world.sessions.sendTurn({ sessionId, text: "say hi" });
  await readEvents(world.sessions, sessionId, 0n, endsTurn());
  await world.sessions.deleteSession({ sessionId });
  const left = async (): Promise<number> => {
    const { rows } = await asSuperuser(
      "select (select count(*) from session) + (select count(*) from run) + (select count(*) from entry) + (select count(*) from session_event) as n",
    );
    return Number(rows[0].n);
  };
  await delay(700);
  // Not before the bus has its facts.
  const { rows } = await asSuperuser("select count(*) as n from entry");
  expect(Number(rows[0].n)).toBeGreaterThan(0);
  await asSuperuser("update writer set relayed = pos");
  await expect.poll(left).toBe(0);
});

test("a database that refuses for a while loses nothing: the turn goes on when it is back", async () => {
  let refuses = false;
  const world = await start({
    leaseMs: 1_000,
    wrapAppendStore: (inner) => {
      const store = new BrokenStore(inner);
      const append = store.append.bind(store);
      store.append = async (writer, batch) =>
        refuses ? { type: "refused", why: "unavailable", cause: new Error("down") } : await append(writer, batch);
      return store;
    },
  });
  const sessionId = await newSession(world.sessions);
  await world.sessions.sendTurn({ sessionId, text: "say a\nwait 300ms\nsay b" });
  await readEvents(world.sessions, sessionId, 0n, (event) => event.body.case === "textDelta");
  refuses = true;
  await delay(5_500);
  // Whoever comes meanwhile is told so instead of being kept waiting.
  const late = { sessionId, text: "say c", onBusy: OnBusy.ENQUEUE };
  expect(await reasonOf(world.sessions.sendTurn(late))).toBe("UNAVAILABLE");
  refuses = false;
  const events = await readEvents(world.sessions, sessionId, 0n, endsTurn());
  expect(events.at(-1)?.body.value).toMatchObject({ state: TurnState.SUCCEEDED, answer: "ab" });
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, place) => BigInt(place + 1)));
});

test("a lease that expired unnoticed is renewed by the writer itself", async () => {
  const world = await start({ leaseMs: 60_000 });
  const sessionId = await newSession(world.sessions);
  await asSuperuser(`update writer set lease_until = now() - interval '1 minute' where writer = ${writerOf(world)}`);
  const writer = writerOf(world);
  await world.sessions.sendTurn({ sessionId, text: "say hi" });
  expect(writerOf(world)).toBe(writer);
});

test("a message that waited and was cancelled is not shown to the model", async () => {
  const world = await start();
  const sessionId = await newSession(world.sessions);
  await world.sessions.sendTurn({ sessionId, text: "wait 20s" });
  const { turn: waiting } = await world.sessions.sendTurn({ sessionId, text: "never", onBusy: OnBusy.ENQUEUE });
  await world.sessions.cancelTurn({ sessionId, turnId: waiting?.turnId ?? "" });
  await world.sessions.cancelTurn({ sessionId });
  await readEvents(world.sessions, sessionId, 0n, endsTurn());
  const { turn } = await world.sessions.sendTurn({ sessionId, text: "hello", onBusy: OnBusy.ENQUEUE });
  const events = await readEvents(world.sessions, sessionId, 0n, endsTurn(turn?.turnId));
  const { turns } = await world.sessions.listTurns({ sessionId });
  expect(turns.map(({ state }) => state)).toEqual([TurnState.CANCELLED, TurnState.CANCELLED, TurnState.SUCCEEDED]);
  // The stand-in counts what it reads: two messages of the user, not three.
  const tokens = (text: string): number => Math.ceil(Buffer.byteLength(text) / 3);
  const instructions = "You are a helpful assistant. Use the tools you have when they help.";
  expect(events.at(-1)?.body.value).toMatchObject({
    usage: { inputTokens: BigInt(tokens(instructions) + 8 + tokens("wait 20s") + 8 + tokens("hello")) },
  });
});

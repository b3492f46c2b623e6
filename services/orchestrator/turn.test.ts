import { setTimeout as delay } from "node:timers/promises";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { type SessionEvent, type TurnEnded, TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { OnBusy } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FakeTools } from "../../test/support/fake-tools.ts";
import {
  endsTurn,
  migrateOrchestrator,
  newSession,
  readEvents,
  reasonOf,
  shownText,
  startTestOrchestrator,
  type TestOrchestrator,
  testPrincipal,
} from "../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../test/support/postgres.ts";
import type { Model } from "./models/model.ts";
import { createScriptedModel } from "./models/scripted.ts";

let database: TestDatabase;
let world: TestOrchestrator;
const tools = new FakeTools()
  .add("echo", ({ arguments: { text } }) => `echo ${text}`)
  .add("slow", async ({ signal, print }) => {
    print("working");
    await delay(60_000, undefined, { signal });
    return "late";
  })
  .add("stubborn", () => delay(60_000, "never", { ref: false }))
  .add("broken", () => {
    throw new Error("no such thing");
  })
  .add("later", async ({ arguments: { ms, text } }) => {
    await delay(Number(ms));
    return `${text}`;
  });

beforeAll(async () => {
  database = await createTestDatabase();
  await migrateOrchestrator(database.url);
  world = await startTestOrchestrator({
    databaseUrl: database.url,
    tools,
    models: [createScriptedModel(), { ...createScriptedModel({ contextTokens: 2_000 }), name: "small" }],
    keepaliveMs: 200,
  });
});

afterAll(async () => {
  await world?.stop();
  await database?.drop();
});

/** Sends a turn and reads its events to its end. */
async function play(
  text: string,
  sessionId?: string,
  more: object = {},
): Promise<{ events: SessionEvent[]; ended: TurnEnded; sessionId: string; turnId: string }> {
  const session = sessionId ?? (await newSession(world.sessions));
  const { turn } = await world.sessions.sendTurn({ sessionId: session, text, ...more });
  const turnId = turn?.turnId ?? "";
  const events = await readEvents(world.sessions, session, turn?.afterSeq ?? 0n, endsTurn(turnId));
  return { events, ended: endOf(events), sessionId: session, turnId };
}

function endOf(events: readonly SessionEvent[]): TurnEnded {
  const last = events.at(-1)?.body;
  if (last?.case !== "turnEnded") throw new Error("the turn did not end");
  return last.value;
}

function types(events: readonly SessionEvent[]): string[] {
  return events.map(({ body }) => body.case ?? "").filter((type) => type !== "textDelta");
}

async function registerAgent(definition: object): Promise<string> {
  const name = `agent-${Math.random().toString(36).slice(2, 10)}`;
  await world.agents.registerAgent({ definition: { name, model: "scripted", ...definition } });
  return name;
}

describe("a turn", () => {
  test("is stored when it is answered, streams its text, and ends with the answer", async () => {
    const { events, ended, sessionId, turnId } = await play("say The weather is fine.");
    expect(events.map((event) => event.seq)).toEqual(events.map((_, index) => BigInt(index + 1)));
    expect(events[0]?.body.case).toBe("turnStarted");
    expect(shownText(events)).toBe("The weather is fine.");
    expect(ended).toMatchObject({ state: TurnState.SUCCEEDED, answer: "The weather is fine." });
    const stored = await world.sessions.getTurn({ sessionId, turnId });
    expect(stored.turn).toMatchObject({
      state: TurnState.SUCCEEDED,
      answer: "The weather is fine.",
      model: "scripted",
    });
    expect(await readEvents(world.sessions, sessionId, 0n, endsTurn())).toEqual(events);
  });

  test("calls the tool that the text names and answers with its result", async () => {
    const { events, ended, sessionId, turnId } = await play("echo: hello");
    expect(types(events)).toEqual(["turnStarted", "toolStarted", "toolEnded", "turnEnded"]);
    expect(ended.answer).toBe("echo says: echo hello");
    expect(ended.usage).toMatchObject({ modelCalls: 2, toolCalls: 1 });
    const { turn } = await world.sessions.getTurn({ sessionId, turnId });
    expect(turn?.toolCalls).toMatchObject([
      { tool: "echo", arguments: { text: "hello" }, result: { kind: { value: "echo hello" } } },
    ]);
    const { session } = await world.sessions.getSession({ sessionId });
    expect(session).toMatchObject({ busy: false, usage: { modelCalls: 2, toolCalls: 1 } });
  });

  test("runs parallel calls at once and gives the model their results in its order", async () => {
    const { events, ended } = await play(
      'call later {"ms":60,"text":"first"}\ncall later {"ms":1,"text":"second"}\nanswer',
    );
    const order = events.flatMap(({ body }) => (body.case === "toolEnded" ? [body.value.outcome.value] : []));
    expect(order).toMatchObject([{ kind: { value: "second" } }, { kind: { value: "first" } }]);
    expect(ended.answer).toBe("later says: second");
  });

  test("tells the model of errors, of tools that it was not given, and of arguments that are no JSON", async () => {
    const { events, ended } = await play('call broken {"text":"x"}\ncall missing {}\ncall echo not-json\nsay done');
    const errors = events.flatMap(({ body }) =>
      body.case === "toolEnded" && body.value.outcome.case === "error"
        ? [[body.value.tool, body.value.outcome.value.reason] as const]
        : [],
    );
    expect(errors.sort((a, b) => (a[0] < b[0] ? -1 : 1))).toEqual([
      ["broken", Reason.TOOL_FAILED],
      ["echo", Reason.TOOL_ARGUMENTS_INVALID],
      ["missing", Reason.TOOL_NOT_GRANTED],
    ]);
    expect(ended).toMatchObject({ state: TurnState.SUCCEEDED, answer: "done" });
  });

  test("tries a cut stream again and discards what it showed", async () => {
    const { events, ended } = await play("say half of\ncut\nsay  it");
    expect(types(events)).toEqual(["turnStarted", "attemptDiscarded", "turnEnded"]);
    expect(shownText(events)).toBe(ended.answer);
    expect(ended.answer).toBe("half ofit");
  });

  test("fails with the reason when the model does", async () => {
    const { ended } = await play("fail the provider is down");
    expect(ended).toMatchObject({
      state: TurnState.FAILED,
      error: { reason: Reason.MODEL_FAILED, message: "the provider is down" },
    });
  });
});

describe("limits", () => {
  test("end a turn that asks for tools too often", async () => {
    const agent = await registerAgent({ tools: ["echo"], limits: { maxToolRounds: 1 } });
    const { ended } = await play(
      'call echo {"text":"1"}\nsay on\ncall echo {"text":"2"}\nsay done',
      await newSession(world.sessions, agent),
    );
    expect(ended).toMatchObject({ state: TurnState.FAILED, error: { reason: Reason.TURN_LIMIT } });
  });

  test("end a turn that uses too many tokens", async () => {
    const agent = await registerAgent({ tools: ["echo"], limits: { maxTokens: 10n } });
    const { ended } = await play('call echo {"text":"1"}\nsay done', await newSession(world.sessions, agent));
    expect(ended.error?.reason).toBe(Reason.TURN_LIMIT);
  });

  test("end a turn that takes too long, also within a tool", async () => {
    const agent = await registerAgent({
      tools: ["slow"],
      limits: { maxDuration: { seconds: 0n, nanos: 300_000_000 } },
    });
    const { events, ended } = await play("call slow {}", await newSession(world.sessions, agent));
    expect(ended.error?.reason).toBe(Reason.TURN_LIMIT);
    expect(types(events)).toEqual(["turnStarted", "toolStarted", "toolDelta", "toolEnded", "turnEnded"]);
  });

  test("of the org refuse sessions and turns, and name the limit", async () => {
    // A database of its own: the owner of a session keeps the limits, and that would be the other process.
    const own = await createTestDatabase();
    await migrateOrchestrator(own.url);
    const limited = await startTestOrchestrator(
      { databaseUrl: own.url, limits: { sessions: 1, concurrent_turns: 1 } },
      testPrincipal(),
    );
    try {
      const sessionId = await newSession(limited.sessions);
      expect(await reasonOf(limited.sessions.createSession({}))).toBe("LIMIT_EXCEEDED");
      const { turn } = await limited.sessions.sendTurn({ sessionId, text: "wait 2s" });
      expect(await reasonOf(limited.sessions.sendTurn({ sessionId, text: "x", onBusy: OnBusy.ENQUEUE }))).toBe(
        "LIMIT_EXCEEDED",
      );
      await limited.sessions.cancelTurn({ sessionId, turnId: turn?.turnId ?? "" });
    } finally {
      await limited.stop();
      await own.drop();
    }
  });
});

describe("the context", () => {
  test("is cut by leaving out the oldest turns, and says so", async () => {
    const agent = await registerAgent({ model: "small" });
    const sessionId = await newSession(world.sessions, agent);
    await play(`say ${"a".repeat(1_150)}`, sessionId);
    const second = await play(`say ${"b".repeat(1_150)}`, sessionId);
    expect(types(second.events)).not.toContain("contextTrimmed");
    const third = await play("say third", sessionId);
    const trimmed = third.events.flatMap(({ body }) =>
      body.case === "contextTrimmed" ? [body.value.turnsLeftOut] : [],
    );
    expect(trimmed).toEqual([1]);
    expect(third.ended.answer).toBe("third");
  });

  test("ends the turn when it alone does not fit", async () => {
    const agent = await registerAgent({ model: "small" });
    const { ended } = await play("x".repeat(20_000), await newSession(world.sessions, agent));
    expect(ended.error?.reason).toBe(Reason.TURN_LIMIT);
  });
});

describe("an answer held to a schema", () => {
  const answerSchema = { type: "object", required: ["n"], properties: { n: { type: "number" } } };

  test("is given when it matches", async () => {
    const { ended } = await play('say {"n":1}', undefined, { answerSchema });
    expect(ended).toMatchObject({ state: TurnState.SUCCEEDED, answer: '{"n":1}' });
  });

  test("gets one round of repair, then the turn fails", async () => {
    const { ended, sessionId, turnId } = await play('say {"n":"one"}', undefined, { answerSchema });
    expect(ended.usage?.modelCalls).toBe(2);
    // The scripted model has no script in the repair, and makes an example of the schema.
    expect(ended).toMatchObject({ state: TurnState.SUCCEEDED, answer: '{"n":0}' });
    expect((await world.sessions.getTurn({ sessionId, turnId })).turn?.answer).toBe('{"n":0}');
    const impossible = { type: "string", pattern: "^never$" };
    const failed = await play("say no", undefined, { answerSchema: impossible });
    expect(failed.ended).toMatchObject({ state: TurnState.FAILED, error: { reason: Reason.ANSWER_INVALID } });
    expect(failed.ended.usage?.modelCalls).toBe(2);
  });

  test("is refused at once when the schema is none", async () => {
    const sessionId = await newSession(world.sessions);
    expect(await reasonOf(world.sessions.sendTurn({ sessionId, text: "x", answerSchema: { type: "nothing" } }))).toBe(
      "INVALID_SCHEMA",
    );
  });
});

describe("a message while a turn runs", () => {
  test("is refused by default", async () => {
    const sessionId = await newSession(world.sessions);
    await world.sessions.sendTurn({ sessionId, text: "wait 1s" });
    expect(await reasonOf(world.sessions.sendTurn({ sessionId, text: "x" }))).toBe("SESSION_BUSY");
    await world.sessions.cancelTurn({ sessionId });
  });

  test("waits for its turn with enqueue, at most as many as the limit", async () => {
    const sessionId = await newSession(world.sessions);
    await world.sessions.sendTurn({ sessionId, text: "wait 2s\nsay first" });
    for (let index = 0; index < 16; index += 1) {
      await world.sessions.sendTurn({ sessionId, text: `say ${index}`, onBusy: OnBusy.ENQUEUE });
    }
    expect(await reasonOf(world.sessions.sendTurn({ sessionId, text: "x", onBusy: OnBusy.ENQUEUE }))).toBe(
      "LIMIT_EXCEEDED",
    );
    let ended = 0;
    const events = await readEvents(
      world.sessions,
      sessionId,
      0n,
      (event) => event.body.case === "turnEnded" && ++ended === 17,
    );
    const answers = events.flatMap(({ body }) => (body.case === "turnEnded" ? [body.value.answer] : []));
    expect(answers).toEqual(["first", ...Array.from({ length: 16 }, (_, index) => `${index}`)]);
  });

  test("cancels those before it with interrupt", async () => {
    const sessionId = await newSession(world.sessions);
    await world.sessions.sendTurn({ sessionId, text: "call slow {}" });
    await readEvents(world.sessions, sessionId, 0n, (event) => event.body.case === "toolDelta");
    await world.sessions.sendTurn({ sessionId, text: "say waiting", onBusy: OnBusy.ENQUEUE });
    const { turn } = await world.sessions.sendTurn({ sessionId, text: "say now", onBusy: OnBusy.INTERRUPT });
    const events = await readEvents(world.sessions, sessionId, 0n, endsTurn(turn?.turnId));
    const states = events.flatMap(({ body }) => (body.case === "turnEnded" ? [body.value.state] : []));
    expect(states).toEqual([TurnState.CANCELLED, TurnState.CANCELLED, TurnState.SUCCEEDED]);
    const { turns } = await world.sessions.listTurns({ sessionId });
    expect(turns.map(({ state }) => state)).toEqual(states);
  });

  test("leaves the last turn out of what the model is shown with rollback, whether it runs or not", async () => {
    const scripted = createScriptedModel();
    const shown: string[] = [];
    const recording: Model = {
      ...scripted,
      stream: (request, signal) => {
        shown.push(request.messages.map((message) => ("text" in message ? message.text : "")).join("|"));
        return scripted.stream(request, signal);
      },
    };
    const apart = await createTestDatabase();
    await migrateOrchestrator(apart.url);
    const own = await startTestOrchestrator({ databaseUrl: apart.url, models: [recording] });
    const principal = testPrincipal();
    const sessions = own.as(principal);
    try {
      const sessionId = await newSession(sessions);
      const send = async (text: string, onBusy = OnBusy.REJECT) => {
        const { turn } = await sessions.sendTurn({ sessionId, text, onBusy });
        return turn;
      };
      const end = async (turnId: string | undefined) => readEvents(sessions, sessionId, 0n, endsTurn(turnId));
      await end((await send("say one"))?.turnId);
      await end((await send("say two"))?.turnId);
      await end((await send("say three", OnBusy.ROLLBACK))?.turnId);
      await send("wait 10s");
      const last = await send("say four", OnBusy.ROLLBACK);
      const events = await end(last?.turnId);
      expect(events.flatMap(({ body }) => (body.case === "turnEnded" ? [body.value.state] : [])).slice(-2)).toEqual([
        TurnState.CANCELLED,
        TurnState.SUCCEEDED,
      ]);
      expect(shown.at(2)).toBe("say one|one|say three");
      expect(shown.at(-1)).toBe("say one|one|say three|three|say four");
      // Another process reads the same from what is stored.
      await own.stop();
      const next = await startTestOrchestrator({ databaseUrl: apart.url, models: [recording] });
      try {
        const { turn } = await next.as(principal).sendTurn({ sessionId, text: "say five" });
        await readEvents(next.as(principal), sessionId, 0n, endsTurn(turn?.turnId));
        expect(shown.at(-1)).toBe("say one|one|say three|three|say four|four|say five");
      } finally {
        await next.stop();
      }
    } finally {
      await own.stop();
      await apart.drop();
    }
  });
});

describe("cancelling", () => {
  test("reaches the tool, ends the turn once, and starts nothing afterwards", async () => {
    const sessionId = await newSession(world.sessions);
    await world.sessions.sendTurn({ sessionId, text: "call slow {}\nsay never" });
    await readEvents(world.sessions, sessionId, 0n, (event) => event.body.case === "toolDelta");
    const requests = tools.requests.length;
    const { turns } = await world.sessions.cancelTurn({ sessionId });
    expect(turns).toMatchObject([{ state: TurnState.RUNNING }]);
    const events = await readEvents(world.sessions, sessionId, 0n, endsTurn());
    expect(endOf(events)).toMatchObject({ state: TurnState.CANCELLED, toolsMayStillRun: [] });
    expect(types(events)).toEqual(["turnStarted", "toolStarted", "toolDelta", "toolEnded", "turnEnded"]);
    expect(tools.requests.length).toBe(requests);
    expect((await world.sessions.cancelTurn({ sessionId })).turns).toEqual([]);
  });

  test("names a tool that does not end", async () => {
    const sessionId = await newSession(world.sessions);
    await world.sessions.sendTurn({ sessionId, text: "call stubborn {}" });
    await readEvents(world.sessions, sessionId, 0n, (event) => event.body.case === "toolStarted");
    await expect.poll(() => tools.begun.length).toBeGreaterThan(0);
    await world.sessions.cancelTurn({ sessionId });
    // The tool would go on for a minute.
    const events = await readEvents(world.sessions, sessionId, 0n, endsTurn());
    expect(endOf(events).toolsMayStillRun).toEqual(["stubborn"]);
  });

  test("races the end of 60 turns, and each has one end", async () => {
    const sessionIds = await Promise.all(Array.from({ length: 60 }, () => newSession(world.sessions)));
    await Promise.all(
      sessionIds.map(async (sessionId, index) => {
        const text = index % 2 === 0 ? "say a b c d" : 'call later {"ms":5,"text":"x"}\nsay done';
        const { turn } = await world.sessions.sendTurn({ sessionId, text });
        await delay(index / 3);
        await Promise.all([world.sessions.cancelTurn({ sessionId }), world.sessions.cancelTurn({ sessionId })]);
        const events = await readEvents(world.sessions, sessionId, 0n, endsTurn(turn?.turnId));
        await delay(30);
        const all = await readEvents(world.sessions, sessionId, 0n, (event) => event.seq >= (events.at(-1)?.seq ?? 0n));
        expect(all.filter(({ body }) => body.case === "turnEnded")).toHaveLength(1);
        const { session } = await world.sessions.getSession({ sessionId });
        expect(session).toMatchObject({ lastSeq: BigInt(all.length), busy: false });
      }),
    );
  });

  test("of an unknown turn says so", async () => {
    const sessionId = await newSession(world.sessions);
    expect(await reasonOf(world.sessions.cancelTurn({ sessionId, turnId: "run_01hzy000000000000000000000" }))).toBe(
      "TURN_NOT_FOUND",
    );
  });
});

describe("a key", () => {
  test("makes 50 equal requests one turn, and refuses another request", async () => {
    const sessionId = await newSession(world.sessions);
    const headers = { "idempotency-key": "k1" };
    const replies = await Promise.all(
      Array.from({ length: 50 }, () => world.sessions.sendTurn({ sessionId, text: "say hi" }, { headers })),
    );
    expect(new Set(replies.map(({ turn }) => turn?.turnId)).size).toBe(1);
    expect(await reasonOf(world.sessions.sendTurn({ sessionId, text: "say ho" }, { headers }))).toBe(
      "IDEMPOTENCY_KEY_REUSED",
    );
    expect((await world.sessions.listTurns({ sessionId })).turns).toHaveLength(1);
    const [a, b] = await Promise.all(
      [1, 2].map(() => world.sessions.createSession({ title: "t" }, { headers: { "idempotency-key": "k2" } })),
    );
    expect(a?.session?.sessionId).toBe(b?.session?.sessionId);
  });
});

describe("a session", () => {
  test("of another org is not found, whatever is asked", async () => {
    const { sessionId, turnId } = await play("say mine");
    const other = world.as(testPrincipal());
    const unknown = "ses_01hzy000000000000000000000";
    for (const id of [sessionId, unknown]) {
      expect(await reasonOf(other.getSession({ sessionId: id }))).toBe("SESSION_NOT_FOUND");
      expect(await reasonOf(other.sendTurn({ sessionId: id, text: "x" }))).toBe("SESSION_NOT_FOUND");
      expect(await reasonOf(other.getTurn({ sessionId: id, turnId }))).toBe("SESSION_NOT_FOUND");
      expect(await reasonOf(other.listTurns({ sessionId: id }))).toBe("SESSION_NOT_FOUND");
      expect(await reasonOf(other.cancelTurn({ sessionId: id }))).toBe("SESSION_NOT_FOUND");
      expect(await reasonOf(other.deleteSession({ sessionId: id }))).toBe("SESSION_NOT_FOUND");
      expect(await reasonOf(readEvents(other, id, 0n, () => true))).toBe("SESSION_NOT_FOUND");
    }
    expect((await other.listSessions({})).sessions).toEqual([]);
  });

  test("is listed newest first, in pages", async () => {
    const mine = world.as(testPrincipal());
    const ids: string[] = [];
    for (let index = 0; index < 5; index += 1) ids.unshift(await newSession(mine));
    const first = await mine.listSessions({ pageSize: 3 });
    const second = await mine.listSessions({ pageSize: 3, pageToken: first.nextPageToken });
    expect([...first.sessions, ...second.sessions].map(({ sessionId }) => sessionId)).toEqual(ids);
    expect(second.nextPageToken).toBe("");
  });

  test("is deleted with the turn that runs, and its readers are told", async () => {
    const sessionId = await newSession(world.sessions);
    await world.sessions.sendTurn({ sessionId, text: "call slow {}" });
    const reading = reasonOf(readEvents(world.sessions, sessionId, 0n, () => false));
    await readEvents(world.sessions, sessionId, 0n, (event) => event.body.case === "toolDelta");
    await world.sessions.deleteSession({ sessionId });
    expect(await reading).toBe("SESSION_DELETED");
    expect(await reasonOf(world.sessions.getSession({ sessionId }))).toBe("SESSION_NOT_FOUND");
    expect(await reasonOf(world.sessions.deleteSession({ sessionId }))).toBe("SESSION_NOT_FOUND");
    expect(await reasonOf(world.sessions.sendTurn({ sessionId, text: "x" }))).toBe("SESSION_NOT_FOUND");
  });

  test("stream sends keepalives", async () => {
    const sessionId = await newSession(world.sessions);
    for await (const { event } of world.sessions.streamEvents({ sessionId })) {
      expect(event).toBeUndefined();
      break;
    }
  });
});

test("200 sessions at once have events without a gap, live and from the table", async () => {
  const mine = world.as(testPrincipal());
  await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const sessionId = await newSession(mine);
      const live = readEvents(mine, sessionId, 0n, endsTurn());
      await mine.sendTurn({ sessionId, text: index % 2 === 0 ? "say one two three" : "echo: hello" });
      const events = await live;
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, place) => BigInt(place + 1)));
      expect(await readEvents(mine, sessionId, 0n, endsTurn())).toEqual(events);
    }),
  );
});

test("a principal that may act no more ends the turn before its next step", async () => {
  const principal = testPrincipal();
  const revoked = new Set<string>();
  const own = await createTestDatabase();
  await migrateOrchestrator(own.url);
  const other = await startTestOrchestrator({ databaseUrl: own.url, revoked, tools }, principal);
  try {
    const sessionId = await newSession(other.sessions);
    await other.sessions.sendTurn({ sessionId, text: 'call later {"ms":200,"text":"x"}\nsay never' });
    await readEvents(other.sessions, sessionId, 0n, (event) => event.body.case === "toolStarted");
    revoked.add(principal.subject);
    const events = await readEvents(other.sessions, sessionId, 0n, endsTurn());
    expect(types(events)).toEqual(["turnStarted", "toolStarted", "toolEnded", "turnEnded"]);
    expect(endOf(events).error?.reason).toBe(Reason.PRINCIPAL_REVOKED);
  } finally {
    await other.stop();
    await own.drop();
  }
});

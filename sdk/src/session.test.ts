import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { z } from "zod";
import { createFakeSessionService, fakeSessionId } from "../../test/support/fake-session-service.ts";
import { collectText, createCadre } from "./index.ts";

function setUp() {
  const service = createFakeSessionService();
  const transport = createRouterTransport((router) => router.service(SessionService, service.handlers));
  return { service, cadre: createCadre({ baseUrl: "http://fake", transport, retry: { initialDelayMs: 0 } }) };
}

const delta = (stepId: string, attempt: number, text: string) =>
  ({ case: "textDelta", value: { stepId, attempt, text } }) as const;
const discarded = (stepId: string, attempt: number) =>
  ({ case: "attemptDiscarded", value: { stepId, attempt } }) as const;
const ended = (answer: string) => ({ case: "turnEnded", value: { state: TurnState.SUCCEEDED, answer } }) as const;

test("a stream of a turn ends with the turn, and leaves other turns' events out", async () => {
  const { service, cadre } = setUp();
  service.append(delta("stp_old", 1, "of another turn"));
  service.onSend = () => service.append(delta("stp_1", 1, "Hel"), delta("stp_1", 1, "lo"), ended("Hello"));
  const session = await cadre.sessions.create();
  expect(await collectText(session.stream("hi"))).toBe("Hello");
  await expect.poll(() => service.open).toBe(0);
});

test("text of a discarded attempt is taken out again", async () => {
  const { service, cadre } = setUp();
  service.onSend = () =>
    service.append(
      delta("stp_1", 1, "Let me "),
      delta("stp_2", 1, "wrong"),
      discarded("stp_2", 1),
      delta("stp_2", 2, "see."),
      ended("see."),
    );
  expect(await collectText(cadre.sessions.stream(fakeSessionId, "hi"))).toBe("Let me see.");
});

test("a turn's outcome is a value; its answer throws the reason of a failure", async () => {
  const { service, cadre } = setUp();
  service.onSend = () => {
    const error = { reason: Reason.TURN_LIMIT, message: "too many rounds" };
    service.append({ case: "turnEnded", value: { state: TurnState.FAILED, error } });
  };
  const turn = await cadre.sessions.send(fakeSessionId, "loop");
  expect(await turn.outcome()).toMatchObject({ state: "failed", reason: "TURN_LIMIT", message: "too many rounds" });
  await expect(turn.answer()).rejects.toMatchObject({ reason: "TURN_LIMIT" });
});

test("a message whose answer was lost is sent again under the same key, and stored once", async () => {
  const { service, cadre } = setUp();
  let stored = 0;
  service.onSend = () => {
    stored += 1;
  };
  const lost = () => new ConnectError("reset", Code.Unavailable);
  service.failSends(lost(), lost());
  await cadre.sessions.send(fakeSessionId, "hi");
  await cadre.sessions.send(fakeSessionId, "hi");
  const [first, second, third, other] = service.keys;
  expect(service.keys).toHaveLength(4);
  expect(first).toMatch(/^[0-9a-f]{32}$/);
  expect([second, third]).toEqual([first, first]);
  expect(other).not.toBe(first);
  expect(stored).toBe(2);
});

test("an answer schema may be a validator", async () => {
  const { service, cadre } = setUp();
  let schema: unknown;
  service.onSend = (_, request) => {
    schema = request.answerSchema;
  };
  await cadre.sessions.send(fakeSessionId, "hi", { answerSchema: z.object({ total: z.number() }) });
  expect(schema).toMatchObject({ type: "object", properties: { total: { type: "number" } }, required: ["total"] });
});

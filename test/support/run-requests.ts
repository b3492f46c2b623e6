import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { RunChange, type RunChanged } from "@cadre/gen/cadre/events/v1/run_pb";
import { RunRequestedSchema } from "@cadre/gen/cadre/events/v1/run_request_pb";
import type { SignedRunRequest } from "@cadre/sdk";
import type { BusEvent, EventBus } from "../../services/runtime/bus/event-bus.ts";
import { agentRuns, agentRunsRequested } from "../../services/runtime/bus/topics.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { until } from "./settled.ts";
import { codec } from "./turn-facts.ts";

/** What a client that has only the broker says with a signed request. */
export type RequestFact = Pick<SignedRunRequest, "orgId" | "request" | "token"> & {
  readonly requestId?: string;
  readonly traceparent?: string;
};

/** The event of a request. */
export function requestEvent(said: RequestFact): Promise<BusEvent> {
  const { orgId, request, token, requestId = newId("req"), traceparent = "" } = said;
  const fact = create(RunRequestedSchema, {
    metadata: { eventId: newId("evt"), seq: 1n, at: timestampNow(), orgId, requestId },
    request,
    token,
  });
  return codec.encode(agentRunsRequested, fact, { orgId, traceparent });
}

/** What is told of runs on the bus, read from its beginning. */
export interface ToldRuns {
  /** The facts of a request's run so far. */
  of(requestId: string): readonly RunChanged[];
  /** Resolves with the last fact of a request's run. */
  ended(requestId: string): Promise<RunChanged>;
}

/** Follows `agent.runs.v1` as a group of its own. */
export function followRuns(bus: EventBus, group: string): ToldRuns {
  const facts: RunChanged[] = [];
  bus.subscribe({
    topic: agentRuns.name,
    group,
    handle: async (event) => void facts.push(await codec.decode(agentRuns, event)),
  });
  const of = (requestId: string) => facts.filter(({ metadata }) => metadata?.requestId === requestId);
  return {
    of,
    async ended(requestId) {
      const last = () => of(requestId).find(({ change }) => change !== RunChange.STARTED);
      await until(async () => last() !== undefined);
      return last() as RunChanged;
    },
  };
}

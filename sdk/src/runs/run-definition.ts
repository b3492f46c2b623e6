import { fromJson, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import type { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import type { StartRunRequestSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { type JsonValue, toJsonValue } from "../json.ts";

declare const graphTypes: unique symbol;

/** A graph, as `graph()` builds it or as a message; it may know the types of its input and output. */
export type RunGraph<Input = JsonValue, Output = JsonValue> = MessageInitShape<typeof GraphSchema> & {
  /** Never there; carries the types. */
  readonly [graphTypes]?: (input: Input) => Output;
};

/** What ends a run early. */
export interface RunBudgetOptions {
  /** How many steps it may begin, elements, rounds of agents and retries included; 10,000 unless said. */
  readonly maxSteps?: number;
  /** How long it may take from its start, waiting included, in milliseconds; 24 hours unless said. */
  readonly maxDurationMs?: number;
}

/** What to run, and with what. */
export type RunDefinition<Input = JsonValue, Output = JsonValue> = (
  | {
      /** The name of an agent that has a graph. */
      readonly agent: string;
      readonly graph?: undefined;
    }
  | {
      readonly agent?: undefined;
      /** The graph itself. */
      readonly graph: RunGraph<Input, Output>;
    }
) & {
  /** What the run is given; at most 1 MiB as JSON. `null` unless said. */
  readonly input?: Input;
  /** The caller's own marks; at most 32 of 64 and 256 characters. */
  readonly labels?: Readonly<Record<string, string>>;
  /** What ends it early. */
  readonly budget?: RunBudgetOptions;
};

/** The request's message. */
export function toStartRequest<I, O>(definition: RunDefinition<I, O>): MessageInitShape<typeof StartRunRequestSchema> {
  const { agent, graph, input, labels = {}, budget = {} } = definition;
  const { maxSteps = 0, maxDurationMs } = budget;
  return {
    definition: graph === undefined ? { case: "agent", value: agent ?? "" } : { case: "graph", value: graph },
    input: toValueMessage(input),
    labels: { ...labels },
    budget: {
      maxSteps,
      ...(maxDurationMs === undefined ? {} : { maxDuration: durationFromMs(maxDurationMs) }),
    },
  };
}

/** A value as a message holds it, by the rules of `JSON.stringify`. @throws TypeError if it has no JSON */
export function toValueMessage(value: unknown): Value {
  return fromJson(ValueSchema, toJsonValue(value));
}

import type { MessageInitShape } from "@bufbuild/protobuf";
import { fromJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import type { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";

type Graph = MessageInitShape<typeof GraphSchema>;

/** Steps, one after the other, each of which hands what the one before it returned to a tool that returns it. */
export function chainOf(tool: string, steps: number): Graph {
  return {
    name: "chain",
    steps: Array.from({ length: steps }, (_, index) => {
      const before = index === 0 ? "input" : `steps.step_${index}.output`;
      const task = { tool, arguments: { text: { $ref: `${before}.text` }, step: index + 1 } };
      return { name: `step_${index + 1}`, task: { case: "tool", value: task } } as const;
    }),
    output: fromJson(ValueSchema, { $ref: `steps.step_${steps}.output` }),
  };
}

/** One step that waits for a message that never comes. */
export const waiting: Graph = {
  name: "waiting",
  steps: [{ name: "wait", task: { case: "signal", value: { signal: "never" } } }],
};

/** How many timers a run of `sleeping` has. */
export const timersEach = 2;

/** Steps beside each other that wait for a time that is far away. */
export const sleeping: Graph = {
  name: "sleeping",
  steps: Array.from({ length: timersEach }, (_, index) => ({
    name: `sleep_${index + 1}`,
    task: { case: "timer", value: { due: { case: "duration", value: { seconds: 43_200n } } } },
  })),
};

import { fromBinary } from "@bufbuild/protobuf";
import { RunState, StartRunResponseSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { valueOf } from "@cadre/sdk";

/** How an answer reads: the last step's output as JSON, or Cadre's `StartRunResponse`. */
export type AnswerKind = "JSON" | "StartRunResponse";

/** @throws Error unless the answer says that the run did all of its steps */
export function assertDone(kind: AnswerKind, steps: number, body: Uint8Array): void {
  const output = kind === "JSON" ? JSON.parse(new TextDecoder().decode(body)) : outputOfRun(body);
  if (typeof output !== "object" || output === null || !("step" in output) || output.step !== steps) {
    throw new Error(`the run gave ${JSON.stringify(output)}, not the output of step ${steps}`);
  }
}

function outputOfRun(body: Uint8Array): unknown {
  const { run } = fromBinary(StartRunResponseSchema, body);
  if (run?.state !== RunState.SUCCEEDED || run.output === undefined) {
    const state = run === undefined ? "absent" : RunState[run.state];
    throw new Error(`the run is ${state}: ${run?.error?.message ?? "no error was given"}`);
  }
  return valueOf(run.output);
}
